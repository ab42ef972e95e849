"""The scoreboard: result.json and index.html, made from the records of a run."""

# ruff: noqa: E501  (tables of cases, one a line)
from __future__ import annotations

import html
import json
from collections import Counter
from pathlib import Path
from typing import Any

from .suite import divergences

Record = dict[str, Any]


def outcome(r: Record) -> str:
    """pass, differ (not listed), or listed (an entry of the divergence file covers it)."""
    return "pass" if r["outcome"] == "pass" and not r["failed"] else "listed" if r["listed"] else "differ"


def area(r: Record) -> str:
    return "/".join(r["id"].split("/")[:2])


def counts(records: list[Record]) -> dict[str, dict[str, dict[str, int]]]:
    """area -> peer -> outcome -> how many."""
    table: dict[str, dict[str, Counter[str]]] = {}
    for r in records:
        for key in (area(r), "all"):
            table.setdefault(key, {}).setdefault(r["peer"], Counter())[outcome(r)] += 1
    return {
        a: {p: dict(c) for p, c in peers.items()}
        for a, peers in sorted(table.items(), key=lambda x: (x[0] == "all", x[0]))
    }


def summary(records: list[Record]) -> list[str]:
    lines = [f"{'area':28} {'peer':6} {'pass':>6} {'listed':>7} {'differ':>7}"]
    for name, peers in counts(records).items():
        for peer, c in sorted(peers.items()):
            lines.append(f"{name:28} {peer:6} {c.get('pass', 0):6} {c.get('listed', 0):7} {c.get('differ', 0):7}")
    kinds = Counter(d.kind for d in divergences())
    lines.append(f"{len(divergences())} divergences: " + ", ".join(f"{n} {k}" for k, n in sorted(kinds.items())))
    return lines


def write(folder: Path, records: list[Record]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    records = sorted(records, key=lambda r: r["id"])
    table = counts(records)
    result = {
        "oracle": "linux",
        "subjects": {"preload": {"areas": table, "total": Counter(outcome(r) for r in records)}},
        "divergences": [vars(d) for d in divergences()],
        "scenarios": [{**r, "outcome": outcome(r)} for r in records],
    }
    (folder / "result.json").write_text(json.dumps(result, indent=1))
    (folder / "index.html").write_text(_page(records, table))


STYLE = """body{font:15px/1.4 system-ui,sans-serif;margin:2em auto;max-width:70em}table{border-collapse:collapse}
td,th{padding:.15em .8em;text-align:left;border-bottom:1px solid #ddd}td.n{text-align:right}pre{background:#f6f6f6;padding:.6em;overflow-x:auto}
.pass{color:#070}.differ{color:#b00;font-weight:bold}.listed{color:#a60}"""


def _page(records: list[Record], table: dict[str, dict[str, dict[str, int]]]) -> str:
    e = html.escape
    rows = [
        f"<tr><td>{e(a)}</td><td>{p}</td>"
        + "".join(f'<td class="n {o}">{c.get(o, 0) or ""}</td>' for o in ("pass", "listed", "differ"))
        + "</tr>"
        for a, peers in table.items()
        for p, c in sorted(peers.items())
    ]
    entries = [
        f"<tr><td><code>{e(d.scenario)}</code></td><td>{e(d.differs)}</td><td>{e(d.kind)}</td><td>{e(d.why)}</td><td>{e(d.since)}</td></tr>"
        for d in divergences()
    ]
    traces = [
        f'<h3 id="{e(r["id"])}" class="{outcome(r)}">{e(r["id"])}</h3><pre>{e(r["traces"])}</pre>'
        for r in records
        if r.get("traces")
    ]
    passed = "\n".join(e(r["id"]) for r in records if outcome(r) == "pass")
    head = "<tr><th>area<th>peer<th>pass<th>listed<th>differ</tr>"
    return f"""<!doctype html><meta charset="utf-8"><title>TAS sockets: conformance</title><style>{STYLE}</style>
<h1>Conformance with Linux sockets</h1>
<p>Every scenario runs on the kernel and under <code>LD_PRELOAD</code>; both traces are compared step by step.</p>
<table>{head}{"".join(rows)}</table>
<h2>Divergences</h2><table><tr><th>scenario<th>what differs<th>kind<th>why<th>since</tr>{"".join(entries)}</table>
<h2>Traces that differ</h2>{"".join(traces)}<h2>Scenarios that pass</h2><pre>{passed}</pre>
"""
