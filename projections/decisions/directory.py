"""The directory: the regions and providers that the ledger knows at one (at, known_at), and the texts that name them.

- A text names the region whose id it is or whose `region.names` holds it, after trimming and NFC. A text that no region
  claims is only itself; a text that several regions claim names none of them.
- `region.within` leads to the region around a region: at most `HOPS_MAX` times, and never in a circle. Whether
  a region lies beyond stays unknown.
- A text names a provider by its id or by one of its `provider.names`, also in another case.

Proved by tests/decisions/test_check.py and tests/scenarios/places.yaml.
"""

from __future__ import annotations

import unicodedata
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final, Literal, NamedTuple

from ledger.subjects import kind_of
from ledger.times import END
from projections.temporal.effective_state import SettingState, effective
from projections.temporal.fold import Timeline

HOPS_MAX: Final = 8
HELD_MAX: Final = 100_000
"""Texts and states of the directories that one axis keeps in memory, and one directory more: some 20 MB."""

WITHIN: Final = "region.within"
REGION_NAMES: Final = "region.names"
PROVIDER_NAMES: Final = "provider.names"
PROVIDER_URL: Final = "provider.policy_url"
PROVIDER_SHA256: Final = "provider.policy_sha256"
TRAINS: Final = "provider.trains"
STORES: Final = "provider.stores"
RETENTION: Final = "provider.retention_days"
PROVIDER_REGIONS: Final = "provider.regions"

OF_REGION: Final = (REGION_NAMES, WITHIN)
OF_PROVIDER: Final = (PROVIDER_NAMES, PROVIDER_URL, PROVIDER_SHA256, TRAINS, STORES, RETENTION, PROVIDER_REGIONS)
"""In the order in which evidence shows them."""
SETTINGS_OF: Final[Mapping[str, tuple[str, ...]]] = {"region": OF_REGION, "provider": OF_PROVIDER}
"""Kind of subject in the directory → its settings."""
DIRECTORY_KINDS: Final = tuple(SETTINGS_OF)

Relation = Literal["equal", "contains", "within", "apart", "untold"]
"""Of one region to another. `untold`: a text is claimed by several regions, each region contains the other, or more
regions lie around one of them than are followed."""

Whole = Callable[[SettingState], SettingState]
"""A state of a timeline → the state with its value, if that is large."""

Facts = tuple[SettingState, ...]
"""Settings of regions or providers that a decision rests on."""


def plain(text: str) -> str:
    """A region's text as it is compared."""
    return unicodedata.normalize("NFC", text.strip())


def folded(text: str) -> str:
    """A provider's text as it is compared."""
    return plain(text).casefold()


class Directory:
    """The regions and providers at one (at, known_at). Immutable."""

    def __init__(self, states: Mapping[tuple[str, str], SettingState]) -> None:
        """`states`: (subject, setting) → the state, for all subjects of `DIRECTORY_KINDS` that have events, and all of
        their settings. Only subjects with a value of their own count."""
        self._states = states
        self._around: dict[str, str] = {}
        self._regions: dict[str, list[str]] = {}
        self._providers: dict[str, list[str]] = {}
        known = {subject for (subject, _), state in states.items() if state.source == "explicit"}
        for subject in sorted(known):
            kind, _, identifier = subject.partition(":")
            if kind == "provider":
                names = (identifier, *_texts(states.get((subject, PROVIDER_NAMES))))
                _claim(self._providers, map(folded, names), subject)
                continue
            _claim(self._regions, map(plain, _texts(states.get((subject, REGION_NAMES)))), identifier)
            around = states.get((subject, WITHIN))
            if around is not None and isinstance(around.value, str):
                self._around[identifier] = around.value.partition(":")[2]
        regions = {subject.partition(":")[2] for subject in known if kind_of(subject) == "region"}
        for identifier in sorted(regions | set(self._around.values())):
            _claim(self._regions, (identifier,), identifier)
        for claimants in self._regions.values():
            claimants.sort()
        self.size: Final = len(states) + len(self._regions) + len(self._providers)
        """Its texts and states."""

    # Regions.

    def region(self, text: str) -> str | None:
        """The id of the region that the text names, or the text itself; None if several regions claim it."""
        bare = plain(text)
        claims = self._regions.get(bare)
        if claims is None:
            return bare
        return claims[0] if len(claims) == 1 else None

    def around(self, region: str) -> tuple[str, ...]:
        """The region itself, the region around it, the region around that, and so on."""
        chain = [region]
        for _ in range(HOPS_MAX):
            outer = self._around.get(chain[-1])
            if outer is None or outer in chain:
                break
            chain.append(outer)
        return tuple(chain)

    def relation(self, one: str, other: str) -> Relation:
        """How the region of the text `one` lies to that of the text `other`."""
        first, second = self.region(one), self.region(other)
        if first is None or second is None:
            return "untold"
        if first == second:
            return "equal"
        contains, within = first in self.around(second), second in self.around(first)
        if contains and within:
            return "untold"
        if contains or within:
            return "contains" if contains else "within"
        return "untold" if self._goes_on(first) or self._goes_on(second) else "apart"

    def _goes_on(self, region: str) -> bool:
        """Whether further regions lie around the last one of `around`: they may make the region one within another."""
        chain = self.around(region)
        return self._around.get(chain[-1], chain[-1]) not in chain

    def region_facts(self, texts: Iterable[str]) -> Facts:
        """The names of the regions that the texts name, and the regions around them. A setting that has no value is
        among them, too, without an event: its change may have been retracted."""
        facts: dict[tuple[str, str], SettingState] = {}
        for text in texts:
            bare = plain(text)
            claimants = self._regions.get(bare, [bare])
            for identifier in claimants:
                self._add(facts, f"region:{identifier}", REGION_NAMES)
            if len(claimants) == 1:
                for identifier in self.around(claimants[0]):
                    self._add(facts, f"region:{identifier}", WITHIN)
        return tuple(facts.values())

    def _add(self, facts: dict[tuple[str, str], SettingState], subject: str, setting: str) -> None:
        state = self._states.get((subject, setting))
        if state is not None:
            facts[subject, setting] = state if is_recorded(state) else state._replace(change=None)

    # Providers.

    def providers(self, text: str) -> tuple[str, ...]:
        """The subjects of the providers that the text names: usually one or none."""
        return tuple(self._providers.get(folded(text), ()))

    def same_provider(self, one: str, other: str) -> bool | None:
        """Whether two texts name one provider. None: one of them names several providers."""
        if folded(one) == folded(other):
            return True
        first, second = self.providers(one), self.providers(other)
        if not set(first) & set(second):
            return False
        return True if len(first) == len(second) == 1 else None

    def provider_facts(self, subject: str) -> Facts:
        """All settings of a provider."""
        return tuple(self._states[subject, setting] for setting in OF_PROVIDER)

    def naming_facts(self, texts: Iterable[str]) -> Facts:
        """The names of the providers that the texts name. See `region_facts`."""
        facts: dict[tuple[str, str], SettingState] = {}
        for text in texts:
            for subject in self.providers(text):
                self._add(facts, subject, PROVIDER_NAMES)
        return tuple(facts.values())

    # Equality.

    def positions(self) -> dict[tuple[str, str], tuple[int, int]]:
        """(subject, setting) → the positions of the events behind the state, where there are some. Two directories with
        the same positions are the same."""
        return {
            key: (_position(state.change), _position(state.cleared_by))
            for key, state in self._states.items()
            if state.change is not None or state.cleared_by is not None
        }


def is_recorded(state: SettingState) -> bool:
    """Whether somebody recorded the state: it has a value, or a clear ended one."""
    return state.value not in (None, []) or state.cleared_by is not None or state.source == "explicit"


class DirectorySteps:
    """The directory on one axis, over all of valid time."""

    def __init__(
        self,
        subjects: Mapping[str, Mapping[str, Timeline]],
        catalog: Mapping[str, Timeline],
        whole: Whole = lambda state: state,
    ) -> None:
        """`subjects`: subject of `DIRECTORY_KINDS` → setting → its timeline on the axis. `catalog`: setting → the
        timeline of its definitions on the same axis."""
        self._whole = whole
        self._timelines = {
            (subject, setting): (timelines.get(setting, _NOTHING), catalog.get(setting, _NOTHING))
            for subject, timelines in sorted(subjects.items())
            for setting in SETTINGS_OF[kind_of(subject)]
        }
        starts = {start for pair in self._timelines.values() for timeline in pair for start in timeline.starts}
        self.starts: Final = sorted(starts | set(_NOTHING.starts))
        self._directories: dict[int, Directory] = {}
        self._held = 0

    def __bool__(self) -> bool:
        """Whether there is any subject."""
        return bool(self._timelines)

    def names(self) -> set[str]:
        """Every text that may name a region or a provider at any time, but for texts that only equal themselves."""
        names = {subject.partition(":")[2] for subject, _ in self._timelines}
        for (_, setting), (changes, definitions) in self._timelines.items():
            values = [change.value for change in changes.changes if change is not None]
            values += [one.value["default"] for one in definitions.changes if one and isinstance(one.value, dict)]
            for value in values:
                if setting == WITHIN and isinstance(value, str):
                    names.add(value.partition(":")[2])
                elif setting in (REGION_NAMES, PROVIDER_NAMES) and isinstance(value, list):
                    names.update(value)
        return names

    def step(self, instant: int) -> int:
        return bisect_right(self.starts, instant) - 1

    def at(self, instant: int) -> Directory:
        return self.of_step(self.step(instant))

    def of_step(self, step: int) -> Directory:
        """Made when it is first asked for: most instants are asked for by no request."""
        directory = self._directories.get(step)
        if directory is None:
            start = self.starts[step]
            states = {
                (subject, setting): self._whole(effective(subject, setting, changes.at(start), definitions.at(start)))
                for (subject, setting), (changes, definitions) in self._timelines.items()
            }
            directory = Directory(states)
            self._held += directory.size
            if self._held > HELD_MAX:
                self._directories, self._held = {}, directory.size
            self._directories[step] = directory
        return directory


_NOTHING: Final = Timeline()


class DirectorySpan(NamedTuple):
    """A directory in force over [start, until), in µs, and the one that everything recorded since gives. `same`:
    whether they are."""

    start: int
    until: int
    in_force: Directory
    later: Directory
    same: bool


class BothDirectories:
    """The directory on an axis, and on the later one, on which everything recorded is known."""

    def __init__(self, axis: DirectorySteps, later: DirectorySteps) -> None:
        self.axis = axis
        self.later = later
        self.starts: Final = sorted({*axis.starts, *later.starts})
        self._spans: dict[int, DirectorySpan] = {}
        self._held = 0

    def span(self, instant: int) -> DirectorySpan:
        return self.of_step(bisect_right(self.starts, instant) - 1)

    def of_step(self, step: int) -> DirectorySpan:
        span = self._spans.get(step)
        if span is None:
            start = self.starts[step]
            until = self.starts[step + 1] if step + 1 < len(self.starts) else END
            one, other = self.axis.at(start), self.later.at(start)
            span = DirectorySpan(start, until, one, other, one.positions() == other.positions())
            self._held += one.size + other.size
            if self._held > HELD_MAX:
                self._spans, self._held = {}, one.size + other.size
            self._spans[step] = span
        return span

    def spans(self) -> Iterator[DirectorySpan]:
        return map(self.of_step, range(len(self.starts)))


EMPTY_DIRECTORY: Final = Directory({})


def _claim(claims: dict[str, list[str]], names: Iterable[str], whose: str) -> None:
    for name in names:
        claimants = claims.setdefault(name, [])
        if whose not in claimants:
            claimants.append(whose)


def _texts(state: SettingState | None) -> tuple[str, ...]:
    value = None if state is None else state.value
    return tuple(value) if isinstance(value, list) else ()


def _position(change: object) -> int:
    return int(getattr(change, "position", 0))
