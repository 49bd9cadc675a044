"""Extends an index to a later pin: compiles only the subjects anew that have events since."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ledger.store import Ledger
from projections.audit.index import schema as layout
from projections.audit.index.codes import Codes
from projections.audit.index.collect import EventCollector, in_position_order
from projections.audit.index.compile import READ_EVENTS, read_catalogs, require_positions
from projections.audit.index.directory import DirectoryEvents, directory_subjects_in, extended_directory
from projections.audit.index.event_columns import EventColumns, NameColumns
from projections.audit.index.hash_table import hashes_of, place
from projections.audit.index.parse_leaves import COMPILED, LeafParser
from projections.audit.index.read_leaves import history_pages, leaf_pages
from projections.audit.index.schema import MODEL, NEVER_RECORDED, CatalogSteps, PolicyIndex
from projections.audit.index.storage import PATCHED, stored_name
from projections.audit.index.tables import SubjectTables, TableCompiler, since_of
from projections.audit.numba_support import worth_compiling
from projections.temporal.coordinates import Pin


class NotWorthExtending(Exception):
    """The index would get too many new subjects or unused rows: compile it anew."""


@dataclass(frozen=True)
class Extension:
    """`more`: name of a stored array (see `storage`) → the rows to append."""

    pin: Pin
    more: dict[str, NDArray[Any]]
    catalogs: tuple[CatalogSteps, CatalogSteps]
    directory: DirectoryEvents


def extension(ledger: Ledger, index: PolicyIndex, pin: Pin) -> Extension:
    """`index`: mapped privately; this writes to its slots. Raises `NotWorthExtending` and `LedgerCorrupt`."""
    parser = LeafParser(ledger.origin, compiled=worth_compiling(pin.position, *COMPILED))
    news, changed = _news(ledger, parser, index.pin.position, pin.position)
    columns = _histories(ledger, parser, news, pin)
    codes = Codes(index.subjects, index.texts)
    names = columns.names
    codes_of_names = np.array([codes.subject(reference) for reference in _texts(names)], np.int32)
    tables = TableCompiler(columns, index.known_at, codes, codes_of_names).compile()
    catalogs = read_catalogs(ledger, index.known_at, pin, codes)
    kinds, offsets, references = codes.subjects()
    if (len(index.subjects) + len(kinds)) * 4 > len(index.subjects.slots) * 3:
        raise NotWorthExtending
    places = place(index.subjects.slots, hashes_of(kinds, offsets, references), len(index.subjects))
    texts, before = codes.texts(), index.texts
    slices, old = tables.slices, index.slices
    touched = np.unique(columns.subject[columns.subject >= 0])
    models = columns.names.kinds == MODEL
    shift = np.where(models, len(index.models.at), len(index.policies.at))
    for name in ("links", "policies", "models"):
        if len(getattr(index, name).at) + len(getattr(tables, name).at) > layout.ROWS_MAX:
            raise NotWorthExtending
    patches = np.stack(
        [
            codes_of_names,
            slices.link_start.astype(np.int64) + len(index.links.at),
            slices.link_count,
            slices.state_start + shift,
            slices.state_count,
            np.where(slices.later >= 0, slices.later + len(old.later_link_start), -1),
            np.where(slices.assertions_of >= 0, slices.assertions_of + len(index.assertions.start), -1),
            slices.first_recorded_at,
        ],
        axis=1,
    )[touched]
    new = np.zeros((len(kinds), len(PATCHED)), np.int64)
    new[:, 4:6] = -1
    new[:, 6] = NEVER_RECORDED
    more: dict[str, NDArray[Any]] = {
        "subjects.kinds": kinds,
        "subjects.reference_offsets": offsets[1:] + index.subjects.reference_offsets[-1],
        "subjects.references": references,
        "patches.slots": np.stack([places.astype(np.uint64), index.subjects.slots[places]], axis=1),
        "patches.subjects": patches,
        **{stored_name("slices", name): new[:, column] for column, name in enumerate(PATCHED)},
        **_table_rows(index, tables, shift),
        "texts.offsets": texts.offsets[len(before.offsets) :],
        "texts.bytes": texts.bytes[len(before.bytes) :],
        "texts.set_offsets": texts.set_offsets[len(before.set_offsets) :],
        "texts.members": texts.members[len(before.members) :],
        "since": since_of(news),
    }
    return Extension(pin, more, catalogs, extended_directory(ledger, index.directory, changed, pin.position))


def _table_rows(index: PolicyIndex, tables: SubjectTables, shift: NDArray[Any]) -> dict[str, NDArray[Any]]:
    """The new rows of the tables. `shift`: by subject, how far its state slices move."""
    slices, assertions = tables.slices, tables.assertions
    later_of = np.flatnonzero(slices.later >= 0)[np.argsort(slices.later[slices.later >= 0])]
    return {
        "slices.later_link_start": slices.later_link_start + np.uint32(len(index.links.at)),
        "slices.later_link_count": slices.later_link_count,
        "slices.later_state_start": slices.later_state_start + shift[later_of].astype(np.uint32),
        "slices.later_state_count": slices.later_state_count,
        "links.rows": tables.links.rows,
        "policies.rows": tables.policies.rows,
        "models.at": tables.models.at,
        "models.values": tables.models.values,
        "models.positions": tables.models.positions,
        "said.start": assertions.start + np.uint32(len(index.assertions.position)),
        "said.count": assertions.count,
        "said.position": assertions.position,
        "said.recorded_at": assertions.recorded_at,
        "said.setting": assertions.setting,
        "said.effective_from": assertions.effective_from,
        "said.effective_until": assertions.effective_until,
        "said.retracts": assertions.retracts,
    }


def _news(ledger: Ledger, parser: LeafParser, after: int, until: int) -> tuple[EventColumns, set[str]]:
    """(all events with after < position <= until, the subjects of the directory among theirs)."""
    collector = EventCollector(until - after, compiled=False)
    changed: set[str] = set()
    for page in leaf_pages(ledger, after, until, READ_EVENTS):
        batch = parser.parse(page.leaves)
        require_positions(batch.position, page.after, page.until)
        collector.put(page.after - after, batch)
        changed |= directory_subjects_in(page.leaves)
    return collector.columns(), changed


def _histories(ledger: Ledger, parser: LeafParser, news: EventColumns, pin: Pin) -> EventColumns:
    """All events of the subjects of `news`, in position order."""
    subjects = np.unique(news.subject[news.subject >= 0])
    sizes = ledger.recorder.stream_sizes(_texts(news.names.take(subjects)), pin.position)
    collector = EventCollector(sum(size.events for size in sizes.values()), compiled=parser.compiled)
    row = 0
    for leaves in history_pages(ledger, sizes, pin.position):
        batch = parser.parse(leaves)
        collector.put(row, batch)
        row += len(batch.position)
    return in_position_order(collector.columns())


def _texts(names: NameColumns) -> list[str]:
    whole = names.bytes.tobytes()
    return [
        whole[start : start + length].decode()
        for start, length in zip(names.starts.tolist(), names.lengths.tolist(), strict=True)
    ]
