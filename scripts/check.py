"""`check`: decides on one request, or on a file of requests."""

from __future__ import annotations

import gzip
import io
import zlib
from codecs import BOM_UTF8
from importlib.util import find_spec
from typing import Any, Final

import click

from api.responses import decisions_json
from ledger import strict_json
from ledger.errors import BadInput, BadRecord
from ledger.opening import open_ledger
from projections.audit.reading.fields import FIELDS, NO_MAPPING, cell_value, raw_record
from projections.audit.reading.log_times import UnreadableValue
from projections.audit.summary import AGAINST
from projections.decisions.model import NOTHING_OBSERVED, Decision, RequestRecord, decision_json, read_record
from projections.query.query import KnownAt, Query
from scripts.cli import exits
from scripts.cli.files import numbered_lines, read_body
from scripts.cli.instants import timezone
from scripts.cli.options import FILE, Format, assignments, at, at_least, database, known_at, output_format
from scripts.cli.output import show, show_clock_notices
from scripts.cli.questions import say_before_first_record
from scripts.cli.show_decision import CSV_FIELDS, notices_of, print_decision, print_decisions

CHECKS_MAX: Final = 10_000
CHECK_BYTES_MAX: Final = 16 * 1024 * 1024


@click.command
@click.argument("file", required=False, type=FILE, metavar="[FILE | -]")
@click.option("--key", "key_id", metavar="ID", help="The API key that sent the request. Its owner governs.")
@click.option("--account", "account_id", metavar="ID", help="The account.")
@click.option("--org", "org_id", metavar="ID", help="The organization.")
@click.option("--project", "project_id", metavar="ID", help="The project.")
@click.option("--model", "model_id", metavar="ID", help="The model.")
@assignments("--handling", "handling", "NAME=VALUE", "What was done with the data, such as stored=true.")
@click.option("--enforced-position", metavar="N", help="The ledger position that the gateway enforced.")
@click.option(
    "--happened",
    is_flag=True,
    help="The request happened, also if nothing says how the data was handled: if it ought to have been denied, the "
    "verdict is violation.",
)
@at
@known_at("at")
@timezone
@at_least
@database
@output_format
def check(
    file: str | None,
    db: str,
    format_: Format,
    at: int | str,
    known_at: KnownAt,
    at_least: int,
    **members: Any,
) -> int:
    """Check a request, or a file of them, against the policy in force.

    Without --handling the verdict is about what may be done: allowed, denied or indeterminate. With --handling it is
    about what was done: compliant, violation or indeterminate. Ids are bare: acme, not org:acme. FILE (or - for
    standard input) holds request records instead of options: one object, {"requests": [...]}, one object per line, or a
    log as an audit reads it (CSV, JSON lists, Parquet, packed or not); at most 10000.

    Exits 1 if a verdict is violation or denied.

    \b
      inforce check --org acme --model gpt-4o
      inforce check --key k1 --model gpt-4o --at 2026-03-01T12:00:00Z --handling trained=true
      inforce check - --format ndjson < requests.jsonl
    """
    happened = members.pop("happened")
    if file is not None and (any(members.values()) or at != "now"):
        raise click.UsageError("a request in FILE has its ids, time and handling in its record; leave the options out")
    with open_ledger(db) as ledger:
        ledger.at_least(at_least)
        query = Query(ledger)
        # Not before the last event: the clock of another machine may be ahead of ours.
        now = query.context().now
        if file is None:
            records = [_record_of_options(members, now if isinstance(at, str) else at)]
        else:
            records = _read_records(file, now)
        if happened:
            records = [one if one.handling is not None else one._replace(handling=NOTHING_OBSERVED) for one in records]
        decisions = query.check_all(records, known_at)
        early = sum("before_first_record" in decision.outcome.reasons for decision in decisions)
        say_before_first_record(ledger, early, len(decisions))
    _show_decisions(format_, decisions, one=file is None)
    against = any(decision.outcome.verdict in AGAINST for decision in decisions)
    return exits.PROBLEM_FOUND if against else exits.OK


def _record_of_options(members: dict[str, Any], at_us: int) -> RequestRecord:
    handling = members.pop("handling")
    texts = {name: value for name, value in members.items() if value is not None}
    for name, value in texts.items():
        kind = name.removesuffix("_id")
        if value.startswith(f"{kind}:"):
            # As a bare id it would be another subject, which has only defaults.
            raise click.UsageError(f"--{kind} takes the bare id, without {kind}: before it")
    texts |= {f"handling.{name}": value for name, value in handling.items()}
    values: dict[str, Any] = {}
    for field, text in texts.items():
        if field not in FIELDS:
            known = ", ".join(name.partition(".")[2] for name in FIELDS if "." in name)
            raise BadRecord(f"handling has no member {field.partition('.')[2]}; it has {known}")
        try:
            values[field] = cell_value(field, text, NO_MAPPING)
        except UnreadableValue as error:
            raise BadRecord(f"{field}: {error}") from None
    return read_record(raw_record(values), at_us)


def _read_records(name: str, now: int) -> list[RequestRecord]:
    body = read_body(name, CHECK_BYTES_MAX, "; send it in parts; for a log use inforce audit")
    body = _unpacked(body).removeprefix(BOM_UTF8)
    if body.lstrip()[:1] not in (b"{", b""):
        return _read_log(name, body)
    try:
        value = strict_json.loads(body, len(body), what="the file")
    except BadInput as error:
        lines = numbered_lines(body)
        if len(lines) > 1 and lines[0][1].rstrip().endswith(b"}"):
            return _read_lines(name, body, lines, now)
        # Objects over many lines, one after the other, are a log.
        return _read_log(name, body, error)
    if not isinstance(value, dict):
        raise BadRecord('a file of request records is one object, {"requests": [...]}, or one object per line')
    batch = value.get("requests")
    if batch is not None and (not isinstance(batch, list) or len(value) > 1):
        raise BadRecord('a batch is {"requests": [...]} and nothing else')
    values = [("", value)] if batch is None else [(f"/requests/{i}", one) for i, one in enumerate(batch)]
    return _records(values, now)


def _read_lines(name: str, body: bytes, lines: list[tuple[int, bytes]], now: int) -> list[RequestRecord]:
    """Request records, one a line; a log whose rows have members of its own is read as an audit reads it."""
    try:
        return _records([(f"/{number}", strict_json.loads(line, what=f"line {number}")) for number, line in lines], now)
    except BadInput as error:
        return _read_log(name, body, error)


def _records(values: list[tuple[str, Any]], now: int) -> list[RequestRecord]:
    """`values`: each with the words before its faults."""
    if not 1 <= len(values) <= CHECKS_MAX:
        raise BadRecord(
            f"the file has {len(values)} request records, and a check takes 1 to {CHECKS_MAX}; for a log use inforce "
            "audit"
        )
    return [read_record(value, now, pointer) for pointer, value in values]


def _unpacked(body: bytes) -> bytes:
    """Unpacks a file in gzip, as an audit does. Raises `BadRecord` if it is damaged or unpacks to too much."""
    if not body.startswith(b"\x1f\x8b"):
        return body
    try:
        with gzip.open(io.BytesIO(body)) as file:
            unpacked: bytes = file.read(CHECK_BYTES_MAX + 1)
    except (OSError, EOFError, zlib.error):
        raise BadRecord("the gzip data is damaged or cut off") from None
    if len(unpacked) > CHECK_BYTES_MAX:
        raise BadRecord(f"the file unpacks to more than {CHECK_BYTES_MAX} bytes; for a log use inforce audit")
    return unpacked


def _read_log(name: str, body: bytes, refusal: BadInput | None = None) -> list[RequestRecord]:
    """The records of a log, as an audit reads them; says which columns were ignored. Each has its time.

    Raises `BadRecord` for a row that cannot be read, or the `refusal` of the same file as request records.
    """
    if any(find_spec(package) is None for package in ("pyarrow", "numpy")):
        raise refusal or BadRecord("this is not JSON, and other files need inforce[audit]")
    from projections.audit.reading.files import STDIN, LogFile
    from projections.audit.reading.logs import LogReader
    from projections.audit.reference import records

    reader = LogReader([LogFile(STDIN, len(body), NO_MAPPING)], stdin=lambda: io.BytesIO(body))
    read: list[RequestRecord] = []
    try:
        for batch in reader:
            for fault in batch.faults:
                raise BadRecord(f"{STDIN} line {fault.line}: {fault.fault}")
            read += records(batch.requests)
            if len(read) > CHECKS_MAX:
                raise BadRecord(f"the file has more than {CHECKS_MAX} request records; for a log use inforce audit")
    except BadInput as error:
        raise refusal or BadRecord(_of_file(error.detail, name)) from None
    if not read:
        raise refusal or BadRecord(f"{name}: the file has no request records")
    for warning in reader.warnings:
        exits.print_note(f"{_of_file(warning, name)}; inforce audit takes --map")
    return read


def _of_file(text: str, name: str) -> str:
    """`text` about standard input, as about the file."""
    return f"{name}{text[1:]}" if text.startswith(("-:", "- ")) else text


def _show_decisions(format_: Format, decisions: list[Decision], *, one: bool) -> None:
    if format_ == "table":
        if one:
            print_decision(decisions[0])
        else:
            print_decisions(decisions)
            show_clock_notices(format_, notices_of(decisions))
        return
    rows = [decision_json(decision) for decision in decisions]
    show(format_, rows[0] if one else decisions_json(decisions), rows, CSV_FIELDS, {})
    if format_ == "csv":
        # A row of NDJSON has it as a member.
        show_clock_notices(format_, notices_of(decisions))
