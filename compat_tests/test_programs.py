"""Unmodified programs from Debian under LD_PRELOAD, with kernel clients on the other side; more in apps/recipes."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

import pytest
from _lab import TAS_ADDR, Lab, Proc, until

REQUESTS = [pytest.param(20000, id="quick"), pytest.param(100000, id="full", marks=pytest.mark.full)]


def need(*programs: str) -> None:
    for p in programs:
        if not shutil.which(p):
            pytest.skip(f"{p} is not installed (make test-deps)")


def listening(lab: Lab, port: int, timeout: float = 20) -> None:
    """Waits until somebody in the app namespace listens on ``port`` (the kernel's half of the listener shows it)."""
    until(f"somebody listens on {port}", lambda: lab.app.run("ss", "-Hltn", f"sport = :{port}").strip(), timeout)


def fetch(lab: Lab, url: str, to: Path) -> Proc:
    return lab.kernel("curl", "-sS", "--fail", "--max-time", "30", "-o", to, url)


# ---- redis ----
def redis(lab: Lab) -> Proc:
    need("redis-server", "redis-benchmark")
    server = lab.tas(
        "redis-server", "--port", "6379", "--protected-mode", "no", "--save", "", "--dir", lab.tmp, "--bind", "0.0.0.0"
    )  # fmt: skip
    listening(lab, 6379)
    return server


def redis_benchmark(lab: Lab, requests: int, *options: str) -> Proc:
    return lab.kernel(
        "redis-benchmark", "-h", TAS_ADDR, "-c", "50", "-n", str(requests), "-t", "set,get", "--csv", *options
    )  # fmt: skip


@pytest.mark.parametrize("requests", REQUESTS)
def test_redis_while_it_forks_to_save(tas: Lab, requests: int) -> None:
    redis(tas)

    def cli(*argv: str) -> str:
        return tas.kernel("redis-cli", "-h", TAS_ADDR, *argv).ok(30).strip()

    cli("eval", "for i=1,100000 do redis.call('set', 'key'..i, string.rep('v', 100)) end", "0")
    bench = redis_benchmark(tas, requests, "-P", "4")
    assert "started" in cli("bgsave")
    bench.ok(120)
    until("the snapshot is written", lambda: "rdb_bgsave_in_progress:0" in cli("info", "persistence"), 30)
    assert "rdb_last_bgsave_status:ok" in cli("info", "persistence")
    assert cli("set", "a", "b") == "OK"
    assert cli("get", "a") == "b"


# ---- web servers ----
def web_root(lab: Lab) -> tuple[Path, str]:
    root = lab.tmp / "www"
    root.mkdir()
    (root / "small.txt").write_bytes(b"x" * 600)
    data = os.urandom(1 << 20)
    (root / "big.bin").write_bytes(data)
    for p in [root, *root.parents]:
        if p.stat().st_uid == os.getuid() and p != Path("/"):
            p.chmod(p.stat().st_mode | 0o055)
        if p == Path("/tmp"):
            break
    return root, hashlib.sha256(data).hexdigest()


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_pythons_http_server(tas: Lab) -> None:
    need("curl")
    root, want = web_root(tas)
    tas.tas("/usr/bin/python3", "-m", "http.server", "8000", "--directory", root)
    listening(tas, 8000)
    assert tas.service
    with tas.service.carried(conn_passive=5, bytes_out=1 << 20):
        for n in range(5):
            fetch(tas, f"http://{TAS_ADDR}:8000/big.bin", tas.tmp / f"got{n}").ok()
            assert digest(tas.tmp / f"got{n}") == want


NODE_SERVER = """
const http = require('http');
const big = Buffer.alloc(1 << 20, 'node');
const server = http.createServer((req, res) => {
  if (req.url === '/echo') { req.pipe(res); return; }
  res.end(req.url === '/big' ? big : 'small');
});
server.listen(0, '0.0.0.0', () => console.log(`listening on 0.0.0.0:${server.address().port}`));
"""


def test_a_node_http_server(tas: Lab) -> None:
    need("node", "curl", "wrk")
    path = tas.tmp / "server.js"
    path.write_text(NODE_SERVER)
    url = f"http://{TAS_ADDR}:{tas.tas('node', path).listening()}"
    assert tas.service
    with tas.service.carried(conn_passive=17, bytes_out=1 << 20):
        fetch(tas, f"{url}/big", tas.tmp / "got").ok()
        assert (tas.tmp / "got").read_bytes() == b"node" * (1 << 18)
        out = tas.kernel("wrk", "-t", "1", "-c", "16", "-d", "2", f"{url}/").ok()
    assert "Socket errors" not in out, out
    body = os.urandom(300000)
    (tas.tmp / "body").write_bytes(body)
    tas.kernel(
        "curl", "-sS", "--fail", "--data-binary", f"@{tas.tmp}/body", "-o", tas.tmp / "echoed", f"{url}/echo"
    ).ok()
    assert (tas.tmp / "echoed").read_bytes() == body
