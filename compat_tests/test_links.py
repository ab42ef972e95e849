"""Links other than the tap: packet and AF_XDP sockets on a veth pair, memif between two services."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from _lab import BUILD, KERNEL_ONLY, PEER_ADDR, TAS_ADDR, Lab, Netns, Service, missing, until

pytestmark = pytest.mark.skipif(KERNEL_ONLY, reason="about the service's links")
MEBIBYTE = 1 << 20


@pytest.fixture
def two(tmp_path: Path) -> Iterator[tuple[Lab, Lab]]:
    """A laboratory and another one: two machines."""
    why = missing()
    if why:
        pytest.skip(why)
    labs = []
    with contextlib.ExitStack() as stack:
        for name in ("near", "far"):
            folder = tmp_path / name
            folder.mkdir(mode=0o755)
            labs.append(Lab(folder))
        for lab in reversed(labs):  # "near" ends first, while the other service still answers
            stack.callback(lab.close, check=True)
        yield labs[0], labs[1]


def veth(lab: Lab, mtu: int = 1500, offloads: bool = False) -> None:
    """An Ethernet between the namespaces of ``lab``; without ``offloads`` its peer computes its checksums itself."""
    lab.app.ip("link", "add", "veth0", "type", "veth", "peer", "name", "veth0", "netns", lab.peer.name)
    for ns in (lab.app, lab.peer):
        ns.ip("link", "set", "veth0", "mtu", str(mtu), "up")
    lab.peer.ip("addr", "add", f"{PEER_ADDR}/24", "dev", "veth0")
    if not offloads:
        lab.peer.run("ethtool", "-K", "veth0", "tx", "off", "tso", "off", "gso", "off")


def serve(lab: Lab, link: str, addr: str = TAS_ADDR, *options: str) -> Service:
    return Service(lab, f"--link={link}", f"--ip-addr={addr}/24", *options, link=False)


def af_xdp_here(lab: Lab) -> bool:
    """Does the kernel give AF_XDP sockets on a veth, and the driver bind one?"""
    try:
        serve(lab, "af_xdp:veth0")
    except AssertionError as e:
        print(f"no AF_XDP here: {e}")
        lab.service = None
        return False
    return True


@pytest.mark.parametrize("kind", ["af_packet", "af_xdp"])
@pytest.mark.parametrize("mtu", [1500, 9000])
def test_a_kernel_client_talks_over(lab: Lab, kind: str, mtu: int) -> None:
    if kind == "af_xdp" and mtu != 1500:
        pytest.skip("AF_XDP's frames are at most a page")
    veth(lab, mtu)
    if kind == "af_xdp":
        if not af_xdp_here(lab):
            pytest.skip("no AF_XDP sockets on this machine")
    else:
        serve(lab, f"{kind}:veth0")
    service = lab.service
    assert service
    with service.carried(conn_passive=17, bytes_in=8 * MEBIBYTE):
        _, port = lab.echoserver()
        assert lab.rpc(port, "--connections=16", "--count=2000")["requests"] == 2000
        assert lab.rpc(port, "--mode=block", "--count=500", "--size=64k")["requests"] == 500
    assert f"MTU {mtu}," in service.log()


@pytest.mark.parametrize("kind", ["tap", "af_packet"])
@pytest.mark.parametrize("whole", [True, False], ids=["whole", "fp-no-xsumoffload"])
def test_segments_stay_whole_over(lab: Lab, kind: str, whole: bool) -> None:
    """Both ends leave segments whole, in far fewer packets than there are MSS; or none of ours."""
    options = [] if whole else ["--fp-no-xsumoffload"]
    if kind == "tap":
        service = Service(lab, *options)
    else:
        veth(lab, offloads=True)
        service = serve(lab, "af_packet:veth0", TAS_ADDR, *options)
    _, port = lab.echoserver()
    before = service.counters()
    assert lab.rpc(port, "--mode=block", "--count=16", "--size=1m")["requests"] == 16
    after = service.counters()
    carried = {
        k: after[k] - before[k] for k in ("rx_packets", "tx_packets", "bytes_in", "bytes_out", "rx_bad_checksum")
    }
    assert carried["bytes_in"] == 16 * MEBIBYTE
    assert 16 * MEBIBYTE <= carried["bytes_out"] < 17 * MEBIBYTE  # what is sent again included
    # what came in, and the kernel's acknowledgements: of few large segments or, one for every other, of small ones
    assert carried["rx_packets"] < 16 * MEBIBYTE / 4000 + (0 if whole else 16 * MEBIBYTE / (2 * 1448))
    assert (carried["tx_packets"] < 16 * MEBIBYTE / 4000) == whole
    assert carried["rx_bad_checksum"] == 0


@pytest.mark.parametrize("mtu", [1500, 9000])
def test_a_tap_that_stays_is_left_as_it_was(lab: Lab, mtu: int) -> None:
    name = f"tp{os.getpid() % 1000000}"
    ns = lab.app
    ns.ip("tuntap", "add", name, "mode", "tap", "multi_queue")
    ns.ip("link", "set", name, "mtu", str(mtu))
    before = ns.run("ethtool", "-k", name)
    address = ns.ip("-br", "link", "show", name).split()[2]
    service = serve(lab, f"tap:{name}")
    assert ns.ip("-br", "link", "show", name).split()[2] == address
    ns.ip("addr", "add", f"{PEER_ADDR}/24", "dev", name)
    ns.ip("link", "set", name, "up")
    _, port = lab.echoserver()
    rpc = lab.start(ns, BUILD / "rpcclient", "--json", "--mode=block", "--count=50", "--size=256k", TAS_ADDR, str(port))
    assert rpc.json(60)["requests"] == 50
    assert f"MTU {mtu}," in service.log()
    assert "gso_max_size 64000" in ns.ip("-d", "link", "show", name)
    lab.end_programs()
    service.finish(check=True)
    assert ",UP" not in ns.ip("link", "show", name)
    ns.ip("addr", "flush", "dev", name)
    assert ns.run("ethtool", "-k", name).replace(" [requested on]", "") == before.replace(" [requested on]", "")
    shown = ns.ip("-d", "link", "show", name)
    assert f"mtu {mtu} " in shown
    assert "gso_max_size 65536" in shown


def test_a_packet_socket_outlives_its_interface_being_down(lab: Lab) -> None:
    veth(lab, offloads=True)
    service = serve(lab, "af_packet:veth0")
    _, port = lab.echoserver()
    assert lab.rpc(port, "--count=100")["requests"] == 100
    running = lab.kernel(lab.build / "rpcclient", "--json", "--mode=block", "--time=2", TAS_ADDR, str(port))
    time.sleep(0.3)
    for ns in (lab.app, lab.peer):
        ns.ip("link", "set", "veth0", "down")
        time.sleep(0.2)
        ns.ip("link", "set", "veth0", "up")
    assert running.json(30)["requests"] > 100  # it went on where it was
    assert lab.rpc(port, "--count=100")["requests"] == 100
    assert "Network is down" in service.log()


SEND = """
import socket, sys
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
s.bind(("veth0", 0))
s.send(bytes.fromhex(sys.argv[1]))
"""


def test_frames_of_vlans_are_not_ours(lab: Lab) -> None:
    """A packet socket shows them without their tag."""
    veth(lab, offloads=True)
    service = serve(lab, "af_packet:veth0")

    def asked(tag: str) -> int:
        """Requests answered of one whose sender has this VLAN tag."""
        before = service.counters()["arp_requests_in"]
        sender, ours = (socket.inet_aton(a).hex() for a in (PEER_ADDR, TAS_ADDR))
        arp = f"0001080006040001{'02' * 6}{sender}{'00' * 6}{ours}"
        lab.peer.run(sys.executable, "-c", SEND, "ff" * 6 + "02" * 6 + tag + "0806" + arp)
        time.sleep(0.3)
        return service.counters()["arp_requests_in"] - before

    assert asked("") == 1
    assert asked("81000007") == 0
    assert asked("") == 1


def discipline(ns: Netns, interface: str) -> str:
    """Of the kernel's queue in front of an interface; nothing: it has none yet, being down."""
    return "".join(ns.run("tc", "qdisc", "show", "dev", interface, "root").split()[1:2])


def test_a_tap_of_the_services_own_has_no_queue_wherever_it_moves(lab: Lab) -> None:
    service = Service(lab, f"--ip-addr={TAS_ADDR}/24", "--link=tap:tasown", link=False)
    assert discipline(lab.app, "tasown") == "noqueue"
    lab.app.ip("link", "set", "tasown", "netns", lab.peer.name, "name", "elsewhere")
    until("no queue there", lambda: discipline(lab.peer, "elsewhere") == "noqueue")
    lab.peer.ip("link", "set", "elsewhere", "up")
    assert discipline(lab.peer, "elsewhere") == "noqueue"
    lab.peer.ip("addr", "add", f"{PEER_ADDR}/24", "dev", "elsewhere")
    lab.peer.run("ping", "-c", "3", "-i", "0.2", "-W", "5", TAS_ADDR)
    lab.peer.run("tc", "qdisc", "replace", "dev", "elsewhere", "root", "pfifo", "limit", "50")  # somebody's own choice
    lab.peer.ip("link", "set", "elsewhere", "down")
    lab.peer.ip("link", "set", "elsewhere", "up")
    assert discipline(lab.peer, "elsewhere") == "pfifo"
    assert service.counters()["tx_packets"] > 3


def test_a_tap_that_was_there_keeps_its_queue(lab: Lab) -> None:
    lab.app.ip("tuntap", "add", "tasstays", "mode", "tap", "multi_queue")
    lab.app.run("tc", "qdisc", "replace", "dev", "tasstays", "root", "pfifo", "limit", "50")
    Service(lab, f"--ip-addr={TAS_ADDR}/24", "--link=tap:tasstays", link=False)
    assert discipline(lab.app, "tasstays") == "pfifo"


def test_a_namespace_with_the_tap_may_end_before_the_service(lab: Lab) -> None:
    service = Service(lab, f"--ip-addr={TAS_ADDR}/24", "--link=tap:tasgone", link=False)
    there = lab.netns()
    lab.app.ip("link", "set", "tasgone", "netns", there.name)
    until("no queue there", lambda: discipline(there, "tasgone") == "noqueue")
    there.delete()
    lab.namespaces.remove(there)
    until("the service hears of it", lambda: "is gone" in service.log())


def test_a_link_that_wakes_by_descriptor_costs_nothing_idle(lab: Lab) -> None:
    veth(lab)
    if not af_xdp_here(lab):
        pytest.skip("no AF_XDP sockets on this machine")
    service = lab.service
    assert service
    time.sleep(0.5)
    before = service.cpu_seconds()
    time.sleep(2)
    assert service.cpu_seconds() - before <= 0.03


@contextlib.contextmanager
def huge_pages(count: int) -> Iterator[bool]:
    """So many free huge pages, if the machine gives them."""
    path = Path("/proc/sys/vm/nr_hugepages")
    before = int(path.read_text())
    path.write_text(str(before + count))
    try:
        yield int(path.read_text()) >= before + count
    finally:
        path.write_text(str(before))


def _connected(service: Service) -> None:
    until("the memif connection", lambda: "other end is there" in service.log())


def connect_memif(near: Service, far: Service) -> None:
    """Waits for the connection; its descriptors come and go with the other service, so they are not counted."""
    for service in (near, far):
        _connected(service)
        service.base.pop("descriptors")


def check_memif(two: tuple[Lab, Lab], server_options: str, client_options: str) -> None:
    near, far = two
    path = near.tmp / "memif.sock"
    other = serve(far, f"memif:{path}{client_options}", PEER_ADDR)  # the client first: it waits
    service = serve(near, f"memif:{path},server{server_options}")
    connect_memif(service, other)
    with service.carried(conn_passive=17):
        _, port = near.echoserver()
        rpc: list[str | Path] = [far.build / "rpcclient", "--json"]
        run = far.tas(*rpc, "--connections=16", "--count=5000", TAS_ADDR, str(port)).json()
        assert run["requests"] == 5000
        run = far.tas(*rpc, "--mode=block", "--count=500", "--size=64k", TAS_ADDR, str(port)).json()
        assert run["requests"] == 500


def test_two_services_talk_over_memif(two: tuple[Lab, Lab]) -> None:
    check_memif(two, "", "")


def test_memif_carries_large_frames(two: tuple[Lab, Lab]) -> None:
    check_memif(two, ",mtu=9000,id=3", ",mtu=9000,id=3")
    assert two[0].service
    assert "MTU 9000" in two[0].service.log()


def test_memif_without_checksums(two: tuple[Lab, Lab]) -> None:
    check_memif(two, ",no-checksums,mtu=9000", ",no-checksums,mtu=9000")


def test_checksums_that_one_end_leaves_out_are_missed(two: tuple[Lab, Lab]) -> None:
    near, far = two
    path = near.tmp / "memif.sock"
    service = serve(near, f"memif:{path},server")
    connect_memif(service, serve(far, f"memif:{path},no-checksums", PEER_ADDR))
    _, port = near.echoserver()
    client = far.tas(far.build / "rpcclient", "--json", "--count=1", TAS_ADDR, str(port))
    until("the reason", lambda: "no-checksums belongs to both ends or to none" in service.log())
    client.kill()
    assert service.counters()["rx_bad_checksum"] > 0


def _stopped(service: Service, seconds: float) -> float:
    """Stops it for a while; for how long it was."""
    os.kill(service.pid, signal.SIGSTOP)
    begun = time.monotonic()
    try:
        time.sleep(seconds)
    finally:
        os.kill(service.pid, signal.SIGCONT)
    return time.monotonic() - begun


@pytest.mark.parametrize("seconds", [0.03, 1.0], ids=["shortly", "long"])
def test_an_other_end_that_takes_no_packets(two: tuple[Lab, Lab], seconds: float) -> None:
    """For a moment: output waits, and nothing is lost. For long: packets are, connections are not."""
    near, far = two
    path = near.tmp / "memif.sock"
    service = serve(near, f"memif:{path},server")
    other = serve(far, f"memif:{path}", PEER_ADDR)
    connect_memif(service, other)
    servers = [near.tas(near.build / "bulk", "send", "--listen=0.0.0.0:0", "-n", "400m") for _ in range(2)]
    ports = [s.listening() for s in servers]
    clients = [far.tas(far.build / "bulk", "recv", f"--connect={TAS_ADDR}:{p}", "-n", "400m", "--json") for p in ports]
    _, port = near.echoserver()
    before = service.counters()
    time.sleep(0.3)
    took = _stopped(other, seconds)
    local = near.tas(near.build / "rpcclient", "--json", "--count=200", TAS_ADDR, str(port)).json(30)
    assert local["requests"] == 200  # connections of this service went on
    for p in (*clients, *servers):
        assert p.wait(60) == 0
    dropped = service.counters()["tx_dropped"] - before["tx_dropped"]
    assert dropped == 0 if took < 0.08 else dropped < 20000  # of 550,000


@pytest.mark.parametrize("mtu", [1500, 9000])
def test_two_services_talk_over_packet_sockets(two: tuple[Lab, Lab], mtu: int) -> None:
    near, far = two
    near.app.ip("link", "add", "veth1", "type", "veth", "peer", "name", "veth1", "netns", far.app.name)
    for lab in two:
        lab.app.ip("link", "set", "veth1", "mtu", str(mtu), "up")
    service = serve(near, "af_packet:veth1")
    serve(far, "af_packet:veth1", PEER_ADDR)
    with service.carried(conn_passive=17, bytes_in=31 * MEBIBYTE):
        _, port = near.echoserver()
        rpc: list[str | Path] = [far.build / "rpcclient", "--json"]
        assert far.tas(*rpc, "--connections=16", "--count=5000", TAS_ADDR, str(port)).json()["requests"] == 5000
        run = far.tas(*rpc, "--mode=block", "--count=500", "--size=64k", TAS_ADDR, str(port)).json()
        assert run["requests"] == 500
    assert service.counters()["rx_bad_checksum"] == 0


@pytest.mark.parametrize("lossy", [False, True], ids=["", "lossy"])
def test_whole_segments_are_read_into_their_streams(lab: Lab, lossy: bool) -> None:
    """What a packet socket shows goes straight to its place; every byte is compared, also when some are lost whole."""
    veth(lab, offloads=True)
    service = serve(lab, "af_packet:veth0", TAS_ADDR, "--fp-cores-max=1")  # of several threads none reads into place
    if lossy:
        rules = "add table inet l\nadd chain inet l o { type filter hook output priority 0; }\n"
        lab.peer.run("nft", f"{rules}add rule inet l o meta length > 9000 numgen random mod 100 < 3 counter drop")
    servers = [lab.tas(lab.build / "bulk", "recv", "--listen=0.0.0.0:0") for _ in range(3)]
    ports = [s.listening() for s in servers]
    clients = [lab.kernel(lab.build / "bulk", "send", f"--connect={TAS_ADDR}:{p}", "-n", "100m") for p in ports]
    for p in (*clients, *servers):
        p.ok(90)
    after = service.counters()
    assert after["rx_placed"] > 300 * MEBIBYTE / 65536 / 4
    assert after["rx_placed"] < after["tcp_in"]
    if lossy:
        assert "packets 0 " not in lab.peer.run("nft", "list", "table", "inet", "l")


@pytest.mark.full  # huge pages belong to the whole machine: other services would take some
def test_memif_without_a_copy_at_its_client(two: tuple[Lab, Lab]) -> None:
    with huge_pages(512) as there:
        if not there:
            pytest.skip("no huge pages to be had")
        check_memif(two, "", ",zero-copy")
        for lab in two:  # before the pages go
            lab.close(check=True)


NO_HUGE_C = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <sys/mman.h>
void *mmap(void *at, size_t len, int prot, int flags, int fd, off_t off)
{
	if (flags & MAP_HUGETLB) { errno = ENOMEM; return MAP_FAILED; }
	return ((void *(*)(void *, size_t, int, int, int, off_t))dlsym(RTLD_NEXT, "mmap"))(at, len, prot, flags, fd, off);
}
int memfd_create(const char *name, unsigned flags)
{
	if (flags & MFD_HUGETLB) { errno = ENOMEM; return -1; }
	return ((int (*)(const char *, unsigned))dlsym(RTLD_NEXT, "memfd_create"))(name, flags);
}
"""


@pytest.mark.full
def test_huge_pages_that_others_were_quicker_to_take(lab: Lab) -> None:
    """They seem to be free when the service looks, and are not when DPDK wants them: it starts without."""
    shim = lab.tmp / "nohuge.so"
    compiler = ["cc", "-shared", "-fPIC", "-x", "c", "-", "-o", str(shim), "-ldl"]
    subprocess.run(compiler, input=NO_HUGE_C, text=True, check=True)
    with huge_pages(512) as there:
        if not there:
            pytest.skip("no huge pages to be had")
        service = Service(lab, via=("env", f"LD_PRELOAD={shim}"))
        assert "beginning again without" in service.log()
        with service.carried(conn_passive=1):
            _, port = lab.echoserver()
            assert lab.rpc(port, "-n", "100")["requests"] == 100
        lab.close(check=True)


def test_an_idle_memif_costs_next_to_nothing(two: tuple[Lab, Lab]) -> None:
    near, far = two
    path = near.tmp / "memif.sock"
    service = serve(near, f"memif:{path},server")
    connect_memif(service, serve(far, f"memif:{path}", PEER_ADDR))
    time.sleep(2.5)
    before = service.cpu_seconds()
    time.sleep(3)
    assert service.cpu_seconds() - before <= 0.06


@pytest.mark.parametrize("killed", ["server", "client"])
def test_memif_survives_the_death_of_the_other_end(two: tuple[Lab, Lab], killed: str) -> None:
    """Killed under load and started again, three times: the survivor goes on, and new connections work."""
    near, far = two
    path = near.tmp / "memif.sock"
    service = serve(near, f"memif:{path}" + (",server" if killed == "client" else ""))
    other = serve(far, f"memif:{path}" + (",server" if killed == "server" else ""), PEER_ADDR)
    connect_memif(service, other)
    survivor = psutil.Process(service.pid)
    _, port = near.echoserver()
    client: list[str | Path] = [far.build / "rpcclient", "--json", "--connections=32"]
    for _ in range(3):
        until("answers", lambda: far.tas(*client, "--count=64", TAS_ADDR, str(port)).wait() == 0, 30)
        load = far.tas(*client, "--time=20", TAS_ADDR, str(port))
        time.sleep(0.5)
        other.kill()
        assert load.wait(10) != 0  # its connections are gone with their service
        assert survivor.is_running()
        other.start()
    until("answers", lambda: far.tas(*client, "--count=64", TAS_ADDR, str(port)).wait() == 0, 30)


@pytest.mark.parametrize(
    ("link", "words"),
    [
        ("af_xdp:nosuch0", "there is no interface of that name"),
        ("af_packet:nosuch0", "there is no interface of that name"),
        ("pci:0000:7f:1f.7", "there is no such device"),
        ("memif:/,server", "exists and is not a socket"),
        ("memif:/nosuch/m,server", "cannot open link memif"),
    ],
)
def test_a_link_that_cannot_be_says_why(lab: Lab, link: str, words: str) -> None:
    with pytest.raises(AssertionError, match=words):
        serve(lab, link)
    lab.service = None  # there is none to end


def test_low_latency_holds_the_processor_awake_while_traffic_flows(lab: Lab) -> None:
    if not os.path.exists("/dev/cpu_dma_latency"):
        pytest.skip("this kernel has no /dev/cpu_dma_latency")
    service = Service(lab, "--low-latency=auto")

    def held() -> bool:
        """Whether one of the service's descriptors is the device (numbers may go while we look)."""
        for n in os.listdir(f"/proc/{service.pid}/fd"):
            with contextlib.suppress(FileNotFoundError):
                if os.readlink(f"/proc/{service.pid}/fd/{n}") == "/dev/cpu_dma_latency":
                    return True
        return False

    assert not held()
    _, port = lab.echoserver()
    p = lab.kernel(lab.build / "rpcclient", "--mode=block", "--time=2", TAS_ADDR, str(port))
    until("held", held, 2)
    p.ok()
    until("given back", lambda: not held(), 2)


@pytest.mark.parametrize("up", [True, False], ids=["loopback up", "loopback down"])
def test_what_readers_of_a_tap_freed_is_fetched_now_and_then(lab: Lab, up: bool) -> None:
    service = Service(lab)
    lab.app.ip("link", "set", "lo", "up" if up else "down")
    _, port = lab.echoserver()

    def look() -> tuple[int, int]:
        """Packets over loopback so far, and datagrams that could not be delivered."""
        udp = [line.split() for line in lab.app.run("cat", "/proc/net/snmp").splitlines() if line.startswith("Udp:")]
        counts = dict(zip(*udp, strict=True))
        lo = next(x for x in lab.app.run("cat", "/proc/net/dev").splitlines() if x.strip().startswith("lo:"))
        return int(lo.split()[10]), sum(int(counts[k]) for k in ("InErrors", "RcvbufErrors", "NoPorts"))

    before, errors = look()
    packets = service.counters()["tx_packets"]
    lab.rpc(port, "-c", "16", "-n", "5000")
    packets = service.counters()["tx_packets"] - packets
    after, errors_after = look()
    every = 24  # what a service in a namespace takes, which is not shown the kernel's setting
    assert packets >= 5000
    assert after - before == 0 if not up else abs(after - before - packets / every) <= 2
    assert errors_after == errors  # whoever watches the machine's errors sees none


def test_a_service_keeps_its_processor_while_a_tap_is_busy(lab: Lab) -> None:
    cpus = os.sched_getaffinity(0)
    if len(cpus) < 2:
        pytest.skip("one processor")
    service = Service(lab)
    _, port = lab.echoserver()

    def allowed() -> set[int]:
        return os.sched_getaffinity(service.pid)

    def requests(seconds: int = 2, *, until_kept: bool = False) -> list[set[int]]:
        """What was allowed during these seconds of requests, or until it is one processor."""
        p = lab.kernel(BUILD / "rpcclient", "-c", "16", f"--time={seconds}", TAS_ADDR, str(port))
        seen = [allowed()]
        while p.alive and not (until_kept and len(seen[-1]) == 1):
            time.sleep(0.01)
            seen.append(allowed())
        if p.alive:
            p.kill()
        else:
            p.ok()
        return seen

    def times() -> tuple[int, int]:
        """ns that the service has run, and that it was ready to run and did not."""
        ran, wait, _ = Path(f"/proc/{service.pid}/schedstat").read_text().split()
        return int(ran), int(wait)

    def keep_one() -> set[int]:
        before = times()
        seen = requests(20, until_kept=True)
        assert all(s == cpus or (len(s) == 1 and s < cpus) for s in seen)
        ran, waited = (b - a for a, b in zip(before, times(), strict=True))
        if len(seen[-1]) != 1 and waited > ran / 10:
            pytest.skip("others compute on all processors")
        assert len(seen[-1]) == 1
        return seen[-1]

    keep_one()
    until("given back", lambda: allowed() == cpus, 3)
    os.sched_setaffinity(service.pid, {max(cpus)})  # nothing to choose
    assert all(s == {max(cpus)} for s in requests())
    os.sched_setaffinity(service.pid, cpus)
    other = {min(cpus - keep_one())}  # somebody else's word
    os.sched_setaffinity(service.pid, other)
    assert all(s == other for s in requests())
    time.sleep(1.5)
    assert allowed() == other
