"""lighttpd: one event loop, writev and sendfile; graceful restart."""

from __future__ import annotations

import signal

from _lab import Proc, until

from recipes import LOCAL, SERVER, Run, _web, nginx, recipe

CONF = """
server.modules = ("mod_accesslog", "mod_cgi", "mod_alias")
server.document-root = "{tmp}/www"
server.port = {port}
server.bind = "0.0.0.0"
server.errorlog = "{tmp}/error.log"
server.pid-file = "{tmp}/lighttpd.pid"
server.event-handler = "{handler}"
server.network-backend = "{backend}"
server.max-worker = {workers}
server.graceful-shutdown-timeout = 20
accesslog.filename = "{tmp}/access.log"
mimetype.assign = (".txt" => "text/plain", "" => "application/octet-stream")
$HTTP["url"] =~ "^/cgi/" {{ cgi.assign = ("" => "") }}
alias.url = ("/cgi/" => "{tmp}/cgi/")
"""
CGI = """#!/bin/sh
printf 'Content-Type: text/plain\\r\\n\\r\\n'
echo "$REQUEST_METHOD $QUERY_STRING"
sha256sum
"""
DEBIAN = ("lighttpd", "curl", "wrk", "apache2-utils")
PORT = 8080


def serve(r: Run, handler: str = "linux-sysepoll", backend: str = "sendfile", workers: int = 0) -> Proc:
    _web.root(r)
    r.file("cgi/sum", CGI).chmod(0o755)
    text = CONF.format(tmp=r.tmp, port=PORT, handler=handler, backend=backend, workers=workers)
    return r.server("lighttpd", "-D", "-f", r.file("lighttpd.conf", text), port=PORT)


def exercise(r: Run) -> None:
    base = f"http://{r.addr}:{PORT}"
    _web.fetch(r, "file", base)
    posted = r.file("posted", _web.data(300_000))
    r.see("cgi", _web.curl(r, "--data-binary", f"@{posted}", f"{base}/cgi/sum?a=b"))
    r.see(
        "cgi, chunked",
        _web.curl(r, "-H", "Transfer-Encoding: chunked", "--data-binary", f"@{posted}", f"{base}/cgi/sum"),
    )
    r.see("wrk", _web.wrk(r, f"{base}/small.txt"))
    r.see("wrk, close", _web.wrk(r, f"{base}/small.txt", seconds=1, connections=8, close=True))
    r.see("ab", _web.ab(r, f"{base}/small.txt", 1000))
    r.see("ab, big", _web.ab(r, f"{base}/big.bin", 30))
    r.carried(connections=1000 + 30 + 40, bytes=31 * _web.BIG)


@recipe(
    "lighttpd",
    exercises="epoll without edges, sendfile, CGI by fork and exec, graceful restart that keeps the listener",
    modes=(SERVER, LOCAL),
    quick=(SERVER,),
    debian=DEBIAN,
)
def lighttpd(r: Run) -> None:
    server = serve(r)
    exercise(r)
    stop = nginx.load(r, 0)
    for n in range(5):
        before = (r.tmp / "error.log").read_text().count("server started")
        server.signal(signal.SIGUSR1)
        until(f"restart {n}", lambda n=before: (r.tmp / "error.log").read_text().count("server started") > n)  # type: ignore[misc]
    r.see("load during graceful restarts", stop())
    server.signal(signal.SIGINT)
    r.see("status", server.wait(20))


@recipe("lighttpd-poll", exercises="poll, writev", modes=(SERVER, LOCAL), debian=DEBIAN)
def lighttpd_poll(r: Run) -> None:
    server = serve(r, handler="poll", backend="writev")
    exercise(r)
    server.signal(signal.SIGINT)
    r.see("status", server.wait(20))


@recipe("lighttpd-select", exercises="select, several processes on one listener", modes=(SERVER, LOCAL), debian=DEBIAN)
def lighttpd_select(r: Run) -> None:
    server = serve(r, handler="select", backend="write", workers=3)
    exercise(r)
    r.see("status", server.end())
