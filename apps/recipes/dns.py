"""dnsmasq: names over TCP, a process for each connection."""

from __future__ import annotations

from recipes import CLIENT, LOCAL, SERVER, Run, recipe

PORT = 5300


@recipe(
    "dnsmasq",
    exercises="poll over UDP and TCP, a child per connection that reads until the client closes; dig: libuv",
    modes=(SERVER, CLIENT, LOCAL),
    quick=(SERVER,),
    debian=("dnsmasq-base", "bind9-dnsutils"),
)
def dnsmasq(r: Run) -> None:
    if r.on_tas and r.mode is SERVER:  # it answers at addresses of interfaces only; TAS's is not the kernel's here
        r.server_ns.ip("addr", "add", f"{r.addr}/32", "dev", "lo")
    hosts = r.file("hosts", "".join(f"10.1.{n // 250}.{n % 250 + 1} host{n}.test\n" for n in range(1000)))
    server = r.server(
        "/usr/sbin/dnsmasq", "-k", "-C", "/dev/null", "-p", str(PORT), "-h", "-R", "-H", hosts, "-u", "root",
        "--pid-file", "--auth-zone=zone.test", "--auth-server=ns.test", "--txt-record=big.test," + ",".join(
            str(n) * 50 for n in range(10, 60)), "--local=/test/", port=PORT,
    )  # fmt: skip
    dig = ["dig", f"@{r.addr}", "-p", str(PORT), "+tcp", "+tries=1", "+time=5"]
    r.see("one", r.client(*dig, "+short", "host7.test").ok())
    names = [f"host{n}.test" for n in range(0, 1000, 20)]
    r.see("many connections", sorted(r.client(*dig, "+short", *names).ok().split()))
    kept = " ".join(f"+short +keepopen {name}" for name in names).split()
    r.see("one connection", r.client(*dig, "+keepopen", *kept).ok().split())
    r.see("big", r.client(*dig, "+short", "TXT", "big.test").ok())
    r.see("reverse", r.client(*dig, "+short", "-x", "10.1.0.8").ok())
    missing = r.client(*dig, "nothing.test").ok()
    r.see("missing", "NXDOMAIN" in missing)
    if r.mode is LOCAL:
        r.see("UDP as ever", r.client("dig", f"@{r.addr}", "-p", str(PORT), "+short", "host8.test").ok())
    clients = [r.client(*dig, "+short", *(f"host{n}.test" for n in range(i, 1000, 50))) for i in range(10)]
    r.see("ten at a time", [sorted(c.ok().split()) for c in clients])
    r.see("status", server.end())
    r.carried(connections=250, bytes=30_000)
