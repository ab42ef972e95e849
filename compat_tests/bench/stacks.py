"""Where the programs of a row run: topologies, each once on Linux and once on TAS.

::

    local   server and client on TAS, one service           |  both on the kernel, loopback
    link    server on TAS behind a tap, kernel client       |  both on the kernel, veth between namespaces
    cores   the same, a service of up to two threads        |  the same
    memif   server and client on TAS, a service each, memif |  both on the kernel, veth between namespaces
    packet  the same over packet sockets on a veth pair     |  the same
    af_xdp  the same over AF_XDP sockets on a veth pair     |  the same
    python  the module tas_sockets, one service             |  the standard modules, loopback
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from _lab import BUILD, PEER_ADDR, TAS_ADDR, Lab, Proc, Service, until

VETH, VETH_PEER = "10.78.0.1", "10.78.0.2"
LOOPBACK = "127.0.0.1"
TOPOLOGIES = ("local", "link", "cores", "memif", "packet", "af_xdp", "python")


@dataclass
class Stack:
    """One side of a comparison: starts servers and clients, remembers where threads ran and what they used."""

    name: str  # "linux" or "tas"
    lab: Lab
    server: Callable[..., Proc]
    client: Callable[..., Proc]
    addr: str
    services: list[Service] = field(default_factory=list)
    placement: dict[str, int] = field(default_factory=dict)

    def look(self, label: str, pid: int) -> None:
        """On which CPU each thread of a process was last seen, of those that have run for a tick at all."""
        for stat in Path(f"/proc/{pid}/task").glob("*/stat"):
            with contextlib.suppress(OSError, IndexError, ValueError):
                fields = stat.read_text().rsplit(")", 1)[1].split()
                if int(fields[11]) + int(fields[12]):  # DPDK's threads that only wait say nothing
                    self.placement[f"{label}/{stat.parent.name}"] = int(fields[36])

    def service_cpu(self) -> float:
        """CPU seconds of the services so far."""
        return sum(s.cpu_seconds() for s in self.services)

    def rpc(self, *options: str, threads: int = 1, seconds: float = 0.7, warm: float = 0.2) -> dict[str, Any]:
        """rpcclient's result against an echo server, and ``cpu_us``: CPU per request, by process."""
        server = self.server(BUILD / "echoserver", "--port=0", f"--threads={threads}")
        try:
            port = str(server.listening())
            timed = [] if "-n" in options else ["-T", str(seconds), "-w", str(warm)]
            spent = self.service_cpu()
            client = self.client(BUILD / "rpcclient", "--json", *timed, *options, self.addr, port)
            out: dict[str, Any] = client.json(120)
            self.look("server", server.pid)
            for service in self.services:
                self.look("service", service.pid)
            times = psutil.Process(server.pid).cpu_times()
            share = 1e6 / max(out["requests"], 1) * out["seconds"] / (out["seconds"] + (0 if "-n" in options else warm))
            out["cpu_us"] = {
                "client": out["cpu_seconds"] * share,
                "server": (times.user + times.system) * share,
                "service": (self.service_cpu() - spent) * share,
            }
        finally:
            server.kill()
        return out

    def bulk(self, size: str, server_sends: bool, flows: int = 1) -> float:
        """Mbit/s of so many streams at once, with CUBIC on both stacks: BBR, where it is the default, makes half."""
        first, second = ("send", "recv") if server_sends else ("recv", "send")
        plain = ("-n", size, "--no-hash", "--no-verify", "--congestion=cubic")
        servers = [self.server(BUILD / "bulk", first, "--listen=0.0.0.0:0", *plain) for _ in range(flows)]
        try:
            ports = [s.listening() for s in servers]
            clients = [
                self.client(BUILD / "bulk", second, f"--connect={self.addr}:{p}", *plain, "--json") for p in ports
            ]
            got = [float(c.json(120)["gbit_s"]) for c in clients]
            self.look("server", servers[0].pid)
            for s in servers:
                s.wait(30)
        finally:
            for s in servers:
                s.kill()
        return sum(got) * 1000


def veth(lab: Lab, near: str, far: str, name: str = "veth0") -> None:
    lab.app.ip("link", "add", name, "type", "veth", "peer", "name", name, "netns", lab.peer.name)
    for ns, addr in ((lab.app, near), (lab.peer, far)):
        ns.ip("addr", "add", f"{addr}/24", "dev", name)
        ns.ip("link", "set", name, "up")


@contextlib.contextmanager
def stacks(tmp: Path, topologies: set[str]) -> Iterator[dict[tuple[str, str], Stack]]:
    """The topologies asked for, both ways, with their services."""
    made: dict[tuple[str, str], Stack] = {}
    with contextlib.ExitStack() as stack:
        lab = Lab(_folder(tmp / "one"))
        stack.callback(lab.close, check=False)
        service = Service(lab)
        veth(lab, VETH, VETH_PEER)

        def plain(*argv: str | Path) -> Proc:
            return lab.start(lab.app, *argv)

        def tas(*argv: str | Path) -> Proc:
            return lab.tas(*argv, env={"TAS_REQUIRE": "1"})

        def module(*argv: str | Path) -> Proc:
            return lab.start(lab.app, *argv, env={"TAS_SOCKET": lab.tas_env()["TAS_SOCKET"], "TAS_REQUIRE": "1"})

        for topology in ("local", "python"):
            run = tas if topology == "local" else module
            made[topology, "linux"] = Stack("linux", lab, plain, plain, LOOPBACK)
            made[topology, "tas"] = Stack("tas", lab, run, run, LOOPBACK, [service])
        made["link", "linux"] = Stack("linux", lab, plain, lab.kernel, VETH)
        made["link", "tas"] = Stack("tas", lab, tas, lab.kernel, TAS_ADDR, [service])
        if "cores" in topologies:
            made["cores", "linux"] = made["link", "linux"]
            made["cores", "tas"] = _more_threads(stack, _folder(tmp / "cores"))
        for kind in ("memif", "packet", "af_xdp"):
            if kind in topologies:
                made[kind, "linux"] = made["link", "linux"]
                made[kind, "tas"] = _two_services(stack, _folder(tmp / kind), kind)
        yield made


def _more_threads(stack: contextlib.ExitStack, tmp: Path) -> Stack:
    """As ``link``; the service takes a second thread while load and idle processors ask for it."""
    lab = Lab(tmp)
    stack.callback(lab.close, check=False)
    service = Service(lab, "--fp-cores-max=2")

    def tas(*argv: str | Path) -> Proc:
        return lab.tas(*argv, env={"TAS_REQUIRE": "1"})

    return Stack("tas", lab, tas, lab.kernel, TAS_ADDR, [service])


def _two_services(stack: contextlib.ExitStack, tmp: Path, kind: str) -> Stack:
    """A server behind one service, a client behind another, each in a namespace of its own."""
    near, far = labs = [Lab(_folder(tmp / name)) for name in ("near", "far")]
    for lab in labs:
        stack.callback(lab.close, check=False)
    if kind == "memif":
        path = near.tmp / "memif.sock"
        links = [f"--link=memif:{path},server,mtu=9000,no-checksums", f"--link=memif:{path},mtu=9000,no-checksums"]
    else:
        near.app.ip("link", "add", "veth1", "type", "veth", "peer", "name", "veth1", "netns", far.app.name)
        for lab in labs:
            lab.app.ip("link", "set", "veth1", "up")
        links = [f"--link={'af_packet' if kind == 'packet' else kind}:veth1"] * 2
    services = [
        Service(lab, link, f"--ip-addr={addr}/24", link=False)
        for lab, link, addr in zip(labs, links, (TAS_ADDR, PEER_ADDR), strict=True)
    ]
    if kind == "memif":
        until("the memif connection", lambda: all("other end is there" in s.log() for s in services))
        time.sleep(0.1)

    def server(*argv: str | Path) -> Proc:
        return near.tas(*argv, env={"TAS_REQUIRE": "1"})

    def client(*argv: str | Path) -> Proc:
        return far.tas(*argv, env={"TAS_REQUIRE": "1"})

    return Stack("tas", near, server, client, TAS_ADDR, services)


def _folder(path: Path) -> Path:
    path.mkdir(mode=0o755)
    return path
