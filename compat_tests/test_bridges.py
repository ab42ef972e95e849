"""Programs that cannot have the library inherit connections: static binaries, and those in the linker's secure mode."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import struct
import subprocess
import threading
from pathlib import Path

import pytest
from _lab import TAS_ADDR, Lab, until
from _puppet import Puppet, closed, got

# cat MODE: "echo" copies 0 to 1; "sink" reads when a signal tells it to; "talk" writes 4 MB, half-closes, and counts
STATIC = r"""
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
static char b[65536];
static void nothing(int s) { (void)s; }
int main(int argc, char **argv)
{
	ssize_t n;
	size_t total = 0;
	if (argc > 1 && !strcmp(argv[1], "sink")) {
		signal(SIGUSR1, nothing);
		pause();
	}
	if (argc > 1 && !strcmp(argv[1], "talk")) {
		for (int i = 0; i < 64; i++) {
			memset(b, i, sizeof b);
			for (size_t at = 0; at < sizeof b; at += (size_t)n)
				if ((n = write(1, b + at, sizeof b - at)) < 0)
					return 2;
		}
		if (shutdown(1, SHUT_WR))
			return 3;
	}
	while ((n = read(0, b, sizeof b)) > 0) {
		total += (size_t)n;
		if (argc > 1 && !strcmp(argv[1], "echo") && write(1, b, (size_t)n) != n)
			return 4;
	}
	if (argc > 2) {
		FILE *f = fopen(argv[2], "w");
		fprintf(f, "%zu %d", total, n < 0);
		fclose(f);
	}
	return 0;
}
"""


@pytest.fixture(scope="module")
def static(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("static")
    (folder / "cat.c").write_text(STATIC)
    subprocess.run(["gcc", "-O", "-static", "-o", folder / "cat", folder / "cat.c"], check=True)
    return folder / "cat"


# by libc's functions, which make the process where no wrapper stands
SPAWN = """
import ctypes, shlex, threading
libc = ctypes.CDLL(None)
def actions(n):
    return [(os.POSIX_SPAWN_DUP2, n, 0), (os.POSIX_SPAWN_DUP2, n, 1)]
def posix_spawn(args, n):
    return os.posix_spawn(args[0], args, os.environ, file_actions=actions(n))
def posix_spawnp(args, n):
    env = {**os.environ, "PATH": os.path.dirname(args[0])}
    os.environ["PATH"] = env["PATH"]
    return os.posix_spawnp(os.path.basename(args[0]), args, env, file_actions=actions(n))
def posix_spawn_without_preload(args, n):
    return os.posix_spawn(args[0], args, {}, file_actions=actions(n))
def waited(call):
    pid = os.fork()
    if pid == 0:
        os._exit(call())
    return pid
def onto_standard(n):
    os.dup2(n, 0); os.dup2(n, 1); os.close(n)
def system(args, n):
    return waited(lambda: onto_standard(n) or libc.system(shlex.join(args).encode()) >> 8)
def system_without_preload(args, n):
    return waited(lambda: onto_standard(n) or os.unsetenv("LD_PRELOAD") or libc.system(shlex.join(args).encode()) >> 8)
def popen(args, n, mode=b"w"):
    libc.popen.restype = ctypes.c_void_p
    def call():
        onto_standard(n)
        os.dup2(0, 3)
        f = libc.popen((shlex.join(args) + " <&3").encode(), mode)
        return libc.pclose(ctypes.c_void_p(f)) >> 8
    return waited(call)
def popen_without_preload(args, n):
    os.unsetenv("LD_PRELOAD")
    return popen(args, n)
"""
SPAWNS = (
    "posix_spawn", "posix_spawnp", "posix_spawn_without_preload", "system", "system_without_preload", "popen",
    "popen_without_preload",
)  # fmt: skip


def begin(lab: Lab, a: Puppet, program: Path, *argv: str, way: str = "fork+exec") -> socket.socket:
    """The program with a new connection as its standard input and output; the far end."""
    if not a("'l' in globals()"):
        a("import subprocess; l = socket.create_server(('0.0.0.0', 0)); port = l.getsockname()[1]")
    far = lab.peer.connect(TAS_ADDR, a("port"))
    a("c, _ = l.accept()")
    args = [str(program), *argv]
    if way in SPAWNS:
        a(SPAWN)
        a(f"pid = {way}({args!r}, c.fileno()); c.close()")
    elif way == "vfork+exec":
        a(f"p = subprocess.Popen({args!r}, stdin=c, stdout=c); pid = p.pid; c.close()")
    else:
        a("pid = os.fork() or (os.dup2(c.fileno(), 0), os.dup2(c.fileno(), 1), "
          f"os.execv({args[0]!r}, {args!r})); c.close()")  # fmt: skip
    return far


@pytest.mark.parametrize("way", ["fork+exec", "vfork+exec", *SPAWNS])
def test_a_static_program_talks_over_its_connection(tas: Lab, static: Path, way: str) -> None:
    a = Puppet(tas)
    with begin(tas, a, static, "echo", way=way) as far:
        for n in range(50):
            far.sendall(b"%03d" % n)
            assert got(far, 3) == b"%03d" % n
        data = os.urandom(3_000_000)
        writer = threading.Thread(target=far.sendall, args=(data,))
        writer.start()
        assert got(far, len(data)) == data
        writer.join()
        far.settimeout(20)
        far.shutdown(1)
        assert closed(far) == "eof"
    assert a("os.waitpid(pid, 0)[1]") == 0


def test_half_close_by_the_program(tas: Lab, static: Path) -> None:
    a = Puppet(tas)
    said = tas.tmp / "said"
    with begin(tas, a, static, "talk", str(said)) as far:
        seen = got(far, 64 * 65536)
        assert seen == b"".join(bytes([i]) * 65536 for i in range(64))
        assert far.recv(1) == b""
        far.sendall(b"x" * 100_000)  # the other direction stands
        far.shutdown(1)
        assert a("os.waitpid(pid, 0)[1]") == 0
        assert said.read_text() == "100000 0"


def test_a_program_that_does_not_read_holds_the_sender_up_and_then_gets_everything(tas: Lab, static: Path) -> None:
    a = Puppet(tas)
    said = tas.tmp / "said"
    with begin(tas, a, static, "sink", str(said)) as far:
        far.settimeout(0.5)
        sent = 0
        with contextlib.suppress(TimeoutError):
            while sent < 1 << 30:
                sent += far.send(b"y" * 65536)
        assert 65536 < sent < 1 << 30
        a("os.kill(pid, signal.SIGUSR1)")
        far.settimeout(20)
        far.shutdown(1)
        assert closed(far) == "eof"
    assert a("os.waitpid(pid, 0)[1]") == 0
    assert said.read_text() == f"{sent} 0"


@pytest.mark.parametrize("unread", [False, True])
def test_the_death_of_the_program_is_the_end_of_the_connection(tas: Lab, static: Path, unread: bool) -> None:
    a = Puppet(tas)
    with begin(tas, a, static, "sink" if unread else "echo") as far:
        far.sendall(b"hello")
        if not unread:
            assert got(far, 5) == b"hello"
        else:
            until("it lies before the program", lambda: a("open(f'/proc/{pid}/wchan').read()") != "")
        a("os.kill(pid, 9); os.waitpid(pid, 0)")
        assert closed(far) == ("reset" if unread else "eof")


def test_a_reset_by_the_peer_ends_the_program(tas: Lab, static: Path) -> None:
    a = Puppet(tas)
    far = begin(tas, a, static, "echo")
    far.sendall(b"hello")
    assert got(far, 5) == b"hello"
    far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    far.close()
    assert a("os.waitpid(pid, 0)[1]") in (0, 13)  # end of file; SIGPIPE


def test_an_exec_that_fails_leaves_the_connection_as_it_was(tas: Lab, static: Path) -> None:
    a = Puppet(tas)
    a("l = socket.create_server(('0.0.0.0', 0)); port = l.getsockname()[1]")
    with tas.peer.connect(TAS_ADDR, a("port")) as far:
        a("c, _ = l.accept(); os.set_inheritable(c.fileno(), True)")
        assert a(f"os.execv({str(static)!r}, ['x' * 3_000_000])") == "E2BIG"
        far.sendall(b"still")
        assert a("got(c, 5)") == b"still"
        a("c.sendall(b'here'); c.close()")
        assert got(far, 4) == b"here"
        assert closed(far) == "eof"


def test_the_parent_keeps_the_connection(tas: Lab, static: Path) -> None:
    a = Puppet(tas)
    a("l = socket.create_server(('0.0.0.0', 0)); port = l.getsockname()[1]")
    with tas.peer.connect(TAS_ADDR, a("port")) as far:
        a("c, _ = l.accept()")
        a("pid = os.fork() or (os.dup2(c.fileno(), 0), os.dup2(c.fileno(), 1), "
          f"os.execv({str(static)!r}, ['cat', 'echo']))")  # fmt: skip
        far.sendall(b"child")
        assert got(far, 5) == b"child"
        a("os.kill(pid, 9); os.waitpid(pid, 0)")
        a("c.sendall(b'parent')")
        assert got(far, 6) == b"parent"
        far.sendall(b"to you")
        assert a("got(c, 6)") == b"to you"
        a("c.close()")
        assert closed(far) == "eof"


def test_a_set_user_id_program(public_tas: Lab) -> None:
    """As sudo and su are: LD_PRELOAD is not obeyed."""
    tas = public_tas
    program = tas.tmp / "suid-cat"
    shutil.copy("/bin/cat", program)
    program.chmod(0o4755)
    a = Puppet(tas)
    a("l = socket.create_server(('0.0.0.0', 0)); port = l.getsockname()[1]")
    a("os.setgroups([]); os.setresgid(12345, 12345, 12345); os.setresuid(12345, 12345, 12345)")
    with begin(tas, a, program) as far:
        far.sendall(b"over sudo")
        assert got(far, 9) == b"over sudo"
        far.shutdown(1)
        assert closed(far) == "eof"
    assert a("os.waitpid(pid, 0)[1]") == 0


def test_a_script_with_a_static_interpreter(tas: Lab, static: Path) -> None:
    script = tas.tmp / "script"
    script.write_text(f"#!{static} echo\n")
    script.chmod(0o755)
    a = Puppet(tas)
    with begin(tas, a, script) as far:
        far.sendall(b"x")
        assert got(far, 1) == b"x"
        far.shutdown(1)
        assert closed(far) == "eof"
