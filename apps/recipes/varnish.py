"""Varnish: acceptor threads, an epoll thread for idle connections, a pool of workers that block in poll and writev."""

from __future__ import annotations

import re

from recipes import LOCAL, SERVER, Run, recipe
from recipes import _web as web
from recipes.proxies import ORIGIN

VCL = """
vcl 4.1;
backend origin {{ .host = "127.0.0.1"; .port = "8000"; }}
sub vcl_recv {{ if (req.method == "CONNECT") {{ return (synth(405)); }} }}
"""


@recipe(
    "varnish",
    exercises="worker threads, idle connections handed to an epoll thread, a cache, a child process",
    modes=(SERVER, LOCAL),
    debian=("varnish", "gcc", "nodejs", "curl", "wrk"),
    limit=90,
)
def varnish(r: Run) -> None:
    r.server("node", r.file("origin.js", ORIGIN), port=8000)
    vcl = r.file("default.vcl", VCL.format())
    manager = r.server(
        "varnishd", "-F", "-a", "0.0.0.0:6081", "-f", vcl, "-n", r.tmp / "varnish", "-j", "none", "-s", "malloc,32m",
        "-p", "thread_pool_min=10", port=6081,
    )  # fmt: skip
    base = f"http://{r.addr}:6081"
    first = web.curl(r, f"{base}/kept")
    r.see("from the cache", [web.curl(r, f"{base}/kept") == first for _ in range(5)])
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
    r.see("40 at once", web.curl(r, *all_, f"{base}/a?[1-40]"))
    body = r.file("upload", web.data(3_000_000))
    r.see("upload", web.curl(r, "--data-binary", f"@{body}", f"{base}/digest"))
    r.see("kept", web.curl(r, "-w", " %{http_code} %{num_connects}\n", f"{base}/slow?[1-3]", "-o", "/dev/null"))
    cut = web.curl(r, "-o", "/dev/null", "-w", "%{http_code} ", f"{base}/cut")
    r.see(
        "cut", re.sub(r"with \d+ bytes", "with some bytes", cut)
    )  # whether the first four got through depends on timing
    r.see("load", web.wrk(r, f"{base}/kept", seconds=1, connections=50))
    r.see("load, closing", web.wrk(r, f"{base}/kept", seconds=1, connections=16, close=True))
    r.see("ended", manager.end(20))
    r.carried(connections=100, bytes=45_000_000)
