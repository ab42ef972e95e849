"""Every transition of a socket, seen by poll, select, and epoll in level, edge and one-shot mode.

A transition is a list of actions; after each one (and before the first) every way of waiting says what it sees, twice: the second
time shows what edge-triggered and one-shot sets keep to themselves.
"""

# ruff: noqa: E501  (tables of cases, one a line)
from __future__ import annotations

import struct
from collections.abc import Callable

from harness.memory import inout, out, sink
from harness.rig import Pair
from harness.states import ALL, HUP, IN, NOWHERE, OUT, RDHUP, RESET_LINGER
from harness.suite import scenario
from harness.trace import see_sign

ET, ONESHOT, EXCLUSIVE = 1 << 31, 1 << 30, 1 << 28
ADD, DEL, MOD = 1, 2, 3
EPOLL_ALL = IN | OUT | RDHUP | 0x2  # PRI

Action = Callable[[Pair, int, int], object]


def settle(x: Pair, fd: int, events: int) -> object:
    """Lets what the peer did arrive, without being an event for an epoll set."""
    lowat = x.s.do("getsockopt", fd, 1, 18, out(4), inout(b"\4\0\0\0"), quiet=True).out[:1]
    if lowat == [b"\5\0\0\0"]:
        x.s.poll((fd, events & ~IN), timeout=20)
    else:
        x.s.until(fd, events)
    return x.s.poll(timeout=5)  # poll looks at the bytes themselves, sets hear of them a moment later


def waiting(x: Pair, fd: int) -> int:
    return int.from_bytes(x.s.do("ioctl", fd, 0x541B, inout(bytes(4)), quiet=True).out[0], "little")  # FIONREAD


def arrived(x: Pair, fd: int, n: int) -> bool:
    """Until there are n bytes to read: for who is readable anyway."""
    for _ in range(1500):
        if waiting(x, fd) >= n:
            return True
        x.s.do("poll", inout(b""), 0, 2, quiet=True)
    return False


def fill(x: Pair, fd: int, pfd: int) -> None:
    """Writes until no more fits, into buffers that do not grow."""
    x.s.do("setsockopt", fd, 1, 7, struct.pack("=i", 32768), 4, quiet=True)
    x.p.do("setsockopt", pfd, 1, 8, struct.pack("=i", 65536), 4, quiet=True)
    refused = 0
    while refused < 2:
        if x.s.do("send", fd, sink(1 << 16), 1 << 16, 0x4040, quiet=True).ret > 0:
            refused = 0  # on a busy machine each makes little room
            continue
        # the last pieces may still be on their way into the peer's buffer: longer than the first probes of the window take
        refused = refused + 1 if x.s.do("poll", _pollfd(fd, OUT), 1, 350, quiet=True).ret == 0 else 0


def _pollfd(fd: int, events: int) -> bytes:
    return struct.pack("=ihh", fd, events, 0)


def drain(x: Pair, fd: int, pfd: int) -> None:
    """The peer reads everything; the subject becomes writable."""
    while x.p.do("poll", _pollfd(pfd, IN), 1, 30, quiet=True).ret == 1:
        if x.p.do("recv", pfd, sink(1 << 18), 1 << 18, 0x40, quiet=True).ret <= 0:
            break
    x.s.until(fd, OUT)


ACTIONS: dict[str, Action] = {
    "data": lambda x, fd, pfd: (x.p.send(pfd, b"abcd"), arrived(x, fd, 4), settle(x, fd, IN)),
    "more": lambda x, fd, pfd: (
        arrived(x, fd, waiting(x, fd) + x.p.send(pfd, b"efgh").ret),
        x.s.poll((fd, 0), timeout=15),
    ),
    "read_some": lambda x, fd, pfd: x.s.recv(fd, 2),
    "read_all": lambda x, fd, pfd: x.s.recv(fd, 100),
    "peek": lambda x, fd, pfd: x.s.recv(fd, 100, 2),
    "send": lambda x, fd, pfd: x.s.send(fd, b"xyz"),
    "fill": fill,
    "drain": drain,
    "peer_fin": lambda x, fd, pfd: (x.p.shutdown(pfd, 1), settle(x, fd, RDHUP)),
    "peer_close": lambda x, fd, pfd: (x.p.close(pfd), settle(x, fd, RDHUP)),
    "peer_reset": lambda x, fd, pfd: (x.p.set(pfd, 1, 13, RESET_LINGER), x.p.close(pfd), settle(x, fd, HUP)),
    # the acknowledgement of a FIN is an event as well
    "shut_rd": lambda x, fd, pfd: x.s.shutdown(fd, 0),
    "shut_wr": lambda x, fd, pfd: (x.s.shutdown(fd, 1), x.s.poll(timeout=15)),
    "shut_rdwr": lambda x, fd, pfd: (x.s.shutdown(fd, 2), x.s.poll(timeout=15)),
    "so_error": lambda x, fd, pfd: x.s.error(fd),
    "lowat_5": lambda x, fd, pfd: x.s.set(fd, 1, 18, 5),
    "lowat_1": lambda x, fd, pfd: x.s.set(fd, 1, 18, 1),
}

SEQUENCES = [
    "data read_all", "data read_some read_all", "data more read_all", "data peek read_all data", "data read_all data read_all",
    "send", "fill drain", "fill drain fill drain", "peer_fin", "data peer_fin read_all", "peer_fin shut_wr",
    "shut_wr", "shut_wr peer_fin", "shut_wr peer_close", "shut_rd", "shut_rd data", "shut_rdwr", "shut_wr data read_all peer_fin",
    "peer_close", "data peer_close read_all", "peer_close shut_wr", "peer_reset", "peer_reset so_error", "data peer_reset read_all",
    "data peer_reset so_error read_all", "fill peer_reset", "shut_wr peer_reset", "peer_fin peer_reset", "shut_rd shut_wr",
    "lowat_5 data more", "lowat_5 data lowat_1", "data lowat_5", "lowat_5 data peer_fin", "lowat_5 data peer_reset", "data more shut_rd",
]  # fmt: skip


def by_poll(x: Pair, fd: int) -> Callable[[], object]:
    return lambda: (x.s.poll((fd, ALL)), x.s.poll((fd, IN)), x.s.poll((fd, OUT)), x.s.poll((fd, 0)))


def by_select(x: Pair, fd: int) -> Callable[[], object]:
    return lambda: x.s.select(fd + 1, [fd], [fd], [fd])


def by_epoll(events: int, rearm: bool = False) -> Callable[[Pair, int], Callable[[], object]]:
    def start(x: Pair, fd: int) -> Callable[[], object]:
        ep = x.s.epoll()
        x.s.ctl(ep, ADD, fd, events, data=77)

        def look() -> None:
            x.s.ready(ep)
            x.s.ready(ep)
            if rearm:
                x.s.ctl(ep, MOD, fd, events, data=78)

        return look

    return start


WAYS: dict[str, Callable[[Pair, int], Callable[[], object]]] = {
    "poll": by_poll,
    "select": by_select,
    "level": by_epoll(EPOLL_ALL),
    "level_in": by_epoll(IN),
    "level_out": by_epoll(OUT),
    "edge": by_epoll(EPOLL_ALL | ET),
    "edge_in": by_epoll(IN | ET),
    "oneshot": by_epoll(EPOLL_ALL | ONESHOT),
    "oneshot_rearmed": by_epoll(EPOLL_ALL | ONESHOT, rearm=True),
    "edge_oneshot_rearmed": by_epoll(IN | RDHUP | ET | ONESHOT, rearm=True),
    "edge_modified": by_epoll(EPOLL_ALL | ET, rearm=True),
    "exclusive": by_epoll(IN | OUT | EXCLUSIVE),
}


QUICK = [f"{'-'.join(q.split())}-{w}" for q in SEQUENCES for w in ("poll", "edge")]


@scenario(cases={f"{'-'.join(q.split())}-{w}": (q.split(), w) for q in SEQUENCES for w in WAYS}, quick=QUICK)
def test_sequence(x: Pair) -> None:
    actions, way = x.case
    fd, pfd = x.connected(active=len(actions) % 2 == 0)
    x.s.nonblock(fd)
    look = WAYS[way](x, fd)
    look()
    for action in actions:
        ACTIONS[action](x, fd, pfd)
        look()


@scenario(cases=list(WAYS))
def test_connect_succeeds(x: Pair) -> None:
    """The set exists before the connection does."""
    _, port = x.listener(x.p)
    fd = x.s.socket()
    x.s.nonblock(fd)
    look = WAYS[x.case](x, fd)
    look()
    x.s.connect(fd, x.p_ip, port)
    settle(x, fd, OUT)
    look()
    x.s.error(fd)
    look()


@scenario(cases=list(WAYS))
def test_connect_is_refused(x: Pair) -> None:
    lfd, port = x.listener(x.p)
    x.p.close(lfd)
    fd = x.s.socket()
    x.s.nonblock(fd)
    look = WAYS[x.case](x, fd)
    x.s.connect(fd, x.p_ip, port)
    settle(x, fd, OUT)
    look()
    x.s.error(fd)
    look()


@scenario(peers=["link"], cases=list(WAYS))
def test_connect_goes_on(x: Pair) -> None:
    fd = x.s.socket()
    x.s.nonblock(fd)
    look = WAYS[x.case](x, fd)
    x.s.connect(fd, NOWHERE, 9)
    look()
    x.s.connect(fd, NOWHERE, 9)
    look()


@scenario(cases=list(WAYS))
def test_listener(x: Pair) -> None:
    """Two connections come, are taken one by one, and the listener is shut."""
    fd, port = x.listener(x.s)
    x.s.nonblock(fd)
    look = WAYS[x.case](x, fd)
    look()
    x.p.connect(x.p.socket(), x.s_ip, port)
    settle(x, fd, IN)
    look()
    x.p.connect(x.p.socket(), x.s_ip, port)
    x.s.poll((fd, 0), timeout=15)
    look()
    x.s.accept(fd)
    look()
    x.s.accept(fd)
    look()
    x.s.accept(fd)
    x.s.shutdown(fd, 0)
    look()


@scenario(cases=list(WAYS))
def test_wakes_a_waiting_thread(x: Pair) -> None:
    """Whoever sleeps in a wait sees the next event."""
    fd, pfd = x.connected()
    s = x.s
    for _name, action in (("data", b"1"), ("again", b"2")):
        if x.case == "poll":
            s.poll((fd, IN), timeout=3000, thread=1)
        elif x.case == "select":
            s.poll((fd, IN | RDHUP), timeout=-1, thread=1)
        else:
            ep = s.epoll()
            s.ctl(ep, ADD, fd, {"edge": IN | ET, "exclusive": IN | EXCLUSIVE}.get(x.case, IN), data=5)
            s.ready(ep, timeout=3000, thread=1)
        s.blocked(1)
        x.p.send(pfd, action)
        s.wait(1)
        s.recv(fd, 10)


@scenario(cases={"poll": 0, "epoll": 1})
def test_wait_times_out(x: Pair) -> None:
    fd, _ = x.connected()
    if x.case:
        ep = x.s.epoll()
        x.s.ctl(ep, ADD, fd, IN)
        x.s.ready(ep, timeout=10)
    else:
        x.s.poll((fd, IN), timeout=10)
        x.s.select(fd + 1, [fd], [], [], ms=10)


@scenario
def test_writable_sizes(x: Pair) -> None:
    """A socket that is full says so, and a third of the room is what makes it writable again."""
    fd, pfd = x.connected()
    x.s.nonblock(fd)
    x.s.do("send", fd, sink(1 << 16), 1 << 16, 0x4000, see=see_sign)
    fill(x, fd, pfd)
    x.s.poll((fd, ALL))
    drain(x, fd, pfd)
    x.s.poll((fd, ALL))
