"""Exported event lines as entries, byte for byte, each line verified before it is accepted.

A line is accepted only if decoding and encoding it gives the same bytes, if it is the next event of the ledger and of
its subject, if no time runs backwards, and if the ledger could have accepted the event at that point.
Proved by tests/transfer/test_export_and_restore.py and tests/transfer/test_refused_files.py.
"""

from __future__ import annotations

import binascii
import re
from array import array
from collections.abc import Iterable, Iterator
from typing import BinaryIO, Final

import msgspec

from ledger.append.submissions import EFFECTIVE_MAX, EFFECTIVE_MIN
from ledger.catalog import Catalog, WrongValue
from ledger.codec import SOURCE_PREFIX, decode, is_exact_encoding, leaf_hash, parse_leaf, position_of
from ledger.drafts import PersonalData
from ledger.errors import BadSubject, LedgerCorrupt
from ledger.events import AnyEvent, ChangeRetracted, SettingChanged, SettingCleared, SettingDefined
from ledger.recorders.contract import Entry
from ledger.subjects import CATALOG_SUBJECT, KINDS, is_origin, is_setting_key, kind_of, parse_subject
from ledger.times import BEGINNING
from ledger.transfer.export import PersonalRow
from ledger.transfer.lines import ImportLine, ImportLines

ImportedEntry = tuple[Entry, PersonalData | None]

_COMMITMENT: Final = re.compile(r"[0-9a-f]{64}")
_UNREADABLE: Final = "no event of any version that this inforce knows"


def is_event_line(line: ImportLine) -> bool:
    """Whether a file that begins with this line contains exported events. Raises `BadImport`."""
    value = line.json()
    return isinstance(value, dict) and "specversion" in value


def origin_of(line: ImportLine) -> str:
    """The origin of the ledger that this event line was exported from. Raises `BadImport`."""
    try:
        source = parse_leaf(line.text).source
    except LedgerCorrupt:
        raise line.error(_UNREADABLE) from None
    origin = source.removeprefix(SOURCE_PREFIX)
    if not source.startswith(SOURCE_PREFIX) or not is_origin(origin):
        raise line.error(f"the event's source is not {SOURCE_PREFIX}<origin>")
    return origin


def entries_of_events(
    lines: Iterable[ImportLine], origin: str, personal: PersonalLines | None
) -> Iterator[ImportedEntry]:
    """The entries of all lines, in order. Raises `BadImport` at the first line that is not as it was exported."""
    verifier = _Verifier(SOURCE_PREFIX + origin)
    for line in lines:
        try:
            entry, event = verifier.verify(line.text)
            data = personal.of(event) if personal else None
        except _InvalidEvent as error:
            raise line.error(str(error)) from None
        yield entry, data
    if personal:
        personal.require_end()


class PersonalLines:
    """An export of personal data, read in step with the events that it belongs to."""

    def __init__(self, stream: BinaryIO) -> None:
        self._lines = ImportLines(stream, "line of personal data")
        self._rows = self._read()
        self._next = next(self._rows, None)

    def of(self, event: AnyEvent) -> PersonalData | None:
        """The event's personal data, verified against the event's commitment. Raises `BadImport`."""
        if self._next is None or self._next[1] != event.position:
            return None
        number, _position, data = self._next
        if event.commitment != data.commitment:
            raise self._lines.error(
                number, f"the data does not match the commitment of the event at position {event.position}"
            )
        self._next = next(self._rows, None)
        return data

    def require_end(self) -> None:
        """Raises `BadImport` if a line has no event."""
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
                raise self._lines.error(number, "its position, salt or content is invalid")
            last = row.position
            yield number, row.position, data


class _PersonalContent(msgspec.Struct, forbid_unknown_fields=True):
    reason: str


_PERSONAL_ROW: Final = msgspec.json.Decoder(PersonalRow)


class _InvalidEvent(Exception):
    pass


class _Verifier:
    """The ledger as the lines so far make it, as far as the next line depends on it."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.recorded_at = BEGINNING
        self.catalog = Catalog()
        self.versions: dict[str, int] = {}
        # For each position, a hash of the change that a retraction may name, or 0: eight bytes an event.
        self.changes = array("q")
        self.retracted: set[str] = set()

    def verify(self, text: bytes) -> tuple[Entry, AnyEvent]:
        """The line's entry and event. Raises `_InvalidEvent`."""
        try:
            event = decode(text)
        except LedgerCorrupt:
            raise _InvalidEvent(_UNREADABLE) from None
        position = len(self.changes) + 1
        if event.position != position:
            raise _InvalidEvent(
                f"position {position} must come here, not {event.position}: an import is a whole export, in order, "
                "from position 1"
            )
        if not is_exact_encoding(text, event, self.source):
            raise _InvalidEvent(
                "these are not the bytes of an event of this ledger; they were changed after the export"
            )
        if position_of(event.event_id) != position:
            raise _InvalidEvent("the event's id does not carry its position")
        if event.version != self.versions.get(event.subject, 0) + 1:
            raise _InvalidEvent("the event's version is not the next of its subject")
        if event.recorded_at < self.recorded_at:
            raise _InvalidEvent("the event's time lies before that of the line before it")
        if event.commitment is not None and _COMMITMENT.fullmatch(event.commitment) is None:
            raise _InvalidEvent("the commitment is not a SHA-256 in hex")
        self.changes.append(self._require_acceptable(event))
        self.versions[event.subject] = event.version
        self.recorded_at = event.recorded_at
        entry = Entry(position, event.subject, event.version, event.TOPIC, text, event.recorded_at, leaf_hash(text))
        return entry, event

    def _require_acceptable(self, event: AnyEvent) -> int:
        """The event's item of `changes`. Raises `_InvalidEvent` if no ledger could have accepted the event here."""
        if event.position == 1 and not isinstance(event, SettingDefined):
            raise _InvalidEvent("a ledger begins with the definitions of its settings")
        if isinstance(event, SettingDefined):
            self._define(event)
            return 0
        if event.version == 1:
            try:
                parse_subject(event.subject, KINDS)
            except BadSubject as error:
                raise _InvalidEvent(error.detail) from None
        if isinstance(event, ChangeRetracted):
            self._retract(event)
            return 0
        period = self.catalog.definition_at(event.setting, event.effective_from)
        if period is None or kind_of(event.subject) not in period.definition.kinds:
            raise _InvalidEvent("the setting was not defined for this kind of subject then")
        if isinstance(event, SettingChanged):
            try:
                accepted = period.definition.accept(event.value)
            except WrongValue as error:
                raise _InvalidEvent(str(error)) from None
            if accepted != event.value:
                raise _InvalidEvent("the members of a set must be sorted")
        self._require_period(event)
        return hash((event.event_id, event.subject, event.setting))

    def _define(self, event: SettingDefined) -> None:
        if event.subject != CATALOG_SUBJECT or not is_setting_key(event.setting):
            raise _InvalidEvent(f"a definition belongs to {CATALOG_SUBJECT} and names a setting")
        if self.catalog.value_type(event.setting) not in (None, event.definition.value_type):
            raise _InvalidEvent("a setting keeps its type")
        if event.effective_from != BEGINNING:
            _require_effective(event.effective_from, event)
        self.catalog = self.catalog.extended([(event.setting, event.effective_from, event.definition)], event.version)

    def _retract(self, event: ChangeRetracted) -> None:
        position = position_of(event.retracts)
        if position is None or not 1 <= position <= len(self.changes):
            raise _InvalidEvent("the retracted change is not among the lines before")
        if self.changes[position - 1] != hash((event.retracts, event.subject, event.setting)):
            raise _InvalidEvent("the retracted event is no change of this subject and setting")
        if event.retracts in self.retracted:
            raise _InvalidEvent("the change has been retracted already")
        self.retracted.add(event.retracts)

    @staticmethod
    def _require_period(event: SettingChanged | SettingCleared) -> None:
        _require_effective(event.effective_from, event)
        if event.effective_until is not None:
            if not EFFECTIVE_MIN <= event.effective_until <= EFFECTIVE_MAX:
                raise _InvalidEvent("an end must lie in the years 1900 to 2199, or be 2200-01-01T00:00:00Z")
            if event.effective_until <= event.effective_from:
                raise _InvalidEvent("effective_until must be later than effective_from")


def _require_effective(instant: int, event: AnyEvent) -> None:
    if instant != event.recorded_at and not EFFECTIVE_MIN <= instant < EFFECTIVE_MAX:
        raise _InvalidEvent("an effective time must lie in the years 1900 to 2199")
