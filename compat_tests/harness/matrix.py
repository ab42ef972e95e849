"""Which calls and options the scenarios tried, with what outcome: from the interposer's list and the traces."""

from __future__ import annotations

import re
import socket
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

from _lab import ROOT

CALLS_H = ROOT / "interpose" / "preload" / "calls.h"
OUTCOMES = ("pass", "unsteady", "listed", "differ")
# A step of the subject: unmarked (the same on both), or the subject's own side of a difference.
_STEP = re.compile(r"^ *(?:\S+ +> )?subject(?:-child)?: (?:thread \d+: )?(\w+)\(([^=]*)", re.M)
_LEVELS = {1: "SOL_SOCKET", 0: "IPPROTO_IP", 6: "IPPROTO_TCP", 41: "IPPROTO_IPV6"}
_PREFIX = {1: "SO_", 0: "IP_", 6: "TCP_", 41: "IPV6_"}
Record = dict[str, Any]
Outcome = Callable[[Record], str]


def interposed() -> list[str]:
    """Symbols of the interposer."""
    text = re.sub(r"/\*.*?\*/", "", CALLS_H.read_text(), flags=re.S)
    return sorted({a or b for a, b in re.findall(r"^\s*(?:(?:FD|OWN|NEW)\([^,(]+, (\w+),|SAME\((\w+),)", text, re.M)})


def _tried(
    records: Iterable[dict[str, Any]], outcome: Outcome, key: Callable[[str, str], Any]
) -> dict[Any, Counter[str]]:
    found: dict[Any, Counter[str]] = {}
    for r in records:
        keys = {key(name, args) for name, args in _STEP.findall(r.get("traces", ""))}
        for k in keys - {None}:
            found.setdefault(k, Counter())[outcome(r)] += 1
    return found


def calls_matrix(records: list[Record], outcome: Outcome) -> list[Record]:
    """Every interposed symbol and every function that a scenario called, with the number of runs."""
    tried = _tried(records, outcome, lambda name, args: name)
    known = interposed()
    return [
        {"call": name, "interposed": "yes" if name in known else "no"}
        | {o: tried.get(name, Counter())[o] for o in OUTCOMES}
        for name in sorted({*known, *tried})
    ]


def _option(name: str, args: str) -> tuple[int, int] | None:
    if name not in ("getsockopt", "setsockopt"):
        return None
    parts = args.split(", ")
    try:
        return int(parts[1]), int(parts[2])
    except (IndexError, ValueError):
        return (1, int(socket.SO_ERROR)) if "SO_ERROR" in args else None


def option_name(level: int, number: int) -> str:
    """As Python's socket module names it, or the number."""
    prefix = _PREFIX.get(level)
    names = sorted(n for n in dir(socket) if prefix and n.startswith(prefix) and getattr(socket, n) == number)
    return names[0] if names else f"{prefix or 'level ' + str(level) + ' '}{number}"


def options_matrix(records: list[Record], outcome: Outcome) -> list[Record]:
    """Every option that a scenario set or asked for."""
    tried = _tried(records, outcome, _option)
    return [
        {"option": option_name(*key), "level": _LEVELS.get(key[0], key[0]), "number": key[1]}
        | {o: c[o] for o in OUTCOMES}
        for key, c in sorted(tried.items())
    ]
