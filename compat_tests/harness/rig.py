"""Places where scenarios run: per subject a pair of namespaces and agents on both sides, for a whole pytest worker.

::

      namespace "app"                                   namespace "peer"
      s    the subject                                  p    peer of "link": always on the kernel
      l    peer of "local": same subject, over loopback
              |________ linux: veth pair; preload: service and its tap ________|
"""

# ruff: noqa: E501  (tables of cases, one a line)
from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from _lab import BUILD, KERNEL_ONLY, PEER_ADDR, TAS_ADDR, Lab, Service

from .agent import Agent, AgentLost, Trace

AGENT = BUILD / "tests" / "agent"
# Gauges of the service that return after every scenario.
GAUGES = ("sockets", "listeners", "embryos", "watches")
PEERS = ("link", "local")


@dataclass
class Pair:
    """What a scenario gets: two agents, and where each finds the other."""

    s: Agent
    p: Agent
    peer: str
    s_ip: str
    p_ip: str
    case: Any = None

    def listener(self, agent: Agent, backlog: int = 16, ip: str = "") -> tuple[int, int]:
        """A listening socket of the agent and its port."""
        fd = agent.socket()
        agent.bind(fd, ip or (self.s_ip if agent is self.s else self.p_ip))
        agent.listen(fd, backlog)
        return fd, agent.port(fd)

    def connected(self, active: bool = True, before: Callable[[int], object] | None = None) -> tuple[int, int]:
        """A connection: subject's and peer's number. ``active``: the subject connects; ``before`` sees its socket first."""
        near, far, ip = (self.s, self.p, self.p_ip) if active else (self.p, self.s, self.s_ip)
        lfd, port = self.listener(far)
        fd = near.socket()
        if before and active:
            before(fd)
        near.connect(fd, ip, port)
        afd = far.accept(lfd).ret
        far.close(lfd)
        return (fd, afd) if active else (afd, fd)


class Rig:
    """One subject ("linux" or "preload") with its agents; ``mutate`` makes the subject's lie."""

    def __init__(self, subject: str, tmp: Path, mutate: str = "") -> None:
        self.subject, self.tmp, self.mutate = subject, tmp, mutate
        tmp.mkdir(mode=0o755, exist_ok=True)
        self.lab = Lab(tmp)
        self.service: Service | None = None
        self.agents: dict[str, Agent] = {}
        self.generation = 0
        if subject == "preload" and not KERNEL_ONLY:
            self.service = Service(self.lab)
            self.base = self.service.gauges()
        else:
            self.lab.app.ip(
                "link", "add", "veth0", "type", "veth", "peer", "name", "veth0", "netns", self.lab.peer.name
            )
            for ns, addr in ((self.lab.app, TAS_ADDR), (self.lab.peer, PEER_ADDR)):
                ns.ip("addr", "add", f"{addr}/24", "dev", "veth0")
                ns.ip("link", "set", "veth0", "up")

    def agent(self, name: str) -> Agent:
        """Subject's "s", its local peer "l", or the kernel's "p"; started when first asked for."""
        if name not in self.agents:
            ns = self.lab.peer if name == "p" else self.lab.app
            env = ["env", "-u", "LD_PRELOAD", "-u", "TAS_SOCKET"]
            if self.service and name != "p":
                env += [f"{k}={v}" for k, v in self.lab.tas_env().items()]
            if self.mutate and name == "s":
                env.append(f"AGENT_MUTATE={self.mutate}")
            self.generation += 1
            shown = {"s": "subject"}.get(name, "peer")
            self.agents[name] = Agent(
                shown, ["nsenter", f"--net={ns.path}", *env, str(AGENT)], self.tmp / f"{name}{self.generation}.sock"
            )
        return self.agents[name]

    def run(self, scenario: Callable[[Pair], object], peer: str, case: Any) -> Trace:
        """Runs a scenario once; its trace. What goes wrong (an agent lost, an assertion) is a step of it."""
        s, p = self.agent("s"), self.agent("l" if peer == "local" else "p")
        trace = s.trace = p.trace = Trace()
        s_ip, p_ip = ("127.0.0.1", "127.0.0.1") if peer == "local" else (TAS_ADDR, PEER_ADDR)
        lost = ""
        try:
            scenario(Pair(s, p, peer, s_ip, p_ip, case))
        except AgentLost as e:
            lost = str(e)
            self._dump(lost)
        except (AssertionError, LookupError, ValueError) as e:
            trace.note("scenario", "raised", f"{type(e).__name__}: {e}")
        stuck = 0
        for agent in (s, p):
            with contextlib.suppress(AgentLost):
                if not lost:
                    stuck += agent.reset()
        if lost or stuck:
            trace.note("harness", "after the scenario", lost or f"{stuck} threads still in a call")
            for name in list(self.agents):
                self.agents.pop(name).end()
        left = self._left()
        if left:
            trace.note("harness", "after the scenario", left)
            self.base = self.service.gauges() if self.service else {}
        return trace

    def _dump(self, why: str) -> None:
        self.lab.dumped = False
        for agent in self.agents.values():
            stack = Path(f"/proc/{agent.pid}/task")
            with contextlib.suppress(OSError):
                for task in stack.iterdir():
                    print(
                        f"-- {agent.name} {task.name}: {(task / 'wchan').read_text()} {(task / 'syscall').read_text().strip()}"
                    )
        self.lab.dump(why, stacks=False)

    def _left(self, timeout: float = 3) -> str:
        """What the service still holds though every socket was closed."""
        if not self.service:
            return ""
        end = time.monotonic() + timeout
        pause = 0.0005
        while True:
            now = self.service.gauges()
            left = {k: now[k] - self.base[k] for k in GAUGES if now[k] > self.base[k]}
            if not left or time.monotonic() > end:
                return f"the service still holds {left}" if left else ""
            time.sleep(pause)
            pause *= 2

    def end(self, check: bool = False) -> None:
        for agent in self.agents.values():
            agent.end()
        self.agents = {}
        self.lab.close(check)


def built() -> bool:
    return os.access(AGENT, os.X_OK)
