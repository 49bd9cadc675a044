"""Answers of the domain as JSON values, in the shapes of `api/README.md`, "Wire contract"; the command line prints the
same. Only this module turns instants into RFC 3339 texts.

Events are inserted as the exact bytes that were recorded: they are never parsed and encoded again.
Proved by tests/api/test_openapi.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from operator import itemgetter
from typing import Any, Final

import msgspec

from ledger.receipts import Receipt
from ledger.recorders.contract import Entry
from ledger.times import BEGINNING, END, format_time
from projections.decisions.model import Decision, change_json, decision_json, retraction_json
from projections.query.history import HistoryAnswer
from projections.query.outlooks import EventOutlook
from projections.query.query import IN_FORCE, CatalogAnswer, DiffAnswer, StateAnswer, TimelineAnswer
from projections.temporal.changes import Change, Retraction
from projections.temporal.coordinates import ClockNotice, clock_notice_json
from projections.temporal.effective_state import Interval, NextState, SettingState
from projections.timelines.contract import SubjectRow

encode: Final = msgspec.json.Encoder().encode
Encode = Callable[[Any], bytes]
"""`encode`, or one that reads large values, too (see `projections.query.large_values`)."""
PAGE_BYTES: Final = 2 * 1024 * 1024
"""A page ends with the item that reaches this size, so that it always has one."""


def bounded(
    document: dict[str, Any],
    name: str,
    cursor: Callable[[Any], str],
    is_after: Callable[[Any], bool] | None = None,
    bytes_max: int | None = None,
    encode: Encode = encode,
) -> dict[str, Any]:
    """`document` with a page of its member `name`: its items, encoded, up to the one that reaches `bytes_max`
    (None: `PAGE_BYTES`). Large values of items that are not on the page are not read.

    The items are pairs of the member's key and value if it is an object. If there are more, `next_after` is the cursor
    of the last item. `is_after`: whether an item is behind the cursor of the previous page.
    """
    member = document[name]
    bytes_max = PAGE_BYTES if bytes_max is None else bytes_max
    page: list[Any] = []
    size, last = 0, None
    for item in member.items() if isinstance(member, dict) else member:
        if is_after is not None and not is_after(item):
            continue
        if size >= bytes_max:
            document["next_after"] = cursor(last)
            break
        text = encode(item[1] if isinstance(member, dict) else item)
        size, last = size + len(text), item
        page.append((item[0], msgspec.Raw(text)) if isinstance(member, dict) else msgspec.Raw(text))
    document[name] = dict(page) if isinstance(member, dict) else page
    return document


def bounded_by_key(document: dict[str, Any], name: str, after: str | None, encode: Encode = encode) -> dict[str, Any]:
    """`document` with a page of its member `name`: of the settings behind the key `after`, or of those with greater
    keys if it is not there any more."""
    keys = list(document[name])
    if after in keys:
        behind = frozenset(keys[keys.index(after) + 1 :])
        return bounded(document, name, _first, lambda pair: pair[0] in behind, encode=encode)
    return bounded(document, name, _first, None if after is None else lambda pair: pair[0] > after, encode=encode)


def bounded_differences(document: dict[str, Any], after: str | None, encode: Encode = encode) -> dict[str, Any]:
    is_after = None if after is None else lambda row: row["setting"] > after
    return bounded(document, "differences", _setting, is_after, encode=encode)


def bounded_intervals(
    document: dict[str, Any], after: tuple[str, str] | None, encode: Encode = encode
) -> dict[str, Any]:
    """`after`: a setting, and the end of its last interval on the previous page ("": it has no end)."""

    def is_after(interval: dict[str, Any]) -> bool:
        setting, end = after or ("", "")
        if interval["setting"] != setting:
            return bool(interval["setting"] > setting)
        return end != "" and (interval["until"] is None or interval["until"] > end)

    return bounded(document, "intervals", _interval_cursor, is_after if after else None, encode=encode)


_first: Final = itemgetter(0)
_setting: Final = itemgetter("setting")


def _interval_cursor(interval: dict[str, Any]) -> str:
    return f"{interval['setting']}@{interval['until'] or ''}"


def receipts_json(receipts: Sequence[Receipt], outlooks: Sequence[EventOutlook]) -> dict[str, Any]:
    """`outlooks`: of the receipts, in their order."""
    return {
        "receipts": [
            receipt_json(receipt) | outlook_json(outlook) for receipt, outlook in zip(receipts, outlooks, strict=True)
        ],
        "position": receipts[-1].position,
    }


def proved_receipts_json(document: dict[str, Any], proofs: Sequence[bytes] | None) -> dict[str, Any]:
    """The receipts with the proofs of their events, in their order. None: no checkpoint was published in time."""
    receipts = document["receipts"]
    texts = [None] * len(receipts) if proofs is None else [proof.decode() for proof in proofs]
    proved = [receipt | {"proof": text} for receipt, text in zip(receipts, texts, strict=True)]
    return document | {"receipts": proved}


def receipt_json(receipt: Receipt) -> dict[str, Any]:
    """The members of a receipt that the ledger knows."""
    return {
        "event_id": receipt.event_id,
        "position": receipt.position,
        "subject": receipt.subject,
        "version": receipt.version,
        "recorded_at": format_time(receipt.recorded_at),
        "effective_from": _time_or_null(receipt.effective_from),
        "effective_until": _time_or_null(receipt.effective_until),
    }


def outlook_json(outlook: EventOutlook) -> dict[str, Any]:
    """The members of a receipt about what follows."""
    return {
        "holds_until": _time_or_null(outlook.outlook.holds_until),
        "still_scheduled": [
            {
                "position": change.position,
                "effective_from": format_time(change.effective_from),
                "effective_until": _time_or_null(change.effective_until),
                "value": change.value,
            }
            for change in outlook.outlook.still_scheduled
        ],
        "still_scheduled_left_out": outlook.outlook.left_out,
        "retracts": outlook.retracts,
        "warnings": [warning._asdict() for warning in outlook.warnings],
    }


def feed_json(entries: Iterable[Entry], next_after: int, head: int) -> dict[str, Any]:
    return {"events": [msgspec.Raw(entry.leaf) for entry in entries], "next_after": next_after, "head": head}


def subjects_json(position: int, rows: Sequence[SubjectRow], limit: int) -> dict[str, Any]:
    return {
        "subjects": [row._asdict() for row in rows],
        "next_after": rows[-1].subject if len(rows) == limit else None,
        "position": position,
    }


def state_json(answer: StateAnswer) -> dict[str, Any]:
    return {
        "subject": answer.subject,
        "at": format_time(answer.at),
        "known_at": format_time(answer.known_at),
        "position": answer.position,
        "version": answer.version,
        "settings": {
            key: _setting_json(state) | {"next": _next_json(answer.next.get(key))}
            for key, state in answer.settings.items()
        },
        **_notice_json(answer.clock_notice),
    }


def _notice_json(notice: ClockNotice | None) -> dict[str, Any]:
    return {} if notice is None else {"clock_notice": clock_notice_json(notice)}


def _next_json(following: NextState | None) -> dict[str, Any] | None:
    if following is None:
        return None
    deciding = following.deciding
    return {
        "position": None if deciding is None else deciding.position,
        "effective_from": format_time(following.start),
        "value": following.state.value,
        "source": following.state.source,
    }


def _setting_json(state: SettingState) -> dict[str, Any]:
    members = {"value": state.value, "source": state.source} | change_json(state.change)
    if state.cleared_by is not None:
        members["cleared_by"] = change_json(state.cleared_by)
    return members


def timeline_json(answer: TimelineAnswer) -> dict[str, Any]:
    return {
        "subject": answer.subject,
        "known_at": IN_FORCE if answer.known_at is None else format_time(answer.known_at),
        "position": answer.position,
        "intervals": [_interval_json(interval) for interval in answer.intervals],
        **_notice_json(answer.clock_notice),
    }


def _interval_json(interval: Interval) -> dict[str, Any]:
    return {
        "setting": interval.setting,
        "value": interval.value,
        "source": interval.source,
        "from": None if interval.start == BEGINNING else format_time(interval.start),
        "until": None if interval.until == END else format_time(interval.until),
        "event_id": None if interval.change is None else interval.change.event_id,
    }


def history_json(answer: HistoryAnswer, *, with_reasons: bool = True) -> dict[str, Any]:
    """`with_reasons` False: an event that has a reason is marked, and the reason left out."""
    return {
        "subject": answer.subject,
        "events": [
            {
                "event": msgspec.Raw(row.entry.leaf),
                "reason": row.reason if with_reasons else None,
                **({} if with_reasons or row.reason is None else {"reason_withheld": True}),
                "retracted_by": row.retracted_by,
                "holds_until": _time_or_null(row.holding and row.holding.now),
                "holds_until_at_recording": _time_or_null(row.holding and row.holding.at_recording),
            }
            for row in answer.rows
        ],
        "next_after": answer.next_after,
        "position": answer.position,
        **_notice_json(answer.clock_notice),
    }


def diff_json(subject: str, start: int, end: int, answer: DiffAnswer) -> dict[str, Any]:
    return {
        "subject": subject,
        "from": format_time(start),
        "to": format_time(end),
        "known_at": IN_FORCE if answer.known_at is None else format_time(answer.known_at),
        "position": answer.position,
        "differences": [
            {
                "setting": difference.after.setting,
                "before": _setting_json(difference.before),
                "after": _setting_json(difference.after),
                "changed_by": [_assertion_json(assertion) for assertion in difference.changed_by],
            }
            for difference in answer.differences
        ],
        **_notice_json(answer.clock_notice),
    }


def _assertion_json(assertion: Change | Retraction) -> dict[str, Any]:
    if isinstance(assertion, Retraction):
        return retraction_json(assertion)
    return {"setting": assertion.setting, "value": assertion.value} | change_json(assertion)


def catalog_json(at: int, answer: CatalogAnswer) -> dict[str, Any]:
    return {
        "at": format_time(at),
        "known_at": format_time(answer.known_at),
        "position": answer.position,
        "settings": {key: _definition_json(change) for key, change in answer.definitions.items()},
        **_notice_json(answer.clock_notice),
    }


def _definition_json(change: Change) -> dict[str, Any]:
    members: Mapping[str, Any] = change.value if isinstance(change.value, dict) else {}
    event = change_json(change)
    del event["effective_until"]
    return {**members, **event}


def decisions_json(decisions: Sequence[Decision]) -> dict[str, Any]:
    return {
        "decisions": [decision_json(decision) for decision in decisions],
        "position": decisions[0].as_of.position,
    }


def _time_or_null(instant: int | None) -> str | None:
    return None if instant is None else format_time(instant)
