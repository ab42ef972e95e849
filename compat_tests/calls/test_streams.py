"""stdio on a socket: fdopen and what works on such a stream, dprintf, and the standard streams."""

from __future__ import annotations

import struct

from harness.agent import Agent
from harness.memory import Mem, inout, out
from harness.rig import Pair
from harness.states import HUP, IN, RDHUP
from harness.suite import scenario
from harness.trace import Result

PRELOAD = ["preload"]
DONTWAIT = 0x40
LINE_BUFFERED, UNBUFFERED = 1, 2


def text(s: str) -> bytes:
    return s.encode() + b"\0"


def see_pointer(r: Result) -> str:
    return "pointer" if r.ret not in (0, -1) else "NULL"


def stream(a: Agent, fd: int, mode: str, call: str = "fdopen") -> int:
    return a.do(call, fd, text(mode), see=see_pointer, text=f"{fd}, {mode!r}").ret


def on(a: Agent, call: str, *args: int | bytes | Mem, f: int, first: bool = False) -> Result:
    """A call on a stream, whose address does not show."""
    shown = ", ".join(["FILE", *(str(b) if isinstance(b, int | bytes) else b.text for b in args)])
    return a.do(call, *([f, *args] if first else [*args, f]), text=shown)


def line(a: Agent, f: int, n: int = 64) -> None:
    a.do(
        "fgets",
        out(n),
        n,
        f,
        see=lambda r: f"{see_pointer(r)} {r.out[0].split(bytes(1))[0] if r.ret else ''!r}",
        text=f"{n}, FILE",
    )


def arrived(x: Pair, pfd: int, n: int) -> None:
    """What has come, n bytes expected, in one piece however it came."""
    got = b""
    while len(got) < n and x.p.do("poll", inout(struct.pack("=ihh", pfd, IN, 0)), 1, 3000, quiet=True).ret == 1:
        r = x.p.do("recv", pfd, out(4096), 4096, DONTWAIT, quiet=True)
        if r.ret <= 0:
            break
        got += r.out[0][: r.ret]
    x.p.trace.note(x.p.name, "has", f"{len(got)} {got[:60]!r}")


@scenario(subjects=PRELOAD, cases=["r", "w", "a", "r+", "w+", "a+", "rb", "wb+", "re", "x", "", "rwb"])
def test_fdopen(x: Pair) -> None:
    fd, pfd = x.connected()
    x.p.send(pfd, b"one\ntwo\n")
    x.s.until(fd, IN)
    f = stream(x.s, fd, x.case)
    if not f:
        return
    on(x.s, "fileno", f=f)
    line(x.s, f)
    on(x.s, "ferror", f=f)
    on(x.s, "feof", f=f)
    on(x.s, "clearerr", f=f)
    on(x.s, "fputs", text("three\n"), f=f)
    on(x.s, "fflush", f=f)
    on(x.s, "ferror", f=f)
    x.p.poll((pfd, IN), timeout=1000 if x.case.rstrip("be") != "r" else 0)
    on(x.s, "fclose", f=f)
    x.s.recv(fd, 10, DONTWAIT)
    x.p.until(pfd, HUP if x.case in ("w", "a") else IN)  # who did not read resets
    x.p.recv(pfd, 20, DONTWAIT)


@scenario(subjects=PRELOAD, cases=["r", "r+", "_IO_fdopen"])
def test_reading_lines(x: Pair) -> None:
    fd, pfd = x.connected()
    f = stream(
        x.s, fd, "r+" if x.case == "_IO_fdopen" else x.case, "_IO_fdopen" if x.case == "_IO_fdopen" else "fdopen"
    )
    x.p.send(pfd, b"first line\nsecond")
    line(x.s, f)
    line(x.s, f, 4)
    on(x.s, "ungetc", ord("Z"), f=f)
    on(x.s, "fgetc", f=f)
    x.p.send(pfd, b" line\nrest")
    line(x.s, f)
    x.p.shutdown(pfd, 1)
    line(x.s, f)
    on(x.s, "feof", f=f)
    line(x.s, f)
    on(x.s, "ftell", f=f)
    on(x.s, "fseek", 0, 0, f=f, first=True)
    on(x.s, "fclose", f=f)


@scenario(subjects=PRELOAD, cases=["full", "line", "none"])
def test_buffering(x: Pair) -> None:
    """When bytes leave."""
    fd, pfd = x.connected()
    f = stream(x.s, fd, "w")
    if x.case == "line":
        on(x.s, "setvbuf", 0, LINE_BUFFERED, 0, f=f, first=True)
    elif x.case == "none":
        on(x.s, "setvbuf", 0, UNBUFFERED, 0, f=f, first=True)
    on(x.s, "fputs", text("abc"), f=f)
    x.p.poll((pfd, IN), timeout=50 if x.case != "none" else 1000)
    on(x.s, "fputs", text("def\n"), f=f)
    x.p.poll((pfd, IN), timeout=50 if x.case == "full" else 1000)
    on(x.s, "fprintf", text("%s %d\n"), text("word"), 42, f=f, first=True)
    on(x.s, "fwrite", bytes(10000), 1, 10000, f=f)
    on(x.s, "fclose", f=f)
    arrived(x, pfd, 20000)


@scenario(subjects=PRELOAD, cases=["write", "read", "close"])
def test_when_the_peer_is_gone(x: Pair) -> None:
    fd, pfd = x.connected()
    f = stream(x.s, fd, "r+")
    x.s.handler(13)
    if x.case == "close":
        on(x.s, "fputs", text("never"), f=f)
    x.p.set(pfd, 1, 13, struct.pack("=ii", 1, 0))
    x.p.close(pfd)
    x.s.until(fd, IN)
    if x.case == "write":
        on(x.s, "fputs", text("lost"), f=f)
        on(x.s, "fflush", f=f)
        on(x.s, "ferror", f=f)
        on(x.s, "fputs", text("lost"), f=f)
        on(x.s, "fflush", f=f)
    elif x.case == "read":
        line(x.s, f)
        on(x.s, "ferror", f=f)
        on(x.s, "feof", f=f)
        line(x.s, f)
    on(x.s, "fclose", f=f)
    x.s.signals()


@scenario(subjects=PRELOAD)
def test_nonblocking_stream(x: Pair) -> None:
    fd, pfd = x.connected()
    x.s.nonblock(fd)
    f = stream(x.s, fd, "r")
    line(x.s, f)
    on(x.s, "ferror", f=f)
    on(x.s, "clearerr", f=f)
    x.p.send(pfd, b"now\n")
    x.s.until(fd, IN)
    line(x.s, f)
    on(x.s, "fclose", f=f)


@scenario(subjects=PRELOAD, cases=["dprintf", "__dprintf_chk", "fresh", "shut", "listening"])
def test_dprintf(x: Pair) -> None:
    fd, pfd = x.connected()
    s = x.s
    s.handler(13)
    if x.case == "__dprintf_chk":
        s.do("__dprintf_chk", fd, 1, text("%s-%d"), text("checked"), 7)
    elif x.case == "fresh":
        s.do("dprintf", s.socket(), text("x"))
    elif x.case == "listening":
        s.do("dprintf", x.listener(s)[0], text("x"))
    elif x.case == "shut":
        s.shutdown(fd, 1)
        s.do("dprintf", fd, text("x"))
    else:
        s.do("dprintf", fd, text("%s-%d\n"), text("text"), 7)
        s.do("dprintf", fd, text(""))
        s.do("dprintf", fd, text("%20000d"), 1)
    s.signals()
    s.shutdown(fd, 1)
    arrived(x, pfd, 30000)


@scenario(subjects=PRELOAD, cases=["same", "other file", "nonexistent"])
def test_freopen(x: Pair) -> None:
    fd, pfd = x.connected()
    f = stream(x.s, fd, "r+")
    x.p.send(pfd, b"kept\n")
    x.s.until(fd, IN)
    paths: dict[str, int | bytes] = {
        "same": 0,
        "other file": text("/etc/hostname"),
        "nonexistent": text("/nonexistent/file"),
    }
    path = paths[x.case]
    r = x.s.do("freopen", path, text("r"), f, see=see_pointer, text=f"{path!r}, r, FILE")
    if r.ret == 0:
        x.s.recv(fd, 10, DONTWAIT)
        x.p.until(pfd, RDHUP)
        return
    on(x.s, "fileno", f=f)
    if x.case == "same":
        line(x.s, f)
    x.p.poll((pfd, RDHUP), timeout=1000 if x.case == "other file" else 0)
    on(x.s, "fclose", f=f)


@scenario(subjects=PRELOAD, cases=[0, 1, 2])
def test_streams_on_standard_numbers(x: Pair) -> None:
    """inetd: a connection put on 0, 1 or 2, and libc's streams that go there."""
    fd, pfd = x.connected()
    s, number = x.s, x.case
    kept = s.do("fcntl", number, 1030, 200).ret
    s.do("dup2", fd, number)
    if number == 0:
        x.p.send(pfd, b"line\nmore\n")
        s.until(0, IN)
        s.do("getchar")
        s.do("getchar")
        s.do("scanf", text("%*s"))
        s.do("fcntl", 0, 3, 0)
    elif number == 1:
        s.do("puts", text("put"))
        s.do("printf", text("%s"), text("printed"))
        s.do("fflush", 0)
    else:
        s.do("perror", text("what"), see=lambda r: "")
        s.do("psignal", 9, text("sig"), see=lambda r: "")
        s.do("error", 0, 0, text("formatted %d"), 3, see=lambda r: "")
        s.do("warnx", text("warned"), see=lambda r: "")
    s.do("fflush", 0)
    s.do("dup2", kept, number)
    s.do("close", kept)
    s.shutdown(fd, 1)
    arrived(x, pfd, 500)


@scenario(
    subjects=PRELOAD,
    cases=[
        "isatty",
        "ttyname",
        "tcgetattr",
        "isfdtype",
        "lockf",
        "flock",
        "fdatasync",
        "fpathconf",
        "syncfs",
        "fchmod",
        "fstat",
    ],
)
def test_file_calls(x: Pair) -> None:
    """Calls on files, given a socket."""
    fd, _ = x.connected()
    s = x.s

    def see_stat(r: Result) -> str:
        mode, size = struct.unpack_from("=I", r.out[0], 24)[0], struct.unpack_from("=q", r.out[0], 48)[0]
        return f"{r} mode {mode:o} size {size} links {struct.unpack_from('=Q', r.out[0], 16)[0]}"

    if x.case == "isfdtype":
        s.do("isfdtype", fd, 0o140000)
        s.do("isfdtype", fd, 0o100000)
    elif x.case == "ttyname":
        s.do("ttyname_r", fd, out(64), 64)
    elif x.case == "tcgetattr":
        s.do("tcgetattr", fd, out(64), see=str)
    elif x.case == "lockf":
        s.do("lockf", fd, 1, 10)
    elif x.case == "flock":
        s.do("flock", fd, 2)
        s.do("flock", fd, 8)
    elif x.case == "fpathconf":
        s.do("fpathconf", fd, 5)
    elif x.case == "fchmod":
        s.do("fchmod", fd, 0o600)
        s.do("fstat", fd, out(144), see=see_stat)
    elif x.case == "fstat":
        s.do("fstat", fd, out(144), see=see_stat)
        s.do(
            "statx",
            fd,
            text(""),
            0x1000,
            0x7FF,
            out(256),
            see=lambda r: f"{r} mode {struct.unpack_from('=H', r.out[0], 28)[0]:o}",
        )
    else:
        s.do(x.case, fd)


@scenario(subjects=PRELOAD, cases=["eventfd_read", "eventfd_write", "bindresvport", "recv_null", "readlink"])
def test_calls_that_libc_builds_of_others(x: Pair) -> None:
    fd, pfd = x.connected()
    s = x.s
    if x.case == "eventfd_read":
        x.p.send(pfd, b"12345678abc")
        s.until(fd, IN)
        s.do("eventfd_read", fd, out(8))
        s.do("eventfd_read", fd, out(8))
    elif x.case == "eventfd_write":
        s.do("eventfd_write", fd, 0x3837363534333231)
        arrived(x, pfd, 8)
    elif x.case == "bindresvport":
        s.do("bindresvport", fd, 0)
        f = s.socket()
        s.do("bindresvport", f, 0)
        port = s.port(f)
        s.trace.note(s.name, "reserved", str(0 < port < 1024))
        s.listen(f)
        x.p.trace.note(
            x.p.name, "reached", str(x.p.do("connect", x.p.socket(), *addressed(x.s_ip, port), quiet=True).ret)
        )
        s.accept(f)
    elif x.case == "recv_null":
        s.do("recv", fd, 0, 0, DONTWAIT)
    else:
        s.do("readlink", f"/proc/self/fd/{fd}".encode() + b"\0", out(64), 64, see=lambda r: str(r.out[0][:8]))


def addressed(ip: str, port: int) -> tuple[bytes, int]:
    from harness.memory import address

    return address(ip, port), 16
