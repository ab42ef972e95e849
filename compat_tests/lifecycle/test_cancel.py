"""pthread_cancel: every cancellation point that waits ends, and what it held is given up.

What was held shows afterwards: the socket works, its close is the last one (the peer hears of it), and the service holds nothing.
"""

# ruff: noqa: E501  (tables of cases, one a line)
from __future__ import annotations

from collections.abc import Callable

from harness.memory import NULL, Mem, group, inout, out, pattern, sink
from harness.rig import Pair
from harness.states import IN, NOWHERE, OUT, RDHUP
from harness.suite import scenario
from harness.trace import see_sign

WAITALL, USR1 = 0x100, 10


def _pollfd(fd: int, events: int = IN) -> Mem:
    return inout(fd.to_bytes(4, "little") + events.to_bytes(2, "little") + bytes(2))


def _iov(n: int) -> Mem:
    return group(out(n), n)


def _msg(n: int) -> Mem:
    return group(0, 0, _iov(n), 1, 0, 0, 0)


def _bits(fd: int) -> Mem:
    return inout((1 << fd).to_bytes(128, "little"))


def _epoll(x: Pair, fd: int, events: int = IN) -> int:
    ep = x.s.epoll()
    x.s.ctl(ep, 1, fd, events)
    return ep


MUCH = 1 << 23
# Calls that wait on a connection, in thread 1: nothing to read, no room to write.
CALLS: dict[str, Callable[[Pair, int], object]] = {
    "recv": lambda x, fd: x.s.recv(fd, 10, thread=1),
    "recvfrom": lambda x, fd: x.s.do("recvfrom", fd, out(9), 9, 0, NULL, NULL, thread=1),
    "recvmsg": lambda x, fd: x.s.do("recvmsg", fd, _msg(9), 0, thread=1, text="message"),
    "recvmmsg": lambda x, fd: x.s.do(
        "recvmmsg", fd, group(0, 0, _iov(9), 1, 0, 0, 0, 0), 1, 0, NULL, thread=1, text="one"
    ),
    "read": lambda x, fd: x.s.do("read", fd, out(9), 9, thread=1),
    "readv": lambda x, fd: x.s.do("readv", fd, _iov(9), 1, thread=1, text="vector"),
    "preadv2": lambda x, fd: x.s.do("preadv2", fd, _iov(9), 1, -1, 0, thread=1, text="vector"),
    "poll": lambda x, fd: x.s.poll((fd, IN), timeout=-1, thread=1),
    "poll_timed": lambda x, fd: x.s.poll((fd, IN), timeout=60000, thread=1),
    "ppoll": lambda x, fd: x.s.do("ppoll", _pollfd(fd), 1, NULL, bytes(128), thread=1, text="mask"),
    "select": lambda x, fd: x.s.do("select", fd + 1, _bits(fd), NULL, NULL, NULL, thread=1, text="set"),
    "pselect": lambda x, fd: x.s.do("pselect", fd + 1, _bits(fd), NULL, NULL, NULL, NULL, thread=1, text="set"),
    "epoll_wait": lambda x, fd: x.s.ready(_epoll(x, fd), timeout=-1, thread=1),
    "epoll_pwait": lambda x, fd: x.s.do(
        "epoll_pwait", _epoll(x, fd), out(12), 1, -1, bytes(128), thread=1, text="mask"
    ),
    "epoll_pwait2": lambda x, fd: x.s.do("epoll_pwait2", _epoll(x, fd), out(12), 1, NULL, NULL, thread=1, text="set"),
    "epoll_of_epoll": lambda x, fd: x.s.ready(_epoll(x, _epoll(x, fd)), timeout=-1, thread=1),
    "poll_of_epoll": lambda x, fd: x.s.poll((_epoll(x, fd), IN), timeout=-1, thread=1),
    "empty_epoll": lambda x, _: x.s.ready(x.s.epoll(), timeout=-1, thread=1),
    "poll_of_empty_epoll": lambda x, _: x.s.poll((x.s.epoll(), IN), timeout=-1, thread=1),
    "other_read": lambda x, _: x.s.do("read", x.s.do("eventfd", 0, 0).ret, out(8), 8, thread=1),
    "send": lambda x, fd: x.s.do("send", fd, pattern(MUCH), MUCH, 0, thread=1, text="much", see=see_sign),
    "sendmsg": lambda x, fd: x.s.do(
        "sendmsg", fd, group(0, 0, group(sink(MUCH), MUCH), 1, 0, 0, 0), 0, thread=1, text="much", see=see_sign
    ),
    "write": lambda x, fd: x.s.do("write", fd, pattern(MUCH), MUCH, thread=1, text="much", see=see_sign),
    "writev": lambda x, fd: x.s.do("writev", fd, group(sink(MUCH), MUCH), 1, thread=1, text="much", see=see_sign),
}
SENDS = ("send", "sendmsg", "write", "writev")


def _goes_on(x: Pair, fd: int, pfd: int, sent: bool) -> None:
    if sent:
        while x.p.do("poll", _pollfd(pfd), 1, 60, quiet=True).ret == 1:
            x.p.do("recv", pfd, sink(1 << 20), 1 << 20, 0x40, quiet=True)
        x.s.until(fd, OUT)
    x.p.send(pfd, b"still there")
    x.s.until(fd, IN)
    x.s.recv(fd, 20)
    x.s.close(fd)
    x.p.until(pfd, RDHUP)


@scenario(cases=list(CALLS))
def test_ends_a_call_that_waits(x: Pair) -> None:
    fd, pfd = x.connected()
    CALLS[x.case](x, fd)
    x.s.blocked(1)
    x.s.cancel(1)
    x.s.wait(1)
    _goes_on(x, fd, pfd, x.case in SENDS)


@scenario(cases=list(CALLS))
def test_after_a_handler_that_restarts(x: Pair) -> None:
    """A sleep that a signal has interrupted before, and that went on, is still one that can be cancelled."""
    fd, pfd = x.connected()
    x.s.handler(USR1, 0x10000000)
    CALLS[x.case](x, fd)
    x.s.blocked(1)
    x.s.kill(1, USR1)
    if not x.s.blocked(1).blocked:
        return
    x.s.cancel(1)
    x.s.wait(1)
    _goes_on(x, fd, pfd, x.case in SENDS)


@scenario(cases=["two", "of_two"])
def test_only_the_thread_that_was_meant(x: Pair) -> None:
    fd, pfd = x.connected()
    for t in (1, 2):
        x.s.recv(fd, 4, thread=t)
        x.s.blocked(t)
    x.s.cancel(1)
    x.s.wait(1)
    x.s.blocked(2)
    if x.case == "two":
        x.s.cancel(2)
    else:
        x.p.send(pfd, b"data")
    x.s.wait(2)
    _goes_on(x, fd, pfd, False)


@scenario(cases=["accept", "accept_timed", "close_after"])
def test_accept(x: Pair) -> None:
    fd, port = x.listener(x.s)
    if x.case == "accept_timed":
        x.s.set(fd, 1, 20, (60).to_bytes(8, "little") + bytes(8))
    x.s.accept(fd, thread=1)
    x.s.blocked(1)
    x.s.cancel(1)
    x.s.wait(1)
    if x.case == "close_after":
        x.s.close(fd)
        x.p.connect(x.p.socket(), x.s_ip, port)
        return
    x.p.connect(x.p.socket(), x.s_ip, port)
    x.s.accept(fd)


@scenario(peers=["link"])
def test_connect(x: Pair) -> None:
    fd = x.s.socket()
    x.s.connect(fd, NOWHERE, 9, thread=1)
    x.s.blocked(1)
    x.s.cancel(1)
    x.s.wait(1)
    x.s.close(fd)


@scenario(cases=["recv", "waitall"])
def test_with_a_receive_timeout(x: Pair) -> None:
    fd, pfd = x.connected()
    x.s.set(fd, 1, 20, (60).to_bytes(8, "little") + bytes(8))
    x.p.send(pfd, b"abc") if x.case == "waitall" else None
    x.s.recv(fd, 10, WAITALL, thread=1)
    x.s.blocked(1)
    x.s.cancel(1)
    x.s.wait(1)
    _goes_on(x, fd, pfd, False)
