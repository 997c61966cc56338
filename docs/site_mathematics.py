r"""MkDocs hook: formulas become MathML when the site is built, so that a browser draws them without any script.

The Markdown is what GitHub renders as well: $...$ within a line, $$...$$ on lines of its own.
"""

from __future__ import annotations

import html
import re
from typing import Any

from latex2mathml.converter import convert

FORMULA = re.compile(r'<(span|div) class="arithmatex">\\([(\[])(.*?)\\[)\]]</\1>', re.DOTALL)


def on_page_content(content: str, **_: Any) -> str:
    return FORMULA.sub(_mathml, content)


def _mathml(formula: re.Match[str]) -> str:
    element, bracket, latex = formula.groups()
    display = "block" if bracket == "[" else "inline"
    return f'<{element} class="formula">{convert(html.unescape(latex).strip(), display=display)}</{element}>'
