"""Apache: processes of many threads (event), and one process per connection (prefork)."""

from __future__ import annotations

import re
import signal
from pathlib import Path

from _lab import Proc, until

from recipes import LOCAL, SERVER, Run, _web, nginx, recipe

CONF = """
ServerRoot {tmp}
ServerName test
PidFile {tmp}/apache.pid
DefaultRuntimeDir {tmp}
ErrorLog {tmp}/error.log
LogLevel warn
Listen 0.0.0.0:{port}
LoadModule mpm_{mpm}_module {modules}/mod_mpm_{mpm}.so
LoadModule authz_core_module {modules}/mod_authz_core.so
LoadModule mime_module {modules}/mod_mime.so
LoadModule cgi_module {modules}/mod_cgi.so
LoadModule setenvif_module {modules}/mod_setenvif.so
LoadModule alias_module {modules}/mod_alias.so
LoadModule reqtimeout_module {modules}/mod_reqtimeout.so
TypesConfig /etc/mime.types
StartServers 3
MaxRequestsPerChild {per_child}
User www-data
Group www-data
DocumentRoot {tmp}/www
Alias /close/ {tmp}/www/
ScriptAlias /cgi/ {tmp}/cgi/
EnableSendfile {sendfile}
KeepAlive On
MaxKeepAliveRequests 0
GracefulShutdownTimeout 20
<Location /close/>
	SetEnvIf Request_URI . nokeepalive
</Location>
"""
CGI = """#!/bin/sh
printf 'Content-Type: text/plain\\r\\n\\r\\n'
echo "$REQUEST_METHOD $QUERY_STRING"
sha256sum
"""
PORT = 8080
DEBIAN = ("apache2-bin", "apache2-utils", "curl", "wrk")
MODULES = Path("/usr/lib/apache2/modules")


def serve(r: Run, mpm: str, sendfile: str = "On", per_child: int = 0) -> Proc:
    _web.root(r)
    r.file("cgi/sum", CGI).chmod(0o755)
    text = CONF.format(tmp=r.tmp, port=PORT, mpm=mpm, modules=MODULES, sendfile=sendfile, per_child=per_child)
    return r.server("/usr/sbin/apache2", "-D", "FOREGROUND", "-f", r.file("apache.conf", text), port=PORT)


def errors(r: Run) -> list[str]:
    lines = (r.tmp / "error.log").read_text().splitlines()
    return [re.sub(r"^\\[.*?\\] |\\[pid .*?\\] ", "", line) for line in lines if ":notice]" not in line]


def exercise(r: Run) -> None:
    base = f"http://{r.addr}:{PORT}"
    _web.fetch(r, "file", base)
    _web.fetch(r, "close", f"{base}/close")
    posted = r.file("posted", _web.data(300_000))
    r.see("cgi", _web.curl(r, "--data-binary", f"@{posted}", f"{base}/cgi/sum?a=b"))
    r.see("wrk", _web.wrk(r, f"{base}/small.txt", connections=16))
    r.see("wrk, close", _web.wrk(r, f"{base}/small.txt", seconds=1, connections=8, close=True))
    r.see("ab", _web.ab(r, f"{base}/small.txt", 1000))
    r.see("ab, keep-alive", _web.ab(r, f"{base}/small.txt", 2000, "-k"))
    r.see("ab, big", _web.ab(r, f"{base}/big.bin", 20))
    r.carried(connections=1000 + 20 + 40, bytes=22 * _web.BIG)


def reloads(r: Run, server: Proc) -> None:
    stop = nginx.load(r, 0)
    log = r.tmp / "error.log"
    for n in range(5):
        before = log.read_text().count("resuming normal operations")
        server.signal(signal.SIGUSR1)
        until(f"graceful restart {n}", lambda b=before: log.read_text().count("resuming normal operations") > b)  # type: ignore[misc]
    r.see("load during graceful restarts", stop())
    _web.fetch(r, "after", f"http://{r.addr}:{PORT}")
    server.signal(signal.SIGWINCH)
    r.see("status", server.wait(30))
    r.see("errors", errors(r))


@recipe(
    "apache-event",
    exercises="a thread with epoll beside worker threads in each of three processes, sendfile, graceful restarts",
    modes=(SERVER, LOCAL),
    debian=DEBIAN,
)
def apache_event(r: Run) -> None:
    server = serve(r, "event")
    exercise(r)
    reloads(r, server)


@recipe("apache-worker", exercises="threads that block in poll and writev, mmap instead of sendfile", debian=DEBIAN)
def apache_worker(r: Run) -> None:
    server = serve(r, "worker", sendfile="Off")
    exercise(r)
    reloads(r, server)


@recipe(
    "apache-prefork",
    exercises="processes that take turns in accept by a lock, children that end after 200 requests, privileges dropped",
    modes=(SERVER, LOCAL),
    debian=DEBIAN,
)
def apache_prefork(r: Run) -> None:
    server = serve(r, "prefork", per_child=200)
    exercise(r)
    reloads(r, server)
