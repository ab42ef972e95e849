"""uWSGI: workers forked after the listener was made, which accept in turn behind a lock in shared memory."""

from __future__ import annotations

import signal
from functools import partial

from _lab import Proc, until

from recipes import LOCAL, SERVER, Run, recipe
from recipes import _web as web

APPLICATION = """
import hashlib, os, time

def application(environ, start_response):
    path = environ["PATH_INFO"]
    length = int(environ.get("CONTENT_LENGTH") or 0)
    body = {
        "/": lambda: [b"small"],
        "/digest": lambda: [hashlib.sha256(environ["wsgi.input"].read(length)).hexdigest().encode()],
        "/stream": lambda: (b"part %d " % n * 1000 for n in range(100)),
        "/pid": lambda: [str(os.getpid()).encode()],
        "/file": lambda: environ["wsgi.file_wrapper"](open(os.environ["BIG"], "rb"), 65536),
        "/who": lambda: [environ["REMOTE_ADDR"].encode()],
    }.get(path)
    start_response("200 OK" if body else "404 Not Found", [("Content-Type", "text/plain")])
    return body() if body else [b"nothing here"]
"""


def served(r: Run, pid: str) -> bool:
    return web.curl(r, f"http://{r.addr}:8000/pid") == pid


def spawned(server: Proc, times: int) -> bool:
    return server.err.count("spawned uWSGI worker 2") == times


@recipe(
    "uwsgi",
    exercises="prefork with a lock around accept, sendfile, workers with threads, drop of privileges, reload by exec",
    modes=(SERVER, LOCAL),
    debian=("uwsgi-core", "uwsgi-plugin-python3", "curl", "wrk"),
    limit=90,
)
def uwsgi(r: Run) -> None:
    root = web.root(r)
    r.file("application.py", APPLICATION)
    base = f"http://{r.addr}:8000"
    for name, options in (("processes", ("--processes", "3")), ("threads", ("--processes", "2", "--threads", "4"))):
        server = r.server(
            "uwsgi", "--plugin", "python3", "--http-socket", "0.0.0.0:8000", "--master", "--die-on-term", "--need-app",
            "--listen", "100", "--uid", "www-data", "--gid", "www-data", "--chdir", r.tmp, "--module", "application",
            "--disable-logging", "--thunder-lock", *options, port=8000, env={"BIG": str(root / "big.bin")},
        )  # fmt: skip
        server.line("spawned uWSGI worker 2")
        body = r.file("upload", web.data(2_000_000))
        r.see(f"{name}: digest", web.curl(r, "--data-binary", f"@{body}", f"{base}/digest"))
        r.see(f"{name}: stream", web.sha(web.curl(r, f"{base}/stream").encode()))
        got = r.tmp / "got"
        r.see(f"{name}: file", [web.curl(r, "-o", got, f"{base}/file"), web.sha(got.read_bytes())])
        r.see(f"{name}: who", web.curl(r, f"{base}/who") == r.client_addr)
        r.see(f"{name}: missing", web.curl(r, "-w", " %{http_code}", f"{base}/none"))
        out = ("-Z", "--no-progress-meter", "--parallel-max", "20", "-o", "/dev/null", "-w", "%{http_code}\n")
        r.see(f"{name}: at once", web.curl(r, *out, f"{base}/stream?[1-60]"))
        r.see(f"{name}: load", web.wrk(r, f"{base}/", seconds=1, connections=16, close=True))
        victim = web.curl(r, f"{base}/pid")
        r.server_ns.run("kill", "-KILL", victim)
        successor = server.line(r"Respawned uWSGI worker \d \(new pid: (\d+)")[1]
        until("it serves", partial(served, r, successor))  # its signal handlers are its own now
        server.signal(signal.SIGHUP)  # the master executes itself; the listener stays open
        until("it has reloaded", partial(spawned, server, 2))
        r.see(f"{name}: after the reload", web.curl(r, "-w", " %{http_code}\n", f"{base}/?[1-10]"))
        r.see(f"{name}: ended", server.end())
    r.carried(connections=150, bytes=90_000_000)
