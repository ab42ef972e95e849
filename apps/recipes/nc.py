"""netcat: poll or select over standard input and one connection; half-closed connections."""

from __future__ import annotations

from _lab import until

from recipes import CLIENT, LOCAL, SERVER, Run, _web, recipe


def copies(r: Run, nc: str, listen: list[str], send: list[str], answer: list[str], receive: list[str]) -> None:
    """A file to the listener, a file from it, an answer after a half close, nobody there."""
    data = r.file("data", _web.data(3_000_000))
    server = r.server("sh", "-c", f"{nc} {' '.join(listen)} 7000 </dev/null >{r.tmp}/in", port=7000)
    r.see("send", r.client("sh", "-c", f"{nc} {' '.join(send)} {r.addr} 7000 <{data}").wait(20))
    r.see("server of send", server.wait(20))
    r.see("received", _web.sha((r.tmp / "in").read_bytes()))

    server = r.server("sh", "-c", f"{nc} {' '.join([*answer, *listen])} 7001 <{data} >{r.tmp}/question", port=7001)
    client = r.client("sh", "-c", f"(echo question; sleep 1) | {nc} {' '.join(receive)} {r.addr} 7001 >{r.tmp}/out")
    r.see("answer", [client.wait(20), server.wait(20)])
    r.see("question", (r.tmp / "question").read_text())
    r.see("answered", _web.sha((r.tmp / "out").read_bytes()))

    nobody = r.client(nc, "-v", "-n", "-w", "2", r.addr, "7002")
    r.see("nobody", [nobody.wait(20), nobody.err])
    r.carried(connections=2, bytes=6_000_000)


@recipe(
    "nc-openbsd",
    exercises="poll over standard input and a socket, shutdown at the end of input",
    modes=(SERVER, CLIENT, LOCAL),
    quick=(SERVER, CLIENT),
    debian=("netcat-openbsd",),
)
def nc_openbsd(r: Run) -> None:
    copies(r, "nc.openbsd", ["-l"], ["-N"], ["-N"], ["-N"])
    scan = r.client("nc.openbsd", "-z", "-v", "-n", r.addr, "7003-7005")
    r.see("scan", [scan.wait(10), scan.err])
    kept = r.server("nc.openbsd", "-l", "-k", "7006", port=7006)
    for n in range(5):
        r.client("sh", "-c", f"echo {n} | nc.openbsd -N {r.addr} 7006").ok(10)
    until("all five have arrived", lambda: kept.out.split() == list("01234"))
    r.see("kept", kept.out)


@recipe(
    "nc-traditional",
    exercises="select over standard input and a socket, -e: dup2 of the connection onto 0, 1, 2 and exec",
    modes=(SERVER, CLIENT, LOCAL),
    quick=(SERVER,),
    debian=("netcat-traditional",),
)
def nc_traditional(r: Run) -> None:
    copies(r, "nc.traditional", ["-l", "-p"], ["-q", "0"], ["-q", "2"], ["-q", "3"])
    server = r.server("nc.traditional", "-l", "-p", "7007", "-e", "/usr/bin/sort", port=7007)
    lines = "\n".join(str(n * 7919 % 10007) for n in range(10000))
    client = r.client("nc.openbsd", "-N", r.addr, "7007", stdin=lines + "\n")
    r.see("sort", [client.wait(20), _web.sha(client.out_path.read_bytes()), len(client.out), server.wait(10)])
