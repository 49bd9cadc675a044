"""Parses many leaves at once into columns.

A leaf has one order of members and no white space (`ledger.codec`). So with Numba, `scan_leaves` reads its bytes from
front to back, and accepts a leaf only if every byte outside the values is the one that the codec writes.
`changes.read_assertion` reads every other leaf (of an older version, with an escape in a value) and, without Numba, all
of them. Proved by tests/audit/index/test_parse_leaves.py.
"""

from __future__ import annotations

from typing import Final

import msgspec
import numpy as np

from ledger.codec import SOURCE_PREFIX, position_of
from ledger.errors import LedgerCorrupt
from ledger.times import END
from projections.audit.arrays import Int64s, UInt8s
from projections.audit.index.event_columns import (
    IS_CLEAR,
    IS_RETRACTION,
    NO_SETTING,
    EventColumns,
    NameColumns,
    is_link,
    is_raw,
)
from projections.audit.index.hashing import hash_all, hash_ids
from projections.audit.index.interning import add
from projections.audit.index.scan_leaves import ENDS, NUMBERS, SCANNED, STARTS, scan
from projections.audit.index.schema import (
    BIT_FALSE,
    BIT_OTHER,
    BIT_TRUE,
    KINDS,
    NAMED_KINDS_MAX,
    OTHER_KIND,
    PREFIX_LENGTHS,
    SETTINGS,
)
from projections.audit.numba_support import AVAILABLE
from projections.temporal.changes import Change, JsonValue, read_assertion

_SETTING_CODES: Final = {setting: code for code, setting in enumerate(SETTINGS)}


COMPILED: Final = (scan, hash_all, add)
"""The compiled functions that read all events, here and in `collect`."""


class LeafParser:
    """Parses the leaves of one ledger. Safe to use from many threads."""

    def __init__(self, origin: str, *, compiled: bool = AVAILABLE) -> None:
        self._source = np.frombuffer(f'","source":"{SOURCE_PREFIX}{origin}","type":"inforce.'.encode(), np.uint8)
        self.compiled = compiled

    def parse(self, leaves: bytes) -> EventColumns:
        """`leaves`: in position order, separated by line feeds. Raises `LedgerCorrupt`."""
        buffer = np.frombuffer(leaves, np.uint8)
        feeds = np.flatnonzero(buffer == 10)
        starts, ends = np.concatenate([[0], feeds + 1]), np.concatenate([feeds, [len(leaves)]])
        fields = np.zeros((len(starts), SCANNED), np.int64)
        ordinary = np.zeros(len(starts), np.bool_)
        if self.compiled:
            scan(buffer, starts, ends, self._source, fields, ordinary)
        return _LeafColumns(leaves, fields, self.compiled).columns(np.flatnonzero(~ordinary).tolist(), starts, ends)


class _LeafColumns:
    """`fields`: what `scan` read of each leaf. The values of leaves that `scan` does not read are added to it, and
    their texts stand after those of the leaves."""

    def __init__(self, leaves: bytes, fields: Int64s, compiled: bool) -> None:
        self._leaves = leaves
        self._compiled = compiled
        self._fields = fields
        self._extra = bytearray()

    def columns(self, unread: list[int], starts: Int64s, ends: Int64s) -> EventColumns:
        for row in unread:
            self._read(row, self._leaves[starts[row] : ends[row]])
        # A word of eight bytes must fit after the last text, too: see `_names`.
        whole = b"".join([self._leaves, self._extra, bytes(8)]) if self._extra else self._leaves
        buffer = np.frombuffer(whole, np.uint8)
        position, recorded_at, start, until, setting_code, value_code, retracts = self._fields[:, :NUMBERS].T
        setting, value = setting_code.astype(np.uint8), value_code.astype(np.int32)
        linked = np.flatnonzero(is_link(setting) & (value >= 0))
        raw: dict[bytes, int] = {}
        value_starts, value_ends = self._fields[:, STARTS + 1], self._fields[:, ENDS + 1]
        for row in np.flatnonzero(is_raw(setting) & (value >= 0)).tolist():
            text = whole[value_starts[row] : value_ends[row]]
            value[row] = raw.setdefault(text, len(raw))
        # An event about another setting makes a subject known, but names are read of those only that may govern.
        others = np.flatnonzero(setting == NO_SETTING)
        others = others[_kinds(buffer, self._fields[others, STARTS]) <= NAMED_KINDS_MAX]
        subjects = np.sort(np.concatenate([np.flatnonzero(setting != NO_SETTING), others]))
        subject = np.full(len(setting), -1, np.int32)
        subject[subjects] = np.arange(len(subjects))
        value[linked] = len(subjects) + np.arange(len(linked))
        name_starts = np.concatenate([self._fields[subjects, STARTS], value_starts[linked] + 1])
        name_ends = np.concatenate([self._fields[subjects, ENDS], value_ends[linked] - 1])
        return EventColumns(
            position=position.astype(np.uint32),
            recorded_at=recorded_at.copy(),
            start=start.copy(),
            until=until.copy(),
            setting=setting,
            value=value,
            retracts=retracts.astype(np.uint32),
            subject=subject,
            names=_names(buffer, name_starts, name_ends, self._compiled),
            raw=list(raw),
        )

    def _read(self, row: int, leaf: bytes) -> None:
        assertion = read_assertion(leaf)
        code = _SETTING_CODES.get(assertion.setting, NO_SETTING)
        start, until, value, retracts = assertion.recorded_at, END, IS_RETRACTION, 0
        texts = [self._put(_subject(leaf).encode()), (0, 0)]
        if not isinstance(assertion, Change):
            retracts = position_of(assertion.retracts) or 0
        else:
            start, until = (
                assertion.effective_from,
                END if assertion.effective_until is None else assertion.effective_until,
            )
            if isinstance(assertion.value, dict):
                # A definition: the catalog is read separately.
                code = NO_SETTING
            value = _value(assertion.value)
            texts[1] = self._put(msgspec.json.encode(assertion.value))
        self._fields[row] = (
            *(assertion.position, assertion.recorded_at, start, until, code, value, retracts),
            *(begin for begin, _ in texts),
            *(end for _, end in texts),
        )

    def _put(self, text: bytes) -> tuple[int, int]:
        start = len(self._leaves) + len(self._extra)
        self._extra += text
        return start, start + len(text)


def _value(value: JsonValue) -> int:
    """As `scan` writes it: a value other than a bool is BIT_OTHER."""
    if value is None:
        return IS_CLEAR
    return BIT_TRUE if value is True else BIT_FALSE if value is False else BIT_OTHER


def _names(buffer: UInt8s, starts: Int64s, ends: Int64s, compiled: bool) -> NameColumns:
    """A word of eight bytes fits at the start of each reference: more of its leaf follows, or bytes after all
    leaves."""
    kinds = _kinds(buffer, starts)
    prefixes = np.array(PREFIX_LENGTHS, np.int64)[kinds]
    hashes = hash_ids(kinds, buffer, starts + prefixes, ends - starts - prefixes, compiled=compiled)
    return NameColumns(kinds, hashes, buffer, starts, ends - starts)


def _kinds(buffer: UInt8s, starts: Int64s) -> UInt8s:
    """The kind codes of the references that start at these places."""
    kinds = np.full(len(starts), OTHER_KIND, np.uint8)
    if not len(starts):
        return kinds
    words = np.ndarray((len(buffer) - 7,), "<u8", buffer, strides=(1,))
    first = words[starts]
    for code, kind in enumerate(KINDS):
        prefix = f"{kind}:".encode()
        mask = np.uint64((1 << 8 * len(prefix)) - 1)
        kinds[(first & mask) == np.uint64(int.from_bytes(prefix, "little"))] = code
    return kinds


class _LeafSubject(msgspec.Struct):
    subject: str


_decoder: Final = msgspec.json.Decoder(_LeafSubject)


def _subject(leaf: bytes) -> str:
    try:
        return _decoder.decode(leaf).subject
    except msgspec.MsgspecError as error:
        raise LedgerCorrupt("a stored event cannot be read: it has no subject") from error
