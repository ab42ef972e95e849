"""stunnel: TLS on one side, plain bytes on the other; a thread per connection, or a process."""

from __future__ import annotations

import subprocess
from pathlib import Path

from _lab import until

from recipes import CLIENT, LOCAL, SERVER, Run, recipe, socat

CONF = """
foreground = yes
pid =
debug = 4
syslog = no
[in]
accept = 0.0.0.0:7443
connect = 127.0.0.1:7000
cert = {tmp}/cert.pem
key = {tmp}/key.pem
"""
CLIENT_CONF = """
foreground = yes
pid =
debug = 4
syslog = no
[out]
client = yes
accept = 127.0.0.1:7100
connect = {addr}:7443
verifyChain = yes
CAfile = {tmp}/cert.pem
"""
DEBIAN = ("stunnel4", "socat", "openssl")


def certificate(r: Run) -> tuple[Path, Path]:
    cert, key = r.tmp / "cert.pem", r.tmp / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=test", "-days", "2",
         "-keyout", key, "-out", cert], check=True, capture_output=True,
    )  # fmt: skip
    return cert, key


def lines_through_tls(r: Run, port: int, name: str) -> None:
    """s_client of OpenSSL against it: lines and their echo."""
    p = r.client(
        "sh", "-c",
        f"(seq 1 50000; sleep 1.5) | openssl s_client -quiet -no_ign_eof -verify_return_error -CAfile {r.tmp}/cert.pem "
        f"-connect {r.addr}:{port} 2>/dev/null | sha256sum",
    )  # fmt: skip
    r.see(name, [p.wait(20), p.out])
    r.carried(connections=1, bytes=500_000)


def tunnel(r: Run) -> str:
    """Plain clients of a stunnel as TLS client of the one at the server."""
    end = r.client("stunnel4", r.file("client.conf", CLIENT_CONF.format(tmp=r.tmp, addr=r.addr)))
    until("the tunnel listens", lambda: r.client_ns.run("ss", "-Hltn", "sport = :7100").strip())
    asked = r.client("/usr/bin/python3", r.file("ask.py", socat.ASK), "127.0.0.1", "7100", "6", "whole").ok(30)
    assert end.end() == 0
    return asked


@recipe(
    "stunnel",
    exercises="poll over two connections, threads, non-blocking connect, half close, SO_LINGER",
    modes=(SERVER, LOCAL),
    quick=(SERVER,),
    debian=DEBIAN,
)
def stunnel(r: Run) -> None:
    certificate(r)
    r.server("socat", "TCP-LISTEN:7000,fork,reuseaddr", "EXEC:/bin/cat,nofork", port=7000)
    server = r.server("stunnel4", r.file("stunnel.conf", CONF.format(tmp=r.tmp)), port=7443)
    lines_through_tls(r, 7443, "TLS")
    r.see("a tunnel of two", tunnel(r))
    r.see("status", server.end())
    r.carried(connections=6, bytes=6 * 120_000)


@recipe(
    "stunnel-client",
    exercises="stunnel as TLS client in front of a kernel server",
    modes=(CLIENT,),
    debian=DEBIAN,
)
def stunnel_client(r: Run) -> None:
    certificate(r)
    r.server("socat", "TCP-LISTEN:7000,fork,reuseaddr", "EXEC:/bin/cat,nofork", port=7000)
    r.server("stunnel4", r.file("stunnel.conf", CONF.format(tmp=r.tmp)), port=7443)
    r.see("through", tunnel(r))
    r.carried(connections=6, bytes=6 * 250_000)
