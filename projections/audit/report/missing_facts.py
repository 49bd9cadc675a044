"""What is missing to decide the rows that are indeterminate: which owner, model or provider nobody had told then."""

from __future__ import annotations

from typing import Final, NamedTuple

from ledger.subjects import kind_of
from ledger.times import format_time
from projections.audit.report.collector import NAMED, SEPARATOR, UNSETTLED, Tally
from projections.audit.report.counters import ByName, worst
from projections.decisions.check import HOSTING, PROVIDER
from projections.decisions.model import Reason, RequestRecord
from projections.decisions.scope import resolve
from projections.query.as_of_view import View
from projections.query.pinned import PinnedQuery
from projections.query.query import KnownAt

SHOWN: Final = 15
"""Of each reason, those that the most rows hang on."""


class Missing(NamedTuple):
    """Rows that have these ids in common. first_at, last_at: of their requests (µs). subject, setting: what ought to
    have been told, where it can be named; words: the same in words, as it was at `first_at`; since: what was recorded
    about it later, if anything was."""

    ids: dict[str, str]
    rows: int
    first_at: int
    last_at: int
    subject: str | None
    setting: str | None
    words: str
    since: str | None


class Unsettled(NamedTuple):
    """groups: how many different ids there are; missing: the first of them, most rows first."""

    reason: Reason
    rows: int
    groups: int
    missing: tuple[Missing, ...]


def unsettled(tally: Tally, query: PinnedQuery, known_at: KnownAt) -> tuple[Unsettled, ...]:
    """Of every reason that occurred, most rows first."""
    found = [_of_reason(reason, tally.unsettled[reason], query, known_at) for reason in UNSETTLED]
    return tuple(sorted((one for one in found if one.rows), key=lambda one: -one.rows))


def _of_reason(reason: Reason, counts: ByName, query: PinnedQuery, known_at: KnownAt) -> Unsettled:
    counted = counts.counted()
    rows = counted.counts[:, 0]
    missing = []
    for row in worst(counted.names, [rows], SHOWN):
        said = counted.names[row].as_py().split(SEPARATOR)
        ids = {name: value for name, value in zip(NAMED[reason], said, strict=False) if value}
        first_at = int(counted.first[row])
        told = _told(reason, ids, query, View(query.moment(), first_at, known_at), first_at)
        missing.append(Missing(ids, int(rows[row]), first_at, int(counted.last[row]), *told))
    return Unsettled(reason, int(rows.sum()), len(rows), tuple(missing))


_Told = tuple[str | None, str | None, str, str | None]


def _told(reason: Reason, ids: dict[str, str], query: PinnedQuery, view: View, at: int) -> _Told:
    if reason == "unknown_model":
        return _model(ids.get("model_id"), view)
    if reason == "before_first_record":
        first = query.ledger.recorder.entry(1)
        begun = "is empty" if first is None else f"begins on {format_time(first.recorded_at)}"
        return None, None, f"the ledger {begun}: nothing was known of any policy before", None
    if not ids:
        return None, None, "the account is attached to what can be no governing subject", None
    record = RequestRecord(at=at, **ids)  # type: ignore[arg-type] # the names in NAMED are ids, and at is none of them
    scope = resolve(record, view)
    if reason == "scope_conflict":
        named = (
            f"org:{ids['org_id']}" if "org_id" in ids else f"account:{ids['account_id']}" if "account_id" in ids else ""
        )
        leads = " → ".join(scope.via)
        return (
            None,
            None,
            f"{leads}" + (f", and the record names {named}" if named else ", and its project leads elsewhere"),
            None,
        )
    open_ends = [state for state in scope.evidence if state.setting == "owner" and not isinstance(state.value, str)]
    if not open_ends:
        end = scope.via[-1]
        return end, None, f"{' → '.join(scope.via)}: no org and no account governs as {kind_of(end)}", None
    state = open_ends[-1]
    words = f"{state.subject} had no owner"
    if state.cleared_by is not None:
        words += f" any more (cleared by #{state.cleared_by.position})"
    return state.subject, state.setting, words, _since(view, state.subject, state.setting)


def _model(model_id: str | None, view: View) -> _Told:
    if model_id is None:
        return None, None, "data was forwarded, and no model was named that says who may receive it", None
    subject = f"model:{model_id}"
    if view.setting(subject, HOSTING).value is None:
        never = "" if view.history(subject) else "; nothing was ever said of this model"
        return subject, HOSTING, f"how {subject} is hosted was not known{never}", _since(view, subject, HOSTING)
    return subject, PROVIDER, f"who provides {subject} was not known", _since(view, subject, PROVIDER)


def _since(view: View, subject: str, setting: str) -> str | None:
    """What is known now of that moment."""
    later = view.later().setting(subject, setting)
    if later.value is None or later.change is None or later.source != "explicit":
        return None
    return f"{setting} = {later.value}, recorded on {format_time(later.change.recorded_at)} as #{later.change.position}"
