"""Runs modules of CPython's test suite with TAS in place of socket, select, selectors and ssl.

usage: _python_runner.py std|tas MODULE…    One JSON line at the end: tests, skipped, failed (ids).
"""

from __future__ import annotations

import importlib
import json
import re
import sys
import unittest
from collections.abc import Iterator

from _python_exclusions import LEFT_OUT


def cases(suite: unittest.TestSuite) -> Iterator[unittest.TestCase]:
    for t in suite:
        if isinstance(t, unittest.TestSuite):
            yield from cases(t)
        else:
            yield t


def main(which: str, names: list[str]) -> None:
    if which == "tas":
        import tas_sockets

        tas_sockets.install()
    support = importlib.import_module("test.support")

    vars(support)["use_resources"] = {"cpu": None, "network": None}
    out = re.compile(LEFT_OUT)
    total = {"tests": 0, "skipped": 0, "failed": []}
    for name in names:
        loaded = unittest.defaultTestLoader.loadTestsFromModule(importlib.import_module(name))
        suite = unittest.TestSuite(
            t for t in cases(loaded) if name != "test.test_socket" or not out.search(type(t).__name__)
        )
        r = unittest.TextTestRunner(verbosity=2).run(suite)
        total["tests"] += r.testsRun  # type: ignore[operator]
        total["skipped"] += len(r.skipped)  # type: ignore[operator]
        failed = sorted({getattr(t, "test_case", t).id() for t, _ in r.failures + r.errors})
        total["failed"] += failed  # type: ignore[operator]
    print("\n" + json.dumps(total))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
