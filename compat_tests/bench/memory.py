"""What idle connections cost: kernel and shared memory, stated apart, and how fast active ones are beside them."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from _lab import BUILD, Proc, until

from .stacks import Stack

Measure = Callable[[Stack], dict[str, Any]]
REST = 4.0  # seconds; who has done nothing for one or two is idle
FEW = 50  # connections in TIME_WAIT that are none: what a slab rounds up to
PER_PROCESS = 18_000  # connections from one address to one port: the ephemeral ports are 28,000


def _shrink() -> None:
    """Gives back slabs that earlier connections have left empty (slabinfo(5)): what is made in them would seem free."""
    for cache in Path("/sys/kernel/slab").glob("*/shrink"):
        if not cache.parent.is_symlink():
            cache.write_text("1")


def times_waiting() -> int:
    """The kernel's connections in TIME_WAIT, in all namespaces."""
    _shrink()
    found = re.search(r"^tw_sock_TCP +(\d+)", Path("/proc/slabinfo").read_text(), re.M)
    return int(found[1]) if found else 0


def kernel_bytes() -> int:
    """Slab and page memory of the kernel's objects; sockets' queues are pages of their own."""
    _shrink()
    return _meminfo("Slab", "KernelStack", "PageTables")


@contextlib.contextmanager
def no_time_wait(s: Stack) -> Iterator[None]:
    """Connections that close within go at once: the next repetition need not wait a minute for them."""
    key = "net.ipv4.tcp_max_tw_buckets"
    before = s.lab.app.run("sysctl", "-n", key).strip()
    s.lab.app.run("sysctl", "-q", f"{key}=0")
    try:
        yield
    finally:
        s.lab.app.run("sysctl", "-q", f"{key}={before}")


def _meminfo(*keys: str) -> int:
    found = dict(re.findall(r"^(\w+):\s+(\d+)", Path("/proc/meminfo").read_text(), re.M))
    return sum(int(found[key]) for key in keys) * 1024


def _bytes(s: Stack) -> dict[str, int]:
    """Of the kernel, of all shared memory that is there (pages), and what of it connections have been given."""
    used = sum(x.gauges()["chunk_bytes_used"] for x in s.services)
    return {"kernel": kernel_bytes(), "shared": _meminfo("Shmem"), "allocated": used}


@contextlib.contextmanager
def _idle(s: Stack, count: int) -> Iterator[list[str]]:
    """So many connections that had one request each, in as few pairs of programs as that takes; the servers' ports."""
    servers: list[Proc] = []
    clients = []
    try:
        ports = []
        for first in range(0, count, PER_PROCESS):
            servers.append(s.server(BUILD / "echoserver", "--port=0"))
            ports.append(str(servers[-1].listening()))
            n = str(min(PER_PROCESS, count - first))
            clients.append(s.client(BUILD / "rpcclient", "--json", "-c", n, "-n", n, "--hold=600", s.addr, ports[-1]))
            clients[-1].line("^holding", 60)
        yield ports
    finally:
        with no_time_wait(s):
            for p in servers + clients:
                p.kill()


def each(count: int, what: str) -> Measure:
    """Bytes per endpoint of so many idle connections: ``what`` is "kernel" or "shared".

    The kernel keeps a closed connection for a minute (TIME_WAIT). Those of earlier rows are waited for: their memory,
    given back meanwhile, would be subtracted.
    """

    def run(s: Stack) -> dict[str, Any]:
        until("no connection in TIME_WAIT", lambda: times_waiting() < FEW, 90)
        time.sleep(REST)
        before = _bytes(s)
        with _idle(s, count):
            time.sleep(REST)
            after = _bytes(s)
        figures = {key: (after[key] - before[key]) / (2 * count) for key in before}
        return {"value": figures[what], **figures}

    return run


def beside(count: int, active: int) -> Measure:
    """Requests per second of ``active`` connections to a program that holds ``count`` idle ones besides."""

    def run(s: Stack) -> dict[str, Any]:
        with _idle(s, count) as ports:
            time.sleep(REST)
            out = s.client(
                BUILD / "rpcclient", "--json", "-c", str(active), "-T", "0.7", "-w", "0.2", s.addr, ports[0]
            ).json(60)
        return {"value": out["rate"], "p50": out["latency_us"]["p50"], "p99": out["latency_us"]["p99"]}

    return run
