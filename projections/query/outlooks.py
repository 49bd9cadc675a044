"""The outlooks of a submission's events, as known when it was recorded: the part of its receipts about what follows.

They depend on the submission and on what was recorded before it, so a retry with the same idempotency key gets the same
ones, whatever was recorded since. The ordinary case, in which nothing of the setting is scheduled, is answered from
memory (`nowait`): the changes that begin later are kept for each subject, up to its newest version seen. Else the
events of the submission are read, and once for each subject those before it, many subjects in one statement.
Proved by tests/query/test_outlooks.py.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple

from ledger.append.submissions import ChangeSetting, RetractChange, Submission
from ledger.errors import InforceError
from ledger.reader import STREAM_BYTES
from ledger.receipts import Receipt
from ledger.store import Ledger
from ledger.times import BEGINNING
from projections.query.large_values import LargeValues
from projections.temporal.changes import (
    Assertion,
    Change,
    Retraction,
    read_assertion,
    read_timeline_entries,
    without_large_value,
)
from projections.temporal.outlook import NOTHING_FOLLOWS, Allowance, Expected, Outlook, value_bytes

KEPT_BYTES_MAX: Final = 8 * 1024 * 1024
"""Of subjects and scheduled changes in memory, about."""
KEPT_OF_SUBJECT_BYTES_MAX: Final = 512 * 1024
"""Of one subject. A subject with more is read each time."""
_ENTRY_BYTES: Final = 400
"""Of a subject or a change, without its value."""
FIRST_POSITIONS_MAX: Final = 20_000
"""Subjects that are known to have events."""
NOWAIT_MAX: Final = 16
"""Events of a submission whose outlooks are worked out on the caller's thread."""
READ_MAX: Final = 20_000
"""Events of several subjects that are read at once."""

UNKNOWN_SUBJECT: Final = "unknown_subject"
OUTLOOK_UNKNOWN: Final = "outlook_unknown"


class ReceiptWarning(NamedTuple):
    """A doubt about a change that was recorded. `code` is stable; `subject`: the subject that it is about."""

    code: str
    subject: str
    detail: str


class EventOutlook(NamedTuple):
    """The outlook of one event, the event id that it retracts, and the warnings about it."""

    outlook: Outlook
    retracts: str | None = None
    warnings: tuple[ReceiptWarning, ...] = ()


_NO_OUTLOOK: Final = EventOutlook(NOTHING_FOLLOWS)
_UNKNOWN: Final = (
    "the ledger has no event of {}; if the id is mistyped, record the change again with the right one, and otherwise "
    "nothing has to be done"
)


class _KeptSchedule:
    """The unretracted changes of a subject, at `version`, that begin later than `since` (µs); by setting."""

    __slots__ = ("bytes", "changes", "since", "version")

    def __init__(self, version: int, since: int, changes: Mapping[str, Sequence[Change]]) -> None:
        self.version = version
        self.since = since
        self.changes = changes
        self.bytes = _ENTRY_BYTES + sum(_ENTRY_BYTES + value_bytes(one) for each in changes.values() for one in each)


class OutlookReader:
    """The outlooks of submissions to one ledger. Safe to use from many threads."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._large_values = LargeValues(ledger)
        self._lock = threading.Lock()
        self._kept: OrderedDict[str, _KeptSchedule] = OrderedDict()
        self._bytes = 0
        # A setting keeps its type, and a subject its first event.
        self._is_reference: dict[str, bool] = {}
        self._first_positions: dict[str, int] = {}

    def nowait(self, submissions: Sequence[Submission], receipts: Sequence[Receipt]) -> tuple[EventOutlook, ...] | None:
        """The outlooks in the order of the receipts, without waiting for anything; None if that is not possible."""
        return self._from_memory(submissions, receipts) if len(receipts) <= NOWAIT_MAX else None

    def _from_memory(
        self, submissions: Sequence[Submission], receipts: Sequence[Receipt]
    ) -> tuple[EventOutlook, ...] | None:
        """The outlooks of ordinary changes; None if one is not."""
        if len(submissions) != len(receipts):
            return None
        versions: dict[str, int] = {}
        # (subject, setting) → its last change.
        last: dict[tuple[str, str], Receipt] = {}
        with self._lock:
            for submission, receipt in zip(submissions, receipts, strict=True):
                if isinstance(submission, RetractChange) or not self._is_ordinary(submission, receipt, versions):
                    return None
                key = receipt.subject, submission.setting
                before = last.get(key)
                if before is not None and _period(before) != _period(receipt):
                    return None
                last[key] = receipt
            for receipt in receipts:
                self._advance(receipt)
        positions = {receipt.position for receipt in last.values()}
        # Of several changes with one period, the last decides all of it.
        return tuple(
            _holding_until(receipt.effective_until if receipt.position in positions else receipt.effective_from)
            for receipt in receipts
        )

    def _is_ordinary(self, submission: Submission, receipt: Receipt, versions: dict[str, int]) -> bool:
        """Whether the change begins at once, nothing of its setting begins later, and nothing is doubtful about it.
        `versions`: subject → its version before the change; updated."""
        subject, start = receipt.subject, receipt.effective_from
        assert start is not None
        assert not isinstance(submission, RetractChange)
        if start > receipt.recorded_at or self._may_warn(submission, receipt.position):
            return False
        kept = self._kept.get(subject)
        version = versions.get(subject, 0 if kept is None else kept.version)
        if version != receipt.version - 1:
            return False
        versions[subject] = receipt.version
        if kept is None:
            return True
        scheduled = kept.changes.get(submission.setting, ())
        return start >= kept.since and not any(change.effective_from > start for change in scheduled)

    def _advance(self, receipt: Receipt) -> None:
        """Counts an ordinary change, which begins no later than it was recorded, into what is kept. Call it with the
        lock."""
        assert receipt.effective_from is not None
        kept = self._kept.get(receipt.subject)
        if kept is None:
            self._keep(receipt.subject, _KeptSchedule(receipt.version, receipt.effective_from, {}))
            return
        kept.version = receipt.version
        # It is not among the changes, so they are only complete from its start on.
        kept.since = max(kept.since, receipt.effective_from)
        self._kept.move_to_end(receipt.subject)

    def _may_warn(self, submission: Submission, position: int) -> bool:
        if not isinstance(submission, ChangeSetting) or not isinstance(submission.value, str):
            return False
        if not self._is_reference.get(submission.setting, True):
            return False
        first = self._first_positions.get(submission.value)
        return first is None or first > position

    def read(self, submissions: Sequence[Submission], receipts: Sequence[Receipt]) -> tuple[EventOutlook, ...]:
        """The outlooks in the order of the receipts. Raises `LedgerUnavailable` and `LedgerCorrupt`."""
        outlooks = self._from_memory(submissions, receipts)
        if outlooks is not None:
            return outlooks
        page = self._ledger.page(receipts[0].position - 1, len(receipts), receipts[-1].position)
        batch: dict[str, list[Assertion]] = {}
        events = list(read_timeline_entries(page))
        for receipt, event in zip(receipts, events, strict=True):
            batch.setdefault(receipt.subject, []).append(event)
        schedules = self._schedules(batch)
        expected: dict[tuple[str, str], Expected] = {}
        for subject, assertions in batch.items():
            known = _after(schedules[subject], assertions)
            for setting in {assertion.setting for assertion in assertions}:
                expected[subject, setting] = Expected(known.get(setting, ()))
            self._replace(subject, assertions[-1], known)
        warnings = self._warnings(events, receipts[-1].position)
        allowance = Allowance()
        return tuple(
            EventOutlook(
                self._with_values(expected[receipt.subject, event.setting].of(event, allowance)),
                event.retracts if isinstance(event, Retraction) else None,
                warnings.get(event.position, ()),
            )
            for receipt, event in zip(receipts, events, strict=True)
        )

    def read_or_warn(self, submissions: Sequence[Submission], receipts: Sequence[Receipt]) -> tuple[EventOutlook, ...]:
        """`read`, or a warning in every outlook: the submissions are recorded, even if that cannot be read now."""
        try:
            return self.read(submissions, receipts)
        except InforceError as error:
            detail = f"the event is recorded, but what follows it could not be read, so ask for its state: {error}"
            return tuple(
                EventOutlook(NOTHING_FOLLOWS, None, (ReceiptWarning(OUTLOOK_UNKNOWN, receipt.subject, detail),))
                for receipt in receipts
            )

    def _with_values(self, outlook: Outlook) -> Outlook:
        read = self._large_values.value
        return outlook._replace(
            still_scheduled=tuple(one._replace(value=read(one.value)) for one in outlook.still_scheduled)
        )

    def _schedules(self, batch: Mapping[str, Sequence[Assertion]]) -> dict[str, Mapping[str, Sequence[Change]]]:
        """Subject → its unretracted changes before the submission, by setting: at least those that begin later than its
        recording or than the first of its changes."""
        schedules: dict[str, Mapping[str, Sequence[Change]]] = {}
        missing: dict[str, int] = {}
        with self._lock:
            for subject, assertions in batch.items():
                version = assertions[0].version - 1
                kept = self._kept.get(subject)
                if kept is not None and kept.version == version and kept.since <= min(map(_begin, assertions)):
                    schedules[subject] = kept.changes
                elif version:
                    missing[subject] = version
                else:
                    schedules[subject] = {}
        for subject, before in self._read_before(missing, min(one[0].position for one in batch.values())):
            # All that begin after the recording, because they are kept.
            later_than = min(batch[subject][0].recorded_at, *map(_begin, batch[subject]))
            schedules[subject] = _after({}, before, later_than)
        return schedules

    def _read_before(self, versions: Mapping[str, int], position: int) -> Iterable[tuple[str, Iterable[Assertion]]]:
        """Each subject with its events up to its version in `versions`, all of which lie before `position`."""
        if len(versions) == 1:
            ((subject, version),) = versions.items()
            yield subject, read_timeline_entries(self._ledger.stream_entries(subject, until=version))
            return
        chunk: list[str] = []
        events = bytes_ = 0
        for subject, (_, size) in self._ledger.recorder.stream_sizes(list(versions), position - 1).items():
            if size > STREAM_BYTES:
                yield subject, read_timeline_entries(self._ledger.stream_entries(subject, until=versions[subject]))
                continue
            if chunk and (events + versions[subject] > READ_MAX or bytes_ + size > STREAM_BYTES):
                yield from self._read_chunk(chunk, versions, position)
                chunk, events, bytes_ = [], 0, 0
            chunk.append(subject)
            events += versions[subject]
            bytes_ += size
        yield from self._read_chunk(chunk, versions, position)

    def _read_chunk(
        self, subjects: Sequence[str], versions: Mapping[str, int], position: int
    ) -> Iterable[tuple[str, list[Assertion]]]:
        if not subjects:
            return
        leaves = iter(self._ledger.recorder.leaves_of(subjects, position - 1).split(b"\n"))
        for subject in subjects:
            yield subject, [without_large_value(read_assertion(next(leaves))) for _ in range(versions[subject])]

    def _replace(self, subject: str, last: Assertion, known: Mapping[str, Sequence[Change]]) -> None:
        """Keeps the changes that begin after the submission that ends with `last`, unless newer ones are kept."""
        since = last.recorded_at
        changes = {
            setting: later
            for setting, all_changes in known.items()
            if (later := [change for change in all_changes if change.effective_from > since])
        }
        with self._lock:
            kept = self._kept.get(subject)
            if kept is not None and kept.version >= last.version:
                return
            self._keep(subject, _KeptSchedule(last.version, since, changes))

    def _keep(self, subject: str, kept: _KeptSchedule) -> None:
        """Call it with the lock."""
        self._drop(subject)
        if kept.bytes > KEPT_OF_SUBJECT_BYTES_MAX:
            return
        self._kept[subject] = kept
        self._bytes += kept.bytes
        while self._bytes > KEPT_BYTES_MAX:
            self._drop(next(iter(self._kept)))

    def _drop(self, subject: str) -> None:
        before = self._kept.pop(subject, None)
        if before is not None:
            self._bytes -= before.bytes

    def _warnings(self, events: Iterable[Assertion], last: int) -> dict[int, tuple[ReceiptWarning, ...]]:
        """Position → the warnings about the change there, as known at position `last`."""
        texts = [event for event in events if isinstance(event, Change) and isinstance(event.value, str)]
        if not texts:
            return {}
        if not all(change.setting in self._is_reference for change in texts):
            catalog = self._ledger.catalog()
            types = {change.setting: catalog.value_type(change.setting) for change in texts}
            self._is_reference |= {setting: value_type == "subject_ref" for setting, value_type in types.items()}
        references = {change.position: str(change.value) for change in texts if self._is_reference[change.setting]}
        unseen = set(references.values()) - self._first_positions.keys()
        if unseen:
            if len(self._first_positions) + len(unseen) > FIRST_POSITIONS_MAX:
                self._first_positions = {}
            self._first_positions |= self._ledger.recorder.first_positions(sorted(unseen))
        return {
            position: (ReceiptWarning(UNKNOWN_SUBJECT, subject, _UNKNOWN.format(subject)),)
            for position, subject in references.items()
            if self._first_positions.get(subject, last + 1) > last
        }


def _holding_until(until: int | None) -> EventOutlook:
    return _NO_OUTLOOK if until is None else EventOutlook(Outlook(until))


def _period(receipt: Receipt) -> tuple[int | None, int | None]:
    return receipt.effective_from, receipt.effective_until


def _begin(assertion: Assertion) -> int:
    """The instant (µs) after which changes matter to its outlook."""
    return assertion.effective_from if isinstance(assertion, Change) else assertion.recorded_at


def _after(
    known: Mapping[str, Iterable[Change]], news: Iterable[Assertion], later_than: int = BEGINNING - 1
) -> dict[str, list[Change]]:
    """Setting → the unretracted changes of one subject: those of `known`, and those of `news` that begin later than
    `later_than` (µs)."""
    after = {setting: {change.event_id: change for change in changes} for setting, changes in known.items()}
    for assertion in news:
        of_setting = after.setdefault(assertion.setting, {})
        if isinstance(assertion, Retraction):
            of_setting.pop(assertion.retracts, None)
        elif assertion.effective_from > later_than:
            of_setting[assertion.event_id] = assertion
    return {setting: list(changes.values()) for setting, changes in after.items() if changes}
