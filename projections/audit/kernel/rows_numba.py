"""Rows decided one after the other, compiled: `scope.resolve`, `check.ground` and `check.judge` over an index's arrays.

Each function says the same as the one that it names, in codes. They are given arrays and numbers only, and few of them:
compiling and calling them takes longer the more there are. Proved by tests/audit/kernel/test_against_reference.py.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from projections.audit import columns
from projections.audit.index import layout
from projections.audit.index.layout import Int64s
from projections.audit.kernel import answers, rows, tables
from projections.audit.kernel.answers import Answers
from projections.audit.kernel.compiled import compiled
from projections.audit.kernel.rows import Ids, Observed
from projections.audit.kernel.tables import Catalog, Tables
from projections.scope import CHAIN_MAX

# Said again because what is compiled is not compiled anew when another file changes (see `compiled`).
ACCOUNT, ORG, PROJECT, KEY, MODEL = 0, 1, 2, 3, 4
TRAINING, STORAGE, CACHING, PASSTHROUGH, RESIDENCY, NETWORK = 0, 1, 2, 3, 4, 5
HOSTING, PROVIDER, POLICY_URL, MODEL_REGIONS, OWNER, ATTACHED = 6, 7, 8, 9, 10, 11
BIT_UNSET, BIT_CLEARED, BIT_FALSE, BIT_TRUE = 0, 1, 2, 3
UNSET, CLEARED, NULL = -1, -2, -3
PASSED_THROUGH, HOSTED = 1, 0
ALLOWED, DENIED, COMPLIANT, VIOLATION, INDETERMINATE = 0, 1, 2, 3, 4
BEFORE_FIRST, CONFLICT, UNKNOWN_OWNER, UNKNOWN_MODEL, NOT_ALLOWED, LEFT = 1, 2, 4, 8, 16, 32
WRONG_PROVIDER, OUTSIDE, PUBLIC_NETWORK, STORED, CACHED, TRAINED, LAG = 64, 128, 256, 512, 1024, 2048, 4096
MAY_STORE, MAY_CACHE, MAY_TRAIN, MAY_LEAVE, PRIVATE_ONLY, BY_PROVIDER = 1, 2, 4, 8, 16, 32
NOBODY, THE_ORG, THE_ACCOUNT, NONE, NO_CODE, NULL_ID = -1, -2, -3, -1, -2, -1
HAS_STORED, HAS_CACHED, HAS_TRAINED, IN_PUBLIC, WAS_OBSERVED = 1, 2, 4, 8, 16
LINKS_MAX = 8

_SAME: Final = (
    (layout.ACCOUNT, layout.ORG, layout.PROJECT, layout.KEY, layout.MODEL) == (ACCOUNT, ORG, PROJECT, KEY, MODEL),
    (layout.TRAINING, layout.STORAGE, layout.CACHING, layout.PASSTHROUGH) == (TRAINING, STORAGE, CACHING, PASSTHROUGH),
    (layout.RESIDENCY, layout.NETWORK, layout.HOSTING, layout.PROVIDER) == (RESIDENCY, NETWORK, HOSTING, PROVIDER),
    (layout.POLICY_URL, layout.MODEL_REGIONS) == (POLICY_URL, MODEL_REGIONS),
    (layout.OWNER_CODE, layout.ATTACHED_CODE) == (OWNER, ATTACHED),
    (layout.BIT_UNSET, layout.BIT_CLEARED, layout.BIT_FALSE, layout.BIT_TRUE)
    == (BIT_UNSET, BIT_CLEARED, BIT_FALSE, BIT_TRUE),
    (layout.UNSET, layout.CLEARED, layout.NULL, layout.HOSTED, layout.PASSED_THROUGH)
    == (UNSET, CLEARED, NULL, HOSTED, PASSED_THROUGH),
    layout.EMPTY_SET == 0,
    columns.VERDICT_NAMES == ("allowed", "denied", "compliant", "violation", "indeterminate"),
    columns.REASON_NAMES[:5]
    == ("before_first_record", "scope_conflict", "unknown_owner", "unknown_model", "passthrough_not_allowed"),
    columns.REASON_NAMES[5:9] == ("left_platform", "wrong_provider", "outside_residency", "public_network"),
    columns.REASON_NAMES[9:]
    == ("stored_against_setting", "cached_against_setting", "trained_without_opt_in", "enforcement_lag"),
    (answers.MAY_STORE, answers.MAY_CACHE, answers.MAY_TRAIN, answers.MAY_LEAVE, answers.PRIVATE_ONLY)
    == (MAY_STORE, MAY_CACHE, MAY_TRAIN, MAY_LEAVE, PRIVATE_ONLY),
    answers.BY_PROVIDER == BY_PROVIDER,
    (answers.NOBODY, answers.THE_ORG, answers.THE_ACCOUNT, answers.NONE) == (NOBODY, THE_ORG, THE_ACCOUNT, NONE),
    (rows.NO_CODE, rows.NULL_ID) == (NO_CODE, NULL_ID),
    (rows.HAS_STORED, rows.HAS_CACHED, rows.HAS_TRAINED, rows.IN_PUBLIC, rows.WAS_OBSERVED)
    == (HAS_STORED, HAS_CACHED, HAS_TRAINED, IN_PUBLIC, WAS_OBSERVED),
    CHAIN_MAX == LINKS_MAX,
)
assert all(_SAME)


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
VALUE, NEWEST, EXPLICIT, STATES = 0, 10, 20, 30
BLOCK, HOPS = 256, 2
# Rows of what `_fetch` makes ready, behind two of each hop.
GOVERNING, POLICY, LATER_POLICY, ROOM, TOUCHED, READY = 4, 5, 6, 7, 9, 10
# Columns of `Tables.packed`.
LINK_START, LINK_COUNT, STATE_START, STATE_COUNT, LATER, SAID_OF, KIND = 0, 1, 2, 3, 4, 5, 6
assert tables.PACKED == ("link_start", "link_count", "state_start", "state_count", "later", "said_of", "kinds")


@compiled
def _row_at(instants: Any, first: Any, count: Any, instant: Any) -> Any:
    """The last of the rows first … first + count - 1 that began by `instant`, or -1."""
    # Without a branch that nobody can foretell.
    before, left = np.int64(first) - 1, np.int64(count)
    while left > 0:
        half = (left + 1) >> 1
        before += half if instants[before + half] <= instant else 0
        left -= half
    return before if before >= np.int64(first) else np.int64(-1)


@compiled
def _row_of(rows: Any, first: Any, count: Any, instant: Any) -> Any:
    """`_row_at` of rows that begin with their instant."""
    before, left = np.int64(first) - 1, np.int64(count)
    while left > 0:
        half = (left + 1) >> 1
        before += half if rows[before + half, 0] <= instant else 0
        left -= half
    return before if before >= np.int64(first) else np.int64(-1)


@compiled
def _lower(word: Any) -> Any:
    """The first of the two columns that share a word, which is signed: a link's target."""
    return np.int64(np.int32(word & 0xFFFFFFFF))


@compiled
def _upper(word: Any) -> Any:
    """The second, which is not: a link's position."""
    return word >> 32 & 0xFFFFFFFF


@compiled
def _other_target(links: Any, row: Any, first: Any, count: Any, instant: Any) -> Any:
    """Whether the later axis, whose rows those from `first` on are, has another target at `instant` than `row` has."""
    other = _row_of(links, first, count, instant)
    if row < 0 or other < 0:
        return (row < 0) != (other < 0)
    return _lower(links[row, 1]) != _lower(links[other, 1])


@compiled
def _link(defined: Any, applies: Any, default: Any, row: Any, links: Any, code: Any, paper: Any) -> Any:
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


@compiled
def _governing(
    code: Any,
    kind: Any,
    instant: Any,
    step: Any,
    paper: Any,
    subjects: Any,
    later: Any,
    later_starts: Any,
    later_counts: Any,
    links: Any,
    defined: Any,
    defined_kinds: Any,
    defaults: Any,
    ready: Any,
    place_of: Any,
) -> Any:
    """`scope._governing`: (code, kind, problem, whether any link is another on the later axis). `ready`: of row
    `place_of`, what `_fetch` found; less than 0: nothing."""
    vias = np.int64(0)
    looked = False
    while True:
        paper[VIA + vias], paper[VIA_KIND + vias] = code, kind
        vias += 1
        paper[VIAS] = vias
        # What an account is attached to is not followed further.
        if kind not in (KEY, PROJECT, ACCOUNT) or (vias > 1 and paper[VIA_KIND + vias - 2] == ACCOUNT):
            break
        setting = ATTACHED if kind == ACCOUNT else OWNER
        row = np.int64(-1)
        if code >= 0:
            place = np.int64(subjects[code, LATER])
            if later and place >= 0:
                row = _row_of(links, later_starts[place], later_counts[place], instant)
            else:
                if place_of >= 0 and vias <= HOPS and ready[2 * vias - 2, place_of] == code:
                    row = ready[2 * vias - 1, place_of]
                else:
                    row = _row_of(links, subjects[code, LINK_START], subjects[code, LINK_COUNT], instant)
                if place >= 0:
                    first, count = later_starts[place], later_counts[place]
                    looked = looked or _other_target(links, row, first, count, instant)
        position = np.int64(defined[step, setting])
        applies = defined_kinds[step, setting] >> kind & 1 == 1 and position > 0
        target = _link(position, applies, np.int64(defaults[step, setting]), row, links, code, paper)
        if position == 0:
            return code, kind, np.int64(BEFORE_FIRST), looked
        if target < 0 and kind == ACCOUNT:
            break
        if target < 0 or (vias == LINKS_MAX and kind != ACCOUNT):
            return code, kind, np.int64(UNKNOWN_OWNER), looked
        code, kind = target, np.int64(subjects[target, KIND])
    return code, kind, np.int64(0 if kind in (ACCOUNT, ORG) else UNKNOWN_OWNER), looked


@compiled
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


@compiled
def _states(
    row: Any,
    first: Any,
    until: Any,
    kind: Any,
    step: Any,
    values: Any,
    positions: Any,
    states: Any,
    defined: Any,
    defined_kinds: Any,
    defaults: Any,
) -> Any:
    """`state.effective` of the settings first … until - 1 of one subject, of which values[i] is its own code of each,
    UNSET or CLEARED, and positions[i] the event's. Where undefined the value is NULL, and the answer False."""
    undefined = 0
    for setting in range(first, until):
        position = np.int64(defined[step, setting])
        states[EXPLICIT + setting] = 0
        states[NEWEST + setting] = position
        states[VALUE + setting] = defaults[step, setting] if position > 0 else NULL
        undefined += 1 if position == 0 else 0
        if position == 0 or row < 0 or defined_kinds[step, setting] >> kind & 1 == 0:
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


@compiled
def _in_set(code: Any, of: Any, set_offsets: Any, members: Any) -> Any:
    for at in range(set_offsets[of], set_offsets[of + 1]):
        if members[at] == code:
            return True
    return False


@compiled
def _meet(one: Any, other: Any, set_offsets: Any, members: Any) -> Any:
    for at in range(set_offsets[one], set_offsets[one + 1]):
        if _in_set(members[at], other, set_offsets, members):
            return True
    return False


@compiled
def _taken_back(
    code: Any,
    setting: Any,
    enforced: Any,
    instant: Any,
    known: Any,
    subjects: Any,
    firsts: Any,
    counts: Any,
    positions: Any,
    recorded: Any,
    settings: Any,
    starts: Any,
    ends: Any,
    retracts: Any,
) -> Any:
    """`fold.retraction_of_decided`: the position of what took back since, known by `known`, the change that decided at
    `instant` for whoever knew the ledger up to `enforced`; 0 where it still stands."""
    place = subjects[code, SAID_OF] if code >= 0 else -1
    if place < 0:
        return np.int64(0)
    first, until = np.int64(firsts[place]), np.int64(firsts[place]) + np.int64(counts[place])
    while until > first and recorded[until - 1] > known:
        until -= 1
    news = until
    while news > first and positions[news - 1] > enforced:
        news -= 1
    for at in range(news - 1, first - 1, -1):
        if settings[at] != setting or retracts[at] != 0 or not starts[at] <= instant < ends[at]:
            continue
        by = at + 1
        while by < until and retracts[by] != positions[at]:
            by += 1
        if by >= news:
            # It decided; everything under it did not.
            return np.int64(positions[by]) if by < until else np.int64(0)
    return np.int64(0)


@compiled
def _reasons(asked: Any, deeds: Any, receiver: Any, region: Any, states: Any, set_offsets: Any, members: Any) -> Any:
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
    if regions > 0:
        there = not asked or states[VALUE + MODEL_REGIONS] <= 0
        there = there or _meet(regions, states[VALUE + MODEL_REGIONS], set_offsets, members)
        there = there and (region == NULL_ID or _in_set(region, regions, set_offsets, members))
        reason |= 0 if there else OUTSIDE
    return reason


@compiled
def _breaches(
    asked: Any,
    deeds: Any,
    receiver: Any,
    region: Any,
    states: Any,
    set_offsets: Any,
    members: Any,
    breaches: Any,
) -> Any:
    """`check._denials`, then `check._misdeeds`: how many, and of each its bit and the newest event that it rests on:
    for rows that may have been late."""
    value, newest = states[VALUE : VALUE + 10], states[NEWEST : NEWEST + 10]
    hosting = value[HOSTING] if asked else np.int64(NULL)
    allowed, regions = value[PASSTHROUGH] == BIT_TRUE, value[RESIDENCY]
    count = 0
    if hosting == PASSED_THROUGH and not allowed:
        breaches[count], breaches[count + 1] = NOT_ALLOWED, max(newest[PASSTHROUGH], newest[HOSTING])
        count += 2
    if asked and regions > 0 and value[MODEL_REGIONS] > 0:
        if not _meet(regions, value[MODEL_REGIONS], set_offsets, members):
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
    if region != NULL_ID and regions > 0 and not _in_set(region, regions, set_offsets, members):
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


@compiled
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


@compiled
def _fetch(
    first: Any,
    size: Any,
    instants: Any,
    keys: Any,
    accounts: Any,
    orgs: Any,
    projects: Any,
    subjects: Any,
    link_rows: Any,
    policy_rows: Any,
    later_starts: Any,
    later_counts: Any,
    ready: Any,
) -> Any:
    """Goes the way of so many rows from `first` on, on the axis that is asked for, in short steps, all rows a step at a
    time, so that they wait for memory together, and what `_decide` then looks at is at hand. ready: of each of the
    first HOPS links whose it is and its row; then of whom they lead to the code, the row of the policy, and the one of
    the later axis, if it may be another; -1 where there is no row; room for two columns more."""
    codes, starts, counts = ready[GOVERNING], ready[ROOM], ready[ROOM + 1]
    for at in range(size):
        key, project, org = keys[first + at], projects[first + at], orgs[first + at]
        named = key if key != NULL_ID else project if project != NULL_ID else org
        codes[at] = named if named != NULL_ID else accounts[first + at]
    for hop in range(HOPS):
        found = ready[2 * hop + 1]
        for at in range(size):
            code = codes[at]
            ready[2 * hop, at] = code
            starts[at] = subjects[code, LINK_START] if code >= 0 else 0
            counts[at] = subjects[code, LINK_COUNT] if code >= 0 else 0
        _rows_of(link_rows, starts, counts, instants, first, size, found)
        for at in range(size):
            if found[at] >= 0:
                target = _lower(link_rows[found[at], 1])
                codes[at] = target if target >= 0 else codes[at]
    places = ready[LATER_POLICY]
    for at in range(size):
        code = codes[at]
        governs = code >= 0 and subjects[code, KIND] in (ACCOUNT, ORG)
        starts[at] = subjects[code, STATE_START] if governs else 0
        counts[at] = subjects[code, STATE_COUNT] if governs else 0
        places[at] = subjects[code, LATER] if governs else -1
    _rows_of(policy_rows, starts, counts, instants, first, size, ready[POLICY])
    for at in range(size):
        place = places[at]
        starts[at] = later_starts[place] if place >= 0 else 0
        counts[at] = later_counts[place] if place >= 0 else 0
    _rows_of(policy_rows, starts, counts, instants, first, size, ready[LATER_POLICY])
    touched = np.int64(0)
    for which in (POLICY, LATER_POLICY):
        for at in range(size):
            if ready[which, at] >= 0:
                touched += policy_rows[ready[which, at], 1] ^ policy_rows[ready[which, at], 4]
    return touched


@compiled
def _decide(
    instants: Any,
    steps: Any,
    later: Any,
    keys: Any,
    accounts: Any,
    orgs: Any,
    projects: Any,
    models: Any,
    deeds: Any,
    receivers: Any,
    regions: Any,
    enforced: Any,
    known_by: Any,
    subjects: Any,
    later_link_starts: Any,
    later_link_counts: Any,
    link_rows: Any,
    later_state_starts: Any,
    later_state_counts: Any,
    policy_rows: Any,
    model_at: Any,
    model_values: Any,
    model_positions: Any,
    defined: Any,
    defined_kinds: Any,
    defaults: Any,
    protective: Any,
    set_offsets: Any,
    members: Any,
    said_start: Any,
    said_count: Any,
    said_position: Any,
    said_recorded: Any,
    said_setting: Any,
    said_from: Any,
    said_until: Any,
    said_retracts: Any,
    since: Any,
    verdicts: Any,
    reasons: Any,
    codes: Any,
    handlings: Any,
    looks: Any,
    lags: Any,
    again: Any,
    counts: Any,
    out: Any,
    paper: Any,
    ready: Any,
) -> None:
    """`check` of every row: what `decide_rows` says. `paper`: room for notes, int64, as `PAPER`, `STATES` and 50 more
    say; codes: governing, regions, provider, policy_url; lags: µs, position."""
    states, own, said = paper[PAPER : PAPER + STATES], paper[PAPER + STATES :][:10], paper[PAPER + STATES + 10 :][:10]
    breaches = paper[PAPER + STATES + 20 :]
    filled = 0
    for at in range(len(instants)):
        if at % BLOCK == 0:
            ready[TOUCHED, 0] = _fetch(
                at,
                min(BLOCK, len(instants) - at),
                instants,
                keys,
                accounts,
                orgs,
                projects,
                subjects,
                link_rows,
                policy_rows,
                later_state_starts,
                later_state_counts,
                ready,
            )
        instant, step = instants[at], steps[at]
        key, project, org, account = (
            np.int64(keys[at]),
            np.int64(projects[at]),
            np.int64(orgs[at]),
            np.int64(accounts[at]),
        )
        model = np.int64(models[at])
        # `scope.resolve`.
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
            end, end_kind, problem, also = _governing(
                start,
                start_kind,
                instant,
                step,
                paper,
                subjects,
                later,
                later_link_starts,
                later_link_counts,
                link_rows,
                defined,
                defined_kinds,
                defaults,
                ready,
                at % BLOCK if turn == 0 else -1,
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
        # The governing subject's states.
        if problem == 0:
            row = np.int64(-1)
            if code >= 0:
                place = np.int64(subjects[code, LATER])
                if later and place >= 0:
                    row = _row_of(policy_rows, later_state_starts[place], later_state_counts[place], instant)
                else:
                    row, other = ready[POLICY, at % BLOCK], ready[LATER_POLICY, at % BLOCK]
                    if code != ready[GOVERNING, at % BLOCK]:
                        row = _row_of(policy_rows, subjects[code, STATE_START], subjects[code, STATE_COUNT], instant)
                        if place >= 0:
                            other = _row_of(policy_rows, later_state_starts[place], later_state_counts[place], instant)
                    if place >= 0:
                        if row < 0 or other < 0:
                            if (row < 0) != (other < 0):
                                looked = True
                        elif policy_rows[row, 1] != policy_rows[other, 1]:
                            looked = True
            if row >= 0:
                bits = policy_rows[row, 1]
                for setting in range(6):
                    own[setting] = OWN_OF_BITS[bits >> 3 * setting & 7]
                for pair in range(3):
                    word = policy_rows[row, 2 + pair]
                    said[2 * pair], said[2 * pair + 1] = word & 0xFFFFFFFF, _upper(word)
                if own[RESIDENCY] > 0:
                    own[RESIDENCY] = policy_rows[row, 1] >> 32
            if not _states(row, 0, 6, kind, step, own, said, states, defined, defined_kinds, defaults):
                problem = np.int64(BEFORE_FIRST)
        led = filled
        for note in range(paper[LEDS]):
            # One chain may run in a circle, or two into one.
            known = paper[LED + note] == 0
            for before in range(led, filled):
                known = known or out[before] == paper[LED + note]
            if not known:
                out[filled] = paper[LED + note]
                filled += 1
        codes[at, 2] = codes[at, 3] = NONE
        lags[at, 0] = lags[at, 1] = 0
        again[at] = False
        if problem != 0:
            handling: Any = 0 if protective[step, NETWORK] == BIT_FALSE else PRIVATE_ONLY
            handling |= MAY_STORE if protective[step, STORAGE] == BIT_TRUE else 0
            handling |= MAY_CACHE if protective[step, CACHING] == BIT_TRUE else 0
            handling |= MAY_TRAIN if protective[step, TRAINING] == BIT_TRUE else 0
            handling |= MAY_LEAVE if protective[step, PASSTHROUGH] == BIT_TRUE else 0
            verdicts[at], reasons[at], handlings[at] = INDETERMINATE, problem, handling
            codes[at, 0], codes[at, 1] = NOBODY, max(protective[step, RESIDENCY], 0)
            counts[at], looks[at] = filled - led, looked
            continue
        # The model's states.
        asked = model != NULL_ID
        hosting = np.int64(NULL)
        if asked:
            row = np.int64(-1)
            if model >= 0:
                place = np.int64(subjects[model, LATER])
                if place >= 0:
                    looked = True
                if later and place >= 0:
                    row = _row_at(model_at, later_state_starts[place], later_state_counts[place], instant)
                else:
                    row = _row_at(model_at, subjects[model, STATE_START], subjects[model, STATE_COUNT], instant)
            if row >= 0:
                for setting in range(4):
                    own[setting], said[setting] = model_values[row, setting], model_positions[row, setting]
            _states(row, 6, 10, MODEL, step, own, said, states, defined, defined_kinds, defaults)
            hosting = states[VALUE + HOSTING]
        for setting in range(10 if asked else 6):
            # Written over by the next one, if it is none.
            out[filled] = states[EXPLICIT + setting]
            filled += 1 if states[EXPLICIT + setting] > 0 else 0
        counts[at], looks[at] = filled - led, looked
        # `check._handling`.
        allowed = states[VALUE + PASSTHROUGH] == BIT_TRUE
        handling = MAY_STORE * np.int64(states[VALUE + STORAGE] == BIT_TRUE)
        handling |= MAY_CACHE * np.int64(states[VALUE + CACHING] == BIT_TRUE)
        handling |= MAY_TRAIN * np.int64(states[VALUE + TRAINING] == BIT_TRUE)
        handling |= MAY_LEAVE * np.int64(allowed & ((not asked) | (hosting == PASSED_THROUGH)))
        handling |= PRIVATE_ONLY * np.int64(states[VALUE + NETWORK] == BIT_TRUE)
        codes[at, 0] = code if code >= 0 else THE_ORG if kind == ORG else THE_ACCOUNT
        codes[at, 1] = states[VALUE + RESIDENCY] if states[VALUE + RESIDENCY] > 0 else NONE
        if hosting == PASSED_THROUGH:
            handling |= BY_PROVIDER
            codes[at, 2] = max(states[VALUE + PROVIDER], NONE)
            codes[at, 3] = max(states[VALUE + POLICY_URL], NONE)
        handlings[at] = handling
        # `check.judge`.
        was_observed = deeds[at] & WAS_OBSERVED != 0
        reason = _reasons(asked, deeds[at], receivers[at], regions[at], states, set_offsets, members)
        unknown = asked & (hosting == NULL)
        if receivers[at] != NULL_ID and allowed:
            unknown = unknown or not asked or (hosting == PASSED_THROUGH and states[VALUE + PROVIDER] == NULL)
        verdicts[at] = VERDICT_OF[4 * np.int64(reason != 0) | 2 * np.int64(unknown) | np.int64(was_observed)]
        reasons[at] = reason | UNKNOWN_MODEL * np.int64(unknown)
        if not was_observed or reason == 0 or enforced[at] < 0:
            continue
        # What was taken back is as new as its retraction (`check._late`).
        newest_led = np.int64(0)
        for note in range(paper[LEDS] + 10):
            leading = note < paper[LEDS]
            which = note - paper[LEDS]
            whose = paper[LED_CODE + note] if leading else code if which < HOSTING else model
            if whose < 0 or subjects[whose, SAID_OF] < 0:
                continue
            if leading:
                which = ATTACHED if subjects[whose, KIND] == ACCOUNT else OWNER
            retraction = _taken_back(
                whose,
                which,
                enforced[at],
                instant,
                known_by[at],
                subjects,
                said_start,
                said_count,
                said_position,
                said_recorded,
                said_setting,
                said_from,
                said_until,
                said_retracts,
            )
            if leading:
                paper[LED_NEWEST + note] = max(paper[LED_NEWEST + note], retraction)
            elif asked or which < HOSTING:
                states[NEWEST + which] = max(states[NEWEST + which], retraction)
        for note in range(paper[LEDS]):
            newest_led = max(newest_led, paper[LED_NEWEST + note])
        found = _breaches(asked, deeds[at], receivers[at], regions[at], states, set_offsets, members, breaches)
        reason = np.int64(UNKNOWN_MODEL if unknown else 0)
        for breach in range(0, found, 2):
            newest = max(newest_led, breaches[breach + 1])
            if newest <= enforced[at]:
                reason |= breaches[breach]
                continue
            reason |= LAG
            lag = max(np.int64(0), instant - since[newest])
            if lag > lags[at, 0] or (lag == lags[at, 0] and newest > lags[at, 1]):
                lags[at, 0], lags[at, 1] = lag, newest
        reasons[at] = reason


def decide_rows(t: Tables, c: Catalog, steps: Int64s, later: bool, ids: Ids, done: Observed) -> Answers:
    """What is answered to each row on one axis. `steps`: of `c`."""
    said = answers.blank(len(done.at))
    _decide(
        done.at,
        steps,
        later,
        *ids,
        *done[1:],
        t.packed,
        t.later_link_start,
        t.later_link_count,
        t.link_rows,
        t.later_state_start,
        t.later_state_count,
        t.policy_rows,
        t.model_at,
        t.model_values,
        t.model_positions,
        c.position,
        c.kinds,
        c.default,
        c.protective,
        t.set_offsets,
        t.set_members,
        t.said_start,
        t.said_count,
        t.said_position,
        t.said_recorded_at,
        t.said_setting,
        t.said_from,
        t.said_until,
        t.said_retracts,
        t.since,
        *said,
        np.empty(PAPER + STATES + 50, np.int64),
        np.empty((READY, BLOCK), np.int64),
    )
    return said
