"""sshd and ssh: separated privileges, re-exec per connection, sessions, forwarding, scp, sftp, rsync."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from _lab import Proc, until

from recipes import CLIENT, LOCAL, SERVER, Run, _web, recipe, socat
from recipes.rsync import tree

PORT = 2222
CONF = """
Port {port}
ListenAddress 0.0.0.0
HostKey {tmp}/host_key
PidFile {tmp}/sshd.pid
AuthorizedKeysFile {tmp}/user_key.pub
StrictModes no
UsePAM no
PermitRootLogin yes
PasswordAuthentication no
KbdInteractiveAuthentication no
PrintMotd no
UseDNS no
AcceptEnv NOTHING
AllowTcpForwarding yes
ClientAliveInterval 1
Subsystem sftp internal-sftp
"""
DEBIAN = ("openssh-server", "openssh-client", "rsync")


def serve(r: Run, *options: str) -> Proc:
    os.makedirs("/run/sshd", mode=0o755, exist_ok=True)  # sshd's own, for privilege separation
    for name in ("host_key", "user_key"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", r.tmp / name], check=True)
    conf = r.file("sshd_config", CONF.format(tmp=r.tmp, port=PORT))
    return r.server("/usr/sbin/sshd", "-D", "-e", "-f", conf, *options, port=PORT)


def common(r: Run) -> list[str]:
    return [
        "-F", "/dev/null", "-i", f"{r.tmp}/user_key", "-o", "IdentitiesOnly=yes", "-o", "StrictHostKeyChecking=no",
        "-o", f"UserKnownHostsFile={r.tmp}/known", "-o", "BatchMode=yes", "-o", "LogLevel=ERROR",
        "-o", "ConnectTimeout=10",
    ]  # fmt: skip


def ssh(r: Run, *argv: str, stdin: str | None = None) -> Proc:
    return r.client("ssh", *common(r), "-p", str(PORT), f"root@{r.addr}", *argv, stdin=stdin)


def exercise(r: Run) -> None:
    r.see("command", ssh(r, "echo out; echo err >&2; exit 3").wait(20))
    both = ssh(r, "echo out; echo err >&2")
    r.see("both streams", [both.wait(20), both.out, both.err])
    lines = "".join(f"{n * 7919 % 10007}\n" for n in range(100_000))
    r.see("sorted there", _web.sha(ssh(r, "sort", stdin=lines).ok(30).encode()))
    big = ssh(r, "head -c 20000000 /dev/zero | tr '\\0' 'x'")
    big.ok(30)
    r.see("20 MB from there", _web.sha(big.out_path.read_bytes()))
    tty = r.client(
        "ssh", *common(r), "-tt", "-p", str(PORT), f"root@{r.addr}", "tty >/dev/null && echo a terminal", stdin=""
    )  # fmt: skip
    r.see("terminal", [tty.wait(20), tty.out])
    many = [ssh(r, f"echo {n}; cat >/dev/null; echo {n}") for n in range(6)]
    r.see("six at a time", [p.ok(30) for p in many])
    copies(r)
    forwards(r)
    r.carried(connections=15, bytes=20_000_000 + 4 * _web.BIG)


def copies(r: Run) -> None:
    data = r.file("from/big.bin", _web.data(_web.BIG))
    for n in range(30):
        r.file(f"from/many/{n}", _web.data(n * 500, n))
    there = f"root@{r.addr}:{r.tmp}"
    scp = r.client("scp", *common(r), "-P", str(PORT), data, f"{there}/scp.there")
    r.see("scp to", [scp.wait(30), _web.sha((r.tmp / "scp.there").read_bytes())])
    scp = r.client("scp", *common(r), "-O", "-P", str(PORT), f"{there}/scp.there", r.tmp / "scp.back")
    r.see("scp -O from", [scp.wait(30), _web.sha((r.tmp / "scp.back").read_bytes())])
    batch = r.file("batch", f"put {data} {r.tmp}/sftp.there\nls -1 {r.tmp}/from/many\n")
    sftp = r.client("sftp", *common(r), "-P", str(PORT), "-b", batch, f"root@{r.addr}")
    r.see("sftp", [sftp.wait(30), sorted(line for line in sftp.out.splitlines() if "sftp>" not in line)])
    shell = " ".join(["ssh", *common(r), "-p", str(PORT)])
    for name, source, target in (
        ("rsync to", f"{r.tmp}/from/", f"{there}/rsync.there/"),
        ("rsync from", f"{there}/rsync.there/", f"{r.tmp}/rsync.back/"),
    ):
        p = r.client("rsync", "-az", "-e", shell, source, target)
        p.ok(30)
        r.see(name, tree(Path(target.split(":")[-1])))


def forwards(r: Run) -> None:
    """The server connects for clients of the client, which shares its connection by a control socket."""
    r.server("socat", "TCP-LISTEN:7000,fork,reuseaddr", "EXEC:/bin/cat,nofork", port=7000)
    master = r.client(
        "ssh", *common(r), "-p", str(PORT), "-N", "-M", "-S", f"{r.tmp}/control", "-o", "ExitOnForwardFailure=yes",
        "-L", "127.0.0.1:7100:127.0.0.1:7000", "-D", "127.0.0.1:7101", f"root@{r.addr}",
    )  # fmt: skip
    until("the forwarding listens", lambda: r.client_ns.run("ss", "-Hltn", "sport = :7101").strip())
    through = r.client("/usr/bin/python3", r.file("ask.py", socat.ASK), "127.0.0.1", "7100", "5")
    r.see("forwarded", through.ok(30))
    until("the control socket is there", lambda: (r.tmp / "control").exists())
    again = r.client("ssh", "-F", "/dev/null", "-S", r.tmp / "control", f"root@{r.addr}", "echo by the same connection")
    r.see("multiplexed", [again.wait(20), again.out])
    stop = r.client("ssh", "-F", "/dev/null", "-S", r.tmp / "control", "-O", "exit", f"root@{r.addr}")
    r.see("stopped", [stop.wait(20), master.wait(20)])


@recipe(
    "sshd",
    exercises="re-exec with the connection as 0 and 1, a privileged monitor beside the child, terminals",
    modes=(SERVER, CLIENT, LOCAL),
    debian=(*DEBIAN, "socat"),
)
def sshd(r: Run) -> None:
    server = serve(r)
    exercise(r)
    r.see("status", server.end())


@recipe("sshd-inetd", exercises="sshd -i: the connection is standard input", debian=(*DEBIAN, "socat"))
def sshd_inetd(r: Run) -> None:
    serve(r).end()
    command = f"EXEC:/usr/sbin/sshd -i -e -f {r.tmp}/sshd_config,nofork"
    r.server("socat", f"TCP-LISTEN:{PORT},fork,reuseaddr", command, port=PORT)
    r.see("command", ssh(r, "cat", stdin="a line\n").ok(20))
    copies(r)
    r.carried(connections=6, bytes=4 * _web.BIG)
