"""Deciding: the pure function from submissions to drafts.

`decide` turns submissions into drafts, given what the ledger holds, and states the conditions under which the drafts
may be recorded. It uses no clock and no database: `now` is an argument.
Proved by tests/test_submissions.py and tests/contracts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from ledger.append.definitions import fault_of_built_in_value, faults_of_built_in
from ledger.append.submissions import (
    BATCH_MAX,
    ChangeSetting,
    ClearSetting,
    DefineSetting,
    RetractChange,
    Submission,
)
from ledger.catalog import Catalog, Definition, WrongValue
from ledger.codec import id_tail
from ledger.drafts import AT_RECORDING, AppendPlan, Draft, personal_data
from ledger.entropy import EntropySource
from ledger.errors import BadSubmission, Fault, VersionConflict
from ledger.events import ChangeRetracted, SettingChanged, SettingCleared, SettingDefined
from ledger.near_names import did_you_mean
from ledger.roles import fault_of_access
from ledger.subjects import CATALOG_SUBJECT, MUST_BE_KNOWN, kind_of
from ledger.times import format_time

PROPOSALS_MAX: Final = 3
"""Unknown settings of a batch for which near names are looked up."""


class RetractionTarget(NamedTuple):
    """The event that a retraction names, as its stream shows it now."""

    event_id: str
    subject: str
    topic: str
    setting: str
    effective_from: int | None


@dataclass(frozen=True)
class SubmissionContext:
    """The part of the ledger that a batch of submissions depends on."""

    catalog: Catalog
    versions: Mapping[str, int]
    """Version of every subject of the batch, and of the subjects of its retraction targets."""
    targets: Mapping[str, RetractionTarget] = field(default_factory=dict)
    """Event id → event, for each id that the batch retracts and that exists."""
    retracted: AbstractSet[str] = frozenset()
    """The ids of the changes that are retracted already, among the events of the targets' subjects."""
    changes: Mapping[tuple[str, str], Sequence[RetractionTarget]] = field(default_factory=dict)
    """(subject, setting) → its changes that are not retracted, in position order, for each submission of the batch that
    cancels what is scheduled."""
    unknown_references: AbstractSet[str] = frozenset()
    """The values of the batch (`references`) that name no subject with events."""


def decide(
    submissions: tuple[Submission, ...],
    context: SubmissionContext,
    *,
    now: int,
    actor: str,
    entropy: EntropySource,
    imported: bool = False,
    batch: bool = False,
) -> AppendPlan:
    """The plan for all submissions, or an error for all of them.

    `now` is in µs; the recorder compares the plan's `recorded_at_max` with the true moment of recording. `batch`: a
    single submission was sent within `events`, as several always are, so faults point into that array.
    Raises `BadSubmission` (naming every fault) and `VersionConflict`.
    """
    decider = _BatchDecider(context, now, actor, entropy, imported, submissions)
    faults: list[Fault] = []
    for index, submission in enumerate(submissions):
        pointer = f"/events/{index}" if batch or len(submissions) > 1 else ""
        try:
            decider.add(submission)
        except _Refused as refused:
            faults += [Fault(f"{pointer}{member}", detail) for member, detail in refused.faults]
    if faults:
        raise BadSubmission(tuple(faults))
    decider.retract_cancelled()
    return AppendPlan(tuple(decider.drafts), decider.versions_used, decider.recorded_at_max)


class _Refused(Exception):
    """`faults`: (pointer into the submission, detail)."""

    def __init__(self, member: str, detail: str, *more: tuple[str, str]) -> None:
        self.faults = ((member, detail), *more)


class _Cancellation(NamedTuple):
    """A retraction that `cancels_scheduled` causes, with the reason of its submission."""

    target: RetractionTarget
    reason: str | None
    expected_version: int | None = None


class _BatchDecider:
    """The batch so far: versions and definitions as its earlier members leave them."""

    def __init__(
        self,
        context: SubmissionContext,
        now: int,
        actor: str,
        entropy: EntropySource,
        imported: bool,
        submissions: Sequence[Submission],
    ) -> None:
        self.context = context
        self.catalog = context.catalog
        self.now = now
        self.actor = actor
        self.entropy = entropy
        self.imported = imported
        self.drafts: list[Draft] = []
        self.versions_used: dict[str, int] = {CATALOG_SUBJECT: context.catalog.version}
        self.recorded_at_max: int | None = None
        # (setting, kind) → the definition that holds from the moment of recording on, with no later one known.
        self._lasting: dict[tuple[str, str], Definition] = {}
        self._next_version: dict[str, int] = {}
        # Settings that a member of this batch defines from the moment of recording on.
        self._defined_at_recording: set[str] = set()
        self._retracted_here: set[str] = set()
        self._cancelled: list[_Cancellation] = []
        self._submissions = submissions
        self._proposals = 0

    def add(self, submission: Submission) -> None:
        match submission:
            case ChangeSetting():
                definition = self._definition(submission)
                try:
                    value = definition.accept_new(submission.value)
                except WrongValue as error:
                    raise _Refused("/value", f"{error} (writable by: {definition.writable_by})") from None
                if submission.setting == "owner" and value == submission.subject:
                    raise _Refused("/value", "a subject cannot own itself")
                fault = fault_of_access(submission.subject, submission.setting, value)
                if fault := fault or fault_of_built_in_value(submission.setting, definition.value_type, value):
                    raise _Refused("/value", fault)
                if definition.value_type == "subject_ref":
                    self._require_known(str(value))
                period = self._period(submission)
                body = {"setting": submission.setting, "value": value, **period}
                if submission.cancels_scheduled:
                    self._cancel_scheduled(submission)
                self._draft(SettingChanged.TOPIC, submission.subject, body, submission)
            case ClearSetting():
                self._definition(submission)
                body = {"setting": submission.setting, **self._period(submission)}
                if submission.cancels_scheduled:
                    self._cancel_scheduled(submission)
                self._draft(SettingCleared.TOPIC, submission.subject, body, submission)
            case RetractChange():
                self._retract(submission)
            case DefineSetting():
                self._define(submission)

    def _definition(self, submission: ChangeSetting | ClearSetting) -> Definition:
        kind = kind_of(submission.subject)
        if submission.effective_from is None:
            lasting = self._lasting.get((submission.setting, kind))
            if lasting is not None:
                return lasting
        start = self.now if submission.effective_from is None else submission.effective_from
        period = self.catalog.definition_at(submission.setting, start)
        if period is None:
            if submission.setting in self.catalog:
                raise _Refused("/setting", "the setting was not defined yet at the change's effective_from")
            near = self._near(submission.setting, kind)
            raise _Refused("/setting", f"unknown setting{near}; the catalog lists the settings that are defined")
        if submission.effective_from is None:
            if period.effective_until is not None:
                self._record_by(period.effective_until - 1)
        elif start >= self.now and submission.setting in self._defined_at_recording:
            # A definition of this batch begins when it is recorded, and that must not be after a change that uses it.
            self._record_by(start)
        if kind not in period.definition.kinds:
            kinds = ", ".join(period.definition.kinds)
            writer = period.definition.writable_by
            raise _Refused(
                "/setting", f"this setting belongs to subjects of kind {kinds}, not {kind} (writable by: {writer})"
            )
        if submission.setting == MUST_BE_KNOWN and period.definition.value_type == "set_of":
            raise _Refused(
                "/setting",
                f"no subject has its own {MUST_BE_KNOWN}: its default holds for all subjects of the kinds that it "
                "names; define the setting with that default instead (writable by: operator)",
            )
        if submission.effective_from is None and period.effective_until is None:
            self._lasting[submission.setting, kind] = period.definition
        return period.definition

    def _near(self, setting: str, kind: str) -> str:
        """Near names, for the first unknown settings of a batch: to look them up takes time under the append lock."""
        self._proposals += 1
        return did_you_mean(setting, self.catalog.names(kind)) if self._proposals <= PROPOSALS_MAX else ""

    def _require_known(self, subject: str) -> None:
        """Refuses a reference to a subject without events, if the catalog demands that its kind is known."""
        period = self.catalog.definition_at(MUST_BE_KNOWN, self.now)
        if period is None or kind_of(subject) not in _kinds(period.definition):
            return
        if subject in self.context.unknown_references:
            # The whole batch is recorded at one moment, so its order does not matter.
            if not any(getattr(submission, "subject", None) == subject for submission in self._submissions):
                raise _Refused(
                    "/value",
                    "the ledger has no event of the subject that the value names, and the catalog's setting "
                    f"{MUST_BE_KNOWN} demands one of every {kind_of(subject)}; correct the value, or record something "
                    "about that subject first or in the same batch",
                )
        elif subject in self.context.versions:
            # An earlier member of the group, which may fail, may have recorded its first event.
            self.versions_used.setdefault(subject, self.context.versions[subject])
        if period.effective_until is not None:
            self._record_by(period.effective_until - 1)

    def _period(self, submission: ChangeSetting | ClearSetting) -> dict[str, Any]:
        start, until = submission.effective_from, submission.effective_until
        if until is not None:
            begin = self.now if start is None else start
            if until <= begin:
                raise _Refused(
                    "/effective_until",
                    f"effective_until {format_time(until)} must be later than effective_from {format_time(begin)}: "
                    "the period is half-open",
                )
            if start is None:
                self._record_by(until - 1)
        self._require_reason(start, submission.reason)
        return {"effective_from": AT_RECORDING if start is None else start, "effective_until": until}

    def _require_reason(
        self,
        start: int | None,
        reason: str | None,
        member: str = "/effective_from",
        fact: str = "effective",
        act: str = "a backdated change",
    ) -> None:
        """An assertion about the past needs a reason (see "Time model" in projections/README.md)."""
        if start is None or reason is not None:
            return
        if start < self.now:
            raise _Refused(
                member,
                f"{fact} from {format_time(start)}, which is before the moment of recording "
                f"({format_time(self.now)}): {act} needs a reason",
            )
        self._record_by(start)

    def _retract(self, submission: RetractChange) -> None:
        target = self.context.targets.get(submission.event_id)
        if target is None:
            raise _Refused("/event_id", "there is no event with this id in this ledger")
        if target.topic == ChangeRetracted.TOPIC:
            raise _Refused("/event_id", "a retraction cannot be retracted; record the change again instead")
        if target.topic not in (SettingChanged.TOPIC, SettingCleared.TOPIC):
            raise _Refused("/event_id", "only changes can be retracted; define the setting anew instead")
        if target.event_id in self.context.retracted or target.event_id in self._retracted_here:
            raise _Refused("/event_id", "this change has been retracted already")
        start = target.effective_from
        self._require_reason(start, submission.reason, "/reason", "the change is effective", "retracting it")
        self._retracted_here.add(target.event_id)
        body = {"retracts": target.event_id, "setting": target.setting}
        self._draft(ChangeRetracted.TOPIC, target.subject, body, submission)

    def _define(self, submission: DefineSetting) -> None:
        before = self.catalog.value_type(submission.setting)
        faults = faults_of_built_in(submission.setting, submission.definition, before)
        if before is not None and before != submission.definition.value_type:
            fault = f"a setting keeps its type, and this one is {before}; define another setting instead"
            faults = [("/definition/value_type", fault)]
        try:
            self._require_reason(submission.effective_from, submission.reason)
        except _Refused as refused:
            faults += refused.faults
        if faults:
            raise _Refused(*faults[0], *faults[1:])
        start = submission.effective_from
        if start is None:
            self._defined_at_recording.add(submission.setting)
        addition = (submission.setting, self.now if start is None else start, submission.definition)
        self._lasting.clear()
        self.catalog = self.catalog.extended([addition], self.catalog.version + 1)
        body = {
            "setting": submission.setting,
            "definition": submission.definition.as_json(),
            "effective_from": AT_RECORDING if start is None else start,
        }
        self._draft(SettingDefined.TOPIC, CATALOG_SUBJECT, body, submission)

    def _cancel_scheduled(self, submission: ChangeSetting | ClearSetting) -> None:
        """Marks for retraction every change of the setting that begins later than this one."""
        start = submission.effective_from
        key = submission.subject, submission.setting
        earlier = [d for d in self.drafts if (d.subject, d.body["setting"]) == key and d.topic != ChangeRetracted.TOPIC]
        if any(self._begins_later(draft.body["effective_from"], start) for draft in earlier):
            # Its event has no id yet, so no event can retract it.
            raise _Refused(
                "/cancels_scheduled",
                "an earlier submission of this batch begins later than this one, which would cancel it; leave one of "
                "them out, or put the later one behind",
            )
        begin = self.now if start is None else start
        retracted = self.context.retracted
        scheduled = [
            target
            for target in self.context.changes.get(key, ())
            if target.effective_from is not None
            and target.effective_from > begin
            and target.event_id not in retracted
            and target.event_id not in self._retracted_here
        ]
        events = len(self._submissions) + len(self._cancelled) + len(scheduled)
        if events > BATCH_MAX:
            raise _Refused(
                "/cancels_scheduled",
                f"with {len(scheduled)} scheduled changes to retract this submission would record {events} events, and "
                f"a submission records at most {BATCH_MAX}; retract some of them first, by their event ids",
            )
        for target in scheduled:
            self._retracted_here.add(target.event_id)
            self._cancelled.append(_Cancellation(target, submission.reason))
            if start is None and target.effective_from is not None:
                # Recorded later, the change would have begun before this one.
                self._record_by(target.effective_from - 1)

    def _begins_later(self, other: int | str, start: int | None) -> bool:
        """Whether a change of this batch that begins at `other` begins later than one that begins at `start`."""
        if start is None:
            return isinstance(other, int) and other > self.now
        if isinstance(other, int):
            return other > start
        if start < self.now:
            return True
        self._record_by(start)
        return False

    def retract_cancelled(self) -> None:
        """Adds the retractions behind all other drafts, so that the first receipts are those of the submissions."""
        for cancellation in self._cancelled:
            target = cancellation.target
            body = {"retracts": target.event_id, "setting": target.setting}
            self._draft(ChangeRetracted.TOPIC, target.subject, body, cancellation)

    def _draft(self, topic: str, subject: str, body: Mapping[str, Any], submission: Submission | _Cancellation) -> None:
        before = self.context.catalog.version if subject == CATALOG_SUBJECT else self.context.versions[subject]
        if submission.expected_version is not None and submission.expected_version != before:
            raise VersionConflict(subject, submission.expected_version, before)
        self.versions_used[subject] = before
        version = self._next_version.get(subject, before + 1)
        self._next_version[subject] = version + 1
        personal = None
        if submission.reason is not None:
            personal = personal_data(self.entropy(32), submission.reason)
        commitment = None if personal is None else personal.commitment
        tail = id_tail(self.entropy(10))
        # Positional arguments, which are cheaper: a batch makes a thousand drafts.
        self.drafts.append(Draft(topic, subject, version, body, self.actor, tail, personal, commitment, self.imported))

    def _record_by(self, instant: int) -> None:
        """The plan may be recorded at `instant` at the latest."""
        current = self.recorded_at_max
        self.recorded_at_max = instant if current is None else min(current, instant)


def _kinds(definition: Definition) -> tuple[str, ...]:
    return definition.default if isinstance(definition.default, tuple) else ()
