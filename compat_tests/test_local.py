"""Two programs of one service talk without the link, also over loopback."""

from __future__ import annotations

import pytest
from _lab import BUILD, KERNEL_ONLY, TAS_ADDR, Lab


@pytest.mark.parametrize("addr", [TAS_ADDR, "127.0.0.1"])
def test_two_programs_of_one_service_talk_locally(tas: Lab, addr: str) -> None:
    _, port = tas.echoserver()
    assert tas.service
    with tas.service.carried(conn_local=16, bytes_local=2 * 4000 * 64):
        got = tas.tas(BUILD / "rpcclient", "-j", "-c", "16", "-n", "4000", addr, str(port)).json()
    assert got["requests"] == 4000


@pytest.mark.parametrize("mode", ["block", "epoll", "spin"])
def test_loopback_without_a_link(local_tas: Lab, mode: str) -> None:
    _, port = local_tas.echoserver("--threads=2")
    assert local_tas.service
    with local_tas.service.carried(conn_local=4):
        got = local_tas.tas(
            BUILD / "rpcclient", "-j", "-c", "4", "-m", mode, "-n", "4000", "127.0.0.1", str(port)
        ).json()
    assert got["requests"] == 4000


def test_a_wildcard_listener_takes_tas_loopback_and_kernel_clients(tas: Lab) -> None:
    _, port = tas.echoserver()
    here = tas.start(tas.app, BUILD / "rpcclient", "-j", "-n", "500", "127.0.0.1", str(port))  # kernel, over loopback
    assert here.json()["requests"] == 500
    assert tas.rpc(port, "-n", "500")["requests"] == 500
    tas.tas(BUILD / "rpcclient", "-n", "500", "127.0.0.1", str(port)).ok()


def test_who_connects_again_asks_through_shared_memory(local_tas: Lab) -> None:
    _, port = local_tas.echoserver()
    assert local_tas.service
    with local_tas.service.carried(conn_local=2000, mails=1900):
        got = local_tas.tas(BUILD / "rpcclient", "-j", "-c", "8", "-r", "-n", "2000", "127.0.0.1", str(port)).json()
    assert got["requests"] == 2000


def test_nobody_reaches_by_memory_what_it_could_not_reach_by_its_socket(local_tas: Lab) -> None:
    """Who goes to another network namespace has the listeners of that one, though its sockets are used again."""
    if local_tas.on_kernel:
        pytest.skip("about shared memory")
    assert local_tas.service
    said = local_tas.tas_python(
        """
import ctypes, errno, socket
l = socket.create_server(("127.0.0.1", 0))
def once():
    c = socket.socket()
    try: c.connect(l.getsockname())
    except OSError as e: return errno.errorcode[e.errno]
    finally: c.close()
    l.accept()[0].close()
    return "connected"
print(*[once() for _ in range(3)])
assert ctypes.CDLL(None).unshare(0x40000000) == 0  # CLONE_NEWNET: its loopback is down
print(once())
"""
    ).ok()
    assert said.split() == ["connected"] * 3 + ["ENETUNREACH"]
    assert local_tas.service.counters()["mails"] >= 1


def test_a_local_stream_arrives_whole(local_tas: Lab) -> None:
    server = local_tas.tas(BUILD / "bulk", "both", "--listen=127.0.0.1:0", "--bytes=64m")
    client = local_tas.tas(BUILD / "bulk", "both", f"--connect=127.0.0.1:{server.listening()}", "--bytes=64m")
    flows = [line.split() for p in (client, server) for line in p.ok().splitlines() if " sha256 " in line]
    assert len(flows) == 4
    assert len({(f[1], f[4]) for f in flows}) == 1


def test_a_thread_may_write_a_megabyte_to_itself_before_it_reads(local_tas: Lab) -> None:
    assert local_tas.service
    with local_tas.service.carried(conn_local=1):
        local_tas.tas_python(
            """
import socket
for piece in (1 << 12, 1 << 16, 1 << 20):
    listener = socket.create_server(("127.0.0.1", 0))
    a = socket.create_connection(listener.getsockname())
    b, _ = listener.accept()
    a.setblocking(False)
    sent = 0
    while sent < 1 << 20:
        sent += a.send(bytes(min(piece, (1 << 20) - sent)))
    got = 0
    while got < sent:
        got += len(b.recv(1 << 20))
    a.close(), b.close(), listener.close()
"""
        ).ok()


@pytest.mark.parametrize("last", ["writes", "closes", "reads some and closes"])
def test_what_a_closed_end_still_had_to_send_goes_with_the_connection(local_tas: Lab, last: str) -> None:
    out = local_tas.tas_python(
        """
import socket, sys
l = socket.create_server(("127.0.0.1", 0))
a = socket.create_connection(l.getsockname())
b, _ = l.accept()
a.setblocking(False)
try:
    while True: a.send(bytes(100000))
except BlockingIOError: pass
a.close()
if "reads" in sys.argv[1]:
    print(len(b.recv(1000)))
if "writes" in sys.argv[1]:
    b.send(b"for nobody")
    try:
        while b.recv(100000): pass
    except ConnectionResetError as e: print(repr(e))
b.close()
print("done")
""",
        last,
    ).ok(20)
    assert out.endswith("done\n")
    assert ("ConnectionResetError" in out) == (last == "writes")
    if local_tas.service:
        local_tas.service.settled()


def test_short_local_connections_without_one_error(local_tas: Lab) -> None:
    _, port = local_tas.echoserver()
    got = local_tas.tas(BUILD / "rpcclient", "-j", "-c", "8", "-r", "-n", "5000", "127.0.0.1", str(port)).json()
    assert got["requests"] == 5000


def test_loopback_without_a_listener_refuses(local_tas: Lab) -> None:
    p = local_tas.tas(BUILD / "rpcclient", "-n", "1", "127.0.0.1", "9")
    assert p.wait(10) == 1
    assert "refused" in p.err


def test_a_program_under_tas_reaches_a_kernel_server_over_loopback(local_tas: Lab) -> None:
    server = local_tas.start(local_tas.app, BUILD / "echoserver", "--port=0")
    got = local_tas.tas(BUILD / "rpcclient", "-j", "-n", "300", "127.0.0.1", str(server.listening())).json()
    assert got["requests"] == 300


def test_without_a_service_everything_is_the_kernels(lab: Lab) -> None:
    env = (
        {} if KERNEL_ONLY else {"LD_PRELOAD": str(BUILD / "libtas_interpose.so"), "TAS_SOCKET": "/nonexistent/tas.sock"}
    )
    server = lab.start(lab.app, BUILD / "echoserver", "--port=0", env=env)
    client = lab.start(
        lab.app, BUILD / "rpcclient", "-c", "4", "-n", "1000", "127.0.0.1", str(server.listening()), env=env
    )
    client.ok()
    if not KERNEL_ONLY:
        assert len(client.err.splitlines()) == 1, "one warning"


def test_with_tas_require_no_service_is_an_error(lab: Lab) -> None:
    if KERNEL_ONLY:
        pytest.skip("no interposer")
    env = {
        "LD_PRELOAD": str(BUILD / "libtas_interpose.so"), "TAS_SOCKET": "/nonexistent/tas.sock", "TAS_REQUIRE": "1",
    }  # fmt: skip
    server = lab.start(lab.app, BUILD / "echoserver", "--port=0", env=env)
    assert server.wait(10) == 1
