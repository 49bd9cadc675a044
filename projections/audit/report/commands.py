"""The commands that show a finding again, quoted for a POSIX shell: no text of a log can become a word or an option.

Proved by tests/audit/report/test_commands.py.
"""

from __future__ import annotations

import json
import shlex
from typing import Any, Final

from ledger.times import format_time
from projections.decisions.model import NOTHING_OBSERVED, RequestRecord
from projections.temporal.coordinates import IN_FORCE, KnownAt

_OPTIONS: Final = ("key", "account", "org", "project", "model")


def check_command(record: RequestRecord, known_at: KnownAt) -> str:
    """Decides on the record again, with the knowledge of `known_at`."""
    option = known_at_option(known_at)
    ids = {name: getattr(record, f"{name}_id") for name in _OPTIONS}
    ids = {name: value for name, value in ids.items() if value is not None}
    observed = {} if record.handling is None else record.handling._asdict()
    handling = {name: _word(value) for name, value in observed.items() if value is not None}
    if any(value.startswith(f"{name}:") for name, value in ids.items()) or not all(
        value.isprintable() for value in handling.values()
    ):
        # `check` refuses such an id as an option, and nobody can copy such a text from a page.
        happened = " --happened" if record.handling is not None and not handling else ""
        return f"printf %s {shlex.quote(json.dumps(record_json(record)))} | inforce check -{happened} {option}"
    # The form --name=value: a value that begins with a dash is not read as an option.
    words = [f"--{name}={value}" for name, value in ids.items()]
    words += [f"--handling={name}={value}" for name, value in handling.items()]
    if record.handling is not None and not handling:
        words.append("--happened")
    if record.enforced_position is not None:
        words.append(f"--enforced-position={record.enforced_position}")
    return shlex.join(["inforce", "check", *words, f"--at={format_time(record.at)}", option])


def explain_command(
    arguments: tuple[str, ...], request_id: str | None, known_at: KnownAt, source: str, line: int
) -> str | None:
    """Names the events that a row rests on. `arguments`: the logs and how to read them. A row without an id that can be
    copied from a page is named by its log and line; None if the log's name cannot be copied either."""
    what = f"{source}:{line}" if request_id is None or not request_id.isprintable() else request_id
    if not what.isprintable():
        return None
    options = [] if known_at == IN_FORCE else [known_at_option(known_at)]
    return audit_command(arguments, *options, f"--explain={what}")


def audit_command(arguments: tuple[str, ...], *options: str) -> str:
    return shlex.join(["inforce", "audit", *arguments, *options])


def known_at_option(known_at: KnownAt) -> str:
    return f"--known-at={known_at_word(known_at)}"


def known_at_word(known_at: KnownAt) -> str:
    """The value that the option `--known-at` takes: `at`, `now` or an instant."""
    return format_time(known_at) if isinstance(known_at, int) else known_at or "now"


def record_json(record: RequestRecord) -> dict[str, Any]:
    """The record in the form that `read_record` reads."""
    members: dict[str, Any] = {"request_id": record.request_id, "at": format_time(record.at)}
    members |= {f"{name}_id": getattr(record, f"{name}_id") for name in _OPTIONS}
    members["enforced_position"] = record.enforced_position
    if record.handling not in (None, NOTHING_OBSERVED):
        members["handling"] = {name: value for name, value in record.handling._asdict().items() if value is not None}
    return {name: value for name, value in members.items() if value is not None}


def _word(value: bool | str | None) -> str:
    return ("true" if value else "false") if isinstance(value, bool) else str(value)
