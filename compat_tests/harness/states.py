"""The states a stream socket can be in, each made from nothing: name -> function (Pair) -> the subject's number.

All are non-blocking in the end, so that no call on them waits.
"""

from __future__ import annotations

from collections.abc import Callable

from .memory import address
from .rig import Pair

IN, PRI, OUT, ERR, HUP, RDHUP, ALL = 0x1, 0x2, 0x4, 0x8, 0x10, 0x2000, 0x3FFF
RESET_LINGER = b"\x01\0\0\0\0\0\0\0"
NOWHERE = "10.77.0.99"  # on the link, but nobody has it
State = Callable[[Pair], int]
_places: dict[str, int] = {}  # where cases connect to in vain, the same on all stacks

# The peer's end of the connection, where there is one: read by cases that need it.


def fresh(x: Pair) -> int:
    return x.s.socket()


def bound(x: Pair) -> int:
    fd = x.s.socket()
    x.s.bind(fd, x.s_ip)
    return fd


def listening(x: Pair) -> int:
    return x.listener(x.s)[0]


def listening_with_connection(x: Pair) -> int:
    fd, port = x.listener(x.s)
    x.p.connect(x.p.socket(), x.s_ip, port)
    x.s.until(fd, IN)
    return fd


def connecting(x: Pair) -> int:
    fd = x.s.socket()
    x.s.nonblock(fd)
    # another one each time: a neighbour that is being asked for fails for everybody at once, some seconds later
    place = _places.setdefault(repr(x.case), len(_places))
    x.s.connect(fd, f"10.77.0.{100 + place % 150}", 9)
    return fd


def connected(x: Pair) -> int:
    return x.connected()[0]


def accepted(x: Pair) -> int:
    return x.connected(active=False)[0]


def with_data(x: Pair) -> int:
    fd, pfd = x.connected()
    x.p.send(pfd, b"0123456789")
    x.s.until(fd, IN)
    return fd


def shut(how: int, active: bool = True) -> State:
    def make(x: Pair) -> int:
        fd, _ = x.connected(active)
        x.s.shutdown(fd, how)
        return fd

    return make


def peer_shut(x: Pair) -> int:
    fd, pfd = x.connected()
    x.p.shutdown(pfd, 1)
    x.s.until(fd, RDHUP)
    return fd


def peer_shut_with_data(x: Pair) -> int:
    fd, pfd = x.connected()
    x.p.send(pfd, b"last words")
    x.p.shutdown(pfd, 1)
    x.s.until(fd, RDHUP)
    return fd


def peer_closed(x: Pair) -> int:
    fd, pfd = x.connected(active=False)
    x.p.close(pfd)
    x.s.until(fd, RDHUP)
    return fd


def both_shut(x: Pair) -> int:
    """Our FIN first, theirs after: TIME_WAIT, but for us a socket still."""
    fd, pfd = x.connected()
    x.s.shutdown(fd, 1)
    x.p.until(pfd, RDHUP)
    x.p.shutdown(pfd, 1)
    x.s.until(fd, HUP)
    return fd


def reset(x: Pair) -> int:
    fd, pfd = x.connected()
    x.p.set(pfd, 1, 13, RESET_LINGER)
    x.p.close(pfd)
    x.s.until(fd, HUP)
    return fd


def reset_with_data(x: Pair) -> int:
    fd, pfd = x.connected()
    x.p.send(pfd, b"lost words")
    x.s.until(fd, IN)
    x.p.set(pfd, 1, 13, RESET_LINGER)
    x.p.close(pfd)
    x.s.until(fd, HUP)
    return fd


def reset_and_told(x: Pair) -> int:
    fd = reset(x)
    x.s.recv(fd, 1)
    return fd


def refused(x: Pair) -> int:
    """A connection that was refused, and nobody has asked yet."""
    lfd, port = x.listener(x.p)
    x.p.close(lfd)
    fd = x.s.socket()
    x.s.nonblock(fd)
    x.s.connect(fd, x.p_ip, port)
    x.s.until(fd, HUP)
    return fd


def refused_and_told(x: Pair) -> int:
    fd = refused(x)
    x.s.error(fd)
    return fd


def disconnected(x: Pair) -> int:
    """Connected, then dissolved by connect(AF_UNSPEC)."""
    fd, _ = x.connected()
    x.s.do("connect", fd, bytes(16), 16, text=f"{fd}, AF_UNSPEC")
    return fd


def closed(x: Pair) -> int:
    fd, _ = x.connected()
    x.s.close(fd)
    return fd


STATES: dict[str, State] = {
    "fresh": fresh,
    "bound": bound,
    "listening": listening,
    "listening_with_connection": listening_with_connection,
    "connected": connected,
    "accepted": accepted,
    "with_data": with_data,
    "shut_rd": shut(0),
    "shut_wr": shut(1),
    "shut_rdwr": shut(2, active=False),
    "peer_shut": peer_shut,
    "peer_shut_with_data": peer_shut_with_data,
    "peer_closed": peer_closed,
    "both_shut": both_shut,
    "reset": reset,
    "reset_with_data": reset_with_data,
    "reset_and_told": reset_and_told,
    "refused": refused,
    "refused_and_told": refused_and_told,
    "disconnected": disconnected,
    "closed": closed,
}
LINK_STATES: dict[str, State] = {"connecting": connecting}
__all__ = ["LINK_STATES", "STATES", "address"]
