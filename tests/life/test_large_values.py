"""Values larger than new ones may be: ledgers that hold them stay readable, restorable and answerable."""

import io
from collections.abc import Iterator
from typing import Any

import pytest
from starlette.testclient import TestClient

from api.app import create_app
from ledger import catalog
from ledger.append.submissions import parse_submissions
from ledger.built_in_catalog import BUILT_IN
from ledger.errors import BadSubmission
from ledger.opening import open_ledger
from ledger.store import Ledger
from ledger.transfer.export import export_lines
from ledger.transfer.import_ledger import import_ledger
from tests.support.ledgers import change, define, definition, open_with_clock, submit

MEMBERS = sorted(f"region-{number:04}-{'x' * 900}" for number in range(1000))
"""Of a set of some 900 KB, the largest that a body of 1 MiB could bring."""


@pytest.fixture
def large(database_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ledger]:
    """A ledger of an earlier version, which accepted a thousand members of any length."""
    ledger, clock = open_with_clock(database_url)
    with ledger, monkeypatch.context() as earlier:
        earlier.setattr(catalog, "SET_SIZE_MAX", 1000)
        earlier.setattr(catalog, "VALUE_BYTES_MAX", 2**24)
        large_definition = definition(value_type="set_of", members=MEMBERS, default=["region-0000-" + "x" * 900])
        clock.now_us += 1
        submit(ledger, {**change("org:acme", MEMBERS), "setting": "residency.regions"})
        submit(ledger, define("beta.regions", definition={**large_definition, "protective": None}))
        submit(ledger, {**change("org:acme", MEMBERS[:300]), "setting": "beta.regions"})
        earlier.undo()
        yield ledger


def ask(ledger: Ledger, method: str, path: str, body: Any = None) -> Any:
    with TestClient(create_app(ledger, sign_in=False)) as client:
        answer = client.request(method, path, json=body)
    assert answer.status_code == 200, answer.text[:500]
    return answer.json()


def test_it_is_answered(large: Ledger) -> None:
    settings = ask(large, "GET", "/v1/subjects/org:acme/state")["settings"]
    assert settings["residency.regions"]["value"] == MEMBERS
    assert settings["beta.regions"]["value"] == MEMBERS[:300]
    decision = ask(large, "POST", "/v1/checks", {"org_id": "acme", "handling": {"region": "mars"}})
    assert "outside_residency" in decision["reasons"]
    head = large.head().position
    assert ask(large, "GET", f"/v1/events?after={head - 1}")["events"][0]["data"]["value"] == MEMBERS[:300]
    assert len(ask(large, "GET", "/v1/subjects/org:acme/history")["events"]) == 2


def test_it_is_restored_byte_for_byte(large: Ledger, tmp_path: Any) -> None:
    exported = b"".join(export_lines(large))
    copy = f"sqlite:///{tmp_path}/copy.db"
    import_ledger(copy, io.BytesIO(exported))
    with open_ledger(copy) as restored:
        assert b"".join(export_lines(restored)) == exported


def test_it_takes_new_values_within_the_bounds_only(large: Ledger) -> None:
    submit(large, {**change("org:acme", MEMBERS[:60]), "setting": "beta.regions"})
    with pytest.raises(BadSubmission, match="at most 256 different texts, and lists 257"):
        submit(large, {**change("org:acme", MEMBERS[:257]), "setting": "beta.regions"})


@pytest.mark.parametrize("surplus", [0, 1])
def test_a_value_has_at_most_60_kib_of_stored_json(surplus: int) -> None:
    # Fifteen members in quotes, with commas and brackets around them: 61,440 bytes exactly.
    members = [f"{number:02}{'é' * 2046}xx" for number in range(14)]
    rest = 61_440 - sum(len(member.encode()) + 3 for member in members) - 4
    members.append("z" * (rest + surplus))
    accepts = BUILT_IN["residency.regions"].accept_new
    if surplus:
        with pytest.raises(catalog.WrongValue, match="at most 61440 bytes as JSON, and has 61441"):
            accepts(members)
    else:
        assert accepts(members) == tuple(sorted(members))


@pytest.mark.parametrize(
    ("more", "refusal"),
    [
        ({"members": [str(number) for number in range(257)]}, "members may list at most 256"),
        ({"members": [f"{n}{'x' * 4000}" for n in range(17)]}, "members may have at most 61440 bytes"),
        ({"default": [str(number) for number in range(257)]}, "default may list at most 256"),
        ({"protective": [str(number) for number in range(257)]}, "protective may list at most 256"),
        (
            {
                "default": ["x" * 4000] * 1,
                "description": "🙂" * 4096,
                "title": "🙂" * 4096,
                "source": "🙂" * 4096,
                "members": ["x" * 4000, *[f"{n}{'y' * 4000}" for n in range(5)]],
            },
            "a definition may have at most 61440",
        ),
    ],
)
def test_a_new_definition_is_bounded(more: dict[str, Any], refusal: str) -> None:
    of_set = definition(value_type="set_of", default=[], protective=None)
    assert parse_submissions(define(definition=of_set))
    with pytest.raises(BadSubmission, match=refusal) as refused:
        parse_submissions(define(definition={**of_set, **more}))
    assert [fault.pointer for fault in refused.value.faults] == ["/definition"]
