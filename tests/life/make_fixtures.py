"""Makes the stored ledgers of a release. Run it by hand, once, with the released code instead of this checkout's:

    git worktree add ../released ca5f2d5
    PYTHONPATH=../released python tests/life/make_fixtures.py sqlite:////tmp/empty/ledger.db tests/life/fixtures/0.1.0
    PYTHONPATH=../released python tests/life/make_fixtures.py postgresql://… tests/life/fixtures/0.1.0

Writes into the folder the whole ledger (a gzipped SQLite file, or the output of `pg_dump --inserts`), its export, its
personal data, and the submissions with their idempotency keys, receipts and answers. Clock and random bytes are fixed,
so both databases hold the same bytes. The databases must be empty; pg_dump must be on PATH.
"""

import gzip
import hashlib
import json
import random
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ledger.append.submissions import canonical_json, parse_submissions
from ledger.clock import ManualClock
from ledger.drafts import Idempotency
from ledger.opening import open_recorder
from ledger.store import Ledger
from ledger.times import parse_time
from ledger.transfer.export import export_lines, export_personal
from projections.query.query import Query

ORIGIN = "stored.example/ledger"
BEGUN = parse_time("2026-03-01T12:00:00Z")
MOMENTS = ("2026-03-01T12:00:01Z", "2026-03-02T00:00:00Z", "2026-03-10T00:00:00Z", "2027-06-01T00:00:00Z")
SUBJECTS = ("org:acme", "org:beta", "account:anna", "model:lab/one", "key:k-1")
UNFIT_FOR_OTHER_SERVERS = re.compile(r"(?m)^(--.*|SET .*|\\(un)?restrict .*|SELECT pg_catalog\.set_config.*)?\n")
"""Lines of a dump that only one version of the server and of psql understands."""


def change(subject: str, setting: str, value: Any, **more: Any) -> dict[str, Any]:
    return {"type": "setting.changed", "subject": subject, "setting": setting, "value": value, **more}


def definition(**more: Any) -> dict[str, Any]:
    words = {"title": "Beta search", "description": "Whether the new search is used.", "source": "Product notes"}
    common = {"value_type": "bool", "default": False, "protective": False, "writable_by": "admin"}
    return {"kinds": ["org"], **common, **words, **more}


def story() -> Iterator[tuple[int, str | None, str, dict[str, Any]]]:
    """(µs since the one before, idempotency key, name for a later retraction or "", body)."""
    hour, day = 3_600_000_000, 86_400_000_000
    yield 1, "first", "", {**change("org:acme", "training.opt_in", True, reason="ticket 1 – “spoken” 🙂 \x01T \x00")}
    yield 0, None, "", change("org:beta", "training.opt_in", True)
    yield (
        hour,
        "batch",
        "",
        {
            "events": [
                change("org:acme", "residency.regions", ["eu", "ap", "us"]),
                change("account:anna", "training.opt_in", True, reason="by telephone"),
                change("model:lab/one", "model.author", "É\x01P\u2028\x7f🙂"),
                change("key:k-1", "owner", "org:acme"),
            ]
        },
    )
    later = {"effective_from": "2026-03-05T00:00:00Z", "effective_until": "2026-03-08T00:00:00.5Z"}
    yield hour, "mistake", "mistake", change("org:acme", "training.opt_in", False, **later)
    late = {"effective_from": "2026-02-01T00:00:00Z", "reason": "the form lay in a drawer"}
    yield day, None, "", change("org:beta", "training.opt_in", False, **late)
    yield day, "taken-back", "", {"type": "change.retracted", "event_id": "$mistake", "reason": "for another org"}
    yield 1, "cleared", "", {"type": "setting.cleared", "subject": "account:anna", "setting": "training.opt_in"}
    period = {"effective_from": "2027-01-01T00:00:00Z", "effective_until": "2027-02-01T00:00:00Z"}
    yield 1, None, "", {"type": "setting.cleared", "subject": "org:acme", "setting": "residency.regions", **period}
    yield day, "defined", "", {"type": "setting.defined", "setting": "beta.search", "definition": definition()}
    yield hour, None, "", change("org:acme", "beta.search", True)
    wider = definition(kinds=["account", "org"], default=True)
    more = {"effective_from": "2027-01-01T00:00:00Z", "reason": "for everybody"}
    yield hour, None, "", {"type": "setting.defined", "setting": "beta.search", "definition": wider, **more}
    yield day, "last", "", change("account:anna", "beta.search", False, effective_from="2027-05-01T00:00:00Z")


def tell(ledger: Ledger, clock: ManualClock) -> list[dict[str, Any]]:
    """Submits the story; answers the submissions and their receipts."""
    submitted = []
    named: dict[str, str] = {}
    for wait, key, name, body in story():
        clock.now_us += wait
        if body.get("event_id", "").startswith("$"):
            body["event_id"] = named[body["event_id"][1:]]
        digest = hashlib.sha256(canonical_json(body)).digest()
        idempotency = Idempotency("alice", key, digest) if key else None
        receipts = ledger.submit(parse_submissions(body), actor="operator:stored", idempotency=idempotency)
        named[name] = receipts[0].event_id
        submitted.append({"key": key, "body": body, "receipts": [receipt._asdict() for receipt in receipts]})
    return submitted


def answers(ledger: Ledger) -> list[dict[str, Any]]:
    """Setting → value of each subject at each moment, in hindsight and in force."""
    query = Query(ledger)
    return [
        {
            "subject": subject,
            "at": moment,
            "known_at": known_at,
            "settings": {
                setting: state.value
                for setting, state in query.state(
                    subject, at=parse_time(moment), known_at=known_at, settings=None
                ).settings.items()
            },
        }
        for subject in SUBJECTS
        for moment in MOMENTS
        for known_at in (None, "at")
    ]


def main(url: str, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    clock = ManualClock(BEGUN)
    recorder = open_recorder(url)
    recorder.create({"origin": ORIGIN})
    with Ledger(recorder, clock, origin=ORIGIN, entropy=random.Random(1).randbytes) as ledger:
        ledger.ensure_genesis()
        submitted = tell(ledger, clock)
        facts = {"submitted": submitted, "answers": answers(ledger)}
        (folder / "facts.json").write_text(json.dumps(facts, indent=1) + "\n")
        (folder / "events.jsonl").write_bytes(b"".join(export_lines(ledger)))
        (folder / "personal.jsonl").write_bytes(b"".join(export_personal(ledger)))
    if url.startswith("sqlite"):
        file = Path(url.removeprefix("sqlite:///"))
        (folder / "ledger.db.gz").write_bytes(gzip.compress(file.read_bytes(), 9, mtime=0))
        return
    command = ["pg_dump", "--schema=inforce", "--inserts", "--no-owner", "--no-privileges", f"--dbname={url}"]
    dump = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    (folder / "ledger.sql").write_text(UNFIT_FOR_OTHER_SERVERS.sub("", dump))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
