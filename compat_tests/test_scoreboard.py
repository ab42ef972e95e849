"""What `make conformance` writes: result.json is what its schema says, the pages are whole; faults are noticed."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from harness import pages, report
from harness.pagecheck import check, schema_faults
from harness.suite import divergences, side_by_side
from harness.trace import Step, Trace


def traces(value: str) -> str:
    """As of a run in which the subject gave ``value`` at the end."""
    a, b = Trace(), Trace()
    a.steps = [Step("subject", "socket(2, 1, 0)", "3"), Step("subject", "setsockopt(3, 1, 9, 1)", "0")]
    b.steps = [*a.steps, Step("subject", "recv(3, 1, 0x0)", value)]
    a.steps.append(Step("subject", "recv(3, 1, 0x0)", "0 <end>"))
    return side_by_side(a, b, "preload")


def record(name: str, subject: str, peer: str, outcome: str) -> report.Record:
    """One run; ``differ`` is one that nobody listed."""
    way = peer if subject == "preload" else f"{subject}_{peer}"
    made: dict[str, Any] = {
        "id": f"calls/streams/{name}[{way}]",
        "scenario": f"calls/streams/{name}",
        "subject": subject,
        "peer": peer,
        "source": f"compat_tests/test_scoreboard.py:{len(name)}",
        "outcome": "differ" if outcome == "listed" else outcome,
        "listed": outcome == "listed",
        "failed": outcome == "differ",
        "seconds": 0.5,
    }
    if outcome == "skip":
        return made | {"why": "no such call"}
    if outcome == "listed":
        made["divergence"] = divergences()[0].scenario.strip().split("\n")[0]
    return made | {"traces": traces("0 <end>" if outcome == "pass" else "1 b'x'")}


@pytest.fixture
def board(tmp_path: Path) -> Path:
    """A scoreboard with every outcome, and more scenarios than a page holds."""
    ways = [("preload", "link"), ("preload", "local"), ("python", "link")]
    names = [f"many[case{i}-" for i in range(pages.PER_PAGE + 5)]
    records = [record("plain", *way, outcome) for way, outcome in zip(ways, report.OUTCOMES, strict=False)]
    records += [record("other", *way, "skip") for way in ways]
    records += [record("shaky", "preload", "link", "unsteady"), record("shaky", "preload", "local", "differ")]
    records += [record("all", "preload", "link", "pass"), record("all", "python", "link", "listed")]
    for name in names:
        made = record("many", "preload", "link", "pass")
        records.append(made | {"id": f"calls/families/{name}link]", "scenario": f"calls/families/{name[:-1]}]"})
    pages.write(tmp_path, records)
    return tmp_path


def test_a_few_unsteady_runs_are_told_and_more_fail() -> None:
    some = [record(f"run{i}", "preload", "link", "pass") for i in range(2 * report.UNSTEADY_MOST)]
    shaky = [record(f"shaky{i}", "preload", "link", "unsteady") for i in range(3)]
    assert not report.too_unsteady([*some, *shaky[:2]])
    assert report.too_unsteady([*some[:100], *shaky[:2]])
    assert report.too_unsteady([*some, *shaky])
    said = "\n".join(report.summary([*some, *shaky]))
    assert "unsteady: calls/streams/shaky2[link]\n  linux   < subject: recv" in said
    assert "differs:" not in said


def test_pages_of_a_run_are_whole(board: Path) -> None:
    faults, said = check(board)
    assert not faults
    assert int(said.split()[0]) == 1 + 4 + 6
    assert len(list(board.glob("calls-families-many-*.html"))) == 2


def test_result_is_what_its_schema_says(board: Path) -> None:
    assert not schema_faults(json.loads((board / "result.json").read_text()))
    spoils: list[Callable[[Any], Any]] = [
        lambda r: r.pop("oracle"),
        lambda r: r["scenarios"][0].update(outcome="lost"),
        lambda r: r["scenarios"][0].pop("source"),
        lambda r: r["divergences"][0].update(kind="because"),
        lambda r: next(s for s in r["scenarios"] if s["outcome"] == "skip").pop("why"),
        lambda r: r["subjects"]["preload"]["total"].pop("differ"),
    ]
    for spoil in spoils:
        spoilt = json.loads((board / "result.json").read_text())
        spoil(spoilt)
        assert schema_faults(spoilt)


# ruff: noqa: E501  (a fault a line)
CELL = "cell-calls-streams-preload-link.html"
# fmt: off
FAULTS: list[tuple[str, str, Callable[[str], str], str]] = [
    ("a link to nowhere", CELL, lambda t: t.replace("calls-streams-plain.html", "elsewhere.html"), "leads nowhere"),
    ("a place that is not there", "calls-streams-plain.html", lambda t: t.replace('<span id="', '<span id="x'), "names a"),
    ("a name twice", "calls-streams-plain.html", lambda t: t + '<p id="a"><p id="a">', "2 times"),
    ("an element that does not end", "index.html", lambda t: t.replace("</table>", "", 1), "closes nothing"),
    ("an end too many", "index.html", lambda t: t.replace("</table>", "</table></b>", 1), "closes nothing"),
    ("a number that is wrong", "index.html", lambda t: re.sub(r"(link.html#pass\">)2<", r"\g<1>3<", t), "no link to 2 pass"),
    ("a cell without a link", "index.html", lambda t: re.sub(r'<a class="skip"[^>]*>(\d+)</a>', r"\1", t), "no link to"),
    ("an outcome that is wrong", CELL, lambda t: t.replace('class="pass"', 'class="skip"'), "no link to the traces"),
    ("a scenario that is missing", CELL, lambda t: re.sub(r"<tr><td><a .*?</tr>", "", t, count=1), "no link to the"),
    ("a source that is missing", CELL, lambda t: re.sub(r"<td><a href.*?</a>", "<td>", t, count=1), "are written in"),
    ("a row of the matrix is missing", "index.html", lambda t: re.sub("<tr><td>bind<.*?</tr>", "", t), "not whole"),
    ("traces that are missing", "calls-streams-plain.html", lambda t: re.sub(r"</?pre>", "", t), "no traces of"),
]
# fmt: on


@pytest.mark.parametrize(("page", "spoil", "fault"), [f[1:] for f in FAULTS], ids=[f[0] for f in FAULTS])
def test_a_fault_of_the_pages_is_noticed(board: Path, page: str, spoil: Callable[[str], str], fault: str) -> None:
    path = board / page
    before = path.read_text()
    path.write_text(spoil(before))
    assert path.read_text() != before
    faults, _ = check(board)
    assert any(fault in f for f in faults), faults
