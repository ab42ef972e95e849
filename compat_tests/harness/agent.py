"""An agent as the harness sees it: calls go out as lines, results come back and are noted in a trace."""

# ruff: noqa: E501  (tables of cases, one a line)
from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import select
import signal
import socket
import struct
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from .memory import Mem, address, group, inout, out, parse_address, show
from .trace import Result, Trace, bits, parse, see_received

# Functions of libc that return a long.
LONGS = frozenset(
    [
        "read",
        "write",
        "readv",
        "writev",
        "send",
        "sendto",
        "sendmsg",
        "recv",
        "recvfrom",
        "recvmsg",
        "sendfile",
        "splice",
        "preadv2",
        "pwritev2",
        "pread",
        "pwrite",
        "fdopen",
        "_IO_fdopen",
        "freopen",
        "popen",
        "fgets",
    ]
)
HANG = 8.0


SYS_TGKILL = 234
_libc = ctypes.CDLL(None, use_errno=True)


def _first(path: Path) -> str:
    try:
        return path.read_text().strip().replace("\n", " ")
    except OSError as e:
        return f"({e.strerror})"


class AgentLost(Exception):
    """The agent ended or does not answer."""


class Unsupported(Exception):
    """The subject has no such call; says why."""


class Agent:
    """One agent process: ``argv`` starts it, it connects to the unix socket at ``path``.

    The methods named like calls make that call and note it; ``do`` makes any.
    """

    def __init__(self, name: str, argv: Sequence[str], path: Path) -> None:
        self.name, self.path = name, path
        self.trace = Trace()
        self.children: list[Agent] = []
        self.popen: subprocess.Popen[bytes] | None = None
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(path))
        self.listener.listen(8)
        self.listener.settimeout(20)
        self.log = path.with_suffix(".log")
        if argv:
            with open(self.log, "ab") as log:
                self.popen = subprocess.Popen(
                    [*argv, str(path)], stdin=subprocess.DEVNULL, stderr=log, start_new_session=True
                )
        self._accept()
        self.at_rest = self.descriptors()

    def _accept(self) -> None:
        try:
            self.channel, _ = self.listener.accept()
        except TimeoutError:
            raise AgentLost(f"agent {self.name} did not connect") from None
        self.channel.settimeout(HANG)
        self.buffer = b""
        self.pid = int(self._line().split()[1])

    # ---- the channel ----
    def _line(self) -> str:
        while b"\n" not in self.buffer:
            try:
                more = self.channel.recv(1 << 20)
            except TimeoutError:
                raise AgentLost(f"{self.name} hangs") from None
            except OSError as e:
                raise AgentLost(f"{self.name}: {e}") from e
            if not more:
                raise AgentLost(f"{self.name} died{self._death()}")
            self.buffer += more
        line, self.buffer = self.buffer.split(b"\n", 1)
        return line.decode()

    def _death(self) -> str:
        if not self.popen:
            return ""
        with contextlib.suppress(subprocess.TimeoutExpired):
            code = self.popen.wait(2)
            return f" by {signal.Signals(-code).name}" if code < 0 else f" with status {code}"
        return ""

    def ask(self, request: str) -> str:
        try:
            self.channel.sendall(request.encode() + b"\n")
        except OSError:
            raise AgentLost(f"{self.name} died{self._death()}") from None
        line = self._line()
        if line.startswith("u "):
            raise Unsupported(line[2:])
        return line

    # ---- health ----
    def descriptors(self) -> dict[int, str]:
        """What the process has open, by number."""
        found = {}
        with contextlib.suppress(OSError):
            for n in os.listdir(f"/proc/{self.pid}/fd"):
                with contextlib.suppress(OSError):
                    found[int(n)] = os.readlink(f"/proc/{self.pid}/fd/{n}")
        return found

    def offspring(self) -> bool:
        """Whether processes that it forked are still there; those that just ended are given a moment."""
        path = Path(f"/proc/{self.pid}/task/{self.pid}/children")
        end = time.monotonic() + 2
        while _first(path).strip("0123456789 ") == "" and _first(path):
            if time.monotonic() > end:
                return True
            self.ask("r")  # reaps
            time.sleep(0.002)
        return False

    def stacks(self) -> str:
        """What each thread is doing: its own word (SIGPROF makes it print its stack) and the kernel's."""
        said = self.log.stat().st_size
        lines = []
        tasks = sorted(int(t) for t in os.listdir(f"/proc/{self.pid}/task"))
        for tid in tasks:
            _libc.syscall(SYS_TGKILL, self.pid, tid, int(signal.SIGPROF))
            folder = Path(f"/proc/{self.pid}/task/{tid}")
            facts = [tid, *(_first(folder / name) for name in ("wchan", "syscall", "stack"))]
            lines.append("thread {} wchan {} syscall {} {}".format(*facts))
        time.sleep(0.3)
        with open(self.log, "rb") as f:
            f.seek(said)
            return "\n".join([*lines, f.read().decode(errors="replace")])

    # ---- calls ----
    def do(
        self,
        name: str,
        *args: int | bytes | Mem,
        see: Callable[[Result], str] | None = None,
        text: str | None = None,
        thread: int | None = None,
        quiet: bool = False,
    ) -> Result:
        """Makes a call; ``see`` says what of its result is compared (default: all), ``text`` how it reads in the trace."""
        tokens = [a.token if isinstance(a, Mem) else f"b{a.hex()}" if isinstance(a, bytes) else f"i{a}" for a in args]
        request = " ".join([name, "l" if name in LONGS else "i", *tokens])
        shown = f"{name}({', '.join(show(a) for a in args) if text is None else text})"
        if thread is not None:
            self._note(f"thread {thread}: {shown}", self.ask(f"t {thread} {request}"))
            self._see = getattr(self, "_see", {})
            self._see[thread] = see
            return Result(state="started")
        try:
            result = parse(self.ask(f"c {request}"))
        except AgentLost as e:
            self._note(shown, str(e))
            raise
        if not quiet:
            self._note(shown, see(result) if see and not result.state else result.full())
        return result

    def _note(self, call: str, result: str) -> None:
        self.trace.note(self.name, call, result)

    def _thread_result(self, thread: int, line: str, what: str) -> Result:
        result = parse(line)
        see = self._see.get(thread)
        self._note(f"{what} {thread}", see(result) if see and not result.state else result.full())
        return result

    def blocked(self, thread: int) -> Result:
        """Whether the thread's call blocks; its result if it does not."""
        return self._thread_result(thread, self.ask(f"b {thread}"), "thread")

    def wait(self, thread: int, ms: int = 3000) -> Result:
        """The thread's result."""
        return self._thread_result(thread, self.ask(f"w {thread} {ms}"), "thread")

    def kill(self, thread: int, number: int) -> None:
        self._note(f"signal {number} to thread {thread}", self.ask(f"k {thread} {number}"))

    def cancel(self, thread: int) -> None:
        self._note(f"cancel thread {thread}", self.ask(f"K {thread}"))

    def handler(self, number: int, flags: int = 0) -> None:
        """Counts a signal; flags -1: default, -2: ignored."""
        self.ask(f"s {number} {flags}")

    def signals(self) -> str:
        got = self.ask("n")[1:].strip()
        self._note("signals", got)
        return got

    def fork(self) -> Agent:
        """A child that is an agent too."""
        pid = self.ask("f")
        child = Agent.__new__(Agent)
        child.name, child.path, child.trace, child.children, child.popen = (
            f"{self.name}-child",
            self.path,
            self.trace,
            [],
            None,
        )
        child.log = self.log
        child.listener = self.listener
        child._accept()
        child._line()  # its answer to "f"
        assert child.pid == int(pid)
        self.children.append(child)
        self._note("fork", "child")
        return child

    def exec(self) -> None:
        """The agent executes itself: same process, same inherited descriptors."""
        self.channel.sendall(b"e\n")
        self.channel.close()
        self._accept()
        self._note("exec", "done")

    # ---- the calls of sockets ----
    def socket(self, family: int = socket.AF_INET, kind: int = socket.SOCK_STREAM, proto: int = 0) -> int:
        return self.do("socket", family, kind, proto).ret

    def close(self, fd: int) -> Result:
        return self.do("close", fd)

    def _to(self, ip: str, port: int) -> str:
        return f"{ip}:{self.trace.port(port)}"

    def bind(self, fd: int, ip: str, port: int = 0) -> Result:
        a = address(ip, port)
        return self.do("bind", fd, a, len(a), text=f"{fd}, {self._to(ip, port)}")

    def listen(self, fd: int, backlog: int = 16) -> Result:
        return self.do("listen", fd, backlog)

    def connect(self, fd: int, ip: str, port: int, thread: int | None = None) -> Result:
        a = address(ip, port)
        return self.do("connect", fd, a, len(a), text=f"{fd}, {self._to(ip, port)}", thread=thread)

    def see_address(self, result: Result) -> str:
        if result.ret < 0:
            return str(result)
        raw, size = result.out[-2], int.from_bytes(result.out[-1][:4], "little")
        ip, port = parse_address(raw[:size])
        return f"{result} {ip}:{self.trace.port(port)} length {size}"

    def accept(self, fd: int, flags: int | None = None, thread: int | None = None) -> Result:
        a: list[int | Mem] = [fd, out(28), inout(struct.pack("=i", 28))]
        if flags is None:
            return self.do("accept", *a, see=self.see_address, text=str(fd), thread=thread)
        return self.do("accept4", *a, flags, see=self.see_address, text=f"{fd}, {flags:#x}", thread=thread)

    def getsockname(self, fd: int) -> tuple[str, int]:
        return self._name("getsockname", fd)

    def getpeername(self, fd: int) -> tuple[str, int]:
        return self._name("getpeername", fd)

    def _name(self, call: str, fd: int) -> tuple[str, int]:
        r = self.do(call, fd, out(28), inout(struct.pack("=i", 28)), see=self.see_address, text=str(fd))
        return parse_address(r.out[0][: int.from_bytes(r.out[1], "little")]) if not r.ret else ("", 0)

    def port(self, fd: int) -> int:
        """Its own port, not noted."""
        r = self.do("getsockname", fd, out(28), inout(struct.pack("=i", 28)), quiet=True)
        return parse_address(r.out[0])[1] if not r.ret else 0

    def send(self, fd: int, data: bytes, flags: int = 0, thread: int | None = None) -> Result:
        return self.do("send", fd, data, len(data), flags, thread=thread)

    def recv(self, fd: int, size: int, flags: int = 0, thread: int | None = None) -> Result:
        return self.do(
            "recv", fd, out(size), size, flags, see=see_received, text=f"{fd}, {size}, {flags:#x}", thread=thread
        )

    def shutdown(self, fd: int, how: int) -> Result:
        return self.do("shutdown", fd, how)

    def fcntl(self, fd: int, command: int, arg: int = 0) -> Result:
        return self.do("fcntl", fd, command, arg)

    def nonblock(self, fd: int) -> None:
        self.do("fcntl", fd, 4, os.O_NONBLOCK | 2, quiet=True)

    def ioctl(self, fd: int, request: int, value: int = 0) -> Result:
        return self.do(
            "ioctl",
            fd,
            request,
            inout(struct.pack("=i", value)),
            see=lambda r: f"{r} {int.from_bytes(r.out[0], 'little')}",
        )

    def set(self, fd: int, level: int, option: int, value: int | bytes, thread: int | None = None) -> Result:
        raw = struct.pack("=i", value) if isinstance(value, int) else value
        return self.do(
            "setsockopt", fd, level, option, raw, len(raw), text=f"{fd}, {level}, {option}, {value!r}", thread=thread
        )

    def get(self, fd: int, level: int, option: int, size: int = 4) -> bytes:
        """The option's value as far as returned."""

        def see(r: Result) -> str:
            n = int.from_bytes(r.out[1], "little", signed=True)
            return f"{r} {r.out[0][: max(n, 0)].hex()} length {n}" if r.ret == 0 else str(r)

        r = self.do(
            "getsockopt",
            fd,
            level,
            option,
            out(size),
            inout(struct.pack("=i", size)),
            see=see,
            text=f"{fd}, {level}, {option}, {size}",
        )
        return r.out[0][: int.from_bytes(r.out[1], "little")] if r.ret == 0 else b""

    def error(self, fd: int) -> None:
        """SO_ERROR."""
        see = lambda r: f"{r} {errno.errorcode.get(int.from_bytes(r.out[0], 'little'), 0)}" if not r.ret else str(r)  # noqa: E731
        self.do("getsockopt", fd, 1, 4, out(4), inout(struct.pack("=i", 4)), see=see, text=f"{fd}, SO_ERROR")

    # ---- readiness ----
    def poll(self, *fds: tuple[int, int], timeout: int = 0, thread: int | None = None) -> list[int]:
        raw = b"".join(struct.pack("=ihh", fd, events, 0) for fd, events in fds)

        def masks(r: Result) -> list[int]:
            return [m[0] for m in struct.iter_unpack("=6xH", r.out[0])]

        def see(r: Result) -> str:
            return f"{r} " + " ".join(bits(m) for m in masks(r))

        shown = ", ".join(f"{fd}:{bits(e & 0xFFFF)}" for fd, e in fds)
        r = self.do("poll", inout(raw), len(fds), timeout, see=see, text=f"{shown}, {timeout}", thread=thread)
        return masks(r) if r.out else []

    def until(self, fd: int, events: int, timeout: int = 3000) -> int:
        """Waits by poll for any of these events (and no others are asked for)."""
        end = time.monotonic() + timeout / 1000
        while events & select.POLLHUP and time.monotonic() < end:  # a reset is an error a moment before it is a hang-up
            r = self.do("poll", inout(struct.pack("=ihh", fd, events, 0)), 1, timeout, quiet=True)
            if r.ret != 1 or struct.unpack("=6xH", r.out[0])[0] != select.POLLERR:
                break
        return (self.poll((fd, events), timeout=timeout) or [0])[0]

    def select(self, n: int, r: Sequence[int], w: Sequence[int], e: Sequence[int], ms: int = 0) -> Result:
        sets = [inout(sum(1 << fd for fd in s).to_bytes(128, "little")) for s in (r, w, e)]

        def see(res: Result) -> str:
            found = [int.from_bytes(o, "little") for o in res.out[:3]]
            return f"{res} " + " ".join(str([i for i in range(1024) if f >> i & 1]) for f in found)

        tv = group(ms // 1000, ms % 1000 * 1000)
        return self.do("select", n, *sets, tv, see=see, text=f"{n}, {list(r)}, {list(w)}, {list(e)}, {ms} ms")

    def epoll(self) -> int:
        return self.do("epoll_create1", 0).ret

    def ctl(self, ep: int, op: int, fd: int, events: int = 0, data: int | None = None) -> Result:
        raw = struct.pack("=IQ", events & 0xFFFFFFFF, fd if data is None else data)
        return self.do(
            "epoll_ctl", ep, op, fd, raw, text=f"{ep}, {('', 'ADD', 'DEL', 'MOD')[op]}, {fd}, {bits(events)}"
        )

    def ready(self, ep: int, timeout: int = 0, most: int = 16, thread: int | None = None) -> list[tuple[int, int]]:
        """epoll_wait: (data, events), sorted."""

        def events(r: Result) -> list[tuple[int, int]]:
            return sorted((d, e) for e, d in struct.iter_unpack("=IQ", r.out[0][: 12 * max(r.ret, 0)]))

        def see(r: Result) -> str:
            return f"{r} " + " ".join(f"{d}:{bits(e)}" for d, e in events(r))

        r = self.do(
            "epoll_wait", ep, out(12 * most), most, timeout, see=see, text=f"{ep}, {most}, {timeout}", thread=thread
        )
        return events(r) if r.out else []

    # ---- end ----
    def reset(self) -> int:
        """Closes everything; number of threads that were still in a call."""
        for child in self.children:
            with contextlib.suppress(OSError):
                child.channel.sendall(b"x\n")
                child.channel.settimeout(2)
                child.channel.recv(1)
            child.channel.close()
        self.children = []
        return int(self.ask("r").split()[1])

    def end(self) -> None:
        for child in self.children:
            child.channel.close()
        self.channel.close()
        self.listener.close()
        if self.popen:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.popen.pid, signal.SIGKILL)
            self.popen.wait()
        with contextlib.suppress(FileNotFoundError):
            self.path.unlink()
