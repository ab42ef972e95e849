"""A virtual machine that runs the service on a virtio card: Debian's kernel and a memory disk with the programs.

The kernel is one that is installed (``/boot``, ``/lib/modules``) or that ``make guest`` unpacked into ``build/guest``.
The disk has busybox, ``build/tas``, the interposer and the programs, with the libraries that ``ldd`` names; of DPDK's
drivers only virtio's, the buses' and the ring's.
"""

from __future__ import annotations

import gzip
import os
import re
import shutil
import subprocess
from pathlib import Path

from _lab import BUILD, TAS_ADDR, Lab, Proc

CARD = "0000:00:05.0"
ASIDE = "guest.sock"  # a line that comes here ends the guest's programs
QEMU = "qemu-system-x86_64"
MODULES = ("uio/uio", "uio/uio_pci_generic")
DRIVERS = ("librte_bus_pci", "librte_bus_vdev", "librte_mempool_ring", "librte_net_virtio")
PROGRAMS = ("tas", "libtas_interpose.so", "echoserver")

INIT = f"""#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
chmod 755 /
mkdir -p /run /tmp /var /dev/shm /dev/hugepages
ln -s /run /var/run
mount -t tmpfs tmp /dev/shm
mount -t hugetlbfs huge /dev/hugepages
ifconfig lo 127.0.0.1 up
echo 64 >/proc/sys/vm/nr_hugepages
insmod /uio.ko && insmod /uio_pci_generic.ko
echo uio_pci_generic >/sys/bus/pci/devices/{CARD}/driver_override
echo {CARD} >/sys/bus/pci/drivers_probe
/tas --link=pci:{CARD} --ip-addr={TAS_ADDR}/24 @OPTIONS@ &
service=$!
while ! [ -S /run/tas/tas.sock ]; do kill -0 $service || break; sleep 0.1; done
[ -S /run/tas/tas.sock ] || {{ wait $service; echo "no service: $?"; poweroff -f; }}
TAS_REQUIRE=1 LD_PRELOAD=/libtas_interpose.so /echoserver --port=7000 &
server=$!
read word </dev/ttyS1
kill -USR1 $service
kill $server
wait $server
kill $service
wait $service
echo "service ended with $?"
poweroff -f
"""


def kernel() -> tuple[Path, Path] | None:
    """A kernel's image and the folder of its drivers."""
    for root in (BUILD / "guest", Path("/")):
        for image in sorted((root / "boot").glob("vmlinuz-*"), reverse=True):
            drivers = root / "lib/modules" / image.name.removeprefix("vmlinuz-") / "kernel/drivers"
            if all((drivers / f"{m}.ko").exists() for m in MODULES):
                return image, drivers
    return None


def lacking() -> str:
    """What there is not, or nothing."""
    if os.uname().machine != "x86_64":
        return "the guest is an x86-64 machine"
    for tool in (QEMU, "busybox"):
        if not shutil.which(tool):
            return f"{tool} is not installed (make guest)"
    return "" if kernel() else "no kernel with uio_pci_generic (make guest)"


def _libraries(*programs: Path) -> set[Path]:
    run = subprocess.run(["ldd", *map(str, programs)], capture_output=True, text=True, check=True)
    return {Path(found) for found in re.findall(r"(?:=> )?(/\S+) \(0x", run.stdout)}


def _plugins() -> list[Path]:
    """DPDK's drivers, where this machine's DPDK looks for them."""
    return [p for name in DRIVERS for p in sorted(Path("/usr/lib").glob(f"*/dpdk/pmds-*/{name}.so.*.*"))[:1]]


class Archive:
    """What the kernel unpacks into its first file system: cpio in the "new ASCII" form."""

    def __init__(self) -> None:
        self.parts: list[bytes] = []
        self.made: set[str] = set()

    def add(self, name: str, data: bytes, mode: int) -> None:
        path = name.strip("/")
        for above in reversed(Path(path).parents):
            if str(above) != ".":
                self._entry(str(above), b"", 0o040755)
        self._entry(path, data, mode)

    def copy(self, path: Path) -> None:
        """A file of this machine at the same place, links kept as links: DPDK's drivers are found by two names each."""
        path = path.parent.resolve() / path.name
        while path.is_symlink():
            target = os.readlink(path)
            self.add(str(path), target.encode(), 0o120777)
            path = (path.parent / target).parent.resolve() / Path(target).name
        self.add(str(path), path.read_bytes(), 0o100755)

    def _entry(self, path: str, data: bytes, mode: int) -> None:
        if path in self.made:
            return
        self.made.add(path)
        name = path.encode() + b"\0"
        fields = (len(self.made), mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name), 0)
        head = b"070701" + b"".join(b"%08X" % f for f in fields) + name
        self.parts += [head, bytes(-len(head) % 4), data, bytes(-len(data) % 4)]

    def write(self, path: Path) -> None:
        self._entry("TRAILER!!!", b"", 0)
        path.write_bytes(gzip.compress(b"".join(self.parts), 1))


def disk(path: Path, drivers: Path, options: str) -> None:
    """Writes the memory disk."""
    archive = Archive()
    archive.add("init", INIT.replace("@OPTIONS@", options).encode(), 0o100755)
    archive.add("bin/busybox", Path(str(shutil.which("busybox"))).read_bytes(), 0o100755)
    for module in MODULES:
        archive.add(Path(module).name + ".ko", (drivers / f"{module}.ko").read_bytes(), 0o100644)
    for name in PROGRAMS:
        archive.add(name, (BUILD / name).read_bytes(), 0o100755)
    plugins = _plugins()
    for name in ("lib", "lib64"):
        if os.path.islink(f"/{name}"):
            archive.add(name, os.readlink(f"/{name}").encode(), 0o120777)
    for library in sorted({*plugins, *_libraries(*(BUILD / name for name in PROGRAMS), *plugins)}):
        archive.copy(library)
    for name in ("dev", "proc", "sys"):
        archive.add(f"{name}/.keep", b"", 0o100644)
    archive.write(path)


def boot(lab: Lab, options: str, tap: str, queues: int = 1) -> Proc:
    """A guest whose card is the other end of the tap, in the peer's namespace; its console is the program's output.

    With several queues the card spreads connections over them by the hash and the table that it is given.
    """
    found = kernel()
    assert found
    path = lab.tmp / "guest.gz"
    disk(path, found[1], options)
    return lab.kernel(
        QEMU, "-machine", "pc,accel=tcg", "-cpu", "max", "-smp", "2", "-m", "768", "-nodefaults", "-display", "none",
        "-no-reboot", "-serial", "stdio", "-serial", f"unix:{lab.tmp}/{ASIDE},server=on,wait=off",
        "-kernel", found[0], "-initrd", path,
        "-append", "console=ttyS0 quiet panic=-1 rdinit=/init",
        "-netdev", f"tap,id=net,ifname={tap},script=no,downscript=no,vhost=off,queues={queues}",
        "-device", f"virtio-net-pci,netdev=net,addr={CARD[-4:-2]},mac=52:54:00:12:34:56"
        + (f",mq=on,rss=on,vectors={2 * queues + 2}" if queues > 1 else ""),
    )  # fmt: skip
