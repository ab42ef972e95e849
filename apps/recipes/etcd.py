"""etcd, a Go program: Go makes its system calls itself, without libc.

Under ``TAS_RAW=catch`` they are caught and it runs on TAS.  Without, it is on the kernel, untouched: reachable where
the kernel's TCP is (here: 127.0.0.1), and ``tasctl procs`` does not name it.
"""

from __future__ import annotations

import json
from functools import partial

from _lab import Proc, until

from recipes import LOCAL, SERVER, Run, nginx, recipe
from tas_sockets._control import What

CAUGHT = {"TAS_RAW": "catch"}
ETCD = ("etcd-server", "etcd-client")


def member(r: Run, n: int, of: int, host: str, env: dict[str, str]) -> Proc:
    """Starts a member of a cluster; its clients' port is 2379 + 10 n, its peers' one more."""
    port = 2379 + 10 * n
    here = f"http://{host}:{port}"
    peers = ",".join(f"m{i}=http://{host}:{2380 + 10 * i}" for i in range(of))
    return r.server(
        "etcd", "--name", f"m{n}", "--data-dir", r.tmp / f"m{n}", "--log-level", "error", "--logger", "zap",
        "--listen-client-urls", f"http://0.0.0.0:{port}", "--advertise-client-urls", here,
        "--listen-peer-urls", f"http://0.0.0.0:{port + 1}",
        "--initial-advertise-peer-urls", f"http://{host}:{port + 1}", "--initial-cluster", peers, env=env, port=port,
    )  # fmt: skip


def ctl(r: Run, *argv: str, port: int = 2379, stdin: str | None = None) -> Proc:
    env = {"ETCDCTL_API": "3", **CAUGHT}
    return r.client("etcdctl", "--endpoints", f"{r.addr}:{port}", *argv, env=env, stdin=stdin)


def healthy(r: Run, port: int) -> bool:
    return ctl(r, "endpoint", "health", port=port).wait(20) == 0


@recipe(
    "etcd",
    exercises="Go with raw system calls caught: three members, gRPC, a watch, a member that is killed and comes back",
    modes=(SERVER, LOCAL),
    debian=ETCD,
    limit=120,
    kernel_opens=6,  # who connects while another begins to listen may meet the kernel's half of the listener
)
def etcd(r: Run) -> None:
    members = [member(r, n, 3, r.addr, CAUGHT) for n in range(3)]
    ports = (2379, 2389, 2399)
    for port in ports:
        until(f"the member at {port} is healthy", partial(healthy, r, port), 30)
    r.see("put", [ctl(r, "put", f"key{n}", f"value {n}", port=ports[n % 3]).ok(20) for n in range(12)])
    r.see("get", [ctl(r, "get", "--prefix", "key", port=p).ok(20).split("\n") for p in ports])
    large = "x" * 500_000
    r.see("large put", ctl(r, "put", "large", stdin=large).ok(20))
    r.see("large get", ctl(r, "get", "large", "--print-value-only", port=2399).ok(20).strip() == large)
    r.see("transaction", ctl(r, "txn", stdin='value("key1") = "value 1"\n\nput key1 changed\n\n\n').ok(20))
    watch = ctl(r, "watch", "news", port=2389)

    def noticed() -> bool:
        ctl(r, "put", "news", "hello").ok(20)
        return "hello" in watch.out

    until("the watch tells it", noticed)
    watch.end()
    members[2].kill()
    put = ("put", "after", "a death")
    until("two members go on", lambda: ctl(r, *put, port=2389).wait(20) == 0, 30)  # it may have led
    members[2] = member(r, 2, 3, r.addr, CAUGHT)
    until("it has come back", lambda: healthy(r, 2399), 30)
    r.see("it has caught up", ctl(r, "get", "after", port=2399).ok(20))
    for m in members:
        m.end()
    r.carried(connections=24, bytes=600_000)


@recipe(
    "etcd-uncaught",
    exercises="the documented limit: Go on the kernel's TCP, behind nginx on TAS, which speaks to both",
    modes=(SERVER, LOCAL),
    debian=(*ETCD, "nginx", "curl"),
    kernel_opens=400,  # nginx to etcd, etcd to itself, curl to find out whether it is ready: what this is about
)
def uncaught(r: Run) -> None:
    server = member(r, 0, 1, "127.0.0.1", {})
    nginx.bare(r, "listen 8080; location / { proxy_pass http://127.0.0.1:2379; }", workers=1)
    base = f"http://{r.addr}:8080"

    def ask(path: str, **question: str) -> dict[str, str]:
        answer: dict[str, str] = json.loads(
            r.client("curl", "-sS", "--max-time", "10", "-d", json.dumps(question), f"{base}{path}").ok(20)
        )
        return answer

    until("it is healthy", lambda: "true" in r.client("curl", "-sS", "--max-time", "5", f"{base}/health").ok(20))
    for _ in range(50):  # Zm9v is foo
        ask("/v3/kv/put", key="Zm9v", value="YmFy")
    r.see("get", [kv["value"] for kv in ask("/v3/kv/range", key="Zm9v")["kvs"]])  # type: ignore[index]
    if r.on_tas and r.lab.service:
        assert server.pid not in [p["pid"] for p in r.lab.service.ask(What.PROCS)], "etcd is on TAS"
    r.see("ended", server.end())
    r.carried(connections=50, bytes=10_000)
