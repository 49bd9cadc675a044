"""The arrays of a policy index: the facts behind all decisions, for every subject over all of valid time, at one pin.

A row of a log is decided with them as `projections.decisions.check` says; this is where its states are:

1. An id of the record becomes a subject's code: `hashing` gives its hash, `Subjects.slots` the codes to try, and the
   bytes decide. A record may name a subject without a code: the ledger has no event about it and no event names it, so
   only the catalog counts. (It still governs under its own name.) Subjects without a history have codes, too, if other
   subjects' events name them.
2. `links` of a key or project are its `owner`, of an account its `attached_to`. A link's target is again a code, of
   any kind, also of one that cannot govern (`OTHER_KIND`).
3. `policies` of an org or account are its six settings of `rule_settings.POLICY`; `models` of a model the
   four of `rule_settings.OF_MODEL` and the five of `published.PUBLISHED`.
4. `catalog` has for each setting in `SETTINGS` whether it was defined, for which kinds, its default and its protective
   value. So `effective_state.effective` is: not defined → `undefined`; the subject's kind not in the definition's
   `kinds` → the default (`not_applicable`), whatever the subject has; UNSET or CLEARED → the default; else its value.

A subject's rows in a table are a slice: rows start[code] .. start[code] + count[code] - 1, ascending by `at` (µs). A
row holds from its `at` until the next row's; before the first row everything is UNSET. A slice may be empty.
Neighbouring rows differ. Slices lie anywhere in their table, in any order, with unused rows between them.

Two axes. Everything above is the axis of the index's `known_at`: in force, as known at an instant, or now. Beside it
is the `later` axis, with everything known at the pin. `Slices.later[code]` is -1 where both are the same (nearly
always), else a row of the `later_*` columns, which are slices of the same tables. `later_catalog` has the same `at` as
`catalog`; two of their steps are equal if their positions are. (In force the first step usually differs: before the
ledger's first event nothing was known, while now its definitions hold from the beginning of time.) Hindsight agrees
with a decision if all subjects that it read have -1 and the two catalogs are equal at its step.

Positions are those of the deciding events: of a change, or where a setting is CLEARED of the clear (`cleared_by`); 0
where it is UNSET. `SettingState.newest` is then: explicit → this position; a default → the definition's position, or
this one if the setting is CLEARED and it is higher; `not_applicable` → the definition's.

Enforcement lag (`check._lag`): `since[position]` is max(recorded_at, effective_from) of the event at that position.
`States.retraction_since` needs the assertions about subjects with retractions: `assertions_of[code]` is -1 for all
others, else a row of `Assertions.start` and `Assertions.count`, which is a slice of the assertions about the subject's
settings in `SETTINGS`, in position order. `fold.deciding_retraction` answers from those with recorded_at <= known_at.

Instants are µs since 1970. Pure: no clock, no database, no files.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, Self

import numpy as np

from ledger.errors import LedgerUnavailable
from ledger.times import END
from projections.audit.arrays import Int32s, Int64s, UInt8s, UInt32s, UInt64s
from projections.audit.index.directory import NO_DIRECTORY, DirectoryEvents
from projections.audit.index.hashing import hash_id
from projections.decisions import rule_settings
from projections.decisions.published import PUBLISHED
from projections.decisions.rule_settings import OF_MODEL, POLICY
from projections.decisions.scope import ATTACHED_TO, OWNER
from projections.temporal.coordinates import KnownAt, Pin

FORMAT: Final = 4
"""Of these arrays and of their files (`storage`). An index of another format is compiled anew."""

KINDS: Final = ("account", "org", "project", "key", "model")
"""Kind code → kind. In a definition's `kinds` each kind is the bit 1 << code."""
ACCOUNT, ORG, PROJECT, KEY, MODEL = range(len(KINDS))
OTHER_KIND: Final = len(KINDS)
"""A link's target of a kind outside `KINDS`. It governs nothing and leads nowhere."""
PREFIX_LENGTHS: Final = (*(len(f"{kind}:") for kind in KINDS), 0)
"""Kind code → bytes before the bare id in the reference: `account:` has 8. The id of an OTHER_KIND is all of it."""

SETTINGS: Final = (*POLICY, *OF_MODEL, *PUBLISHED, OWNER, ATTACHED_TO)
"""Setting code → setting: 0-5 of the governing subject, 6-14 of the model, 15 `owner`, 16 `attached_to`."""
TRAINING, STORAGE, CACHING, PASSTHROUGH, RESIDENCY, NETWORK = (
    SETTINGS.index(setting)
    for setting in (
        rule_settings.TRAINING,
        rule_settings.STORAGE,
        rule_settings.CACHING,
        rule_settings.PASSTHROUGH,
        rule_settings.RESIDENCY,
        rule_settings.NETWORK,
    )
)
HOSTING, PROVIDER, POLICY_URL, MODEL_REGIONS = (
    SETTINGS.index(setting)
    for setting in (
        rule_settings.HOSTING,
        rule_settings.PROVIDER,
        rule_settings.POLICY_URL,
        rule_settings.MODEL_REGIONS,
    )
)
PRECISION, DISTILLED, PROMPT_FORCED, CENSORSHIP, REVISION = map(SETTINGS.index, PUBLISHED)
FLAGS_OF_MODEL: Final = (DISTILLED, PROMPT_FORCED, CENSORSHIP)
OWNER_CODE: Final = SETTINGS.index(OWNER)
ATTACHED_CODE: Final = SETTINGS.index(ATTACHED_TO)
NAMED_KINDS_MAX: Final = KEY
"""The kinds up to this code can lead to a governing subject, so that it matters whether they are known."""
NEVER_RECORDED: Final = END + 1
RELEVANT: Final[Mapping[str, tuple[str, ...]]] = {
    "account": (*POLICY, ATTACHED_TO),
    "org": POLICY,
    "project": (OWNER,),
    "key": (OWNER,),
    "model": (*OF_MODEL, *PUBLISHED),
}
"""Kind → the settings of its subjects that a decision can depend on."""

# Codes of a setting in `Policies.states`: three bits, setting code × 3 to the left.
BIT_UNSET: Final = 0
BIT_CLEARED: Final = 1
BIT_FALSE: Final = 2
BIT_TRUE: Final = 3
BIT_OTHER: Final = 4
"""Another value: every value of RESIDENCY, which stands in `Policies.regions`; in the catalog also null."""

# Codes of int32 columns. A code of 0 or more is a value: HOSTED or PASSED_THROUGH, or the code of a text, of a set of
# regions, or of a subject.
UNSET: Final = -1
CLEARED: Final = -2
NULL: Final = -3
"""Only of defaults and protective values."""
OTHER: Final = -4
"""A value of another type than its setting's, for example a number for a text: neither null nor equal to anything. For
hosting, a text that is neither of the two."""
HOSTED: Final = 0
PASSED_THROUGH: Final = 1
EMPTY_SET: Final = 0
"""The code of the empty set of regions."""

assert sys.byteorder == "little", "two 32-bit columns share a word in this order"

POSITION_MAX: Final = 2**31 - 1
"""Events have int32 numbers while the index is compiled. A larger ledger needs another format."""
ROWS_MAX: Final = 2**31 - 1
"""Of a table: the kernel has int32 row numbers."""


@dataclass(frozen=True)
class Subjects:
    """n subjects, with codes 0 .. n-1.

    kinds: uint8[n], kind codes. reference_offsets: int64[n + 1] into references: uint8[…], the full references
    (`org:acme`) in UTF-8, one after the other; the bare id begins PREFIX_LENGTHS[kind] bytes later.
    slots: uint64[2^k], an open-addressing hash table, never more than three quarters full. With h the hash of a kind
    and id: read slots[h & (2^k - 1)] and the slots after it, wrapping around, until a slot is 0 (no such subject).
    A slot is (h >> 32) << 32 | (code + 1): where the upper halves agree, compare kind and bytes.
    """

    kinds: UInt8s
    reference_offsets: Int64s
    references: UInt8s
    slots: UInt64s

    def __len__(self) -> int:
        return len(self.kinds)

    def reference(self, code: int) -> str:
        start, end = self.reference_offsets[code], self.reference_offsets[code + 1]
        return self.references[start:end].tobytes().decode()

    def code(self, reference: str) -> int | None:
        """The code of a full reference, if it has one. For one at a time; the kernel has a faster look-up for many."""
        return self.code_of(*kind_and_id(reference))

    def code_of(self, kind: int, id_: bytes) -> int | None:
        slots, mask = self.slots, len(self.slots) - 1
        hashed = hash_id(kind, id_)
        at = hashed & mask
        while entry := int(slots[at]):
            code = (entry & 0xFFFFFFFF) - 1
            if entry >> 32 == hashed >> 32 and self.kinds[code] == kind:
                start = self.reference_offsets[code] + PREFIX_LENGTHS[kind]
                if self.references[start : self.reference_offsets[code + 1]].tobytes() == id_:
                    return code
            at = (at + 1) & mask
        return None


@dataclass(frozen=True)
class Slices:
    """Where a subject's rows are (uint32[n], but int32[n] for later and assertions_of), and since when it is known.

    first_recorded_at: int64[n], µs: when the subject's first event, about any setting, was recorded; NEVER_RECORDED of
    a subject without events, and of every model.
    link_*: in Links, for keys, projects and accounts. state_*: in Policies for accounts and orgs, in Models for models.
    later: a row of the later_* (uint32[m]) or -1: see the module. assertions_of: a row of Assertions.start and
    Assertions.count, or -1.
    """

    link_start: UInt32s
    link_count: UInt32s
    state_start: UInt32s
    state_count: UInt32s
    later: Int32s
    assertions_of: Int32s
    later_link_start: UInt32s
    later_link_count: UInt32s
    later_state_start: UInt32s
    later_state_count: UInt32s
    first_recorded_at: Int64s


@dataclass(frozen=True)
class Links:
    """Columns side by side in rows: int64[rows, 2], because a look-up reads all of a row and waits for memory only
    once. at: int64[rows], µs. target: int32[rows], a subject's code, UNSET, CLEARED or OTHER. position:
    uint32[rows]."""

    rows: Int64s

    @classmethod
    def of(cls, at: Int64s, target: Int32s, position: UInt32s) -> Self:
        table = cls(np.empty((len(at), 2), np.int64))
        table.at[:], table.target[:], table.position[:] = at, target, position
        return table

    @property
    def at(self) -> Int64s:
        return self.rows[:, 0]

    @property
    def target(self) -> Int32s:
        return self.rows.view(np.int32)[:, 2]

    @property
    def position(self) -> UInt32s:
        return self.rows.view(np.uint32)[:, 3]


@dataclass(frozen=True)
class Policies:
    """Columns side by side in rows, as in `Links`: int64[rows, 5]. at: int64[rows], µs. states: uint32[rows], a BIT_*
    code for each setting of POLICY, three bits each: setting s is states >> 3 * s & 7. regions: int32[rows], the code
    of a set, UNSET or CLEARED. positions: uint32[rows, 6], in the order of POLICY."""

    rows: Int64s

    @classmethod
    def of(cls, at: Int64s, states: UInt32s, regions: Int32s, positions: UInt32s) -> Self:
        table = cls(np.empty((len(at), 5), np.int64))
        table.at[:], table.states[:], table.regions[:], table.positions[:] = at, states, regions, positions
        return table

    @property
    def at(self) -> Int64s:
        return self.rows[:, 0]

    @property
    def states(self) -> UInt32s:
        return self.rows.view(np.uint32)[:, 2]

    @property
    def regions(self) -> Int32s:
        return self.rows.view(np.int32)[:, 3]

    @property
    def positions(self) -> UInt32s:
        return self.rows.view(np.uint32)[:, 4:]


@dataclass(frozen=True)
class Models:
    """at: int64[rows], µs. values: int32[rows, 9], in the order of OF_MODEL: HOSTED, PASSED_THROUGH or OTHER; a text's
    code or OTHER; a text's code or OTHER; a set's code; then in the order of PUBLISHED: a text's code or OTHER, and for
    FLAGS_OF_MODEL BIT_FALSE, BIT_TRUE or OTHER; each also UNSET or CLEARED. positions: uint32[rows, 9]."""

    at: Int64s
    values: Int32s
    positions: UInt32s


@dataclass(frozen=True)
class CatalogSteps:
    """The definitions of all SETTINGS: row i holds from at[i] (int64[steps], µs) on. There is at least one row, the
    first at BEGINNING. Neighbours may be the same.

    position: uint32[steps, 17], the definition's; 0 where undefined (the other columns are 0 there, too).
    kinds: uint8[steps, 17], bit 1 << kind code. default, protective: int32[steps, 17]: for the five switches BIT_FALSE,
    BIT_TRUE or BIT_OTHER (null or anything else); for RESIDENCY and MODEL_REGIONS a set's code, or NULL; for HOSTING
    HOSTED, PASSED_THROUGH, OTHER or NULL; for FLAGS_OF_MODEL BIT_FALSE, BIT_TRUE, OTHER or NULL; for the model's other
    settings a text's code, OTHER or NULL; for the links a subject's code, OTHER or NULL.
    demands: uint8[steps], the kinds of subject that must be known, as in `kinds`. demand_position: uint32[steps], of
    the definition that says so, 0 where there is none.
    """

    at: Int64s
    position: UInt32s
    kinds: UInt8s
    default: Int32s
    protective: Int32s
    demands: UInt8s
    demand_position: UInt32s


@dataclass(frozen=True)
class Texts:
    """Providers, URLs, regions, precisions and revisions, and sets of regions. A text's code is its place among
    offsets: int64[texts + 1] into bytes: uint8[…], UTF-8. Set s has the texts members[set_offsets[s] :
    set_offsets[s + 1]] (int32, int64[sets + 1]), in the order that answers show. Each text and each set stands here
    once; set 0 is empty."""

    offsets: Int64s
    bytes: UInt8s
    set_offsets: Int64s
    members: Int32s

    @property
    def texts(self) -> list[str]:
        """The texts by code."""
        whole, offsets = self.bytes.tobytes(), self.offsets.tolist()
        return [whole[start:end].decode() for start, end in pairwise(offsets)]

    @property
    def sets(self) -> list[tuple[int, ...]]:
        """The sets by code: the codes of their texts."""
        offsets, members = self.set_offsets.tolist(), self.members.tolist()
        return [tuple(members[start:end]) for start, end in pairwise(offsets)]


@dataclass(frozen=True)
class Assertions:
    """All assertions about SETTINGS of those subjects that have a retraction, also one that is newer than the index's
    known_at: it counts from its recorded_at on.

    start, count: uint32[subjects with a retraction], slices by `Slices.assertions_of`. Columns by row: position:
    uint32; recorded_at: int64, µs; setting: uint8, its code; effective_from, effective_until: int64, µs (END: without
    end; both are 0 for a retraction); retracts: uint32, the position of the retracted change, 0 for a change.
    """

    start: UInt32s
    count: UInt32s
    position: UInt32s
    recorded_at: Int64s
    setting: UInt8s
    effective_from: Int64s
    effective_until: Int64s
    retracts: UInt32s


@dataclass(frozen=True)
class PolicyIndex:
    """The facts behind all decisions, at `pin`, as known at `known_at` ("at": in force; None: at the pin).

    since: int64[pin.position + 1], µs by position; since[0] is 0. directory: regions and providers. The arrays may be
    mapped from files: do not write to them. The two catalogs have the same `at`.
    """

    pin: Pin
    known_at: KnownAt
    subjects: Subjects
    slices: Slices
    links: Links
    policies: Policies
    models: Models
    catalog: CatalogSteps
    later_catalog: CatalogSteps
    texts: Texts
    assertions: Assertions
    since: Int64s
    directory: DirectoryEvents = NO_DIRECTORY

    def __post_init__(self) -> None:
        """Raises `LedgerUnavailable` for a table of more than ROWS_MAX rows. It may have more rows than the ledger has
        events: a period makes two rows, and each extension leaves unused ones."""
        rows = max(len(self.links.at), len(self.policies.at), len(self.models.at))
        if rows > ROWS_MAX:
            raise LedgerUnavailable(f"an audit takes at most {ROWS_MAX} states of subjects, and the index has {rows}")


def kind_code(reference: str) -> int:
    kind, colon, _ = reference.partition(":")
    return KINDS.index(kind) if colon and kind in KINDS else OTHER_KIND


def kind_and_id(reference: str) -> tuple[int, bytes]:
    """The two parts of a full reference that are hashed and compared."""
    kind = kind_code(reference)
    return kind, reference.encode()[PREFIX_LENGTHS[kind] :]


def references(subjects: Subjects) -> Iterator[str]:
    """The full references of all subjects, by code."""
    whole, offsets = subjects.references.tobytes(), subjects.reference_offsets.tolist()
    for start, end in pairwise(offsets):
        yield whole[start:end].decode()
