"""Direct connections: two programs of one user write into each other's memory, with all that a socket can do."""

from __future__ import annotations

import os
import random
import re
import signal
import time

import pytest
from _lab import BUILD, KERNEL_ONLY, Lab, Proc, until
from _puppet import Puppet
from test_hostile import FASTPATH, RAW, finish

from tas_sockets._control import What

pytestmark = pytest.mark.skipif(KERNEL_ONLY, reason="about shared memory and the service")

ROUNDS = 60  # more than --direct-after
BACK_AND_FORTH = f"""
def client():
    for n in range({ROUNDS}):
        c.sendall(b'%04d' % n)
        assert got(c, 4) == b'%04d' % n
def server():
    for n in range({ROUNDS}):
        c.sendall(got(c, 4))
"""


def direct(lab: Lab) -> int:
    """How many ends are direct."""
    assert lab.service
    return sum(bool(c["direct"]) for c in lab.service.ask(What.CONNS))


def exchange(a: Puppet, b: Puppet) -> None:
    """Question and answer, many times, on ``c`` of both."""
    b.begin("server()")
    a("client()")
    b.end()


def pair(lab: Lab, *, drop: str = "", ends: int = 2) -> tuple[Puppet, Puppet]:
    """Two programs with a connection ``c`` that has carried data; ``ends`` of it are direct."""
    a, b = Puppet(lab), Puppet(lab)
    if drop:
        b(drop)
    b("l = socket.create_server(('127.0.0.1', 0), backlog=512); port = l.getsockname()[1]")
    a(f"c = socket.create_connection(('127.0.0.1', {b('port')}))")
    b("c, _ = l.accept()")
    for p in (a, b):
        p(BACK_AND_FORTH)
    exchange(a, b)
    assert direct(lab) == ends
    return a, b


def test_it_becomes_direct_and_its_bytes_are_counted(local_tas: Lab) -> None:
    assert local_tas.service
    with local_tas.service.carried(conn_local=1, conn_direct=1, bytes_local=8 * ROUNDS):
        a, b = pair(local_tas)
    before = local_tas.service.counters()
    for _ in range(20):
        exchange(a, b)
    assert direct(local_tas) == 2
    after = local_tas.service.counters()
    assert after["bytes_local"] - before["bytes_local"] == 20 * 8 * ROUNDS
    info = "struct.unpack_from('QQ', c.getsockopt(6, 11, 256), 120)"  # bytes_acked, bytes_received
    assert a(info) == (21 * 4 * ROUNDS + 1, 21 * 4 * ROUNDS)  # Linux counts the SYN
    assert b(info) == (21 * 4 * ROUNDS, 21 * 4 * ROUNDS)


def test_two_users_share_no_memory(public_tas: Lab) -> None:
    drop = "os.setgroups([]); os.setresgid(12345, 12345, 12345); os.setresuid(12345, 12345, 12345)"
    a, b = pair(public_tas, drop=drop, ends=0)
    exchange(a, b)
    assert direct(public_tas) == 0
    maps = [set(p("[x.split()[4] for x in open('/proc/self/maps') if 'memfd:tas-' in x]")) for p in (a, b)]
    assert not maps[0] & maps[1]


def confine(p: Puppet) -> None:
    """From now on a message to the service would kill it."""
    p(
        "import ctypes; f = lambda *a: struct.pack('HBBI', *a); l = ctypes.CDLL(None)\n"
        "f = ctypes.create_string_buffer(f(32, 0, 0, 0) + f(21, 2, 0, 46) + f(21, 1, 0, 47) + f(6, 0, 0, 0x7fff0000)"
        " + f(6, 0, 0, 0x80000000))\n"
        "assert not l.prctl(38, 1, 0, 0, 0)\n"
        "assert not l.prctl(22, 2, ctypes.create_string_buffer(struct.pack('HxxxxxxQ', 5, ctypes.addressof(f))))"
    )


@pytest.mark.parametrize("when", ["before", "since"])
def test_a_confined_program_goes_on_through_the_service(local_tas: Lab, when: str) -> None:
    """It can map nothing more."""
    a, b = Puppet(local_tas), Puppet(local_tas)
    b("l = socket.create_server(('127.0.0.1', 0)); port = l.getsockname()[1]")
    a(f"c = socket.create_connection(('127.0.0.1', {b('port')}))")
    b("c, _ = l.accept()")
    for p in (a, b):
        p(BACK_AND_FORTH)
    if when == "since":
        exchange(a, b)
        assert direct(local_tas) == 2
    confine(a)
    for _ in range(3):
        exchange(a, b)
        exchange(b, a)
        assert direct(local_tas) == 0
    b("c.close()")
    assert a("c.recv(1)") == b""


# what is done with it, and whether it stays direct; a's c stays usable for question and answer, unless None
STAYS: dict[str, tuple[str, str]] = {
    "nothing": ("", ""),
    "dup": ("d = socket.socket(fileno=os.dup(c.fileno())); c.close(); c = d", ""),
    "dup2": ("d = socket.socket(); os.dup2(c.fileno(), d.fileno()); c.close(); c = d", ""),
    "a fork": ("pid = os.fork() or os._exit(0); os.waitpid(pid, 0)", ""),
    "peek": ("assert c.recv(2, socket.MSG_PEEK) == b'pe'; assert got(c, 4) == b'peek'", "c.sendall(b'peek')"),
    "all of it": ("assert c.recv(9, socket.MSG_WAITALL) == b'123456789'", "c.sendall(b'1234'); c.sendall(b'56789')"),
    "urgent": (
        "u = select.poll(); u.register(c, select.POLLPRI); assert u.poll(5000)\n"
        "assert c.recv(1, socket.MSG_OOB) == b'!'; assert c.recv(9) == b'a'; assert c.recv(9) == b'b'",
        "c.send(b'a'); c.send(b'!', socket.MSG_OOB); c.send(b'b')",
    ),
    "sendfile": (
        "assert got(c, 100000) == bytes(100000)",
        "import tempfile\nwith tempfile.TemporaryFile() as f:\n f.write(bytes(100000)); f.flush()\n"
        " at = 0\n while at < 100000: at += os.sendfile(c.fileno(), f.fileno(), at, 100000 - at)",
    ),
    "splice": (
        "r, w = os.pipe(); k = later(lambda: os.splice(c.fileno(), w, 6)); assert os.read(r, 6) == b'spliced'[:6]\n"
        "assert told(k) == 6; os.close(r), os.close(w)",
        "r, w = os.pipe(); os.write(w, b'splice'); assert os.splice(r, c.fileno(), 6) == 6; os.close(r), os.close(w)",
    ),
    "options": (
        "c.setsockopt(6, 1, 1); c.setsockopt(1, 9, 1); assert c.getsockopt(6, 1) == 1",
        "c.setsockopt(6, 4, 77)",
    ),
    "epoll": (
        "e = select.epoll(); e.register(c, 1)\nassert e.poll(5)[0][1] == 1; assert c.recv(9) == b'level'",
        "time.sleep(.05); c.send(b'level')",
    ),
    "an edge": (
        "e = select.epoll(); e.register(c, 1 | select.EPOLLET)\n"
        "assert e.poll(5) and not e.poll(.05); assert c.recv(9) == b'edge' and not e.poll(.05)",
        "time.sleep(.05); c.send(b'edge')",
    ),
    "one shot": (
        "e = select.epoll(); e.register(c, 1 | select.EPOLLONESHOT)\n"
        "assert e.poll(5) and not e.poll(.05); e.modify(c, 1 | select.EPOLLONESHOT); assert e.poll(5) and c.recv(9)",
        "time.sleep(.05); c.send(b'once')",
    ),
    "exclusive": (
        "e = select.epoll(); e.register(c, 1 | select.EPOLLEXCLUSIVE)\nassert e.poll(5); assert c.recv(9) == b'one'",
        "time.sleep(.05); c.send(b'one')",
    ),
    "a set in a set": (
        "e = select.epoll(); e.register(c, 1); o = select.epoll(); o.register(e, 1)\n"
        "assert o.poll(5) and e.poll(0); assert c.recv(9) == b'nested' and not o.poll(0)",
        "time.sleep(.05); c.send(b'nested')",
    ),
    "select": ("assert select.select([c], [c], [], 5); got(c, 3)", "time.sleep(.05); c.send(b'sel')"),
    "a timeout": (
        "c.settimeout(.05)\ntry: c.recv(1); assert 0\nexcept TimeoutError: pass\nc.settimeout(None)",
        "",
    ),
    "FIONREAD": (
        "import fcntl; got(c, 1); time.sleep(.05)\n"
        "assert fcntl.ioctl(c, 0x541b, bytes(4)) == struct.pack('i', 6); got(c, 6)",
        "c.sendall(b'1234567')",
    ),
}
ENDS: dict[str, tuple[str, str]] = {
    "a receive buffer": ("c.setsockopt(1, 8, 8192)", ""),
    "a send buffer": ("c.setsockopt(1, 7, 8192)", ""),
    "idle for long": ("time.sleep(2.5)", ""),
    "a writer without a reader": (
        "n = 0; c.setblocking(False)\ntry:\n while True: n += c.send(bytes(100000))\nexcept BlockingIOError: pass\n"
        "c.setblocking(True)",
        "",
    ),
}


@pytest.mark.parametrize("what", [*STAYS, *ENDS])
def test_what_is_done_with_it_is_done_as_ever(local_tas: Lab, what: str) -> None:
    a, b = pair(local_tas)
    mine, its = STAYS.get(what) or ENDS[what]
    a.begin(mine or "0")
    b(its or "0")
    a.end()
    if what == "a writer without a reader":
        assert a("n") > 2 << 20  # as much as Linux takes
        assert b(f"len(got(c, {a('n')}))") == a("n")
    if what == "idle for long" or what in STAYS:
        assert (direct(local_tas) == 2) == (what in STAYS)
    else:
        until("the connection is ordinary", lambda: direct(local_tas) == 0)
    if what != "a writer without a reader":
        exchange(a, b)
    again = what not in ("a receive buffer", "a send buffer", "a writer without a reader")
    assert (direct(local_tas) == 2) == again


@pytest.mark.parametrize(
    ("how", "seen"),
    [
        ("c.shutdown(1)", "b''"),
        ("c.close()", "b''"),
        ("c.setsockopt(1, 13, struct.pack('ii', 1, 0)); c.close()", "'ECONNRESET'"),
        ("assert c.recv(1) == b'u'; c.close()", "'ECONNRESET'"),
        ("os._exit(0)", "b''"),
        ("os.kill(os.getpid(), 9)", "b''"),
    ],
)
def test_its_end_is_seen_behind_its_last_byte(local_tas: Lab, how: str, seen: str) -> None:
    a, b = pair(local_tas)
    if "recv" in how:
        b("c.send(b'unread')")
    a("c.send(b'last')")
    assert direct(local_tas) == 2
    if "RESET" not in seen:
        assert b("c.recv(2)") == b"la"
    a.begin(how)
    if "_exit" in how or "kill" in how:
        a.proc.wait()
        a.close()
    else:
        a.end()
    if "RESET" in seen:
        b("p = select.poll(); p.register(c, 0); p.poll(5000)")
        assert repr(b("c.recv(9)")) in (seen, "b'last'")
        assert b("c.recv(9)") in ("ECONNRESET", b"")
    else:
        assert b("got(c, 2)") == b"st"
        assert repr(b("c.recv(9)")) == seen
    if "shutdown" in how:
        b("c.send(b'the other way')")
        assert a("got(c, 13)") == b"the other way"
        assert direct(local_tas) == 0
    b("c.close()")


@pytest.mark.parametrize("sleep", ["recv", "recv with a timeout", "poll", "epoll"])
def test_who_sleeps_is_woken_by_the_other_program(local_tas: Lab, sleep: str) -> None:
    a, b = pair(local_tas)
    b("p = select.poll(); p.register(c, 1); e = select.epoll(); e.register(c, 1)")
    b(
        "def wait():\n if 'poll' in how: assert (e if 'e' in how else p).poll(10000 if how == 'poll' else 10)\n"
        " return c.recv(9)"
    )
    b(f"how = {sleep!r}")
    if "timeout" in sleep:
        b("c.settimeout(10)")
    for n in range(30):
        k = b("later(wait)")
        time.sleep(random.random() * 0.01)
        a(f"c.send(b'{n}')")
        assert b(f"told({k})") == b"%d" % n
    assert direct(local_tas) == 2


def test_a_child_that_cannot_map_the_bells_of_a_set_hears_of_events(local_tas: Lab) -> None:
    _a, b = pair(local_tas)
    third = Puppet(local_tas)
    third("own = socket.create_server(('127.0.0.1', 0))")
    b("e = select.epoll(); e.register(c, 1); r, w = os.pipe(); r2, w2 = os.pipe()")
    b(
        "if not os.fork():\n os.read(r, 1); import resource\n"
        " n = int(open('/proc/self/statm').read().split()[0]) * 4096 + (1 << 17)\n"
        " resource.setrlimit(resource.RLIMIT_AS, (n, n))\n"
        " os.write(w2, b'%d' % len(e.poll(10))); os._exit(0)"
    )
    third(f"d = socket.create_connection(('127.0.0.1', {b('port')}))")  # of memory that the child has not seen
    b("d, _ = l.accept(); e.register(d, 1 | select.EPOLLET); c, old = d, c")
    third("c = d")
    third(BACK_AND_FORTH)
    b(f"def server():\n for n in range({ROUNDS}): e.poll(10); c.sendall(got(c, 4))")
    for _ in range(3):
        exchange(third, b)
    assert direct(local_tas) == 4
    b("os.write(w, b'x')")
    time.sleep(0.5)
    third("c.send(b'x')")
    assert b("os.read(r2, 1)") == b"1"


def test_a_set_with_bells_outlives_the_memory_of_its_program(local_tas: Lab) -> None:
    """A program without sockets inherits one, with the memory that it lies in; its own goes."""
    third = Puppet(local_tas)
    third(
        "l = socket.create_server(('127.0.0.1', 0)); x = socket.create_connection(l.getsockname()); y, _ = l.accept()"
    )
    third("e = select.epoll(); e.register(y, 1); outer = select.epoll(); outer.register(e, 1)")
    third(f"for n in range({ROUNDS}): later(lambda: (time.sleep(.002), x.send(b'x'))); e.poll(5); y.recv(1)")
    assert direct(local_tas) == 2
    third("x.close(); y.close(); l.close()")
    until("they are gone", lambda: local_tas.service and local_tas.service.gauges()["sockets"] == 0)
    a, b = Puppet(local_tas), Puppet(local_tas)
    b("l = socket.create_server(('127.0.0.1', 0)); port = l.getsockname()[1]")
    a(f"c = socket.create_connection(('127.0.0.1', {b('port')})); give({third.path!r}, [c])")
    b("c, _ = l.accept()")
    a.kill()  # its heir goes into its memory set
    assert local_tas.service
    until("it has gone", lambda: local_tas.service and local_tas.service.gauges()["processes"] == 2)
    third("c = sock(take()[0]); c.getpeername(); e.register(c, 1)")
    b("c.send(b'hello')")
    assert third("len(outer.poll(5)), len(e.poll(5))") == (1, 1)
    assert third("c.recv(9)") == b"hello"


def test_epoll_sets_of_a_program_come_and_go(local_tas: Lab) -> None:
    """It rings many more of them than it keeps eventfds for."""
    count = 100
    a = Puppet(local_tas)
    a("l = socket.create_server(('127.0.0.1', 0), backlog=512); sets = []")
    a(
        f"for n in range({count}):\n x = socket.create_connection(l.getsockname()); y, _ = l.accept()\n"
        f" e = select.epoll(); e.register(y, 1); sets.append((x, y, e))\n"
        f" for k in range({ROUNDS}): x.send(b'x'); y.recv(1); y.send(b'y'); x.recv(1)"
    )
    assert direct(local_tas) > 2 * 64  # an idle one is not
    a("fds = lambda: sum('eventfd' in os.readlink(f) for f in links())")
    a("links = lambda: [f for n in os.listdir('/proc/self/fd') if os.path.lexists(f := '/proc/self/fd/' + n)]")
    a("had = fds()")
    a("one = lambda x, y, e: (later(lambda: (time.sleep(.002), x.send(b'x'))), len(e.poll(5)), y.recv(1))")
    a("turns = lambda n: [one(*s) for s in sets[:n]]")
    for _ in range(3):
        assert [t[1] for t in a(f"turns({count})")] == [1] * count
    assert a("fds() - had") <= 64
    a("for x, y, e in sets[10:]: x.close(), y.close(), e.close()")
    assert [t[1] for t in a("turns(10)")] == [1] * 10


def test_a_forked_child_writes_into_it_and_its_death_ends_nothing(local_tas: Lab) -> None:
    a, b = pair(local_tas)
    a("pid = os.fork()\nif pid == 0:\n c.sendall(b'child'); os._exit(0)\nos.waitpid(pid, 0)")
    assert b("got(c, 5)") == b"child"
    exchange(a, b)
    assert direct(local_tas) == 2


def test_an_exec_takes_it_along(local_tas: Lab) -> None:
    a, b = pair(local_tas)
    child = f"import socket; c = socket.socket(fileno=%d)\nfor n in range({ROUNDS + 1}): c.sendall(c.recv(4, 256))"
    a(f"os.set_inheritable(c.fileno(), True); text = {child!r} % c.fileno()")
    a.begin("os.execv('/usr/bin/python3', ['python3', '-c', text])")
    b("client()")
    assert direct(local_tas) == 2
    b("c.sendall(b'last')")
    assert b("got(c, 4)") == b"last"
    assert b("c.recv(1)") == b""


def test_it_is_passed_to_a_third_program(local_tas: Lab) -> None:
    assert local_tas.service
    a, b = pair(local_tas)
    third = Puppet(local_tas)
    third("own = socket.create_server(('127.0.0.1', 0))")  # has a memory set of its own
    third(BACK_AND_FORTH)
    a("c.sendall(b'before')")
    a(f"give({third.path!r}, [c]); c.close()")
    third("c = sock(take()[0]); c.getpeername()")
    assert b("got(c, 6)") == b"before"
    exchange(third, b)
    third("c.sendall(b'after')")
    assert b("got(c, 5)") == b"after"
    third("c.close()")
    assert b("c.recv(1)") == b""


def test_a_program_that_gets_the_other_end_finds_there_at_once_what_it_sends(local_tas: Lab) -> None:
    """Also when the connection, which needed not move for that, is not direct any more."""
    a, b = pair(local_tas)
    a(RAW)
    near = "sum(U32.from_address(x + 12).value >> 5 & 1 for x in blocks())"  # TAS_F_NEAR
    assert a(near) == 0
    b(f"give({a.path!r}, [c]); c.close()")
    a("d = sock(take()[0]); d.getpeername()")
    assert a(near) == 2
    a("c.setsockopt(1, 8, 60000); c.setblocking(False)")
    until("the connection is ordinary", lambda: direct(local_tas) == 0)
    a("for n in range(100): d.sendall(b'%03d' % n); assert c.recv(9) == b'%03d' % n")


def test_a_program_without_address_space_goes_on_through_the_service(local_tas: Lab) -> None:
    """It cannot map the memory that the two would share."""
    a, b = Puppet(local_tas), Puppet(local_tas)
    b("l = socket.create_server(('127.0.0.1', 0)); port = l.getsockname()[1]")
    a(f"c = socket.create_connection(('127.0.0.1', {b('port')})); c.send(b'0')")
    b("c, _ = l.accept(); c.recv(1)")
    for p in (a, b):
        p(BACK_AND_FORTH)
    a("import resource; n = int(open('/proc/self/statm').read().split()[0]) * 4096 + (1 << 17)")
    a("resource.setrlimit(resource.RLIMIT_AS, (n, n))")
    exchange(a, b)
    exchange(a, b)
    assert direct(local_tas) == 0
    a("c.close()")
    assert b("c.recv(1)") == b""


# ---- deaths ----
STREAMS = 400
WRITER = """
import os, select, socket, sys
port, count = int(sys.argv[1]), int(sys.argv[2])
conns = [socket.create_connection(("127.0.0.1", port)) for _ in range(count)]
at = [0] * count
block = bytes(range(251)) * 8
def piece(n, size):
    at_n = at[n] % 251
    return block[at_n:at_n + size]
for c in conns: c.setblocking(False)
print("up", flush=True)
sizes = (1, 7, 64, 200, 1000, 1700)
step = 0
while True:
    for n, c in enumerate(conns):
        step += 1
        try:
            at[n] += c.send(piece(n, sizes[step % len(sizes)]))
        except BlockingIOError: pass
        except OSError: sys.exit()
"""
READER = """
import os, select, socket, sys, time
l = socket.create_server(("127.0.0.1", 0), backlog=1000)
print("listening on 127.0.0.1:%d" % l.getsockname()[1], flush=True)
e = select.epoll()
conns, at, ended = {}, {}, 0
e.register(l, 1)
block = bytes(range(251)) * 300
say = time.monotonic()
while True:
    for fd, what in e.poll(1):
        if fd == l.fileno():
            c, _ = l.accept()
            conns[c.fileno()], at[c.fileno()] = c, 0
            e.register(c, 1)
            continue
        c = conns[fd]
        try: b = c.recv(60000)
        except OSError as x: b = b""; print(type(x).__name__, flush=True)
        k = at[fd] % 251
        assert block[k:k + len(b)] == b, ("wrong bytes", fd, at[fd], b[:50])
        at[fd] += len(b)
        if not b:
            e.unregister(fd); c.close(); ended += 1
            del conns[fd]
            if not conns: print("all ended", ended, sum(at.values()), flush=True); at.clear(); ended = 0
    if len(conns) == int(sys.argv[1]) and time.monotonic() > say + .5 and sum(at.values()) > 200 * len(at):
        print("flowing", flush=True); say = time.monotonic() + 1e6
    if not conns: say = time.monotonic()
"""


def until_flowing(reader: Proc, times: int) -> None:
    until("bytes flow", lambda: reader.out.count("flowing") >= times, 30)


def until_direct(lab: Lab, count: int) -> None:
    until("half are direct", lambda: lab.service and lab.service.counters()["conn_direct"] >= count, 30)


def all_ended(reader: Proc, times: int) -> None:
    until("all streams end", lambda: reader.out.count(f"all ended {STREAMS} ") >= times, 30)


@pytest.mark.parametrize("dies", ["the writer", "the reader"])
def test_a_death_in_the_middle_of_many_streams(local_tas: Lab, dies: str) -> None:
    """Whatever a killed program was at: the other sees each stream end whole, and the next ones work."""
    assert local_tas.service
    reader = local_tas.tas_python(READER, str(STREAMS))
    seen = 0
    for _ in range(3):
        before = local_tas.service.counters()["conn_direct"]
        writer = local_tas.tas_python(WRITER, str(reader.listening()), str(STREAMS))
        until_flowing(reader, seen + 1)
        until_direct(local_tas, before + STREAMS // 2)
        time.sleep(random.random() * 0.05)
        if dies == "the reader":
            reader.signal(signal.SIGKILL)
            assert writer.wait(20) == 0, writer.err
            reader = local_tas.tas_python(READER, str(STREAMS))
        else:
            seen += 1
            writer.signal(signal.SIGKILL)
            all_ended(reader, seen)
        assert not reader.err
    until("nothing of them is left", lambda: local_tas.service and local_tas.service.gauges()["sockets"] <= 1)
    reader.kill()


@pytest.mark.parametrize("sleep", ["recv", "poll", "epoll", "send"])
def test_the_death_of_the_service_is_seen_at_both_ends(local_tas: Lab, sleep: str) -> None:
    assert local_tas.service
    a, b = pair(local_tas)
    calls = {
        "recv": "c.recv(9)",
        "poll": "(lambda p: (p.register(c, 1), p.poll(10000))[1] and c.recv(9))(select.poll())",
        "epoll": "(lambda e: (e.register(c, 1), e.poll(10))[1] and c.recv(9))(select.epoll())",
        "send": "[c.send(bytes(100000)) for _ in range(10000)]",
    }
    k = [p(f"later(lambda: {calls[sleep]})") for p in (a, b)]
    time.sleep(0.2)
    local_tas.service.expect_exit = None
    local_tas.service.kill()
    for n, p in enumerate((a, b)):
        assert p(f"told({k[n]})") == "ECONNRESET"
        assert p("c.send(b'x')") == "EPIPE"
        p("n = 0\nwhile x := c.recv(1 << 20): n += len(x)")  # what has arrived is there
        assert (p("n") > 0) == (sleep == "send")


# ---- a peer that means harm ----
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
def ask(op, id, gen):
    unix = [x.split() for x in open('/proc/self/net/unix')]
    links = {'socket:[%s]' % x[6] for x in unix if x[4] == '0005' and x[5] == '03'}
    fds = os.listdir('/proc/self/fd')
    [ctl] = [int(f) for f in fds if os.path.lexists(link + f) and os.readlink(link + f) in links]
    m = ctypes.create_string_buffer(struct.pack('<IHHIiII', 0x31534154, op, 0, 99, 0, id, gen), 320)
    assert syscall(WRITE, ctl, ctypes.addressof(m), 320) == 320
    assert syscall(0, ctl, ctypes.addressof(m), 320) == 320
    return struct.unpack_from('<i', m, 12)[0], struct.unpack_from('<Q', m, 24)[0] >> 44
link = '/proc/self/fd/'
"""
OPS = re.findall(r"^\tTAS_MSG_(\w+)(?: = 1)?,", (FASTPATH / "abi" / "tas_msg.h").read_text(), re.M)


def test_an_eventfd_that_blocks_costs_its_owner_nothing(local_tas: Lab) -> None:
    """Who marks a direct peer's bell does not get the eventfd behind it: the service rings."""
    assert local_tas.service
    server = local_tas.tas_python(HONEST)
    port = server.listening()
    good = Puppet(local_tas)
    good(f"c = socket.socket(); c.setsockopt(1, 8, 60000); c.connect(('127.0.0.1', {port}))")  # never direct
    good(BACK_AND_FORTH)
    bad = hostile(local_tas, port)
    assert direct(local_tas) == 2
    bad(ASK)
    bad("at = int.from_bytes(ctypes.string_at(its + BLOCK_C + 48, 8), 'little')")
    assert bad(f"at != 0 and ask({OPS.index('BELL') + 1}, at & 0xffffffff, at >> 32)[0]") == -2
    bad("def fill(fd):\n while True: write_eventfd(fd, 2**64 - 2)")
    bad("for fd in eventfds(): syscall(FCNTL, fd, 4, 2); later(fill, fd)")
    for n in range(3):
        server.signal(signal.SIGSTOP)  # as if it had no turn for a while
        time.sleep(0.1)
        good(f"c.sendall(b'000{n}')")
        time.sleep(0.1)
        server.signal(signal.SIGCONT)
        assert good("got(c, 4)") == b"000%d" % n
        good("client()")
    bad.kill()
    good("client()")
    assert server.alive, (server.popen.returncode, server.err)
    assert "away" not in server.out, server.out
    good("c.close()")


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


# ---- streams ----
@pytest.mark.parametrize("mode", ["block", "epoll", "spin"])
def test_threads_and_connections(local_tas: Lab, mode: str) -> None:
    _, port = local_tas.echoserver("--threads=2")
    assert local_tas.service
    with local_tas.service.carried(conn_direct=16):
        got = local_tas.tas(
            BUILD / "rpcclient", "-j", "-c", "16", "-m", mode, "-n", "40000", "127.0.0.1", str(port)
        ).json()
    assert got["requests"] == 40000


@pytest.mark.parametrize("size", ["64", "6000"])
def test_very_many(local_tas: Lab, size: str) -> None:
    """So many that epoll_wait fetches ahead and rings begin small; a message may be larger than these."""
    count = 1200
    _, port = local_tas.echoserver()
    assert local_tas.service
    before = local_tas.service.counters()["conn_direct"]
    got = local_tas.tas(
        BUILD / "rpcclient", "-j", "-c", str(count), "-s", size, "-n", str(200 * count), "127.0.0.1", str(port)
    ).json(120)
    assert got["requests"] == 200 * count
    assert local_tas.service.counters()["conn_direct"] - before >= count


@pytest.mark.parametrize("writer", ["blocks", "polls", "waits for an edge"])
def test_a_stream_arrives_whole_while_the_other_side_comes_and_goes(local_tas: Lab, writer: str) -> None:
    """Bytes of a long stream, while the connection becomes ordinary and direct again all the time."""
    assert local_tas.service
    a, b = pair(local_tas)
    third = Puppet(local_tas)
    third("own = socket.create_server(('127.0.0.1', 0))")
    if writer == "blocks":
        a("send = c.sendall")
    else:
        a("c.setblocking(False); p = select.poll(); p.register(c, 4)")
        a("e = select.epoll(); e.register(c, 4 | select.EPOLLET)")
        a(
            "def send(x):\n while x:\n  try: x = x[c.send(x):]\n"
            f"  except BlockingIOError: assert {'p.poll(9000)' if writer == 'polls' else 'e.poll(9)'}, 'nobody said it'"
        )
    a("def write():\n for n in range(3000): send(b'%06d' % n * 500)\n c.shutdown(1); return n")
    b(
        "def read():\n n = 0\n while x := got(c, 3000):\n  assert x == b'%06d' % n * 500, (n, x[:20])\n"
        "  n += 1\n return n"
    )
    j, k = a("later(write)"), b("later(read)")
    for _ in range(40):
        b(f"give({third.path!r}, [c])")
        third("os.close(take()[0])")
        time.sleep(random.random() * 0.02)
    assert a(f"told({j})") == 2999
    assert b(f"told({k})") == 3000


def test_an_end_while_it_becomes_direct_is_seen(local_tas: Lab) -> None:
    """Messages both ways up to where the service thinks of it, from two threads each, then the end."""
    assert local_tas.service
    a, b = Puppet(local_tas), Puppet(local_tas)
    b("l = socket.create_server(('127.0.0.1', 0), backlog=512); port = l.getsockname()[1]")
    write = (
        "import random\ndef write(c, n):\n for _ in range(n): c.send(b'x' * 10)\n"
        " c.shutdown(1)\ndef read(c):\n n = 0\n while x := c.recv(100): n += len(x)\n return n\n"
    )
    with local_tas.service.carried():
        for p in (a, b):
            p(write)
        b(
            "def serve(count):\n for _ in range(count):\n"
            "  c, _ = l.accept(); k = later(write, c, random.randrange(40))\n"
            "  c.settimeout(20); read(c); told(k); c.close()"
        )
        a(
            "def ask(count):\n for n in range(count):\n"
            "  c = socket.create_connection(('127.0.0.1', port)); c.settimeout(20)\n"
            "  k = later(write, c, n % 40); read(c); told(k); c.close()"
        )
        a(f"port = {b('port')}")
        b.begin("serve(400)")
        assert a("ask(400)") is None
        b.end()
    until("nothing is left", lambda: local_tas.service and local_tas.service.gauges()["sockets"] == 1)


def test_a_stopped_reader_holds_only_its_writer(local_tas: Lab) -> None:
    assert local_tas.service
    a, b = pair(local_tas)
    other = Puppet(local_tas)
    other(f"c = socket.create_connection(('127.0.0.1', {b('port')}))")
    os.kill(b.proc.pid, signal.SIGSTOP)
    try:
        a("c.setblocking(False); n = 0\ntry:\n while 1: n += c.send(bytes(10000))\nexcept BlockingIOError: pass")
        assert a("n") > 1 << 17
        begun = time.monotonic()
        assert direct(local_tas) >= 0  # the service answers
        assert time.monotonic() - begun < 2
        a(
            "d = socket.create_server(('127.0.0.1', 0))\n"
            "x = socket.create_connection(d.getsockname()); y, _ = d.accept()"
        )
        a("x.sendall(b'here'); assert got(y, 4) == b'here'")
    finally:
        os.kill(b.proc.pid, signal.SIGCONT)
    assert b(f"len(got(c, {a('n')}))") == a("n")
