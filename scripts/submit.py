"""`submit`: records changes, clears, retractions and definitions."""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from typing import Any, Final, NamedTuple

import click

from api.responses import receipt_json, receipts_json
from ledger import strict_json
from ledger.append.decide import Streams, decide
from ledger.append.submissions import BATCH_MAX, Submission, canonical_json, parse_submissions
from ledger.catalog import BUILT_IN, Catalog
from ledger.clock import SystemClock
from ledger.drafts import Idempotency
from ledger.errors import BadInput, BadJson, BadSubmission, Fault
from ledger.opening import open_ledger, open_recorder, sqlite_path
from ledger.receipts import Receipt
from ledger.subjects import ACTOR_LENGTH_MAX, CATALOG_SUBJECT, is_actor, is_text
from ledger.times import BEGINNING, format_time
from scripts.cli.files import read_body
from scripts.cli.options import EXAMPLES, Format, Instant, database, output_format
from scripts.cli.output import Columns, human_time, show

KEY_LENGTH_MAX: Final = 255
_INTEGER: Final = re.compile(r"-?[0-9]{1,18}", re.ASCII)

_RECEIPT_FIELDS: Final = tuple(Receipt._fields)
_RECEIPT_COLUMNS: Final[Columns] = {
    "position": lambda row: row["position"],
    "subject": lambda row: row["subject"],
    "version": lambda row: row["version"],
    "recorded at": lambda row: human_time(row["recorded_at"]),
    "effective from": lambda row: human_time(row["effective_from"]),
    "until": lambda row: human_time(row["effective_until"]),
    "event": lambda row: row["event_id"],
}


class Asked(NamedTuple):
    """What the options of `submit` say about one change."""

    words: tuple[str, ...]
    clear: bool
    retract: str | None
    effective_from: int | None
    effective_until: int | None
    reason: str | None
    expected_version: int | None

    @property
    def any_option(self) -> bool:
        return self.clear or any(value is not None for value in self[2:])


@click.command(context_settings=EXAMPLES)
@click.argument("words", nargs=-1, metavar="[SUBJECT SETTING [VALUE] | FILE | -]")
@click.option("--clear", is_flag=True, help="Take the subject's own value away, so that the default shows through.")
@click.option("--retract", metavar="EVENT_ID", help="Take an earlier change back, as though it had not been said.")
@click.option("--from", "effective_from", type=Instant(), help="When the change begins to hold. Left out: at once.")
@click.option(
    "--until", "effective_until", type=Instant(), help="When it ceases to hold. Left out: with the next change."
)
@click.option("--reason", help="Why. Required for what concerns the past.")
@click.option("--expected-version", type=click.IntRange(min=0), help="Refuse unless the subject is at this version.")
@click.option("--idempotency-key", metavar="KEY", help="Send the same again under the same key: same receipts.")
@click.option(
    "--actor", envvar="INFORCE_ACTOR", default="cli", show_default=True, show_envvar=True, help="Who says so."
)
@click.option("--origin", help="Names a new ledger for ever, like ledger.example.com/eu. Left out: a unique name.")
@database
@output_format
def submit(
    db: str, format_: Format, actor: str, origin: str | None, idempotency_key: str | None, **options: Any
) -> None:
    """Record a change, a clear, a retraction or a definition.

    Begins the ledger where there is none. All of one call is recorded as one, or nothing of it.
    VALUE is true or false, a number, a text, or for a set: eu-west,eu-north or a JSON array.
    FILE (or -) holds one submission, {"events": [...]}, or a submission a line; definitions come this way only.

    \b
      inforce submit org:acme training.opt_in true --reason "ticket 4711"
      inforce submit org:acme storage.inputs_outputs false --from 2027-01-01T00:00:00Z
      inforce submit org:acme training.opt_in --clear
      inforce submit --retract 00000000-002a-8c1d-9e6f-3b7a5d20f114 --reason "entered for the wrong org"
      inforce submit changes.jsonl --idempotency-key 2026-11-23-a
    """
    if not is_actor(actor):
        raise click.UsageError(f"an actor is a text of 1 to {ACTOR_LENGTH_MAX} characters")
    if idempotency_key is not None and not (1 <= len(idempotency_key) <= KEY_LENGTH_MAX and is_text(idempotency_key)):
        raise click.UsageError(f"an idempotency key is a text of 1 to {KEY_LENGTH_MAX} characters")
    asked = Asked(**options)
    body = _read_submissions(asked.words[0]) if _is_file(asked) else None
    begun = _there_is_a_ledger(db)
    ledger = open_ledger(db) if begun else None
    try:
        if body is None:
            body = _body(asked, ledger.catalog() if ledger else _built_in())
        submissions = parse_submissions(body)
        batch = "events" in body
        if ledger is None:
            _rehearse(submissions, batch)
            ledger = open_ledger(db, create=True, origin=origin)
        if origin not in (None, ledger.origin):
            raise BadInput("this ledger was begun under another origin, which it keeps; leave --origin out")
        idempotency = _idempotency(idempotency_key, actor, body)
        receipts = ledger.submit(submissions, actor=actor, idempotency=idempotency, batch=batch)
    finally:
        if ledger is not None:
            ledger.close()
    rows = [receipt_json(receipt) for receipt in receipts]
    show(format_, receipts_json(receipts), rows, _RECEIPT_FIELDS, _RECEIPT_COLUMNS)


def _is_file(asked: Asked) -> bool:
    count = len(asked.words)
    if count == 1 and not asked.any_option:
        return True
    wanted = (count == 0) if asked.retract is not None else (count == 2) if asked.clear else (count == 3)
    if not wanted or (asked.clear and asked.retract is not None):
        raise click.UsageError(
            "say SUBJECT SETTING VALUE, or SUBJECT SETTING --clear, or --retract EVENT_ID, or name one FILE (- for "
            "standard input) and no option about the change"
        )
    if asked.retract is not None and (asked.effective_from, asked.effective_until) != (None, None):
        raise click.UsageError("a retraction takes a change back entirely: it has no --from and no --until")
    return False


def _body(asked: Asked, catalog: Catalog) -> dict[str, Any]:
    body: dict[str, Any]
    if asked.retract is not None:
        body = {"type": "change.retracted", "event_id": asked.retract}
    else:
        subject, setting, *value = asked.words
        body = {"type": "setting.cleared", "subject": subject, "setting": setting}
        if value:
            body |= {"type": "setting.changed", "value": _value(value[0], catalog.value_type(setting))}
    for name in ("effective_from", "effective_until"):
        instant = getattr(asked, name)
        if instant is not None:
            body[name] = format_time(instant)
    if asked.reason is not None:
        body["reason"] = asked.reason
    if asked.expected_version is not None:
        body["expected_version"] = asked.expected_version
    return body


def _value(text: str, value_type: str | None) -> object:
    """The value that a word stands for, given the setting's type; a word that does not fit is left to be refused."""
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
            return text.split(",") if text else []
    return text


def _read_submissions(name: str) -> dict[str, Any]:
    """One body from a file that holds one, or a submission a line. Raises `BadInput`."""
    body = read_body(name, strict_json.MAX_BYTES, "a whole past is read by inforce import")
    lines = [(number, line) for number, line in enumerate(body.split(b"\n"), 1) if line.strip()]
    if len(lines) < 2 or not _is_object(lines[0][1]):
        value: Any = strict_json.loads(body, what="the submission")
        if not isinstance(value, dict):
            raise BadSubmission((Fault("", 'a submission is one object, {"events": [...]}, or an object a line'),))
        return value
    if len(lines) > BATCH_MAX:
        raise BadInput(f"more than {BATCH_MAX} submissions; send them in parts, or see inforce import --help")
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


def _there_is_a_ledger(url: str) -> bool:
    if url.startswith("sqlite:") and not sqlite_path(url)[0].exists():
        return False
    recorder = open_recorder(url)
    try:
        return bool(recorder.meta()) and recorder.head().position > 0
    finally:
        recorder.close()


def _built_in() -> Catalog:
    definitions = ((setting, BEGINNING, definition) for setting, definition in BUILT_IN.items())
    return Catalog(definitions, len(BUILT_IN))


def _rehearse(submissions: tuple[Submission, ...], batch: bool) -> None:
    """Refuses what a new ledger would refuse, before one is made: bad input leaves nothing behind."""
    catalog = _built_in()
    versions = defaultdict(int, {CATALOG_SUBJECT: catalog.version})
    streams = Streams(catalog, versions)
    decide(submissions, streams, now=SystemClock().now(), actor="rehearsal", entropy=bytes, batch=batch)
