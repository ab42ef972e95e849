"""Running a scenario on the oracle and on the subject, comparing the traces, and knowing which differences are allowed."""

# ruff: noqa: E501  (tables of cases, one a line)
from __future__ import annotations

import fnmatch
import functools
import inspect
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

import pytest
from _lab import KERNEL_ONLY, ROOT

from .agent import Unsupported
from .rig import PEERS, SUBJECTS, Pair, Rig
from .trace import Step, Trace

DIVERGENCES = Path(__file__).resolve().parent.parent / "divergences.toml"
Scenario = Callable[[Pair], object]
# Ways of a scenario that belong to the quick tier whatever their case; of the others see ``scenario``.
QUICK_WAYS = frozenset([("preload", "link"), ("preload", "local"), ("preload", "wire")])


@dataclass(frozen=True)
class Divergence:
    """One entry of divergences.toml."""

    scenario: str
    differs: str
    kind: str
    why: str
    since: str
    strict: bool = True  # false: a race, which does not differ every time
    subject: str = " ".join(SUBJECTS)

    def covers(self, ident: str, subject: str = "preload") -> bool:
        """Whether it names this run.  Names have no subject; what goes for "link" goes for "remote", also a link."""
        if subject not in self.subject.split():
            return False
        name = ident.replace(f"{subject}_", "")
        names = (name, name.removesuffix("remote]") + "link]") if name.endswith("remote]") else (name,)
        patterns = [p.strip().replace("[", "[[]") for p in self.scenario.split("\n") if p.strip()]
        return any(fnmatch.fnmatchcase(n, p) for n in names for p in patterns)


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

    def rig(self, stack: str) -> Rig:
        if stack not in self.rigs:
            self.rigs[stack] = Rig(stack, self.tmp / stack)
        return self.rigs[stack]

    def compare(
        self, scenario: Scenario, peer: str, case: Any, mutate: str = "", subject: str = "preload"
    ) -> tuple[Trace, Trace]:
        """Traces of oracle and subject; a difference that the oracle has with itself is reported as such.

        The oracle comes second: meanwhile the services of the subject have nothing to do, and are looked at.
        """
        tas = self.rig("tas")
        try:
            found = tas.run(scenario, peer, case, subject, mutate)
        finally:
            if tas.lost:
                self.rigs.pop("tas").end()
        oracle = self.rig("linux").run(scenario, peer, case, subject)
        if not tas.lost and (busy := tas.restless()):
            found.note("harness", "while the oracle runs", busy)
        if differences(oracle, found):
            again = self.rig("linux").run(scenario, peer, case, subject)
            if differences(oracle, again) and differences(again, found):
                found.note("harness", "the kernel differs from itself", side_by_side(oracle, again, "again"))
        return oracle, found

    def passes_alone(self, scenario: Scenario, peer: str, case: Any, subject: str) -> bool:
        """A second look at a difference: nothing differs in any of two more runs, each beside a fresh run of the oracle."""
        looks = (self.compare(scenario, peer, case, subject=subject) for _ in range(2))
        return not any(differences(*look) for look in looks)

    def check(self, request: pytest.FixtureRequest, scenario: Scenario, subject: str, peer: str, case: Any) -> None:
        """The body of every scenario's test."""
        name = ident(request.node.nodeid)
        record: dict[str, Any] = {"id": name, "subject": subject, "peer": peer, "source": source(scenario)}
        record["scenario"] = scenario_of(name, subject, peer)
        request.node.user_properties.append(("conformance", record))
        try:
            oracle, trace = self.compare(scenario, peer, case, subject=subject)
        except Unsupported as e:
            record.update(outcome="skip", why=str(e))
            pytest.skip(f"{subject}: {e}")
        found = differences(oracle, trace)
        allowed = [] if KERNEL_ONLY else [d for d in divergences() if d.covers(name, subject)]
        unsteady = bool(found) and not allowed and not KERNEL_ONLY and self.passes_alone(scenario, peer, case, subject)
        outcome = "unsteady" if unsteady else "differ" if found else "pass"
        record.update(outcome=outcome, traces=side_by_side(oracle, trace, subject))
        if trace.dump:
            record["dump"] = trace.dump
        if allowed:
            record["divergence"] = allowed[0].scenario.strip().split("\n")[0]
        if found and allowed:
            pytest.xfail(f"divergence: {allowed[0].differs}")
        if found and not unsteady:
            pytest.fail(f"{name} differs\n{record['traces']}\n{trace.dump}", pytrace=False)
        if allowed and allowed[0].strict:
            pytest.fail(f"{name} no longer differs: take it out of {DIVERGENCES.name}", pytrace=False)

    def end(self) -> None:
        rigs, self.rigs = self.rigs, {}
        for rig in rigs.values():
            rig.end(check=True)


def source(scenario: Scenario) -> str:
    """File and line in the checkout."""
    function = inspect.unwrap(scenario)
    path = Path(inspect.getfile(function)).resolve()
    return f"{path.relative_to(ROOT) if path.is_relative_to(ROOT) else path}:{inspect.getsourcelines(function)[1]}"


def way_id(subject: str, peer: str) -> str:
    """preload is what most look for, so it has no name of its own."""
    return peer if subject == "preload" else f"{subject}_{peer}"


def scenario_of(name: str, subject: str, peer: str) -> str:
    """The id without the way: what the six runs of a scenario have in common."""
    base, bracket, params = name.partition("[")
    case = params.removesuffix("]").removesuffix(way_id(subject, peer)).removesuffix("-")
    return f"{base}{bracket}{case}]" if case else base


@overload
def scenario(function: Scenario) -> Scenario: ...
@overload
def scenario(
    *,
    peers: Iterable[str] = PEERS,
    subjects: Iterable[str] = tuple(SUBJECTS),
    cases: Mapping[str, Any] | Iterable[Any] | None = None,
    quick: Iterable[Any] | None = None,
) -> Callable[[Scenario], Scenario]: ...
def scenario(
    function: Scenario | None = None,
    *,
    peers: Iterable[str] = PEERS,
    subjects: Iterable[str] = tuple(SUBJECTS),
    cases: Mapping[str, Any] | Iterable[Any] | None = None,
    quick: Iterable[Any] | None = None,
) -> Any:
    """Makes a pytest test of a function (Pair) -> None that runs per subject, peer and case (name: value).

    The quick tier runs every case of the preloaded subject with peers "link" and "local"; of the other ways the cases named
    by ``quick`` (default: the first, and a scenario without cases); the rest is marked ``full``.
    """
    if function is None:
        return functools.partial(scenario, peers=peers, subjects=subjects, cases=cases, quick=quick)
    body = function
    values = list(cases.values()) if isinstance(cases, Mapping) else list(cases or [None])
    ids = [str(i) for i in cases] if cases is not None else [""]
    chosen = {str(q) for q in quick} if quick is not None else set(ids[:1])
    params = []
    for subject in subjects:
        for peer in peers:
            for i, value in zip(ids, values, strict=True):
                marks = [] if (subject, peer) in QUICK_WAYS or i in chosen else [pytest.mark.full]
                name = "-".join(filter(None, [i.replace(" ", "_"), way_id(subject, peer)]))
                params.append(pytest.param(subject, peer, value, id=name, marks=marks))

    def test(request: pytest.FixtureRequest, conformance: Conformance, subject: str, peer: str, case: Any) -> None:
        conformance.check(request, body, subject, peer, case)

    made: Any = test
    made.__name__, made.__doc__, made.__module__, made.body = body.__name__, body.__doc__, body.__module__, body
    return pytest.mark.parametrize(("subject", "peer", "case"), params)(made)


def wired(cases: Mapping[str, Any] | Iterable[Any] | None = None) -> Callable[[Scenario], Scenario]:
    """A scenario of single packets: what goes over the link, so the subject's language makes no difference."""
    return scenario(peers=["wire"], subjects=["preload"], cases=cases)
