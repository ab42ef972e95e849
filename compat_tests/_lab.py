"""A laboratory for one test: two network namespaces, a service between them, processes on both sides.

::

      namespace "app"                               namespace "peer"
      programs under LD_PRELOAD                     programs on the kernel's TCP
              |  shared memory                              |
          build/tas  --------- tap (moved to peer) ---- 10.77.0.2
          10.77.0.1                              (nftables: loss)

With ``TAS_TEST_KERNEL=1`` nothing is preloaded and a veth pair takes the place of service and tap: that shows whether a
test is right about Linux.
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import _diagnosis
import psutil

from tas_sockets._control import Control, What

ROOT = Path(__file__).resolve().parent.parent
BUILD = Path(os.environ.get("TAS_BUILD", ROOT / "build")).resolve()
KERNEL_ONLY = os.environ.get("TAS_TEST_KERNEL", "") not in ("", "0")
TAS_ADDR, PEER_ADDR = "10.77.0.1", "10.77.0.2"
PREFIX = "tastest"

_numbers = itertools.count()
_libc = ctypes.CDLL(None, use_errno=True)


def sh(*argv: str, check: bool = True, timeout: float = 30) -> str:
    """Runs a helper command; its output, or CalledProcessError with what it said."""
    run = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=timeout)
    if check and run.returncode:
        raise AssertionError(f"{' '.join(argv)}: status {run.returncode}: {run.stderr.strip()}")
    return run.stdout


def until(what: str, condition: Callable[[], Any], timeout: float = 10) -> Any:
    """Waits for a true value of ``condition`` and returns it; fails naming ``what``."""
    end = time.monotonic() + timeout
    pause = 0.001
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"{what}: not within {timeout} s")
        time.sleep(pause)
        pause = min(pause * 1.5, 0.1)


def missing() -> str:
    """Why namespaces and taps cannot be had here, or nothing."""
    if os.geteuid() != 0:
        return "network namespaces and taps need root"
    for tool in ("ip", "nsenter", "nft", "ethtool"):
        if not shutil.which(tool):
            return f"{tool} is not installed (make test-deps)"
    try:
        sh("unshare", "--net", "true")
    except AssertionError as e:
        return f"no network namespaces: {e}"
    if not KERNEL_ONLY and not os.access("/dev/net/tun", os.R_OK | os.W_OK):
        return "/dev/net/tun is not there (modprobe tun)"
    return ""


def sweep() -> None:
    """Removes namespaces of test runs that ended without cleaning up."""
    for line in sh("ip", "netns", "list").splitlines():
        name = line.split()[0]
        owner = re.fullmatch(rf"{PREFIX}-(\d+)-\d+", name)
        if owner and not psutil.pid_exists(int(owner[1])):
            for pid in sh("ip", "netns", "pids", name, check=False).split():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGKILL)
            sh("ip", "netns", "del", name, check=False)


class Netns:
    """A network namespace of our own, with loopback up."""

    def __init__(self) -> None:
        self.name = f"{PREFIX}-{os.getpid()}-{next(_numbers)}"
        self.path = f"/run/netns/{self.name}"
        sh("ip", "netns", "add", self.name)
        self.ip("link", "set", "lo", "up")

    def ip(self, *argv: str, check: bool = True) -> str:
        return sh("ip", "-n", self.name, *argv, check=check)

    def run(self, *argv: str, check: bool = True, timeout: float = 30) -> str:
        return sh("nsenter", f"--net={self.path}", *argv, check=check, timeout=timeout)

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """Sockets made by this thread inside are the namespace's, for all their life."""
        home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        there = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            if _libc.setns(there, 0):
                raise OSError(ctypes.get_errno(), "setns")
            try:
                yield
            finally:
                _libc.setns(home, 0)
        finally:
            os.close(home)
            os.close(there)

    def tcp_socket(self, family: int = socket.AF_INET, timeout: float = 20) -> socket.socket:
        with self.entered():
            s = socket.socket(family, socket.SOCK_STREAM)
        s.settimeout(timeout)
        return s

    def connect(self, addr: str, port: int, timeout: float = 20) -> socket.socket:
        s = self.tcp_socket(timeout=timeout)
        try:
            s.connect((addr, port))
        except BaseException:
            s.close()
            raise
        return s

    def delete(self) -> None:
        for pid in sh("ip", "netns", "pids", self.name, check=False).split():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
        sh("ip", "netns", "del", self.name, check=False)


class Proc:
    """A process of a test, in a session of its own; output in files."""

    def __init__(self, lab: Lab, argv: list[str], shown: list[str], stdin: str | None) -> None:
        n = next(_numbers)
        self.lab, self.argv = lab, shown
        self.out_path = lab.tmp / f"{n}-{Path(shown[0]).name}.out"
        self.err_path = lab.tmp / f"{n}-{Path(shown[0]).name}.err"
        with open(self.out_path, "wb") as out, open(self.err_path, "wb") as err:
            self.popen = subprocess.Popen(
                argv,
                stdin=subprocess.PIPE if stdin is not None else subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
                cwd=lab.tmp,
            )
        if stdin is not None and self.popen.stdin:
            self.popen.stdin.write(stdin.encode())
            self.popen.stdin.close()
        self.pid = self.popen.pid

    def __str__(self) -> str:
        return " ".join(self.argv)

    @property
    def out(self) -> str:
        return self.out_path.read_text(errors="replace")

    @property
    def err(self) -> str:
        return self.err_path.read_text(errors="replace")

    @property
    def alive(self) -> bool:
        return self.popen.poll() is None

    def line(self, pattern: str, timeout: float = 20) -> re.Match[str]:
        """Waits until the output (or error output) has a match for ``pattern``."""

        def look() -> bool:
            return bool(re.search(pattern, self.out + self.err, re.M)) or not self.alive

        try:
            until(f"{self}: {pattern!r} in its output", look, timeout)
        except AssertionError:
            self.lab.dump(f"{self} did not print {pattern!r}")
            raise
        m = re.search(pattern, self.out + self.err, re.M)
        if not m:
            raise AssertionError(f"{self} ended with {self.popen.poll()} before {pattern!r}:\n{self.out}{self.err}")
        return m

    def listening(self) -> int:
        """Port of our own servers, which print `listening on ADDRESS:PORT`."""
        return int(self.line(r"listening on \S*:(\d+)")[1])

    def wait(self, timeout: float = 60) -> int:
        try:
            return self.popen.wait(timeout)
        except subprocess.TimeoutExpired:
            self.lab.dump(f"{self} did not end within {timeout} s")
            raise AssertionError(
                f"{self} did not end within {timeout} s:\n{self.out[-2000:]}{self.err[-2000:]}"
            ) from None

    def ok(self, timeout: float = 60) -> str:
        """Waits for status 0 and returns the output."""
        code = self.wait(timeout)
        if code:
            self.lab.dump(f"{self} ended with {code}", stacks=False)
            raise AssertionError(f"{self} ended with {code}:\n{self.out[-3000:]}{self.err[-3000:]}")
        return self.out

    def json(self, timeout: float = 60) -> Any:
        return json.loads(self.ok(timeout))

    def signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.popen.send_signal(number)

    def end(self, timeout: float = 10) -> int:
        """SIGTERM, and SIGKILL to the whole session after ``timeout`` (which fails the test)."""
        if self.alive:
            self.signal(signal.SIGCONT)
            self.signal(signal.SIGTERM)
        try:
            code = self.popen.wait(timeout)
        except subprocess.TimeoutExpired:
            self.lab.dump(f"{self} does not end by SIGTERM")
            self.kill()
            raise AssertionError(f"{self} does not end by SIGTERM") from None
        self.kill()
        return code

    def kill(self) -> None:
        """SIGKILL to its session."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self.popen.wait()


class Lab:
    """What one test uses; everything it starts is ended by ``close``."""

    def __init__(self, tmp: Path, on_kernel: bool = KERNEL_ONLY) -> None:
        self.tmp = tmp
        self.on_kernel = on_kernel
        self.procs: list[Proc] = []
        self.namespaces: list[Netns] = []
        self.app = self.netns()
        self.peer = self.netns()
        self.service: Service | None = None
        self.build = BUILD
        self.dumped = False
        self.stack = contextlib.ExitStack()  # what else ends with the test

    def netns(self) -> Netns:
        ns = Netns()
        self.namespaces.append(ns)
        return ns

    # ---- processes ----
    def start(
        self,
        ns: Netns,
        *argv: str | Path,
        env: Mapping[str, str] | None = None,
        via: tuple[str, ...] = (),
        stdin: str | None = None,
    ) -> Proc:
        """Starts a program in a namespace; the environment applies to it, not to nsenter or ``via``."""
        shown = [str(a) for a in argv]
        clean = ["-u", "LD_PRELOAD", "-u", "TAS_SOCKET"]
        settings = [f"{k}={v}" for k, v in (env or {}).items()]
        p = Proc(self, ["nsenter", f"--net={ns.path}", *via, "env", *clean, *settings, *shown], shown, stdin)
        self.procs.append(p)
        return p

    def tas_env(self) -> dict[str, str]:
        if self.on_kernel:
            return {}
        assert self.service, "this test has no service"
        return {"LD_PRELOAD": str(self.build / "libtas_interpose.so"), "TAS_SOCKET": self.service.socket}

    def tas(self, *argv: str | Path, env: Mapping[str, str] | None = None, stdin: str | None = None) -> Proc:
        """Starts a program under the interposer."""
        return self.start(self.app, *argv, env={**self.tas_env(), **(env or {})}, stdin=stdin)

    def kernel(self, *argv: str | Path, env: Mapping[str, str] | None = None, stdin: str | None = None) -> Proc:
        """Starts a program on the kernel's TCP, in the peer's namespace."""
        return self.start(self.peer, *argv, env=env, stdin=stdin)

    def echoserver(self, *options: str) -> tuple[Proc, int]:
        p = self.tas(self.build / "echoserver", "--port=0", *options)
        return p, p.listening()

    def rpc(self, port: int, *options: str, addr: str = TAS_ADDR, timeout: float = 60) -> Any:
        """rpcclient on the kernel's side against TAS; its result."""
        return self.kernel(BUILD / "rpcclient", "--json", *options, addr, str(port)).json(timeout)

    def script(self, text: str) -> Path:
        """A Python program of the test."""
        path = self.tmp / f"script{next(_numbers)}.py"
        path.write_text(text)
        return path

    def tas_python(self, text: str, *argv: str, env: Mapping[str, str] | None = None) -> Proc:
        """Starts a Python program under the interposer."""
        return self.tas("/usr/bin/python3", "-u", self.script(text), *argv, env=env)

    # ---- the network ----
    def loss(self, percent: int) -> None:
        """Drops so many of a hundred packets at the peer, in both directions.

        The kernel is told to send single segments, for nftables sees what it sends before that is cut.
        """
        link = "veth0" if self.on_kernel else self.service.tap if self.service else ""
        self.peer.run("ethtool", "-K", link, "tso", "off", "gso", "off")
        rules = "add table inet loss\n"
        for hook in ("input", "output"):
            rules += f"add chain inet loss {hook} {{ type filter hook {hook} priority 0; }}\n"
            rules += f"add rule inet loss {hook} meta l4proto tcp numgen random mod 100 < {percent} counter drop\n"
        path = self.tmp / "loss.nft"
        path.write_text(rules)
        self.peer.run("nft", "-f", str(path))

    def dropped(self) -> int:
        """Packets that ``loss`` has dropped."""
        return sum(map(int, re.findall(r"packets (\d+)", self.peer.run("nft", "list", "table", "inet", "loss"))))

    # ---- diagnosis and end ----
    def state(self) -> str:
        """What the service says of itself, and what the kernel says of its threads."""
        service = self.service
        return _diagnosis.service(service, service.pid, service.log()) if service and service.pid else "-- no service"

    def dump(self, why: str, stacks: bool = True) -> None:
        """Says on stderr what everybody is doing."""
        if self.dumped:
            return
        self.dumped = True
        own = self.service.pid if self.service else 0
        others = [pid for pid in self.pids() if pid != own] if stacks else []
        said = [f"==== {why}", self.state(), *(_diagnosis.process(pid) for pid in others)]
        said += [f"-- stderr of {p}:\n{p.err[-1500:]}" for p in self.procs if p.err]
        print("\n".join(said), file=sys.stderr)

    def pids(self) -> list[int]:
        """Every process in our namespaces, the service included, whoever started it."""
        return [int(pid) for ns in self.namespaces for pid in sh("ip", "netns", "pids", ns.name).split()]

    def end_programs(self) -> None:
        for p in reversed(self.procs):
            p.signal(signal.SIGCONT)
            p.signal(signal.SIGTERM)
        for p in reversed(self.procs):
            with contextlib.suppress(subprocess.TimeoutExpired):
                p.popen.wait(5)
            p.kill()

    def close(self, check: bool) -> None:
        self.stack.close()
        try:
            self.end_programs()
            if self.service:
                self.service.finish(check)
        finally:
            for ns in self.namespaces:
                ns.delete()


# Gauges that must be back at their first values once the programs are gone.
GAUGES = (
    "processes", "memory_sets", "sockets", "listeners", "embryos", "chunks", "chunk_bytes_used", "wait_sets", "watches",
    "descriptors",
)  # fmt: skip


class Service:
    """build/tas between the namespaces of a lab (or, ``link=False``, for local connections only)."""

    def __init__(
        self, lab: Lab, *options: str, link: bool = True, via: tuple[str, ...] = (), addr: str = TAS_ADDR
    ) -> None:
        n = next(_numbers)
        self.lab, self.link, self.addr = lab, link, addr
        self.tap = f"tt{os.getpid() % 1000000}x{n}"[:15]
        self.socket = str(lab.tmp / f"tas{n}.sock")
        self.pid = 0
        # options of services in all tests of a run: TAS_TEST_SERVICE="--fp-cores-max=2 --fp-no-autoscale"
        self.options = [*shlex.split(os.environ.get("TAS_TEST_SERVICE", "")), *options]
        self.via = via
        self.expect_exit: int | None = 0
        lab.service = self
        if self.lab.on_kernel:
            if link:
                self._veth()
            return
        self.start()
        self.base = self.gauges()
        self.rss = psutil.Process(self.pid).memory_info().rss

    def _veth(self) -> None:
        app, peer = self.lab.app, self.lab.peer
        app.ip("link", "add", "veth0", "type", "veth", "peer", "name", "veth0", "netns", peer.name)
        for ns, addr in ((app, TAS_ADDR), (peer, PEER_ADDR)):
            ns.ip("addr", "add", f"{addr}/24", "dev", "veth0")
            ns.ip("link", "set", "veth0", "up")

    def start(self) -> None:
        """Starts it, as the constructor and tests of its death do."""
        if self.lab.on_kernel:
            return
        link = [f"--ip-addr={self.addr}/24", f"--link=tap:{self.tap}"] if self.link else ["--link=none"]
        ready_r, ready_w = os.pipe()
        self.log_path = self.lab.tmp / f"service{next(_numbers)}.log"
        with open(self.log_path, "wb") as log:
            self.popen = subprocess.Popen(
                [
                    "nsenter", f"--net={self.lab.app.path}", *self.via, str(self.lab.build / "tas"), *link,
                    f"--socket={self.socket}", f"--ready-fd={ready_w}", *self.options,
                ],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, pass_fds=(ready_w,), start_new_session=True,
                env={**os.environ, "TAS_SOCKET": self.socket},
            )  # fmt: skip
        os.close(ready_w)
        self.pid = self.popen.pid
        os.set_blocking(ready_r, False)

        def ready() -> bool:
            try:
                got = os.read(ready_r, 64)
            except BlockingIOError:
                return False
            if not got:
                self.popen.wait(5)
                raise AssertionError(f"the service ended with {self.popen.poll()}:\n{self.log()}")
            return True

        try:
            until("service ready", ready, 60)
        finally:
            os.close(ready_r)
        if self.link:
            self.lab.app.ip("link", "set", self.tap, "netns", self.lab.peer.name)
            self.lab.peer.ip("addr", "add", f"{PEER_ADDR}/24", "dev", self.tap)
            self.lab.peer.ip("link", "set", self.tap, "up")

    def log(self) -> str:
        return "" if self.lab.on_kernel else self.log_path.read_text(errors="replace")

    def ask(self, what: What) -> Any:
        with Control(self.socket, timeout=5) as control:
            return control.ask(what)

    def counters(self) -> dict[str, int]:
        found: dict[str, int] = self.ask(What.STATS)["counters"]
        return found

    def gauges(self) -> dict[str, int]:
        found: dict[str, int] = self.ask(What.STATS)["gauges"]
        return found

    @contextlib.contextmanager
    def carried(self, **least: int) -> Iterator[None]:
        """What happens inside moves these counters by at least so much: proof that TAS did it, not the kernel."""
        if self.lab.on_kernel:
            yield
            return
        before = self.counters()
        yield
        after = self.counters()
        moved = {k: after[k] - before[k] for k in least}
        assert all(moved[k] >= least[k] for k in least), f"TAS carried {moved}, expected at least {least}"

    def cpu_seconds(self) -> float:
        times = psutil.Process(self.pid).cpu_times()
        return float(times.user + times.system)

    def kill(self) -> None:
        """SIGKILL."""
        if self.lab.on_kernel:
            return
        self.popen.kill()
        self.popen.wait()
        self.pid = 0

    def settled(self, timeout: float = 15) -> None:
        """Waits until the gauges stand where they began."""
        if self.lab.on_kernel:
            return

        def differing() -> dict[str, tuple[int, int]]:
            now = self.gauges()
            return {k: (v, now[k]) for k, v in self.base.items() if k in GAUGES and now[k] != v}

        end = time.monotonic() + timeout
        while differing() and time.monotonic() < end:
            time.sleep(0.05)
        left = differing()
        if left:
            self.lab.dump(f"gauges (before, now) {left}", stacks=False)
        assert not left, f"gauges did not come back (before, now): {left}"

    def finish(self, check: bool) -> None:
        """Ends it and, if ``check``, proves that nothing is left behind."""
        if self.lab.on_kernel or not self.pid:
            return
        try:
            if check:
                assert self.popen.poll() is None, f"the service ended with {self.popen.poll()}:\n{self.log()[-3000:]}"
                self.settled()
            self.popen.terminate()
            code = self.popen.wait(15)
        except subprocess.TimeoutExpired:
            self.lab.dump("the service does not end by SIGTERM")
            raise AssertionError("the service does not end by SIGTERM") from None
        finally:
            self.popen.kill()
            self.popen.wait()
            pid, self.pid = self.pid, 0
        if not check:
            return
        assert code == 0, f"the service ended with {code}:\n{self.log()[-3000:]}"
        assert not os.path.exists(self.socket), "the service left its socket"
        assert self.tap not in self.lab.peer.ip("link"), "the service left its tap"
        assert not _leftovers(pid), f"the service left {_leftovers(pid)}"


def _leftovers(pid: int) -> list[str]:
    """Files with the number of process ``pid`` in their names, where services put such."""
    found = []
    for folder in ("/dev/shm", "/run/tas", "/run/dpdk"):
        with contextlib.suppress(FileNotFoundError):
            found += [f"{folder}/{name}" for name in os.listdir(folder) if str(pid) in re.findall(r"\d+", name)]
    return found
