"""Runs modules of CPython's own test suite as they are, and says of every test how it went.

usage: _cpython_runner.py MODULE|TEST…    One JSON line at the end: {test: "ok" | "skipped" | "failed"}.
"""

from __future__ import annotations

import importlib
import json
import os
import re
import sys
import tempfile
import unittest
from collections.abc import Iterator
from typing import Any, ClassVar

# classes of test_socket about families and protocols that are not TAS's
LEFT_OUT = re.compile(r"VSOCK|CAN|RDS|Bluetooth|BT|QIPCRTR|TIPC|ALG|Alg|UDPLITE|Hyper|SCTP|ISOTP|J1939")


def cases(suite: unittest.TestSuite) -> Iterator[unittest.TestCase]:
    for t in suite:
        if isinstance(t, unittest.TestSuite):
            yield from cases(t)
        else:
            yield t


class Result(unittest.TextTestResult):
    """What unittest prints, and an outcome per test; a test whose subtests fail has failed."""

    outcomes: ClassVar[dict[str, str]] = {}

    def startTest(self, test: unittest.TestCase) -> None:
        super().startTest(test)
        self.outcomes[test.id()] = "ok"

    def addSkip(self, test: unittest.TestCase, reason: str) -> None:
        super().addSkip(test, reason)
        self.outcomes[test.id()] = "skipped"

    def addError(self, test: unittest.TestCase, err: Any) -> None:
        super().addError(test, err)
        self.outcomes[test.id()] = "failed"

    def addFailure(self, test: unittest.TestCase, err: Any) -> None:
        super().addFailure(test, err)
        self.outcomes[test.id()] = "failed"

    def addSubTest(self, test: unittest.TestCase, subtest: unittest.TestCase, err: Any) -> None:
        super().addSubTest(test, subtest, err)
        if err:
            self.outcomes[test.id()] = "failed"


def main(names: list[str]) -> None:
    os.chdir(tempfile.mkdtemp(dir=os.environ["TMPDIR"]))
    support = importlib.import_module("test.support")
    vars(support)["use_resources"] = {"cpu": None, "network": None, "subprocess": None, "walltime": None}
    for name in names:
        loaded = unittest.defaultTestLoader.loadTestsFromName(name)
        suite = unittest.TestSuite(t for t in cases(loaded) if not LEFT_OUT.search(type(t).__name__))
        unittest.TextTestRunner(verbosity=2, resultclass=Result).run(suite)  # type: ignore[arg-type]
    print("\n" + json.dumps(Result.outcomes))


if __name__ == "__main__":
    main(sys.argv[1:])
