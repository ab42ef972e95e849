"""Interleaved repetitions, medians per placement, and what of it can be concluded."""

from __future__ import annotations

import copy
import os
import statistics
import sys
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import psutil

from . import beside
from .rows import Row
from .stacks import Stack, stacks

COMPETING = 0.5  # CPUs' worth of other programs' work beyond which nothing is concluded
STOLEN = 0.05  # share of the CPUs' time that the host kept for itself, likewise
STILL = ("B each", "% of a CPU")  # units that say nothing about speed
SPEED = 0.75  # of Linux's own usual speed, below which a repetition says that the host was slow


def mode_of(placement: dict[str, int]) -> str:
    """How a server and its service lay: ``together`` if some of their threads shared a CPU, else ``apart``."""
    servers = {cpu for name, cpu in placement.items() if name.startswith("server")}
    services = {cpu for name, cpu in placement.items() if name.startswith("service")}
    return "together" if servers & services else "apart"


def repeat(chosen: list[Row], reps: int, tmp: Path, keep: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    """Runs everything; the result as written to the JSON file, which ``keep`` is given after every repetition as well.

    A row that fails is told on stderr and counted in ``failed``; the others go on. An interrupt (SIGINT) ends it with
    the repetitions that are whole; before the first one is, it is raised.
    """
    found: dict[str, dict[str, Any]] = {
        str(r): {"unit": r.unit, "better": r.better, "topology": r.topology, "linux": [], "tas": [], "failed": 0}
        for r in chosen
    }
    notes = []
    result: dict[str, Any] = {}
    with stacks(tmp, {r.topology for r in chosen}) as places:
        try:
            for rep in range(reps):
                notes.append(beside.note())
                stolen = beside.stolen()
                _repetition(rep, reps, chosen, places, found)
                notes[-1]["stolen"] = round(stolen(), 4)
                result = copy.deepcopy(_so_far(found, rep + 1, notes))
                keep(result)
        except KeyboardInterrupt:
            if not result:
                raise
        print(file=sys.stderr)
    return result


def _repetition(
    rep: int, reps: int, chosen: list[Row], places: dict[tuple[str, str], Stack], found: dict[str, dict[str, Any]]
) -> None:
    for number, row in enumerate(chosen):
        if row.reps and rep >= row.reps:
            continue
        order = ("linux", "tas") if (rep + number) % 2 == 0 else ("tas", "linux")
        for name in order:
            try:
                found[str(row)][name].append({"rep": rep, **_once(row, places[row.topology, name])})
            except Exception:  # whatever it was: an hour's other figures are worth keeping
                found[str(row)]["failed"] += 1
                print(f"\n{row} on {name}:\n{traceback.format_exc()}", file=sys.stderr, flush=True)
        print(f"\r{rep + 1}/{reps} {number + 1}/{len(chosen)} {row!s:70}", end="", file=sys.stderr, flush=True)


def _so_far(found: dict[str, dict[str, Any]], reps: int, notes: list[dict[str, Any]]) -> dict[str, Any]:
    for row in found.values():
        if row["linux"] and row["tas"]:
            summarise(row)
    rows = {name: row for name, row in found.items() if "ratio" in row}
    for note, speed in zip(notes, speeds(rows, reps), strict=True):
        note["linux_speed"] = speed
    return {
        "reps": reps, "cpus": psutil.cpu_count(), "kernel": os.uname().release, "beside": notes, "rows": rows,
        "failed": {name: row["failed"] for name, row in found.items() if row["failed"]},
        "noise": noise(notes),
    }  # fmt: skip


def speeds(rows: dict[str, dict[str, Any]], reps: int) -> list[float]:
    """How fast Linux itself was in each repetition: 1 is its usual speed, the median over rows and repetitions."""
    shares: list[list[float]] = [[] for _ in range(reps)]
    for row in rows.values():
        usual = row["linux_median"]
        for run in row["linux"]:
            if usual > 0 and run["value"] > 0 and row["unit"] not in STILL:
                shares[run["rep"]].append(_ahead(run["value"], usual, row["better"]))
    return [round(statistics.median(s), 3) if s else 1.0 for s in shares]


def noise(notes: list[dict[str, Any]]) -> list[str]:
    """What made the machine too noisy to conclude, in words; nothing: it was quiet."""
    limits: tuple[tuple[str, str, Callable[[float], bool]], ...] = (
        ("competing_cpus", "{} CPUs of other programs", lambda v: v > COMPETING),
        ("stolen", "{:.0%} of the CPUs kept by the host", lambda v: v > STOLEN),
        ("linux_speed", "Linux at {:.0%} of its usual speed", lambda v: v < SPEED),
    )
    return [
        f"repetition {n + 1}: {text.format(note[key])}"
        for n, note in enumerate(notes)
        for key, text, bad in limits
        if bad(note[key])
    ]


def _once(row: Row, stack: Stack) -> dict[str, Any]:
    stack.placement = {}
    figures = row.run(stack)
    return {**figures, "placement": stack.placement, "mode": mode_of(stack.placement)}


def _by_mode(runs: Iterable[dict[str, Any]]) -> dict[str, float]:
    modes: dict[str, list[float]] = {}
    for run in runs:
        modes.setdefault(run["mode"], []).append(run["value"])
    return {mode: statistics.median(values) for mode, values in modes.items()}


def _ahead(value: float, other: float, better: str) -> float:
    """By how much ``value`` is better than ``other``; both are above 0."""
    return value / other if better == "more" else other / value


def summarise(result: dict[str, Any]) -> None:
    """Adds medians, spreads, medians per placement, and what the pairs say.

    ``ratio``: the median over repetitions of TAS against Linux in the same repetition (above 1 TAS is ahead), so that a
    host that slows down and recovers, which both stacks of a pair meet, moves it less than a ratio of medians would.
    ``ratio_spread``: of the middle half. ``pairs``: in how many pairs TAS was ahead or equal, and how many there are.
    None: nothing to divide.
    """
    for name in ("linux", "tas"):
        values = [run["value"] for run in result[name]]
        result[f"{name}_median"] = statistics.median(values)
        result[f"{name}_spread"] = [min(values), max(values)]
        result[f"{name}_modes"] = _by_mode(result[name])
    linux = {run["rep"]: run["value"] for run in result["linux"]}
    pairs = [(run["value"], linux[run["rep"]]) for run in result["tas"] if run["rep"] in linux]
    ratios = sorted(_ahead(*pair, result["better"]) for pair in pairs if min(pair) > 0)
    quarter = (len(ratios) - 1) // 4
    result["ratio"] = statistics.median(ratios) if ratios else None
    result["ratio_spread"] = [ratios[quarter], ratios[-1 - quarter]] if ratios else None
    result["pairs"] = [sum(r >= 1 for r in ratios), len(ratios)] if ratios else None
