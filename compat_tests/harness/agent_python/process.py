"""Signals that are counted, and the process as it was at first."""

from __future__ import annotations

import contextlib
import os
import resource
import signal

from .objects import closed, data_of, objects, sets
from .threads import threads

PROGRAMS = 512  # numbers from here on are the client library's own
inherited: set[int] = set()  # numbers that were there when it began

counted: dict[int, int] = {}


def count(n: int, _frame: object) -> None:
    counted[n] = counted.get(n, 0) + 1


def handler(n: int, flags: int) -> str:
    signal.signal(n, signal.SIG_DFL if flags == -1 else signal.SIG_IGN if flags == -2 else count)
    if flags >= 0:
        signal.siginterrupt(n, not flags & 0x10000000)
    return "0"


def show_counted() -> str:
    shown = "".join(f" {n}:{c}" for n, c in sorted(counted.items()))
    counted.clear()
    return f"n{shown}"


def reset() -> str:
    stuck = sum(t.is_alive() for t in threads.values())
    threads.clear()
    for n in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP, signal.SIGPROF, signal.SIGINT, signal.SIGUSR2}:
        if signal.getsignal(n) is count or n == signal.SIGPIPE:
            signal.signal(n, signal.SIG_IGN if n == signal.SIGPIPE else signal.SIG_DFL)
    counted.clear()
    resource.setrlimit(resource.RLIMIT_NOFILE, (1024, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    for o in [*objects.values(), *sets.values()]:
        with contextlib.suppress(OSError):
            o.close()
    for table in (objects, closed, sets, data_of):
        table.clear()
    for fd in [int(n) for n in os.listdir("/proc/self/fd")]:
        if fd in inherited or not 2 < fd < PROGRAMS:
            continue
        with contextlib.suppress(OSError):
            os.close(fd)
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG) != (0, 0):
            pass
    return f"stuck {stuck}"
