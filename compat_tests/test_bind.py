"""bind and listen conflicts come out as Linux decides them: the same script runs on the kernel and on TAS."""

from __future__ import annotations

import pytest
from _lab import BUILD, PEER_ADDR, Lab

SCRIPT = """
import errno, json, os, socket, sys

ADDR = "10.77.0.1"
results = {}

def attempt(name, function):
    try:
        results[name] = function() or "ok"
    except OSError as e:
        results[name] = errno.errorcode[e.errno]

def sock(addr, port, reuseaddr=False, reuseport=False, listen=True, family=socket.AF_INET, v6only=None):
    s = socket.socket(family, socket.SOCK_STREAM)
    if reuseaddr: s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if reuseport: s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    if v6only is not None: s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, v6only)
    s.bind((addr, port))
    if listen: s.listen()
    keep.append(s)
    return s

keep = []
def fresh():
    for s in keep: s.close()
    keep.clear()

pairs = {
    "same": ("0.0.0.0", "0.0.0.0"), "wildcard then address": ("0.0.0.0", ADDR),
    "address then wildcard": (ADDR, "0.0.0.0"), "address then loopback": (ADDR, "127.0.0.1"),
    "address twice": (ADDR, ADDR),
    "loopback twice": ("127.0.0.1", "127.0.0.1"), "loopback then wildcard": ("127.0.0.1", "0.0.0.0"),
}
for name, (one, two) in pairs.items():
    for reuse in ({}, {"reuseaddr": True}, {"reuseport": True}):
        for listens in (True, False):
            fresh()
            a = sock(one, 0, listen=listens, **reuse)
            port = a.getsockname()[1]
            attempt(f"{name} {reuse} first listens {listens}", lambda: sock(two, port, **reuse) and None)

fresh()
a = sock("::", 0, family=socket.AF_INET6, v6only=0)
port = a.getsockname()[1]
attempt("dual stack then v4 wildcard", lambda: sock("0.0.0.0", port) and None)
fresh()
a = sock("::", 0, family=socket.AF_INET6, v6only=1)
port = a.getsockname()[1]
attempt("v6 only then v4 wildcard", lambda: sock("0.0.0.0", port) and None)
fresh()
attempt("not ours", lambda: sock("192.0.2.1", 0) and None)
a = sock(ADDR, 0, listen=False)
attempt("bind twice", lambda: a.bind((ADDR, 0)))
a.listen()
attempt("listen again", lambda: a.listen(5))
attempt("bind a listener", lambda: a.bind((ADDR, 0)))
attempt("connect a listener", lambda: a.connect((ADDR, 1)))
port = a.getsockname()[1]
# an established connection on the port: its listener gone, bind again
c = socket.create_connection((ADDR, port))
s, _ = a.accept()
keep.append(c); keep.append(s)
a.close()
attempt("bind with a live connection", lambda: sock(ADDR, port) and None)
attempt("bind with a live connection, reuse", lambda: sock(ADDR, port, reuseaddr=True) and None)
attempt("getsockname of accepted", lambda: s.getsockname() == (ADDR, port) or None)
fresh()
a = sock("0.0.0.0", 0)
port = a.getsockname()[1]
a.close()
keep.clear()
attempt("bind after close", lambda: sock("0.0.0.0", port) and None)
fresh()
print(json.dumps(results))
"""


def run(lab: Lab, tas: bool) -> dict[str, str]:
    script = lab.script(SCRIPT)
    p = (lab.tas if tas else lambda *a: lab.start(lab.app, *a))("/usr/bin/python3", script)
    found: dict[str, str] = p.json(30)
    return found


def test_bind_and_listen_conflicts_are_those_of_linux(tas: Lab) -> None:
    mine = run(tas, tas=True)
    tas.app.ip("addr", "add", "10.77.0.1/32", "dev", "lo")  # the oracle needs the address, too
    linux = run(tas, tas=False)
    tas.app.ip("addr", "del", "10.77.0.1/32", "dev", "lo", check=False)
    assert mine == linux


def test_two_programs_cannot_listen_on_one_port(tas: Lab) -> None:
    _, port = tas.echoserver()
    second = tas.tas_python(f"import socket; socket.create_server(('10.77.0.1', {port}))")
    assert second.wait(10) == 1
    assert "Address already in use" in second.err
    kernel = tas.start(tas.app, "/usr/bin/python3", "-c", f"import socket; socket.create_server(('', {port}))")
    assert kernel.wait(10) == 1
    assert "Address already in use" in kernel.err


def test_a_port_is_free_again_after_its_server_is_killed(tas: Lab) -> None:
    server, port = tas.echoserver()
    with tas.peer.connect("10.77.0.1", port) as c:
        c.sendall(b"x")
        assert c.recv(1) == b"x"
        server.kill()
    again = tas.tas(BUILD / "echoserver", f"--port={port}")
    assert again.listening() == port
    assert tas.rpc(port, "-n", "50")["requests"] == 50


@pytest.mark.parametrize("addr", ["10.77.0.1", "0.0.0.0", "127.0.0.1"])
def test_clients_bound_to_an_address_show_it(tas: Lab, addr: str) -> None:
    _, port = tas.echoserver()
    p = tas.tas_python(
        f"""
import socket
target = "127.0.0.1" if {addr!r} == "127.0.0.1" else "10.77.0.1"
s = socket.socket()
s.bind(({addr!r}, 0))
port = s.getsockname()[1]
s.connect((target, {port}))
assert s.getsockname() == (target, port), s.getsockname()
assert s.getpeername() == (target, {port})
s.sendall(b"x")
assert s.recv(1) == b"x"
"""
    )
    p.ok()


def test_a_port_that_is_chosen_by_bind_can_be_connected_from(tas: Lab) -> None:
    """Not one of a connection in TIME_WAIT, however many there are."""
    peer = tas.kernel(
        "/usr/bin/python3",
        tas.script(
            """
import socket
l = socket.create_server(("0.0.0.0", 0), backlog=100)
print(f"listening on 0.0.0.0:{l.getsockname()[1]}", flush=True)
while True:
    c, _ = l.accept()
    c.recv(1)
    c.close()
"""
        ),
    )
    tas.tas_python(
        """
import socket, sys
for _ in range(1500):
    s = socket.socket()
    s.bind(("0.0.0.0", 0))
    s.connect((sys.argv[1], int(sys.argv[2])))
    s.close()
""",
        PEER_ADDR,
        str(peer.listening()),
    ).ok(60)
