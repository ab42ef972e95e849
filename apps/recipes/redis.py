"""Redis: an event loop over epoll, many clients, a process that forks to save."""

from __future__ import annotations

from _lab import Proc, until

from recipes import LOCAL, SERVER, Run, recipe

PORT = 6379


def serve(r: Run, port: int, *options: str) -> Proc:
    folder = r.tmp / f"redis{port}"
    folder.mkdir()
    return r.server(
        "redis-server", "--port", str(port), "--protected-mode", "no", "--save", "", "--dir", folder,
        "--bind", "0.0.0.0", *options, port=port,
    )  # fmt: skip


def cli(r: Run, *argv: str, port: int = PORT) -> str:
    return r.client("redis-cli", "-h", r.addr, "-p", str(port), *argv).ok(30).strip()


@recipe(
    "redis",
    exercises="epoll, 50 clients, pipelining, large values",
    modes=(SERVER, LOCAL),
    quick=(SERVER,),
    debian=("redis-server", "redis-tools"),
)
def redis(r: Run) -> None:
    serve(r, PORT)
    out = r.client(
        "redis-benchmark", "-h", r.addr, "-c", "50", "-n", "20000", "-t", "set,get,lrange_100,mset", "--csv"
    ).ok(60)  # fmt: skip
    r.see("tests", [line.split(",")[0] for line in out.splitlines()])
    r.see("set", cli(r, "set", "a", "b" * 100000))
    r.see("get", cli(r, "get", "a"))
    r.see("keys", sorted(cli(r, "keys", "*").split()))
    until("redis counts its clients", lambda: "connected_clients:1\n" in cli(r, "info", "clients"))
    r.carried(connections=150, bytes=2_000_000)
