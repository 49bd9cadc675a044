"""The parts that the verbs share that record something: options, the way into the ledger, and the receipts.

Bad input leaves nothing behind: the submissions for a new ledger are decided on before the ledger is created. Proved by
tests/cli/test_submit.py, tests/cli/test_define.py and tests/cli/test_bad_input.py.
"""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Callable
from typing import Any, Final, NamedTuple, TypeVar

import click

from api.responses import receipts_json
from ledger import strict_json
from ledger.append.decide import SubmissionContext, decide
from ledger.append.submissions import Submission, canonical_json, parse_submissions, references
from ledger.built_in_catalog import BUILT_IN
from ledger.catalog import Catalog
from ledger.clock import SystemClock
from ledger.diagnosis import clock_ahead_warning
from ledger.drafts import KEY_LENGTH_MAX, Idempotency
from ledger.errors import BadInput, BadSubmission, Fault
from ledger.opening import ledger_exists, open_ledger
from ledger.receipts import Receipt
from ledger.store import Ledger
from ledger.subjects import ACTOR_LENGTH_MAX, CATALOG_SUBJECT, is_actor, is_text
from ledger.times import BEGINNING
from projections.query.outlooks import OutlookReader
from scripts.cli import exits
from scripts.cli.instants import timezone
from scripts.cli.options import Format, actor, clock_ahead_warn, clock_behind_max, database, must_exist, output_format
from scripts.cli.output import Columns, human_bound, human_time, json_text, print_line, show

Command = TypeVar("Command", bound=Callable[..., Any])
MakeBody = Callable[[Ledger | None], dict[str, Any]]
"""The body to record, as `POST /v1/events` takes it; the argument is the ledger, or None if there is none yet."""

_INTEGER: Final = re.compile(r"-?[0-9]{1,18}", re.ASCII)

_FIELDS: Final = (
    *Receipt._fields,
    "holds_until",
    "still_scheduled",
    "still_scheduled_left_out",
    "retracts",
    "warnings",
)
_COLUMNS: Final[Columns] = {
    "position": lambda row: row["position"],
    "subject": lambda row: row["subject"],
    "version": lambda row: row["version"],
    "recorded at": lambda row: human_time(row["recorded_at"]),
    "effective from": lambda row: human_bound(row["effective_from"]),
    "until": lambda row: human_bound(row["effective_until"]),
    "holds until": lambda row: human_bound(row["holds_until"]),
    "event": lambda row: row["event_id"],
}


def recording_options(command: Command) -> Command:
    """The options about the recording, and --timezone, --db and --format. `RecordingOptions` holds their values."""
    for option in (
        output_format,
        database,
        timezone,
        clock_ahead_warn,
        clock_behind_max,
        must_exist,
        click.option(
            "--origin", help="The permanent name of a new ledger, like ledger.example.com/eu. Without it: a unique one."
        ),
        actor,
        click.option("--idempotency-key", metavar="KEY", help="A retry with the same key returns the first receipts."),
    ):
        command = option(command)
    return command


class RecordingOptions(NamedTuple):
    """The values of `recording_options`, by their parameters. Call `check` first: it refuses what is no such value."""

    actor: str
    origin: str | None
    idempotency_key: str | None
    must_exist: bool
    clock_behind_max: float
    clock_ahead_warn: float

    def check(self) -> None:
        """Raises `click.UsageError`."""
        key = self.idempotency_key
        if not is_actor(self.actor):
            raise click.UsageError(f"--actor takes a text of 1 to {ACTOR_LENGTH_MAX} characters")
        if key is not None and not (1 <= len(key) <= KEY_LENGTH_MAX and is_text(key)):
            raise click.UsageError(f"--idempotency-key takes a text of 1 to {KEY_LENGTH_MAX} characters")


def record(db: str, format_: Format, options: RecordingOptions, make_body: MakeBody) -> None:
    """Records a body and prints the receipts. Creates the ledger if there is none, and says so."""
    options.check()
    behind_max = options.clock_behind_max
    exists = options.must_exist or ledger_exists(db)
    ledger = open_ledger(db, write=True, clock_behind_max_s=behind_max) if exists else None
    try:
        body = make_body(ledger)
        submissions = parse_submissions(body)
        batch = "events" in body
        if ledger is None:
            _decide_without_ledger(submissions, batch)
            announce = exits.print_note
            ledger = open_ledger(
                db, create=True, origin=options.origin, announce=announce, clock_behind_max_s=behind_max
            )
        elif warning := clock_ahead_warning(ledger, options.clock_ahead_warn):
            exits.print_note(warning)
        if options.origin not in (None, ledger.origin):
            raise BadInput(f"this ledger has the origin {ledger.origin} for ever; leave --origin out")
        idempotency = _idempotency(options.idempotency_key, options.actor, body)
        receipts = ledger.submit(submissions, actor=options.actor, idempotency=idempotency, batch=batch)
        outlooks = OutlookReader(ledger).read_or_warn(submissions, receipts)
    finally:
        if ledger is not None:
            ledger.close()
    document = receipts_json(receipts, outlooks)
    show(format_, document, document["receipts"], _FIELDS, _COLUMNS)
    if format_ == "table":
        for receipt in document["receipts"]:
            _print_remarks(receipt)


def catalog_of(ledger: Ledger | None) -> Catalog:
    """The ledger's catalog; without a ledger the one that it will begin with."""
    if ledger is not None:
        return ledger.catalog()
    definitions = ((setting, BEGINNING, definition) for setting, definition in BUILT_IN.items())
    return Catalog(definitions, len(BUILT_IN))


def _print_remarks(receipt: dict[str, Any]) -> None:
    """Lines about the changes that still happen later, and about doubts."""
    position = receipt["position"]
    if receipt["holds_until"] is not None and receipt["holds_until"] == receipt["effective_from"]:
        print_line(f"#{position} never decides: another change of this submission replaces it where it begins")
    for change in receipt["still_scheduled"]:
        start, until = human_time(change["effective_from"]), change["effective_until"]
        value = "cleared" if change["value"] is None else json_text(change["value"])
        period = f"from {start}" if until is None else f"from {start} until {human_time(until)}"
        print_line(f"still scheduled beside #{position}: #{change['position']} {value} {period}")
    left_out = receipt["still_scheduled_left_out"]
    if left_out:
        print_line(f"still scheduled beside #{position}: {left_out} more; inforce history shows them")
    for warning in receipt["warnings"]:
        print_line(f"warning about #{position}: {warning['detail']}")


def typed_value(text: str, value_type: str | None, place: str = "/value") -> object:
    """The text as a value of the setting's type. A text that is no such value stays a text: the ledger refuses it."""
    if not is_text(text):
        raise BadSubmission((Fault(place, "the value is not UTF-8"),))
    match value_type:
        case "bool":
            return {"true": True, "false": False}.get(text, text)
        case "integer":
            return int(text) if _INTEGER.fullmatch(text) else text
        case "set_of":
            if text.startswith("["):
                return strict_json.loads(text.encode(), what="the value")
            return [member.strip() for member in text.split(",")] if text else []
    return text


def _idempotency(key: str | None, actor: str, body: dict[str, Any]) -> Idempotency | None:
    if key is None:
        return None
    return Idempotency(actor, key, hashlib.sha256(canonical_json(body)).digest())


def _decide_without_ledger(submissions: tuple[Submission, ...], batch: bool) -> None:
    """Raises what a new ledger would raise, before one is created."""
    catalog = catalog_of(None)
    versions = defaultdict(int, {CATALOG_SUBJECT: catalog.version})
    context = SubmissionContext(catalog, versions, unknown_references=references(submissions))
    decide(submissions, context, now=SystemClock().now(), actor="rehearsal", entropy=bytes, batch=batch)
