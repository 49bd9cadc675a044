"""The right to record a submission: `writable_by` of each setting, and the roles that correct the past.

`require` looks at a whole batch before anything of it is decided, so a refusal says nothing about the ledger that the
caller may not know: a subject or an event beyond the caller's reach is refused in the words of one that does not exist.
Pure. Proved by tests/test_authority.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

from ledger.append.submissions import ChangeSetting, ClearSetting, DefineSetting, RetractChange, Submission
from ledger.catalog import Catalog
from ledger.errors import BadSubmission, Fault, Forbidden, OutOfReach
from ledger.roles import WRITERS, RoleName

EVERYWHERE: Final[Mapping[str, frozenset[RoleName]]] = {}
UNKNOWN_SUBJECT: Final = "there is no such subject among those that you may write"
GOVERNING: Final = frozenset({"attached_to", "owner"})
"""The settings that decide whose policy governs: nobody leaves a policy by a setting of one's own."""
UNKNOWN_EVENT: Final = "there is no event with this id in this ledger"


class Authority(NamedTuple):
    """`caller`: who asks, and its roles, in words. `is_operator`: may write every setting of every subject. `reached`:
    subject → the roles that the caller has there. `may_correct`: may backdate and retract."""

    caller: str
    is_operator: bool
    may_correct: bool
    reached: Mapping[str, frozenset[RoleName]] = EVERYWHERE

    @property
    def may_everything(self) -> bool:
        return self.is_operator and self.may_correct

    def may_write(self, subject: str, writable_by: str) -> bool:
        writers = WRITERS[writable_by]
        return self.is_operator or not self.reached.get(subject, frozenset()).isdisjoint(writers)

    def reaches(self, subject: str) -> bool:
        return self.is_operator or subject in self.reached


Targets = Mapping[str, tuple[str, str]]
"""Event id → the subject and the setting of the event, for each event that is to be retracted and exists."""


def require(
    submissions: Iterable[Submission],
    authority: Authority,
    catalog: Catalog,
    targets: Targets,
    *,
    now: int,
    batch: bool,
) -> None:
    """Raises `OutOfReach`, `Forbidden` or, for an event that the caller may not know, `BadSubmission`: naming every
    submission that `authority` does not allow at the moment `now` (µs)."""
    judge = _Judge(authority, catalog, targets, now)
    for index, submission in enumerate(submissions):
        judge.look_at(submission, f"/events/{index}" if batch else "")
    if judge.unknown:
        raise OutOfReach(UNKNOWN_SUBJECT, tuple(judge.unknown))
    if judge.unknown_events:
        raise BadSubmission(tuple(judge.unknown_events))
    if judge.refused:
        raise Forbidden(tuple(judge.refused))


class _Judge:
    def __init__(self, authority: Authority, catalog: Catalog, targets: Targets, now: int) -> None:
        self.authority = authority
        self.catalog = catalog
        self.targets = targets
        self.now = now
        self.unknown: list[Fault] = []
        self.unknown_events: list[Fault] = []
        self.refused: list[Fault] = []

    def look_at(self, submission: Submission, pointer: str) -> None:
        match submission:
            case ChangeSetting() | ClearSetting():
                self._change(submission, pointer)
            case RetractChange():
                target = self.targets.get(submission.event_id)
                if target is not None and self.authority.reaches(target[0]):
                    self._write(*target, self.now, f"{pointer}/event_id")
                    self._correct("retracting", f"{pointer}/event_id")
                elif not self.authority.is_operator:
                    self.unknown_events.append(Fault(f"{pointer}/event_id", UNKNOWN_EVENT))
            case DefineSetting():
                if not self.authority.is_operator:
                    self._refuse(f"{pointer}/type", "a definition is written by the operator")
                self._backdated(submission.effective_from, pointer)

    def _change(self, submission: ChangeSetting | ClearSetting, pointer: str) -> None:
        if not self.authority.reaches(submission.subject):
            self.unknown.append(Fault(f"{pointer}/subject", UNKNOWN_SUBJECT))
            return
        start = self.now if submission.effective_from is None else submission.effective_from
        self._write(submission.subject, submission.setting, start, f"{pointer}/setting")
        if isinstance(submission, ChangeSetting):
            self._value(submission, start, f"{pointer}/value")
        self._backdated(submission.effective_from, pointer)
        if submission.cancels_scheduled:
            self._correct("cancels_scheduled, which retracts", f"{pointer}/cancels_scheduled")

    def _write(self, subject: str, setting: str, start: int, pointer: str) -> None:
        """Refuses what neither the definition of now nor the one at `start` permits both: who may write a setting is
        decided when it is written, and a scheduled definition already says who may write it then."""
        for instant in {self.now, start}:
            period = self.catalog.definition_at(setting, instant)
            if period is not None and not self.authority.may_write(subject, period.definition.writable_by):
                self._refuse(pointer, f"{setting} is writable by {period.definition.writable_by}")
                return
        if setting in GOVERNING and not self.authority.is_operator:
            self._refuse(pointer, f"{setting} decides whose policy governs, so an operator writes it")

    def _value(self, change: ChangeSetting, start: int, pointer: str) -> None:
        """Refuses a value that names a subject beyond the caller's reach: its receipt would tell whether there is such
        a subject, and it would lead one subject's questions to another."""
        if self.authority.is_operator or not isinstance(change.value, str):
            return
        period = self.catalog.definition_at(change.setting, start)
        if period is None or period.definition.value_type != "subject_ref":
            return
        if not self.authority.reaches(change.value):
            self.unknown.append(Fault(pointer, UNKNOWN_SUBJECT))

    def _backdated(self, start: int | None, pointer: str) -> None:
        if start is not None and start < self.now:
            self._correct("a change that begins before its recording", f"{pointer}/effective_from")

    def _correct(self, act: str, pointer: str) -> None:
        if not self.authority.may_correct:
            self._refuse(pointer, f"{act} needs the role corrector")

    def _refuse(self, pointer: str, rule: str) -> None:
        self.refused.append(Fault(pointer, f"{rule}, and {self.authority.caller}"))
