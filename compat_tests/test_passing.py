"""Sockets in messages (SCM_RIGHTS) between programs that have nothing else in common."""

from __future__ import annotations

import hashlib
import socket
import time

import pytest
from _lab import PEER_ADDR, TAS_ADDR, Lab, Service, until
from _puppet import Puppet, closed, got

SERVER = "l = socket.create_server(('0.0.0.0', 0), backlog=64); port = l.getsockname()[1]"


def accepted(lab: Lab, a: Puppet) -> socket.socket:
    """``c`` of program a is a connection over the link; its far end."""
    if not a("'l' in globals()"):
        a(SERVER)
    far = lab.peer.connect(TAS_ADDR, a("port"))
    a("c, _ = l.accept()")
    return far


def test_a_connection_is_passed_with_its_data_and_the_sender_closes_it(tas: Lab) -> None:
    a, b = Puppet(tas), Puppet(tas)
    b("own = socket.create_server(('0.0.0.0', 0))")  # has a memory set of its own
    with accepted(tas, a) as far:
        far.sendall(b"unread" * 1000)
        assert a("got(c, 6)") == b"unread"
        assert a("c.send(b'before ')") == 7
        assert tas.service
        with tas.service.carried(sock_moves=1):
            a(f"give({b.path!r}, [c]); c.close()")
            b("s = sock(take()[0]); s.getpeername()")
        assert b("got(s, 5994)") == b"unread" * 999
        assert b("s.sendall(b'after')") is None
        assert got(far, 12) == b"before after"
        far.sendall(b"more")
        assert b("got(s, 4)") == b"more"
        assert b("s.getpeername()") == (PEER_ADDR, far.getsockname()[1])
        b("s.close()")
        assert closed(far) == "eof"


def test_sender_and_receiver_both_go_on_with_one_connection(tas: Lab) -> None:
    a, b = Puppet(tas), Puppet(tas)
    with accepted(tas, a) as far:
        a(f"give({b.path!r}, [c])")
        b("s = sock(take()[0])")
        for n in range(50):
            far.sendall(b"%04d" % n)
            who, name = ((a, "c"), (b, "s"))[n % 2]
            assert who(f"got({name}, 4)") == b"%04d" % n
            other, name = ((b, "s"), (a, "c"))[n % 2]
            other(f"{name}.sendall(b'{n:04d}')")
            assert got(far, 4) == b"%04d" % n
        a("c.close()")
        far.sendall(b"alone")
        assert b("got(s, 5)") == b"alone"
        b("s.shutdown(1)")
        assert closed(far) == "eof"


@pytest.mark.parametrize("how", ["recv", "recv with a timeout", "poll", "epoll"])
def test_who_waits_on_the_socket_while_it_is_passed_is_served_afterwards(tas: Lab, how: str) -> None:
    a, b = Puppet(tas), Puppet(tas)
    with accepted(tas, a) as far:
        a("p = select.poll(); p.register(c, 1); e = select.epoll(); e.register(c, 1 | select.EPOLLET)")
        if how == "recv with a timeout":
            a("c.settimeout(20)")
        waiting = {
            "poll": "(lambda: p.poll(20000)[0][1])",
            "epoll": "(lambda: e.poll(20)[0][1])",
        }.get(how, "(lambda: c.recv(100))")
        n = a(f"later({waiting})")
        time.sleep(0.2)
        a(f"give({b.path!r}, [c])")
        b("s = sock(take()[0])")
        b("s.sendall(b'question')")
        assert got(far, 8) == b"question"
        far.sendall(b"answer")
        assert a(f"told({n})") == (b"answer" if how.startswith("recv") else 1)
        if not how.startswith("recv"):
            assert b("got(s, 6)") == b"answer"


def test_edge_triggered_members_see_no_event_that_is_none(tas: Lab) -> None:
    a, b = Puppet(tas), Puppet(tas)
    with accepted(tas, a) as far:
        far.sendall(b"x")
        a("e = select.epoll(); e.register(c, 1 | select.EPOLLET)")
        assert a("len(e.poll(10))") == 1
        a(f"give({b.path!r}, [c])")
        b("s = sock(take()[0]); s.getpeername()")
        assert a("e.poll(0.2)") == []
        far.sendall(b"y")
        assert a("len(e.poll(10))") == 1


def test_a_listener_is_passed_with_its_queue(tas: Lab) -> None:
    a, b = Puppet(tas), Puppet(tas)
    a(SERVER)
    port = a("port")
    queued = [tas.peer.connect(TAS_ADDR, port) for _ in range(5)]
    for n, far in enumerate(queued):
        far.sendall(b"%d" % n)
    until("the queue holds them", lambda: a("select.select([l], [], [], 5)[0] != []"))
    a("kept, _ = l.accept()")
    a(f"give({b.path!r}, [l])")
    b("m = sock(take()[0])")
    got = {b("(lambda c: (c.recv(1), c.sendall(b'b'), c.close())[0])(m.accept()[0])") for _ in range(3)}
    got.add(a("(lambda c: (c.recv(1), c.sendall(b'a'), c.close())[0])(l.accept()[0])"))
    got.add(a("kept.recv(1)"))
    assert got == {b"0", b"1", b"2", b"3", b"4"}
    # both accept from it; then only the receiver
    n = a("later(lambda: l.accept()[0].recv(10))")
    with tas.peer.connect(TAS_ADDR, port) as far:
        far.sendall(b"for a")
        assert a(f"told({n})") == b"for a"
    a("l.close()")
    assert tas.service
    with tas.service.carried(conn_passive=1), tas.peer.connect(TAS_ADDR, port) as far:
        b("c, _ = m.accept()")
        far.sendall(b"for b")
        assert b("got(c, 5)") == b"for b"
    with Local(tas) as third:
        assert third(f"socket.create_connection(('127.0.0.1', {port})).sendall(b'local')") is None
        assert b("m.accept()[0].recv(5)") == b"local"
    b("m.close(); c.close()")
    with pytest.raises(ConnectionRefusedError):
        until("the port refuses", lambda: tas.peer.connect(TAS_ADDR, port).close(), 5)
    for far in queued:
        far.close()


def test_two_programs_listen_on_a_socket_that_a_third_bound(tas: Lab) -> None:
    """As Node's cluster: whoever goes, the others accept what comes."""
    a, b, c = Puppet(tas), Puppet(tas), Puppet(tas)
    a("l = socket.socket(); l.bind(('0.0.0.0', 0)); port = l.getsockname()[1]")
    port = a("port")
    for program in (b, c):
        a(f"give({program.path!r}, [l])")
        program("m = sock(take()[0])")  # neither listens: they cannot know of each other's
    for program in (b, c):
        program("m.listen(16)")
    b("m.close()")
    assert tas.service
    with tas.service.carried(conn_passive=1), tas.peer.connect(TAS_ADDR, port) as far:
        far.sendall(b"for c")
        assert c("got(m.accept()[0], 5)") == b"for c"
    c.quit()
    a("l.listen(16)")
    with tas.service.carried(conn_passive=1), tas.peer.connect(TAS_ADDR, port) as far:
        far.sendall(b"for a")
        assert a("got(l.accept()[0], 5)") == b"for a"


class Local(Puppet):
    """A puppet for a while."""

    def __enter__(self) -> Local:
        return self

    def __exit__(self, *_: object) -> None:
        self.quit()


def test_a_connection_is_passed_before_it_stands(tas: Lab) -> None:
    a, b = Puppet(tas), Puppet(tas)
    tas.peer.run("nft", "add table inet hold; add chain inet hold in { type filter hook input priority 0; }; "
                 "add rule inet hold in tcp flags syn drop")  # fmt: skip
    with tas.peer.tcp_socket() as listener:
        listener.bind((PEER_ADDR, 0))
        listener.listen()
        where = listener.getsockname()
        a(f"c = socket.socket(); c.setblocking(False); r = c.connect_ex({where!r})")
        assert a("errno.errorcode[r]") == "EINPROGRESS"
        a(f"give({b.path!r}, [c]); c.close()")
        b("s = sock(take()[0])")
        assert b("select.select([], [s], [], 0.1)[1] == []")
        tas.peer.run("nft", "delete table inet hold")
        assert b("select.select([], [s], [], 20)[1] == [s]")
        assert b("s.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)") == 0
        far, _ = listener.accept()
        with far:
            b("s.sendall(b'connected')")
            assert far.recv(100) == b"connected"


def test_a_socket_goes_from_hand_to_hand_and_back(tas: Lab) -> None:
    a, b, c = Puppet(tas), Puppet(tas), Puppet(tas)
    with accepted(tas, a) as far:
        a("s = c; del c")
        hands = [a, b, c]
        for n in range(12):
            here, there = hands[n % 3], hands[(n + 1) % 3]
            far.sendall(b"<%02d>" % n)
            here(f"give({there.path!r}, [s])")
            if n % 2:
                here("s.close()")
            there("s = sock(take()[0])")
            assert there("got(s, 4)") == b"<%02d>" % n
            there(f"s.sendall(b'{n:02d}')")
            assert got(far, 2) == b"%02d" % n
        for p in hands:
            p("s.close()")
        assert closed(far) == "eof"


def test_both_ends_of_a_local_connection_are_passed(local_tas: Lab) -> None:
    a, b, c = Puppet(local_tas), Puppet(local_tas), Puppet(local_tas)
    a("l = socket.create_server(('127.0.0.1', 0)); x = socket.create_connection(l.getsockname()); y, _ = l.accept()")
    a("x.sendall(b'to y' * 5000); y.sendall(b'to x')")
    a(f"give({b.path!r}, [x]); give({c.path!r}, [y]); x.close(); y.close()")
    b("x = sock(take()[0])")
    c("y = sock(take()[0])")
    assert c("got(y, 20000)") == b"to y" * 5000
    assert b("got(x, 4)") == b"to x"
    # one program holds both ends: a byte that was sent is there
    c(f"give({b.path!r}, [y]); y.close()")
    b("y = sock(take()[0]); x.setblocking(False); y.setblocking(False); x.setsockopt(6, socket.TCP_NODELAY, 1)")
    for n in range(200):
        b(f"x.send(b'{n}')")
        assert b("y.recv(10)") == b"%d" % n
    b("x.close()")
    assert b("y.recv(1)") == b""


@pytest.mark.parametrize("end", ["the receiver dies", "the receiver closes its end", "the sender dies as well"])
def test_a_message_that_nobody_receives_closes_what_is_in_it(tas: Lab, end: str) -> None:
    a = Puppet(tas)
    b = Puppet(tas, on_tas=False)
    with accepted(tas, a) as far:
        a(f"u = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET); u.connect({b.path + '.in'!r})")
        b("u, _ = _inbox.accept()")
        a("socket.send_fds(u, [b'x'], [c.fileno()]); c.close()")
        far.sendall(b"still open")
        far.settimeout(0.5)
        with pytest.raises(TimeoutError):
            far.recv(1)
        if end == "the receiver closes its end":
            b("u.close()")
        elif end == "the receiver dies":
            b.kill()
        else:
            a.kill()
            b.kill()
        assert closed(far) == "reset"  # what it did not read


def test_peeked_rights_are_rights(tas: Lab) -> None:
    a, b = Puppet(tas), Puppet(tas)
    with accepted(tas, a) as far:
        a(f"u = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET); u.connect({b.path + '.in'!r})")
        b("u, _ = _inbox.accept()")
        a("socket.send_fds(u, [b'x'], [c.fileno()]); c.close()")
        b("p = sock(struct.unpack('i', u.recvmsg(10, socket.CMSG_LEN(4), socket.MSG_PEEK)[1][0][2])[0])")
        b("p.sendall(b'peeked '); p.close()")
        b("s = sock(socket.recv_fds(u, 10, 1)[1][0])")
        b("s.sendall(b'taken')")
        assert got(far, 12) == b"peeked taken"
        b("s.close()")
        assert closed(far) == "eof"


def test_rights_that_do_not_fit_are_closed(tas: Lab) -> None:
    a, b = Puppet(tas), Puppet(tas)
    with accepted(tas, a) as first:
        a("d = c")
        with accepted(tas, a) as second:
            a(f"give({b.path!r}, [d, c]); c.close(); d.close()")
            b("u, _ = _inbox.accept(); m = u.recvmsg(10, socket.CMSG_LEN(4))")
            assert b("bool(m[2] & socket.MSG_CTRUNC)") is True
            b("s = sock(struct.unpack('i', m[1][0][2][:4])[0])")
            assert closed(second) == "eof"
            b("s.sendall(b'alive')")
            assert got(first, 5) == b"alive"
            b("s.close()")
            assert closed(first) == "eof"


def test_a_stream_goes_on_while_the_socket_is_passed_around(tas: Lab) -> None:
    """Two threads of the sender are inside send and recv while the socket moves."""
    a, b, c = Puppet(tas), Puppet(tas), Puppet(tas)
    size = 20_000_000
    with accepted(tas, a) as far:
        far.settimeout(60)
        a("import hashlib, random; block = random.Random(7).randbytes(1 << 16)")
        a(f"def pump():\n n = 0\n while n < {size}:\n  c.sendall(block)\n  n += len(block)\n return n")
        a(f"def drain():\n h = hashlib.sha256(); n = 0\n while n < {size}:\n  d = c.recv(50000)\n  h.update(d)\n"
          "  n += len(d)\n return h.hexdigest()")  # fmt: skip
        up, down = a("later(pump)"), a("later(drain)")
        sent, seen, n = hashlib.sha256(), hashlib.sha256(), 0
        data = bytes(range(256)) * 100
        total, passes = -(-size // 65536) * 65536, 0
        written = 0
        while n < total:
            if written < size:
                piece = data[: min(len(data), size - written)]
                far.sendall(piece)
                sent.update(piece)
                written += len(piece)
            got = far.recv(100000)
            seen.update(got)
            n += len(got)
            if n * 5 // total > passes:
                passes += 1
                to = (b, c)[passes % 2]
                a(f"give({to.path!r}, [c])")
                to("s = sock(take()[0]); name = s.getpeername(); s.close()")
        while written < size:
            piece = data[: min(len(data), size - written)]
            far.sendall(piece)
            sent.update(piece)
            written += len(piece)
        assert a(f"told({up}, 60)") == total
        assert a(f"told({down}, 60)") == sent.hexdigest()
        block = a("block")
        want = hashlib.sha256()
        for _ in range(total // 65536):
            want.update(block)
        assert seen.hexdigest() == want.hexdigest()
        assert passes == 5


def test_a_socket_that_cannot_be_watched_cannot_be_passed(local_tas: Lab) -> None:
    """The service has no inotify watch left: an error, and the connection is as it was."""
    if local_tas.on_kernel or not local_tas.service:
        pytest.skip("a limit of the service")
    local_tas.service.finish(check=False)
    # in a user namespace, which has a limit of its own
    few = (
        "unshare",
        "--user",
        "--map-root-user",
        "sh",
        "-c",
        'echo 1 >/proc/sys/user/max_inotify_watches; exec "$@"',
        "sh",
    )
    service = Service(local_tas, link=False, via=few)
    a, b = Puppet(local_tas), Puppet(local_tas)
    a("l = socket.create_server(('127.0.0.1', 0)); c = socket.create_connection(l.getsockname()); s, _ = l.accept()")
    with service.carried(conn_local=1):
        a("d = socket.create_connection(l.getsockname()); t, _ = l.accept()")
    a(f"give({b.path!r}, [c])")
    assert a(f"give({b.path!r}, [d])") == "ENOBUFS"
    a("d.sendall(b'here')")
    assert a("got(t, 4)") == b"here"
    b("e = sock(take()[0])")
    b("e.sendall(b'there')")
    assert a("got(s, 5)") == b"there"
    a("c.close()")
    b("e.close()")
    assert a("s.recv(1)") == b""
    assert a(f"give({b.path!r}, [d])") is None  # there is a watch again


SCRIBBLE = """
import ctypes, random
stop = False
def scribble(kind):
    r = random.Random(1)
    spans = []
    for line in open('/proc/self/maps'):
        if 'memfd:tas-chunk' in line:
            lo, hi = (int(x, 16) for x in line.split()[0].split('-'))
            spans.append((lo, hi))
    n = 0
    while not stop:
        for lo, hi in spans:
            for page in range(lo, lo + (1 << 20), 4096):
                if kind == 'zeros':
                    ctypes.memset(page, 0, 4096)
                elif kind == 'ones':
                    ctypes.memset(page, 255, 4096)
                else:
                    ctypes.memmove(page, r.randbytes(4096), 4096)
        n += 1
    return n * len(spans)
"""


@pytest.mark.parametrize("kind", ["random", "zeros", "ones"])
def test_a_receiver_that_scribbles_over_what_it_was_given_harms_nothing_else(tas: Lab, kind: str) -> None:
    """What the two share is the sockets that both hold; the sender's others, and the sender, are out of reach."""
    if tas.on_kernel:
        pytest.skip("no shared memory")
    a, b = Puppet(tas), Puppet(tas)
    b("own = socket.create_server(('0.0.0.0', 0))")
    with accepted(tas, a) as private:
        a("p = c")
        with accepted(tas, a) as shared:
            a(f"give({b.path!r}, [c, l])")
            b("fds = take(2); s = sock(fds[0]); m = sock(fds[1]); s.getpeername(); m.getsockname()")
            b(SCRIBBLE)
            n = b(f"later(scribble, {kind!r})")
            # the sender uses both all the time; of the shared ones anything may come, but not silence of the program
            a(
                "def poke():\n for n in range(300):\n  for f in (lambda: c.send(b'x', socket.MSG_DONTWAIT), "
                "lambda: c.recv(100, socket.MSG_DONTWAIT), lambda: select.select([c, l], [c], [], 0), "
                "lambda: l.getsockname()):\n   try: f()\n   except OSError: pass\n return 'poked'"
            )
            k = a("later(poke)")
            for i in range(200):
                private.sendall(b"%04d" % i)
                assert a("got(p, 4)") == b"%04d" % i
                a(f"p.sendall(b'{i:04d}')")
                assert got(private, 4) == b"%04d" % i
            assert a(f"told({k})") == "poked"
            b("stop = True")
            assert b(f"told({n}) > 0") is True
            shared.close()
        b.kill()
        private.sendall(b"end")
        assert a("got(p, 3)") == b"end"
    a.kill()


# ---- where TAS cannot follow ----
def test_a_program_that_is_not_on_tas_gets_an_error_and_the_connection_stays(tas: Lab) -> None:
    if tas.on_kernel:
        pytest.skip("on the kernel it works")
    a, b = Puppet(tas), Puppet(tas, on_tas=False)
    with accepted(tas, a) as far:
        far.sendall(b"hello")
        a(f"give({b.path!r}, [c])")
        b("s = sock(take()[0])")
        assert b("s.recv(5)") == "ENOTCONN"
        assert b("s.send(b'x')") == "EPIPE"
        assert b("s.getpeername()") == "ENOTCONN"
        assert b("select.select([s], [s], [], 5)[:2] == ([s], [s])")  # nobody waits for ever
        assert a("got(c, 5)") == b"hello"
        a("c.close()")
        far.sendall(b"still held")
        far.settimeout(0.3)
        with pytest.raises(TimeoutError):
            far.recv(1)
        b("s.close()")
        assert closed(far) == "reset"


def test_a_listener_in_a_program_that_is_not_on_tas_accepts_from_the_kernel(tas: Lab) -> None:
    a, b = Puppet(tas), Puppet(tas, on_tas=False)
    a("l = socket.create_server(('127.0.0.1', 0))")
    a(f"give({b.path!r}, [l])")
    b("m = sock(take()[0]); m.settimeout(10)")
    with tas.app.connect("127.0.0.1", a("l.getsockname()[1]")) as far:  # of a program on the kernel
        b("c, _ = m.accept()")
        far.sendall(b"x")
        assert b("c.recv(1)") == b"x"


def test_a_program_on_another_service_gets_an_error(tas: Lab) -> None:
    if tas.on_kernel:
        pytest.skip("there is one kernel")
    first = tas.service
    a = Puppet(tas)
    other = Service(tas, link=False)
    b = Puppet(tas)  # on the newer one
    tas.service = first
    try:
        b("own = socket.create_server(('127.0.0.1', 0))")
        with accepted(tas, a) as far:
            a(f"give({b.path!r}, [c])")
            b("s = sock(take()[0])")
            assert b("s.recv(5)") == "ENOTCONN"
            assert b("s.send(b'x')") == "EPIPE"
            b("s.close()")
            far.sendall(b"ours")
            assert a("got(c, 4)") == b"ours"
            a("c.close()")
            assert closed(far) == "eof"
    finally:
        b.quit()
        other.finish(check=True)


@pytest.mark.parametrize("what", ["listener", "connected"])
def test_pidfd_getfd_takes_what_the_service_knows_by_descriptor(tas: Lab, what: str) -> None:
    a, b = Puppet(tas), Puppet(tas)
    fetch = "(lambda pid, n: __import__('ctypes').CDLL(None).syscall(438, os.pidfd_open(pid), n, 0))"
    pid = a("os.getpid()")
    if what == "listener":
        a(SERVER)
        b(f"m = sock({fetch}({pid}, {a('l.fileno()')}))")
        with tas.peer.connect(TAS_ADDR, a("port")) as far:
            b("c, _ = m.accept()")
            far.sendall(b"x")
            assert b("c.recv(1)") == b"x"
    else:
        with tas.peer.tcp_socket() as listener:
            listener.bind((PEER_ADDR, 0))
            listener.listen()
            a(f"c = socket.create_connection({listener.getsockname()!r})")
            b(f"s = sock({fetch}({pid}, {a('c.fileno()')}))")
            far, _ = listener.accept()
            with far:
                b("s.sendall(b'x')")
                a("c.close()")
                b("s.sendall(b'y')")
                assert got(far, 2) == b"xy"
                b("s.close()")
                assert closed(far) == "eof"


def test_an_accepted_connection_taken_with_pidfd_getfd_gives_an_error_and_its_owner_goes_on(tas: Lab) -> None:
    """Its descriptor was made for the program alone: nobody else can tell which connection it is."""
    a, b = Puppet(tas), Puppet(tas)
    with accepted(tas, a) as far:
        fetch = "(lambda pid, n: __import__('ctypes').CDLL(None).syscall(438, os.pidfd_open(pid), n, 0))"
        b(f"s = sock({fetch}({a('os.getpid()')}, {a('c.fileno()')}))")
        assert b("s.recv(5)") == "ENOTCONN"
        assert b("s.send(b'x')") == "EPIPE"
        b("s.close()")
        far.sendall(b"ours")
        assert a("got(c, 4)") == b"ours"
        a("c.sendall(b'still')")
        assert got(far, 5) == b"still"
        a("c.close()")
        assert closed(far) == "eof"
