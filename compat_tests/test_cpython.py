"""CPython's own tests under the interposer: what passes on the kernel passes on TAS, which carries its TCP.

Every module runs twice, in a network namespace of its own; the second time the kernel's TCP must see next to nothing.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from _lab import KERNEL_ONLY, Lab, Netns, Service

PYTHON = "/usr/bin/python3"
RUNNER = Path(__file__).resolve().parent / "_cpython_runner.py"

pytestmark = [
    pytest.mark.full,
    pytest.mark.skipif(KERNEL_ONLY, reason="compares with the kernel itself"),
    pytest.mark.timeout(2000),
]

# connections that TAS carries at least, where the module makes any
MODULES = {
    "test_socket": 180,
    "test_select": 0,
    "test_poll": 0,
    "test_epoll": 4,
    "test_selectors": 0,
    "test_socketserver": 28,
    "test_asyncio": 300,
    "test_ssl": 100,
    "test_httpservers": 60,
    "test_httplib": 60,
    "test_ftplib": 200,
    "test_smtplib": 55,
    "test_poplib": 70,
    "test_imaplib": 100,
    "test_asyncore": 45,
    "test_asynchat": 34,
    "test_xmlrpc": 48,
    "test_urllib2_localnet": 36,
    "test_telnetlib": 7,
    "test_subprocess": 0,
    "test_multiprocessing_fork": 1,
    "test_multiprocessing_spawn": 1,
    "test_eintr": 1,
    "test_signal": 0,
}
# test_eintr is one test that runs this module's
INSIDE = {"test_eintr": "_test_eintr"}
# connections that may pass TAS by: a listener is the kernel's a moment before it is the service's
BY_KERNEL = 3


def run_module(lab: Lab, ns: Netns, env: dict[str, str], *names: str, timeout: float = 900) -> dict[str, str]:
    p = lab.start(ns, PYTHON, RUNNER, *names, env={"TMPDIR": str(lab.tmp), **env})
    p.wait(timeout)
    lines = p.out.splitlines()
    assert lines, p.err[-4000:]
    outcome: dict[str, str] = json.loads(lines[-1])
    return outcome


def kernel_took(ns: Netns) -> int:
    """Connections that the kernel's TCP of a namespace has accepted."""
    names, values = (line.split() for line in ns.run("cat", "/proc/net/snmp").splitlines() if line.startswith("Tcp:"))
    return int(dict(zip(names, values, strict=True))["PassiveOpens"])


@pytest.mark.parametrize("module", MODULES)
def test_cpythons_own(lab: Lab, module: str) -> None:
    name = f"test.{INSIDE.get(module, module)}"
    found = subprocess.run([PYTHON, "-c", f"import {name}"], capture_output=True)
    if found.returncode:
        pytest.skip(f"{PYTHON} has no {name} (libpython3.11-testsuite)")
    kernel = run_module(lab, lab.netns(), {}, name)
    assert sum(outcome == "ok" for outcome in kernel.values()) >= 5

    service = Service(lab, link=False)
    before = service.counters()["conn_local"]
    tas = run_module(lab, lab.app, lab.tas_env(), name)
    worse = [t for t, outcome in kernel.items() if outcome == "ok" and tas.get(t) != "ok"]
    if worse:  # one that depends on timing has to pass alone
        again = run_module(lab, lab.app, lab.tas_env(), *worse)
        worse = [t for t in worse if again.get(t) != "ok"]
    assert not worse, lab.procs[-1].err[-6000:]
    assert service.counters()["conn_local"] - before >= MODULES[module]
    assert kernel_took(lab.app) <= BY_KERNEL
