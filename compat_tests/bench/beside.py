"""What goes on beside a measurement: hogs, idle states held off, and how noisy the machine is."""

from __future__ import annotations

import contextlib
import os
import struct
import subprocess
import time
from collections.abc import Callable, Iterator
from typing import Any

import psutil
from _lab import BUILD

LATENCY = "/dev/cpu_dma_latency"


@contextlib.contextmanager
def hogs(count: int) -> Iterator[None]:
    """So many processes that compute without end, free to run on any CPU."""
    made = [subprocess.Popen(["sh", "-c", "while :; do :; done"], start_new_session=True) for _ in range(count)]
    try:
        yield
    finally:
        for p in made:
            p.kill()
            p.wait()


@contextlib.contextmanager
def awake() -> Iterator[None]:
    """No idle states of processors that take time to leave (PM QoS)."""
    fd = os.open(LATENCY, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, struct.pack("i", 0))
        yield
    finally:
        os.close(fd)


def cacheline_ns() -> float:
    """Round trip of a cache line between two CPUs: where the host has put them now."""
    done = subprocess.run([BUILD / "cacheline"], capture_output=True, text=True, check=False, timeout=60)
    return float(done.stdout) if done.returncode == 0 else float("nan")


def competing_cpus() -> float:
    """CPUs' worth of work by everybody else, over a moment without work of ours."""
    psutil.cpu_percent(None)
    return round(psutil.cpu_percent(0.2) / 100 * (psutil.cpu_count() or 1), 2)


def stolen() -> Callable[[], float]:
    """Of the time from now on: the share of the CPUs that the host ran something else on (``steal``, proc(5))."""
    before = psutil.cpu_times()

    def share() -> float:
        after = psutil.cpu_times()
        return float((after.steal - before.steal) / max(sum(after) - sum(before), 1e-9))

    return share


def note() -> dict[str, Any]:
    """Of this moment, for the record of a repetition."""
    return {
        "at": time.strftime("%H:%M:%S", time.gmtime()),
        "cacheline_ns": cacheline_ns(),
        "competing_cpus": competing_cpus(),
        "loadavg": os.getloadavg()[0],
    }
