"""An unmodified echo server under LD_PRELOAD and clients of the kernel."""

from __future__ import annotations

import time

import pytest
from _lab import BUILD, KERNEL_ONLY, TAS_ADDR, Lab, Service


@pytest.mark.parametrize("connections", [1, 64])
@pytest.mark.parametrize("mode", ["block", "epoll"])
def test_echo_is_carried_by_tas(tas: Lab, connections: int, mode: str) -> None:
    _, port = tas.echoserver()
    assert tas.service
    with tas.service.carried(conn_passive=connections, tcp_in=2000, bytes_in=2000 * 64, bytes_out=2000 * 64):
        got = tas.rpc(port, "-c", str(connections), "-m", mode, "-n", "2000")
    assert got["requests"] == 2000


def test_echo_server_with_threads_and_pipelined_clients(tas: Lab) -> None:
    _, port = tas.echoserver("--threads=4")
    got = tas.rpc(port, "-c", "32", "-d", "16", "-s", "300", "-n", "20000")
    assert got["requests"] == 20000


def test_messages_larger_than_any_buffer(tas: Lab) -> None:
    _, port = tas.echoserver()
    assert tas.rpc(port, "-c", "2", "-s", "3m", "-d", "2", "-n", "8")["requests"] == 8


def test_the_manuals_command_line(tas: Lab) -> None:
    server = tas.tas(BUILD / "echoserver", "1234", "1", "foo", "8192", "1")
    server.line("listening on .*:1234")
    assert tas.rpc(1234, "-n", "100")["requests"] == 100


def test_a_client_under_tas_and_a_server_of_the_kernel(tas: Lab) -> None:
    server = tas.kernel(BUILD / "echoserver", "--port=0")
    port = server.listening()
    assert tas.service
    with tas.service.carried(conn_active=8, bytes_in=1000 * 64, bytes_out=1000 * 64):
        for mode in ("block", "epoll", "spin"):
            got = tas.tas(BUILD / "rpcclient", "-j", "-c", "8", "-m", mode, "-n", "1000", "10.77.0.2", str(port)).json()
            assert got["requests"] == 1000


def test_two_thousand_connections_at_once(tas: Lab) -> None:
    _, port = tas.echoserver()
    assert tas.service
    with tas.service.carried(conn_passive=2000):
        got = tas.rpc(port, "-c", "2000", "-n", "20000")
    assert got["requests"] == 20000


@pytest.mark.parametrize(
    "count", [pytest.param(2000, id="2000"), pytest.param(20000, id="20000", marks=pytest.mark.full)]
)
def test_short_connections_without_one_error(tas: Lab, count: int) -> None:
    _, port = tas.echoserver()
    assert tas.service
    with tas.service.carried(conn_passive=count):
        got = tas.rpc(port, "-c", "16", "--reconnect", "-n", str(count), timeout=200)
    assert got["requests"] == count


def test_an_idle_service_with_100_connections_sleeps(tas: Lab) -> None:
    if KERNEL_ONLY:
        pytest.skip("no service")
    _, port = tas.echoserver()
    assert tas.service
    conns = [tas.peer.connect(TAS_ADDR, port) for _ in range(100)]
    for c in conns:
        c.sendall(b"hello")
        assert c.recv(5) == b"hello"
    time.sleep(1.0)
    cpu, begin = tas.service.cpu_seconds(), time.monotonic()
    time.sleep(3.0)
    used = (tas.service.cpu_seconds() - cpu) / (time.monotonic() - begin)
    began = time.monotonic()
    conns[50].sendall(b"wake up")
    assert conns[50].recv(7) == b"wake up"
    woken = time.monotonic() - began
    for c in conns:
        c.close()
    assert used < 0.02, f"{used:.1%} of a core while idle"
    assert woken < 0.5


def test_icmp_echo_is_answered(tas: Lab) -> None:
    tas.peer.run("ping", "-c", "3", "-i", "0.2", "-W", "2", TAS_ADDR)


def test_a_port_without_listener_refuses(tas: Lab) -> None:
    with pytest.raises(ConnectionRefusedError):
        tas.peer.connect(TAS_ADDR, 9)


def test_a_server_in_ipv6_dual_stack_mode_takes_ipv4(lab: Lab) -> None:
    Service(lab)
    server = lab.tas(BUILD / "echoserver", "--port=0", "--address=::")
    port = server.listening()
    assert lab.rpc(port, "-n", "200")["requests"] == 200
