"""Fixtures: `lab` (namespaces and processes), `tas` (a service on a tap), `local_tas` (a service without a link)."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from _lab import BUILD, Lab, Service, missing, sweep
from harness.plugin import *  # noqa: F403  (the conformance suite's fixture and hooks)


@pytest.fixture(scope="session", autouse=True)
def clean_machine() -> None:
    """What crashed runs left goes first. Nor shall programs inherit that a shell's background jobs ignore SIGINT."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if not missing():
        sweep()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    report = yield
    if report.when == "call":  # type: ignore[attr-defined]
        item.stash[_passed] = report.passed  # type: ignore[attr-defined]
    return report


_passed = pytest.StashKey[bool]()


@pytest.fixture
def lab(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Lab]:
    why = missing()
    if why:
        pytest.skip(why)
    if not (BUILD / "echoserver").exists():
        pytest.fail(f"{BUILD} has no programs: run make")
    tmp_path.chmod(0o755)
    made = Lab(tmp_path)
    yield made
    passed = request.node.stash.get(_passed, False)
    if not passed:
        made.dump("the test failed")
    made.close(check=passed)


@pytest.fixture
def tas(lab: Lab) -> Lab:
    """A lab with a service on a tap."""
    Service(lab)
    return lab


@pytest.fixture
def public_tmp() -> Iterator[Path]:
    """A folder that every user can reach (pytest's own cannot be)."""
    with TemporaryDirectory(prefix="tastest-", dir="/tmp") as path:
        Path(path).chmod(0o755)
        yield Path(path)


@pytest.fixture
def public_tas(public_tmp: Path, lab: Lab) -> Lab:
    """A lab with a service on a tap that programs of any user find."""
    lab.tmp = public_tmp
    Service(lab)
    return lab


@pytest.fixture
def local_tas(lab: Lab) -> Lab:
    """A lab with a service for local connections only."""
    Service(lab, link=False)
    return lab
