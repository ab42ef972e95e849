"""The service as such: second instances, death, rights, tasctl."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from _lab import BUILD, KERNEL_ONLY, ROOT, TAS_ADDR, Lab, Proc, Service, until

pytestmark = pytest.mark.skipif(KERNEL_ONLY, reason="no service in kernel mode")


def test_a_second_instance_on_the_same_socket_is_refused(tas: Lab) -> None:
    assert tas.service
    second = tas.start(tas.app, BUILD / "tas", "--link=none", f"--socket={tas.service.socket}")
    assert second.wait(20) != 0
    assert tas.service.socket in second.err
    _, port = tas.echoserver()
    assert tas.rpc(port, "-n", "100")["requests"] == 100


def test_instances_on_different_sockets_run_side_by_side(tas: Lab) -> None:
    _, port = tas.echoserver()
    first = tas.service
    assert first
    Service(tas, link=False)
    second = tas.service
    assert second
    try:
        _, local_port = tas.echoserver()
        tas.tas(BUILD / "rpcclient", "-n", "200", "127.0.0.1", str(local_port)).ok()
        assert tas.rpc(port, "-n", "200")["requests"] == 200
    finally:
        tas.end_programs()
        second.finish(True)
        tas.service = first


HOLD = """
import errno, select, socket, sys
def name(f):
    try: return repr(f())
    except OSError as e: return errno.errorcode[e.errno]
{connect}
p = select.poll()
p.register(s, select.POLLIN | select.POLLRDHUP)
print("connected", flush=True)
events = p.poll(20000)
flags = events[0][1] if events else 0
print("hup", bool(flags & select.POLLHUP), "err", bool(flags & select.POLLERR), "in", bool(flags & select.POLLIN))
print("recv", name(lambda: s.recv(10)))
print("send", name(lambda: s.send(b"x")))
print("recv again", name(lambda: s.recv(10)), flush=True)
"""
LISTEN = """l = socket.create_server(("0.0.0.0", 0))
print(f"listening on 0.0.0.0:{l.getsockname()[1]}", flush=True)
s, _ = l.accept()
"""


def held(p: Proc) -> None:
    assert p.ok(30).split("connected\n")[1] == (
        "hup True err True in True\nrecv ECONNRESET\nsend EPIPE\nrecv again b''\n"
    )


def test_connections_end_when_the_service_is_killed_whether_polled_or_blocked(tas: Lab) -> None:
    assert tas.service
    polled = tas.tas_python(HOLD.format(connect=LISTEN))
    blocked = tas.tas_python(
        f"""
import errno, socket
{LISTEN}
print("connected", flush=True)
try: print(s.recv(10))
except OSError as e: print(errno.errorcode[e.errno])
"""
    )
    conns = [tas.peer.connect(TAS_ADDR, p.listening()) for p in (polled, blocked)]
    for p in (polled, blocked):
        p.line("connected")
    tas.service.kill()
    held(polled)
    assert "ECONNRESET" in blocked.ok(20)
    for c in conns:
        c.close()


def test_a_listener_outlives_the_service_and_registers_with_the_next(tas: Lab) -> None:
    service = tas.service
    assert service
    _, port = tas.echoserver("--threads=2")
    assert tas.rpc(port, "-n", "100")["requests"] == 100
    service.kill()
    got = tas.start(tas.app, BUILD / "rpcclient", "-j", "-n", "100", "127.0.0.1", str(port)).json()
    assert got["requests"] == 100  # its kernel half goes on
    until("the tap of the killed service is gone", lambda: service.tap not in tas.peer.ip("link"), 10)
    service.start()
    until("the listener is registered", lambda: service.gauges()["listeners"] == 1, 15)
    with service.carried(conn_passive=4):
        assert tas.rpc(port, "-c", "4", "-n", "400")["requests"] == 400
    tas.end_programs()
    service.base = {k: v for k, v in service.base.items() if k in ("processes", "sockets", "listeners")}


def test_a_killed_services_leftovers_are_cleaned_at_the_next_start(lab: Lab) -> None:
    service = Service(lab)
    service.kill()
    assert os.path.exists(service.socket)
    until("the tap is gone", lambda: service.tap not in lab.peer.ip("link"), 10)
    service.start()


def test_the_service_ends_by_sigint_as_well(lab: Lab) -> None:
    service = Service(lab)
    service.popen.send_signal(signal.SIGINT)
    assert service.popen.wait(15) == 0
    assert not os.path.exists(service.socket)
    service.pid = 0


def test_wrong_options_are_named(lab: Lab) -> None:
    for options, named in (
        (["--ip-addr=10.0.0.300/24"], "--ip-addr"),
        (["--link=none", "--cc=foo"], "--cc"),
        (["--link=none", "--no-such-option"], "--no-such-option"),
        (["--app-kin-len=4096", "--link=none"], "--app-kin-len"),
        ([], "--ip-addr"),
    ):
        p = lab.start(lab.app, BUILD / "tas", *options, f"--socket={lab.tmp}/none.sock")
        assert p.wait(20) not in (0, None), options
        assert named in p.err, (options, p.err)
    help_text = lab.start(lab.app, BUILD / "tas", "--help").ok()
    assert "--ip-addr" in help_text


# ---- without rights ----
@pytest.fixture
def nobodys(lab: Lab) -> Iterator[Path]:
    """A folder and copies of the programs that any user can read."""
    with tempfile.TemporaryDirectory(prefix="tas-nobody-", dir="/tmp") as name:
        folder = Path(name)
        folder.chmod(0o777)
        for program in ("tas", "libtas_interpose.so", "echoserver", "rpcclient"):
            shutil.copy(BUILD / program, folder)
        shutil.copytree(ROOT / "tas_sockets", folder / "tas_sockets", ignore=shutil.ignore_patterns("__pycache__"))
        yield folder


def test_without_a_link_it_runs_for_any_user(lab: Lab, nobodys: Path) -> None:
    as_nobody = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--no-new-privs")
    sock = f"{nobodys}/tas.sock"
    service = lab.start(lab.app, nobodys / "tas", "--link=none", f"--socket={sock}", via=as_nobody)
    until("its socket", lambda: os.path.exists(sock) or not service.alive, 20)
    env = {"LD_PRELOAD": f"{nobodys}/libtas_interpose.so", "TAS_SOCKET": sock}
    server = lab.start(lab.app, nobodys / "echoserver", "--port=0", env=env, via=as_nobody)
    client = lab.start(
        lab.app, nobodys / "rpcclient", "-j", "-c", "4", "-n", "400", "127.0.0.1", str(server.listening()), env=env,
        via=as_nobody,
    )  # fmt: skip
    assert client.json()["requests"] == 400
    out = subprocess.run([*tasctl(), "-s", sock, "stats", "--json"], capture_output=True, text=True, check=True).stdout
    assert json.loads(out)["counters"]["conn_local"] == 4
    server.end()
    assert service.end() == 0


# ---- tasctl ----
def tasctl() -> list[str]:
    return [sys.executable, "-m", "tas_sockets.tasctl"]


def ctl(lab: Lab, *argv: str, env: dict[str, str] | None = None) -> Proc:
    """tasctl in the app namespace."""
    settings = {"TAS_BUILD": str(BUILD), "PYTHONPATH": str(ROOT), **(env or {})}
    return lab.start(lab.app, *tasctl(), *argv, env=settings)


def test_tasctl_up_status_conns_stats_down(lab: Lab) -> None:
    sock = f"{lab.tmp}/ctl.sock"
    ctl(lab, "-s", sock, "up", "--link=none").ok(60)
    assert ctl(lab, "-s", sock, "up", "--link=none").wait() == 1
    status = json.loads(ctl(lab, "-s", sock, "status", "--json").ok())
    pid = status["pid"]
    assert status["socket"] == sock
    env = {"LD_PRELOAD": str(BUILD / "libtas_interpose.so"), "TAS_SOCKET": sock}
    server = lab.start(lab.app, BUILD / "echoserver", "--port=0", env=env)
    port = server.listening()
    lab.start(lab.app, BUILD / "rpcclient", "-n", "10", "127.0.0.1", str(port), env=env).ok()
    listing = ctl(lab, "-s", sock, "conns", "-a").ok()
    assert re.search(rf"LISTEN.*:{port}\b.*listener.*\b{server.pid}\b", listing), listing
    assert "conn_local" in ctl(lab, "-s", sock, "stats").ok()
    server.end()
    ctl(lab, "-s", sock, "down").ok(30)
    until("the service is gone", lambda: not Path(f"/proc/{pid}").exists())
    assert not os.path.exists(sock)
    after = ctl(lab, "-s", sock, "status")
    assert after.wait() == 1
    assert "no service" in after.err


def test_cycles_are_counted_only_when_asked_for(lab: Lab) -> None:
    for options, counted in ((("--fp-cycles",), True), ((), False)):
        service = Service(lab, *options, link=False)
        server = lab.tas(BUILD / "echoserver", "--port=0")
        lab.tas(BUILD / "rpcclient", "-n", "100", "127.0.0.1", str(server.listening())).ok(30)
        assert any(n for name, n in service.counters().items() if name.startswith("cycles_")) == counted
        server.kill()
        service.finish(check=True)


def test_tasctl_top_shows_where_time_goes(lab: Lab) -> None:
    sock = f"{lab.tmp}/top.sock"
    ctl(lab, "-s", sock, "up", "--link=none", "--fp-cycles").ok(60)
    env = {"LD_PRELOAD": str(BUILD / "libtas_interpose.so"), "TAS_SOCKET": sock, "TAS_REQUIRE": "1"}
    server = lab.start(lab.app, BUILD / "echoserver", "--port=0", env=env)
    idle = json.loads(ctl(lab, "-s", sock, "top", "--once", "--json", "--interval=0.5").ok())
    assert idle["rates"]["connections"] == 0
    assert idle["cores"][0]["sleep"] > 80
    port = str(server.listening())
    client = lab.start(lab.app, BUILD / "rpcclient", "-r", "-c", "4", "-T", "4", "127.0.0.1", port, env=env)
    time.sleep(0.5)
    busy = json.loads(ctl(lab, "-s", sock, "top", "--once", "--json", "--interval=1").ok())
    client.ok(30)
    core = busy["cores"][0]
    assert abs(core["work"] + core["poll"] + core["sleep"] - 100) < 1
    assert core["work"] > idle["cores"][0]["work"]
    assert core["rounds"] > 0
    assert busy["rates"]["connections"] > 10
    assert busy["rates"]["connects by mail"] > 10
    by_name = {p["comm"]: p for p in busy["processes"]}
    assert by_name["rpcclient"]["mails"] > 10
    assert by_name["echoserver"]["hints"] > 10
    assert by_name["echoserver"]["pid"] == server.pid
    assert abs(sum(busy["stages"].values()) - 100) < 1
    assert busy["stages"]["hints"] > 1
    shown = ctl(lab, "-s", sock, "top", "-1", "-i", "0.1").ok()
    assert re.search(r"core +work +poll +sleep", shown), shown
    assert re.search(rf"^ *{server.pid} .*echoserver$", shown, re.M), shown
    wrong = ctl(lab, "-s", sock, "top", "--interval=0")
    assert wrong.wait() == 2
    server.end()
    ctl(lab, "-s", sock, "down").ok(30)


def test_tasctl_up_says_why_it_fails(lab: Lab) -> None:
    p = ctl(lab, "-s", f"{lab.tmp}/ctl.sock", "up", "--link=none", "--cc=foo")
    assert p.wait() == 1
    assert "--cc" in p.err


def test_tasctl_exec_runs_a_private_service_that_ends_with_its_last_client(lab: Lab) -> None:
    run = {"XDG_RUNTIME_DIR": str(lab.tmp), "TAS_SOCKET": f"{lab.tmp}/private.sock"}
    two = lab.script(
        """
import socket, threading
l = socket.create_server(("127.0.0.1", 0))
def serve():
    c, _ = l.accept()
    with c: c.sendall(c.recv(10))
t = threading.Thread(target=serve)
t.start()
with socket.create_connection(l.getsockname()) as c:
    c.sendall(b"hello")
    assert c.recv(10) == b"hello"
t.join()
import subprocess, sys
print(subprocess.run(sys.argv[1:], stdout=subprocess.PIPE, text=True, check=True).stdout)
"""
    )
    p = ctl(
        lab, "exec", "--", "/usr/bin/python3", str(two), *tasctl(), "-s", run["TAS_SOCKET"], "stats", "--json", env=run
    )  # fmt: skip
    assert json.loads(p.ok())["counters"]["conn_local"] == 1
    until("the private service is gone", lambda: not os.path.exists(run["TAS_SOCKET"]))


@pytest.mark.parametrize(
    ("command", "status"),
    [
        (["true"], 0),
        (["sh", "-c", "exit 7"], 7),
        (["sh", "-c", "kill -TERM $$"], -signal.SIGTERM),
        (["/nonexistent"], 127),
    ],
)
def test_tasctl_exec_gives_back_the_commands_status(lab: Lab, command: list[str], status: int) -> None:
    sock = f"{lab.tmp}/private.sock"
    assert ctl(lab, "exec", "--", *command, env={"TAS_SOCKET": sock}).wait(60) == status
    until("the private service is gone", lambda: not os.path.exists(sock))


def test_tasctl_exec_passes_signals_to_the_command(lab: Lab) -> None:
    sock = f"{lab.tmp}/private.sock"
    script = "trap 'echo got it; exit 3' TERM; echo ready; while :; do sleep 0.05; done"
    p = ctl(lab, "exec", "--", "sh", "-c", script, env={"TAS_SOCKET": sock})
    p.line("ready", 60)
    p.signal(signal.SIGTERM)
    assert p.wait() == 3
    assert "got it" in p.out
    until("the private service is gone", lambda: not os.path.exists(sock))


def test_tasctl_doctor_finds_nothing_wrong_here(tas: Lab) -> None:
    assert tas.service
    p = ctl(tas, "-s", tas.service.socket, "doctor", env={"TAS_SOCKET": tas.service.socket})
    assert "BAD" not in p.ok()
    assert f"service at {tas.service.socket}" in p.out


def test_tasctl_status_shows_link_and_addresses(tas: Lab) -> None:
    assert tas.service
    status = json.loads(ctl(tas, "-s", tas.service.socket, "status", "--json").ok())
    assert TAS_ADDR in json.dumps(status["addresses"])
    assert "tap" in json.dumps(status["link"])
