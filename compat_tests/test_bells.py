"""Bells: who sleeps in `epoll_wait` is woken by a direct peer in another program, if all who sleep hear it."""

from __future__ import annotations

import random
import signal
import time

import pytest
from _direct import BACK_AND_FORTH, direct, exchange, pair
from _lab import KERNEL_ONLY, Lab, until
from _puppet import Puppet

pytestmark = pytest.mark.skipif(KERNEL_ONLY, reason="about shared memory and the service")

TIMES = 60
# Bytes that come when the reader has long been asleep: each is an event of its own.
SLEEP_AND_WAKE = f"""
def sleeper(e, c):
    return all(e.poll(10) == [(c.fileno(), 1)] and c.recv(9) == b'%d' % n and c.send(b'.') for n in range({TIMES}))
def waker():
    for n in range({TIMES}):
        time.sleep(.003)
        c.send(b'%d' % n)
        assert got(c, 1) == b'.'
"""


def watched(lab: Lab, events: str = "1") -> tuple[Puppet, Puppet]:
    """Two programs with a direct connection; the second has slept in an epoll set with its end of it."""
    a, b = pair(lab)
    b(f"e = select.epoll(); e.register(c, {events})")
    for p in (a, b):
        p(SLEEP_AND_WAKE)
    sleeps(a, b)
    return a, b


def sleeps(a: Puppet, b: Puppet) -> None:
    b.begin("assert sleeper(e, c)")
    a("waker()")
    b.end()


def woken_by_the_service(lab: Lab, a: Puppet, b: Puppet) -> int:
    """Of TIMES sleeps."""
    assert lab.service
    before = lab.service.counters()["app_wakeups"]
    sleeps(a, b)
    return lab.service.counters()["app_wakeups"] - before


@pytest.mark.parametrize("events", ["1", "1 | select.EPOLLET"], ids=["level", "edge"])
def test_a_sleeper_is_woken_past_the_service(local_tas: Lab, events: str) -> None:
    a, b = watched(local_tas, events)
    assert woken_by_the_service(local_tas, a, b) < TIMES / 4
    assert direct(local_tas) == 2


def test_a_set_around_it_hears_it_by_the_service(local_tas: Lab) -> None:
    a, b = watched(local_tas)
    b("o = select.epoll(); o.register(e, 1)")
    assert woken_by_the_service(local_tas, a, b) > TIMES / 2
    for n in range(10):
        b.begin("assert o.poll(10) and e.poll(0) == [(c.fileno(), 1)] and c.recv(9) == b'out' and not o.poll(.01)")
        time.sleep(0.002 * n)
        a("c.send(b'out')")
        b.end()


def test_a_child_that_has_the_set_hears_it_by_the_service(local_tas: Lab) -> None:
    """It sleeps on the set instead of its parent; when it has gone the parent is woken as before."""
    a, b = watched(local_tas)
    b("r, w = os.pipe(); pid = os.fork()\nif not pid: os.write(w, b'yes' if sleeper(e, c) else b'no'); os._exit(0)")
    assert local_tas.service
    before = local_tas.service.counters()["app_wakeups"]
    a("waker()")
    assert b("os.read(r, 9)") == b"yes"
    assert local_tas.service.counters()["app_wakeups"] - before > TIMES / 2
    b("os.waitpid(pid, 0)")
    until("it has gone", lambda: local_tas.service and local_tas.service.gauges()["processes"] == 2)
    sleeps(a, b)
    assert woken_by_the_service(local_tas, a, b) < TIMES / 4


def test_a_program_that_is_given_the_set_hears_it(local_tas: Lab) -> None:
    """Both sleep; whoever takes the event, it comes once."""
    a, b = watched(local_tas)
    third = Puppet(local_tas)
    b(f"give({third.path!r}, [e.fileno(), c.fileno()])")
    third("e, c = take(2); e, c = select.epoll.fromfd(e), sock(c); c.setblocking(False)")
    b("c.setblocking(False)")
    for p in (b, third):
        p("def taker(n=0):\n while e.poll(1):\n  try: n += len(c.recv(1))\n  except BlockingIOError: pass\n return n")
        p.begin("taken = taker()")
    for _ in range(TIMES):
        time.sleep(random.random() * 0.005)
        a("c.send(b'x')")
    b.end()
    third.end()
    assert b("taken") + third("taken") == TIMES


def test_threads_that_sleep_on_one_set(local_tas: Lab) -> None:
    """Some are asleep already when the set gets its first bell."""
    a, b = Puppet(local_tas), Puppet(local_tas)
    b("l = socket.create_server(('127.0.0.1', 0)); port = l.getsockname()[1]; e = select.epoll()")
    a(f"c = socket.create_connection(('127.0.0.1', {b('port')}))")
    b("c, _ = l.accept(); c.setblocking(False); e.register(c, 1)")
    b(
        "def taker():\n n = 0\n while True:\n  for fd, _ in e.poll(2):\n"
        "   try: m = c.recv(9)\n   except BlockingIOError: continue\n"
        "   if m == b'.': c.send(b'.')\n   if m == b'!': return n\n   n += len(m)"
    )
    b("taking = [later(taker) for _ in range(3)]")
    a("def bytes_of(n):\n for _ in range(n): time.sleep(.001); c.send(b'.'); assert got(c, 1) == b'.'")
    for _ in range(3):
        a("bytes_of(100)")
    assert direct(local_tas) == 2
    for _ in range(3):
        a("c.send(b'!'); time.sleep(.05)")
    assert sum(b("[told(k) for k in taking]")) == 300


def test_programs_that_ring_come_and_go(local_tas: Lab) -> None:
    """Some by kill -9, at any moment; the others are heard all the time, and no descriptor is left."""
    server = Puppet(local_tas)
    server("l = socket.create_server(('127.0.0.1', 0), backlog=64); port = l.getsockname()[1]; e = select.epoll()")
    server(
        "def serve():\n of = {l.fileno(): l}; e.register(l, 1)\n"
        " while True:\n  for fd, _ in e.poll():\n"
        "   if fd == l.fileno(): c, _ = l.accept(); of[c.fileno()] = c; e.register(c, 1); continue\n"
        "   try: m = of[fd].recv(99)\n   except OSError: m = b''\n"
        "   try: of[fd].send(m)\n   except OSError: m = b''\n   if not m: of.pop(fd).close()"
    )
    server("later(serve)")
    port = server("port")

    def client() -> Puppet:
        p = Puppet(local_tas)
        p(f"c = socket.create_connection(('127.0.0.1', {port}))")
        p(
            "def client(times):\n for n in range(times):\n  if not n % 3: time.sleep(random.random() * .002)\n"
            "  c.sendall(b'%04d' % n); assert got(c, 4) == b'%04d' % n"
        )
        p("import random; client(80)")
        return p

    stays = [client(), client()]
    stays[0]("client(200)")
    had = None
    for turn in range(6):
        goes = [client() for _ in range(2)]
        for p in stays:
            p.begin("client(300)")
        for p in goes:
            p.begin("client(10**9)")
        time.sleep(random.random() * 0.1)
        for p in goes:
            p.proc.signal(signal.SIGKILL)
        for p in stays:
            p.end()
        fds = server("len(os.listdir('/proc/self/fd'))")
        if turn == 1:
            had = fds
        assert had is None or fds <= had + 2, (fds, had)
    exchange_all = [p("client(50)") for p in stays]
    assert exchange_all == [None, None]


def test_a_third_program_rings_only_its_own(local_tas: Lab) -> None:
    """Each pair of programs has a bell of its own: what one has, no other has."""
    a, b = watched(local_tas)
    third = Puppet(local_tas)
    third(f"c = socket.create_connection(('127.0.0.1', {b('port')}))")
    b("d, _ = l.accept(); e.register(d, 1); old, c = c, d")
    for p in (third, b):
        p(BACK_AND_FORTH + SLEEP_AND_WAKE)
    exchange(third, b)
    sleeps(third, b)
    ids = (
        "[l.split()[1] for f in os.listdir('/proc/self/fd') if os.path.lexists(i := '/proc/self/fdinfo/' + f)"
        " for l in open(i) if l.startswith('eventfd-id')]"
    )
    have = [set(p(ids)) for p in (a, b, third)]
    assert all(have)
    for i, j in ((0, 1), (0, 2), (1, 2)):
        assert not have[i] & have[j]
    assert woken_by_the_service(local_tas, third, b) < TIMES / 4
    b("c = old")
    assert woken_by_the_service(local_tas, a, b) < TIMES / 4
