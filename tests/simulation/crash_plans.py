"""When to kill what: a plan for each round, drawn from the campaign's seed and the round's number alone."""

from random import Random
from typing import Final, Literal, NamedTuple

FRESH_EVERY: Final = 7
"""So many rounds share a ledger: damage of one is found by the next, and a new one is begun and killed often enough."""

Kind = Literal["first request", "commits", "any time", "catch-up", "rebuild", "start-up", "two servers"]
KINDS: Final[tuple[Kind, ...]] = (
    "first request",
    "commits",
    "any time",
    "catch-up",
    "rebuild",
    "start-up",
    "two servers",
)

Victim = Literal["server", "rebuild"]


class Plan(NamedTuple):
    """One round. Delays are in seconds."""

    number: int
    kind: str
    """One of KINDS, or a fault that the database has besides."""
    is_fresh: bool
    """Begins a new ledger, killed while it is begun."""
    clients: int
    after_acknowledged: int
    """The kill waits for so many acknowledgements since the round began."""
    delay_s: float
    """And then for so long."""
    batch: int
    """In a round of catching up: how many events are recorded and not yet projected."""
    start_kills: tuple[float, ...]
    """Servers started and killed after so long before one may live."""
    first_victim: Victim
    gap_s: float
    """Between the first kill and the second."""
    is_check: bool
    """Whether a rebuild only compares."""
    survivor_ends_well: bool
    """In a round with two servers: whether the other is told to stop, not killed."""
    disturbances: tuple[tuple[float, int | None], ...]
    """Pauses, and how many connections are terminated after each; None: all."""
    is_new: bool
    """Whether the server is a program from its beginning, and not forked."""


class Plans:
    """All rounds of a campaign: every kind comes once before any comes again."""

    def __init__(self, seed: int, faults: tuple[str, ...]) -> None:
        self.seed = seed
        self.kinds = (*KINDS, *faults)

    def plan(self, number: int) -> Plan:
        deck, place = divmod(number, len(self.kinds))
        kind = Random(f"{self.seed}/deck/{deck}").sample(self.kinds, len(self.kinds))[place]
        chance = self.chance(number)
        is_fresh = number % FRESH_EVERY == 0
        kills = 3 if kind == "start-up" else 2 if is_fresh else 0
        starts_new = chance.random() < 0.1
        return Plan(
            number=number,
            kind=kind,
            is_fresh=is_fresh,
            clients=chance.choice((3, 6, 6, 16)),
            after_acknowledged=_after(kind, chance),
            delay_s=_delay(kind, chance),
            batch=chance.choice((100, 300, 600)),
            start_kills=tuple(chance.uniform(0.0, 0.12) for _ in range(kills)),
            first_victim=chance.choice(("server", "rebuild")),
            gap_s=chance.choice((0.0, chance.uniform(0.0, 0.1))),
            is_check=chance.random() < 0.3,
            survivor_ends_well=chance.random() < 0.5,
            disturbances=tuple(
                (chance.uniform(0.0, 0.2), chance.choice((1, 2, None))) for _ in range(chance.choice((1, 2, 4)))
            ),
            is_new=starts_new,
        )

    def chance(self, number: int, *more: object) -> Random:
        """For whatever else is drawn in a round."""
        return Random("/".join(map(str, (self.seed, number, *more))))


def _after(kind: str, chance: Random) -> int:
    match kind:
        case "first request" | "any time":
            return 0
        case "commits":
            return chance.randrange(1, 200)
    return chance.randrange(1, 60)


def _delay(kind: str, chance: Random) -> float:
    match kind:
        case "first request":
            return chance.uniform(0.0, 0.03)
        case "commits":
            return chance.uniform(0.0, 0.005)
        case "catch-up":
            return chance.uniform(0.0, 0.08)
        case "rebuild":
            return chance.uniform(0.0, 0.35)
    return chance.uniform(0.05, 0.8)
