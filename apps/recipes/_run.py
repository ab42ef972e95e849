"""One run of a recipe, on the kernel or on TAS, and the comparison of two.

::

      SERVER   app: server (subject)  --- link ---  peer: client (kernel)
      CLIENT   app: client (subject)  --- link ---  peer: server (kernel)
      LOCAL    app: server and client (subject), 127.0.0.1

The link is a veth pair for the kernel and a tap of the service for TAS.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from _lab import PEER_ADDR, TAS_ADDR, Lab, Netns, Proc, Service, until

from recipes import _packages
from recipes._recipe import Mode, Recipe


class Run:
    """What a recipe works with."""

    def __init__(self, lab: Lab, mode: Mode) -> None:
        self.lab, self.mode = lab, mode
        self.on_tas = not lab.on_kernel
        self.tmp = lab.tmp
        self.addr = {Mode.SERVER: TAS_ADDR, Mode.CLIENT: PEER_ADDR, Mode.LOCAL: "127.0.0.1"}[mode]
        """The server's address."""
        self.client_addr = {Mode.SERVER: PEER_ADDR, Mode.CLIENT: TAS_ADDR, Mode.LOCAL: "127.0.0.1"}[mode]
        self.python = _packages.PYTHON
        """Interpreter that has the recipes' PyPI packages."""
        self.seen: dict[str, Any] = {}
        self.least: dict[str, int] = {}
        self.pid_files: list[Path] = []

    # ---- programs ----
    @property
    def server_ns(self) -> Netns:
        return self.lab.peer if self.mode is Mode.CLIENT else self.lab.app

    @property
    def client_ns(self) -> Netns:
        return self.lab.peer if self.mode is Mode.SERVER else self.lab.app

    def server(
        self, *argv: str | Path, port: int = 0, env: Mapping[str, str] | None = None, stdin: str | None = None
    ) -> Proc:
        """Starts a server; with ``port``, waits until it listens there."""
        p = self._start(self.mode is not Mode.CLIENT, argv, env, stdin)
        if port:
            self.listening(port, p)
        return p

    def client(self, *argv: str | Path, env: Mapping[str, str] | None = None, stdin: str | None = None) -> Proc:
        """Starts a client; ``.ok(seconds)`` waits for status 0, returns the output; ``.wait(seconds)`` the status."""
        return self._start(self.mode is not Mode.SERVER, argv, env, stdin)

    def _start(
        self, subject: bool, argv: tuple[str | Path, ...], env: Mapping[str, str] | None, stdin: str | None
    ) -> Proc:
        paths = {"NODE_PATH": str(_packages.NODE_MODULES), **(env or {})}
        return (self.lab.tas if subject else self.lab.kernel)(*argv, env=paths, stdin=stdin)

    def daemon(self, pid_file: Path) -> int:
        """Waits for the pid that a daemon writes; it gets SIGTERM at the end of the run."""
        self.pid_files.append(pid_file)
        return int(until(f"{pid_file.name} is written", lambda: pid_file.exists() and pid_file.read_text().strip()))

    def listening(self, port: int, server: Proc | None = None, timeout: float = 20) -> None:
        """Waits until somebody listens on the server's side (the kernel's half of a TAS listener shows it)."""

        def look() -> bool:
            if server and not server.alive and server.popen.poll():
                raise AssertionError(f"{server} ended with {server.popen.poll()}:\n{server.out}{server.err}")
            return bool(self.server_ns.run("ss", "-Hltn", f"sport = :{port}").strip())

        until(f"somebody listens on {port}", look, timeout)

    def file(self, name: str, content: str | bytes) -> Path:
        """Writes a file below the run's folder (configuration, script, data)."""
        path = self.tmp / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        path.chmod(0o644)
        return path

    # ---- what is compared ----
    def see(self, name: str, value: Any) -> None:
        """Functional output: has to be equal on TAS and on the kernel.  The run's folder is called TMP in it."""
        assert name not in self.seen, f"{name} was seen already"
        self.seen[name] = self._plain(value)

    def _plain(self, value: Any) -> Any:
        """A value as JSON has it, without what differs between two runs."""
        if isinstance(value, str):
            return value.replace(str(self.tmp), "TMP")
        if isinstance(value, Mapping):
            return {str(k): self._plain(v) for k, v in value.items()}
        if isinstance(value, list | tuple):
            return [self._plain(v) for v in value]
        assert value is None or isinstance(value, int | float), f"{value!r} cannot be compared"
        return value

    def carried(self, connections: int, bytes: int = 0) -> None:
        """What the service's counters must show at least when the run is on TAS."""
        self.least["connections"] = self.least.get("connections", 0) + connections
        self.least["bytes"] = self.least.get("bytes", 0) + bytes


@dataclass
class Outcome:
    """What one run gave."""

    error: str = ""
    seen: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0
    connections: int = 0
    bytes: int = 0
    kernel_opens: int = 0


def _kernel_opens(ns: Netns) -> int:
    """Connections that the kernel's TCP of a namespace made or took; an attempt at a port that nobody has is none."""
    names, values = (line.split() for line in ns.run("cat", "/proc/net/snmp").splitlines() if line.startswith("Tcp:"))
    tcp = dict(zip(names, values, strict=True))
    return int(tcp["ActiveOpens"]) + int(tcp["PassiveOpens"]) - int(tcp["AttemptFails"])


def _carried(service: Service, mode: Mode) -> tuple[int, int]:
    c = service.counters()
    if mode is Mode.LOCAL:
        return c["conn_local"], c["bytes_local"]
    return c["conn_passive" if mode is Mode.SERVER else "conn_active"], c["bytes_in"] + c["bytes_out"]


def _end_programs(run: Run) -> None:
    """Ends what the recipe started; a process that remains is an error (and ended by its pid)."""
    lab = run.lab
    for path in run.pid_files:
        with contextlib.suppress(OSError, ValueError):
            pid = int(path.read_text())
            if pid in lab.pids():
                _kill(pid, signal.SIGTERM)
    lab.end_programs()
    service = lab.service.pid if lab.service else 0

    def left() -> list[int]:
        return [pid for pid in lab.pids() if pid != service]

    with contextlib.suppress(AssertionError):
        until("all programs are gone", lambda: not left(), 10)
    names = {pid: Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode() for pid in left()}
    if names:
        lab.dump(f"processes are left: {names}")
        for pid in names:
            _kill(pid, signal.SIGKILL)
        raise AssertionError(f"processes are left: {names}")


def _kill(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        signal.pidfd_send_signal(fd := os.pidfd_open(pid), number)
        os.close(fd)


@contextlib.contextmanager
def _limit(lab: Lab, seconds: float) -> Iterator[None]:
    """An alarm that ends a recipe that hangs, after saying where everybody stands."""

    def late(*_: object) -> None:
        lab.dump(f"not done within {seconds} s")
        raise AssertionError(f"not done within {seconds} s")

    before = signal.signal(signal.SIGALRM, late)
    remaining = signal.alarm(0)  # pytest-timeout's
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        signal.alarm(remaining)


def once(recipe: Recipe, mode: Mode, on_kernel: bool) -> Outcome:
    """Runs a recipe in a laboratory of its own."""
    outcome = Outcome()
    tmp = Path(tempfile.mkdtemp(prefix="tas-app-"))
    tmp.chmod(0o755)
    begin = time.monotonic()
    lab = Lab(tmp, on_kernel)
    run = Run(lab, mode)
    try:
        Service(lab, link=mode is not Mode.LOCAL)
        try:
            with _limit(lab, recipe.limit):
                recipe.run(run)
            assert run.seen, "the recipe saw nothing that could be compared"
            assert run.least.get("connections"), "the recipe does not say what TAS must carry"
        except Exception as e:
            lab.dump(f"{recipe.name}, {mode.value}, on {'the kernel' if on_kernel else 'TAS'}: {e}")
            outcome.error = f"{type(e).__name__}: {e}"
        outcome.seen = run.seen
        outcome.kernel_opens = _kernel_opens(lab.app)
        if lab.service and not on_kernel and lab.service.popen.poll() is None:
            outcome.connections, outcome.bytes = _carried(lab.service, mode)
        try:
            _end_programs(run)
            lab.close(check=not outcome.error)
        except Exception as e:
            outcome.error = outcome.error or f"at the end: {e}"
        outcome.error = outcome.error or ("" if on_kernel else _not_carried(recipe, run, outcome))
    finally:
        lab.close(check=False)
        outcome.seconds = time.monotonic() - begin
        shutil.rmtree(tmp, ignore_errors=True)
    return outcome


def _not_carried(recipe: Recipe, run: Run, outcome: Outcome) -> str:
    """Why the service's counters do not prove that TAS did the work, or nothing."""
    for name, least in run.least.items():
        if getattr(outcome, name) < least:
            return f"TAS carried {getattr(outcome, name)} {name}, expected at least {least}"
    if outcome.kernel_opens > recipe.kernel_opens:
        return f"{outcome.kernel_opens} connections went past TAS"
    return ""


@dataclass
class Result:
    recipe: Recipe
    mode: Mode
    kernel: Outcome
    tas: Outcome

    @property
    def differences(self) -> list[str]:
        """Nothing: TAS did what the kernel did."""
        if self.kernel.error:
            return [f"on the kernel: {self.kernel.error}"]
        found = [f"on TAS: {self.tas.error}"] if self.tas.error else []
        for n, v in self.kernel.seen.items():
            if n not in self.tas.seen:
                found += [f"{n}: not reached on TAS"] if not self.tas.error else []
            elif v != self.tas.seen[n]:
                found.append(f"{n}:\n    kernel: {v!r}\n    TAS:    {self.tas.seen[n]!r}")
        return found + [f"{n}: only on TAS" for n in self.tas.seen if n not in self.kernel.seen]


def compare(recipe: Recipe, mode: Mode, say: Callable[[str], None] = lambda _: None) -> Result:
    """A recipe on the kernel, then on TAS."""
    say("kernel")
    kernel = once(recipe, mode, on_kernel=True)
    if kernel.error:
        return Result(recipe, mode, kernel, Outcome())
    say("TAS")
    return Result(recipe, mode, kernel, once(recipe, mode, on_kernel=False))
