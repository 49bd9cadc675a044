"""Lays the timelines of some subjects over a policy index, whose own arrays do not change. Pure.

The histories with the proposals are folded into a small index of their own. Its rows are appended to the tables of the
whole index, its codes are translated, and positions are renumbered (`numbering`). The tables that change are in memory
twice, however few proposals there are. Proved by tests/audit/what_if/test_overlay.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from ledger.subjects import CATALOG_SUBJECT, kind_of
from projections.audit.arrays import Int32s
from projections.audit.index.directory import DirectoryEvents, axes, relevant
from projections.audit.index.hash_table import hashes_of, place, slots_for
from projections.audit.index.reference import IndexBuilder
from projections.audit.index.schema import (
    HOSTING,
    MODEL,
    MODEL_REGIONS,
    NEVER_RECORDED,
    OWNER_CODE,
    POLICY_URL,
    PRECISION,
    PROVIDER,
    RESIDENCY,
    REVISION,
    Assertions,
    CatalogSteps,
    Links,
    Models,
    Policies,
    PolicyIndex,
    Slices,
    Subjects,
    Texts,
    references,
)
from projections.audit.what_if.numbering import Numbering
from projections.audit.what_if.placement import PlacedProposals
from projections.decisions.directory import DIRECTORY_KINDS
from projections.temporal.changes import Assertion
from projections.temporal.coordinates import Pin

_Table = TypeVar("_Table", Links, Policies, Models, Assertions)

_LATER: Final = ("later_link_start", "later_link_count", "later_state_start", "later_state_count")
_FILLED: Final = 0.75
"""The largest share of the slots that may be in use (see `index.schema.Subjects`)."""


def overlay(index: PolicyIndex, placed: PlacedProposals) -> PolicyIndex:
    """The index of the ledger with the proposals. Its pin has no leaf hash, because no such ledger exists."""
    building = IndexBuilder()
    for subject, assertions in placed.assertions.items():
        if subject != CATALOG_SUBJECT:
            building.add(subject, *axes(assertions, index.known_at), assertions)
    defined = placed.assertions.get(CATALOG_SUBJECT)
    catalogs = building.catalogs(*axes(defined or [], index.known_at))
    pin = Pin(index.pin.origin, index.pin.position + len(placed.since), placed.recorded_at, None)
    news = building.index(pin, index.known_at, catalogs, [0])
    old = _renumber(index, placed.numbering)
    since = np.insert(index.since, placed.numbering.after + 1, placed.since)
    directory = _directory(index, placed)
    return _join(
        replace(old, pin=pin, since=since, directory=directory),
        news,
        set(placed.assertions),
        catalogs=defined is not None,
    )


def _renumber(index: PolicyIndex, numbering: Numbering) -> PolicyIndex:
    moved = numbering.moved
    links, policies = index.links, index.policies
    assertions = replace(
        index.assertions, position=moved(index.assertions.position), retracts=moved(index.assertions.retracts)
    )
    return replace(
        index,
        links=Links.of(links.at, links.target, moved(links.position)),
        policies=Policies.of(policies.at, policies.states, policies.regions, moved(policies.positions)),
        models=replace(index.models, positions=moved(index.models.positions)),
        catalog=_moved_catalog(index.catalog, numbering),
        later_catalog=_moved_catalog(index.later_catalog, numbering),
        assertions=assertions,
    )


def _moved_catalog(steps: CatalogSteps, numbering: Numbering) -> CatalogSteps:
    return replace(
        steps, position=numbering.moved(steps.position), demand_position=numbering.moved(steps.demand_position)
    )


def _directory(index: PolicyIndex, placed: PlacedProposals) -> DirectoryEvents:
    def moved(assertions: Sequence[Assertion]) -> tuple[Assertion, ...]:
        positions = placed.numbering.moved(np.array([one.position for one in assertions], np.int64)).tolist()
        pairs = zip(assertions, positions, strict=True)
        return tuple(msgspec.structs.replace(one, position=position) for one, position in pairs)

    changed = {
        subject: relevant(assertions)
        for subject, assertions in placed.assertions.items()
        if subject == CATALOG_SUBJECT or kind_of(subject) in DIRECTORY_KINDS
    }
    before = {subject: moved(assertions) for subject, assertions in index.directory.assertions.items()}
    return DirectoryEvents(before | changed)


def _join(old: PolicyIndex, news: PolicyIndex, about: set[str], *, catalogs: bool) -> PolicyIndex:
    """`about`: the subjects whose slices come from `news`; all others keep theirs."""
    subjects, codes = _subjects(old.subjects, news.subjects)
    texts, text_codes, set_codes = _texts(old.texts, news.texts)
    code_map = _CodeMap(codes, text_codes, set_codes)
    changed = [code for code, reference in enumerate(references(news.subjects)) if reference in about]
    links, policies = news.links, news.policies
    regions = code_map.column(RESIDENCY, policies.regions)
    return replace(
        old,
        subjects=subjects,
        slices=_slices(old, news, len(subjects), codes, changed),
        links=_append(old.links, Links.of(links.at, code_map.column(OWNER_CODE, links.target), links.position)),
        policies=_append(old.policies, Policies.of(policies.at, policies.states, regions, policies.positions)),
        models=_append(old.models, replace(news.models, values=code_map.table(HOSTING, news.models.values))),
        catalog=code_map.catalog(news.catalog) if catalogs else old.catalog,
        later_catalog=code_map.catalog(news.later_catalog) if catalogs else old.later_catalog,
        texts=texts,
        assertions=_append(
            old.assertions,
            replace(news.assertions, start=news.assertions.start + np.uint32(len(old.assertions.position))),
        ),
    )


def _subjects(old: Subjects, news: Subjects) -> tuple[Subjects, Int32s]:
    """(the subjects of both, the new code of each code of `news`)"""
    codes = np.zeros(len(news), np.int32)
    fresh: list[int] = []
    for code, reference in enumerate(references(news)):
        known = old.code(reference)
        codes[code] = len(old) + len(fresh) if known is None else known
        if known is None:
            fresh.append(code)
    if not fresh:
        return old, codes
    kinds = np.concatenate([old.kinds, news.kinds[fresh]])
    names = [news.references[news.reference_offsets[code] : news.reference_offsets[code + 1]] for code in fresh]
    offsets = _extended(old.reference_offsets, [len(one) for one in names])
    joined = np.concatenate([old.references, *names])
    if len(kinds) > _FILLED * len(old.slots):
        return Subjects(kinds, offsets, joined, slots_for(kinds, offsets, joined)), codes
    slots = old.slots.copy()
    place(slots, hashes_of(kinds[len(old) :], offsets[len(old) :], joined), len(old))
    return Subjects(kinds, offsets, joined, slots), codes


def _texts(old: Texts, news: Texts) -> tuple[Texts, Int32s, Int32s]:
    """(the texts of both, the new code of each text of `news`, the new code of each set of `news`)"""
    known = {text: code for code, text in enumerate(old.texts)}
    text_codes = np.array([known.setdefault(text, len(known)) for text in news.texts], np.int32)
    sets = {members: code for code, members in enumerate(old.sets)}
    of_news = [tuple(int(text_codes[member]) for member in members) for members in news.sets]
    set_codes = np.array([sets.setdefault(members, len(sets)) for members in of_news], np.int32)
    new_texts = [text.encode() for text in list(known)[len(old.offsets) - 1 :]]
    new_sets = list(sets)[len(old.set_offsets) - 1 :]
    return (
        Texts(
            _extended(old.offsets, [len(text) for text in new_texts]),
            np.concatenate([old.bytes, np.frombuffer(b"".join(new_texts), np.uint8)]),
            _extended(old.set_offsets, [len(members) for members in new_sets]),
            np.concatenate([old.members, np.array([one for members in new_sets for one in members], np.int32)]),
        ),
        text_codes,
        set_codes,
    )


def _extended(offsets: NDArray[np.int64], lengths: list[int]) -> NDArray[np.int64]:
    return np.concatenate([offsets, offsets[-1] + np.cumsum(lengths, dtype=np.int64)])


class _CodeMap:
    """Translates the codes of one index to those of another, by setting."""

    def __init__(self, subjects: Int32s, texts: Int32s, sets: Int32s) -> None:
        self._codes = {RESIDENCY: sets, MODEL_REGIONS: sets}
        self._codes |= dict.fromkeys((PROVIDER, POLICY_URL, PRECISION, REVISION), texts)
        self._subjects = subjects

    def column(self, setting: int, values: Int32s) -> Int32s:
        codes = self._subjects if setting >= OWNER_CODE else self._codes.get(setting)
        if codes is None or not len(codes):
            return values
        coded: Int32s = np.where(values >= 0, codes[np.maximum(values, 0)], values)
        return coded

    def table(self, first: int, values: Int32s) -> Int32s:
        """`values`: a column for each setting from `first` on."""
        columns = [self.column(first + place, values[:, place]) for place in range(values.shape[1])]
        return np.stack(columns, 1).astype(np.int32)

    def catalog(self, steps: CatalogSteps) -> CatalogSteps:
        columns = {"default": steps.default, "protective": steps.protective}
        defined = {name: np.where(steps.position > 0, self.table(0, of), np.int32(0)) for name, of in columns.items()}
        return replace(steps, **defined)


def _slices(old: PolicyIndex, news: PolicyIndex, subjects: int, codes: Int32s, changed: Sequence[int]) -> Slices:
    its, links = news.slices, np.uint32(len(old.links.at))
    states = np.where(news.subjects.kinds == MODEL, len(old.models.at), len(old.policies.at)).astype(np.uint32)
    by_subject = {
        "link_start": its.link_start + links,
        "link_count": its.link_count,
        "state_start": its.state_start + states,
        "state_count": its.state_count,
        "later": _shifted(its.later, len(old.slices.later_link_start)),
        "assertions_of": _shifted(its.assertions_of, len(old.assertions.start)),
        "first_recorded_at": its.first_recorded_at,
    }
    absent = {"later": -1, "assertions_of": -1, "first_recorded_at": NEVER_RECORDED}
    columns: dict[str, NDArray[Any]] = {}
    for name, values in by_subject.items():
        column = getattr(old.slices, name)
        columns[name] = np.concatenate([column, np.full(subjects - len(column), absent.get(name, 0), column.dtype)])
        columns[name][codes[changed]] = values[changed]
    # The subject of each row of the later slices, which determines the table of its states.
    of = np.zeros(len(its.later_link_start), np.int64)
    with_later = np.flatnonzero(its.later >= 0)
    of[its.later[with_later]] = with_later
    shifts = (links, np.uint32(0), states[of], np.uint32(0))
    for name, shift in zip(_LATER, shifts, strict=True):
        columns[name] = np.concatenate([getattr(old.slices, name), getattr(its, name) + shift])
    return Slices(**columns)


def _shifted(rows: Int32s, first: int) -> Int32s:
    return np.where(rows >= 0, rows + np.int32(first), rows)


def _append(old: _Table, news: _Table) -> _Table:
    more = {name: its for name, its in vars(news).items() if len(its)}
    return replace(old, **{name: np.concatenate([getattr(old, name), its]) for name, its in more.items()})
