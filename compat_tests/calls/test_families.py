"""IPv6 sockets: dual-stack listeners, v4-mapped addresses in every call, V6ONLY, scope ids; who may bind beside whom."""

# ruff: noqa: E501  (tables of cases, one a line)
from __future__ import annotations

import itertools
import socket
import struct

from harness.agent import Agent
from harness.memory import address, inout, out
from harness.rig import Pair
from harness.states import IN
from harness.suite import scenario

PRELOAD = ["preload"]
INET, INET6 = 2, 10
V6ONLY, REUSEADDR, REUSEPORT = (41, 26), (1, 2), (1, 15)
DONTWAIT = 0x40


def v6(ip: str, port: int, scope: int = 0, flow: int = 0) -> bytes:
    """struct sockaddr_in6."""
    return (
        struct.pack("=H", INET6)
        + struct.pack("!HI", port, flow)
        + socket.inet_pton(INET6, ip)
        + struct.pack("=I", scope)
    )


def mapped(ip: str) -> str:
    return ip if ":" in ip else f"::ffff:{ip}"


def connect6(a: Agent, fd: int, ip: str, port: int, scope: int = 0) -> int:
    return a.do("connect", fd, v6(ip, port, scope), 28, text=f"{fd}, {ip}%{scope} {a.trace.port(port)}").ret


def names(a: Agent, fd: int) -> None:
    a.getsockname(fd)
    a.getpeername(fd)
    for number in (39, 3, 38):
        a.get(fd, 1, number)
    a.get(fd, *V6ONLY)


@scenario(subjects=PRELOAD, peers=["link", "local"], cases=["any", "any accept4", "mapped", "v6only", "unbound"])
def test_dual_stack_listener(x: Pair) -> None:
    """A listener on :: takes IPv4 connections, and shows them mapped."""
    s = x.s
    fd = s.socket(INET6)
    if x.case == "v6only":
        s.set(fd, *V6ONLY, 1)
    if x.case == "mapped":
        s.bind(fd, mapped(x.s_ip))
    elif x.case != "unbound":
        s.bind(fd, "::")
    s.listen(fd)
    s.getsockname(fd)
    port = s.port(fd)
    c = x.p.socket()
    x.p.connect(c, x.s_ip, port)
    if x.case == "v6only":
        return
    got = s.accept(fd, 0o4000 if "accept4" in x.case else None).ret
    names(s, got)
    x.p.getpeername(c)
    x.p.send(c, b"over IPv4")
    s.until(got, IN)
    s.recv(got, 20)
    s.do("recvfrom", got, out(4), 4, DONTWAIT, out(28), inout(struct.pack("=i", 28)))
    s.send(got, b"back")
    x.p.until(c, IN)
    x.p.recv(c, 20)


@scenario(
    subjects=PRELOAD,
    peers=["link", "local"],
    cases=["plain", "bound any", "bound mapped", "v6only", "nonblocking", "short", "refused"],
)
def test_connect_to_a_mapped_address(x: Pair) -> None:
    s = x.s
    lfd, port = x.listener(x.p)
    fd = s.socket(INET6)
    if x.case == "bound any":
        s.bind(fd, "::")
    elif x.case == "bound mapped":
        s.bind(fd, mapped(x.s_ip))
    elif x.case == "v6only":
        s.set(fd, *V6ONLY, 1)
    elif x.case == "nonblocking":
        s.nonblock(fd)
    elif x.case == "refused":
        x.p.close(lfd)
    if x.case == "short":
        s.do("connect", fd, v6(mapped(x.p_ip), port), 24, text=f"{fd}, 24 bytes")
    else:
        connect6(s, fd, mapped(x.p_ip), port)
    if x.case == "refused":
        s.getpeername(fd)
        return
    if x.case == "v6only":
        names(s, fd)
        return
    got = x.p.accept(lfd).ret
    s.until(fd, 4)
    names(s, fd)
    connect6(s, fd, mapped(x.p_ip), port)
    s.send(fd, b"hello")
    x.p.until(got, IN)
    x.p.recv(got, 10)
    s.do(
        "getsockname",
        fd,
        out(28),
        inout(struct.pack("=i", 8)),
        see=lambda r: f"{r} {int.from_bytes(r.out[1], 'little')}",
    )
    s.set(fd, *V6ONLY, 1)


@scenario(subjects=PRELOAD, peers=["local"], cases=["::1", "any", "v4 listener", "v6only listener", "mapped to v6only"])
def test_loopback_of_both_families(x: Pair) -> None:
    s, p = x.s, x.p
    lfd = p.socket(INET if x.case == "v4 listener" else INET6)
    if "v6only" in x.case:
        p.set(lfd, *V6ONLY, 1)
    p.bind(lfd, "0.0.0.0" if x.case == "v4 listener" else "::1" if x.case == "::1" else "::")
    p.listen(lfd)
    port = p.port(lfd)
    for ip in ("::1", "::ffff:127.0.0.1", "::", "127.0.0.1"):
        fd = s.socket(INET6 if ":" in ip else INET)
        r = connect6(s, fd, ip, port) if ":" in ip else s.connect(fd, ip, port).ret
        if r:
            continue
        got = p.accept(lfd).ret
        names(s, fd)
        names(p, got)
        p.send(got, b"x")
        s.until(fd, IN)
        s.recv(fd, 5)


@scenario(
    subjects=PRELOAD,
    peers=["link"],
    cases=[
        "link local",
        "scope 0",
        "bad scope",
        "multicast",
        "documentation",
        "v4 in v6",
        "v6 in v4",
        "flow",
        "mapped any",
        "mapped broadcast",
        "compatible",
    ],
)
def test_odd_addresses(x: Pair) -> None:
    """What the kernel says of addresses that TAS does not carry."""
    s = x.s
    fd = s.socket(INET6)
    if x.case == "link local":
        connect6(s, fd, "fe80::1", 80, 1)
    elif x.case == "scope 0":
        connect6(s, fd, "fe80::1", 80, 0)
        s.do("bind", fd, v6("fe80::1", 0), 28)
    elif x.case == "bad scope":
        connect6(s, fd, "fe80::1", 80, 9999)
        s.do("bind", fd, v6("fe80::1", 0, 9999), 28)
    elif x.case == "multicast":
        connect6(s, fd, "ff02::1", 80, 1)
        s.do("bind", fd, v6("ff02::1", 0), 28)
    elif x.case == "documentation":
        connect6(s, fd, "2001:db8::1", 80)
        s.do("bind", fd, v6("2001:db8::1", 0), 28)
    elif x.case == "v4 in v6":
        s.connect(fd, x.p_ip, 80)
        s.bind(fd, x.s_ip)
    elif x.case == "v6 in v4":
        fd = s.socket()
        connect6(s, fd, "::1", 80)
        s.do("bind", fd, v6("::1", 0), 28)
        s.do("bind", fd, v6(mapped(x.s_ip), 0), 28)
    elif x.case == "flow":
        lfd, port = x.listener(x.p)
        s.do("connect", fd, v6(mapped(x.p_ip), port, flow=0x12345), 28, text="flow label")
        x.p.accept(lfd)
        s.do("getpeername", fd, out(28), inout(struct.pack("=i", 28)), see=lambda r: f"{r} {r.out[0][4:28].hex()}")
    elif x.case == "mapped any":
        _, port = x.listener(s, ip="0.0.0.0")
        connect6(s, fd, "::ffff:0.0.0.0", port)
        s.getpeername(fd)
    elif x.case == "mapped broadcast":
        connect6(s, fd, "::ffff:255.255.255.255", 80)
        s.do("bind", fd, v6("::ffff:255.255.255.255", 0), 28)
    else:
        s.do("bind", fd, v6("::192.0.2.1", 0), 28)
        connect6(s, fd, "::192.0.2.1", 80)


PLACES = {"v4any": ("0.0.0.0", 0), "v4lo": ("127.0.0.1", 0), "v4link": ("", 0), "v6any": ("::", 0), "v6only": ("::", 1), "v6lo": ("::1", 0), "mapany": ("::ffff:0.0.0.0", 0), "maplo": ("::ffff:127.0.0.1", 0)}  # fmt: skip


# Nobody else's, in no family: below the kernel's own choices, of which earlier cases left some waiting.
_own_ports = itertools.count(11001)


def at(x: Pair, a: Agent, place: str, port: int, option: tuple[int, int] | None, then: str) -> int:
    ip, only = PLACES[place]
    fd = a.do("socket", INET6 if ":" in ip else INET, 1, 0, quiet=True).ret
    if only:
        a.do("setsockopt", fd, *V6ONLY, struct.pack("=i", 1), 4, quiet=True)
    if option:
        a.do("setsockopt", fd, *option, struct.pack("=i", 1), 4, quiet=True)
    where = address(ip or x.s_ip, port)
    if a.do("bind", fd, where, len(where), text=f"{place}, port").ret == 0 and then == "listen":
        a.listen(fd)
    return fd


@scenario(subjects=PRELOAD, peers=["local"], cases=[f"{a}-{b}" for a in PLACES for b in PLACES])
def test_who_may_bind_beside_whom(x: Pair) -> None:
    """Two sockets on one port: addresses and families against each other, with and without sharing, bound and listening."""
    first, second = x.case.split("-")
    for mine, other in (
        (None, None),
        (REUSEADDR, REUSEADDR),
        (REUSEPORT, REUSEPORT),
        (REUSEADDR, None),
        (REUSEPORT, REUSEADDR),
    ):
        for then in ("bind", "listen"):
            port = next(_own_ports)
            a = at(x, x.s, first, port, mine, then)
            b = at(x, x.s, second, port, other, then)
            c = at(x, x.p, second, port, other, then)
            x.s.close(b)
            x.p.close(c)
            x.s.close(a)


@scenario(subjects=PRELOAD, peers=["link", "local"], cases=["both", "first closes", "v6any"])
def test_reuseport_deals_out(x: Pair) -> None:
    """Listeners on one port in two processes: connections go to both, by hash."""
    s = x.s
    child = s.fork()
    ip = "::" if x.case == "v6any" else x.s_ip
    fds, port = [], 0
    for a in (s, child):
        fd = a.socket(INET6 if x.case == "v6any" else INET)
        a.set(fd, *REUSEPORT, 1)
        a.bind(fd, ip, port)
        a.listen(fd, 64)
        a.nonblock(fd)
        port = port or a.port(fd)
        fds.append(fd)
    if x.case == "first closes":
        s.close(fds[0])
    for _ in range(40):
        x.p.do("connect", x.p.do("socket", 2, 1, 0, quiet=True).ret, *ipv4(x.s_ip, port), quiet=True)
    got = []
    for a, fd in ((s, fds[0]), (child, fds[1])):
        n = 0
        while (
            a.do("poll", inout(struct.pack("=ihh", fd, IN, 0)), 1, 200, quiet=True).ret == 1
            and a.do("accept", fd, 0, 0, quiet=True).ret >= 0
        ):
            n += 1
        got.append(n)
    s.trace.note(s.name, "connections", f"{sum(got)} {got[0] > 0} {got[1] > 0}")


def ipv4(ip: str, port: int) -> tuple[bytes, int]:
    return struct.pack("=H", INET) + struct.pack("!H", port) + socket.inet_aton(ip) + bytes(8), 16


@scenario(
    subjects=PRELOAD,
    peers=["link", "local"],
    cases=[
        "freebind",
        "freebind v6",
        "no port",
        "no port listen",
        "device lo",
        "device none",
        "port range",
        "transparent",
    ],
)
def test_options_of_bind(x: Pair) -> None:
    s = x.s
    fd = s.socket(INET6 if "v6" in x.case else INET)
    lfd, port = x.listener(x.p)
    if x.case == "freebind":
        s.bind(fd, "192.0.2.9")
        s.set(fd, 0, 15, 1)
        s.bind(fd, "192.0.2.9")
        s.getsockname(fd)
        s.listen(fd)
    elif x.case == "freebind v6":
        s.set(fd, 41, 78, 1)
        s.bind(fd, "2001:db8::9")
        s.listen(fd)
    elif x.case.startswith("no port"):
        s.set(fd, 0, 24, 1)
        s.bind(fd, x.s_ip)
        s.do("getsockname", fd, out(16), inout(struct.pack("=i", 16)), see=lambda r: f"{r} port {r.out[0][2:4].hex()}")
        if "listen" in x.case:
            s.listen(fd)
            x.p.connect(x.p.socket(), x.s_ip, s.port(fd))
        else:
            s.connect(fd, x.p_ip, port)
            x.p.accept(lfd)
            s.getsockname(fd)
    elif x.case.startswith("device"):
        s.set(fd, 1, 25, b"lo\0" if "lo" in x.case else b"none0\0")
        s.get(fd, 1, 25, 16)
        s.bind(fd, "127.0.0.1")
        s.listen(fd)
        other = s.socket()
        s.connect(other, "127.0.0.1", s.port(fd))
        s.get(s.accept(fd).ret, 1, 25, 16)
    elif x.case == "port range":
        s.set(fd, 0, 51, struct.pack("=I", 40010 << 16 | 40001))
        s.bind(fd, x.s_ip)
        s.trace.note(s.name, "in range", str(40001 <= s.port(fd) <= 40010))
        s.connect(fd, x.p_ip, port)
        s.trace.note(s.name, "in range", str(40001 <= s.port(fd) <= 40010))
    else:
        s.set(fd, 0, 19, 1)
        s.bind(fd, "192.0.2.9")
        s.listen(fd)
