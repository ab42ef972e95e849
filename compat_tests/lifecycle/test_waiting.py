"""Threads that wait in a call: what wakes them, and what the call gives then."""

from __future__ import annotations

import struct
from collections.abc import Callable

from harness.agent import Agent
from harness.memory import out, pattern, sink
from harness.rig import Pair
from harness.states import ALL, HUP, IN, RDHUP, RESET_LINGER
from harness.suite import scenario
from harness.trace import see_sign

SA_RESTART = 0x10000000
USR1, SIGPIPE = 10, 13
NOSIGNAL, DONTWAIT, PEEK, WAITALL = 0x4000, 0x40, 0x2, 0x100
Blocking = Callable[[Agent, int], object]

# Calls that wait, each on a socket where it has reason to.
WAITS: dict[str, Blocking] = {
    "recv": lambda s, fd: s.recv(fd, 10, thread=1),
    "read": lambda s, fd: s.do("read", fd, out(10), 10, thread=1),
    "recv_waitall": lambda s, fd: s.recv(fd, 10, WAITALL, thread=1),
    "recv_peek": lambda s, fd: s.recv(fd, 10, PEEK, thread=1),
    "poll": lambda s, fd: s.poll((fd, IN), timeout=-1, thread=1),
    "epoll": lambda s, fd: s.ready(_set(s, fd), timeout=-1, thread=1),
}


def _set(s: Agent, fd: int) -> int:
    ep = s.epoll()
    s.ctl(ep, 1, fd, IN | RDHUP)
    return ep


@scenario(cases=list(WAITS))
def test_data_wakes(x: Pair) -> None:
    fd, pfd = x.connected()
    WAITS[x.case](x.s, fd)
    x.s.blocked(1)
    x.p.send(pfd, b"0123456789")
    x.s.wait(1)


@scenario(cases=list(WAITS))
def test_peer_close_wakes(x: Pair) -> None:
    fd, pfd = x.connected()
    WAITS[x.case](x.s, fd)
    x.s.blocked(1)
    x.p.close(pfd)
    x.s.wait(1)


@scenario(cases=list(WAITS))
def test_peer_reset_wakes(x: Pair) -> None:
    fd, pfd = x.connected()
    WAITS[x.case](x.s, fd)
    x.s.blocked(1)
    x.p.set(pfd, 1, 13, RESET_LINGER)
    x.p.close(pfd)
    x.s.wait(1)


@scenario(cases=[f"{w}-{how}" for w in WAITS for how in (0, 1, 2)])
def test_own_shutdown_while_waiting(x: Pair) -> None:
    """Shutting for reading wakes a reader; for writing it does not, until the peer answers."""
    way, how = x.case.rsplit("-", 1)
    fd, pfd = x.connected()
    WAITS[way](x.s, fd)
    x.s.blocked(1)
    x.s.shutdown(fd, int(how))
    x.s.blocked(1)
    x.p.close(pfd)
    x.s.wait(1) if int(how) == 1 else None


@scenario(cases=list(WAITS))
def test_own_close_while_waiting(x: Pair) -> None:
    """On Linux the call goes on with the open file; only data or the peer ends it."""
    fd, pfd = x.connected()
    WAITS[x.case](x.s, fd)
    x.s.blocked(1)
    x.s.close(fd)
    x.s.blocked(1)
    x.p.send(pfd, b"0123456789", NOSIGNAL)
    if x.case != "epoll":
        x.s.wait(1)
        x.p.until(pfd, IN | HUP)
        x.p.recv(pfd, 10)
    else:
        x.s.blocked(1)
        x.s.cancel(1)
        x.s.wait(1)


@scenario(cases=[f"{w}-{m}" for w in WAITS for m in ("interrupts", "restarts", "ignored")])
def test_signal_while_waiting(x: Pair) -> None:
    way, mode = x.case.rsplit("-", 1)
    fd, pfd = x.connected()
    x.s.handler(USR1, {"interrupts": 0, "restarts": SA_RESTART, "ignored": -2}[mode])
    WAITS[way](x.s, fd)
    x.s.blocked(1)
    x.s.kill(1, USR1)
    if not x.s.blocked(1).blocked:
        x.s.signals()
        return
    x.s.signals()
    x.p.send(pfd, b"0123456789")
    x.s.wait(1)


@scenario(cases=["recv", "poll"])
def test_another_takes_the_number_and_a_signal_wakes(x: Pair) -> None:
    """As the JDK closes a socket that threads sleep on."""
    fd, pfd = x.connected()
    event = x.s.do("eventfd", 0, 0).ret
    x.s.handler(USR1, 0)
    WAITS[x.case](x.s, fd)
    x.s.blocked(1)
    x.s.do("dup2", event, fd)
    x.s.blocked(1)
    x.p.poll((pfd, RDHUP))
    x.s.kill(1, USR1)
    x.s.wait(1)
    x.s.signals()
    x.p.until(pfd, RDHUP)
    x.s.do("write", fd, b"\1" + bytes(7), 8)
    x.s.close(fd)


@scenario(cases=list(WAITS))
def test_cancel_while_waiting(x: Pair) -> None:
    fd, pfd = x.connected()
    WAITS[x.case](x.s, fd)
    x.s.blocked(1)
    x.s.cancel(1)
    x.s.wait(1)
    x.p.send(pfd, b"still there")
    x.s.until(fd, IN)
    x.s.recv(fd, 20)


@scenario(cases=[f"{w}-{m}" for w in ("accept", "connect", "send") for m in ("interrupts", "restarts")])
def test_signal_during(x: Pair) -> None:
    way, mode = x.case.split("-")
    if way == "connect" and x.peer == "local":
        return
    s = x.s
    s.handler(USR1, SA_RESTART if mode == "restarts" else 0)
    if way == "accept":
        fd, _port = x.listener(s)
        s.accept(fd, thread=1)
    elif way == "connect":
        s.connect(s.socket(), "10.77.0.99", 9, thread=1)
    else:
        fd, _pfd = x.connected()
        s.do("send", fd, pattern(1 << 23), 1 << 23, 0, see=see_sign, text=f"{fd}, much", thread=1)
    s.blocked(1)
    s.kill(1, USR1)
    if not s.blocked(1).blocked:
        s.signals()
        return
    s.signals()
    s.cancel(1)
    s.wait(1)


@scenario(cases=list(WAITS))
def test_receive_timeout(x: Pair) -> None:
    fd, _ = x.connected()
    x.s.set(fd, 1, 20, struct.pack("=qq", 0, 30000))
    if x.case in ("poll", "epoll"):
        return
    WAITS[x.case](x.s, fd)
    x.s.wait(1)


@scenario
def test_send_timeout(x: Pair) -> None:
    fd, _pfd = x.connected()
    x.s.set(fd, 1, 21, struct.pack("=qq", 0, 30000))
    x.s.do("send", fd, pattern(1 << 23), 1 << 23, NOSIGNAL, see=see_sign, text="much")


@scenario
def test_accept_timeout(x: Pair) -> None:
    fd, _ = x.listener(x.s)
    x.s.set(fd, 1, 20, struct.pack("=qq", 0, 20000))
    x.s.accept(fd)


@scenario(cases=[0, 1, 2])
def test_a_listener_shut_or_closed_while_accepting(x: Pair) -> None:
    fd, port = x.listener(x.s)
    x.s.accept(fd, thread=1)
    x.s.blocked(1)
    if x.case == 2:
        x.s.close(fd)
        x.s.blocked(1)
        x.p.connect(x.p.socket(), x.s_ip, port)
    else:
        x.s.shutdown(fd, x.case)
        if not x.s.blocked(1).blocked:
            return
        x.p.connect(x.p.socket(), x.s_ip, port)
    x.s.wait(1)


@scenario
def test_accept_is_woken(x: Pair) -> None:
    fd, port = x.listener(x.s)
    x.s.accept(fd, thread=1)
    x.s.blocked(1)
    x.p.connect(x.p.socket(), x.s_ip, port)
    x.s.wait(1)


@scenario
def test_two_threads_accept(x: Pair) -> None:
    fd, port = x.listener(x.s)
    for t in (1, 2):
        x.s.do("accept", fd, 0, 0, thread=t, see=lambda r: "a number" if r.ret > 0 else str(r))
        x.s.blocked(t)
    x.p.connect(x.p.socket(), x.s_ip, port)
    x.p.connect(x.p.socket(), x.s_ip, port)
    x.s.wait(1)
    x.s.wait(2)


@scenario
def test_a_full_socket_sends_when_the_peer_reads(x: Pair) -> None:
    fd, pfd = x.connected()
    n = 1 << 23
    x.s.do("send", fd, pattern(n), n, 0, text="8 MiB", thread=1)
    x.s.blocked(1)
    left = n
    while left:
        got = x.p.do("recv", pfd, sink(1 << 20), min(left, 1 << 20), WAITALL, quiet=True).ret
        if got <= 0:
            break
        left -= got
    x.p.trace.note("peer", "left", str(left))
    x.s.wait(1)


@scenario(cases=["close", "reset", "shut_wr"])
def test_a_blocked_sender_and(x: Pair) -> None:
    """What a sender that waits for room gets when that will never come."""
    fd, pfd = x.connected()
    n = 1 << 23
    x.s.handler(SIGPIPE)
    x.s.do("send", fd, pattern(n), n, 0, see=see_sign, text="8 MiB", thread=1)
    x.s.blocked(1)
    if x.case == "shut_wr":
        x.s.shutdown(fd, 1)
    else:
        if x.case == "reset":
            x.p.set(pfd, 1, 13, RESET_LINGER)
        x.p.close(pfd)
    x.s.wait(1)
    x.s.send(fd, b"x", 0)
    x.s.send(fd, b"x", 0)
    x.s.signals()
    x.s.poll((fd, ALL))
