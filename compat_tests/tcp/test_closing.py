"""Closing on the wire: each order of FINs, half-close, TIME_WAIT and its reuse, data for a socket that is gone."""

from __future__ import annotations

from typing import Any

from harness.rig import Pair
from harness.states import HUP, RDHUP
from harness.suite import wired
from harness.wire import SIMPLE, TIMES, Flow


@wired()
def test_subject_first(x: Pair) -> None:
    fd, flow = x.accepted()
    x.s.close(fd)
    flow.see()
    flow.send("A")
    flow.quiet(20)
    flow.send("FA")
    flow.see()


@wired()
def test_peer_first(x: Pair) -> None:
    fd, flow = x.accepted()
    flow.send("FA")
    flow.see(ms=300)
    x.s.until(fd, RDHUP)
    x.s.recv(fd, 1)
    x.s.close(fd)
    flow.see()
    flow.send("A")
    flow.quiet(20)
    flow.send("A", b"zombie")
    flow.see()


@wired()
def test_both_at_once(x: Pair) -> None:
    """FINs that cross."""
    fd, flow = x.accepted()
    x.s.shutdown(fd, 1)
    flow.see()
    flow.send("FA", ack=1)
    flow.see()
    x.s.until(fd, RDHUP)
    flow.send("A")
    x.s.until(fd, HUP)
    flow.quiet(20)


@wired()
def test_fin_answered_with_fin_and_ack(x: Pair) -> None:
    fd, flow = x.accepted()
    x.s.close(fd)
    flow.see()
    flow.send("FA")
    flow.see()


@wired()
def test_half_closed_by_the_subject(x: Pair) -> None:
    """Data still comes in."""
    fd, flow = x.accepted()
    x.s.shutdown(fd, 1)
    flow.see()
    flow.send("PA", b"still here")
    flow.see(ms=300)
    x.s.until(fd, 1)
    x.s.recv(fd, 100)
    flow.send("FPA", b"bye")
    flow.see(ms=300)
    x.s.until(fd, HUP)
    x.s.recv(fd, 100)


@wired()
def test_half_closed_by_the_peer(x: Pair) -> None:
    """Data still goes out."""
    fd, flow = x.accepted()
    flow.send("FA")
    flow.see(ms=300)
    x.s.until(fd, RDHUP)
    x.s.send(fd, b"one more")
    flow.see()
    flow.send("A")
    x.s.shutdown(fd, 1)
    flow.see()


@wired()
def test_fin_with_the_last_data(x: Pair) -> None:
    """Data that waits and the FIN: the same segment when they go together."""
    fd, flow = x.accepted()
    x.s.set(fd, 6, 3, 1)
    x.s.send(fd, b"last words")
    x.s.close(fd)
    flow.see()


@wired()
def test_fin_is_repeated(x: Pair) -> None:
    fd, flow = x.accepted()
    x.s.close(fd)
    flow.see(2)
    flow.send("A")
    flow.quiet(50)


@wired(["unread", "unread_then_shut", "arriving_later"])
def test_data_that_nobody_reads(x: Pair) -> None:
    """A reset in place of the FIN, or in answer to it."""
    fd, flow = x.accepted()
    if x.case != "arriving_later":
        flow.send("PA", b"unread")
        flow.see(ms=300)
        x.s.until(fd, 1)
    if x.case == "unread_then_shut":
        x.s.shutdown(fd, 1)
        flow.see()
    x.s.close(fd)
    flow.see(ms=300)
    if x.case == "arriving_later":
        flow.send("PA", b"too late")
        flow.see(ms=300)


@wired()
def test_shut_for_reading_takes_data_still(x: Pair) -> None:
    fd, flow = x.accepted()
    x.s.shutdown(fd, 0)
    flow.send("PA", b"thrown away?")
    flow.see(ms=300)
    x.s.recv(fd, 100)


def time_wait(x: Pair, options: Any = SIMPLE) -> tuple[int, int, Flow]:
    """The subject closed first, everything is acknowledged; listener, port, flow."""
    lfd, port = x.listener(x.s)
    x.s.set(lfd, 1, 2, 1)
    flow = x.w.flow(port)
    flow.open(options)
    fd = x.s.accept(lfd).ret
    x.s.close(fd)
    flow.see()
    flow.send("FA")
    flow.see()
    flow.quiet(10)
    return lfd, port, flow


LATE = {
    "fin_again": ("FA", {"seq": 1}, b""),
    "ack": ("A", {}, b""),
    "data": ("PA", {}, b"late"),
    "old_data": ("PA", {"seq": 1}, b"l"),
    "rst": ("R", {}, b""),
    "rst_in_window": ("R", {"seq": 20}, b""),
    "syn_old": ("S", {"seq": 0}, b""),
    "syn_new": ("S", {"seq": 100000}, b""),
    "syn_just_behind": ("S", {"seq": 3}, b""),
    "syn_ack": ("SA", {}, b""),
}


@wired(LATE)
def test_late(x: Pair) -> None:
    """In TIME_WAIT."""
    flags, numbers, data = x.case
    _, _, flow = time_wait(x)
    if flags == "S":
        flow.irs = None  # a new connection has new numbers
    flow.send(flags, data, options=SIMPLE if flags == "S" else (), **numbers)
    flow.see(ms=150)


@wired({"newer": 100, "older": -100, "same": 0})
def test_time_wait_ends_by_a_stamp(x: Pair) -> None:
    """A SYN with an old number, but a newer stamp."""
    _, _, flow = time_wait(x, TIMES)
    flow.irs = None
    flow.stamps = False
    flow.tsval += x.case
    flow.send("S", seq=1, options=TIMES)
    flow.see(ms=150, what=lambda f, p: f.text(p).split(" ts echo ")[0])


@wired(["embryo", "queued"])
def test_listener_is_closed_with(x: Pair) -> None:
    lfd, port = x.listener(x.s)
    flow = x.w.flow(port)
    flow.open(last="" if x.case == "embryo" else "A")
    x.s.do("poll", b"", 0, 20, quiet=True)
    x.s.close(lfd)
    flow.see(ms=150)
    flow.send("PA", b"hello?")
    flow.see(ms=150)


@wired()
def test_data_for_an_orphan(x: Pair) -> None:
    """After close(), in FIN_WAIT2: a reset."""
    fd, flow = x.accepted()
    x.s.close(fd)
    flow.see()
    flow.send("A")
    flow.send("PA", b"anybody?")
    flow.see(ms=300)


@wired()
def test_dissolving_resets(x: Pair) -> None:
    """connect(AF_UNSPEC)."""
    fd, flow = x.accepted()
    x.s.do("connect", fd, bytes(16), 16, text="AF_UNSPEC")
    flow.see(ms=300)
