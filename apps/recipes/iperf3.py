"""iperf3: a control connection beside data connections, select, TCP_INFO, TCP_CONGESTION, SO_SNDBUF."""

from __future__ import annotations

import json
from typing import Any

from _lab import Proc

from recipes import CLIENT, LOCAL, SERVER, Run, recipe

DEBIAN = ("iperf3",)


def end(p: Proc) -> dict[str, Any]:
    told = json.loads(p.ok(30))
    assert "error" not in told, told["error"]
    found: dict[str, Any] = told["end"]
    return found


def exercise(r: Run, *options: str) -> None:
    bytes = 0
    for name, more in {
        "in": ["-P", "2"],
        "out": ["-P", "2", "-R"],
        "both": ["--bidir"],
        "small window": ["-w", "16k"],
        "a number of bytes": ["-n", "50M"],
        "a rate": ["-b", "20M"],
        "zero copy": ["-Z"],
        "no delay": ["-N", "-l", "1000"],
        "maximum segment": ["-M", "600"],
    }.items():
        port = str(5201)
        server = r.server("iperf3", "-s", "-1", "-p", port, "-J", port=5201)
        limit = [] if "-n" in more else ["-t", "1"]
        client = end(r.client("iperf3", "-c", r.addr, "-p", port, "-J", *limit, *more, *options))
        theirs = end(server)
        sent, received = client["sum_sent"]["bytes"], client["sum_received"]["bytes"]
        assert sent >= received >= 0.5 * sent > 0, (sent, received)
        r.see(
            name,
            {
                "streams": len(client["streams"]),
                "congestion control": client.get("sender_tcp_congestion"),
                "and the server's": theirs.get("receiver_tcp_congestion"),
                "retransmits are known": "retransmits" in client["sum_sent"],
                "round trip is known": bool(client["streams"][0]["sender"].get("mean_rtt")) or "-R" in more,
            },
        )
        bytes += received
    r.carried(connections=9 * 2 + 3, bytes=bytes)


@recipe(
    "iperf3",
    exercises="two roles on one connection, select, TCP_INFO, window sizes, sendfile, both directions",
    modes=(SERVER, CLIENT, LOCAL),
    debian=DEBIAN,
    limit=90,
)
def iperf3(r: Run) -> None:
    exercise(r)
