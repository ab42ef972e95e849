"""The fuzzer's programs from hypothesis: a rule-based machine whose rules write the lines of a program.

The volume run (``make fuzz-diff``) is faster; this one shrinks better, and its rules read as a list of what can be
done.
The machine keeps lines only. They run in the end, on the kernel and on TAS.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import ClassVar

import hypothesis.strategies as st
import pytest
from fuzz.known import known
from fuzz.rig import EXECUTOR, Pair
from hypothesis import HealthCheck, settings
from hypothesis.stateful import Bundle, MultipleResults, RuleBasedStateMachine, multiple, precondition, rule

EVENTS = st.sampled_from(
    ["IN", "OUT", "IN|OUT", "IN|RDHUP", "IN|OUT|ET", "IN|RDHUP|ET", "OUT|ONESHOT", "IN|ET|ONESHOT"]
)
SIZES = st.sampled_from([1, 2, 10, 100, 1000])
LETTERS = "abcdefghijklmnopqrstuvwxyz"


class Sockets(RuleBasedStateMachine):
    """Listeners, connections over loopback and over the link, dups, epoll sets, threads and a child."""

    pair: ClassVar[Pair]
    listeners = Bundle("listeners")
    ends = Bundle("ends")
    far = Bundle("far")  # at the other end of the link
    sets = Bundle("sets")

    def __init__(self) -> None:
        super().__init__()
        self.program: list[str] = []
        self.names = iter(LETTERS)
        self.left = len(LETTERS)
        self.child = False

    def new(self) -> str:
        self.left -= 1
        return next(self.names)

    def say(self, text: str) -> None:
        self.program.append(text)

    def room(self) -> bool:
        return self.left > 3

    @precondition(room)
    @rule(target=listeners, backlog=st.integers(1, 8), any_address=st.booleans())
    def listen(self, backlog: int, any_address: bool) -> str:
        v = self.new()
        self.say(f"{v} = socket INET NONBLOCK")
        self.say(f"bind {v} {'any' if any_address else 'lo'}:0")
        self.say(f"listen {v} {backlog}")
        return v

    @precondition(room)
    @rule(target=ends, listener=listeners)
    def connect(self, listener: str) -> MultipleResults[str]:
        a, b = self.new(), self.new()
        self.say(f"{a} = socket INET NONBLOCK")
        self.say(f"connect {a} @{listener}")
        self.say(f"{b} = accept {listener} NONBLOCK")
        return multiple(a, b)

    @precondition(room)
    @rule(target=ends, far_end=st.none())
    def connect_over_the_link(self, far_end: None) -> str:
        far, a, b = self.new(), self.new(), self.new()
        self.say(f"P: {far} = socket INET 0")
        self.say(f"P: bind {far} any:0")
        self.say(f"P: listen {far} 4")
        self.say(f"{a} = socket INET NONBLOCK")
        self.say(f"connect {a} @{far}")
        self.say(f"P: {b} = accept {far} NONBLOCK")
        self.far_of = b
        return a

    @rule(end=ends, n=SIZES, flags=st.sampled_from(["0", "NOSIGNAL", "OOB"]))
    def send(self, end: str, n: int, flags: str) -> None:
        self.say(f"send {end} {n} {flags}")

    @rule(end=ends, n=SIZES, flags=st.sampled_from(["0", "PEEK", "WAITALL", "TRUNC", "OOB"]))
    def recv(self, end: str, n: int, flags: str) -> None:
        self.say(f"recv {end} {n} {flags}")

    @precondition(lambda self: hasattr(self, "far_of"))
    @rule(what=st.sampled_from(["send {} 10 0", "recv {} 100 DONTWAIT", "shutdown {} WR", "close {}"]))
    def at_the_far_end(self, what: str) -> None:
        self.say("P: " + what.format(self.far_of))

    @rule(end=ends, how=st.sampled_from(["RD", "WR", "RDWR"]))
    def shutdown(self, end: str, how: str) -> None:
        self.say(f"shutdown {end} {how}")

    @rule(end=ends, reset=st.booleans())
    def close(self, end: str, reset: bool) -> None:
        if reset:
            self.say(f"setopt {end} SO_LINGER 1 0")
        self.say(f"close {end}")

    @rule(listener=listeners)
    def close_listener(self, listener: str) -> None:
        self.say(f"close {listener}")

    @precondition(room)
    @rule(target=ends, end=ends)
    def dup(self, end: str) -> str:
        v = self.new()
        self.say(f"{v} = dup {end}")
        return v

    @rule(end=ends, over=ends)
    def dup2(self, end: str, over: str) -> None:
        self.say(f"dup2 {end} {over}")

    @precondition(room)
    @rule(target=sets)
    def epoll(self) -> str:
        v = self.new()
        self.say(f"{v} = epoll")
        return v

    @rule(e=sets, member=st.one_of(ends, listeners), op=st.sampled_from(["ADD", "ADD", "MOD", "DEL"]), events=EVENTS)
    def control(self, e: str, member: str, op: str, events: str) -> None:
        self.say(f"ctl {e} {op} {member} {events}")

    @rule(e=sets)
    def wait(self, e: str) -> None:
        self.say(f"ewait {e} 16 0")

    @rule(a=st.one_of(ends, listeners, sets), b=ends, events=st.sampled_from(["IN", "OUT", "IN|OUT|RDHUP"]))
    def poll(self, a: str, b: str, events: str) -> None:
        self.say(f"poll 0 {a} {events} {b} {events}")

    @rule(end=ends)
    def blocked_reader(self, end: str) -> None:
        """A thread that reads from a blocking socket, and is interrupted or served by what follows."""
        self.say(f"setfl {end} 0")
        self.say(f"T1: recv {end} 10 0")
        self.say(f"setfl {end} 1")

    @rule()
    def signal(self) -> None:
        self.say("handler USR1 0")
        self.say("kill T1 USR1")

    @rule(end=ends)
    def in_a_child(self, end: str) -> None:
        if not self.child:
            self.say("C1 = fork")
        self.child = True
        self.say(f"C1: send {end} 5 0")
        self.say(f"C1: close {end}")

    @rule(end=ends, name=st.sampled_from(["SO_ERROR", "SO_RCVLOWAT", "TCP_NODELAY", "SO_OOBINLINE"]))
    def option(self, end: str, name: str) -> None:
        self.say(f"getopt {end} {name}")

    def teardown(self) -> None:
        if not self.program:
            return
        found = self.pair.one(self.program, "machine")
        if found and not known(found) and self.pair.confirmed("machine", found) == "differs":
            raise AssertionError(found.shown())


@pytest.fixture(scope="module", autouse=True)
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    if os.geteuid() != 0:
        pytest.skip("network namespaces and taps need root")
    if not EXECUTOR.exists():
        pytest.fail("the executor is not built: make fuzz-executor")
    folder = tmp_path_factory.mktemp("machine")
    folder.chmod(0o755)
    Sockets.pair = Pair(folder)
    yield
    Sockets.pair.end()


TestSockets = Sockets.TestCase
TestSockets.settings = settings(
    max_examples=60,
    stateful_step_count=24,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
