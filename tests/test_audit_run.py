"""An audit counts every row, in order, at one position of the ledger."""

from collections.abc import Iterator

from ledger.times import format_time
from projections.audit.records import LogRow
from projections.audit.run import by_weight, run, summary_json
from projections.decision import Decision, Observed, RequestRecord
from projections.query import Query
from tests.support.ledgers import NOW, change, opened, submit

TRAINED = Observed(trained=True)


def row(line: int, record: RequestRecord | None) -> LogRow:
    return LogRow("a.log", line, record, None if record else "no good")


def test_every_row_is_counted_once_and_handed_on_in_order(database_url: str) -> None:
    ledger, clock = opened(database_url)
    with ledger:
        submit(ledger, change("org:yes"))
        clock.now_us += 10
        later = NOW + 5
        rows = [
            row(1, RequestRecord(later, org_id="yes", handling=TRAINED)),
            row(2, RequestRecord(later, org_id="no", handling=TRAINED)),
            row(3, None),
            row(4, RequestRecord(later + 1, org_id="no")),
            row(5, RequestRecord(later, key_id="unknown")),
        ]
        seen: list[tuple[int, Decision | None]] = []
        done: list[int] = []
        summary = run(Query(ledger), rows, on_row=lambda r, d: seen.append((r.line, d)), progress=done.append)
    assert [(line, d.outcome.verdict if d else None) for line, d in seen] == [
        (1, "compliant"),
        (2, "violation"),
        (3, None),
        (4, "allowed"),
        (5, "indeterminate"),
    ]
    assert done == [5]
    assert (summary.rows, summary.rejects, summary.against) == (5, 1, 1)
    assert by_weight(summary) == ["org:no", None, "org:yes"]
    written = summary_json(summary)
    assert written["verdicts"] == {"violation": 1, "indeterminate": 1, "compliant": 1, "allowed": 1}
    assert written["reasons"] == {"unknown_owner": 1, "trained_without_opt_in": 1}
    assert written["subjects"][0] == {"subject": "org:no", "verdicts": {"violation": 1, "allowed": 1}}
    assert (written["first_at"], written["last_at"]) == (format_time(later), format_time(later + 1))
    assert written["known_at"] == "at"


def test_all_rows_rest_on_one_position_while_the_ledger_moves_on(database_url: str) -> None:
    ledger, clock = opened(database_url)
    with ledger:
        clock.now_us += 1_000_000

        def rows() -> Iterator[LogRow]:
            for line in range(1, 3001):
                if line % 500 == 0:
                    value = line % 1000 == 0
                    submit(ledger, change(value=value, effective_from=format_time(NOW + 1), reason="filed late"))
                yield row(line, RequestRecord(NOW + 10, org_id="acme", handling=TRAINED))

        positions: set[int] = set()
        query = Query(ledger)
        summary = run(query, rows(), on_row=lambda _, d: positions.add(d.as_of.position if d else 0))
        assert positions == {summary.pin.position}
        assert summary.verdicts == {"violation": 3000}
        assert summary.hindsight == 0
        again = run(query, [row(1, RequestRecord(NOW + 10, org_id="acme", handling=TRAINED))])
        assert again.pin.position == summary.pin.position + 6
        assert again.hindsight == 1


def test_an_audit_in_hindsight_uses_what_was_recorded_since(database_url: str) -> None:
    ledger, clock = opened(database_url)
    with ledger:
        clock.now_us += 1000
        submit(ledger, change(effective_from=format_time(NOW + 1), reason="filed late"))
        rows = [row(1, RequestRecord(NOW + 10, org_id="acme", handling=TRAINED))]
        query = Query(ledger)
        assert run(query, rows).verdicts == {"violation": 1}
        assert run(query, rows, known_at=None).verdicts == {"compliant": 1}
        assert run(query, rows, known_at=NOW + 999).verdicts == {"violation": 1}
        assert run(query, rows, known_at=NOW + 1000).verdicts == {"compliant": 1}


def test_an_empty_log_is_an_empty_summary(database_url: str) -> None:
    ledger, _clock = opened(database_url)
    with ledger:
        written = summary_json(run(Query(ledger), []))
    assert (written["rows"], written["verdicts"], written["first_at"]) == (0, {}, None)
