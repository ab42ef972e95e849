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
    """One workload. ``unit``: of its value; ``better``: 'more' or 'less'; ``quick``: part of QUICK=1."""

    name: str
    topology: str
    unit: str
    better: str
    run: Callable[[Stack], Figures]
    quick: bool = True

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


def _rate(*options: str, threads: int = 1) -> Callable[[Stack], Figures]:
    def run(s: Stack) -> Figures:
        out = s.rpc(*options, threads=threads)
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


def _bulk(server_sends: bool, flows: int = 1) -> Callable[[Stack], Figures]:
    size = "100m" if flows == 1 else "200m"
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


def _rpcs(t: str) -> Iterator[Row]:
    rate = "requests/s"
    yield Row("1 connection, epoll, 64 B", t, rate, "more", _rate("-c", "1"))
    yield Row("16 connections, epoll, 64 B", t, rate, "more", _rate("-c", "16"), quick=False)
    yield Row("64 connections, epoll, 64 B", t, rate, "more", _rate("-c", "64"))
    yield Row("64 connections, epoll, 1 KiB", t, rate, "more", _rate("-c", "64", "-s", "1k"))
    yield Row("256 connections, epoll, 64 B", t, rate, "more", _rate("-c", "256"), quick=False)
    yield Row("1,000 connections, epoll, 64 B", t, rate, "more", _rate("-c", "1000"))
    yield Row("10,000 connections, epoll, 64 B", t, rate, "more", _rate("-c", "10000"), quick=False)
    yield Row("64 connections, server of 2 threads", t, rate, "more", _rate("-c", "64", threads=2), quick=False)
    yield Row("64 connections, CPU of everybody", t, "us/request", "less", _cpu("-c", "64"), quick=False)
    yield Row("16 connections, 32 deep, 1 send for all", t, "messages/s", "more", _rate("-c", "16", "-d", "32"))
    yield Row(
        "16 connections, 32 deep, 1 send each",
        t,
        "messages/s",
        "more",
        _rate("-c", "16", "-d", "32", "-1"),
        quick=False,
    )
    yield Row(
        "connect + request + close, 1 at a time", t, "per s", "more", _rate("-c", "1", "-r", "-n", "1000"), quick=False
    )
    yield Row("connect + request + close, 16 at a time", t, "per s", "more", _rate("-c", "16", "-r", "-n", "4000"))


def rows() -> Iterator[Row]:
    """All of them, in the order of the table."""
    yield from _latencies()
    for t in ("local", "link"):
        yield from _rpcs(t)
    yield Row("64 connections, epoll, 64 B", "memif", "requests/s", "more", _rate("-c", "64"), quick=False)
    yield Row("1 connection, blocking, 64 B: p50", "memif", "us", "less", _latency("-m", "block"), quick=False)
    for t in ("local", "link", "memif"):
        quick = t != "memif"
        yield Row("bulk 100 MiB to the server", t, "Mbit/s", "more", _bulk(False), quick)
        yield Row("bulk 100 MiB from the server", t, "Mbit/s", "more", _bulk(True), quick)
        if t != "memif":
            yield Row("bulk 8 × 200 MiB to the server", t, "Mbit/s", "more", _bulk(False, 8), quick=False)
            yield Row("bulk 8 × 200 MiB from the server", t, "Mbit/s", "more", _bulk(True, 8), quick=False)
    for name, unit, run in programs.rows():
        for t in ("local", "link"):
            yield Row(name, t, unit, "more", run, quick=False)
    for count in (1000, 9000, 18000):
        yield Row(
            f"{count:,} idle connections: kernel memory", "local", "B each", "less", memory.kernel(count), quick=False
        )
    yield Row("service without traffic", "local", "% of a CPU", "less", _idle, quick=False)
    for name, unit, better, measure in python.rows():
        yield Row(name, "python", unit, better, _value(measure))


def chosen(text: str, quick: bool) -> list[Row]:
    """Rows whose name contains ``text``; for ``quick`` without one, the short list."""
    return [r for r in rows() if (text in str(r) if text else r.quick or not quick)]
