"""The benchmark's bookkeeping: what becomes of figures, of failures and of noise. No figure is judged here."""

from __future__ import annotations

import socket
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from _lab import Lab
from bench import beside, measure, memory, report
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
    assert rows["local: rate"]["ratio"] == pytest.approx(1 / 10)
    assert rows["local: rate"]["pairs"] == [0, 3]
    assert rows["local: time"]["ratio"] == pytest.approx(10 / 1)
    assert rows["local: time"]["pairs"] == [3, 3]
    assert rows["local: time"]["tas_spread"] == [1.0, 4.0]


def test_a_row_that_failed_is_told_and_the_others_go_on(result: dict[str, Any]) -> None:
    assert result["failed"] == {"local: odd": 1}
    assert len(result["rows"]["local: odd"]["tas"]) == 2
    assert "local: odd (1)" in report.verdict(result)
    assert "| local: rate | 20 | 2 | per s | 0.10 | 0.07–0.20 | 0/3 |" in report.markdown(result)


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


def run_of(rep: int, value: float) -> dict[str, Any]:
    return {"rep": rep, "value": value, "mode": "apart"}


def test_a_pair_is_of_one_repetition_even_where_one_is_missing() -> None:
    row: dict[str, Any] = {
        "better": "more",
        "linux": [run_of(0, 10), run_of(1, 100)],
        "tas": [run_of(1, 200), run_of(2, 5)],
    }
    measure.summarise(row)
    assert (row["ratio"], row["pairs"]) == (2.0, [1, 1])


def test_a_slow_host_moves_both_stacks_of_a_pair_and_not_the_ratio() -> None:
    slow = (1.0, 1.0, 0.5, 0.4, 0.3)
    row = {
        "better": "more",
        "linux": [run_of(rep, 100 * share) for rep, share in enumerate(slow)],
        "tas": [run_of(rep, 300 * share) for rep, share in enumerate(slow)],
    }
    measure.summarise(row)
    assert row["ratio"] == pytest.approx(3)
    assert row["ratio_spread"] == pytest.approx([3, 3])


@pytest.mark.parametrize(("better", "values"), [("more", [10.0, 10.0, 4.0]), ("less", [10.0, 10.0, 25.0])])
def test_a_repetition_in_which_linux_itself_was_slow_is_told(better: str, values: list[float]) -> None:
    row = {"better": better, "unit": "x", "linux": [run_of(n, v) for n, v in enumerate(values)], "linux_median": 10.0}
    speeds = measure.speeds({"row": row}, 3)
    assert speeds == [1.0, 1.0, 0.4]
    notes = [{"competing_cpus": 0.0, "stolen": 0.0, "linux_speed": speed} for speed in speeds]
    assert measure.noise(notes) == ["repetition 3: Linux at 40% of its usual speed"]


def test_time_that_others_took_is_told(result: dict[str, Any]) -> None:
    assert result["noise"] == [] or all("Linux at" in text for text in result["noise"])
    assert "Too noisy" not in report.verdict(result | {"noise": []})
    quiet = {"competing_cpus": 0.0, "stolen": 0.0, "linux_speed": 1.0}
    told = measure.noise([quiet, quiet | {"competing_cpus": 1.5}, quiet | {"stolen": 0.2}])
    assert [text.partition(":")[0] for text in told] == ["repetition 2", "repetition 3"]
    assert all(text in report.verdict(result | {"noise": told}) for text in told)


def test_connections_in_time_wait_are_seen_and_prevented(lab: Lab) -> None:
    """2,000 connections of the kernel that the client closes first: all of them wait, or none."""
    place: Any = SimpleNamespace(lab=lab)

    def connections() -> int:
        before = memory.times_waiting()
        with lab.app.entered(), socket.create_server(("127.0.0.1", 0)) as listener:
            for _ in range(2_000):
                client = socket.create_connection(listener.getsockname())
                server = listener.accept()[0]
                client.close()
                server.close()
        return memory.times_waiting() - before

    with memory.no_time_wait(place):
        assert connections() < memory.FEW
    assert connections() > 1_900
