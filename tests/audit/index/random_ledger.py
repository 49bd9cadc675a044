"""Ledgers with every kind of history that a decision can depend on, recorded from a seed."""

from random import Random
from typing import Any

from ledger.clock import ManualClock
from ledger.errors import BadSubmission
from ledger.store import Ledger
from ledger.times import format_time
from projections.decisions.published import PUBLISHED
from tests.support.ledgers import define, definition, submit
from tests.support.older_catalog import older_definitions

SWITCHES = ("training.opt_in", "storage.inputs_outputs", "caching.temporary")
OF_ORGS = ("passthrough.allowed", "network.private_only", *SWITCHES)
ORGS = ("acme", "beta", "ä".encode().hex(), "long-" + "x" * 200)
ACCOUNTS = ("u1", "u2", "a@b.c/d", "7")
PROJECTS = ("p1", "p2")
KEYS = ("k1", "k2", "k:3")
MODELS = ("a/b", "c")
REGIONS = ("eu", "us", "ch-zürich", 'q"uote', "back\\slash", "]")
REASON = {"reason": "the form was filed late"}


class RandomLedger:
    """Records random submissions from `seed`, some with several changes."""

    def __init__(self, ledger: Ledger, clock: ManualClock, seed: int) -> None:
        self.ledger = ledger
        self.clock = clock
        self.random = Random(seed)
        self.retractable: list[str] = []

    def go_on(self, submissions: int) -> None:
        for _ in range(submissions):
            self.clock.now_us += self.random.choice((1, 2, 1000, 5_000_000))
            bodies = [self._body() for _ in range(self.random.choice((1, 1, 1, 2, 5)))]
            try:
                with older_definitions():
                    receipts = submit(self.ledger, *bodies)
            except BadSubmission:
                # Some random changes are invalid: the definition of the moment is not for that kind.
                continue
            for body, receipt in zip(bodies, receipts, strict=True):
                if body["type"] in ("setting.changed", "setting.cleared"):
                    self.retractable.append(receipt.event_id)

    def _body(self) -> dict[str, Any]:
        kind = self.random.randrange(12)
        if kind == 0:
            return self._definition()
        if kind <= 2 and self.retractable:
            event_id = self.retractable.pop(self.random.randrange(len(self.retractable)))
            return {"type": "change.retracted", "event_id": event_id, **REASON}
        subject, setting, value = self._assertion()
        members = {"subject": subject, "setting": setting, **self._period()}
        if kind == 3:
            return {"type": "setting.cleared", **members}
        return {"type": "setting.changed", "value": value, **members}

    def _definition(self) -> dict[str, Any]:
        choose = self.random.choice
        setting = choose(
            (
                *OF_ORGS,
                "residency.regions",
                "model.hosting",
                "model.provider",
                "owner",
                "beta.search",
                "subjects.must_be_known",
            )
        )
        body: dict[str, Any] = {"kinds": choose((["org"], ["account", "org"], ["account", "org", "model"]))}
        match setting:
            case "residency.regions":
                body |= {"value_type": "set_of", "default": choose(([], ["eu"], None)), "protective": None}
            case "subjects.must_be_known":
                body |= {
                    "value_type": "set_of",
                    "default": choose(([], ["key"], ["account", "org"])),
                    "protective": None,
                }
            case "model.hosting":
                members = choose((["hosted", "passthrough"], ["hosted", "passthrough", "edge"]))
                body |= {"kinds": ["model"], "value_type": "one_of", "members": members}
                body |= {"default": choose((None, "hosted")), "protective": None}
            case "model.provider":
                default = choose((None, "Nobody"))
                body |= {"kinds": ["model"], "value_type": "text", "default": default, "protective": None}
            case "owner":
                body |= {"kinds": choose((["key"], ["key", "project"])), "value_type": "subject_ref"}
                body |= {"ref_kinds": ["project", "org", "account", "key", "model"], "protective": None}
                body |= {"default": choose((None, "org:by-default"))}
            case _:
                body |= {"default": choose((True, False, None)), "protective": choose((True, False, None))}
        period = {} if self.random.random() < 0.5 else {"effective_from": format_time(self._instant()), **REASON}
        return define(setting, definition=definition(**body), **period)

    def _assertion(self) -> tuple[str, str, Any]:
        choose = self.random.choice
        match choose(("org", "org", "account", "account", "key", "project", "model", "other")):
            case "org" if self.random.random() < 0.3:
                regions = sorted(self.random.sample(REGIONS, self.random.randrange(4)))
                return f"org:{choose(ORGS)}", "residency.regions", regions
            case "org" if self.random.random() < 0.1:
                return f"org:{choose((*ORGS, 'spoken-of'))}", "beta.search", self.random.random() < 0.5
            case "org":
                return f"org:{choose(ORGS)}", choose(OF_ORGS), self.random.random() < 0.5
            case "account" if self.random.random() < 0.3:
                return f"account:{choose(ACCOUNTS)}", "attached_to", f"org:{choose((*ORGS, 'unheard-of'))}"
            case "account":
                return f"account:{choose(ACCOUNTS)}", choose(SWITCHES), self.random.random() < 0.5
            case "key":
                owners = [f"project:{choose(PROJECTS)}", f"org:{choose(ORGS)}", f"account:{choose(ACCOUNTS)}"]
                return f"key:{choose(KEYS)}", "owner", choose(owners)
            case "project":
                return f"project:{choose(PROJECTS)}", "owner", choose((f"org:{choose(ORGS)}", "account:u1"))
            case "model":
                return f"model:{choose(MODELS)}", *self._of_model()
            case _:
                return "model:a/b", choose(("model.precision", "model.author")), choose(("fp16", 'a "text"'))

    def _of_model(self) -> tuple[str, Any]:
        choose = self.random.choice
        settings = ("model.hosting", "model.provider", "model.policy_url", "model.regions")
        setting = choose((*settings, *settings, *PUBLISHED))
        match setting:
            case "model.distilled" | "model.system_prompt_forced" | "model.censorship_layer":
                return setting, self.random.random() < 0.5
            case "model.hosting":
                return setting, choose(("hosted", "passthrough", "passthrough"))
            case "model.regions":
                return setting, sorted(self.random.sample(REGIONS, self.random.randrange(3)))
        return setting, choose(("Orbital", "Zürich", 'say "so"', "a, b", ""))

    def _instant(self) -> int:
        return self.clock.now_us + self.random.randrange(-20, 20) * self.random.choice((1, 500, 3_000_000))

    def _period(self) -> dict[str, Any]:
        """Instants are close together, so that periods touch and overlap."""
        now, period = self.clock.now_us, dict[str, Any]()
        start = now
        if self.random.random() < 0.4:
            start = self._instant()
            period |= {"effective_from": format_time(start), **REASON}
        if self.random.random() < 0.3:
            period["effective_until"] = format_time(max(start, now) + 1 + self.random.randrange(20))
        return period
