"""What a call gave, and the trace of a run: steps of who did what and what it gave, as text.

Two runs of a scenario are equal when their traces are. The choices of the system that nobody may rely on (port numbers,
addresses in memory) have been replaced by names.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from dataclasses import dataclass, field

from .memory import short

EPOLL_BITS = {
    0x1: "IN", 0x2: "PRI", 0x4: "OUT", 0x8: "ERR", 0x10: "HUP", 0x20: "NVAL", 0x40: "RDNORM", 0x80: "RDBAND",
    0x100: "WRNORM", 0x200: "WRBAND", 0x2000: "RDHUP", 1 << 28: "EXCLUSIVE", 1 << 29: "WAKEUP", 1 << 30: "ONESHOT",
    1 << 31: "ET",
}  # fmt: skip


def bits(mask: int) -> str:
    """Event mask in names."""
    return (
        "|".join([n for b, n in EPOLL_BITS.items() if mask & b] + ([hex(mask >> 14 << 14)] if mask & 0xFFFC000 else []))
        or "0"
    )


@dataclass
class Result:
    """What a call gave; ``blocked`` if it has not returned."""

    ret: int = 0
    err: int = 0
    out: list[bytes] = field(default_factory=list)
    state: str = ""

    @property
    def blocked(self) -> bool:
        return self.state == "blocked"

    def __str__(self) -> str:
        if self.state:
            return self.state
        return f"{self.ret} {errno.errorcode.get(self.err, self.err)}" if self.ret == -1 else str(self.ret)

    def full(self) -> str:
        """With what came back in memory."""
        return " ".join([str(self), *(short(o) for o in self.out)])


def parse(line: str) -> Result:
    if not line.startswith("r "):
        return Result(state=line)
    _, ret, err, *outs = line.split(" ")
    return Result(int(ret), int(err), [bytes.fromhex(o[1:]) for o in outs])


@dataclass
class Step:
    who: str
    call: str
    result: str

    def __str__(self) -> str:
        return f"{self.who}: {self.call} = {self.result}"


class Trace:
    """Steps of one run, and the names of its ports."""

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self.ports: dict[int, str] = {}
        self.dump = ""  # what everybody did when something hung

    def port(self, number: int) -> str:
        if number < 1024:
            return str(number)
        return self.ports.setdefault(number, f"port{len(self.ports) + 1}")

    def note(self, who: str, call: str, result: str) -> None:
        self.steps.append(Step(who, call, result))


def see_received(r: Result) -> str:
    """Return value and the bytes that it counts, and whether memory behind them was left alone."""
    if r.ret < 0 or not r.out:
        return str(r)
    tail = r.out[0][r.ret :]
    return f"{r} {short(r.out[0][: r.ret])}{'' if tail == bytes([0xA5]) * len(tail) else ' and wrote behind'}"


def see_sign(r: Result) -> str:
    """Only whether it moved something: how much is the system's choice."""
    return "some" if r.ret > 0 else str(r)


def steps(trace: Trace) -> Iterator[tuple[str, str, str]]:
    for s in trace.steps:
        yield s.who, s.call, s.result
