"""Urgent data over the link, both ways, against Linux."""

from __future__ import annotations

import select
import socket

from _lab import TAS_ADDR, Lab

SERVER = """
import array, fcntl, select, socket
l = socket.create_server(("0.0.0.0", 0))
print("port", l.getsockname()[1], flush=True)
c, _ = l.accept()
c.recv(1)
p = select.poll(); p.register(c, select.POLLPRI)
assert p.poll(3000)
assert c.recv(9) == b"ab"
mark = array.array("i", [0])
fcntl.ioctl(c, 0x8905, mark)
assert mark[0] == 1
assert c.recv(9, socket.MSG_OOB) == b"!"
c.send(b"cd")
c.send(b"?", socket.MSG_OOB)
c.send(b"ef")
assert c.recv(9) == b"gh"
print("ok", flush=True)
"""


def test_urgent_data_over_the_link(tas: Lab) -> None:
    p = tas.tas_python(SERVER)
    port = int(p.line(r"port (\d+)")[1])
    with tas.peer.connect(TAS_ADDR, port, 5) as c:
        c.send(b".")
        c.send(b"ab")
        c.send(b"!", socket.MSG_OOB)
        poll = select.poll()
        poll.register(c, select.POLLPRI)
        assert poll.poll(5000)
        assert c.recv(1, socket.MSG_OOB) == b"?"
        assert c.recv(9) == b"cd"
        c.send(b"gh")
        p.line("ok")
