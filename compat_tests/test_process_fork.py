"""What programs do by forking: workers on one listener, snapshots, daemons that close everything, busy threads."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time

import pytest
from _lab import PEER_ADDR, TAS_ADDR, Lab, until
from _puppet import Puppet, closed, got

WORKERS = """
import os, select, signal, socket, sys
how = sys.argv[1]
l = socket.create_server(("0.0.0.0", 0), backlog=128)
l.setblocking(how == "accept")
kids = []
for n in range(4):
    if (pid := os.fork()) == 0:
        e = select.epoll()
        if how != "accept":
            e.register(l, select.EPOLLIN | (select.EPOLLEXCLUSIVE if how == "exclusive" else 0))
        while True:
            if how != "accept":
                e.poll()
            try:
                c, _ = l.accept()
            except BlockingIOError:
                continue
            with c:
                c.setblocking(True)
                c.sendall(c.recv(100))
    kids.append(pid)
def stop(*_):
    for k in kids: os.kill(k, signal.SIGKILL)
    for k in kids: os.waitpid(k, 0)
    os._exit(0)
signal.signal(signal.SIGTERM, stop)
print(f"listening on 0.0.0.0:{l.getsockname()[1]}")
while True: signal.pause()
"""


@pytest.mark.parametrize("how", ["accept", "thundering", "exclusive"])
def test_workers_on_one_listener_serve_everybody(tas: Lab, how: str) -> None:
    port = tas.tas_python(WORKERS, how).listening()
    assert tas.service
    with tas.service.carried(conn_passive=200):
        for round_ in range(10):
            conns = [tas.peer.connect(TAS_ADDR, port) for _ in range(20)]
            for n, c in enumerate(conns):
                c.sendall(b"%d.%d" % (round_, n))
            for n, c in enumerate(conns):
                assert c.recv(100) == b"%d.%d" % (round_, n)
                c.close()


def test_a_snapshot_that_is_never_used_holds_connections_open_until_it_ends(tas: Lab) -> None:
    """Redis: the child writes the data base to disk and knows nothing of the sockets that it has."""
    a = Puppet(tas)
    a("l = socket.create_server(('0.0.0.0', 0)); port = l.getsockname()[1]")
    with tas.peer.connect(TAS_ADDR, a("port")) as far, tas.peer.connect(TAS_ADDR, a("port")) as other:
        a("c, _ = l.accept(); d, _ = l.accept()")
        pid = a("os.fork() or (signal.pause(), os._exit(0))")
        for n in range(100):
            far.sendall(b"%03d" % n)
            assert a("got(c, 3)") == b"%03d" % n
        a("c.close()")
        far.settimeout(0.3)
        with pytest.raises(TimeoutError):  # the snapshot has it
            far.recv(1)
        other.sendall(b"x")
        assert a("got(d, 1)") == b"x"
        a(f"os.kill({pid}, 9); os.waitpid({pid}, 0)")
        assert closed(far) == "eof"
        a("d.sendall(b'y')")
        assert got(other, 1) == b"y"


@pytest.mark.parametrize("way", ["closefrom", "loop", "close_range"])
def test_a_daemon_closes_everything_and_serves(tas: Lab, way: str) -> None:
    """Double fork, setsid, and every descriptor closed, the library's own as well as far as it lets it."""
    server = tas.tas_python(
        f"""
import os, resource, socket, sys
keep = os.dup(1)
s = socket.create_server(("0.0.0.0", 0))  # attached before
if os.fork():
    os._exit(0)
os.setsid()
if os.fork():
    os._exit(0)
out = 3
os.dup2(keep, out)
way = {way!r}
if way == "loop":
    for fd in [0, 1, 2, *range(4, 65536)]:
        try:
            os.close(fd)
        except OSError:
            pass
elif way == "closefrom":
    import ctypes
    os.closerange(0, 3)
    ctypes.CDLL(None).closefrom(4)
else:
    import ctypes
    os.closerange(0, 3)
    assert ctypes.CDLL(None).close_range(4, 0xffffffff, 0) == 0
for _ in range(3):
    os.open("/dev/null", os.O_RDWR)
s.detach()
l = socket.create_server(("0.0.0.0", 0))
os.write(out, b"listening on 0.0.0.0:%d\\n" % l.getsockname()[1])
for _ in range(20):
    c, _ = l.accept()
    with c:
        c.sendall(c.recv(100))
"""
    )
    assert server.wait() == 0
    port = int(until("it serves", lambda: server.out and server.out.strip().rpartition(":")[2]))
    assert tas.service
    with tas.service.carried(conn_passive=20):
        for n in range(20):
            with tas.peer.connect(TAS_ADDR, port) as c:
                c.sendall(b"%d" % n)
                assert c.recv(100) == b"%d" % n


def test_forks_among_threads_that_are_inside_every_kind_of_call(tas: Lab) -> None:
    """A child has one thread and the locks of many; it must be able to use and make sockets, and so must the parent."""
    listener = tas.peer.tcp_socket()
    listener.bind((PEER_ADDR, 0))
    listener.listen(64)
    where = listener.getsockname()

    def echo(c: socket.socket) -> None:
        with c, contextlib.suppress(OSError):
            c.settimeout(60)
            while data := c.recv(65536):
                c.sendall(data)

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=echo, args=(listener.accept()[0],), daemon=True).start()

    listener.settimeout(None)
    threading.Thread(target=serve, daemon=True).start()
    program = tas.tas_python(
        f"""
import os, select, socket, sys, threading, time
where = {where!r}
stop = False
def talk():
    c = socket.create_connection(where)
    while not stop:
        c.sendall(b"x" * 3000)
        n = 0
        while n < 3000:
            n += len(c.recv(3000))
def wait():
    c = socket.create_connection(where)
    e = select.epoll()
    e.register(c, select.EPOLLIN)
    p = select.poll()
    p.register(c, select.POLLIN)
    while not stop:
        c.sendall(b"y")
        e.poll()
        p.poll()
        c.recv(1)
def churn():
    while not stop:
        socket.create_connection(where).close()
threads = [threading.Thread(target=f) for f in (talk, talk, wait, wait, churn)]
for t in threads: t.start()
shared = socket.create_connection(where)
for n in range(150):
    pid = os.fork()
    if pid == 0:
        try:
            own = socket.create_connection(where)
            for c in (own, shared):
                c.sendall(b"child")
                b = b""
                while len(b) < 5:
                    b += c.recv(5 - len(b))
                assert b == b"child", b
            e = select.epoll()
            e.register(own, select.EPOLLIN)
            own.sendall(b"z")
            assert e.poll(20) == [(own.fileno(), 1)]
            os._exit(0)
        except BaseException as e:
            os.write(2, repr(e).encode())
            os._exit(1)
    assert os.waitpid(pid, 0)[1] == 0, n
stop = True
for t in threads: t.join()
print("done")
"""
    )
    try:
        assert "done" in program.ok(120)
    finally:
        listener.close()


def test_children_close_and_use_what_they_inherited_while_the_parent_goes_on(tas: Lab) -> None:
    a = Puppet(tas)
    a("l = socket.create_server(('0.0.0.0', 0)); port = l.getsockname()[1]; conns = []")
    far = []
    for _ in range(20):
        far.append(tas.peer.connect(TAS_ADDR, a("port")))
        a("conns.append(l.accept()[0])")
    a(
        "kids = []\nfor n in range(20):\n if (pid := os.fork()) == 0:\n"
        "  [c.close() for i, c in enumerate(conns) if i != n]; l.close()\n"
        "  conns[n].sendall(b'child %02d' % n); got(conns[n], 2); os._exit(0)\n kids.append(pid)"
    )
    for n, c in enumerate(far):
        assert got(c, 8) == b"child %02d" % n
    a("[c.close() for c in conns[::2]]")
    for n, c in enumerate(far):
        c.sendall(b"ok")
        if n % 2 == 0:
            assert closed(c) == "eof"
    a("[os.waitpid(k, 0) for k in kids]")
    for n, c in enumerate(far):
        if n % 2:
            a(f"conns[{n}].sendall(b'parent')")
            assert got(c, 6) == b"parent"
        c.close()
    with tas.peer.connect(TAS_ADDR, a("port")) as c:
        a("l.accept()[0].sendall(b'again')")
        assert got(c, 5) == b"again"


def test_a_fork_that_fails_costs_nothing(public_tas: Lab) -> None:
    tas = public_tas
    a = Puppet(tas)
    a("os.setgroups([]); os.setresgid(12345, 12345, 12345); os.setresuid(12345, 12345, 12345)")
    a("import resource; c = socket.socket(); l = socket.create_server(('127.0.0.1', 0))")
    a("old = resource.getrlimit(resource.RLIMIT_NPROC); resource.setrlimit(resource.RLIMIT_NPROC, (1, old[1]))")
    for _ in range(20):
        assert a("os.fork() or os._exit(0)") == "EAGAIN"
    a("resource.setrlimit(resource.RLIMIT_NPROC, old)")
    if not tas.on_kernel:
        assert tas.service
        until("no place is taken", lambda: tas.service and tas.service.gauges()["processes"] == 1)
    a("c.connect(l.getsockname()); d, _ = l.accept(); c.sendall(b'x')")
    assert a("d.recv(1)") == b"x"


def test_a_program_that_dumps_core_holds_its_connections_until_it_has(tas: Lab) -> None:
    core = tas.tmp / "core-here"
    core.mkdir()
    a = Puppet(tas)
    a("import resource; resource.setrlimit(resource.RLIMIT_CORE, (-1, -1)); "
      f"os.chdir({str(core)!r}); ballast = bytearray(os.urandom(1 << 20)) * 100")  # fmt: skip
    a("l = socket.create_server(('0.0.0.0', 0)); port = l.getsockname()[1]")
    port = a("port")
    with tas.peer.connect(TAS_ADDR, port) as far:
        a("c, _ = l.accept()")
        a.begin("os.abort()")
        began = time.monotonic()
        assert closed(far, 60) in ("eof", "reset")
        assert a.proc.wait() == -6
        assert time.monotonic() - began < 60
    with pytest.raises(ConnectionRefusedError):
        until("the port refuses", lambda: tas.peer.connect(TAS_ADDR, port).close(), 5)
    for f in core.iterdir():
        os.unlink(f)
