"""What a what-if comes to, for people and for programs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from projections.audit.what_if.radius import Radius, radius_json
from projections.decisions.model import REASONS
from scripts.cli.options import Format
from scripts.cli.output import Columns, human_instant, print_line, print_table, show

SHOWN: Final = 10


def show_radius(
    format_: Format, radius: Radius, shown: Sequence[dict[str, Any]], rests_on: dict[str, Any], rejects: str, kept: bool
) -> None:
    """`shown`: rows that are otherwise; `rejects`: the file of lines that could not be read; `kept`: whether all rows
    that are otherwise are in a file."""
    written = radius_json(radius) | rests_on
    if format_ != "table":
        document = written | {"changes": shown, "rejects_file": rejects if radius.rejects else None}
        names = ("requests", "rejects", "otherwise", "turned_against", "turned_for")
        counts = [{"what": name, "name": None, "count": written[name]} for name in names]
        for pair in written["verdicts"]:
            name = f"{pair['before']} {pair['after']}"
            counts.append({"what": "verdict", "name": name, "count": pair["requests"]})
        for what, member in (("reason_gone", "reasons_gone"), ("reason_new", "reasons_new"), ("handling", "handling")):
            counts += [{"what": what, "name": name, "count": count} for name, count in written[member].items()]
        show(format_, document, counts, ("what", "name", "count"), {})
        return
    _show_tables(radius, written)
    for row in shown:
        _show_row(row)
    if radius.differing and not kept and not shown:
        print_line()
        print_line("--out FILE writes each of them with both verdicts, --findings N shows the first N.")


def _show_tables(radius: Radius, written: dict[str, Any]) -> None:
    share = f" ({100 * radius.differing / radius.requests:.3g} %)" if radius.differing else ""
    between = ""
    if radius.first_at is not None and radius.last_at is not None:
        between = f", from {human_instant(radius.first_at)} to {human_instant(radius.last_at)}"
    proposed = f"{radius.proposals} proposal" + ("" if radius.proposals == 1 else "s")
    print_line(
        f"{radius.differing:,} of {radius.requests:,} requests would be decided otherwise{share}{between}", "bold"
    )
    pin = radius.pin
    print_line(
        f"with {proposed}; at position {pin.position} of {pin.origin}, whose event has leaf hash {pin.leaf_hash}"
    )
    if not radius.differing:
        return
    print_line()
    print_table(
        {"verdict": lambda pair: pair["before"], "would be": lambda pair: pair["after"], "requests": _requests},
        written["verdicts"],
    )
    reasons = [name for name in REASONS if radius.reasons_gone[name] or radius.reasons_new[name]]
    if reasons:
        print_line()
        gone_and_new: Columns = {
            "reason": str,
            "gone": lambda name: f"{radius.reasons_gone[name]:,}",
            "new": lambda name: f"{radius.reasons_new[name]:,}",
        }
        print_table(gone_and_new, reasons)
    if written["handling"]:
        print_line()
        print_table({"handling": lambda pair: pair[0], "requests": _count}, list(written["handling"].items()))
    who: Columns = {"governed by": lambda one: one["subject"] or "(nobody that can be told)", "requests": _requests}
    which: Columns = {"model": lambda one: one["model_id"] or "(none named)", "requests": _requests}
    for columns, rows, count in (
        (who, written["subjects"], written["subject_count"]),
        (which, written["models"], written["model_count"]),
    ):
        print_line()
        print_table(columns, rows[:SHOWN])
        if count > SHOWN:
            print_line(f"and {count - SHOWN:,} more; --format json names them")


def _requests(one: Any) -> str:
    return f"{one['requests']:,}"


def _count(pair: Any) -> str:
    return f"{pair[1]:,}"


def _show_row(row: dict[str, Any]) -> None:
    print_line()
    print_line(f"{row['source']} line {row['line']}", "bold underline")
    print_line(f"at {human_instant(row['at'])}" + (f", request {row['request_id']}" if row["request_id"] else ""))
    for name in (name.removeprefix("before_") for name in row if name.startswith("before_")):
        before, after = row["before_" + name], row["after_" + name]
        if before == after:
            continue
        said = (msgspec.json.encode(one).decode() if not isinstance(one, str) else one for one in (before, after))
        print_line(f"  {name}: " + " → ".join(said))
    lines = sorted({-position for position in row["after_deciding_positions"] if position < 0})
    if lines:
        print_line("  decided by the proposal of line " + ", ".join(map(str, lines)))
