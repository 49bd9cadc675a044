"""Exported event lines back to entries, byte for byte, each one verified before it is taken.

A line is taken only if reading it and writing it again gives the same bytes, if it is the next of the ledger and of
its subject, if no time runs backwards, and if it says something that a ledger could have accepted at that point.
Proved by tests/transfer/test_export_and_restore.py and tests/transfer/test_refused_files.py.
"""

from __future__ import annotations

import binascii
import re
from array import array
from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO, Final

import msgspec

from ledger import strict_json
from ledger.append.submissions import EFFECTIVE_MAX, EFFECTIVE_MIN
from ledger.catalog import Catalog, WrongValue
from ledger.codec import SOURCE_PREFIX, decode, is_exact, leaf_hash, parse_leaf, position_of
from ledger.drafts import PersonalData
from ledger.errors import BadImport, BadJson, BadSubject, LedgerCorrupt
from ledger.events import AnyEvent, ChangeRetracted, SettingChanged, SettingCleared, SettingDefined
from ledger.recorders.contract import Entry
from ledger.subjects import CATALOG_SUBJECT, KINDS, is_origin, is_setting_key, kind_of, parse_subject
from ledger.times import BEGINNING
from ledger.transfer.lines import Line, Lines

Restored = tuple[Entry, PersonalData | None]

_COMMITMENT: Final = re.compile(r"[0-9a-f]{64}")


def is_event_line(line: Line) -> bool:
    """Whether a file that begins with this line holds exported events. Raises `BadImport`."""
    try:
        value = strict_json.loads(line.text, what="the line")
    except BadJson as error:
        raise BadImport(f"line {line.number}: {error.detail}") from None
    return isinstance(value, dict) and "specversion" in value


def origin_of(line: Line) -> str:
    """The origin of the ledger that this event line was exported from. Raises `BadImport`."""
    try:
        source = parse_leaf(line.text).source
    except LedgerCorrupt:
        raise BadImport(f"line {line.number}: {_UNREADABLE}") from None
    origin = source.removeprefix(SOURCE_PREFIX)
    if not source.startswith(SOURCE_PREFIX) or not is_origin(origin):
        raise BadImport(f"line {line.number}: the event's source is not {SOURCE_PREFIX}<origin>")
    return origin


def restored(lines: Iterable[Line], origin: str, personal: PersonalLines | None) -> Iterator[Restored]:
    """Every line's entry, in order. Raises `BadImport` at the first line that is not what was exported."""
    verifying = _Verifying(SOURCE_PREFIX + origin)
    for line in lines:
        try:
            entry, event = verifying.take(line.text)
            kept = personal.of(event) if personal else None
        except _Wrong as wrong:
            raise BadImport(f"line {line.number}: {wrong}") from None
        yield entry, kept
    if personal:
        personal.end()


class PersonalLines:
    """An export of personal data, read alongside the events that it is bound to."""

    def __init__(self, stream: BinaryIO) -> None:
        self._lines = Lines(stream, "line of personal data")
        self._rows = self._read()
        self._next = next(self._rows, None)

    def of(self, event: AnyEvent) -> PersonalData | None:
        """What was kept beside the event, verified against its commitment. Raises `BadImport`."""
        if self._next is None or self._next[1] != event.position:
            return None
        number, _position, data = self._next
        if event.commitment != data.commitment:
            raise self._lines.error(number, f"it is not what the event at position {event.position} commits to")
        self._next = next(self._rows, None)
        return data

    def end(self) -> None:
        """Raises `BadImport` if there is more than there were events for."""
        if self._next is not None:
            raise self._lines.error(self._next[0], "there is no event at its position")

    def _read(self) -> Iterator[tuple[int, int, PersonalData]]:
        last = 0
        for number, text in self._lines:
            try:
                row = _PERSONAL_ROW.decode(text)
                content = msgspec.json.decode(row.content, type=_PersonalContent)
                data = PersonalData(binascii.unhexlify(row.salt), row.content)
            except (msgspec.MsgspecError, UnicodeError, ValueError):
                raise self._lines.error(number, "not a line of an export of personal data") from None
            if row.position <= last or len(data.salt) != 32 or not content.reason:
                raise self._lines.error(number, "its position, salt or content cannot be right")
            last = row.position
            yield number, row.position, data


class PersonalRow(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One line of an export of personal data; `salt` in hex."""

    position: int
    salt: str
    content: str


class _PersonalContent(msgspec.Struct, forbid_unknown_fields=True):
    reason: str


_PERSONAL_ROW: Final = msgspec.json.Decoder(PersonalRow)
_UNREADABLE: Final = "no event of any version that this inforce knows"


class _Wrong(Exception):
    pass


class _Verifying:
    """The ledger as the lines so far make it, as far as the next line depends on it."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.recorded_at = BEGINNING
        self.catalog = Catalog()
        self.versions: dict[str, int] = {}
        # Per position a hash of what a retraction may name, or 0: a few bytes an event, whatever the ledger's size.
        self.changes = array("q")
        self.retracted: set[str] = set()

    def take(self, text: bytes) -> tuple[Entry, AnyEvent]:
        try:
            event = decode(text)
        except LedgerCorrupt:
            raise _Wrong(_UNREADABLE) from None
        position = len(self.changes) + 1
        if event.position != position:
            raise _Wrong(f"position {position} must come here: an import is a whole export, in order, from position 1")
        if not is_exact(text, event, self.source):
            raise _Wrong("these are not the bytes of an event of this ledger; they were changed after the export")
        if position_of(event.event_id) != position:
            raise _Wrong("the event's id does not carry its position")
        if event.version != self.versions.get(event.subject, 0) + 1:
            raise _Wrong("the event's version is not the next of its subject")
        if event.recorded_at < self.recorded_at:
            raise _Wrong("the event's time lies before that of the line before it")
        if event.commitment is not None and _COMMITMENT.fullmatch(event.commitment) is None:
            raise _Wrong("the commitment is no SHA-256 in hex")
        change = self._accept(event)
        self.changes.append(change)
        self.versions[event.subject] = event.version
        self.recorded_at = event.recorded_at
        entry = Entry(position, event.subject, event.version, event.TOPIC, text, event.recorded_at, leaf_hash(text))
        return entry, event

    def _accept(self, event: AnyEvent) -> int:
        if event.position == 1 and not isinstance(event, SettingDefined):
            raise _Wrong("a ledger begins with the definitions of its settings")
        if isinstance(event, SettingDefined):
            self._define(event)
            return 0
        if event.version == 1:
            try:
                parse_subject(event.subject, KINDS)
            except BadSubject as error:
                raise _Wrong(error.detail) from None
        if isinstance(event, ChangeRetracted):
            self._retract(event)
            return 0
        defined = self.catalog.defined(event.setting, event.effective_from)
        if defined is None or kind_of(event.subject) not in defined.definition.kinds:
            raise _Wrong("the setting was not defined for this kind of subject then")
        if isinstance(event, SettingChanged):
            try:
                accepted = defined.definition.accept(event.value)
            except WrongValue as error:
                raise _Wrong(str(error)) from None
            if accepted != event.value:
                raise _Wrong("the members of a set must be sorted")
        self._period(event)
        return hash((event.event_id, event.subject, event.setting))

    def _define(self, event: SettingDefined) -> None:
        if event.subject != CATALOG_SUBJECT or not is_setting_key(event.setting):
            raise _Wrong(f"a definition belongs to {CATALOG_SUBJECT} and names a setting")
        if self.catalog.value_type(event.setting) not in (None, event.definition.value_type):
            raise _Wrong("a setting keeps its type")
        if event.effective_from != BEGINNING:
            self._effective(event.effective_from, event)
        self.catalog = self.catalog.extended([(event.setting, event.effective_from, event.definition)], event.version)

    def _retract(self, event: ChangeRetracted) -> None:
        place = position_of(event.retracts)
        if place is None or not 1 <= place <= len(self.changes):
            raise _Wrong("the retracted change is not among the lines before")
        if self.changes[place - 1] != hash((event.retracts, event.subject, event.setting)):
            raise _Wrong("what is retracted is no change of this subject and setting")
        if event.retracts in self.retracted:
            raise _Wrong("the change has been retracted already")
        self.retracted.add(event.retracts)

    def _period(self, event: SettingChanged | SettingCleared) -> None:
        self._effective(event.effective_from, event)
        if event.effective_until is not None:
            self._effective(event.effective_until, event)
            if event.effective_until <= event.effective_from:
                raise _Wrong("effective_until must be later than effective_from")

    @staticmethod
    def _effective(instant: int, event: Any) -> None:
        if instant != event.recorded_at and not EFFECTIVE_MIN <= instant < EFFECTIVE_MAX:
            raise _Wrong("an effective time must lie in the years 1900 to 2199")
