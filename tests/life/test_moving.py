"""Moving from SQLite to PostgreSQL and back by export and import: the same ledger, byte for byte."""

import io
from pathlib import Path

import pytest

from ledger.clock import ManualClock
from ledger.opening import open_ledger
from ledger.recorders.contract import Entry
from ledger.store import Ledger
from ledger.times import parse_time
from ledger.transfer.export import export_lines, export_personal
from ledger.transfer.import_ledger import import_ledger
from projections.query.query import Query
from projections.timelines.projector import Projector
from projections.timelines.rebuild.rebuild import rebuild
from projections.timelines.store import open_timelines
from tests.life.stored import Stored
from tests.support.ledgers import change, key, known_submission, submit

LATER = parse_time("2028-01-01T00:00:00Z")
MOMENTS = [parse_time(text) for text in ("2026-02-01T00:00:00Z", "2026-03-06T00:00:00Z", "2027-06-01T00:00:00Z")]


def moved(source: str, target: str) -> str:
    with open_ledger(source) as ledger:
        events, personal = b"".join(export_lines(ledger)), b"".join(export_personal(ledger))
    import_ledger(target, io.BytesIO(events), personal=io.BytesIO(personal))
    return target


def contents(url: str) -> tuple[list[Entry], bytes, str, dict[int, str]]:
    """Every column of every event (its leaf hash among them), the personal data, the origin, the reasons."""
    with open_ledger(url) as ledger:
        entries = ledger.page(0)
        return entries, b"".join(export_personal(ledger)), ledger.origin, ledger.reasons(range(1, len(entries) + 1))


def answers(url: str) -> list[object]:
    with open_ledger(url, clock=ManualClock(LATER)) as ledger:
        query = Query(ledger)
        subjects = [row.subject for row in query.subjects()[1]]
        assert len(subjects) > 4
        return [
            query.state(subject, at=at, known_at=known_at)
            for subject in subjects
            for at in MOMENTS
            for known_at in (None, "at", MOMENTS[1])
        ]


@pytest.fixture
def original(stored: Stored, tmp_path: Path) -> str:
    return stored.put(f"sqlite:///{tmp_path}/original.db")


def test_nothing_differs_after_moving_there_and_back(original: str, postgres_url: str, tmp_path: Path) -> None:
    there = moved(original, postgres_url)
    back = moved(there, f"sqlite:///{tmp_path}/back.db")
    assert contents(original) == contents(there) == contents(back)
    assert answers(original) == answers(there) == answers(back)
    for url in (there, back):
        with open_ledger(url) as ledger:
            assert rebuild(Projector(ledger, open_timelines(ledger)), check_only=True).live_equal


def test_each_continues_from_the_same_head(original: str, postgres_url: str) -> None:
    moved(original, postgres_url)

    def go_on(url: str) -> tuple[int, int, int]:
        with open_ledger(url, clock=ManualClock(LATER)) as ledger:
            (receipt,) = submit(ledger, change("org:acme", False))
            return receipt.position, receipt.version, receipt.recorded_at

    assert go_on(original) == go_on(postgres_url)


def test_idempotency_keys_stay_behind(stored: Stored, original: str, database_url: str) -> None:
    """Keys belong to a ledger and its callers, not to its events: let retries end before a ledger moves. A backup or a
    dump keeps the keys."""
    moved(original, database_url)

    def known(ledger: Ledger) -> list[object]:
        return [
            known_submission(ledger, "alice", submission["key"]) for submission in stored.submitted if submission["key"]
        ]

    with open_ledger(original) as before, open_ledger(database_url) as after:
        assert None not in known(before)
        assert set(known(after)) == {None}
        head = after.head().position
        (receipt,) = submit(after, change("org:acme"), idempotency=key(stored.submitted[0]["key"]))
        assert receipt.position == head + 1
