"""Eighteen months of the invented platform: a few named events that the demo tells, and many random ones."""

from __future__ import annotations

from collections.abc import Callable
from operator import itemgetter
from random import Random
from typing import Any, Final

from ledger.receipts import Receipt
from ledger.subjects import MUST_BE_KNOWN
from ledger.times import DAY, SECOND, format_time, parse_time
from scripts.demo.platform import CLEARED, Platform, PlatformChange
from scripts.demo.world import (
    BEGIN,
    CONTAINING,
    EUROPE,
    FINISH,
    FIRST_NAMES,
    HOUR,
    LAST_NAMES,
    MODELS,
    NAMED_ORGS,
    NORTH_AMERICA,
    OPERATOR,
    PROJECTS,
    PROVIDERS,
    REGIONS,
    SWITCHES,
    UNPLACED_MODEL,
    Model,
    region_subject,
)

ACCOUNTS: Final = 240
RANDOM_CHANGES: Final = 600

Action = Callable[[Platform], object]


Happening = tuple[int, Action]
"""When (µs), and what."""


def story(rng: Random) -> list[Happening]:
    """In the order of time; no two at the same instant."""
    happenings = [*_sign_ups(rng), *_changes(), *_mistakes(), *_RandomHappenings(rng).happenings()]
    last = BEGIN
    apart = []
    for at, action in sorted(happenings, key=itemgetter(0)):
        last = max(at, last + SECOND)
        apart.append((last, action))
    return apart


def when(instant: int) -> str:
    """An instant to the minute, as the demo prints it: 2025-02-17 09:12."""
    return format_time(instant)[:16].replace("T", " ")


def _time(minute: str) -> int:
    return parse_time(f"{minute}:00Z")


CORRECTED_ORG: Final = "org:bluefin"
"""Withdrew its opt-in, which was recorded two weeks late."""
WITHDRAWN_FROM: Final = _time("2025-02-03T00:00")
PASSTHROUGH_OFF_ORG: Final = "org:quill-legal"
PASSTHROUGH_OFF_FROM: Final = _time("2025-03-10T16:45")


def _sign_ups(rng: Random) -> list[Happening]:
    def list_models(platform: Platform) -> None:
        changes = [change for model in (*MODELS, UNPLACED_MODEL) for change in _model_settings(model)]
        hosted = sum(model.hosting == "hosted" for model in MODELS)
        # One hosted model states no region.
        line = f"{hosted + 1} hosted and {len(MODELS) - hosted} passthrough models are listed"
        platform.record(OPERATOR, *changes, story=line)

    def list_places(platform: Platform) -> None:
        platform.record(OPERATOR, *_places(), story=f"{EUROPE} and {NORTH_AMERICA} contain two regions each")

    happenings: list[Happening] = [
        (_time("2024-07-01T09:00"), list_models),
        (_time("2024-07-01T09:30"), list_places),
    ]
    for day, (org, projects) in enumerate(NAMED_ORGS.items()):
        line = "harbor-health signs up: storage on, Europe only" if org == "harbor-health" else None
        action = _sign_up_org(org, projects, _first_settings(org), rng, line)
        happenings.append((_time("2024-07-02T10:00") + day * 26 * HOUR, action))
    return happenings


def _first_settings(org: str) -> dict[str, Any]:
    settings: dict[str, dict[str, Any]] = {
        "harbor-health": {"residency.regions": (EUROPE,), "storage.inputs_outputs": True},
        "quill-legal": {"passthrough.allowed": True},
        "tidewater-bank": {"residency.regions": (EUROPE,), "caching.temporary": True},
        "bluefin": {"training.opt_in": True, "storage.inputs_outputs": True},
        "northgate-labs": {"training.opt_in": True, "passthrough.allowed": True},
    }
    return settings.get(org, {})


def _places() -> list[PlatformChange]:
    """The regions that contain others, and the providers with their data policies as they were read."""
    changes = [PlatformChange(region_subject(name), "region.names", (name,)) for name in CONTAINING]
    for name, parts in CONTAINING.items():
        changes += [PlatformChange(f"region:{part}", "region.within", region_subject(name)) for part in parts]
    for provider in PROVIDERS.values():
        settings = {
            "provider.names": provider.names,
            "provider.trains": provider.trains,
            "provider.retention_days": provider.retention_days,
        }
        changes += [
            PlatformChange(provider.subject, setting, value) for setting, value in settings.items() if value is not None
        ]
    return changes


def _change(minute: str, actor: str, change: PlatformChange, line: str | None, reason: str | None = None) -> Happening:
    """A happening that records one change."""
    return _time(minute), lambda platform: platform.record(actor, change, reason=reason, story=line)


def _changes() -> list[Happening]:
    trial = (_time("2024-11-04T00:00"), _time("2024-12-02T00:00"))

    def announce_default(platform: Platform) -> None:
        line = "caching will be off by default from 1 June"
        platform.redefine_default(OPERATOR, "caching.temporary", False, _time("2025-06-01T00:00"), story=line)

    def demand_known(platform: Platform) -> None:
        line = "organizations must be known from 1 March"
        platform.redefine_default(OPERATOR, MUST_BE_KNOWN, ("org",), _time("2025-03-01T00:00"), story=line)

    def leave(platform: Platform) -> None:
        member = next(iter(platform.members["org:quill-legal"]))
        change = PlatformChange(f"account:{member}", "attached_to", CLEARED)
        platform.record("quill-legal/ines", change, story=f"account {member} leaves quill-legal")

    return [
        _change(
            "2024-10-28T15:20",
            "cinder-studio/mona",
            PlatformChange("org:cinder-studio", "passthrough.allowed", True, *trial),
            "cinder-studio tries passthrough for four weeks",
        ),
        _change(
            "2025-01-20T11:00",
            OPERATOR,
            PlatformChange("org:tidewater-bank", "network.private_only", True, _time("2025-03-01T00:00")),
            "tidewater-bank: private network only from 1 March",
        ),
        _change(
            "2025-03-10T16:45",
            "quill-legal/ines",
            PlatformChange(PASSTHROUGH_OFF_ORG, "passthrough.allowed", False),
            "quill-legal switches passthrough off",
        ),
        _change(
            "2025-04-22T08:30",
            "harbor-health/omar",
            PlatformChange("org:harbor-health", "storage.inputs_outputs", False),
            "harbor-health switches storage off",
        ),
        (_time("2025-02-20T10:00"), demand_known),
        (_time("2025-05-01T12:00"), announce_default),
        _change(
            "2025-08-04T13:00",
            OPERATOR,
            PlatformChange("project:northgate-labs-atlas", "owner", "org:tidewater-bank"),
            "northgate-labs sells project atlas to tidewater-bank",
        ),
        _change(
            "2025-09-01T09:00",
            OPERATOR,
            PlatformChange("model:vantage/vantage-4", "model.hosting", "hosted", _time("2025-09-15T00:00")),
            "vantage-4, so far passthrough, is hosted from 15 Sept.",
        ),
        (_time("2025-10-06T17:00"), leave),
    ]


def _mistakes() -> list[Happening]:
    """A backdated correction, and a retraction."""
    mistake = PlatformChange("org:meridian-maps", "training.opt_in", True)
    receipts: list[Receipt] = []

    def opt_in_by_mistake(platform: Platform) -> None:
        receipts.extend(platform.record(OPERATOR, mistake, story="meridian-maps opts in to training, by mistake"))

    def retract(platform: Platform) -> None:
        reason = "entered for meridian-maps instead of meridian-mills"
        line = "the opt-in is retracted: meridian-mills was meant"
        platform.retract(OPERATOR, receipts[0], mistake, CLEARED, reason=reason, story=line)

    return [
        _change(
            "2025-02-17T09:12",
            OPERATOR,
            PlatformChange(CORRECTED_ORG, "training.opt_in", False, WITHDRAWN_FROM),
            "bluefin withdraws its opt-in, backdated to 3 Feb.",
            "withdrawn by letter of 3 February, which was found on the 17th",
        ),
        (_time("2025-07-07T10:00"), opt_in_by_mistake),
        (_time("2025-07-11T14:30"), retract),
        _change("2025-07-11T14:31", OPERATOR, PlatformChange("org:meridian-mills", "training.opt_in", True), None),
    ]


def _model_settings(model: Model) -> list[PlatformChange]:
    settings: dict[str, Any] = {
        "model.hosting": model.hosting,
        "model.author": model.author,
        "model.regions": model.regions,
        "model.precision": "as published",
        "model.distilled": False,
    }
    if model.hosting == "passthrough":
        settings |= {"model.provider": model.author, "model.policy_url": model.policy_url}
    return [PlatformChange(model.subject, setting, value) for setting, value in settings.items()]


def _sign_up_org(
    org: str, projects: tuple[str, ...], settings: dict[str, Any], rng: Random, line: str | None
) -> Action:
    """One submission: the projects, their keys and two of the organization's own, and the first settings."""
    subject = f"org:{org}"
    keys = {f"{org}-{n}": subject for n in (1, 2)}
    for project in projects:
        keys |= {f"{org}-{project}-{n}": f"project:{org}-{project}" for n in range(1, rng.randint(2, 4))}

    def sign_up(platform: Platform) -> None:
        changes = [PlatformChange(f"project:{org}-{project}", "owner", subject) for project in projects]
        changes += [PlatformChange(f"key:{key}", "owner", owner) for key, owner in keys.items()]
        # Also what is the default: so the ledger knows every organization.
        stated = {"network.private_only": False} | settings
        changes += [PlatformChange(subject, setting, value) for setting, value in stated.items()]
        platform.record(OPERATOR, *changes, story=line)
        platform.keys[subject] = list(keys)
        platform.projects[subject] = [f"{org}-{project}" for project in projects]

    return sign_up


class _RandomHappenings:
    """The rest of the platform: organizations and accounts that sign up, and change their settings."""

    def __init__(self, rng: Random) -> None:
        self.rng = rng

    def happenings(self) -> list[Happening]:
        names = [f"{first}-{last}" for first in FIRST_NAMES for last in LAST_NAMES]
        self.rng.shuffle(names)
        orgs = [(self._time(BEGIN + 8 * DAY, FINISH - 150 * DAY), self._org(name)) for name in names]
        accounts = [
            (self._time(BEGIN + 20 * DAY, FINISH - 60 * DAY), self._account(f"u{number:03}"))
            for number in range(1, ACCOUNTS + 1)
        ]
        # The story needs a member who leaves.
        accounts[0] = (BEGIN + 15 * DAY, self._account("u001", "org:quill-legal"))
        changes = [
            (self._time(BEGIN + 40 * DAY, FINISH), self.rng.choice((self._flip, self._flip, self._other)))
            for _ in range(RANDOM_CHANGES)
        ]
        return [*orgs, *accounts, *changes]

    def _time(self, start: int, end: int) -> int:
        """An instant within working hours."""
        return self.rng.randrange(start // DAY, end // DAY) * DAY + self.rng.randrange(7 * HOUR, 20 * HOUR)

    def _org(self, name: str) -> Action:
        settings: dict[str, Any] = {}
        for setting, share in zip(SWITCHES, (0.25, 0.4, 0.3, 0.4), strict=True):
            if self.rng.random() < share:
                settings[setting] = self.rng.random() < 0.8
        if self.rng.random() < 0.25:
            settings["residency.regions"] = self.rng.choice(((EUROPE,), (NORTH_AMERICA,), ("eu-west",)))
        if self.rng.random() < 0.25:
            settings["network.private_only"] = True
        projects = tuple(self.rng.sample(PROJECTS, self.rng.randint(1, 3)))
        return _sign_up_org(name, projects, settings, self.rng, None)

    def _account(self, name: str, org: str | None = None) -> Action:
        def join(platform: Platform) -> None:
            changes = [PlatformChange(f"key:{name}-personal", "owner", f"account:{name}")]
            for setting, share in zip(SWITCHES[:3], (0.3, 0.4, 0.2), strict=True):
                if self.rng.random() < share:
                    changes.append(PlatformChange(f"account:{name}", setting, self.rng.random() < 0.7))
            employer = org or (self.rng.choice(list(platform.keys)) if self.rng.random() < 0.5 else None)
            if employer is not None and employer.startswith("org:"):
                changes.append(PlatformChange(f"account:{name}", "attached_to", employer))
                platform.members.setdefault(employer, []).append(name)
            platform.record(name, *changes)
            platform.keys[f"account:{name}"] = [f"{name}-personal"]

        return join

    def _subject(self, platform: Platform) -> str:
        """An organization or account that the named story is not about."""
        while True:
            subject = self.rng.choice(list(platform.keys))
            if subject.partition(":")[2] not in NAMED_ORGS:
                return subject

    def _flip(self, platform: Platform) -> None:
        subject = self._subject(platform)
        setting = self.rng.choice(SWITCHES if subject.startswith("org:") else SWITCHES[:3])
        value: bool | None = not platform.value(subject, setting)
        if platform.current.get((subject, setting)) is not None and self.rng.random() < 0.2:
            value = CLEARED
        platform.record(f"{subject.partition(':')[2]}/admin", PlatformChange(subject, setting, value))

    def _other(self, platform: Platform) -> None:
        """A key revoked or given back, a change of regions or network, an account that joins or leaves."""
        subject = self._subject(platform)
        name = subject.partition(":")[2]
        if subject.startswith("account:"):
            org = self.rng.choice([other for other in platform.keys if other.startswith("org:")])
            attached = platform.current.get((subject, "attached_to"))
            platform.record(name, PlatformChange(subject, "attached_to", CLEARED if attached else org))
        elif self.rng.random() < 0.4:
            key = self.rng.choice(platform.keys[subject])
            owned = platform.current.get((f"key:{key}", "owner"))
            platform.record(OPERATOR, PlatformChange(f"key:{key}", "owner", CLEARED if owned else subject))
        elif self.rng.random() < 0.5:
            regions = tuple(sorted(self.rng.sample(REGIONS, self.rng.randint(2, 3))))
            platform.record(OPERATOR, PlatformChange(subject, "residency.regions", regions))
        else:
            private = not platform.value(subject, "network.private_only")
            platform.record(OPERATOR, PlatformChange(subject, "network.private_only", private))
