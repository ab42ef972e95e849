"""vsftpd: processes that hold data connections for others, with and without its sandbox; curl and lftp as clients."""

from __future__ import annotations

import os
import pwd

from recipes import LOCAL, SERVER, Run, _web, recipe

CONF = """
listen=YES
listen_port=2121
background=NO
anonymous_enable=YES
anon_root={tmp}/ftp
no_anon_password=YES
write_enable=YES
anon_upload_enable=YES
anon_mkdir_write_enable=YES
anon_other_write_enable=YES
anon_umask=022
local_enable=NO
pasv_min_port=2200
pasv_max_port=2400
ftp_data_port=2120
connect_from_port_20={port20}
xferlog_enable=NO
secure_chroot_dir={tmp}/empty
seccomp_sandbox=NO
isolate={isolate}
isolate_network={isolate}
one_process_model={one}
accept_timeout=10
connect_timeout=10
data_connection_timeout=20
"""
DEBIAN = ("vsftpd", "curl", "lftp")


def serve(r: Run, isolate: str = "NO", one: str = "NO", port20: str = "NO") -> None:
    (r.tmp / "empty").mkdir()
    r.file("ftp/big.bin", _web.data(_web.BIG))
    for n in range(20):
        r.file(f"ftp/many/{n}", _web.data(3000 * n, n))
    upload = r.tmp / "ftp/upload"
    upload.mkdir()
    user = pwd.getpwnam("ftp")
    os.chown(upload, user.pw_uid, user.pw_gid)
    conf = r.file("vsftpd.conf", CONF.format(tmp=r.tmp, isolate=isolate, one=one, port20=port20))
    r.server("/usr/sbin/vsftpd", conf, port=2121)


def exercise(r: Run) -> None:
    base = f"ftp://{r.addr}:2121"
    big = r.tmp / "got"
    up = r.file("up", _web.data(2_000_000, 7))
    for name, options in {
        "passive": ["--ftp-pasv", "--disable-epsv"],
        "extended passive": ["--ftp-pasv"],
        "active": ["-P", r.client_addr, "--disable-eprt"],
        "extended active": ["-P", r.client_addr],
    }.items():
        r.see(f"{name}: list", sorted(_web.curl(r, *options, "-l", f"{base}/many/").split()))
        r.see(f"{name}: get", [_web.curl(r, *options, "-o", big, f"{base}/big.bin"), _web.sha(big.read_bytes())])
        told = ("-w", "%{num_connects} %{size_download}\n")
        kept = _web.curl(r, *options, *told, *["-o", "/dev/null"] * 20, f"{base}/many/[0-19]")
        r.see(f"{name}: many", kept)
        target = f"{base}/upload/{name.replace(' ', '-')}"
        r.see(f"{name}: put", _web.curl(r, *options, "-T", up, target))
        r.see(f"{name}: missing", _web.curl(r, *options, f"{base}/none"))
        stored = r.tmp / "ftp/upload" / name.replace(" ", "-")
        r.see(f"{name}: stored", _web.sha(stored.read_bytes()))
    script = (
        f"set net:timeout 5; set net:max-retries 1; open -p 2121 {r.addr}; mirror --parallel=4 many {r.tmp}/mirror;"
    )
    script += f"mput -O upload {r.tmp}/mirror/*; cls -1 upload; bye"
    lftp = r.client("lftp", "--norc", "-c", script, env={"HOME": str(r.tmp)})
    r.see("lftp", [lftp.wait(40), lftp.out])
    r.see("mirrored", {f.name: _web.sha(f.read_bytes()) for f in sorted((r.tmp / "mirror").iterdir())})
    r.see("uploaded", {f.name: _web.sha(f.read_bytes()) for f in sorted((r.tmp / "ftp/upload").iterdir())})
    r.carried(connections=100, bytes=4 * (_web.BIG + 2_000_000))


@recipe(
    "vsftpd",
    exercises="two processes per session that pass data connections by SCM_RIGHTS, chroot, setuid, active connections",
    modes=(SERVER, LOCAL),
    debian=DEBIAN,
)
def vsftpd(r: Run) -> None:
    serve(r)
    exercise(r)


@recipe("vsftpd-active-20", exercises="data connections from a privileged port", debian=DEBIAN)
def vsftpd_active_20(r: Run) -> None:
    serve(r, port20="YES")
    exercise(r)


@recipe("vsftpd-one", exercises="one process per session", modes=(SERVER, LOCAL), quick=(SERVER,), debian=DEBIAN)
def vsftpd_one(r: Run) -> None:
    serve(r, one="YES")
    exercise(r)


@recipe(
    "vsftpd-isolated",
    exercises="network, pid and ipc namespaces of its own; connections handed in from outside them",
    modes=(SERVER, LOCAL),
    debian=DEBIAN,
)
def vsftpd_isolated(r: Run) -> None:
    serve(r, isolate="YES")
    exercise(r)
