"""Direct connections to a program that means harm: only what it shares is its to break."""

from __future__ import annotations

import re
import signal
import time

import pytest
from _direct import BACK_AND_FORTH, direct
from _lab import KERNEL_ONLY, Lab, until
from _puppet import Puppet
from test_hostile import FASTPATH, RAW, finish

pytestmark = pytest.mark.skipif(KERNEL_ONLY, reason="about shared memory and the service")

WILD = (
    RAW
    + """
import random, socket, sys, threading, time
port, mode, seed = int(sys.argv[1]), sys.argv[2], int(sys.argv[3])
r = random.Random(seed)
conns = [socket.create_connection(("127.0.0.1", port)) for _ in range(8)]
for c in conns: c.settimeout(5)
for _ in range(60):
    for c in conns: c.sendall(b"x" * 64)
    for c in conns: c.recv(64)
for c in conns: c.setblocking(False)
all_blocks = blocks()
chunks = shared("chunk")
print("scribbling", flush=True)
def nonsense():
    return r.choice((r.getrandbits(64), r.getrandbits(32), r.getrandbits(8), 0, 2**64 - 1, 1 << r.randrange(64)))
def put(at): U64.from_address(at).value = nonsense()
def near(at):
    U64.from_address(at).value = U64.from_address(at).value + r.choice((1, -1, 4096, -4096, 1 << 20)) & 2**64 - 1
def counters():
    at = r.choice(all_blocks) + r.choice((0, BLOCK_A)) + 8 * r.randrange(16)
    put(at) if r.random() < 0.5 else near(at)
def extents():
    at = r.choice(all_blocks) + 128 + 8 * r.randrange(16)
    put(at) if r.random() < 0.3 else near(at)
def locks(): U32.from_address(r.choice(all_blocks) + BLOCK_C + 4 * r.randrange(32)).value = nonsense() & 0xffffffff
def everything():
    at = r.choice(all_blocks) + 8 * r.randrange(64)
    put(at) if r.random() < 0.5 else near(at)
def memory():  # bells, rings, too
    lo, hi = r.choice(chunks)
    put(lo + 8 * r.randrange(min(hi - lo, 1 << 18) // 8))
kinds = {f.__name__: f for f in (counters, extents, locks, everything, memory)}
def traffic():
    while True:
        for c in conns:
            for call in (lambda: c.send(b"x" * r.randrange(1, 5000)), lambda: c.recv(10000)):
                try: call()
                except OSError: pass
for _ in range(4): threading.Thread(target=traffic, daemon=True).start()  # it may hang itself
end = time.monotonic() + 1.5
while time.monotonic() < end:
    for _ in range(r.randrange(20)): kinds[mode]()
    time.sleep(0)
print("done", flush=True)
os._exit(0)
"""
)
# Echoes to many; says when it was away for long.  Connections of the hostile program may do anything but hold it up.
HONEST = """
import select, socket, time
l = socket.create_server(("127.0.0.1", 0), backlog=100)
l.setblocking(False)
print("listening on 127.0.0.1:%d" % l.getsockname()[1], flush=True)
e, conns = select.epoll(), {}
e.register(l, 1)
while True:
    events = e.poll(1)
    begun = time.monotonic()
    for fd, what in events:
        if fd == l.fileno():
            try: c, _ = l.accept()
            except BlockingIOError: continue
            c.setblocking(False)
            conns[c.fileno()] = c
            e.register(c, 1)
            continue
        c = conns[fd]
        try:
            b = c.recv(65536)
            if b: c.send(b)
        except BlockingIOError: continue
        except OSError: b = b""
        if not b:
            e.unregister(fd); conns.pop(fd).close()
    if time.monotonic() - begun > 3: print("away", time.monotonic() - begun, flush=True)
"""


@pytest.mark.parametrize("mode", ["counters", "extents", "locks", "everything", "memory"])
def test_a_hostile_peer_harms_only_its_own_connections(local_tas: Lab, mode: str) -> None:
    """What it can reach is what the two share; a third program's connection to the same server goes on."""
    assert local_tas.service
    server = local_tas.tas_python(HONEST)
    port = server.listening()
    good = Puppet(local_tas)
    good(f"c = socket.create_connection(('127.0.0.1', {port})); c.settimeout(10)")
    good(BACK_AND_FORTH)
    good("client()")
    assert direct(local_tas) == 2
    with local_tas.service.carried(conn_direct=8):
        bad = local_tas.tas_python(WILD, str(port), mode, str(len(mode)))
        bad.line("scribbling")
    end = time.monotonic() + 2.5
    while time.monotonic() < end and "done" not in bad.out:
        good("client()")
    finish(bad)
    good("client()")
    assert server.alive, (server.popen.returncode, server.err)
    assert "away" not in server.out, server.out
    assert not server.err, server.err
    assert local_tas.service.popen.poll() is None
    good("c.close()")


def hostile(lab: Lab, port: int) -> Puppet:
    """A peer of the server on this port, direct, that has means to do harm."""
    bad = Puppet(lab)
    bad(f"c = socket.create_connection(('127.0.0.1', {port}))")
    bad(BACK_AND_FORTH)
    bad("client()")
    bad("client()")
    bad(RAW)
    bad("[its] = [b for b in blocks() if U32.from_address(b + BLOCK_C + 44).value]")  # the far end's block: has a bell
    return bad


# A request to the service past the library, over its control socket.  Its error, and the number of the socket's memory.
ASK = """
def ask(op, id, gen, index=0):
    unix = [x.split() for x in open('/proc/self/net/unix')]
    links = {'socket:[%s]' % x[6] for x in unix if x[4] == '0005' and x[5] == '03'}
    fds = os.listdir('/proc/self/fd')
    [ctl] = [int(f) for f in fds if os.path.lexists(link + f) and os.readlink(link + f) in links]
    m = ctypes.create_string_buffer(struct.pack('<IHHIiIII', 0x31534154, op, 0, 99, 0, id, gen, index), 320)
    assert syscall(WRITE, ctl, ctypes.addressof(m), 320) == 320
    assert syscall(0, ctl, ctypes.addressof(m), 320) == 320
    return struct.unpack_from('<i', m, 12)[0], struct.unpack_from('<Q', m, 24)[0] >> 44
link = '/proc/self/fd/'
"""
OPS = re.findall(r"^\tTAS_MSG_(\w+)(?: = 1)?,", (FASTPATH / "abi" / "tas_msg.h").read_text(), re.M)


def ids(p: Puppet) -> set[str]:
    """Of its eventfds."""
    return set(p("[open('/proc/self/fdinfo/%d' % fd).read().split('eventfd-id:')[1].split()[0] for fd in eventfds()]"))


@pytest.mark.parametrize("what", ["makes writes wait", "takes what is rung"])
def test_what_a_peer_does_to_its_eventfds_costs_only_itself(local_tas: Lab, what: str) -> None:
    """The one that wakes a direct peer is neither one that others ring nor one that the peer has."""
    assert local_tas.service
    server = local_tas.tas_python(RAW + "import threading\n" + HONEST)
    port = server.listening()
    good, near = Puppet(local_tas), Puppet(local_tas)
    good(f"c = socket.socket(); c.setsockopt(1, 8, 60000); c.connect(('127.0.0.1', {port}))")  # never direct
    near(f"c = socket.create_connection(('127.0.0.1', {port}))")
    for p in (good, near):
        p(BACK_AND_FORTH)
        p("client()")
    near("client()")
    bad = hostile(local_tas, port)
    assert direct(local_tas) == 4
    bad(ASK)
    bad("at = int.from_bytes(ctypes.string_at(its + BLOCK_C + 48, 8), 'little')")
    before = local_tas.service.counters()["app_wakeups"]
    bad("for n in range(50): time.sleep(.002); c.send(b'.'); assert got(c, 1) == b'.'")
    assert local_tas.service.counters()["app_wakeups"] - before < 25  # it rings by itself
    assert bad("at != 0 and len(eventfds()) > 1")  # the doorbell, and the bell's
    near(RAW)
    assert not ids(bad) & ids(near)
    bad("def fill(fd):\n while True: write_eventfd(fd, 2**64 - 2)")
    bad("def take(fd):\n while True: os.read(fd, 8)")
    bad("for fd in eventfds(): syscall(FCNTL, fd, 4, 2)")
    bad(f"for fd in eventfds(): later({'fill' if 'waits' in what else 'take'}, fd)")
    for n in range(3):
        server.signal(signal.SIGSTOP)  # as if it had no turn for a while
        time.sleep(0.1)
        good(f"c.sendall(b'000{n}')")
        near(f"c.sendall(b'111{n}')")
        time.sleep(0.1)
        server.signal(signal.SIGCONT)
        assert good("got(c, 4)") == b"000%d" % n
        assert near("got(c, 4)") == b"111%d" % n
        for p in (good, near):
            p("client()")
            p("for n in range(20): time.sleep(.002); c.send(b'.'); assert got(c, 1) == b'.'")
    bad.kill()
    for p in (good, near):
        p("client()")
    assert server.alive, (server.popen.returncode, server.err)
    assert "away" not in server.out, server.out
    for p in (good, near):
        p("c.close()")


@pytest.mark.parametrize("word", ["moved", "direct"])
def test_where_a_socket_lies_is_no_matter_of_its_peer(local_tas: Lab, word: str) -> None:
    """It can write where the other end's block is said to lie now, or its own: nonsense, or another's place."""
    server = local_tas.tas_python(HONEST)
    port = server.listening()
    good = Puppet(local_tas)
    good(f"conns = [socket.socket() for _ in range(8)]\nfor c in conns: c.connect(('127.0.0.1', {port}))")
    good("def all(n):\n for k, c in enumerate(conns): c.sendall(b'%04d' % (n + k))")
    good("def answers(n): return [got(c, 4) for c in conns] == [b'%04d' % (n + k) for k in range(len(conns))]")
    good("for c in conns: c.setsockopt(1, 8, 60000); c.settimeout(10)")  # never direct
    good("all(0)\nassert answers(0)")
    for at in (*range(512, 12 << 10, 1024), 1, 516, 1 << 20, 1 << 32, 1 << 44, 1 << 63):
        bad = hostile(local_tas, port)
        bad(f"U64.from_address(its + {112 if word == 'moved' else 120}).value = {at}; c.send(b'evil')")
        good(f"all({at % 1000})\nassert answers({at % 1000})")
        bad.kill()
    good("all(9)\nassert answers(9)")
    assert server.alive, (server.popen.returncode, server.err)
    assert not server.out.count("away"), server.out
    assert not server.err, server.err


@pytest.mark.parametrize("at", [112, 120], ids=["moved", "direct"])
def test_nonsense_that_the_service_does_not_mend_ends(local_tas: Lab, at: int) -> None:
    """Of a connection that it has made ordinary."""
    server = local_tas.tas_python(HONEST)
    port = server.listening()
    good = Puppet(local_tas)
    good(f"c = socket.socket(); c.setsockopt(1, 8, 60000); c.connect(('127.0.0.1', {port})); c.settimeout(10)")
    good(BACK_AND_FORTH)
    good("client()")
    bad = hostile(local_tas, port)
    bad("c.setsockopt(1, 8, 8192)")
    until("it is ordinary", lambda: direct(local_tas) == 0)
    bad(f"U64.from_address(its + {at}).value = 1 << 63; c.send(b'evil')")
    time.sleep(3)
    good("client()")
    bad.kill()
    good("client()")
    assert server.alive, (server.popen.returncode, server.err)
    assert not server.out.count("away"), server.out


def test_a_bell_of_others_is_not_to_be_had(local_tas: Lab) -> None:
    """Neither its eventfd, nor those that another program's epoll set hears."""
    server = local_tas.tas_python(HONEST)
    bad = hostile(local_tas, server.listening())
    third = hostile(local_tas, server.listening())
    for p in (bad, third):
        p(ASK)
        p("at = int.from_bytes(ctypes.string_at(its + BLOCK_C + 48, 8), 'little')")
    at, other = bad("at"), third("at")
    assert at
    assert other not in (0, at)
    bell, hear = OPS.index("BELL") + 1, OPS.index("BELLS_HEAR") + 1
    assert third(f"ask({bell}, {at & 0xFFFFFFFF}, {at >> 32})[0]") == -2
    assert bad(f"ask({bell}, {other & 0xFFFFFFFF}, {other >> 32})[0]") == -2
    for index in range(8):
        assert bad(f"ask({hear}, 0, 0, {index})[0]") == -2, index
    assert server.alive


@pytest.mark.parametrize("word", ["0).value += 1", "12).value |= 1 << 6"])  # generation, TAS_F_CLOSED
def test_a_peer_that_says_the_other_end_is_closed_has_only_reset_it(local_tas: Lab, word: str) -> None:
    """To the program it stays what it is: a member of its epoll set, to be closed."""
    assert local_tas.service
    server = local_tas.tas_python(HONEST)
    bad = hostile(local_tas, server.listening())
    assert local_tas.service.gauges()["sockets"] == 3
    bad(f"U32.from_address(its + {word}; c.send(b'x')")
    bad("c.settimeout(5); c.recv(1)")
    bad("c.close()")
    until("both ends have gone", lambda: local_tas.service and local_tas.service.gauges()["sockets"] == 1)
    assert server.alive, server.err
    good = Puppet(local_tas)
    good(f"c = socket.create_connection(('127.0.0.1', {server.listening()}))")
    good(BACK_AND_FORTH)
    good("client()")


def test_a_bell_rings_only_in_a_set_that_has_the_socket(local_tas: Lab) -> None:
    """A peer that writes the name of another epoll set into the other end's subscriptions is not brought to it."""
    other = "import select, socket; e2 = select.epoll(); o = socket.create_server(('', 0)); e2.register(o, 1)\n"
    server = local_tas.tas_python(other + HONEST)
    port = server.listening()
    bad = hostile(local_tas, port)
    bad("sub = U32.from_address(its + BLOCK_C + 44); first = U32.from_address(its + BLOCK_C + 16); true = sub.value")
    assert bad("first.value == true")
    for index in range(1, 9):
        bad(f"evil = true & ~0xffff | {index}; first.value = evil; c.send(b'x'); time.sleep(.02)")
        assert bad("sub.value == true or evil == true"), index
    bad("c.close()")


def test_what_is_asked_for_the_other_end_takes_nothing_from_it(local_tas: Lab) -> None:
    server = local_tas.tas_python(HONEST)
    bad = hostile(local_tas, server.listening())
    bad(ASK)
    bad("gen, id = [U32.from_address(its + n).value for n in (0, 40)]")
    assert direct(local_tas) == 2
    request = f"ask({OPS.index('ORDINARY') + 1}, id, gen)"
    err, number = until("the service does it", lambda: (r := bad(request))[0] != -11 and r)  # EAGAIN: somebody is at it
    assert err == 0
    assert number != 0, "the other program's end lies in this one's memory"
    bad("client()")
    assert server.alive, (server.popen.returncode, server.err)
    assert not server.err


DOUBLES = """
def look(seconds):
    twice, calls, end = 0, 0, time.monotonic() + seconds
    while time.monotonic() < end:
        got = [fd for fd, _ in e.poll(0)]
        twice += len(got) - len(set(got))
        calls += bool(got)
    return twice, calls
"""


def test_no_event_comes_twice_in_one_call(local_tas: Lab) -> None:
    """Members whose peer says and unsays, faster than they are looked at, that nobody holds the socket any more."""
    server, bad = Puppet(local_tas), Puppet(local_tas)
    server("l = socket.create_server(('127.0.0.1', 0), backlog=100); port = l.getsockname()[1]")
    bad(f"conns = [socket.create_connection(('127.0.0.1', {server('port')})) for _ in range(16)]")
    server("conns = [l.accept()[0] for _ in range(16)]")
    for p in (server, bad):
        p(BACK_AND_FORTH)
    for n in range(16):
        for p in (server, bad):
            p(f"c = conns[{n}]")
        server.begin("server()")
        bad("client()")
        server.end()
    assert direct(local_tas) == 32
    server("e = select.epoll(); [e.register(c, 1) for c in conns]")
    bad("[c.send(b'x') for c in conns]")
    server(DOUBLES)
    bad(RAW)
    bad("both = blocks()")
    assert bad("len(both)") >= 32
    bad("def flap():\n while True:\n  for b in both: U32.from_address(b + 12).value ^= 64  # TAS_F_CLOSED")
    bad("later(flap)")
    twice, calls = server("look(4)")
    assert calls > 100
    assert twice == 0
