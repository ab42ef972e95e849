"""The scoreboard as pages: index.html, a page per cell of its table, a page of traces per test function.

A cell of the index (area, subject, peer, outcome) leads to its scenarios, each of these to its source and to both traces.
"""

# ruff: noqa: E501  (markup)
from __future__ import annotations

import html
import json
import os
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from _lab import ROOT

from .report import OUTCOMES, Record, area, counts, outcome, result, skips
from .suite import divergences

Pages = dict[str, dict[str, list[Record]]]  # file name -> scenario -> its runs


def write(folder: Path, records: list[Record]) -> None:
    """result.json and all pages; those of another run go."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.html"):
        old.unlink()
    records = sorted(records, key=lambda r: r["id"])
    found = result(records)
    (folder / "result.json").write_text(json.dumps(found, indent=1))
    pages = _pages(records)
    for name, part in pages.items():
        (folder / name).write_text(_traces_page(name, part, folder))
    for name, runs in _cells(records).items():
        (folder / name).write_text(_cell_page(runs, _where(pages), folder))
    (folder / "index.html").write_text(_index(records, found, pages))


STYLE = """body{font:15px/1.4 system-ui,sans-serif;margin:2em auto;padding:0 1em;max-width:110em}table{border-collapse:collapse}
td,th{padding:.15em .5em;text-align:left;border-bottom:1px solid #ddd;vertical-align:top}td.n{text-align:right}
td code{font-size:12px;overflow-wrap:anywhere}pre{background:#f6f6f6;padding:.6em;overflow-x:auto;font-size:13px}summary{cursor:pointer}
table.counts{font-size:13px}table.counts td,table.counts th{padding:.1em .35em}table.counts th[colspan],table.counts td:nth-child(5n+2){border-left:1px solid #ddd}
.pass,a.pass{color:#070}.differ,a.differ{color:#b00;font-weight:bold}.unsteady,a.unsteady{color:#06a}.listed,a.listed{color:#a60}.skip,a.skip{color:#777}"""
PER_PAGE = 300  # scenarios
e = html.escape


def _html(title: str, body: str) -> str:
    return f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{e(title)}</title><style>{STYLE}</style>{body}</html>\n'


def _name(r: Record) -> str:
    """Page name of the record's test function."""
    return re.sub(r"[^a-z0-9_]+", "-", r["id"].partition("[")[0].lower())


def _pages(records: list[Record]) -> Pages:
    """Those with traces."""
    functions: dict[str, dict[str, list[Record]]] = {}
    for r in records:
        functions.setdefault(_name(r), {}).setdefault(r["scenario"], []).append(r)
    pages = {}
    for name, scenarios in functions.items():
        items = sorted(scenarios.items())
        for i in range(0, len(items), PER_PAGE):
            part = f"-{i // PER_PAGE + 1}" if len(items) > PER_PAGE else ""
            pages[f"{name}{part}.html"] = dict(items[i : i + PER_PAGE])
    return pages


def _ways(records: Iterable[Record]) -> list[tuple[str, str]]:
    return sorted({(r["subject"], r["peer"]) for r in records})


def _traces_page(name: str, scenarios: dict[str, list[Record]], folder: Path) -> str:
    ways = _ways(r for runs in scenarios.values() for r in runs)
    head = "<tr><th>scenario" + "".join(f"<th>{s}<br>{p}" for s, p in ways) + "</tr>"
    rows, details = [], []
    for scenario, runs in scenarios.items():
        by_way = {(r["subject"], r["peer"]): r for r in runs}
        cells = []
        for way in ways:
            r = by_way.get(way)
            cells.append(f'<td><a class="{outcome(r)}" href="#{e(r["id"])}">{outcome(r)}</a>' if r else "<td>")
        rows.append(f"<tr><td>{e(scenario)} {_source(runs[0], folder)}{''.join(cells)}</tr>")
        seen: dict[str, list[Record]] = {}
        for r in runs:
            seen.setdefault(r.get("traces") or r.get("why", "") or "no trace: the test was lost", []).append(r)
        for text, same in seen.items():
            anchors = "".join(f'<span id="{e(r["id"])}"></span>' for r in same)
            who = ", ".join(f'<span class="{outcome(r)}">{r["subject"]} {r["peer"]}: {outcome(r)}</span>' for r in same)
            dump = f"<pre>{e(same[0]['dump'])}</pre>" if same[0].get("dump") else ""
            details.append(f"<h4>{e(scenario)}</h4>{anchors}<p>{who}<pre>{e(text)}</pre>{dump}")
    legend = "<p>A trace is linux's and the subject's at once: steps without a mark are the same in both, &lt; is linux's, &gt; the subject's."
    return _html(
        name,
        f'<p><a href="index.html">conformance</a><h1>{e(name[:-5])}</h1><table>{head}{"".join(rows)}</table>{legend}{"".join(details)}',
    )


def _source(r: Record, folder: Path) -> str:
    """A link to where the scenario is written."""
    file, _, line = r["source"].partition(":")
    return f'<a href="{e(os.path.relpath(ROOT / file, folder))}">{e(Path(file).name)}:{line}</a>'


def _where(pages: Pages) -> dict[str, str]:
    """id of a run -> the page that has its traces."""
    return {r["id"]: name for name, scenarios in pages.items() for runs in scenarios.values() for r in runs}


def cell_name(where: str, subject: str, peer: str) -> str:
    """Page of an area, a subject and a peer."""
    return f"cell-{where.replace('/', '-')}-{subject}-{peer}.html"


def _cells(records: list[Record]) -> dict[str, list[Record]]:
    found: dict[str, list[Record]] = {}
    for r in records:
        found.setdefault(cell_name(area(r), r["subject"], r["peer"]), []).append(r)
    return found


def _cell_page(runs: list[Record], where: dict[str, str], folder: Path) -> str:
    title = f"{area(runs[0])}: {runs[0]['subject']} against {runs[0]['peer']}"
    parts = []
    for o in ("differ", "unsteady", "listed", "skip", "pass"):
        rows = "".join(
            f'<tr><td><a class="{o}" href="{where[r["id"]]}#{e(r["id"])}">{e(r["scenario"])}</a><td>{_source(r, folder)}<td>{e(r.get("divergence") or r.get("why", ""))}</tr>'
            for r in runs
            if outcome(r) == o
        )
        if rows:
            parts.append(f'<h2 id="{o}">{o}</h2><table><tr><th>scenario: both traces<th>source<th></tr>{rows}</table>')
    return _html(title, f'<p><a href="index.html">conformance</a><h1>{e(title)}</h1>{"".join(parts)}')


def _counts_cells(a: str, way: tuple[str, str], c: dict[str, int]) -> str:
    """A cell per outcome; that of an area leads to its scenarios."""
    cells = ""
    for o in OUTCOMES:
        n = str(c.get(o, 0) or "")
        link = f'<a class="{o}" href="{cell_name(a, *way)}#{o}">{n}</a>' if n and a != "all" else n
        cells += f'<td class="n {o}">{link}'
    return cells


def _index(records: list[Record], found: dict[str, Any], pages: Pages) -> str:
    ways = _ways(records)
    head = "<tr><th>area" + "".join(f"<th colspan={len(OUTCOMES)}>{s}<br>against {p}" for s, p in ways) + "</tr>"
    head += "<tr><th>" + "".join(f"<th>{o}" for _ in ways for o in OUTCOMES) + "</tr>"
    table, rows = counts(records), []
    first_page: dict[str, str] = {}
    for name, scenarios in pages.items():
        first_page.setdefault(area(next(iter(scenarios.values()))[0]), name)
    for a, by_way in table.items():
        cells = "".join(_counts_cells(a, way, by_way.get(" ".join(way), {})) for way in ways)
        link = f'<a href="#{e(a)}">{e(a)}</a>' if a in first_page else f"<b>{e(a)}</b>"
        rows.append(f"<tr><td>{link}{cells}</tr>")
    lists = []
    for a in first_page:
        lists.append(f'<h3 id="{e(a)}">{e(a)}</h3><ul>')
        for name, scenarios in pages.items():
            runs = [r for own in scenarios.values() for r in own]
            if area(runs[0]) == a:
                c = Counter(outcome(r) for r in runs)
                said = ", ".join(f'<span class="{o}">{c[o]} {o}</span>' for o in OUTCOMES if c[o])
                lists.append(f'<li><a href="{name}">{name[:-5]}</a>: {len(scenarios)} scenarios, {said}')
        lists.append("</ul>")
    where = _where(pages)
    bad = [r for r in records if outcome(r) == "differ"]
    wrong = "".join(f'<li><a class="differ" href="{where[r["id"]]}#{e(r["id"])}">{e(r["id"])}</a>' for r in bad)
    entries = "".join(
        f"<tr><td>{_patterns(d.scenario.strip())}<td>{e(d.subject)}<td>{e(d.differs)}<td>{e(d.kind)}<td>{e(d.why)}<td>{e(d.since)}</tr>"
        for d in divergences()
    )
    reasons = "".join(
        f"<tr><td>{e(s)}<td>{e(w)}<td class=n>{n}</tr>" for s, ws in skips(records).items() for w, n in ws.items()
    )
    return _html(
        "TAS sockets: conformance",
        f"""<h1>Conformance with Linux sockets</h1>
<p>{found["scenarios_written"]:,} scenarios in {len(records):,} runs on {e(found["oracle"])} and on TAS, {e(found["finished"])}. Both traces are compared
step by step. <i>unsteady</i>: differed once, and in two more runs not; <i>listed</i>: differs, and <code>divergences.toml</code> says why; <i>skip</i>: the subject has no such call.</p>
<table class="counts">{head}{"".join(rows)}</table>
<h2>Differs and is not listed</h2><ul>{wrong or "<li>nothing"}</ul>
<h2>Divergences</h2><table><tr><th>scenario<th>subject<th>what differs<th>kind<th>why<th>since</tr>{entries}</table>
<h2>Skipped</h2><table>{reasons}</table>
<h2>Scenarios and traces</h2>{"".join(lists)}
<h2>Calls</h2>{_matrix(found["calls"], ("call", "interposed"))}
<h2>Options</h2>{_matrix(found["options"], ("option", "level", "number"))}""",
    )


def _patterns(text: str) -> str:
    """Many are folded."""
    said = f"<code>{e(text).replace(chr(10), '<br>')}</code>"
    n = text.count("\n") + 1
    return said if n < 4 else f"<details><summary>{n} patterns</summary>{said}</details>"


def _matrix(rows: list[dict[str, Any]], keys: tuple[str, ...]) -> str:
    """Rows of ``matrix``: what it is, and in how many runs the subject did it, by outcome."""
    head = "".join(f"<th>{k}" for k in (*keys, *OUTCOMES[:-1]))
    body = "".join(
        "<tr>"
        + "".join(f"<td>{e(str(r[k]))}" for k in keys)
        + "".join(f'<td class="n {o}">{r[o] or ""}' for o in OUTCOMES[:-1])
        + "</tr>"
        for r in rows
    )
    return f"<table><tr>{head}</tr>{body}</table>"
