"""History, diff and the catalog at earlier times, through a real ledger on both databases."""

from random import Random
from typing import Any

import pytest

from ledger.errors import NotFound
from ledger.recorders.contract import Entry
from ledger.times import parse_time
from projections.query.history import HistoryRow, history
from projections.query.query import IN_FORCE, KnownAt
from tests.support.questions import (
    CACHING,
    HOUR,
    NOON,
    START,
    STORAGE,
    TRAINING,
    QueryLedger,
    changed,
    defined,
    retracted,
)
from tests.support.random_history import RandomHistory
from tests.support.reference_time import UNLIMITED, ReferenceLedger


def test_history_is_newest_first_with_retracted_changes_marked(bench: QueryLedger) -> None:
    (first,) = bench.submit(NOON, changed("org:acme", STORAGE, True))
    (second,) = bench.submit(NOON + 1, changed("org:acme", CACHING, False))
    (third,) = bench.submit(NOON + 2, retracted(first.event_id))
    rows = history(bench.ledger, "org:acme").rows
    assert [(row.entry.version, row.setting, row.retracted_by) for row in rows] == [
        (third.version, STORAGE, None),
        (second.version, CACHING, None),
        (first.version, STORAGE, third.event_id),
    ]
    assert {row.reason for row in rows} == {"a test"}


def test_history_of_one_setting(bench: QueryLedger) -> None:
    bench.submit(NOON, changed("org:acme", STORAGE, True), changed("org:acme", CACHING, False))
    assert [row.setting for row in history(bench.ledger, "org:acme", setting=CACHING).rows] == [CACHING]
    assert history(bench.ledger, "org:acme", setting="network.private_only").rows == ()
    with pytest.raises(NotFound, match=r"was ever defined \(did you mean caching\.temporary\?\); the catalog"):
        history(bench.ledger, "org:acme", setting="caching.temporay")


@pytest.mark.parametrize("limit", [1, 2, 5, 6])
def test_history_in_pages_is_the_whole_history(bench: QueryLedger, limit: int) -> None:
    """`retracted_by` is complete on every page."""
    (first,) = bench.submit(NOON, changed("org:acme", STORAGE, True))
    bench.submit(NOON + 1, *(changed("org:acme", CACHING, on) for on in (False, True, False)))
    bench.submit(NOON + 2, retracted(first.event_id))
    whole = history(bench.ledger, "org:acme").rows
    pages: list[HistoryRow] = []
    after = None
    while True:
        page = history(bench.ledger, "org:acme", after=after, limit=limit)
        assert len(page.rows) <= limit
        pages.extend(page.rows)
        after = page.next_after
        if after is None:
            break
    assert tuple(pages) == whole
    assert pages[-1].retracted_by is not None


@pytest.mark.parametrize("setting", [None, STORAGE, CACHING])
def test_a_page_of_a_long_history_reads_the_history_once_beside_the_page(
    bench: QueryLedger, monkeypatch: pytest.MonkeyPatch, setting: str | None
) -> None:
    """`retracted_by` is complete, although the retraction of a change on the last page is among the newest events."""
    (first,) = bench.submit(NOON, changed("org:acme", STORAGE, True))
    bench.submit(NOON + 1, *(changed("org:acme", CACHING if on % 2 else STORAGE, on % 3 == 0) for on in range(400)))
    (last,) = bench.submit(NOON + 2, retracted(first.event_id))
    read: list[int] = []
    stream = bench.ledger.recorder.stream

    def counted(*args: Any, **more: Any) -> list[Entry]:
        entries = stream(*args, **more)
        read.append(len(entries))
        return entries

    monkeypatch.setattr(bench.ledger.recorder, "stream", counted)
    newest = history(bench.ledger, "org:acme", limit=5, setting=setting)
    assert len(newest.rows) == 5
    assert sum(read) < 402 + 25
    if setting != CACHING:
        oldest = history(bench.ledger, "org:acme", limit=5, setting=setting, after=9)
        assert oldest.rows[-1].entry.version == (1 if oldest.next_after is None else 4)
        assert sum(read) < 2 * 402 + 50
        marked = history(bench.ledger, "org:acme", limit=5, setting=setting, after=2).rows
        assert [(row.entry.version, row.retracted_by) for row in marked] == [(first.version, last.event_id)]
    assert history(bench.ledger, "org:acme", after=1).rows == ()
    with pytest.raises(NotFound):
        history(bench.ledger, "org:nobody", after=1)


def test_diff_has_the_settings_whose_value_differs_and_the_events_that_changed_them(bench: QueryLedger) -> None:
    bench.submit(NOON, changed("org:acme", TRAINING, False), changed("org:acme", CACHING, True))
    (on,) = bench.submit(NOON + 1, changed("org:acme", STORAGE, True))
    _, position, differences, _ = bench.query.diff("org:acme", start=NOON, end=NOON + 1)
    assert position == on.position
    (difference,) = differences
    assert (difference.before.setting, difference.before.value, difference.after.value) == (STORAGE, False, True)
    assert difference.after.change is not None
    assert difference.after.change.event_id == on.event_id
    assert bench.query.diff("org:acme", start=NOON + 1, end=NOON + HOUR).differences == ()


def test_diff_depends_on_what_was_known(bench: QueryLedger) -> None:
    bench.submit(NOON, changed("org:acme", CACHING, True))
    bench.submit(NOON + HOUR, changed("org:acme", STORAGE, True, NOON + 1))

    def differing(known_at: KnownAt) -> list[str]:
        return [
            d.after.setting
            for d in bench.query.diff("org:acme", start=NOON, end=NOON + 2, known_at=known_at).differences
        ]

    assert differing(None) == [STORAGE]
    assert differing(NOON + HOUR) == [STORAGE]
    assert differing(NOON + HOUR - 1) == []
    assert differing(IN_FORCE) == []


def test_diff_shows_a_default_that_changed(bench: QueryLedger) -> None:
    bench.submit(NOON, changed("org:acme", STORAGE, True))
    bench.submit(NOON + 1, defined(CACHING, default=False))
    (difference,) = bench.query.diff("org:acme", start=NOON, end=NOON + 1).differences
    assert (difference.before.value, difference.after.value, difference.after.source) == (True, False, "default")


def test_diff_names_new_changes_ended_ones_and_retractions(bench: QueryLedger) -> None:
    (bounded,) = bench.submit(NOON, changed("org:acme", STORAGE, True, NOON, NOON + 10))
    (mistake,) = bench.submit(NOON + 1, changed("org:acme", TRAINING, True))
    (retraction,) = bench.submit(NOON + 2, retracted(mistake.event_id))

    def changed_by(start: int, end: int) -> dict[str, list[int]]:
        differences = bench.query.diff("org:acme", start=start, end=end, known_at=IN_FORCE).differences
        return {d.after.setting: [cause.position for cause in d.changed_by] for d in differences}

    assert changed_by(NOON - 1, NOON) == {STORAGE: [bounded.position]}
    assert bounded.position in changed_by(NOON + 9, NOON + 10)[STORAGE]
    assert retraction.position in changed_by(NOON + 1, NOON + 2)[TRAINING]
    backwards = bench.query.diff("org:acme", start=NOON, end=NOON - 1, known_at=IN_FORCE).differences
    assert [(d.before.value, d.after.value) for d in backwards] == [(True, False)]
    assert [cause.position for cause in backwards[0].changed_by] == [bounded.position]


@pytest.mark.parametrize("known_at", [None, IN_FORCE, NOON + 5, NOON + 20])
def test_diff_does_not_name_a_pause_that_a_standing_change_had_ended(bench: QueryLedger, known_at: KnownAt) -> None:
    (on,) = bench.submit(NOON - 10, changed("org:acme", STORAGE, True))
    (pause,) = bench.submit(NOON, changed("org:acme", STORAGE, False, NOON, NOON + 10))
    (ended,) = bench.submit(NOON + 3, changed("org:acme", STORAGE, True))
    bench.submit(NOON + 4, changed("org:acme", CACHING, False, NOON + 4, NOON + 10))

    def changed_by(start: int, end: int) -> dict[str, list[int]]:
        differences = bench.query.diff("org:acme", start=start, end=end, known_at=known_at).differences
        return {d.after.setting: [cause.position for cause in d.changed_by] for d in differences}

    assert changed_by(NOON - 1, NOON) == {STORAGE: [pause.position]}
    assert changed_by(NOON + 2, NOON + 20)[STORAGE] == [ended.position]
    # This one came to its own end.
    (caching,) = {*changed_by(NOON + 5, NOON + 20)[CACHING]} - {1, 2, 3}
    assert caching > ended.position > on.position


def test_the_catalog_at_earlier_times(bench: QueryLedger) -> None:
    bench.submit(NOON, defined("beta.search", NOON + HOUR))
    bench.submit(NOON + 2 * HOUR, defined("beta.search", NOON + HOUR, default=True))

    def default_of(at: int, known_at: KnownAt) -> Any:
        definition = bench.query.catalog(at=at, known_at=known_at).definitions.get("beta.search")
        return "undefined" if definition is None else dict(definition.value or {})["default"]  # type: ignore[arg-type]

    assert default_of(NOON + HOUR - 1, None) == "undefined"
    assert default_of(NOON + HOUR, None) is True
    assert default_of(NOON + HOUR, IN_FORCE) is False
    assert default_of(NOON + HOUR, NOON - 1) == "undefined"
    assert default_of(NOON + HOUR, NOON) is False
    assert default_of(NOON + 2 * HOUR, IN_FORCE) is True
    assert bench.query.catalog(at=START - 1, known_at=IN_FORCE).definitions == {}


# Until when a change decides


def holds(bench: QueryLedger, subject: str = "org:acme") -> list[tuple[int | None, int | None]]:
    """(now, at the recording) of the subject's changes, oldest first."""
    rows = history(bench.ledger, subject).rows
    return [(row.holding.now, row.holding.at_recording) for row in reversed(rows) if row.holding is not None]


def test_history_says_that_an_opt_out_cut_a_pause(bench: QueryLedger) -> None:
    bench.submit(NOON, changed("org:acme", TRAINING, True))
    bench.submit(NOON + 1, changed("org:acme", TRAINING, False, NOON + 100, NOON + 200))
    assert holds(bench) == [(NOON + 100, None), (NOON + 200, NOON + 200)]
    bench.submit(NOON + 150, changed("org:acme", TRAINING, False))
    assert holds(bench) == [(NOON + 100, None), (NOON + 150, NOON + 200), (None, None)]


@pytest.mark.parametrize("offset", [-1, 0, 1])
def test_a_change_of_the_same_start_supersedes_one(bench: QueryLedger, offset: int) -> None:
    bench.submit(NOON, changed("org:acme", TRAINING, True, NOON + 100))
    bench.submit(NOON + 1, changed("org:acme", TRAINING, False, NOON + 100 + offset))
    first, second = holds(bench)
    assert first == {-1: (None, None), 0: (NOON + 100, None), 1: (NOON + 101, None)}[offset]
    assert second == ((NOON + 100, NOON + 100) if offset == -1 else (None, None))


def test_a_retraction_prolongs_the_change_before_and_ends_its_own(bench: QueryLedger) -> None:
    bench.submit(NOON, changed("org:acme", TRAINING, True))
    (later,) = bench.submit(NOON + 1, changed("org:acme", TRAINING, False, NOON + 100))
    bench.submit(NOON + 2, retracted(later.event_id))
    assert holds(bench) == [(None, None), (NOON + 100, None)]
    assert history(bench.ledger, "org:acme").rows[0].holding is None


def test_definitions_hold_until_the_next_one(bench: QueryLedger) -> None:
    bench.submit(NOON, defined("beta.search", NOON + 50))
    bench.submit(NOON + 1, defined("beta.search", NOON + 10))
    assert holds(bench, "catalog:settings")[-2:] == [(None, None), (NOON + 50, NOON + 50)]


@pytest.mark.parametrize("seed", range(4))
def test_holdings_and_next_changes_are_those_of_the_rules(bench: QueryLedger, seed: int) -> None:
    """For any history: at the recording, now, and at instants around every boundary."""
    RandomHistory(bench.ledger, bench.clock, seed).extend(80)
    reference = ReferenceLedger(entry.leaf for entry in bench.ledger.page(0, 100_000))
    for subject in ("org:acme", "account:u1", "model:a/b", "catalog:settings"):
        for row in history(bench.ledger, subject, limit=1000).rows:
            event = reference.events[row.entry.position - 1]
            if row.holding is None:
                assert "retracts" in event["data"]
                continue
            assert row.holding.at_recording == reference.stops_deciding(event, row.entry.recorded_at)
            if row.retracted_by is None:
                assert row.holding.now == reference.stops_deciding(event, UNLIMITED)
            else:
                assert row.holding.now == parse_time(event["data"]["effective_from"])
    random = Random(seed)
    moments = sorted({entry.recorded_at for entry in bench.ledger.page(0, 100_000)})
    for _ in range(60):
        subject = random.choice(("org:acme", "account:u1", "model:a/b"))
        at = random.choice(moments) + random.randrange(-1, 2)
        known_at: Any = random.choice((None, IN_FORCE, random.choice(moments)))
        instant = at if known_at == IN_FORCE else known_at
        answer = bench.query.state(subject, at=at, known_at=known_at)
        for setting in answer.settings:
            following = answer.next.get(setting)
            expected = reference.next_change(subject, setting, at, instant)
            assert (
                None if following is None else (following.start, following.state.source, following.state.value)
            ) == (expected and (expected[0], expected[1].source, expected[1].value))
