"""HTTP/2 in clear text: h2load against nginx, hundreds of streams on a few connections."""

from __future__ import annotations

import re

from recipes import CLIENT, LOCAL, SERVER, Run, nginx, recipe
from recipes import _web as web


@recipe(
    "h2load",
    exercises="libev (epoll), 10 connections with 20 streams each, window updates both ways",
    modes=(SERVER, CLIENT, LOCAL),
    debian=("nghttp2-client", "nginx"),
)
def h2load(r: Run) -> None:
    web.root(r)
    nginx.bare(r, f"listen 8080 http2; root {r.tmp}/www;")
    for name, path, n in (("small", "small.txt", 5000), ("big", "big.bin", 40)):
        out = r.client("h2load", "-n", str(n), "-c", "10", "-m", "20", f"http://{r.addr}:8080/{path}").ok(40)
        r.see(f"{name}: requests", re.findall(r"^requests:.*", out, re.M))
        r.see(f"{name}: codes", re.findall(r"^status codes:.*", out, re.M))
        r.see(f"{name}: data", re.findall(r"(\(\d+\)) data", out))
    r.carried(connections=20, bytes=170_000_000)
