"""The conformance suite can fail: an agent that lies in one way is caught by scenarios that pass when it does not.

Also that it compares TAS with Linux at all: the scenarios' traffic goes through the service.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Iterator

import pytest
from _lab import KERNEL_ONLY, TAS_ADDR, until
from harness.rig import SUBJECTS, Pair, Rig
from harness.suite import Conformance, Divergence, Scenario, differences, ident, scenario_of, side_by_side
from harness.trace import Step, Trace
from harness.wire import inet

IN, OUT = 0x1, 0x4


@pytest.fixture
def mutant(conformance: Conformance) -> Iterator[Conformance]:
    yield conformance
    rig = conformance.rig("tas")
    for key in [k for k in rig.agents if "-" in k]:
        rig.agents.pop(key).end()


def wrong_errno(x: Pair) -> None:
    x.s.getpeername(x.s.socket())


def lost_event(x: Pair) -> None:
    fd, pfd = x.connected()
    ep = x.s.epoll()
    x.s.ctl(ep, 1, fd, IN)
    x.p.send(pfd, b"x")
    x.s.until(fd, IN)
    x.s.ready(ep)


def wrong_byte(x: Pair) -> None:
    fd, pfd = x.connected()
    x.p.send(pfd, b"hello")
    x.s.until(fd, IN)
    x.s.recv(fd, 10)


def longer_backlog(x: Pair) -> None:
    _, port = x.listener(x.s, 1)
    for _ in range(4):
        c = x.p.socket()
        x.p.nonblock(c)
        x.p.connect(c, x.s_ip, port)
        x.p.until(c, OUT, 40)


def reply_on_the_wire(x: Pair) -> None:
    fd, flow = x.accepted()
    flow.send("PA", b"question")
    x.s.until(fd, IN)
    x.s.recv(fd, 10)
    x.s.send(fd, b"answer")
    packets = flow.gather(2, 300)
    carried = [p for p in packets if len(p[inet.TCP].payload)]
    x.w.trace.note("wire", "sees", " ".join(flow.text(p) for p in carried))


LIES = [
    ("errno", wrong_errno),
    ("event", lost_event),
    ("byte", wrong_byte),
    ("lost", wrong_byte),
    ("backlog", longer_backlog),
]
WIRE_LIES = [("flag", reply_on_the_wire), ("number", reply_on_the_wire), ("lost", reply_on_the_wire)]


def caught(mutant: Conformance, subject: str, peer: str, how: str, scenario: Scenario) -> None:
    oracle, honest = mutant.compare(scenario, peer, None, subject=subject)
    assert not differences(oracle, honest), side_by_side(oracle, honest, subject)
    oracle, lying = mutant.compare(scenario, peer, None, mutate=how, subject=subject)
    assert differences(oracle, lying), f"nobody noticed: {how}"


@pytest.mark.parametrize(("how", "scenario"), LIES)
@pytest.mark.parametrize("peer", ["link", "local", "remote"])
@pytest.mark.parametrize("subject", list(SUBJECTS))
def test_a_lie_is_caught(mutant: Conformance, subject: str, peer: str, how: str, scenario: Scenario) -> None:
    caught(mutant, subject, peer, how, scenario)


@pytest.mark.parametrize(("how", "scenario"), WIRE_LIES)
def test_a_lie_on_the_wire_is_caught(mutant: Conformance, how: str, scenario: Scenario) -> None:
    caught(mutant, "preload", "wire", how, scenario)


@pytest.mark.parametrize("subject", list(SUBJECTS))
def test_a_hang_is_caught_with_everybodys_stacks(conformance: Conformance, subject: str) -> None:
    """Nobody sends: the agent's own stack, the kernel's view of both agents, and what the service holds."""

    def hang(x: Pair) -> None:
        fd, _ = x.connected()
        x.s.recv(fd, 1)

    rig = conformance.rig("tas")
    rig.agent(SUBJECTS[subject]).channel.settimeout(0.5)
    trace = rig.run(hang, "link", None, subject)
    assert trace.steps[-1].result.endswith("hangs")
    subject_part, _, rest = trace.dump.partition("-- peer ")
    own = "do_recv" if subject == "python" else "stack of thread"
    assert own in subject_part
    assert "wchan" in subject_part
    assert "syscall" in subject_part
    assert "stack of thread" in rest
    if rig.service:
        assert "service conns" in rest
        assert "service thread" in rest
        assert "libtas_interpose" in subject_part or subject == "python"
    oracle, after = conformance.compare(wrong_byte, "link", None, subject=subject)
    assert not differences(oracle, after)


@pytest.mark.parametrize(("runs", "alone"), [("aaaa", True), ("abba", False), ("aaabbb", False)])
def test_a_second_look_forgives_only_what_does_not_come_again(conformance: Conformance, runs: str, alone: bool) -> None:
    """Each run of the scenario, on TAS and on the kernel in turn, gives the next letter."""
    given = iter(runs)

    def gives(x: Pair) -> None:
        x.s.trace.note("subject", "gives", next(given))

    assert conformance.passes_alone(gives, "local", None, "preload") is alone


def test_a_descriptor_that_stays_is_told(conformance: Conformance) -> None:
    def keep(x: Pair) -> None:
        x.s.do("dup2", 0, 300)
        x.s.at_rest.pop(0)

    trace = conformance.rig("tas").run(keep, "link", None)
    assert "descriptors of the subject" in trace.steps[-1].call
    assert "0: " in trace.steps[-1].result


@contextlib.contextmanager
def other_service(conformance: Conformance, *options: str) -> Iterator[Rig]:
    """A rig of its own whose service has these options."""
    if KERNEL_ONLY:
        pytest.skip("no service")
    rig = Rig("tas", conformance.tmp / f"other{time.monotonic_ns()}", options)
    mine, conformance.rigs["tas"] = conformance.rig("tas"), rig
    try:
        yield rig
    finally:
        conformance.rigs["tas"] = mine
        rig.end()


def test_a_service_that_polls_for_ever_is_told(conformance: Conformance) -> None:
    with other_service(conformance, "--fp-no-ints"):
        oracle, found = conformance.compare(wrong_byte, "local", None)
        (_, step), *more = differences(oracle, found)
        assert step
        assert "does not go to sleep: thread " in step.result
        assert not [m for m in more if m[1] and "sleep" not in m[1].result and "processor" not in m[1].result]


FLOOD = f"""import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
print("begins", flush=True)
while True:
    s.sendto(b"nonsense", ("{TAS_ADDR}", 9))
"""


def test_a_service_that_is_woken_again_and_again_is_told(conformance: Conformance) -> None:
    """Packets that are nobody's keep it busy, though it sleeps between them."""
    with other_service(conformance) as rig:
        oracle, honest = conformance.compare(wrong_byte, "local", None)
        assert not differences(oracle, honest), side_by_side(oracle, honest, "preload")
        flood = rig.lab.start(rig.lab.peer, sys.executable, "-c", FLOOD)
        flood.line("begins")
        for _ in range(20):  # on a busy machine the flood may pause during one
            oracle, found = conformance.compare(wrong_byte, "local", None)
            if different := differences(oracle, found):
                break
        flood.kill()
        assert all(step and "the service " in step.result for _, step in different), side_by_side(oracle, found, "tas")
        assert different


@pytest.mark.parametrize(("number", "said"), [(signal.SIGSTOP, "does not answer"), (signal.SIGKILL, "Connection re")])
def test_a_lost_service_is_a_difference_and_the_next_scenario_runs(
    conformance: Conformance, number: int, said: str
) -> None:
    """One that hangs, one that ended: what is known of it is told, and another takes its place."""
    if KERNEL_ONLY:
        pytest.skip("no service")

    def lose(x: Pair) -> None:
        x.connected()
        if x.s is rig.agents.get("s"):
            os.kill(rig.services[0].pid, number)

    with other_service(conformance) as rig:
        oracle, found = conformance.compare(lose, "link", None)
        assert differences(oracle, found)
        assert "the service is lost" in found.steps[-1].result
        assert said in found.steps[-1].result
        assert "service stats" in found.dump
        assert "service's log" in found.dump
        assert number == signal.SIGKILL or "service thread" in found.dump
        assert "tas" not in conformance.rigs
        oracle, found = conformance.compare(wrong_byte, "link", None)
        assert not differences(oracle, found), side_by_side(oracle, found, "preload")
        conformance.rigs.pop("tas").end(check=True)


@pytest.mark.parametrize("peer", ["link", "local"])
def test_scenarios_run_on_tas(conformance: Conformance, peer: str) -> None:
    rig = conformance.rig("tas")
    if KERNEL_ONLY or not rig.service:
        pytest.skip("no service")
    name = "conn_local" if peer == "local" else "conn_active"
    before = rig.service.counters()[name]
    rig.run(wrong_byte, peer, None)
    assert rig.service.counters()[name] == before + 1


def test_a_dead_agent_is_a_difference_and_the_next_scenario_runs(conformance: Conformance) -> None:
    def crash(x: Pair) -> None:
        x.s.do("abort")

    trace = conformance.rig("tas").run(crash, "link", None)
    assert "SIGABRT" in trace.steps[-1].result
    oracle, subject = conformance.compare(wrong_byte, "link", None)
    assert not differences(oracle, subject)


def test_a_thread_left_in_a_call_is_told(conformance: Conformance) -> None:
    def leave(x: Pair) -> None:
        fd, _ = x.connected()
        x.s.recv(fd, 1, thread=1)
        x.s.blocked(1)

    trace = conformance.rig("tas").run(leave, "local", None)
    assert trace.steps[-1].result == "1 threads still in a call"


def test_a_socket_that_is_kept_is_told(conformance: Conformance) -> None:
    """The gauges' check: a child that the harness does not know of holds a connection."""
    rig = conformance.rig("tas")
    if KERNEL_ONLY or not rig.service:
        pytest.skip("no service")
    kept = []

    def keep(x: Pair) -> None:
        x.connected()
        kept.append(x.s.fork())
        x.s.children.clear()

    trace = rig.run(keep, "link", None)
    assert "still holds" in trace.steps[-1].result
    kept[0].channel.sendall(b"x\n")
    kept[0].channel.close()
    service = rig.service
    until("the socket is gone", lambda: not service.gauges()["sockets"])
    rig.base = [s.gauges() for s in rig.services]


def test_a_missing_step_is_a_difference() -> None:
    a, b = Trace(), Trace()
    a.steps = [Step("s", "recv(3)", "1"), Step("s", "close(3)", "0")]
    b.steps = a.steps[:1]
    assert len(differences(a, b)) == 1
    assert "(nothing)" in side_by_side(a, b, "preload")


def test_names_of_scenarios() -> None:
    assert ident("compat_tests/calls/test_x.py::test_y[a-link]") == "calls/x/y[a-link]"
    d = Divergence("calls/x/y[*-link]\noptions/*", "", "", "", "")
    assert d.covers("calls/x/y[a-link]")
    assert d.covers("calls/x/y[a-remote]")  # also a link
    assert not d.covers("calls/x/y[a-local]")
    assert d.covers("calls/x/y[a-python_link]", "python")
    assert not Divergence("calls/*", "", "", "", "", subject="preload").covers("calls/x/y[python_link]", "python")
    assert scenario_of("calls/x/y[a-b-python_link]", "python", "link") == "calls/x/y[a-b]"
    assert scenario_of("calls/x/y[local]", "preload", "local") == "calls/x/y"
    assert d.covers("options/o/z")
