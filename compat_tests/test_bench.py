"""The benchmark's bookkeeping: what becomes of figures, of failures and of noise. No figure is judged here."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from bench import beside, measure, report
from bench.rows import Row

VALUES = {"linux": [10.0, 30.0, 20.0], "tas": [1.0, 2.0, 4.0]}


@pytest.fixture
def result(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, Any]:
    """Three repetitions of made-up rows, without a service; the second fails on TAS the second time."""
    left = {(row, name): list(values) for row in ("rate", "time", "odd") for name, values in VALUES.items()}

    class Place:
        def __init__(self, name: str) -> None:
            self.name, self.placement = name, {"server": 0, "service": 1}

    def run(row: str, place: Any) -> dict[str, Any]:
        value = left[row, place.name].pop(0)
        if row == "odd" and place.name == "tas" and value == 2.0:
            raise TimeoutError("no answer")
        return {"value": value}

    rows = [
        Row("rate", "local", "per s", "more", lambda s: run("rate", s)),
        Row("time", "local", "us", "less", lambda s: run("time", s)),
        Row("odd", "local", "us", "less", lambda s: run("odd", s)),
    ]
    places = {("local", name): Place(name) for name in VALUES}
    monkeypatch.setattr(measure, "stacks", lambda tmp, topologies: nullcontext(places))
    monkeypatch.setattr(beside, "note", lambda: {"at": "", "cacheline_ns": 50.0, "competing_cpus": 0.0, "loadavg": 0.0})
    kept: list[int] = []
    found = measure.repeat(rows, 3, tmp_path, lambda r: kept.append(r["reps"]))
    assert kept == [1, 2, 3]
    return found


def test_a_ratio_above_one_means_that_tas_is_ahead(result: dict[str, Any]) -> None:
    rows = result["rows"]
    assert rows["local: rate"]["ratio"] == pytest.approx(2 / 20)
    assert rows["local: time"]["ratio"] == pytest.approx(20 / 2)
    assert rows["local: time"]["tas_spread"] == [1.0, 4.0]


def test_a_row_that_failed_is_told_and_the_others_go_on(result: dict[str, Any]) -> None:
    assert result["failed"] == {"local: odd": 1}
    assert len(result["rows"]["local: odd"]["tas"]) == 2
    assert "local: odd (1)" in report.verdict(result)
    assert "| local: rate | 20 | 2 | per s | 0.10 |" in report.markdown(result)


def test_an_interrupt_leaves_the_repetitions_that_are_whole(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    runs = 0

    def run(place: Any) -> dict[str, Any]:
        nonlocal runs
        runs += 1
        if runs == 4:
            raise KeyboardInterrupt
        return {"value": float(runs)}

    place = SimpleNamespace(placement={})
    monkeypatch.setattr(measure, "stacks", lambda tmp, t: nullcontext({("local", name): place for name in VALUES}))
    monkeypatch.setattr(beside, "note", lambda: {"cacheline_ns": 50.0, "competing_cpus": 0.0})
    found = measure.repeat([Row("rate", "local", "per s", "more", run)], 7, tmp_path, lambda r: None)
    assert found["reps"] == 1
    assert [len(found["rows"]["local: rate"][name]) for name in ("linux", "tas")] == [1, 1]


def test_a_noisy_machine_is_told(result: dict[str, Any]) -> None:
    assert "too busy" not in report.verdict(result)
    assert "too busy" in report.verdict(result | {"noisy": True})
