"""epoll sets: what may be added, twice, to itself, nested, closed, duplicated, modified; order and limits of results."""

# ruff: noqa: E501  (tables of cases, one a line)
from __future__ import annotations

import itertools

from harness.memory import NULL, WILD, out
from harness.rig import Pair
from harness.states import ALL, IN, OUT, RDHUP
from harness.suite import scenario

ADD, DEL, MOD = 1, 2, 3
ET, ONESHOT, EXCLUSIVE, WAKEUP = 1 << 31, 1 << 30, 1 << 28, 1 << 29


@scenario
def test_errors_of_epoll_ctl(x: Pair) -> None:
    fd, _ = x.connected()
    ep = x.s.epoll()
    s = x.s
    s.ctl(ep, DEL, fd)
    s.ctl(ep, MOD, fd, IN)
    s.ctl(ep, ADD, fd, IN)
    s.ctl(ep, ADD, fd, IN)
    s.do("epoll_ctl", ep, 4, fd, bytes(12))
    s.do("epoll_ctl", ep, ADD, 500, bytes(12))
    s.do("epoll_ctl", 500, ADD, fd, bytes(12))
    s.do("epoll_ctl", fd, ADD, ep, bytes(12))
    s.do("epoll_ctl", ep, ADD, ep, bytes(12))
    s.do("epoll_ctl", ep, MOD, fd, NULL)
    s.do("epoll_ctl", ep, MOD, fd, WILD)
    s.do("epoll_ctl", ep, DEL, fd, NULL)
    s.do("epoll_ctl", -1, ADD, -1, NULL)


@scenario
def test_errors_of_epoll_wait(x: Pair) -> None:
    fd, _pfd = x.connected()
    ep = x.s.epoll()
    s = x.s
    s.ctl(ep, ADD, fd, OUT)
    s.do("epoll_wait", ep, out(12), 0, 0)
    s.do("epoll_wait", ep, out(12), -1, 0)
    s.do("epoll_wait", ep, WILD, 1, 0)
    s.do("epoll_wait", fd, out(12), 1, 0)
    s.do("epoll_wait", 500, out(12), 1, 0)
    s.do("epoll_create", 0)
    s.do("epoll_create", -1)
    s.do("epoll_create1", 1)
    s.do("epoll_pwait", ep, out(12), 1, 0, NULL, 8)
    s.do("epoll_pwait", ep, out(12), 1, 0, WILD, 8)
    s.do("epoll_pwait2", ep, out(12), 1, bytes(16), NULL)


@scenario(
    cases=[
        "exclusive_mod",
        "exclusive_oneshot",
        "exclusive_epoll",
        "mod_to_exclusive",
        "wakeup",
        "exclusive_hup",
        "no_events",
    ]
)
def test_flags(x: Pair) -> None:
    fd, pfd = x.connected()
    s, ep = x.s, x.s.epoll()
    if x.case == "exclusive_mod":
        s.ctl(ep, ADD, fd, IN | EXCLUSIVE)
        s.ctl(ep, MOD, fd, IN)
    elif x.case == "exclusive_oneshot":
        s.ctl(ep, ADD, fd, IN | EXCLUSIVE | ONESHOT)
    elif x.case == "exclusive_epoll":
        s.ctl(ep, ADD, s.epoll(), IN | EXCLUSIVE)
    elif x.case == "mod_to_exclusive":
        s.ctl(ep, ADD, fd, IN)
        s.ctl(ep, MOD, fd, IN | EXCLUSIVE)
    elif x.case == "wakeup":
        s.ctl(ep, ADD, fd, IN | OUT | WAKEUP | ET)
    elif x.case == "exclusive_hup":
        s.ctl(ep, ADD, fd, IN | EXCLUSIVE | RDHUP)
    else:
        s.ctl(ep, ADD, fd, 0)
    s.ready(ep)
    x.p.close(pfd)
    s.until(fd, RDHUP)
    s.poll((fd, 0), timeout=10)  # poll may see it before the set is told
    s.ready(ep)
    s.shutdown(fd, 1)
    s.until(fd, 0, 50)
    s.ready(ep)


@scenario
def test_several_sets_see_one_socket(x: Pair) -> None:
    fd, pfd = x.connected()
    sets = [x.s.epoll() for _ in range(3)]
    for ep, mode in zip(sets, (0, ET, ONESHOT), strict=True):
        x.s.ctl(ep, ADD, fd, IN | mode)
    for text in (b"a", b"b"):
        x.p.send(pfd, text)
        x.s.until(fd, IN)
        x.s.poll((fd, 0), timeout=10)
        for ep in sets:
            x.s.ready(ep)
    x.s.recv(fd, 10)
    for ep in sets:
        x.s.ready(ep)


@scenario
def test_a_set_is_readable_when_a_member_is(x: Pair) -> None:
    fd, pfd = x.connected()
    s, inner, outer = x.s, x.s.epoll(), x.s.epoll()
    s.ctl(inner, ADD, fd, IN)
    s.ctl(outer, ADD, inner, IN, data=1)
    s.poll((inner, ALL))
    s.ready(outer)
    x.p.send(pfd, b"z")
    s.until(fd, IN)
    s.poll((inner, ALL))
    s.select(inner + 1, [inner], [inner], [])
    s.ready(outer)
    s.ready(inner)
    s.ready(outer)
    s.recv(fd, 10)
    s.ready(outer)
    s.poll((inner, ALL))


@scenario(cases={"level": 0, "edge": ET})
def test_a_thread_waits_for_a_set_in_a_set(x: Pair) -> None:
    fd, pfd = x.connected()
    s, inner, outer = x.s, x.s.epoll(), x.s.epoll()
    s.ctl(inner, ADD, fd, IN | x.case)
    s.ctl(outer, ADD, inner, IN, data=1)
    s.ready(outer, timeout=3000, thread=1)
    s.blocked(1)
    x.p.send(pfd, b"z")
    s.wait(1)
    s.ready(inner)


@scenario
def test_loops_and_depth(x: Pair) -> None:
    s = x.s
    fd, _ = x.connected()
    a, b = s.epoll(), s.epoll()
    s.ctl(b, ADD, fd, IN)
    s.ctl(a, ADD, b, IN)
    s.ctl(b, ADD, a, IN)
    chain = [s.epoll() for _ in range(7)]
    for low, high in itertools.pairwise(chain):
        s.ctl(high, ADD, low, IN)


@scenario
def test_a_closed_socket_leaves_its_sets(x: Pair) -> None:
    fd, _pfd = x.connected()
    s, ep = x.s, x.s.epoll()
    s.ctl(ep, ADD, fd, IN | OUT)
    s.ready(ep)
    s.close(fd)
    s.ready(ep)
    s.ctl(ep, DEL, fd)


@scenario
def test_a_duplicate_keeps_a_closed_number_in_the_set(x: Pair) -> None:
    fd, pfd = x.connected()
    s, ep = x.s, x.s.epoll()
    s.ctl(ep, ADD, fd, IN | OUT, data=1)
    other = s.do("dup", fd).ret
    s.close(fd)
    s.ready(ep)
    s.ctl(ep, DEL, fd)
    s.ctl(ep, MOD, other, IN)
    s.ctl(ep, ADD, other, IN | OUT, data=2)
    s.ready(ep)
    x.p.send(pfd, b"q")
    s.until(other, IN)
    s.ready(ep)
    s.close(other)
    s.ready(ep)


@scenario
def test_both_numbers_of_a_socket_are_members(x: Pair) -> None:
    fd, pfd = x.connected()
    s, ep = x.s, x.s.epoll()
    other = s.do("dup", fd).ret
    s.ctl(ep, ADD, fd, IN, data=1)
    s.ctl(ep, ADD, other, IN | ET, data=2)
    x.p.send(pfd, b"q")
    s.until(fd, IN)
    s.ready(ep)
    s.ready(ep)
    s.ctl(ep, DEL, fd)
    s.ready(ep)


@scenario
def test_a_number_reused_is_a_new_member(x: Pair) -> None:
    fd, _ = x.connected()
    s, ep = x.s, x.s.epoll()
    s.ctl(ep, ADD, fd, IN | OUT, data=1)
    s.close(fd)
    again = s.socket()
    s.ready(ep)
    s.ctl(ep, ADD, again, IN | OUT, data=2)
    s.ready(ep)


@scenario
def test_results_are_limited_and_take_turns(x: Pair) -> None:
    """Three ready members, one result at a time."""
    s, ep = x.s, x.s.epoll()
    for data in range(3):
        fd, _ = x.connected()
        s.ctl(ep, ADD, fd, OUT, data=data)
    for _ in range(7):
        s.ready(ep, most=1)
    s.ready(ep, most=2)
    s.ready(ep)


@scenario
def test_tas_and_kernel_members_in_one_set(x: Pair) -> None:
    fd, pfd = x.connected()
    s, ep = x.s, x.s.epoll()
    event = s.do("eventfd", 0, 0).ret
    s.ctl(ep, ADD, fd, IN, data=1)
    s.ctl(ep, ADD, event, IN, data=2)
    s.ready(ep)
    s.do("write", event, b"\x01" + bytes(7), 8)
    s.ready(ep)
    x.p.send(pfd, b"q")
    s.until(fd, IN)
    s.ready(ep)
    s.ready(ep, most=1)
    s.ready(ep, most=1)
    s.do("read", event, out(8), 8)
    s.ready(ep)
    s.recv(fd, 10)
    s.ready(ep)
    s.ready(ep, timeout=3000, thread=1)
    s.blocked(1)
    s.do("write", event, b"\x01" + bytes(7), 8)
    s.wait(1)


@scenario
def test_adding_wakes_a_thread_that_waits(x: Pair) -> None:
    fd, _ = x.connected()
    s, ep = x.s, x.s.epoll()
    s.ready(ep, timeout=3000, thread=1)
    s.blocked(1)
    s.ctl(ep, ADD, fd, OUT, data=3)
    s.wait(1)


@scenario
def test_modifying_wakes_a_thread_that_waits(x: Pair) -> None:
    fd, _ = x.connected()
    s, ep = x.s, x.s.epoll()
    s.ctl(ep, ADD, fd, IN)
    s.ready(ep, timeout=3000, thread=1)
    s.blocked(1)
    s.ctl(ep, MOD, fd, OUT, data=3)
    s.wait(1)


@scenario
def test_a_listener_in_several_sets(x: Pair) -> None:
    lfd, port = x.listener(x.s)
    s = x.s
    s.nonblock(lfd)
    sets = [s.epoll(), s.epoll()]
    for ep in sets:
        s.ctl(ep, ADD, lfd, IN | EXCLUSIVE)
    x.p.connect(x.p.socket(), x.s_ip, port)
    s.until(lfd, IN)
    for ep in sets:
        s.ready(ep)
    s.accept(lfd)
    for ep in sets:
        s.ready(ep)


@scenario
def test_poll_arrays(x: Pair) -> None:
    """Negative, invalid, repeated and mixed numbers."""
    fd, pfd = x.connected()
    s = x.s
    event = s.do("eventfd", 1, 0).ret
    x.p.send(pfd, b"q")
    s.until(fd, IN)
    s.poll((-1, IN), (fd, IN), (fd, OUT), (500, IN), (event, ALL), (fd, 0))
    s.poll(timeout=1)
    s.poll((-5, ALL), timeout=1)
    s.do("poll", NULL, 1, 0)
    s.do("poll", WILD, 1, 0)
    s.do("poll", NULL, 0, 0)
    s.do("ppoll", NULL, 0, bytes(8) + b"\xff" * 8, NULL, 8)
    s.do("poll", NULL, 1 << 30, 0)


@scenario
def test_select_sets(x: Pair) -> None:
    fd, pfd = x.connected()
    s = x.s
    x.p.send(pfd, b"q")
    s.until(fd, IN)
    s.select(fd, [fd], [fd], [])
    s.select(fd + 1, [fd], [fd], [fd])
    s.select(500, [fd, 400], [], [])
    s.select(-1, [], [], [])
    s.do("select", fd + 1, WILD, NULL, NULL, bytes(16))
    s.do("select", fd + 1, NULL, NULL, NULL, b"\xff" * 16)
    s.do("select", 0, NULL, NULL, NULL, bytes(16))
