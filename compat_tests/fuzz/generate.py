"""Random programs. Each takes a random subset of the features (swarm testing): rare combinations get their turn.

A rough model of what the variables are keeps programs meaningful; now and then an operation goes to any variable.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field

FEATURES = {
    "link": 0.45, "v6": 0.15, "threads": 0.3, "fork": 0.2, "epoll": 0.65, "poll": 0.5, "oob": 0.12, "options": 0.35,
    "dup": 0.4, "files": 0.2, "signals": 0.12, "passing": 0.1, "fill": 0.06, "messages": 0.4, "shutdown": 0.5,
    "reset": 0.3, "names": 0.3, "flags": 0.3, "refused": 0.2, "nested": 0.06, "blocking": 0.15, "again": 0.2,
    "half": 0.3, "few": 0.2, "many": 0.2, "copying": 0.15, "shared_sets": 0.03,
}  # fmt: skip
EVENTS = ("IN", "OUT", "IN|OUT", "IN|RDHUP", "IN|OUT|RDHUP", "IN|PRI", "IN|OUT|PRI|RDHUP", "RDHUP", "HUP", "0")
MODES = ("", "", "|ET", "|ET", "|ONESHOT", "|ET|ONESHOT")
SIZES = (1, 1, 2, 5, 10, 10, 64, 100, 100, 500, 1000, 1460, 2000)
SET = (
    "SO_REUSEADDR", "SO_REUSEPORT", "SO_KEEPALIVE", "SO_OOBINLINE", "SO_RCVLOWAT", "TCP_NODELAY", "TCP_KEEPIDLE",
    "TCP_KEEPINTVL", "TCP_KEEPCNT", "TCP_USER_TIMEOUT", "IP_TOS", "IP_TTL", "SO_PRIORITY", "SO_DONTROUTE", "TCP_SYNCNT",
    "TCP_LINGER2", "SO_BROADCAST",
)  # fmt: skip
GET = (*SET, "SO_ERROR", "SO_ERROR", "SO_ERROR", "SO_ACCEPTCONN", "SO_TYPE", "SO_DOMAIN", "SO_PROTOCOL", "SO_LINGER")


@dataclass
class Var:
    """What the generator believes of a variable."""

    kind: str  # fresh, listener, conn, epoll, in, out, event, unix, gone
    owner: str = "A"
    v6: bool = False
    peer: str = ""
    blocking: bool = False
    members: list[str] = field(default_factory=list)


class Generator:
    """One program per ``program()``; the same seed gives the same programs."""

    def __init__(self, seed: int | str) -> None:
        self.rng = random.Random(seed)

    def program(self) -> list[str]:
        r = self.rng
        self.lines: list[str] = []
        self.vars: dict[str, Var] = {}
        self.has = {name for name, share in FEATURES.items() if r.random() < share}
        self.children: list[str] = []
        self.busy: dict[str, int] = {}
        self.waited: set[str] = (
            set()
        )  # a thread waits for these; two would be served in an order that is nobody's business
        length = r.choice((6, 8, 10, 14, 18, 24, 32))
        actions = self._actions()
        self._connection()
        while len(self.lines) < length + 4:
            r.choices([a for a, _ in actions], [w for _, w in actions])[0]()
        return self.lines

    # ---- helpers ----
    def say(self, text: str, actor: str = "A", to: str = "") -> None:
        self.lines.append(f"{'' if actor == 'A' else actor + ': '}{to + ' = ' if to else ''}{text}")

    def new(self, kind: str, **what: object) -> str:
        free = [c for c in "abcdefghijklmnopqr" if c not in self.vars] if what.get("owner", "A") != "P" else []
        free = free or [c for c in "stuvwxyz" if c not in self.vars]
        name = free[0] if free else self.rng.choice(sorted(self.vars))
        self.vars[name] = Var(kind, **what)  # type: ignore[arg-type]
        return name

    def some(self, *kinds: str, owner: str = "A") -> str | None:
        r = self.rng
        mine = [n for n, v in self.vars.items() if v.owner == owner]
        if not mine:
            return None
        if r.random() < 0.04:
            return r.choice(mine)
        fit = [n for n in mine if self.vars[n].kind in kinds]
        return r.choice(fit) if fit else None

    def actor(self, v: str, may_block: bool = False) -> str:
        """Who does something to a variable."""
        r = self.rng
        var = self.vars[v]
        if var.owner != "A":
            return var.owner
        if var.kind == "epoll" and self.children and "shared_sets" not in self.has:
            return "A"
        if v not in self.waited and (may_block or ("threads" in self.has and r.random() < 0.3)):
            idle = [t for t in ("T1", "T2", "T3") if t not in self.busy]
            if idle:
                return idle[0] if r.random() < 0.7 else r.choice(idle)
        if self.children and r.random() < 0.35:
            return r.choice(self.children)
        return "A"

    def number(self) -> str:
        return str(self.rng.choice(SIZES))

    # ---- connections ----
    def _socket(self, owner: str = "A") -> str:
        r = self.rng
        v6 = "v6" in self.has and owner == "A" and r.random() < 0.4
        blocking = owner == "P" or ("blocking" in self.has and r.random() < 0.5)
        v = self.new("fresh", owner=owner, v6=v6, blocking=blocking)
        flags = "0" if blocking else "NONBLOCK"
        if r.random() < 0.05:
            flags = "CLOEXEC" if flags == "0" else flags + "|CLOEXEC"
        self.say(f"socket {'INET6' if v6 else 'INET'} {flags}", owner if owner == "P" else "A", v)
        return v

    def _listener(self, owner: str = "A") -> str:
        r = self.rng
        v = self._socket(owner)
        var = self.vars[v]
        var.kind = "listener"
        host = "any" if owner == "P" or r.random() < 0.4 else "lo"
        if var.v6 and r.random() < 0.5:
            host += "6"
        if "options" in self.has and r.random() < 0.3:
            self.say(f"setopt {v} {r.choice(('SO_REUSEADDR', 'SO_REUSEPORT'))} 1", owner)
        if r.random() > 0.03:
            self.say(f"bind {v} {host}:0", owner)
        self.say(f"listen {v} {r.choice((1, 2, 4, 8, 16))}", owner)
        return v

    def _connection(self) -> None:
        """Listener, connect, accept: over the link either way, or local."""
        r = self.rng
        ways = ["local"] * 3 + (["out", "in"] * 2 if "link" in self.has else [])
        way = r.choice(ways)
        server, client = {"local": ("A", "A"), "out": ("P", "A"), "in": ("A", "P")}[way]
        listener = self.some("listener", owner=server) if r.random() < 0.5 else None
        if listener is None or self.vars[listener].kind != "listener":
            listener = self._listener(server)
        c = self._socket(client)
        if self.vars[listener].v6 and client == "P":
            pass
        if "epoll" in self.has and client == "A" and r.random() < 0.15:
            self._ctl(c)
        self.say(f"connect {c} @{listener}", client)
        self.vars[c].kind = "conn"
        if r.random() < 0.9:
            self._accept(listener, c)

    def _accept(self, listener: str, client: str = "") -> None:
        r = self.rng
        var = self.vars[listener]
        actor = self.actor(listener) if var.owner == "A" else var.owner
        blocking = var.owner == "P" or ("blocking" in self.has and r.random() < 0.3)
        v = self.new("conn", owner=actor if actor[0] in "CP" else "A", v6=var.v6, peer=client, blocking=blocking)
        self.say(f"accept {listener} {'0' if blocking else 'NONBLOCK'}", actor, v)
        if client in self.vars:
            self.vars[client].peer = v

    # ---- actions, with their weights ----
    def _actions(self) -> list[tuple[Callable[[], None], float]]:
        h = self.has
        table: list[tuple[Callable[[], None], float, bool]] = [
            (self._connection, 0.9, True), (self._send, 5, True), (self._recv, 5, True), (self._close, 1, True),
            (self._shutdown, 1.5, "shutdown" in h), (self._linger, 0.6, "reset" in h), (self._add, 4, "epoll" in h),
            (self._wait, 5, "epoll" in h), (self._poll, 2, "poll" in h), (self._oob, 2, "oob" in h),
            (self._option, 2, "options" in h), (self._dup, 1.5, "dup" in h), (self._file, 1, "files" in h),
            (self._fork, 0.7, "fork" in h), (self._child_end, 0.25, "fork" in h), (self._block, 2.5, "threads" in h),
            (self._signal, 1.5, "signals" in h), (self._pass, 1, "passing" in h), (self._fill, 0.5, "fill" in h),
            (self._name, 1, "names" in h), (self._flag, 1, "flags" in h), (self._refused, 0.6, "refused" in h),
            (self._nest, 0.8, "nested" in h), (self._reuse, 0.5, "again" in h), (self._half, 1, "half" in h),
            (self._listen_again, 0.3, "again" in h), (self._many, 1.5, "many" in h), (self._copy, 1.5, "copying" in h),
            (self._range, 0.15, "many" in h),
        ]  # fmt: skip
        return [(f, w) for f, w, wanted in table if wanted]

    def _any_conn(self) -> str | None:
        return self.some("conn", owner="P" if "link" in self.has and self.rng.random() < 0.35 else "A")

    def _send(self) -> None:
        r = self.rng
        v = self._any_conn()
        if not v:
            return
        actor = self.actor(v)
        how = r.choice(("send", "write", "writev", "sendmsg")) if "messages" in self.has else "send"
        n = self.number() if r.random() > 0.03 else "0"
        flags = r.choice(("0", "0", "0", "NOSIGNAL", "DONTWAIT", "MORE" if r.random() < 0.05 else "0"))
        self.say(f"{how} {v} {n}" + (f" {flags}" if how in ("send", "sendmsg") else ""), actor)

    def _recv(self) -> None:
        r = self.rng
        v = self._any_conn()
        if not v:
            return
        actor = self.actor(v)
        how = r.choice(("recv", "read", "readv", "recvmsg")) if "messages" in self.has else "recv"
        flags = r.choice(("0", "0", "0", "DONTWAIT", "PEEK", "TRUNC", "WAITALL", "PEEK|TRUNC"))
        if self.vars[v].blocking and actor[0] != "T":
            how, flags = "recv", "DONTWAIT" if "|" not in flags and flags != "PEEK" else "PEEK|DONTWAIT"
        if self.vars[v].blocking and actor[0] == "T":
            self.waited.add(v)
        n = r.choice((self.number(), "5000", "5000", "0" if r.random() < 0.1 else "3"))
        self.say(f"{how} {v} {n}" + (f" {flags}" if how in ("recv", "recvmsg") else ""), actor)

    def _many(self) -> None:
        """Several messages by one call."""
        v = self._any_conn()
        if v:
            how = self.rng.choice(("sendmmsg", "recvmmsg"))
            self.say(f"{how} {v} {self.rng.choice((1, 5, 100))} {self.rng.choice((0, 1, 2, 4))}", self.actor(v))

    def _copy(self) -> None:
        """What the kernel copies by itself: from files, between sockets and pipes."""
        r = self.rng
        v = self.some("conn")
        into, out = self.some("out"), self.some("in")
        if not into or not out:
            a, b = self.new("in"), self.new("out")
            self.say("pipe", to=f"{a} {b}")
        elif v and r.random() < 0.4:
            self.say(f"sendfile {v} {self.number()}", self.actor(v))
        elif v and self.vars[v].blocking:
            return  # splice would hold the lock of the pipe while it sleeps
        elif v and r.random() < 0.5:
            self.say(f"splice {v} {into} {self.number()}", self.actor(v))
        elif v:
            self.say(f"splice {out} {v} {self.number()}", self.actor(v))

    def _range(self) -> None:
        v = self.some("conn", "fresh", "listener")
        if v:
            self.say(f"close_range {v} {v if self.rng.random() < 0.6 else 60}", self.actor(v))

    def _oob(self) -> None:
        r = self.rng
        v = self._any_conn()
        if not v:
            return
        text = r.choice((f"send {v} {r.choice((1, 1, 2, 10))} OOB", f"recv {v} 10 OOB|DONTWAIT", f"sockatmark {v}",
                         f"recv {v} 10 OOB|PEEK|DONTWAIT", f"setopt {v} SO_OOBINLINE 1"))  # fmt: skip
        self.say(text, self.actor(v))

    def _close(self) -> None:
        r = self.rng
        v = self.some("conn", "conn", "listener", "epoll", "fresh", owner=r.choice(("A", "A", "P")))
        if not v:
            return
        self.say(f"close {v}", self.actor(v))
        if r.random() < 0.8:
            self.vars[v].kind = "gone"

    def _shutdown(self) -> None:
        v = self._any_conn() if self.rng.random() < 0.9 else self.some("listener")
        if v:
            self.say(f"shutdown {v} {self.rng.choice(('RD', 'WR', 'WR', 'RDWR'))}", self.actor(v))

    def _half(self) -> None:
        """An end of a connection goes, whatever the other does."""
        v = self.some("conn", owner=self.rng.choice(("A", "P")))
        if not v:
            return
        self.say(self.rng.choice((f"close {v}", f"shutdown {v} WR", f"shutdown {v} RDWR")), self.actor(v))

    def _linger(self) -> None:
        """A connection ends by RST."""
        v = self._any_conn()
        if not v:
            return
        actor = self.actor(v)
        self.say(f"setopt {v} SO_LINGER 1 0", actor)
        if self.rng.random() < 0.8:
            self.say(f"close {v}", actor)
            self.vars[v].kind = "gone"

    def _sets(self) -> str:
        v = self.some("epoll")
        if v is None or self.rng.random() < 0.12:
            v = self.new("epoll")
            self.say("epoll", to=v)
        return v

    def _ctl(self, member: str) -> None:
        r = self.rng
        e = self._sets()
        known = member in self.vars[e].members
        op = r.choice(("MOD", "MOD", "DEL", "ADD")) if known else r.choice(("ADD",) * 9 + ("MOD",))
        # a full epoll_wait chooses what it reports: with few places nothing may depend on what was reported before
        mode = "" if "few" in self.has else r.choice((*MODES, "|EXCLUSIVE" if op == "ADD" and r.random() < 0.3 else ""))
        self.say(f"ctl {e} {op} {member} {r.choice(EVENTS)}{mode}".replace(" 0|", " "), self.actor(e))
        if op == "ADD":
            self.vars[e].members.append(member)
        elif op == "DEL" and known:
            self.vars[e].members.remove(member)

    def _add(self) -> None:
        v = self.some("conn", "conn", "conn", "listener", "fresh", "in", "event")
        if v:
            self._ctl(v)

    def _wait(self) -> None:
        e = self._sets()
        if not self.vars[e].members:
            self._add()
        self.say(f"ewait {e} {self.rng.choice((16, 1, 2)) if 'few' in self.has else 16} 0", self.actor(e))

    def _poll(self) -> None:
        r = self.rng
        n = r.choice((1, 2, 2, 3, 4))
        kinds = ["conn", "listener", "fresh", "in", "gone", *(["epoll"] if "nested" in self.has else [])]
        found = [v for v in (self.some(*kinds) for _ in range(n)) if v and (self.vars[v].kind in kinds)]
        if not found:
            return
        if r.random() < 0.6:
            self.say("poll 0 " + " ".join(f"{v} {r.choice(EVENTS)}" for v in found), self.actor(found[0]))
        else:
            words = " ".join(f"{v} {r.choice(('R', 'W', 'R|W', 'R|W|X'))}" for v in found)
            self.say(f"select 0 {words}", self.actor(found[0]))

    def _option(self) -> None:
        r = self.rng
        v = self.some("conn", "conn", "listener", "fresh")
        if not v:
            return
        if r.random() < 0.5:
            name = r.choice(SET)
            value = {
                "SO_RCVLOWAT": (1, 5, 20),
                "TCP_KEEPIDLE": (10, 100),
                "TCP_USER_TIMEOUT": (0, 5000),
                "TCP_SYNCNT": (1, 5),
                "TCP_NODELAY": (1,),
            }
            self.say(f"setopt {v} {name} {r.choice(value.get(name, (0, 1, 1, 2)))}", self.actor(v))
        else:
            self.say(f"getopt {v} {r.choice(GET)}", self.actor(v))

    def _dup(self) -> None:
        r = self.rng
        v = self.some("conn", "conn", "listener", "fresh", "epoll")
        if not v:
            return
        actor = self.actor(v)
        owner = actor if actor[0] in "CP" else self.vars[v].owner
        other = self.some("conn", "gone", "fresh", "epoll", "listener")
        src = self.vars[v]
        if other and r.random() < 0.45:
            self.say(f"{r.choice(('dup2', 'dup2', 'dup3'))} {v} {other}", actor)
            if src.owner == "A":
                self.vars[other] = Var(src.kind, src.owner, src.v6, blocking=src.blocking, members=src.members)
            return
        twice = v in self.waited
        to = self.new(src.kind, owner=owner, v6=src.v6, blocking=src.blocking)
        self.waited |= {to} if twice else set()
        self.say(f"dup {v}" if r.random() < 0.8 else f"dupfd {v} {r.choice((0, 10, 20))}", actor, to)

    def _file(self) -> None:
        """Kernel objects beside the sockets."""
        r = self.rng
        v = self.some("in", "out", "event")
        if v is None or r.random() < 0.2:
            if r.random() < 0.5:
                a = self.new("in")
                b = self.new("out")
                self.say("pipe", to=f"{a} {b}")
            else:
                self.say("eventfd 0", to=self.new("event"))
            return
        kind = self.vars[v].kind
        texts = {"in": f"read {v} 10", "out": f"write {v} 5", "event": r.choice((f"notify {v}", f"read {v} 8"))}
        self.say(r.choice((texts.get(kind, f"read {v} 10"),) * 4 + (f"close {v}",)), self.actor(v))

    def _fork(self) -> None:
        free = [c for c in ("C1", "C2", "C3") if c not in self.children]
        if free:
            parent = self.rng.choice(["A", "A", *self.children])
            self.say("fork", parent, free[0])
            self.children.append(free[0])

    def _child_end(self) -> None:
        if self.children:
            c = self.rng.choice(self.children)
            how = self.rng.choice(("exit", "exec"))
            self.say(how, c)
            if how == "exit":
                self.children.remove(c)

    def _block(self) -> None:
        """A thread that waits: what wakes it comes later."""
        r = self.rng
        idle = [t for t in ("T1", "T2", "T3") if t not in self.busy]
        if not idle:
            self.busy.clear()
            return
        t = idle[0]
        v = self.some("conn", "conn", "conn", "listener")
        v = v if v not in self.waited else None
        e = self.some("epoll")
        if e and e not in self.waited and r.random() < 0.4:
            self.waited.add(e)
            self.say(f"ewait {e} {r.choice((16, 16, 1)) if 'few' in self.has else 16} -1", t)
        elif v and r.random() < 0.35:
            other = self.some("conn", "listener", "in") or v
            other = v if other in self.waited else other
            self.waited.add(other)
            self.say(r.choice((f"poll -1 {v} {r.choice(EVENTS)} {other} IN", f"select -1 {v} R {other} R")), t)
        elif v:
            self.say(f"setfl {v} 0")
            self.vars[v].blocking = True
            if self.vars[v].kind == "listener":
                self.say(f"accept {v} NONBLOCK", t, self.new("conn"))
            else:
                flags = r.choice(("0", "0", "WAITALL", "PEEK"))
                self.say(f"recv {v} {r.choice(('1', '10', '100', '2000'))} {flags}", t)
        else:
            return
        self.waited |= {v} if v else set()
        self.busy[t] = 1

    def _signal(self) -> None:
        r = self.rng
        if self.busy and r.random() < 0.7:
            self.say(f"kill {r.choice(sorted(self.busy))} {r.choice(('USR1', 'USR2'))}")
        else:
            self.say(f"handler {r.choice(('USR1', 'USR2'))} {r.choice(('0', '0', 'RESTART', 'IGN'))}")

    def _pass(self) -> None:
        r = self.rng
        u = self.some("unix")
        if u is None or self.vars[u].kind != "unix":
            a, b = self.new("unix"), self.new("unix")
            self.vars[a].peer, self.vars[b].peer = b, a
            self.say("socketpair NONBLOCK NONBLOCK", to=f"{a} {b}")
            return
        v = self.some("conn", "listener", "fresh", "epoll")
        other = self.vars[u].peer
        if r.random() < 0.5 and v:
            self.say(f"sendfd {u} {v}", self.actor(u))
        elif other in self.vars:
            actor = self.actor(other)
            self.say(f"recvfd {other}", actor, self.new("conn", owner=actor if actor[0] == "C" else "A"))

    def _fill(self) -> None:
        """A new connection, full and empty again at once: how much is in between is nobody's to know."""
        server, client = self.rng.choice((("A", "A"), ("P", "A"), ("A", "P"))) if "link" in self.has else ("A", "A")
        listener = self._listener(server)
        a = self._socket(client)
        self.say(f"connect {a} @{listener}", client)
        b = self.new("conn", owner=server, peer=a)
        self.say(f"accept {listener} NONBLOCK", server, b)
        self.vars[a].kind, self.vars[a].peer = "conn", b
        if self.rng.random() < 0.5:
            a, b = b, a
        self.say(f"fill {a}", self.vars[a].owner)
        if self.rng.random() < 0.5 and "epoll" in self.has:
            self._wait()
        for _ in range(2):
            self.say(f"drain {b}", self.vars[b].owner)

    def _name(self) -> None:
        v = self.some("conn", "conn", "listener", "fresh", owner=self.rng.choice(("A", "A", "P")))
        if v:
            self.say(f"{self.rng.choice(('getsockname', 'getpeername'))} {v}", self.actor(v))

    def _flag(self) -> None:
        r = self.rng
        v = self.some("conn", "listener", "fresh")
        if v:
            on = r.choice((0, 1, 1, 1))
            self.say(r.choice((f"setfl {v} {on}", f"getfl {v}", f"fionbio {v} {on}", f"getfd {v}", f"setfd {v} {on}",
                               f"fionread {v}")), self.actor(v))  # fmt: skip

    def _refused(self) -> None:
        v = self._socket()
        self.say(f"connect {v} {self.rng.choice(('lo:1', 'lo:1', 'link:1'))}")
        self.vars[v].kind = "conn"

    def _nest(self) -> None:
        r = self.rng
        inner = self.some("epoll")
        if not inner:
            return
        outer = self.new("epoll")
        self.say("epoll", to=outer)
        self.say(f"ctl {outer} ADD {inner} IN{r.choice(('', '|ET'))}")
        self.vars[outer].members.append(inner)

    def _reuse(self) -> None:
        """Calls that come too late or twice."""
        r = self.rng
        v = self.some("conn", "listener", "fresh")
        other = self.some("listener")
        if v:
            texts = [f"listen {v} 2", f"bind {v} lo:0", f"dissolve {v}"] + ([f"connect {v} @{other}"] if other else [])
            self.say(r.choice(texts), self.actor(v))

    def _listen_again(self) -> None:
        """A second socket on the port of a listener."""
        other = self.some("listener")
        if other:
            v = self._socket()
            if self.rng.random() < 0.7:
                self.say(f"setopt {v} {self.rng.choice(('SO_REUSEADDR', 'SO_REUSEPORT'))} 1")
            self.say(f"bind {v} {self.rng.choice(('lo', 'any'))}:@{other}")
            self.say(f"listen {v} 4")
            self.vars[v].kind = "listener"
