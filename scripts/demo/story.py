"""Eighteen months of the invented platform: what happens when, some of it told by name, most of it by chance."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any, Final, NamedTuple

from ledger.receipts import Receipt
from ledger.times import DAY, SECOND, format_time, parse_time
from scripts.demo.platform import CLEARED, Platform, Said
from scripts.demo.world import (
    BEGIN,
    EUROPE,
    FINISH,
    FIRST_NAMES,
    HOUR,
    LAST_NAMES,
    MODELS,
    NAMED_ORGS,
    OPERATOR,
    PROJECTS,
    REGIONS,
    SWITCHES,
    Model,
)

ACCOUNTS: Final = 240
CHANCE_CHANGES: Final = 600

Act = Callable[[Platform], object]


class Happening(NamedTuple):
    at: int
    act: Act


def story(rng: Random) -> list[Happening]:
    """In the order of time; no two at the same instant."""
    chance = _Chance(rng)
    happenings = [*_chapters(rng), *chance.happenings()]
    happenings.sort(key=lambda happening: happening.at)
    taken = BEGIN
    apart = []
    for at, act in happenings:
        taken = max(at, taken + SECOND)
        apart.append(Happening(taken, act))
    return apart


def _time(day: str) -> int:
    return parse_time(f"{day}:00Z")


REWRITTEN: Final = "org:bluefin"
WITHDRAWN_FROM: Final = _time("2025-02-03T00:00")
WITHDRAWN_RECORDED: Final = _time("2025-02-17T09:12")
CLOSED: Final = "org:quill-legal"
CLOSED_FROM: Final = _time("2025-03-10T16:45")


def _chapters(rng: Random) -> list[Happening]:
    return [*_opening(rng), *_switches(), *_set_right(), *_moves()]


def _opening(rng: Random) -> list[Happening]:
    def models(platform: Platform) -> None:
        said = [one for model in MODELS for one in _listing(model)]
        hosted = sum(model.hosting == "hosted" for model in MODELS)
        passthrough = len(MODELS) - hosted
        platform.record(OPERATOR, *said, told=f"{hosted} hosted and {passthrough} passthrough models")

    happenings = [Happening(_time("2024-07-01T09:00"), models)]
    for day, (org, projects) in enumerate(NAMED_ORGS.items()):
        told = "harbor-health signs up: storage on, Europe only" if org == "harbor-health" else None
        act = _found_org(org, projects, _first_settings(org), rng, told)
        happenings.append(Happening(_time("2024-07-02T10:00") + day * 26 * HOUR, act))
    return happenings


def _first_settings(org: str) -> dict[str, Any]:
    first: dict[str, dict[str, Any]] = {
        "harbor-health": {"residency.regions": EUROPE, "storage.inputs_outputs": True},
        "quill-legal": {"passthrough.allowed": True},
        "tidewater-bank": {"residency.regions": EUROPE, "caching.temporary": True},
        "bluefin": {"training.opt_in": True, "storage.inputs_outputs": True},
        "northgate-labs": {"training.opt_in": True, "passthrough.allowed": True},
    }
    return first.get(org, {})


def _switches() -> list[Happening]:
    trial = (_time("2024-11-04T00:00"), _time("2024-12-02T00:00"))
    private_from = _time("2025-03-01T00:00")
    default_from = _time("2025-06-01T00:00")

    def try_passthrough(p: Platform) -> None:
        said = Said("org:cinder-studio", "passthrough.allowed", True, *trial)
        p.record("cinder-studio/mona", said, told="cinder-studio tries passthrough for four weeks")

    def schedule_private(p: Platform) -> None:
        said = Said("org:tidewater-bank", "network.private_only", True, private_from)
        p.record(OPERATOR, said, told="tidewater-bank: private network only, from 1 March on")

    def withdraw_passthrough(p: Platform) -> None:
        said = Said(CLOSED, "passthrough.allowed", False)
        p.record("quill-legal/ines", said, told="quill-legal withdraws passthrough")

    def stop_storing(p: Platform) -> None:
        said = Said("org:harbor-health", "storage.inputs_outputs", False)
        p.record("harbor-health/omar", said, told="harbor-health switches storage off")

    def announce_default(p: Platform) -> None:
        told = "Caching will be off by default, from 1 June on"
        p.redefine_default(OPERATOR, "caching.temporary", False, default_from, told=told)

    def host_vantage(p: Platform) -> None:
        said = Said("model:vantage/vantage-4", "model.hosting", "hosted", _time("2025-09-15T00:00"))
        p.record(OPERATOR, said, told="vantage-4, so far passthrough, hosted from 15 Sept. on")

    return [
        Happening(_time("2024-10-28T15:20"), try_passthrough),
        Happening(_time("2025-01-20T11:00"), schedule_private),
        Happening(CLOSED_FROM, withdraw_passthrough),
        Happening(_time("2025-04-22T08:30"), stop_storing),
        Happening(_time("2025-05-01T12:00"), announce_default),
        Happening(_time("2025-09-01T09:00"), host_vantage),
    ]


def _set_right() -> list[Happening]:
    """A backdated correction, and a change taken back."""
    wrong = Said("org:meridian-maps", "training.opt_in", True)
    receipts: list[Receipt] = []

    def withdraw_late(p: Platform) -> None:
        p.record(
            OPERATOR,
            Said(REWRITTEN, "training.opt_in", False, WITHDRAWN_FROM),
            reason="withdrawn by letter of 3 February, which was found on the 17th",
            told="bluefin withdraws its opt-in, backdated to 3 Feb.",
        )

    def opt_in_wrongly(p: Platform) -> None:
        receipts.extend(p.record(OPERATOR, wrong, told="meridian-maps opts in to training, by a mistake"))

    def take_back(p: Platform) -> None:
        reason = "entered for meridian-maps instead of meridian-mills"
        p.retract(
            OPERATOR, receipts[0], wrong, CLEARED, reason=reason, told="which is retracted: meridian-mills was meant"
        )

    def opt_in_rightly(p: Platform) -> None:
        p.record(OPERATOR, Said("org:meridian-mills", "training.opt_in", True))

    return [
        Happening(WITHDRAWN_RECORDED, withdraw_late),
        Happening(_time("2025-07-07T10:00"), opt_in_wrongly),
        Happening(_time("2025-07-11T14:30"), take_back),
        Happening(_time("2025-07-11T14:31"), opt_in_rightly),
    ]


def _moves() -> list[Happening]:
    def sell_atlas(p: Platform) -> None:
        said = Said("project:northgate-labs-atlas", "owner", "org:tidewater-bank")
        p.record(OPERATOR, said, told="northgate-labs sells project atlas to tidewater-bank")

    def leave(p: Platform) -> None:
        member = next(iter(p.members["org:quill-legal"]))
        said = Said(f"account:{member}", "attached_to", CLEARED)
        p.record("quill-legal/ines", said, told=f"account {member} leaves quill-legal")

    return [Happening(_time("2025-08-04T13:00"), sell_atlas), Happening(_time("2025-10-06T17:00"), leave)]


def _listing(model: Model) -> list[Said]:
    facts: dict[str, Any] = {
        "model.hosting": model.hosting,
        "model.author": model.author,
        "model.regions": model.regions,
        "model.precision": "as published",
        "model.distilled": False,
    }
    if model.hosting == "passthrough":
        facts |= {"model.provider": model.author, "model.policy_url": model.policy_url}
    return [Said(model.subject, setting, value) for setting, value in facts.items()]


def _found_org(org: str, projects: tuple[str, ...], settings: dict[str, Any], rng: Random, told: str | None) -> Act:
    """One submission: the projects, their keys and two of the org's own, and the first settings."""
    subject = f"org:{org}"
    keys = {f"{org}-{n}": subject for n in (1, 2)}
    for project in projects:
        keys |= {f"{org}-{project}-{n}": f"project:{org}-{project}" for n in range(1, rng.randint(2, 4))}

    def found(platform: Platform) -> None:
        said = [Said(f"project:{org}-{project}", "owner", subject) for project in projects]
        said += [Said(f"key:{key}", "owner", owner) for key, owner in keys.items()]
        said += [Said(subject, setting, value) for setting, value in settings.items()]
        platform.record(OPERATOR, *said, told=told)
        platform.keys[subject] = list(keys)
        platform.projects[subject] = [f"{org}-{project}" for project in projects]

    return found


class _Chance:
    """The rest of the platform: organizations and accounts that come, and change their minds."""

    def __init__(self, rng: Random) -> None:
        self.rng = rng

    def happenings(self) -> list[Happening]:
        names = [f"{first}-{last}" for first in FIRST_NAMES for last in LAST_NAMES]
        self.rng.shuffle(names)
        founded = [Happening(self._time(BEGIN + 8 * DAY, FINISH - 150 * DAY), self._org(name)) for name in names]
        joined = [
            Happening(self._time(BEGIN + 20 * DAY, FINISH - 60 * DAY), self._account(f"u{number:03}"))
            for number in range(1, ACCOUNTS + 1)
        ]
        # The story needs a member to leave.
        joined[0] = Happening(BEGIN + 15 * DAY, self._account("u001", "org:quill-legal"))
        changed = [
            Happening(self._time(BEGIN + 40 * DAY, FINISH), self.rng.choice((self._flip, self._flip, self._other)))
            for _ in range(CHANCE_CHANGES)
        ]
        return [*founded, *joined, *changed]

    def _time(self, start: int, end: int) -> int:
        """Within working hours."""
        return self.rng.randrange(start // DAY, end // DAY) * DAY + self.rng.randrange(7 * HOUR, 20 * HOUR)

    def _org(self, name: str) -> Act:
        settings: dict[str, Any] = {}
        for setting, share in zip(SWITCHES, (0.25, 0.4, 0.3, 0.4), strict=True):
            if self.rng.random() < share:
                settings[setting] = self.rng.random() < 0.8
        if self.rng.random() < 0.25:
            settings["residency.regions"] = self.rng.choice((EUROPE, ("us-east", "us-west"), ("eu-west",)))
        if self.rng.random() < 0.25:
            settings["network.private_only"] = True
        projects = tuple(self.rng.sample(PROJECTS, self.rng.randint(1, 3)))
        return _found_org(name, projects, settings, self.rng, None)

    def _account(self, name: str, org: str | None = None) -> Act:
        def join(platform: Platform) -> None:
            said = [Said(f"key:{name}-personal", "owner", f"account:{name}")]
            for setting, share in zip(SWITCHES[:3], (0.3, 0.4, 0.2), strict=True):
                if self.rng.random() < share:
                    said.append(Said(f"account:{name}", setting, self.rng.random() < 0.7))
            employer = org or (self.rng.choice(list(platform.keys)) if self.rng.random() < 0.5 else None)
            if employer is not None and employer.startswith("org:"):
                said.append(Said(f"account:{name}", "attached_to", employer))
                platform.members.setdefault(employer, []).append(name)
            platform.record(name, *said)
            platform.keys[f"account:{name}"] = [f"{name}-personal"]

        return join

    def _someone(self, platform: Platform) -> str:
        """Whoever is not in the told story."""
        while True:
            subject = self.rng.choice(list(platform.keys))
            if subject.partition(":")[2] not in NAMED_ORGS:
                return subject

    def _flip(self, platform: Platform) -> None:
        subject = self._someone(platform)
        setting = self.rng.choice(SWITCHES if subject.startswith("org:") else SWITCHES[:3])
        value: bool | None = not platform.value(subject, setting)
        if platform.books.get((subject, setting)) is not None and self.rng.random() < 0.2:
            value = CLEARED
        platform.record(f"{subject.partition(':')[2]}/admin", Said(subject, setting, value))

    def _other(self, platform: Platform) -> None:
        """A key handed on or revoked, a move of data, an account that attaches itself."""
        subject = self._someone(platform)
        name = subject.partition(":")[2]
        if subject.startswith("account:"):
            org = self.rng.choice([other for other in platform.keys if other.startswith("org:")])
            attached = platform.books.get((subject, "attached_to"))
            platform.record(name, Said(subject, "attached_to", CLEARED if attached else org))
        elif self.rng.random() < 0.4:
            key = self.rng.choice(platform.keys[subject])
            owned = platform.books.get((f"key:{key}", "owner"))
            platform.record(OPERATOR, Said(f"key:{key}", "owner", CLEARED if owned else subject))
        elif self.rng.random() < 0.5:
            regions = tuple(sorted(self.rng.sample(REGIONS, self.rng.randint(2, 3))))
            platform.record(OPERATOR, Said(subject, "residency.regions", regions))
        else:
            private = not platform.value(subject, "network.private_only")
            platform.record(OPERATOR, Said(subject, "network.private_only", private))


def when(instant: int) -> str:
    """An instant as the story tells it: 2025-02-17 09:12."""
    return format_time(instant)[:16].replace("T", " ")
