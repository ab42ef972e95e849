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

NOISE = 0.5  # CPUs' worth of somebody else's work beyond which nothing is concluded


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
                _repetition(rep, reps, chosen, places, found)
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
                found[str(row)][name].append(_once(row, places[row.topology, name]))
            except Exception:  # whatever it was: an hour's other figures are worth keeping
                found[str(row)]["failed"] += 1
                print(f"\n{row} on {name}:\n{traceback.format_exc()}", file=sys.stderr, flush=True)
        print(f"\r{rep + 1}/{reps} {number + 1}/{len(chosen)} {row!s:70}", end="", file=sys.stderr, flush=True)


def _so_far(found: dict[str, dict[str, Any]], reps: int, notes: list[dict[str, Any]]) -> dict[str, Any]:
    for row in found.values():
        if row["linux"] and row["tas"]:
            summarise(row)
    return {
        "reps": reps, "cpus": psutil.cpu_count(), "kernel": os.uname().release, "beside": notes,
        "rows": {name: row for name, row in found.items() if "ratio" in row},
        "failed": {name: row["failed"] for name, row in found.items() if row["failed"]},
        "noisy": max(n["competing_cpus"] for n in notes) > NOISE,
    }  # fmt: skip


def _once(row: Row, stack: Stack) -> dict[str, Any]:
    stack.placement = {}
    figures = row.run(stack)
    return {**figures, "placement": stack.placement, "mode": mode_of(stack.placement)}


def _by_mode(runs: Iterable[dict[str, Any]]) -> dict[str, float]:
    modes: dict[str, list[float]] = {}
    for run in runs:
        modes.setdefault(run["mode"], []).append(run["value"])
    return {mode: statistics.median(values) for mode, values in modes.items()}


def summarise(result: dict[str, Any]) -> None:
    """Adds medians, spreads, medians per placement, and the ratio: above 1 TAS is ahead, None: nothing to divide."""
    for name in ("linux", "tas"):
        values = [run["value"] for run in result[name]]
        result[f"{name}_median"] = statistics.median(values)
        result[f"{name}_spread"] = [min(values), max(values)]
        result[f"{name}_modes"] = _by_mode(result[name])
    tas, linux = result["tas_median"], result["linux_median"]
    above, below = (tas, linux) if result["better"] == "more" else (linux, tas)
    result["ratio"] = above / below if above > 0 and below > 0 else None
