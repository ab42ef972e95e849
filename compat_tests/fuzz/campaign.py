"""The volume run: N random programs from a seed, findings shrunk and sorted by kind. ``make fuzz-diff N=… SEED=…``"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from _lab import sweep

from .generate import Generator
from .known import known
from .rig import Difference, ExecutorLost, Pair, lines
from .shrink import shrink, signature

SHOWN_PER_KIND = 1


@dataclass
class Report:
    """What a campaign found."""

    seed: str
    asked: int
    ran: int = 0
    seconds: float = 0.0
    undetermined: int = 0
    late: int = 0  # equal when the program ran again, with more patience
    late_programs: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    leaks: list[str] = field(default_factory=list)
    kinds: Counter[str] = field(default_factory=Counter)
    listed: Counter[str] = field(default_factory=Counter)
    findings: dict[str, str] = field(default_factory=dict)

    def text(self) -> str:
        per_second = self.ran / self.seconds if self.seconds else 0
        out = [
            f"seed {self.seed}: {self.ran} of {self.asked} programs, {self.seconds:.0f} s, {per_second:.0f} programs/s",
            f"undetermined on the kernel: {self.undetermined}; equal when run again: {self.late}; "
            f"executor or service lost: {len(self.lost)}; leaks: {len(self.leaks)}",
            f"listed differences: {sum(self.listed.values())}",
            *(f"   {n:6} {kind}" for kind, n in self.listed.most_common()),
            f"differences: {sum(self.kinds.values())} of {len(self.kinds)} kinds",
        ]
        for kind, n in self.kinds.most_common():
            out += [f"   {n:6} {kind}", *(f"            {t}" for t in self.findings.get(kind, "").splitlines())]
        out += [f"lost: {text}" for text in self.lost] + [f"leak: {text}" for text in self.leaks]
        out += [f"late: {text}" for text in self.late_programs]
        return "\n".join(out) + "\n"

    @property
    def clean(self) -> bool:
        return not (self.kinds or self.lost or self.leaks)


def programs(seed: str, n: int, start: int = 0) -> Iterator[tuple[str, list[str]]]:
    """Every eighth without looks between the steps (``~``): looking could hide something."""
    for i in range(start, start + n):
        yield f"p{i}{'~' if i % 8 == 7 else ''}", Generator(f"{seed}/{i}").program()


class Campaign:
    def __init__(self, tmp: Path, seed: str, n: int, out: Path | None, lie: str = "", first_only: bool = False) -> None:
        self.tmp, self.out, self.lie, self.first_only = tmp, out, lie, first_only
        self.report = Report(seed, n)
        self.said = time.monotonic()
        self.pending: list[tuple[str, str, Difference]] = []
        self.current = ""
        self.pair = Pair(tmp / "pair", lie)

    def run(self) -> Report:
        began = time.monotonic()
        rep = self.report
        while rep.ran + len(rep.lost) < rep.asked and not (self.first_only and rep.kinds):
            try:
                self._stretch(min(500, rep.asked - rep.ran - len(rep.lost)))
            except ExecutorLost as e:
                rep.lost.append(f"{self.current}: {e}")
                self.pair.end()
                self.pair = Pair(self.tmp / f"pair{len(rep.lost)}", self.lie)
                if len(rep.lost) > 20:
                    break
            rep.seconds = time.monotonic() - began
            self._say(rep.ran + len(rep.lost) >= rep.asked)
        self.pair.end()
        return rep

    def _stretch(self, n: int) -> None:
        rep = self.report
        self.current = f"p{rep.ran + len(rep.lost)}"
        for name, found in self.pair.stream(programs(rep.seed, n, rep.ran + len(rep.lost))):
            rep.ran += 1
            self.current = f"p{rep.ran + len(rep.lost)}"
            if found:
                self._found(name, found)
            if self.first_only and rep.kinds:
                break
        self._shrink()
        left = self._left()
        if left:
            rep.leaks.append(f"after p{rep.ran}: {left}")
            self.pair.restart_tas()

    def _left(self) -> dict[str, int]:
        end = time.monotonic() + 5
        while (left := self.pair.tas.left()) and time.monotonic() < end:
            time.sleep(0.1)
        return left

    def _found(self, name: str, found: Difference) -> None:
        rep = self.report
        entry = known(found)
        if entry:
            rep.listed[entry] += 1
            return
        verdict = self.pair.confirmed(name, found)
        if verdict == "undetermined":
            rep.undetermined += 1
        elif verdict == "late":
            rep.late += 1
            rep.late_programs.append(f"{name}: {found.line} / {found.kernel} / {found.tas}")
        else:
            kind = signature(found)
            if not rep.kinds[kind]:
                rep.findings[kind] = f"{name}\n{found.shown()}"
                self.pending.append((name, kind, found))
            rep.kinds[kind] += 1

    def _shrink(self) -> None:
        """The first of each kind becomes short."""
        rep = self.report
        while self.pending:
            name, kind, found = self.pending.pop()
            if not self.first_only:
                _, found = shrink(found.program, found, self.attempt("~" if "~" in name else ""))
            rep.findings[kind] = f"{name}\n{found.shown()}"
            print(f"---- {kind} ({name})\n{found.shown()}", flush=True)
            entry = known(found)
            if entry:
                rep.listed[entry] += rep.kinds.pop(kind)

    def attempt(self, mark: str) -> Callable[[list[str]], Difference | None]:
        return lambda program: self.pair.one(program, f"shrink!{mark}")

    def _say(self, last: bool) -> None:
        rep = self.report
        if not last and time.monotonic() - self.said < 15:
            return
        self.said = time.monotonic()
        rate = rep.ran / max(rep.seconds, 0.001)
        print(
            f"{rep.ran:8} programs  {rate:5.0f}/s  differences {sum(rep.kinds.values())} of "
            f"{len(rep.kinds)} kinds  listed {sum(rep.listed.values())}  undetermined {rep.undetermined}  "
            f"late {rep.late}  lost {len(rep.lost)}",
            flush=True,
        )
        if self.out:
            self.out.mkdir(parents=True, exist_ok=True)
            (self.out / "report.txt").write_text(rep.text())


def main() -> int:
    a = argparse.ArgumentParser(prog="fuzz", description=__doc__)
    a.add_argument("-n", type=int, default=1000, help="programs")
    a.add_argument("--seed", default="1")
    a.add_argument("--out", type=Path, default=None, help="folder of the report")
    a.add_argument("--lie", default="", help="falsify TAS's results: errno, event, byte, number")
    a.add_argument(
        "--program", type=Path, action="append", default=[], help="run this program instead, and show both traces"
    )
    a.add_argument("--first", action="store_true", help="end at the first difference, and leave it as it is")
    given = a.parse_args()
    sweep()
    with tempfile.TemporaryDirectory(prefix="tas-fuzz-") as folder:
        tmp = Path(folder)
        tmp.chmod(0o755)
        if given.program:
            return show(tmp, given.program)
        report = Campaign(tmp, given.seed, given.n, given.out, given.lie, given.first).run()
    print(report.text(), end="")
    if given.out:
        given.out.mkdir(parents=True, exist_ok=True)
        (given.out / "report.txt").write_text(report.text())
        (given.out / "report.json").write_text(json.dumps(report.__dict__, indent=1))
    return 0 if report.clean else 1


def show(tmp: Path, paths: list[Path]) -> int:
    """Both traces of programs from files, side by side."""
    pair = Pair(tmp)
    differ = 0
    try:
        for path in paths:
            program = lines(path.read_text().splitlines())
            kernel = pair.oracle.run("program", program)
            tas = pair.tas.run("program", program, kernel)
            for i, text in enumerate(program):
                mine, other = (t[i] if i < len(t) else "(nothing)" for t in (kernel, tas))
                print(
                    f"{'  ' if mine == other else '>>'} {text:32} {mine}"
                    + (f"\n   {'':32} {other}" if mine != other else "")
                )
                if mine != other:
                    differ = 1
                    break
    finally:
        pair.end()
    return differ


if __name__ == "__main__":
    sys.exit(main())
