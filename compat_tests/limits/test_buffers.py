"""SO_SNDBUF and SO_RCVBUF bound what a sender may queue and what a peer that does not read takes.

How much exactly is the kernel's bookkeeping; that it is about what was asked for, programs count on.
"""

from __future__ import annotations

import struct
import time

from harness.agent import Agent
from harness.memory import inout, sink
from harness.rig import Pair
from harness.states import IN, OUT
from harness.suite import scenario

SNDBUF, RCVBUF, DONTWAIT, NOSIGNAL = 7, 8, 0x40, 0x4000


def _set(s: Agent, fd: int, option: int, value: int) -> None:
    if value:
        s.set(fd, 1, option, value)


def _queue(s: Agent, fd: int, chunk: int) -> int:
    """Sends until nothing more is taken for a while; bytes."""
    total = idle = 0
    while idle < 4:
        n = s.do("send", fd, sink(chunk), chunk, DONTWAIT | NOSIGNAL, quiet=True).ret
        total += max(n, 0)
        idle = 0 if n > 0 else idle + 1
        if n <= 0:
            s.do("poll", 0, 0, 10, quiet=True)
    return total


def _pending(s: Agent, fd: int, request: int) -> int:
    return int.from_bytes(s.do("ioctl", fd, request, inout(bytes(4)), quiet=True).out[0], "little")


def _about(x: Pair, what: str, n: int, nominal: int) -> None:
    fits = nominal / 2.5 <= n <= nominal * 2.5
    x.s.trace.note("subject", what, f"about {nominal}" if fits else f"{n}, not about {nominal}")


def _nominal(snd: int, rcv: int) -> tuple[int, int]:
    return max(2 * snd, 4608), rcv if rcv <= 8192 else 2 * rcv * 3 // 4


def _connected(x: Pair, snd: int, rcv: int, active: bool) -> tuple[int, int]:
    """The subject sends when active, else it receives; buffers are set before there is a connection."""
    near, far = (x.s, x.p) if active else (x.p, x.s)
    lfd = far.socket()
    _set(far, lfd, RCVBUF, rcv)
    far.bind(lfd, x.p_ip if active else x.s_ip)
    far.listen(lfd)
    fd = near.socket()
    _set(near, fd, SNDBUF, snd)
    near.connect(fd, x.p_ip if active else x.s_ip, far.port(lfd))
    afd = far.accept(lfd).ret
    return fd, afd


SIZES = [(4096, 4096), (16384, 4096), (16384, 16384), (65536, 4096), (65536, 65536), (200000, 16384)]


@scenario(cases={f"{s}-{r}-{c}": (s, r, c) for s, r in SIZES for c in (300, 20000)})
def test_what_a_sender_may_queue(x: Pair) -> None:
    snd, rcv, chunk = x.case
    fd, pfd = _connected(x, snd, rcv, active=True)
    total = _queue(x.s, fd, chunk)
    _about(x, "queued in all", total, sum(_nominal(snd, rcv)))
    for _ in range(100):
        x.p.do("recv", pfd, sink(1 << 20), 1 << 20, DONTWAIT, quiet=True)
        if x.s.do("poll", inout(struct.pack("=ihh", fd, OUT, 0)), 1, 20, quiet=True).ret:
            break
    x.s.until(fd, OUT)


@scenario(peers=("local",))
def test_what_a_sender_may_queue_by_default(x: Pair) -> None:
    """Over loopback the sender's buffer grows to four megabytes before it has to wait."""
    fd, pfd = _connected(x, 0, 0, active=True)
    total = _queue(x.s, fd, 65536)
    x.s.trace.note("subject", "queued in all", "3.5 MB or more" if total >= 3_500_000 else str(total))
    left = total
    while left > 0 and (got := x.p.do("recv", pfd, sink(1 << 20), 1 << 20, 0, quiet=True).ret) > 0:
        left -= got
    x.p.trace.note("peer", "left", str(left))
    x.s.until(fd, OUT)


@scenario(peers=("local",), cases=[500_000, 1_500_000, 3_000_000])
def test_both_write_before_they_read(x: Pair) -> None:
    """Neither waits for the other."""
    fd, pfd = _connected(x, 0, 0, active=True)
    for agent, n in ((x.s, fd), (x.p, pfd)):
        agent.do("send", n, sink(x.case), x.case, 0, text=f"{x.case} bytes", thread=1)
    for agent in (x.s, x.p):
        agent.wait(1)
    for agent, n in ((x.s, fd), (x.p, pfd)):
        agent.do("recv", n, sink(x.case), x.case, 0x100, text="all of it")


@scenario(cases={f"{r}-{c}": (r, c) for r in (2048, 4096, 16384, 65536) for c in (300, 20000)})
def test_what_a_peer_takes_unread(x: Pair) -> None:
    rcv, chunk = x.case
    fd, pfd = _connected(x, 4096, rcv, active=False)
    _queue(x.p, fd, chunk)
    _about(x, "unread", _pending(x.s, pfd, 0x541B), _nominal(0, rcv)[1])


@scenario(cases=[4096, 32768, 131072])
def test_set_on_a_connection(x: Pair) -> None:
    fd, _pfd = _connected(x, 0, 4096, active=True)
    _set(x.s, fd, SNDBUF, x.case)
    total = _queue(x.s, fd, 1000)
    _about(x, "queued in all", total, sum(_nominal(x.case, 4096)))


@scenario
def test_a_full_buffer_made_larger(x: Pair) -> None:
    fd, _pfd = _connected(x, 2048, 4096, active=True)
    _queue(x.s, fd, 1000)
    _set(x.s, fd, SNDBUF, 6000)
    x.s.until(fd, OUT)
    _about(x, "more, in a larger buffer", _queue(x.s, fd, 1000), 12000 - 4608)


@scenario(cases=["accepted", "connecting"])
def test_window_set_before(x: Pair) -> None:
    """A small receive buffer bounds what comes first."""
    if x.case == "accepted":
        pfd, fd = _connected(x, 0, 4096, active=False)
    else:
        lfd, port = x.listener(x.p)
        fd = x.s.socket()
        _set(x.s, fd, RCVBUF, 4096)
        x.s.connect(fd, x.p_ip, port)
        pfd = x.p.accept(lfd).ret
    _queue(x.p, pfd, 30000)
    _about(x, "unread", _pending(x.s, fd, 0x541B), 4096)


@scenario
def test_a_blocked_sender_goes_on(x: Pair) -> None:
    fd, pfd = _connected(x, 4096, 4096, active=True)
    n = left = 600000
    x.s.do("send", fd, sink(n), n, 0, text="600 kB", thread=1)
    x.s.blocked(1)
    while left > 0:
        got = x.p.do("recv", pfd, sink(1 << 16), 1 << 16, 0, quiet=True).ret
        if got <= 0:
            break
        left -= got
    x.p.trace.note("peer", "left", str(left))
    x.s.wait(1)


@scenario(cases={"least": bytes(4), "most": struct.pack("=i", 1 << 30)})
def test_extremes(x: Pair) -> None:
    fd, pfd = x.connected()
    for option in (SNDBUF, RCVBUF):
        x.s.do("setsockopt", fd, 1, option, x.case, 4)
    x.s.send(fd, b"hello")
    x.p.until(pfd, IN)
    x.p.recv(pfd, 10)
    x.p.send(pfd, b"world")
    x.s.until(fd, IN)
    x.s.recv(fd, 10)


@scenario(peers=("local",), cases=[1, 400, 513, 5000, 16384, 60000])
def test_a_write_after_idleness(x: Pair) -> None:
    """Memory may be given back while nothing moves: what is written then is taken, and comes, as a whole."""
    fd, pfd = _connected(x, 0, 0, active=True)
    for n in (100, 20000):  # it has been used
        x.s.do("send", fd, sink(n), n, NOSIGNAL, text=f"{n} bytes")
        x.p.do("recv", pfd, sink(n), n, 0x100, quiet=True)
    time.sleep(3.5)
    for a, n in ((x.s, fd), (x.p, pfd)):
        a.do("poll", inout(struct.pack("=ihh", n, IN | OUT, 0)), 1, 0)
        a.do("ioctl", n, 0x5411, inout(bytes(4)), text="unsent bytes")
    for (a, one), (b, other) in (((x.s, fd), (x.p, pfd)), ((x.p, pfd), (x.s, fd))):
        a.do("send", one, sink(x.case), x.case, DONTWAIT | NOSIGNAL, text=f"{x.case} bytes")
        b.until(other, IN)
        b.do("recv", other, sink(x.case), x.case, 0, text="as a whole")
