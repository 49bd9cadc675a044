"""`audit --what-if`: which requests of the log would have been decided otherwise, had these changes been made."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import TYPE_CHECKING, Any, BinaryIO, Final, NamedTuple

from ledger.append.submissions import RetractChange
from ledger.errors import BadInput, BadRecord
from ledger.opening import open_ledger
from ledger.times import BEGINNING, format_time
from projections.temporal.coordinates import IN_FORCE, KnownAt
from scripts.audit.request import paced
from scripts.cli import exits
from scripts.cli.files import is_stream, progress, reading, writing
from scripts.cli.options import Format
from scripts.cli.output import encode, human_instant

if TYPE_CHECKING:
    import pyarrow as pa

    from projections.audit.reading.batches import LogBatch
    from projections.audit.reading.logs import LogReader
    from projections.audit.reading.strict import LogRow
    from projections.audit.verdict_files import VerdictWriter
    from projections.audit.what_if.proposals import ProposedChange
    from projections.audit.what_if.radius import Radius
    from scripts.audit.outputs import RowFiles

LATE_NAMED: Final = 10
PROPOSALS_BYTES_MAX: Final = 1 << 26


class Asked(NamedTuple):
    """`logs` makes a reader of the logs anew, each time it is called; `once`: one of them can be read only once.
    `rejects` takes the lines that are no requests, `out` names the file of what is otherwise, `shown` is how many of
    those are shown here. `reading`: how the logs are read, for the output's metadata."""

    changes: str
    logs: Callable[[], LogReader]
    once: bool
    known_at: KnownAt
    rejects: RowFiles
    out: str | None
    shown: int
    reading: dict[str, Any]


def what_if(db: str, asked: Asked, format_: Format) -> int:
    """Exits 0 whatever would be otherwise: that is what was asked, and nothing is wrong with it. 2 when not one line
    could be read."""
    from projections.audit.index.open import open_index
    from projections.audit.index.pin import pin_of
    from projections.audit.run import Ahead
    from projections.audit.what_if.proposals import read_proposals
    from projections.audit.what_if.run import blast_radius
    from scripts.audit.show_what_if import show_radius

    if asked.once and asked.changes == "-":
        raise BadInput("standard input can be read once; name a file with the proposals, or one with the log")
    body = _body(asked.changes)
    try:
        proposals = read_proposals(io.BytesIO(body))
    except BadInput as error:
        raise BadInput(f"{asked.changes}: {error.detail}", error.faults) from None
    first_request, digest = _first_request(asked, proposals)
    logs = asked.logs()
    with open_ledger(db) as ledger, asked.rejects, _Changes(asked) as changes, progress("what if", logs.size) as tell:
        index = open_index(ledger, asked.known_at, pin=pin_of(ledger))
        noting = _LastRequest(logs)
        ahead = Ahead(noting, "reading the log")
        told = paced(tell, logs)
        try:
            radius = blast_radius(
                ledger, index, proposals, ahead, first_request=first_request, takers=(changes,), progress=told
            )
        finally:
            ahead.close()
        if digest not in (None, logs.digest):
            raise BadRecord("the log was changed after its first request was looked for; ask once it is whole")
        rests_on = _rests_on(radius, logs, body, asked)
        changes.finish(rests_on)
    for warning in logs.warnings:
        exits.say(warning)
    _say_what_is_too_late(proposals, noting.at, asked.known_at)
    if radius.rejects:
        first = asked.rejects.first_reject
        assert first is not None
        exits.say(
            f"{radius.rejects} of {radius.requests + radius.rejects} lines rejected, the first: {first.source} line "
            f"{first.line}: {first.fault}; all are in {asked.rejects.rejects}"
        )
        if not radius.requests:
            return exits.BAD_INPUT
    if "-" not in (asked.out, asked.rejects.rejects):
        show_radius(format_, radius, changes.shown, rests_on, asked.rejects.rejects, kept=asked.out is not None)
    return exits.OK


def _body(name: str) -> bytes:
    with reading(name) as file:
        body = file.read(PROPOSALS_BYTES_MAX + 1)
    if len(body) > PROPOSALS_BYTES_MAX:
        raise BadInput(f"{name}: more than {PROPOSALS_BYTES_MAX} bytes of proposals; make them in a copy of the ledger")
    return body


def _first_request(asked: Asked, proposals: Sequence[ProposedChange]) -> tuple[int | None, str | None]:
    """Reads the logs once more where a proposal is to be made at their first request; and the digest of what was read
    then."""
    from projections.audit.what_if.proposals import line_error, need_first_request
    from projections.audit.what_if.run import first_request_of

    line = need_first_request(proposals)
    if line is None:
        return None, None
    if asked.once:
        raise line_error(
            line,
            "without recorded_at and effective_from it is made at the log's first request, and standard input cannot "
            "be read twice to find that; add a recorded_at",
        )
    logs = asked.logs()
    with progress("looking for the first request", logs.size) as tell:
        return first_request_of(_telling(logs, tell)), logs.digest


def _telling(logs: LogReader, tell: Callable[[int, str], None]) -> Iterable[Any]:
    for part in logs:
        yield part
        tell(logs.bytes_read, "")


class _LastRequest:
    """Parts of a log as they are, noting when the last of their requests was (µs; None: there is none)."""

    def __init__(self, parts: Iterable[LogBatch]) -> None:
        self.at: int | None = None
        self._parts = parts

    def __iter__(self) -> Iterator[LogBatch]:
        import pyarrow as pa
        import pyarrow.compute as pc

        for part in self._parts:
            last = pc.max(part.requests.column("at").cast(pa.int64())).as_py()
            if last is not None:
                self.at = last if self.at is None else max(self.at, last)
            yield part


def _say_what_is_too_late(proposals: Sequence[ProposedChange], last: int | None, known_at: KnownAt) -> None:
    """A change that comes after all requests changes nothing, and must not pass for harmless."""
    late = [str(one.line) for one in proposals if last is not None and _holds_from(one, known_at) > last]
    if late:
        exits.say(
            f"of the proposals line{'s' * (len(late) > 1)} {', '.join(late[:LATE_NAMED])}"
            + (f" and {len(late) - LATE_NAMED} more" if len(late) > LATE_NAMED else "")
            + f" could change nothing: the log's last request was made before that, at {human_instant(last or 0)}; "
            "name an earlier recorded_at and effective_from"
        )


def _holds_from(proposal: ProposedChange, known_at: KnownAt) -> int:
    """The first instant (µs) of which it could say anything different. What is in force is known first."""
    moment = BEGINNING if proposal.moment is None else proposal.moment
    if isinstance(proposal.submission, RetractChange):
        return moment if known_at == IN_FORCE else BEGINNING
    start = moment if proposal.submission.effective_from is None else proposal.submission.effective_from
    return max(start, moment) if known_at == IN_FORCE else start


class _Changes:
    """What is otherwise: to a file that appears whole or not at all, the first rows to memory. Use within a block."""

    def __init__(self, asked: Asked) -> None:
        self.shown: list[dict[str, Any]] = []
        self._asked = asked
        self._stack = ExitStack()
        self._file: BinaryIO | None = None
        self._writer: VerdictWriter | None = None

    def __enter__(self) -> _Changes:
        from projections.audit.verdict_files import VerdictWriter, format_of, output_schema
        from projections.audit.what_if.comparison import DIFFERENCES

        out = self._asked.out
        if out is not None:
            with ExitStack() as opening:
                self._file = opening.enter_context(writing(out))
                self._writer = VerdictWriter(self._file, format_of(out), schema=output_schema(DIFFERENCES))
                self._stack = opening.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> bool | None:
        if kind is not None and self._writer is not None:
            self._writer.abandon()
        return self._stack.__exit__(kind, error, at)

    def take(self, source: str, lines: Any, changes: pa.RecordBatch) -> None:
        wanted = self._asked.shown - len(self.shown)
        if wanted > 0:
            self.shown += _rows(source, lines[:wanted], changes.slice(0, wanted))
        if self._writer is not None:
            self._writer.take(source, lines, changes)

    def reject(self, row: LogRow) -> None:
        self._asked.rejects.reject(row)

    def finish(self, rests_on: dict[str, Any]) -> None:
        from projections.audit.verdict_files import format_of
        from scripts.audit.outputs import PIN_SUFFIX, settle

        out = self._asked.out
        self._asked.rejects.finish(rests_on)
        if out is None or self._writer is None or self._file is None:
            return
        self._writer.finish(rests_on)
        settle(self._file)
        if not is_stream(out) and format_of(out) != "parquet":
            beside = self._stack.enter_context(writing(out + PIN_SUFFIX))
            beside.write(encode(rests_on) + b"\n")
            settle(beside)


def _rows(source: str, lines: Any, changes: pa.RecordBatch) -> list[dict[str, Any]]:
    import pyarrow as pa

    instants = changes.column("at").cast(pa.int64()).to_pylist()
    found = changes.drop_columns(["at"]).to_pylist()
    places = zip(lines.tolist(), instants, found, strict=True)
    return [{"source": source, "line": line, "at": format_time(at)} | row for line, at, row in places]


def _rests_on(radius: Radius, logs: LogReader, body: bytes, asked: Asked) -> dict[str, Any]:
    from projections.audit.summary import LogDigest, Summary, pin_json

    digest = LogDigest(logs.digest, [(source.name, source.bytes) for source in logs.sources])
    proposed = {"sha256": hashlib.sha256(body).hexdigest(), "proposals": radius.proposals}
    pinned = pin_json(Summary(radius.pin, radius.known_at, digest))
    return pinned | {"what_if": proposed, "reading": asked.reading}
