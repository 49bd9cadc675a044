"""The invented platform: its models, organizations, regions and dates. None of them exists."""

from __future__ import annotations

from typing import Final, Literal, NamedTuple

from ledger.times import SECOND, parse_time

PLATFORM: Final = "Larkspur"
OPERATOR: Final = "larkspur/ops"
BEGIN: Final = parse_time("2024-07-01T00:00:00Z")
"""The ledger begins."""
FINISH: Final = parse_time("2026-01-01T00:00:00Z")
"""Eighteen months later, and in the past: what a user adds to the ledger afterwards comes later."""
MINUTE: Final = 60 * SECOND
HOUR: Final = 60 * MINUTE

SWITCHES: Final = ("training.opt_in", "storage.inputs_outputs", "caching.temporary", "passthrough.allowed")
REGIONS: Final = ("ap-south", "eu-north", "eu-west", "us-east", "us-west")
EUROPE: Final = "Europe"
NORTH_AMERICA: Final = "North America"
CONTAINING: Final = {EUROPE: ("eu-north", "eu-west"), NORTH_AMERICA: ("us-east", "us-west")}
"""The regions that contain others, by the name that organizations use, and what is within them."""

PUBLISHED_DEFAULTS: Final = {
    "training.opt_in": False,
    "storage.inputs_outputs": False,
    "caching.temporary": True,
    "passthrough.allowed": False,
    "residency.regions": (),
    "network.private_only": False,
    "subjects.must_be_known": (),
}
"""The platform's published defaults, written by hand: what the demo expects must not come from the catalog."""


def region_subject(name: str) -> str:
    return f"region:{name.lower().replace(' ', '-')}"


class Model(NamedTuple):
    id: str
    hosting: Literal["hosted", "passthrough"]
    author: str
    regions: tuple[str, ...]

    @property
    def subject(self) -> str:
        return f"model:{self.id}"

    @property
    def policy_url(self) -> str:
        return f"https://{self.id.partition('/')[0]}.example/data-policy"


MODELS: Final = (
    Model("fathom/fathom-70b", "hosted", "Fathom", ("eu-west", "us-east")),
    Model("fathom/fathom-8b", "hosted", "Fathom", ("ap-south", "eu-north", "eu-west", "us-east", "us-west")),
    Model("opengrove/oak-32b", "hosted", "Opengrove", ("eu-north", "eu-west", "us-west")),
    Model("opengrove/acorn-3b", "hosted", "Opengrove", ("eu-west", "us-east", "us-west")),
    Model("kestrel/kestrel-code-34b", "hosted", "Kestrel Labs", ("eu-west", "us-east")),
    Model("kestrel/kestrel-embed", "hosted", "Kestrel Labs", ("eu-north", "us-east")),
    Model("aurora/aurora-120b", "hosted", "Aurora Institute", ("us-east",)),
    Model("papillon/papillon-vision", "hosted", "Papillon", ("eu-west",)),
    Model("papillon/papillon-audio", "hosted", "Papillon", ("eu-west", "us-west")),
    Model("meadow/meadow-13b", "hosted", "Meadow", ("ap-south", "eu-west")),
    Model("orbital/comet-2", "passthrough", "Orbital", ("eu-west", "us-east")),
    Model("orbital/comet-2-mini", "passthrough", "Orbital", ("eu-north", "eu-west", "us-east")),
    Model("halcyon/halcyon-pro", "passthrough", "Halcyon", ("us-east", "us-west")),
    Model("vantage/vantage-4", "passthrough", "Vantage", ("eu-west", "us-east")),
)
UNPLACED_MODEL: Final = Model("meadow/meadow-labs", "hosted", "Meadow", ())
"""A listed model that states no region."""


class Provider(NamedTuple):
    """`names`: in logs. `trains`, `retention_days`: its own data policy; None where nobody recorded it."""

    id: str
    names: tuple[str, ...]
    trains: bool | None
    retention_days: int | None

    @property
    def subject(self) -> str:
        return f"provider:{self.id}"


PROVIDERS: Final = {
    "Orbital": Provider("orbital", ("Orbital", "ORBITAL", "Orbital Inference"), False, 30),
    "Halcyon": Provider("halcyon", ("halcyon", "Halcyon Systems"), True, None),
    "Vantage": Provider("vantage", ("Vantage",), None, None),
}
"""Provider of passthrough models, as they name it → what is recorded about it."""
UNLISTED_MODELS: Final = ("fathom/fathom-900b-preview", "orbital/comet-3-alpha", "someone/fine-tune-7")
"""Models that are not in the ledger, so their hosting is unknown."""

MISTYPED_ORGS: Final = ("harbor-healht", "quil-legal", "tidewater_bank")
"""Organizations in the log of which the ledger has no event."""

NAMED_ORGS: Final = {
    "harbor-health": ("triage", "notes"),
    "quill-legal": ("briefs", "contracts"),
    "tidewater-bank": ("fraud", "helpdesk"),
    "bluefin": ("npc", "chat"),
    "meridian-maps": ("places",),
    "meridian-mills": ("looms",),
    "cinder-studio": ("storyboard",),
    "northgate-labs": ("atlas", "bench"),
}
"""The organizations of the story, and their projects. Random changes leave them alone."""

FIRST_NAMES: Final = ("amber", "birch", "cobalt", "dune", "ember", "fern", "granite", "hazel")
LAST_NAMES: Final = ("analytics", "foods", "freight", "optics", "press")
PROJECTS: Final = ("search", "support", "research", "assistant", "reports", "intake")
