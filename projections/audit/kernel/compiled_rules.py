"""The decision rules, compiled: `scope.resolve`, `check.ground` and `check.judge` over the arrays of a policy index.

Each function says the same as the one that it names, in codes. All of them become one compiled function, and stand in
one file because Numba looks at no other when it asks whether what it stored is stale; that is why the file is long.
Constants come from where the pure rules and the index have them (see `constants_key`).
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
    Answers,
    blank,
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
from projections.audit.kernel.tables import PACKED, Catalog, Tables
from projections.audit.numba_support import compiled, constants_key, part
from projections.audit.schemas import REASON_NAMES, VERDICT_NAMES
from projections.decisions.check import OF_MODEL, POLICY
from projections.decisions.model import Reason, Verdict
from projections.decisions.scope import CHAIN_MAX


def _code(verdict: Verdict) -> int:
    return VERDICT_NAMES.index(verdict)


def _bit(reason: Reason) -> int:
    return 1 << REASON_NAMES.index(reason)


ALLOWED, DENIED, INDETERMINATE = _code("allowed"), _code("denied"), _code("indeterminate")
COMPLIANT, VIOLATION = _code("compliant"), _code("violation")
BEFORE_FIRST, CONFLICT, LAG = _bit("before_first_record"), _bit("scope_conflict"), _bit("enforcement_lag")
UNKNOWN_OWNER, UNKNOWN_MODEL = _bit("unknown_owner"), _bit("unknown_model")
NOT_ALLOWED, LEFT = _bit("passthrough_not_allowed"), _bit("left_platform")
WRONG_PROVIDER, OUTSIDE, PUBLIC_NETWORK = _bit("wrong_provider"), _bit("outside_residency"), _bit("public_network")
STORED, CACHED = _bit("stored_against_setting"), _bit("cached_against_setting")
TRAINED = _bit("trained_without_opt_in")
OF_POLICY, OF_BOTH = len(POLICY), len(POLICY) + len(OF_MODEL)
"""Settings of the governing subject; and of it and the model. The governing subject's come first in `SETTINGS`."""


# Of BIT_UNSET, BIT_CLEARED and the others.
OWN_OF_BITS: Final[Any] = np.array([UNSET, CLEARED, *range(2, 8)])
# By three bits: 4 where anything speaks against the request, 2 where something is unknown, 1 where it was observed.
VERDICT_OF: Final[Any] = np.array(
    [ALLOWED, COMPLIANT, INDETERMINATE, INDETERMINATE, DENIED, VIOLATION, DENIED, VIOLATION], np.int8
)

# Places in the paper on which is noted what led to the governing subject: how many subjects and how many states, the
# subjects' codes and kinds, and of each state the position if it is explicit (else 0), that of `newest`, and whose it
# is.
VIAS, LEDS, VIA, VIA_KIND, LED, LED_NEWEST, LED_CODE, PAPER = 0, 1, 2, 18, 34, 66, 98, 130
# Of the ten states of the governing subject and the model: the values, the positions of `newest`, of the explicit.
VALUE, NEWEST, EXPLICIT, STATES = 0, OF_BOTH, 2 * OF_BOTH, 3 * OF_BOTH
# They stand on the paper behind the rest; behind them a subject's own values and positions, and the breaches.
OWN, SAID, BREACHES = PAPER + STATES, PAPER + STATES + OF_BOTH, PAPER + STATES + 2 * OF_BOTH
BLOCK, HOPS = 256, 2
# Rows of what `_fetch` makes ready, behind two of each hop.
GOVERNING, POLICY_ROW, LATER_POLICY_ROW, ROOM, TOUCHED, READY = 4, 5, 6, 7, 9, 10
# Columns of `Tables.packed`.
LINK_START, LINK_COUNT, STATE_START, STATE_COUNT, LATER, SAID_OF, KIND = range(len(PACKED))


@part
def _row_at(instants: Any, first: Any, count: Any, instant: Any) -> Any:
    """The last of the rows first … first + count - 1 that began by `instant`, or -1."""
    # Without a branch that nobody can foretell.
    before, left = np.int64(first) - 1, np.int64(count)
    while left > 0:
        half = (left + 1) >> 1
        before += half if instants[before + half] <= instant else 0
        left -= half
    return before if before >= np.int64(first) else np.int64(-1)


@part
def _row_of(rows: Any, first: Any, count: Any, instant: Any) -> Any:
    """`_row_at` of rows that begin with their instant."""
    before, left = np.int64(first) - 1, np.int64(count)
    while left > 0:
        half = (left + 1) >> 1
        before += half if rows[before + half, 0] <= instant else 0
        left -= half
    return before if before >= np.int64(first) else np.int64(-1)


@part
def _rows_of(rows: Any, starts: Any, counts: Any, instants: Any, first: Any, size: Any, found: Any) -> None:
    """`_row_of` of the rows of a log from `first` on, each in its slice: a step of all searches at a time, so that they
    wait for memory together. Uses `counts` up."""
    most = np.int64(0)
    for at in range(size):
        found[at] = starts[at] - 1
        most = max(most, counts[at])
    while most > 0:
        for at in range(size):
            # Where nothing is left it stays where it is.
            half = (counts[at] + 1) >> 1
            found[at] += half if rows[max(found[at] + half, 0), 0] <= instants[first + at] else 0
            counts[at] -= half
        most >>= 1
    for at in range(size):
        found[at] = found[at] if found[at] >= starts[at] else -1


@part
def _lower(word: Any) -> Any:
    """The first of the two columns that share a word, which is signed: a link's target."""
    return np.int64(np.int32(word & 0xFFFFFFFF))


@part
def _upper(word: Any) -> Any:
    """The second, which is not: a link's position."""
    return word >> 32 & 0xFFFFFFFF


@part
def _fetch(index: Any, ids: Any, instants: Any, first: Any, size: Any, ready: Any) -> Any:
    """Goes the way of so many rows from `first` on, on the axis that is asked for, in short steps, all rows a step at a
    time, so that they wait for memory together, and what is then looked at is at hand. ready: of each of the first HOPS
    links whose it is and its row; then of whom they lead to the code, the row of the policy, and the one of the later
    axis, if it may be another; -1 where there is no row; room for two columns more."""
    subjects, codes, starts, counts = index.packed, ready[GOVERNING], ready[ROOM], ready[ROOM + 1]
    for at in range(size):
        key, project, org = ids.key[first + at], ids.project[first + at], ids.org[first + at]
        named = key if key != NULL_ID else project if project != NULL_ID else org
        codes[at] = named if named != NULL_ID else ids.account[first + at]
    for hop in range(HOPS):
        found = ready[2 * hop + 1]
        for at in range(size):
            code = codes[at]
            ready[2 * hop, at] = code
            starts[at] = subjects[code, LINK_START] if code >= 0 else 0
            counts[at] = subjects[code, LINK_COUNT] if code >= 0 else 0
        _rows_of(index.link_rows, starts, counts, instants, first, size, found)
        for at in range(size):
            if found[at] >= 0:
                target = _lower(index.link_rows[found[at], 1])
                codes[at] = target if target >= 0 else codes[at]
    places = ready[LATER_POLICY_ROW]
    for at in range(size):
        code = codes[at]
        governs = code >= 0 and subjects[code, KIND] in (ACCOUNT, ORG)
        starts[at] = subjects[code, STATE_START] if governs else 0
        counts[at] = subjects[code, STATE_COUNT] if governs else 0
        places[at] = subjects[code, LATER] if governs else -1
    _rows_of(index.policy_rows, starts, counts, instants, first, size, ready[POLICY_ROW])
    for at in range(size):
        place = places[at]
        starts[at] = index.later_state_start[place] if place >= 0 else 0
        counts[at] = index.later_state_count[place] if place >= 0 else 0
    _rows_of(index.policy_rows, starts, counts, instants, first, size, ready[LATER_POLICY_ROW])
    touched = np.int64(0)
    for which in (POLICY_ROW, LATER_POLICY_ROW):
        for at in range(size):
            if ready[which, at] >= 0:
                touched += index.policy_rows[ready[which, at], 1] ^ index.policy_rows[ready[which, at], 4]
    return touched


@part
def _link_row(index: Any, later: Any, code: Any, instant: Any, ready: Any, place_of: Any, hop: Any) -> Any:
    """(the row of the link of `code` on the axis that is asked for, whether on the later one it has another target).
    `ready`: of row `place_of`, what `_fetch` found; less than 0: nothing."""
    if code < 0:
        return np.int64(-1), False
    place = np.int64(index.packed[code, LATER])
    if later and place >= 0:
        return _row_of(index.link_rows, index.later_link_start[place], index.later_link_count[place], instant), False
    if place_of >= 0 and hop < HOPS and ready[2 * hop, place_of] == code:
        row = ready[2 * hop + 1, place_of]
    else:
        row = _row_of(index.link_rows, index.packed[code, LINK_START], index.packed[code, LINK_COUNT], instant)
    if place < 0:
        return row, False
    other = _row_of(index.link_rows, index.later_link_start[place], index.later_link_count[place], instant)
    if row < 0 or other < 0:
        return row, (row < 0) != (other < 0)
    return row, _lower(index.link_rows[row, 1]) != _lower(index.link_rows[other, 1])


@part
def _target(links: Any, row: Any, defined: Any, applies: Any, default: Any, code: Any, paper: Any) -> Any:
    """`state.effective` of `owner` or `attached_to`, noted: the target, negative where it is no reference."""
    at = paper[LEDS]
    paper[LEDS] = at + 1
    paper[LED + at], paper[LED_NEWEST + at], paper[LED_CODE + at] = 0, defined, code
    if not applies or row < 0:
        return default
    target, position = _lower(links[row, 1]), _upper(links[row, 1])
    if target == UNSET:
        return default
    if target == CLEARED:
        paper[LED_NEWEST + at] = max(defined, position)
        return default
    paper[LED + at] = paper[LED_NEWEST + at] = position
    return target


@part
def _governing(
    index: Any, c: Any, later: Any, code: Any, kind: Any, instant: Any, step: Any, paper: Any, ready: Any, place_of: Any
) -> Any:
    """`scope._governing`: (code, kind, problem, whether any link is another on the later axis). `ready`, `place_of`:
    see `_link_row`."""
    vias = np.int64(0)
    looked = False
    while True:
        paper[VIA + vias], paper[VIA_KIND + vias] = code, kind
        vias += 1
        paper[VIAS] = vias
        # What an account is attached to is not followed further.
        if kind not in (KEY, PROJECT, ACCOUNT) or (vias > 1 and paper[VIA_KIND + vias - 2] == ACCOUNT):
            break
        setting = ATTACHED_CODE if kind == ACCOUNT else OWNER_CODE
        row, other = _link_row(index, later, code, instant, ready, place_of, vias - 1)
        looked = looked or other
        position = np.int64(c.position[step, setting])
        applies = c.kinds[step, setting] >> kind & 1 == 1 and position > 0
        target = _target(index.link_rows, row, position, applies, np.int64(c.default[step, setting]), code, paper)
        if position == 0:
            return code, kind, np.int64(BEFORE_FIRST), looked
        if target < 0 and kind == ACCOUNT:
            break
        if target < 0 or (vias == CHAIN_MAX and kind != ACCOUNT):
            return code, kind, np.int64(UNKNOWN_OWNER), looked
        code, kind = target, np.int64(index.packed[target, KIND])
    return code, kind, np.int64(0 if kind in (ACCOUNT, ORG) else UNKNOWN_OWNER), looked


@part
def _named_otherwise(code: Any, start_kind: Any, org: Any, account: Any, vias: Any, paper: Any) -> Any:
    """`scope._contradicted`. A subject without a code is on the way only where the way begins."""
    if org != NULL_ID and start_kind != ORG and org != code:
        return True
    accounts, last = 0, np.int64(NULL_ID)
    for at in range(vias):
        if paper[VIA_KIND + at] == ACCOUNT:
            accounts += 1
            last = paper[VIA + at]
    if account == NULL_ID or accounts == 0:
        return False
    return accounts > 1 or (start_kind != ACCOUNT and (account < 0 or last != account))


@part
def _resolved(
    index: Any, c: Any, later: Any, ids: Any, at: Any, instant: Any, step: Any, paper: Any, ready: Any
) -> Any:
    """`scope.resolve` of row `at`: what `_governing` says."""
    key, account = np.int64(ids.key[at]), np.int64(ids.account[at])
    org, project = np.int64(ids.org[at]), np.int64(ids.project[at])
    paper[LEDS] = 0
    if key != NULL_ID:
        start, start_kind = key, np.int64(KEY)
    elif project != NULL_ID:
        start, start_kind = project, np.int64(PROJECT)
    elif org != NULL_ID:
        start, start_kind = org, np.int64(ORG)
    else:
        start, start_kind = account, np.int64(ACCOUNT)
    code, kind, problem, looked = start, start_kind, np.int64(0), False
    beside = contradicted = False
    for turn in range(2):
        if turn == 1:
            if problem != 0 or not beside:
                break
            start, start_kind = project, np.int64(PROJECT)
        place_of = at % BLOCK if turn == 0 else -1
        end, end_kind, problem, also = _governing(
            index, c, later, start, start_kind, instant, step, paper, ready, place_of
        )
        looked = looked or also
        if turn == 1:
            if problem == 0 and end != code:
                problem = np.int64(CONFLICT)
            break
        code, kind = end, end_kind
        beside = key != NULL_ID and project != NULL_ID
        for via in range(paper[VIAS]):
            beside = beside and not (project >= 0 and paper[VIA + via] == project)
        contradicted = _named_otherwise(code, start_kind, org, account, paper[VIAS], paper)
    if problem == 0 and contradicted:
        problem = np.int64(CONFLICT)
    return code, kind, problem, looked


@part
def _states(
    c: Any, row: Any, first: Any, until: Any, kind: Any, step: Any, values: Any, positions: Any, states: Any
) -> Any:
    """`state.effective` of the settings first … until - 1 of one subject, of which values[i] is its own code of each,
    UNSET or CLEARED, and positions[i] the event's. Where undefined the value is NULL, and the answer False."""
    undefined = 0
    for setting in range(first, until):
        position = np.int64(c.position[step, setting])
        states[EXPLICIT + setting] = 0
        states[NEWEST + setting] = position
        states[VALUE + setting] = c.default[step, setting] if position > 0 else NULL
        undefined += 1 if position == 0 else 0
        if position == 0 or row < 0 or c.kinds[step, setting] >> kind & 1 == 0:
            continue
        own = values[setting - first]
        if own == UNSET:
            continue
        said = np.int64(positions[setting - first])
        if own == CLEARED:
            states[NEWEST + setting] = max(position, said)
            continue
        states[VALUE + setting] = own
        states[NEWEST + setting] = states[EXPLICIT + setting] = said
    return undefined == 0


@part
def _policy(
    index: Any, c: Any, later: Any, code: Any, kind: Any, instant: Any, step: Any, paper: Any, ready: Any, place_of: Any
) -> Any:
    """The governing subject's states: (whether all are defined, whether any may be another on the later axis).
    `ready`, `place_of`: see `_link_row`."""
    states, own, said = paper[PAPER : PAPER + STATES], paper[OWN:SAID], paper[SAID:BREACHES]
    policies, row, looked = index.policy_rows, np.int64(-1), False
    if code >= 0:
        first, count = index.packed[code, STATE_START], index.packed[code, STATE_COUNT]
        place = np.int64(index.packed[code, LATER])
        later_first = index.later_state_start[place] if place >= 0 else np.uint32(0)
        later_count = index.later_state_count[place] if place >= 0 else np.uint32(0)
        if later and place >= 0:
            row = _row_of(policies, later_first, later_count, instant)
        else:
            row, other = ready[POLICY_ROW, place_of], ready[LATER_POLICY_ROW, place_of]
            if code != ready[GOVERNING, place_of]:
                row = _row_of(policies, first, count, instant)
                other = _row_of(policies, later_first, later_count, instant)
            if place >= 0 and row >= 0 and other >= 0:
                looked = policies[row, 1] != policies[other, 1]
            elif place >= 0:
                looked = (row < 0) != (other < 0)
    if row >= 0:
        bits = policies[row, 1]
        for setting in range(OF_POLICY):
            own[setting] = OWN_OF_BITS[bits >> 3 * setting & 7]
        for pair in range(3):
            word = policies[row, 2 + pair]
            said[2 * pair], said[2 * pair + 1] = word & 0xFFFFFFFF, _upper(word)
        if own[RESIDENCY] > 0:
            own[RESIDENCY] = policies[row, 1] >> 32
    return _states(c, row, 0, OF_POLICY, kind, step, own, said, states), looked


@part
def _of_model(index: Any, c: Any, later: Any, model: Any, instant: Any, step: Any, paper: Any) -> Any:
    """The model's states, and whether any may be another on the later axis."""
    states, own, said = paper[PAPER : PAPER + STATES], paper[OWN:SAID], paper[SAID:BREACHES]
    row, place = np.int64(-1), np.int64(-1)
    if model >= 0:
        place = np.int64(index.packed[model, LATER])
        if later and place >= 0:
            row = _row_at(index.model_at, index.later_state_start[place], index.later_state_count[place], instant)
        else:
            first, count = index.packed[model, STATE_START], index.packed[model, STATE_COUNT]
            row = _row_at(index.model_at, first, count, instant)
    if row >= 0:
        for setting in range(OF_BOTH - OF_POLICY):
            own[setting], said[setting] = index.model_values[row, setting], index.model_positions[row, setting]
    _states(c, row, OF_POLICY, OF_BOTH, MODEL, step, own, said, states)
    return place >= 0


@part
def _in_set(index: Any, code: Any, of: Any) -> Any:
    for at in range(index.set_offsets[of], index.set_offsets[of + 1]):
        if index.set_members[at] == code:
            return True
    return False


@part
def _meet(index: Any, one: Any, other: Any) -> Any:
    for at in range(index.set_offsets[one], index.set_offsets[one + 1]):
        if _in_set(index, index.set_members[at], other):
            return True
    return False


@part
def _taken_back(index: Any, code: Any, setting: Any, enforced: Any, instant: Any, known: Any) -> Any:
    """`fold.retraction_of_decided`: the position of what took back since, known by `known`, the change that decided at
    `instant` for whoever knew the ledger up to `enforced`; 0 where it still stands."""
    place = index.packed[code, SAID_OF] if code >= 0 else -1
    if place < 0:
        return np.int64(0)
    first = np.int64(index.said_start[place])
    until = first + np.int64(index.said_count[place])
    while until > first and index.said_recorded_at[until - 1] > known:
        until -= 1
    news = until
    while news > first and index.said_position[news - 1] > enforced:
        news -= 1
    # `fold`, but only of the step in which `instant` lies: whose it is, and since when.
    decided, since = np.int64(-1), np.int64(BEGINNING)
    for at in range(first, news):
        if index.said_setting[at] != setting or index.said_retracts[at] != 0 or index.said_from[at] > instant:
            continue
        if 0 < index.said_taken_by[at] < news:
            continue
        if index.said_until[at] <= instant:
            since = max(since, index.said_until[at])
        elif index.said_until[at] < END or index.said_from[at] >= since:
            # One without an end holds until the next step: this one, if it begins in it.
            decided, since = np.int64(at), index.said_from[at]
    if decided < 0 or not news <= index.said_taken_by[decided] < until:
        return np.int64(0)
    return np.int64(index.said_position[index.said_taken_by[decided]])


@part
def _reasons(index: Any, asked: Any, deeds: Any, receiver: Any, region: Any, states: Any) -> Any:
    """The bits of what `check._denials` and `check._misdeeds` say: those of `_breaches`, without its branches."""
    hosting = states[VALUE + HOSTING] if asked else np.int64(NULL)
    hosted, passed = hosting == HOSTED, hosting == PASSED_THROUGH
    allowed, regions = states[VALUE + PASSTHROUGH] == BIT_TRUE, states[VALUE + RESIDENCY]
    provider, received = states[VALUE + PROVIDER], receiver != NULL_ID
    reason = NOT_ALLOWED * np.int64(passed & (not allowed))
    reason |= STORED * np.int64((deeds & HAS_STORED != 0) & (states[VALUE + STORAGE] != BIT_TRUE))
    reason |= CACHED * np.int64((deeds & HAS_CACHED != 0) & (states[VALUE + CACHING] != BIT_TRUE))
    reason |= TRAINED * np.int64((deeds & HAS_TRAINED != 0) & (states[VALUE + TRAINING] != BIT_TRUE))
    reason |= PUBLIC_NETWORK * np.int64((deeds & IN_PUBLIC != 0) & (states[VALUE + NETWORK] == BIT_TRUE))
    reason |= LEFT * np.int64(received & (hosted | (not (hosted | passed | allowed))))
    wrong = received & passed & allowed & asked
    reason |= WRONG_PROVIDER * np.int64(wrong & (provider != NULL) & (provider != receiver))
    if regions > EMPTY_SET:
        there = not asked or states[VALUE + MODEL_REGIONS] <= EMPTY_SET
        there = there or _meet(index, regions, states[VALUE + MODEL_REGIONS])
        there = there and (region == NULL_ID or _in_set(index, region, regions))
        reason |= 0 if there else OUTSIDE
    return reason


@part
def _breaches(index: Any, asked: Any, deeds: Any, receiver: Any, region: Any, states: Any, breaches: Any) -> Any:
    """`check._denials`, then `check._misdeeds`: how many, and of each its bit and the newest event that it rests on:
    for rows that may have been late."""
    value, newest = states[VALUE:NEWEST], states[NEWEST:EXPLICIT]
    hosting = value[HOSTING] if asked else np.int64(NULL)
    allowed, regions = value[PASSTHROUGH] == BIT_TRUE, value[RESIDENCY]
    count = 0
    if hosting == PASSED_THROUGH and not allowed:
        breaches[count], breaches[count + 1] = NOT_ALLOWED, max(newest[PASSTHROUGH], newest[HOSTING])
        count += 2
    if asked and regions > EMPTY_SET and value[MODEL_REGIONS] > EMPTY_SET:
        if not _meet(index, regions, value[MODEL_REGIONS]):
            breaches[count], breaches[count + 1] = OUTSIDE, max(newest[RESIDENCY], newest[MODEL_REGIONS])
            count += 2
    if deeds & HAS_STORED and value[STORAGE] != BIT_TRUE:
        breaches[count], breaches[count + 1] = STORED, newest[STORAGE]
        count += 2
    if deeds & HAS_CACHED and value[CACHING] != BIT_TRUE:
        breaches[count], breaches[count + 1] = CACHED, newest[CACHING]
        count += 2
    if deeds & HAS_TRAINED and value[TRAINING] != BIT_TRUE:
        breaches[count], breaches[count + 1] = TRAINED, newest[TRAINING]
        count += 2
    if region != NULL_ID and regions > EMPTY_SET and not _in_set(index, region, regions):
        breaches[count], breaches[count + 1] = OUTSIDE, newest[RESIDENCY]
        count += 2
    if deeds & IN_PUBLIC and value[NETWORK] == BIT_TRUE:
        breaches[count], breaches[count + 1] = PUBLIC_NETWORK, newest[NETWORK]
        count += 2
    if receiver == NULL_ID:
        return count
    if hosting == HOSTED:
        breaches[count], breaches[count + 1] = LEFT, newest[HOSTING]
        count += 2
    elif hosting == PASSED_THROUGH:
        if allowed and value[PROVIDER] != NULL and value[PROVIDER] != receiver:
            breaches[count], breaches[count + 1] = WRONG_PROVIDER, max(newest[PROVIDER], newest[HOSTING])
            count += 2
    elif not allowed:
        breaches[count], breaches[count + 1] = LEFT, newest[PASSTHROUGH]
        count += 2
    return count


@part
def _put_led(paper: Any, filled: Any, positions: Any) -> Any:
    """Writes down the positions of the explicit links, each once: one chain may run in a circle, or two into one."""
    led = filled
    for note in range(paper[LEDS]):
        known = paper[LED + note] == 0
        for before in range(led, filled):
            known = known or positions[before] == paper[LED + note]
        if not known:
            positions[filled] = paper[LED + note]
            filled += 1
    return filled


@part
def _put_protective(c: Any, step: Any, problem: Any, at: Any, said: Any) -> None:
    """`check.ground` where nobody can be said to govern."""
    protective = c.protective
    handling: Any = 0 if protective[step, NETWORK] == BIT_FALSE else PRIVATE_ONLY
    handling |= MAY_STORE if protective[step, STORAGE] == BIT_TRUE else 0
    handling |= MAY_CACHE if protective[step, CACHING] == BIT_TRUE else 0
    handling |= MAY_TRAIN if protective[step, TRAINING] == BIT_TRUE else 0
    handling |= MAY_LEAVE if protective[step, PASSTHROUGH] == BIT_TRUE else 0
    said.verdict[at], said.reasons[at], said.handling[at] = INDETERMINATE, problem, handling
    said.codes[at, 0], said.codes[at, 1] = NOBODY, max(protective[step, RESIDENCY], EMPTY_SET)


@part
def _put_handling(code: Any, kind: Any, asked: Any, states: Any, at: Any, said: Any) -> None:
    """`check._handling`, and who governs."""
    hosting = states[VALUE + HOSTING] if asked else np.int64(NULL)
    handling = MAY_STORE * np.int64(states[VALUE + STORAGE] == BIT_TRUE)
    handling |= MAY_CACHE * np.int64(states[VALUE + CACHING] == BIT_TRUE)
    handling |= MAY_TRAIN * np.int64(states[VALUE + TRAINING] == BIT_TRUE)
    allowed = states[VALUE + PASSTHROUGH] == BIT_TRUE
    handling |= MAY_LEAVE * np.int64(allowed & ((not asked) | (hosting == PASSED_THROUGH)))
    handling |= PRIVATE_ONLY * np.int64(states[VALUE + NETWORK] == BIT_TRUE)
    said.codes[at, 0] = code if code >= 0 else THE_ORG if kind == ORG else THE_ACCOUNT
    said.codes[at, 1] = states[VALUE + RESIDENCY] if states[VALUE + RESIDENCY] > EMPTY_SET else NONE
    if hosting == PASSED_THROUGH:
        handling |= BY_PROVIDER
        said.codes[at, 2] = max(states[VALUE + PROVIDER], NONE)
        said.codes[at, 3] = max(states[VALUE + POLICY_URL], NONE)
    said.handling[at] = handling


@part
def _put_lateness(index: Any, code: Any, model: Any, done: Any, instant: Any, at: Any, paper: Any, said: Any) -> None:
    """`check._late`: what the gateway could not know when it enforced counts as a lag."""
    states, enforced, asked = paper[PAPER : PAPER + STATES], done.enforced[at], model != NULL_ID
    # What was taken back is as new as its retraction.
    for note in range(paper[LEDS] + OF_BOTH):
        leading = note < paper[LEDS]
        which = note - paper[LEDS]
        whose = paper[LED_CODE + note] if leading else code if which < HOSTING else model
        if whose < 0 or index.packed[whose, SAID_OF] < 0:
            continue
        if leading:
            which = ATTACHED_CODE if index.packed[whose, KIND] == ACCOUNT else OWNER_CODE
        retraction = _taken_back(index, whose, which, enforced, instant, done.known[at])
        if leading:
            paper[LED_NEWEST + note] = max(paper[LED_NEWEST + note], retraction)
        elif asked or which < HOSTING:
            states[NEWEST + which] = max(states[NEWEST + which], retraction)
    newest_led = np.int64(0)
    for note in range(paper[LEDS]):
        newest_led = max(newest_led, paper[LED_NEWEST + note])
    breaches = paper[BREACHES:]
    found = _breaches(index, asked, done.deeds[at], done.forwarded_to[at], done.region[at], states, breaches)
    reason = np.int64(said.reasons[at] & UNKNOWN_MODEL)
    for breach in range(0, found, 2):
        newest = max(newest_led, breaches[breach + 1])
        if newest <= enforced:
            reason |= breaches[breach]
            continue
        reason |= LAG
        lag = max(np.int64(0), instant - index.since[newest])
        if lag > said.lags[at, 0] or (lag == said.lags[at, 0] and newest > said.lags[at, 1]):
            said.lags[at, 0], said.lags[at, 1] = lag, newest
    said.reasons[at] = reason


@part
def _put_verdict(index: Any, code: Any, model: Any, done: Any, instant: Any, at: Any, paper: Any, said: Any) -> None:
    """`check.judge`."""
    states, receiver, asked = paper[PAPER : PAPER + STATES], done.forwarded_to[at], model != NULL_ID
    hosting = states[VALUE + HOSTING] if asked else np.int64(NULL)
    was_observed = done.deeds[at] & WAS_OBSERVED != 0
    reason = _reasons(index, asked, done.deeds[at], receiver, done.region[at], states)
    unknown = asked & (hosting == NULL)
    if receiver != NULL_ID and states[VALUE + PASSTHROUGH] == BIT_TRUE:
        unknown = unknown or not asked or (hosting == PASSED_THROUGH and states[VALUE + PROVIDER] == NULL)
    said.verdict[at] = VERDICT_OF[4 * np.int64(reason != 0) | 2 * np.int64(unknown) | np.int64(was_observed)]
    said.reasons[at] = reason | UNKNOWN_MODEL * np.int64(unknown)
    if was_observed and reason != 0 and done.enforced[at] >= 0:
        _put_lateness(index, code, model, done, instant, at, paper, said)


CONSTANTS: Final = constants_key(globals(), Ids, Observed, Catalog, Tables, Answers)


@compiled
def _decide(
    index: Any,
    c: Any,
    steps: Any,
    later: Any,
    ids: Any,
    done: Any,
    said: Any,
    paper: Any,
    ready: Any,
    constants: Any = CONSTANTS,
) -> None:
    """`check` of every row: what `decide_rows` says. `paper`, `ready`: room for notes."""
    states = paper[PAPER : PAPER + STATES]
    filled = 0
    for at in range(len(done.at)):
        if at % BLOCK == 0:
            ready[TOUCHED, 0] = _fetch(index, ids, done.at, at, min(BLOCK, len(done.at) - at), ready)
        instant, step, model = done.at[at], steps[at], np.int64(ids.model[at])
        first = filled
        said.codes[at, 2] = said.codes[at, 3] = NONE
        said.lags[at, 0] = said.lags[at, 1] = 0
        code, kind, problem, looked = _resolved(index, c, later, ids, at, instant, step, paper, ready)
        if problem == 0:
            defined, other = _policy(index, c, later, code, kind, instant, step, paper, ready, at % BLOCK)
            problem = np.int64(0 if defined else BEFORE_FIRST)
            looked = looked or other
        filled = _put_led(paper, filled, said.positions)
        if problem == 0:
            asked = model != NULL_ID
            if asked:
                other = _of_model(index, c, later, model, instant, step, paper)
                looked = looked or other
            for setting in range(OF_BOTH if asked else OF_POLICY):
                # Written over by the next one, if it is none.
                said.positions[filled] = states[EXPLICIT + setting]
                filled += 1 if states[EXPLICIT + setting] > 0 else 0
            _put_handling(code, kind, asked, states, at, said)
            _put_verdict(index, code, model, done, instant, at, paper, said)
        else:
            _put_protective(c, step, problem, at, said)
        said.counts[at], said.looked[at] = filled - first, looked


def decide_rows(t: Tables, c: Catalog, steps: Int64s, later: bool, ids: Ids, done: Observed) -> Answers:
    """What is answered to each row on one axis. `steps`: of `c`."""
    said = blank(len(done.at))
    paper, ready = np.empty(BREACHES + 20, np.int64), np.empty((READY, BLOCK), np.int64)
    _decide(t, c, steps, later, ids, done, said, paper, ready)
    return said
