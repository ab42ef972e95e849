"""Where programs run: an executor on the kernel and one under the interposer, each with namespaces of its own.

::

      namespace "app"                                    namespace "peer"
      executor: conductor, subject A (threads, children)     P, on the kernel
              |________ kernel: veth pair; TAS: service and its tap ________|
"""

from __future__ import annotations

import contextlib
import os
import queue
import select
import subprocess
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from _lab import BUILD, PEER_ADDR, TAS_ADDR, Lab, Service

EXECUTOR = BUILD / "tests" / "fuzz-executor"
# Gauges of the service that return when the sockets of a batch are closed.
GAUGES = ("sockets", "listeners", "embryos", "watches")
Trace = list[str]
Program = Sequence[str]
Verdict = Literal["differs", "undetermined", "late"]


class ExecutorLost(Exception):
    """The executor, or the service below it, ended or hung."""


class Subject:
    """An executor on the kernel, or on TAS."""

    def __init__(self, tmp: Path, tas: bool, lie: str = "", slow: bool = False) -> None:
        tmp.mkdir(mode=0o755, exist_ok=True, parents=True)
        self.tmp, self.tas = tmp, tas
        self.lab = Lab(tmp)
        self.service: Service | None = None
        argv = ["nsenter", f"--net={self.lab.app.path}", str(EXECUTOR), "--peer", self.lab.peer.path]
        if tas:
            self.service = Service(self.lab)
            argv += ["--preload", str(BUILD / "libtas_interpose.so"), "--service", self.service.socket]
            self.base = self.service.gauges()
        else:
            ends = ((self.lab.app, TAS_ADDR), (self.lab.peer, PEER_ADDR))
            self.lab.app.ip("link", "add", "veth0", "type", "veth", "peer", "veth0", "netns", self.lab.peer.name)
            for ns, addr in ends:
                ns.ip("addr", "add", f"{addr}/24", "dev", "veth0")
                ns.ip("link", "set", "veth0", "up")
        for ns in (self.lab.app, self.lab.peer):  # many programs leave many TIME_WAITs
            ns.run("sysctl", "-qw", "net.ipv4.ip_local_port_range=10000 65000", "net.ipv6.conf.all.disable_ipv6=0")
        env = {k: v for k, v in os.environ.items() if k not in ("LD_PRELOAD", "TAS_SOCKET", "FUZZ_LIE", "FUZZ_SLOW")}
        env |= {"FUZZ_LIE": lie} if lie else {}
        env |= {"FUZZ_SLOW": "1"} if slow else {}
        self.argv, self.env = argv, env
        self.log_path = tmp / "executor.log"
        self._start()

    def _start(self) -> None:
        with open(self.log_path, "ab") as log:
            self.popen = subprocess.Popen(
                self.argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, env=self.env, cwd=self.tmp
            )

    def run(self, name: str, program: Program, expect: Trace | None = None, timeout: float = 120) -> Trace:
        """The trace of one program. With ``expect`` it ends at the first step that differs."""
        self.send(name, program, expect)
        return self.receive(name, timeout)

    def send(self, name: str, program: Program, expect: Trace | None = None) -> None:
        lines = [f"program {name}", *program, *(["expect", *expect] if expect is not None else []), "end", ""]
        assert self.popen.stdin
        try:
            self.popen.stdin.write("\n".join(lines).encode())
            self.popen.stdin.flush()
        except BrokenPipeError:
            raise ExecutorLost(self._why("the executor ended")) from None

    def receive(self, name: str, timeout: float = 120) -> Trace:
        out = self.popen.stdout
        assert out
        trace: Trace = []
        if not select.select([out], [], [], timeout)[0]:
            raise ExecutorLost(self._why("the executor hangs"))
        while True:
            line = out.readline().decode(errors="replace")
            if not line:
                raise ExecutorLost(self._why("the executor ended"))
            line = line.rstrip("\n")
            if line == "end":
                return trace
            if line.startswith("trace "):
                assert line == f"trace {name}", f"expected the trace of {name}: {line}"
            else:
                trace.append(line)

    def _why(self, what: str) -> str:
        said = [what, self.log_path.read_text(errors="replace")[-2000:]]
        if self.service and self.service.popen.poll() is not None:
            said += [f"the service ended with {self.service.popen.poll()}:", self.service.log()[-3000:]]
        return "\n".join(said)

    def left(self) -> dict[str, int]:
        """What the service still holds though every program is over."""
        if not self.service:
            return {}
        now = self.service.gauges()
        return {k: now[k] - self.base[k] for k in GAUGES if now[k] > self.base[k]}

    def end(self) -> None:
        with contextlib.suppress(BrokenPipeError):
            if self.popen.stdin:
                self.popen.stdin.close()
        try:
            self.popen.wait(10)
        except subprocess.TimeoutExpired:
            self.popen.kill()
            self.popen.wait()
        if self.popen.stdout:
            self.popen.stdout.close()
        self.lab.close(check=False)


def lines(program: Program) -> list[str]:
    """Without comments and empty lines."""
    return [text for text in program if text.strip() and not text.lstrip().startswith("#")]


@dataclass
class Difference:
    """Where two traces part."""

    program: list[str]
    step: int
    kernel: str
    tas: str
    past: list[str]  # the kernel's trace before

    @property
    def line(self) -> str:
        return self.program[self.step] if self.step < len(self.program) else "(end)"

    def shown(self) -> str:
        where = [f"   {text}" for text in self.program[: self.step]]
        return "\n".join([*where, f">> {self.line}", f"   linux: {self.kernel}", f"   tas:   {self.tas}"])


class Pair:
    """The kernel and TAS, for many programs."""

    def __init__(self, tmp: Path, lie: str = "") -> None:
        self.tmp, self.lie = tmp, lie
        self.generation = 0
        self.oracle = Subject(tmp / "linux", tas=False)
        self._careful: Subject | None = None
        self._begin_tas()

    def _begin_tas(self) -> None:
        self.generation += 1
        self.tas = Subject(self.tmp / f"tas{self.generation}", tas=True, lie=self.lie)

    def restart_tas(self) -> None:
        """After a service that died, or when programs before must not matter."""
        self.tas.end()
        self._begin_tas()

    @property
    def careful(self) -> Subject:
        """A kernel that looks twice, to find programs that ask for something undetermined."""
        if self._careful is None:
            self._careful = Subject(self.tmp / "careful", tas=False, slow=True)
        return self._careful

    def one(self, program: Program, name: str = "one") -> Difference | None:
        """How TAS differs from one run of the kernel. ``!`` in the name: found quickly, ``+``: with much patience."""
        program = lines(program)
        expect = self.oracle.run(name, program)
        return self.compare(program, expect, self.tas.run(name, program, expect))

    def stream(self, programs: Iterable[tuple[str, Program]]) -> Iterator[tuple[str, Difference | None]]:
        """``one`` for many: the kernel is ahead by a few programs."""
        ahead: queue.Queue[tuple[str, list[str], Trace] | BaseException | None] = queue.Queue(64)
        stop = threading.Event()

        def run_ahead() -> None:
            try:
                for name, program in programs:
                    if stop.is_set():
                        break
                    kept = lines(program)
                    ahead.put((name, kept, self.oracle.run(name, kept)))
                ahead.put(None)
            except BaseException as e:
                ahead.put(e)

        thread = threading.Thread(target=run_ahead, daemon=True)
        thread.start()
        try:
            while (got := ahead.get()) is not None:
                if isinstance(got, BaseException):
                    raise got
                name, program, expect = got
                yield name, self.compare(program, expect, self.tas.run(name, program, expect))
        finally:
            stop.set()
            while thread.is_alive():
                with contextlib.suppress(queue.Empty):
                    ahead.get(timeout=0.05)

    def confirmed(self, name: str, found: Difference) -> Verdict:
        """Is it one? The kernel must agree with itself, and TAS must differ again when it is given much time."""
        careful = self.careful
        expect = careful.run(name, found.program)
        if expect[: found.step + 1] != careful.run(name, found.program)[: found.step + 1] or (
            expect[found.step : found.step + 1] != [found.kernel]
        ):
            return "undetermined"
        again = self.compare(found.program, expect, self.tas.run(name + "+", found.program, expect))
        return "differs" if again else "late"

    @staticmethod
    def compare(program: Program, kernel: Trace, tas: Trace) -> Difference | None:
        for i, line in enumerate(kernel):
            other = tas[i] if i < len(tas) else "(nothing)"
            if line != other:
                return Difference(list(program), i, line, other, kernel[:i])
        return None

    def end(self) -> None:
        for s in (self.tas, self.oracle, self._careful):
            if s:
                s.end()
