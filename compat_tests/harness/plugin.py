"""What pytest has to know: the fixture, and the result that is written where TAS_CONFORMANCE_OUT says."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from . import report
from .rig import built
from .suite import Conformance

_records: list[dict[str, Any]] = []


@pytest.fixture(scope="session")
def conformance(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Conformance]:
    """The rigs of this worker."""
    if os.geteuid() != 0:
        pytest.skip("network namespaces and taps need root")
    if not built():
        pytest.fail("the agent is not built: make conformance-agent")
    folder = tmp_path_factory.mktemp("conformance")
    folder.chmod(0o755)
    made = Conformance(folder)
    yield made
    made.end()


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    found = dict(report.user_properties).get("conformance")
    if report.when == "call" and isinstance(found, dict):
        _records.append(
            {**found, "listed": report.outcome == "skipped", "failed": report.failed, "seconds": report.duration}
        )


def pytest_sessionfinish(session: pytest.Session) -> None:
    out = os.environ.get("TAS_CONFORMANCE_OUT")
    if out and _records and not hasattr(session.config, "workerinput"):
        report.write(Path(out), _records)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    if _records:
        terminalreporter.section("conformance: the subject against Linux")
        for line in report.summary(_records):
            terminalreporter.write_line(line)
