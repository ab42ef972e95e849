"""rsync's daemon: a process per connection, select with time limits on both sides."""

from __future__ import annotations

import os
from pathlib import Path

from recipes import CLIENT, LOCAL, SERVER, Run, _web, recipe

CONF = """
port = 8730
address = 0.0.0.0
use chroot = yes
uid = root
gid = root
pid file = {tmp}/rsyncd.pid
log file = {tmp}/rsyncd.log
timeout = 20
[from]
	path = {tmp}/from
	read only = yes
[to]
	path = {tmp}/to
	read only = no
"""


def tree(folder: Path) -> dict[str, str]:
    return {str(f.relative_to(folder)): _web.sha(f.read_bytes()) for f in sorted(folder.rglob("*")) if f.is_file()}


@recipe(
    "rsync",
    exercises="daemon by double fork, a process per connection, chroot, data both ways at once",
    modes=(SERVER, CLIENT, LOCAL),
    quick=(SERVER,),
    debian=("rsync",),
)
def rsync(r: Run) -> None:
    r.file("from/big.bin", _web.data(_web.BIG))
    for n in range(200):
        r.file(f"from/many/{n % 7}/{n}", _web.data(n * 300, n))
    (r.tmp / "to").mkdir()
    conf = r.file("rsyncd.conf", CONF.format(tmp=r.tmp))
    r.see("daemon", r.server("/usr/bin/rsync", "--daemon", "--config", conf).wait(10))
    r.daemon(r.tmp / "rsyncd.pid")
    r.listening(8730)
    base = f"rsync://{r.addr}:8730"
    r.see("modules", r.client("rsync", f"{base}/").ok(20))
    r.client("rsync", "-az", f"{base}/from/", f"{r.tmp}/got/").ok(30)
    r.see("got", tree(r.tmp / "got"))
    r.client("rsync", "-a", "--checksum", f"{r.tmp}/got/", f"{base}/to/").ok(30)
    r.see("sent", tree(r.tmp / "to"))
    changed = bytearray(_web.data(_web.BIG))
    changed[1_000_000:1_000_010] = b"0123456789"
    r.file("got/big.bin", bytes(changed))
    os.utime(r.tmp / "got/big.bin", (0, 2_000_000_000))  # rsync compares size and second
    delta = r.client("rsync", "-a", "--no-whole-file", "--delete", "--stats", f"{r.tmp}/got/", f"{base}/to/").ok(30)
    r.see(
        "difference",
        [line for line in delta.splitlines() if line.startswith(("Number of regular", "Literal", "Matched"))],
    )
    r.see("sent again", tree(r.tmp / "to"))
    r.see("forbidden", r.client("rsync", "-a", f"{r.tmp}/got/", f"{base}/from/").wait(20))
    many = [r.client("rsync", "-a", f"{base}/from/many/", f"{r.tmp}/parallel{n}/") for n in range(5)]
    r.see("five at a time", [p.wait(30) for p in many])
    r.see("their files", tree(r.tmp / "parallel4"))
    r.carried(connections=10, bytes=3 * _web.BIG)
