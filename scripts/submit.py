"""`submit`: records changes, clears, retractions and definitions.

Proved by tests/cli/test_submit.py and tests/cli/test_bad_input.py.
"""

from __future__ import annotations

import re
from typing import Any, Final

import click
from click.shell_completion import CompletionItem

from ledger import strict_json
from ledger.append.submissions import BATCH_MAX
from ledger.built_in_catalog import BUILT_IN
from ledger.codec import parse_leaf
from ledger.errors import BadInput, BadJson, BadSubmission, Fault
from ledger.store import Ledger
from ledger.subjects import KINDS
from ledger.times import format_time
from scripts.cli.files import numbered_lines, read_body
from scripts.cli.instants import Instant
from scripts.cli.options import Format
from scripts.cli.recording import RecordingOptions, catalog_of, record, recording_options, typed_value

_POSITION: Final = re.compile(r"#?([0-9]{1,18})", re.ASCII)
_EVENT_ID: Final = re.compile(r"[0-9a-f-]{36}", re.ASCII | re.IGNORECASE)
_NEGATIVE: Final = re.compile(r"-[0-9]+", re.ASCII)


class SubmitCommand(click.Command):
    """Takes a negative number as a VALUE, and says how to write another value that begins with a dash."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.ignore_unknown_options = any(_NEGATIVE.fullmatch(arg) for arg in args)
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            if error.possibilities:
                raise
            raise click.UsageError(
                f"there is no option {error.option_name}; if it is the VALUE, write -- before SUBJECT and the options "
                "before that",
                ctx,
            ) from None


def _proposals(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """For a shell: a kind of subject or a file, then a built-in setting."""
    words = ctx.params.get("words") or ()
    if not words:
        kinds = [CompletionItem(f"{kind}:") for kind in KINDS if f"{kind}:".startswith(incomplete)]
        return kinds or [CompletionItem(incomplete, type="file")]
    return [CompletionItem(key) for key in BUILT_IN if key.startswith(incomplete)] if len(words) == 1 else []


@click.command(cls=SubmitCommand)
@click.argument("words", nargs=-1, metavar="[SUBJECT SETTING [VALUE] | FILE | -]", shell_complete=_proposals)
@click.option("--clear", is_flag=True, help="Remove the subject's own value, so that the default holds.")
@click.option(
    "--retract",
    metavar="POSITION|EVENT_ID",
    help="Retract an earlier change that was recorded by mistake. Tables show its position in the column #.",
)
@click.option("--from", "effective_from", type=Instant(), help="When the change takes effect. Without it: at once.")
@click.option(
    "--until",
    "effective_until",
    type=Instant(),
    help="When the change ends: the first moment after it. Without it: when the next change without an end begins.",
)
@click.option(
    "--cancel-scheduled",
    "cancels_scheduled",
    is_flag=True,
    help="Also retract every change of this setting that begins later, so that none of them happens.",
)
@click.option("--reason", help="Why. Required for a change of the past and for a retraction.")
@click.option("--expected-version", type=click.IntRange(min=0), help="Fail unless the subject is at this version.")
@recording_options
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
    standard input) holds one submission, {"events": [...]}, or one submission per line. inforce define records a
    definition of a setting, and so does a FILE.

    \b
      inforce submit org:acme training.opt_in true --reason "ticket 4711"
      inforce submit org:acme storage.inputs_outputs false --from 2027-01-01 --timezone UTC
      inforce submit org:acme training.opt_in --clear
      inforce submit --retract 41 --reason "entered for the wrong org"
      inforce submit changes.jsonl --idempotency-key 2026-11-23-a
    """
    recording = RecordingOptions(actor, origin, idempotency_key, must_exist, clock_behind_max, clock_ahead_warn)
    recording.check()
    words = options.pop("words")
    # 0 is a version and an instant.
    change = {name: value for name, value in options.items() if value is not None and value is not False}
    body = _read_submissions(words[0]) if _names_file(words, change) else None
    record(db, format_, recording, lambda ledger: _body(words, change, ledger) if body is None else body)


def _names_file(words: tuple[str, ...], change: dict[str, Any]) -> bool:
    """Whether the arguments are one file. Raises `click.UsageError` if they are neither a file nor a change."""
    if len(words) == 1 and not change:
        return True
    expected = 0 if "retract" in change else 2 if "clear" in change else 3
    if len(words) != expected or change.keys() >= {"clear", "retract"}:
        raise click.UsageError(
            "write SUBJECT SETTING VALUE, or SUBJECT SETTING --clear, or --retract POSITION, or one FILE (- for "
            "standard input) without options about a change"
        )
    if "retract" in change and not change.keys().isdisjoint(("effective_from", "effective_until")):
        raise click.UsageError("--retract removes the whole change; leave --from and --until out")
    if "retract" in change and "cancels_scheduled" in change:
        raise click.UsageError(
            "--cancel-scheduled goes with a change or a clear; name what to --retract by its position"
        )
    return False


def _body(words: tuple[str, ...], change: dict[str, Any], ledger: Ledger | None) -> dict[str, Any]:
    body: dict[str, Any]
    if "retract" in change:
        body = {"type": "change.retracted", "event_id": _event_id(change["retract"], ledger)}
    else:
        subject, setting, *value = words
        body = {"type": "setting.cleared", "subject": subject, "setting": setting}
        if value:
            body |= {"type": "setting.changed", "value": typed_value(value[0], catalog_of(ledger).value_type(setting))}
    body |= {name: format_time(change[name]) for name in ("effective_from", "effective_until") if name in change}
    return body | {name: change[name] for name in ("cancels_scheduled", "reason", "expected_version") if name in change}


def _event_id(text: str, ledger: Ledger | None) -> str:
    """The text, or the id of the event at this position. Raises `BadInput` if there is no such event."""
    position = _POSITION.fullmatch(text)
    if position is None:
        if not _EVENT_ID.fullmatch(text):
            raise BadInput(
                "--retract takes a position, such as 41, or the id of an event; inforce history shows positions in the "
                "column #"
            )
        return text
    if ledger is None:
        raise BadInput("there is no ledger yet, so there is nothing to retract; name the ledger with --db")
    entry = ledger.recorder.entry(int(position[1]))
    if entry is None:
        raise BadInput(
            f"there is no event at position {position[1]}: the ledger ends at position {ledger.head().position}; "
            "inforce history shows positions in the column #"
        )
    return parse_leaf(entry.leaf).id


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
