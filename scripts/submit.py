"""`submit`: records changes, clears, retractions and definitions.

Bad input leaves nothing behind: the submissions for a new ledger are decided on before the ledger is created. Proved by
tests/cli/test_submit.py and tests/cli/test_bad_input.py.
"""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from typing import Any, Final

import click

from api.responses import receipts_json
from ledger import strict_json
from ledger.append.decide import SubmissionContext, decide
from ledger.append.submissions import BATCH_MAX, Submission, canonical_json, parse_submissions, references
from ledger.catalog import BUILT_IN, Catalog
from ledger.clock import SystemClock
from ledger.diagnosis import clock_ahead_warning
from ledger.drafts import KEY_LENGTH_MAX, Idempotency
from ledger.errors import BadInput, BadJson, BadSubmission, Fault
from ledger.opening import ledger_exists, open_ledger
from ledger.receipts import Receipt
from ledger.subjects import ACTOR_LENGTH_MAX, CATALOG_SUBJECT, is_actor, is_text
from ledger.times import BEGINNING, format_time
from projections.query.outlooks import OutlookReader
from scripts.cli import exits
from scripts.cli.files import numbered_lines, read_body
from scripts.cli.options import (
    Format,
    actor,
    clock_ahead_warn,
    clock_behind_max,
    database,
    instant,
    must_exist,
    output_format,
)
from scripts.cli.output import Columns, human_bound, human_time, json_text, print_line, show

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


@click.command
@click.argument("words", nargs=-1, metavar="[SUBJECT SETTING [VALUE] | FILE | -]")
@click.option("--clear", is_flag=True, help="Remove the subject's own value, so that the default holds.")
@click.option("--retract", metavar="EVENT_ID", help="Retract an earlier change that was recorded by mistake.")
@click.option("--from", "effective_from", type=instant(), help="When the change takes effect. Without it: at once.")
@click.option(
    "--until", "effective_until", type=instant(), help="When the change ends. Without it: at the next change."
)
@click.option(
    "--cancel-scheduled",
    "cancels_scheduled",
    is_flag=True,
    help="Also retract every change of this setting that begins later, so that none of them happens.",
)
@click.option("--reason", help="Why. Required for a change of the past and for a retraction.")
@click.option("--expected-version", type=click.IntRange(min=0), help="Fail unless the subject is at this version.")
@click.option("--idempotency-key", metavar="KEY", help="A retry with the same key returns the first receipts.")
@actor
@click.option(
    "--origin", help="The permanent name of a new ledger, like ledger.example.com/eu. Without it: a unique one."
)
@must_exist
@clock_behind_max
@clock_ahead_warn
@database
@output_format
def submit(
    db: str,
    format_: Format,
    *,
    actor: str,
    origin: str | None,
    idempotency_key: str | None,
    must_exist: bool,
    clock_behind_max: float,
    clock_ahead_warn: float,
    **options: Any,
) -> None:
    """Record a change, a clear, a retraction or a definition.

    Creates the ledger if there is none, and says so. One call is recorded whole or not at all.

    VALUE is true or false, a number, a text, or a set: texts with commas between them, or a JSON array. FILE (or - for
    standard input) holds one submission, {"events": [...]}, or one submission per line. A definition of a setting
    needs a FILE.

    \b
      inforce submit org:acme training.opt_in true --reason "ticket 4711"
      inforce submit org:acme storage.inputs_outputs false --from 2027-01-01T00:00:00Z
      inforce submit org:acme training.opt_in --clear
      inforce submit --retract 00000000-002a-8c1d-9e6f-3b7a5d20f114 --reason "entered for the wrong org"
      inforce submit changes.jsonl --idempotency-key 2026-11-23-a
    """
    if not is_actor(actor):
        raise click.UsageError(f"--actor takes a text of 1 to {ACTOR_LENGTH_MAX} characters")
    if idempotency_key is not None and not (1 <= len(idempotency_key) <= KEY_LENGTH_MAX and is_text(idempotency_key)):
        raise click.UsageError(f"--idempotency-key takes a text of 1 to {KEY_LENGTH_MAX} characters")
    words = options.pop("words")
    # 0 is a version and an instant.
    change = {name: value for name, value in options.items() if value is not None and value is not False}
    body = _read_submissions(words[0]) if _names_file(words, change) else None
    exists = must_exist or ledger_exists(db)
    ledger = open_ledger(db, write=True, clock_behind_max_s=clock_behind_max) if exists else None
    try:
        if body is None:
            body = _body(words, change, ledger.catalog() if ledger else _built_in_catalog())
        submissions = parse_submissions(body)
        batch = "events" in body
        if ledger is None:
            _decide_without_ledger(submissions, batch)
            ledger = open_ledger(
                db, create=True, origin=origin, announce=exits.print_message, clock_behind_max_s=clock_behind_max
            )
        elif warning := clock_ahead_warning(ledger, clock_ahead_warn):
            exits.print_message(warning)
        if origin not in (None, ledger.origin):
            raise BadInput(f"this ledger has the origin {ledger.origin} for ever; leave --origin out")
        idempotency = _idempotency(idempotency_key, actor, body)
        receipts = ledger.submit(submissions, actor=actor, idempotency=idempotency, batch=batch)
        outlooks = OutlookReader(ledger).read_or_warn(submissions, receipts)
    finally:
        if ledger is not None:
            ledger.close()
    document = receipts_json(receipts, outlooks)
    show(format_, document, document["receipts"], _FIELDS, _COLUMNS)
    if format_ == "table":
        for receipt in document["receipts"]:
            _print_remarks(receipt)


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


def _names_file(words: tuple[str, ...], change: dict[str, Any]) -> bool:
    """Whether the arguments are one file. Raises `click.UsageError` if they are neither a file nor a change."""
    if len(words) == 1 and not change:
        return True
    expected = 0 if "retract" in change else 2 if "clear" in change else 3
    if len(words) != expected or change.keys() >= {"clear", "retract"}:
        raise click.UsageError(
            "write SUBJECT SETTING VALUE, or SUBJECT SETTING --clear, or --retract EVENT_ID, or one FILE (- for "
            "standard input) without options about a change"
        )
    if "retract" in change and not change.keys().isdisjoint(("effective_from", "effective_until")):
        raise click.UsageError("--retract removes the whole change; leave --from and --until out")
    if "retract" in change and "cancels_scheduled" in change:
        raise click.UsageError(
            "--cancel-scheduled goes with a change or a clear; name what to --retract by its event id"
        )
    return False


def _body(words: tuple[str, ...], change: dict[str, Any], catalog: Catalog) -> dict[str, Any]:
    body: dict[str, Any]
    if "retract" in change:
        body = {"type": "change.retracted", "event_id": change["retract"]}
    else:
        subject, setting, *value = words
        body = {"type": "setting.cleared", "subject": subject, "setting": setting}
        if value:
            body |= {"type": "setting.changed", "value": _value(value[0], catalog.value_type(setting))}
    body |= {name: format_time(change[name]) for name in ("effective_from", "effective_until") if name in change}
    return body | {name: change[name] for name in ("cancels_scheduled", "reason", "expected_version") if name in change}


def _value(text: str, value_type: str | None) -> object:
    """The text as a value of the setting's type. A text that is no such value stays a text: the ledger refuses it."""
    if not is_text(text):
        raise BadSubmission((Fault("/value", "the value is not UTF-8"),))
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


def _read_submissions(name: str) -> dict[str, Any]:
    """The body in a file that holds a body, or one submission per line. Raises `BadInput`."""
    body = read_body(name, strict_json.MAX_BYTES, "; send it in parts; for a whole history use inforce import")
    lines = numbered_lines(body)
    if len(lines) < 2 or not _is_object(lines[0][1]):
        value: Any = strict_json.loads(body, what="the submission")
        if not isinstance(value, dict):
            raise BadSubmission((Fault("", 'a submission is one object, {"events": [...]}, or one object per line'),))
        return value
    if len(lines) > BATCH_MAX:
        raise BadInput(
            f"the file has {len(lines)} submissions, and a batch takes {BATCH_MAX}; send it in parts, or see inforce "
            "import --help"
        )
    return {"events": [strict_json.loads(line, what=f"line {number}") for number, line in lines]}


def _is_object(line: bytes) -> bool:
    try:
        return isinstance(strict_json.loads(line), dict)
    except BadJson:
        return False


def _idempotency(key: str | None, actor: str, body: dict[str, Any]) -> Idempotency | None:
    if key is None:
        return None
    return Idempotency(actor, key, hashlib.sha256(canonical_json(body)).digest())


def _built_in_catalog() -> Catalog:
    definitions = ((setting, BEGINNING, definition) for setting, definition in BUILT_IN.items())
    return Catalog(definitions, len(BUILT_IN))


def _decide_without_ledger(submissions: tuple[Submission, ...], batch: bool) -> None:
    """Raises what a new ledger would raise, before one is created."""
    catalog = _built_in_catalog()
    versions = defaultdict(int, {CATALOG_SUBJECT: catalog.version})
    context = SubmissionContext(catalog, versions, unknown_references=references(submissions))
    decide(submissions, context, now=SystemClock().now(), actor="rehearsal", entropy=bytes, batch=batch)
