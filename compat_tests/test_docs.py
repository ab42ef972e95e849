"""The documentation holds together, as far as that can be seen without Sphinx (`make docs` is the whole check)."""

from __future__ import annotations

import re

import pytest
from _lab import ROOT

DOCS = ROOT / "docs"
PAGES = sorted(p.stem for p in DOCS.glob("*.md"))


def test_every_page_is_in_the_index_and_in_the_contents() -> None:
    index = (DOCS / "index.md").read_text()
    contents = index.partition("```{toctree}")[2].partition("```")[0].split()
    for page in PAGES:
        if page != "index":
            assert f"]({page}.md)" in index, page
            assert page in contents, page


@pytest.mark.parametrize("page", [*(f"docs/{p}.md" for p in PAGES), "README.md"])
def test_links_to_files_lead_somewhere(page: str) -> None:
    path = ROOT / page
    for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text()):
        if "://" not in target and not target.startswith("#"):
            assert (path.parent / target.partition("#")[0]).exists(), target


def test_the_page_of_limits_shows_every_kind_of_divergence() -> None:
    kinds = set(re.findall(r'^kind = "(\w+)"', (ROOT / "compat_tests" / "divergences.toml").read_text(), re.M))
    shown = set(re.findall(r":::\{divergences\} (\w+)", (DOCS / "limits.md").read_text()))
    assert kinds <= shown


def test_what_shows_the_interposers_behaviour_exists() -> None:
    rows = (DOCS / "interposer.md").read_text().partition("## What shows it\n")[2].partition("\n## ")[0]
    programs = set(re.findall(r"`preload/(\w+)`", rows)) - {"NAME"}
    tests = set(re.findall(r"`(\w+)::(\w+)`", rows)) - {("FILE", "NAME")}
    assert len(programs) >= 10
    assert len(tests) >= 60
    for program in programs:
        assert (ROOT / "interpose" / "tests" / "preload" / f"{program}.c").exists(), program
    files = {p.stem: p for top in ("compat_tests", "interpose/tests") for p in (ROOT / top).rglob("test_*.py")}
    for file, name in tests:
        assert re.search(rf"^def test_{name}\(", files[file].read_text(), re.M), f"{file}::{name}"
