"""Ways to damage a ledger, for the tests of the content checks.

Each leaves everything else as consistent as possible, including hashes and the event's own members, so that only one
check can find it.
"""

import hashlib
from collections.abc import Callable
from typing import Any

import msgspec

from ledger.times import SECOND, format_time
from tests.simulation.crash_client_log import SentSubmission
from tests.simulation.crash_content_checks import DatabaseContent, StoredEvent

Damage = Callable[[DatabaseContent, dict[str, SentSubmission]], DatabaseContent]


def with_members(row: StoredEvent, **members: Any) -> StoredEvent:
    """The event with other members, consistently in its columns, its bytes and its hash."""
    event = msgspec.json.decode(row.leaf)
    row = row._replace(**{name: value for name, value in members.items() if name in StoredEvent._fields})
    data = {name: value for name, value in members.items() if name not in StoredEvent._fields}
    event["data"] |= data | {"position": row.position, "version": row.version}
    event["sequence"] = f"{row.position:020}"
    digits = f"{row.position:012x}"
    event["id"] = f"{digits[:8]}-{digits[8:]}{event['id'][13:]}"
    if event["data"].get("effective_from") == event["time"]:
        event["data"]["effective_from"] = format_time(row.recorded_at)
    event["time"] = format_time(row.recorded_at)
    leaf = msgspec.json.encode(event)
    return row._replace(leaf=leaf, leaf_hash=hashlib.sha256(b"\x00" + leaf).digest())


def with_row(content: DatabaseContent, index: int, row: StoredEvent) -> DatabaseContent:
    rows = [*content.rows]
    rows[index] = row
    return content._replace(rows=rows)


def first_index(content: DatabaseContent, sent: SentSubmission) -> int:
    """The index of the first row of an acknowledged submission."""
    return int(sent.receipts[0]["position"]) - 1


def without_last(content: DatabaseContent, count: int) -> DatabaseContent:
    """Removes the last events, with their keys and reasons."""
    rows = content.rows[:-count]
    keys = [key for key in content.keys if key.first_position <= len(rows)]
    return DatabaseContent(
        rows, keys, {position: data for position, data in content.personal.items() if position <= len(rows)}
    )


def lost_events(content: DatabaseContent, sent: dict[str, SentSubmission]) -> DatabaseContent:
    return without_last(content, len(content.rows) - first_index(content, sent["clear"]))


def half_batch(content: DatabaseContent, sent: dict[str, SentSubmission]) -> DatabaseContent:
    return without_last(content, 2)


def another_value(content: DatabaseContent, sent: dict[str, SentSubmission]) -> DatabaseContent:
    index = first_index(content, sent["plain"])
    return with_row(content, index, with_members(content.rows[index], value=False))


def another_subject(content: DatabaseContent, sent: dict[str, SentSubmission]) -> DatabaseContent:
    row = content.rows[-1]
    leaf = row.leaf.replace(b'"org:e"', b'"org:f"')
    return with_row(
        content, -1, row._replace(subject="org:f", leaf=leaf, leaf_hash=hashlib.sha256(b"\x00" + leaf).digest())
    )


def another_actor(content: DatabaseContent, sent: dict[str, SentSubmission]) -> DatabaseContent:
    return with_row(content, -1, with_members(content.rows[-1], actor="mallory"))


def another_period(content: DatabaseContent, sent: dict[str, SentSubmission]) -> DatabaseContent:
    index = first_index(content, sent["clear"])
    return with_row(content, index, with_members(content.rows[index], effective_until="2028-01-01T00:00:00Z"))


def changed_byte(content: DatabaseContent, sent: dict[str, SentSubmission]) -> DatabaseContent:
    row = content.rows[-1]
    return with_row(content, -1, row._replace(leaf=row.leaf.replace(b"true", b"false")))


def duplicate(content: DatabaseContent, sent: dict[str, SentSubmission]) -> DatabaseContent:
    last = content.rows[-1]
    copy = with_members(
        last, position=last.position + 1, version=last.version + 1, recorded_at=last.recorded_at + SECOND
    )
    personal = content.personal | {copy.position: content.personal[last.position]}
    return content._replace(rows=[*content.rows, copy], personal=personal)


def unsent_event(content: DatabaseContent, sent: dict[str, SentSubmission]) -> DatabaseContent:
    last = content.rows[-1]
    more = with_members(
        last, position=last.position + 1, version=last.version + 1, recorded_at=last.recorded_at + SECOND, personal=None
    )
    return content._replace(rows=[*content.rows, more])


def gap(content: DatabaseContent, sent: dict[str, SentSubmission]) -> DatabaseContent:
    last = content.rows[-1]
    moved = with_members(last, position=last.position + 1)
    personal = {position + (position == last.position): data for position, data in content.personal.items()}
    return with_row(content, -1, moved)._replace(personal=personal)


def version_gap(content: DatabaseContent, sent: dict[str, SentSubmission]) -> DatabaseContent:
    return with_row(content, -1, with_members(content.rows[-1], version=2))


def reused_recorded_at(content: DatabaseContent, sent: dict[str, SentSubmission]) -> DatabaseContent:
    return with_row(content, -1, with_members(content.rows[-1], recorded_at=content.rows[-2].recorded_at))


def recorded_at_stepped_back(content: DatabaseContent, sent: dict[str, SentSubmission]) -> DatabaseContent:
    return with_row(content, -1, with_members(content.rows[-1], recorded_at=content.rows[-2].recorded_at - SECOND))


def two_instants_in_a_batch(content: DatabaseContent, sent: dict[str, SentSubmission]) -> DatabaseContent:
    return with_row(content, -2, with_members(content.rows[-2], recorded_at=content.rows[-2].recorded_at + 1))


def key_lost(content: DatabaseContent, sent: dict[str, SentSubmission]) -> DatabaseContent:
    return content._replace(keys=[key for key in content.keys if key.key != "plain"])


def key_of_fewer(content: DatabaseContent, sent: dict[str, SentSubmission]) -> DatabaseContent:
    return content._replace(keys=[key._replace(event_count=2) if key.key == "several" else key for key in content.keys])


def key_elsewhere(content: DatabaseContent, sent: dict[str, SentSubmission]) -> DatabaseContent:
    keys = [key._replace(first_position=key.first_position - 1) if key.key == "clear" else key for key in content.keys]
    return content._replace(keys=keys)


def key_of_nobody(content: DatabaseContent, sent: dict[str, SentSubmission]) -> DatabaseContent:
    return content._replace(keys=[*content.keys, content.keys[0]._replace(key="of nobody")])


def key_without_events(content: DatabaseContent, sent: dict[str, SentSubmission]) -> DatabaseContent:
    return content._replace(
        keys=[*content.keys, content.keys[0]._replace(key="absent", first_position=len(content.rows) + 1)]
    )


def another_reason(content: DatabaseContent, sent: dict[str, SentSubmission]) -> DatabaseContent:
    position = first_index(content, sent["reasoned"]) + 1
    salt, _ = content.personal[position]
    return content._replace(personal=content.personal | {position: (salt, '{"reason":"reasoned#0 "}')})


def another_salt(content: DatabaseContent, sent: dict[str, SentSubmission]) -> DatabaseContent:
    position = len(content.rows)
    _, reason = content.personal[position]
    return content._replace(personal=content.personal | {position: (b"\x00" * 32, reason)})


def reason_lost(content: DatabaseContent, sent: dict[str, SentSubmission]) -> DatabaseContent:
    position = first_index(content, sent["reasoned"]) + 1
    return content._replace(personal={at: data for at, data in content.personal.items() if at != position})


def refused_and_recorded(content: DatabaseContent, sent: dict[str, SentSubmission]) -> DatabaseContent:
    sent["unanswered"].refuse("version_conflict")
    return content


def other_receipt(content: DatabaseContent, sent: dict[str, SentSubmission]) -> DatabaseContent:
    sent["several"].receipts[1] |= {"version": 7}
    return content


def no_catalog(content: DatabaseContent, sent: dict[str, SentSubmission]) -> DatabaseContent:
    return DatabaseContent([], [], {})
