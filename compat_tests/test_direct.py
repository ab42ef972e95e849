"""Direct connections: two programs of one user write into each other's memory, with all that a socket can do."""

from __future__ import annotations

import os
import random
import signal
import time

import pytest
from _direct import BACK_AND_FORTH, ROUNDS, direct, exchange, pair
from _lab import BUILD, KERNEL_ONLY, Lab, Proc, until
from _puppet import Puppet
from test_hostile import RAW

pytestmark = pytest.mark.skipif(KERNEL_ONLY, reason="about shared memory and the service")


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
    "a low water mark": (
        "c.setsockopt(1, 18, 4); time.sleep(.1); assert c.recv(9) == b'lowmark'; c.setsockopt(1, 18, 1)",
        "c.send(b'lo'); time.sleep(.3); c.send(b'wmark')",
    ),
    "no memory to put it": (
        "import ctypes; time.sleep(.1)\nx = ctypes.CDLL(None, use_errno=True)\n"
        "assert x.recv(c.fileno(), None, 4, 0) == -1 and ctypes.get_errno() == 14; assert got(c, 3) == b'bad'",
        "c.send(b'bad')",
    ),
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
