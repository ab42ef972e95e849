"""Running a scenario on the oracle and on the subject, comparing the traces, and knowing which differences are allowed."""

# ruff: noqa: E501  (tables of cases, one a line)
from __future__ import annotations

import fnmatch
import functools
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

import pytest
from _lab import KERNEL_ONLY

from .agent import Step, Trace
from .rig import PEERS, Pair, Rig

DIVERGENCES = Path(__file__).resolve().parent.parent / "divergences.toml"
Scenario = Callable[[Pair], object]


@dataclass(frozen=True)
class Divergence:
    """One entry of divergences.toml."""

    scenario: str
    differs: str
    kind: str
    why: str
    since: str
    strict: bool = True  # false: a race, which does not differ every time

    def covers(self, ident: str) -> bool:
        patterns = (p.strip().replace("[", "[[]") for p in self.scenario.split("\n"))
        return any(fnmatch.fnmatchcase(ident, p) for p in patterns if p)


@functools.cache
def divergences() -> tuple[Divergence, ...]:
    with open(DIVERGENCES, "rb") as f:
        return tuple(Divergence(**entry) for entry in tomllib.load(f).get("divergence", []))


def ident(nodeid: str) -> str:
    """`calls/test_x.py::test_y[link-z]` as divergences and the report name it: `calls/x/y[link-z]`."""
    path, _, name = nodeid.partition("::")
    folder = path.removeprefix("compat_tests/").removesuffix(".py").replace("/test_", "/")
    return f"{folder}/{name.removeprefix('test_')}"


def differences(oracle: Trace, subject: Trace) -> list[tuple[Step | None, Step | None]]:
    """Steps that are not equal, side by side."""
    nothing = Step("", "", "")
    n = max(len(oracle.steps), len(subject.steps))
    pairs = [
        (oracle.steps[i] if i < len(oracle.steps) else nothing, subject.steps[i] if i < len(subject.steps) else nothing)
        for i in range(n)
    ]
    return [(a, b) for a, b in pairs if a != b]


def side_by_side(oracle: Trace, subject: Trace, name: str) -> str:
    """Both traces; differing steps twice, marked."""
    lines = []
    for i in range(max(len(oracle.steps), len(subject.steps))):
        a = oracle.steps[i] if i < len(oracle.steps) else None
        b = subject.steps[i] if i < len(subject.steps) else None
        if a == b:
            lines.append(f"            {a}")
        else:
            lines += [f"  linux   < {a or '(nothing)'}", f"  {name:7} > {b or '(nothing)'}"]
    return "\n".join(lines)


class Conformance:
    """A worker's rigs."""

    def __init__(self, tmp: Path) -> None:
        self.tmp = tmp
        self.rigs: dict[str, Rig] = {}

    def rig(self, subject: str, mutate: str = "") -> Rig:
        key = f"{subject}-{mutate}" if mutate else subject
        if key not in self.rigs:
            self.rigs[key] = Rig(subject, self.tmp / key, mutate)
        return self.rigs[key]

    def compare(self, scenario: Scenario, peer: str, case: Any, mutate: str = "") -> tuple[Trace, Trace]:
        """Traces of oracle and subject; a difference that the oracle has with itself is reported as such."""
        oracle = self.rig("linux").run(scenario, peer, case)
        subject = self.rig("preload", mutate).run(scenario, peer, case)
        if differences(oracle, subject):
            again = self.rig("linux").run(scenario, peer, case)
            if differences(oracle, again) and differences(again, subject):
                subject.note("harness", "the kernel differs from itself", side_by_side(oracle, again, "again"))
        return oracle, subject

    def check(self, request: pytest.FixtureRequest, scenario: Scenario, peer: str, case: Any) -> None:
        """The body of every scenario's test."""
        name = ident(request.node.nodeid)
        oracle, subject = self.compare(scenario, peer, case)
        found = differences(oracle, subject)
        allowed = [] if KERNEL_ONLY else [d for d in divergences() if d.covers(name)]
        record = {"id": name, "peer": peer, "outcome": "differ" if found else "pass"}
        if found:
            record["traces"] = side_by_side(oracle, subject, "preload")
        if allowed:
            record["divergence"] = allowed[0].scenario.split("\n")[0]
        request.node.user_properties.append(("conformance", record))
        if found and allowed:
            pytest.xfail(f"divergence: {allowed[0].differs}")
        if found:
            pytest.fail(f"{name} differs\n{side_by_side(oracle, subject, 'preload')}", pytrace=False)
        if allowed and allowed[0].strict:
            pytest.fail(f"{name} no longer differs: take it out of {DIVERGENCES.name}", pytrace=False)

    def end(self) -> None:
        for rig in self.rigs.values():
            rig.end()


@overload
def scenario(function: Scenario) -> Scenario: ...
@overload
def scenario(
    *, peers: Iterable[str] = PEERS, cases: Mapping[str, Any] | Iterable[Any] | None = None
) -> Callable[[Scenario], Scenario]: ...
def scenario(
    function: Scenario | None = None,
    *,
    peers: Iterable[str] = PEERS,
    cases: Mapping[str, Any] | Iterable[Any] | None = None,
) -> Any:
    """Makes a pytest test of a function (Pair) -> None that runs per peer and per case (name: value)."""
    if function is None:
        return functools.partial(scenario, peers=peers, cases=cases)
    body = function
    ids = list(cases) if cases is not None else []
    values = list(cases.values()) if isinstance(cases, Mapping) else ids

    def test(request: pytest.FixtureRequest, conformance: Conformance, peer: str, case: Any) -> None:
        conformance.check(request, body, peer, case)

    def test_plain(request: pytest.FixtureRequest, conformance: Conformance, peer: str) -> None:
        conformance.check(request, body, peer, None)

    made: Any = test if cases is not None else test_plain
    made.__name__, made.__doc__, made.__module__, made.body = body.__name__, body.__doc__, body.__module__, body
    if cases is not None:
        made = pytest.mark.parametrize("case", values, ids=[str(i) for i in ids])(made)
    return pytest.mark.parametrize("peer", list(peers))(made)
