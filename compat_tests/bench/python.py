"""Rows of `make bench` for Python: tas_sockets without the interposer beside the standard modules on loopback.

As a program it is one end of a row, and prints its figure::

    python.py tas|linux serve|load WORKLOAD [PORT]
"""

from __future__ import annotations

import importlib
import json
import re
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import asyncio  # elsewhere imported late: install() comes first

MIB = 1 << 20
BULK = 100 * MIB
SECONDS = 1.5
WARM = 0.2
PARTS = [bytes(1024)] * 64
PAGE = b"x" * 1024

socket: Any = None  # the module under test
run: Callable[..., Any]


# ---- rows ----
def _value(workload: str, key: str) -> Callable[[Any], float]:
    """Server and client in Python, both on the stack."""

    def measure(stack: Any) -> float:
        server = stack.server(sys.executable, __file__, stack.name, "serve", workload)
        try:
            port = str(server.listening())
            client = stack.client(sys.executable, __file__, stack.name, "load", workload, port)
            return float(client.json(120)[key])
        finally:
            server.kill()

    return measure


def _http(stack: Any) -> float:
    """Requests/s of ``http.server`` for wrk, on TAS under the interposer."""
    server = stack.server(sys.executable, __file__, stack.name, "serve", "http")
    try:
        port = server.listening()
        wrk = stack.lab.tas if stack.name == "tas" else stack.client
        said = wrk("wrk", "-t1", "-c16", "-d2s", f"http://127.0.0.1:{port}/").ok(60)
        assert "Non-2xx" not in said, said
        assert "Socket errors" not in said, said
        found = re.search(r"Requests/sec:\s*([\d.]+)", said)
        assert found, said
        return float(found[1])
    finally:
        server.kill()


def rows() -> Iterator[tuple[str, str, str, Callable[[Any], float]]]:
    """(name, unit, 'less' or 'more' is better, measurement on a stack)."""
    yield "blocking, 64 B: p50", "us", "less", _value("blocking", "p50")
    yield "blocking, 64 B", "requests/s", "more", _value("blocking", "rate")
    yield "asyncio streams, 1 connection, 64 B", "requests/s", "more", _value("streams1", "rate")
    yield "asyncio streams, 64 connections, 64 B", "requests/s", "more", _value("streams64", "rate")
    yield "sendall, recv_into, 100 MiB", "Mbit/s", "more", _value("bulk", "mbit_s")
    yield "sendmsg of 64 buffers of 1 KiB, 100 MiB", "Mbit/s", "more", _value("gather", "mbit_s")
    yield "http.server, 16 connections, 1 KiB", "requests/s", "more", _http


# ---- servers ----
def _accept_one() -> Any:
    with socket.create_server(("127.0.0.1", 0)) as s:
        print(f"listening on 127.0.0.1:{s.getsockname()[1]}", flush=True)
        connection, _ = s.accept()
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def _serve_blocking() -> None:
    with _accept_one() as c:
        while data := c.recv(65536):
            c.sendall(data)


def _serve_bulk() -> None:
    buf = bytearray(MIB)
    with _accept_one() as c:
        left = BULK
        while left:
            left -= c.recv_into(buf)
        c.sendall(b"ok")


async def _serve_streams() -> None:
    import asyncio

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0, backlog=128)
    print(f"listening on 127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    await server.serve_forever()


def _serve_http() -> None:
    from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(PAGE)))
            self.end_headers()
            self.wfile.write(PAGE)

        def log_message(self, *args: Any) -> None:
            return

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        print(f"listening on 127.0.0.1:{server.server_address[1]}", flush=True)
        server.serve_forever()


# ---- clients ----
def _connect(port: int) -> Any:
    c = socket.create_connection(("127.0.0.1", port), timeout=None)
    c.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return c


def _load_blocking(port: int) -> dict[str, float]:
    took = []
    clock = time.perf_counter_ns
    message = b"x" * 64
    with _connect(port) as c:
        begin = clock() + int(WARM * 1e9)
        end = begin + int(SECONDS * 1e9)
        while (at := clock()) < end:
            c.sendall(message)
            got = len(c.recv(65536))
            took.append((at, clock() - at))
            assert got == 64
    times = sorted(t for at, t in took if at >= begin)
    return {"p50": times[len(times) // 2] / 1000, "rate": len(times) / SECONDS}


def _load_bulk(port: int, gather: bool) -> dict[str, float]:
    data = bytes(MIB)
    with _connect(port) as c:
        begin = time.perf_counter()
        sent = 0
        while sent < BULK:
            if gather:
                sent += c.sendmsg(PARTS if BULK - sent >= 65536 else [bytes(BULK - sent)])
            else:
                c.sendall(data)
                sent += len(data)
        assert c.recv(2) == b"ok"
        return {"mbit_s": BULK * 8 / (time.perf_counter() - begin) / 1e6}


async def _load_streams(port: int, connections: int) -> dict[str, float]:
    import asyncio

    counted = 0
    begin = time.monotonic() + WARM
    end = begin + SECONDS
    message = b"x" * 64

    async def one() -> None:
        nonlocal counted
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while (now := time.monotonic()) < end:
            writer.write(message)
            await reader.readexactly(64)
            counted += now >= begin
        writer.close()
        await writer.wait_closed()

    await asyncio.gather(*(one() for _ in range(connections)))
    return {"rate": counted / SECONDS}


def main(which: str, role: str, workload: str, port: int = 0) -> None:
    global socket, run
    if which == "tas":
        sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
        tas_sockets = importlib.import_module("tas_sockets")
        if workload == "http":
            tas_sockets.install()
        socket, run = tas_sockets, importlib.import_module("tas_sockets.asyncio").run
    else:
        socket, run = importlib.import_module("socket"), importlib.import_module("asyncio").run
    connections = int(re.sub(r"\D", "", workload) or 0)
    if role == "serve":
        if connections:
            run(_serve_streams())
        elif workload == "http":
            _serve_http()
        elif workload == "blocking":
            _serve_blocking()
        else:
            _serve_bulk()
        return
    if connections:
        result = run(_load_streams(port, connections))
    else:
        result = _load_blocking(port) if workload == "blocking" else _load_bulk(port, workload == "gather")
    print(json.dumps(result))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], *map(int, sys.argv[4:]))
