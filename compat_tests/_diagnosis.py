"""What processes and services are doing, as text: for tests that hang or fail."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any, Protocol

import psutil

from tas_sockets._control import ServiceError, What

MOST = 8000  # characters of one answer


class Service(Protocol):
    """Who can be asked as ``tasctl`` does."""

    def ask(self, what: What) -> Any: ...


def service(service: Service, pid: int, log: str) -> str:
    """Its counters and gauges, connections and programs, threads, stacks and log; what it does not answer as well."""
    said = []
    for what in (What.STATS, What.CONNS, What.PROCS):
        try:
            found = service.ask(what)
            if what == What.STATS:
                found = {k: set_only(d) for k, d in found.items()}
            said.append(f"-- service {what.name.lower()}: {json.dumps(found)[:MOST]}")
        except (OSError, ServiceError) as e:
            said.append(f"-- service {what.name.lower()}: {e}")
    said += [f"-- service thread {line}" for line in threads(pid)]
    return "\n".join([*said, *stacks(pid), f"-- service's log:\n{log[-4000:]}"])


def set_only(values: Any) -> Any:
    """Of named numbers, those that are not zero; anything else as it is."""
    return {n: v for n, v in values.items() if v} if isinstance(values, dict) else values


def process(pid: int) -> str:
    """Command line, threads and stacks."""
    line = ["(gone)"]
    with contextlib.suppress(psutil.Error):
        line = psutil.Process(pid).cmdline()
    said = [f"-- process {pid}: {' '.join(line)}", *(f"   {line}" for line in threads(pid)), *stacks(pid)]
    return "\n".join(said)


def threads(pid: int) -> list[str]:
    """Each thread's name, and where the kernel has it."""
    tasks = sorted(Path(f"/proc/{pid}/task").glob("*"))
    return [" ".join([t.name, *(first_line(t / name) for name in ("comm", "wchan", "syscall"))]) for t in tasks]


def first_line(path: Path) -> str:
    """A file of /proc about somebody who may be gone."""
    try:
        return path.read_text().strip().replace("\n", " ")
    except OSError as e:
        return f"({e.strerror})"


def stacks(pid: int) -> list[str]:
    """All threads' stacks by gdb, where that is installed."""
    if not shutil.which("gdb"):
        return []
    argv = ["gdb", "-p", str(pid), "-batch", "-nx", "-ex", "thread apply all bt 20"]
    with contextlib.suppress(subprocess.TimeoutExpired):
        run = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=40)
        return [text for text in run.stdout.splitlines() if text.startswith(("#", "Thread"))]
    return ["(gdb does not come to an end)"]
