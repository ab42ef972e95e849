"""Programs that do what a test tells them, line by line: for what several unrelated processes do with one socket."""

from __future__ import annotations

import ast
import contextlib
import json
import socket
from typing import Any

from _lab import Lab, Netns, Proc

# Runs in the program.  `give(other, sockets)` passes sockets, `take()` receives them, `later(fn)` runs fn in a thread,
# `told(n)` waits for its result; an OSError becomes its name.
_PLAY = """
import array, errno, json, os, select, signal, socket, struct, sys, threading, time
signal.signal(signal.SIGPIPE, signal.SIG_IGN)
path = sys.argv[1]
_inbox = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
_inbox.bind(path + ".in")
_inbox.listen(64)
_boss = socket.socket(socket.AF_UNIX)
_boss.bind(path)
_boss.listen(1)
_threads = []

def give(other, socks, text=b"x"):
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as u:
        u.connect(other + ".in")
        socket.send_fds(u, [text], [s if isinstance(s, int) else s.fileno() for s in socks])

def take(n=1, flags=0):
    u, _ = _inbox.accept()
    with u:
        _, fds, _, _ = socket.recv_fds(u, 100, n, flags)
    return fds

def sock(fd):
    return socket.socket(socket.AF_INET, socket.SOCK_STREAM, 0, fileno=fd)

def got(s, n):
    b = b""
    while len(b) < n:
        more = s.recv(n - len(b))
        if not more:
            break
        b += more
    return b

def later(fn, *args):
    out = []
    def run():
        try:
            out.append(fn(*args))
        except OSError as e:
            out.append(errno.errorcode[e.errno])
    t = threading.Thread(target=run, daemon=True)
    t.start()
    _threads.append((t, out))
    return len(_threads) - 1

def told(n, timeout=20):
    t, out = _threads[n]
    t.join(timeout)
    return out[0] if out else "still waiting"

def _run(code):
    try:
        try:
            return repr(eval(compile(code, "puppet", "eval"), globals()))
        except SyntaxError:
            exec(compile(code, "puppet", "exec"), globals())
            return "None"
    except OSError as e:
        return repr(errno.errorcode.get(e.errno, str(e)))

print("up", flush=True)
_c, _ = _boss.accept()
_f = _c.makefile("rw")
for _line in _f:
    try:
        _f.write(_run(json.loads(_line)) + "\\n")
    except BaseException as e:
        _f.write("!" + repr(e).replace("\\n", " ") + "\\n")
    _f.flush()
"""


class Puppet:
    """One program; ``p("code")`` runs it there and returns its value (an OSError gives its name)."""

    def __init__(self, lab: Lab, *, on_tas: bool = True, env: dict[str, str] | None = None, ns: Netns | None = None,
                 via: tuple[str, ...] = ()) -> None:  # fmt: skip
        self.path = str(lab.tmp / f"puppet{len(lab.procs)}")
        full = {**(lab.tas_env() if on_tas else {}), **(env or {})}
        self.proc: Proc = lab.start(
            ns or lab.app, "/usr/bin/python3", "-u", lab.script(_PLAY), self.path, env=full, via=via
        )
        self.proc.line("^up$")
        self._sock = socket.socket(socket.AF_UNIX)
        self._sock.settimeout(40)
        self._sock.connect(self.path)
        self._file = self._sock.makefile("rw")
        lab.stack.callback(self.close)

    def begin(self, code: str) -> None:
        """Starts code; its value is read by ``end``."""
        self._file.write(json.dumps(code) + "\n")
        self._file.flush()

    def end(self) -> Any:
        line = self._file.readline()
        assert line[:1] not in ("", "!"), f"{self.path}: {line or 'ended'} {self.proc.err[-2000:]}"
        return ast.literal_eval(line) if not line.startswith("<") else line

    def __call__(self, code: str) -> Any:
        self.begin(code)
        return self.end()

    def quit(self) -> None:
        """Ends by itself, as a program does that returns from main."""
        with contextlib.suppress(AssertionError, OSError):
            self("os._exit(0)")
        self.close()
        self.proc.wait()

    def kill(self) -> None:
        self.close()
        self.proc.kill()

    def close(self) -> None:
        self._file.close()
        self._sock.close()


def closed(s: socket.socket, timeout: float = 10) -> str:
    """How the connection of a kernel socket ended: 'eof' or 'reset'."""
    s.settimeout(timeout)
    try:
        while s.recv(65536):
            pass
    except ConnectionResetError:
        return "reset"
    return "eof"


def got(s: socket.socket, n: int) -> bytes:
    """The next n bytes (MSG_WAITALL means nothing to a socket with a timeout)."""
    b = b""
    while len(b) < n and (more := s.recv(n - len(b))):
        b += more
    return b
