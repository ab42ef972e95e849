"""OpenSSL's own server and client: BIO over sockets, select, TLS 1.2 and 1.3, session tickets, large transfers."""

from __future__ import annotations

from pathlib import Path

from recipes import CLIENT, LOCAL, SERVER, Run, recipe
from recipes import _web as web


def certificate(r: Run) -> tuple[Path, Path]:
    """(key, certificate) for host tas.test."""
    key, cert = r.tmp / "key.pem", r.tmp / "cert.pem"
    r.lab.start(
        r.server_ns, "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
        "-subj", "/CN=tas.test", "-days", "2", "-keyout", key, "-out", cert,
    ).ok(20)  # fmt: skip
    return key, cert


@recipe(
    "openssl",
    exercises="s_server and s_client: handshakes, tickets, a file over HTTPS, lines both ways, a refused certificate",
    modes=(SERVER, CLIENT, LOCAL),
    quick=(SERVER,),
    debian=("openssl", "curl"),
)
def openssl(r: Run) -> None:
    key, cert = certificate(r)
    root = web.root(r)
    serve = f"openssl s_server -accept 4433 -key {key} -cert {cert} -WWW -quiet"
    files = r.server("sh", "-c", f"cd {root} && exec {serve}", port=4433)
    reverse = r.server(
        "openssl", "s_server", "-accept", "4434", "-key", key, "-cert", cert, "-rev", "-quiet", port=4434
    )

    got = r.tmp / "got"
    to = ("--connect-to", f"tas.test:4433:{r.addr}:4433", "https://tas.test:4433/big.bin")
    for version in ("1.2", "1.3"):
        tls = ("--cacert", cert, f"--tlsv{version}", "--tls-max", version, "-0", "-o", got)
        r.see(f"TLS {version}", [web.curl(r, *tls, *to), web.sha(got.read_bytes())])
    r.see("unknown certificate", web.curl(r, *to).splitlines()[:1])

    trust = ("-CAfile", cert, "-servername", "tas.test", "-verify_return_error")

    def s_client(*options: str | Path) -> tuple[int, str]:
        p = r.client("openssl", "s_client", "-connect", f"{r.addr}:4434", *trust, *options, stdin="Q\n")
        return p.wait(20), p.out

    session = r.tmp / "session"
    talk = "sleep 0.3; echo a line; sleep 0.3; echo another; sleep 0.3"
    quiet = f"({talk}) | openssl s_client -quiet -no_ign_eof -connect {r.addr}:4434 -CAfile {cert} 2>/dev/null"
    r.see("lines", r.client("sh", "-c", quiet).ok(20).splitlines())
    code, out = s_client("-tls1_2", "-sess_out", session)
    r.see("first session", [code, "New, TLSv1.2" in out, "Verify return code: 0 (ok)" in out])
    code, out = s_client("-tls1_2", "-sess_in", session)
    r.see("second session", [code, "Reused, TLSv1.2" in out])
    refused = r.client("openssl", "s_client", "-connect", f"{r.addr}:1", stdin="")
    r.see("refused", [refused.wait(20), "Connection refused" in refused.err])
    s_time = ("-www", "/small.txt", "-time", "1", "-new", "-CAfile", cert)
    said = r.client("openssl", "s_time", "-connect", f"{r.addr}:4433", *s_time).ok(20)
    r.see("s_time", ["connections in" in said, "bytes read 0" in said])
    files.end()
    reverse.end()
    r.carried(connections=8, bytes=8_000_000)
