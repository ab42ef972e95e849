"""`make demo`: an unmodified echo server on TAS, clients of the Linux kernel, and proof of which stack did the work.

::

      namespace tasdemo-PID-app                     namespace tasdemo-PID-peer
      echoserver (LD_PRELOAD)                       rpcclient (kernel)
              |  shared memory                              |
            tas 10.77.0.1  ----------- tap ------------ 10.77.0.2

The same client then talks to the same server without LD_PRELOAD over a veth pair, for comparison.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

from tas_sockets import _paths, _service
from tas_sockets._control import Control, What

TAS, PEER = "10.77.0.1", "10.77.0.2"  # over the tap
VETH, VETH_PEER = "10.78.0.1", "10.78.0.2"
SECONDS = "2"


def _run(*argv: str) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(argv)}: {done.stderr.strip() or done.returncode}")
    return done.stdout


def _sweep() -> None:
    """Removes the namespaces of demonstrations that were killed."""
    for name in re.findall(r"^tasdemo-\d+-\w+", _run("ip", "netns", "list"), re.M):
        if not Path(f"/proc/{name.split('-')[1]}").exists():
            for pid in _run("ip", "netns", "pids", name).split():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGKILL)
            _run("ip", "netns", "del", name)


class Demo:
    """Everything that the demonstration makes; ``undo`` takes it back, last first."""

    def __init__(self, build: Path) -> None:
        self.build = build
        self.undo: list[Callable[[], object]] = []
        self.tmp = tempfile.mkdtemp(prefix="tasdemo-")
        self.undo.append(lambda: subprocess.run(["rm", "-rf", self.tmp], check=False))
        self.app, self.peer = (f"tasdemo-{os.getpid()}-{side}" for side in ("app", "peer"))
        self.tap = f"tasd{os.getpid() % 10000000}"
        self.socket = f"{self.tmp}/tas.sock"

    def namespaces(self) -> None:
        for ns in (self.app, self.peer):
            _run("ip", "netns", "add", ns)
            self.undo.append(partial(subprocess.run, ["ip", "netns", "del", ns], check=False))
            _run("ip", "-n", ns, "link", "set", "lo", "up")
        _run("ip", "-n", self.app, "link", "add", "veth0", "type", "veth", "peer", "name", "veth0", "netns", self.peer)
        for ns, addr in ((self.app, VETH), (self.peer, VETH_PEER)):
            _run("ip", "-n", ns, "addr", "add", f"{addr}/24", "dev", "veth0")
            _run("ip", "-n", ns, "link", "set", "veth0", "up")

    def spawn(self, ns: str, *argv: str, env: dict[str, str] | None = None, **options: Any) -> subprocess.Popen[str]:
        settings = [f"{k}={v}" for k, v in (env or {}).items()]
        p = subprocess.Popen(
            ["nsenter", f"--net=/run/netns/{ns}", "env", *settings, *argv], text=True, start_new_session=True, **options
        )

        def end() -> None:
            if p.poll() is None:
                p.terminate()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    p.wait(5)
                p.kill()
            p.wait()
            if p.stdout:
                p.stdout.close()

        self.undo.append(end)
        return p

    def service(self) -> None:
        ready_r, ready_w = os.pipe()
        log = Path(self.tmp) / "tas.log"
        with log.open("w") as out:
            p = self.spawn(
                self.app,
                str(self.build / "tas"),
                f"--ip-addr={TAS}/24",
                f"--link=tap:{self.tap}",
                f"--socket={self.socket}",
                f"--ready-fd={ready_w}",
                pass_fds=(ready_w,),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
            )
        os.close(ready_w)
        with os.fdopen(ready_r, "rb") as f:
            if not f.readline():
                raise RuntimeError(f"the service did not start (status {p.wait()}):\n{log.read_text()}")
        _run("ip", "-n", self.app, "link", "set", self.tap, "netns", self.peer)
        _run("ip", "-n", self.peer, "addr", "add", f"{PEER}/24", "dev", self.tap)
        _run("ip", "-n", self.peer, "link", "set", self.tap, "up")

    def echoserver(self, env: dict[str, str]) -> str:
        """Starts one; its port."""
        p = self.spawn(self.app, str(self.build / "echoserver"), "--port=0", env=env, stdout=subprocess.PIPE)
        line = p.stdout.readline() if p.stdout else ""
        match = re.search(r":(\d+),", line)
        if not match:
            raise RuntimeError(f"echoserver ended with {p.wait()}: {line}")
        return match[1]

    def rpc(self, addr: str, port: str, *options: str) -> dict[str, Any]:
        p = self.spawn(
            self.peer,
            str(self.build / "rpcclient"),
            "--json",
            *options,
            addr,
            port,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        out, _ = p.communicate(timeout=60)
        if p.returncode:
            raise RuntimeError(f"rpcclient ended with {p.returncode}: {out}")
        result: dict[str, Any] = json.loads(out)
        return result

    def counters(self) -> dict[str, int]:
        with Control(self.socket) as control:
            found: dict[str, int] = control.ask(What.STATS)["counters"]
        return found

    def kernel_tcp(self) -> int:
        """TCP segments that the kernel of the server's namespace has received."""
        text = _run("nsenter", f"--net=/run/netns/{self.app}", "cat", "/proc/net/snmp")
        names, values = (line.split() for line in text.splitlines() if line.startswith("Tcp:"))
        return int(values[names.index("InSegs")])

    def close(self) -> None:
        while self.undo:
            try:
                self.undo.pop()()
            except Exception as e:
                print(f"demo: cleaning up: {e}", file=sys.stderr)


def _rows() -> Iterator[tuple[str, tuple[str, ...]]]:
    yield "1 connection", ("-c", "1", "-T", SECONDS)
    yield "64 connections", ("-c", "64", "-T", SECONDS)
    yield "64 connections, 16 deep", ("-c", "64", "-d", "16", "-T", SECONDS)
    yield "a connection per request", ("-c", "16", "-r", "-n", "5000")


def _show(demo: Demo) -> None:
    began = time.monotonic()
    demo.namespaces()
    demo.service()
    interposer = str(demo.build / _paths.INTERPOSER)
    port = demo.echoserver({"LD_PRELOAD": interposer, "TAS_SOCKET": demo.socket})
    kernel_port = demo.echoserver({})
    print(f"service:     tas --ip-addr={TAS}/24 --link=tap:{demo.tap}")
    print(f"server:      LD_PRELOAD={_paths.INTERPOSER} echoserver   (its peer is the kernel in another namespace)")
    print("client:      rpcclient, 64-byte messages, every answer compared\n")
    before, kernel_before = demo.counters(), demo.kernel_tcp()
    results = [(name, demo.rpc(TAS, port, *options)) for name, options in _rows()]
    after, kernel_after = demo.counters(), demo.kernel_tcp()
    plain = [demo.rpc(VETH, kernel_port, *options) for _, options in _rows()]
    print(f"{'':26}{'requests':>10}{'per second':>12}{'p50 us':>9}{'p99 us':>9}   same on the kernel, veth")
    for (name, got), kernel in zip(results, plain, strict=True):
        us = got["latency_us"]
        print(
            f"{name:26}{got['requests']:>10}{got['rate']:>12.0f}{us['p50']:>9.1f}{us['p99']:>9.1f}"
            f"{kernel['rate']:>13.0f}/s, p50 {kernel['latency_us']['p50']:.1f}"
        )
    moved = {name: after[name] - before[name] for name in after}
    payload = 64 * sum(got["requests"] for _, got in results)
    print("\nWho carried it:")
    for name in ("conn_passive", "tcp_in", "tcp_out", "bytes_in", "bytes_out"):
        print(f"  TAS     {name:14}{moved[name]:>12}")
    print(f"  kernel  {'tcp segments in':14}{kernel_after - kernel_before:>11}   (server's namespace, meanwhile)")
    if moved["bytes_in"] < payload or moved["bytes_out"] < payload:
        raise RuntimeError(f"TAS carried fewer than the {payload} bytes of the requests")
    if kernel_after - kernel_before > moved["tcp_in"] / 100:
        raise RuntimeError("the kernel of the server's namespace received TCP segments")
    print(f"\nAll of it went through TAS.  ({time.monotonic() - began:.0f} s)")


def _stop(number: int, _: FrameType | None) -> None:
    raise SystemExit(128 + number)


def main() -> int:
    if os.geteuid() != 0:
        print("demo: network namespaces and a tap need root", file=sys.stderr)
        return 1
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, _stop)
    try:
        build = Path(_paths.service()).parent
    except _paths.NotFoundError as e:
        print(f"demo: {e}", file=sys.stderr)
        return 1
    _sweep()
    demo = Demo(build)
    try:
        _show(demo)
    except (RuntimeError, OSError, _service.StartError) as e:
        print(f"demo: {e}", file=sys.stderr)
        return 1
    finally:
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
        demo.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
