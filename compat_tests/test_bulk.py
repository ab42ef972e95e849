"""Streams in both directions arrive whole: length and SHA-256 equal, every byte compared with the pattern."""

from __future__ import annotations

import time

import pytest
from _lab import BUILD, KERNEL_ONLY, PEER_ADDR, TAS_ADDR, Lab, until

MIB = 1 << 20
SIZES = [pytest.param(64 * MIB, id="64MiB"), pytest.param(1024 * MIB, id="1GiB", marks=pytest.mark.full)]
# whole segments are few: of 8 MiB one run in eight lost none
LOSSY = [pytest.param(32 * MIB, id="32MiB"), pytest.param(100 * MIB, id="100MiB", marks=pytest.mark.full)]


def transfer(lab: Lab, server_tas: bool, roles: tuple[str, str], size: int, timeout: float) -> None:
    """One `bulk` process on each side; ``roles`` of the TAS side and the kernel side."""
    program = str(BUILD / "bulk")
    mine, theirs = roles
    options = (f"--bytes={size}",)
    if server_tas:
        server = lab.tas(program, mine, "--listen=0.0.0.0:0", *options)
        client = lab.kernel(program, theirs, f"--connect={TAS_ADDR}:{server.listening()}", *options)
    else:
        server = lab.kernel(program, theirs, "--listen=0.0.0.0:0", *options)
        client = lab.tas(program, mine, f"--connect={PEER_ADDR}:{server.listening()}", *options)
    flows = [
        line.split()
        for p in (client, server)
        for line in p.ok(timeout).splitlines()
        if line.startswith(("sent", "rec"))
    ]
    assert len(flows) == (4 if mine == "both" else 2)
    assert {int(f[1]) for f in flows} == {size}
    assert len({f[4] for f in flows}) == 1, flows


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("roles", [("recv", "send"), ("send", "recv"), ("both", "both")], ids=["in", "out", "both"])
@pytest.mark.parametrize("server_tas", [True, False], ids=["tas-server", "tas-client"])
@pytest.mark.timeout(400)
def test_streams_arrive_whole(tas: Lab, server_tas: bool, roles: tuple[str, str], size: int) -> None:
    assert tas.service
    least = {"recv": {"bytes_in": size}, "send": {"bytes_out": size}}.get(
        roles[0], {"bytes_in": size, "bytes_out": size}
    )
    with tas.service.carried(**least):
        transfer(tas, server_tas, roles, size, 60 + size / (20 * MIB))


@pytest.mark.parametrize("size", LOSSY)
@pytest.mark.parametrize("roles", [("recv", "send"), ("send", "recv")], ids=["in", "out"])
@pytest.mark.timeout(400)
def test_streams_arrive_whole_with_one_percent_loss(tas: Lab, roles: tuple[str, str], size: int) -> None:
    assert tas.service
    tas.loss(1)
    transfer(tas, True, roles, size, 60 + size / (0.5 * MIB))
    assert tas.dropped() > 0
    if roles[0] == "send" and not KERNEL_ONLY:
        assert tas.service.counters()["tcp_retrans"] > 0


def test_a_receiver_that_does_not_read_stops_the_sender_and_loses_nothing(tas: Lab) -> None:
    """The window closes; zero-window probes keep the connection alive; it opens again."""
    server = tas.tas(BUILD / "bulk", "send", "--listen=0.0.0.0:0", "--bytes=32m")
    s = tas.peer.connect(TAS_ADDR, server.listening())
    s.settimeout(3)
    first = s.recv(1000)
    until("the sender has filled every buffer", lambda: _quiet(tas), 20)
    got = len(first)
    while data := s.recv(1 << 20):
        got += len(data)
    s.close()
    assert got == 32 * MIB
    server.ok()


def _quiet(tas: Lab) -> bool:
    assert tas.service
    if KERNEL_ONLY:
        time.sleep(1.5)
        return True
    before = tas.service.counters()["bytes_out"]
    time.sleep(1.5)
    return before == tas.service.counters()["bytes_out"]


def test_a_sender_whose_receiver_under_tas_does_not_read_is_stopped_and_loses_nothing(tas: Lab) -> None:
    server = tas.tas_python(
        """
import socket, time
l = socket.create_server(("0.0.0.0", 0))
print(f"listening on 0.0.0.0:{l.getsockname()[1]}")
c, _ = l.accept()
time.sleep(2)
n = 0
while data := c.recv(65536):
    n += len(data)
print("got", n)
"""
    )
    s = tas.peer.connect(TAS_ADDR, server.listening())
    s.sendall(bytes(24 * MIB))
    s.close()
    assert f"got {24 * MIB}" in server.ok()
