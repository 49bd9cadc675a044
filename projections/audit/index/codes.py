"""Codes for values: subjects, texts and sets of regions, numbered in the order of their first use. Pure."""

from __future__ import annotations

import numpy as np

from projections.audit.arrays import Int64s, UInt8s
from projections.audit.index.schema import (
    BIT_FALSE,
    BIT_OTHER,
    BIT_TRUE,
    EMPTY_SET,
    FLAGS_OF_MODEL,
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
    """Gives a code to every value that is asked for. `known`, `texts`: subjects and texts that have codes already."""

    def __init__(self, known: Subjects | None = None, texts: Texts | None = None) -> None:
        self._known = known
        self._subjects: dict[str, int] = {}
        self._texts: dict[str, int] = {}
        self._sets: dict[tuple[int, ...], int] = {(): EMPTY_SET}
        if texts is not None:
            self._texts = {text: code for code, text in enumerate(texts.texts)}
            self._sets = {members: code for code, members in enumerate(texts.sets)}

    def subject(self, reference: str) -> int:
        if self._known is None:
            return self._subjects.setdefault(reference, len(self._subjects))
        code = self._known.code(reference)
        if code is None:
            code = self._subjects.setdefault(reference, len(self._known) + len(self._subjects))
        return code

    def text(self, text: str) -> int:
        return self._texts.setdefault(text, len(self._texts))

    def bits(self, value: JsonValue) -> int:
        """The code of a switch in `Policies.states`, and of RESIDENCY, whose value is no bool."""
        if value is True:
            return BIT_TRUE
        return BIT_FALSE if value is False else BIT_OTHER

    def value(self, setting: int, value: JsonValue) -> int:
        """The code of another setting's value, which is not null."""
        if setting in (RESIDENCY, MODEL_REGIONS):
            if not isinstance(value, list):
                return OTHER
            return self._sets.setdefault(tuple(map(self.text, value)), len(self._sets))
        if setting in FLAGS_OF_MODEL:
            return self.bits(value) if isinstance(value, bool) else OTHER
        if not isinstance(value, str):
            return OTHER
        if setting == HOSTING:
            return HOSTED if value == "hosted" else PASSED_THROUGH if value == "passthrough" else OTHER
        return self.subject(value) if setting >= OWNER_CODE else self.text(value)

    def subjects(self) -> tuple[UInt8s, Int64s, UInt8s]:
        """The new subjects: kinds, reference_offsets and references, as in `Subjects`."""
        kinds = np.array([kind_code(reference) for reference in self._subjects], np.uint8)
        return kinds, *joined(self._subjects)

    def texts(self) -> Texts:
        offsets, content = joined(self._texts)
        members = [member for members in self._sets for member in members]
        return Texts(
            offsets,
            content,
            np.cumsum([0, *map(len, self._sets)], dtype=np.int64),
            np.array(members, np.int32),
        )


def joined(texts: dict[str, int]) -> tuple[Int64s, UInt8s]:
    """The offsets of the texts, and their UTF-8 one after the other."""
    encoded = [text.encode() for text in texts]
    return np.cumsum([0, *map(len, encoded)], dtype=np.int64), np.frombuffer(b"".join(encoded), np.uint8)
