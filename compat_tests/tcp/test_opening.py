"""Openings on the wire: options, what a listener and a closed port answer, what a connecting socket believes."""

from __future__ import annotations

from harness.rig import Pair
from harness.states import OUT
from harness.suite import wired
from harness.wire import FULL, SIMPLE, TIMES, Options, raw_header

NOP = ("NOP", None)

OPTIONS: dict[str, Options] = {
    "none": (),
    "mss": SIMPLE,
    "mss_536": [("MSS", 536)],
    "mss_9000": [("MSS", 9000)],
    "mss_0": [("MSS", 0)],
    "mss_40": [("MSS", 40)],
    "wscale_0": [("MSS", 1460), NOP, ("WScale", 0)],
    "wscale_14": [("MSS", 1460), NOP, ("WScale", 14)],
    "wscale_15": [("MSS", 1460), NOP, ("WScale", 15)],
    "sack": [("MSS", 1460), NOP, NOP, ("SAckOK", b"")],
    "times": TIMES,
    "full": FULL,
    "without_mss": [("SAckOK", b""), ("Timestamp", (0, 0)), NOP, ("WScale", 3)],
    "unknown": [("MSS", 1460), (99, b"abcd"), (254, b"ex")],
    "unaligned": [NOP, ("MSS", 1460), ("WScale", 2), ("SAckOK", b""), NOP],
    "after_the_end": [("MSS", 1460), ("EOL", None), ("SAckOK", b""), NOP],
    "only_nops": [NOP] * 40,
    "twice": [("MSS", 1460), ("MSS", 500)],
}


@wired(OPTIONS)
def test_options_of_a_syn(x: Pair) -> None:
    """What the SYN+ACK answers to, and how large the first segments are."""
    fd, flow = x.accepted(x.case)
    x.s.send(fd, b"d" * 3000)
    flow.bytes(3000)


@wired(OPTIONS)
def test_options_of_a_syn_ack(x: Pair) -> None:
    fd, flow = x.dialled(x.case)
    x.s.send(fd, b"d" * 3000)
    flow.bytes(3000)


@wired(
    {
        "kind_4_length_0": b"\x04\x00\x01\x01",
        "mss_length_3": b"\x02\x03\x05\x00",
        "past_the_end": b"\x01\x01\x08\x0a",
    },
)
def test_broken_options_of_a_syn(x: Pair) -> None:
    _, port = x.listener(x.s)
    flow = x.w.flow(port)

    def change(header: bytearray) -> None:
        header[20:] = x.case
        header[12] = 6 << 4

    flow.send("S", change=lambda packet: raw_header(packet, change))
    flow.see()


STRAY = ["S", "SA", "A", "R", "RA", "F", "FA", "PA", "SF", "SR", "SFPU", "FPU", ""]


@wired([f or "none" for f in STRAY])
def test_stray_segment_at_a_closed_port(x: Pair) -> None:
    lfd, port = x.listener(x.s)
    x.s.close(lfd)
    flow = x.w.flow(port)
    flow.send("" if x.case == "none" else x.case, b"" if x.case != "PA" else b"data", ack=5)
    flow.see(ms=150)


@wired([f or "none" for f in STRAY])
def test_stray_segment_at_a_listener(x: Pair) -> None:
    _, port = x.listener(x.s)
    flow = x.w.flow(port)
    flow.send("" if x.case == "none" else x.case, b"" if x.case != "PA" else b"data", ack=5)
    flow.see(ms=150)


@wired()
def test_syn_with_data(x: Pair) -> None:
    lfd, port = x.listener(x.s)
    flow = x.w.flow(port)
    flow.send("S", b"early", options=SIMPLE)
    flow.see()
    flow.seq = 1
    flow.send("PA", b"late")
    flow.see(ms=200)
    fd = x.s.accept(lfd).ret
    x.s.nonblock(fd)
    x.s.recv(fd, 20)


@wired()
def test_syn_again(x: Pair) -> None:
    lfd, port = x.listener(x.s)
    flow = x.w.flow(port)
    flow.send("S", options=SIMPLE)
    flow.see()
    flow.send("S", seq=0, options=SIMPLE)
    flow.see()
    flow.send("A")
    x.s.accept(lfd)


@wired()
def test_syn_with_another_number_while_half_open(x: Pair) -> None:
    _, port = x.listener(x.s)
    flow = x.w.flow(port)
    flow.send("S", options=SIMPLE)
    flow.see()
    flow.send("S", seq=5000, options=SIMPLE)
    flow.see(ms=200)


@wired()
def test_syn_ack_is_repeated(x: Pair) -> None:
    """After one second, the same again."""
    _, port = x.listener(x.s)
    flow = x.w.flow(port)
    flow.send("S", options=FULL)
    flow.see(2, ms=2000)
    x.w.trace.note("wire", "seconds between", str(round(flow.times[1] - flow.times[0])))


HALF_OPEN: dict[str, tuple[str, dict[str, int], bytes]] = {
    "wrong_ack": ("A", {"ack": 77}, b""),
    "old_ack": ("A", {"ack": 0}, b""),
    "rst": ("R", {}, b""),
    "rst_beside": ("R", {"seq": 200}, b""),
    "rst_far": ("R", {"seq": 1 << 20}, b""),
    "fin": ("FA", {}, b""),
    "data": ("PA", {}, b"first"),
    "data_ahead": ("PA", {"seq": 6}, b"second"),
    "far_ahead": ("A", {"seq": 1 << 24}, b""),
    "no_ack": ("P", {}, b"data"),
    "syn_ack": ("SA", {"seq": 0}, b""),
}


@wired(HALF_OPEN)
def test_second_segment(x: Pair) -> None:
    """What comes in place of the third segment of the handshake."""
    lfd, port = x.listener(x.s)
    flow = x.w.flow(port)
    flow.send("S", options=SIMPLE)
    flow.see()
    flags, numbers, data = x.case
    flow.send(flags, data, **numbers)
    flow.quiet(100)
    x.s.nonblock(lfd)
    fd = x.s.accept(lfd).ret
    x.s.nonblock(fd)
    x.s.recv(fd, 20)


# ---- the subject connects ----
@wired(["plain", "maxseg_500", "maxseg_9000", "nodelay", "tos", "ttl", "rcvbuf"])
def test_syn_of_connect(x: Pair) -> None:
    values = {
        "maxseg_500": (6, 2, 500),
        "maxseg_9000": (6, 2, 9000),
        "nodelay": (6, 1, 1),
        "tos": (0, 1, 0x20),
        "ttl": (0, 2, 9),
        "rcvbuf": (1, 8, 4096),
    }
    chosen = values.get(x.case)
    fd, flow = x.dial(before=(lambda fd: x.s.set(fd, *chosen)) if chosen else None)
    flow.answer(FULL)
    x.s.send(fd, b"x" * 2000)
    flow.bytes(2000)


REPLIES: dict[str, tuple[str, dict[str, int]]] = {
    "rst_ack": ("RA", {}),
    "rst_alone": ("R", {}),
    "rst_wrong_ack": ("RA", {"ack": 40}),
    "syn_ack_wrong_ack": ("SA", {"ack": 40}),
    "syn_ack_old_ack": ("SA", {"ack": 0}),
    "ack": ("A", {}),
    "ack_wrong": ("A", {"ack": 9}),
    "fin_ack": ("FA", {}),
    "syn_fin_ack": ("SFA", {}),
    "syn_rst": ("SR", {}),
    "nothing_set": ("", {}),
    "syn_ack_with_urgent": ("SAU", {}),
}


@wired(REPLIES)
def test_reply_to_a_syn(x: Pair) -> None:
    fd, flow = x.dial()
    flow.see()
    flags, numbers = x.case
    flow.send(flags, options=SIMPLE if "S" in flags else (), **numbers)
    flow.quiet(150)
    x.s.poll((fd, 0x3FFF))
    x.s.error(fd)


@wired()
def test_syn_ack_with_data(x: Pair) -> None:
    fd, flow = x.dial()
    flow.see()
    flow.send("SA", b"hello", options=SIMPLE)
    flow.see()
    x.s.until(fd, OUT)
    x.s.recv(fd, 10)


@wired(["completed", "with_options", "refused"])
def test_simultaneous_open(x: Pair) -> None:
    fd, flow = x.dial()
    flow.see()
    flow.send("S", options=FULL if x.case == "with_options" else SIMPLE)
    flow.see()
    if x.case == "refused":
        flow.send("R")
    else:
        flow.send("SA", seq=0, options=SIMPLE)
        flow.quiet(60)
    x.s.poll((fd, 0x3FFF), timeout=500)
    x.s.error(fd)
    x.s.getpeername(fd)


@wired()
def test_syn_is_repeated(x: Pair) -> None:
    """After one second, the same again."""
    _, flow = x.dial()
    flow.see(2, ms=2000)
    x.w.trace.note("wire", "seconds between", str(round(flow.times[1] - flow.times[0])))


ICMP = {
    "net": (3, 0),
    "host": (3, 1),
    "protocol": (3, 2),
    "port": (3, 3),
    "source_route": (3, 5),
    "net_unknown": (3, 6),
    "host_unknown": (3, 7),
    "admin": (3, 13),
    "precedence": (3, 15),
    "time_exceeded": (11, 0),
    "parameter": (12, 0),
    "quench": (4, 0),
}


@wired(ICMP)
def test_icmp_error_while_connecting(x: Pair) -> None:
    fd, flow = x.dial()
    flow.see()
    flow.icmp(*x.case)
    x.s.poll((fd, 0x3FFF), timeout=100)
    x.s.error(fd)
    flow.quiet(20)


@wired(["number", "port"])
def test_icmp_error_about_something_else_while_connecting(x: Pair) -> None:
    fd, flow = x.dial()
    flow.see()
    if x.case == "port":
        x.w.flow(flow.port).icmp(3, 3)
    else:
        flow.icmp(3, 3, offset=500000)
    x.s.poll((fd, 0x3FFF), timeout=60)
    x.s.error(fd)


# ---- congestion notification, kept from the SYN on ----
@wired(["asked", "asked_half", "asked_with_ce"])
def test_ecn_is_asked_for(x: Pair) -> None:
    """A passive side agrees; marks are echoed until the peer says that it slowed down."""
    lfd, port = x.listener(x.s)
    flow = x.w.flow(port)
    flow.tos = 3 if x.case == "asked_with_ce" else 0
    flow.send("SE" if x.case == "asked_half" else "SEC", options=SIMPLE)
    flow.see()
    flow.tos = 0
    flow.send("A")
    fd = x.s.accept(lfd).ret
    flow.tos = 3
    flow.send("PA", b"marked")
    flow.see(ms=300)
    flow.tos = 2
    flow.send("PA", b"unmarked")
    flow.see(ms=300)
    flow.send("PAC", b"slower")
    flow.see(ms=300)
    x.s.recv(fd, 100)
    x.s.send(fd, b"reply")
    flow.see()
