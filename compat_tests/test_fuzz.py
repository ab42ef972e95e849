"""The differential fuzzer: what it found before, a fixed number of random programs, and that it would notice.

``make fuzz-diff N=100000 SEED=…`` is the long run (docs/conformance.md).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fuzz.campaign import Campaign, Report
from fuzz.known import entries, known
from fuzz.rig import EXECUTOR, ExecutorLost, Pair, lines

REGRESSIONS = sorted((Path(__file__).parent / "fuzz" / "regressions").glob("*.prog"))
PROGRAMS = 500


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    if os.geteuid() != 0:
        pytest.skip("network namespaces and taps need root")
    if not EXECUTOR.exists():
        pytest.fail("the executor is not built: make fuzz-executor")
    folder = tmp_path_factory.mktemp("fuzz")
    folder.chmod(0o755)
    pair = Pair(folder)
    yield pair
    pair.end()


@pytest.mark.parametrize("path", REGRESSIONS, ids=lambda p: p.stem)
def test_regression(pairs: Pair, path: Path) -> None:
    program = lines(path.read_text().splitlines())
    try:
        found = pairs.one(program, path.stem[:50] + "+")
    except ExecutorLost:
        pairs.restart_tas()
        raise
    assert found is None or known(found), found.shown()


@pytest.mark.parametrize("entry", [e for e in entries() if "example" in e], ids=lambda e: e["name"].replace(" ", "-"))
def test_known_difference_is_still_there(pairs: Pair, entry: dict[str, Any]) -> None:
    """A fix removes the entry."""
    found = pairs.one(lines(entry["example"].splitlines()), "example")
    assert found, "no longer differs"
    assert known(found) == entry["name"], found.shown()


def campaign(tmp_path: Path, n: int, lie: str = "", **options: bool) -> Report:
    tmp_path.chmod(0o755)
    return Campaign(tmp_path, "ci", n, None, lie, **options).run()


@pytest.mark.timeout(240)
def test_random_programs(tmp_path: Path) -> None:
    """The same programs every time; nothing differs but what known.toml lists."""
    report = campaign(tmp_path, PROGRAMS)
    print(report.text())
    assert report.clean, report.text()
    assert report.ran == PROGRAMS


@pytest.mark.parametrize("lie", ["errno", "event", "byte", "number"])
def test_a_lie_is_caught(tmp_path: Path, lie: str) -> None:
    """An executor that falsifies one kind of result on TAS's side does not get through 40 programs."""
    report = campaign(tmp_path, 40, lie, first_only=True)
    assert report.kinds, f"{lie}: nothing noticed"


def test_every_known_difference_has_a_reason() -> None:
    for entry in entries():
        assert entry["kind"] in ("inherent", "left", "bug"), entry
        assert len(entry["why"]) > 20, entry
        assert entry["since"], entry
        assert "example" in entry or entry["kind"] == "inherent" or entry.get("flickers"), entry
        assert {"line", "linux", "tas", "program", "past", "all"} & set(entry), entry
