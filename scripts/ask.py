"""Questions: state, history, check."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import click
import msgspec

from api.responses import decisions_json, history_json, state_json
from ledger import strict_json
from ledger.codec import parse_leaf
from ledger.errors import BadInput, BadRecord
from ledger.opening import open_ledger
from ledger.subjects import KINDS, is_setting_key
from projections.audit.reading.fields import FIELDS, UnreadableValue, cell_value, raw_record
from projections.audit.summary import AGAINST
from projections.decisions.model import Decision, RequestRecord, decision_json, read_record
from projections.query.history import history as history_of
from projections.query.query import Query
from scripts.cli.files import read_body
from scripts.cli.options import (
    EXAMPLES,
    Assignments,
    Format,
    SubjectRef,
    at,
    at_least,
    database,
    known,
    known_at,
    output_format,
    unique,
)
from scripts.cli.output import Columns, encode, human_instant, human_time, print_line, show
from scripts.cli.show_decision import CSV_FIELDS, print_decision, print_decisions

CHECKS_MAX: Final = 10_000
CHECK_BYTES_MAX: Final = 16 * 1024 * 1024

_PERIOD_FIELDS: Final = ("recorded_at", "effective_from", "effective_until", "actor")
_STATE_FIELDS: Final = ("setting", "value", "source", "event_id", "position", "version", *_PERIOD_FIELDS)
_STATE_COLUMNS: Final[Columns] = {
    "setting": lambda row: row["setting"],
    "value": lambda row: encode(row["value"]).decode(),
    "source": lambda row: row["source"],
    "effective from": lambda row: human_time(row["effective_from"]),
    "until": lambda row: human_time(row["effective_until"]),
    "recorded at": lambda row: human_time(row["recorded_at"]),
    "#": lambda row: row["position"],
    "actor": lambda row: row["actor"],
}


def _setting_key(_context: click.Context, _parameter: click.Parameter, value: Any) -> Any:
    for key in [value] if isinstance(value, str) else value or ():
        if not is_setting_key(key):
            raise click.BadParameter("a setting's key is 1-128 of A-Z a-z 0-9 . _ -")
    return value


@click.command(context_settings=EXAMPLES)
@click.argument("subject", type=SubjectRef(*KINDS))
@at
@known_at("now", "What the answer may rest on.")
@click.option("--setting", multiple=True, callback=_setting_key, help="Only this setting; may be given again.")
@at_least
@database
@output_format
def state(subject: str, db: str, format_: Format, setting: tuple[str, ...], **asked: Any) -> None:
    """Show a subject's settings at any moment, as known at any moment.

    Every setting of the subject's kind, with where its value comes from: the subject's own (explicit) or the
    catalog's (default). The # is the position of the deciding event.

    \b
      inforce state org:acme
      inforce state org:acme --at 2026-03-01T12:00:00Z --known-at at
      inforce state org:acme --setting training.opt_in --format json
    """
    with open_ledger(db) as ledger:
        ledger.at_least(asked["at_least"])
        query = Query(ledger)
        instant = query.moment().now if asked["at"] == "now" else asked["at"]
        answer = query.state(
            subject, at=instant, known_at=known(asked["known_at"]), settings=sorted(set(setting)) or None
        )
    missing = set(setting) - set(answer.settings)
    if missing:
        raise BadInput(f"no such setting of {subject} then: {', '.join(sorted(missing))}")
    document = state_json(answer)
    rows = [{"setting": key} | said for key, said in document["settings"].items()]
    known_at_text = human_instant(answer.known_at)
    title = f"{subject} at {human_instant(answer.at)}, known at {known_at_text}, position {answer.position}"
    show(format_, document, rows, _STATE_FIELDS, _STATE_COLUMNS, title)


@click.command(context_settings=EXAMPLES)
@click.argument("subject", type=SubjectRef(*KINDS, "catalog"))
@click.option("--setting", callback=_setting_key, help="Only what concerns this setting.")
@click.option("--limit", type=click.IntRange(1, 1000), default=100, show_default=True, help="At most so many.")
@click.option("--after", type=click.IntRange(min=1), metavar="VERSION", help="Go on behind this version.")
@at_least
@database
@output_format
def history(subject: str, db: str, format_: Format, setting: str | None, limit: int, **asked: Any) -> None:
    """Show who changed what about a subject, newest first.

    Everything that was ever recorded, retracted changes marked.

    \b
      inforce history org:acme
      inforce history org:acme --setting training.opt_in --format ndjson
    """
    with open_ledger(db) as ledger:
        ledger.at_least(asked["at_least"])
        answer = history_of(ledger, subject, setting=setting, after=asked["after"], limit=limit)
    document = history_json(answer)
    fields = (
        "event.data.position",
        "event.data.version",
        "event.time",
        "event.type",
        "event.data.setting",
        "event.data.value",
        "event.data.effective_from",
        "event.data.effective_until",
        "event.data.retracts",
        "event.data.actor",
        "reason",
        "retracted_by",
        "event.id",
    )
    columns: Columns = {
        "version": lambda row: row.entry.version,
        "#": lambda row: row.entry.position,
        "recorded at": lambda row: human_time(row.entry.recorded_at),
        "what": _what,
        "effective from": lambda row: _bound(row, "effective_from"),
        "until": lambda row: _bound(row, "effective_until"),
        "actor": lambda row: parse_leaf(row.entry.leaf).data.actor,
        "reason": lambda row: row.reason,
        "": lambda row: "retracted" if row.retracted_by else "",
    }
    title = f"{subject}, position {answer.position}"
    show(format_, document, answer.rows if format_ == "table" else document["events"], fields, columns, title)
    if format_ == "table" and answer.next_after is not None:
        print_line(f"more: --after {answer.next_after}")


def _what(row: Any) -> str:
    data = parse_leaf(row.entry.leaf).data
    match row.entry.topic:
        case "setting.changed":
            return f"{data.setting} = {encode(data.value).decode()}"
        case "setting.cleared":
            return f"{data.setting} cleared"
        case "change.retracted":
            return f"{data.setting}: {data.retracts} retracted"
    return f"{data.setting} defined"


def _bound(row: Any, name: str) -> str:
    text = getattr(parse_leaf(row.entry.leaf).data, name)
    return "" if text is None or text is msgspec.UNSET else human_time(text)


@click.command(context_settings=EXAMPLES)
@click.argument("file", required=False, metavar="[FILE | -]")
@click.option("--key", "key_id", metavar="ID", help="The key that sent it; its owner governs.")
@click.option("--account", "account_id", metavar="ID", help="The account.")
@click.option("--org", "org_id", metavar="ID", help="The organization.")
@click.option("--project", "project_id", metavar="ID", help="The project.")
@click.option("--model", "model_id", metavar="ID", help="The model.")
@click.option("--handling", type=Assignments(), multiple=True, help="What was done, e.g. stored=true; again for more.")
@click.option("--enforced-position", metavar="N", help="The ledger position that the gateway enforced.")
@at
@known_at("at", "What the decision may rest on.")
@at_least
@database
@output_format
def check(file: str | None, db: str, format_: Format, **asked: Any) -> int:
    """Decide on a request: what was in force when it was made?

    Ids are bare: acme, not org:acme. With --handling the verdict is on what was done: compliant, violation or
    indeterminate; without, on what may be done: allowed, denied or indeterminate. FILE (or -) holds request
    records instead: one, {"requests": [...]}, or one a line, at most 10000.

    Exits 1 when any verdict is violation or denied.

    \b
      inforce check --org acme --model gpt-4o
      inforce check --key k1 --model gpt-4o --at 2026-03-01T12:00:00Z --handling trained=true
      inforce check - --format ndjson < requests.jsonl
    """
    known_at_asked, position = known(asked.pop("known_at")), asked.pop("at_least")
    instant = asked.pop("at")
    if file is not None and (any(asked.values()) or instant != "now"):
        raise click.UsageError("with FILE, everything about a request stands in its record")
    with open_ledger(db) as ledger:
        ledger.at_least(position)
        query = Query(ledger)
        # Not before what is recorded: another machine's clock may be ahead of this one.
        now = query.moment().now
        if file is None:
            records = [_asked_record(asked, now if instant == "now" else instant)]
        else:
            records = list(_read_records(file, now))
        decisions = query.check_all(records, known_at_asked)
    _show_decisions(format_, decisions, one=file is None)
    return int(any(decision.outcome.verdict in AGAINST for decision in decisions))


def _asked_record(asked: dict[str, Any], at_us: int) -> RequestRecord:
    handling = unique(asked.pop("handling"), "--handling")
    values = {name: value for name, value in asked.items() if value is not None}
    for name, value in values.items():
        kind = name.removesuffix("_id")
        if value.startswith(f"{kind}:"):
            # Taken as it stands it would be another, which has nothing but defaults.
            raise click.UsageError(f"--{kind} takes the bare id, without {kind}: before it")
    values |= {f"handling.{name}": value for name, value in handling.items()}
    read: dict[str, Any] = {}
    for field, text in values.items():
        if field not in FIELDS:
            members = ", ".join(name.partition(".")[2] for name in FIELDS if "." in name)
            raise BadRecord(f"handling has no such member; it has {members}")
        try:
            read[field] = cell_value(field, text, None)
        except UnreadableValue as error:
            raise BadRecord(f"{field}: {error}") from None
    return read_record(raw_record(read), at_us)


def _read_records(name: str, now: int) -> Iterator[RequestRecord]:
    body = read_body(name, CHECK_BYTES_MAX, "a log is read by inforce audit")
    lines = [(number, line) for number, line in enumerate(body.split(b"\n"), 1) if line.strip()]
    if len(lines) > 1 and lines[0][1].rstrip().endswith(b"}"):
        values = [(f"/{number}", strict_json.loads(line, what=f"line {number}")) for number, line in lines]
    else:
        value = strict_json.loads(body, len(body), what="the file")
        if not isinstance(value, dict):
            raise BadRecord('a file of request records is one object, {"requests": [...]}, or an object a line')
        many = value.get("requests")
        if many is not None and (not isinstance(many, list) or len(value) > 1):
            raise BadRecord('a batch is {"requests": [...]} and nothing else')
        values = [("", value)] if many is None else [(f"/requests/{i}", one) for i, one in enumerate(many)]
    if not 1 <= len(values) <= CHECKS_MAX:
        raise BadRecord(f"1 to {CHECKS_MAX} request records are decided at once; for a log there is inforce audit")
    for pointer, value in values:
        yield read_record(value, now, pointer)


def _show_decisions(format_: Format, decisions: list[Decision], *, one: bool) -> None:
    if format_ == "table":
        if one:
            print_decision(decisions[0])
        else:
            print_decisions(decisions)
        return
    rows = [decision_json(decision) for decision in decisions]
    show(format_, rows[0] if one else decisions_json(decisions), rows, CSV_FIELDS, {})
