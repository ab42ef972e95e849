"""Unmodified programs from Debian under LD_PRELOAD, with kernel clients on the other side."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from pathlib import Path

import pytest
from _lab import KERNEL_ONLY, PEER_ADDR, TAS_ADDR, Lab, Proc, until

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


# ---- redis, memcached ----
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
def test_redis(tas: Lab, requests: int) -> None:
    redis(tas)
    assert tas.service
    with tas.service.carried(conn_passive=50, tcp_in=2 * requests):
        out = redis_benchmark(tas, requests).ok(120)
    assert '"SET"' in out
    assert '"GET"' in out


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


MEMCACHED_CLIENT = """
import random, socket, sys, threading
def run(n):
    s = socket.create_connection((sys.argv[1], 11211), 20)
    f = s.makefile("rb")
    r = random.Random(n)
    for i in range(int(sys.argv[2])):
        value = bytes(r.randrange(256) for _ in range(16)) * r.randrange(1, 300)
        s.sendall(b"set k%d.%d 0 0 %d\\r\\n%b\\r\\nget k%d.%d\\r\\n" % (n, i % 10, len(value), value, n, i % 10))
        assert f.readline() == b"STORED\\r\\n"
        assert f.readline() == b"VALUE k%d.%d 0 %d\\r\\n" % (n, i % 10, len(value))
        assert f.read(len(value) + 2) == value + b"\\r\\n"
        assert f.readline() == b"END\\r\\n"
    s.close()
    done.append(n)
done = []
threads = [threading.Thread(target=run, args=(n,)) for n in range(16)]
for t in threads: t.start()
for t in threads: t.join()
assert len(done) == 16, done
"""


def test_memcached_with_four_threads(tas: Lab) -> None:
    need("memcached")
    tas.tas("memcached", "-u", "root", "-t", "4", "-p", "11211", "-U", "0", "-l", "0.0.0.0")
    listening(tas, 11211)
    assert tas.service
    with tas.service.carried(conn_passive=16):
        tas.kernel("/usr/bin/python3", tas.script(MEMCACHED_CLIENT), TAS_ADDR, "300").ok(90)


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


NGINX_CONF = """
user root;
worker_processes 2;
daemon off;
pid {tmp}/nginx.pid;
error_log stderr notice;
events {{ worker_connections 1024; }}
http {{
	access_log off;
	sendfile on;
	client_body_temp_path {tmp}/body;
	proxy_temp_path {tmp}/proxy;
	fastcgi_temp_path {tmp}/fastcgi;
	uwsgi_temp_path {tmp}/uwsgi;
	scgi_temp_path {tmp}/scgi;
	server {{
		listen 8080 {reuseport};
		root {tmp}/www;
	}}
}}
"""


@pytest.mark.parametrize("reuseport", ["", "reuseport"], ids=["shared", "reuseport"])
def test_nginx_with_two_workers_and_reload(tas: Lab, reuseport: str) -> None:
    need("nginx", "wrk", "curl")
    _, want = web_root(tas)
    conf = tas.tmp / "nginx.conf"
    conf.write_text(NGINX_CONF.format(tmp=tas.tmp, reuseport=reuseport))
    server = tas.tas("nginx", "-c", conf, "-e", "stderr", "-p", tas.tmp)
    listening(tas, 8080)
    assert tas.service
    url = f"http://{TAS_ADDR}:8080"

    def intact() -> None:
        for n in range(4):
            fetch(tas, f"{url}/big.bin", tas.tmp / f"got{n}").ok()
            assert digest(tas.tmp / f"got{n}") == want

    with tas.service.carried(conn_passive=4, bytes_out=4 << 20):
        intact()
    with tas.service.carried(conn_passive=32):
        out = tas.kernel("wrk", "-t", "1", "-c", "32", "-d", "3", f"{url}/small.txt").ok()
    assert "Socket errors" not in out, out
    assert "Non-2xx" not in out, out
    out = tas.kernel("wrk", "-t", "1", "-c", "8", "-d", "2", "-H", "Connection: close", f"{url}/small.txt").ok()
    assert "Socket errors" not in out, out

    def workers() -> set[str]:
        return set(tas.app.run("pgrep", "-P", str(server.pid), check=False).split())

    old = workers()
    assert len(old) == 2
    server.signal(1)  # SIGHUP: reload
    until("new workers took over", lambda: len(workers()) == 2 and not workers() & old, 20)
    intact()
    out = tas.kernel("wrk", "-t", "1", "-c", "32", "-d", "1", f"{url}/small.txt").ok()
    assert "Socket errors" not in out, out
    server.signal(3)  # SIGQUIT: graceful
    assert server.wait(20) == 0


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


def test_curl_as_client_of_a_kernel_server(tas: Lab) -> None:
    need("curl")
    root, want = web_root(tas)
    tas.kernel("/usr/bin/python3", "-m", "http.server", "8001", "--directory", root)
    until("the server listens", lambda: tas.peer.run("ss", "-Hltn", "sport = :8001").strip())
    assert tas.service
    with tas.service.carried(conn_active=3, bytes_in=3 << 20):
        for n in range(3):
            tas.tas(
                "curl", "-sS", "--fail", "--max-time", "30", "-o", tas.tmp / f"got{n}", f"http://{PEER_ADDR}:8001/big.bin"
            ).ok()  # fmt: skip
            assert digest(tas.tmp / f"got{n}") == want


# ---- iperf3 ----
@pytest.mark.parametrize("reverse", [False, True], ids=["in", "out"])
def test_iperf3(tas: Lab, reverse: bool) -> None:
    need("iperf3")
    tas.tas("iperf3", "-s", "-1", "-p", "5201")
    listening(tas, 5201)
    client = tas.kernel(
        "iperf3", "-c", TAS_ADDR, "-p", "5201", "-t", "3", "-P", "2", "-J", *(["-R"] if reverse else [])
    )  # fmt: skip
    assert tas.service
    end = json.loads(client.ok(60))["end"]
    received = end["sum_received"]["bytes"]
    assert received > 10 << 20
    if not KERNEL_ONLY:
        assert tas.service.counters()["bytes_out" if reverse else "bytes_in"] >= received


def test_iperf3_as_client_of_a_kernel_server(tas: Lab) -> None:
    need("iperf3")
    server = tas.kernel("iperf3", "-s", "-1", "-p", "5202")
    until("iperf3 listens", lambda: tas.peer.run("ss", "-Hltn", "sport = :5202").strip())
    assert tas.service
    with tas.service.carried(conn_active=2):
        tas.tas("iperf3", "-c", PEER_ADDR, "-p", "5202", "-t", "2").ok(60)
        tas_out = server.ok()
    assert re.search(r"receiver", tas_out)
