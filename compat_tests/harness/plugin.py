"""What pytest has to know: the fixture, progress, and the result that is written where TAS_CONFORMANCE_OUT says."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from . import pagecheck, pages, report
from .rig import built
from .suite import Conformance

_records: list[report.Record] = []


class Progress:
    """A line now and then in place of a dot per test, for runs that write a result."""

    def __init__(self) -> None:
        self.total = 0
        self.begin = self.said = time.monotonic()

    def line(self) -> str | None:
        now = time.monotonic()
        if now - self.said < 5 and len(_records) != self.total:
            return None
        self.said = now
        found = Counter(report.outcome(r) for r in _records)
        share = 100 * len(_records) // max(self.total, 1)
        said = ", ".join(f"{found[o]:,} {o}" for o in report.OUTCOMES if found[o])
        return f"{share:3} % of {self.total:,} after {now - self.begin:.0f} s: {said}"


_progress = Progress()


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


# Tests that failed, and passed when run again (--reruns).
_failed_once: list[pytest.TestReport] = []
FAILED_ONCE_MOST = 3


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if str(report.outcome) == "rerun":
        _failed_once.append(report)
    found = dict(report.user_properties).get("conformance")
    if report.when == "call" and isinstance(found, dict):
        record = {"outcome": "lost", **found}
        _records.append(
            {
                **record,
                "listed": hasattr(report, "wasxfail") and report.skipped,
                "failed": report.failed,
                "seconds": round(report.duration, 4),
            }
        )


def pytest_report_teststatus(report: pytest.TestReport) -> tuple[str, str, str] | None:
    """No letters for scenarios when progress is told by lines."""
    if not os.environ.get("TAS_CONFORMANCE_OUT") or "conformance" not in dict(report.user_properties):
        return None
    if report.when != "call":
        return ("", "", "") if report.passed else None
    kind = "xfailed" if hasattr(report, "wasxfail") else report.outcome
    return kind, "", kind.upper()


@pytest.hookimpl(trylast=True)
def pytest_runtest_logfinish() -> None:
    if _terminal and os.environ.get("TAS_CONFORMANCE_OUT"):
        line = _progress.line()
        if line:
            _terminal[0].write_line(line)


_terminal: list[Any] = []


def pytest_collection_finish(session: pytest.Session) -> None:
    _progress.total = len(session.items)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_node_collection_finished(ids: list[str]) -> None:
    _progress.total = len(ids)


@pytest.hookimpl(trylast=True)
def pytest_configure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):
        _terminal[:] = filter(None, [config.pluginmanager.get_plugin("terminalreporter")])


_checked: list[str] = []


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """The result; pages that do not hold together fail the run."""
    if hasattr(session.config, "workerinput"):
        return
    out = os.environ.get("TAS_CONFORMANCE_OUT")
    if out and _records:
        pages.write(Path(out), _records)
        faults, said = pagecheck.check(Path(out))
        _checked.extend([*(f"page: {fault}" for fault in faults[:20]), f"{said}, {len(faults)} faults"])
        if faults:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED
    if report.too_unsteady(_records):
        _checked.append(f"too many runs were unsteady: more than one in {report.UNSTEADY_MOST}")
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
    if len(_failed_once) > FAILED_ONCE_MOST:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: Any) -> None:
    for failed in _failed_once:
        terminalreporter.section(f"failed once: {failed.nodeid}")
        terminalreporter.write_line(failed.longreprtext)
    if len(_failed_once) > FAILED_ONCE_MOST:
        terminalreporter.write_line(f"more than {FAILED_ONCE_MOST} tests failed once: too many for chance")
    if _records:
        terminalreporter.section("conformance: the subjects against Linux")
        for line in [*report.summary(_records), *_checked]:
            terminalreporter.write_line(line)
