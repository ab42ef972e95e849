"""SO_ZEROCOPY and MSG_ZEROCOPY: what the error queue says, when, and to whom."""

from __future__ import annotations

import struct

from harness.memory import group, inout, out, sink
from harness.rig import Pair
from harness.states import ALL, IN, OUT
from harness.suite import scenario
from harness.trace import Result

ZEROCOPY, ERRQUEUE, SO_ZEROCOPY, DONTWAIT = 0x4000000, 0x2000, 60, 0x40
ET = 1 << 31


def _see(r: Result) -> str:
    """The notification; what the kernel leaves in memory is not compared."""
    if r.ret < 0:
        return str(r)
    header = r.out[0]
    name_len, control_len, flags = (struct.unpack_from("=I", header, at)[0] for at in (8, 40, 48))
    control = r.out[-1][:control_len]
    return f"{r.ret} name {name_len} flags {flags:#x} control {control_len}: {control.hex()}"


def _take(x: Pair, fd: int, room: int = 64, name: int = 0) -> None:
    text = f"{fd}, ERRQUEUE"
    msg = group(0, name, group(out(8), 8), 1, out(room), room, 0, returned=True)
    x.s.do("recvmsg", fd, msg, ERRQUEUE, see=_see, text=text)


def _arrived(x: Pair, pfd: int, n: int) -> None:
    left = n
    while left > 0:
        x.p.do("poll", inout(struct.pack("=ihh", pfd, IN, 0)), 1, 3000, quiet=True)
        left -= x.p.do("recv", pfd, sink(1 << 16), 1 << 16, DONTWAIT, quiet=True).ret
    x.s.poll(timeout=60)  # acknowledgements


@scenario(cases=["off", "one", "two", "two_apart", "small_room", "no_room", "big", "mixed", "recv", "error_option"])
def test_notifications(x: Pair) -> None:
    fd, pfd = x.connected()
    s = x.s
    if x.case != "off":
        s.set(fd, 1, SO_ZEROCOPY, 1)
    _take(x, fd)
    n = 50000 if x.case == "big" else 5
    s.do("send", fd, sink(n), n, ZEROCOPY)
    _arrived(x, pfd, n)
    if x.case == "two_apart":
        _take(x, fd)
    if x.case == "mixed":
        s.send(fd, b"plain")
        _arrived(x, pfd, 5)
    if x.case in ("two", "two_apart", "mixed"):
        s.do("send", fd, sink(n), n, ZEROCOPY)
        _arrived(x, pfd, n)
    s.poll((fd, ALL), (fd, 0), (fd, IN), (fd, OUT))
    if x.case == "recv":
        s.recv(fd, 10, ERRQUEUE)
    elif x.case == "error_option":
        s.error(fd)
        s.recv(fd, 5, DONTWAIT)
        s.send(fd, b"x")
    _take(x, fd, {"small_room": 20, "no_room": 0}.get(x.case, 64))
    s.poll((fd, ALL))
    _take(x, fd)


@scenario(cases={"level": 0, "edge": ET})
def test_it_is_an_event(x: Pair) -> None:
    fd, pfd = x.connected()
    s, ep = x.s, x.s.epoll()
    s.set(fd, 1, SO_ZEROCOPY, 1)
    s.ctl(ep, 1, fd, IN | x.case, data=4)
    s.ready(ep)
    s.do("send", fd, sink(9), 9, ZEROCOPY)
    _arrived(x, pfd, 9)
    s.ready(ep)
    s.ready(ep)
    _take(x, fd)
    s.ready(ep)


@scenario(cases=["poll", "epoll"])
def test_it_wakes(x: Pair) -> None:
    fd, pfd = x.connected()
    s = x.s
    s.set(fd, 1, SO_ZEROCOPY, 1)
    if x.case == "poll":
        s.poll((fd, IN), timeout=3000, thread=1)
    else:
        ep = s.epoll()
        s.ctl(ep, 1, fd, IN)
        s.ready(ep, timeout=3000, thread=1)
    s.blocked(1)
    s.do("send", fd, sink(9), 9, ZEROCOPY)
    _arrived(x, pfd, 9)
    s.wait(1)


@scenario(cases=["sendmsg", "accepted", "set_before"])
def test_other_ways(x: Pair) -> None:
    s = x.s
    if x.case == "accepted":
        lfd, port = x.listener(s)
        s.set(lfd, 1, SO_ZEROCOPY, 1)
        pfd = x.p.socket()
        x.p.connect(pfd, x.s_ip, port)
        fd = s.accept(lfd).ret
        s.get(fd, 1, SO_ZEROCOPY)
    else:
        before = (lambda fd: s.set(fd, 1, SO_ZEROCOPY, 1)) if x.case == "set_before" else None
        fd, pfd = x.connected(before=before)
        if not before:
            s.set(fd, 1, SO_ZEROCOPY, 1)
    if x.case == "sendmsg":
        s.do("sendmsg", fd, group(0, 0, group(sink(7), 7), 1, 0, 0, 0), ZEROCOPY, text="7 bytes")
    else:
        s.do("send", fd, sink(7), 7, ZEROCOPY)
    _arrived(x, pfd, 7)
    _take(x, fd)
