"""The checks of crash campaigns find every kind of damage, and report nothing else."""

import hashlib
from pathlib import Path
from typing import NamedTuple

import msgspec
import pytest

from api.responses import receipt_json
from ledger.append.submissions import parse_submissions
from ledger.clock import ManualClock
from ledger.drafts import Idempotency
from ledger.opening import open_ledger
from ledger.times import SECOND, format_time
from tests.simulation import crash_damage
from tests.simulation.crash_client_log import ACTOR, ClientLog, SentSubmission, stable_part
from tests.simulation.crash_content_checks import DatabaseContent, check_all, check_preserved
from tests.simulation.crash_damage import Damage
from tests.simulation.crash_databases import SQLiteDatabase
from tests.simulation.crash_load import feed_leaves
from tests.support.ledgers import NOW, change, define
from tests.support.reference import Json


class History(NamedTuple):
    content: DatabaseContent
    sent: dict[str, SentSubmission]

    def findings(self) -> list[str]:
        return check_all(self.content, self.sent.values())


def _record_history(url: str) -> dict[str, SentSubmission]:
    """One submission of every kind, on a real ledger. The last two, a batch and a single event, get no response."""
    clock = ManualClock(NOW)
    sent: dict[str, SentSubmission] = {}
    with open_ledger(url, create=True, clock=clock) as ledger:

        def submit(name: str, body: Json, *, has_key: bool = True, is_answered: bool = True) -> None:
            clock.now_us += SECOND
            one = sent[name] = SentSubmission(name, body, has_key=has_key)
            key = Idempotency(ACTOR, name, hashlib.sha256(name.encode()).digest()) if has_key else None
            receipts = ledger.submit(parse_submissions(body), actor=ACTOR, idempotency=key, batch="events" in body)
            if is_answered:
                assert not one.acknowledge([receipt_json(receipt) for receipt in receipts])

        submit("plain", change())
        submit("reasoned", change("account:u1", reason="reasoned#0", effective_from=format_time(NOW - SECOND)))
        submit("several", {"events": [change(f"org:b{i}", reason=f"several#{i}") for i in range(3)]})
        retracts = sent["plain"].receipts[0]["event_id"]
        submit("retraction", {"type": "change.retracted", "event_id": retracts, "reason": "retraction#0"})
        submit("definition", define(reason="definition#0"))
        until = format_time(NOW + 3600 * SECOND)
        cleared = {"type": "setting.cleared", "subject": "org:acme", "setting": "training.opt_in"}
        submit("clear", cleared | {"effective_until": until}, has_key=True)
        lost = {"events": [change(f"org:d{i}", reason=f"unanswered#{i}") for i in range(3)]}
        submit("unanswered", lost, is_answered=False)
        submit("keyless", change("org:e", reason="keyless#0"), has_key=False, is_answered=False)
    sent["refused"] = SentSubmission("refused", change(expected_version=99, reason="refused#0"), has_key=True)
    sent["refused"].refuse("version_conflict")
    sent["absent"] = SentSubmission("absent", change(reason="absent#0"), has_key=True)
    return sent


@pytest.fixture
def history(tmp_path: Path) -> History:
    database = SQLiteDatabase(tmp_path)
    database.create()
    sent = _record_history(database.url)
    return History(database.content(), sent)


def test_a_good_history_has_no_findings(history: History) -> None:
    assert history.findings() == []
    assert check_preserved(history.content, history.content) == []


@pytest.mark.parametrize(
    ("damage", "finding"),
    [
        (crash_damage.lost_events, "event 0 of clear (acknowledged) at position"),
        (crash_damage.half_batch, "event 2 of unanswered (unknown) at position"),
        (crash_damage.another_value, "and was submitted as"),
        (crash_damage.another_subject, "and was submitted as"),
        (crash_damage.another_actor, "and was submitted as"),
        (crash_damage.another_period, "and was submitted as"),
        (crash_damage.changed_byte, "the leaf hash of position"),
        (crash_damage.duplicate, "keyless is recorded more than once or in pieces"),
        (crash_damage.unsent_event, "nobody sent the event at position"),
        (crash_damage.gap, "positions are not dense"),
        (crash_damage.version_gap, "versions are not dense"),
        (crash_damage.reused_recorded_at, "keyless shares its recorded_at"),
        (crash_damage.recorded_at_stepped_back, "recorded_at steps back"),
        (crash_damage.two_instants_in_a_batch, "unanswered has several recorded_at"),
        (crash_damage.key_lost, "and its idempotency key is not"),
        (crash_damage.key_of_fewer, "the idempotency key of several says"),
        (crash_damage.key_elsewhere, "clear is recorded more than once or in pieces"),
        (crash_damage.key_of_nobody, "the idempotency key of nobody was never sent"),
        (crash_damage.key_without_events, "event 0 of absent (unknown) at position"),
        (crash_damage.another_reason, "and was submitted with 'reasoned#0'"),
        (crash_damage.another_salt, "its reason has the commitment"),
        (crash_damage.reason_lost, "has the reason {} and was submitted with 'reasoned#0'"),
        (crash_damage.refused_and_recorded, "unanswered was refused and yet is recorded"),
        (crash_damage.other_receipt, "was acknowledged as"),
        (crash_damage.no_catalog, "there is no built-in catalog"),
    ],
)
def test_damage_of_a_history_is_found(history: History, damage: Damage, finding: str) -> None:
    damaged = history._replace(content=damage(history.content, history.sent))
    assert any(finding in sentence for sentence in damaged.findings()), damaged.findings()


@pytest.mark.parametrize(
    ("damage", "finding"),
    [
        (crash_damage.changed_byte, "and is StoredEvent"),
        (crash_damage.half_batch, "and ends at"),
        (crash_damage.key_lost, "is gone or altered"),
        (crash_damage.another_salt, "is gone or altered"),
    ],
)
def test_a_crash_may_not_change_the_content_before_it(history: History, damage: Damage, finding: str) -> None:
    assert any(
        finding in sentence for sentence in check_preserved(history.content, damage(history.content, history.sent))
    )


def test_a_retry_must_get_the_first_receipts(history: History) -> None:
    plain = history.sent["plain"]
    assert plain.acknowledge([dict(plain.receipts[0])]) == []
    assert plain.acknowledge([plain.receipts[0] | {"position": 99}])
    # A busy database did not say what follows the event; its position must be the same all the same.
    unknown = {"warnings": [{"code": "outlook_unknown", "subject": "org:acme", "detail": ""}], "holds_until": None}
    assert plain.acknowledge([plain.receipts[0] | unknown]) == []
    assert plain.acknowledge([plain.receipts[0] | unknown | {"position": 99}])
    assert plain.acknowledge([])
    assert plain.refuse("version_conflict")
    assert history.sent["refused"].acknowledge(plain.receipts)


def test_events_may_not_change_and_the_feed_may_not_have_gaps() -> None:
    def page(*positions: int, head: int = 5) -> bytes:
        events = [{"data": {"position": position}} for position in positions]
        return msgspec.json.encode({"events": events, "next_after": 0, "head": head})

    client_log = ClientLog()
    client_log.add_events(feed_leaves(client_log, 2, page(3, 4, 5)))
    assert client_log.findings == []
    client_log.add_events([(4, b'{"data":{"position":4}} ')])
    assert len(client_log.findings) == 1
    feed_leaves(client_log, 2, page(3, 5))
    feed_leaves(client_log, 2, page(3, 4))
    assert ["the positions [3, 5]" in client_log.findings[1], "though the head is 5" in client_log.findings[2]] == [
        True
    ] * 2


def test_only_the_position_and_hindsight_of_an_old_answer_may_change() -> None:
    answer = {"verdict": "allowed", "as_of": {"at": "t", "position": 1}, "position": 1, "hindsight": {}}
    assert stable_part(answer) == {"verdict": "allowed", "as_of": {"at": "t"}}
