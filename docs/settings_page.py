"""The page of all settings, settings.md: written from the configuration, its docstrings and the presets, and held to them by a test.

    python docs/settings_page.py
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import re
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from reconverge.launch.config import RunConfig
from reconverge.launch.config_file import flat
from reconverge.launch.presets import PRESETS

PAGE = Path(__file__).resolve().parent / "settings.md"
MOST_VALUES = 12  # of a list that is shown whole
HEAD = """# Settings

Every setting of a run with its meaning, the default that it has in code, and what a preset has instead; an empty cell is the default.

Each is a flag of `reconverge train` and `reconverge sweep` and a key of `config.yaml`, and can be varied:
`reconverge sweep --vary train.replay_weight=1,3,10`. Several values are given as `--policy.relative-scales-m 0.05 0.01`, none as the flag alone, in
`--vary` as `policy.relative_scales_m=[]`. Help explains all settings whole, with the values of a preset: `reconverge train --preset cw10 --help`.
`--print-config` prints what a command would use. `sweep` runs on one thread
unless `--threads` says otherwise; `collect` and `export-demonstrations` take the settings of the demonstrations without their prefix.
`python docs/settings_page.py` writes this page.
"""


def page() -> str:
    return "\n".join([HEAD, *_sections(RunConfig(), "", "")])


def _sections(config: Any, prefix: str, about: str) -> list[str]:
    """The table of a configuration's own settings, then those of the configurations in it."""
    meanings, choices = meanings_of(type(config)), choices_of(type(config))
    inner = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
    own = {f"{prefix}{name}": f"{meanings[name]}{choices[name]}" for name, value in inner.items() if not dataclasses.is_dataclass(value)}
    lines = [f"## {prefix.rstrip('.') or 'The run'}\n", *([f"{about}\n"] if about else []), f"{_table(own)}\n"]
    for name, value in inner.items():
        if dataclasses.is_dataclass(value):
            lines += _sections(value, f"{prefix}{name}.", meanings.get(name, ""))
    return lines


def _table(meanings: dict[str, str]) -> str:
    usual = flat(RunConfig())
    presets = {name: flat(preset.config) for name, preset in PRESETS.items()}
    differing = [name for name, settings in presets.items() if any(settings[key] != usual[key] for key in meanings)]
    rows = [["setting", "meaning", "default", *(f"`{name}`" for name in differing)]]
    rows.append(["---"] * len(rows[0]))
    for key, meaning in meanings.items():
        others = [_in_words(presets[name][key]) if presets[name][key] != usual[key] else "" for name in differing]
        rows.append([f"`--{key.replace('_', '-')}`", meaning, _in_words(usual[key]), *others])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def meanings_of(kind: type) -> dict[str, str]:
    """Field -> the first sentence of the docstring below it, as Markdown."""
    body = ast.parse(inspect.getsource(kind)).body[0].body  # type: ignore[attr-defined]
    found = {}
    for field, text in pairwise(body):
        if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant):
            found[ast.unparse(field.target)] = _markdown(re.split(r"(?<=\.)\s+(?=[A-Z`]|\d+ [a-z])", inspect.cleandoc(text.value.value))[0])
    return found


def choices_of(kind: type) -> dict[str, str]:
    """Field -> the values that it takes, as words to append to its meaning; nothing where they are no few names."""
    hints = get_type_hints(kind)
    named = {name: ", ".join(f"`{value}`" for value in get_args(hint)) for name, hint in hints.items() if get_origin(hint) is Literal}
    return {name: f" One of {named[name]}." if name in named else "" for name in hints}


def _markdown(sentence: str) -> str:
    """A sentence in which no sign outside of code is taken for markup, and none ends a cell."""
    parts = re.split(r"(`[^`]*`)", " ".join(sentence.split()))
    return "".join(part if part.startswith("`") else re.sub(r"([*_<|])", r"\\\1", part) for part in parts)


def _in_words(value: Any) -> str:
    if not isinstance(value, tuple):
        return str(value)
    if len(value) > MOST_VALUES:
        return f"{value[0]} {value[1]} ... {value[-1]}, {len(value)} values"
    return " ".join(map(str, value)) or "none"


def main() -> int:
    PAGE.write_text(page(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
