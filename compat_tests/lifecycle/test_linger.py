"""SO_LINGER in its modes, and close with data on either side: who waits, how long, and what the peer sees."""

from __future__ import annotations

import struct

from harness.memory import out, sink
from harness.rig import Pair
from harness.states import ALL, HUP, IN, RDHUP
from harness.suite import scenario

LINGER, NOSIGNAL, DONTWAIT, PEEK, WAITALL, USR1 = 13, 0x4000, 0x40, 0x2, 0x100, 10


def _linger(x: Pair, fd: int, seconds: int) -> None:
    x.s.set(fd, 1, LINGER, struct.pack("=ii", 1, seconds))


def _fill(x: Pair, fd: int) -> int:
    """Sends until nothing is taken any more; how much."""
    x.s.do("setsockopt", fd, 1, 7, struct.pack("=i", 16384), 4, quiet=True)
    total = idle = 0
    while idle < 3:
        n = x.s.do("send", fd, sink(1 << 14), 1 << 14, DONTWAIT | NOSIGNAL, quiet=True).ret
        total += max(n, 0)
        idle = 0 if n > 0 else idle + 1
        x.s.do("poll", 0, 0, 10, quiet=True) if n <= 0 else None
    return total


def _drain(x: Pair, pfd: int, total: int) -> None:
    """The peer reads all there is; whether that is everything, and how it ends."""
    got = 0
    while True:
        r = x.p.do("recv", pfd, sink(1 << 16), 1 << 16, 0, quiet=True)
        if r.ret <= 0:
            break
        got += r.ret
    x.p.trace.note("peer", "read", f"{'everything' if got == total else 'a part'}, then {r}")


def _connected(x: Pair) -> tuple[int, int]:
    """The peer takes little."""
    lfd = x.p.socket()
    x.p.do("setsockopt", lfd, 1, 8, struct.pack("=i", 8192), 4, quiet=True)
    x.p.bind(lfd, x.p_ip)
    x.p.listen(lfd)
    fd = x.s.socket()
    x.s.connect(fd, x.p_ip, x.p.port(lfd))
    return fd, x.p.accept(lfd).ret


@scenario(cases=["blocking", "nonblocking", "shut_before", "dup2"])
def test_close_waits_until_the_peer_has_it(x: Pair) -> None:
    fd, pfd = _connected(x)
    _linger(x, fd, 20)
    total = _fill(x, fd)
    if x.case == "nonblocking":
        x.s.nonblock(fd)
    elif x.case == "shut_before":
        x.s.shutdown(fd, 1)
    if x.case == "dup2":
        other = x.s.do("eventfd", 0, 0).ret
        x.s.do("dup2", other, fd, thread=1)
    else:
        x.s.do("close", fd, thread=1)
    x.s.blocked(1)
    _drain(x, pfd, total)
    x.s.wait(1)


@scenario(cases=["time", "signal", "reset", "ignored_signal"])
def test_close_that_waits_ends(x: Pair) -> None:
    fd, pfd = _connected(x)
    _linger(x, fd, 1 if x.case == "time" else 30)
    x.s.handler(USR1, 0 if x.case == "signal" else -2)
    total = _fill(x, fd)
    x.s.do("close", fd, thread=1)
    x.s.blocked(1)
    if x.case == "reset":
        x.p.set(pfd, 1, LINGER, struct.pack("=ii", 1, 0))
        x.p.close(pfd)
        x.s.wait(1)
        return
    if x.case != "time":
        x.s.kill(1, USR1)
    x.s.blocked(1) if x.case == "ignored_signal" else x.s.wait(1)
    _drain(x, pfd, total)
    x.s.wait(1) if x.case == "ignored_signal" else None


@scenario(
    cases=[
        "zero",
        "zero_unsent",
        "off_unsent",
        "nothing_to_wait_for",
        "unread",
        "unread_zero",
        "taken_back",
        "duplicate",
    ]
)
def test_close_at_once(x: Pair) -> None:
    fd, pfd = _connected(x)
    s, total = x.s, 0
    if x.case.startswith("zero") or x.case == "unread_zero":
        _linger(x, fd, 0)
    elif x.case == "taken_back":
        _linger(x, fd, 0)
        s.set(fd, 1, LINGER, struct.pack("=ii", 0, 0))
    elif x.case != "off_unsent":
        _linger(x, fd, 20)
    if x.case.endswith("unsent") or x.case == "duplicate":
        total = _fill(x, fd)
    if x.case.startswith("unread"):
        x.p.send(pfd, b"never read")
        s.until(fd, IN)
    other = s.do("dup", fd).ret if x.case == "duplicate" else -1
    s.close(fd)
    if x.case == "duplicate":
        x.p.poll((pfd, RDHUP))
        s.do("close", other, thread=1)
        s.blocked(1)
        _drain(x, pfd, total)
        s.wait(1)
    elif x.case in ("off_unsent",):
        _drain(x, pfd, total)
    else:
        x.p.until(pfd, HUP if "zero" in x.case or "unread" in x.case else RDHUP)
        x.p.error(pfd)


@scenario(cases=["zero", "twenty", "unread", "none"])
def test_the_end_of_the_process(x: Pair) -> None:
    """It never waits, but resets where close would."""
    fd, pfd = _connected(x)
    if x.case in ("zero", "twenty"):
        _linger(x, fd, 0 if x.case == "zero" else 20)
    x.s.send(fd, b"last words")
    x.p.until(pfd, IN)
    if x.case == "unread":
        x.p.send(pfd, b"never read")
        x.s.until(fd, IN)
    child = x.s.fork()
    x.s.close(fd)
    x.s.children.remove(child)
    child.channel.sendall(b"x\n")
    child.channel.close()
    x.p.until(pfd, HUP if x.case in ("zero", "unread") else RDHUP)
    x.p.poll((pfd, ALL))
    x.p.recv(pfd, 20)
    x.p.recv(pfd, 20, DONTWAIT)


@scenario(
    cases=[
        "get",
        "waitall_peek",
        "waitall_trunc",
        "peek_then_close",
        "peek_off",
        "peek_off_partly",
        "peek_off_taken_back",
    ]
)
def test_peeking(x: Pair) -> None:
    fd, pfd = x.connected()
    s, p = x.s, x.p
    s.set(fd, 1, 42, 0) if x.case.startswith("peek_off") else None
    p.send(pfd, b"abcdefgh")
    s.until(fd, IN)
    if x.case == "get":
        s.get(fd, 1, 42)
        s.set(fd, 1, 42, 3)
        s.get(fd, 1, 42)
        s.set(fd, 1, 42, -1)
        s.get(fd, 1, 42)
        s.set(fd, 1, 42, -5)
    elif x.case == "waitall_peek":
        s.recv(fd, 12, WAITALL | PEEK, thread=1)
        s.blocked(1)
        p.send(pfd, b"ijkl")
        s.wait(1)
        s.recv(fd, 20)
    elif x.case == "waitall_trunc":
        s.do("recv", fd, out(12), 12, WAITALL | 0x20, thread=1)
        s.blocked(1)
        p.send(pfd, b"ijklm")
        s.wait(1)
        s.recv(fd, 20)
    elif x.case == "peek_then_close":
        s.recv(fd, 4, PEEK)
        s.close(fd)
        p.until(pfd, HUP)
        p.error(pfd)
    else:
        s.recv(fd, 3, PEEK)
        s.recv(fd, 3, PEEK)
        s.get(fd, 1, 42)
        if x.case == "peek_off_partly":
            s.recv(fd, 2)
            s.get(fd, 1, 42)
            s.recv(fd, 10, PEEK)
            s.recv(fd, 1, PEEK | DONTWAIT)
            p.send(pfd, b"ij")
            s.poll(timeout=15)
            s.recv(fd, 10, PEEK | DONTWAIT)
            s.recv(fd, 20)
            s.get(fd, 1, 42)
        elif x.case == "peek_off_taken_back":
            s.set(fd, 1, 42, -1)
            s.recv(fd, 3, PEEK)
            s.recv(fd, 20)
