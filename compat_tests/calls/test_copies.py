"""sendfile, splice, tee, vmsplice, copy_file_range with a socket at either end."""

from __future__ import annotations

import os
import struct

from harness.agent import Agent
from harness.memory import NULL, WILD, Mem, group, inout, out
from harness.rig import Pair
from harness.states import IN, OUT
from harness.suite import scenario

PRELOAD = ["preload"]
DONTWAIT = 0x40
MOVE, NONBLOCK, SPLICE_MORE, GIFT = 1, 2, 4, 8
TEXT = bytes(range(32, 127)) * 40  # 3,800 bytes


def file(a: Agent, data: bytes = TEXT, flags: int = os.O_RDWR) -> int:
    """An open file with these bytes, position 0."""
    fd = a.do("memfd_create", b"file\0", 0).ret
    a.do("write", fd, data, len(data))
    a.do("lseek", fd, 0, 0)
    if flags != os.O_RDWR:
        fd = a.do("open", f"/proc/self/fd/{fd}".encode() + b"\0", flags).ret
    return fd


def pipe(a: Agent, flags: int = 0) -> tuple[int, int]:
    r = a.do("pipe2", out(8), flags, see=str)
    return struct.unpack("=ii", r.out[0])


def at(offset: int) -> Mem:
    return inout(struct.pack("=q", offset))


def drain(a: Agent, fd: int, n: int) -> None:
    """n bytes, however they come."""
    got = b""
    while len(got) < n and a.do("poll", inout(struct.pack("=ihh", fd, IN, 0)), 1, 3000, quiet=True).ret == 1:
        r = a.do("recv", fd, out(65536), 65536, DONTWAIT, quiet=True)
        if r.ret <= 0:
            break
        got += r.out[0][: r.ret]
    a.trace.note(a.name, f"reads {n}", f"{len(got)} {got[:8]!r} {sum(got)}")


@scenario(
    subjects=PRELOAD,
    cases={
        f"{c}-{o}-{n}": (c, o, n)
        for c in ("sendfile", "sendfile64")
        for o in ("none", 0, 100, 3800, 5000, -1)
        for n in (0, 10, 3800, 1 << 20)
    },
)
def test_sendfile_from_a_file(x: Pair) -> None:
    call, offset, n = x.case
    fd, pfd = x.connected()
    f = file(x.s)
    r = x.s.do(call, fd, f, NULL if offset == "none" else at(offset), n)
    x.s.do("lseek", f, 0, 1)
    x.s.send(fd, b"end")
    drain(x.p, pfd, max(r.ret, 0) + 3)


@scenario(
    subjects=PRELOAD,
    cases=[
        "write only",
        "closed",
        "socket",
        "pipe",
        "directory",
        "wild offset",
        "huge",
        "fresh",
        "shut",
        "reset",
        "listening",
        "eventfd",
        "append",
    ],
)
def test_sendfile_errors(x: Pair) -> None:
    s = x.s
    fd, pfd = x.connected()
    if x.case == "write only":
        s.do("sendfile", fd, file(s, flags=os.O_WRONLY), NULL, 10)
    elif x.case == "closed":
        s.do("sendfile", fd, 300, NULL, 10)
        s.do("sendfile", 300, fd, NULL, 10)
    elif x.case == "socket":
        s.do("sendfile", fd, fd, NULL, 10)
        other, _ = x.connected()
        s.do("sendfile", fd, other, at(0), 10)
    elif x.case == "pipe":
        r, w = pipe(s)
        s.do("write", w, b"abc", 3)
        s.do("sendfile", fd, r, NULL, 3)
        s.do("sendfile", fd, r, at(0), 3)
    elif x.case == "directory":
        s.do("sendfile", fd, s.do("open", b"/\0", 0).ret, NULL, 10)
    elif x.case == "wild offset":
        s.do("sendfile", fd, file(s), WILD, 10)
    elif x.case == "huge":
        s.do("sendfile", fd, file(s), NULL, (1 << 63) - 1)
        s.do("sendfile", fd, file(s), NULL, -1)
    elif x.case == "fresh":
        s.do("sendfile", s.socket(), file(s), NULL, 10)
    elif x.case == "shut":
        s.handler(13)
        s.shutdown(fd, 1)
        s.do("sendfile", fd, file(s), NULL, 10)
        s.signals()
    elif x.case == "reset":
        s.handler(13)
        x.p.set(pfd, 1, 13, struct.pack("=ii", 1, 0))
        x.p.close(pfd)
        s.until(fd, IN)
        for _ in range(2):
            s.do("sendfile", fd, file(s), NULL, 10)
        s.signals()
    elif x.case == "listening":
        s.do("sendfile", x.listener(s)[0], file(s), NULL, 10)
    elif x.case == "eventfd":
        s.do("sendfile", fd, s.do("eventfd", 1, 0).ret, NULL, 8)
    else:
        f = file(s)
        s.fcntl(f, 4, os.O_APPEND)
        s.do("sendfile", f, fd, NULL, 10)


@scenario(subjects=PRELOAD)
def test_sendfile_until_full(x: Pair) -> None:
    """A non-blocking socket takes what fits; all that it took arrives; blocking, everything."""
    fd, pfd = x.connected()
    s = x.s
    s.nonblock(fd)
    f = file(s, TEXT)
    s.do("ftruncate", f, 64 << 20)
    sent = r = refused = 0
    while refused < 2:  # full is what stays full: the peer's window may yet take some
        r = s.do("sendfile", fd, f, NULL, 64 << 20, quiet=True).ret
        sent += max(r, 0)
        refused = 0 if r > 0 else refused + 1
        if refused == 1:
            s.do("poll", inout(struct.pack("=ihh", fd, OUT, 0)), 1, 100, quiet=True)
    s.trace.note(s.name, "sendfile in the end", f"{r} {0 < sent < 64 << 20}")
    s.do("sendfile", fd, f, NULL, 1)
    s.trace.note(s.name, "position", str(s.do("lseek", f, 0, 1, quiet=True).ret == sent))
    s.poll((fd, OUT))
    got = 0
    while got < sent:
        got += x.p.do("recv", pfd, Mem("z1048576", "room"), 1 << 20, 0, quiet=True).ret
    x.p.recv(pfd, 1, DONTWAIT)


@scenario(
    subjects=PRELOAD,
    cases={f"{n}-{f}": (n, f) for n in (1, 10, 100, 5000) for f in (0, MOVE, NONBLOCK, SPLICE_MORE, MOVE | NONBLOCK)},
)
def test_splice_from_a_socket(x: Pair) -> None:
    n, flags = x.case
    fd, pfd = x.connected()
    r, w = pipe(x.s)
    x.p.send(pfd, TEXT[:50])
    x.s.until(fd, IN)
    x.s.do("splice", fd, NULL, w, NULL, n, flags)
    x.s.do("read", r, out(100), 100)
    x.s.nonblock(fd)  # the flag is for the pipe alone
    x.s.do("splice", fd, NULL, w, NULL, n, flags | NONBLOCK)
    x.p.shutdown(pfd, 1)
    x.s.until(fd, IN)
    x.s.recv(fd, 100, 0x2 | DONTWAIT)
    x.s.do("splice", fd, NULL, w, NULL, n, flags)


@scenario(
    subjects=PRELOAD,
    cases={
        f"{n}-{f}": (n, f)
        for n in (1, 10, 100, 5000)
        for f in (0, MOVE, NONBLOCK, SPLICE_MORE, MOVE | NONBLOCK | SPLICE_MORE)
    },
)
def test_splice_to_a_socket(x: Pair) -> None:
    n, flags = x.case
    fd, pfd = x.connected()
    r, w = pipe(x.s)
    x.s.do("splice", r, NULL, fd, NULL, n, flags | NONBLOCK)
    x.s.do("write", w, TEXT[:50], 50)
    took = x.s.do("splice", r, NULL, fd, NULL, n, flags).ret
    x.s.send(fd, b"end")
    drain(x.p, pfd, took + 3)
    x.s.nonblock(r)
    x.s.do("read", r, out(100), 100)
    x.s.do("close", w)
    x.s.do("splice", r, NULL, fd, NULL, n, flags)


def read_all(a: Agent, fd: int, n: int) -> bytes:
    """n bytes of a descriptor that has them, or soon will."""
    got = b""
    while len(got) < n and a.do("poll", inout(struct.pack("=ihh", fd, IN, 0)), 1, 3000, quiet=True).ret == 1:
        r = a.do("read", fd, out(65536), 65536, quiet=True)
        if r.ret <= 0:
            break
        got += r.out[0][: r.ret]
    return got


def splice_all(a: Agent, source: int, sink: int, n: int, flags: int) -> int:
    """n bytes, however many calls that takes."""
    done = 0
    while done < n:
        r = a.do("splice", source, NULL, sink, NULL, n - done, flags, quiet=True)
        if r.ret <= 0:
            break
        done += r.ret
    return done


@scenario(
    subjects=PRELOAD,
    cases={
        f"{n}-{p}-{f}": (n, p, f) for n in (3800, 65536, 300000) for p in (0, 4096, 1 << 20) for f in (0, SPLICE_MORE)
    },
)
def test_splice_carries_much(x: Pair) -> None:
    """From a socket to a pipe and from there to another: all bytes in order, whatever the size of the pipe."""
    n, size, flags = x.case
    fd, pfd = x.connected()
    to, pto = x.connected()
    r, w = pipe(x.s)
    if size:
        x.s.fcntl(w, 1031, size)
    data = (bytes(range(251)) * (n // 251 + 1))[:n]
    got, at_once = b"", 32768
    for begin in range(0, n, at_once):
        piece = data[begin : begin + at_once]
        x.p.do("send", pfd, piece, len(piece), quiet=True)
        left = len(piece)
        while left:
            moved = x.s.do("splice", fd, NULL, w, NULL, left, flags, quiet=True).ret
            if moved <= 0 or splice_all(x.s, r, to, moved, flags if left > moved else 0) != moved:
                break
            left -= moved
        got += read_all(x.p, pto, len(piece))
    x.s.trace.note(x.s.name, "relayed", f"{len(got)} {got == data}")
    x.s.do("poll", inout(struct.pack("=ihh", r, IN, 0)), 1, 0)


@scenario(subjects=PRELOAD, cases=["urgent", "full pipe", "part of a pipe", "more than there is"])
def test_splice_stops(x: Pair) -> None:
    """Where a splice ends before it has all that was asked for."""
    s = x.s
    fd, pfd = x.connected()
    r, w = pipe(s)
    if x.case == "urgent":
        x.p.send(pfd, b"before")
        x.p.do("send", pfd, b"!", 1, 1)
        x.p.send(pfd, b"after")
        s.until(fd, 0x2)
        for _ in range(3):
            s.do("splice", fd, NULL, w, NULL, 100, NONBLOCK)
        s.do("read", r, out(100), 100)
    elif x.case == "full pipe":
        s.nonblock(w)
        while s.do("write", w, bytes(4096), 4096, quiet=True).ret > 0:
            pass
        x.p.send(pfd, b"data")
        s.until(fd, IN)
        s.do("splice", fd, NULL, w, NULL, 100, 0)
        s.do("splice", fd, NULL, w, NULL, 100, NONBLOCK)
        s.do("read", r, Mem("z4096", "room"), 4096, quiet=True)
        s.do("splice", fd, NULL, w, NULL, 100, 0)
    elif x.case == "part of a pipe":
        s.do("write", w, b"0123456789", 10)
        s.do("splice", r, NULL, fd, NULL, 4, 0)
        s.do("splice", r, NULL, fd, NULL, 3, SPLICE_MORE)
        s.do("read", r, out(100), 100)
        s.send(fd, b"end")
        drain(x.p, pfd, 10)
    else:
        s.do("write", w, b"0123456789", 10)
        s.do("splice", r, NULL, fd, NULL, 1 << 20, 0)
        drain(x.p, pfd, 10)
        s.do("close", w)
        s.do("splice", r, NULL, fd, NULL, 1 << 20, 0)


@scenario(subjects=PRELOAD, cases=["blocks until data", "blocks until room", "end wakes it", "signal"])
def test_splice_waits(x: Pair) -> None:
    fd, pfd = x.connected()
    s = x.s
    r, w = pipe(s)
    if x.case == "blocks until data":
        s.do("splice", fd, NULL, w, NULL, 100, 0, thread=1)
        s.blocked(1)
        x.p.send(pfd, b"late")
    elif x.case == "blocks until room":
        s.nonblock(w)
        while s.do("write", w, bytes(4096), 4096, quiet=True).ret > 0:
            pass
        s.fcntl(w, 4, 0)
        x.p.send(pfd, b"late")
        s.until(fd, IN)
        s.do("splice", fd, NULL, w, NULL, 100, 0, thread=1)
        s.blocked(1)
        for _ in range(16):
            s.do("read", r, Mem("z4096", "room"), 4096, quiet=True)
    elif x.case == "end wakes it":
        s.do("splice", fd, NULL, w, NULL, 100, 0, thread=1)
        s.blocked(1)
        x.p.close(pfd)
    else:
        s.handler(10)
        s.do("splice", fd, NULL, w, NULL, 100, 0, thread=1)
        s.blocked(1)
        s.kill(1, 10)
    s.wait(1)


def loaded(x: Pair) -> tuple[int, int, int, int]:
    """A connection and a pipe, each with something to read."""
    fd, pfd = x.connected()
    r, w = pipe(x.s)
    x.p.send(pfd, b"data")
    x.s.until(fd, IN)
    x.s.do("write", w, b"pipe", 4)
    return fd, pfd, r, w


@scenario(
    subjects=PRELOAD,
    cases=[
        "offset in",
        "offset out",
        "no pipe",
        "two sockets",
        "bad flag",
        "fresh",
        "listening",
        "shut",
        "wrong end",
        "nothing",
        "closed",
        "reset",
    ],
)
def test_splice_errors(x: Pair) -> None:
    s = x.s
    fd, pfd, r, w = loaded(x)
    if x.case == "offset in":
        s.do("splice", fd, at(0), w, NULL, 4, 0)
        s.do("splice", r, at(0), fd, NULL, 4, 0)
    elif x.case == "offset out":
        s.do("splice", fd, NULL, w, at(0), 4, 0)
        s.do("splice", r, NULL, fd, at(0), 4, 0)
    elif x.case == "no pipe":
        s.do("splice", fd, NULL, file(s), NULL, 4, 0)
        s.do("splice", file(s), NULL, fd, NULL, 4, 0)
    elif x.case == "two sockets":
        s.do("splice", fd, NULL, x.connected()[0], NULL, 4, 0)
    elif x.case == "bad flag":
        s.do("splice", fd, NULL, w, NULL, 4, 16)
        s.do("splice", r, NULL, fd, NULL, 4, 1 << 20)
    elif x.case == "fresh":
        s.do("splice", s.socket(), NULL, w, NULL, 4, 0)
        s.handler(13)
        s.do("splice", r, NULL, s.socket(), NULL, 4, 0)
        s.signals()
    elif x.case == "listening":
        lfd = x.listener(s)[0]
        s.handler(13)
        s.do("splice", lfd, NULL, w, NULL, 4, 0)
        s.do("splice", r, NULL, lfd, NULL, 4, 0)
        s.signals()
    elif x.case == "shut":
        s.handler(13)
        s.shutdown(fd, 2)
        s.do("splice", r, NULL, fd, NULL, 4, 0)
        s.signals()
        s.nonblock(r)
        s.do("read", r, out(10), 10)
    elif x.case == "wrong end":
        s.do("splice", fd, NULL, r, NULL, 4, 0)
        s.do("splice", w, NULL, fd, NULL, 4, 0)
    elif x.case == "nothing":
        s.do("splice", fd, NULL, w, NULL, 0, 0)
        s.do("splice", r, NULL, fd, NULL, 0, 0)
    elif x.case == "closed":
        s.do("splice", fd, NULL, 300, NULL, 4, 0)
        s.do("splice", 300, NULL, fd, NULL, 4, 0)
        s.do("close", r)
        s.handler(13)
        s.do("splice", fd, NULL, w, NULL, 4, 0)
        s.signals()
        s.recv(fd, 10, DONTWAIT)
    else:
        x.p.set(pfd, 1, 13, struct.pack("=ii", 1, 0))
        x.p.close(pfd)
        s.until(fd, 0x8)
        s.handler(13)
        s.do("splice", r, NULL, fd, NULL, 4, 0)
        s.do("splice", r, NULL, fd, NULL, 4, 0)
        s.do("splice", fd, NULL, w, NULL, 4, 0)
        s.signals()


@scenario(
    subjects=PRELOAD,
    cases=[
        "tee",
        "vmsplice",
        "copy_file_range",
        "sendfile to a pipe",
        "sendfile to a file",
        "readahead",
        "posix_fadvise",
        "sync_file_range",
        "fallocate",
    ],
)
def test_what_no_socket_takes(x: Pair) -> None:
    s = x.s
    fd, pfd, r, w = loaded(x)
    if x.case == "tee":
        s.do("tee", r, fd, 4, 0)
        s.do("tee", fd, w, 4, 0)
    elif x.case == "vmsplice":
        s.do("vmsplice", fd, group(b"abcd", 4), 1, 0)
    elif x.case == "copy_file_range":
        s.do("copy_file_range", fd, NULL, file(s), NULL, 4, 0)
        s.do("copy_file_range", file(s), NULL, fd, NULL, 4, 0)
    elif x.case == "sendfile to a pipe":
        s.do("sendfile", w, fd, NULL, 4)
        s.do("read", r, out(20), 20)
        x.p.send(pfd, b"data")
        s.until(fd, IN)
        s.do("sendfile", w, fd, at(0), 4)
    elif x.case == "sendfile to a file":
        s.do("sendfile", file(s), fd, NULL, 4)
    elif x.case == "readahead":
        s.do("readahead", fd, 0, 10)
    elif x.case == "posix_fadvise":
        s.do("posix_fadvise", fd, 0, 10, 1)
    elif x.case == "sync_file_range":
        s.do("sync_file_range", fd, 0, 10, 1)
    else:
        s.do("fallocate", fd, 0, 0, 10)
    s.recv(fd, 10, DONTWAIT)
