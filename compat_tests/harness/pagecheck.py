"""Whether pages hold together as a browser would find them: ``python -m harness.pagecheck FOLDER``.

Every link leads to a file, and to the place in it that it names; marks are closed in order; no name is given twice.
For the scoreboard besides (a folder with result.json): it is whole, that is, every number of every cell and every run's
two traces and source can be reached from the index, and the matrices have a row for each call and option.
"""

from __future__ import annotations

import importlib
import json
import sys
from collections import Counter
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

# As report.OUTCOMES; what that imports is not there where only the documentation is made.
OUTCOMES = ("pass", "unsteady", "listed", "differ", "skip")
SCHEMA = Path(__file__).with_name("result.schema.json")
VOID = frozenset(["base", "br", "col", "hr", "img", "input", "link", "meta", "source", "wbr"])
# Elements whose end may be left out.
OPEN = frozenset(["html", "head", "body", "p", "li", "dt", "dd", "tr", "td", "th", "thead", "tbody", "tfoot", "option"])


@dataclass
class Link:
    """A link, what it says and the element around it: the class of a cell's link is an outcome."""

    to: str
    kind: str
    text: str = ""


@dataclass
class Page(HTMLParser):
    """What a page has."""

    path: Path
    ids: Counter[str] = field(default_factory=Counter)
    links: list[Link] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    rows: Counter[str] = field(default_factory=Counter)
    pres: int = 0

    def __post_init__(self) -> None:
        super().__init__()
        self.stack: list[str] = []
        self.section = ""
        text = self.path.read_text()
        if not text.lower().startswith("<!doctype html>"):
            self.faults.append("no doctype")
        self.feed(text)
        self.close()
        self.faults += [f"<{tag}> is never closed" for tag in self.stack if tag not in OPEN]
        self.faults += [f"id {name!r} is given {n} times" for name, n in self.ids.items() if n > 1]
        self.faults += [f"id {name!r} has a space" for name in self.ids if " " in name]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        own = {k: v or "" for k, v in attrs}
        if own.get("id"):
            self.ids[own["id"]] += 1
        for name in ("href", "src"):
            if own.get(name):
                self.links.append(Link(own[name], own.get("class", "")))
        if tag == "tr":
            self.rows[self.section] += 1
        self.pres += tag == "pre"
        if tag not in VOID:
            self.stack.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.stack.pop()

    def handle_endtag(self, tag: str) -> None:
        while self.stack and self.stack[-1] != tag and self.stack[-1] in OPEN:
            self.stack.pop()
        if not self.stack or self.stack[-1] != tag:
            self.faults.append(f"</{tag}> in line {self.getpos()[0]} closes nothing")
        else:
            self.stack.pop()

    def handle_data(self, data: str) -> None:
        if not self.stack:
            return
        if self.stack[-1] == "a" and self.links:
            self.links[-1].text += data
        if self.stack[-1] == "h2":
            self.section = data


class Site:
    """The pages of a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        self.pages = {p.relative_to(self.folder): Page(p) for p in sorted(self.folder.rglob("*.html"))}
        self.links = 0

    def faults(self) -> list[str]:
        """What a reader would stumble over."""
        found = [] if self.pages else ["there are no pages"]
        for name, page in self.pages.items():
            found += [f"{name}: {fault}" for fault in page.faults]
            for link in page.links:
                self.links += 1
                found += [f"{name}: {link.to} {fault}" for fault in self._lost(page, link.to)]
        return found

    def _lost(self, page: Page, to: str) -> list[str]:
        """Why a link leads nowhere."""
        parts = urlsplit(to)
        if parts.scheme or parts.netloc:
            return []
        path = (page.path.parent / unquote(parts.path)).resolve() if parts.path else page.path
        if not path.exists():
            return ["leads nowhere"]
        other = self.pages.get(path.relative_to(self.folder)) if path.is_relative_to(self.folder) else None
        if parts.fragment and other and not {parts.fragment, unquote(parts.fragment)} & set(other.ids):
            return ["names a place that is not there"]
        return []


def schema_faults(result: Any) -> list[str]:
    """Where result.json is not what its schema says."""
    jsonschema = importlib.import_module("jsonschema")
    validator = jsonschema.Draft202012Validator(json.loads(SCHEMA.read_text()))
    validator.check_schema(validator.schema)
    return [f"{e.json_path}: {e.message[:200]}" for e in validator.iter_errors(result)]


def scoreboard(site: Site) -> list[str]:
    """What of result.json cannot be reached from the index."""
    from .pages import cell_name

    result = json.loads((site.folder / "result.json").read_text())
    if faults := schema_faults(result):
        return [f"result.json: {fault}" for fault in faults]
    index = site.pages[Path("index.html")]
    shown = {(link.to, link.text) for link in index.links}
    found = []
    runs: dict[tuple[str, str, str], list[dict[str, Any]]] = {
        (s["subject"], s["peer"], "/".join(s["id"].split("/")[:2])): [] for s in result["scenarios"]
    }
    for s in result["scenarios"]:
        runs[s["subject"], s["peer"], "/".join(s["id"].split("/")[:2])].append(s)
    for (subject, peer, area), own in runs.items():
        name = cell_name(area, subject, peer)
        counted = Counter(s["outcome"] for s in own)
        for outcome in OUTCOMES:
            n = result["subjects"][subject]["areas"][area][peer].get(outcome, 0)
            if n != counted[outcome]:
                found.append(f"result.json: {n} {outcome} in {name}, but {counted[outcome]} runs")
            if n and (f"{name}#{outcome}", str(n)) not in shown:
                found.append(f"index.html: no link to {n} {outcome} in {name}")
        found += [f"{name}: {fault}" for fault in _unreached(site, name, own)]
    for what in ("calls", "options"):
        if index.rows[what.capitalize()] != 1 + len(result[what]):
            found.append(f"index.html: the matrix of {what} is not whole")
    if index.rows["Divergences"] != 1 + len(result["divergences"]):
        found.append("index.html: not all divergences")
    return found


def _unreached(site: Site, name: str, runs: list[dict[str, Any]]) -> list[str]:
    """Runs of a cell that its page does not lead to: traces and source."""
    page = site.pages.get(Path(name))
    if not page:
        return ["is not there"]
    traces = {urlsplit(link.to).fragment: link for link in page.links if link.kind in OUTCOMES}
    sources = Counter(link.text for link in page.links if not link.kind)
    found = []
    for run in runs:
        link = traces.get(run["id"])
        if not link or link.kind != run["outcome"]:
            found.append(f"no link to the traces of {run['id']}")
        elif not site.pages[Path(urlsplit(link.to).path)].pres:
            found.append(f"no traces of {run['id']}")
    for source, n in Counter(Path(run["source"]).name for run in runs).items():
        if sources[source] < n:
            found.append(f"{n} runs are written in {source}, {sources[source]} links")
    return found


def check(folder: Path) -> tuple[list[str], str]:
    """What is wrong, and what was looked at."""
    site = Site(folder)
    found = site.faults()
    if (folder / "result.json").exists() and not found:
        found = scoreboard(site)
    return found, f"{len(site.pages)} pages, {site.links:,} links"


def main() -> int:
    found, said = check(Path(sys.argv[1]))
    print("\n".join(found[:50]))
    print(f"{sys.argv[1]}: {said}, {len(found)} faults")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
