"""MkDocs hook: every link, anchor and picture of the built site leads somewhere within it, and nothing is loaded from elsewhere.

`mkdocs build --strict` fails where one does not. Links that a reader may follow to the web (<a href="https://...">) are not tried:
a build needs no network.
"""

from __future__ import annotations

import logging
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urldefrag

log = logging.getLogger("mkdocs.hooks.site_links")

LOADED = {"src", "srcset", "poster", "data", "action", "xlink:href"}  # attributes whose address a browser fetches by itself
STYLE_URL = re.compile(r"""url\(\s*['"]?([^'")]+)|@import\s+['"]([^'"]+)""")
ELSEWHERE = re.compile(r"(?:[a-z][a-z0-9+.-]*:)?//", re.IGNORECASE)
PLAIN = re.compile(r"(data|mailto|javascript):")


def on_post_build(*, config: Any, **_: Any) -> None:
    pages, problems = faults(Path(config.site_dir))
    for problem in problems:
        log.warning(problem)
    log.info(f"{pages} built pages checked: links, anchors, pictures, nothing loaded from elsewhere")


class Page(HTMLParser):
    """The anchors of a page, what it links to, and what it loads."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.links: list[str] = []
        self.loads: list[str] = []
        self._in_style = False
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self._in_style = tag == "style"
        for name, value in attributes:
            if name == "id" or (tag == "a" and name == "name"):
                self.anchors.add(value or "")
            elif name == "href" and value is not None:
                (self.links if tag == "a" else self.loads).append(value)
            elif name == "srcset" and value:
                self.loads += [part.split()[0] for part in value.split(",")]
            elif name in LOADED and value:
                self.loads.append(value)
            elif name == "style" and value:
                self.loads += style_urls(value)

    def handle_data(self, text: str) -> None:
        if self._in_style:
            self.loads += style_urls(text)


def style_urls(text: str) -> list[str]:
    return [first or second for first, second in STYLE_URL.findall(text)]


def faults(site: Path) -> tuple[int, list[str]]:
    """The number of pages below `site`, and a line for every link and load that fails."""
    site = site.resolve()
    pages = {path: Page(path.read_text()) for path in sorted(site.rglob("*.html"))}
    problems = []
    for path, page in pages.items():
        loaded = [(address, _fault(address, path, site, pages, loads=True)) for address in page.loads]
        linked = [(address, _fault(address, path, site, pages, loads=False)) for address in page.links]
        problems += [f"{path.relative_to(site)}: {address!r} {fault}" for address, fault in [*loaded, *linked] if fault]
    for path in sorted(site.rglob("*.css")):
        loaded = [(address, _fault(address, path, site, pages, loads=True)) for address in style_urls(path.read_text())]
        problems += [f"{path.relative_to(site)}: {address!r} {fault}" for address, fault in loaded if fault]
    return len(pages), problems


def _fault(address: str, source: Path, site: Path, pages: dict[Path, Page], *, loads: bool) -> str | None:
    if PLAIN.match(address):
        return None
    if ELSEWHERE.match(address):
        return "is loaded from elsewhere" if loads else None
    path, anchor = urldefrag(address)
    start = site if path.startswith("/") else source.parent
    target = (start / unquote(path).lstrip("/")).resolve() if path else source
    if target.is_dir():
        target /= "index.html"
    if not target.exists():
        return "leads nowhere"
    if anchor and target in pages and unquote(anchor) not in pages[target].anchors:
        return "names an anchor that the page lacks"
    return None
