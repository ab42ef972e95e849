"""The service inside a virtual machine, on a virtio card that DPDK drives, as the TAS manual describes for QEMU."""

from __future__ import annotations

import re
import socket

import pytest
from _guest import ASIDE, boot, lacking
from _lab import KERNEL_ONLY, PEER_ADDR, Lab

pytestmark = pytest.mark.skipif(KERNEL_ONLY, reason="about the service's links")


MANUAL = "--fp-no-xsumoffload --fp-no-ints --fp-no-autoscale"


@pytest.mark.parametrize(
    ("options", "queues"),
    [(f"{MANUAL} --fp-cores-max=1", 1), ("", 1), (f"{MANUAL} --fp-cores-max=2", 2)],
    ids=["as in the manual", "no options", "two queues"],
)
def test_a_kernel_client_talks_to_a_service_on_a_virtio_card(lab: Lab, options: str, queues: int) -> None:
    why = lacking()
    if why:
        pytest.skip(why)
    tap = "tg0"
    lab.peer.ip("tuntap", "add", tap, "mode", "tap", *(("multi_queue",) if queues > 1 else ()))
    lab.peer.ip("addr", "add", f"{PEER_ADDR}/24", "dev", tap)
    lab.peer.ip("link", "set", tap, "up")
    guest = boot(lab, options, tap, queues)
    guest.line(r"listening on \S*:7000", 150)
    assert "link pci:0000:00:05.0, MTU 1500" in guest.out
    assert lab.rpc(7000, "--connections=16", "--count=2000")["requests"] == 2000
    assert lab.rpc(7000, "--mode=block", "--count=100", "--size=64k")["requests"] == 100
    with socket.socket(socket.AF_UNIX) as aside:
        aside.connect(str(lab.tmp / ASIDE))
        aside.sendall(b"end\n")
        assert guest.wait(60) == 0
    counted = {k: int(v) for k, v in re.findall(r"(\w+)[ :=]+(\d+)", guest.out)}
    assert counted["conn_passive"] == 17
    assert counted["bytes_in"] >= 100 * 65536
    assert "service ended with 0" in guest.out
    if queues > 1:  # the card's table and ours agree: segments come to the thread that owns their connection
        assert counted.get("rx_steered", 0) < 100, counted
