"""SIGIO and SIGURG: O_ASYNC, F_SETOWN, F_SETOWN_EX, F_SETSIG, FIOASYNC, FIOSETOWN, SIOCSPGRP; to processes, threads, groups.

Signals are blocked and taken one by one, with all that they say.
"""

# ruff: noqa: E501  (tables of cases, one a line)
from __future__ import annotations

import struct

from harness.agent import Agent
from harness.memory import NULL, inout, out, sink
from harness.rig import Pair
from harness.states import IN, NOWHERE, OUT, RDHUP, RESET_LINGER
from harness.suite import scenario
from harness.trace import Result

SIGURG, SIGIO, RT, USR1 = 23, 29, 40, 10
SETFL, GETFL, SETOWN, GETOWN, SETSIG, GETSIG, SETOWN_EX, GETOWN_EX = 4, 3, 8, 9, 10, 11, 15, 16
ASYNC, NONBLOCK = 0o20000, 0o4000
FIOASYNC, FIOSETOWN, SIOCSPGRP, FIOGETOWN, SIOCGPGRP = 0x5452, 0x8901, 0x8902, 0x8903, 0x8904
TID, PID, PGRP = 0, 1, 2
CODES = {0x80: "KERNEL", 1: "IN", 2: "OUT", 3: "MSG", 4: "ERR", 5: "PRI", 6: "HUP", 0: "USER", -5: "SIGIO", -1: "QUEUE"}


def _signals(*numbers: int) -> bytes:
    return sum(1 << (n - 1) for n in numbers).to_bytes(128, "little")


ALL = _signals(SIGURG, SIGIO, RT, USR1)


def _block(s: Agent) -> None:
    s.do("pthread_sigmask", 0, ALL, NULL, quiet=True)


def _info(r: Result) -> str:
    if r.ret < 0:
        return str(r)
    signo, err, code = struct.unpack_from("=iii", r.out[0])
    band, fd = struct.unpack_from("=qi", r.out[0], 16)
    return f"signal {signo} errno {err} code {CODES.get(code, code)} band {band:#x} fd {fd}"


def _take(s: Agent, most: int = 4, ms: int = 60) -> None:
    """Every signal that comes, until none does."""
    for _ in range(most):
        r = s.do("sigtimedwait", ALL, out(128), struct.pack("=qq", 0, ms * 1000000), see=_info, text="")
        if r.ret < 0:
            break


def _drop(s: Agent) -> None:
    while s.do("sigtimedwait", ALL, NULL, struct.pack("=qq", 0, 30000000), quiet=True).ret > 0:
        pass


def _end(s: Agent) -> None:
    """What comes late must not find the default action, which is death."""
    s.do("close_range", 3, 800, 0, quiet=True)
    _drop(s)
    s.do("pthread_sigmask", 1, ALL, NULL, quiet=True)


def _on(s: Agent, fd: int, sig: int = 0, flags: int = ASYNC) -> None:
    s.do("fcntl", fd, SETOWN, s.pid, text=f"{fd}, SETOWN, itself")
    if sig:
        s.fcntl(fd, SETSIG, sig)
    s.fcntl(fd, SETFL, flags)


EVENTS = [
    "data",
    "data_twice",
    "fin",
    "reset",
    "urgent",
    "peer_closes",
    "own_shutdown",
    "full_and_drained",
    "read_only",
]


@scenario(cases=[f"{e}-{s}" for e in EVENTS for s in ("plain", "rt")])
def test_what_is_told(x: Pair) -> None:
    event, how = x.case.split("-")
    fd, pfd = x.connected()
    s, p = x.s, x.p
    _block(s)
    _on(s, fd, RT if how == "rt" else 0, ASYNC | NONBLOCK)
    if event.startswith("data"):
        p.send(pfd, b"abc")
        _take(s)
        if event == "data_twice":
            p.send(pfd, b"def")
            _take(s)
            s.recv(fd, 10)
    elif event == "fin":
        p.shutdown(pfd, 1)
        _take(s)
    elif event == "reset":
        p.set(pfd, 1, 13, RESET_LINGER)
        p.close(pfd)
        _take(s)
    elif event == "urgent":
        p.send(pfd, b"!", 1)
        s.until(fd, 2)
        _take(s, 1) if how == "plain" else None
    elif event == "peer_closes":
        s.shutdown(fd, 1)
        p.until(pfd, RDHUP)
        p.close(pfd)
        _take(s)
    elif event == "own_shutdown":
        s.shutdown(fd, 2)
        _take(s)
    elif event == "full_and_drained":
        while s.do("send", fd, sink(1 << 20), 1 << 20, 0x4040, quiet=True).ret > 0:
            s.do("poll", NULL, 0, 20, quiet=True)
        _drop(s)
        s.do("send", fd, sink(1 << 23), 1 << 23, 0x4040, quiet=True)
        s.do("send", fd, sink(1 << 20), 1 << 20, 0x4040, quiet=True)
        while p.do("poll", inout(struct.pack("=ihh", pfd, IN, 0)), 1, 60, quiet=True).ret == 1:
            p.do("recv", pfd, sink(1 << 20), 1 << 20, 0x40, quiet=True)
        s.until(fd, OUT)
        _take(s, 1)
        _drop(s)
    else:
        s.recv(fd, 10)
        s.send(fd, b"x")
        p.recv(pfd, 10)
        _take(s)
    _end(s)


@scenario(cases=["plain", "rt"])
def test_a_listener(x: Pair) -> None:
    lfd, port = x.listener(x.s)
    _block(x.s)
    _on(x.s, lfd, RT if x.case == "rt" else 0, ASYNC | NONBLOCK)
    for _ in range(2):
        x.p.connect(x.p.socket(), x.s_ip, port)
        _take(x.s)
    fd = x.s.accept(lfd).ret
    x.s.fcntl(fd, GETFL)
    x.s.fcntl(fd, GETOWN)
    x.s.fcntl(fd, GETSIG)
    _take(x.s)
    _end(x.s)


@scenario(cases=["before_connect", "before_listen", "before_bind_and_listen"])
def test_asked_for_before(x: Pair) -> None:
    s = x.s
    _block(s)
    fd = s.socket()
    if x.case == "before_connect":
        _, port = x.listener(x.p)
        _on(s, fd, RT, ASYNC | NONBLOCK)
        s.connect(fd, x.p_ip, port)
        s.until(fd, OUT)
    else:
        if x.case == "before_listen":
            s.bind(fd, x.s_ip)
        _on(s, fd, RT)
        if x.case != "before_listen":
            s.bind(fd, x.s_ip)
        s.listen(fd, 5)
        x.p.connect(x.p.socket(), x.s_ip, s.port(fd))
    _take(s)
    _end(s)


@scenario
def test_a_connection_that_is_refused(x: Pair) -> None:
    lfd, port = x.listener(x.p)
    x.p.close(lfd)
    s = x.s
    _block(s)
    fd = s.socket()
    _on(s, fd, RT, ASYNC | NONBLOCK)
    s.connect(fd, x.p_ip, port)
    s.until(fd, OUT)
    _take(s) if x.peer == "link" else None
    _end(s)


@scenario(cases=["off", "no_owner", "only_owner", "owner_taken_back", "dup", "closed", "ioctl", "ioctl_off", "twice"])
def test_on_and_off(x: Pair) -> None:
    fd, pfd = x.connected()
    s = x.s
    _block(s)
    if x.case == "no_owner":
        s.fcntl(fd, SETFL, ASYNC)
    elif x.case == "only_owner":
        s.do("fcntl", fd, SETOWN, s.pid, text="SETOWN, itself")
        x.p.send(pfd, b"!", 1)
    elif x.case.startswith("ioctl"):
        s.do("ioctl", fd, SIOCSPGRP, struct.pack("=i", s.pid), text="SIOCSPGRP, itself")
        s.ioctl(fd, FIOASYNC, 1)
        s.fcntl(fd, GETFL)
        if x.case == "ioctl_off":
            s.ioctl(fd, FIOASYNC, 0)
    else:
        _on(s, fd)
    if x.case == "off":
        s.fcntl(fd, SETFL, 0)
    elif x.case == "owner_taken_back":
        s.fcntl(fd, SETOWN, 0)
    elif x.case == "dup":
        s.do("dup", fd)
        s.close(fd)
    elif x.case == "closed":
        s.close(fd)
    elif x.case == "twice":
        _on(s, fd, RT)
    x.p.send(pfd, b"abc", 0x4000)
    _take(s)
    s.fcntl(fd, GETFL)
    _end(s)


@scenario(cases=["get", "bad_signal", "bad_type", "nobody", "ex", "group", "ioctls", "wild"])
def test_owners_as_the_calls_see_them(x: Pair) -> None:
    fd, _ = x.connected()
    s = x.s

    def see(r: Result) -> str:
        kind, pid = struct.unpack("=ii", r.out[0])
        return f"{r} type {kind} {'itself' if pid == s.pid else pid}"

    if x.case == "get":
        s.fcntl(fd, GETOWN)
        s.fcntl(fd, GETSIG)
        s.do("fcntl", fd, GETOWN_EX, inout(bytes(8)), see=see)
    elif x.case == "bad_signal":
        s.fcntl(fd, SETSIG, 65)
        s.fcntl(fd, SETSIG, -1)
        s.fcntl(fd, SETSIG, RT)
        s.fcntl(fd, GETSIG)
    elif x.case == "bad_type":
        s.do("fcntl", fd, SETOWN_EX, struct.pack("=ii", 3, 1))
        s.fcntl(fd, SETOWN, -(1 << 31))
    elif x.case == "nobody":
        s.fcntl(fd, SETOWN, 4000000)
        s.do("fcntl", fd, SETOWN_EX, struct.pack("=ii", PID, 4000000))
        s.fcntl(fd, GETOWN)
    elif x.case == "wild":
        s.do("fcntl", fd, SETOWN_EX, NULL)
        s.do("fcntl", fd, GETOWN_EX, NULL)
        s.do("ioctl", fd, SIOCSPGRP, NULL)
        s.do("ioctl", fd, FIOASYNC, NULL)
    elif x.case == "ioctls":
        s.do("ioctl", fd, FIOSETOWN, struct.pack("=i", s.pid), text="FIOSETOWN, itself")
        for request in (FIOGETOWN, SIOCGPGRP):
            s.do("ioctl", fd, request, inout(bytes(4)), see=lambda r: f"{int.from_bytes(r.out[0], 'little') == s.pid}")
    else:
        kind = PID if x.case == "ex" else PGRP
        s.do("fcntl", fd, SETOWN_EX, struct.pack("=ii", kind, s.pid), text=f"{fd}, SETOWN_EX, {kind}, itself")
        s.do("fcntl", fd, GETOWN_EX, inout(bytes(8)), see=see)
        s.do("fcntl", fd, GETOWN, 0, see=lambda r: str(abs(r.ret) == s.pid))


@scenario(cases=["thread", "process", "group", "setown_group", "child"])
def test_to_whom(x: Pair) -> None:
    fd, pfd = x.connected()
    s = x.s
    _block(s)
    child = s.fork() if x.case in ("child", "group") else None
    owner = s.pid if child is None else child.pid if x.case == "child" else s.pid
    kind = {"thread": TID, "group": PGRP}.get(x.case, PID)
    if x.case == "setown_group":
        s.do("fcntl", fd, SETOWN, -s.pid, text="SETOWN, own group")
    else:
        s.do("fcntl", fd, SETOWN_EX, struct.pack("=ii", kind, owner), text=f"SETOWN_EX {kind} {x.case}")
    s.fcntl(fd, SETFL, ASYNC)
    x.p.send(pfd, b"abc")
    see = lambda r: str(r.ret)  # noqa: E731  (to a group or another process the sender is told as well)
    for who in [s] + ([child] if child else []):
        who.do("sigtimedwait", ALL, out(128), struct.pack("=qq", 0, 100000000), see=see, text="")
    s.do("fcntl", fd, SETFL, 0, quiet=True)  # a child may hold it for a moment longer
    _end(s)


@scenario(cases=["handler", "restarts", "thread_sleeps_in_another_call"])
def test_a_handler_runs_when_no_call_is_made(x: Pair) -> None:
    fd, pfd = x.connected()
    s = x.s
    s.handler(SIGIO, 0x10000000 if x.case == "restarts" else 0)
    _on(s, fd)
    if x.case != "handler":
        other, pother = x.connected()
        s.recv(other, 5, thread=1)
        s.blocked(1)
    x.p.send(pfd, b"abc")
    s.do("poll", NULL, 0, 50, see=lambda r: "", text="a while")
    s.do("poll", NULL, 0, 50, see=lambda r: "", text="a while")
    s.signals()
    if x.case != "handler":
        x.p.send(pother, b"xyz")
        s.wait(1)
    s.recv(fd, 10)


@scenario
def test_many_sockets(x: Pair) -> None:
    s = x.s
    _block(s)
    pairs = [x.connected() for _ in range(12)]
    for fd, _ in pairs:
        _on(s, fd, RT)
    for _, pfd in pairs[::3]:
        x.p.send(pfd, b"a")
        _take(s)
    for fd, _ in pairs[::2]:
        s.close(fd)
    for _, pfd in pairs[1::4]:
        x.p.send(pfd, b"b")
        _take(s)
    _end(s)


@scenario
def test_nobody_answers(x: Pair) -> None:
    """A connection attempt is no event."""
    s = x.s
    _block(s)
    fd = s.socket()
    _on(s, fd, RT, ASYNC | NONBLOCK)
    s.connect(fd, NOWHERE, 9) if x.peer == "link" else None
    _take(s)
    _end(s)
