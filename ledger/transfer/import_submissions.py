"""Submissions that were accepted elsewhere, with their recorded_at, as entries of a new ledger.

Each line is a body of `POST /v1/events` ("Wire contract" in api/README.md), one submission or a batch, with a
`recorded_at`, and an `actor` unless it is "import". Consecutive lines with equal times form one submission. The same
function decides them as any other submission, at their own recorded_at; their events say `"imported":true`.
Proved by tests/transfer/test_imported_submissions.py.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from itertools import groupby
from operator import attrgetter
from typing import Final, NamedTuple

from ledger.append.built_in import genesis
from ledger.append.decide import SubmissionContext, decide
from ledger.append.submissions import EFFECTIVE_MIN, RetractChange, Submission, parse_submissions, references
from ledger.catalog import Catalog, Definition
from ledger.codec import SOURCE_PREFIX, leaf_bytes, leaf_hash
from ledger.drafts import AT_RECORDING, Draft
from ledger.entropy import EntropySource
from ledger.errors import BadImport, BadSubmission, BadTime, Fault, VersionConflict
from ledger.events import SettingDefined
from ledger.recorders.contract import Entry
from ledger.subjects import ACTOR_LENGTH_MAX, CATALOG_SUBJECT, is_actor
from ledger.times import format_time, parse_time
from ledger.transfer.import_events import ImportedEntry
from ledger.transfer.lines import ImportLine

DEFAULT_ACTOR: Final = "import"


class _SubmissionLine(NamedTuple):
    """`pointer`: the place of the submission within its line."""

    number: int
    submission: Submission
    recorded_at: int
    actor: str
    pointer: str


def entries_of_submissions(
    lines: Iterable[ImportLine], origin: str, now: int, entropy: EntropySource
) -> Iterator[ImportedEntry]:
    """The genesis catalog, one microsecond before the first line, and the events of all lines, in order.

    `now` (µs): a later recorded_at is refused. Raises `BadImport`.
    """
    ledger = _NewLedger(SOURCE_PREFIX + origin)
    for recorded_at, group in groupby(_parsed_lines(lines, now), attrgetter("recorded_at")):
        if ledger.position == 0:
            yield from ledger.append(genesis(entropy), recorded_at - 1)
        yield from ledger.append(_decide(list(group), ledger, entropy), recorded_at)


def _parsed_lines(lines: Iterable[ImportLine], now: int) -> Iterator[_SubmissionLine]:
    previous = EFFECTIVE_MIN
    for line in lines:
        parsed = _parse(line)
        recorded_at = parsed[0].recorded_at
        if recorded_at < previous:
            raise line.error("recorded_at lies before that of the line before, or before 1900")
        if recorded_at > now:
            raise line.error(f"recorded_at lies in the future; by this machine's clock it is {format_time(now)}")
        previous = recorded_at
        yield from parsed


def _parse(line: ImportLine) -> list[_SubmissionLine]:
    """The submissions of the line, at least one."""
    value = line.json()
    if not isinstance(value, dict):
        raise line.error('each line must be one submission or {"events": [...]}, a JSON object')
    if "specversion" in value:
        raise line.error("an exported event among submissions; import the two from separate files")
    try:
        recorded_at = parse_time(value.pop("recorded_at"))
    except KeyError:
        raise line.error(
            "recorded_at is required, once a line" + (", beside events" if "events" in value else "")
        ) from None
    except BadTime as error:
        raise line.error(f"/recorded_at: {error.detail}") from None
    actor = value.pop("actor", DEFAULT_ACTOR)
    if not is_actor(actor):
        raise line.error(f"/actor: a text of 1 to {ACTOR_LENGTH_MAX} characters is required")
    try:
        submissions = parse_submissions(value)
    except BadSubmission as error:
        raise _refusal([(line.number, fault) for fault in error.faults]) from None
    for submission in submissions:
        _require_importable(line, submission)
    places = [f"/events/{index}" for index in range(len(submissions))] if "events" in value else [""]
    return [
        _SubmissionLine(line.number, submission, recorded_at, actor, place)
        for submission, place in zip(submissions, places, strict=True)
    ]


def _require_importable(line: ImportLine, submission: Submission) -> None:
    if isinstance(submission, RetractChange):
        raise line.error(
            "an import of submissions gives its events new ids, so a line cannot name the event "
            "to retract; import up to here and record the retraction, or import exported events"
        )
    if getattr(submission, "cancels_scheduled", None):
        raise line.error(
            "an import of submissions retracts nothing, so a line cannot say cancels_scheduled; import up to here and "
            "submit the line, leave out what it would cancel, or import exported events"
        )


def _decide(lines: list[_SubmissionLine], ledger: _NewLedger, entropy: EntropySource) -> tuple[Draft, ...]:
    submissions = tuple(line.submission for line in lines)
    unknown = {subject for subject in references(submissions) if not ledger.versions.get(subject)}
    context = SubmissionContext(ledger.catalog, ledger.versions, unknown_references=unknown)
    now = lines[0].recorded_at
    try:
        drafts = decide(
            submissions, context, now=now, actor=DEFAULT_ACTOR, entropy=entropy, imported=True, batch=True
        ).drafts
    except BadSubmission as error:
        raise _refusal([_fault_of_line(fault, lines) for fault in error.faults]) from None
    except VersionConflict as conflict:
        number = next(line.number for line in lines if line.submission.expected_version == conflict.expected)
        raise BadImport(
            f"line {number}: the subject is at version {conflict.actual} here, not at the expected_version "
            f"{conflict.expected}; correct it or leave it out"
        ) from None
    return tuple(
        draft if draft.actor == line.actor else draft._replace(actor=line.actor)
        for draft, line in zip(drafts, lines, strict=True)
    )


def _fault_of_line(fault: Fault, lines: list[_SubmissionLine]) -> tuple[int, Fault]:
    """The line's number, and the fault with a pointer into that line."""
    index, _, member = fault.pointer.removeprefix("/events/").partition("/")
    line = lines[int(index)]
    return line.number, fault._replace(pointer=f"{line.pointer}/{member}" if member else line.pointer)


def _refusal(faults: list[tuple[int, Fault]]) -> BadImport:
    sentences = [
        f"line {number}: {fault.pointer}: {fault.detail}" if fault.pointer else f"line {number}: {fault.detail}"
        for number, fault in faults
    ]
    more = f" (and {len(sentences) - 1} more)" if len(sentences) > 1 else ""
    return BadImport(
        sentences[0] + more,
        tuple(Fault(fault.pointer, f"line {number}: {fault.detail}") for number, fault in faults),
    )


class _NewLedger:
    """The ledger as the lines so far make it: assigns positions and times, as the append lock does elsewhere."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.position = 0
        self.catalog = Catalog()
        self.versions: defaultdict[str, int] = defaultdict(int)

    def append(self, drafts: tuple[Draft, ...], recorded_at: int) -> Iterator[ImportedEntry]:
        definitions = [_definition(draft, recorded_at) for draft in drafts if draft.topic == SettingDefined.TOPIC]
        for draft in drafts:
            self.position += 1
            self.versions[draft.subject] = draft.version
            leaf = leaf_bytes(draft, self.source, self.position, recorded_at)
            entry = Entry(self.position, draft.subject, draft.version, draft.topic, leaf, recorded_at, leaf_hash(leaf))
            yield entry, draft.personal
        if definitions:
            self.catalog = self.catalog.extended(definitions, self.versions[CATALOG_SUBJECT])


def _definition(draft: Draft, recorded_at: int) -> tuple[str, int, Definition]:
    start = draft.body["effective_from"]
    definition = Definition.model_validate(draft.body["definition"])
    return draft.body["setting"], recorded_at if start == AT_RECORDING else start, definition
