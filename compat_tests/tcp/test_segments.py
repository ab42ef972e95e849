"""What an established connection makes of single segments: acceptance, acknowledgement, resets, urgent data, PAWS, windows."""

# ruff: noqa: E501  (tables of cases, one a line)
from __future__ import annotations

import time
from typing import Any

from harness.memory import sink
from harness.rig import Pair
from harness.states import IN
from harness.suite import wired
from harness.trace import Trace
from harness.wire import FULL, SACK, SIMPLE, TIMES, Flow, inet, packet_raw, raw_header

DONTWAIT, OOB = 0x40, 0x1

# A segment after ten bytes have been taken and three of ours are outstanding: flags, numbers, data.
SEGMENTS: dict[str, tuple[str, dict[str, Any], bytes]] = {
    "in_order": ("PA", {}, b"next"),
    "without_push": ("A", {}, b"next"),
    "without_ack": ("P", {}, b"next"),
    "nothing_set": ("", {}, b"next"),
    "old": ("PA", {"seq": 1}, b"0123456789"),
    "old_in_part": ("PA", {"seq": 6}, b"56789NEW"),
    "older_than_all": ("PA", {"seq": -50}, b"junk"),
    "overlapping_the_end": ("PA", {"seq": 9}, b"89ab"),
    "ahead": ("PA", {"seq": 100}, b"ahead"),
    "far_ahead": ("PA", {"seq": 1 << 22}, b"far"),
    "probe_of_nothing": ("A", {"seq": 10}, b""),
    "probe_of_a_byte": ("A", {"seq": 10}, b"9"),
    "ack_again": ("A", {"ack": 1}, b""),
    "ack_of_the_unsent": ("A", {"ack": 1000}, b""),
    "ack_far_back": ("A", {"ack": -100000}, b""),
    "data_with_ack_of_the_unsent": ("PA", {"ack": 1000}, b"junk"),
    "data_with_an_old_ack": ("PA", {"ack": 0}, b"next"),
    "rst_exact": ("R", {}, b""),
    "rst_with_ack": ("RA", {}, b""),
    "rst_in_window": ("R", {"seq": 20}, b""),
    "rst_last_byte_taken": ("R", {"seq": 10}, b""),
    "rst_before": ("R", {"seq": 1}, b""),
    "rst_far_ahead": ("R", {"seq": 1 << 24}, b""),
    "rst_with_data": ("RA", {}, b"reason"),
    "syn": ("S", {}, b""),
    "syn_old": ("S", {"seq": 0}, b""),
    "syn_ahead": ("S", {"seq": 500}, b""),
    "syn_ack": ("SA", {"seq": 0}, b""),
    "syn_fin": ("SF", {}, b""),
    "fin": ("FA", {}, b""),
    "fin_without_ack": ("F", {}, b""),
    "fin_with_data": ("FPA", {}, b"last"),
    "fin_ahead": ("FA", {"seq": 14}, b""),
    "fin_old": ("FA", {"seq": 5}, b""),
    "urgent_bit_alone": ("UA", {}, b""),
    "christmas": ("FSRPAUEC", {}, b"tree"),
    "cwr_and_ece": ("PAEC", {}, b"next"),
    "window_of_nothing": ("A", {"window": 0}, b""),
}


def prepared(x: Pair, options: Any = SIMPLE) -> tuple[int, Flow]:
    """Ten bytes taken and acknowledged, three sent and not acknowledged."""
    fd, flow = x.accepted(options)
    flow.send("PA", b"0123456789")
    flow.see(ms=400)
    x.s.recv(fd, 100)
    return fd, flow


@wired(SEGMENTS)
def test_segment(x: Pair) -> None:
    fd, flow = prepared(x)
    flags, numbers, data = x.case
    flow.send(flags, data, **numbers)
    flow.quiet(120)
    x.s.poll((fd, 0x3FFF))
    x.s.recv(fd, 100)
    x.s.error(fd)


@wired({k: v for k, v in SEGMENTS.items() if not k.startswith(("syn", "rst"))})
def test_segment_with_time_stamps_and_sack(x: Pair) -> None:
    fd, flow = prepared(x, FULL)
    flags, numbers, data = x.case
    flow.send(flags, data, **numbers)
    flow.quiet(120)
    x.s.poll((fd, 0x3FFF))
    x.s.recv(fd, 100)


# ---- damage ----
def _set(offset: int, value: int) -> Any:
    def change(header: bytearray) -> None:
        header[offset] = value

    return lambda packet: raw_header(packet, change, b"data")


DAMAGE: dict[str, Any] = {
    "tcp_checksum": lambda p: raw_header(p, lambda h: None, b"data", checksum=False),
    "header_too_short": _set(12, 4 << 4),
    "header_past_the_end": _set(12, 15 << 4),
    "reserved_bits": _set(12, 5 << 4 | 0x0E),
    "ip_checksum": lambda p: p.__class__(bytes(p)[:10] + b"\x12\x34" + bytes(p)[12:]),
    "ip_options": lambda p: inet.IP(src=p.src, dst=p.dst, options=[inet.IPOption(b"\x01\x01\x01\x00")]) / p[inet.TCP],
    "ip_version_5": lambda p: packet_raw(b"\x55" + bytes(p)[1:]),
    "ip_longer_than_the_frame": lambda p: inet.IP(src=p.src, dst=p.dst, len=200) / p[inet.TCP],
    "padding": lambda p: p.__class__(bytes(p)) / packet_raw(b""),
    "may_be_fragmented": lambda p: inet.IP(src=p.src, dst=p.dst) / p[inet.TCP],
    "ttl_1": lambda p: inet.IP(src=p.src, dst=p.dst, ttl=1) / p[inet.TCP],
    "source_is_the_subject": lambda p: inet.IP(src=p.dst, dst=p.dst) / p[inet.TCP],
    "source_is_broadcast": lambda p: inet.IP(src="255.255.255.255", dst=p.dst) / p[inet.TCP],
}


@wired(DAMAGE)
def test_damaged_segment(x: Pair) -> None:
    fd, flow = prepared(x)
    flow.send("PA", b"data", change=x.case)
    flow.quiet(100)
    x.s.recv(fd, 100)


# ---- holes ----
@wired({"plain": SIMPLE, "sack": SACK, "full": FULL})
def test_holes_are_told(x: Pair) -> None:
    """Blocks of a selective acknowledgement, the latest first, until the holes are filled."""
    fd, flow = x.accepted(x.case)
    for at in (21, 41, 61, 81):
        flow.send("A", b"x" * 10, seq=at)
        flow.see(ms=300)
    flow.send("A", b"y" * 5, seq=31)
    flow.see(ms=300)
    flow.send("A", b"z" * 20, seq=1)
    flow.see(ms=300)
    x.s.until(fd, IN)
    x.s.recv(fd, 200)
    for at, n in ((36, 5), (51, 10), (71, 10)):
        flow.send("A", b"w" * n, seq=at)
        flow.see(ms=300)
    x.s.recv(fd, 200)


@wired({"again": 21, "again_in_part": 16, "below": 1})
def test_duplicates_are_told(x: Pair) -> None:
    """D-SACK: what came twice is the first block."""
    _, flow = x.accepted(SACK)
    flow.send("A", b"a" * 10)
    flow.see(ms=300)
    flow.send("A", b"x" * 10, seq=21)
    flow.see(ms=300)
    flow.send("A", b"x" * 10, seq=x.case)
    flow.see(ms=300)


@wired(["hole_filled", "hole_stays"])
def test_fin_behind_a_hole(x: Pair) -> None:
    fd, flow = x.accepted()
    flow.send("FPA", b"end", seq=11)
    flow.see(ms=300)
    x.s.poll((fd, 0x3FFF))
    if x.case == "hole_filled":
        flow.send("PA", b"0123456789", seq=1)
        flow.see(ms=300)
        x.s.recv(fd, 100)
        x.s.recv(fd, 100)


@wired()
def test_data_behind_a_fin(x: Pair) -> None:
    fd, flow = x.accepted()
    flow.send("FPA", b"end")
    flow.see(ms=300)
    flow.send("PA", b"more")
    flow.quiet(100)
    x.s.recv(fd, 100)
    x.s.recv(fd, 100)


# ---- acknowledgements ----
@wired([1, 2, 3, 10])
def test_acks_of_full_segments(x: Pair) -> None:
    """At least every second full segment is acknowledged; the last number is what counts."""
    _, flow = x.accepted()
    for _ in range(x.case):
        flow.send("A", b"d" * 1460)
    got = flow.gather(100, 200)
    x.w.trace.note("wire", "acknowledged", str(flow.own(flow.acked)))
    x.w.trace.note("wire", "acknowledgements", "enough" if len(got) >= x.case // 2 else str(len(got)))


@wired()
def test_ack_rides_on_an_answer(x: Pair) -> None:
    fd, flow = x.accepted()
    for i in range(4):
        flow.send("PA", b"question")
        x.s.until(fd, IN)
        x.s.recv(fd, 100)
        x.s.send(fd, b"answer")
        packets = flow.gather(4, 100)
        carried = [p for p in packets if len(p[inet.TCP].payload)]
        x.w.trace.note("wire", f"answer {i}", " ".join(flow.text(p) for p in carried))
        flow.send("A")


@wired({"no_delay_at_first": 0, "after_answers": 6})
def test_delay_of_an_ack(x: Pair) -> None:
    """At once, or within 40 to 200 ms."""
    fd, flow = x.accepted()
    for _ in range(x.case):
        flow.send("PA", b"question")
        x.s.do("poll", b"", 0, 5, quiet=True)
        x.s.do("send", fd, b"answer", 6, 0, quiet=True)
        flow.gather(3, 60)
        flow.send("A")
    flow.gather(3, 60)
    begin = len(flow.times)
    sent = time.monotonic()
    flow.send("PA", b"lonely")
    flow.gather(1, 600)
    late = flow.times[begin] - sent if len(flow.times) > begin else 9
    x.w.trace.note("wire", "acknowledged", "within 600 ms" if late < 0.6 else "never")


# ---- time stamps ----
@wired({"older": -1000, "much_older": -(1 << 30), "same": 0, "newer": 1000, "wrapped": 1 << 30})
def test_paws(x: Pair) -> None:
    """A segment whose stamp is older than the last one is not taken."""
    fd, flow = prepared(x, TIMES)
    flow.send("PA", b"stamped", tsval=(flow.tsval + x.case) % (1 << 32))
    flow.see(ms=200, what=lambda f, p: " ".join(f.text(p).split(" ts echo ")[0].split()))
    x.s.recv(fd, 100)


@wired(["rst", "without_stamp", "old_rst", "old_fin"])
def test_paws_of(x: Pair) -> None:
    fd, flow = prepared(x, TIMES)
    if x.case == "rst":
        flow.stamps = False
        flow.send("R")
    elif x.case == "without_stamp":
        flow.stamps = False
        flow.send("PA", b"plain")
    elif x.case == "old_rst":
        flow.send("R", tsval=10)
    else:
        flow.send("FA", tsval=10)
    flow.quiet(120)
    x.s.poll((fd, 0x3FFF))
    x.s.recv(fd, 100)


@wired()
def test_stamp_that_is_echoed(x: Pair) -> None:
    """The one of the segment that moved the window's edge last, not that of the latest."""
    _, flow = x.accepted(TIMES)
    flow.send("PA", b"abc", tsval=5100)
    flow.see(ms=300)
    flow.send("PA", b"xyz", seq=10, tsval=5200)
    flow.see(ms=300)
    flow.send("PA", b"defghi", seq=4, tsval=5300)
    flow.see(ms=300)


# ---- urgent data ----
@wired(
    {
        "one": (b"!", 1),
        "behind": (b"abc!", 4),
        "in_the_middle": (b"ab!cd", 3),
        "beyond": (b"ab", 10),
        "zero": (b"abc", 0),
    },
)
def test_urgent_data_comes(x: Pair) -> None:
    fd, flow = x.accepted()
    data, pointer = x.case
    flow.send("PAU", data, urgptr=pointer)
    flow.see(ms=300)
    x.s.poll((fd, 0x3FFF))
    x.s.ioctl(fd, 0x8905)
    x.s.recv(fd, 1, OOB)
    x.s.recv(fd, 100)
    x.s.ioctl(fd, 0x8905)
    x.s.recv(fd, 100)
    x.s.poll((fd, 0x3FFF))


@wired(["alone", "after_data", "inline"])
def test_urgent_data_goes(x: Pair) -> None:
    fd, flow = x.accepted()
    if x.case == "after_data":
        x.s.send(fd, b"abc")
        flow.see()
        flow.send("A")
    x.s.send(fd, b"!" if x.case != "inline" else b"ab!", OOB)
    flow.see()
    flow.send("A")
    x.s.send(fd, b"more")
    flow.see()


# ---- keep-alive ----
@wired(["answered", "unanswered"])
def test_keep_alive(x: Pair) -> None:
    """A probe is the byte before the next one, empty; three in vain end the connection."""
    fd, flow = x.accepted()
    for option, value in ((4, 1), (5, 1), (6, 2)):
        x.s.set(fd, 6, option, value)
    x.s.set(fd, 1, 9, 1)
    for _ in range(2):
        flow.see(ms=1800)
        if x.case == "answered":
            flow.send("A")
    if x.case == "unanswered":
        flow.see(ms=1800)
        x.s.poll((fd, 0x3FFF), timeout=200)
        x.s.error(fd)


# ---- windows ----
@wired()
def test_window_closes_and_opens(x: Pair) -> None:
    """The subject does not read: its window goes to 0, a probe is answered, and reading opens it."""
    fd, flow = x.accepted(before=lambda fd: x.s.do("setsockopt", fd, 1, 8, b"\0\x10\0\0", 4, quiet=True))
    kept, x.w.trace = x.w.trace, Trace()
    got: list[Any] = []
    for _ in range(6000):
        flow.send("A", b"f" * 1000)
        got = flow.gather(8, 2)
        if got and got[-1][inet.TCP].window == 0:
            break
        flow.seq = flow.own(flow.acked) if got else flow.seq
    closed = bool(got) and got[-1][inet.TCP].window == 0
    flow.gather(100, 60)
    flow.send("A", b"p", seq=flow.own(flow.acked))
    windows = [p[inet.TCP].window for p in flow.gather(1, 500)]
    x.w.trace = kept
    x.w.trace.note("wire", "the window", "closed" if closed else "stayed open")
    x.w.trace.note("wire", "a probe is answered", str(windows))
    while x.s.do("recv", fd, sink(65536), 65536, DONTWAIT, quiet=True).ret > 0:
        pass
    got = flow.gather(1, 500)
    x.w.trace.note("wire", "reading opens it", "yes" if got and got[-1][inet.TCP].window else "no")


@wired()
def test_peer_closes_its_window(x: Pair) -> None:
    """Nothing is sent into a window of 0 but probes; an update brings the data at once."""
    fd, flow = x.accepted()
    flow.send("A", window=0)
    x.s.do("poll", b"", 0, 20, quiet=True)
    x.s.send(fd, b"waits")
    flow.quiet(100)
    flow.see(ms=900)
    flow.send("A", window=0)
    flow.see(ms=1500)
    flow.send("A", window=5000)
    flow.see(ms=100)


@wired([1, 100, 1000, 3000])
def test_small_window(x: Pair) -> None:
    """No more than it allows."""
    fd, flow = x.accepted()
    flow.window = x.case
    flow.send("A", window=x.case)
    x.s.do("poll", b"", 0, 20, quiet=True)
    x.s.send(fd, b"w" * 4000)
    got = flow.gather(10, 700)
    sent = max((flow.relative(p[inet.TCP].seq) + len(p[inet.TCP].payload) for p in got), default=1) - 1
    x.w.trace.note("wire", "sent into the window", "no more than allowed" if sent <= x.case else str(sent))
    x.w.trace.note("wire", "something sent", str(sent > 0))


@wired()
def test_window_is_taken_back(x: Pair) -> None:
    fd, flow = x.accepted()
    x.s.send(fd, b"a" * 100)
    flow.see()
    flow.send("A", window=50)
    flow.send("A", window=0)
    x.s.send(fd, b"b" * 100)
    flow.quiet(100)
    flow.send("A", window=60000)
    flow.see(ms=300)
