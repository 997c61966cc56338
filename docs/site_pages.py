"""MkDocs hook: pages from the repository's root, and links that hold in the repository made to hold on the site.

    README.md                          index.md          docs/mathematics.md     mathematics.md
    [mathematics](docs/mathematics.md)    [mathematics](mathematics.md)
    [`results/cw10`](../results/cw10)  `results/cw10`    the site does not hold it: the words stay, the link goes
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parent.parent
PAGES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "CITATION.cff": "citation.md",
    "LICENSE": "licence.md",
}
TITLES = {"CITATION.cff": "Citation", "LICENSE": "Licence"}
LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s#]*)(#[^)\s]*)?\)")


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    for name, page in PAGES.items():
        text = (ROOT / name).read_text()
        if name in TITLES:
            text = f"# {TITLES[name]}\n\n```text\n{text}```\n"
        files.append(File.generated(config, page, content=text))
    return files


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    here = page.file.src_uri
    source = {site: name for name, site in PAGES.items()}.get(here, f"docs/{here}")
    return LINK.sub(lambda link: _on_site(link, source, here, files), markdown)


def _on_site(link: re.Match[str], source: str, here: str, files: Files) -> str:
    mark, words, path, anchor = link.groups()
    target = posixpath.normpath(posixpath.join(posixpath.dirname(source), path))
    if not path or not (ROOT / target).exists():
        return link[0]
    page = PAGES.get(target, target.removeprefix("docs/"))
    if files.get_file_from_path(page) is None or (page == target and page not in PAGES.values()):
        return words
    return f"{mark}[{words}]({posixpath.relpath(page, posixpath.dirname(here) or '.')}{anchor or ''})"
