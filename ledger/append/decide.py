"""What submissions come to: the pure function between asking and recording.

`decide` turns submissions into drafts, given what the streams hold, and says what must still be true when they are
recorded. No clock, no database: `now` is an argument. Proved by tests/test_submissions.py and tests/contracts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from ledger.append.submissions import ChangeSetting, ClearSetting, DefineSetting, RetractChange, Submission
from ledger.catalog import BUILT_IN, Catalog, Definition, WrongValue
from ledger.codec import id_tail
from ledger.drafts import RECORDED, Decided, Draft, personal_data
from ledger.errors import BadSubmission, Fault, VersionConflict
from ledger.events import ChangeRetracted, SettingChanged, SettingCleared, SettingDefined
from ledger.subjects import CATALOG_SUBJECT, kind_of
from ledger.times import BEGINNING, format_time

Entropy = Callable[[int], bytes]
"""So many random bytes, for event ids and salts; `entropy.fresh` but for tests that must repeat."""


class RetractionTarget(NamedTuple):
    """The event that a retraction names, as its stream shows it now."""

    event_id: str
    subject: str
    topic: str
    setting: str
    effective_from: int | None


@dataclass(frozen=True)
class Streams:
    """What the ledger holds, as far as a batch of submissions depends on it."""

    catalog: Catalog
    versions: Mapping[str, int]
    """Version of every subject of the batch, and of the subjects of its retraction targets."""
    targets: Mapping[str, RetractionTarget] = field(default_factory=dict)
    """Event id → the event, for the ids that exist among those that the batch retracts."""
    retracted: AbstractSet[str] = frozenset()
    """The ids of what is retracted already, among the events of the targets' subjects."""


def decide(
    submissions: tuple[Submission, ...],
    streams: Streams,
    *,
    now: int,
    actor: str,
    entropy: Entropy,
    imported: bool = False,
    batch: bool = False,
) -> Decided:
    """What the submissions come to, all or nothing. `now` is in µs; the recorder checks `recorded_at_max` against
    the true moment of recording. `batch`: a single submission came within `events`, too, as several always do.
    Raises `BadSubmission` (naming every fault) and `VersionConflict`."""
    deciding = _Deciding(streams, now, actor, entropy, imported)
    faults: list[Fault] = []
    for index, submission in enumerate(submissions):
        pointer = f"/events/{index}" if batch or len(submissions) > 1 else ""
        try:
            deciding.take(submission)
        except _Refused as refused:
            faults.append(Fault(f"{pointer}{refused.member}", refused.detail))
    if faults:
        raise BadSubmission(tuple(faults))
    return Decided(tuple(deciding.drafts), deciding.relied_on, deciding.recorded_at_max)


class _Refused(Exception):
    def __init__(self, member: str, detail: str) -> None:
        self.member = member
        self.detail = detail


class _Deciding:
    """The batch so far: versions and definitions as its earlier members leave them."""

    def __init__(self, streams: Streams, now: int, actor: str, entropy: Entropy, imported: bool) -> None:
        self.streams = streams
        self.catalog = streams.catalog
        self.now = now
        self.actor = actor
        self.entropy = entropy
        self.imported = imported
        self.drafts: list[Draft] = []
        self.relied_on: dict[str, int] = {CATALOG_SUBJECT: streams.catalog.version}
        self.recorded_at_max: int | None = None
        # (setting, kind) → what holds from the moment of recording on, without an end in sight.
        self._settled: dict[tuple[str, str], Definition] = {}
        self._next_version: dict[str, int] = {}
        self._started_when_recorded: set[str] = set()
        self._retracted_here: set[str] = set()

    def take(self, submission: Submission) -> None:
        match submission:
            case ChangeSetting():
                definition = self._definition(submission)
                try:
                    value = definition.accept(submission.value)
                except WrongValue as error:
                    raise _Refused("/value", str(error)) from None
                if submission.setting == "owner" and value == submission.subject:
                    raise _Refused("/value", "a subject cannot own itself")
                period = self._period(submission)
                body = {"setting": submission.setting, "value": value, **period}
                self._draft(SettingChanged.TOPIC, submission.subject, body, submission)
            case ClearSetting():
                self._definition(submission)
                body = {"setting": submission.setting, **self._period(submission)}
                self._draft(SettingCleared.TOPIC, submission.subject, body, submission)
            case RetractChange():
                self._retract(submission)
            case DefineSetting():
                self._define(submission)

    def _definition(self, submission: ChangeSetting | ClearSetting) -> Definition:
        kind = kind_of(submission.subject)
        if submission.effective_from is None:
            settled = self._settled.get((submission.setting, kind))
            if settled is not None:
                return settled
        start = self.now if submission.effective_from is None else submission.effective_from
        defined = self.catalog.defined(submission.setting, start)
        if defined is None:
            if submission.setting in self.catalog:
                raise _Refused("/setting", "the setting was not defined yet at the change's effective_from")
            raise _Refused("/setting", "unknown setting; the catalog lists those that are defined")
        if submission.effective_from is None:
            if defined.effective_until is not None:
                self._not_after(defined.effective_until - 1)
        elif start >= self.now and submission.setting in self._started_when_recorded:
            # A definition of this batch starts when it is recorded: not after the change that may rest on it.
            self._not_after(start)
        if kind not in defined.definition.kinds:
            kinds = ", ".join(defined.definition.kinds)
            raise _Refused("/setting", f"this setting belongs to subjects of kind {kinds}, not {kind}")
        if submission.effective_from is None and defined.effective_until is None:
            self._settled[submission.setting, kind] = defined.definition
        return defined.definition

    def _period(self, submission: ChangeSetting | ClearSetting) -> dict[str, Any]:
        start, until = submission.effective_from, submission.effective_until
        if until is not None:
            if start is None:
                if until <= self.now:
                    raise _Refused("/effective_until", self._not_later(until, self.now))
                self._not_after(until - 1)
            elif until <= start:
                raise _Refused("/effective_until", self._not_later(until, start))
        self._needs_reason(start, submission.reason, "/effective_from")
        return {"effective_from": RECORDED if start is None else start, "effective_until": until}

    @staticmethod
    def _not_later(until: int, start: int) -> str:
        return (
            f"effective_until {format_time(until)} must be later than effective_from {format_time(start)}: "
            "the period is half-open"
        )

    def _needs_reason(self, start: int | None, reason: str | None, member: str) -> None:
        """What asserts something about the past must say why (DESIGN.md section 3)."""
        if start is None or reason is not None:
            return
        if start < self.now:
            raise _Refused(
                member,
                f"effective from {format_time(start)}, which is before the moment of recording "
                f"({format_time(self.now)}): a backdated change needs a reason",
            )
        self._not_after(start)

    def _retract(self, submission: RetractChange) -> None:
        target = self.streams.targets.get(submission.event_id)
        if target is None:
            raise _Refused("/event_id", "there is no event with this id in this ledger")
        if target.topic == ChangeRetracted.TOPIC:
            raise _Refused("/event_id", "a retraction cannot be retracted; record the change again instead")
        if target.topic not in (SettingChanged.TOPIC, SettingCleared.TOPIC):
            raise _Refused("/event_id", "only changes can be retracted; define the setting anew instead")
        if target.event_id in self.streams.retracted or target.event_id in self._retracted_here:
            raise _Refused("/event_id", "this change has been retracted already")
        if target.effective_from is not None and submission.reason is None:
            if target.effective_from < self.now:
                raise _Refused(
                    "/reason",
                    f"the change is effective from {format_time(target.effective_from)}, which is past: "
                    "taking it back needs a reason",
                )
            self._not_after(target.effective_from)
        self._retracted_here.add(target.event_id)
        body = {"retracts": target.event_id, "setting": target.setting}
        self._draft(ChangeRetracted.TOPIC, target.subject, body, submission)

    def _define(self, submission: DefineSetting) -> None:
        before = self.catalog.value_type(submission.setting)
        if before is not None and before != submission.definition.value_type:
            raise _Refused(
                "/definition/value_type",
                f"a setting keeps its type, and this one is {before}; define another setting instead",
            )
        self._needs_reason(submission.effective_from, submission.reason, "/effective_from")
        start = submission.effective_from
        if start is None:
            self._started_when_recorded.add(submission.setting)
        further = (submission.setting, self.now if start is None else start, submission.definition)
        self._settled.clear()
        self.catalog = self.catalog.extended([further], self.catalog.version + 1)
        body = {
            "setting": submission.setting,
            "definition": submission.definition.as_json(),
            "effective_from": RECORDED if start is None else start,
        }
        self._draft(SettingDefined.TOPIC, CATALOG_SUBJECT, body, submission)

    def _draft(self, topic: str, subject: str, body: Mapping[str, Any], submission: Submission) -> None:
        before = self.streams.catalog.version if subject == CATALOG_SUBJECT else self.streams.versions[subject]
        if submission.expected_version is not None and submission.expected_version != before:
            raise VersionConflict(subject, submission.expected_version, before)
        self.relied_on[subject] = before
        version = self._next_version.get(subject, before + 1)
        self._next_version[subject] = version + 1
        personal = None
        if submission.reason is not None:
            personal = personal_data(self.entropy(32), submission.reason)
        commitment = None if personal is None else personal.commitment
        tail = id_tail(self.entropy(10))
        # By place, which is cheaper: a batch makes a thousand of them.
        self.drafts.append(Draft(topic, subject, version, body, self.actor, tail, personal, commitment, self.imported))

    def _not_after(self, instant: int) -> None:
        current = self.recorded_at_max
        self.recorded_at_max = instant if current is None else min(current, instant)


def genesis(entropy: Entropy) -> tuple[Draft, ...]:
    """The built-in catalog as the first events of a ledger, effective from the beginning of time."""
    return tuple(
        Draft(
            topic=SettingDefined.TOPIC,
            subject=CATALOG_SUBJECT,
            version=version,
            body={"setting": setting, "definition": definition.as_json(), "effective_from": BEGINNING},
            actor="inforce",
            id_tail=id_tail(entropy(10)),
        )
        for version, (setting, definition) in enumerate(BUILT_IN.items(), 1)
    )
