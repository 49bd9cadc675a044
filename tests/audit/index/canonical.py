"""The content of an index, independent of the order of its codes, rows and slices."""

from typing import Any

import numpy as np

from projections.audit.index.schema import (
    BIT_TRUE,
    FLAGS_OF_MODEL,
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
    SETTINGS,
    CatalogSteps,
    PolicyIndex,
    references,
)


def canonical(index: PolicyIndex) -> dict[str, Any]:
    return _Reading(index).all()


class _Reading:
    def __init__(self, index: PolicyIndex) -> None:
        self.index = index
        self.names = list(references(index.subjects))
        self.texts = index.texts.texts
        self.sets = [tuple(self.texts[member] for member in members) for members in index.texts.sets]

    def all(self) -> dict[str, Any]:
        index = self.index
        subjects = {}
        for code, name in enumerate(self.names):
            assert index.subjects.code(name) == code
            subject = self._subject(code)
            if any(subject):
                subjects[name] = subject
        return {
            "pin": index.pin,
            "known_at": index.known_at,
            "subjects": subjects,
            "catalog": self._catalog(index.catalog),
            "later_catalog": self._catalog(index.later_catalog),
            "since": index.since.tolist(),
            "directory": dict(sorted(index.directory.assertions.items())),
        }

    def _subject(self, code: int) -> tuple[Any, ...]:
        slices = self.index.slices
        rows = self._rows(
            code, slices.link_start[code], slices.link_count[code], slices.state_start[code], slices.state_count[code]
        )
        later, assertions = None, None
        row = slices.later[code]
        if row >= 0:
            later = self._rows(
                code,
                slices.later_link_start[row],
                slices.later_link_count[row],
                slices.later_state_start[row],
                slices.later_state_count[row],
            )
        if slices.assertions_of[code] >= 0:
            assertions = self._assertions(int(slices.assertions_of[code]))
        first = int(slices.first_recorded_at[code])
        return *rows, later, assertions, None if first == NEVER_RECORDED else first

    def _rows(self, code: int, link: int, links: int, state: int, states: int) -> tuple[Any, ...]:
        index = self.index
        of_links = slice(int(link), int(link) + int(links))
        of_states = slice(int(state), int(state) + int(states))
        linked = [
            (at, self._value(OWNER_CODE, target), position)
            for at, target, position in zip(
                index.links.at[of_links].tolist(),
                index.links.target[of_links].tolist(),
                index.links.position[of_links].tolist(),
                strict=True,
            )
        ]
        if index.subjects.kinds[code] == MODEL:
            stated: list[Any] = [
                (at, [self._value(HOSTING + place, value) for place, value in enumerate(values)], positions)
                for at, values, positions in zip(
                    index.models.at[of_states].tolist(),
                    index.models.values[of_states].tolist(),
                    index.models.positions[of_states].tolist(),
                    strict=True,
                )
            ]
        else:
            stated = [
                (at, [bits >> 3 * place & 7 for place in range(6)], self._value(RESIDENCY, regions), positions)
                for at, bits, regions, positions in zip(
                    index.policies.at[of_states].tolist(),
                    index.policies.states[of_states].tolist(),
                    index.policies.regions[of_states].tolist(),
                    index.policies.positions[of_states].tolist(),
                    strict=True,
                )
            ]
        return linked, stated

    def _assertions(self, row: int) -> list[Any]:
        assertions = self.index.assertions
        of_subject = slice(int(assertions.start[row]), int(assertions.start[row]) + int(assertions.count[row]))
        columns = (
            assertions.position,
            assertions.recorded_at,
            assertions.setting,
            assertions.effective_from,
            assertions.effective_until,
            assertions.retracts,
        )
        return list(zip(*(column[of_subject].tolist() for column in columns), strict=True))

    def _value(self, setting: int, value: int) -> Any:
        if value < 0 or setting == HOSTING:
            return value
        if setting in (RESIDENCY, MODEL_REGIONS):
            return self.sets[value]
        if setting in FLAGS_OF_MODEL:
            return value == BIT_TRUE
        return self.texts[value] if setting in (PROVIDER, POLICY_URL, PRECISION, REVISION) else self.names[value]

    def _catalog(self, steps: CatalogSteps) -> list[Any]:
        catalog = []
        for step, at in enumerate(steps.at.tolist()):
            row = []
            for setting in range(len(SETTINGS)):
                values = (int(steps.default[step, setting]), int(steps.protective[step, setting]))
                coded = setting >= HOSTING or setting == RESIDENCY
                if coded and steps.position[step, setting]:
                    shown: Any = [self._value(setting, value) for value in values]
                else:
                    shown = values
                row.append((int(steps.position[step, setting]), int(steps.kinds[step, setting]), shown))
            catalog.append((at, row, int(steps.demands[step]), int(steps.demand_position[step])))
        return catalog


def assert_sound(index: PolicyIndex) -> None:
    """The other promises of `schema`."""
    slots = index.subjects.slots
    assert len(slots) & (len(slots) - 1) == 0
    assert np.count_nonzero(slots) == len(index.subjects) <= len(slots) * 3 // 4
    assert np.array_equal(index.catalog.at, index.later_catalog.at)
    assert len(index.since) == index.pin.position + 1
