"""The rules about regions and providers for the kernel: `decisions.regions` and `decisions.providers` themselves
decide, once for each combination of codes that a log has, and the compiled rules look the outcome up.

A combination is four numbers. Of regions: the directory's step, the codes of the allowed set and of the model's set
(-1: no model), and the code of the observed region. Of providers: the directory's step, the codes of the model's
provider and URL, and the code of the receiver, if receivers are compared at all. The compiled rules report a
combination without an outcome, and `PlaceRules.add` decides it. The outcomes grow with the combinations, not with the
rows. Proved by tests/audit/kernel/test_against_reference.py.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from projections.audit.arrays import Int32s, Int64s, all_sealed
from projections.audit.index.schema import PolicyIndex
from projections.audit.kernel.answers import NONE
from projections.audit.kernel.request_columns import NO_CODE, NULL_ID
from projections.decisions.directory import DirectorySteps, Facts, folded, plain
from projections.decisions.model import DataPolicy
from projections.decisions.providers import provider_policy, receiver_of
from projections.decisions.regions import ModelRegions, observed_region, regions_of_model
from projections.temporal.changes import Retraction

DENIED_REGION: Final = 1
OUTSIDE_REGION: Final = 2
ELSEWHERE: Final = 4
UNKNOWN_REGION_BIT: Final = 8
WRONG_RECEIVER: Final = 16
UNTOLD_RECEIVER: Final = 32
RETRACTED: Final = 64
"""Bits of an outcome. RETRACTED: a setting that it rests on has a retraction, so a lag needs `check` itself."""

UNHEARD: Final = "\udcff"
"""In place of an observed text that the index does not have: no setting can have this text."""
NO_MODEL: Final = -1


class Outcomes(NamedTuple):
    """keys: int64[n, 4]; slots: int32[2^k], an open-addressing hash table of row numbers + 1. bits: int64[n]. answer:
    int32[n], the code of a set of regions, or of a data policy. newest: int64[n, 3], the position of the newest event
    among the facts of a denial, of an observed region outside (or a wrong receiver), and of one elsewhere. facts:
    int64[n, 4]: where the positions of the facts begin and end, first those of the basis, then further ones."""

    keys: Int64s
    slots: Int32s
    bits: Int64s
    answer: Int32s
    newest: Int64s
    facts: Int64s
    positions: Int64s


class PlaceTables(NamedTuple):
    """The outcomes of regions and of providers, as the compiled rules take them."""

    regions: Outcomes
    providers: Outcomes


class _PlaceOutcome(NamedTuple):
    bits: int
    answer: int
    newest: tuple[int, int, int]
    basis: tuple[int, ...]
    more: tuple[int, ...]


class _OutcomeRows:
    """The outcomes of one kind on one axis, in lists."""

    def __init__(self) -> None:
        self.keys: list[tuple[int, ...]] = []
        self.outcomes: list[_PlaceOutcome] = []

    def arrays(self) -> Outcomes:
        count = len(self.keys)
        keys = np.array(self.keys, np.int64).reshape(-1, 4)
        size = 16
        while size < 2 * count:
            size *= 2
        slots = np.zeros(size, np.int32)
        for row, key in enumerate(self.keys):
            place = hash_key(*key) & (size - 1)
            while slots[place]:
                place = (place + 1) & (size - 1)
            slots[place] = row + 1
        facts, positions = np.zeros((count, 4), np.int64), list[int]()
        for row, outcome in enumerate(self.outcomes):
            facts[row, 0] = len(positions)
            positions += outcome.basis
            facts[row, 1] = facts[row, 2] = len(positions)
            positions += outcome.more
            facts[row, 3] = len(positions)
        columns: list[NDArray[Any]] = [
            keys,
            slots,
            np.array([one.bits for one in self.outcomes], np.int64),
            np.array([one.answer for one in self.outcomes], np.int32),
            np.array([one.newest for one in self.outcomes], np.int64).reshape(-1, 3),
            facts,
            np.array(positions, np.int64),
        ]
        return Outcomes._make(all_sealed(columns))


_MASK: Final = (1 << 64) - 1
FACTORS: Final = (0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9, 0x27D4EB2F165667C5)


def hash_key(first: int, second: int, third: int, fourth: int) -> int:
    """The compiled rules have the same function."""
    mixed = 0
    for number, factor in zip((first, second, third, fourth), FACTORS, strict=True):
        mixed = ((mixed ^ (number & _MASK)) * factor) & _MASK
        mixed ^= mixed >> 29
    return mixed & 0x7FFFFFFF


class PlaceRules:
    """The outcomes for one index, on both axes. Safe to use from many threads: tables are replaced, never altered."""

    def __init__(self, index: PolicyIndex) -> None:
        self._texts = index.texts.texts
        self._sets = index.texts.sets
        self._own_sets = len(self._sets)
        self._set_codes = {members: code for code, members in enumerate(self._sets)}
        self._text_codes = {text: code for code, text in enumerate(self._texts)}
        self._plain = {plain(text): code for code, text in enumerate(self._texts)}
        self._folded = {folded(text): code for code, text in enumerate(self._texts)}
        self.policies: list[DataPolicy] = []
        self._policy_codes: dict[DataPolicy, int] = {}
        self._retracted = {
            (subject, one.setting)
            for subject, assertions in index.directory.assertions.items()
            for one in assertions
            if isinstance(one, Retraction)
        }
        both = index.directory.directories(index.known_at)
        spans = list(both.spans()) if both.axis or both.later else []
        self._same_at = np.array([span.start for span in spans], np.int64)
        self._same = np.array([span.same for span in spans], np.bool_)
        self.axes = (_Axis(both.axis), _Axis(both.later))
        self._names = [name for axis in (both.axis, both.later) for name in axis.names()]
        self._plain_codes = np.array([self._plain[plain(text)] for text in self._texts], np.int32)
        for name in self._names:
            self._plain.setdefault(plain(name), self._code(name))
            self._folded.setdefault(folded(name), self._code(name))
        self._lock = threading.Lock()

    def _code(self, text: str) -> int:
        code = self._text_codes.setdefault(text, len(self._text_codes))
        if code == len(self._texts):
            self._texts.append(text)
        return code

    @property
    def texts(self) -> Sequence[str]:
        """By code: the texts of the index, and then those of the directory that it lacks."""
        return self._texts

    def agrees(self, at: Int64s) -> NDArray[np.bool_]:
        """By instant, whether hindsight has the same directory."""
        if not len(self._same):
            return np.ones(len(at), np.bool_)
        same: NDArray[np.bool_] = self._same[np.searchsorted(self._same_at, at, "right") - 1]
        return same

    def plain_codes(self, codes: NDArray[np.int32]) -> NDArray[np.int32]:
        """`codes` of texts of the index (negative ones stay), each as the one code of all texts that are the same as it
        when they are trimmed and compared after NFC."""
        if not len(self._plain_codes):
            return codes
        of_index = (codes >= 0) & (codes < len(self._plain_codes))
        return np.where(of_index, self._plain_codes[np.where(of_index, codes, 0)], codes)

    def known_codes(self, codes: Int32s, column: pa.Array, *, provider: bool) -> Int32s:
        """`codes`, with a code for each text of the column that is known in another form."""
        rows = np.flatnonzero(codes == NO_CODE)
        if not len(rows):
            return codes
        encoded = column.take(pa.array(rows)).dictionary_encode()
        known, form = (self._folded, folded) if provider else (self._plain, plain)
        of_texts = [known.get(form(text), NO_CODE) for text in encoded.dictionary.to_pylist()]
        known_codes = codes.copy()
        known_codes[rows] = np.array(of_texts, np.int32)[encoded.indices.to_numpy()]
        return known_codes

    def add(self, later: bool, regions: Iterable[tuple[int, ...]], providers: Iterable[tuple[int, ...]]) -> None:
        """Decides these combinations."""
        with self._lock:
            axis = self.axes[later]
            for rows, keys, decide in (
                (axis.regions, regions, self._of_regions),
                (axis.providers, providers, self._of_providers),
            ):
                known = set(rows.keys)
                for key in keys:
                    if key not in known:
                        known.add(key)
                        rows.outcomes.append(decide(axis.steps, *key))
                        rows.keys.append(key)
            axis.tables = PlaceTables(axis.regions.arrays(), axis.providers.arrays())

    def _of_regions(self, steps: DirectorySteps, step: int, allowed: int, model: int, region: int) -> _PlaceOutcome:
        directory = steps.of_step(step)
        residency, runs_in = self._set(allowed), self._set(model)
        of_model = ModelRegions(residency or None, "meet", ())
        if model != NO_MODEL:
            of_model = regions_of_model(directory, residency, runs_in)
        bits = DENIED_REGION if of_model.meeting == "apart" else 0
        bits |= UNKNOWN_REGION_BIT if of_model.meeting == "untold" else 0
        newest, more, rests_on = [_newest(of_model.facts), 0, 0], list[int](), [*of_model.facts]
        if region != NULL_ID and (residency or runs_in):
            observed = observed_region(directory, residency, runs_in, self._text(region))
            bits |= (OUTSIDE_REGION if observed.outside else 0) | (ELSEWHERE if observed.elsewhere else 0)
            if observed.settles:
                bits &= ~UNKNOWN_REGION_BIT
            bits |= UNKNOWN_REGION_BIT if observed.untold else 0
            newest[1:] = _newest(observed.residency_facts), _newest(observed.model_facts)
            rests_on += (*observed.residency_facts, *observed.model_facts)
            more = _explicit((*observed.residency_facts, *observed.model_facts))
        bits |= self._retracted_bit(rests_on)
        basis = _explicit(of_model.facts)
        answer = NONE if of_model.allowed is None else self._set_code(of_model.allowed)
        return _PlaceOutcome(bits, answer, (newest[0], newest[1], newest[2]), tuple(basis), _without(more, basis))

    def _of_providers(self, steps: DirectorySteps, step: int, name: int, url: int, receiver: int) -> _PlaceOutcome:
        directory = steps.of_step(step)
        provider = None if name < 0 else self._texts[name]
        policy, facts = provider_policy(directory, provider, None if url < 0 else self._texts[url])
        basis, more, bits, newest = _explicit(facts), list[int](), 0, 0
        if receiver != NULL_ID and provider is not None:
            is_provider, of_receiver = receiver_of(directory, provider, self._text(receiver))
            bits = WRONG_RECEIVER if is_provider is False else UNTOLD_RECEIVER if is_provider is None else 0
            bits |= self._retracted_bit(of_receiver)
            newest, more = _newest(of_receiver), _explicit(of_receiver)
        answer = self._policy_codes.setdefault(policy, len(self.policies))
        if answer == len(self.policies):
            self.policies.append(policy)
        return _PlaceOutcome(bits, answer, (0, newest, 0), tuple(basis), _without(more, basis))

    def _retracted_bit(self, facts: Iterable[Any]) -> int:
        return RETRACTED if any((state.subject, state.setting) in self._retracted for state in facts) else 0

    def _set(self, code: int) -> tuple[str, ...]:
        return tuple(self._texts[member] for member in self._sets[code]) if code > 0 else ()

    def _text(self, code: int) -> str:
        return UNHEARD if code == NO_CODE else self._texts[code]

    def _set_code(self, texts: Iterable[str]) -> int:
        members = tuple(self._text_codes[text] for text in texts)
        code = self._set_codes.setdefault(members, len(self._sets))
        if code == len(self._sets):
            self._sets.append(members)
        return code

    def more_sets(self) -> list[tuple[str, ...]]:
        """The sets of regions that the index lacks, by code, after those of the index."""
        return [tuple(self._texts[member] for member in members) for members in self._sets[self._own_sets :]]


class _Axis:
    def __init__(self, steps: DirectorySteps) -> None:
        self.steps = steps
        self.starts: Final = np.array(steps.starts, np.int64)
        self.regions, self.providers = _OutcomeRows(), _OutcomeRows()
        self.tables = PlaceTables(self.regions.arrays(), self.providers.arrays())

    def step(self, at: Int64s) -> Int64s:
        steps: Int64s = np.searchsorted(self.starts, at, "right") - 1
        return steps


def _newest(facts: Facts) -> int:
    return max((state.newest.position for state in facts if state.newest is not None), default=0)


def _explicit(facts: Facts) -> list[int]:
    positions = [state.change.position for state in facts if state.source == "explicit" and state.change is not None]
    return list(dict.fromkeys(positions))


def _without(positions: Iterable[int], others: Sequence[int]) -> tuple[int, ...]:
    return tuple(position for position in positions if position not in others)
