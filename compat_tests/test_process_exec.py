"""Programs that become others with sockets in hand: inetd, socket activation, a clean environment, multiprocessing."""

from __future__ import annotations

import pytest
from _lab import TAS_ADDR, Lab
from _puppet import Puppet, closed, got

CHILD = """
import os, socket, sys
c = socket.socket(fileno=int(sys.argv[1]))
while data := c.recv(4096):
    c.sendall(b"after " + data)
"""


@pytest.mark.parametrize("way", ["exec", "fork+exec", "posix_spawn", "vfork+exec", "vfork+execvp"])
def test_a_program_started_without_ld_preload_has_the_socket(tas: Lab, way: str) -> None:
    """Servers clean the environment of what they start."""
    server = tas.tas_python(
        f"""
import os, socket, subprocess, sys
l = socket.create_server(("0.0.0.0", 0))
print(f"listening on 0.0.0.0:{{l.getsockname()[1]}}")
c, _ = l.accept()
os.set_inheritable(c.fileno(), True)
argv = [sys.executable, "-c", {CHILD!r}, str(c.fileno())]
way = {way!r}
if way == "exec":
    l.close()
    os.execve(argv[0], argv, {{"PATH": "/bin"}})
if way == "posix_spawn":
    pid = os.posix_spawn(argv[0], argv, {{}})
elif way == "fork+exec":
    pid = os.fork()
    if pid == 0:
        os.execve(argv[0], argv, {{}})
else:  # to be closed besides: by vfork, not posix_spawn
    file = argv[0] if way == "vfork+exec" else "python3"
    p = subprocess.Popen([file, *argv[1:]], env={{}}, pass_fds=[c.fileno()])
    pid = p.pid
c.close()
l.close()
assert os.waitpid(pid, 0)[1] == 0
"""
    )
    with tas.peer.connect(TAS_ADDR, server.listening()) as c:
        for n in range(20):
            c.sendall(b"%02d" % n)
            assert got(c, 8) == b"after %02d" % n
        c.shutdown(1)
        assert closed(c) == "eof"
    server.ok()


INETD = """
import os, socket, sys
l = socket.create_server(("0.0.0.0", 0))
print(f"listening on 0.0.0.0:{l.getsockname()[1]}", flush=True)
for _ in range(3):
    c, _ = l.accept()
    if os.fork() == 0:
        for fd in (0, 1, 2):
            os.dup2(c.fileno(), fd)
        os.closerange(3, 1000)
        os.execvp(sys.argv[1], sys.argv[1:])
    c.close()
    os.wait()
"""


@pytest.mark.parametrize(
    ("argv", "sent", "back"),
    [
        (["/bin/sh", "-c", 'read a; read b; echo "<$a> <$b>"; echo to stderr >&2'], b"one\ntwo\n",
         b"<one> <two>\nto stderr\n"),
        (["/usr/bin/python3", "-c", "import sys\nfor x in sys.stdin: print('got', x, end='', flush=True)"], b"a\nb\n",
         b"got a\ngot b\n"),
        (["/usr/bin/sort", "-r"], b"1\n3\n2\n", b"3\n2\n1\n"),
        (["/usr/bin/perl", "-pe", "$| = 1; s/x/y/g"], b"xx\nx\n", b"yy\ny\n"),
        (["/bin/bash", "-c", "exec 5<&0; cat <&5 | tr a-z A-Z"], b"shout\n", b"SHOUT\n"),
    ],
    ids=["sh", "python", "sort", "perl", "bash"],
)  # fmt: skip
def test_inetd_starts_programs_that_know_nothing_of_sockets(
    tas: Lab, argv: list[str], sent: bytes, back: bytes
) -> None:
    server = tas.tas_python(INETD, *argv)
    port = server.listening()
    for _ in range(3):
        with tas.peer.connect(TAS_ADDR, port) as c:
            c.sendall(sent)
            c.shutdown(1)
            have = b""
            while data := c.recv(4096):
                have += data
            assert have == back
    server.ok()


def test_socket_activation(tas: Lab) -> None:
    """LISTEN_FDS: listeners and a connection wait at 3, 4, 5 for the program that was started for them."""
    service = """
import os, socket, sys
assert os.environ["LISTEN_PID"] == str(os.getpid())
n = int(os.environ["LISTEN_FDS"])
socks = [socket.socket(fileno=3 + i) for i in range(n)]
assert [s.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) for s in socks] == [1, 1, 0]
c, _ = socks[0].accept()
d, _ = socks[1].accept()
c.sendall(b"first " + c.recv(100))
d.sendall(b"second " + d.recv(100))
socks[2].sendall(b"third " + socks[2].recv(100))
"""
    server = tas.tas_python(
        f"""
import os, socket, sys
a = socket.create_server(("0.0.0.0", 0))
b = socket.create_server(("0.0.0.0", 0))
print(f"listening on 0.0.0.0:{{a.getsockname()[1]}} and {{b.getsockname()[1]}}", flush=True)
c, _ = a.accept()
high = [os.dup(s.fileno()) for s in (a, b, c)]
high = [os.dup2(h, 20 + i, False) for i, h in enumerate(high)]
for i, h in enumerate(high):
    os.dup2(h, 3 + i, True)
os.closerange(6, 100)
os.environ.update(LISTEN_FDS="3", LISTEN_PID=str(os.getpid()))
os.execv(sys.executable, [sys.executable, "-c", {service!r}])
"""
    )
    ports = server.line(r"listening on \S*:(\d+) and (\d+)")
    with tas.peer.connect(TAS_ADDR, int(ports[1])) as z:
        with tas.peer.connect(TAS_ADDR, int(ports[1])) as x, tas.peer.connect(TAS_ADDR, int(ports[2])) as y:
            for s, text in ((x, b"x"), (y, b"y"), (z, b"z")):
                s.sendall(text)
            assert got(x, 7) == b"first x"
            assert got(y, 8) == b"second y"
        assert got(z, 7) == b"third z"
    server.ok()


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_multiprocessing_passes_sockets(tas: Lab, method: str) -> None:
    script = f"""
import multiprocessing as mp, os, socket, sys
def work(conn, n):
    while (s := conn.recv()) is not None:
        with s:
            s.sendall(b"%d %d " % (n, os.getpid()) + s.recv(100))
        conn.send("next")
if __name__ == "__main__":
    mp.set_start_method({method!r})
    l = socket.create_server(("0.0.0.0", 0), backlog=64)
    ends = []
    for n in range(3):
        ours, theirs = mp.Pipe()
        p = mp.Process(target=work, args=(theirs, n))
        p.start()
        ends.append((ours, p))
    print(f"listening on 0.0.0.0:{{l.getsockname()[1]}}", flush=True)
    for n in range(15):
        c, _ = l.accept()
        ours, p = ends[n % 3]
        ours.send(c)
        c.close()
        ours.recv()
    for ours, p in ends:
        ours.send(None)
        p.join()
        assert p.exitcode == 0
"""
    server = tas.tas_python(script)
    port = server.listening()
    pids = set()
    for n in range(15):
        with tas.peer.connect(TAS_ADDR, port) as c:
            c.sendall(b"hello")
            have = b""
            while data := c.recv(100):
                have += data
            who, pid, text = have.split()
            assert (int(who), text) == (n % 3, b"hello")
            pids.add(pid)
    assert len(pids) == 3
    server.ok()


def test_a_connection_survives_exec_into_another_user(public_tas: Lab) -> None:
    """What su and sudo do for a program that inherits them, without the secure mode of their own binaries."""
    tas = public_tas
    a = Puppet(tas)
    a("l = socket.create_server(('0.0.0.0', 0)); port = l.getsockname()[1]")
    with tas.peer.connect(TAS_ADDR, a("port")) as far:
        a("c, _ = l.accept(); os.set_inheritable(c.fileno(), True)")
        a(
            "pid = os.fork() or (os.setgroups([]), os.setresgid(12345, 12345, 12345), "
            "os.setresuid(12345, 12345, 12345), "
            f"os.execve('/usr/bin/python3', ['python3', '-c', {CHILD!r}, str(c.fileno())], os.environ))"
        )
        far.sendall(b"x")
        assert got(far, 7) == b"after x"
        a("c.sendall(b'parent')")
        assert got(far, 6) == b"parent"
        a("c.close()")
        far.sendall(b"y")
        assert got(far, 7) == b"after y"
        far.shutdown(1)
        assert closed(far) == "eof"
    assert a("os.waitpid(pid, 0)[1]") == 0
