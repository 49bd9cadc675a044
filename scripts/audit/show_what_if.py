"""Prints the result of `audit --what-if`, for people and for programs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from projections.audit.what_if.radius import Radius, radius_json
from projections.decisions.model import REASONS
from scripts.audit.show_summary import COUNT_FIELDS, named_counts, position_text
from scripts.cli.options import Format
from scripts.cli.output import Columns, human_time, json_text, print_line, print_table, show
from scripts.cli.show_decision import UNKNOWN_SUBJECT

ROWS_SHOWN: Final = 10


def show_radius(
    format_: Format,
    radius: Radius,
    changes: Sequence[dict[str, Any]],
    provenance: dict[str, Any],
    rejects: str,
    *,
    all_written: bool,
) -> None:
    """`changes`: the rows to show; `rejects`: the file of unreadable lines; `all_written`: --out has all rows."""
    members = radius_json(radius) | provenance
    if format_ != "table":
        document = members | {"changes": changes, "rejects_file": rejects if radius.rejects else None}
        names = ("requests", "rejects", "otherwise", "turned_against", "turned_for")
        counts = [{"what": name, "name": None, "count": members[name]} for name in names]
        counts += named_counts(
            "verdict", {f"{pair['before']} {pair['after']}": pair["requests"] for pair in members["verdicts"]}
        )
        for what, member in (("reason_gone", "reasons_gone"), ("reason_new", "reasons_new"), ("handling", "handling")):
            counts += named_counts(what, members[member])
        show(format_, document, counts, COUNT_FIELDS, {})
        return
    _print_radius(radius, members)
    for change in changes:
        _print_change(change)
    if radius.differing and not all_written and not changes:
        print_line()
        print_line("--out FILE writes each of them with both verdicts; --findings N shows the first N.")


def _print_radius(radius: Radius, members: dict[str, Any]) -> None:
    share = f" ({100 * radius.differing / radius.requests:.3g} %)" if radius.differing else ""
    period = ""
    if radius.first_at is not None and radius.last_at is not None:
        period = f", from {human_time(radius.first_at)} to {human_time(radius.last_at)}"
    print_line(
        f"{radius.differing:,} of {radius.requests:,} requests would be decided differently{share}{period}", "bold"
    )
    proposals = f"{radius.proposals} proposal" + ("" if radius.proposals == 1 else "s")
    print_line(f"with {proposals}, {position_text(radius.pin)}")
    if not radius.differing:
        return
    print_line()
    print_table(
        {"verdict": lambda pair: pair["before"], "would be": lambda pair: pair["after"], "requests": _requests},
        members["verdicts"],
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
    if members["handling"]:
        print_line()
        print_table(
            {"handling": lambda pair: pair[0], "requests": lambda pair: f"{pair[1]:,}"},
            list(members["handling"].items()),
        )
    subjects: Columns = {"governed by": lambda one: one["subject"] or UNKNOWN_SUBJECT, "requests": _requests}
    models: Columns = {"model": lambda one: one["model_id"] or "(none named)", "requests": _requests}
    for columns, rows, count in (
        (subjects, members["subjects"], members["subject_count"]),
        (models, members["models"], members["model_count"]),
    ):
        print_line()
        print_table(columns, rows[:ROWS_SHOWN])
        if count > ROWS_SHOWN:
            print_line(f"and {count - ROWS_SHOWN:,} more; --format json lists them")


def _requests(row: Any) -> str:
    return f"{row['requests']:,}"


def _print_change(row: dict[str, Any]) -> None:
    print_line()
    print_line(f"{row['source']} line {row['line']}", "bold underline")
    print_line(f"at {human_time(row['at'])}" + (f", request {row['request_id']}" if row["request_id"] else ""))
    for name in (name.removeprefix("before_") for name in row if name.startswith("before_")):
        before, after = row["before_" + name], row["after_" + name]
        if before != after:
            texts = (value if isinstance(value, str) else json_text(value) for value in (before, after))
            print_line(f"  {name}: " + " → ".join(texts))
    # A negative position is the line of a proposal.
    lines = sorted({-position for position in row["after_deciding_positions"] if position < 0})
    if lines:
        print_line("  decided by the proposal of line " + ", ".join(map(str, lines)))
