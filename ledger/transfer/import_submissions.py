"""Submissions that were accepted elsewhere, with the time they were recorded at, to entries of a new ledger.

Each line is a submission of WIRE.md section 2 with a `recorded_at`, and an `actor` if it was not "import".
Neighbours with equal times are one submission. They are decided by the same function as any other, at their own
recorded_at; their events say that they were imported. Proved by tests/transfer/test_imported_submissions.py.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from itertools import groupby
from operator import attrgetter
from typing import Final, NamedTuple

from ledger import strict_json
from ledger.append.decide import Entropy, Streams, decide, genesis
from ledger.append.submissions import EFFECTIVE_MIN, RetractChange, Submission, parse_submission
from ledger.catalog import Catalog, Definition
from ledger.codec import SOURCE_PREFIX, leaf_hash, recorded_bytes
from ledger.drafts import RECORDED, Draft
from ledger.errors import BadImport, BadJson, BadSubmission, BadTime, Fault, VersionConflict
from ledger.events import SettingDefined
from ledger.recorders.contract import Entry
from ledger.subjects import ACTOR_LENGTH_MAX, CATALOG_SUBJECT, is_actor
from ledger.times import format_time, parse_time
from ledger.transfer.import_events import Restored
from ledger.transfer.lines import Line

DEFAULT_ACTOR: Final = "import"


class _Taken(NamedTuple):
    """A line, parsed."""

    number: int
    submission: Submission
    recorded_at: int
    actor: str


def resubmitted(lines: Iterable[Line], origin: str, now: int, entropy: Entropy) -> Iterator[Restored]:
    """The genesis catalog, one microsecond before the first line, and the events of every line, in order.

    `now` (µs) is the last recorded_at that is taken. Raises `BadImport`.
    """
    recording = _Recording(SOURCE_PREFIX + origin)
    for recorded_at, group in groupby(_taken(lines, now), attrgetter("recorded_at")):
        if recording.position == 0:
            yield from recording.record(genesis(entropy), recorded_at - 1)
        taken = list(group)
        yield from recording.record(_decided(taken, recording, entropy), recorded_at)


def _taken(lines: Iterable[Line], now: int) -> Iterator[_Taken]:
    before = EFFECTIVE_MIN
    for line in lines:
        taken = _parsed(line)
        if taken.recorded_at < before:
            raise BadImport(f"line {line.number}: recorded_at lies before that of the line before, or before 1900")
        if taken.recorded_at > now:
            raise BadImport(
                f"line {line.number}: recorded_at lies in the future; by this machine's clock it is {format_time(now)}"
            )
        before = taken.recorded_at
        yield taken


def _parsed(line: Line) -> _Taken:
    try:
        value = strict_json.loads(line.text, what="the line")
    except BadJson as error:
        raise BadImport(f"line {line.number}: {error.detail}") from None
    if not isinstance(value, dict):
        raise BadImport(f"line {line.number}: each line must be one submission, a JSON object")
    if "specversion" in value:
        raise BadImport(f"line {line.number}: an exported event among submissions; import them from files of their own")
    try:
        recorded_at = parse_time(value.pop("recorded_at"))
    except KeyError:
        raise BadImport(f"line {line.number}: recorded_at is required") from None
    except BadTime as error:
        raise BadImport(f"line {line.number}: /recorded_at: {error.detail}") from None
    actor = value.pop("actor", DEFAULT_ACTOR)
    if not is_actor(actor):
        raise BadImport(f"line {line.number}: /actor: a text of 1 to {ACTOR_LENGTH_MAX} characters is required")
    try:
        submission = parse_submission(value, "")
    except BadSubmission as error:
        raise _refused([(line.number, fault) for fault in error.faults]) from None
    if isinstance(submission, RetractChange):
        raise BadImport(
            f"line {line.number}: an import of submissions gives its events new ids, so none can be named to be "
            "retracted; import up to here and record the retraction, or import exported events"
        )
    return _Taken(line.number, submission, recorded_at, actor)


def _decided(taken: list[_Taken], recording: _Recording, entropy: Entropy) -> tuple[Draft, ...]:
    submissions = tuple(one.submission for one in taken)
    streams = Streams(recording.catalog, recording.versions)
    recorded_at = taken[0].recorded_at
    try:
        drafts = decide(
            submissions, streams, now=recorded_at, actor=DEFAULT_ACTOR, entropy=entropy, imported=True, batch=True
        ).drafts
    except BadSubmission as error:
        raise _refused([_placed(fault, taken) for fault in error.faults]) from None
    except VersionConflict as conflict:
        number = next(one.number for one in taken if one.submission.expected_version == conflict.expected)
        raise BadImport(
            f"line {number}: the subject is at version {conflict.actual} here, which expected_version is not"
        ) from None
    return tuple(
        draft if draft.actor == one.actor else draft._replace(actor=one.actor)
        for draft, one in zip(drafts, taken, strict=True)
    )


def _placed(fault: Fault, taken: list[_Taken]) -> tuple[int, Fault]:
    index, _, member = fault.pointer.removeprefix("/events/").partition("/")
    return taken[int(index)].number, fault._replace(pointer=f"/{member}" if member else "")


def _refused(faults: list[tuple[int, Fault]]) -> BadImport:
    said = [
        f"line {number}: {fault.pointer}: {fault.detail}" if fault.pointer else f"line {number}: {fault.detail}"
        for number, fault in faults
    ]
    more = f" (and {len(said) - 1} more)" if len(said) > 1 else ""
    return BadImport(
        said[0] + more,
        tuple(Fault(fault.pointer, f"line {number}: {fault.detail}") for number, fault in faults),
    )


class _Recording:
    """What the append lock does elsewhere: places and times, and what the next submission depends on."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.position = 0
        self.catalog = Catalog()
        self.versions: defaultdict[str, int] = defaultdict(int)

    def record(self, drafts: tuple[Draft, ...], recorded_at: int) -> Iterator[Restored]:
        defined = [_definition(draft, recorded_at) for draft in drafts if draft.topic == SettingDefined.TOPIC]
        for draft in drafts:
            self.position += 1
            self.versions[draft.subject] = draft.version
            leaf = recorded_bytes(draft, self.source, self.position, recorded_at)
            entry = Entry(self.position, draft.subject, draft.version, draft.topic, leaf, recorded_at, leaf_hash(leaf))
            yield entry, draft.personal
        if defined:
            self.catalog = self.catalog.extended(defined, self.versions[CATALOG_SUBJECT])


def _definition(draft: Draft, recorded_at: int) -> tuple[str, int, Definition]:
    start = draft.body["effective_from"]
    definition = Definition.model_validate(draft.body["definition"])
    return draft.body["setting"], recorded_at if start == RECORDED else start, definition
