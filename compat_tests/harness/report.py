"""The scoreboard's numbers: what a run gave, for the terminal and as result.json (the pages: pages.py).

A record is what one test gave: one scenario, for one subject, with one peer.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterable
from typing import Any

from .matrix import calls_matrix, options_matrix
from .suite import divergences

Record = dict[str, Any]
OUTCOMES = ("pass", "unsteady", "listed", "differ", "skip")
UNSTEADY_MOST = 1000  # one run in so many may be unsteady (and one always)


def outcome(r: Record) -> str:
    """What became of a run.

    pass; unsteady (differed once, then twice not: an answer that hangs on the moment); listed (differs, and
    the divergence file says so); differ (not listed, or the test itself failed); skip.
    """
    if r["outcome"] in ("pass", "unsteady", "skip") and not r["failed"]:
        return str(r["outcome"])
    return "listed" if r["listed"] else "differ"


def too_unsteady(records: list[Record]) -> bool:
    """More runs were unsteady than chance explains: something is wrong, though nothing differs every time."""
    n = sum(outcome(r) == "unsteady" for r in records)
    return n > 1 and n * UNSTEADY_MOST > len(records)


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
    lines = [f"{len({r['scenario'] for r in records}):,} scenarios in {len(records):,} runs"]
    lines += [f"{'area':28} {'subject':16} {'pass':>6} {'unsteady':>9} {'listed':>7} {'differ':>7} {'skip':>6}"]
    for name, ways in counts(records).items():
        for way, c in ways.items():
            lines.append(
                f"{name:28} {way:16} "
                + " ".join(f"{c.get(o, 0):{w}}" for o, w in zip(OUTCOMES, (6, 9, 7, 7, 6), strict=True))
            )
    lines += [f"skipped by {s}: {n:5} {why}" for s, reasons in skips(records).items() for why, n in reasons.items()]
    kinds = Counter(d.kind for d in divergences())
    lines.append(f"{len(divergences())} divergences: " + ", ".join(f"{n} {k}" for k, n in sorted(kinds.items())))
    lines += [f"differs: {r['id']}" for r in records if outcome(r) == "differ"][:50]
    for r in [r for r in records if outcome(r) == "unsteady"][:20]:
        marked = [step for step in r["traces"].split("\n") if not step.startswith("     ")]
        lines += [f"unsteady: {r['id']}", *marked[:40]]
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
