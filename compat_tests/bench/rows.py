"""The rows: one workload each, measured on a stack."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from . import beside, memory, programs, python
from .stacks import Stack

Figures = dict[str, Any]  # "value": what the row is about; the rest goes with it into the JSON file


@dataclass(frozen=True)
class Row:
    """One workload. ``unit``: of its value; ``better``: 'more' or 'less'; ``quick``: in QUICK=1; ``reps``: at most."""

    name: str
    topology: str
    unit: str
    better: str
    run: Callable[[Stack], Figures]
    quick: bool = True
    reps: int | None = None

    def __str__(self) -> str:
        return f"{self.topology}: {self.name}"


def _latency(*options: str) -> Callable[[Stack], Figures]:
    def run(s: Stack) -> Figures:
        out = s.rpc(*options, "--cdf")
        return {
            "value": out["latency_us"]["p50"],
            "p99": out["latency_us"]["p99"],
            "cpu_us": out["cpu_us"],
            "cdf": out["cdf"],
        }

    return run


def _rate(*options: str, threads: int = 1, seconds: float = 0.7, warm: float = 0.2) -> Callable[[Stack], Figures]:
    def run(s: Stack) -> Figures:
        out = s.rpc(*options, threads=threads, seconds=seconds, warm=warm)
        return {
            "value": out["rate"],
            "p50": out["latency_us"]["p50"],
            "p99": out["latency_us"]["p99"],
            "cpu_us": out["cpu_us"],
        }

    return run


def _cpu(*options: str) -> Callable[[Stack], Figures]:
    def run(s: Stack) -> Figures:
        used = s.rpc(*options)["cpu_us"]
        return {"value": sum(used.values()), **used}

    return run


def _bulk(size: str, server_sends: bool, flows: int = 1) -> Callable[[Stack], Figures]:
    return lambda s: {"value": s.bulk(size, server_sends, flows)}


def _value(measure: Callable[[Stack], float]) -> Callable[[Stack], Figures]:
    return lambda s: {"value": measure(s)}


def _with(
    context: Callable[[], contextlib.AbstractContextManager[None]], run: Callable[[Stack], Figures]
) -> Callable[[Stack], Figures]:
    def inside(s: Stack) -> Figures:
        with context():
            return run(s)

    return inside


def _idle(s: Stack) -> Figures:
    """Share of a CPU that a service without traffic costs. The kernel has none."""
    time.sleep(1)
    before = s.service_cpu()
    time.sleep(3)
    return {"value": (s.service_cpu() - before) / 3 * 100}


def _latencies() -> Iterator[Row]:
    """Latency rows: alone, beside one and two hogs, and with idle states held off."""
    kinds: list[tuple[str, Callable[[], contextlib.AbstractContextManager[None]] | None]] = [("", None)]
    kinds += [(", 1 hog", lambda: beside.hogs(1)), (", 2 hogs", lambda: beside.hogs(2))]
    if os.access(beside.LATENCY, os.W_OK):
        kinds.append((", idle states off", beside.awake))
    for topology in ("local", "link"):
        for what, mode in (("blocking", "block"), ("spinning", "spin")):
            for suffix, context in kinds:
                run = _latency("-m", mode)
                yield Row(
                    f"1 connection, {what}, 64 B{suffix}: p50", topology, "us", "less",
                    _with(context, run) if context else run, quick=not suffix,
                )  # fmt: skip


CONNECTIONS = (1, 16, 64, 256, 1000, 10000)
QUICK_RPCS = {(1, "64 B"), (64, "64 B"), (64, "1 KiB"), (1000, "64 B")}


def _rpcs(t: str) -> Iterator[Row]:
    rate = "requests/s"
    for text, size in (("64 B", "64"), ("1 KiB", "1k")):
        for n in CONNECTIONS:
            name = f"{n:,} connection{'s' * (n > 1)}, epoll, {text}"
            # of very many each has its first messages, and becomes what it stays, before it counts
            run = _rate("-c", str(n), "-s", size, seconds=1.5 if n == 64 else 0.7, warm=1.5 if n >= 10000 else 0.2)
            yield Row(name, t, rate, "more", run, quick=(n, text) in QUICK_RPCS)
    for n in (2, 4):
        name = f"64 connections, server of {n} threads"
        yield Row(name, t, rate, "more", _rate("-c", "64", threads=n), quick=False)
    yield Row("64 connections, CPU of everybody", t, "us/request", "less", _cpu("-c", "64"), quick=False)
    deep = ("-c", "16", "-d", "32")
    yield Row("16 connections, 32 deep, 1 send for all", t, "messages/s", "more", _rate(*deep))
    yield Row("16 connections, 32 deep, 1 send each", t, "messages/s", "more", _rate(*deep, "-1"), quick=False)
    yield from _connects(t)


def _connects(t: str) -> Iterator[Row]:
    """Connections that do not stay: as many as the kernel has ports for, which on loopback it takes again soon."""
    for text, option, quick in (("connect + close", "-0", False), ("connect + request + close", "-r", True)):
        for n, count in ((1, 1000), (16, 4000)):
            run = _rate("-c", str(n), option, "-n", str(count if t != "local" else 4 * count))
            if t == "local" and option == "-r":
                run = _rate("-c", str(n), option, seconds=0.4)
            yield Row(f"{text}, {n} at a time", t, "per s", "more", run, quick=quick and n > 1)


def _bulks(t: str, quick: bool) -> Iterator[Row]:
    """One flow long enough that its beginning does not count, and short; eight."""
    for sends, way in ((False, "to"), (True, "from")):
        if t in ("local", "link"):
            yield Row(f"bulk 100 MiB {way} the server", t, "Mbit/s", "more", _bulk("100m", sends), quick=False)
        yield Row(f"bulk 1 GiB {way} the server", t, "Mbit/s", "more", _bulk("1g", sends), quick)
    for sends, way in ((False, "to"), (True, "from")):
        row = f"bulk 8 × 200 MiB {way} the server"
        yield Row(row, t, "Mbit/s", "more", _bulk("200m", sends, 8), quick=False, reps=3)


def _idles() -> Iterator[Row]:
    for count in (1000, 18000, 100000):
        for what in ("kernel", "shared"):
            name = f"{count:,} idle connections: {what} memory"
            yield Row(name, "local", "B each", "less", memory.each(count, what), quick=False, reps=3)
    name = "64 connections beside 18,000 idle ones, epoll, 64 B"
    yield Row(name, "local", "requests/s", "more", memory.beside(18000, 64), quick=False, reps=3)
    yield Row("service without traffic", "local", "% of a CPU", "less", _idle, quick=False)


def rows() -> Iterator[Row]:
    """All of them, in the order of the table."""
    yield from _latencies()
    for t in ("local", "link"):
        yield from _rpcs(t)
        yield from _bulks(t, quick=True)
    for n in (64, 1000):
        yield Row(f"{n:,} connections, epoll, 64 B", "cores", "requests/s", "more", _rate("-c", str(n)), quick=False)
    for t in ("memif", "packet", "af_xdp"):
        yield Row("1 connection, blocking, 64 B: p50", t, "us", "less", _latency("-m", "block"), quick=False)
        yield Row("64 connections, epoll, 64 B", t, "requests/s", "more", _rate("-c", "64", seconds=1.5), quick=False)
        yield Row("64 connections, epoll, 1 KiB", t, "requests/s", "more", _rate("-c", "64", "-s", "1k"), quick=False)
        yield from _bulks(t, quick=False)
    for name, unit, run in programs.rows():
        for t in ("local", "link"):
            yield Row(name, t, unit, "more", run, quick=False)
    yield from _idles()
    for name, unit, better, measure in python.rows():
        yield Row(name, "python", unit, better, _value(measure))


def chosen(text: str, quick: bool) -> list[Row]:
    """Rows whose name contains ``text``; for ``quick`` without one, the short list."""
    return [r for r in rows() if (text in str(r) if text else r.quick or not quick)]
