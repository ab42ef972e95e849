"""dropbear and dbclient: the small SSH, a process per connection around one select loop."""

from __future__ import annotations

import subprocess

from _lab import Proc, until

from recipes import CLIENT, LOCAL, SERVER, Run, _web, recipe, socat

PORT = 2222


def serve(r: Run) -> Proc:
    """It looks for keys in the user's home, so it gets one of its own: a mount that only it sees."""
    for name in ("host_key", "user_key"):
        subprocess.run(["dropbearkey", "-t", "ed25519", "-f", r.tmp / name], check=True, capture_output=True)
    said = subprocess.run(["dropbearkey", "-y", "-f", r.tmp / "user_key"], check=True, capture_output=True, text=True)
    keys = r.file(
        "home/.ssh/authorized_keys", "".join(f"{k}\n" for k in said.stdout.splitlines() if k.startswith("ssh-"))
    )
    for path, mode in ((keys, 0o600), (keys.parent, 0o700), (keys.parent.parent, 0o700)):
        path.chmod(mode)
    run = (
        f"mount --bind {r.tmp}/home /root && exec dropbear -F -E -r {r.tmp}/host_key -p {PORT} -P {r.tmp}/dropbear.pid"
    )
    return r.server("unshare", "--mount", "sh", "-c", run, port=PORT)


def client(r: Run, *argv: str, options: tuple[str, ...] = (), stdin: str | None = None) -> Proc:
    known = ("-y", "-y", "-i", f"{r.tmp}/user_key", "-p", str(PORT))
    return r.client("dbclient", *known, *options, f"root@{r.addr}", *argv, stdin=stdin)


@recipe(
    "dropbear",
    exercises="a process per connection, select over a connection and pipes at both ends, forwarding; dbclient",
    modes=(SERVER, CLIENT, LOCAL),
    debian=("dropbear-bin", "socat"),
)
def dropbear(r: Run) -> None:
    server = serve(r)
    r.see("status", client(r, "exit 3").wait(20))
    lines = "".join(f"{n * 7919 % 10007}\n" for n in range(100_000))
    r.see("sorted there", _web.sha(client(r, "sort", stdin=lines).ok(30).encode()))
    data = r.file("big.bin", _web.data(_web.BIG))
    big = client(r, f"cat {data}")
    big.ok(30)
    r.see("a file from there", _web.sha(big.out_path.read_bytes()))
    # its own limit is five that have not yet shown who they are
    many = [client(r, f"echo {n}; cat >/dev/null; echo {n}") for n in range(4)]
    r.see("four at a time", [p.ok(30) for p in many])
    r.server("socat", "TCP-LISTEN:7000,fork,reuseaddr", "EXEC:/bin/cat,nofork", port=7000)
    tunnel = client(r, options=("-N", "-L", "127.0.0.1:7100:127.0.0.1:7000"))
    until("the forwarding listens", lambda: r.client_ns.run("ss", "-Hltn", "sport = :7100").strip())
    through = r.client("/usr/bin/python3", r.file("ask.py", socat.ASK), "127.0.0.1", "7100", "5")
    r.see("forwarded", through.ok(30))
    tunnel.end()
    r.see("ended", server.end())
    r.carried(connections=8, bytes=_web.BIG)
