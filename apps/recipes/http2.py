"""HTTP/2 in clear text: h2load against nginx, hundreds of streams on a few connections."""

from __future__ import annotations

import re

from recipes import CLIENT, LOCAL, SERVER, Run, recipe
from recipes import _web as web

NGINX_CONF = """
user root;
worker_processes 2;
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
	server {{ listen 8080 http2; root {tmp}/www; }}
}}
"""


@recipe(
    "h2load",
    exercises="libev (epoll), 10 connections with 20 streams each, window updates both ways",
    modes=(SERVER, CLIENT, LOCAL),
    debian=("nghttp2-client", "nginx"),
)
def h2load(r: Run) -> None:
    web.root(r)
    r.server("nginx", "-c", r.file("nginx.conf", NGINX_CONF.format(tmp=r.tmp)), "-e", "stderr", "-p", r.tmp, port=8080)
    for name, path, n in (("small", "small.txt", 5000), ("big", "big.bin", 40)):
        out = r.client("h2load", "-n", str(n), "-c", "10", "-m", "20", f"http://{r.addr}:8080/{path}").ok(40)
        r.see(f"{name}: requests", re.findall(r"^requests:.*", out, re.M))
        r.see(f"{name}: codes", re.findall(r"^status codes:.*", out, re.M))
        r.see(f"{name}: data", re.findall(r"(\(\d+\)) data", out))
    r.carried(connections=20, bytes=170_000_000)
