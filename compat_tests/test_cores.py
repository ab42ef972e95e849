"""Several fast-path threads: connections over the link are shared, each belongs to one, and ends as with one thread."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import re
import select
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from _lab import BUILD, KERNEL_ONLY, PEER_ADDR, TAS_ADDR, Lab, Service, until

from tas_sockets._control import What

pytestmark = pytest.mark.skipif(KERNEL_ONLY, reason="about threads of the service")


def threads(service: Service) -> list[str]:
    """Names of the fast-path threads beyond the first."""
    names = [p.read_text().strip() for p in Path(f"/proc/{service.pid}/task").glob("*/comm")]
    return sorted(n for n in names if n.startswith("tas-fp-"))


@pytest.fixture(params=[2, 4])
def fixed(request: pytest.FixtureRequest, lab: Lab) -> Service:
    """A service with so many threads from the start to the end."""
    return Service(lab, f"--fp-cores-max={request.param}", "--fp-no-autoscale")


def flows(service: Service) -> list[int]:
    return [core["flows"] for core in service.ask(What.STATS)["cores"]]


def test_threads_share_accepted_connections(lab: Lab, fixed: Service) -> None:
    assert threads(fixed) == [f"tas-fp-{n}" for n in range(1, len(flows(fixed)))]
    _, port = lab.echoserver()
    conns = [lab.peer.connect(TAS_ADDR, port) for _ in range(64)]
    for n, c in enumerate(conns):
        c.sendall(b"%d" % n)
    for n, c in enumerate(conns):
        assert c.recv(100) == b"%d" % n
    has = flows(fixed)
    assert sum(has) == 64, has
    assert min(has) >= 4, has
    before = fixed.counters()["rx_steered"]
    with fixed.carried(tcp_in=4000, bytes_in=4000 * 64):
        assert lab.rpc(port, "-c", "64", "-n", "4000")["requests"] == 4000
    # a tap gives packets of a connection to the queue that sends for it: only its first ones come elsewhere
    assert 0 < fixed.counters()["rx_steered"] - before < 1500
    segments = [core["segments"] for core in fixed.ask(What.STATS)["cores"]]
    assert min(segments) > 100, segments
    for c in conns:
        c.close()
    until("no connections are left", lambda: not any(flows(fixed)))


def veth(lab: Lab) -> None:
    """An Ethernet between the namespaces."""
    lab.app.ip("link", "add", "veth0", "type", "veth", "peer", "name", "veth0", "netns", lab.peer.name)
    for ns in (lab.app, lab.peer):
        ns.ip("link", "set", "veth0", "up")
    lab.peer.ip("addr", "add", f"{PEER_ADDR}/24", "dev", "veth0")
    lab.peer.run("ethtool", "-K", "veth0", "tx", "off", "tso", "off", "gso", "off")


def serve(lab: Lab, link: str, *options: str) -> Service:
    try:
        return Service(lab, f"--link={link}:veth0", f"--ip-addr={TAS_ADDR}/24", *options, link=False)
    except AssertionError:
        lab.service = None
        if link == "af_xdp":
            pytest.skip("no AF_XDP sockets on this machine")
        raise


@pytest.mark.parametrize("link", ["af_packet", "af_xdp"])
def test_an_interface_is_shared(lab: Lab, link: str) -> None:
    """One queue, or one channel of the interface: the first thread receives for all."""
    veth(lab)
    service = serve(lab, link, "--fp-cores-max=3", "--fp-no-autoscale")
    _, port = lab.echoserver()
    assert lab.rpc(port, "-c", "48", "-n", "4000")["requests"] == 4000
    stats = service.ask(What.STATS)
    assert stats["counters"]["rx_steered"] > 1000
    assert min(core["segments"] for core in stats["cores"]) > 200
    assert [core["received"] for core in stats["cores"]][1:] == [0, 0]


FLOOD = """
import random, socket, struct, sys
s = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_TCP)
for _ in range(int(sys.argv[2])):
    s.sendto(struct.pack("!HHIIBBHHH", random.randrange(65536), 9, 0, 0, 0x50, 0x10, 100, 0, 0), (sys.argv[1], 0))
"""


@contextlib.contextmanager
def stopped(tid: int) -> Iterator[None]:
    """One thread of another process stands still."""
    seize, interrupt, detach, wall = 0x4206, 0x4207, 17, 0x40000000
    libc = ctypes.CDLL(None, use_errno=True)
    libc.ptrace.argtypes = [ctypes.c_long] * 4

    def ptrace(request: int) -> None:
        if libc.ptrace(request, tid, 0, 0) < 0:
            raise OSError(ctypes.get_errno(), f"ptrace {request:#x}")

    ptrace(seize)
    ptrace(interrupt)
    os.waitpid(tid, wall)
    try:
        yield
    finally:
        ptrace(detach)


def test_packets_for_a_thread_that_is_behind_are_dropped_and_counted(lab: Lab) -> None:
    service = Service(lab, "--fp-cores-max=2", "--fp-no-autoscale")
    _, port = lab.echoserver()
    lab.rpc(port, "-c", "8", "-n", "100")
    tasks = Path(f"/proc/{service.pid}/task").glob("*/comm")
    second = next(int(p.parent.name) for p in tasks if p.read_text() == "tas-fp-1\n")
    time.sleep(0.2)  # it sleeps: core 0 does not wait for it
    with stopped(second):
        lab.start(lab.peer, "/usr/bin/python3", lab.script(FLOOD), TAS_ADDR, "12000").wait(30)
        until("its ring is full", lambda: service.counters()["rx_steer_dropped"] > 0, 10)
        assert service.counters()["rx_steered"] >= 1024
    assert lab.rpc(port, "-c", "32", "-n", "2000")["requests"] == 2000


def test_threads_share_connections_that_programs_open(lab: Lab, fixed: Service) -> None:
    server = lab.kernel(BUILD / "echoserver", "--port=0")
    port = str(server.listening())
    client = lab.tas(BUILD / "rpcclient", "-j", "-c", "64", "-T", "2", PEER_ADDR, port)
    until("every thread has some", lambda: min(flows(fixed)) >= 4, 10)
    assert client.json()["connects"] == 64
    short = lab.tas(BUILD / "rpcclient", "-j", "-r", "-c", "16", "-n", "500", PEER_ADDR, port).json()
    assert short["connects"] >= 500


def test_a_killed_programs_connections_end_on_every_thread(lab: Lab, fixed: Service) -> None:
    server, port = lab.echoserver()
    conns = [lab.peer.connect(TAS_ADDR, port) for _ in range(32)]
    for c in conns:
        c.sendall(b"x")
        assert c.recv(1) == b"x"
    server.signal(signal.SIGKILL)
    for c in conns:
        assert c.recv(1) == b""
        c.close()
    server.wait()
    until("no sockets are left", lambda: not fixed.gauges()["sockets"] and not any(flows(fixed)))


def test_peers_hear_of_a_service_that_ends(lab: Lab, fixed: Service) -> None:
    _, port = lab.echoserver()
    conns = [lab.peer.connect(TAS_ADDR, port) for _ in range(32)]
    for c in conns:
        c.sendall(b"x")
        assert c.recv(1) == b"x"
    fixed.finish(check=False)
    for c in conns:
        with pytest.raises(ConnectionResetError):
            c.recv(1)
        c.close()


def test_an_idle_service_has_one_thread_and_rests(lab: Lab) -> None:
    service = Service(lab, "--fp-cores-max=4")
    if "--fp-no-autoscale" in service.options:
        pytest.skip("TAS_TEST_SERVICE keeps all threads")
    assert threads(service) == []
    _, port = lab.echoserver()
    assert lab.rpc(port, "-c", "16", "-n", "200")["requests"] == 200
    time.sleep(0.2)
    before = psutil.Process(service.pid).cpu_times()
    time.sleep(2)
    after = psutil.Process(service.pid).cpu_times()
    assert after.user + after.system - before.user - before.system <= 0.03


def test_idle_threads_sleep(lab: Lab, fixed: Service) -> None:
    _, port = lab.echoserver()
    conns = [lab.peer.connect(TAS_ADDR, port) for _ in range(16)]
    time.sleep(2.5)  # rings that nobody uses are given back in the meantime
    before = psutil.Process(fixed.pid).cpu_times()
    time.sleep(2)
    after = psutil.Process(fixed.pid).cpu_times()
    assert after.user + after.system - before.user - before.system <= 0.03
    for c in conns:
        c.sendall(b"x")
        assert c.recv(1) == b"x"
        c.close()


def test_local_connections_become_direct_beside_traffic_over_the_link(lab: Lab, fixed: Service) -> None:
    """Both ends move into memory that they share while other threads work."""
    _, port = lab.echoserver()
    beside = lab.kernel(BUILD / "rpcclient", "--json", "-c", "32", "-T", "2", TAS_ADDR, str(port))
    with fixed.carried(conn_direct=64, tcp_in=1000):
        for _ in range(4):
            local = lab.tas(BUILD / "rpcclient", "-j", "-c", "16", "-n", "8000", "127.0.0.1", str(port)).json()
            assert local["requests"] == 8000
        assert beside.json()["requests"] > 100


def task(service: Service, name: str) -> int:
    tasks = Path(f"/proc/{service.pid}/task").glob("*/comm")
    return next(int(p.parent.name) for p in tasks if p.read_text() == f"{name}\n")


def test_who_came_in_time_is_let_in_though_a_thread_sleeps(lab: Lab) -> None:
    """SYNs wait in the queue of a thread that does not run, while core 0 gives away the one place."""
    service = Service(lab, "--fp-cores-max=2", "--fp-no-autoscale")
    server = lab.tas_python(
        """
import socket, time
l = socket.socket()
l.bind(("0.0.0.0", 0))
l.listen(0)
print(f"listening on 0.0.0.0:{l.getsockname()[1]}")
time.sleep(60)
"""
    )
    port = server.listening()
    with pytest.raises(ConnectionRefusedError):  # neighbours know each other
        lab.peer.connect(TAS_ADDR, 9)
    clients = [lab.peer.tcp_socket() for _ in range(32)]
    time.sleep(0.2)  # both sleep: neither is waited for
    with stopped(task(service, "tas-fp-1")):
        with stopped(service.pid):
            for c in clients:
                c.setblocking(False)
                assert c.connect_ex((TAS_ADDR, port)) == errno.EINPROGRESS
        until("the place is taken", lambda: service.counters()["conn_passive"] == 1, 0.5)
    wanted = select.poll()
    for c in clients:
        wanted.register(c, select.POLLOUT)
    until("all are answered, before a SYN is repeated", lambda: len(wanted.poll(0)) == len(clients), 0.4)
    assert service.gauges()["embryos"] == len(clients) - 1
    server.kill()
    until("nobody is left", lambda: not service.gauges()["embryos"])
    for c in clients:
        c.close()


@contextlib.contextmanager
def idle_processors(path: Path) -> Iterator[tuple[str, ...]]:
    """What puts a /proc/stat before a program by which processors are idle: so threads come on a busy machine, too."""
    cpus = sorted(os.sched_getaffinity(0))
    over = threading.Event()

    def say() -> None:
        ticks = int(time.monotonic() * 100)
        text = "".join(f"cpu{n} 0 0 0 {ticks:020} 0 0 0 0 0 0\n" for n in cpus)
        with open(path, "r+b" if path.exists() else "wb") as f:
            f.write(text.encode())

    def go_on() -> None:
        while not over.wait(0.01):
            say()

    say()
    thread = threading.Thread(target=go_on)
    thread.start()
    try:
        yield "unshare", "--mount", "sh", "-c", f'mount --bind {path} /proc/stat && exec "$@"', "sh"
    finally:
        over.set()
        thread.join()


def exactly(c: socket.socket, n: int) -> bytes:
    """The next n bytes, fewer at the end."""
    got = b""
    while len(got) < n and (more := c.recv(n - len(got))):
        got += more
    return got


class Trickle(threading.Thread):
    """Connections that carry a little all the time; every byte that comes back is compared."""

    def __init__(self, conns: list[socket.socket]) -> None:
        super().__init__()
        self.conns, self.rounds, self.wrong = conns, 0, ""
        self.over = threading.Event()
        self.start()

    def run(self) -> None:
        try:
            while not self.over.wait(0.02):
                data = [os.urandom(1 + (self.rounds * 37 + i * 211) % 4000) for i in range(len(self.conns))]
                for c, d in zip(self.conns, data, strict=True):
                    c.sendall(d)
                for c, d in zip(self.conns, data, strict=True):
                    assert exactly(c, len(d)) == d
                self.rounds += 1
        except (AssertionError, OSError) as e:
            self.wrong = repr(e)

    def end(self) -> int:
        self.over.set()
        self.join()
        assert not self.wrong, self.wrong
        for c in self.conns:
            c.close()
        return self.rounds


def load_until(lab: Lab, service: Service, port: int, condition: Callable[[], bool]) -> None:
    """Until then, load over the link, and a service that is stopped in the midst of work as on a busy machine."""
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end, "load does not bring another thread"
        load = lab.kernel(BUILD / "rpcclient", "-c", "64", "-d", "32", "-1", "-T", "1", TAS_ADDR, str(port))
        while load.alive and not condition():
            for _ in range(30):
                service.popen.send_signal(signal.SIGSTOP)
                time.sleep(0.008)
                service.popen.send_signal(signal.SIGCONT)
                time.sleep(0.001)
        load.ok()


LOCAL = """
import os, socket, sys, time
conns = [socket.create_connection(("127.0.0.1", int(sys.argv[1]))) for _ in range(8)]
n = 0
while not os.path.exists(sys.argv[2]):
    data = [os.urandom(1 + (n * 41 + i * 199) % 5000) for i in range(len(conns))]
    for c, d in zip(conns, data): c.sendall(d)
    for c, d in zip(conns, data): assert c.recv(len(d), socket.MSG_WAITALL) == d
    n += 1
    time.sleep(0.005)
print("rounds", n)
"""


@pytest.mark.parametrize("times", [4, pytest.param(40, marks=pytest.mark.full)])
@pytest.mark.timeout(400)
def test_threads_come_and_go_while_connections_carry_data(lab: Lab, times: int) -> None:
    """Load and rest in turn; connections over the link and local ones live through it; programs die in between."""
    with idle_processors(lab.tmp / "stat") as via:
        service = Service(lab, "--fp-cores-max=3", via=via)
        if "--fp-no-autoscale" in service.options:
            pytest.skip("TAS_TEST_SERVICE keeps all threads")

        def running() -> int:
            return sum(core["running"] for core in service.ask(What.STATS)["cores"])

        _, port = lab.echoserver("--threads=2")
        trickle = Trickle([lab.peer.connect(TAS_ADDR, port) for _ in range(24)])
        over = lab.tmp / "over"
        local = lab.tas_python(LOCAL, str(port), str(over))
        for _ in range(times):
            until("one thread is enough", lambda: running() == 1, 30)
            doomed, other = lab.echoserver()
            beside = lab.kernel(BUILD / "rpcclient", "-c", "16", "-T", "300", TAS_ADDR, str(other))
            load_until(lab, service, port, lambda: running() > 1)
            doomed.signal(signal.SIGKILL)
            assert beside.wait(20) == 1
            assert re.search("end of stream|reset", beside.err), beside.err
            assert local.alive
            assert not trickle.wrong, trickle.wrong
        until("all but one go", lambda: running() == 1, 30)
        over.touch()
        assert int(local.ok().split()[1]) > 20 * times
        assert trickle.end() > 10 * times
