"""Places where scenarios run: per stack two namespaces and the agents in them, for a whole pytest worker.

::

      namespace "app"                                   namespace "peer"
      s    the subject (agent.c)                        p    peer of "link": always on the kernel
      y    the same, in Python (agent_python)
      l    peer of "local": same stack, over loopback   namespace "far", made when it is first asked for
              |                                         r    peer of "remote": same stack, another service
              |______ linux: veth pairs; tas: a service each, their taps on a bridge in "peer" ______|

The oracle's "remote" is a kernel in a third namespace.  Peer "wire" is no agent: packets made one by one, at the end of the
link in "peer" (wire.py).
"""

# ruff: noqa: E501  (tables of cases, one a line)
from __future__ import annotations

import contextlib
import itertools
import os
import re
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from _lab import BUILD, KERNEL_ONLY, PEER_ADDR, ROOT, TAS_ADDR, Lab, Netns, Service

from tas_sockets._control import ServiceError

from .agent import Agent, AgentLost, Unsupported
from .health import Rest
from .trace import Trace
from .wire import SIMPLE, WIRE_ADDR, Flow, Options, Wire

AGENT = BUILD / "tests" / "agent"
AGENT_PYTHON = "harness.agent_python"
FAR_ADDR = "10.77.0.3"
# Gauges of the service that return after every scenario.
GAUGES = ("sockets", "listeners", "embryos", "watches")
PEERS = ("link", "local", "remote")
# Agents by name: which are on the kernel under every stack, and what a trace calls them.
PEER_AGENTS = {"link": "p", "local": "l", "remote": "r", "wire": "s"}
ADDRESSES = {
    "link": (TAS_ADDR, PEER_ADDR),
    "local": ("127.0.0.1", "127.0.0.1"),
    "remote": (TAS_ADDR, FAR_ADDR),
    "wire": (TAS_ADDR, WIRE_ADDR),
}
SUBJECTS = {"preload": "s", "python": "y"}
# Numbers from here on are the harness's and the client library's own, which keeps so many for later.
OWN_NUMBERS, OWN_MOST = 512, 128


_wire_ports = itertools.count(7001)


@dataclass
class Pair:
    """What a scenario gets: two agents, and where each finds the other."""

    s: Agent
    p: Agent
    peer: str
    s_ip: str
    p_ip: str
    case: Any = None
    wire: Wire | None = None
    ns: Netns | None = None
    undo: list[tuple[str, str]] = field(default_factory=list)

    def sysctl(self, name: str, value: str) -> None:
        """A setting of the subject's namespace, until the scenario ends."""
        assert self.ns
        self.undo.append((name, self.ns.run("sysctl", "-n", name).strip()))
        self.ns.run("sysctl", "-qw", f"{name}={value}")

    @property
    def w(self) -> Wire:
        """The wire, where that is the peer."""
        assert self.wire
        return self.wire

    def accepted(self, options: Options = SIMPLE, before: Callable[[int], object] | None = None) -> tuple[int, Flow]:
        """A connection that the wire opened: the subject's number and the wire's end; ``before`` sees the listener."""
        lfd, port = self.listener(self.s)
        if before:
            before(lfd)
        flow = self.w.flow(port)
        flow.open(options)
        fd = self.s.accept(lfd).ret
        self.s.close(lfd)
        self.s.nonblock(fd)
        return fd, flow

    def dialled(self, options: Options = SIMPLE, before: Callable[[int], object] | None = None) -> tuple[int, Flow]:
        """The same, opened by the subject; ``before`` sees its socket."""
        fd, flow = self.dial(before)
        flow.answer(options)
        self.s.until(fd, 4)
        return fd, flow

    def dial(self, before: Callable[[int], object] | None = None) -> tuple[int, Flow]:
        """The subject's SYN is out, and not yet seen."""
        fd = self.s.socket()
        if before:
            before(fd)
        self.s.nonblock(fd)
        port = next(_wire_ports)
        self.s.connect(fd, self.p_ip, port)
        return fd, self.w.incoming(port)

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
    """One stack ("linux" or "tas") with its agents."""

    def __init__(self, stack: str, tmp: Path, options: Sequence[str] = ()) -> None:
        self.stack, self.tmp = "linux" if KERNEL_ONLY else stack, tmp
        tmp.mkdir(mode=0o755, exist_ok=True)
        self.lab = Lab(tmp)
        self.far: Lab | None = None
        self.services: list[Service] = []
        self.base: list[dict[str, int]] = []
        self.rest: list[Rest] = []
        self.agents: dict[str, Agent] = {}
        self.generation = 0
        self.lost = False  # a service ended or hangs: nothing more can run here
        self._wire: Wire | None = None
        if self.stack == "tas":
            self._serve(Service(self.lab, *options))
        else:
            veth(self.lab.app, "veth0", TAS_ADDR, self.lab.peer, PEER_ADDR)

    @property
    def service(self) -> Service | None:
        return self.services[0] if self.services else None

    def _serve(self, service: Service) -> None:
        self.services.append(service)
        self.base.append(service.gauges())
        self.rest.append(Rest(service))

    def _far(self) -> Lab:
        """The other machine of "remote"."""
        if self.far:
            return self.far
        self.far = far = Lab(_folder(self.tmp / "far"))
        if self.stack == "linux":
            veth(self.lab.app, "veth1", TAS_ADDR, far.app, FAR_ADDR, host_route=True)
            return far
        self._serve(Service(far, addr=FAR_ADDR))
        bridge(self.lab.peer, PEER_ADDR, self.services[0].tap, far.peer, self.services[1].tap)
        return far

    def agent(self, name: str, mutate: str = "") -> Agent:
        """By its name in the figure above; started when first asked for. ``mutate`` makes another one that lies."""
        key = f"{name}-{mutate}" if mutate else name
        if key not in self.agents:
            lab = self._far() if name == "r" else self.lab
            ns = self.lab.peer if name == "p" else lab.app
            env = ["env", "-u", "LD_PRELOAD", "-u", "TAS_SOCKET", f"AGENT_MUTATE={mutate}"]
            argv = [str(AGENT)]
            settings = lab.tas_env() if self.stack == "tas" and name != "p" else {}
            if name == "y":
                settings.pop("LD_PRELOAD", "")
                settings["AGENT_SOCKET"] = "tas_sockets" if self.stack == "tas" else "socket"
                settings["PYTHONPATH"] = os.pathsep.join(
                    filter(None, [os.environ.get("PYTHONPATH", ""), str(ROOT), str(ROOT / "compat_tests")])
                )
                argv = [sys.executable, "-P", "-m", AGENT_PYTHON]
            env += [f"{k}={v}" for k, v in settings.items()]
            self.generation += 1
            self.agents[key] = Agent(
                "subject" if name in "sy" else "peer",
                ["nsenter", f"--net={ns.path}", *env, *argv],
                self.tmp / f"{name}{self.generation}.sock",
            )
        return self.agents[key]

    def run(
        self, scenario: Callable[[Pair], object], peer: str, case: Any, subject: str = "preload", mutate: str = ""
    ) -> Trace:
        """Runs a scenario once; its trace. What goes wrong (an agent lost, an assertion) is a step of it.

        Raises:
            Unsupported: the subject has no call that the scenario makes.
        """
        wire = self.wire(mutate) if peer == "wire" else None
        s = self.agent(SUBJECTS[subject], "" if wire else mutate)
        p = s if wire else self.agent(PEER_AGENTS[peer])
        trace = s.trace = p.trace = Trace()
        if wire:
            wire.trace = trace
        lost, unsupported = "", None
        pair = Pair(s, p, peer, *ADDRESSES[peer], case, wire, self.lab.app)
        try:
            scenario(pair)
        except AgentLost as e:
            lost = str(e)
            trace.dump = self.dump(lost, s, p)
        except Unsupported as e:
            unsupported = e
        except (AssertionError, LookupError, ValueError) as e:
            trace.note("scenario", "raised", f"{type(e).__name__}: {e}")
        for name, value in reversed(pair.undo):
            self.lab.app.run("sysctl", "-qw", f"{name}={value}")
        self._after(trace, s, p, lost, wire)
        if unsupported:
            raise unsupported
        return trace

    def wire(self, mutate: str = "") -> Wire:
        """The packets' end of the link."""
        if not self._wire:
            link = self.services[0].tap if self.services else self._wire_link()
            self.lab.peer.run("sysctl", "-qw", f"net.ipv6.conf.{link}.disable_ipv6=1")
            self._wire = Wire(self.lab.peer, link)
        self._wire.mutate = mutate
        if not self.services:
            self.lab.app.run("sysctl", "-qw", "net.ipv4.route.flush=1")  # path MTUs that the last scenario taught
        return self._wire

    def _wire_link(self) -> str:
        """The oracle's: a pair of its own, on which nobody's hardware fills in checksums or cuts and joins segments."""
        app, peer, name = self.lab.app, self.lab.peer, "wire0"
        app.ip("link", "add", name, "type", "veth", "peer", "name", name, "netns", peer.name)
        for ns in (app, peer):
            ns.run("ethtool", "-K", name, "tx", "off", "tso", "off", "gso", "off", "gro", "off")
            ns.ip("link", "set", name, "up")
        app.ip("route", "add", f"{WIRE_ADDR}/32", "dev", name, "src", TAS_ADDR)
        app.run("sysctl", "-qw", "net.ipv4.tcp_no_metrics_save=1")
        return name

    # ---- health ----
    def _after(self, trace: Trace, s: Agent, p: Agent, lost: str, wire: Wire | None) -> None:
        """Everything is closed again, or the trace says what is not."""
        stuck = 0
        agents = [s] if p is s else [s, p]
        for agent in agents:
            with contextlib.suppress(AgentLost):
                if not lost:
                    stuck += agent.reset()
        if wire:
            wire.end_flows()
        if lost or stuck:
            trace.note("harness", "after the scenario", lost or f"{stuck} threads still in a call")
            for name in list(self.agents):
                self.agents.pop(name).end()
        else:
            for agent in agents:
                now = agent.descriptors()
                own = sum(n >= OWN_NUMBERS for n in now)
                extra = {n: w for n, w in now.items() if n not in agent.at_rest and (n < OWN_NUMBERS or own > OWN_MOST)}
                if extra:
                    trace.note("harness", f"descriptors of the {agent.name}", str(extra))
                    agent.at_rest.update(extra)
                if agent.offspring():
                    trace.note("harness", f"processes of the {agent.name}", "still there")
        try:
            left = self._left()
            if left:
                self.base = [service.gauges() for service in self.services]
        except (OSError, ServiceError) as e:  # it ended, or hangs
            left, self.lost = f"the service is lost: {e}", True
            trace.dump = self.dump(left, *agents)
        else:
            left = "; ".join(filter(None, [left, *(rest.asleep() for rest in self.rest)]))
        if left:
            trace.note("harness", "after the scenario", left)

    def restless(self) -> str:
        """Of the time since the scenario ended, in which nobody used them: services that worked all the same."""
        return "; ".join(filter(None, (rest.worked() for rest in self.rest)))

    def dump(self, why: str, *agents: Agent) -> str:
        """What agents and services are doing."""
        said = [f"==== {why}"]
        for agent in agents:
            with contextlib.suppress(OSError):
                said.append(f"-- {agent.name} {agent.pid}\n{agent.stacks()}")
        said += [service.lab.state() for service in self.services]
        return "\n".join(said)

    def _left(self, timeout: float = 3) -> str:
        """What the services still hold though every socket was closed."""
        end = time.monotonic() + timeout
        pause = 0.0005
        while True:
            left = []
            for service, base in zip(self.services, self.base, strict=True):
                now = service.gauges()
                more = {k: now[k] - base[k] for k in GAUGES if now[k] > base[k]}
                left += [f"the service still holds {more}"] if more else []
            if not left or time.monotonic() > end:
                return "; ".join(left)
            time.sleep(pause)
            pause *= 2

    def end(self, check: bool = False) -> None:
        """Ends everything.  ``check``: the services leave nothing when their programs are gone.

        Raises:
            AssertionError: they do.
        """
        for agent in self.agents.values():
            agent.end()
        self.agents = {}
        if self._wire:
            self._wire.close()
        for service in self.services if self.lost else ():
            service.kill()
        for lab in filter(None, (self.far, self.lab)):
            lab.close(check)


def _folder(path: Path) -> Path:
    path.mkdir(mode=0o755, exist_ok=True)
    return path


def veth(near: Netns, name: str, addr: str, far: Netns, far_addr: str, host_route: bool = False) -> None:
    """A pair of interfaces between two namespaces; ``host_route``: the near end only reaches that one address."""
    near.ip("link", "add", name, "type", "veth", "peer", "name", name, "netns", far.name)
    near.ip("link", "set", name, "up")
    far.ip("addr", "add", f"{far_addr}/24", "dev", name)
    far.ip("link", "set", name, "up")
    if host_route:
        near.ip("route", "add", f"{far_addr}/32", "dev", name, "src", addr)
    else:
        near.ip("addr", "add", f"{addr}/24", "dev", name)


def bridge(ns: Netns, addr: str, tap: str, other: Netns, other_tap: str) -> None:
    """The other tap comes over, and both are ports of a bridge that has the address, in both senses, of the first."""
    mac = re.search(r"link/ether (\S+)", ns.ip("link", "show", "dev", tap))
    assert mac
    other.ip("link", "set", other_tap, "netns", ns.name)
    ns.ip("link", "add", "br0", "address", mac[1], "type", "bridge", "mcast_snooping", "0")
    ns.ip("addr", "del", f"{addr}/24", "dev", tap)
    for port in (tap, other_tap):
        ns.ip("link", "set", port, "master", "br0")
        ns.ip("link", "set", port, "up")
    ns.ip("addr", "add", f"{addr}/24", "dev", "br0")
    ns.ip("link", "set", "br0", "up")


def built() -> bool:
    return os.access(AGENT, os.X_OK)
