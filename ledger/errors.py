"""Every error that inforce raises on purpose.

    InforceError
    ├── BadInput                   the caller's input is wrong: correct it
    │   ├── BadJson                not JSON, not UTF-8, too deep, too large, a repeated member, NaN
    │   ├── BadTime                a time that is not RFC 3339 with an offset
    │   ├── BadSubject             a subject reference outside the grammar
    │   ├── BadSubmission          a submission that cannot be recorded; names each fault by JSON pointer
    │   ├── BadRecord              a request record that cannot be read
    │   ├── BadImport              a line of an import that cannot be imported
    │   └── IdempotencyKeyReused   the key was used for another body
    ├── Forbidden                  the caller is known and has no right to this: ask for a role, or for less
    ├── NotFound                   no such event, subject or setting
    │   └── OutOfReach             no such subject among those that the caller may know
    ├── Conflict                   the ledger has changed: read, decide again, retry
    │   ├── VersionConflict
    │   ├── AheadOfLedger          a follower asks for events after a position that the ledger has not reached
    │   └── SubmissionInFlight     a submission with the same idempotency key is being recorded
    ├── LedgerUnavailable          the database cannot be reached, written or locked: try again, or repair it
    │   ├── LedgerBusy             too many submissions wait to be recorded: try again in a moment
    │   ├── NotALedger             the file or database exists but is not a ledger that this version can use
    │   ├── NotWritable            nothing is recorded until an operator has acted; questions are answered
    │   │   ├── ClockBehind        this machine's clock is far behind the last recorded event
    │   │   └── LedgerWentBack     the ledger lacks events that were acknowledged, or holds others in their places
    │   └── PositionNotReached     the ledger has not reached the position of the question: wait, ask again
    └── LedgerCorrupt              the stored data is wrong: investigate before you go on
        └── DamagedEvent           an event is not what was recorded, or is missing

All but the last two concern one caller. `LedgerCorrupt` names a position: questions that rest on that event fail until
an operator has looked at it, all others go on. `code` is stable: programs may rely on it. A message may contain
submitted times, positions and versions; it never contains a submitted text or id.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Self


class Fault(NamedTuple):
    """One fault and its place: `pointer` is a JSON pointer (RFC 6901) into the caller's body."""

    pointer: str
    detail: str


class InforceError(Exception):
    """The root. `str(error)` is one line: the fault, and how to correct it."""

    code = "error"

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


class BadInput(InforceError):
    code = "bad_input"

    def __init__(self, detail: str, faults: tuple[Fault, ...] = ()) -> None:
        super().__init__(detail)
        self.faults = faults

    def sentences(self) -> list[str]:
        """A sentence for every fault, each behind the same words as the first of them in the detail; the detail if
        there are no faults."""
        each = [self._sentence(fault) for fault in self.faults]
        if not each or each[0] not in self.detail:
            return [self.detail]
        words = self.detail.partition(each[0])[0]
        return [words + sentence for sentence in each]

    def _sentence(self, fault: Fault) -> str:
        return f"{fault.pointer}: {fault.detail}" if fault.pointer else fault.detail


class BadJson(BadInput):
    code = "bad_json"


class BadTime(BadInput):
    code = "bad_time"


class BadSubject(BadInput):
    code = "bad_subject"


class BadRecord(BadInput):
    code = "bad_record"


class BadImport(BadInput):
    """The detail of a fault begins with its line."""

    code = "bad_import"

    def _sentence(self, fault: Fault) -> str:
        line, _, detail = fault.detail.partition(": ")
        return f"{line}: {fault.pointer}: {detail}" if fault.pointer else fault.detail


class BadSubmission(BadInput):
    code = "bad_submission"

    def __init__(self, faults: tuple[Fault, ...]) -> None:
        first = faults[0]
        more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
        where = f"{first.pointer}: " if first.pointer else ""
        super().__init__(f"{where}{first.detail}{more}", faults)


class IdempotencyKeyReused(BadInput):
    code = "idempotency_key_reused"

    def __init__(self) -> None:
        super().__init__("this Idempotency-Key was used for another body; send the first body again, or a new key")


class Forbidden(InforceError):
    code = "forbidden"

    def __init__(self, faults: tuple[Fault, ...]) -> None:
        more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
        super().__init__(f"{faults[0].detail}{more}")
        self.faults = faults


class NotFound(InforceError):
    code = "not_found"


class OutOfReach(NotFound):
    """In the words of what does not exist: the caller may not learn that it does."""

    def __init__(self, detail: str, faults: tuple[Fault, ...] = ()) -> None:
        super().__init__(detail)
        self.faults = faults


class Conflict(InforceError):
    code = "conflict"


class VersionConflict(Conflict):
    code = "version_conflict"

    def __init__(self, subject: str, expected: int, actual: int) -> None:
        super().__init__(
            f"{subject} is at version {actual}, not {expected}: read its history, decide again and retry with "
            f"expected_version {actual}"
        )
        self.subject = subject
        self.expected = expected
        self.actual = actual


class AheadOfLedger(Conflict):
    code = "ahead_of_ledger"

    def __init__(self, after: int, head: int) -> None:
        super().__init__(
            f"the ledger ends at position {head}, before position {after}: it went back, or it is another ledger. "
            f"Follow it anew from a position of at most {head}, and compare it with what you hold"
        )
        self.after = after
        self.head = head


class SubmissionInFlight(Conflict):
    code = "idempotency_key_in_flight"

    def __init__(self) -> None:
        super().__init__("a submission with this Idempotency-Key is being recorded; retry in a moment")


class LedgerUnavailable(InforceError):
    code = "ledger_unavailable"


class LedgerBusy(LedgerUnavailable):
    code = "ledger_busy"

    def __init__(self, waiting: int) -> None:
        super().__init__(
            f"{waiting} submissions wait to be recorded and the queue is full; this one was not recorded, try again in "
            "a moment"
        )
        self.waiting = waiting


class NotALedger(LedgerUnavailable):
    code = "not_a_ledger"


class NotWritable(LedgerUnavailable):
    """`members`: the facts of the detail, for programs."""

    code = "not_writable"

    def __init__(self, detail: str, members: Mapping[str, str | int | None] | None = None) -> None:
        super().__init__(detail)
        self.members = dict(members or {})

    def again(self) -> Self:
        """The same error for another caller, because an error collects the tracebacks of all threads that raise it."""
        return type(self)(self.detail, self.members)


class ClockBehind(NotWritable):
    code = "clock_behind"


class LedgerWentBack(NotWritable):
    code = "ledger_went_back"


class PositionNotReached(LedgerUnavailable):
    code = "position_not_reached"

    def __init__(self, at_least: int, position: int) -> None:
        super().__init__(
            f"the ledger is at position {position} and did not reach {at_least} in time; ask again in a moment, or "
            f"for at least {position}"
        )
        self.at_least = at_least
        self.position = position


class LedgerCorrupt(InforceError):
    code = "ledger_corrupt"


class DamagedEvent(LedgerCorrupt):
    def __init__(self, position: int | None, fault: str, before: tuple[Any, ...] = ()) -> None:
        """`position`: None if even that cannot be read. `before`: the sound entries that were read before it."""
        which = "an event whose position cannot be read" if position is None else f"the event at position {position}"
        super().__init__(
            f"{which} is not as it was recorded: {fault}; run inforce backup --check, and restore the ledger from a "
            "backup or an export"
        )
        self.position = position
        self.fault = fault
        self.before = before
