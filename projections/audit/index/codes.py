"""Codes for what values are: subjects, texts and sets of regions, each as it is first met. Pure."""

from __future__ import annotations

import numpy as np

from projections.audit.arrays import Int64s, UInt8s
from projections.audit.index.schema import (
    BIT_FALSE,
    BIT_OTHER,
    BIT_TRUE,
    EMPTY_SET,
    HOSTED,
    HOSTING,
    MODEL_REGIONS,
    OTHER,
    OWNER_CODE,
    PASSED_THROUGH,
    RESIDENCY,
    Subjects,
    Texts,
    kind_code,
)
from projections.temporal.changes import JsonValue


class Codes:
    """Grows by what it is asked for. `known`, `texts`: what has codes already."""

    def __init__(self, known: Subjects | None = None, texts: Texts | None = None) -> None:
        self._known = known
        self._subjects: dict[str, int] = {}
        self._texts: dict[str, int] = {}
        self._sets: dict[tuple[int, ...], int] = {(): EMPTY_SET}
        if texts is not None:
            self._texts = {text: code for code, text in enumerate(texts.texts)}
            self._sets = {members: code for code, members in enumerate(texts.sets)}

    def subject(self, reference: str) -> int:
        code = None if self._known is None else self._known.code(reference)
        if code is not None:
            return code
        before = 0 if self._known is None else len(self._known)
        return self._subjects.setdefault(reference, before + len(self._subjects))

    def text(self, text: str) -> int:
        return self._texts.setdefault(text, len(self._texts))

    def bits(self, value: JsonValue) -> int:
        """Of a switch in `Policies.states`; of RESIDENCY, too, whose value is no bool."""
        if value is True:
            return BIT_TRUE
        return BIT_FALSE if value is False else BIT_OTHER

    def value(self, setting: int, value: JsonValue) -> int:
        """Of a setting that is no switch; `value` is not null."""
        if setting in (RESIDENCY, MODEL_REGIONS):
            members = tuple(map(self.text, value)) if isinstance(value, list) else ()
            return self._sets.setdefault(members, len(self._sets))
        if not isinstance(value, str):
            return OTHER
        if setting == HOSTING:
            return HOSTED if value == "hosted" else PASSED_THROUGH if value == "passthrough" else OTHER
        return self.subject(value) if setting >= OWNER_CODE else self.text(value)

    def subjects(self) -> tuple[UInt8s, Int64s, UInt8s]:
        """kinds, reference_offsets and references, as in `Subjects`, of those that were not known."""
        kinds = np.array([kind_code(reference) for reference in self._subjects], np.uint8)
        return kinds, *joined(self._subjects)

    def texts(self) -> Texts:
        offsets, together = joined(self._texts)
        members = [member for members in self._sets for member in members]
        return Texts(
            offsets,
            together,
            np.cumsum([0, *map(len, self._sets)], dtype=np.int64),
            np.array(members, np.int32),
        )


def joined(texts: dict[str, int]) -> tuple[Int64s, UInt8s]:
    """Offsets, and the texts' UTF-8 one behind the other."""
    encoded = [text.encode() for text in texts]
    return np.cumsum([0, *map(len, encoded)], dtype=np.int64), np.frombuffer(b"".join(encoded), np.uint8)
