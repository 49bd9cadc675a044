"""The plan of each round: which process to kill, and when. It follows from the seed and the number of the round."""

from random import Random
from typing import Final, Literal, NamedTuple

FRESH_EVERY: Final = 7
"""Rounds that share a ledger. Later rounds can find damage of earlier ones, and kills also hit new ledgers."""

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
    """One of KINDS, or a fault of the database."""
    is_fresh: bool
    """Starts with a new ledger; kills servers while they create it."""
    clients: int
    after_acknowledged: int
    """The kill waits for this many acknowledgements in the round, …"""
    delay_s: float
    """… and then for this long."""
    batch: int
    """In a round of kind catch-up: the number of events that are recorded and not yet projected."""
    start_kills: tuple[float, ...]
    """Servers to start first, each killed after this many seconds."""
    first_victim: Victim
    gap_s: float
    """Between the first kill and the second."""
    is_check: bool
    """Whether the rebuild only compares (--check)."""
    survivor_ends_well: bool
    """In a round with two servers: whether the second is stopped with SIGTERM, not killed."""
    disturbances: tuple[tuple[float, int | None], ...]
    """(pause, number of connections to terminate after it; None: all)."""
    is_new: bool
    """Whether the server starts from nothing, not by a fork."""


class Plans:
    """All rounds of a campaign: every kind once before any kind again."""

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
        """The random choices of one part of a round."""
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
