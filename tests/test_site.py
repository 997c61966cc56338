"""The documentation's site: the check of its links finds what is broken, its pins are exact, its figures are those that the code computes."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from docs_module import DOCS, load
from packaging.requirements import Requirement
from source_files import ROOT

GOOD = (
    '<a href="b.html#there">b</a> <a href="https://example.org">elsewhere, to be followed</a> <img src="p.png">'
    '<a href="/folder/">from the root</a> <svg><path fill="url(#paint)" style="x: url(data:image/png;base64,AA)"/></svg>'
)


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (GOOD, None),
        ('<a href="c.html">c</a>', "'c.html' leads nowhere"),
        ('<a href="/c.html">c</a>', "'/c.html' leads nowhere"),
        ('<a href="b.html#gone">b</a>', "'b.html#gone' names an anchor that the page lacks"),
        ('<a href="#gone">here</a>', "'#gone' names an anchor that the page lacks"),
        ('<img src="q.png">', "'q.png' leads nowhere"),
        ('<img srcset="p.png 1x, q.png 2x">', "'q.png' leads nowhere"),
        ('<script src="https://cdn.example.org/x.js"></script>', "'https://cdn.example.org/x.js' is loaded from elsewhere"),
        ('<link rel="stylesheet" href="//fonts.example.org/x.css">', "'//fonts.example.org/x.css' is loaded from elsewhere"),
        ('<p style="background: url(https://example.org/x.png)">', "'https://example.org/x.png' is loaded from elsewhere"),
        ("<style>@import 'https://example.org/x.css';</style>", "'https://example.org/x.css' is loaded from elsewhere"),
    ],
)
def test_what_is_broken_in_a_built_page_is_found(body: str, says: str | None, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    for name, text in {"a.html": body, "b.html": '<h2 id="there">', "folder/index.html": "", "p.png": ""}.items():
        (tmp_path / name).write_text(text)
    pages, problems = load("site_links").faults(tmp_path)
    assert pages == 3
    assert problems == ([] if says is None else [f"a.html: {says}"])


def test_a_style_sheet_that_loads_from_elsewhere_is_found(tmp_path: Path) -> None:
    (tmp_path / "a.css").write_text("@font-face { src: url('https://fonts.example.org/f.woff2') }")
    assert load("site_links").faults(tmp_path)[1] == ["a.css: 'https://fonts.example.org/f.woff2' is loaded from elsewhere"]


def test_every_page_stands_in_the_navigation() -> None:
    listed = set(re.findall(r": ([\w/]+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE))
    assert {path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md")} <= listed


def test_what_builds_the_site_is_pinned() -> None:
    lines = [line for line in (DOCS / "requirements.lock").read_text().splitlines() if not line.startswith("#")]
    pins = {requirement.name.lower(): requirement.specifier for requirement in map(Requirement, lines)}
    assert all(re.fullmatch(r"==[\w.]+", str(pin)) for pin in pins.values())
    for line in tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]["docs"]:
        wanted = Requirement(line)
        assert wanted.specifier.contains(str(pins[wanted.name.lower()]).removeprefix("==")), line


@pytest.mark.slow
def test_the_two_parameter_example_is_what_the_page_says() -> None:
    model, page = load("two_parameters"), (DOCS / "concepts.md").read_text()
    exact = model.one_direction()
    at_start = model.mean_loss(model.OLD_OPTIMUM, exact)
    alone, penalty, radius = model.descend(exact), model.descend(exact, strength=model.STRENGTH), model.descend(exact, radius=model.RADIUS)
    assert at_start == pytest.approx(penalty.old_loss, abs=0.01) and penalty.old_loss < radius.old_loss < alone.old_loss
    assert radius.old_loss - at_start > 0.05 and alone.new_loss < radius.new_loss < penalty.new_loss

    noisy = [model.two_directions(sample) for sample in range(3)]
    ends = [model.descend(draws, strength=model.STRENGTH).old_loss for draws in noisy]
    unprotected = model.descend(noisy[0]).old_loss
    assert min(ends) > 5 * at_start  # whichever direction the penalty protects, the old task is lost

    assert f"rises to {alone.old_loss:.2f}" in page and f"along it: {radius.old_loss:.2f}" in page and f"stays at {penalty.old_loss:.2f}" in page
    assert f"{ends[0]:.2f}, {ends[1]:.2f} and {ends[2]:.2f}; without a penalty it ends at {unprotected:.2f}" in page
    cosines, ratios = zip(*((f.split_half_cosine, f.spectral_ratio) for f in map(model.fisher_at_optimum, noisy)), strict=True)
    assert "{:.2f}, {:.2f} and {:.2f}".format(*cosines).replace("-", "−") in page
    assert "{:.2f}, {:.2f} and {:.2f}".format(*ratios) in page
    assert model.fisher_at_optimum(exact).spectral_ratio < 1e-10
