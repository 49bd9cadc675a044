"""A small ledger with every kind of content, what is asked about it, and one random change of what is stored."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from random import Random
from typing import Any, Final, NamedTuple

import psycopg

from ledger.clock import ManualClock
from ledger.errors import InforceError, LedgerCorrupt
from ledger.opening import open_ledger
from ledger.store import Ledger
from ledger.transfer.export import export_lines, export_personal
from projections.audit.index.compile import compile_index
from projections.decisions.model import Observed, RequestRecord
from projections.query.history import history
from projections.query.query import IN_FORCE, Query
from projections.timelines.encoding import BLOCK_STEPS
from projections.timelines.projector import Projector
from projections.timelines.store import open_timelines
from tests.audit.index.canonical import canonical
from tests.support.ledgers import NOW, ORIGIN, change, define, key, submit

STEP: Final = 1_000_000
BACKDATED: Final = "2026-03-01T12:00:01.5Z"

Answers = dict[str, object]
"""Question → its answer, or the error in place of one."""


class Refusal(NamedTuple):
    """`names_damage`: whether the error says that what is stored is wrong."""

    names_damage: bool
    error: str


def fill(ledger: Ledger, clock: ManualClock) -> None:
    def say(*bodies: dict[str, Any], **more: Any) -> list[str]:
        clock.now_us += STEP
        return [receipt.event_id for receipt in submit(ledger, *bodies, **more)]

    say(define())
    say({"type": "setting.changed", "subject": "model:m", "setting": "model.hosting", "value": "passthrough"})
    say({"type": "setting.changed", "subject": "model:m", "setting": "model.provider", "value": "upstream"})
    say({"type": "setting.changed", "subject": "key:k", "setting": "owner", "value": "project:p"})
    say({"type": "setting.changed", "subject": "project:p", "setting": "owner", "value": "org:acme"})
    say({"type": "setting.changed", "subject": "account:u1", "setting": "attached_to", "value": "org:acme"})
    for number in range(BLOCK_STEPS + 8):
        say(change("org:long", value=number % 2 == 0))
    say(change("org:long", effective_from=BACKDATED, reason="said late"))
    for number in range(8):
        say(change(f"org:o{number}", reason=f"ticket {number}"), change(f"account:a{number}", value=False))
    (taken_back,) = say(change("org:acme", reason="a mistake"), idempotency=key("k1"))
    say({"type": "change.retracted", "event_id": taken_back, "reason": "entered for the wrong organization"})
    say({"type": "setting.cleared", "subject": "org:o1", "setting": "training.opt_in"}, idempotency=key("k2"))
    say({"type": "setting.changed", "subject": "org:acme", "setting": "residency.regions", "value": ["eu", "us"]})
    say(change("org:acme", effective_until="2026-04-01T00:00:00Z"), change("org:acme", setting="passthrough.allowed"))


def make(url: str) -> int:
    """Makes the ledger, with its timelines. Returns the last instant."""
    clock = ManualClock(NOW)
    with open_ledger(url, create=True, clock=clock, origin=ORIGIN) as ledger:
        fill(ledger, clock)
        Projector(ledger, open_timelines(ledger)).catch_up()
    return clock.now_us + STEP


Question = tuple[str, Callable[[], object]]


def questions(ledger: Ledger, query: Query, now: int) -> Iterator[Question]:
    earlier = NOW + 20 * STEP
    subjects = ["org:acme", "org:long", "org:o1", "account:u1", "key:k", "model:m", "org:nobody", "catalog:settings"]
    for subject in subjects:
        about: list[Question] = [
            (f"state of {subject}", partial(query.state, subject, at=now)),
            (f"state then of {subject}", partial(query.state, subject, at=earlier, known_at=IN_FORCE)),
            (f"state as known then of {subject}", partial(query.state, subject, at=now, known_at=earlier)),
            (f"history of {subject}", partial(history, ledger, subject)),
        ]
        yield from about
    for subject in ("org:acme", "org:long"):
        yield f"timeline of {subject}", partial(query.timeline, subject)
        yield f"timeline in force of {subject}", partial(query.timeline, subject, known_at=IN_FORCE)
        yield f"feed of {subject}", partial(ledger.subject_page, subject, 0)
    for at in (earlier, now):
        record = RequestRecord(at=at, model_id="m", handling=Observed(trained=True, stored=True))
        for of in (
            record._replace(key_id="k"),
            record._replace(org_id="long"),
            record._replace(account_id="u1"),
            record._replace(org_id="o2"),
        ):
            yield f"check of {of}", partial(query.check, of)
            yield f"check in hindsight of {of}", partial(query.check, of, None)
    yield "feed", partial(ledger.page, 0)
    yield "end of the feed", lambda: ledger.page(ledger.head().position - 3, 10)
    yield "export", lambda: b"".join(export_lines(ledger))
    yield "reasons", lambda: b"".join(export_personal(ledger))
    yield "catalog", partial(query.catalog, at=now)
    yield "subjects", query.subjects
    yield "organizations", partial(query.subjects, kind="org")
    yield "first organizations", partial(query.subjects, kind="org", limit=3)
    yield "snapshot", partial(query.snapshot, at=now, kind="org")
    yield "index", lambda: canonical(compile_index(ledger))


def answers(url: str, now: int) -> Answers:
    """The answers of a process that opens the ledger now."""
    try:
        with open_ledger(url, clock=ManualClock(now)) as ledger:
            query = Query(ledger)
            return {name: _answer(ask) for name, ask in questions(ledger, query, now)}
    except InforceError as error:
        return {"opening": _refusal(error)}


def _answer(ask: Callable[[], object]) -> object:
    try:
        return repr(ask())
    except InforceError as error:
        return _refusal(error)


def _refusal(error: InforceError) -> Refusal:
    damage = isinstance(error, LedgerCorrupt) or any(
        word in error.detail
        for word in ("damaged", "not a ledger", "not a SQLite file", "another program", "newer inforce")
    )
    return Refusal(damage, f"{error.code}: {error.detail}")


def silent(right: Answers, given: Answers) -> list[str]:
    """The questions that were answered otherwise without a word of damage."""
    if "opening" in given:
        refusal = given["opening"]
        assert isinstance(refusal, Refusal)
        return [] if refusal.names_damage else [f"opening: {refusal.error}"]
    return [
        f"{name}: {given[name]!r:.300}"
        for name, answer in right.items()
        if given[name] != answer and not _names_damage(given[name])
    ]


def _names_damage(answer: object) -> bool:
    return isinstance(answer, Refusal) and answer.names_damage


def flip_a_byte(file: Path, random: Random) -> str:
    """Changes one byte of the file, and tells which."""
    content = bytearray(file.read_bytes())
    at = random.randrange(len(content))
    content[at] ^= random.randrange(1, 256)
    file.write_bytes(content)
    return f"byte {at} (page {at // 4096 + 1}) of {file.name}"


def flip_a_bit_of_a_column(url: str, random: Random) -> str:
    """Changes one bit of one column of one row of our tables, as a superuser without triggers, and tells which."""
    with closing(psycopg.connect(url)) as connection:
        tables = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'inforce'").fetchall()
        while True:
            table = f"inforce.{random.choice(sorted(tables))[0]}"
            rows = connection.execute(f"SELECT ctid::text, * FROM {table} ORDER BY ctid")
            names = [column.name for column in rows.description or ()]
            every = rows.fetchall()
            if not every:
                continue
            row, column = random.choice(every), random.randrange(1, len(names))
            value = _with_another_bit(row[column], random)
            if value is None:
                continue
            try:
                connection.execute(f"ALTER TABLE {table} DISABLE TRIGGER ALL")
                connection.execute(f"UPDATE {table} SET {names[column]} = %s WHERE ctid = %s::tid", (value, row[0]))
                connection.commit()
            except psycopg.IntegrityError:
                connection.rollback()
                continue
            return f"{names[column]} of row {row[0]} of {table}"


def _with_another_bit(value: object, random: Random) -> object:
    if isinstance(value, int):
        return value ^ 1 << random.randrange(40)
    content = bytearray(value.encode() if isinstance(value, str) else bytes(value))  # type: ignore[call-overload]
    if not content:
        return None
    content[random.randrange(len(content))] ^= 1 << random.randrange(7)
    if not isinstance(value, str):
        return bytes(content)
    # PostgreSQL stores no text with a zero byte.
    return content.decode() if 0 not in content else None
