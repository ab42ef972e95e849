"""Programs that give up rights and resources with sockets in hand, and two network namespaces on one service."""

from __future__ import annotations

import errno
import select
import time

import pytest
from _lab import KERNEL_ONLY, TAS_ADDR, Lab, Service, until
from _puppet import Puppet, closed, got

SERVER = "l = socket.create_server(('0.0.0.0', 0)); port = l.getsockname()[1]"
DROP = "os.setgroups([]); os.setresgid(12345, 12345, 12345); os.setresuid(12345, 12345, 12345)"


def serves(lab: Lab, p: Puppet, name: str = "l", port: int = 0) -> None:
    with lab.peer.connect(TAS_ADDR, port or p("port")) as far:
        p(f"s, _ = {name}.accept()")
        far.sendall(b"ping")
        assert p("got(s, 4)") == b"ping"
        p("s.sendall(b'pong'); s.close()")
        assert got(far, 4) == b"pong"
        assert closed(far) == "eof"


# ---- rights ----
def test_privileges_dropped_after_listen(public_tas: Lab) -> None:
    """nginx, redis: the port is bound as root, everything else happens as somebody else, forks included."""
    a = Puppet(public_tas)
    a("l = socket.create_server(('0.0.0.0', 80)); port = 80")
    serves(public_tas, a)
    a(DROP)
    serves(public_tas, a)
    a(
        "r, w = os.pipe(); kid = os.fork()\nif kid == 0:\n s, _ = l.accept(); s.sendall(b'kid')\n"
        " x = socket.create_server(('0.0.0.0', 0))\n"
        " os.write(w, b'%d' % x.getsockname()[1]); y, _ = x.accept(); y.sendall(b'own'); os._exit(0)"
    )
    assert public_tas.service
    with public_tas.service.carried(conn_passive=2):
        with public_tas.peer.connect(TAS_ADDR, 80) as far:
            assert got(far, 3) == b"kid"
        with public_tas.peer.connect(TAS_ADDR, int(a("os.read(r, 10)"))) as far:
            assert got(far, 3) == b"own"
    assert a("os.waitpid(kid, 0)[1]") == 0
    serves(public_tas, a)
    assert a("socket.create_server(('0.0.0.0', 81))") == "EACCES"


def test_chroot_after_start(tas: Lab) -> None:
    a = Puppet(tas)
    a(SERVER)
    a(f"os.mkdir({str(tas.tmp / 'empty')!r}); os.chroot({str(tas.tmp / 'empty')!r}); os.chdir('/')")
    serves(tas, a)
    a("m = socket.create_server(('0.0.0.0', 0)); mport = m.getsockname()[1]")
    assert tas.service
    with tas.service.carried(conn_passive=1):
        serves(tas, a, "m", a("mport"))
    a("kid = os.fork()\nif kid == 0:\n s, _ = m.accept(); s.sendall(b'kid'); os._exit(0)")
    with tas.peer.connect(TAS_ADDR, a("mport")) as far:
        assert got(far, 3) == b"kid"
    assert a("os.waitpid(kid, 0)[1]") == 0


def test_two_network_namespaces_have_the_same_port_on_one_service(tas: Lab) -> None:
    other = tas.netns()
    a, b = Puppet(tas), Puppet(tas, ns=other)
    for p, name in ((a, "a"), (b, "b")):
        p("l = socket.create_server(('127.0.0.1', 8080))")
        p(f"def serve():\n while True:\n  c, _ = l.accept(); c.sendall(b'{name}'); c.close()")
        p("later(serve)")
    c, d = Puppet(tas), Puppet(tas, ns=other)
    assert tas.service
    for _ in range(5):
        with tas.service.carried(conn_local=2):
            assert c("socket.create_connection(('127.0.0.1', 8080)).recv(10)") == b"a"
            assert d("socket.create_connection(('127.0.0.1', 8080)).recv(10)") == b"b"
    # the link is one for both: the first has the port, and the other's wildcard is for its own loopback
    a("w = socket.create_server(('0.0.0.0', 9090))")
    b("w = socket.create_server(('0.0.0.0', 9090))")
    with tas.peer.connect(TAS_ADDR, 9090) as far:
        a("s, _ = w.accept(); s.sendall(b'link')")
        assert got(far, 4) == b"link"
    n = b("later(lambda: w.accept()[0].recv(10))")
    d("socket.create_connection(('127.0.0.1', 9090)).sendall(b'inside')")
    assert b(f"told({n})") == b"inside"


def test_a_port_is_free_for_another_process_as_soon_as_close_returns(tas: Lab) -> None:
    a, b = Puppet(tas), Puppet(tas)
    for n in range(50):
        one, two = ((a, b), (b, a))[n % 2]
        one("l = socket.socket(); l.bind(('0.0.0.0', 7777)); l.listen()")
        assert two("socket.socket().bind(('0.0.0.0', 7777))") == "EADDRINUSE"
        one("l.close()")
        assert two("l = socket.socket(); l.bind(('0.0.0.0', 7777)); l.listen(); l.close()") is None


# ---- resources ----
def test_the_limit_of_descriptors_lowered_at_run_time(tas: Lab) -> None:
    a = Puppet(tas)
    a(SERVER)
    serves(tas, a)
    a("import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (24, 24))")
    serves(tas, a)
    a("p = select.poll(); p.register(l, 1); e = select.epoll(); e.register(l, 1)")
    with tas.peer.connect(TAS_ADDR, a("port")) as far:
        assert a("len(p.poll(10000))") == 1
        assert a("len(e.poll(10))") == 1
        a("s, _ = l.accept(); s.settimeout(0.05)")
        far.sendall(b"x")
        assert a("got(s, 1)") == b"x"
        a("s.close()")
    # every number in use: accept says so, the connection waits, and is served when there is one again
    a("full = []\ntry:\n while True: full.append(os.dup(0))\nexcept OSError as x: said = errno.errorcode[x.errno]")
    assert a("said") == "EMFILE"
    with tas.peer.connect(TAS_ADDR, a("port")) as far:
        far.sendall(b"patient")
        assert a("l.accept()") == "EMFILE"
        assert a("socket.socket()") == "EMFILE"
        assert a("len(p.poll(10000))") == 1
        a("os.close(full.pop())")
        a("s, _ = l.accept()")
        assert a("got(s, 7)") == b"patient"
    a("s.close(); [os.close(f) for f in full]")
    serves(tas, a)


def test_no_address_space_for_shared_memory(tas: Lab) -> None:
    """RLIMIT_AS: the kernel's TCP it is, with one warning, on the addresses that are the kernel's."""
    a = Puppet(tas)
    a("import resource; used = int(open('/proc/self/statm').read().split()[0]) * 4096")
    a("resource.setrlimit(resource.RLIMIT_AS, (used + (2 << 20), -1))")
    a("l = socket.create_server(('127.0.0.1', 0)); c = socket.create_connection(l.getsockname()); s, _ = l.accept()")
    a("c.sendall(b'kernel')")
    assert a("got(s, 6)") == b"kernel"
    a("l2 = socket.create_server(('127.0.0.1', 0)); c2 = socket.create_connection(l2.getsockname())")
    if not tas.on_kernel:
        assert a.proc.err.count("tas: ") == 1, a.proc.err
        a("resource.setrlimit(resource.RLIMIT_AS, (-1, -1))")
        time.sleep(1.1)  # it asks again after a second
        assert tas.service
        with tas.service.carried(conn_local=1):
            a("l3 = socket.create_server(('127.0.0.1', 0)); c3 = socket.create_connection(l3.getsockname())")
        assert a.proc.err.count("tas: ") == 1, a.proc.err


def test_no_address_space_for_more_of_it(tas: Lab) -> None:
    """Attached, then the limit: what cannot be mapped fails like a connection for which there is no memory."""
    a = Puppet(tas)
    a("l = socket.create_server(('127.0.0.1', 0))")
    a("import resource; used = int(open('/proc/self/statm').read().split()[0]) * 4096")
    a("resource.setrlimit(resource.RLIMIT_AS, (used + (1 << 20), -1))")
    a("c = socket.create_connection(l.getsockname()); s, _ = l.accept(); c.sendall(b'x')")
    assert a("got(s, 1)") == b"x"


# refused(error, calls): from now on system calls with these numbers fail so
REFUSED = """
import ctypes
class Ins(ctypes.Structure):
    _fields_ = [("code", ctypes.c_ushort), ("jt", ctypes.c_ubyte), ("jf", ctypes.c_ubyte), ("k", ctypes.c_uint)]
class Prog(ctypes.Structure):
    _fields_ = [("n", ctypes.c_ushort), ("f", ctypes.POINTER(Ins))]
libc = ctypes.CDLL(None, use_errno=True)
def refused(error, *calls):
    tests = [Ins(0x15, len(calls) - n, 0, nr) for n, nr in enumerate(calls)]
    rules = [Ins(0x20, 0, 0, 0), *tests, Ins(6, 0, 0, 0x7fff0000), Ins(6, 0, 0, 0x50000 | error)]
    assert libc.prctl(38, 1, 0, 0, 0) == 0
    assert libc.prctl(22, 2, ctypes.byref(Prog(len(rules), (Ins * len(rules))(*rules)))) == 0
"""


@pytest.mark.parametrize("error", ["ENOSYS", "EPERM"])
def test_a_sandbox_that_does_not_know_futex_waitv(tas: Lab, error: str) -> None:
    """Old container runtimes refuse what they do not know."""
    a = Puppet(tas)
    a(SERVER)
    a(REFUSED)
    a(f"refused(errno.{error}, 449)")
    with tas.peer.connect(TAS_ADDR, a("port")) as far:
        a("s, _ = l.accept()")
        used = a("time.process_time()")
        n = a("later(lambda: s.recv(10))")
        time.sleep(1)
        far.sendall(b"woken")
        assert a(f"told({n})") == b"woken"
        assert a("time.process_time()") - used < 0.1  # it slept
        n = a("later(lambda: s.recv(10))")
        a("time.sleep(0.2)")
        far.close()
        assert a(f"told({n})") == b""


@pytest.mark.parametrize("error", ["ENFILE", "ENOBUFS", "ENOMEM"])
def test_the_system_has_no_more_sockets(tas: Lab, error: str) -> None:
    """socket(), accept() say so; the connection stays in the queue, for whoever has room; what is open goes on."""
    a = Puppet(tas)
    a(SERVER)
    a(REFUSED)
    with tas.peer.connect(TAS_ADDR, a("port")) as old:
        a("s, _ = l.accept(); r, w = os.pipe(); q = select.poll(); q.register(l, select.POLLIN)")
        with tas.peer.connect(TAS_ADDR, a("port")) as far:
            assert a("len(q.poll(10000))") == 1
            a(
                f"""
def tries():
    refused(errno.{error}, 41, 43, 288)
    seen = []
    for call in (socket.socket, l.accept, l.accept, socket.socket):
        try:
            call()
            seen.append("none")
        except OSError as e:
            seen.append(errno.errorcode[e.errno])
    seen.append(str(len(q.poll(0))))
    s.sendall(b"child")
    os.write(w, " ".join(seen).encode())
    os._exit(0)
kid = os.fork() or tries()
"""
            )
            assert a("os.read(r, 100)") == " ".join([error] * 4 + ["1"]).encode()
            assert got(old, 5) == b"child"
            assert a("os.waitpid(kid, 0)[1]") == 0
            far.sendall(b"patient")
            a("t, _ = l.accept()")
            assert a("got(t, 7)") == b"patient"
            a("t.close()")
            assert closed(far) == "eof"
    serves(tas, a)


@pytest.mark.skipif(KERNEL_ONLY, reason="a limit of the service")
def test_a_program_at_its_limit_of_sockets(lab: Lab) -> None:
    """ENOBUFS for what it asks for; its peers wait; others go on; and there is room again when it closes some."""
    service = Service(lab, "--app-sockets=21")
    a, b = Puppet(lab), Puppet(lab)
    for program in (a, b):
        program(SERVER)
        program("have = []; where = ('127.0.0.1', port)")
    for n in range(10):
        a("c = socket.create_connection(where); s, _ = l.accept(); have.append((c, s))")
        assert service.gauges()["sockets"] == 2 * (n + 1) + 2
    for _ in range(3):
        assert a("socket.create_connection(where)") == "ENOBUFS"
    late = lab.peer.tcp_socket()
    late.setblocking(False)
    assert late.connect_ex((TAS_ADDR, a("port"))) == errno.EINPROGRESS
    a("[c.sendall(b'x') for c, s in have]")
    assert a("sum(s.recv(1) == b'x' for c, s in have)") == 10
    serves(lab, b)
    assert a("select.select([l], [], [], 0.3)[0]") == []
    a("c, s = have.pop(); c.close(); s.close()")
    assert select.select([], [late], [], 20)[1]
    with late:  # it tries again
        late.setblocking(True)
        late.sendall(b"came late")
        a("s, _ = l.accept()")
        assert a("got(s, 9)") == b"came late"
        a("s.close()")
    until("its place is free", lambda: service.gauges()["sockets"] <= 20)
    a("c = socket.create_connection(where); s, _ = l.accept(); c.sendall(b'again')")
    assert a("got(s, 5)") == b"again"


def test_ten_thousand_sockets_in_one_process(tas: Lab) -> None:
    a = Puppet(tas)
    a("import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (20000, 20000))")
    a("l = socket.create_server(('127.0.0.1', 0), backlog=512); mine = []; theirs = []")
    began = time.monotonic()
    a(
        "for n in range(5000):\n c = socket.create_connection(l.getsockname()); s, _ = l.accept()\n"
        " mine.append(c); theirs.append(s)"
    )
    a("[c.sendall(b'%d' % n) for n, c in enumerate(mine)]")
    assert a("all(s.recv(10) == b'%d' % n for n, s in enumerate(theirs))") is True
    a("e = select.epoll(); [e.register(s, 1) for s in theirs]")
    a("[mine[n].send(b'x') for n in range(0, 5000, 50)]")
    assert a("len(e.poll(10, 10000))") == 100
    assert time.monotonic() - began < 60
    if not tas.on_kernel and tas.service:
        assert tas.service.gauges()["sockets"] >= 10001
    a("[c.close() for c in mine]; [s.close() for s in theirs]")
    until("they are gone", lambda: tas.on_kernel or (tas.service and tas.service.gauges()["sockets"] <= 1))


def test_a_thousand_threads_blocked_when_the_service_is_killed(local_tas: Lab) -> None:
    """Each waits in its own way on its own connection; nobody is forgotten."""
    if local_tas.on_kernel or not local_tas.service:
        pytest.skip("there is no service to kill")
    service = local_tas.service
    a = Puppet(local_tas)
    a("import collections; threading.stack_size(256 << 10)")
    a("l = socket.create_server(('127.0.0.1', 0), backlog=512); mine = []; theirs = []")
    a(
        "for n in range(1000):\n c = socket.create_connection(l.getsockname()); s, _ = l.accept()\n"
        " mine.append(c); theirs.append(s)"
    )
    a("def polled(c):\n p = select.poll(); p.register(c, select.POLLIN); return p.poll(60000)[0][1]")
    a("def timed(c):\n c.settimeout(60); return c.recv(1)")
    a("kinds = [lambda c: c.recv(1), polled, timed, lambda c: c.sendall(bytes(50 << 20))]")
    a("ids = [later(kinds[n % 4], c) for n, c in enumerate(mine)]")
    until("they sleep", lambda: sleepers(a) >= 1000, 60)
    service.kill()
    began = time.monotonic()
    found = a("collections.Counter(str(told(n)) for n in ids).most_common()")
    assert dict(found) == {"ECONNRESET": 750, "25": 250}  # 25: IN, ERR and HUP
    assert time.monotonic() - began < 20


def sleepers(p: Puppet) -> int:
    return int(
        p("sum('sleeping' in open(f'/proc/self/task/{t}/status').read() for t in os.listdir('/proc/self/task'))")
    )
