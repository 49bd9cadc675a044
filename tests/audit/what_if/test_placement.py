"""Proposals at their moments: the moment of each, and the ledger's own rules there."""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ledger.clock import ManualClock
from ledger.errors import BadInput
from ledger.store import Ledger
from ledger.times import format_time
from projections.audit.what_if.placement import PlacedProposals, place_proposals
from projections.audit.what_if.proposals import read_proposals
from projections.query.query import PinnedQuery, Query
from projections.temporal.changes import Assertion
from projections.temporal.coordinates import IN_FORCE, KnownAt
from tests.support.ledgers import GENESIS, NOW, change, define, definition, open_with_clock, submit
from tests.support.transfers import jsonl

LATER = NOW + 1000
MUCH_LATER = NOW + 2000


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    """Its first event is recorded at NOW; `org:acme` opts in at LATER and out at MUCH_LATER."""
    ledger, clock = open_with_clock(f"sqlite:///{tmp_path / 'ledger.db'}")
    with ledger:
        _record(ledger, clock, LATER, change())
        _record(ledger, clock, MUCH_LATER, change(value=False))
        yield ledger


def _record(ledger: Ledger, clock: ManualClock, now: int, *bodies: dict[str, Any]) -> str:
    clock.now_us = now
    return submit(ledger, *bodies)[0].event_id


def placed(
    ledger: Ledger, *lines: dict[str, Any], first_request: int | None = None, known_at: KnownAt = IN_FORCE
) -> PlacedProposals:
    pin = PinnedQuery(Query(ledger)).pinned
    return place_proposals(ledger, pin, read_proposals(io.BytesIO(jsonl(*lines))), first_request, known_at)


def proposed(placed: PlacedProposals, subject: str = "org:acme") -> list[Assertion]:
    return [one for one in placed.assertions[subject] if one.position in placed.numbering.places]


def retracting(ledger: Ledger, position: int, **more: Any) -> dict[str, Any]:
    event_id = ledger.page(0, 1000)[position - 1].leaf.decode().partition('"id":"')[2][:36]
    return {"type": "change.retracted", "event_id": event_id, **more}


@pytest.mark.parametrize(
    ("moment", "place"),
    [
        (NOW, GENESIS + 1),
        (LATER - 1, GENESIS + 1),
        (LATER, GENESIS + 2),
        (LATER + 1, GENESIS + 2),
        (MUCH_LATER - 1, GENESIS + 2),
        (MUCH_LATER, GENESIS + 3),
        (MUCH_LATER + 10**12, GENESIS + 3),
    ],
)
def test_a_proposal_follows_all_events_recorded_by_its_moment(ledger: Ledger, moment: int, place: int) -> None:
    (one,) = proposed(placement := placed(ledger, change(recorded_at=format_time(moment))))
    assert (one.position, one.recorded_at) == (place, moment)
    assert [one.position for one in placement.assertions["org:acme"]] == sorted({GENESIS + 1, GENESIS + 2, GENESIS + 3})


def test_its_moment_is_its_recorded_at_or_effective_from_or_the_first_request(
    ledger: Ledger,
) -> None:
    lines = (change(value=False, effective_from=format_time(LATER + 7)), change())
    placement = placed(ledger, *lines, first_request=LATER + 5)
    assert [one.recorded_at for one in proposed(placement)] == [LATER + 5, LATER + 7]
    assert placement.numbering.lines.tolist() == [2, 1]
    assert placement.since == (LATER + 5, LATER + 7)


@pytest.mark.parametrize("first_request", [None, NOW - 10**12, NOW - 1, NOW])
def test_no_moment_is_before_the_ledger_s_first_event(ledger: Ledger, first_request: int | None) -> None:
    lines = (change(), change(effective_from=format_time(NOW - 5)))
    assert [one.recorded_at for one in proposed(placed(ledger, *lines, first_request=first_request))] == [NOW, NOW]
    with pytest.raises(BadInput, match=r"^line 1: /recorded_at: .* lies before the ledger's first event"):
        placed(ledger, change(recorded_at=format_time(NOW - 1)))


def test_a_retraction_is_never_before_the_event_that_it_takes_back(ledger: Ledger) -> None:
    (one,) = proposed(placed(ledger, retracting(ledger, GENESIS + 2), first_request=NOW))
    assert (one.recorded_at, one.position) == (MUCH_LATER, GENESIS + 3)
    at = placed(ledger, retracting(ledger, GENESIS + 2, recorded_at=format_time(MUCH_LATER)))
    assert proposed(at)[0].recorded_at == MUCH_LATER
    with pytest.raises(BadInput, match=r"^line 1: /event_id: the event was recorded at .*cannot be retracted at"):
        placed(ledger, retracting(ledger, GENESIS + 2, recorded_at=format_time(MUCH_LATER - 1)))


def test_a_change_can_be_retracted_before_its_later_retraction(ledger: Ledger) -> None:
    clock = ledger.clock
    assert isinstance(clock, ManualClock)
    retraction = retracting(ledger, GENESIS + 1)
    _record(ledger, clock, MUCH_LATER + 50, retraction | {"reason": "a mistake"})
    (one,) = proposed(placed(ledger, retraction, first_request=LATER))
    assert one.recorded_at == LATER
    with pytest.raises(BadInput, match=r"^line 1: /event_id: this change has been retracted already"):
        placed(ledger, retraction | {"recorded_at": format_time(MUCH_LATER + 50)})
    placed(ledger, retraction | {"recorded_at": format_time(MUCH_LATER + 49)})
    with pytest.raises(BadInput, match=r"^line 2: /event_id: this change has been retracted already"):
        placed(ledger, retraction, retraction, first_request=LATER)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (change() | {"setting": "no.such"}, "/setting: unknown setting"),
        (change("key:k1"), "/setting: this setting belongs to subjects of kind"),
        (change(value="yes"), "/value: the value must be true or false"),
        (change("project:p1", "project:p1") | {"setting": "owner"}, "/value: a subject cannot own itself"),
        (change(effective_until=format_time(NOW)), "/effective_until: "),
        ({"type": "setting.cleared", "subject": "org:acme", "setting": "no.such"}, "/setting: unknown setting"),
        ({"type": "change.retracted", "event_id": "no such event"}, "/event_id: there is no event with this id"),
        (define("training.opt_in", definition=definition(value_type="text", default=None, protective=None)), "/defin"),
    ],
)
def test_the_ledger_s_own_rules_hold_and_the_error_names_the_line(
    ledger: Ledger, line: dict[str, Any], message: str
) -> None:
    with pytest.raises(BadInput) as error:
        placed(ledger, change(), line, first_request=NOW)
    assert str(error.value).startswith(f"line 2: {message}")
    assert "\n" not in str(error.value)


def test_the_catalog_of_the_moment_says_which_settings_exist(ledger: Ledger) -> None:
    clock = ledger.clock
    assert isinstance(clock, ManualClock)
    _record(ledger, clock, MUCH_LATER + 10, define())
    beta = change() | {"setting": "beta.search"}
    placed(ledger, beta | {"recorded_at": format_time(MUCH_LATER + 10)})
    with pytest.raises(BadInput, match=r"^line 1: /setting: unknown setting"):
        placed(ledger, beta | {"recorded_at": format_time(MUCH_LATER + 9)})
    # Unless a proposal with an earlier moment defines it, on whatever line.
    placed(ledger, beta | {"recorded_at": format_time(LATER)}, define(recorded_at=format_time(LATER - 1)))
    with pytest.raises(BadInput, match=r"^line 1: /setting: unknown setting"):
        placed(ledger, beta | {"recorded_at": format_time(LATER)}, define(recorded_at=format_time(LATER)))
    other = definition(value_type="text", default=None, protective=None)
    with pytest.raises(BadInput, match=r"^line 1: /definition/value_type: a setting keeps its type, .* bool later"):
        placed(ledger, define(definition=other, recorded_at=format_time(LATER)))


@pytest.mark.parametrize("before", [0, 1])
def test_a_proposal_after_a_fixed_known_at_is_an_error(ledger: Ledger, before: int) -> None:
    line = change(recorded_at=format_time(LATER))
    if before:
        with pytest.raises(BadInput, match=r"^line 1: the proposal is recorded at .*, after the known_at"):
            placed(ledger, line, known_at=LATER - before)
    else:
        assert len(proposed(placed(ledger, line, known_at=LATER))) == 1


def test_events_after_the_pin_do_not_exist(ledger: Ledger) -> None:
    pin = PinnedQuery(Query(ledger)).pinned
    clock = ledger.clock
    assert isinstance(clock, ManualClock)
    _record(ledger, clock, MUCH_LATER + 10, change(value=True))
    retraction = retracting(ledger, GENESIS + 3)
    proposals = read_proposals(io.BytesIO(jsonl(change())))
    placement = place_proposals(ledger, pin, proposals, MUCH_LATER + 100, IN_FORCE)
    assert [one.position for one in placement.assertions["org:acme"]] == [GENESIS + 1, GENESIS + 2, GENESIS + 3]
    with pytest.raises(BadInput, match=r"^line 1: /event_id: there is no event with this id"):
        place_proposals(ledger, pin, read_proposals(io.BytesIO(jsonl(retraction))), MUCH_LATER + 100, IN_FORCE)
