"""Several Redis nodes: replicas that follow a master which saves under load, and a cluster with its bus."""

from __future__ import annotations

import re

from _lab import until

from recipes import LOCAL, SERVER, Run, recipe
from recipes.redis import cli, serve

REDIS = ("redis-server", "redis-tools")
FILL = "for i=1,50000 do redis.call('set', 'key'..i, string.rep('v', 100)..i) end return 'filled'"
DIGEST = (
    "local all = '' for _, k in ipairs({'key1', 'key777', 'key50000', 'last'}) do all = all .. redis.call('get', k) end"
    " return redis.sha1hex(all) .. ' ' .. redis.call('dbsize')"
)


def becomes(what: str, r: Run, port: int, question: tuple[str, ...], answer: str) -> None:
    """Waits until a node says so."""
    until(what, lambda: answer in cli(r, *question, port=port), 30)


@recipe(
    "redis-replication",
    exercises="full and partial resync between nodes, fork to save under load, WAIT, promotion",
    modes=(SERVER, LOCAL),
    quick=(SERVER,),
    debian=REDIS,
)
def replication(r: Run) -> None:
    master, *replicas = ports = (6379, 6380, 6381)
    serve(r, master, "--repl-diskless-sync-delay", "0")
    r.see("filled", cli(r, "eval", FILL, "0"))
    for port in replicas:
        serve(r, port, "--replicaof", r.addr, str(master))
    for port in replicas:
        becomes("the replica has caught up", r, port, ("info", "replication"), "master_link_status:up")

    bench = r.client(
        "redis-benchmark", "-h", r.addr, "-p", str(master), "-c", "20", "-n", "40000", "-P", "4", "-t", "set,lpush"
    )  # fmt: skip
    r.see("bgsave", cli(r, "bgsave"))
    bench.ok(60)
    becomes("the snapshot is written", r, master, ("info", "persistence"), "rdb_bgsave_in_progress:0")
    r.see("saved", "rdb_last_bgsave_status:ok" in cli(r, "info", "persistence"))
    r.see("last", cli(r, "set", "last", "write"))
    r.see("replicas that have it", cli(r, "wait", "2", "20000"))
    kept = [cli(r, "eval_ro", DIGEST, "0", port=p) for p in ports]
    r.see("all the same", [k == kept[0] for k in kept])
    r.see("content", kept[0])

    # the link is cut; the replica comes back by a partial resync
    r.see("cut", cli(r, "client", "kill", "type", "replica"))
    r.see("while cut", cli(r, "set", "last", "after the cut"))
    for port in replicas:
        becomes("the replica is back", r, port, ("get", "last"), "after the cut")
    r.see("partial resyncs", "sync_partial_ok:2" in cli(r, "info", "stats"))
    r.see("write to a replica", cli(r, "set", "x", "y", port=6380))
    r.see("promotion", cli(r, "replicaof", "no", "one", port=6380))
    r.see("write to the promoted", cli(r, "set", "x", "y", port=6380))
    r.carried(connections=50, bytes=2_000_000)


@recipe(
    "redis-cluster",
    exercises="cluster bus between 3 masters, redirections, slot migration, failure of a node noticed",
    modes=(SERVER, LOCAL),
    debian=REDIS,
    limit=100,
)
def cluster(r: Run) -> None:
    ports = (7000, 7001, 7002)
    nodes = [
        serve(r, p, "--cluster-enabled", "yes", "--cluster-node-timeout", "3000", "--cluster-announce-ip", r.addr)
        for p in ports
    ]
    addresses = [f"{r.addr}:{p}" for p in ports]
    made = r.client("redis-cli", "--cluster", "create", *addresses, "--cluster-yes").ok(60)
    r.see("made", re.findall(r"\[OK\].*", made))
    for port in ports:
        becomes("the cluster is whole", r, port, ("cluster", "info"), "cluster_state:ok")
    keys = [f"key{n}" for n in range(24)]
    r.see("set", [cli(r, "-c", "set", k, f"value of {k}", port=7000) for k in keys])
    r.see("get", [cli(r, "-c", "get", k, port=7002) for k in keys])
    r.see("moved", sorted(cli(r, "get", k, port=7000).replace(r.addr, "ADDR") for k in keys))
    bench = r.client(
        "redis-benchmark", "-h", r.addr, "-p", "7000", "--cluster", "-c", "20", "-n", "20000", "-t", "set,get", "--csv"
    )  # fmt: skip
    r.see("benchmark", [line.split(",")[0] for line in bench.ok(60).splitlines()][-2:])
    ids = {p: cli(r, "cluster", "myid", port=p) for p in ports}
    r.client(
        "redis-cli", "--cluster", "reshard", addresses[0], "--cluster-from", ids[7000], "--cluster-to", ids[7001],
        "--cluster-slots", "50", "--cluster-yes",
    ).ok(60)  # fmt: skip
    checked = r.client("redis-cli", "--cluster", "check", addresses[2]).ok(30)
    r.see("checked", re.findall(r"\[OK\].*", checked))
    r.see("get after the move", [cli(r, "-c", "get", k, port=7002) for k in keys])

    nodes[2].kill()  # the bus goes away without a farewell
    for port in ports[:2]:
        becomes("its failure is noticed", r, port, ("cluster", "info"), "cluster_state:fail")
    r.see("while it is gone", [cli(r, "-c", "get", k, port=7000).split()[0] for k in keys[:1]])
    r.carried(connections=60, bytes=1_000_000)
