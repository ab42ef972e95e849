"""`tasctl doctor`: what TAS needs on this machine, what is missing, and how to get it."""

from __future__ import annotations

import ctypes
import os
import re
import resource
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from tas_sockets import _paths, _service
from tas_sockets._control import ABI_MAX, ABI_MIN, Control, ServiceError, What

OK, NOTE, BAD = "ok", "note", "BAD"


class Finding(NamedTuple):
    """One line of the report; ``level`` BAD means that something does not work."""

    level: str
    what: str
    fix: str = ""


def _kernel() -> Finding:
    release = os.uname().release
    version = tuple(int(n) for n in re.findall(r"\d+", release)[:2])
    if version >= (6, 1):
        return Finding(OK, f"kernel {release}")
    return Finding(BAD, f"kernel {release}", "TAS needs Linux 6.1 or later")


def _capabilities() -> int:
    text = Path("/proc/self/status").read_text()
    return int(re.search(r"CapEff:\s*(\S+)", text)[1], 16)  # type: ignore[index]


def _rights() -> Finding:
    net_admin, net_raw = 12, 13
    caps = _capabilities()
    if caps >> net_admin & 1 and caps >> net_raw & 1:
        return Finding(OK, "rights for a link (CAP_NET_ADMIN, CAP_NET_RAW)")
    return Finding(NOTE, "no rights for a link: only --link=none", "run the service as root")


def _tun() -> Finding:
    try:
        os.close(os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC))
    except OSError as e:
        how = "modprobe tun" if isinstance(e, FileNotFoundError) else "run the service as root"
        return Finding(NOTE, f"/dev/net/tun: {e.strerror}: no --link=tap", how)
    return Finding(OK, "/dev/net/tun (for --link=tap)")


def _huge_pages() -> Finding:
    info = dict(
        re.findall(r"^(HugePages_Total|HugePages_Free|Hugepagesize):\s*(\d+)", Path("/proc/meminfo").read_text(), re.M)
    )
    total, free, kb = (int(info.get(k, 0)) for k in ("HugePages_Total", "HugePages_Free", "Hugepagesize"))
    if free * kb >= 256 << 10:
        return Finding(OK, f"huge pages: {free} of {total} free, {kb} kB each")
    return Finding(
        NOTE,
        f"huge pages: {free} of {total} free: ordinary memory is used",
        "sysctl vm.nr_hugepages=512; mount -t hugetlbfs nodev /dev/hugepages",
    )


def _memlock() -> Finding:
    soft, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    if soft == resource.RLIM_INFINITY:
        return Finding(OK, "locked memory: unlimited")
    fix = "ulimit -l unlimited (or LimitMEMLOCK=infinity) where a PCI card is used with VFIO"
    return Finding(
        OK if os.geteuid() == 0 else NOTE, f"locked memory: {soft >> 10} kB", "" if os.geteuid() == 0 else fix
    )


def _files() -> Finding:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    text = f"open files: {soft} (hard limit {hard})"
    return Finding(OK if hard >= 4096 else NOTE, text, "" if hard >= 4096 else "raise the hard limit: ulimit -Hn 65536")


def _program() -> Iterator[Finding]:
    try:
        program = _paths.service()
    except _paths.NotFoundError as e:
        yield Finding(BAD, str(e), "make deps && make")
        return
    libs = subprocess.run(["ldd", program], capture_output=True, text=True, check=False).stdout
    lost = re.findall(r"(\S+) => not found", libs)
    if lost:
        yield Finding(BAD, f"{program}: {', '.join(lost)} not found", "make deps")
        return
    dpdk = re.search(r"librte_eal\.so\.(\d+)", libs)
    yield Finding(OK, f"service {program}" + (f", DPDK ABI {dpdk[1]}" if dpdk else ""))
    version = ""
    if shutil.which("pkg-config"):
        version = subprocess.run(
            ["pkg-config", "--modversion", "libdpdk"], capture_output=True, text=True, check=False
        ).stdout.strip()
    if version and tuple(int(n) for n in re.findall(r"\d+", version)[:2]) < (22, 11):
        yield Finding(BAD, f"DPDK {version}", "TAS needs DPDK 22.11")
    elif version:
        yield Finding(OK, f"DPDK {version} for building")


def _interposer() -> Finding:
    try:
        name = _paths.interposer()
    except _paths.NotFoundError as e:
        return Finding(BAD, str(e), "make")
    # The real test: a program that runs with it and without complaints of the dynamic linker.
    env = {**os.environ, "LD_PRELOAD": name, "TAS_SOCKET": "/nonexistent"}
    run = subprocess.run(["/bin/true"], env=env, capture_output=True, text=True, check=False)
    if run.returncode or run.stderr:
        return Finding(BAD, f"{name} does not load: {run.stderr.strip() or run.returncode}", "make")
    return Finding(OK, f"interposer {name}")


def _seccomp() -> Finding:
    """The calls that a container's filter might forbid."""
    libc = ctypes.CDLL(None, use_errno=True)
    enosys = []
    for name, number, args in (
        ("futex_waitv", 449, (0, 0, 0, 0, 0)),
        ("pidfd_open", 434, (-1, 0)),
        ("memfd_create", 319, (0, 0)),
        ("epoll_pwait2", 441, (-1, 0, 0, 0, 0)),
    ):
        ctypes.set_errno(0)
        libc.syscall(ctypes.c_long(number), *(ctypes.c_long(a) for a in args))
        if ctypes.get_errno() in (1, 38):  # EPERM, ENOSYS
            enosys.append(name)
    if enosys:
        return Finding(BAD, f"system calls not available: {', '.join(enosys)}", "allow them in the seccomp profile")
    return Finding(OK, "system calls futex_waitv, pidfd_open, memfd_create, epoll_pwait2")


def _af_xdp() -> Finding:
    try:
        socket.socket(44, socket.SOCK_RAW).close()  # AF_XDP
    except OSError as e:
        return Finding(NOTE, f"AF_XDP: {e.strerror}", "a kernel with CONFIG_XDP_SOCKETS, for af_xdp links")
    return Finding(OK, "AF_XDP sockets")


def _socket() -> Finding:
    path = _paths.default_socket()
    try:
        with Control(path, timeout=3) as control:
            status = control.ask(What.STATUS)
    except FileNotFoundError:
        return Finding(NOTE, f"no service at {path}", "tasctl up --ip-addr=ADDR/PREFIX, or tasctl exec -- CMD")
    except ConnectionRefusedError:
        return Finding(NOTE, f"no service at {path}, but what one left that was killed", "the next start cleans up")
    except (OSError, ServiceError) as e:
        return Finding(BAD, f"service at {path}: {e}", "tasctl down, or look at " + _service.log_path(path))
    abi = status.get("abi", ABI_MAX)
    numbers = abi if isinstance(abi, list) else [abi]
    if not any(ABI_MIN <= int(n) <= ABI_MAX for n in numbers):
        return Finding(
            BAD, f"service at {path} speaks ABI {abi}, these tools {ABI_MAX}", "restart it: tasctl down; tasctl up"
        )
    return Finding(OK, f"service at {path}: version {status.get('version', '?')}, process {status.get('pid', '?')}")


def findings() -> Iterator[Finding]:
    """All findings, in the order of the report."""
    checks: tuple[Callable[[], Finding | Iterator[Finding]], ...] = (
        _kernel, _rights, _tun, _huge_pages, _memlock, _files, _seccomp, _af_xdp, _program, _interposer, _socket,
    )  # fmt: skip
    for check in checks:
        try:
            found = check()
        except OSError as e:
            yield Finding(NOTE, f"{check.__name__[1:].replace('_', ' ')}: {e}")
            continue
        if isinstance(found, Finding):
            yield found
        else:
            yield from found
