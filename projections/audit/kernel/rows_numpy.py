"""All rows of a batch decided at once with NumPy, for where there is no Numba: the same over the same arrays.

What `rows_numba` asks of one row is here a mask over all of them. Proved by
tests/audit/kernel/test_against_reference.py.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from projections.audit.index.schema import (
    ACCOUNT,
    ATTACHED_CODE,
    BIT_CLEARED,
    BIT_FALSE,
    BIT_TRUE,
    BIT_UNSET,
    CACHING,
    CLEARED,
    HOSTED,
    HOSTING,
    KEY,
    MODEL,
    MODEL_REGIONS,
    NETWORK,
    NULL,
    ORG,
    OWNER_CODE,
    PASSED_THROUGH,
    PASSTHROUGH,
    POLICY_URL,
    PROJECT,
    PROVIDER,
    RESIDENCY,
    STORAGE,
    TRAINING,
    UNSET,
    Int32s,
    Int64s,
    UInt32s,
)
from projections.audit.kernel.answers import (
    BY_PROVIDER,
    MAY_CACHE,
    MAY_LEAVE,
    MAY_STORE,
    MAY_TRAIN,
    NOBODY,
    NONE,
    PRIVATE_ONLY,
    THE_ACCOUNT,
    THE_ORG,
    Answers,
    UInt16s,
)
from projections.audit.kernel.rows import (
    HAS_CACHED,
    HAS_STORED,
    HAS_TRAINED,
    IN_PUBLIC,
    NULL_ID,
    WAS_OBSERVED,
    Ids,
    Observed,
)
from projections.audit.kernel.tables import Bools, Catalog, Tables
from projections.audit.schemas import REASON_NAMES, VERDICT_NAMES
from projections.decisions.model import Reason
from projections.decisions.scope import CHAIN_MAX

_BIT: Final[dict[Reason, int]] = {reason: 1 << place for place, reason in enumerate(REASON_NAMES)}
_VERDICT: Final = {verdict: place for place, verdict in enumerate(VERDICT_NAMES)}
_NOBODY_ON_THE_WAY: Final = -9


class Axis(NamedTuple):
    """What rows are decided with: `at` and `steps` of each, and whether it is the later axis."""

    t: Tables
    c: Catalog
    at: Int64s
    steps: Int64s
    later: bool

    def of(self, rows: Int64s) -> Axis:
        return self._replace(at=self.at[rows], steps=self.steps[rows])


class Chain(NamedTuple):
    """`scope._governing` by row. problem: a reason's bit, or 0. via, via_kind: [rows, 9], filled with -9. explicit,
    newest, whose: [rows, 8], of the states that led there: positions or 0, positions or 0, codes."""

    code: Int64s
    kind: Int64s
    problem: Int64s
    looked: Bools
    via: Int64s
    via_kind: Int64s
    explicit: Int64s
    newest: Int64s
    whose: Int64s


class States(NamedTuple):
    """Of settings first …, each [rows, settings]. Where undefined the value is NULL and `newest` 0."""

    value: Int64s
    newest: Int64s
    explicit: Int64s


class Breach(NamedTuple):
    reason: Reason
    rows: Bools
    newest: Int64s


def decide_rows(t: Tables, c: Catalog, steps: Int64s, later: bool, ids: Ids, done: Observed) -> Answers:
    """What is answered to each row on one axis, but for those that are to be looked at `again`. `steps`: of `c`."""
    axis = Axis(t, c, done.at, steps, later)
    key, account, org, project, model = (codes.astype(np.int64) for codes in ids)
    first, beside = _resolved(axis, key, account, org, project)
    policy = _policy(axis, first.code, first.kind)
    of_model = _model(axis, model)
    undefined = (c.position[steps, :6] == 0).any(1)
    problem = np.where((first.problem == 0) & undefined, _BIT["before_first_record"], first.problem)
    resolved, asked = problem == 0, model != NULL_ID
    looked = first.looked | _differs(axis, np.where(resolved, model, -1))
    state = States(*(np.concatenate(both, 1) for both in zip(policy, of_model, strict=True)))
    hosting = np.where(asked, state.value[:, HOSTING], NULL)
    breaches = [
        breach._replace(rows=breach.rows & resolved)
        for breach in (*_denials(t, state, asked), *_misdeeds(t, state, done, hosting))
    ]
    was_observed = done.deeds & WAS_OBSERVED != 0
    breached = np.zeros(len(done.at), np.bool_)
    for breach in breaches:
        breached |= breach.rows
    allowed = state.value[:, PASSTHROUGH] == BIT_TRUE
    unsure = ~asked | ((hosting == PASSED_THROUGH) & (state.value[:, PROVIDER] == NULL))
    unknown = (asked & (hosting == NULL)) | ((done.forwarded_to != NULL_ID) & allowed & unsure)
    excusable = was_observed & breached & (done.enforced >= 0)
    newest_led = np.maximum(first.newest.max(1), beside.newest.max(1))
    reasons, lags = _excused(t, done, breaches, excusable, newest_led)
    reasons |= np.where(unknown, _BIT["unknown_model"], 0).astype(np.uint16)
    verdict = np.where(was_observed, _VERDICT["compliant"], _VERDICT["allowed"])
    verdict = np.where(unknown, _VERDICT["indeterminate"], verdict)
    verdict = np.where(breached, np.where(was_observed, _VERDICT["violation"], _VERDICT["denied"]), verdict)
    counts, positions = _positions(first, beside, state, resolved, asked)
    handling, codes = _handling(axis, first, state, hosting, asked, resolved)
    return Answers(
        np.where(resolved, verdict, _VERDICT["indeterminate"]).astype(np.int8),
        np.where(resolved, reasons, problem).astype(np.uint16),
        codes,
        handling.astype(np.uint8),
        looked,
        lags,
        _again(t, done.enforced, excusable, [first.code, model, *first.whose.T, *beside.whose.T]),
        counts,
        positions,
    )


def _resolved(axis: Axis, key: Int64s, account: Int64s, org: Int64s, project: Int64s) -> tuple[Chain, Chain]:
    """`scope.resolve`: the way from the first that is named, with all that is wrong with it, and the project's."""
    named = [key != NULL_ID, project != NULL_ID, org != NULL_ID]
    first = _chain(axis, np.select(named, [key, project, org], account), np.select(named, [KEY, PROJECT, ORG], ACCOUNT))
    start_kind = first.via_kind[:, 0]
    on_the_way = ((first.via == project[:, None]) & (project[:, None] >= 0)).any(1)
    rows = np.flatnonzero((first.problem == 0) & named[0] & named[1] & ~on_the_way)
    found = _chain(axis.of(rows), project[rows], np.full(len(rows), PROJECT))
    beside = Chain._make(_spread(column, rows, len(key)) for column in found)
    # There may be no subject 0.
    whose = np.full(beside.whose.shape, NULL_ID, np.int64)
    whose[rows] = found.whose
    beside = beside._replace(whose=whose)
    problem = np.where(beside.problem != 0, beside.problem, first.problem)
    other = np.zeros(len(key), np.bool_)
    other[rows] = (found.problem == 0) & (found.code != first.code[rows])
    other |= (org != NULL_ID) & (start_kind != ORG) & (org != first.code)
    accounts = first.via_kind == ACCOUNT
    is_it = (accounts & (first.via == account[:, None])).any(1) & (account >= 0)
    otherwise = (accounts.sum(1) > 1) | ((start_kind != ACCOUNT) & ~is_it)
    other |= (account != NULL_ID) & accounts.any(1) & otherwise
    problem = np.where((problem == 0) & other, _BIT["scope_conflict"], problem)
    return first._replace(problem=problem, looked=first.looked | beside.looked), beside


def _spread(column: NDArray[Any], rows: Int64s, total: int) -> NDArray[Any]:
    """The column of some rows as one of all, with zeros."""
    whole = np.zeros((total, *column.shape[1:]), column.dtype)
    whole[rows] = column
    return whole


def _chain(axis: Axis, code: Int64s, kind: Int64s) -> Chain:
    t, c, rows = axis.t, axis.c, len(code)
    code, kind = code.astype(np.int64), kind.astype(np.int64)
    problem, looked = np.zeros(rows, np.int64), np.zeros(rows, np.bool_)
    via, via_kind = (np.full((rows, CHAIN_MAX + 1), _NOBODY_ON_THE_WAY, np.int64) for _ in range(2))
    explicit, newest, whose = (np.full((rows, CHAIN_MAX), fill, np.int64) for fill in (0, 0, NULL_ID))
    going = np.arange(rows)
    for hop in range(CHAIN_MAX + 1):
        via[going, hop], via_kind[going, hop] = code[going], kind[going]
        looked[going] |= _differs(axis, code[going])
        follows = np.isin(kind[going], (KEY, PROJECT, ACCOUNT))
        if hop:
            # What an account is attached to is not followed further.
            follows &= via_kind[going, hop - 1] != ACCOUNT
        going = going[follows]
        if not len(going):
            break
        is_account = kind[going] == ACCOUNT
        setting = np.where(is_account, ATTACHED_CODE, OWNER_CODE)
        steps = axis.steps[going]
        defined = c.position[steps, setting].astype(np.int64)
        applies = (c.kinds[steps, setting] >> kind[going] & 1 == 1) & (defined > 0)
        row = _links_at(axis, going, code[going])
        held = np.maximum(row, 0) if len(t.link_at) else np.zeros(0, np.int64)
        own = np.where(applies & (row >= 0), t.link_target[held] if len(held) else UNSET, UNSET).astype(np.int64)
        said = np.where(own != UNSET, t.link_position[held] if len(held) else 0, 0).astype(np.int64)
        is_said = (own != UNSET) & (own != CLEARED)
        explicit[going, hop] = np.where(is_said, said, 0)
        newest[going, hop] = np.where(is_said, said, np.maximum(defined, said))
        whose[going, hop] = code[going]
        target = np.where(is_said, own, c.default[steps, setting].astype(np.int64))
        lost = (target < 0) | (hop + 1 == CHAIN_MAX)
        wrong = np.where(~is_account & lost, _BIT["unknown_owner"], 0)
        wrong = np.where(defined == 0, _BIT["before_first_record"], wrong)
        problem[going] = wrong
        on = (wrong == 0) & (target >= 0)
        going = going[on]
        code[going] = target[on]
        kind[going] = t.kinds[target[on]]
    nowhere = (problem == 0) & ~np.isin(kind, (ACCOUNT, ORG))
    problem[nowhere] = _BIT["unknown_owner"]
    return Chain(code, kind, problem, looked, via, via_kind, explicit, newest, whose)


def _differs(axis: Axis, code: Int64s) -> Bools:
    """Whether the subject is another on the later axis."""
    found = np.zeros(len(code), np.bool_)
    known = code >= 0
    found[known] = axis.t.later[code[known]] >= 0
    return found


def _links_at(axis: Axis, rows: Int64s, code: Int64s) -> Int64s:
    t = axis.t
    columns = (t.link_start, t.link_count, t.later_link_start, t.later_link_count)
    return _rows_at(axis, t.link_at, columns, axis.at[rows], code)


def _rows_at(
    axis: Axis,
    instants: Int64s,
    columns: tuple[UInt32s, ...],
    at: Int64s,
    code: Int64s,
) -> Int64s:
    """The row of each subject's slice that holds at `at`, or -1."""
    starts, counts, later_starts, later_counts = columns
    found = np.full(len(code), -1, np.int64)
    known = np.flatnonzero(code >= 0)
    code, at = code[known], at[known]
    first, count = starts[code].astype(np.int64), counts[code].astype(np.int64)
    if axis.later:
        place = axis.t.later[code]
        there = place >= 0
        first[there], count[there] = later_starts[place[there]], later_counts[place[there]]
    low, high = np.zeros(len(code), np.int64), count
    left = np.flatnonzero(low < high)
    while len(left):
        middle = (low[left] + high[left]) >> 1
        early = instants[first[left] + middle] <= at[left]
        low[left[early]] = middle[early] + 1
        high[left[~early]] = middle[~early]
        left = left[low[left] < high[left]]
    found[known] = np.where(low > 0, first + low - 1, -1)
    return found


def _policy(axis: Axis, code: Int64s, kind: Int64s) -> States:
    t = axis.t
    row = _rows_at(axis, t.policy_at, _of_state(t), axis.at, np.where(np.isin(kind, (ACCOUNT, ORG)), code, -1))
    held = np.flatnonzero(row >= 0)
    own = np.full((len(code), 6), UNSET, np.int64)
    bits = t.policy_states[row[held]][:, None].astype(np.int64) >> np.arange(0, 18, 3) & 7
    bits[:, RESIDENCY] = np.where(bits[:, RESIDENCY] > BIT_CLEARED, BIT_TRUE, bits[:, RESIDENCY])
    values = np.where(bits == BIT_UNSET, UNSET, np.where(bits == BIT_CLEARED, CLEARED, bits))
    regions = t.policy_regions[row[held]]
    values[:, RESIDENCY] = np.where(values[:, RESIDENCY] > 0, regions, values[:, RESIDENCY])
    own[held] = values
    said = np.zeros((len(code), 6), np.int64)
    said[held] = t.policy_positions[row[held]]
    return _effective(axis, slice(0, 6), kind, own, said)


def _model(axis: Axis, code: Int64s) -> States:
    t = axis.t
    row = _rows_at(axis, t.model_at, _of_state(t), axis.at, code)
    held = np.flatnonzero(row >= 0)
    own, said = np.full((len(code), 4), UNSET, np.int64), np.zeros((len(code), 4), np.int64)
    own[held], said[held] = t.model_values[row[held]], t.model_positions[row[held]]
    return _effective(axis, slice(6, 10), np.full(len(code), MODEL), own, said)


def _of_state(t: Tables) -> tuple[UInt32s, ...]:
    return t.state_start, t.state_count, t.later_state_start, t.later_state_count


def _effective(axis: Axis, settings: slice, kind: Int64s, own: Int64s, said: Int64s) -> States:
    """`state.effective`."""
    c, steps = axis.c, axis.steps
    defined = c.position[steps, settings].astype(np.int64)
    applies = (c.kinds[steps, settings] >> kind[:, None] & 1 == 1) & (defined > 0)
    explicit = applies & (own != UNSET) & (own != CLEARED)
    default = np.where(defined > 0, c.default[steps, settings], NULL)
    cleared = np.where(applies & (own == CLEARED), said, 0)
    return States(
        np.where(explicit, own, default),
        np.where(explicit, said, np.maximum(defined, cleared)),
        np.where(explicit, said, 0),
    )


def _denials(t: Tables, state: States, asked: Bools) -> list[Breach]:
    value, newest = state.value.T, state.newest.T
    passed = asked & (value[HOSTING] == PASSED_THROUGH)
    both = asked & (value[RESIDENCY] > 0) & (value[MODEL_REGIONS] > 0)
    apart = np.zeros(len(asked), np.bool_)
    pairs, which = np.unique(
        np.stack([value[RESIDENCY][both], value[MODEL_REGIONS][both]]), axis=1, return_inverse=True
    )
    meet = [bool(set(_members(t, one)) & set(_members(t, other))) for one, other in pairs.T]
    apart[both] = ~np.array(meet, np.bool_)[which]
    newest_both = np.maximum(newest[PASSTHROUGH], newest[HOSTING])
    return [
        Breach("passthrough_not_allowed", passed & (value[PASSTHROUGH] != BIT_TRUE), newest_both),
        Breach("outside_residency", apart, np.maximum(newest[RESIDENCY], newest[MODEL_REGIONS])),
    ]


def _misdeeds(t: Tables, state: States, done: Observed, hosting: Int64s) -> list[Breach]:
    value, newest = state.value.T, state.newest.T
    found = [
        Breach(reason, (done.deeds & bit != 0) & (value[setting] != BIT_TRUE), newest[setting])
        for reason, bit, setting in _DEEDS
    ]
    limited = (value[RESIDENCY] > 0) & (done.region != NULL_ID)
    outside = np.zeros(len(limited), np.bool_)
    pairs, which = np.unique(np.stack([value[RESIDENCY][limited], done.region[limited]]), axis=1, return_inverse=True)
    outside[limited] = ~np.array([one in _members(t, of) for of, one in pairs.T], np.bool_)[which]
    found.append(Breach("outside_residency", outside, newest[RESIDENCY]))
    public = done.deeds & IN_PUBLIC != 0
    found.append(Breach("public_network", public & (value[NETWORK] == BIT_TRUE), newest[NETWORK]))
    sent, allowed = done.forwarded_to != NULL_ID, value[PASSTHROUGH] == BIT_TRUE
    found.append(Breach("left_platform", sent & (hosting == HOSTED), newest[HOSTING]))
    other = (value[PROVIDER] != NULL) & (value[PROVIDER] != done.forwarded_to)
    wrong = sent & (hosting == PASSED_THROUGH) & allowed & other
    found.append(Breach("wrong_provider", wrong, np.maximum(newest[PROVIDER], newest[HOSTING])))
    neither = (hosting != HOSTED) & (hosting != PASSED_THROUGH)
    found.append(Breach("left_platform", sent & neither & ~allowed, newest[PASSTHROUGH]))
    return found


_DEEDS: Final[tuple[tuple[Reason, int, int], ...]] = (
    ("stored_against_setting", HAS_STORED, STORAGE),
    ("cached_against_setting", HAS_CACHED, CACHING),
    ("trained_without_opt_in", HAS_TRAINED, TRAINING),
)


def _members(t: Tables, of: int) -> list[int]:
    found: list[int] = t.set_members[t.set_offsets[of] : t.set_offsets[of + 1]].tolist()
    return found


def _excused(
    t: Tables, done: Observed, breaches: list[Breach], excusable: Bools, newest_led: Int64s
) -> tuple[UInt16s, Int64s]:
    """`check._excuse`, but for what was taken back: reasons, and lags."""
    reasons, lags = np.zeros(len(done.at), np.uint16), np.zeros((len(done.at), 2), np.int64)
    for breach in breaches:
        newest = np.maximum(breach.newest, newest_led)
        late = breach.rows & excusable & (newest > done.enforced)
        reasons[breach.rows & ~late] |= np.uint16(_BIT[breach.reason])
        reasons[late] |= np.uint16(_BIT["enforcement_lag"])
        lag = np.maximum(0, done.at - t.since[np.where(late, newest, 0)])
        more = late & ((lag > lags[:, 0]) | ((lag == lags[:, 0]) & (newest > lags[:, 1])))
        lags[more] = np.stack([lag, newest], 1)[more]
    return reasons, lags


def _again(t: Tables, enforced: Int64s, excusable: Bools, looked_at: list[Int64s]) -> Bools:
    """Whether anything that was looked at was retracted after the position that was enforced."""
    again = np.zeros(len(enforced), np.bool_)
    last: dict[int, int] = {}
    for codes in looked_at:
        rows = np.flatnonzero(excusable & (codes >= 0))
        places = t.said_of[codes[rows]]
        rows, places = rows[places >= 0], places[places >= 0].tolist()
        for place in set(places) - last.keys():
            said = slice(int(t.said_start[place]), int(t.said_start[place]) + int(t.said_count[place]))
            last[place] = max(t.said_position[said][t.said_retracts[said] > 0].tolist(), default=-1)
        again[rows] |= np.array([last[place] for place in places], np.int64) > enforced[rows]
    return again


def _positions(first: Chain, beside: Chain, state: States, resolved: Bools, asked: Bools) -> tuple[Int32s, Int64s]:
    """The explicit states' positions in the order of the evidence, each once."""
    led = np.concatenate([first.explicit, beside.explicit], 1)
    for place in range(1, led.shape[1]):
        # One chain may run in a circle, or two into one.
        led[(led[:, :place] == led[:, place, None]).any(1), place] = 0
    explicit = np.where(resolved[:, None], state.explicit, 0)
    explicit[~asked, 6:] = 0
    every = np.concatenate([led, explicit], 1)
    return (every > 0).sum(1, dtype=np.int32), every[every > 0]


def _handling(
    axis: Axis, first: Chain, state: States, hosting: Int64s, asked: Bools, resolved: Bools
) -> tuple[Int64s, Int32s]:
    """`check._handling`, and where nobody governs that of `check._unresolved`: bits, and `Answers.codes`."""
    value, protective = state.value.T, axis.c.protective[axis.steps].T
    leaves = (value[PASSTHROUGH] == BIT_TRUE) & (~asked | (hosting == PASSED_THROUGH))
    passed = hosting == PASSED_THROUGH
    handling = MAY_LEAVE * leaves + BY_PROVIDER * passed + PRIVATE_ONLY * (value[NETWORK] == BIT_TRUE)
    unresolved = MAY_LEAVE * (protective[PASSTHROUGH] == BIT_TRUE) + PRIVATE_ONLY * (protective[NETWORK] != BIT_FALSE)
    for setting, bit in ((STORAGE, MAY_STORE), (CACHING, MAY_CACHE), (TRAINING, MAY_TRAIN)):
        handling += bit * (value[setting] == BIT_TRUE)
        unresolved += bit * (protective[setting] == BIT_TRUE)
    governing = np.where(first.code >= 0, first.code, np.where(first.kind == ORG, THE_ORG, THE_ACCOUNT))
    regions = np.where(value[RESIDENCY] > 0, value[RESIDENCY], NONE)
    codes = [
        np.where(resolved, governing, NOBODY),
        np.where(resolved, regions, np.maximum(protective[RESIDENCY], 0)),
        np.where(resolved & passed, np.maximum(value[PROVIDER], NONE), NONE),
        np.where(resolved & passed, np.maximum(value[POLICY_URL], NONE), NONE),
    ]
    return np.where(resolved, handling, unresolved), np.stack(codes, 1).astype(np.int32)
