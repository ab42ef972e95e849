"""What a connection sends: segmentation, Nagle and cork, retransmission, recovery, path MTU, errors of the network."""

from __future__ import annotations

import itertools
import struct
from typing import Any

from harness.rig import Pair
from harness.suite import wired
from harness.wire import FULL, SACK, SIMPLE, Flow, inet

NODELAY, CORK, MORE = 1, 3, 0x8000
_v6_ports = itertools.count(8001)


# ---- segmentation ----
@wired([1, 1459, 1460, 1461, 2920, 5000, 14600])
def test_write_of(x: Pair) -> None:
    fd, flow = x.accepted()
    x.s.send(fd, b"w" * x.case)
    flow.bytes(x.case)


@wired(
    {
        "mss_100": (100, 450),
        "mss_536": (536, 1200),
        "mss_1": (1, 500),
        "mss_2000": (2000, 3000),
        "mss_88": (88, 300),
    },
)
def test_segments_of_a_peer_with(x: Pair) -> None:
    fd, flow = x.accepted([("MSS", x.case[0])])
    x.s.get(fd, 6, 2)
    x.s.send(fd, b"w" * x.case[1])
    flow.bytes(x.case[1])


@wired(
    [
        "two",
        "three",
        "nodelay",
        "nodelay_on_later",
        "full_and_part",
        "more",
        "more_twice",
        "more_and_data_comes",
        "more_behind_a_small_one",
        "more_then_nodelay",
        "more_then_not",
        "cork",
        "cork_long",
        "uncork",
    ],
)
def test_small_writes(x: Pair) -> None:
    """Nagle: one small segment is out at a time, until it is acknowledged."""
    fd, flow = x.accepted()
    s = x.s
    if x.case == "nodelay":
        s.set(fd, 6, NODELAY, 1)
    if x.case.startswith(("cork", "uncork")):
        s.set(fd, 6, CORK, 1)
    if x.case == "full_and_part":
        s.send(fd, b"f" * 2000)
    elif x.case.startswith("more"):
        s.send(fd, b"held ", MORE)
    else:
        s.send(fd, b"first ")
    if x.case == "more":
        flow.quiet(60)
    elif x.case == "more_twice":
        s.send(fd, b"and ", MORE)
        flow.quiet(60)
    elif x.case == "more_and_data_comes":
        flow.send("PA", b"from the peer")
    elif x.case == "more_behind_a_small_one":
        flow.quiet(8)
        flow.send("A")
        flow.quiet(8)
        s.send(fd, b"small ")
        s.send(fd, b"held again", MORE)
    elif x.case == "more_then_nodelay":
        s.set(fd, 6, NODELAY, 1)
        flow.quiet(60)
    elif x.case == "more_then_not":
        s.send(fd, b"gone")
    elif x.case in ("cork", "uncork"):
        s.send(fd, b"second ")
        flow.quiet(60)
        if x.case == "uncork":
            s.set(fd, 6, CORK, 0)
    elif x.case == "cork_long":
        s.send(fd, b"f" * 1600)
        flow.quiet(60)
    else:
        s.do("poll", b"", 0, 10, quiet=True)
        s.send(fd, b"second ")
        if x.case == "three":
            s.send(fd, b"third ")
        if x.case == "nodelay_on_later":
            s.set(fd, 6, NODELAY, 1)
    flow.quiet(8)
    flow.send("A")
    flow.quiet(60)
    flow.send("A")
    flow.quiet(20)


@wired()
def test_cork_lets_go_after_a_while(x: Pair) -> None:
    """200 ms."""
    fd, flow = x.accepted()
    x.s.set(fd, 6, CORK, 1)
    x.s.send(fd, b"held")
    flow.quiet(100)
    flow.see(ms=600)


# ---- retransmission ----
def interval(flow: Flow, i: int) -> float:
    return flow.times[i] - flow.times[i - 1]


@wired({"plain": SIMPLE, "full": FULL})
def test_timer_doubles(x: Pair) -> None:
    """One segment that nobody acknowledges: the same bytes again and again, each pause about twice the last."""
    fd, flow = x.accepted(x.case)
    x.s.send(fd, b"lost")
    got = flow.gather(5, 4000)
    x.w.trace.note("wire", "sees each time", ", ".join(sorted({flow.text(p) for p in got})))
    last = flow.times[-4:]
    pauses = [b - a for a, b in itertools.pairwise(last)]
    ratios = [b / a for a, b in itertools.pairwise(pauses)]
    x.w.trace.note("wire", "pauses", "doubling" if all(1.6 < r < 2.5 for r in ratios) else str(pauses))
    x.w.trace.note("wire", "shortest", "200 ms or so" if 0.15 < pauses[0] < 0.9 else str(pauses[0]))


@wired()
def test_user_timeout(x: Pair) -> None:
    fd, flow = x.accepted()
    x.s.set(fd, 6, 18, 700)
    x.s.send(fd, b"lost")
    flow.see()
    x.s.poll((fd, 0x3FFF & ~4), timeout=4000)
    x.s.error(fd)
    x.s.recv(fd, 1)


def burst(x: Pair, options: Any) -> tuple[int, Flow]:
    """Ten segments are out, none acknowledged."""
    fd, flow = x.accepted(options)
    x.s.do("send", fd, b"w" * 14600, 14600, 0, quiet=True)
    return fd, flow


@wired({"plain": (SIMPLE, 3), "sack": (SACK, 3), "two": (SIMPLE, 2)})
def test_duplicate_acks(x: Pair) -> None:
    """The first segment is lost: it is sent again after the third duplicate, or by the timer."""
    options, count = x.case
    _, flow = burst(x, options)
    flow.gather(10, 300)
    assert flow.irs is not None
    for i in range(count):
        blocks = (
            [("NOP", None), ("NOP", None), ("SAck", (flow.irs + 1461, flow.irs + 1461 * (i + 2)))]
            if options is SACK
            else []
        )
        flow.send("A", ack=1, options=blocks)
    again = {flow.relative(p[inet.TCP].seq) for p in flow.gather(4, 700)}
    x.w.trace.note("wire", "sent again", "the first" if 1 in again else str(again))


@wired()
def test_only_the_hole_is_sent_again(x: Pair) -> None:
    """SACK: everything but the third segment has come."""
    _, flow = burst(x, SACK)
    flow.gather(10, 300)
    assert flow.irs is not None
    for n in range(4, 11):
        flow.send(
            "A", ack=2921, options=[("NOP", None), ("NOP", None), ("SAck", (flow.irs + 4381, flow.irs + 1 + 1460 * n))]
        )
    got = flow.gather(4, 150)
    again = {flow.relative(p[inet.TCP].seq) for p in got} - {13141}  # the last one may be a probe of the tail
    x.w.trace.note("wire", "sent again", "the hole" if 2921 in again and len(again) <= 3 else str(sorted(again)))


@wired()
def test_ack_of_everything_ends_recovery(x: Pair) -> None:
    fd, flow = burst(x, SIMPLE)
    flow.gather(10, 300)
    for _ in range(3):
        flow.send("A", ack=1)
    flow.gather(5, 60)
    flow.send("A", ack=14601)
    flow.quiet(60)
    x.s.send(fd, b"goes on")
    flow.ack = 14601
    flow.see(ms=300)


# ---- the network says something ----
@wired([1000, 576, 296, 68, 1500, 3000, 0])
def test_fragmentation_needed(x: Pair) -> None:
    """Smaller segments, at once; an MTU that is no reason is not believed."""
    fd, flow = x.accepted()
    x.s.send(fd, b"w" * 1400)
    flow.see()
    flow.icmp(3, 4, offset=1, mtu=x.case)
    flow.ack = 1
    flow.bytes(1400, ms=1200)
    x.s.send(fd, b"v" * 1400)
    flow.bytes(1400, ms=1200)


@wired({"too_old": -5000, "unsent": 100000})
def test_fragmentation_needed_about(x: Pair) -> None:
    fd, flow = x.accepted()
    x.s.send(fd, b"w" * 1400)
    flow.see()
    flow.icmp(3, 4, offset=x.case, mtu=600)
    flow.quiet(60)
    flow.send("A")
    x.s.send(fd, b"v" * 1400)
    flow.bytes(1400)


@wired(
    {
        "net": (3, 0),
        "host": (3, 1),
        "protocol": (3, 2),
        "port": (3, 3),
        "admin": (3, 13),
        "time": (11, 0),
        "parameter": (12, 0),
        "quench": (4, 0),
    },
)
def test_icmp_error_on_a_connection(x: Pair) -> None:
    """Only remembered, if at all: the connection goes on."""
    fd, flow = x.accepted()
    x.s.send(fd, b"data")
    flow.see()
    kind, code = x.case
    flow.icmp(kind, code, offset=1)
    flow.quiet(40)
    x.s.poll((fd, 0x3FFF))
    x.s.error(fd)
    flow.send("A")
    x.s.send(fd, b"more")
    flow.see()


@wired(["SO_ERROR", "send", "recv", "recv_with_data", "queue", "waiting", "epoll"])
def test_icmp_error_with_ip_recverr(x: Pair) -> None:
    """It is told once, by whatever asks first; the connection goes on."""
    fd, flow = x.accepted()
    x.s.set(fd, 0, 11, 1)
    x.s.send(fd, b"data")
    flow.see()
    if x.case == "recv_with_data":
        flow.send("PA", b"there", ack=1)
        x.s.until(fd, 1)
    if x.case == "waiting":
        x.s.do("fcntl", fd, 4, 2, quiet=True)
        x.s.recv(fd, 10, thread=1)
        x.s.blocked(1)
    ep = x.s.epoll() if x.case == "epoll" else 0
    if ep:
        x.s.ctl(ep, 1, fd, 1 | 1 << 31)
        x.s.ready(ep, 0)
    flow.icmp(3, 1, offset=1)
    flow.quiet(20)
    if x.case == "waiting":
        x.s.wait(1)
    if ep:
        x.s.ready(ep, 300)
    x.s.poll((fd, 0x3FFF & ~4), timeout=60)
    if x.case == "send":
        x.s.send(fd, b"not yet")
    elif x.case.startswith("recv"):
        x.s.recv(fd, 10)
        x.s.recv(fd, 10)
    elif x.case == "queue":
        x.s.recv(fd, 10, 0x2000)
    x.s.error(fd)
    x.s.nonblock(fd)
    flow.send("A")
    x.s.send(fd, b"more")
    flow.see()


@wired(["acknowledged", "asked_twice"])
def test_icmp_error_is_forgotten(x: Pair) -> None:
    fd, flow = x.accepted()
    x.s.send(fd, b"data")
    flow.see()
    flow.icmp(3, 1, offset=1)
    flow.quiet(10)
    if x.case == "acknowledged":
        flow.send("A")
        flow.quiet(10)
    x.s.error(fd)
    x.s.error(fd)


# ---- what options do to packets ----
@wired({"tos": (0, 1, 0x48), "ttl": (0, 2, 33), "priority": (1, 12, 3), "mark": (1, 36, 5)})
def test_option_of_a_connection(x: Pair) -> None:
    fd, flow = x.accepted()
    x.s.set(fd, *x.case)
    x.s.send(fd, b"data")
    flow.see()


@wired({"maxseg": (6, 2, 600), "tos": (0, 1, 0x48), "ttl": (0, 2, 33)})
def test_option_of_a_listener(x: Pair) -> None:
    fd, flow = x.accepted(before=lambda fd: x.s.set(fd, *x.case))
    x.s.send(fd, b"w" * 2000)
    flow.bytes(2000)
    x.s.shutdown(fd, 1)
    flow.see()


@wired({"dont": 0, "want": 1, "do": 2, "probe": 3, "interface": 4, "omit": 5})
def test_mtu_discover(x: Pair) -> None:
    """Whether packets may be fragmented, and whether the path's MTU is believed."""
    fd, flow = x.accepted()
    x.s.set(fd, 0, 10, x.case)
    x.s.send(fd, b"data")
    flow.see()
    flow.send("A")
    x.s.send(fd, b"w" * 1400)
    flow.see()
    flow.icmp(3, 4, offset=5, mtu=700)
    flow.ack = 5
    flow.bytes(1400, ms=1200)


@wired({"tclass": (41, 67, 0x48), "hops": (41, 16, 33), "tos": (0, 1, 0x48), "ttl": (0, 2, 33)})
def test_option_of_an_ipv6_socket(x: Pair) -> None:
    """Connected to a mapped address: its packets are IPv4's."""
    fd = x.s.socket(10)
    x.s.set(fd, *x.case)
    x.s.nonblock(fd)
    port = next(_v6_ports)
    x.s.connect(fd, f"::ffff:{x.p_ip}", port)
    flow = x.w.incoming(port)
    flow.answer(SIMPLE)
    x.s.send(fd, b"data")
    flow.see()


@wired({"plain": 0x00, "marked": 0xB8, "with_ecn": 0x4B})
def test_tos_of_a_reset(x: Pair) -> None:
    """What answers a segment without a connection travels as that segment did."""
    lfd, port = x.listener(x.s)
    x.s.close(lfd)
    flow = x.w.flow(port)
    flow.tos = x.case
    flow.send("S", options=SIMPLE)
    flow.see()


@wired({"negative": -1, "one": 1})
def test_linger2(x: Pair) -> None:
    """An orphan in FIN_WAIT2: no time at all, or some."""
    fd, flow = x.accepted()
    x.s.set(fd, 6, 8, x.case)
    x.s.close(fd)
    flow.see()
    flow.send("A")
    flow.quiet(100)
    flow.send("FA")
    flow.quiet(60)


@wired([1, 2])
def test_syncnt(x: Pair) -> None:
    """How often a SYN is repeated."""
    fd, flow = x.dial(before=lambda fd: x.s.set(fd, 6, 7, x.case))
    got = flow.gather(4, 9000 if x.case == 2 else 4500)
    x.w.trace.note("wire", "SYNs", str(len(got)))
    x.s.poll((fd, 4), timeout=100 if x.case == 1 else 3000)
    x.s.error(fd)


@wired([1, 5])
def test_defer_accept(x: Pair) -> None:
    """The third segment alone wakes nobody."""
    fd, port = x.listener(x.s)
    x.s.set(fd, 6, 9, x.case)
    flow = x.w.flow(port)
    flow.open()
    x.s.poll((fd, 1), timeout=60)
    flow.send("PA", b"request")
    flow.see(ms=300)
    x.s.poll((fd, 1), timeout=300)


@wired(["silence", "fin", "reset", "again"])
def test_defer_accept_without_data(x: Pair) -> None:
    """Who only says that it is there is taken after the time; a FIN is as good as data."""
    fd, port = x.listener(x.s)
    x.s.set(fd, 6, 9, 2)
    flow = x.w.flow(port)
    flow.open()
    if x.case == "fin":
        flow.send("FA")
        flow.see(ms=300)
    elif x.case == "reset":
        flow.send("R")
    elif x.case == "again":
        flow.send("A")
        flow.quiet(100)
    else:
        x.w.trace.note("wire", "within a second", str(len(flow.gather(1, 800))))
        flow.see(ms=4000)
        flow.send("A")
    x.s.poll((fd, 1), timeout=200)


@wired()
def test_linger_zero_resets(x: Pair) -> None:
    fd, flow = x.accepted()
    x.s.set(fd, 1, 13, struct.pack("=ii", 1, 0))
    x.s.close(fd)
    flow.see()
