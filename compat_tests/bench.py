"""`make bench`: TAS beside Linux in one run, interleaved, as ratios.

Topologies, each with the same programs on both stacks::

    link    server on TAS behind a tap, kernel client      |  server and client on the kernel, veth between namespaces
    local   server and client on TAS, one service          |  server and client on the kernel, loopback
    python  the module tas_sockets, one service            |  the standard modules, loopback (bench_python.py)

A repetition runs every row once on each stack, one after the other, the stack that begins alternating; a row's figure
is the median over repetitions, its spread the smallest and largest. Beside each repetition: the round trip of a cache
line between the CPUs, the load of the machine, and on which CPU each thread was last seen. Results: a table, and a JSON
file.

    bench.py [--quick] [--reps N] [--only TEXT] [--out FILE]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import bench_python
import psutil
from _lab import BUILD, TAS_ADDR, Lab, Proc, Service, sweep

VETH, VETH_PEER = "10.78.0.1", "10.78.0.2"
LOOPBACK = "127.0.0.1"


@dataclass(frozen=True)
class Row:
    """One workload. ``unit``: what the figure is; ``better``: 'more' or 'less'."""

    name: str
    topology: str
    unit: str
    better: str
    run: Callable[[Stack], float]


@dataclass
class Stack:
    """Where the programs of one side of a comparison run: starts servers and clients, remembers where threads ran."""

    name: str
    lab: Lab
    server: Callable[..., Proc]
    client: Callable[..., Proc]
    addr: str
    placement: dict[str, int] = field(default_factory=dict)

    def _look(self, label: str, pid: int) -> None:
        for stat in Path(f"/proc/{pid}/task").glob("*/stat"):
            try:
                self.placement[f"{label}/{stat.parent.name}"] = int(stat.read_text().rsplit(")", 1)[1].split()[36])
            except (OSError, IndexError, ValueError):
                continue

    def rpc(self, *options: str, seconds: float = 1.0) -> dict[str, Any]:
        server = self.server(BUILD / "echoserver", "--port=0")
        try:
            port = str(server.listening())
            timed = [] if "-n" in options else ["-T", str(seconds), "-w", "0.2"]
            client = self.client(BUILD / "rpcclient", "--json", *timed, *options, self.addr, port)
            out: dict[str, Any] = client.json(120)
            self._look("server", server.pid)
            if self.lab.service:
                self._look("service", self.lab.service.pid)
        finally:
            server.kill()
        return out

    def bulk(self, size: str, server_sends: bool) -> float:
        """Mbit/s of one stream."""
        first, second = ("send", "recv") if server_sends else ("recv", "send")
        server = self.server(BUILD / "bulk", first, "--listen=0.0.0.0:0", "-n", size, "--no-hash", "--no-verify")
        try:
            port = server.listening()
            client = self.client(
                BUILD / "bulk",
                second,
                f"--connect={self.addr}:{port}",
                "-n",
                size,
                "--no-hash",
                "--no-verify",
                "--json",
            )
            got = client.json(120)
            self._look("server", server.pid)
            server.wait(30)
        finally:
            server.kill()
        return float(got["gbit_s"]) * 1000


def _p50(*options: str) -> Callable[[Stack], float]:
    return lambda s: float(s.rpc(*options)["latency_us"]["p50"])


def _rate(*options: str) -> Callable[[Stack], float]:
    return lambda s: float(s.rpc(*options)["rate"])


def rows() -> Iterator[Row]:
    for t in ("link", "local"):
        yield Row("1 connection, blocking, 64 B: p50", t, "us", "less", _p50("-m", "block"))
        yield Row("1 connection, spinning, 64 B: p50", t, "us", "less", _p50("-m", "spin"))
        yield Row("1 connection, epoll, 64 B", t, "requests/s", "more", _rate("-c", "1"))
        yield Row("64 connections, epoll, 64 B", t, "requests/s", "more", _rate("-c", "64"))
        yield Row("64 connections, epoll, 1 KiB", t, "requests/s", "more", _rate("-c", "64", "-s", "1k"))
        yield Row("1,000 connections, epoll, 64 B", t, "requests/s", "more", _rate("-c", "1000"))
        yield Row("16 connections, 32 deep, 64 B", t, "messages/s", "more", _rate("-c", "16", "-d", "32"))
        yield Row("connect + request + close, 16 at a time", t, "per s", "more", _rate("-c", "16", "-r", "-n", "4000"))
        yield Row("bulk 100 MiB to the server", t, "Mbit/s", "more", lambda s: s.bulk("100m", server_sends=False))
        yield Row("bulk 100 MiB from the server", t, "Mbit/s", "more", lambda s: s.bulk("100m", server_sends=True))
    for name, unit, better, run in bench_python.rows():
        yield Row(name, "python", unit, better, run)


def _stacks(lab: Lab) -> dict[tuple[str, str], Stack]:
    Service(lab)
    lab.app.ip("link", "add", "veth0", "type", "veth", "peer", "name", "veth0", "netns", lab.peer.name)
    for ns, addr in ((lab.app, VETH), (lab.peer, VETH_PEER)):
        ns.ip("addr", "add", f"{addr}/24", "dev", "veth0")
        ns.ip("link", "set", "veth0", "up")

    def plain(*argv: str | Path) -> Proc:
        return lab.start(lab.app, *argv)

    def tas(*argv: str | Path) -> Proc:
        return lab.tas(*argv, env={"TAS_REQUIRE": "1"})

    def module(*argv: str | Path) -> Proc:
        return lab.start(lab.app, *argv, env={"TAS_SOCKET": lab.tas_env()["TAS_SOCKET"], "TAS_REQUIRE": "1"})

    return {
        ("link", "tas"): Stack("tas", lab, tas, lab.kernel, TAS_ADDR),
        ("link", "linux"): Stack("linux", lab, plain, lab.kernel, VETH),
        ("local", "tas"): Stack("tas", lab, tas, tas, LOOPBACK),
        ("local", "linux"): Stack("linux", lab, plain, plain, LOOPBACK),
        ("python", "tas"): Stack("tas", lab, module, module, LOOPBACK),
        ("python", "linux"): Stack("linux", lab, plain, plain, LOOPBACK),
    }


def _cacheline_ns() -> float:
    done = subprocess.run([BUILD / "cacheline"], capture_output=True, text=True, check=False, timeout=60)
    return float(done.stdout) if done.returncode == 0 else float("nan")


def _competing_load() -> float:
    """CPUs' worth of work by everybody else, over a moment without work of ours."""
    psutil.cpu_percent(None)
    return round(psutil.cpu_percent(0.2) / 100 * (psutil.cpu_count() or 1), 2)


def measure(chosen: list[Row], reps: int) -> dict[str, Any]:
    """Runs everything; the result as written to the JSON file."""
    found: dict[str, dict[str, Any]] = {
        f"{r.topology}: {r.name}": {"unit": r.unit, "better": r.better, "linux": [], "tas": []} for r in chosen
    }
    beside = []
    with tempfile.TemporaryDirectory(prefix="tasbench-") as tmp:
        Path(tmp).chmod(0o755)
        lab = Lab(Path(tmp))
        try:
            stacks = _stacks(lab)
            for rep in range(reps):
                note: dict[str, Any] = {
                    "cacheline_ns": _cacheline_ns(),
                    "competing_cpus": _competing_load(),
                    "loadavg": os.getloadavg()[0],
                }
                for number, row in enumerate(chosen):
                    order = ("linux", "tas") if (rep + number) % 2 == 0 else ("tas", "linux")
                    for name in order:
                        stack = stacks[row.topology, name]
                        stack.placement = {}
                        value = row.run(stack)
                        found[f"{row.topology}: {row.name}"][name].append({"value": value, "cpus": stack.placement})
                    print(".", end="", file=sys.stderr, flush=True)
                beside.append(note)
            print(file=sys.stderr)
        finally:
            lab.close(check=False)
    for result in found.values():
        for name in ("linux", "tas"):
            values = [v["value"] for v in result[name]]
            result[f"{name}_median"] = statistics.median(values)
            result[f"{name}_spread"] = [min(values), max(values)]
        first, second = result["tas_median"], result["linux_median"]
        result["ratio"] = first / second if result["better"] == "more" else second / first
    return {"reps": reps, "cpus": psutil.cpu_count(), "kernel": os.uname().release, "beside": beside, "rows": found}


def show(result: dict[str, Any]) -> None:
    print(f"{'row':58}{'Linux':>12}{'TAS':>12}  {'unit':12}{'ratio':>7}   spread of Linux, TAS")
    for name, r in result["rows"].items():
        spread = ", ".join("{:.4g}-{:.4g}".format(*r[f"{s}_spread"]) for s in ("linux", "tas"))
        print(
            f"{name:58}{r['linux_median']:>12.1f}{r['tas_median']:>12.1f}  {r['unit']:12}{r['ratio']:>7.2f}   {spread}"
        )
    lines = [b["cacheline_ns"] for b in result["beside"]]
    others = [b["competing_cpus"] for b in result["beside"]]
    print(
        f"\ncache line round trip {min(lines):.0f}-{max(lines):.0f} ns; competing load {min(others)}-{max(others)} CPUs"
    )
    if max(others) > 0.5:
        print("The machine was too busy with other things to conclude from this.")


def main() -> int:
    p = argparse.ArgumentParser(description="TAS beside Linux in one run, interleaved, as ratios.")
    p.add_argument("--quick", action="store_true", help="3 repetitions instead of 7")
    p.add_argument("--reps", type=int, metavar="N", help="so many repetitions")
    p.add_argument("--only", default="", metavar="TEXT", help="rows whose `topology: name` contains TEXT")
    p.add_argument(
        "--out", type=Path, default=BUILD / "bench" / "result.json", help="JSON file (build/bench/result.json)"
    )
    args = p.parse_args()
    if os.geteuid() != 0:
        print("bench: network namespaces and a tap need root", file=sys.stderr)
        return 1
    chosen = [r for r in rows() if args.only in f"{r.topology}: {r.name}"]
    if not chosen:
        print(f"bench: no row contains {args.only!r}; rows:", *(f"{r.topology}: {r.name}" for r in rows()), sep="\n  ")
        return 2
    sweep()
    result = measure(chosen, args.reps or (3 if args.quick else 7))
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(result, indent=1))
    show(result)
    return 0


if __name__ == "__main__":
    sys.exit(main())
