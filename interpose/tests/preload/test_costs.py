# SPDX-License-Identifier: MIT
"""What the interposer costs on the kernel's descriptors, in instructions; and that it bears other preloads."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from test_preload import BUILD, LIBRARY, MODES, SERVE, environment, pytestmark, service  # noqa: F401

PROGRAM = str(BUILD / "tests" / "preload" / "costs")
FEW, OFTEN = 200, 1000


def instructions(call: str, times: int, preload: bool) -> int:
    env = {**os.environ, "TAS_SOCKET": "/nonexistent/tas.sock"} | ({"LD_PRELOAD": str(LIBRARY)} if preload else {})
    command = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", PROGRAM, call, str(times)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=100, check=True)
    found = re.search(r"Collected : (\d+)", done.stderr)
    assert found, done.stderr
    return int(found[1])


def extra(call: str) -> float:
    """Instructions of one call more than without the interposer."""
    per = [(instructions(call, OFTEN, p) - instructions(call, FEW, p)) / (OFTEN - FEW) for p in (False, True)]
    return per[1] - per[0]


needs_valgrind = pytest.mark.skipif(not shutil.which("valgrind"), reason="valgrind is not installed")


CALLS = (
    *("read", "write", "readv", "writev", "preadv2", "pwritev2", "send", "recv", "sendto", "recvfrom", "sendmsg"),
    *("recvmsg", "sendmmsg", "recvmmsg", "sendfile", "splice", "accept", "accept4", "connect", "bind", "listen"),
    *("shutdown", "getsockname", "getpeername", "getsockopt", "setsockopt", "fcntl", "ioctl", "dup2", "dup3"),
    *("poll", "ppoll", "select", "pselect", "epoll_ctl"),
)


@needs_valgrind
@pytest.mark.timeout(300)
@pytest.mark.parametrize("call", CALLS)
def test_a_call_on_a_kernel_descriptor_costs_at_most_forty_instructions_more(call: str) -> None:
    assert extra(call) <= 40


@needs_valgrind
@pytest.mark.timeout(300)
@pytest.mark.parametrize("call", ["poll64", "ppoll64", "select33", "pselect33"])
def test_waiting_costs_at_most_forty_instructions_more_per_descriptor(call: str) -> None:
    assert extra(call) / int(call[-2:]) <= 40


@needs_valgrind
@pytest.mark.timeout(300)
@pytest.mark.parametrize("call", ["epoll_wait", "epoll_pwait"])
def test_a_look_at_a_set_that_has_no_member_of_tas_costs_little(call: str) -> None:
    """More than forty: the set may get such a member at any moment."""
    assert extra(call) <= 100


OTHERS = {
    "jemalloc": "/usr/lib/x86_64-linux-gnu/libjemalloc.so.2",
    "libfaketime": "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1",
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("first", [True, False], ids=["ours-first", "ours-last"])
@pytest.mark.parametrize("other", OTHERS)
def test_other_preloads_go_with_ours(other: str, first: bool, mode: str, request: pytest.FixtureRequest) -> None:
    if not Path(OTHERS[other]).exists():
        pytest.skip(f"{other} is not installed")
    env = environment(mode, request) | {"FAKETIME": "+3d"}
    env["LD_PRELOAD"] = ":".join([str(LIBRARY), OTHERS[other]] if first else [OTHERS[other], str(LIBRARY)])
    command = [sys.executable, "-c", SERVE]
    kernel = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (0, kernel), done.stderr


def test_one_warning_at_most(request: pytest.FixtureRequest) -> None:
    """Nothing on a program's standard error but one line when it cannot reach a service, whatever it goes on to do."""
    code = SERVE + "\nfor _ in range(20):\n    socket.create_server(('127.0.0.1', 0)).close()\n"
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment("fallback", request), capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0
    assert len([line for line in done.stderr.splitlines() if line.startswith("tas: ")]) == 1
    assert len(done.stderr.splitlines()) == 1
    quiet = subprocess.run(
        [sys.executable, "-c", code], env=environment("service", request), capture_output=True, text=True, timeout=60
    )
    assert (quiet.returncode, quiet.stderr) == (0, "")
