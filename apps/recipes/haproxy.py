"""haproxy: a proxy with an event loop of its own per thread, in front of nginx; hands listeners on when it reloads."""

from __future__ import annotations

import contextlib
import os
import re
import signal

from _lab import Proc, until

from recipes import LOCAL, SERVER, Run, _web, nginx, recipe

CONF = """
global
	nbthread 2
	maxconn 500
	stats socket {tmp}/haproxy.sock mode 600 level admin expose-fd listeners
	{glob}
defaults
	timeout connect 5s
	timeout client 20s
	timeout server 20s
frontend web
	mode http
	bind :8000
	http-response set-header X-Generation {generation}
	use_backend nobody if {{ path /nobody }}
	default_backend web
frontend bytes
	mode tcp
	bind :8001
	default_backend bytes
backend web
	mode http
	balance roundrobin
	{balance}
	server one 127.0.0.1:8080 check inter 200ms
	server two 127.0.0.1:8080
backend nobody
	mode http
	server none 127.0.0.1:9
backend bytes
	mode tcp
	server one 127.0.0.1:8080
"""
DEBIAN = ("haproxy", "nginx", "curl", "wrk", "apache2-utils")


def configure(r: Run, generation: int = 1, glob: str = "", balance: str = "") -> None:
    r.file("haproxy.cfg", CONF.format(tmp=r.tmp, generation=generation, glob=glob, balance=balance))


def start(r: Run, *options: str) -> Proc:
    p = r.server("/usr/sbin/haproxy", "-f", r.tmp / "haproxy.cfg", *options, port=8000)
    r.listening(8001)
    return p


def generation(r: Run) -> str:
    answer = _web.curl(r, "-I", f"http://{r.addr}:8000/small.txt")
    return "".join(re.findall(r"x-generation: (\d+)", answer, re.I)) or answer


def reload(r: Run, master: Proc) -> str:
    """Reloads and returns the generation that answers then.  A master that is still reloading does not listen."""
    loaded = master.err.count("Loading success")
    master.signal(signal.SIGUSR2)
    with contextlib.suppress(AssertionError):
        until("the master has loaded", lambda: master.err.count("Loading success") > loaded, 2)
    return generation(r)


def alarms(p: Proc) -> list[str]:
    """What haproxy complained of."""
    told = re.findall(r"\[(?:ALERT|WARNING)\] +\(\d+\) : (.*)", p.err)
    return [re.sub(r" \(cumulated.*", "", line) for line in told]


def exercise(r: Run) -> None:
    _web.fetch(r, "http", f"http://{r.addr}:8000")
    _web.fetch(r, "tcp", f"http://{r.addr}:8001")
    r.see("nobody behind", _web.curl(r, "-o", "/dev/null", "-w", "%{http_code}", f"http://{r.addr}:8000/nobody"))
    r.see("wrk", _web.wrk(r, f"http://{r.addr}:8000/small.txt"))
    r.see("wrk, tcp", _web.wrk(r, f"http://{r.addr}:8001/small.txt", seconds=1))
    r.see("wrk, close", _web.wrk(r, f"http://{r.addr}:8000/small.txt", seconds=1, connections=8, close=True))
    r.see("ab", _web.ab(r, f"http://{r.addr}:8000/small.txt", 1000))
    r.see("ab, tcp", _web.ab(r, f"http://{r.addr}:8001/small.txt", 1000))
    r.carried(connections=2000 + 70, bytes=2000 * _web.SMALL + 2 * _web.BIG)


@recipe(
    "haproxy",
    exercises="connections from one side to the other in two threads, splice, checks of servers, refused servers",
    modes=(SERVER, LOCAL),
    quick=(SERVER,),
    debian=DEBIAN,
)
def haproxy(r: Run) -> None:
    nginx.serve(r)
    configure(r, balance="option splice-auto")
    server = start(r, "-db")
    exercise(r)
    server.signal(signal.SIGUSR1)  # quit when all connections are gone
    r.see("status", server.wait(30))
    r.see("alarms", alarms(server))


@recipe(
    "haproxy-reload",
    exercises="master and workers; reload by exec of itself, which takes the listeners over a unix socket",
    modes=(SERVER, LOCAL),
    debian=DEBIAN,
)
def haproxy_reload(r: Run) -> None:
    nginx.serve(r)
    configure(r)
    master = start(r, "-W", "-S", f"{r.tmp}/master.sock")
    exercise(r)
    load = nginx.load(r, 0, 8000)
    for n in range(2, 12):
        configure(r, n)
        until(f"generation {n} answers", lambda n=n: reload(r, master) == str(n), 20)  # type: ignore[misc]
    until("old workers have gone", lambda: len(nginx.children(r, master.pid)) == 1, 30)
    r.see("load during reloads of the master", load())
    _web.fetch(r, "after", f"http://{r.addr}:8000")
    master.signal(signal.SIGTERM)
    r.see("status", master.wait(20))


@recipe(
    "haproxy-handover",
    exercises="an unrelated process gets the listeners by SCM_RIGHTS (-x) and the old one finishes (-sf)",
    modes=(SERVER, LOCAL),
    debian=DEBIAN,
)
def haproxy_handover(r: Run) -> None:
    nginx.serve(r)
    configure(r)
    server = start(r, "-db")
    load = nginx.load(r, 0, 8000)
    for n in range(2, 8):
        configure(r, n)
        old = server
        options = ["-x", f"{r.tmp}/haproxy.sock", "-sf", str(old.pid)]
        server = r.server("/usr/sbin/haproxy", "-f", r.tmp / "haproxy.cfg", "-db", *options)
        until(f"generation {n} answers", lambda n=n: generation(r) == str(n), 20)  # type: ignore[misc]
        r.see(f"status of generation {n - 1}", old.wait(30))
    r.see("load", load())
    _web.fetch(r, "after", f"http://{r.addr}:8000")
    r.see("alarms", alarms(server))
    os.kill(server.pid, signal.SIGUSR1)
    r.see("status", server.wait(20))
    r.carried(connections=50, bytes=_web.BIG)
