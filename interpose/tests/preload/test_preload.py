# SPDX-License-Identifier: MIT
"""What a program sees under the interposer is what it sees on the kernel.

Each program of this folder prints what its calls gave.  It runs on the kernel, under the interposer without a service
(every socket falls back), and under the interposer with a service (loopback connections go through TAS); the texts
are equal.  TAS_BUILD names the build folder.
"""

from __future__ import annotations

import difflib
import errno
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[3]
BUILD = Path(os.environ.get("TAS_BUILD", ROOT / "build")).resolve()
LIBRARY = BUILD / "libtas_interpose.so"
PROGRAMS = [
    "calls", "numbers", "waits", "streams", "processes", "syscalls", "early", "signals", "disturbed", "cancel",
    "confined", "thousand", "members", "sets",
]  # fmt: skip
MODES = ["fallback", "service"]
LIBC = "/lib/x86_64-linux-gnu/libc.so.6"

pytestmark = pytest.mark.skipif(not LIBRARY.exists(), reason="libtas_interpose.so is not built")


@pytest.fixture(scope="session")
def service() -> Iterator[Path]:
    """A service without a link; the path of its control socket, which every user can reach."""
    tas = BUILD / "tas"
    if not tas.exists():
        pytest.skip("the service is not built")
    folder = Path(tempfile.mkdtemp(prefix="tas-preload-"))
    folder.chmod(0o755)
    path = folder / "tas.sock"
    log = path.with_suffix(".log").open("wb")
    read_end, write_end = os.pipe()
    command = [str(tas), "--link=none", "--ip-addr=10.99.0.1/24", f"--socket={path}", f"--ready-fd={write_end}"]
    process = subprocess.Popen(command, pass_fds=[write_end], stdout=log, stderr=log)
    os.close(write_end)
    ready = os.read(read_end, 1)
    os.close(read_end)
    try:
        assert ready, path.with_suffix(".log").read_text()
        yield path
        assert process.poll() is None, path.with_suffix(".log").read_text()
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        log.close()
        shutil.rmtree(folder)


def environment(mode: str, request: pytest.FixtureRequest) -> dict[str, str]:
    path = request.getfixturevalue("service") if mode == "service" else "/nonexistent/tas.sock"
    return {**os.environ, "LD_PRELOAD": str(LIBRARY), "TAS_SOCKET": str(path)}


def run(command: list[str], env: dict[str, str] | None = None) -> tuple[int, str]:
    done = subprocess.run(command, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=100)
    return done.returncode, done.stdout


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("program", PROGRAMS)
def test_program_prints_what_it_prints_on_the_kernel(program: str, mode: str, request: pytest.FixtureRequest) -> None:
    path = str(BUILD / "tests" / "preload" / program)
    kernel = run([path])
    assert kernel[0] == 0
    ours = run([path], environment(mode, request))
    assert ours == kernel, "\n".join(difflib.unified_diff(kernel[1].splitlines(), ours[1].splitlines(), lineterm=""))


def names_at_addresses(library: str) -> dict[str, set[str]]:
    """Exported functions of a library by address; those that libc keeps for itself are left out."""
    found: dict[str, set[str]] = {}
    command = ["nm", "-D", "--defined-only", library]
    for line in subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines():
        address, kind, name = line.split()
        if kind in "TWi" and not name.endswith("GLIBC_PRIVATE"):
            found.setdefault(address, set()).add(name.split("@")[0])
    return found


def test_every_other_name_of_a_wrapped_function_is_wrapped() -> None:
    ours = set().union(*names_at_addresses(str(LIBRARY)).values())
    libc = names_at_addresses(LIBC)
    assert not [names - ours for names in libc.values() if names & ours and names - ours]
    assert {"read", "__read", "fcntl", "fcntl64", "sendfile64"} <= ours


SERVE = """
import socket, sys, threading, select, subprocess
srv = socket.create_server(("127.0.0.1", 0))
def serve():
    conn, _ = srv.accept()
    with conn, conn.makefile("rw") as f:
        f.write(f.readline().upper())
thread = threading.Thread(target=serve)
thread.start()
with socket.create_connection(srv.getsockname()) as c:
    c.sendall(b"hello\\n")
    select.select([c], [], [], 5)
    print(c.recv(99), c.recv(99))
thread.join()
print(subprocess.check_output(["echo", "child"]), subprocess.run("exit 3", shell=True).returncode)
"""

ASYNCIO = """
import asyncio
async def handle(r, w):
    w.write(await r.readline())
    await w.drain()
    w.close()
async def main():
    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    for i in range(50):
        r, w = await asyncio.open_connection(*server.sockets[0].getsockname())
        w.write(b"line %d\\n" % i)
        assert await r.readline() == b"line %d\\n" % i
        w.close()
    print("asyncio")
asyncio.run(main())
"""

PERL = """
use IO::Socket::INET;
$l = IO::Socket::INET->new(Listen => 1, LocalAddr => "127.0.0.1") or die;
if (fork() == 0) {
    $c = IO::Socket::INET->new(PeerAddr => "127.0.0.1:" . $l->sockport) or die;
    print $c "from perl\\n"; print scalar <$c>; exit 0;
}
$a = $l->accept; $line = <$a>; print $a uc $line; close $a; wait; print "done ", `echo sub`;
"""

NODE = """
const net = require("net");
const server = net.createServer(c => c.pipe(c)).listen(0, "127.0.0.1", () => {
  const c = net.connect(server.address().port, "127.0.0.1");
  c.end("from node\\n");
  c.on("data", d => process.stdout.write(d)).on("close", () => server.close());
});
console.log(require("child_process").execSync("echo child").toString());
"""

REAL = {
    "true": ["true"],
    "bash": ["bash", "-c", "echo a b | tr a-c A-C | cat; ls / | wc -l; (exit 3); echo $?; cat <(echo hi); exit 4"],
    "git": ["git", "--version"],
    "perl": ["perl", "-e", PERL],
    "python": [sys.executable, "-c", SERVE],
    "asyncio": [sys.executable, "-c", ASYNCIO],
    "node": ["node", "-e", NODE],
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", REAL)
def test_real_program_does_what_it_does_on_the_kernel(name: str, mode: str, request: pytest.FixtureRequest) -> None:
    if subprocess.run(["which", REAL[name][0]], capture_output=True).returncode:
        pytest.skip(f"{REAL[name][0]} is not installed")
    kernel = run(REAL[name])
    assert run(REAL[name], environment(mode, request)) == kernel


def tasctl(service: Path, *args: str) -> Any:
    command = [sys.executable, "-m", "tas_sockets.tasctl", "--socket", str(service), *args, "--json"]
    return json.loads(subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout)


def local_connections(service: Path) -> int:
    return int(tasctl(service, "stats")["counters"]["conn_local"])


RAW = str(BUILD / "tests" / "preload" / "raw")


@pytest.mark.parametrize("mode", MODES)
def test_raw_system_calls_work_when_they_are_caught(mode: str, request: pytest.FixtureRequest) -> None:
    kernel = run([RAW])
    before = local_connections(request.getfixturevalue("service"))
    assert run([RAW], environment(mode, request) | {"TAS_RAW": "catch"}) == kernel
    carried = local_connections(request.getfixturevalue("service")) - before
    assert carried == (13 if mode == "service" else 0)


@pytest.fixture(scope="session")
def go_program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not shutil.which("go"):
        pytest.skip("go is not installed")
    folder = tmp_path_factory.mktemp("go")
    env = {
        **os.environ,
        "CGO_ENABLED": "1",
        "GOCACHE": str(folder / "cache"),
        "GOFLAGS": "-mod=mod",
        "HOME": str(folder),
    }
    source = Path(__file__).with_name("web.go")
    subprocess.run(["go", "build", "-o", str(folder / "web"), str(source)], env=env, check=True, timeout=280)
    return folder / "web"


@pytest.mark.timeout(300)
@pytest.mark.parametrize("how", ["off", "report", "catch"])
def test_go_program_that_links_libc(how: str, go_program: Path, request: pytest.FixtureRequest) -> None:
    """Go makes its own system calls: it runs as ever, and only when they are caught its connections are TAS's."""
    service = request.getfixturevalue("service")
    kernel = run([str(go_program)])
    before = local_connections(service)
    assert run([str(go_program)], environment("service", request) | {"TAS_RAW": how}) == kernel
    assert (local_connections(service) - before >= 20) == (how == "catch")


@pytest.mark.parametrize(("how", "result"), [("report", [-32, -107]), ("catch", [1, 5])])
def test_raw_calls_on_tas_sockets_are_reported(how: str, result: list[int], request: pytest.FixtureRequest) -> None:
    service = request.getfixturevalue("service")
    env = environment("service", request) | {"TAS_RAW": how}
    with subprocess.Popen([RAW, "hold"], env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as program:
        assert program.stdout
        assert program.stdin
        lines = [program.stdout.readline() for _ in range(6)]
        assert lines == [f"write {result[0]}\n"] * 5 + [f"recvfrom {result[1]}\n"]
        sites = [s for s in tasctl(service, "raw") if s["pid"] == program.pid]
        program.stdin.close()
    # write is number 1, recvfrom 45; the count of a site is told when it has doubled
    assert {(s["object"], s["nr"], s["caught"]) for s in sites} == {("raw", 1, how == "catch")}
    assert [s["count"] for s in sites] == [4]


def test_busy_sites_are_rewritten_and_nothing_else_changes(request: pytest.FixtureRequest) -> None:
    """Registers, flags, what lies below the stack pointer; signals at any moment; the ways of the calls afterwards."""
    kernel = run([RAW, "rewritten"])[1].splitlines()
    env = environment("service", request) | {"TAS_RAW": "catch"}
    code, text = run([RAW, "rewritten"], env)
    caught = text.splitlines()
    assert code == 0
    assert kernel[1] == "sites 0f05 0f05"
    assert re.fullmatch("sites eb.. eb..", caught[1])
    assert [caught[0], *caught[2:]] == [kernel[0], *kernel[2:]]


def test_programs_that_may_make_raw_calls_are_found_without_their_help(request: pytest.FixtureRequest) -> None:
    service = request.getfixturevalue("service")
    env = environment("service", request)
    ours = [[RAW, "hold"], [sys.executable, "-c", UNACTED]]
    programs = [subprocess.Popen(c, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for c in ours]
    try:
        for program in programs:
            assert program.stdout
            assert program.stdout.readline()
        found = {(f["pid"], Path(f["object"]).name): f for f in tasctl(service, "raw", "--look")}
        assert found[programs[0].pid, "raw"]["sites"] >= 2
        assert not found[programs[0].pid, "raw"]["go"]
        assert not [name for pid, name in found if pid == programs[1].pid]
    finally:
        for program in programs:
            program.communicate()


def test_io_uring_is_refused_where_there_is_a_service(request: pytest.FixtureRequest) -> None:
    env = environment("service", request)
    kernel = run([RAW, "ring"])
    assert kernel[1] in ("before 0\nafter 0\n", f"before {errno.EPERM}\nafter {errno.EPERM}\n")
    assert run([RAW, "ring"], env) == (0, f"before {errno.ENOSYS}\nafter {errno.ENOSYS}\n")
    assert run([RAW, "ring"], env | {"TAS_IO_URING": "allow"}) == kernel
    assert run([RAW, "ring"], env | {"TAS_SOCKET": "/nowhere"}) == kernel


def test_library_with_names_of_its_own_first_gets_ours(request: pytest.FixtureRequest) -> None:
    service = request.getfixturevalue("service")
    before = local_connections(service)
    library = str(BUILD / "tests" / "preload" / "libearly.so")
    assert run([RAW, "deep", library], environment("service", request)) == (0, "")
    assert local_connections(service) - before == 2  # its constructor's, and the one it is asked for


UNACTED = """
import socket, sys
srv = socket.create_server(("127.0.0.1", 0))
c = socket.socket()
c.setsockopt(socket.IPPROTO_IP, 21, 16)  # IP_MINTTL
c.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
c.connect(srv.getsockname())
s, _ = srv.accept()
s.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, b"reno")
print(c.getsockname()[1], flush=True)
sys.stdin.read()
"""


def test_options_that_tas_does_not_act_on_are_shown(request: pytest.FixtureRequest) -> None:
    service = request.getfixturevalue("service")
    command = [sys.executable, "-c", UNACTED]
    env = environment("service", request)
    with subprocess.Popen(command, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as program:
        assert program.stdout
        assert program.stdin
        port = int(program.stdout.readline())
        conns = tasctl(service, "conns")
        program.stdin.close()
    assert [c["unacted"] for c in conns if c["local"].endswith(f":{port}")] == [["IP_MINTTL"]]
    assert [c["unacted"] for c in conns if c["peer"].endswith(f":{port}")] == [["TCP_CONGESTION"]]


BIND_LOW = """
import socket
for port in (80, 1023, 1024):
    try:
        socket.create_server(("127.0.0.1", port)).close()
        print(port, "bound")
    except OSError as e:
        print(port, e.errno)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user")
def test_privileged_ports_are_refused_by_the_programs_credentials(request: pytest.FixtureRequest) -> None:
    """The service may bind anything; a program of another user may not."""
    command = [
        "unshare",
        "--net",
        "sh",
        "-c",
        'ip link set lo up; exec setpriv --reuid 65534 --clear-groups "$@"',
        "sh",
    ]
    command += ["/usr/bin/python3", "-c", BIND_LOW]
    kernel = run(command)
    assert kernel == (0, f"80 {errno.EACCES}\n1023 {errno.EACCES}\n1024 bound\n")
    env = environment("service", request) | {"TAS_REQUIRE": "1"}  # it reaches the service, or nothing is bound
    preload = [f"{name}={env.pop(name)}" for name in ("LD_PRELOAD", "TAS_SOCKET", "TAS_REQUIRE")]
    assert run([*command[:-3], "env", *preload, *command[-3:]], env) == kernel


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as s:
        return int(s.getsockname()[1])


@pytest.mark.parametrize("mode", MODES)
def test_curl_fetches_from_http_server(mode: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    env = environment(mode, request)
    content = os.urandom(1 << 20)
    (tmp_path / "file").write_bytes(content)
    port = free_port()
    command = [sys.executable, "-m", "http.server", "--bind", "127.0.0.1", "--directory", str(tmp_path), str(port)]
    server = subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        fetch = ["curl", "-s", "--retry", "20", "--retry-connrefused", "--retry-delay", "1", "--max-time", "30"]
        for client in (env, None):
            got = subprocess.run([*fetch, f"http://127.0.0.1:{port}/file"], env=client, capture_output=True, timeout=60)
            assert got.stdout == content
    finally:
        server.terminate()
        server.wait(20)


@pytest.mark.parametrize("mode", MODES)
def test_preloading_costs_little_at_start(mode: str, request: pytest.FixtureRequest) -> None:
    env = environment(mode, request)
    plain = {k: v for k, v in env.items() if k != "LD_PRELOAD"}
    times: dict[bool, list[float]] = {True: [], False: []}
    for i in range(160):  # by turns, so that the machine's other work falls on both
        start = time.perf_counter()
        subprocess.run(["/bin/true"], env=env if i % 2 else plain, check=True)
        times[bool(i % 2)].append(time.perf_counter() - start)
    assert sorted(times[True])[10] - sorted(times[False])[10] < 0.002


def test_nothing_is_left_of_programs_that_ended(service: Path, request: pytest.FixtureRequest) -> None:
    env = environment("service", request)
    for program in PROGRAMS:
        assert run([str(BUILD / "tests" / "preload" / program)], env)[0] == 0
    conns = [sys.executable, "-m", "tas_sockets.tasctl", "--socket", str(service), "conns", "--json"]
    deadline = time.monotonic() + 10
    while True:
        done = subprocess.run(conns, cwd=ROOT, capture_output=True, text=True, check=True)
        left = [c for c in json.loads(done.stdout) if c["state"] != "TIME_WAIT"]
        if not left or time.monotonic() > deadline:
            break
        time.sleep(0.05)
    assert not left


def test_a_thousand_threads_wake_when_the_service_is_killed(tmp_path: Path) -> None:
    path = tmp_path / "tas.sock"
    read_end, write_end = os.pipe()
    command = [str(BUILD / "tas"), "--link=none", "--ip-addr=10.99.0.1/24"]
    command += [f"--socket={path}", f"--ready-fd={write_end}"]
    with (tmp_path / "log").open("wb") as log:
        tas = subprocess.Popen(command, pass_fds=[write_end], stdout=log, stderr=log)
    os.close(write_end)
    env = {**os.environ, "LD_PRELOAD": str(LIBRARY), "TAS_SOCKET": str(path), "TAS_REQUIRE": "1"}
    try:
        assert os.read(read_end, 1)
        program = [str(BUILD / "tests" / "preload" / "thousand"), "until the service dies"]
        with subprocess.Popen(program, env=env, stdout=subprocess.PIPE, text=True) as p:
            try:
                assert p.stdout
                assert p.stdout.readline() == "asleep 1000\n"
                tas.kill()
                assert p.communicate(timeout=20)[0] == "returned 1000, data 0\n"
            finally:
                p.kill()
    finally:
        tas.kill()
        tas.wait()
        os.close(read_end)
