"""The decision rules, compiled: `scope.resolve`, `check.decision_basis` and `check.evaluate` over a policy index.

Each function does in codes what the function does that its docstring names. Numba inlines all of them into one, because
a call with some forty arrays costs more than most of these functions do. They stand in one file, which is therefore
long, because Numba compiles anew when this file changes, and looks at no other. Constants come from the pure rules and
from the index (see `constants_key`).
Proved by tests/audit/kernel/test_against_reference.py.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from ledger.times import BEGINNING, END
from projections.audit.arrays import Int64s
from projections.audit.index.schema import (
    ACCOUNT,
    ATTACHED_CODE,
    BIT_FALSE,
    BIT_OTHER,
    BIT_TRUE,
    CACHING,
    CLEARED,
    EMPTY_SET,
    HOSTED,
    HOSTING,
    KEY,
    MODEL,
    MODEL_REGIONS,
    NETWORK,
    NULL,
    ORG,
    OTHER,
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
    UNDECIDED,
    RowAnswers,
    empty_answers,
)
from projections.audit.kernel.index_tables import PACKED, CatalogTables, IndexTables
from projections.audit.kernel.places import (
    DENIED_REGION,
    ELSEWHERE,
    FACTORS,
    NO_MODEL,
    OUTSIDE_REGION,
    RETRACTED,
    UNKNOWN_REGION_BIT,
    UNTOLD_RECEIVER,
    WRONG_RECEIVER,
    Outcomes,
    PlaceTables,
)
from projections.audit.kernel.request_columns import (
    HAS_CACHED,
    HAS_STORED,
    HAS_TRAINED,
    IN_PUBLIC,
    NULL_ID,
    SAYS_HOW_SERVED,
    WAS_OBSERVED,
    RequestColumns,
    RequestIds,
)
from projections.audit.numba_support import compiled, constants_key, part
from projections.audit.schemas import REASON_NAMES, VERDICT_NAMES
from projections.decisions.model import Reason, Verdict
from projections.decisions.published import PUBLISHED
from projections.decisions.rule_settings import OF_MODEL, POLICY
from projections.decisions.scope import CHAIN_MAX


def _code(verdict: Verdict) -> int:
    return VERDICT_NAMES.index(verdict)


def _bit(reason: Reason) -> int:
    return 1 << REASON_NAMES.index(reason)


ALLOWED, DENIED, INDETERMINATE = _code("allowed"), _code("denied"), _code("indeterminate")
COMPLIANT, VIOLATION = _code("compliant"), _code("violation")
BEFORE_FIRST, CONFLICT, LAG = _bit("before_first_record"), _bit("scope_conflict"), _bit("enforcement_lag")
UNKNOWN_REGION, SERVED_ELSEWHERE = _bit("unknown_region"), _bit("served_elsewhere")
UNKNOWN_OWNER, UNKNOWN_MODEL = _bit("unknown_owner"), _bit("unknown_model")
UNDECIDABLE, UNKNOWN_SUBJECT = _bit("undecidable_value"), _bit("unknown_subject")
NOT_ALLOWED, LEFT = _bit("passthrough_not_allowed"), _bit("left_platform")
WRONG_PROVIDER, OUTSIDE, PUBLIC_NETWORK = _bit("wrong_provider"), _bit("outside_residency"), _bit("public_network")
STORED, CACHED = _bit("stored_against_setting"), _bit("cached_against_setting")
TRAINED, NOT_AS_PUBLISHED = _bit("trained_without_opt_in"), _bit("not_as_published")
FACTOR_0, FACTOR_1, FACTOR_2, FACTOR_3 = (np.uint64(factor) for factor in FACTORS)
OF_POLICY, OF_BOTH = len(POLICY), len(POLICY) + len(OF_MODEL)
OF_ALL: Final = OF_BOTH + len(PUBLISHED)
"""How many settings the governing subject has, and how many it and the model have, without the published ones and with
them. Its own come first in `SETTINGS`."""
UNDECIDABLE_PUBLISHED: Final = 1 << len(PUBLISHED)
"""A bit of what `_served` returns."""


OWN_OF_BITS: Final[Any] = np.array([UNSET, CLEARED, *range(2, 8)])
"""By the three bits of a switch: the value's code. BIT_UNSET and BIT_CLEARED come first."""
VERDICT_OF: Final[Any] = np.array(
    [ALLOWED, COMPLIANT, INDETERMINATE, INDETERMINATE, DENIED, VIOLATION, DENIED, VIOLATION], np.int8
)
"""By three bits: 4 for a reason against the request, 2 for something unknown, 1 if handling was observed."""

# Columns of `scratch`, which holds notes on one row. How many subjects led to the governing one, and how many links;
# the codes and kinds of those subjects; and of each link its position if it is explicit (else 0), the position of its
# `newest` event, and its subject's code.
VIAS, LINKS, VIA, VIA_KIND, LINK_EXPLICIT, LINK_NEWEST, LINK_CODE, STATES_AT = 0, 1, 2, 18, 34, 66, 98, 130
# From STATES_AT on, the states of the governing subject and the model: values, positions of `newest`, explicit
# positions.
VALUE, NEWEST, EXPLICIT, STATES = 0, OF_ALL, 2 * OF_ALL, 3 * OF_ALL
# Then a subject's own values and their positions, and the breaches.
OWN, OWN_POSITIONS, BREACHES = STATES_AT + STATES, STATES_AT + STATES + OF_ALL, STATES_AT + STATES + 2 * OF_ALL
# Then the newest events of regions and providers.
NEWEST_OF = BREACHES + 40
BLOCK, HOPS = 256, 2
# Rows of `prefetched`, after two rows for each hop.
GOVERNING, POLICY_ROW, LATER_POLICY_ROW, ROOM, TOUCHED, PREFETCHED = 4, 5, 6, 7, 9, 10
# Columns of `IndexTables.packed`.
LINK_START, LINK_COUNT, STATE_START, STATE_COUNT, LATER, ASSERTIONS_OF, KIND = range(len(PACKED))


@part
def _row_at(instants: Any, first: Any, count: Any, instant: Any) -> Any:
    """The last of the rows first … first + count - 1 that began by `instant`, or -1."""
    # Arithmetic instead of a branch that the processor cannot predict.
    before, left = np.int64(first) - 1, np.int64(count)
    while left > 0:
        half = (left + 1) >> 1
        before += half if instants[before + half] <= instant else 0
        left -= half
    return before if before >= np.int64(first) else np.int64(-1)


@part
def _row_of(rows: Any, first: Any, count: Any, instant: Any) -> Any:
    """`_row_at` for rows whose first column is the instant."""
    before, left = np.int64(first) - 1, np.int64(count)
    while left > 0:
        half = (left + 1) >> 1
        before += half if rows[before + half, 0] <= instant else 0
        left -= half
    return before if before >= np.int64(first) else np.int64(-1)


@part
def _rows_of(rows: Any, starts: Any, counts: Any, instants: Any, first: Any, size: Any, places: Any) -> None:
    """`_row_of` for `size` rows of a log from `first` on, each in its own slice. All searches take each step together,
    so that they wait for memory together. Overwrites `counts`."""
    most = np.int64(0)
    for at in range(size):
        places[at] = starts[at] - 1
        most = max(most, counts[at])
    while most > 0:
        for at in range(size):
            # A search that has ended stays where it is.
            half = (counts[at] + 1) >> 1
            places[at] += half if rows[max(places[at] + half, 0), 0] <= instants[first + at] else 0
            counts[at] -= half
        most >>= 1
    for at in range(size):
        places[at] = places[at] if places[at] >= starts[at] else -1


@part
def _lower(word: Any) -> Any:
    """The first of two columns that share a word, signed: a link's target."""
    return np.int64(np.int32(word & 0xFFFFFFFF))


@part
def _upper(word: Any) -> Any:
    """The second of them, unsigned: a link's position."""
    return word >> 32 & 0xFFFFFFFF


@part
def _fetch(index: Any, ids: Any, instants: Any, first: Any, size: Any, prefetched: Any) -> Any:
    """Follows the links of `size` rows from `first` on, on the index's axis, and loads what they reach into the
    processor's cache. All rows take each step together, so that they wait for memory together.

    prefetched: for each of the first HOPS links the subject's code and the link's row; then the code of the subject
    that they lead to, the row of its policy, and the row of its policy on the later axis, if that has rows of its own;
    -1 where there is no row; then two scratch rows.
    """
    subjects, codes, starts, counts = index.packed, prefetched[GOVERNING], prefetched[ROOM], prefetched[ROOM + 1]
    for at in range(size):
        key, project, org = ids.key[first + at], ids.project[first + at], ids.org[first + at]
        named = key if key != NULL_ID else project if project != NULL_ID else org
        codes[at] = named if named != NULL_ID else ids.account[first + at]
    for hop in range(HOPS):
        links = prefetched[2 * hop + 1]
        for at in range(size):
            code = codes[at]
            prefetched[2 * hop, at] = code
            starts[at] = subjects[code, LINK_START] if code >= 0 else 0
            counts[at] = subjects[code, LINK_COUNT] if code >= 0 else 0
        _rows_of(index.link_rows, starts, counts, instants, first, size, links)
        for at in range(size):
            if links[at] >= 0:
                target = _lower(index.link_rows[links[at], 1])
                codes[at] = target if target >= 0 else codes[at]
    places, touched = prefetched[LATER_POLICY_ROW], np.int64(0)
    for at in range(size):
        code = codes[at]
        governs = code >= 0 and subjects[code, KIND] in (ACCOUNT, ORG)
        touched += index.first_recorded_at[code] if governs else 0
        starts[at] = subjects[code, STATE_START] if governs else 0
        counts[at] = subjects[code, STATE_COUNT] if governs else 0
        places[at] = subjects[code, LATER] if governs else -1
    _rows_of(index.policy_rows, starts, counts, instants, first, size, prefetched[POLICY_ROW])
    for at in range(size):
        place = places[at]
        starts[at] = index.later_state_start[place] if place >= 0 else 0
        counts[at] = index.later_state_count[place] if place >= 0 else 0
    _rows_of(index.policy_rows, starts, counts, instants, first, size, prefetched[LATER_POLICY_ROW])
    for which in (POLICY_ROW, LATER_POLICY_ROW):
        for at in range(size):
            if prefetched[which, at] >= 0:
                touched += index.policy_rows[prefetched[which, at], 1] ^ index.policy_rows[prefetched[which, at], 4]
    return touched


@part
def _link_row(index: Any, later: Any, code: Any, instant: Any, prefetched: Any, prefetched_at: Any, hop: Any) -> Any:
    """The row of the link of `code` on the axis, and whether it has another target on the later axis.

    `prefetched`: from `_fetch`, for row `prefetched_at` of the block, or for none where that is negative.
    """
    if code < 0:
        return np.int64(-1), False
    place = np.int64(index.packed[code, LATER])
    if later and place >= 0:
        return _row_of(index.link_rows, index.later_link_start[place], index.later_link_count[place], instant), False
    if prefetched_at >= 0 and hop < HOPS and prefetched[2 * hop, prefetched_at] == code:
        row = prefetched[2 * hop + 1, prefetched_at]
    else:
        row = _row_of(index.link_rows, index.packed[code, LINK_START], index.packed[code, LINK_COUNT], instant)
    if place < 0:
        return row, False
    other = _row_of(index.link_rows, index.later_link_start[place], index.later_link_count[place], instant)
    if row < 0 or other < 0:
        return row, (row < 0) != (other < 0)
    return row, _lower(index.link_rows[row, 1]) != _lower(index.link_rows[other, 1])


@part
def _target(links: Any, row: Any, defined: Any, applies: Any, default: Any, code: Any, scratch: Any) -> Any:
    """`effective_state.effective` for `owner` or `attached_to`, noted in `scratch`: the target, negative where it is no
    reference."""
    at = scratch[LINKS]
    scratch[LINKS] = at + 1
    scratch[LINK_EXPLICIT + at], scratch[LINK_NEWEST + at], scratch[LINK_CODE + at] = 0, defined, code
    if not applies or row < 0:
        return default
    target, position = _lower(links[row, 1]), _upper(links[row, 1])
    if target == UNSET:
        return default
    if target == CLEARED:
        scratch[LINK_NEWEST + at] = max(defined, position)
        return default
    scratch[LINK_EXPLICIT + at] = scratch[LINK_NEWEST + at] = position
    return target


@part
def _governing(
    index: Any,
    catalog: Any,
    later: Any,
    code: Any,
    kind: Any,
    instant: Any,
    step: Any,
    scratch: Any,
    prefetched: Any,
    prefetched_at: Any,
) -> Any:
    """`scope._governing`: code, kind, problem, and whether a link may differ on the later axis.

    `prefetched`, `prefetched_at`: see `_link_row`.
    """
    vias = np.int64(0)
    may_differ = False
    while True:
        scratch[VIA + vias], scratch[VIA_KIND + vias] = code, kind
        vias += 1
        scratch[VIAS] = vias
        # The org that an account is attached to leads nowhere further.
        if kind not in (KEY, PROJECT, ACCOUNT) or (vias > 1 and scratch[VIA_KIND + vias - 2] == ACCOUNT):
            break
        setting = ATTACHED_CODE if kind == ACCOUNT else OWNER_CODE
        row, other = _link_row(index, later, code, instant, prefetched, prefetched_at, vias - 1)
        may_differ = may_differ or other
        position = np.int64(catalog.position[step, setting])
        applies = catalog.kinds[step, setting] >> kind & 1 == 1 and position > 0
        target = _target(
            index.link_rows, row, position, applies, np.int64(catalog.default[step, setting]), code, scratch
        )
        if position == 0:
            return code, kind, np.int64(BEFORE_FIRST), may_differ
        if target < 0 and kind == ACCOUNT:
            break
        if target < 0 or (vias == CHAIN_MAX and kind != ACCOUNT):
            return code, kind, np.int64(UNKNOWN_OWNER), may_differ
        code, kind = target, np.int64(index.packed[target, KIND])
    return code, kind, np.int64(0 if kind in (ACCOUNT, ORG) else UNKNOWN_OWNER), may_differ


@part
def _named_otherwise(code: Any, start_kind: Any, org: Any, account: Any, vias: Any, scratch: Any) -> Any:
    """`scope._contradicted`. A subject without a code can only be the first of a chain."""
    if org != NULL_ID and start_kind != ORG and org != code:
        return True
    accounts, last = 0, np.int64(NULL_ID)
    for at in range(vias):
        if scratch[VIA_KIND + at] == ACCOUNT:
            accounts += 1
            last = scratch[VIA + at]
    if account == NULL_ID or accounts == 0:
        return False
    return accounts > 1 or (start_kind != ACCOUNT and (account < 0 or last != account))


@part
def _is_known(index: Any, code: Any, known: Any) -> Any:
    """`States.known`: whether an event of the subject was recorded by `known`."""
    return code >= 0 and index.first_recorded_at[code] <= known


@part
def _resolved(
    index: Any,
    catalog: Any,
    later: Any,
    ids: Any,
    at: Any,
    instant: Any,
    known: Any,
    step: Any,
    scratch: Any,
    prefetched: Any,
) -> Any:
    """`scope.resolve` for row `at`: the same four as `_governing`, and whether a subject is missing
    (`check._missing`). `known`: only what was recorded by then counts."""
    key, account = np.int64(ids.key[at]), np.int64(ids.account[at])
    org, project = np.int64(ids.org[at]), np.int64(ids.project[at])
    scratch[LINKS] = 0
    if key != NULL_ID:
        start, start_kind = key, np.int64(KEY)
    elif project != NULL_ID:
        start, start_kind = project, np.int64(PROJECT)
    elif org != NULL_ID:
        start, start_kind = org, np.int64(ORG)
    else:
        start, start_kind = account, np.int64(ACCOUNT)
    code, kind, problem, may_differ = start, start_kind, np.int64(0), False
    beside = contradicted = missing = False
    for turn in range(2):
        if turn == 1:
            if problem != 0 or not beside:
                break
            start, start_kind = project, np.int64(PROJECT)
        prefetched_at = at % BLOCK if turn == 0 else -1
        end, end_kind, problem, also = _governing(
            index, catalog, later, start, start_kind, instant, step, scratch, prefetched, prefetched_at
        )
        may_differ = may_differ or also
        if turn == 1:
            if problem == 0 and end != code:
                problem = np.int64(CONFLICT)
            break
        code, kind = end, end_kind
        beside = key != NULL_ID and project != NULL_ID
        demands = np.int64(catalog.demands[step])
        for via in range(scratch[VIAS] if demands != 0 else 0):
            demanded = demands >> scratch[VIA_KIND + via] & 1 == 1
            missing = missing or (demanded and not _is_known(index, scratch[VIA + via], known))
        for via in range(scratch[VIAS]):
            beside = beside and not (project >= 0 and scratch[VIA + via] == project)
        contradicted = _named_otherwise(code, start_kind, org, account, scratch[VIAS], scratch)
    if problem == 0 and contradicted:
        problem = np.int64(CONFLICT)
    return code, kind, problem, may_differ, missing


@part
def _states(
    catalog: Any, row: Any, first: Any, until: Any, kind: Any, step: Any, values: Any, positions: Any, states: Any
) -> Any:
    """`effective_state.effective` for the settings first … until - 1 of one subject: whether all are defined.

    values[i]: the subject's own code, UNSET or CLEARED; positions[i]: of its event. An undefined setting has the value
    NULL.
    """
    undefined = 0
    for setting in range(first, until):
        position = np.int64(catalog.position[step, setting])
        states[EXPLICIT + setting] = 0
        states[NEWEST + setting] = position
        states[VALUE + setting] = catalog.default[step, setting] if position > 0 else NULL
        undefined += 1 if position == 0 else 0
        if position == 0 or row < 0 or catalog.kinds[step, setting] >> kind & 1 == 0:
            continue
        own = values[setting - first]
        if own == UNSET:
            continue
        own_position = np.int64(positions[setting - first])
        if own == CLEARED:
            states[NEWEST + setting] = max(position, own_position)
            continue
        states[VALUE + setting] = own
        states[NEWEST + setting] = states[EXPLICIT + setting] = own_position
    return undefined == 0


@part
def _policy(
    index: Any,
    catalog: Any,
    later: Any,
    code: Any,
    kind: Any,
    instant: Any,
    step: Any,
    scratch: Any,
    prefetched: Any,
    prefetched_at: Any,
) -> Any:
    """Writes the governing subject's states: whether all are defined, and whether one may differ on the later axis.

    `prefetched`, `prefetched_at`: see `_link_row`.
    """
    states, own, own_positions = (
        scratch[STATES_AT : STATES_AT + STATES],
        scratch[OWN:OWN_POSITIONS],
        scratch[OWN_POSITIONS:BREACHES],
    )
    policies, row, may_differ = index.policy_rows, np.int64(-1), False
    if code >= 0:
        first, count = index.packed[code, STATE_START], index.packed[code, STATE_COUNT]
        place = np.int64(index.packed[code, LATER])
        later_first = index.later_state_start[place] if place >= 0 else np.uint32(0)
        later_count = index.later_state_count[place] if place >= 0 else np.uint32(0)
        if later and place >= 0:
            row = _row_of(policies, later_first, later_count, instant)
        else:
            row, other = prefetched[POLICY_ROW, prefetched_at], prefetched[LATER_POLICY_ROW, prefetched_at]
            if code != prefetched[GOVERNING, prefetched_at]:
                row = _row_of(policies, first, count, instant)
                other = _row_of(policies, later_first, later_count, instant)
            if place >= 0 and row >= 0 and other >= 0:
                may_differ = policies[row, 1] != policies[other, 1]
            elif place >= 0:
                may_differ = (row < 0) != (other < 0)
    if row >= 0:
        bits = policies[row, 1]
        for setting in range(OF_POLICY):
            own[setting] = OWN_OF_BITS[bits >> 3 * setting & 7]
        for pair in range(3):
            word = policies[row, 2 + pair]
            own_positions[2 * pair], own_positions[2 * pair + 1] = word & 0xFFFFFFFF, _upper(word)
        if own[RESIDENCY] > 0:
            own[RESIDENCY] = policies[row, 1] >> 32
    return _states(catalog, row, 0, OF_POLICY, kind, step, own, own_positions, states), may_differ


@part
def _model_row(index: Any, later: Any, model: Any, instant: Any) -> Any:
    """The row of the model's own values, or -1, and whether the later axis has other rows."""
    row, place = np.int64(-1), np.int64(-1)
    if model >= 0:
        place = np.int64(index.packed[model, LATER])
        if later and place >= 0:
            row = _row_at(index.model_at, index.later_state_start[place], index.later_state_count[place], instant)
        else:
            first, count = index.packed[model, STATE_START], index.packed[model, STATE_COUNT]
            row = _row_at(index.model_at, first, count, instant)
    return row, place >= 0


@part
def _of_model(index: Any, catalog: Any, later: Any, model: Any, instant: Any, step: Any, scratch: Any) -> Any:
    """Writes the model's states, but for the published ones: whether one may differ on the later axis."""
    states, own, own_positions = (
        scratch[STATES_AT : STATES_AT + STATES],
        scratch[OWN:OWN_POSITIONS],
        scratch[OWN_POSITIONS:BREACHES],
    )
    row, may_differ = _model_row(index, later, model, instant)
    if row >= 0:
        for setting in range(OF_BOTH - OF_POLICY):
            own[setting], own_positions[setting] = index.model_values[row, setting], index.model_positions[row, setting]
    _states(catalog, row, OF_POLICY, OF_BOTH, MODEL, step, own, own_positions, states)
    return may_differ


@part
def _served(
    index: Any, catalog: Any, later: Any, model: Any, instant: Any, step: Any, observed: Any, scratch: Any
) -> Any:
    """Writes the model's published states, and compares them with those observed: `published.published_breaches`, as a
    bit for each setting that differs, and UNDECIDABLE_PUBLISHED. `observed`: of one row (`RequestColumns.served`)."""
    states, own, own_positions = (
        scratch[STATES_AT : STATES_AT + STATES],
        scratch[OWN:OWN_POSITIONS],
        scratch[OWN_POSITIONS:BREACHES],
    )
    row, _ = _model_row(index, later, model, instant)
    if row >= 0:
        for place in range(OF_ALL - OF_BOTH):
            column = OF_BOTH - OF_POLICY + place
            own[place], own_positions[place] = index.model_values[row, column], index.model_positions[row, column]
    _states(catalog, row, OF_BOTH, OF_ALL, MODEL, step, own, own_positions, states)
    differs = np.int64(0)
    for place in range(OF_ALL - OF_BOTH):
        value = states[VALUE + OF_BOTH + place]
        if observed[place] == NULL_ID or value == NULL:
            continue
        if value == OTHER:
            differs |= UNDECIDABLE_PUBLISHED
        elif value != observed[place]:
            differs |= np.int64(1) << place
    return differs


@part
def _hash_key(first: Any, second: Any, third: Any, fourth: Any) -> Any:
    """`places.hash_key`."""
    mixed = np.uint64(0)
    shift = np.uint64(29)
    mixed = (mixed ^ np.uint64(first)) * FACTOR_0
    mixed ^= mixed >> shift
    mixed = (mixed ^ np.uint64(second)) * FACTOR_1
    mixed ^= mixed >> shift
    mixed = (mixed ^ np.uint64(third)) * FACTOR_2
    mixed ^= mixed >> shift
    mixed = (mixed ^ np.uint64(fourth)) * FACTOR_3
    mixed ^= mixed >> shift
    return np.int64(mixed & np.uint64(0x7FFFFFFF))


@part
def _outcome(outcomes: Any, first: Any, second: Any, third: Any, fourth: Any) -> Any:
    """The row of a combination, or UNDECIDED."""
    mask = np.int64(len(outcomes.slots) - 1)
    place = _hash_key(first, second, third, fourth) & mask
    while outcomes.slots[place] != 0:
        row = np.int64(outcomes.slots[place]) - 1
        keys = outcomes.keys
        same = (keys[row, 0] == first) & (keys[row, 1] == second) & (keys[row, 2] == third) & (keys[row, 3] == fourth)
        if same:
            return row
        place = (place + 1) & mask
    return np.int64(UNDECIDED)


@part
def _put_outcomes(
    places: Any, step: Any, has_model: Any, receiver: Any, region: Any, states: Any, at: Any, answers: Any
) -> None:
    """Looks up the outcomes of this row's regions and providers: `check._places` and `check._observed_places`."""
    allowed, runs_in = max(states[VALUE + RESIDENCY], np.int64(EMPTY_SET)), np.int64(NO_MODEL)
    if has_model:
        runs_in = max(states[VALUE + MODEL_REGIONS], np.int64(EMPTY_SET))
    answers.outcomes[at, 0] = answers.outcomes[at, 1] = NONE
    seen = region != NULL_ID and (allowed > EMPTY_SET or runs_in > EMPTY_SET)
    if seen or (allowed > EMPTY_SET and has_model):
        observed = region if seen else np.int64(NULL_ID)
        answers.outcomes[at, 0] = _outcome(places.regions, step, allowed, runs_in, observed)
        if answers.outcomes[at, 0] == UNDECIDED:
            answers.keys[at, 0], answers.keys[at, 1] = step, allowed
            answers.keys[at, 2], answers.keys[at, 3] = runs_in, observed
    if has_model and states[VALUE + HOSTING] == PASSED_THROUGH:
        provider = max(states[VALUE + PROVIDER], np.int64(NONE))
        url = max(states[VALUE + POLICY_URL], np.int64(NONE))
        received = np.int64(NULL_ID)
        if states[VALUE + PASSTHROUGH] == BIT_TRUE and provider >= 0:
            received = receiver
        answers.outcomes[at, 1] = _outcome(places.providers, step, provider, url, received)
        if answers.outcomes[at, 1] == UNDECIDED:
            answers.keys[at, 4], answers.keys[at, 5] = step, provider
            answers.keys[at, 6], answers.keys[at, 7] = url, received


@part
def _bits_of(places: Any, at: Any, answers: Any) -> Any:
    """The bits of both outcomes (see `places`)."""
    bits = np.int64(0)
    if answers.outcomes[at, 0] >= 0:
        bits |= places.regions.bits[answers.outcomes[at, 0]]
    if answers.outcomes[at, 1] >= 0:
        bits |= places.providers.bits[answers.outcomes[at, 1]]
    return bits


@part
def _taken_back(index: Any, code: Any, setting: Any, enforced: Any, instant: Any, known: Any) -> Any:
    """`fold.deciding_retraction`: the position of a later retraction, known by `known`, of the change that decides at
    `instant` in the ledger up to the position `enforced`; 0 if no retraction of it is known."""
    place = index.packed[code, ASSERTIONS_OF] if code >= 0 else -1
    if place < 0:
        return np.int64(0)
    first = np.int64(index.assertions_start[place])
    until = first + np.int64(index.assertions_count[place])
    while until > first and index.assertion_recorded_at[until - 1] > known:
        until -= 1
    news = until
    while news > first and index.assertion_position[news - 1] > enforced:
        news -= 1
    # `fold.decides`: `begun` is the start of the last regime that has begun by `instant`, so far.
    decided, begun = np.int64(-1), np.int64(BEGINNING - 1)
    for at in range(news - 1, first - 1, -1):
        if index.assertion_setting[at] != setting or index.assertion_retracts[at] != 0:
            continue
        if not begun < index.assertion_from[at] <= instant or 0 < index.retracted_by[at] < news:
            continue
        if index.assertion_until[at] == END:
            decided, begun = np.int64(at), index.assertion_from[at]
        elif instant < index.assertion_until[at]:
            decided = np.int64(at)
            break
    if decided < 0 or not news <= index.retracted_by[decided] < until:
        return np.int64(0)
    return np.int64(index.assertion_position[index.retracted_by[decided]])


@part
def _reasons(has_model: Any, flags: Any, receiver: Any, bits: Any, served: Any, states: Any) -> Any:
    """The reasons of `breaches.denials` and `check._breaches`, as bits. The same as those of `_breaches`, but with few
    branches, for the many rows that have no lag. `bits`: see `_bits_of`; `served`: see `_served`."""
    hosting = states[VALUE + HOSTING] if has_model else np.int64(NULL)
    hosted, passed = hosting == HOSTED, hosting == PASSED_THROUGH
    forbidden, received = states[VALUE + PASSTHROUGH] == BIT_FALSE, receiver != NULL_ID
    reason = NOT_ALLOWED * np.int64(passed & forbidden)
    reason |= STORED * np.int64((flags & HAS_STORED != 0) & (states[VALUE + STORAGE] == BIT_FALSE))
    reason |= CACHED * np.int64((flags & HAS_CACHED != 0) & (states[VALUE + CACHING] == BIT_FALSE))
    reason |= TRAINED * np.int64((flags & HAS_TRAINED != 0) & (states[VALUE + TRAINING] == BIT_FALSE))
    reason |= PUBLIC_NETWORK * np.int64((flags & IN_PUBLIC != 0) & (states[VALUE + NETWORK] == BIT_TRUE))
    reason |= LEFT * np.int64(received & (hosted | ((not passed) & forbidden)))
    reason |= WRONG_PROVIDER * np.int64(bits & WRONG_RECEIVER != 0)
    reason |= OUTSIDE * np.int64(bits & (DENIED_REGION | OUTSIDE_REGION) != 0)
    reason |= SERVED_ELSEWHERE * np.int64(bits & ELSEWHERE != 0)
    reason |= NOT_AS_PUBLISHED * np.int64(served & (UNDECIDABLE_PUBLISHED - 1) != 0)
    return reason


@part
def _breaches(
    has_model: Any, flags: Any, receiver: Any, bits: Any, served: Any, newest_of: Any, states: Any, breaches: Any
) -> Any:
    """`breaches.denials`, then `check._breaches`, for rows that may have a lag: how many numbers were written to
    `breaches`, two for each breach, its bit and the position of the newest event that it rests on. `bits`: see
    `_bits_of`; `newest_of`: the positions of the newest events of regions and providers behind a denial, an observed
    region outside, one elsewhere, and a wrong receiver."""
    value, newest = states[VALUE:NEWEST], states[NEWEST:EXPLICIT]
    hosting = value[HOSTING] if has_model else np.int64(NULL)
    forbidden = value[PASSTHROUGH] == BIT_FALSE
    count = 0
    if hosting == PASSED_THROUGH and forbidden:
        breaches[count], breaches[count + 1] = NOT_ALLOWED, max(newest[PASSTHROUGH], newest[HOSTING])
        count += 2
    if bits & DENIED_REGION:
        newest_region = max(newest[RESIDENCY], newest[MODEL_REGIONS])
        breaches[count], breaches[count + 1] = OUTSIDE, max(newest_region, newest_of[0])
        count += 2
    if flags & HAS_STORED and value[STORAGE] == BIT_FALSE:
        breaches[count], breaches[count + 1] = STORED, newest[STORAGE]
        count += 2
    if flags & HAS_CACHED and value[CACHING] == BIT_FALSE:
        breaches[count], breaches[count + 1] = CACHED, newest[CACHING]
        count += 2
    if flags & HAS_TRAINED and value[TRAINING] == BIT_FALSE:
        breaches[count], breaches[count + 1] = TRAINED, newest[TRAINING]
        count += 2
    if bits & OUTSIDE_REGION:
        breaches[count], breaches[count + 1] = OUTSIDE, max(newest[RESIDENCY], newest_of[1])
        count += 2
    if bits & ELSEWHERE:
        breaches[count], breaches[count + 1] = SERVED_ELSEWHERE, max(newest[MODEL_REGIONS], newest_of[2])
        count += 2
    if flags & IN_PUBLIC and value[NETWORK] == BIT_TRUE:
        breaches[count], breaches[count + 1] = PUBLIC_NETWORK, newest[NETWORK]
        count += 2
    for place in range(OF_ALL - OF_BOTH if served != 0 else 0):
        if served >> place & 1:
            breaches[count], breaches[count + 1] = NOT_AS_PUBLISHED, newest[OF_BOTH + place]
            count += 2
    if receiver == NULL_ID:
        return count
    if hosting == HOSTED:
        breaches[count], breaches[count + 1] = LEFT, newest[HOSTING]
        count += 2
    elif hosting == PASSED_THROUGH:
        if bits & WRONG_RECEIVER:
            newest_provider = max(newest[PROVIDER], newest[HOSTING])
            breaches[count], breaches[count + 1] = WRONG_PROVIDER, max(newest_provider, newest_of[3])
            count += 2
    elif forbidden:
        breaches[count], breaches[count + 1] = LEFT, newest[PASSTHROUGH]
        count += 2
    return count


@part
def _put_links(scratch: Any, filled: Any, positions: Any) -> Any:
    """Appends the positions of the explicit links, each once: a chain may run in a circle, or two chains may meet."""
    first_link = filled
    for note in range(scratch[LINKS]):
        known = scratch[LINK_EXPLICIT + note] == 0
        for before in range(first_link, filled):
            known = known or positions[before] == scratch[LINK_EXPLICIT + note]
        if not known:
            positions[filled] = scratch[LINK_EXPLICIT + note]
            filled += 1
    return filled


@part
def _put_protective(catalog: Any, step: Any, problem: Any, at: Any, answers: Any) -> None:
    """`check._unresolved`."""
    protective = catalog.protective
    handling: Any = 0 if protective[step, NETWORK] == BIT_FALSE else PRIVATE_ONLY
    handling |= MAY_STORE if protective[step, STORAGE] == BIT_TRUE else 0
    handling |= MAY_CACHE if protective[step, CACHING] == BIT_TRUE else 0
    handling |= MAY_TRAIN if protective[step, TRAINING] == BIT_TRUE else 0
    handling |= MAY_LEAVE if protective[step, PASSTHROUGH] == BIT_TRUE else 0
    answers.verdict[at], answers.reasons[at], answers.handling[at] = INDETERMINATE, problem, handling
    answers.codes[at, 0], answers.codes[at, 1] = NOBODY, max(protective[step, RESIDENCY], EMPTY_SET)


@part
def _undecidable(has_model: Any, states: Any) -> Any:
    """Whether `rule_settings.is_decidable` is false for a setting: a switch is then BIT_OTHER, `residency.regions` has
    no code, and a value of the model is OTHER."""
    undecidable = (states[VALUE + TRAINING] == BIT_OTHER) | (states[VALUE + STORAGE] == BIT_OTHER)
    undecidable |= (states[VALUE + CACHING] == BIT_OTHER) | (states[VALUE + PASSTHROUGH] == BIT_OTHER)
    undecidable |= (states[VALUE + NETWORK] == BIT_OTHER) | (states[VALUE + RESIDENCY] < 0)
    if has_model:
        undecidable |= (states[VALUE + HOSTING] == OTHER) | (states[VALUE + PROVIDER] == OTHER)
        undecidable |= (states[VALUE + POLICY_URL] == OTHER) | (states[VALUE + MODEL_REGIONS] == OTHER)
    return undecidable


@part
def _put_protected(catalog: Any, step: Any, has_model: Any, states: Any, at: Any, answers: Any) -> None:
    """`protective.protected`, after `_put_handling`."""
    may_leave = not has_model or states[VALUE + HOSTING] == PASSED_THROUGH
    protective, handling = catalog.protective, np.int64(answers.handling[at])
    if states[VALUE + TRAINING] == BIT_OTHER and protective[step, TRAINING] == BIT_TRUE:
        handling |= MAY_TRAIN
    if states[VALUE + STORAGE] == BIT_OTHER and protective[step, STORAGE] == BIT_TRUE:
        handling |= MAY_STORE
    if states[VALUE + CACHING] == BIT_OTHER and protective[step, CACHING] == BIT_TRUE:
        handling |= MAY_CACHE
    if may_leave and states[VALUE + PASSTHROUGH] == BIT_OTHER and protective[step, PASSTHROUGH] == BIT_TRUE:
        handling |= MAY_LEAVE
    if states[VALUE + NETWORK] == BIT_OTHER and protective[step, NETWORK] != BIT_FALSE:
        handling |= PRIVATE_ONLY
    if states[VALUE + RESIDENCY] < 0:
        answers.codes[at, 1] = max(protective[step, RESIDENCY], EMPTY_SET)
    answers.handling[at] = handling


@part
def _put_handling(code: Any, kind: Any, has_model: Any, places: Any, states: Any, at: Any, answers: Any) -> None:
    """`check._handling`, and the governing subject."""
    hosting = states[VALUE + HOSTING] if has_model else np.int64(NULL)
    handling = MAY_STORE * np.int64(states[VALUE + STORAGE] == BIT_TRUE)
    handling |= MAY_CACHE * np.int64(states[VALUE + CACHING] == BIT_TRUE)
    handling |= MAY_TRAIN * np.int64(states[VALUE + TRAINING] == BIT_TRUE)
    allowed = states[VALUE + PASSTHROUGH] == BIT_TRUE
    handling |= MAY_LEAVE * np.int64(allowed & ((not has_model) | (hosting == PASSED_THROUGH)))
    handling |= PRIVATE_ONLY * np.int64(states[VALUE + NETWORK] == BIT_TRUE)
    answers.codes[at, 0] = code if code >= 0 else THE_ORG if kind == ORG else THE_ACCOUNT
    outcome = answers.outcomes[at, 0]
    if outcome >= 0:
        answers.codes[at, 1] = places.regions.answer[outcome]
    elif states[VALUE + RESIDENCY] > EMPTY_SET:
        answers.codes[at, 1] = states[VALUE + RESIDENCY]
    elif has_model and states[VALUE + MODEL_REGIONS] > EMPTY_SET:
        answers.codes[at, 1] = states[VALUE + MODEL_REGIONS]
    else:
        answers.codes[at, 1] = NONE
    if hosting == PASSED_THROUGH:
        handling |= BY_PROVIDER
        if answers.outcomes[at, 1] >= 0:
            answers.codes[at, 2] = places.providers.answer[answers.outcomes[at, 1]]
    answers.handling[at] = handling


@part
def _put_lateness(
    index: Any,
    code: Any,
    model: Any,
    requests: Any,
    instant: Any,
    at: Any,
    places: Any,
    bits: Any,
    served: Any,
    scratch: Any,
    answers: Any,
) -> None:
    """`check._excuse_by_lag`: a breach that rests on an event newer than the enforced position is a lag."""
    states, enforced, has_model = scratch[STATES_AT : STATES_AT + STATES], requests.enforced[at], model != NULL_ID
    # A state whose change was retracted is as new as the retraction.
    for note in range(scratch[LINKS] + (OF_ALL if served != 0 else OF_BOTH)):
        is_link = note < scratch[LINKS]
        which = note - scratch[LINKS]
        whose = scratch[LINK_CODE + note] if is_link else code if which < HOSTING else model
        if whose < 0 or index.packed[whose, ASSERTIONS_OF] < 0:
            continue
        if is_link:
            which = ATTACHED_CODE if index.packed[whose, KIND] == ACCOUNT else OWNER_CODE
        retraction = _taken_back(index, whose, which, enforced, instant, requests.known[at])
        if is_link:
            scratch[LINK_NEWEST + note] = max(scratch[LINK_NEWEST + note], retraction)
        elif has_model or which < HOSTING:
            states[NEWEST + which] = max(states[NEWEST + which], retraction)
    newest_link = np.int64(0)
    for note in range(scratch[LINKS]):
        newest_link = max(newest_link, scratch[LINK_NEWEST + note])
    breaches = scratch[BREACHES:NEWEST_OF]
    newest_of = scratch[NEWEST_OF : NEWEST_OF + 4]
    newest_of[:] = 0
    regions, providers = answers.outcomes[at, 0], answers.outcomes[at, 1]
    if regions >= 0:
        newest_of[0], newest_of[1] = places.regions.newest[regions, 0], places.regions.newest[regions, 1]
        newest_of[2] = places.regions.newest[regions, 2]
    if providers >= 0:
        newest_of[3] = places.providers.newest[providers, 1]
    # A setting of a region or a provider has been retracted: `check` itself looks for the retraction.
    answers.needs_check[at] = bits & RETRACTED != 0
    count = _breaches(
        has_model, requests.observed_flags[at], requests.forwarded_to[at], bits, served, newest_of, states, breaches
    )
    reason = np.int64(answers.reasons[at]) & (UNKNOWN_MODEL | UNKNOWN_REGION | UNDECIDABLE)
    for breach in range(0, count, 2):
        newest = max(newest_link, breaches[breach + 1])
        if newest <= enforced:
            reason |= breaches[breach]
            continue
        reason |= LAG
        lag = max(np.int64(0), instant - index.since[newest])
        if lag > answers.lags[at, 0] or (lag == answers.lags[at, 0] and newest > answers.lags[at, 1]):
            answers.lags[at, 0], answers.lags[at, 1] = lag, newest
    answers.reasons[at] = reason


@part
def _put_verdict(
    index: Any,
    code: Any,
    model: Any,
    requests: Any,
    instant: Any,
    at: Any,
    undecidable: Any,
    places: Any,
    served: Any,
    scratch: Any,
    answers: Any,
) -> None:
    """`check.evaluate`. `undecidable`: see `_undecidable`; `served`: see `_served`."""
    bits = _bits_of(places, at, answers)
    states, receiver, has_model = scratch[STATES_AT : STATES_AT + STATES], requests.forwarded_to[at], model != NULL_ID
    hosting = states[VALUE + HOSTING] if has_model else np.int64(NULL)
    was_observed = requests.observed_flags[at] & WAS_OBSERVED != 0
    reason = _reasons(has_model, requests.observed_flags[at], receiver, bits, served, states)
    unknown = (has_model & (hosting == NULL)) | (bits & UNTOLD_RECEIVER != 0)
    unknown_region = bits & UNKNOWN_REGION_BIT != 0
    if receiver != NULL_ID and states[VALUE + PASSTHROUGH] == BIT_TRUE:
        unknown = unknown or not has_model or (hosting == PASSED_THROUGH and states[VALUE + PROVIDER] == NULL)
    unclear = unknown | unknown_region | undecidable
    breached = reason != 0
    answers.verdict[at] = VERDICT_OF[4 * np.int64(breached) | 2 * np.int64(unclear) | np.int64(was_observed)]
    reason |= UNKNOWN_MODEL * np.int64(unknown) | UNKNOWN_REGION * np.int64(unknown_region)
    answers.reasons[at] = reason | UNDECIDABLE * np.int64(undecidable)
    if was_observed and breached and requests.enforced[at] >= 0:
        _put_lateness(index, code, model, requests, instant, at, places, bits, served, scratch, answers)


CONSTANTS: Final = constants_key(
    globals(), RequestIds, RequestColumns, CatalogTables, IndexTables, RowAnswers, PlaceTables, Outcomes
)


@compiled
def decide(
    index: Any,
    catalog: Any,
    steps: Any,
    later: Any,
    ids: Any,
    requests: Any,
    places: Any,
    place_steps: Any,
    answers: Any,
    scratch: Any,
    prefetched: Any,
    constants: Any = CONSTANTS,
) -> None:
    """`decide_rows`. `scratch`, `prefetched`: memory for notes."""
    states = scratch[STATES_AT : STATES_AT + STATES]
    # Not the literal 0, for which Numba would compile callees once more.
    filled = np.int64(0)
    for at in range(len(requests.at)):
        if at % BLOCK == 0:
            prefetched[TOUCHED, 0] = _fetch(index, ids, requests.at, at, min(BLOCK, len(requests.at) - at), prefetched)
        instant, step, model = requests.at[at], steps[at], np.int64(ids.model[at])
        first = filled
        answers.codes[at, 2] = answers.outcomes[at, 0] = answers.outcomes[at, 1] = NONE
        answers.needs_check[at] = False
        answers.lags[at, 0] = answers.lags[at, 1] = 0
        known = np.int64(END) if later else requests.known[at]
        code, kind, problem, may_differ, missing = _resolved(
            index, catalog, later, ids, at, instant, known, step, scratch, prefetched
        )
        if problem == 0:
            defined, other = _policy(index, catalog, later, code, kind, instant, step, scratch, prefetched, at % BLOCK)
            problem = np.int64(0 if defined else BEFORE_FIRST)
            may_differ = may_differ or other
        filled = _put_links(scratch, filled, answers.positions)
        answers.known[at] = problem == 0 and _is_known(index, code, known)
        may_differ = may_differ or missing
        if problem == 0 and not missing:
            has_model = model != NULL_ID
            if has_model:
                other = _of_model(index, catalog, later, model, instant, step, scratch)
                may_differ = may_differ or other
            for setting in range(OF_BOTH if has_model else OF_POLICY):
                # The next position overwrites this one if it is not explicit.
                answers.positions[filled] = states[EXPLICIT + setting]
                filled += 1 if states[EXPLICIT + setting] > 0 else 0
            served = np.int64(0)
            if has_model and requests.observed_flags[at] & SAYS_HOW_SERVED != 0:
                served = _served(index, catalog, later, model, instant, step, requests.served[at], scratch)
                for place in range(OF_ALL - OF_BOTH):
                    answers.positions[filled] = states[EXPLICIT + OF_BOTH + place]
                    is_shown = requests.served[at, place] != NULL_ID and states[EXPLICIT + OF_BOTH + place] > 0
                    filled += 1 if is_shown else 0
            _put_outcomes(
                places, place_steps[at], has_model, requests.forwarded_to[at], requests.region[at], states, at, answers
            )
            _put_handling(code, kind, has_model, places, states, at, answers)
            undecidable = _undecidable(has_model, states)
            if undecidable:
                _put_protected(catalog, step, has_model, states, at, answers)
            undecidable = undecidable or served & UNDECIDABLE_PUBLISHED != 0
            _put_verdict(index, code, model, requests, instant, at, undecidable, places, served, scratch, answers)
        else:
            _put_protective(catalog, step, problem if problem != 0 else np.int64(UNKNOWN_SUBJECT), at, answers)
            if problem == 0:
                answers.codes[at, 0] = code if code >= 0 else THE_ORG if kind == ORG else THE_ACCOUNT
        answers.counts[at], answers.may_differ_in_hindsight[at] = filled - first, may_differ


@compiled
def _insert_facts(places: Any, answers: Any, counts: Any, positions: Any, constants: Any = CONSTANTS) -> None:
    """Appends the positions of the settings of providers and regions to those of each row: first what its basis rests
    on, then what the observed region and receiver rest on. `counts`, `positions`: filled in."""
    filled, read = 0, 0
    for at in range(len(counts)):
        first = filled
        for own in range(read, read + answers.counts[at]):
            positions[filled] = answers.positions[own]
            filled += 1
        read += answers.counts[at]
        for part_of in range(2):
            for of_regions in range(2):
                outcome = answers.outcomes[at, 1 - of_regions]
                if outcome < 0:
                    continue
                outcomes = places.regions if of_regions else places.providers
                for fact in range(outcomes.facts[outcome, 2 * part_of], outcomes.facts[outcome, 2 * part_of + 1]):
                    positions[filled] = outcomes.positions[fact]
                    filled += 1
        counts[at] = filled - first


def decide_rows(
    index: IndexTables,
    catalog: CatalogTables,
    steps: Int64s,
    later: bool,
    ids: RequestIds,
    requests: RequestColumns,
    places: PlaceTables,
    place_steps: Int64s,
) -> RowAnswers:
    """`check` for every row, on one axis. `steps`, `place_steps`: the rows of the catalog and of the directory that
    hold for each request. Where an outcome of `places` is UNDECIDED, so is the row."""
    answers = empty_answers(len(requests.at))
    scratch, prefetched = np.empty(NEWEST_OF + 4, np.int64), np.empty((PREFETCHED, BLOCK), np.int64)
    decide(index, catalog, steps, later, ids, requests, places, place_steps, answers, scratch, prefetched)
    return answers


def with_facts(places: PlaceTables, answers: RowAnswers) -> RowAnswers:
    """The answers with the settings of regions and providers among the deciding positions."""
    if not len(places.regions.positions) and not len(places.providers.positions):
        return answers
    own, rows = int(answers.counts.sum()), np.zeros(len(answers.counts), np.int64)
    for column, outcomes in enumerate((places.regions, places.providers)):
        if len(outcomes.facts):
            sizes = outcomes.facts[:, 3] - outcomes.facts[:, 0]
            of_rows = answers.outcomes[:, column]
            rows += np.where(of_rows >= 0, sizes[np.maximum(of_rows, 0)], 0)
    counts, positions = np.empty(len(rows), np.int32), np.empty(own + int(rows.sum()), np.int64)
    _insert_facts(places, answers, counts, positions)
    return answers._replace(counts=counts, positions=positions)
