"""`define`: a setting of one's own, or another definition of a setting that exists.

All faults of a definition are named at once. Proved by tests/cli/test_define.py.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final, get_args

import click
from click.shell_completion import CompletionItem

from ledger import strict_json
from ledger.catalog import Definition, ValueType
from ledger.clock import SystemClock
from ledger.errors import BadSubmission, Fault
from ledger.events import SettingDefined
from ledger.opening import ledger_exists, open_ledger
from ledger.store import Ledger
from ledger.subjects import KINDS
from ledger.times import format_time
from scripts.cli.files import read_body
from scripts.cli.instants import Instant
from scripts.cli.options import FILE, SETTING_KEY, Format
from scripts.cli.output import write_json
from scripts.cli.recording import RecordingOptions, catalog_of, record, recording_options, typed_value

_MEMBERS: Final = tuple(Definition.model_fields)
_TEMPLATES: Final[dict[str, dict[str, Any]]] = {
    "bool": {"default": False, "protective": False},
    "one_of": {"members": ["first", "second"], "default": "first", "protective": "first"},
    "set_of": {"default": [], "protective": None},
    "text": {"default": None, "protective": None},
    "integer": {"default": 0, "protective": 0},
    "subject_ref": {"ref_kinds": ["org"], "default": None, "protective": None},
}
"""Value type → the members that depend on it."""
_NULLS: Final[dict[str, Any]] = {"default": None, "protective": None}


class _CheckedLater(click.ParamType[str]):
    """Any text, where a shell proposes what `proposed` does: the ledger names its fault together with all others."""

    def __init__(self, proposed: click.ParamType[Any]) -> None:
        self.name = proposed.name
        self._proposed = proposed

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str | None:
        return self._proposed.get_metavar(param, ctx)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        return self._proposed.shell_complete(ctx, param, incomplete)


_TYPE: Final = _CheckedLater(click.Choice(get_args(ValueType)))
_ROLE: Final = _CheckedLater(click.Choice(get_args(Definition.model_fields["writable_by"].annotation)))


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",")]


@click.command
@click.argument("setting", type=_CheckedLater(SETTING_KEY), required=False, metavar="SETTING")
@click.argument("file", required=False, type=FILE, metavar="[FILE | -]")
@click.option("--template", is_flag=True, help="Print a definition to fill in, or the present one, and record nothing.")
@click.option("--kinds", metavar="KIND,…", help=f"The kinds of subject that have it, of {', '.join(KINDS)}.")
@click.option("--type", "value_type", type=_TYPE, help="The type of its values, for ever.")
@click.option("--members", metavar="TEXT,…", help="The values of a one_of; those that a set_of may hold.")
@click.option("--ref-kinds", metavar="KIND,…", help="The kinds of subject that a subject_ref may name.")
@click.option("--default", metavar="VALUE", help="The value of a subject without one of its own. Without it: null.")
@click.option("--protective", metavar="VALUE", help="The value assumed where it cannot be resolved. Without it: null.")
@click.option("--writable-by", type=_ROLE, help="The role that may write it.")
@click.option("--title", metavar="TEXT", help="Its name for people.")
@click.option("--description", metavar="TEXT", help="The rule that it stands for.")
@click.option("--source", metavar="TEXT", help="The document that the rule is from.")
@click.option("--from", "effective_from", type=Instant(), help="When the definition takes effect. Without it: at once.")
@click.option("--reason", help="Why. Required for a definition that begins in the past.")
@click.option("--expected-version", type=click.IntRange(min=0), help="Fail unless the catalog is at this version.")
@recording_options
def define(
    setting: str | None,
    db: str,
    format_: Format,
    file: str | None,
    *,
    template: bool,
    effective_from: int | None,
    reason: str | None,
    expected_version: int | None,
    **options: Any,
) -> None:
    """Define a setting of your own, or redefine a setting.

    The definition is in the options, in FILE (- for standard input), or both: an option replaces a member of FILE. An
    existing setting keeps what neither of them names. Every fault is named at once, and then nothing is recorded.
    --template prints a definition in JSON for FILE. inforce catalog shows all settings.

    \b
      inforce define acme.tier --kinds org --type one_of --members gold,silver --default silver \\
          --protective gold --writable-by owner --title Tier --description "Service level" --source Contract
      inforce define --type integer --template > days.json
      inforce define acme.days days.json
      inforce define training.opt_in --default true --from 2027-01-01 --timezone UTC
    """
    members = {name: options.pop(name) for name in _MEMBERS if name in options}
    chosen = {name: text for name, text in members.items() if text is not None}
    if template:
        if file is not None:
            raise click.UsageError("--template prints a definition and reads none; leave FILE out")
        write_json(_template({} if setting is None else _present_definition(db, setting, effective_from), chosen))
        return
    if setting is None or (file is None and not chosen and Path(setting).is_file()):
        raise click.UsageError("write the name of the setting first, as in inforce define acme.tier FILE")
    key = setting
    read = _read_definition(file, key) if file is not None else {}
    start = None if effective_from is None else format_time(effective_from)
    others = {"effective_from": start, "reason": reason, "expected_version": expected_version}

    def body(ledger: Ledger | None) -> dict[str, Any]:
        before = read if file is not None else _NULLS | _definition_at(ledger, key, effective_from)
        return {
            "type": SettingDefined.TOPIC,
            "setting": key,
            "definition": _with_options(before, chosen),
            **{name: value for name, value in others.items() if value is not None},
        }

    record(db, format_, RecordingOptions(**options), body)


def _definition_at(ledger: Ledger | None, setting: str, at: int | None) -> dict[str, Any]:
    """The definition that holds at an instant (µs; None: now); empty if there is none."""
    period = catalog_of(ledger).definition_at(setting, SystemClock().now() if at is None else at)
    return {} if period is None else period.definition.as_json()


def _present_definition(db: str, setting: str, at: int | None) -> dict[str, Any]:
    if not ledger_exists(db):
        return _definition_at(None, setting, at)
    with open_ledger(db) as ledger:
        return _definition_at(ledger, setting, at)


def _template(present: dict[str, Any], chosen: dict[str, Any]) -> dict[str, Any]:
    """A definition whose texts are still to be written, unless the setting has one."""
    value_type = chosen.get("value_type") or present.get("value_type") or "bool"
    if value_type not in _TEMPLATES:
        raise click.UsageError(f"--type takes one of {', '.join(_TEMPLATES)}")
    blank = {"kinds": ["account", "org"], "value_type": value_type, **_TEMPLATES[value_type], "writable_by": "admin"}
    filled = _with_options(present or blank | dict.fromkeys(("title", "description", "source"), ""), chosen)
    return {name: filled[name] for name in _MEMBERS if name in filled}


def _with_options(definition: dict[str, Any], chosen: dict[str, Any]) -> dict[str, Any]:
    """The definition with the members that the options name, as values of its type."""
    merged = definition | chosen
    value_type = merged.get("value_type")
    for name, text in chosen.items():
        if name in ("kinds", "members", "ref_kinds"):
            merged[name] = _names(text)
        elif name in ("default", "protective"):
            merged[name] = None if text == "null" else typed_value(text, value_type, f"/definition/{name}")
    return merged


def _read_definition(name: str, setting: str) -> dict[str, Any]:
    """The definition in a file that holds it, or a whole submission. Raises `BadInput`."""
    value: Any = strict_json.loads(read_body(name, strict_json.MAX_BYTES, "; a definition is smaller"), what="the file")
    if isinstance(value, dict) and value.get("type") == SettingDefined.TOPIC:
        raise BadSubmission(
            (Fault("", "this is a whole submission; record it with inforce submit, or keep its definition only"),)
        )
    if not isinstance(value, dict):
        raise BadSubmission((Fault("/definition", "a definition is an object; inforce define --template shows one"),))
    return value
