"""Every option of socket(7), ip(7), tcp(7) and ipv6(7): default, ranges, what get says after set, lengths, inheritance."""

# ruff: noqa: E501, SIM905  (tables of cases, one a line)
from __future__ import annotations

import struct
import time
from collections.abc import Callable

from harness.memory import NULL, WILD, address, inout, out, parse_address, pattern, sink
from harness.rig import Pair
from harness.states import IN
from harness.suite import scenario
from harness.trace import Result

SOL_SOCKET, IP, TCP, V6 = 1, 0, 6, 41
INET6 = 10

# name -> (level, number); those whose value is no int are in STRUCTS.
INTS: dict[str, tuple[int, int]] = {
    "SO_DEBUG": (1, 1), "SO_REUSEADDR": (1, 2), "SO_TYPE": (1, 3), "SO_ERROR": (1, 4), "SO_DONTROUTE": (1, 5), "SO_BROADCAST": (1, 6),
    "SO_SNDBUF": (1, 7), "SO_RCVBUF": (1, 8), "SO_KEEPALIVE": (1, 9), "SO_OOBINLINE": (1, 10), "SO_NO_CHECK": (1, 11),
    "SO_PRIORITY": (1, 12), "SO_REUSEPORT": (1, 15), "SO_PASSCRED": (1, 16), "SO_RCVLOWAT": (1, 18), "SO_SNDLOWAT": (1, 19),
    "SO_TIMESTAMP": (1, 29), "SO_ACCEPTCONN": (1, 30), "SO_SNDBUFFORCE": (1, 32), "SO_RCVBUFFORCE": (1, 33), "SO_PASSSEC": (1, 34),
    "SO_TIMESTAMPNS": (1, 35), "SO_MARK": (1, 36), "SO_TIMESTAMPING": (1, 37), "SO_PROTOCOL": (1, 38), "SO_DOMAIN": (1, 39),
    "SO_RXQ_OVFL": (1, 40), "SO_WIFI_STATUS": (1, 41), "SO_PEEK_OFF": (1, 42), "SO_NOFCS": (1, 43), "SO_LOCK_FILTER": (1, 44),
    "SO_SELECT_ERR_QUEUE": (1, 45), "SO_BUSY_POLL": (1, 46), "SO_MAX_PACING_RATE": (1, 47), "SO_INCOMING_CPU": (1, 49),
    "SO_CNX_ADVICE": (1, 53), "SO_ZEROCOPY": (1, 60), "SO_PREFER_BUSY_POLL": (1, 69), "SO_BUF_LOCK": (1, 72), "SO_unknown": (1, 200),
    "IP_TOS": (0, 1), "IP_TTL": (0, 2), "IP_HDRINCL": (0, 3), "IP_RECVOPTS": (0, 6), "IP_PKTINFO": (0, 8), "IP_MTU_DISCOVER": (0, 10),
    "IP_RECVERR": (0, 11), "IP_RECVTTL": (0, 12), "IP_RECVTOS": (0, 13), "IP_FREEBIND": (0, 15), "IP_TRANSPARENT": (0, 19),
    "IP_MINTTL": (0, 21), "IP_NODEFRAG": (0, 22), "IP_BIND_ADDRESS_NO_PORT": (0, 24), "IP_MULTICAST_TTL": (0, 33),
    "IP_MULTICAST_LOOP": (0, 34), "IP_LOCAL_PORT_RANGE": (0, 51), "IP_unknown": (0, 250),
    "TCP_NODELAY": (6, 1), "TCP_MAXSEG": (6, 2), "TCP_CORK": (6, 3), "TCP_KEEPIDLE": (6, 4), "TCP_KEEPINTVL": (6, 5),
    "TCP_KEEPCNT": (6, 6), "TCP_SYNCNT": (6, 7), "TCP_LINGER2": (6, 8), "TCP_DEFER_ACCEPT": (6, 9), "TCP_WINDOW_CLAMP": (6, 10),
    "TCP_QUICKACK": (6, 12), "TCP_THIN_LINEAR_TIMEOUTS": (6, 16), "TCP_THIN_DUPACK": (6, 17), "TCP_USER_TIMEOUT": (6, 18),
    "TCP_FASTOPEN": (6, 23), "TCP_TIMESTAMP": (6, 24), "TCP_NOTSENT_LOWAT": (6, 25), "TCP_SAVE_SYN": (6, 27),
    "TCP_FASTOPEN_CONNECT": (6, 30), "TCP_FASTOPEN_NO_COOKIE": (6, 34), "TCP_INQ": (6, 36), "TCP_TX_DELAY": (6, 37),
    "TCP_unknown": (6, 200),
    "IPV6_V6ONLY": (41, 26), "IPV6_UNICAST_HOPS": (41, 16), "IPV6_TCLASS": (41, 67), "IPV6_RECVPKTINFO": (41, 49),
    "IPV6_MTU_DISCOVER": (41, 23), "IPV6_DONTFRAG": (41, 62), "IPV6_RECVERR": (41, 25), "IPV6_AUTOFLOWLABEL": (41, 70),
    "IPV6_RECVHOPLIMIT": (41, 51), "IPV6_RECVTCLASS": (41, 66), "IPV6_RECVRTHDR": (41, 56), "IPV6_RECVHOPOPTS": (41, 53),
    "IPV6_RECVDSTOPTS": (41, 58), "IPV6_RECVPATHMTU": (41, 60), "IPV6_FLOWINFO": (41, 11), "IPV6_FLOWINFO_SEND": (41, 33),
    "IPV6_MINHOPCOUNT": (41, 73), "IPV6_FREEBIND": (41, 78), "IPV6_TRANSPARENT": (41, 75), "IPV6_MULTICAST_HOPS": (41, 18),
    "IPV6_MULTICAST_LOOP": (41, 19), "IPV6_MULTICAST_ALL": (41, 29), "IPV6_MTU": (41, 24), "IPV6_ADDRFORM": (41, 1),
    "IPV6_ROUTER_ALERT": (41, 22), "IPV6_CHECKSUM": (41, 7), "IPV6_UNICAST_IF": (41, 76), "IPV6_ADDR_PREFERENCES": (41, 72),
    "IPV6_RECVORIGDSTADDR": (41, 74), "IPV6_RECVFRAGSIZE": (41, 77), "IPV6_ROUTER_ALERT_ISOLATE": (41, 30), "IPV6_HDRINCL": (41, 36),
    "IPV6_unknown": (41, 250), "other_level": (99, 1),
    "SO_BSDCOMPAT": (1, 14), "SO_PEERSEC": (1, 31), "SO_BPF_EXTENSIONS": (1, 48), "SO_INCOMING_NAPI_ID": (1, 56),
    "SO_BINDTOIFINDEX": (1, 62), "SO_BUSY_POLL_BUDGET": (1, 70), "SO_RESERVE_MEM": (1, 73), "SO_TXREHASH": (1, 74),
    "SO_RCVMARK": (1, 75), "SO_PASSPIDFD": (1, 76), "SO_TIMESTAMP_NEW": (1, 63), "SO_TIMESTAMPNS_NEW": (1, 64),
    "SO_DETACH_REUSEPORT_BPF": (1, 68), "IP_ROUTER_ALERT": (0, 5), "IP_RETOPTS": (0, 7), "IP_MTU": (0, 14),
    "IP_PASSSEC": (0, 18), "IP_RECVORIGDSTADDR": (0, 20), "IP_CHECKSUM": (0, 23), "IP_RECVFRAGSIZE": (0, 25),
    "IP_RECVERR_RFC4884": (0, 26), "IP_MULTICAST_ALL": (0, 49), "IP_UNICAST_IF": (0, 50), "IP_PROTOCOL": (0, 52),
    "TCP_REPAIR_QUEUE": (6, 20), "TCP_QUEUE_SEQ": (6, 21), "TCP_CM_INQ": (6, 36), "TCP_IS_MPTCP": (6, 43),
    "TCP_RTO_MAX_MS": (6, 44), "TCP_RTO_MIN_US": (6, 45), "TCP_DELACK_MAX_US": (6, 46),
}  # fmt: skip
VALUES = [0, 1, 2, -1, 5, 127, 128, 255, 256, 1000, 65535, 1 << 20, 0x7FFFFFFF]
# Their set needs no privileges here, but changes the machine's behaviour or blocks; get only.
GET_ONLY = {"SO_LOCK_FILTER"}
# What the kernel says of these depends on time, memory or traffic.
VAGUE = {
    "SO_INCOMING_CPU",
    "SO_INCOMING_NAPI_ID",
    "IP_MTU",
    "IPV6_MTU",
    "IP_PROTOCOL",
    "TCP_TIMESTAMP",
    "SO_RCVBUF",
    "SO_SNDBUF",
    "TCP_QUICKACK",
    "TCP_MAXSEG",
}


def family(name: str) -> int:
    return INET6 if name.startswith("IPV6") else 2


def open_(x: Pair, name: str, connected: bool) -> int:
    if not connected:
        return x.s.socket(family(name))
    return connected6(x) if family(name) == INET6 else x.connected()[0]


def connected6(x: Pair) -> int:
    """A connected IPv6 socket, over IPv4 (mapped addresses)."""
    _, port = x.listener(x.p)
    fd = x.s.socket(INET6)
    to = address(f"::ffff:{x.p_ip}", port)
    x.s.do("connect", fd, to, len(to), text="mapped")
    return fd


@scenario(cases=[f"{n}-{s}" for n in INTS for s in ("fresh", "connected")])
def test_set_and_get(x: Pair) -> None:
    """Default, then every value with what get says afterwards."""
    name, state = x.case.rsplit("-", 1)
    level, number = INTS[name]
    fd = open_(x, name, state == "connected")
    if not (name in VAGUE and (state == "connected" or name == "TCP_TIMESTAMP")):
        x.s.get(fd, level, number)
    for value in VALUES if name not in GET_ONLY else []:
        x.s.set(fd, level, number, value)
        if not (name in VAGUE and (state == "connected" or name == "TCP_TIMESTAMP")):
            x.s.get(fd, level, number)


@scenario(cases=list(INTS))
def test_lengths(x: Pair) -> None:
    """Short, long, negative and missing buffers, on a connection."""
    level, number = INTS[x.case]
    fd = open_(x, x.case, True)
    s = x.s
    if x.case not in VAGUE:
        for size in (0, 1, 2, 3, 5, 8, 64):
            s.get(fd, level, number, size)
    s.do("getsockopt", fd, level, number, out(4), inout(struct.pack("=i", -1)), see=str)
    s.do("getsockopt", fd, level, number, NULL, inout(struct.pack("=i", 4)), see=str)
    s.do("getsockopt", fd, level, number, out(4), NULL, see=str)
    if x.case in GET_ONLY:
        return
    for raw in (b"", b"\1", b"\1\0", b"\1\0\0", b"\1\0\0\0\0", b"\1" + bytes(63)):
        s.set(fd, level, number, raw)
    s.do("setsockopt", fd, level, number, NULL, 4)
    s.do("setsockopt", fd, level, number, WILD, 4)
    s.do("setsockopt", fd, level, number, struct.pack("=i", 1), -1)


# Nothing to inherit, or the listener would not be reached.
NOT_INHERITED = {"TCP_DEFER_ACCEPT", "SO_BINDTOIFINDEX", "IPV6_V6ONLY", "IPV6_ADDRFORM"}
INHERITED = [n for n in INTS if n not in VAGUE | GET_ONLY | NOT_INHERITED]


@scenario(cases=INHERITED)
def test_inherited_by_accept(x: Pair) -> None:
    level, number = INTS[x.case]
    s, p = x.s, x.p
    fd = s.socket(family(x.case))
    s.bind(fd, "::" if family(x.case) == INET6 else x.s_ip)
    s.listen(fd)
    port = s.port(fd)
    for value in (1, 5, 1000):
        s.set(fd, level, number, value)
        p.connect(p.socket(), x.s_ip, port)
        got = s.accept(fd).ret
        s.get(got, level, number)


@scenario(cases=INHERITED)
def test_set_on_a_listener(x: Pair) -> None:
    level, number = INTS[x.case]
    fd, _ = x.listener(x.s)
    for value in (0, 1, 100):
        x.s.set(fd, level, number, value)
        x.s.get(fd, level, number)


STRUCTS: dict[str, tuple[int, int, list[bytes]]] = {
    "SO_LINGER": (1, 13, [struct.pack("=ii", 1, 5), struct.pack("=ii", 0, 7), struct.pack("=ii", 1, -1), struct.pack("=ii", 5, 0)]),
    "SO_RCVTIMEO": (1, 20, [struct.pack("=qq", 1, 500000), struct.pack("=qq", 0, 1), struct.pack("=qq", -1, 0), struct.pack("=qq", 0, 1000000), struct.pack("=qq", 0, -1)]),
    "SO_SNDTIMEO": (1, 21, [struct.pack("=qq", 1, 500000), struct.pack("=qq", 0, 1), struct.pack("=qq", -1, 0), struct.pack("=qq", 0, 1000000), struct.pack("=qq", 0, -1)]),
    "SO_RCVTIMEO_NEW": (1, 66, [struct.pack("=qq", 1, 500000)]),
    "SO_BINDTODEVICE": (1, 25, [b"lo", b"", b"nonesuch", b"x" * 20]),
    "SO_PEERCRED": (1, 17, []),
    "SO_PEERNAME": (1, 28, []),
    "SO_ATTACH_FILTER": (1, 26, [bytes(16)]),
    "SO_DETACH_FILTER": (1, 27, [bytes(4)]),
    "SO_TXTIME": (1, 61, [struct.pack("=iI", 1, 0)]),
    "SO_NETNS_COOKIE_size": (1, 71, []),
    "TCP_CONGESTION": (6, 13, [b"reno", b"cubic", b"nonesuch", b"", b"reno\0junk"]),
    "TCP_ULP": (6, 31, [b"nonesuch", b""]),
    "TCP_MD5SIG": (6, 14, [bytes(8)]),
    "TCP_REPAIR": (6, 19, [struct.pack("=i", 5)]),
    "TCP_FASTOPEN_KEY": (6, 33, [b"short"]),
    "TCP_CC_INFO": (6, 26, []),
    "IP_OPTIONS": (0, 4, [b"\1\1\1\1", b"\xff" * 3]),
    "IP_MULTICAST_IF": (0, 32, [bytes(4), bytes(12)]),
    "IP_ADD_MEMBERSHIP": (0, 35, [bytes(8), b"\xe0\0\0\7" + bytes(4)]),
    "IPV6_MULTICAST_IF": (41, 17, [struct.pack("=i", 0)]),
}  # fmt: skip


@scenario(cases=[f"{n}-{s}" for n in STRUCTS for s in ("fresh", "connected")])
def test_structures(x: Pair) -> None:
    """Options whose value is no int."""
    name, state = x.case.rsplit("-", 1)
    level, number, values = STRUCTS[name]
    fd = open_(x, name, state == "connected")
    quiet = name == "SO_NETNS_COOKIE_size" or (name == "TCP_CC_INFO" and state == "connected")
    for raw in [None, *values]:
        if raw is not None:
            x.s.set(fd, level, number, raw)
        for size in (16, 4, 8, 64):
            if name == "SO_PEERNAME" and state == "connected":
                x.s.do("getsockopt", fd, level, number, out(size), inout(struct.pack("=i", size)), see=see_peer(x))
            elif quiet:
                x.s.do(
                    "getsockopt",
                    fd,
                    level,
                    number,
                    out(size),
                    inout(struct.pack("=i", size)),
                    see=size_only,
                    text=f"{name} {size}",
                )
            else:
                x.s.get(fd, level, number, size)


def see_peer(x: Pair) -> Callable[[Result], str]:
    def see(r: Result) -> str:
        n = int.from_bytes(r.out[1], "little")
        if r.ret or n < 8:
            return f"{r} length {n}"
        ip, port = parse_address(r.out[0][:n].ljust(16, b"\0"))
        return f"{r} {ip} {x.s.trace.port(port)} length {n}"

    return see


def size_only(r: Result) -> str:
    return f"{r} length {int.from_bytes(r.out[1], 'little')}"


@scenario(cases=["SO_LINGER", "SO_RCVTIMEO", "SO_SNDTIMEO", "TCP_CONGESTION"])
def test_structures_inherited(x: Pair) -> None:
    level, number, values = STRUCTS[x.case]
    fd, port = x.listener(x.s)
    x.s.set(fd, level, number, values[0])
    x.p.connect(x.p.socket(), x.s_ip, port)
    x.s.get(x.s.accept(fd).ret, level, number, 16)


@scenario(cases=[0, 1, 2, 7, 8, 100, 104, 232, 240, 256])
def test_tcp_info_length(x: Pair) -> None:
    fd, _ = x.connected()
    x.s.do(
        "getsockopt", fd, 6, 11, out(256), inout(struct.pack("=i", x.case)), see=size_only, text=f"TCP_INFO {x.case}"
    )


@scenario(cases=["fresh", "bound", "listening", "connected", "accepted"])
def test_identity(x: Pair) -> None:
    """SO_TYPE, SO_DOMAIN, SO_PROTOCOL, SO_ACCEPTCONN, and what fstat says."""
    from harness.states import STATES

    fd = STATES[x.case](x)
    for number in (3, 39, 38, 30):
        x.s.get(fd, 1, number)
    x.s.do("isatty", fd)
    x.s.do("fsync", fd)
    x.s.do("ftruncate", fd, 0)


@scenario(cases=["SO_RCVBUF", "SO_SNDBUF"])
def test_buffer_sizes_before_connecting(x: Pair) -> None:
    level, number = INTS[x.case]
    for value in (1, 4096, 65536, 1 << 30):
        fd = x.s.socket()
        x.s.set(fd, level, number, value)
        x.s.get(fd, level, number)


@scenario(cases=[1, 100, 4096, 70000])
def test_rcvlowat_delays_readiness(x: Pair) -> None:
    fd, pfd = x.connected()
    x.s.set(fd, 1, 18, x.case)
    x.p.send(pfd, b"x" * 50)
    x.s.poll((fd, IN), timeout=20 if x.case > 50 else 1000)
    x.p.send(pfd, b"y" * 60)
    x.s.poll((fd, IN), timeout=20 if x.case > 110 else 1000)
    x.s.poll((fd, 0), timeout=20)  # readable it was before: the rest may still be on its way
    x.s.recv(fd, 200, 0x40)


@scenario(cases={f"{n}-{v}": (n, v) for n in ("SO_RCVBUF", "SO_SNDBUF") for v in (1, 4096, 50000, 300000)})
def test_data_passes_through_small_buffers(x: Pair) -> None:
    """Whatever the size, set before or after connecting, everything arrives."""
    name, value = x.case
    level, number = INTS[name]
    fd, pfd = x.connected(before=lambda f: x.s.set(f, level, number, value))
    for end, other, a, b in ((fd, pfd, x.s, x.p), (pfd, fd, x.p, x.s)):
        done, got, total, late = 0, 0, 1 << 18, time.monotonic() + 10
        a.nonblock(end)
        while got < total and time.monotonic() < late:
            if done < total:
                done += max(a.do("send", end, pattern(65536), min(65536, total - done), 0x4040, quiet=True).ret, 0)
            got += max(b.do("recv", other, sink(1 << 18), 1 << 18, 0x40, quiet=True).ret, 0)
        b.trace.note(b.name, "has", str(got))
    x.s.set(fd, level, number, 8192)
    x.s.send(fd, b"x" * 3000)
    x.p.until(pfd, IN)


@scenario(peers=["link"], subjects=["preload"], cases=[4096, 32768, 131072, 1 << 20])
def test_rcvbuf_bounds_what_is_not_read(x: Pair) -> None:
    """A peer that goes on sending stops when the reader does not read: within the order of what was asked for."""
    fd, pfd = x.connected(before=lambda f: x.s.set(f, 1, 8, x.case))
    x.p.set(pfd, 1, 7, 4096)
    x.p.nonblock(pfd)
    for _ in range(2):  # what was offered with the SYN stays
        sent = stalls = 0
        while stalls < 30:
            r = x.p.do("send", pfd, pattern(16384), 16384, 0x4040, quiet=True).ret
            sent += max(r, 0)
            stalls = 0 if r > 0 else stalls + 1
            if r < 0:
                x.p.do("poll", inout(struct.pack("=ihh", pfd, 4, 0)), 1, 5, quiet=True)
        got = 0
        while got < sent and x.s.do("poll", inout(struct.pack("=ihh", fd, 1, 0)), 1, 3000, quiet=True).ret == 1:
            got += x.s.do("recv", fd, sink(1 << 18), 1 << 18, 0, quiet=True).ret
        x.s.trace.note(x.s.name, "has all", str(got == sent))
    x.s.trace.note(x.s.name, "bounded", str(sent < 4 * x.case + (300 << 10)))


# ---- what TCP_INFO tells ----
INFO = struct.Struct("=8B24I4Q6I4Q2I2Q6I")
INFO_NAMES = (
    "state ca_state retransmits probes backoff options wscale app_limited rto ato snd_mss rcv_mss unacked sacked lost "
    "retrans fackets last_data_sent last_ack_sent last_data_recv last_ack_recv pmtu rcv_ssthresh rtt rttvar "
    "snd_ssthresh snd_cwnd advmss reordering rcv_rtt rcv_space total_retrans pacing_rate max_pacing_rate bytes_acked "
    "bytes_received segs_out segs_in notsent_bytes min_rtt data_segs_in data_segs_out delivery_rate busy_time "
    "rwnd_limited sndbuf_limited delivered delivered_ce bytes_sent bytes_retrans dsack_dups reord_seen rcv_ooopack "
    "snd_wnd rcv_wnd rehash"
).split()


def _told(x: Pair, when: str, fd: int, *fields: str) -> dict[str, int]:
    """Notes these fields as they are, and what must hold of the others on any stack."""
    r = x.s.do("getsockopt", fd, 6, 11, out(280), inout(struct.pack("=i", 280)), quiet=True)
    i = dict(zip(INFO_NAMES, INFO.unpack(r.out[0][: INFO.size]), strict=True))
    x.s.trace.note("subject", when, ", ".join(f"{f} {i[f]}" for f in fields))
    holds = {
        "round trip": 0 < i["min_rtt"] <= i["rtt"] < 500_000 and 0 < i["rttvar"] < 500_000,
        "timeout": 200_000 <= i["rto"] <= 1_000_000 and not i["backoff"] and not i["retransmits"],
        "segments": i["segs_out"] >= i["data_segs_out"] and i["segs_in"] >= i["data_segs_in"] and i["delivered"] > 0,
        "sizes": 536 <= i["snd_mss"] <= i["pmtu"] <= 65535 and 536 <= i["rcv_mss"] <= 65535 and i["advmss"] > 536,
        "windows": i["snd_cwnd"] >= 10 and i["rcv_space"] > 1000 and i["rcv_wnd"] > 0 and i["rcv_ssthresh"] > 0,
        "rates": i["pacing_rate"] > 0 and i["max_pacing_rate"] == (1 << 64) - 1,
        "scales": bool(i["wscale"]) and i["options"] & 7 == 7,
        "reordering": i["reordering"] >= 3,
    }
    x.s.trace.note("subject", "does not hold", str([name for name, ok in holds.items() if not ok]))
    return i


def _ago(ms: int) -> str:
    return "just now" if ms < 200 else "some time ago" if ms < 5000 else str(ms)


@scenario(cases=[True, False])
def test_tcp_info_counts(x: Pair) -> None:
    """Of a connection that each side opens: bytes, segments, times."""
    counts = ("state", "bytes_acked", "bytes_received", "bytes_sent", "notsent_bytes", "unacked")
    fd, pfd = x.connected(active=x.case)
    i = _told(x, "fresh", fd, *counts, "data_segs_in", "data_segs_out", "ato")
    x.s.do("send", fd, pattern(50000), 50000, 0, text="50000 bytes")
    left = 50000
    while left > 0 and (got := x.p.do("recv", pfd, out(1 << 16), 1 << 16, 0, quiet=True).ret) > 0:
        left -= got
    x.p.send(pfd, b"reply")
    x.s.until(fd, IN)
    x.s.recv(fd, 10)
    x.s.do("poll", 0, 0, 60, quiet=True)
    i = _told(x, "used", fd, *counts, "data_segs_in")
    few = 1 <= i["data_segs_out"] <= 60
    x.s.trace.note("subject", "segments of data", "a few" if few else str(i["data_segs_out"]))
    x.s.trace.note("subject", "last", " ".join(_ago(i[f"last_{w}"]) for w in ("data_sent", "data_recv", "ack_recv")))
    x.s.do("poll", 0, 0, 300, quiet=True)
    i = _told(x, "idle", fd, *counts)
    x.s.trace.note("subject", "last", " ".join(_ago(i[f"last_{w}"]) for w in ("data_sent", "data_recv", "ack_recv")))


@scenario
def test_tcp_info_of_a_sender_that_waits(x: Pair) -> None:
    """What the peer has no room for is not sent."""
    fd, _ = x.connected(before=lambda fd: x.s.set(fd, 1, 7, 100000))
    x.s.nonblock(fd)
    total = 0
    for _ in range(200):
        n = x.s.do("send", fd, pattern(20000), 20000, 0x4000, quiet=True).ret
        total += max(n, 0)
        if n < 0 and not x.s.do("poll", inout(struct.pack("=ihh", fd, 4, 0)), 1, 50, quiet=True).ret:
            break
    r = x.s.do("getsockopt", fd, 6, 11, out(280), inout(struct.pack("=i", 280)), quiet=True)
    i = dict(zip(INFO_NAMES, INFO.unpack(r.out[0][: INFO.size]), strict=True))
    outstanding = int.from_bytes(x.s.do("ioctl", fd, 0x5411, inout(bytes(4)), quiet=True).out[0], "little")
    x.s.trace.note("subject", "waits to be sent", str(i["notsent_bytes"] > 10000))
    x.s.trace.note("subject", "acknowledged and outstanding", str(i["bytes_acked"] - 1 + outstanding - total))
    x.s.trace.note("subject", "sent and not", str(i["bytes_sent"] - i["bytes_retrans"] + i["notsent_bytes"] - total))
    x.s.shutdown(fd, 1)
    x.s.do("getsockopt", fd, 6, 11, out(1), inout(struct.pack("=i", 1)))
