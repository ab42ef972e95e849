"""The site: Markdown as it is, and three directives that fill in what is known from files (nothing is typed twice).

``divergences``  the entries of compat_tests/divergences.toml
``list``         interposed calls, options of a level (SOL_SOCKET …, ioctl), or programs, from the lists in the code
``scoreboard``   totals, calls or options of the last `make conformance`: TAS_CONFORMANCE names its result.json
"""

from __future__ import annotations

import json
import os
import sys
import tomllib
from collections import Counter
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

sys.path.insert(0, str(Path(__file__).resolve().parent))

import lists

ROOT = Path(__file__).resolve().parent.parent
OUTCOMES = ("pass", "unsteady", "listed", "differ", "skip")
RESULT = Path(os.environ.get("TAS_CONFORMANCE", ROOT / "build" / "conformance" / "result.json"))

project = "TAS sockets"
author = "the TAS sockets project"
with open(ROOT / "pyproject.toml", "rb") as _f:
    version = release = tomllib.load(_f)["project"]["version"]
extensions = ["myst_parser"]
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3
exclude_patterns = ["_build", "bench/*.md"]
html_theme = "furo"
html_title = "TAS sockets"
html_show_sphinx = html_show_sourcelink = False


def table(head: list[str], rows: list[list[str]], code: frozenset[int] = frozenset()) -> nodes.table:
    """A table; columns in ``code`` are literal, a line each."""
    group = nodes.tgroup(cols=len(head))
    group += [nodes.colspec(colwidth=1) for _ in head]
    heading, body = nodes.thead(), nodes.tbody()
    for part, lines in ((heading, [head]), (body, rows)):
        for cells in lines:
            row = nodes.row()
            for i, cell in enumerate(cells):
                literal = i in code and part is body
                made = [nodes.literal(text=t) for t in cell.split("\n")] if literal else [nodes.Text(cell)]
                paragraph = nodes.paragraph()
                for n, item in enumerate(made):
                    paragraph += [nodes.Text(" "), item] if n else [item]
                row += nodes.entry("", paragraph)
            part += row
    group += [heading, body]
    return nodes.table("", group)


def short(scenario: str) -> str:
    """Patterns of an entry: the first three."""
    patterns = [p for p in scenario.strip().split("\n") if p]
    return "\n".join(patterns[:3]) + (f"\nand {len(patterns) - 3} more" if len(patterns) > 3 else "")


class Divergences(SphinxDirective):
    """All entries, or those of one kind."""

    optional_arguments = 1

    def run(self) -> list[nodes.Node]:
        source = ROOT / "compat_tests" / "divergences.toml"
        self.env.note_dependency(str(source))
        entries = tomllib.loads(source.read_text())["divergence"]
        chosen = [e for e in entries if not self.arguments or e["kind"] == self.arguments[0]]
        rows = [[e["differs"], e["why"], short(e["scenario"])] for e in chosen]
        return [table(["what differs", "why", "scenarios"], rows, frozenset([2]))] if rows else []


class List(SphinxDirective):
    """``calls``, a level of options, or ``ioctl``."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        for path in (lists.CALLS, lists.OPTIONS):
            self.env.note_dependency(str(path))
        what = self.arguments[0]
        if what == "programs":
            for path in lists.RECIPES.glob("*.py"):
                self.env.note_dependency(str(path))
            return [table(["recipe", "on TAS", "exercises"], lists.programs(), frozenset([0]))]
        if what != "calls":
            return [table(["option", "on a TAS socket", "accept", ""], lists.options(what), frozenset([0]))]
        found: list[nodes.Node] = []
        for group, rows in lists.calls().items():
            found.append(nodes.paragraph("", "", nodes.strong(text=group.capitalize())))
            found.append(table(["names", "prototype", "goes to"], rows, frozenset([0, 1, 2])))
        return found


class Scoreboard(SphinxDirective):
    """``totals``, ``areas``, ``skips``, ``calls`` or ``options``."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        if not RESULT.exists():
            return [nodes.paragraph("", nodes.emphasis("", "make conformance has not run before this site was made."))]
        self.env.note_dependency(str(RESULT))
        return getattr(self, f"show_{self.arguments[0]}")(json.loads(RESULT.read_text()))

    def show_totals(self, r: dict[str, Any]) -> list[nodes.Node]:
        rows = [[name, *(f"{s['total'].get(o, 0):,}" for o in OUTCOMES)] for name, s in r["subjects"].items()]
        kinds = Counter(d["kind"] for d in r["divergences"])
        said = f"{r['scenarios_written']:,} scenarios, {len(r['scenarios']):,} runs against {r['oracle']}"
        said += f", {r['finished']}; divergences: " + ", ".join(f"{n} {k}" for k, n in sorted(kinds.items())) + "."
        return [nodes.paragraph("", said), table(["subject", *OUTCOMES], rows)]

    def show_areas(self, r: dict[str, Any]) -> list[nodes.Node]:
        rows = []
        for subject, s in r["subjects"].items():
            for area, peers in s["areas"].items():
                for peer, c in peers.items():
                    counts = [str(c.get(o, "")) for o in OUTCOMES]
                    rows.append([area, subject, peer, *counts])
        rows.sort(key=lambda row: (row[0] == "all", row))
        return [table(["area", "subject", "peer", *OUTCOMES], rows)]

    def show_skips(self, r: dict[str, Any]) -> list[nodes.Node]:
        rows = [[s, why, str(n)] for s, found in r["subjects"].items() for why, n in found["skipped"].items()]
        return [table(["subject", "why a scenario has no meaning there", "runs"], rows)] if rows else []

    def show_calls(self, r: dict[str, Any]) -> list[nodes.Node]:
        rows = [[c["call"], c["interposed"], *(str(c[o] or "") for o in OUTCOMES[:-1])] for c in r["calls"]]
        return [table(["call", "interposed", *OUTCOMES[:-1]], rows, frozenset([0]))]

    def show_options(self, r: dict[str, Any]) -> list[nodes.Node]:
        rows = [[c["option"], str(c["level"]), *(str(c[o] or "") for o in OUTCOMES[:-1])] for c in r["options"]]
        return [table(["option", "level", *OUTCOMES[:-1]], rows, frozenset([0]))]


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("divergences", Divergences)
    app.add_directive("list", List)
    app.add_directive("scoreboard", Scoreboard)
    return {"parallel_read_safe": True}
