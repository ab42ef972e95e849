"""sockperf over TCP: ping-pong, throughput, many sockets through poll, select and epoll; every message is checked."""

from __future__ import annotations

import re

from recipes import CLIENT, LOCAL, SERVER, Run, recipe

PORT = 11111


@recipe(
    "sockperf",
    exercises="ping-pong with verified content, under load, through select, poll, epoll and recvfrom of 20 sockets",
    modes=(SERVER, CLIENT, LOCAL),
    debian=("sockperf",),
)
def sockperf(r: Run) -> None:
    r.server("sockperf", "server", "--tcp", "-i", "0.0.0.0", "-p", str(PORT), port=PORT)

    def run(name: str, *argv: str) -> None:
        out = r.client("sockperf", *argv).ok(20)
        counts = [int(n) for n in re.findall(r"(?:SentMessages|ReceivedMessages)=(\d+)", out)]
        lost = r"# (dropped messages = \d+; # duplicated messages = \d+; # out-of-order messages = \d+)"
        r.see(f"{name}: messages", len(counts) >= 2 and min(counts) > 100)
        r.see(f"{name}: lost", re.findall(lost, out))
        r.see(f"{name}: errors", re.findall(r"(?i)error.*", out))

    to = ("--tcp", "-i", r.addr, "-p", str(PORT), "-t", "1")
    run("ping-pong", "ping-pong", *to, "--data-integrity", "-m", "64")
    run("large", "ping-pong", *to, "--data-integrity", "-m", "20000")
    run("under load", "under-load", *to, "--mps", "2000", "--reply-every", "5")
    out = r.client("sockperf", "throughput", *to, "-m", "1400").ok(20)
    r.see("throughput", bool(re.search(r"BandWidth is (?!0\.000)", out)))
    for how, port in (("select", 12000), ("poll", 12100), ("epoll", 12200)):
        feed = r.file(f"{how}.feed", "".join(f"T:0.0.0.0:{port + n}\n" for n in range(20)))
        r.server("sockperf", "server", "-f", feed, "-F", how[0], port=port + 19)
        clients = r.file(f"{how}.clients", "".join(f"T:{r.addr}:{port + n}\n" for n in range(20)))
        run(how, "ping-pong", "-f", str(clients), "-F", how[0], "-t", "1", "--data-integrity", "-m", "100")
    r.carried(connections=64, bytes=2_000_000)
