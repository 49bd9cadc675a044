"""Ways in which a ledger could be damaged, for the tests of the checker.

Each leaves everything else as consistent as it can, hashes and the event's own members included, so that only the check
that is meant can find it.
"""

import hashlib
from collections.abc import Callable
from typing import Any

import msgspec

from ledger.times import format_time
from tests.simulation.crash_checks import Held, Row
from tests.simulation.crash_memory import Sent

SECOND = 1_000_000

Damage = Callable[[Held, dict[str, Sent]], Held]


def rewritten(row: Row, **members: Any) -> Row:
    """The event with other members, in its columns, its bytes and its hash."""
    event = msgspec.json.decode(row.leaf)
    row = row._replace(**{name: value for name, value in members.items() if name in Row._fields})
    data = {name: value for name, value in members.items() if name not in Row._fields}
    event["data"] |= data | {"position": row.position, "version": row.version}
    event["sequence"] = f"{row.position:020}"
    digits = f"{row.position:012x}"
    event["id"] = f"{digits[:8]}-{digits[8:]}{event['id'][13:]}"
    if event["data"].get("effective_from") == event["time"]:
        event["data"]["effective_from"] = format_time(row.recorded_at)
    event["time"] = format_time(row.recorded_at)
    leaf = msgspec.json.encode(event)
    return row._replace(leaf=leaf, leaf_hash=hashlib.sha256(b"\x00" + leaf).digest())


def with_row(held: Held, index: int, row: Row) -> Held:
    rows = [*held.rows]
    rows[index] = row
    return held._replace(rows=rows)


def place(held: Held, sent: Sent) -> int:
    """The index of an acknowledged submission's first row."""
    return int(sent.receipts[0]["position"]) - 1


def without_last(held: Held, count: int) -> Held:
    """As though the last events had never been, nor what is kept beside them."""
    rows = held.rows[:-count]
    keys = [key for key in held.keys if key.first_position <= len(rows)]
    return Held(rows, keys, {position: data for position, data in held.personal.items() if position <= len(rows)})


def lost_events(held: Held, sent: dict[str, Sent]) -> Held:
    return without_last(held, len(held.rows) - place(held, sent["clear"]))


def half_batch(held: Held, sent: dict[str, Sent]) -> Held:
    return without_last(held, 2)


def another_value(held: Held, sent: dict[str, Sent]) -> Held:
    index = place(held, sent["plain"])
    return with_row(held, index, rewritten(held.rows[index], value=False))


def another_subject(held: Held, sent: dict[str, Sent]) -> Held:
    row = held.rows[-1]
    leaf = row.leaf.replace(b'"org:e"', b'"org:f"')
    return with_row(
        held, -1, row._replace(subject="org:f", leaf=leaf, leaf_hash=hashlib.sha256(b"\x00" + leaf).digest())
    )


def another_actor(held: Held, sent: dict[str, Sent]) -> Held:
    return with_row(held, -1, rewritten(held.rows[-1], actor="mallory"))


def another_period(held: Held, sent: dict[str, Sent]) -> Held:
    index = place(held, sent["clear"])
    return with_row(held, index, rewritten(held.rows[index], effective_until="2028-01-01T00:00:00Z"))


def changed_byte(held: Held, sent: dict[str, Sent]) -> Held:
    row = held.rows[-1]
    return with_row(held, -1, row._replace(leaf=row.leaf.replace(b"true", b"false")))


def doubled(held: Held, sent: dict[str, Sent]) -> Held:
    last = held.rows[-1]
    again = rewritten(last, position=last.position + 1, version=last.version + 1, recorded_at=last.recorded_at + SECOND)
    personal = held.personal | {again.position: held.personal[last.position]}
    return held._replace(rows=[*held.rows, again], personal=personal)


def unasked(held: Held, sent: dict[str, Sent]) -> Held:
    last = held.rows[-1]
    more = rewritten(
        last, position=last.position + 1, version=last.version + 1, recorded_at=last.recorded_at + SECOND, personal=None
    )
    return held._replace(rows=[*held.rows, more])


def gap(held: Held, sent: dict[str, Sent]) -> Held:
    last = held.rows[-1]
    moved = rewritten(last, position=last.position + 1)
    personal = {place + (place == last.position): data for place, data in held.personal.items()}
    return with_row(held, -1, moved)._replace(personal=personal)


def version_gap(held: Held, sent: dict[str, Sent]) -> Held:
    return with_row(held, -1, rewritten(held.rows[-1], version=2))


def reused_recorded_at(held: Held, sent: dict[str, Sent]) -> Held:
    return with_row(held, -1, rewritten(held.rows[-1], recorded_at=held.rows[-2].recorded_at))


def recorded_at_stepped_back(held: Held, sent: dict[str, Sent]) -> Held:
    return with_row(held, -1, rewritten(held.rows[-1], recorded_at=held.rows[-2].recorded_at - SECOND))


def two_instants_in_a_batch(held: Held, sent: dict[str, Sent]) -> Held:
    return with_row(held, -2, rewritten(held.rows[-2], recorded_at=held.rows[-2].recorded_at + 1))


def key_lost(held: Held, sent: dict[str, Sent]) -> Held:
    return held._replace(keys=[key for key in held.keys if key.key != "plain"])


def key_of_fewer(held: Held, sent: dict[str, Sent]) -> Held:
    return held._replace(keys=[key._replace(event_count=2) if key.key == "several" else key for key in held.keys])


def key_elsewhere(held: Held, sent: dict[str, Sent]) -> Held:
    keys = [key._replace(first_position=key.first_position - 1) if key.key == "clear" else key for key in held.keys]
    return held._replace(keys=keys)


def key_of_nobody(held: Held, sent: dict[str, Sent]) -> Held:
    return held._replace(keys=[*held.keys, held.keys[0]._replace(key="of nobody")])


def key_without_events(held: Held, sent: dict[str, Sent]) -> Held:
    return held._replace(keys=[*held.keys, held.keys[0]._replace(key="absent", first_position=len(held.rows) + 1)])


def another_reason(held: Held, sent: dict[str, Sent]) -> Held:
    position = place(held, sent["reasoned"]) + 1
    salt, _ = held.personal[position]
    return held._replace(personal=held.personal | {position: (salt, '{"reason":"reasoned#0 "}')})


def another_salt(held: Held, sent: dict[str, Sent]) -> Held:
    position = len(held.rows)
    _, content = held.personal[position]
    return held._replace(personal=held.personal | {position: (b"\x00" * 32, content)})


def reason_lost(held: Held, sent: dict[str, Sent]) -> Held:
    position = place(held, sent["reasoned"]) + 1
    return held._replace(personal={at: data for at, data in held.personal.items() if at != position})


def refused_and_recorded(held: Held, sent: dict[str, Sent]) -> Held:
    sent["unanswered"].refuse("version_conflict")
    return held


def told_otherwise(held: Held, sent: dict[str, Sent]) -> Held:
    sent["several"].receipts[1] |= {"version": 7}
    return held


def no_catalog(held: Held, sent: dict[str, Sent]) -> Held:
    return Held([], [], {})
