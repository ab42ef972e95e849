"""Rows with other people's programs: redis, memcached, nginx, and the load generators that are usual for them."""

from __future__ import annotations

import csv
import io
import re
import socket
from collections.abc import Callable, Iterator
from typing import Any

from _lab import Proc, until

from .stacks import Stack

PORT = 6390


def _answers(s: Stack, server: Proc, port: int) -> None:
    """Waits until a connection to the server is accepted: from the client's side, as the client makes it."""
    probe = "import socket,sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), 1).close()"

    def there() -> bool:
        assert server.alive, f"{server} ended: {server.out}{server.err}"
        return s.client("/usr/bin/python3", "-c", probe, s.addr, str(port)).wait(10) == 0

    until(f"{server} answers", there, 15)


def _redis(pipeline: int) -> Callable[[Stack], dict[str, Any]]:
    def run(s: Stack) -> dict[str, Any]:
        server = s.server(
            "redis-server", "--port", str(PORT), "--bind", "0.0.0.0", "--save", "", "--protected-mode", "no"
        )
        try:
            _answers(s, server, PORT)
            count = "100000" if pipeline == 1 else "500000"
            out = s.client(
                "redis-benchmark", "-h", s.addr, "-p", str(PORT), "-c", "50", "-n", count, "-P", str(pipeline),
                "-t", "get", "--csv",
            ).ok(120)  # fmt: skip
            rates = {r["test"]: float(r["rps"]) for r in csv.DictReader(io.StringIO(out))}
            s.look("server", server.pid)
            return {"value": next(iter(rates.values()))}
        finally:
            server.kill()

    return run


def _memcached(s: Stack) -> dict[str, Any]:
    port = _free_port()
    server = s.server("memcached", "-u", "root", "-l", "0.0.0.0", "-p", str(port), "-t", "1", "-U", "0")
    try:
        _answers(s, server, port)
        load = ("--concurrency=16", "--execute-number=4000", "--test=get")
        out = s.client("memcslap", f"--servers={s.addr}:{port}", *load).ok(120)
        took = re.search(r"Time to get .* ([\d.]+) seconds", out)
        s.look("server", server.pid)
    finally:
        server.kill()
    assert took, out
    return {"value": 16 * 4000 / float(took[1])}


_NGINX = """
worker_processes 1;
daemon off;
master_process off;
pid {tmp}/nginx.pid;
error_log {tmp}/nginx.err;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    keepalive_requests 1000000;
    {paths}
    server {{
        listen 0.0.0.0:{port};
        location / {{ return 200 "{body}"; }}
    }}
}}
"""


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _nginx(close: bool) -> Callable[[Stack], dict[str, Any]]:
    def run(s: Stack) -> dict[str, Any]:
        port = _free_port()
        kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        paths = "".join(f"{kind}_temp_path {s.lab.tmp}/{kind};" for kind in kinds)
        conf = s.lab.tmp / "nginx.conf"
        conf.write_text(_NGINX.format(tmp=s.lab.tmp, port=port, paths=paths, body="x" * 600))
        server = s.server("nginx", "-c", conf)
        try:
            _answers(s, server, port)
            header = ["-H", "Connection: close"] if close else []
            said = s.client("wrk", "-t1", "-c32", "-d2s", *header, f"http://{s.addr}:{port}/").ok(60)
            s.look("server", server.pid)
        finally:
            server.kill()
        assert "Non-2xx" not in said, said
        rate = re.search(r"Requests/sec:\s*([\d.]+)", said)
        assert rate, said
        return {"value": float(rate[1])}

    return run


def rows() -> Iterator[tuple[str, str, Callable[[Stack], dict[str, Any]]]]:
    """(name, unit, measurement)."""
    yield "redis GET, 50 connections", "requests/s", _redis(1)
    yield "redis GET, 50 connections, 16 deep", "requests/s", _redis(16)
    yield "memcached get, 16 clients", "requests/s", _memcached
    yield "nginx 600 B, wrk, 32 connections", "requests/s", _nginx(close=False)
    yield "nginx 600 B, wrk, connection: close", "requests/s", _nginx(close=True)
