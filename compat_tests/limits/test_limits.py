"""What happens at limits: descriptors, ports, queues, sizes, members; and afterwards, when there is room again."""

from __future__ import annotations

import itertools
import struct
import time

from harness.agent import Agent
from harness.memory import NULL, group, inout, out, pattern
from harness.rig import Pair
from harness.states import ALL, IN, OUT
from harness.suite import scenario
from harness.trace import see_sign

NOFILE, NOSIGNAL, DONTWAIT = 7, 0x4000, 0x40
_ranges = itertools.count(20000, 10)


def descriptors(s: Agent, n: int) -> None:
    """So many numbers from 0 on.

    The client library has its own, far above, from the first connection and sleep on: those come before the limit.
    """
    fd = s.do("socket", 2, 1, 0, quiet=True).ret
    if fd >= 0:
        s.do("listen", fd, 1, quiet=True)
        s.do("poll", inout(fd.to_bytes(4, "little") + b"\1\0\0\0"), 1, 1, quiet=True)
        s.do("close", fd, quiet=True)
    s.do("setrlimit", NOFILE, group(n, 1024))


# ---- descriptors ----
@scenario(cases=["socket", "epoll", "dup", "eventfd", "accept4", "fcntl"])
def test_no_number_is_left_for(x: Pair) -> None:
    s = x.s
    fd, port = x.listener(s)
    x.p.connect(x.p.socket(), x.s_ip, port)
    s.until(fd, IN)
    descriptors(s, fd + 3)
    for _ in range(4):
        if x.case == "socket":
            s.socket()
        elif x.case == "epoll":
            s.epoll()
        elif x.case == "dup":
            s.do("dup", fd)
        elif x.case == "eventfd":
            s.do("eventfd", 0, 0)
        elif x.case == "accept4":
            s.accept(fd, 0o4000) if not _ else s.socket()
        else:
            s.fcntl(fd, 0, fd)
    descriptors(s, 100)
    s.socket()


@scenario
def test_accept_without_a_number_leaves_the_connection(x: Pair) -> None:
    """It stays in the queue, readable, and is taken when there is room."""
    s = x.s
    fd, port = x.listener(s)
    pfd = x.p.socket()
    x.p.connect(pfd, x.s_ip, port)
    s.until(fd, IN)
    descriptors(s, fd + 1)
    s.accept(fd)
    s.poll((fd, ALL))
    s.accept(fd)
    x.p.poll((pfd, ALL))
    descriptors(s, 100)
    got = s.accept(fd).ret
    x.p.send(pfd, b"was waiting")
    s.until(got, IN)
    s.recv(got, 20)


@scenario(cases=[0, 1, 3])
def test_limit_below_what_is_open(x: Pair) -> None:
    """What is open goes on."""
    fd, pfd = x.connected()
    descriptors(x.s, x.case)
    x.s.send(fd, b"still")
    x.p.until(pfd, IN)
    x.p.recv(pfd, 10)
    x.s.until(fd, OUT)
    x.s.socket()
    x.s.close(fd)
    x.p.until(pfd, 0x2000)


@scenario(cases=["at", "above", "below", "negative", "huge"])
def test_number_and_limit(x: Pair) -> None:
    """dup2 and F_DUPFD near the limit."""
    fd, _ = x.connected()
    descriptors(x.s, 200)
    to = {"at": 200, "above": 300, "below": 199, "negative": -1, "huge": 1 << 30}[x.case]
    x.s.do("dup2", fd, to)
    x.s.do("dup3", fd, to, 0)
    x.s.fcntl(fd, 0, to)


@scenario
def test_connect_needs_no_number(x: Pair) -> None:
    """The program has one socket and may not have another: connecting and transferring still work."""
    _, port = x.listener(x.p)
    fd = x.s.socket()
    descriptors(x.s, fd + 1)
    x.s.connect(fd, x.p_ip, port)
    x.s.send(fd, b"x")
    x.s.poll((fd, ALL))


@scenario
def test_a_thread_waits_without_a_number(x: Pair) -> None:
    fd, pfd = x.connected()
    descriptors(x.s, fd + 1)
    x.s.recv(fd, 10, thread=1)
    x.s.blocked(1)
    x.p.send(pfd, b"data")
    x.s.wait(1)
    x.s.poll((fd, IN), timeout=3000, thread=2)
    x.s.blocked(2)
    x.p.send(pfd, b"more")
    x.s.wait(2)


@scenario(cases=["poll", "select"])
def test_more_descriptors_than_allowed_in(x: Pair) -> None:
    fd, _ = x.connected()
    descriptors(x.s, 20)
    if x.case == "poll":
        x.s.poll(*[(fd, OUT)] * 21)
        x.s.poll(*[(-1, OUT)] * 21)
    else:
        x.s.do("select", 1025, inout(bytes(256)), NULL, NULL, group(0, 0))


# ---- ports ----
@scenario
def test_ports_run_out_for_connections(x: Pair) -> None:
    """Six ports (of an odd number Linux leaves one out): the seventh connection has none, one to elsewhere has."""
    base = next(_ranges)  # a range that no dead connection is left in
    x.sysctl("net.ipv4.ip_local_port_range", f"{base} {base + 5}")
    lfd, port = x.listener(x.p)
    _, other = x.listener(x.p)
    for _ in range(7):
        fd = x.s.socket()
        x.s.connect(fd, x.p_ip, port)
    x.s.connect(fd, x.p_ip, other)
    x.p.close(lfd)


@scenario
def test_reserved_ports_are_not_taken(x: Pair) -> None:
    """Six ports, of which connections get three."""
    base = next(_ranges)
    lfd, port = x.listener(x.p)
    x.sysctl("net.ipv4.ip_local_port_range", f"{base} {base + 5}")
    x.sysctl("net.ipv4.ip_local_reserved_ports", f"{base - 3},{base + 1}-{base + 2},{base + 4}")
    taken = set()
    for _ in range(4):
        fd = x.s.socket()
        if x.s.connect(fd, x.p_ip, port).ret == 0:
            taken.add(x.s.port(fd) - base)
    x.s.trace.note("subject", "ports", str(sorted(taken)))
    x.p.close(lfd)


@scenario
def test_ports_of_one_socket(x: Pair) -> None:
    """IP_LOCAL_PORT_RANGE."""
    base = next(_ranges)
    lfd, port = x.listener(x.p)
    x.sysctl("net.ipv4.ip_local_port_range", f"{base} {base + 9}")
    taken = set()
    for _ in range(3):
        fd = x.s.socket()
        x.s.do("setsockopt", fd, 0, 51, struct.pack("=HH", base + 4, base + 5), 4, quiet=True)
        if x.s.connect(fd, x.p_ip, port).ret == 0:
            taken.add(x.s.port(fd) - base)
    x.s.trace.note("subject", "ports", str(sorted(taken)))
    x.p.close(lfd)


@scenario
def test_ports_run_out_for_bind(x: Pair) -> None:
    base = next(_ranges)
    x.sysctl("net.ipv4.ip_local_port_range", f"{base} {base + 2}")
    for _ in range(4):
        fd = x.s.socket()
        x.s.do("bind", fd, bytes([2, 0, 0, 0, *map(int, x.s_ip.split(".")), *bytes(8)]), 16)


@scenario
def test_ports_run_out_for_listen(x: Pair) -> None:
    """listen() without bind takes a port."""
    base = next(_ranges)
    x.sysctl("net.ipv4.ip_local_port_range", f"{base} {base + 1}")
    for _ in range(3):
        fd = x.s.socket()
        x.s.listen(fd)


@scenario(cases={"below": 1023, "at": 1024})
def test_first_port_of_everybody(x: Pair) -> None:
    """ip_unprivileged_port_start, for a program that is root."""
    fd = x.s.socket()
    x.s.bind(fd, x.s_ip, x.case)
    x.s.listen(fd)
    x.s.getsockname(fd)


# ---- queues ----
@scenario(cases=[0, 1, 3, 10])
def test_backlog_overflows_and_recovers(x: Pair) -> None:
    """Connections beyond the queue wait; accepting lets them in."""
    fd, port = x.listener(x.s, x.case)
    clients = []
    for _ in range(x.case + 3):
        c = x.p.socket()
        x.p.nonblock(c)
        x.p.connect(c, x.s_ip, port)
        clients.append(c)
    for c in clients[: x.case + 1]:
        x.p.until(c, OUT)
    x.s.nonblock(fd)
    for _ in range(x.case + 1):
        x.s.accept(fd)
    x.p.until(clients[x.case + 1], OUT, 7000)  # its SYN is repeated after 1, 3 and 7 s
    x.s.until(fd, IN)


@scenario
def test_somaxconn_cuts_the_backlog(x: Pair) -> None:
    x.listener(x.s, 1000)  # one of before: the limit is not remembered
    x.sysctl("net.core.somaxconn", "2")
    _, port = x.listener(x.s, 1000)
    for _ in range(5):
        c = x.p.socket()
        x.p.nonblock(c)
        x.p.connect(c, x.s_ip, port)
        x.p.until(c, OUT, 40)


# ---- sizes ----
@scenario(cases={"2_gib": (1 << 31) - 1, "4_gib": 1 << 32, "most": (1 << 63) - 1, "minus_1": -1})
def test_length_of_a_receive(x: Pair) -> None:
    fd, pfd = x.connected()
    x.p.send(pfd, b"little")
    x.s.until(fd, IN)
    x.s.do("recv", fd, out(16), x.case, DONTWAIT)


@scenario(cases={"too_much": 1 << 40, "of_all": (1 << 63) - 1})
def test_control_data(x: Pair) -> None:
    fd, _ = x.connected()
    data = group(pattern(4), 4)
    x.s.do("sendmsg", fd, group(0, 0, data, 1, out(64), x.case, 0), NOSIGNAL)


@scenario(cases=[1023, 1024, 1025])
def test_number_of_buffers(x: Pair) -> None:
    fd, pfd = x.connected()
    iov = group(*[f for _ in range(20) for f in (pattern(1), 1)], bytes(16 * (x.case - 20)), text=f"{x.case} buffers")
    x.s.do("writev", fd, iov, x.case)
    x.p.until(pfd, IN, 300)
    x.p.recv(pfd, 100, DONTWAIT)


@scenario
def test_sizes_that_overflow_together(x: Pair) -> None:
    fd, _ = x.connected()
    x.s.do("writev", fd, group(pattern(8), (1 << 63) - 1, pattern(8), (1 << 63) - 1), 2)
    x.s.do("readv", fd, group(pattern(8), (1 << 63) - 1, pattern(8), 2), 2)


@scenario(cases=[4096, 65536, 1 << 20])
def test_a_buffer_has_an_end(x: Pair) -> None:
    """A sender that nobody reads from is told to wait, and is as good as new when somebody does."""
    fd, pfd = x.connected()
    x.s.nonblock(fd)
    x.s.do("setsockopt", fd, 1, 7, (32768).to_bytes(4, "little"), 4, quiet=True)  # one that does not grow
    for _ in range(2000):
        sent = x.s.do("send", fd, pattern(x.case), x.case, NOSIGNAL, quiet=True).ret
        if sent <= 0 and not x.s.do("poll", _pollfd(fd, OUT), 1, 100, quiet=True).ret:
            break
    x.s.poll((fd, OUT))
    while x.p.do("poll", _pollfd(pfd, IN), 1, 60, quiet=True).ret == 1:
        x.p.do("recv", pfd, out(1 << 18), 1 << 18, DONTWAIT, quiet=True)
    x.s.until(fd, OUT)
    x.s.do("send", fd, pattern(x.case), x.case, NOSIGNAL, see=see_sign, text="after reading")


def _pollfd(fd: int, events: int) -> bytes:
    return fd.to_bytes(4, "little") + bytes([events, 0, 0, 0])


# ---- many ----
@scenario(cases=[100, 250])
def test_many_connections(x: Pair) -> None:
    """Each carries its own bytes, all are told by one wait."""
    lfd, port = x.listener(x.p, 300)
    near, far = [], []
    for _ in range(x.case):
        fd = x.s.do("socket", 2, 1, 0, quiet=True).ret
        x.s.do("connect", fd, _address(x.p_ip, port), 16, quiet=True)
        near.append(fd)
        far.append(x.p.do("accept", lfd, 0, 0, quiet=True).ret)
    x.s.trace.note("subject", "connections", str(sum(fd > 0 for fd in near)))
    ep = x.s.epoll()
    for fd in near:
        x.s.do("epoll_ctl", ep, 1, fd, (1).to_bytes(4, "little") + fd.to_bytes(8, "little"), quiet=True)
    for i, fd in enumerate(far):
        x.p.do("send", fd, b"%d" % i, len(b"%d" % i), 0, quiet=True)
    seen: set[int] = set()
    for _ in range(400):
        time.sleep(0.01)  # more of them
        r = x.s.do("epoll_wait", ep, out(12 * 300), 300, 4000, quiet=True)
        ready = {int.from_bytes(r.out[0][12 * i + 4 : 12 * i + 8], "little") for i in range(max(r.ret, 0))}
        seen |= ready
        if len(seen) == x.case or r.ret <= 0:
            break
    x.s.trace.note("subject", "told of", str(len(seen)))
    wrong = 0
    for i, fd in enumerate(near):
        r = x.s.do("recv", fd, out(8), 8, 0, quiet=True)
        wrong += r.out[0][: r.ret] != b"%d" % i
    x.s.trace.note("subject", "wrong bytes", str(wrong))


def _address(ip: str, port: int) -> bytes:
    return bytes([2, 0, *port.to_bytes(2, "big"), *map(int, ip.split(".")), *bytes(8)])


@scenario(cases=[1, 64, 300])
def test_many_members_and_few_results(x: Pair) -> None:
    """Everybody's turn comes when only some results fit."""
    s = x.s
    ep = s.epoll()
    lfd, port = x.listener(x.p, 200)
    n = 120
    for i in range(n):
        fd = s.do("socket", 2, 1, 0, quiet=True).ret
        s.do("connect", fd, _address(x.p_ip, port), 16, quiet=True)
        x.p.do("accept", lfd, 0, 0, quiet=True)
        s.do("epoll_ctl", ep, 1, fd, OUT.to_bytes(4, "little") + i.to_bytes(8, "little"), quiet=True)
    told: list[int] = []
    for _ in range(-(-n // x.case)):
        r = s.do("epoll_wait", ep, out(12 * x.case), x.case, 100, quiet=True)
        told += [int.from_bytes(r.out[0][12 * k + 4 : 12 * k + 12], "little") for k in range(max(r.ret, 0))]
    s.trace.note("subject", "told", f"{len(told)}, {len(set(told))} different")


@scenario(cases=[50, 500])
def test_sockets_that_are_only_made(x: Pair) -> None:
    """And closed: nothing is left."""
    made = [x.s.do("socket", 2, 1, 0, quiet=True).ret for _ in range(x.case)]
    x.s.trace.note("subject", "made", f"{len(set(made))} from {min(made)} to {max(made)}")
    for fd in made:
        x.s.do("close", fd, quiet=True)
    x.s.socket()


@scenario(cases=[200])
def test_connections_one_after_another(x: Pair) -> None:
    """Ports, numbers and memory come back."""
    lfd, port = x.listener(x.p, 5)
    failed = 0
    for _ in range(x.case):
        fd = x.s.do("socket", 2, 1, 0, quiet=True).ret
        failed += x.s.do("connect", fd, _address(x.p_ip, port), 16, quiet=True).ret != 0
        afd = x.p.do("accept", lfd, 0, 0, quiet=True).ret
        x.s.do("close", fd, quiet=True)
        x.p.do("close", afd, quiet=True)
    x.s.trace.note("subject", "failed", str(failed))
    x.s.socket()
