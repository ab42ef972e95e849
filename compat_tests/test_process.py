"""Programs as they really are: prefork, fork and exec with inherited sockets, threads, sudden ends."""

from __future__ import annotations

import contextlib
import os
import signal
import time

import pytest
from _lab import BUILD, PEER_ADDR, TAS_ADDR, Lab, until

PREFORK = """
import os, signal, socket, sys
l = socket.create_server(("0.0.0.0", 0), backlog=64)
kids = []
for n in range(4):
    pid = os.fork()
    if pid == 0:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        while True:
            c, _ = l.accept()
            with c:
                while data := c.recv(4096):
                    c.sendall(b"%d " % os.getpid() + data)
    kids.append(pid)
def stop(*_):
    for k in kids: os.kill(k, signal.SIGTERM)
    for k in kids: os.waitpid(k, 0)
    os._exit(0)
signal.signal(signal.SIGTERM, stop)
print(f"listening on 0.0.0.0:{l.getsockname()[1]}")
while True: signal.pause()
"""


def test_a_prefork_server_whose_children_accept_from_one_listener(tas: Lab) -> None:
    port = tas.tas_python(PREFORK).listening()
    assert tas.service
    conns = []
    with tas.service.carried(conn_passive=8):
        for _ in range(4):  # as many as there are children: each is busy with its own
            conns.append(tas.peer.connect(TAS_ADDR, port))
            conns[-1].sendall(b"x")
        pids = {c.recv(100).split()[0] for c in conns}
        assert len(pids) == 4
        for c in conns:
            c.close()
        for _ in range(4):
            with tas.peer.connect(TAS_ADDR, port) as c:
                c.sendall(b"again")
                assert c.recv(100).endswith(b" again")


def test_children_of_a_process_that_dropped_its_privileges_after_listen_own_their_connections(tas: Lab) -> None:
    server = tas.tas_python(
        """
import os, socket
l = socket.create_server(("0.0.0.0", 0))
print(f"listening on 0.0.0.0:{l.getsockname()[1]}")
os.setgid(65534)
os.setuid(65534)
for n in range(3):
    c, _ = l.accept()
    r, w = os.pipe()
    if os.fork() == 0:
        os.close(w)
        os.read(r, 1)
        c.sendall(b"child: " + c.recv(100))
        os._exit(0)
    c.close()
    os.close(w)
    os.wait()
"""
    )
    port = server.listening()
    for _ in range(3):
        with tas.peer.connect(TAS_ADDR, port) as s:
            s.sendall(b"hello")
            assert s.recv(100) == b"child: hello"
    server.ok()


def test_a_connection_goes_on_in_a_forked_child_when_the_parent_closes_it(tas: Lab) -> None:
    server = tas.tas_python(
        """
import os, socket
l = socket.create_server(("0.0.0.0", 0))
print(f"listening on 0.0.0.0:{l.getsockname()[1]}")
c, _ = l.accept()
c.sendall(b"parent ")
if os.fork() == 0:
    l.close()
    while data := c.recv(4096):
        c.sendall(b"child " + data)
    os._exit(0)
c.close()
os.wait()
"""
    )
    with tas.peer.connect(TAS_ADDR, server.listening()) as c:
        assert c.recv(7, 0x100) == b"parent "
        time.sleep(0.2)
        c.sendall(b"hello")
        assert c.recv(100) == b"child hello"
    server.ok()


@pytest.mark.parametrize("way", ["fork+exec", "posix_spawn", "exec"])
def test_an_inherited_connection_is_usable_after_exec(tas: Lab, way: str) -> None:
    server = tas.tas_python(
        f"""
import os, socket, sys
l = socket.create_server(("0.0.0.0", 0))
print(f"listening on 0.0.0.0:{{l.getsockname()[1]}}")
c, _ = l.accept()
c.sendall(b"before ")
os.set_inheritable(c.fileno(), True)
child = '''
import os, socket, sys
c = socket.socket(fileno=int(sys.argv[1]))
while data := c.recv(4096):
    c.sendall(b"after " + data)
'''
argv = [sys.executable, "-c", child, str(c.fileno())]
way = {way!r}
if way == "exec":
    l.close()
    os.execv(argv[0], argv)
if way == "posix_spawn":
    pid = os.posix_spawn(argv[0], argv, os.environ)
else:
    pid = os.fork()
    if pid == 0:
        os.execv(argv[0], argv)
c.close()
assert os.waitpid(pid, 0)[1] == 0
"""
    )
    with tas.peer.connect(TAS_ADDR, server.listening()) as c:
        assert c.recv(7, 0x100) == b"before "
        time.sleep(0.3)
        for n in range(20):
            c.sendall(b"%d" % n)
            assert c.recv(100) == b"after %d" % n
    server.ok()


def test_an_inherited_listener_is_usable_after_exec(tas: Lab) -> None:
    server = tas.tas_python(
        """
import os, socket, sys
l = socket.create_server(("0.0.0.0", 0))
os.set_inheritable(l.fileno(), True)
child = '''
import socket, sys
l = socket.socket(fileno=int(sys.argv[1]))
print(f"listening on 0.0.0.0:{l.getsockname()[1]}", flush=True)
for _ in range(3):
    c, _ = l.accept()
    with c:
        c.sendall(c.recv(100))
'''
os.execv(sys.executable, [sys.executable, "-c", child, str(l.fileno())])
"""
    )
    port = server.listening()
    for _ in range(3):
        with tas.peer.connect(TAS_ADDR, port) as c:
            c.sendall(b"hello")
            assert c.recv(100) == b"hello"
    server.ok()


def test_subprocess_with_a_connection_as_its_standard_output(tas: Lab) -> None:
    """What inetd does: the program knows nothing of sockets."""
    server = tas.tas_python(
        """
import socket, subprocess
l = socket.create_server(("0.0.0.0", 0))
print(f"listening on 0.0.0.0:{l.getsockname()[1]}")
c, _ = l.accept()
with c:
    subprocess.run(["/bin/cat"], stdin=c, stdout=c, check=True)
"""
    )
    with tas.peer.connect(TAS_ADDR, server.listening()) as c:
        c.sendall(b"through cat\\n" * 1000)
        c.shutdown(1)
        got = b""
        while data := c.recv(65536):
            got += data
    assert got == b"through cat\\n" * 1000
    server.ok()


def test_one_thread_listens_and_ten_others_accept(tas: Lab) -> None:
    server = tas.tas_python(
        """
import socket, threading
l = socket.create_server(("0.0.0.0", 0), backlog=128)
def run():
    for _ in range(20):
        c, _ = l.accept()
        with c: c.sendall(c.recv(100))
threads = [threading.Thread(target=run) for _ in range(10)]
for t in threads: t.start()
print(f"listening on 0.0.0.0:{l.getsockname()[1]}")
for t in threads: t.join()
"""
    )
    port = server.listening()
    for n in range(200):
        with tas.peer.connect(TAS_ADDR, port) as c:
            c.sendall(b"%d" % n)
            assert c.recv(100) == b"%d" % n
    server.ok()


# ---- sudden ends ----
def test_a_killed_server_closes_its_connections_towards_the_peer(tas: Lab) -> None:
    server, port = tas.echoserver()
    conns = [tas.peer.connect(TAS_ADDR, port) for _ in range(10)]
    for c in conns:
        c.sendall(b"x")
        assert c.recv(1) == b"x"
    server.kill()
    for c in conns:
        c.settimeout(5)
        with contextlib.suppress(ConnectionResetError):
            assert c.recv(1) == b""
        c.close()
    with pytest.raises(ConnectionRefusedError):
        until("the port refuses", lambda: tas.peer.connect(TAS_ADDR, port).close(), 5)


def test_a_killed_client_of_a_kernel_server_is_noticed(tas: Lab) -> None:
    listener = tas.peer.tcp_socket()
    listener.bind((PEER_ADDR, 0))
    listener.listen()
    client = tas.tas_python(
        f"import socket,time\ns=socket.create_connection(({PEER_ADDR!r},{listener.getsockname()[1]}))\ntime.sleep(60)"
    )
    c, _ = listener.accept()
    c.settimeout(5)
    client.kill()
    assert c.recv(1) == b""
    c.close()
    listener.close()


def test_a_stopped_program_delays_nobody(tas: Lab) -> None:
    stopped, stopped_port = tas.echoserver()
    _, port = tas.echoserver()
    load = tas.kernel(BUILD / "rpcclient", "-c", "8", "-T", "3", "--stall=0", TAS_ADDR, str(stopped_port))
    time.sleep(0.5)
    before = tas.rpc(port, "-c", "8", "-T", "1")
    stopped.signal(signal.SIGSTOP)
    during = tas.rpc(port, "-c", "8", "-T", "1")
    stopped.signal(signal.SIGCONT)
    assert during["rate"] > before["rate"] * 0.5
    assert during["latency_us"]["max"] < 1e6
    load.ok()


LAUNCHES = [
    pytest.param(100, 20, id="100-20"),
    pytest.param(1000, 200, id="1000-200", marks=[pytest.mark.full, pytest.mark.timeout(1200)]),
]


@pytest.mark.parametrize(("launches", "kills"), LAUNCHES)
def test_launches_and_kills_leave_nothing_in_the_service(tas: Lab, launches: int, kills: int) -> None:
    """Each launch serves a few requests over the link; some are ended by SIGKILL at a random moment."""
    import random

    import psutil

    random.seed(os.getpid())
    service = tas.service
    assert service
    doomed = set(random.sample(range(launches), kills))

    def launch(n: int) -> None:
        server, port = tas.echoserver(f"--threads={n % 3 + 1}")
        client = tas.kernel(
            BUILD / "rpcclient", "-c", "4", "-s", "2000", "--stall=5", *(["-T", "5"] if n in doomed else ["-n", "40"]),
            TAS_ADDR, str(port),
        )  # fmt: skip
        if n in doomed:
            time.sleep(random.random() * 0.05)
            server.kill()
            client.wait(20)
        else:
            client.ok()
            server.end()
        tas.procs.clear()

    def rss() -> int:
        if not service.pid:
            return 0
        return int(psutil.Process(service.pid).memory_info().rss)

    for n in range(10):  # what grows once: caches, pools
        launch(n)
    service.settled()
    begin = rss()
    for n in range(launches):
        launch(n)
    service.settled(30)
    assert rss() - begin <= 1 << 20, f"resident memory grew by {(rss() - begin) >> 10} KiB"
