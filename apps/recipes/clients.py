"""Clients of the web as the subject: curl, wget, wrk, ab."""

from __future__ import annotations

import re

from recipes import CLIENT, LOCAL, Run, _web, nginx, recipe


@recipe(
    "curl",
    exercises="poll with a wake-up pipe, connect without blocking, getsockname, TCP_NODELAY, keep-alive options",
    modes=(CLIENT,),
    quick=(CLIENT,),
    debian=("curl", "nginx"),
)
def curl(r: Run) -> None:
    nginx.serve(r)
    base = nginx.url(r)
    _web.fetch(r, "plain", base)
    _web.fetch(
        r, "options", base, "--tcp-fastopen", "--keepalive-time", "5", "--no-tcp-nodelay", "--local-port", "4000-4100"
    )
    r.see("refused", re.sub(r"after \d+ ms", "", _web.curl(r, f"http://{r.addr}:1/")))
    r.see("time out", _web.curl(r, "--connect-timeout", "0.5", "http://10.77.0.77/")[:9])
    r.see("many in one connection", _web.sha(_web.curl(r, f"{base}/many/[0-99]", "-w", "%{num_connects}\n", "-o", "/dev/null").encode()))  # fmt: skip  # noqa: E501
    r.carried(connections=10, bytes=2 * _web.BIG)


@recipe(
    "curl-parallel",
    exercises="100 transfers at a time in one event loop",
    modes=(CLIENT, LOCAL),
    debian=("curl", "nginx"),
)
def curl_parallel(r: Run) -> None:
    nginx.serve(r)
    (r.tmp / "got").mkdir()
    r.see(
        "said",
        _web.curl(r, "--parallel", "--parallel-max", "100", "--parallel-immediate", "--no-progress-meter",
                  f"{nginx.url(r)}/many/[0-99]", "-o", r.tmp / "got" / "#1"),
    )  # fmt: skip
    r.see("files", {n: _web.sha((r.tmp / "got" / str(n)).read_bytes()) for n in range(100)})
    r.carried(connections=20, bytes=4_000_000)


@recipe(
    "wget",
    exercises="blocking connect with select for its time limit, keep-alive, recursion",
    modes=(CLIENT, LOCAL),
    quick=(CLIENT,),
    debian=("wget", "nginx"),
)
def wget(r: Run) -> None:
    nginx.serve(r)
    links = "".join(f'<a href="many/{n}">{n}</a>' for n in range(0, 100, 5))
    r.file("www/index.html", f'<html><body>{links}<a href="big.bin">big</a><a href="none">none</a></body></html>')
    p = r.client(
        "wget", "-nv", "-r", "-l", "1", "-nH", "-P", r.tmp / "got", "-T", "10", "-t", "1", f"{nginx.url(r)}/index.html"
    )
    r.see("status", p.wait(40))
    got = {str(f.relative_to(r.tmp)): _web.sha(f.read_bytes()) for f in (r.tmp / "got").rglob("*") if f.is_file()}
    r.see("files", dict(sorted(got.items())))
    again = r.client(
        "wget", "-nv", "-c", "-T", "10", "-O", r.tmp / "part", "--limit-rate", "8m", f"{nginx.url(r)}/big.bin"
    )
    r.see("slowly", [again.wait(30), _web.sha((r.tmp / "part").read_bytes())])
    r.carried(connections=2, bytes=2 * _web.BIG)


@recipe(
    "wrk",
    exercises="an event loop per thread over 64 connections, full speed; ab: poll of APR",
    modes=(CLIENT, LOCAL),
    debian=("wrk", "apache2-utils", "nginx"),
)
def wrk(r: Run) -> None:
    nginx.serve(r)
    r.see("wrk", _web.wrk(r, f"{nginx.url(r)}/small.txt", connections=64))
    r.see("wrk, big", _web.wrk(r, f"{nginx.url(r)}/big.bin", seconds=2, connections=4))
    r.see("wrk, close", _web.wrk(r, f"{nginx.url(r)}/close/small.txt", seconds=1, connections=16))
    r.see("ab", _web.ab(r, f"{nginx.url(r)}/small.txt", 2000, connections=50))
    r.see("ab, keep-alive", _web.ab(r, f"{nginx.url(r)}/small.txt", 10000, "-k", connections=50))
    r.see("ab, post", _web.ab(r, f"{nginx.url(r)}/small.txt", 100, "-p", str(r.file("posted", _web.data(20000)))))
    r.carried(connections=64 + 4 + 16 + 2000, bytes=12000 * _web.SMALL)
