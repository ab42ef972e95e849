"""The channel to the suite, and the loop."""

from __future__ import annotations

import faulthandler
import os
import signal
import socket as std
import sys

from . import files, process, sockets, threads, waiting
from .calls import CALLS, run

CHANNEL = 900

assert CALLS, (files, sockets, waiting)  # which declared them
received = b""


def channel_open(path: str) -> None:
    global received
    s = std.socket(std.AF_UNIX)
    s.connect(path)
    os.dup2(s.fileno(), CHANNEL, inheritable=False)
    s.close()
    received = b""
    os.write(CHANNEL, f"hello {os.getpid()}\n".encode())


def fork(path: str) -> str:
    pid = os.fork()
    if pid:
        return str(pid)
    os.close(CHANNEL)
    threads.threads.clear()
    channel_open(path)
    return "child"


def serve(text: str, path: str) -> str:
    kind, _, rest = text.partition(" ")
    if kind == "c":
        return run(rest)
    if kind == "n":
        return process.show_counted()
    if kind == "r":
        return process.reset()
    if kind == "f":
        return fork(path)
    if kind == "x":
        os._exit(0)
    if kind == "e":
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
    first, _, more = rest.partition(" ")
    n = int(first)
    if kind == "t":
        threads.start(n, more)
        return "ok"
    if kind == "s":
        return process.handler(n, int(more))
    if kind == "K":
        return "u threads cannot be cancelled"
    if n not in threads.threads:
        return "none"
    if kind == "k":
        signal.pthread_kill(threads.threads[n].ident or 0, int(more))
        return "0"
    if kind == "b":
        return threads.blocked(n)
    result = threads.ended(n, int(more) / 1000)
    return "blocked" if result is None else result


def main() -> int:
    global received
    path = sys.argv[1]
    faulthandler.register(signal.SIGPROF, all_threads=True)
    process.inherited.update(int(n) for n in os.listdir("/proc/self/fd"))
    channel_open(path)
    while True:
        while b"\n" not in received:
            more = os.read(CHANNEL, 1 << 20)
            if not more:
                return 0
            received += more
        line, received = received.split(b"\n", 1)
        reply = serve(line.decode(), path).encode() + b"\n"
        while reply:
            reply = reply[os.write(CHANNEL, reply) :]


if __name__ == "__main__":
    sys.exit(main())
