"""The look-up finds ids by their hash and tells them apart by their bytes."""

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from projections.audit.index.hash_table import slots_for
from projections.audit.index.schema import KEY, KINDS, ORG, OTHER_KIND, Subjects
from projections.audit.kernel.compiled_lookup import codes
from projections.audit.kernel.index_tables import id_table
from projections.audit.kernel.request_columns import NO_CODE, NULL_ID, text_column


def _subjects(references: list[tuple[int, str]]) -> Subjects:
    kinds = np.array([kind for kind, _ in references], np.uint8)
    whole = [(f"{KINDS[kind]}:{id_}" if kind < OTHER_KIND else id_).encode() for kind, id_ in references]
    offsets = np.cumsum([0, *map(len, whole)], dtype=np.int64)
    content = np.frombuffer(b"".join(whole), np.uint8)
    return Subjects(kinds, offsets, content, slots_for(kinds, offsets, content))


_IDS = st.one_of(st.text("ab", min_size=1, max_size=3), st.text("xyz:/.", min_size=1, max_size=40), st.just("L" * 256))


@given(
    subjects=st.lists(st.tuples(st.integers(0, 4), _IDS), unique=True, max_size=60),
    ids=st.lists(st.none() | _IDS, max_size=60),
    kind=st.integers(0, 4),
    first=st.integers(0, 3),
)
def test_each_id_has_the_code_of_its_own_subject(
    subjects: list[tuple[int, str]], ids: list[str | None], kind: int, first: int
) -> None:
    ids += [id_ for _, id_ in subjects]
    by_reference = {reference: code for code, reference in enumerate(subjects)}
    expected = [NULL_ID if id_ is None else by_reference.get((kind, id_), NO_CODE) for id_ in ids]
    column = text_column(pa.array(ids, pa.string()).slice(first))
    position = codes(kind, column, id_table(_subjects(subjects)))
    assert position.tolist() == expected[first:]


def test_where_the_hash_is_the_same_the_bytes_decide() -> None:
    """In this table four slots hold the same hash, only one of them belongs to the id, and the search wraps around."""
    subjects = _subjects([(KEY, "one"), (KEY, "two"), (ORG, "one"), (KEY, "four")])
    slots = subjects.slots.copy()
    used = np.flatnonzero(slots)
    (home,) = (at for at in used if slots[at] & np.uint64(0xFFFFFFFF) == 4)
    upper = slots[home] >> np.uint64(32) << np.uint64(32)
    forged = np.zeros(len(slots), np.uint64)
    for step, code in enumerate((1, 2, 3, 4)):
        forged[(home + step) % len(slots)] = upper | np.uint64(code)
    table = id_table(Subjects(subjects.kinds, subjects.reference_offsets, subjects.references, forged))
    column = text_column(pa.array(["four"]))
    # The search begins at the id's own slot and finds it after the three others.
    assert codes(KEY, column, table).tolist() == [3]
    assert codes(KEY, text_column(pa.array([], pa.string())), table).tolist() == []


def test_a_batch_that_names_no_subject_needs_no_bytes() -> None:
    column = text_column(pa.nulls(5, pa.string()))
    assert codes(KEY, column, id_table(_subjects([(KEY, "one")]))).tolist() == [NULL_ID] * 5
