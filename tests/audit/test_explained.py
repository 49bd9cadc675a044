"""`--explain` finds the rows of an id in a log and shows them to people and to programs."""

import json
from pathlib import Path

import pytest

from ledger.errors import BadInput
from projections.decisions.model import Observed, RequestRecord
from projections.query.query import IN_FORCE, PinnedQuery, Query
from scripts.audit.explain import ROWS_MAX, explain_rows, find_rows, show_explained
from tests.audit.report.making import parts
from tests.support.ledgers import open_with_clock
from tests.support.questions import NOON, START, TRAINING, QueryLedger, changed, retracted

ROW = RequestRecord(NOON + 20, org_id="acme", request_id="r", handling=Observed(trained=True))


def test_all_rows_of_the_id_are_counted_and_the_first_are_returned() -> None:
    rows = [ROW._replace(request_id=None), ROW, ROW._replace(request_id="R")] * (ROWS_MAX + 5)
    rows_found = find_rows(parts(rows, 4), "r")
    assert rows_found.total == ROWS_MAX + 5
    assert rows_found.rows == [("my log's.jsonl", 2 + 3 * place, ROW) for place in range(ROWS_MAX)]


def test_an_unknown_id_is_an_error_with_the_number_of_rows_read() -> None:
    with pytest.raises(BadInput, match="none of the 3 rows has that request_id, and 1 of them could not be read"):
        find_rows(parts([ROW, ROW], 5), "s")


def test_an_explanation_is_shown_to_people_and_to_programs(
    tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    ledger, clock = open_with_clock(f"sqlite:///{tmp_path / 'ledger.db'}", START)
    with ledger:
        bench = QueryLedger(ledger, clock, Query(ledger))
        (opted,) = bench.submit(NOON, changed("org:acme", TRAINING, True))
        bench.submit(NOON + 5, retracted(opted.event_id), changed("org:acme", "residency.regions", ["eu"]))
        row = ROW._replace(enforced_position=opted.position)
        explained = explain_rows(PinnedQuery(bench.query), find_rows(parts([row], 1), "r"), IN_FORCE)
    show_explained("table", explained, 3)
    output = capfdbinary.readouterr().out.decode()
    assert (
        "my log's.jsonl line 1, request r\nobserved     trained\nviolation\n  because `training.opt_in` was" in output
    )
    assert f"Decided by #1, #{opted.position + 1}.\n" in output
    assert f"retracts {opted.event_id}" in output
    assert "and 2 more rows have this id" in output
    show_explained("json", explained, 1)
    document = json.loads(capfdbinary.readouterr().out)
    assert document["rows"][0]["decided_by"] == [1, opted.position + 1]
    assert document["row_count"] == 1
    show_explained("csv", explained, 1)
    header, *lines = capfdbinary.readouterr().out.decode().splitlines()
    assert header.startswith("source,line,position,needed,subject,setting,value")
    assert [line.split(",")[2:4] for line in lines] == [
        ["1", "true"],
        [str(opted.position + 1), "true"],
        [str(opted.position + 2), "false"],
    ]
