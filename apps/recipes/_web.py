"""What the recipes of web servers and of web clients share."""

from __future__ import annotations

import hashlib
import random
import re
from pathlib import Path

from recipes._run import Run

SMALL = 600
BIG = 4 << 20


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


def data(size: int, seed: int = 1) -> bytes:
    """The same bytes in every run."""
    return random.Random(seed).randbytes(size)


def root(r: Run) -> Path:
    """A document root: small.txt, big.bin, many/0 … many/99."""
    r.file("www/small.txt", b"x" * SMALL)
    r.file("www/big.bin", data(BIG))
    for n in range(100):
        r.file(f"www/many/{n}", data(1000 + 997 * n, n))
    return r.tmp / "www"


def curl(r: Run, *options: str | Path, limit: float = 40) -> str:
    """Output of curl, its errors included."""
    p = r.client("curl", "-sS", "--max-time", "30", *options)
    return f"{p.out}{p.err}" if p.wait(limit) == 0 else f"status {p.popen.returncode}: {p.out}{p.err}"


def heads(text: str) -> list[str]:
    """Header lines without what differs from run to run."""
    return [line for line in text.splitlines() if not re.match(r"(date|etag|last-modified|set-cookie):", line, re.I)]


def fetch(r: Run, name: str, base: str, *options: str) -> None:
    """Sees headers and content of both files, ranges, a missing file, a kept connection."""
    r.see(f"{name}: headers", heads(curl(r, "-I", *options, f"{base}/small.txt")))
    r.see(f"{name}: small", curl(r, *options, f"{base}/small.txt"))
    big = r.tmp / f"{name.replace(' ', '-')}.got"
    r.see(f"{name}: big", [curl(r, *options, "-o", big, f"{base}/big.bin"), sha(big.read_bytes())])
    nowhere, told = ("-o", "/dev/null"), ("-w", "%{http_code} %{num_connects} %{size_download}\n")
    r.see(f"{name}: range", curl(r, *options, *nowhere, *told, "-r", "100-109", f"{base}/small.txt"))
    r.see(f"{name}: missing", curl(r, *options, *nowhere, *told, f"{base}/none"))
    r.see(f"{name}: one connection", curl(r, *options, *told, *nowhere * 3, *(f"{base}/many/{n}" for n in range(3))))


def wrk(r: Run, url: str, seconds: int = 1, connections: int = 32, close: bool = False) -> dict[str, bool]:
    """Load for some time: whether all was well."""
    headers = ["-H", "Connection: close"] if close else []
    out = r.client("wrk", "-t", "1", "-c", str(connections), "-d", str(seconds), *headers, url).ok(seconds + 20)
    asked = re.search(r"(\d+) requests in", out)
    return {
        "some": bool(asked and int(asked[1]) > connections),
        "socket errors": "Socket errors" in out,
        "other than 2xx": "Non-2xx" in out,
    }


def ab(r: Run, url: str, n: int, *options: str, connections: int = 20) -> dict[str, str]:
    """A number of requests: how they ended."""
    p = r.client("ab", "-q", "-n", str(n), "-c", str(connections), *options, url)
    code = p.wait(60)
    said = dict(
        re.findall(r"^(Complete requests|Failed requests|Non-2xx responses|HTML transferred): +(\d+)", p.out, re.M)
    )
    return {"status": str(code), "error": p.err.strip(), **said}
