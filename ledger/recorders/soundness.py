"""Whether stored events are what was recorded: each column beside the leaf is compared with the leaf, and the leaf with
its hash; and whether events that follow each other are all there. Pure.

Every read of events goes through here, so no answer, page, export or fold is made from an event that was altered on
the disk. A flipped bit in a leaf or a hash fails the hash; a flipped bit in another column differs from the leaf.
Proved by tests/contracts/test_damaged_events.py.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any, Final

import msgspec

from ledger.codec import leaf_hash, position_of
from ledger.errors import BadTime, DamagedEvent, LedgerCorrupt
from ledger.recorders.contract import Entry, RawEvent
from ledger.times import format_time, parse_time
from ledger.upcasting import VERSIONS

_sha256: Final = hashlib.sha256
MISSING: Final = "it is missing"
_NO_NEIGHBOUR: Final = "the event of its subject before or after it is missing"
_LEAF_DIFFERS: Final = "its bytes do not match its hash"


def sound_entries(rows: Iterable[Sequence[Any]]) -> list[Entry]:
    """The entries of these rows, whose values are in the order of `Entry`. Raises `DamagedEvent`, which has the entries
    before it."""
    entries: list[Entry] = []
    written = VERSIONS.written
    for row in rows:
        entry = Entry._make(row)
        position, subject, version, topic, leaf, recorded_at, stored_hash = entry
        try:
            # The form in which today's code writes a leaf; `fault_of` reads every other one.
            expected = (
                f'"{written[topic]}","subject":"{subject}","time":"{format_time(recorded_at)}","sequence":'
                f'"{position:020}","datacontenttype":"application/json","data":{{"position":{position},'
                f'"version":{version},'
            ).encode()
            sound = (
                expected in leaf
                and leaf[27:40] == b"%08x-%04x" % (position >> 16, position & 0xFFFF)
                and leaf_hash(leaf) == stored_hash
            )
        except (TypeError, ValueError, LookupError, OverflowError, AttributeError):
            sound = False
        if not sound and (fault := fault_of(entry)) is not None:
            raise DamagedEvent(position if type(position) is int else None, fault, tuple(entries))
        entries.append(entry)
    return entries


def sound_raw_events(rows: Iterable[Sequence[Any]]) -> list[RawEvent]:
    """As `sound_entries`, for callers that parse each leaf, at less than half the price: the caller compares the
    position, the version and recorded_at. The rows have the values of `Entry`."""
    events: list[RawEvent] = []
    written = VERSIONS.written
    for position, subject, version, topic, leaf, recorded_at, stored_hash in rows:
        try:
            expected = f'"{written[topic]}","subject":"{subject}","time":"'.encode()
            sound = expected in leaf and leaf_hash(leaf) == stored_hash
        except (TypeError, ValueError, LookupError):
            sound = False
        if not sound:
            entry = Entry(position, subject, version, topic, leaf, recorded_at, stored_hash)
            if (fault := fault_of(entry)) is not None:
                raise DamagedEvent(position if type(position) is int else None, fault)
        events.append((position, subject, version, leaf, recorded_at))
    return events


def require_hashes(leaves: bytes, hashes: bytes, after: int, until: int) -> None:
    """Raises `DamagedEvent` unless these are the leaves with after < position <= until, joined by line feeds, that have
    these hashes, joined by nothing."""
    each = leaves.split(b"\n") if leaves else []
    # `leaf_hash`, without a call for each of millions.
    if len(each) == until - after and b"".join([_sha256(b"\0" + leaf).digest() for leaf in each]) == hashes:
        return
    for number, leaf in enumerate(each):
        position = after + 1 + number
        if leaf_hash(leaf) != hashes[32 * number : 32 * number + 32]:
            raise DamagedEvent(position, _LEAF_DIFFERS)
        if b'"data":{"position":%d,' % position not in leaf:
            raise DamagedEvent(position, MISSING)
    raise DamagedEvent(after + len(each) + 1, MISSING)


def leaves_by_subject(rows: Iterable[Sequence[Any]], subjects: Sequence[str]) -> bytes:
    """The leaves of these rows, which have the values of `Entry` and are in the order of `subjects`, then of versions.
    Raises `DamagedEvent`."""
    by_subject: dict[str, list[Entry]] = {subject: [] for subject in subjects}
    for entry in sound_entries(rows):
        if entry.subject not in by_subject:
            raise DamagedEvent(entry.position, "its subject is not the one that it is found by")
        by_subject[entry.subject].append(entry)
    for subject, entries in by_subject.items():
        require_stream(entries, subject, 0, None, None, newest_first=False)
    return b"\n".join([entry.leaf for entries in by_subject.values() for entry in entries])


class _Members(msgspec.Struct):
    position: int
    version: int


class _Leaf(msgspec.Struct):
    """The members of a leaf that are columns, too, whatever else its type has."""

    id: str
    type: str
    subject: str
    time: str
    sequence: str
    data: _Members


_parse: Final = msgspec.json.Decoder(_Leaf).decode
_TYPES: Final[Sequence[type]] = (int, str, int, str, bytes, int, bytes)


def fault_of(entry: Entry) -> str | None:
    """The difference between the entry's columns and its leaf, in words; None if there is none."""
    for name, value, type_ in zip(Entry._fields, entry, _TYPES, strict=True):
        if type(value) is not type_:
            return f"its column {name} holds another type of value"
    if leaf_hash(entry.leaf) != entry.leaf_hash:
        return _LEAF_DIFFERS
    try:
        leaf = _parse(entry.leaf)
        recorded_at = parse_time(leaf.time)
    except (msgspec.MsgspecError, UnicodeDecodeError, BadTime, LedgerCorrupt):
        return "its bytes are no event"
    for name, differs in (
        ("id", position_of(leaf.id) != entry.position),
        ("position", (leaf.data.position, leaf.sequence) != (entry.position, f"{entry.position:020}")),
        ("subject", leaf.subject != entry.subject),
        ("version", leaf.data.version != entry.version),
        ("type", leaf.type.removeprefix("inforce.").rpartition(".")[0] != entry.topic),
        ("time", recorded_at != entry.recorded_at),
    ):
        if differs:
            return f"its {name} is not that of its row"
    return None


def require_dense(entries: Sequence[Entry], after: int) -> None:
    """Raises `DamagedEvent` unless the entries are at the positions after `after`, one by one."""
    if entries and (entries[0].position != after + 1 or entries[-1].position != after + len(entries)):
        _raise_gap(entries, after)


def _raise_gap(entries: Sequence[Entry], after: int) -> None:
    for number, entry in enumerate(entries):
        if entry.position != after + 1 + number:
            raise DamagedEvent(after + 1 + number, MISSING, tuple(entries[:number]))


def require_stream(
    entries: Sequence[Entry], subject: str, after: int, until: int | None, limit: int | None, *, newest_first: bool
) -> None:
    """Raises `DamagedEvent` unless the entries are the subject's, with all versions from `after` on, or down from
    `until`, at rising positions, as far as can be seen from them."""
    step = -1 if newest_first else 1
    expected = (until if until is not None else entries[0].version if entries else 0) if newest_first else after + 1
    before = 2**63 if newest_first else 0
    for number, entry in enumerate(entries):
        if entry.subject != subject or entry.version != expected or (entry.position - before) * step <= 0:
            raise DamagedEvent(entry.position, _NO_NEIGHBOUR, tuple(entries[:number]))
        expected, before = entry.version + step, entry.position
    last = after if newest_first else until
    complete = last is None or (expected == after if newest_first else expected > last)
    if not complete and (limit is None or len(entries) < limit):
        raise DamagedEvent(entries[-1].position if entries else None, _NO_NEIGHBOUR, tuple(entries))
