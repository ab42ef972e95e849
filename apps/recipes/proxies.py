"""HTTP proxies: Squid (one epoll loop, helpers over socket pairs) and tinyproxy (a thread per connection, poll)."""

from __future__ import annotations

from recipes import LOCAL, SERVER, Run, recipe
from recipes import _web as web

ORIGIN = r"""
const http = require('http'), crypto = require('crypto');
let n = 0;
http.createServer((req, res) => {
  n++;
  if (req.url === '/digest') {
    const sum = crypto.createHash('sha256');
    return void req.on('data', d => sum.update(d)).on('end', () => res.end(sum.digest('hex')));
  }
  if (req.url === '/kept') return void res.writeHead(200, { 'Cache-Control': 'max-age=600' }).end(`answer ${n}`);
  if (req.url === '/count') return void res.end(String(n));
  if (req.url === '/slow') return void setTimeout(() => res.end('slow'), 300);
  if (req.url === '/cut') { res.writeHead(200, { 'Content-Length': 1000 }); res.write('part');
    return void setTimeout(() => req.socket.destroy(), 50); }
  res.writeHead(200, { 'Cache-Control': 'no-store' }).end(Buffer.alloc(1 << 20, req.url));
}).listen(8000, '0.0.0.0');
"""

SQUID = """
http_port 3128
pid_filename {tmp}/squid.pid
access_log none
cache_log {tmp}/cache.log
cache_store_log none
coredump_dir {tmp}
cache_mem 16 MB
shutdown_lifetime 1 seconds
http_access allow all
visible_hostname proxy.test
pinger_enable off
retry_on_error off
"""

TINYPROXY = """
Port 8888
Listen 0.0.0.0
Timeout 20
MaxClients 100
Allow 0.0.0.0/0
ConnectPort 8000
LogLevel Critical
DisableViaHeader Yes
"""


def through(r: Run, port: int) -> None:
    """Sees what comes through the proxy: contents, uploads, tunnels, errors."""
    proxy, origin = ("-x", f"http://{r.addr}:{port}"), f"http://{r.addr}:8000"
    all_ = (
        "-Z",
        "--no-progress-meter",
        "--parallel-max",
        "20",
        "-o",
        "/dev/null",
        "-w",
        "%{http_code} %{size_download}\n",
    )
    r.see("40 at once", web.curl(r, *proxy, *all_, f"{origin}/a?[1-40]"))
    r.see("content", web.sha(web.curl(r, *proxy, f"{origin}/content").encode()))
    body = r.file("upload", web.data(3_000_000))
    r.see("upload", web.curl(r, *proxy, "--data-binary", f"@{body}", f"{origin}/digest"))
    r.see(
        "tunnel", web.curl(r, *proxy, "-p", "--data-binary", f"@{body}", "-w", " %{http_connect}", f"{origin}/digest")
    )
    r.see("slow", web.curl(r, *proxy, "-w", " %{http_code}", f"{origin}/slow"))
    r.see("cut", web.curl(r, *proxy, "-o", "/dev/null", "-w", "%{http_code} %{size_download}", f"{origin}/cut"))
    refused = web.curl(r, *proxy, "-o", "/dev/null", "-w", "%{http_code}", f"http://{r.addr}:1/")
    r.see("refused by the origin", refused)
    r.see("given up", web.curl(r, *proxy, "--max-time", "0.1", f"{origin}/slow").split(":")[0])
    r.see("after it", web.curl(r, *proxy, f"{origin}/slow"))
    r.see("load", web.wrk(r, f"{origin}/slow", seconds=1, connections=16))
    r.carried(connections=50, bytes=45_000_000)


@recipe(
    "squid",
    exercises="one loop between clients and origins, a cache, tunnels, kept connections",
    modes=(SERVER, LOCAL),
    debian=("squid", "nodejs", "curl", "wrk"),
    limit=90,
)
def squid(r: Run) -> None:
    r.server("node", r.file("origin.js", ORIGIN), port=8000)
    r.tmp.chmod(0o777)  # Squid's own user writes its pid and log
    r.server("squid", "-N", "-f", r.file("squid.conf", SQUID.format(tmp=r.tmp)), port=3128)
    through(r, 3128)
    proxy, origin = ("-x", f"http://{r.addr}:3128"), f"http://{r.addr}:8000"
    first = web.curl(r, *proxy, f"{origin}/kept")
    r.see("from the cache", [web.curl(r, *proxy, f"{origin}/kept") == first for _ in range(5)])


@recipe(
    "tinyproxy",
    exercises="a thread per connection between two sockets, poll, tunnels",
    modes=(SERVER, LOCAL),
    debian=("tinyproxy-bin", "nodejs", "curl", "wrk"),
)
def tinyproxy(r: Run) -> None:
    r.server("node", r.file("origin.js", ORIGIN), port=8000)
    r.server("tinyproxy", "-d", "-c", r.file("tinyproxy.conf", TINYPROXY), port=8888)
    through(r, 8888)
