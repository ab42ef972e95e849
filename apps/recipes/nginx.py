"""nginx: workers that share listeners, in the ways that it can be run."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable

from _lab import Proc, until

from recipes import LOCAL, SERVER, Run, _web, recipe

PORT = 8080
CONF = """
user root;
worker_processes 2;
daemon {daemon};
pid {tmp}/nginx.pid;
error_log {tmp}/error.log notice;
events {{ worker_connections 1024; accept_mutex {accept_mutex}; }}
http {{
	access_log {tmp}/access.log;
	sendfile on;
	tcp_nopush on;
	keepalive_requests 100000;
	client_body_temp_path {tmp}/body;
	proxy_temp_path {tmp}/proxy;
	fastcgi_temp_path {tmp}/fastcgi;
	uwsgi_temp_path {tmp}/uwsgi;
	scgi_temp_path {tmp}/scgi;
	server {{
		listen {port} {listen};
		root {tmp}/www;
		location /close/ {{ alias {tmp}/www/; keepalive_timeout 0; }}
		location /copied/ {{ alias {tmp}/www/; sendfile off; }}
	}}
}}
"""
BARE = """
user root;
worker_processes {workers};
daemon off;
pid {tmp}/nginx.pid;
error_log stderr;
events {{ worker_connections 512; }}
http {{
	access_log off;
	sendfile on;
	keepalive_requests 100000;
	client_body_temp_path {tmp}/body;
	proxy_temp_path {tmp}/proxy;
	fastcgi_temp_path {tmp}/fastcgi;
	uwsgi_temp_path {tmp}/uwsgi;
	scgi_temp_path {tmp}/scgi;
	server {{ {server} }}
}}
"""
DEBIAN = ("nginx", "curl", "wrk", "apache2-utils")


def bare(r: Run, server: str, workers: int = 2) -> Proc:
    """nginx with nothing but one server, at port 8080, for the recipes of other programs."""
    conf = r.file("nginx.conf", BARE.format(tmp=r.tmp, server=server, workers=workers))
    return r.server("nginx", "-c", conf, "-e", "stderr", "-p", r.tmp, port=PORT)


def serve(r: Run, listen: str = "", accept_mutex: str = "off", daemon: str = "off", port: int = PORT) -> Proc:
    _web.root(r)
    conf = r.file(
        "nginx.conf",
        CONF.format(tmp=r.tmp, port=port, listen=listen, accept_mutex=accept_mutex, daemon=daemon),
    )
    return r.server("/usr/sbin/nginx", "-c", conf, "-e", r.tmp / "error.log", "-p", r.tmp, port=port)


def url(r: Run, port: int = PORT) -> str:
    return f"http://{r.addr}:{port}"


def children(r: Run, pid: int) -> set[str]:
    return set(r.server_ns.run("pgrep", "-P", str(pid), check=False).split())


def errors(r: Run) -> list[str]:
    """What nginx said that is no notice, and how its children ended otherwise than by exit 0."""
    lines = (r.tmp / "error.log").read_text().splitlines()
    bad = [
        line for line in lines if "[notice]" not in line or re.search(r"exited on signal|exited with code [^0]", line)
    ]
    return [re.sub(r"^\S+ \S+ |\d+#\d+: (\*\d+ )?", "", line) for line in bad]


def quit_gracefully(server: Proc) -> int:
    server.signal(signal.SIGQUIT)
    return server.wait(20)


def exercise(r: Run) -> None:
    """Everything that a client can ask of the configuration above."""
    _web.fetch(r, "plain", url(r))
    _web.fetch(r, "close", f"{url(r)}/close")
    _web.fetch(r, "copied", f"{url(r)}/copied")
    r.see("wrk", _web.wrk(r, f"{url(r)}/small.txt"))
    r.see("wrk, close", _web.wrk(r, f"{url(r)}/small.txt", seconds=1, connections=8, close=True))
    r.see("ab, keep-alive", _web.ab(r, f"{url(r)}/small.txt", 5000, "-k"))
    r.see("ab", _web.ab(r, f"{url(r)}/small.txt", 2000))
    r.carried(connections=2000 + 20 + 40, bytes=7000 * _web.SMALL + 3 * _web.BIG)


@recipe(
    "nginx",
    exercises="two workers on one listener, sendfile, TCP_CORK, kept and closed connections",
    modes=(SERVER, LOCAL),
    quick=(SERVER,),
    debian=DEBIAN,
)
def nginx(r: Run) -> None:
    server = serve(r)
    exercise(r)
    r.see("status", quit_gracefully(server))
    r.see("errors", errors(r))


@recipe("nginx-reuseport", exercises="a listener per worker by SO_REUSEPORT", modes=(SERVER, LOCAL), debian=DEBIAN)
def nginx_reuseport(r: Run) -> None:
    server = serve(r, listen="reuseport")
    exercise(r)
    workers = children(r, server.pid)
    server.signal(signal.SIGHUP)
    until("new workers took over", lambda: len(now := children(r, server.pid)) == 2 and not now & workers, 20)
    _web.fetch(r, "after reload", url(r))
    r.see("status", quit_gracefully(server))
    r.see("errors", errors(r))


@recipe("nginx-accept-mutex", exercises="workers take turns with the listener in epoll", modes=(SERVER,), debian=DEBIAN)
def nginx_accept_mutex(r: Run) -> None:
    server = serve(r, accept_mutex="on")
    exercise(r)
    r.see("status", quit_gracefully(server))
    r.see("errors", errors(r))


@recipe("nginx-daemon", exercises="double fork, setsid, a listener from before", modes=(SERVER, LOCAL), debian=DEBIAN)
def nginx_daemon(r: Run) -> None:
    r.see("status of the first process", serve(r, daemon="on").wait(10))
    pid = r.daemon(r.tmp / "nginx.pid")
    exercise(r)
    control = r.server("nginx", "-c", r.tmp / "nginx.conf", "-p", r.tmp, "-s", "quit")
    r.see("nginx -s quit", control.wait(10))
    until("nginx has gone", lambda: pid not in r.lab.pids())
    r.see("errors", errors(r))


@recipe(
    "nginx-upgrade",
    exercises="binary upgrade: exec of a new master that inherits the listener, the old one quits",
    modes=(SERVER, LOCAL),
    debian=DEBIAN,
)
def nginx_upgrade(r: Run) -> None:
    serve(r, daemon="on").ok(10)
    pid_file, old_file = r.tmp / "nginx.pid", r.tmp / "nginx.pid.oldbin"
    old = r.daemon(pid_file)
    stop = load(r, 0)
    _web.fetch(r, "before", url(r))
    os.kill(old, signal.SIGUSR2)
    until("the new master is up", lambda: old_file.exists() and pid_file.exists() and pid_file.read_text())
    new = r.daemon(pid_file)
    until("the new master has workers", lambda: len(children(r, new)) == 2)
    _web.fetch(r, "both", url(r))
    os.kill(old, signal.SIGWINCH)  # the old master's workers go
    until("the old workers have gone", lambda: children(r, old) == {str(new)})
    _web.fetch(r, "new workers", url(r))
    os.kill(old, signal.SIGQUIT)
    until("the old master has gone", lambda: old not in r.lab.pids(), 20)
    _web.fetch(r, "new master", url(r))
    r.see("load", stop())
    r.see("ab", _web.ab(r, f"{url(r)}/small.txt", 1000))
    r.see("errors", errors(r))
    r.carried(connections=1000, bytes=4 * _web.BIG)


@recipe(
    "nginx-reloads",
    exercises="50 generations of workers that inherit, use and close one listener, under load",
    modes=(SERVER, LOCAL),
    debian=DEBIAN,
    limit=120,
)
def nginx_reloads(r: Run) -> None:
    server = serve(r)
    loads = [load(r, n) for n in range(2)]
    for n in range(50):
        before = children(r, server.pid)
        server.signal(signal.SIGHUP)
        until(f"reload {n}", lambda old=before: len(children(r, server.pid) - old) >= 2, 20)  # type: ignore[misc]
    r.see("load", [stop() for stop in loads])
    until("old workers have gone", lambda: len(children(r, server.pid)) == 2, 30)
    _web.fetch(r, "after", url(r))
    r.see("status", quit_gracefully(server))
    r.see("errors", errors(r))
    r.carried(connections=200, bytes=200 * _web.SMALL)


def load(r: Run, n: int, port: int = PORT) -> Callable[[], str]:
    """A client that makes one connection after the other; the result stops it and says how many failed and why."""
    script = r.file(
        f"load{n}.py",
        f"""
import collections, http.client, os
bad = collections.Counter()
done = 0
while done < 100 or not os.path.exists({str(r.tmp / "stop")!r}):
    c = http.client.HTTPConnection({r.addr!r}, {port}, timeout=20)
    try:
        c.request("GET", "/small.txt", headers={{"Connection": "close"}})
        bad["wrong"] += c.getresponse().read() != b"x" * {_web.SMALL}
    except Exception as e:
        bad[repr(e)] += 1
    c.close()
    done += 1
    if done == 10:
        print("started", flush=True)
print(sorted(bad.items()))
""",
    )
    client = r.client("/usr/bin/python3", script)
    client.line("started")

    def stop() -> str:
        (r.tmp / "stop").touch()
        return client.ok(30)

    return stop
