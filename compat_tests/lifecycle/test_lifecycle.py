"""dup, close, shutdown, fork, exec, connecting again: what happens to a socket."""

from __future__ import annotations

import struct

from harness.rig import Pair
from harness.states import ALL, HUP, IN, OUT, RDHUP, RESET_LINGER
from harness.suite import scenario

SIGPIPE = 13
NOSIGNAL, DONTWAIT, PEEK, WAITALL = 0x4000, 0x40, 0x2, 0x100


@scenario(cases=["send", "write", "sendmsg", "nosignal"])
def test_sigpipe(x: Pair) -> None:
    fd, _ = x.connected()
    s = x.s
    s.handler(SIGPIPE)
    s.shutdown(fd, 1)
    if x.case == "write":
        s.do("write", fd, b"x", 1)
    else:
        s.send(fd, b"x", NOSIGNAL if x.case == "nosignal" else 0)
    s.signals()


@scenario
def test_dup_shares_everything(x: Pair) -> None:
    fd, pfd = x.connected()
    s = x.s
    other = s.do("dup", fd).ret
    third = s.do("dup2", fd, 50).ret
    s.do("dup2", fd, fd)
    s.do("dup3", fd, fd, 0)
    s.do("dup3", fd, 51, 0o2000000)
    s.fcntl(51, 1)
    s.fcntl(fd, 0, 60)
    s.fcntl(fd, 1030, 60)
    s.fcntl(fd, 4, 0o4000)
    s.fcntl(other, 3)
    s.recv(other, 4)
    s.set(third, 6, 1, 1)
    s.get(fd, 6, 1)
    s.close(fd)
    x.p.send(pfd, b"abc")
    s.until(other, IN)
    s.recv(third, 2)
    s.recv(other, 2)
    for n in (other, third, 51, 60):
        s.close(n)
    x.p.poll((pfd, ALL))
    s.close(61)
    x.p.until(pfd, RDHUP)
    x.p.recv(pfd, 1)


@scenario
def test_dup2_over_a_socket_closes_it(x: Pair) -> None:
    a, pa = x.connected()
    b, pb = x.connected()
    x.s.do("dup2", a, b)
    x.p.until(pb, RDHUP)
    x.p.recv(pb, 1)
    x.p.send(pa, b"here")
    x.s.until(b, IN)
    x.s.recv(b, 10)


@scenario(cases=["dup2_file", "close_range", "dup2_socket_over_file"])
def test_numbers(x: Pair) -> None:
    fd, pfd = x.connected()
    s = x.s
    event = s.do("eventfd", 0, 0).ret
    if x.case == "dup2_file":
        s.do("dup2", event, fd)
        s.send(fd, b"x", NOSIGNAL)
        s.do("write", fd, b"\1" + bytes(7), 8)
        x.p.until(pfd, RDHUP)
    elif x.case == "dup2_socket_over_file":
        s.do("dup2", fd, event)
        s.send(event, b"hello", NOSIGNAL)
        x.p.until(pfd, IN)
        x.p.recv(pfd, 10)
    else:
        s.do("close_range", fd, event, 0)
        s.send(fd, b"x", NOSIGNAL)
        x.p.until(pfd, RDHUP)
    s.socket()


@scenario
def test_lowest_free_number(x: Pair) -> None:
    s = x.s
    numbers = [s.socket() for _ in range(4)]
    s.close(numbers[1])
    s.close(numbers[0])
    _fd, _ = x.connected()
    s.socket()
    s.epoll()


@scenario(cases=["parent_closes", "child_closes", "both_use", "child_exits"])
def test_fork(x: Pair) -> None:
    fd, pfd = x.connected()
    child = x.s.fork()
    if x.case == "parent_closes":
        x.s.close(fd)
        x.p.poll((pfd, ALL))
        child.send(fd, b"from the child")
        x.p.until(pfd, IN)
        x.p.recv(pfd, 20)
        child.close(fd)
        x.p.until(pfd, RDHUP)
    elif x.case == "child_closes":
        child.close(fd)
        x.p.poll((pfd, ALL))
        x.s.send(fd, b"from the parent")
        x.p.until(pfd, IN)
        x.p.recv(pfd, 20)
    elif x.case == "both_use":
        x.p.send(pfd, b"onetwo")
        x.s.until(fd, IN)
        x.s.recv(fd, 3)
        child.recv(fd, 3)
        child.send(fd, b"1")
        x.s.send(fd, b"2")
        x.p.recv(pfd, 2, WAITALL)
        child.shutdown(fd, 1)
        x.p.until(pfd, RDHUP)
        x.s.send(fd, b"x", NOSIGNAL)
    else:
        x.s.close(fd)
        x.s.children.remove(child)
        child.channel.sendall(b"x\n")
        child.channel.close()
        x.p.until(pfd, RDHUP)
        x.p.recv(pfd, 1)


@scenario
def test_fork_with_a_listener(x: Pair) -> None:
    fd, port = x.listener(x.s)
    child = x.s.fork()
    x.s.close(fd)
    pfd = x.p.socket()
    x.p.connect(pfd, x.s_ip, port)
    got = child.accept(fd).ret
    child.send(got, b"accepted by the child")
    x.p.until(pfd, IN)
    x.p.recv(pfd, 40)


@scenario
def test_fork_with_an_epoll_set(x: Pair) -> None:
    fd, pfd = x.connected()
    ep = x.s.epoll()
    x.s.ctl(ep, 1, fd, IN, data=9)
    child = x.s.fork()
    x.p.send(pfd, b"x")
    x.s.until(fd, IN)
    child.ready(ep)
    x.s.ready(ep)
    child.recv(fd, 1)
    x.s.ready(ep)


@scenario
def test_exec_keeps_sockets(x: Pair) -> None:
    fd, pfd = x.connected()
    cloexec = x.s.do("socket", 2, 1 | 0o2000000, 0).ret
    x.p.send(pfd, b"before")
    x.s.until(fd, IN)
    x.s.exec()
    x.s.recv(fd, 20)
    x.s.send(fd, b"after")
    x.p.until(pfd, IN)
    x.p.recv(pfd, 20)
    x.s.close(cloexec)
    x.s.getpeername(fd)


# ---- closing ----
@scenario(cases=["unread", "nothing", "after_peer_fin", "linger_0", "linger_1", "shut_first", "sent"])
def test_close_as_the_peer_sees_it(x: Pair) -> None:
    fd, pfd = x.connected()
    s, p = x.s, x.p
    if x.case == "unread":
        p.send(pfd, b"never read")
        s.until(fd, IN)
    elif x.case == "after_peer_fin":
        p.shutdown(pfd, 1)
        s.until(fd, RDHUP)
    elif x.case.startswith("linger"):
        s.set(fd, 1, 13, struct.pack("=ii", 1, int(x.case[-1])))
        s.send(fd, b"bye")
        p.until(pfd, IN)
    elif x.case == "shut_first":
        s.shutdown(fd, 1)
        p.until(pfd, RDHUP)
        p.shutdown(pfd, 1)
        s.until(fd, HUP)
    elif x.case == "sent":
        s.send(fd, b"last")
    s.close(fd)
    p.until(pfd, HUP if x.case in ("unread", "linger_0", "shut_first", "after_peer_fin") else RDHUP)
    p.poll((pfd, ALL))
    p.recv(pfd, 10)
    p.recv(pfd, 10, DONTWAIT)
    p.error(pfd)


@scenario
def test_writing_to_a_closed_peer(x: Pair) -> None:
    """The first write brings a reset, the second an error."""
    fd, pfd = x.connected()
    x.p.close(pfd)
    x.s.until(fd, RDHUP)
    x.s.send(fd, b"a", NOSIGNAL)
    x.s.until(fd, HUP)
    x.s.poll((fd, ALL))
    x.s.send(fd, b"b", NOSIGNAL)
    x.s.send(fd, b"c", NOSIGNAL)
    x.s.recv(fd, 1)
    x.s.error(fd)


@scenario
def test_reading_after_a_reset(x: Pair) -> None:
    fd, pfd = x.connected()
    x.p.send(pfd, b"data")
    x.s.until(fd, IN)
    x.p.set(pfd, 1, 13, RESET_LINGER)
    x.p.close(pfd)
    x.s.until(fd, HUP)
    x.s.ioctl(fd, 0x541B)
    for _ in range(3):
        x.s.recv(fd, 2)


@scenario(cases=[0, 1, 2, 5])
def test_accept_queue(x: Pair) -> None:
    """How many connections a backlog takes, before any is accepted."""
    fd, port = x.listener(x.s, x.case)
    for _ in range(x.case + 3):
        c = x.p.socket()
        x.p.nonblock(c)
        x.p.connect(c, x.s_ip, port)
        x.p.until(c, OUT, 40)
    x.s.nonblock(fd)
    for _ in range(x.case + 1):
        x.s.accept(fd)


@scenario
def test_a_connection_that_was_reset_in_the_queue(x: Pair) -> None:
    fd, port = x.listener(x.s)
    c = x.p.socket()
    x.p.connect(c, x.s_ip, port)
    x.s.until(fd, IN)
    x.p.set(c, 1, 13, RESET_LINGER)
    x.p.close(c)
    x.s.poll(timeout=10)
    x.s.nonblock(fd)
    got = x.s.accept(fd).ret
    x.s.recv(got, 1, DONTWAIT)


@scenario
def test_closing_a_listener_resets_its_queue(x: Pair) -> None:
    fd, port = x.listener(x.s)
    c = x.p.socket()
    x.p.connect(c, x.s_ip, port)
    x.s.until(fd, IN)
    x.s.close(fd)
    x.p.until(c, HUP)
    x.p.recv(c, 1)
    x.p.connect(x.p.socket(), x.s_ip, port)


# ---- data ----
@scenario(cases=["peek", "peek_twice", "trunc", "waitall_eof", "waitall_peek", "dontwait", "fionread", "zero_length"])
def test_receive_flags(x: Pair) -> None:
    fd, pfd = x.connected()
    s, p = x.s, x.p
    p.send(pfd, b"abcdef")
    s.until(fd, IN)
    if x.case == "peek":
        s.recv(fd, 3, PEEK)
        s.recv(fd, 10, PEEK)
        s.recv(fd, 10)
    elif x.case == "peek_twice":
        s.recv(fd, 10, PEEK)
        p.send(pfd, b"gh")
        s.poll((fd, 0), timeout=15)
        s.recv(fd, 10, PEEK)
    elif x.case == "trunc":
        s.recv(fd, 4, 0x20)
        s.recv(fd, 10)
    elif x.case == "waitall_eof":
        s.recv(fd, 10, WAITALL, thread=1)
        s.blocked(1)
        p.close(pfd)
        s.wait(1)
    elif x.case == "waitall_peek":
        s.recv(fd, 8, WAITALL | PEEK, thread=1)
        s.blocked(1)
        p.send(pfd, b"gh")
        s.wait(1)
    elif x.case == "dontwait":
        s.recv(fd, 10, DONTWAIT | WAITALL)
        s.recv(fd, 10, DONTWAIT)
    elif x.case == "fionread":
        s.ioctl(fd, 0x541B)
        s.recv(fd, 2)
        s.ioctl(fd, 0x541B)
    else:
        s.recv(fd, 0)
        s.recv(fd, 0, PEEK)
        s.recv(fd, 10)
        s.recv(fd, 0, DONTWAIT)


@scenario
def test_outq_empties(x: Pair) -> None:
    fd, pfd = x.connected()
    x.s.send(fd, b"x" * 1000)
    x.p.until(pfd, IN)
    x.p.recv(pfd, 1000, WAITALL)
    x.s.poll((fd, 0), timeout=60)
    x.s.ioctl(fd, 0x5411)
    x.s.ioctl(fd, 0x894B)


@scenario(cases=["more", "cork"])
def test_held_data_goes_out(x: Pair) -> None:
    fd, pfd = x.connected()
    if x.case == "more":
        x.s.send(fd, b"ab", 0x8000)
        x.s.send(fd, b"cd")
    else:
        x.s.set(fd, 6, 3, 1)
        x.s.send(fd, b"ab")
        x.s.send(fd, b"cd")
        x.s.set(fd, 6, 3, 0)
    x.p.recv(pfd, 4, WAITALL)


# ---- connecting ----
@scenario
def test_connect_twice(x: Pair) -> None:
    _, port = x.listener(x.p)
    fd = x.s.socket()
    x.s.nonblock(fd)
    x.s.connect(fd, x.p_ip, port)
    x.s.until(fd, OUT)
    x.s.connect(fd, x.p_ip, port)
    x.s.connect(fd, x.p_ip, port)
    x.s.error(fd)


@scenario(cases=["refused", "again"])
def test_connect_refused(x: Pair) -> None:
    lfd, port = x.listener(x.p)
    x.p.close(lfd)
    fd = x.s.socket()
    x.s.connect(fd, x.p_ip, port)
    x.s.poll((fd, ALL))
    x.s.error(fd)
    if x.case == "again":
        _, port = x.listener(x.p)
        x.s.connect(fd, x.p_ip, port)
        x.s.getpeername(fd)


@scenario
def test_self_connect(x: Pair) -> None:
    fd = x.s.socket()
    x.s.bind(fd, "127.0.0.1")
    port = x.s.port(fd)
    x.s.connect(fd, "127.0.0.1", port)
    x.s.getpeername(fd)
    x.s.send(fd, b"me")
    x.s.until(fd, IN, 1000)
    x.s.recv(fd, 10, DONTWAIT)


@scenario
def test_reconnect_after_unspec(x: Pair) -> None:
    fd, pfd = x.connected()
    x.s.do("connect", fd, bytes(16), 16, text="AF_UNSPEC")
    x.p.until(pfd, HUP)
    x.p.recv(pfd, 1)
    _, port = x.listener(x.p)
    x.s.error(fd)
    x.s.connect(fd, x.p_ip, port)
    x.s.getpeername(fd)


@scenario(
    cases=["in_use", "reuseaddr_listening", "reuseaddr_both", "reuseport", "reuseport_one", "after_close", "privileged"]
)
def test_bind_conflicts(x: Pair) -> None:
    s = x.s
    a, b = s.socket(), s.socket()
    if x.case.startswith("reuseaddr"):
        s.set(a, 1, 2, 1)
        s.set(b, 1, 2, 1)
    if x.case.startswith("reuseport"):
        s.set(a, 1, 15, 1)
        if x.case == "reuseport":
            s.set(b, 1, 15, 1)
    s.bind(a, x.s_ip)
    port = s.port(a)
    if x.case == "reuseaddr_listening":
        s.listen(a)
    if x.case == "after_close":
        s.listen(a)
        s.close(a)
    if x.case == "privileged":
        port = 80
    s.bind(b, x.s_ip, port)
    s.listen(b)
    s.listen(a)
