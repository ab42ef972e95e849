"""Who is woken: several threads on one set, several sets on one socket, sets around sets, sets that a fork shares."""

# ruff: noqa: E501  (tables of cases, one a line)
from __future__ import annotations

import struct

from harness.agent import Agent
from harness.memory import NULL, out
from harness.rig import Pair
from harness.states import ALL, HUP, IN, OUT, RDHUP
from harness.suite import scenario

ADD, DEL, MOD = 1, 2, 3
ET, ONESHOT, EXCLUSIVE = 1 << 31, 1 << 30, 1 << 28


def _set(s: Agent, fd: int, events: int) -> int:
    ep = s.epoll()
    s.ctl(ep, ADD, fd, events, data=7)
    return ep


def _waits(s: Agent, ep: int, thread: int, most: int = 16) -> None:
    s.ready(ep, timeout=-1, thread=thread, most=most)
    s.blocked(thread)


def _how_many(x: Pair, s: Agent, *threads: int) -> None:
    """Which of several threads is woken is the system's choice; how many, is not."""
    lines = [s.ask(f"b {t}") for t in threads]
    x.s.trace.note("subject", f"of threads {threads}", f"{sum(line != 'blocked' for line in lines)} returned")


def _end(s: Agent, *threads: int) -> None:
    for t in threads:
        s.ask(f"K {t}")
        s.ask(f"w {t} 3000")


# ---- EPOLLEXCLUSIVE ----
@scenario(cases={"both": (EXCLUSIVE, EXCLUSIVE), "first": (EXCLUSIVE, 0), "second": (0, EXCLUSIVE), "none": (0, 0)})
def test_two_sets_wait_for_one_listener(x: Pair) -> None:
    lfd, port = x.listener(x.s)
    for t, flag in enumerate(x.case, 1):
        _waits(x.s, _set(x.s, lfd, IN | flag), t)
    x.p.connect(x.p.socket(), x.s_ip, port)
    for t in (1, 2):
        x.s.blocked(t)
    x.p.connect(x.p.socket(), x.s_ip, port)
    for t in (1, 2):
        x.s.blocked(t)
    x.s.accept(lfd)
    x.s.accept(lfd)
    x.s.cancel(2)


@scenario(cases={"three": (EXCLUSIVE,) * 3, "one_shared": (EXCLUSIVE, 0, EXCLUSIVE), "edge": (EXCLUSIVE | ET,) * 3})
def test_three_sets_wait_for_one_connection(x: Pair) -> None:
    fd, pfd = x.connected()
    for t, flag in enumerate(x.case, 1):
        _waits(x.s, _set(x.s, fd, IN | flag), t)
    x.p.send(pfd, b"a")
    for t in (1, 2, 3):
        x.s.blocked(t)
    x.p.send(pfd, b"b")
    for t in (1, 2, 3):
        x.s.blocked(t)
    x.p.close(pfd)
    for t in (1, 2, 3):
        x.s.blocked(t)


@scenario
def test_a_set_that_nobody_waits_on_does_not_keep_the_event(x: Pair) -> None:
    lfd, port = x.listener(x.s)
    _set(x.s, lfd, IN | EXCLUSIVE)
    _waits(x.s, _set(x.s, lfd, IN | EXCLUSIVE), 1)
    x.p.connect(x.p.socket(), x.s_ip, port)
    x.s.wait(1)


@scenario(cases={"exclusive": EXCLUSIVE, "all": 0})
def test_two_processes_wait_for_one_listener(x: Pair) -> None:
    lfd, port = x.listener(x.s)
    child = x.s.fork()
    for s in (x.s, child):
        _waits(s, _set(s, lfd, IN | x.case), 1)
    for _ in range(2):
        x.p.connect(x.p.socket(), x.s_ip, port)
        for s in (x.s, child):
            s.blocked(1)


@scenario
def test_threads_in_accept_are_woken_one_by_one(x: Pair) -> None:
    lfd, port = x.listener(x.s)
    for t in (1, 2, 3):
        x.s.do("accept", lfd, 0, 0, thread=t, see=lambda r: "a number" if r.ret > 0 else str(r))
        x.s.blocked(t)
    for _ in range(2):
        x.p.connect(x.p.socket(), x.s_ip, port)
    x.s.poll(timeout=30)
    _how_many(x, x.s, 1, 2, 3)
    _end(x.s, 1, 2, 3)


# ---- several threads on one set ----
@scenario(cases={"level": 0, "edge": ET, "oneshot": ONESHOT})
def test_two_threads_wait_on_one_set(x: Pair) -> None:
    """Whoever leaves a level-triggered event unread wakes the next; an edge is for one."""
    fd, pfd = x.connected()
    ep = _set(x.s, fd, IN | x.case)
    for t in (1, 2):
        _waits(x.s, ep, t)
    x.p.send(pfd, b"a")
    x.s.poll(timeout=30)
    _how_many(x, x.s, 1, 2)
    x.p.send(pfd, b"b")
    x.s.poll(timeout=30)
    _how_many(x, x.s, 1, 2)
    x.p.close(pfd)
    x.s.poll(timeout=30)
    _end(x.s, 1, 2)


@scenario
def test_three_threads_share_three_members(x: Pair) -> None:
    """Each returns with one event."""
    pairs = [x.connected() for _ in range(3)]
    ep = x.s.epoll()
    for fd, _ in pairs:
        x.s.ctl(ep, ADD, fd, IN | ET)
    for t in (1, 2, 3):
        _waits(x.s, ep, t, most=1)
    for _, pfd in pairs:
        x.p.send(pfd, b"a")
    x.s.poll(timeout=30)
    _how_many(x, x.s, 1, 2, 3)


@scenario
def test_a_timed_wait_among_others(x: Pair) -> None:
    fd, pfd = x.connected()
    ep = _set(x.s, fd, IN | ET)
    _waits(x.s, ep, 1)
    x.s.ready(ep, timeout=40, thread=2)
    x.s.wait(2)
    x.p.send(pfd, b"a")
    x.s.wait(1)


# ---- sets around sets ----
@scenario(cases={"level": 0, "edge": ET})
def test_a_set_around_a_set_hears_every_event(x: Pair) -> None:
    fd, pfd = x.connected()
    inner = _set(x.s, fd, IN)
    outer = _set(x.s, inner, IN | x.case)
    x.s.ready(outer)
    for text in (b"a", b"b"):
        x.p.send(pfd, text)
        x.s.until(fd, IN)
        x.s.poll(timeout=10)
        x.s.ready(outer)
        x.s.ready(outer)
    x.s.recv(fd, 10)
    x.s.ready(outer)
    x.s.poll((inner, ALL), (outer, ALL))
    x.p.send(pfd, b"c")
    x.s.until(fd, IN)
    x.s.poll((inner, ALL), (outer, ALL))
    x.s.select(outer + 1, [inner, outer], [], [])
    x.s.ready(inner)
    x.s.recv(fd, 10)
    x.s.poll((inner, ALL), (outer, ALL))


@scenario(cases=["poll", "select", "epoll"])
def test_a_thread_that_waits_for_a_set_sees_later_members(x: Pair) -> None:
    fd, pfd = x.connected()
    ep = x.s.epoll()
    if x.case == "poll":
        x.s.poll((ep, IN), timeout=3000, thread=1)
    elif x.case == "select":
        bits = (1 << ep).to_bytes(128, "little")
        x.s.do("select", ep + 1, bits, NULL, NULL, struct.pack("=qq", 3, 0), thread=1, text="the set")
    else:
        x.s.ready(_set(x.s, ep, IN), timeout=3000, thread=1)
    x.s.blocked(1)
    x.s.ctl(ep, ADD, fd, IN)
    x.s.blocked(1)
    x.p.send(pfd, b"z")
    x.s.wait(1)


@scenario
def test_three_sets_deep(x: Pair) -> None:
    fd, pfd = x.connected()
    s = x.s
    a = _set(s, fd, IN)
    b = _set(s, a, IN)
    c = _set(s, b, IN)
    s.ready(c)
    s.ready(c, timeout=3000, thread=1)
    s.blocked(1)
    x.p.send(pfd, b"z")
    s.wait(1)
    for ep in (c, b, a):
        s.ready(ep)
    s.recv(fd, 10)
    for ep in (c, b, a):
        s.ready(ep)
    s.close(a)
    x.p.send(pfd, b"y")
    s.until(fd, IN)
    for ep in (c, b):
        s.ready(ep)


# ---- what is an event ----
@scenario(cases=["poll", "level", "edge", "recv", "both_ways"])
def test_own_shutdown_wakes(x: Pair) -> None:
    fd, _ = x.connected()
    s = x.s
    if x.case == "poll":
        s.poll((fd, IN), timeout=-1, thread=1)
    elif x.case == "recv":
        s.recv(fd, 1, thread=1)
    else:
        ep = _set(s, fd, IN | RDHUP | (ET if x.case != "level" else 0))
        s.ready(ep)
        s.ready(ep, timeout=-1, thread=1)
    s.blocked(1)
    s.shutdown(fd, 2 if x.case == "both_ways" else 0)
    s.wait(1)


@scenario(cases=["poll", "level", "edge", "recv"])
def test_a_low_water_mark_keeps_sleepers_asleep(x: Pair) -> None:
    fd, pfd = x.connected()
    s = x.s
    s.set(fd, 1, 18, 5)
    if x.case == "poll":
        s.poll((fd, IN), timeout=-1, thread=1)
    elif x.case == "recv":
        s.recv(fd, 10, thread=1)
    else:
        s.ready(_set(s, fd, IN | (ET if x.case == "edge" else 0)), timeout=-1, thread=1)
    s.blocked(1)
    x.p.send(pfd, b"abc")
    s.poll(timeout=15)
    s.blocked(1)
    x.p.send(pfd, b"def")
    s.wait(1)


@scenario(cases=["poll", "level", "edge"])
def test_lowering_the_mark_wakes(x: Pair) -> None:
    fd, pfd = x.connected()
    s = x.s
    s.set(fd, 1, 18, 5)
    if x.case == "poll":
        s.poll((fd, IN), timeout=-1, thread=1)
    else:
        s.ready(_set(s, fd, IN | (ET if x.case == "edge" else 0)), timeout=-1, thread=1)
    s.blocked(1)
    x.p.send(pfd, b"abc")
    s.poll(timeout=15)
    s.set(fd, 1, 18, 2)
    s.wait(1)


@scenario(cases={"poll": 0, "level": 1, "edge": 2})
def test_raising_the_mark(x: Pair) -> None:
    fd, pfd = x.connected()
    s = x.s
    x.p.send(pfd, b"abc")
    s.until(fd, IN)
    ep = _set(s, fd, IN | OUT | (ET if x.case == 2 else 0))
    s.set(fd, 1, 18, 10)
    s.poll((fd, ALL))
    s.ready(ep)
    s.recv(fd, 2, 0x40)
    s.set(fd, 1, 18, 1)
    s.ready(ep)


# ---- timeouts ----
@scenario(
    cases={
        "zero": (0, 0), "a_nanosecond": (0, 1), "a_millisecond": (0, 1000000), "negative": (-1, 0), "negative_ns": (0, -1),
        "too_many_ns": (0, 1000000000), "none": None,
    }
)  # fmt: skip
def test_epoll_pwait2_timeouts(x: Pair) -> None:
    fd, pfd = x.connected()
    s = x.s
    ep = _set(s, fd, IN)
    time = struct.pack("=qq", *x.case) if x.case else NULL
    if x.case is None:
        x.p.send(pfd, b"x")
        s.until(fd, IN)
    s.do("epoll_pwait2", ep, out(12), 1, time, NULL)
    s.do("epoll_pwait2", s.epoll(), out(12), 1, time if x.case else bytes(16), NULL)


# ---- a set after fork ----
@scenario(cases={"level": 0, "edge": ET, "oneshot": ONESHOT})
def test_parent_and_child_take_turns(x: Pair) -> None:
    fd, pfd = x.connected()
    ep = _set(x.s, fd, IN | x.case)
    child = x.s.fork()
    for text in (b"a", b"b"):
        x.p.send(pfd, text)
        x.s.until(fd, IN)
        x.s.poll(timeout=10)
        child.ready(ep)
        x.s.ready(ep)
    child.recv(fd, 10)
    child.ready(ep)
    x.s.ready(ep)


@scenario(cases=["parent", "child"])
def test_either_may_sleep_on_the_set(x: Pair) -> None:
    fd, pfd = x.connected()
    ep = _set(x.s, fd, IN)
    child = x.s.fork()
    who = x.s if x.case == "parent" else child
    who.ready(ep, timeout=3000, thread=1)
    who.blocked(1)
    x.p.send(pfd, b"a")
    who.wait(1)


@scenario(cases=["closes_the_set", "closes_the_member", "exits"])
def test_what_the_child_drops_stays_with_the_parent(x: Pair) -> None:
    fd, pfd = x.connected()
    ep = _set(x.s, fd, IN | HUP)
    child = x.s.fork()
    if x.case == "exits":
        x.s.children.remove(child)
        child.channel.sendall(b"x\n")
        child.channel.close()
    else:
        child.close(ep if x.case == "closes_the_set" else fd)
    x.p.send(pfd, b"a")
    x.s.until(fd, IN)
    x.s.ready(ep)
    x.s.recv(fd, 10)
    x.s.ready(ep)


@scenario(cases=["deletes", "modifies", "adds", "rearms"])
def test_what_the_child_changes_holds_for_the_parent(x: Pair) -> None:
    fd, pfd = x.connected()
    other, pother = x.connected()
    s, ep = x.s, x.s.epoll()
    s.ctl(ep, ADD, fd, IN | (ONESHOT if x.case == "rearms" else 0), data=1)
    child = s.fork()
    if x.case == "deletes":
        child.ctl(ep, DEL, fd)
    elif x.case == "modifies":
        child.ctl(ep, MOD, fd, OUT, data=2)
    elif x.case == "adds":
        child.ctl(ep, ADD, other, IN, data=3)
        x.p.send(pother, b"b")
        s.until(other, IN)
    x.p.send(pfd, b"a")
    s.until(fd, IN)
    s.poll(timeout=10)
    s.ready(ep)
    if x.case == "rearms":
        child.ctl(ep, MOD, fd, IN | ONESHOT, data=4)
        s.ready(ep)
        s.ready(ep)


@scenario(cases=["parent_first", "child_first"])
def test_a_member_stays_while_anybody_holds_it_open(x: Pair) -> None:
    fd, pfd = x.connected()
    ep = _set(x.s, fd, IN | RDHUP)
    child = x.s.fork()
    one, other = (x.s, child) if x.case == "parent_first" else (child, x.s)
    one.close(fd)
    x.p.send(pfd, b"a")
    other.until(fd, IN)
    x.s.poll(timeout=10)
    one.ready(ep)
    other.ready(ep)
    other.close(fd)
    x.s.poll(timeout=10)
    one.ready(ep)
    other.ready(ep)


@scenario
def test_a_listener_that_the_child_adds_and_accepts_from(x: Pair) -> None:
    ep = x.s.epoll()
    child = x.s.fork()
    lfd, port = x.listener(child)
    child.ctl(ep, ADD, lfd, IN, data=5)
    x.s.ready(ep)
    x.s.ready(ep, timeout=3000, thread=1)
    x.s.blocked(1)
    x.p.connect(x.p.socket(), x.s_ip, port)
    x.s.wait(1)
    child.accept(lfd)
    child.ready(ep)
    x.s.ready(ep)
    child.close(lfd)
    x.s.ready(ep)


@scenario(cases={"level": 0, "edge": ET})
def test_a_set_goes_on_after_exec(x: Pair) -> None:
    fd, pfd = x.connected()
    ep = _set(x.s, fd, IN | x.case)
    child = x.s.fork()
    x.s.exec()
    x.p.send(pfd, b"a")
    child.until(fd, IN)
    x.s.poll(timeout=10)
    x.s.ready(ep)
    child.ready(ep)
    child.ctl(ep, MOD, fd, OUT, data=8)
    x.s.ready(ep)
    x.s.ctl(ep, DEL, fd)
    child.ready(ep)


@scenario(cases=["alone", "child_goes_on"])
def test_a_member_connected_by_the_child(x: Pair) -> None:
    """It was added unconnected; the child's connect makes it a connection for the parent's waits, too."""
    fd = x.s.socket()
    ep = _set(x.s, fd, IN)
    child = x.s.fork()
    lfd, port = x.listener(x.p)
    child.connect(fd, x.p_ip, port)
    pfd = x.p.accept(lfd).ret
    x.p.send(pfd, b"a")
    child.until(fd, IN)
    x.s.poll(timeout=10)
    if x.case == "child_goes_on":
        child.ready(ep)
    x.s.ready(ep)


# ---- edges ----
@scenario(cases={"rdhup": RDHUP, "out": OUT, "nothing": 0, "pri": 2})
def test_data_is_an_edge_for_those_who_ask_for_it(x: Pair) -> None:
    fd, pfd = x.connected()
    s, ep = x.s, _set(x.s, x.s.socket(), 0)
    s.ctl(ep, ADD, fd, x.case | ET, data=3)
    s.ready(ep)
    x.p.send(pfd, b"a")
    s.until(fd, IN)
    s.poll(timeout=10)
    s.ready(ep)
    x.p.shutdown(pfd, 1)
    s.until(fd, RDHUP)
    s.poll(timeout=10)
    s.ready(ep)
    s.ready(ep)


@scenario(cases=["poll", "level", "edge"])
def test_shutdown_by_another_process_wakes(x: Pair) -> None:
    fd, _ = x.connected()
    child = x.s.fork()
    if x.case == "poll":
        x.s.poll((fd, IN | RDHUP), timeout=3000, thread=1)
    else:
        x.s.ready(_set(x.s, fd, IN | RDHUP | (ET if x.case == "edge" else 0)), timeout=3000, thread=1)
    x.s.blocked(1)
    child.shutdown(fd, 0)
    x.s.wait(1)
