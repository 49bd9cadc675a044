"""Cases alternate, marks are judged at their limit, and missing peers are named."""

import sys
from typing import Any

import pytest

from scripts.bench.marks import MARKS, judge
from scripts.bench.measure import Case, case_table, measure, percentile
from scripts.bench.report import SuiteReport, SuiteResult, show
from scripts.bench.toggle_peers import set_up_peers


def test_the_first_turn_is_not_counted_and_cases_alternate() -> None:
    order: list[str] = []

    def work(name: str) -> Case:
        def run(prepared: Any) -> int:
            assert prepared == f"for {name}"
            order.append(name)
            return 10

        return Case(name, None if name == "a" else "a", run, lambda: f"for {name}")

    measurements = measure("a test", [work("a"), work("b")], 2)
    assert order == ["a", "b", "b", "a", "a", "b"]
    assert [one.units for one in measurements] == [10, 10]
    assert [one.speed is None for one in measurements] == [True, False]


@pytest.mark.parametrize(
    ("key", "below", "at", "above"),
    [
        ("append.one", False, True, True),
        ("check.peers", False, False, True),
        ("check.verdict", True, True, False),
        ("http.tail", True, False, False),
    ],
)
def test_a_mark_holds_up_to_its_limit(key: str, below: bool, at: bool, above: bool) -> None:
    limit = MARKS[key].limit
    assert [judge(key, figure).met for figure in (limit - 1e-9, limit, limit + 1e-9)] == [below, at, above]


def test_a_mark_about_a_size_is_not_judged_at_a_smaller_size() -> None:
    assert judge("rebuild.wall", 1.0, size=9_999_999).met is None
    assert "9,999,999" in judge("rebuild.wall", 1.0, size=9_999_999).note
    assert judge("rebuild.wall", 89.9, size=10_000_000).met is True
    assert judge("rebuild.wall", 90.0, size=10_000_000).met is False


def test_a_percentile_is_one_of_the_values() -> None:
    values = [float(value) for value in range(1, 101)]
    assert [percentile(values, percent) for percent in (1, 50, 99, 100)] == [1, 50, 99, 100]
    assert percentile([3.0, 1.0, 2.0], 50) == 2.0
    assert percentile([7.0], 99) == 7.0


TOGGLES = {f"o{number}": number % 3 == 0 for number in range(30)}


def test_each_peer_decides_its_toggles() -> None:
    peers, missing = set_up_peers(TOGGLES)
    assert [peer.name for peer in peers] == ["cedarpy", "casbin", "UnleashClient", "OpenFeature, in memory"]
    assert missing == []
    for peer in peers:
        assert {org: peer.is_on(org) for org in TOGGLES} == TOGGLES


def test_a_missing_peer_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "casbin", None)
    peers, missing = set_up_peers(TOGGLES)
    assert missing == ["casbin"]
    assert len(peers) == 3


def test_the_table_shows_each_figure_beside_its_mark(capsys: pytest.CaptureFixture[str]) -> None:
    def work(_prepared: object) -> int:
        return len([number for number in range(1000) if number % 7])

    measurements = measure("a test", [Case("theirs", None, work), Case("ours", "theirs", work)], 1)
    judged = [judge("append.one", 0.79), judge("append.recorder", 0.5), judge("rebuild.wall", 1.0, size=5)]
    result = SuiteResult([case_table("a table", "event", measurements)], judged, ["a note"])
    show(SuiteReport("append", "recording", "a database", 1, True, result))
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[-1] for line in lines if line.startswith(("append", "rebuild of")) and "  " in line] == [
        *("NO", "yes", "?")
    ]
    assert any("at least 0.8" in line and "0.79" in line for line in lines)
    assert any("the mark is about 10,000,000" in line for line in lines)
    assert any(line.startswith("theirs") and "baseline" in line for line in lines)
    assert "a note" in lines
    assert "--quick: these figures mean little" in lines
