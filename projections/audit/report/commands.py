"""The commands that show a finding again, quoted for a POSIX shell: what stands in a log is never a word of its own."""

from __future__ import annotations

import json
import shlex
from typing import Any, Final

from ledger.times import format_time
from projections.decisions.model import RequestRecord
from projections.temporal.coordinates import IN_FORCE, KnownAt

_OPTIONS: Final = ("key", "account", "org", "project", "model")


def check_command(record: RequestRecord, known_at: KnownAt) -> str:
    """Decides on the record again, with what was known by `known_at`."""
    known = f"--known-at={known_at_words(known_at)}"
    named = {option: getattr(record, f"{option}_id") for option in _OPTIONS}
    done = {} if record.handling is None else record.handling._asdict()
    handling = {name: _word(value) for name, value in done.items() if value is not None}
    ids = {option: value for option, value in named.items() if value is not None}
    if any(value.startswith(f"{option}:") for option, value in ids.items()) or not all(
        value.isprintable() for value in handling.values()
    ):
        # As options these would be refused, or could not be read off a page.
        return f"printf %s {shlex.quote(json.dumps(record_json(record)))} | inforce check - {known}"
    # With `=`, so that a value that begins with a dash is none of ours.
    words = [f"--{option}={value}" for option, value in ids.items()]
    words += [f"--handling={name}={value}" for name, value in handling.items()]
    if record.enforced_position is not None:
        words.append(f"--enforced-position={record.enforced_position}")
    return shlex.join(["inforce", "check", *words, f"--at={format_time(record.at)}", known])


def explain_command(arguments: tuple[str, ...], request_id: str | None, known_at: KnownAt) -> str | None:
    """Names the events that a row rests on. `arguments`: the logs and how they were read. None: the row has no id."""
    if request_id is None or not request_id.isprintable():
        return None
    known = [] if known_at == IN_FORCE else [f"--known-at={known_at_words(known_at)}"]
    return audit_command(arguments, *known, f"--explain={request_id}")


def audit_command(arguments: tuple[str, ...], *more: str) -> str:
    return shlex.join(["inforce", "audit", *arguments, *more])


def known_at_words(known_at: KnownAt) -> str:
    """As the option `--known-at` takes it."""
    return format_time(known_at) if isinstance(known_at, int) else known_at or "now"


def record_json(record: RequestRecord) -> dict[str, Any]:
    """As `read_record` reads it."""
    written: dict[str, Any] = {"request_id": record.request_id, "at": format_time(record.at)}
    written |= {f"{name}_id": getattr(record, f"{name}_id") for name in _OPTIONS}
    written["enforced_position"] = record.enforced_position
    if record.handling is not None:
        written["handling"] = {name: value for name, value in record.handling._asdict().items() if value is not None}
    return {name: value for name, value in written.items() if value is not None}


def _word(value: bool | str | None) -> str:
    return ("true" if value else "false") if isinstance(value, bool) else str(value)
