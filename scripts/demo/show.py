"""What the demo prints: for people, and for programs."""

from __future__ import annotations

import os
import shlex
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

from ledger.times import DAY, format_time
from projections.audit.summary import VERDICTS, summary_json
from projections.decisions.model import REASONS, decision_json
from scripts.cli.output import Columns, print_line, print_table
from scripts.demo import folder as places
from scripts.demo.finding import Found, Shown
from scripts.demo.making import Made
from scripts.demo.story import CLOSED, CLOSED_FROM, REWRITTEN, WITHDRAWN_FROM, when
from scripts.demo.traffic import Truth
from scripts.demo.words import hindsight_words, violation_words
from scripts.demo.world import PLATFORM

SUBJECTS_SHOWN: Final = 5
DIFFERENCES_SHOWN: Final = 20
_WRONG: Final = ("violation", "indeterminate")


def show_made(made: Made) -> None:
    print_line(f"{PLATFORM}, an invented platform: eighteen months, {made.events:,} events in", "bold")
    print_line(f"{made.submissions:,} submissions about {made.subjects:,} subjects. Some of them:", "bold")
    print_line()
    columns: Columns = {
        "recorded": lambda line: when(line.at),
        "#": lambda line: line.receipt.position,
        "what": lambda line: line.text,
    }
    print_table(columns, made.told)
    print_line()


def show_found(made: Made, found: Found, seconds: float) -> None:
    summary = found.summary
    print_line(f"{summary.rows:,} lines of its request log, each request against what was", "bold")
    print_line("in force when it was made:", "bold")
    print_line()
    verdicts = [verdict for verdict in VERDICTS if summary.verdicts[verdict]]
    counts = {verdict: summary.verdicts[verdict] for verdict in verdicts} | {"(unreadable line)": summary.rejects}
    print_table({"verdict": lambda verdict: verdict, "requests": lambda verdict: f"{counts[verdict]:>8,}"}, counts)
    print_line()
    planted, got = counted(made.planted), counted(found.truths)
    print_table(
        {
            "what is wrong": lambda reason: reason,
            "planted": lambda reason: f"{planted[reason]:>7,}",
            "found": lambda reason: f"{got[reason]:>5,}",
        },
        REASONS,
    )
    print_line()
    subjects = [one for one in summary.subjects if one.subject is not None][:SUBJECTS_SHOWN]
    print_table(
        {
            "most violations": lambda one: one.subject,
            "violations": lambda one: f"{one.verdicts.get('violation', 0):>10,}",
            "requests": lambda one: f"{one.total:>8,}",
        },
        subjects,
    )
    print_line()
    if found.violation is not None:
        _print("One violation, and what the verdict rests on", violation_words(found.violation))
    if found.hindsight is not None:
        _print("One verdict that hindsight changes", hindsight_words(found.hindsight, found.reasons_given))
    _print("", _conclusion(made, found, seconds))
    if found.differences:
        print_table(_DIFFERENCES, found.differences[:DIFFERENCES_SHOWN])
        more = len(found.differences) - DIFFERENCES_SHOWN
        if more > 0:
            print_line(f"and {more} more; --format json names all")
        print_line()
    print_line("What to try next", "bold")
    for step in next_steps(made.folder):
        print_line(f"# {step.why}")
        print_line(step.command)


def _print(title: str, lines: Iterator[str]) -> None:
    if title:
        print_line(title, "bold")
    for line in lines:
        print_line(line)
    print_line()


def _conclusion(made: Made, found: Found, seconds: float) -> Iterator[str]:
    wrong = sum(counted(made.planted).values())
    if found.differences:
        count = len(found.differences)
        yield f"NOT what was planted: {count} difference{'' if count == 1 else 's'}, in {seconds:.1f} s."
        return
    yield f"Exactly what was planted was found, in {seconds:.1f} s: {wrong:,} reasons in {_wrong(made):,} requests,"
    yield f"{len(found.rewritten):,} judged otherwise in hindsight, {len(made.unreadable)} lines that cannot be read."


def _wrong(made: Made) -> int:
    return sum(truth.verdict in _WRONG for truth in made.planted.values())


_DIFFERENCES: Final[Columns] = {
    "not as planted": lambda difference: difference.what,
    "planted": lambda difference: _in_words(difference.planted),
    "found": lambda difference: _in_words(difference.found),
}


def _in_words(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Truth):
        return f"{value.verdict}: {', '.join(value.reasons)}"
    return "nothing wrong" if value is None else str(value)


def counted(truths: dict[str, Truth]) -> Counter[str]:
    """Reason → requests that it is wrong with. Who was turned away did nothing wrong."""
    return Counter(reason for truth in truths.values() if truth.verdict in _WRONG for reason in truth.reasons)


class Step(NamedTuple):
    why: str
    command: str


def next_steps(folder: Path) -> list[Step]:
    """Commands that work from here, on the ledger that is left behind."""
    inforce = _command()
    during = format_time(WITHDRAWN_FROM + 7 * DAY)[:10] + "T00:00:00Z"
    after = format_time(CLOSED_FROM + 30 * DAY)[:10] + "T12:00:00Z"
    org = CLOSED.partition(":")[2]
    state = f"{inforce} state {REWRITTEN} --at {during}"
    return [
        Step("the ledger to ask", f"export INFORCE_DATABASE={shlex.quote(f'sqlite:///{folder / places.LEDGER}')}"),
        Step(f"{REWRITTEN} on that day, in hindsight", state),
        Step("and in force: what anyone could have known then", f"{state} --known-at at"),
        Step("everything that was ever said about it", f"{inforce} history {REWRITTEN}"),
        Step("might it have?", f"{inforce} check --org {org} --model orbital/comet-2 --at {after}"),
        Step("the whole log again", f"{inforce} audit {shlex.quote(str(folder / places.LOG))} --findings 1"),
        Step("the story of one subject", f"{inforce} replay --subject org:tidewater-bank"),
        Step("the projections anew, compared with the live ones", f"{inforce} rebuild"),
        Step("all of it over HTTP", f"{inforce} serve"),
    ]


def _command() -> str:
    """How inforce is started from here: by the checkout's launcher, or as it was installed."""
    launcher = Path(__file__).resolve().parents[1] / "inforce"
    if not launcher.is_file():
        return "inforce"
    if not launcher.is_relative_to(Path.cwd().resolve()):
        return shlex.quote(str(launcher))
    return shlex.quote(f"./{os.path.relpath(launcher)}")


def document(made: Made, found: Found, seconds: dict[str, float]) -> dict[str, Any]:
    """Everything for programs."""
    planted, got = counted(made.planted), counted(found.truths)
    return {
        "exact": not found.differences,
        "differences": [
            {"what": one.what, "planted": _as_json(one.planted), "found": _as_json(one.found)}
            for one in found.differences
        ],
        "folder": str(made.folder),
        "ledger": {"events": made.events, "submissions": made.submissions, "subjects": made.subjects},
        "audit": summary_json(found.summary),
        "reasons": {reason: {"planted": planted[reason], "found": got[reason]} for reason in REASONS},
        "hindsight": {"planted": len(made.rewritten), "found": len(found.rewritten)},
        "unreadable_lines": sorted(made.unreadable),
        "violation": _decision(found.violation),
        "verdict_changed_by_hindsight": _decision(found.hindsight),
        "next_steps": [step._asdict() for step in next_steps(made.folder)],
        "seconds": seconds,
    }


def _as_json(value: Any) -> Any:
    return value._asdict() if isinstance(value, Truth) else value


def _decision(shown: Shown | None) -> dict[str, Any] | None:
    return None if shown is None else decision_json(shown.decision)
