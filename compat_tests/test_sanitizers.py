"""All of it compiled with AddressSanitizer and UndefinedBehaviorSanitizer, their runtimes before the interposer."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from _lab import BUILD, KERNEL_ONLY, ROOT, TAS_ADDR, Lab, Service, sh

pytestmark = [pytest.mark.full, pytest.mark.timeout(900), pytest.mark.skipif(KERNEL_ONLY, reason="no service")]


@pytest.fixture(scope="module")
def asan_build() -> Path:
    folder = BUILD.with_name(BUILD.name + "-asan")
    argv = ["make", "-C", str(ROOT), f"O={folder}", "SAN=address,undefined", "all"]
    run = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout[-2000:] + run.stderr[-4000:]
    return folder


@pytest.fixture
def asan(lab: Lab, asan_build: Path, monkeypatch: pytest.MonkeyPatch) -> Lab:
    monkeypatch.setenv("ASAN_OPTIONS", "exitcode=99:detect_leaks=0:abort_on_error=0")
    monkeypatch.setenv("UBSAN_OPTIONS", "print_stacktrace=1:exitcode=99")
    lab.build = asan_build
    Service(lab)
    return lab


def runtimes() -> str:
    return ":".join(sh("gcc", f"-print-file-name={name}").strip() for name in ("libasan.so", "libubsan.so"))


def test_echo_both_ways_without_a_report(asan: Lab) -> None:
    preload = {"LD_PRELOAD": f"{runtimes()}:{asan.build}/libtas_interpose.so"}
    server = asan.tas(asan.build / "echoserver", "--port=0", "--threads=2", env=preload)
    port = server.listening()
    assert asan.rpc(port, "-c", "32", "-d", "4", "-s", "3000", "-n", "20000")["requests"] == 20000
    assert asan.rpc(port, "-c", "8", "--reconnect", "-n", "500")["requests"] == 500
    for addr in (TAS_ADDR, "127.0.0.1"):
        client = asan.tas(asan.build / "rpcclient", "-c", "8", "-n", "2000", addr, str(port), env=preload)
        client.ok()
        assert "Sanitizer" not in client.err, client.err
    assert server.end() == 0
    assert "Sanitizer" not in server.err, server.err
    assert asan.service
    assert "Sanitizer" not in asan.service.log(), asan.service.log()


def test_a_lossy_stream_without_a_report(asan: Lab) -> None:
    preload = {"LD_PRELOAD": f"{runtimes()}:{asan.build}/libtas_interpose.so"}
    asan.loss(1)
    server = asan.tas(asan.build / "bulk", "both", "--listen=0.0.0.0:0", "--bytes=16m", env=preload)
    client = asan.kernel(BUILD / "bulk", "both", f"--connect={TAS_ADDR}:{server.listening()}", "--bytes=16m")
    client.ok(200)
    server.ok()
    assert "Sanitizer" not in server.err, server.err
