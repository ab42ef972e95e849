"""The scoreboard: result.json, index.html and a page of traces per test function, made from the records of a run.

A record is what one test gave: one scenario, for one subject, with one peer.
"""

# ruff: noqa: E501  (tables of cases, one a line)
from __future__ import annotations

import html
import json
import os
import re
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from _lab import ROOT

from .matrix import calls_matrix, options_matrix
from .suite import divergences

Record = dict[str, Any]
OUTCOMES = ("pass", "listed", "differ", "skip")


def outcome(r: Record) -> str:
    """pass, listed (differs, and the divergence file says so), differ (not listed, or the test itself failed), skip."""
    if r["outcome"] == "skip":
        return "skip"
    return "pass" if r["outcome"] == "pass" and not r["failed"] else "listed" if r["listed"] else "differ"


def area(r: Record) -> str:
    return "/".join(r["id"].split("/")[:2])


Table = dict[str, dict[str, dict[str, int]]]


def counts(records: Iterable[Record]) -> Table:
    """area -> "subject peer" -> outcome -> how many; also area "all"."""
    table: dict[str, dict[str, Counter[str]]] = {}
    for r in records:
        for key in (area(r), "all"):
            table.setdefault(key, {}).setdefault(f"{r['subject']} {r['peer']}", Counter())[outcome(r)] += 1
    return {
        a: {p: dict(c) for p, c in sorted(ways.items())}
        for a, ways in sorted(table.items(), key=lambda x: (x[0] == "all", x[0]))
    }


def summary(records: list[Record]) -> list[str]:
    lines = [f"{'area':28} {'subject':16} {'pass':>6} {'listed':>7} {'differ':>7} {'skip':>6}"]
    for name, ways in counts(records).items():
        for way, c in ways.items():
            lines.append(
                f"{name:28} {way:16} "
                + " ".join(f"{c.get(o, 0):{w}}" for o, w in zip(OUTCOMES, (6, 7, 7, 6), strict=True))
            )
    lines += [f"skipped by {s}: {n:5} {why}" for s, reasons in skips(records).items() for why, n in reasons.items()]
    kinds = Counter(d.kind for d in divergences())
    lines.append(f"{len(divergences())} divergences: " + ", ".join(f"{n} {k}" for k, n in sorted(kinds.items())))
    lines += [f"differs: {r['id']}" for r in records if outcome(r) == "differ"][:50]
    return lines


def skips(records: Iterable[Record]) -> dict[str, dict[str, int]]:
    """subject -> reason -> how many."""
    found: dict[str, Counter[str]] = {}
    for r in records:
        if outcome(r) == "skip":
            found.setdefault(r["subject"], Counter())[r.get("why", "")] += 1
    return {s: dict(c.most_common()) for s, c in sorted(found.items())}


def result(records: list[Record]) -> dict[str, Any]:
    """What result.json holds."""
    by_subject: dict[str, list[Record]] = {}
    for r in records:
        by_subject.setdefault(r["subject"], []).append(r)
    subjects = {}
    for name, own in sorted(by_subject.items()):
        total = Counter(outcome(r) for r in own)
        areas: dict[str, dict[str, dict[str, int]]] = {}
        for a, ways in counts(own).items():
            areas[a] = {way.split(" ")[1]: c for way, c in ways.items()}
        subjects[name] = {"total": {o: total[o] for o in OUTCOMES}, "areas": areas, "skipped": skips(own).get(name, {})}
    return {
        "oracle": f"linux {os.uname().release}",
        "finished": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "scenarios_written": len({r["scenario"] for r in records}),
        "subjects": subjects,
        "divergences": [vars(d) for d in divergences()],
        "calls": calls_matrix(records, outcome),
        "options": options_matrix(records, outcome),
        "scenarios": [
            {
                k: v
                for k, v in r.items()
                if k not in ("traces", "outcome", "listed", "failed") or (k == "traces" and outcome(r) != "pass")
            }
            | {"outcome": outcome(r)}
            for r in records
        ],
    }


def write(folder: Path, records: list[Record]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.html"):
        old.unlink()
    records = sorted(records, key=lambda r: r["id"])
    found = result(records)
    (folder / "result.json").write_text(json.dumps(found, indent=1))
    pages = _pages(records)
    for name, part in pages.items():
        (folder / name).write_text(_traces_page(name, part, folder))
    (folder / "index.html").write_text(_index(records, found, pages))


# ---- pages ----
STYLE = """body{font:15px/1.4 system-ui,sans-serif;margin:2em auto;max-width:80em;padding:0 1em}table{border-collapse:collapse}
td,th{padding:.15em .7em;text-align:left;border-bottom:1px solid #ddd;vertical-align:top}td.n{text-align:right}
pre{background:#f6f6f6;padding:.6em;overflow-x:auto;font-size:13px}summary{cursor:pointer}
.pass,a.pass{color:#070}.differ,a.differ{color:#b00;font-weight:bold}.listed,a.listed{color:#a60}.skip,a.skip{color:#777}"""
PER_PAGE = 300  # scenarios
e = html.escape


def _html(title: str, body: str) -> str:
    return f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{e(title)}</title><style>{STYLE}</style>{body}</html>\n'


def _name(r: Record) -> str:
    """Page name of the record's test function."""
    return re.sub(r"[^a-z0-9_]+", "-", r["id"].partition("[")[0].lower())


def _pages(records: list[Record]) -> dict[str, dict[str, list[Record]]]:
    """file name -> scenario -> its runs."""
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
        file, _, line = runs[0]["source"].partition(":")
        link = os.path.relpath(ROOT / file, folder)
        rows.append(f'<tr><td>{e(scenario)} <a href="{e(link)}">{e(Path(file).name)}:{line}</a>{"".join(cells)}</tr>')
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


def _index(records: list[Record], found: dict[str, Any], pages: dict[str, dict[str, list[Record]]]) -> str:
    ways = _ways(records)
    head = "<tr><th>area" + "".join(f"<th colspan=4>{s} against {p}" for s, p in ways) + "</tr>"
    head += "<tr><th>" + "".join(f"<th>{o}" for _ in ways for o in OUTCOMES) + "</tr>"
    table, rows = counts(records), []
    first_page: dict[str, str] = {}
    for name, scenarios in pages.items():
        first_page.setdefault(area(next(iter(scenarios.values()))[0]), name)
    for a, by_way in table.items():
        cells = ""
        for s, p in ways:
            c = by_way.get(f"{s} {p}", {})
            cells += "".join(f'<td class="n {o}">{c.get(o, 0) or ""}' for o in OUTCOMES)
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
    where = {r["id"]: name for name, scenarios in pages.items() for runs in scenarios.values() for r in runs}
    bad = [r for r in records if outcome(r) == "differ"]
    wrong = "".join(f'<li><a class="differ" href="{where[r["id"]]}#{e(r["id"])}">{e(r["id"])}</a>' for r in bad)
    entries = "".join(
        f"<tr><td><code>{e(d.scenario.strip()).replace(chr(10), '<br>')}</code><td>{e(d.subject)}<td>{e(d.differs)}<td>{e(d.kind)}<td>{e(d.why)}<td>{e(d.since)}</tr>"
        for d in divergences()
    )
    reasons = "".join(
        f"<tr><td>{e(s)}<td>{e(w)}<td class=n>{n}</tr>" for s, ws in skips(records).items() for w, n in ws.items()
    )
    return _html(
        "TAS sockets: conformance",
        f"""<h1>Conformance with Linux sockets</h1>
<p>{found["scenarios_written"]:,} scenarios in {len(records):,} runs on {e(found["oracle"])} and on TAS, {e(found["finished"])}. Both traces are compared
step by step. <i>listed</i>: differs, and <code>divergences.toml</code> says why; <i>skip</i>: the subject has no such call.</p>
<table>{head}{"".join(rows)}</table>
<h2>Differs and is not listed</h2><ul>{wrong or "<li>nothing"}</ul>
<h2>Divergences</h2><table><tr><th>scenario<th>subject<th>what differs<th>kind<th>why<th>since</tr>{entries}</table>
<h2>Skipped</h2><table>{reasons}</table>
<h2>Scenarios and traces</h2>{"".join(lists)}
<h2>Calls</h2>{_matrix(found["calls"], ("call", "interposed"))}
<h2>Options</h2>{_matrix(found["options"], ("option", "level", "number"))}""",
    )


def _matrix(rows: list[dict[str, Any]], keys: tuple[str, ...]) -> str:
    """Rows of ``matrix``: what it is, and in how many runs the subject did it, by outcome."""
    head = "".join(f"<th>{k}" for k in (*keys, *OUTCOMES[:3]))
    body = "".join(
        "<tr>"
        + "".join(f"<td>{e(str(r[k]))}" for k in keys)
        + "".join(f'<td class="n {o}">{r[o] or ""}' for o in OUTCOMES[:3])
        + "</tr>"
        for r in rows
    )
    return f"<table><tr>{head}</tr>{body}</table>"
