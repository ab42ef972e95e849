"""Programs that misbehave, and deaths at bad moments: others must not notice, and nothing may stay behind."""

from __future__ import annotations

import contextlib
import os
import random
import re
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from _lab import BUILD, KERNEL_ONLY, PEER_ADDR, TAS_ADDR, Lab, Proc, until

FASTPATH = Path(__file__).resolve().parent.parent / "fastpath"
pytestmark = pytest.mark.skipif(KERNEL_ONLY, reason="about shared memory and the service")

LAYOUT_C = """
#include <stddef.h>
#include <stdio.h>
#include "abi/tas_abi.h"
#define SAY(name, at) printf("%s = %zu\\n", name, (size_t)(at))
int main(void)
{
	SAY("REGION_MAIL", offsetof(struct tas_region, core[0].mail));
	SAY("REGION_DIRTY", offsetof(struct tas_region, core[0].dirty));
	SAY("REGION_SLEEPING", offsetof(struct tas_region, ws[0].sleeping));
	SAY("REGION_MAILS", offsetof(struct tas_region, mail));
	SAY("MAIL_SIZE", sizeof(struct tas_mail));
	SAY("MAILS", TAS_MAILS);
	SAY("WS_SIZE", sizeof(struct tas_ws));
	SAY("WS_MAX", TAS_WS_MAX);
	SAY("WS_THREADS", TAS_WS_BITMAPS);
	SAY("BLOCK_A", offsetof(struct tas_block, a));
	SAY("BLOCK_C", offsetof(struct tas_block, c));
	SAY("BLOCK_SUBS", offsetof(struct tas_block, c.subs));
}
"""


def layout() -> str:
    """Where things lie in what programs share with the service, as lines of Python, from the header itself."""
    with tempfile.TemporaryDirectory() as d:
        binary = f"{d}/layout"
        compiler = ["cc", "-std=gnu11", f"-I{FASTPATH}", "-x", "c", "-", "-o", binary]
        subprocess.run(compiler, input=LAYOUT_C, text=True, check=True)
        return subprocess.run([binary], capture_output=True, text=True, check=True).stdout


# What every hostile program begins with: system calls past the interposer (which protects the library's descriptors),
# and addresses in what it shares with the service (fastpath/abi/tas_abi.h).
RAW = (
    layout()
    + """
import ctypes, mmap, os, re
_code = mmap.mmap(-1, 4096, prot=7)
_code.write(bytes.fromhex("4889f84889f74889d64889ca4d89c24d89c84c8b4c24080f05c3"))
_raw = ctypes.CFUNCTYPE(ctypes.c_long, *[ctypes.c_long] * 6)(ctypes.addressof(ctypes.c_char.from_buffer(_code)))
def syscall(n, a=0, b=0, c=0): return _raw(n, a, b, c, 0, 0)
U16, U32, U64 = ctypes.c_uint16, ctypes.c_uint32, ctypes.c_uint64
WRITE, CLOSE, MADVISE, FCNTL = 1, 3, 28, 72
def shared(kind):
    lines = open("/proc/self/maps").read().splitlines()
    found = [re.match(r"([0-9a-f]+)-([0-9a-f]+) rw-s .*memfd:tas-" + kind, line) for line in lines]
    return [(int(m[1], 16), int(m[2], 16)) for m in found if m]
def blocks():
    return [b for at, end in shared("chunk") for b in range(at, min(end, at + (1 << 20)), 512)
            if U32.from_address(b).value and U32.from_address(b + 44).value == 2 << 16]  # in use, core 0, AF_INET
def eventfds():
    link = "/proc/self/fd/%s"
    return [int(f) for f in sorted(os.listdir("/proc/self/fd"), key=int)
            if os.path.lexists(link % f) and os.readlink(link % f) == "anon_inode:[eventfd]"]
def write_eventfd(fd, n): syscall(WRITE, fd, ctypes.addressof(U64(n)), 8)
"""
)

SCRIBBLE = (
    RAW
    + """
import random, select, signal, socket, sys, threading, time
peer, port, mode, seed = sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4])
r = random.Random(seed)
l = socket.create_server(("0.0.0.0", 0), backlog=64)
conns = []
for n in range(20):
    conns.append(socket.create_connection(("127.0.0.1", l.getsockname()[1])))
    if n % 3:  # the others stay in the accept queue
        conns.append(l.accept()[0])
    conns.append(socket.create_connection((peer, port)))
ep = select.epoll()
for c in conns:
    c.setblocking(False)
    ep.register(c, select.EPOLLIN)
ep.poll(0)
def traffic():
    while True:
        for c in conns:
            for call in (lambda: c.send(b"x" * r.randrange(1, 50000)), lambda: c.recv(10000)):
                try: call()
                except OSError: pass
        time.sleep(0.001)
threading.Thread(target=traffic, daemon=True).start()
time.sleep(0.1)
chunks, region, all_blocks, doors = shared("chunk"), shared("region")[0], blocks(), eventfds()
ids = sorted({U32.from_address(b + 40).value for b in all_blocks})
def nonsense():
    return r.choice((r.getrandbits(64), r.getrandbits(32), r.getrandbits(8), 0, 2**64 - 1, 1 << r.randrange(64)))
def put(at): U64.from_address(at).value = nonsense()
def near(at):
    U64.from_address(at).value = U64.from_address(at).value + r.choice((1, -1, 4096, -4096, 1 << 20)) & 2**64 - 1
def hint():
    dirty = region[0] + REGION_DIRTY
    for i in r.sample(ids, min(3, len(ids))):
        U64.from_address(dirty + 640 + (i >> 6) * 8).value |= 1 << (i & 63)
        U64.from_address(dirty + 128 + (i >> 12) * 8).value |= 1 << (i >> 6 & 63)
        U64.from_address(dirty).value |= 1 << (i >> 12)
    for d in doors: write_eventfd(d, 1)
def counters():
    at = r.choice(all_blocks) + BLOCK_A + 8 * r.randrange(11)
    put(at) if r.random() < 0.5 else near(at)
def waiters(): U32.from_address(r.choice(all_blocks) + BLOCK_C + 4 * r.randrange(12)).value = r.choice(
    (r.getrandbits(32), r.randrange(8) << 16 | r.randrange(2050)))
def state(): put(r.choice(all_blocks) + 8 * r.randrange(32))
def hints():
    put(region[0] + 8 * r.randrange((region[1] - region[0]) // 8))
    for _ in range(20): put(region[0] + 8 * r.randrange(0x9000 // 8))
def payload(): put(chunks[0][0] + 8 * r.randrange(1 << 17))  # the first MiB: blocks, accept queue, rings
def punch():
    for at, end in [*chunks, region]: syscall(MADVISE, at, end - at, 9)  # MADV_REMOVE
def mail():  # names of backing sockets are small numbers
    for _ in range(20):
        at = region[0] + REGION_MAILS + MAIL_SIZE * r.randrange(MAILS)
        for word in range(32): U32.from_address(at + 4 * word).value = nonsense() & 0xffffffff
        U32.from_address(at).value = r.choice((0, 1, 2, 2, 2, 2, 3, 77))
        U32.from_address(at + 8).value = r.randrange(70)
        if r.random() < 0.7:  # an address that may be somebody's
            U16.from_address(at + 16).value = 2
            U16.from_address(at + 18).value = r.choice((socket.htons(port), socket.htons(l.getsockname()[1]), 0, 80))
            U32.from_address(at + 24).value = r.choice((0, 0x100007f, 0xffffffff, r.getrandbits(32)))
    U64.from_address(region[0] + REGION_MAIL).value |= r.getrandbits(64)
kinds = {f.__name__: f for f in (counters, waiters, state, hints, payload, punch, mail)}
print("scribbling", flush=True)
end = time.monotonic() + 1
while time.monotonic() < end:
    (kinds[mode] if mode in kinds else r.choice([*kinds.values()]))()
    hint()
    time.sleep(0)
if mode == "session":
    for f in os.listdir("/proc/self/fd"):
        if int(f) > 500: syscall(CLOSE, int(f))
os._exit(0) if seed % 2 else os.kill(os.getpid(), signal.SIGKILL)
"""
)


@pytest.fixture
def sink(tas: Lab) -> Iterator[int]:
    """A server of the kernel's that takes what comes."""
    listener = tas.peer.tcp_socket(timeout=0)
    listener.bind((PEER_ADDR, 0))
    listener.listen(1000)
    listener.settimeout(None)

    def take(c: socket.socket) -> None:
        try:
            while c.recv(65536):
                pass
        except OSError:
            pass
        c.close()

    def accept() -> None:
        while True:
            try:
                c, _ = listener.accept()
            except OSError:
                return
            c.settimeout(None)
            threading.Thread(target=take, args=(c,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    yield listener.getsockname()[1]
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()


def others_go_on(lab: Lab, port: int) -> None:
    """An honest server is served as if the hostile program were not there."""
    found = lab.rpc(port, "-c", "4", "-T", "1", "--stall=5")
    assert found["requests"] > 500
    assert found["latency_us"]["max"] < 1e6


def finish(p: Proc) -> None:
    """What it does to itself is its own business, even to hang."""
    end = time.monotonic() + 3
    while p.alive and time.monotonic() < end:
        time.sleep(0.05)
    p.kill()


@pytest.mark.parametrize(
    "mode",
    ["counters", "waiters", "state", "hints", "payload", "punch", "mail", "session", "everything", "everything again"],
)
def test_a_program_that_scribbles_over_what_it_shares_harms_only_itself(tas: Lab, sink: int, mode: str) -> None:
    assert tas.service
    _, port = tas.echoserver()
    tas.rpc(port, "-n", "10")  # the server has what it needs for waiting
    until("the server has closed", lambda: tas.service and tas.service.gauges()["sockets"] == 1)
    before = tas.service.gauges()
    p = tas.tas_python(SCRIBBLE, PEER_ADDR, str(sink), mode, str(len(mode)))
    p.line("scribbling")
    others_go_on(tas, port)
    finish(p)
    base, tas.service.base = tas.service.base, before
    tas.service.settled()
    tas.service.base = base


BLOCKING_WAKE = (
    RAW
    + """
import select, socket, time
l = socket.create_server(("127.0.0.1", 0))
c = socket.create_connection(l.getsockname())
a, _ = l.accept()
ep = select.epoll()
ep.register(a, select.EPOLLIN)
ep.poll(0)
p = select.poll()
p.register(a, select.POLLIN)
p.poll(1)
region = shared("region")[0][0]
for fd in eventfds()[1:]:  # the first is the doorbell
    syscall(FCNTL, fd, 4, syscall(FCNTL, fd, 3) & ~os.O_NONBLOCK)
    write_eventfd(fd, 2**64 - 2)
slot = U32.from_address(region + 16).value
for b in blocks():
    for k, ws in enumerate((0, WS_THREADS)): U32.from_address(b + BLOCK_SUBS + 4 * k).value = slot << 16 | ws + 1
for i in range(WS_MAX): U32.from_address(region + REGION_SLEEPING + i * WS_SIZE).value = 1
c.send(b"x")
print("sent", flush=True)
time.sleep(2)
"""
)


def test_a_wake_descriptor_that_would_block_does_not_hold_the_service_up(tas: Lab) -> None:
    assert tas.service
    _, port = tas.echoserver()
    p = tas.tas_python(BLOCKING_WAKE)
    p.line("sent")
    others_go_on(tas, port)
    assert "made its wake descriptor block" in tas.service.log()
    finish(p)


def test_nor_does_one_of_another_user(public_tas: Lab) -> None:
    """Its wakes cannot wait at all: nothing is noticed, and nobody waits."""
    tas = public_tas
    assert tas.service
    _, port = tas.echoserver()
    drop = "os.setgroups([]); os.setresgid(12345, 12345, 12345); os.setresuid(12345, 12345, 12345)"
    p = tas.tas_python(f"import os\n{drop}\n{BLOCKING_WAKE}")
    p.line("sent")
    others_go_on(tas, port)
    assert "made its wake descriptor block" not in tas.service.log()
    finish(p)


# ---- death of the service ----
BLOCKED = """
import errno, os, select, socket, sys, threading, time
peer, port = sys.argv[1], int(sys.argv[2])
done, wanted, keep = {}, [], []
def start(label, f):
    wanted.append(label)
    def run():
        try: done[label] = repr(f())
        except OSError as e: done[label] = errno.errorcode[e.errno]
    threading.Thread(target=run, daemon=True).start()
def polled(s, events, timeout=None):
    p = select.poll()
    p.register(s, events)
    return p.poll(timeout)
def epolled(s, events):
    p = select.epoll()
    p.register(s, events)
    return p.poll()
def fill(s):
    while True: s.sendall(bytes(100000))
def timed(s):
    s.settimeout(60)
    return s.recv(1)
def half_closed(s):
    s.shutdown(socket.SHUT_WR)
    return s.recv(1)
ways = {
    "recv": lambda s: s.recv(1), "peek": lambda s: s.recv(1, socket.MSG_PEEK),
    "all": lambda s: s.recv(9, socket.MSG_WAITALL), "send": fill, "timed": timed, "half closed": half_closed,
    "poll": lambda s: polled(s, select.POLLIN), "poll, timed": lambda s: polled(s, select.POLLIN, 60000),
    "epoll": lambda s: epolled(s, select.EPOLLIN), "edge": lambda s: epolled(s, select.EPOLLIN | select.EPOLLET),
    "rdhup": lambda s: polled(s, select.POLLRDHUP), "select": lambda s: select.select([s], [], []),
}
for link in (True, False):
    for label, way in ways.items():
        if link and label == "half closed":
            continue  # the server would close as well
        if link:
            c = socket.create_connection((peer, port))
        else:
            l = socket.create_server(("127.0.0.1", 0))
            c = socket.create_connection(l.getsockname())
            keep.append(l.accept())
            l.close()
        keep.append(c)
        start(("link " if link else "local ") + label, lambda c=c, way=way: way(c))
def connecting():
    s = socket.socket()
    keep.append(s)
    s.connect(("10.77.0.99", 9))
start("connect", connecting)
full = socket.create_server(("127.0.0.1", 0), backlog=0)
def queued():
    s = socket.socket()
    keep.append(s)
    s.connect(full.getsockname())
    s.recv(1)
for n in range(3): start(f"connect to a full queue {n}", queued)
# listeners go on
def serve(l, wait):
    while True:
        wait(l)
        c, _ = l.accept()
        with c: c.sendall(b"ok")
for wait in (lambda l: None, lambda l: polled(l, select.POLLIN), lambda l: select.select([l], [], []),
             lambda l: epolled(l, select.EPOLLIN)):
    l = socket.create_server(("0.0.0.0", 0))
    keep.append(l)
    threading.Thread(target=serve, args=(l, wait), daemon=True).start()
    print(f"port {l.getsockname()[1]}", flush=True)
time.sleep(0.3)
assert not done, done
print("blocked", flush=True)
end = time.monotonic() + 30
while time.monotonic() < end and len(done) < len(wanted): time.sleep(0.01)
print("left", [w for w in wanted if w not in done], flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_nobody_hangs_when_the_service_ends_and_listeners_register_with_the_next(
    tas: Lab, sink: int, number: int
) -> None:
    service = tas.service
    assert service
    _, port = tas.echoserver("--threads=2")
    tas.kernel(BUILD / "rpcclient", "-c", "4", "-T", "30", "--stall=0", TAS_ADDR, str(port))
    local = tas.tas(BUILD / "rpcclient", "-c", "4", "-T", "30", "--stall=0", "127.0.0.1", str(port))
    p = tas.tas_python(BLOCKED, PEER_ADDR, str(sink))
    p.line("^blocked")
    ports = [int(n) for n in re.findall(r"^port (\d+)", p.out, re.M)]
    time.sleep(random.random() * 0.2)
    service.popen.send_signal(number)
    service.popen.wait(10)
    service.pid = 0
    killed = time.monotonic()
    assert p.line("^left (.*)")[1] == "[]"
    assert time.monotonic() - killed < 3
    local.wait(5)
    for n in ports:  # their kernel halves
        with tas.app.connect("127.0.0.1", n, 5) as c:
            assert c.recv(2) == b"ok"
    until("the tap of the service is gone", lambda: service.tap not in tas.peer.ip("link"), 10)
    service.start()
    until("the listeners are registered", lambda: service.gauges()["listeners"] == len(ports) + 1, 3)
    for n in ports:
        with tas.peer.connect(TAS_ADDR, n, 5) as c:
            assert c.recv(2) == b"ok"
    tas.end_programs()
    service.base = {k: v for k, v in service.base.items() if k in ("processes", "sockets", "listeners")}


# ---- load, processes ----
SENDERS = """
import socket, sys, time
conns = [socket.create_connection((sys.argv[1], int(sys.argv[2]))) for _ in range(20)]
for c in conns: c.setblocking(False)
print("sending", flush=True)
end = time.monotonic() + 4
while time.monotonic() < end:
    for c in conns:
        try: c.send(bytes(10000))
        except BlockingIOError: pass
"""


def test_many_bulk_senders_leave_room_for_what_comes_in(tas: Lab, sink: int) -> None:
    """Acknowledgements and requests must not be lost at the tap because the service is busy sending."""
    assert tas.service
    _, port = tas.echoserver()
    senders = tas.tas_python(SENDERS, PEER_ADDR, str(sink))
    senders.line("sending")
    found = tas.rpc(port, "-c", "4", "-T", "3", "--stall=10")
    assert found["latency_us"]["p99"] < 100e3, found
    senders.ok()
    link = tas.peer.ip("-s", "-s", "-j", "link", "show", tas.service.tap)
    dropped = re.search(r'"tx":.*?"dropped":(\d+)', link)
    assert dropped
    assert int(dropped[1]) < 1000


FORKS = """
import os, socket, subprocess, threading
l = socket.create_server(("127.0.0.1", 0), backlog=64)
pairs = []
for _ in range(50):
    c = socket.create_connection(l.getsockname())
    pairs.append((c, l.accept()[0]))
for n in range(300):
    pid = os.fork()
    if pid == 0:
        c, a = pairs[n % 50]
        c.sendall(b"%4d" % n)
        os._exit(a.recv(4) != b"%4d" % n)
    assert os.waitpid(pid, 0)[1] == 0
stop, wrong = False, []
def echo(c, a):
    while not stop:
        c.sendall(b"x")
        if a.recv(1) != b"x": wrong.append(1)
threads = [threading.Thread(target=echo, args=p) for p in pairs[:4]]
for t in threads: t.start()
kids = []
for n in range(60):
    pid = os.fork()
    if pid == 0:
        c, a = pairs[10 + n % 20]
        c.sendall(b"k")
        os._exit(a.recv(1) != b"k")
    kids.append(pid)
for k in kids: assert os.waitpid(k, 0)[1] == 0
for n in range(30):
    subprocess.run(["/bin/true"], check=True, close_fds=bool(n % 2))
    assert os.waitpid(os.posix_spawn("/bin/true", ["true"], os.environ), 0)[1] == 0
stop = True
for t in threads: t.join()
assert not wrong
"""


def test_a_storm_of_forks_with_open_connections(tas: Lab) -> None:
    assert tas.service
    tas.tas_python(FORKS).ok()
    tas.service.settled()


STOPPABLE = """
import os, signal, socket
l = socket.create_server(("0.0.0.0", 0), backlog=256)
kids = []
for _ in range(3):
    pid = os.fork()
    if pid == 0:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        while True:
            c, _ = l.accept()
            try:
                while data := c.recv(65536): c.sendall(data)
            except ConnectionResetError: pass  # a client went with an answer unread
            c.close()
    kids.append(pid)
def stop(*_):
    for k in kids: os.kill(k, signal.SIGCONT); os.kill(k, signal.SIGTERM)
    os._exit(0)
signal.signal(signal.SIGTERM, stop)
print("workers", *kids, flush=True)
print(f"listening on 0.0.0.0:{l.getsockname()[1]}", flush=True)
while True: signal.pause()
"""


def test_a_worker_stopped_at_any_moment_delays_no_other_of_its_family(tas: Lab) -> None:
    server = tas.tas_python(STOPPABLE)
    port = server.listening()
    workers = [int(n) for n in re.findall(r"\d+", server.line("workers (.*)")[1])]
    for n in range(30):
        first = tas.peer.connect(TAS_ADDR, port)
        first.sendall(b"a" * 20000)  # somebody is at work
        time.sleep(random.random() * 0.002)
        os.kill(workers[n % 3], signal.SIGSTOP)
        begun = time.monotonic()
        with tas.peer.connect(TAS_ADDR, port, 5) as c, tas.peer.connect(TAS_ADDR, port, 5) as d:
            answered = 0
            for s in (c, d):  # one of them may be in the hands of the stopped worker
                s.settimeout(0.5)
                s.sendall(b"hello")
                with contextlib.suppress(TimeoutError):
                    answered += s.recv(5) == b"hello"
            assert answered >= 1
            assert time.monotonic() - begun < 2
            os.kill(workers[n % 3], signal.SIGCONT)
            got = b""
            while len(got) < 20000:
                got += first.recv(65536)
            first.close()
