"""Makes a failing program short: delta debugging over its lines, then over the words of the lines."""

from __future__ import annotations

import re
from collections.abc import Callable

from .rig import Difference

Fails = Callable[[list[str]], Difference | None]


def shrink(program: list[str], first: Difference, fails: Fails, limit: int = 400) -> tuple[list[str], Difference]:
    """The shortest program found that still fails, and how. ``limit`` bounds the number of runs."""
    runs = 0
    best, how = program[: first.step + 1], first

    def attempt(candidate: list[str]) -> bool:
        nonlocal runs, best, how
        runs += 1
        found = fails(candidate) if candidate else None
        if found is None or not _alike(found, first):
            return False
        best, how = candidate[: found.step + 1], found
        return True

    size = max(1, len(best) // 2)
    while size and runs < limit:
        at = 0
        progress = False
        while at < len(best) and runs < limit:
            if attempt(best[:at] + best[at + size :]):
                progress = True
            else:
                at += size
        size = size if progress and size == 1 else size // 2
    for change in (_simpler_actor, _simpler_words):
        for at in range(len(best)):
            if at < len(best) and runs < limit:
                other = change(best[at])
                if other != best[at]:
                    attempt([*best[:at], other, *best[at + 1 :]])
    return best, how


def _alike(a: Difference, b: Difference) -> bool:
    """The same kind of difference: of the same operation, or of what follows it."""
    return signature(a) == signature(b)


def _words(line: str) -> list[str]:
    """What a trace line says, without numbers."""
    return re.sub(r"\d+", "#", re.sub(r"#[0-9a-f]{8}", "#", line)).split()


def _parts(line: str) -> list[tuple[str, str]]:
    """(where, what) for each part of a trace line: the call, calls that returned, each process's readiness."""
    out = []
    for i, part in enumerate(line.split(" ;")):
        if i == 0:
            out.append(("call", " ".join(_words(part.partition(": ")[2]))))
        elif "=" in part:
            out += [("ready", re.sub(r"^\w+=|\d+", "", word)) for word in part.split()[1:]]
        else:
            out.append(("late", " ".join(_words(part)[1:])))
    return out


def signature(d: Difference) -> str:
    """What kind of difference it is, for counting: operation, and the first part that differs."""
    kernel, tas = _parts(d.kernel), _parts(d.tas)
    line = d.line.split("= ", 1)[-1] if " = " in d.line else re.sub(r"^\w+: ", "", d.line)
    operation = line.split()[0]
    if operation in ("getopt", "setopt"):
        operation += " " + line.split()[2]
    for k, t in zip(kernel, tas, strict=False):
        if k != t:
            return f"{operation}: {k[0]}: {_short(k[1])} / {_short(t[1])}"
    if len(kernel) != len(tas):
        return f"{operation}: parts: {len(kernel)} / {len(tas)}"
    return f"{operation}: numbers"


def _short(text: str) -> str:
    return re.sub(r"\b[a-z?]=", "", text)[:60]


def _simpler_actor(line: str) -> str:
    return re.sub(r"^(T\d|C\d): ", "", line)


def _simpler_words(line: str) -> str:
    line = re.sub(r"\b(writev|sendmsg) (\w) (\d+)", r"send \2 \3 0", line) if line.count(" ") < 4 else line
    return re.sub(r"\b(send|recv) (\w) (\d{2,}) ", r"\1 \2 1 ", line)
