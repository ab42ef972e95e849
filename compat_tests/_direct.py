"""What the tests of direct connections share."""

from __future__ import annotations

from _lab import Lab
from _puppet import Puppet

from tas_sockets._control import What

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
