"""The OpenAPI document, the domain and the real responses agree."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from pydantic import BaseModel, TypeAdapter
from starlette.testclient import TestClient

from api.app import create_app
from api.responses import outlook_json
from api.schemas import decisions, examples, requests, responses
from ledger.append import submissions
from ledger.catalog import Definition
from ledger.codec import Leaf, LeafData
from ledger.receipts import Receipt
from projections.decisions.model import Observed, RequestRecord
from projections.query.outlooks import EventOutlook, ReceiptWarning
from projections.temporal.outlook import NOTHING_FOLLOWS, ScheduledChange
from tests.api.client import changed, get, problem, submit


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """A client of a ledger with every kind of event."""
    with TestClient(create_app(f"sqlite:///{tmp_path_factory.mktemp('story')}/ledger.db", sign_in=False)) as client:
        for name, example in examples.SUBMISSION_EXAMPLES.items():
            body = example["value"]
            if name == "retract":
                first = get(client, "/v1/events?subject=org:acme")["events"][0]["id"]
                body = body | {"event_id": first}
            submit(client, body)
        submit(client, changed("account:u1", "training.opt_in", True))
        yield client


def test_every_submission_example_is_recorded(story: TestClient) -> None:
    types = {event["type"] for event in get(story, "/v1/events?limit=1000")["events"]}
    assert types == {f"inforce.{name}.v1" for name in submissions.TYPES}


@pytest.mark.parametrize("example", examples.CHECK_EXAMPLES.values(), ids=examples.CHECK_EXAMPLES.keys())
def test_every_check_example_is_decided(story: TestClient, example: Any) -> None:
    answer = story.post("/v1/checks", json=example["value"])
    assert answer.status_code == 200, answer.text
    model = decisions.Decisions if "requests" in example["value"] else decisions.Decision
    model.model_validate_json(answer.text)


QUESTIONS: list[tuple[str, type[BaseModel]]] = [
    ("/v1/events?limit=1000", responses.EventPage),
    ("/v1/subjects", responses.SubjectPage),
    ("/v1/catalog", responses.Catalog),
    ("/healthz", responses.Health),
    ("/readyz", responses.Ready),
    ("/problems", responses.ProblemKinds),
    ("/problems/not_found", responses.ProblemKind),
    *(
        (f"/v1/subjects/{subject}/{call}", model)
        for subject in ("org:acme", "key:k1", "model:deepseek-ai/DeepSeek-V3", "account:u1", "catalog:settings")
        for call, model in (
            ("state", responses.State),
            ("state?at=2026-01-01T00:00:00Z&known_at=at", responses.State),
            ("timeline", responses.Timeline),
            ("timeline?known_at=at", responses.Timeline),
            ("history", responses.History),
            ("diff?from=2020-01-01T00:00:00Z", responses.Differences),
            ("diff?from=2020-01-01T00:00:00Z&known_at=at", responses.Differences),
        )
    ),
]


@pytest.mark.parametrize(("path", "model"), QUESTIONS)
def test_real_answers_fit_the_documented_shapes_exactly(story: TestClient, path: str, model: type[BaseModel]) -> None:
    answer = story.get(path)
    assert answer.status_code == 200, answer.text
    model.model_validate_json(answer.text)


def test_a_receipt_and_an_event_fit_too(story: TestClient) -> None:
    answer = story.post("/v1/events", json=changed("org:other", "training.opt_in", True))
    responses.Receipts.model_validate_json(answer.text)
    responses.Event.model_validate_json(story.get(answer.headers["location"]).text)


@pytest.mark.parametrize("model", examples.RESPONSE_EXAMPLES, ids=lambda model: model.__name__)
def test_every_answer_example_fits_its_shape(model: type[BaseModel]) -> None:
    model.model_validate(examples.RESPONSE_EXAMPLES[model])


def test_every_request_example_fits_its_shape() -> None:
    sent = requests.SettingChange | requests.SettingClear | requests.ChangeRetraction | requests.SettingDefined
    adapter: TypeAdapter[Any] = TypeAdapter(sent | requests.SubmissionBatch)
    for example in examples.SUBMISSION_EXAMPLES.values():
        adapter.validate_python(example["value"])
    records: TypeAdapter[Any] = TypeAdapter(requests.RequestRecord | requests.RequestRecords)
    for example in examples.CHECK_EXAMPLES.values():
        records.validate_python(example["value"])


@pytest.mark.parametrize(
    ("shown", "domain"),
    [
        (requests.SettingChange, submissions.ChangeSetting),
        (requests.SettingClear, submissions.ClearSetting),
        (requests.ChangeRetraction, submissions.RetractChange),
        (requests.SettingDefined, submissions.DefineSetting),
        (requests.SettingDefinition, Definition),
    ],
)
def test_the_documented_members_are_those_of_the_domain(shown: type[BaseModel], domain: type[BaseModel]) -> None:
    def members(model: type[BaseModel]) -> dict[str, bool]:
        return {name: field.is_required() for name, field in model.model_fields.items()}

    assert members(shown) == members(domain)


def test_the_other_models_have_the_members_of_the_domain() -> None:
    assert set(requests.RequestRecord.model_fields) == set(RequestRecord._fields)
    assert set(requests.ObservedHandling.model_fields) == set(Observed._fields)
    outlook = outlook_json(EventOutlook(NOTHING_FOLLOWS))
    assert list(responses.Receipt.model_fields) == [*Receipt._fields, *outlook, "proof"]
    assert set(responses.ScheduledChange.model_fields) == set(ScheduledChange._fields)
    assert set(responses.ReceiptWarning.model_fields) == set(ReceiptWarning._fields)
    assert set(responses.Event.model_fields) == set(Leaf.__struct_fields__)
    assert set(responses.EventData.model_fields) == set(LeafData.__struct_fields__)


def test_the_document_holds_together(story: TestClient) -> None:
    document = get(story, "/openapi.json")
    assert document["openapi"].startswith("3.1")
    defined = document["components"]["schemas"]
    references = set(_references(document))
    assert references
    assert {reference.removeprefix("#/components/schemas/") for reference in references} <= set(defined)
    for path, item in document["paths"].items():
        for method, operation in item.items():
            where = f"{method} {path}"
            assert operation["summary"], where
            assert operation["operationId"], where
            named = {parameter["name"] for parameter in operation.get("parameters", ()) if parameter["in"] == "path"}
            assert named == {part[1:-1] for part in path.split("/") if part.startswith("{")}, where
            for status, answer in operation["responses"].items():
                if status == "204":
                    assert "content" not in answer, where
                    continue
                problems = int(status) >= 400
                (media_type,) = answer["content"]
                assert (media_type == "application/problem+json") == problems, (where, status)
            assert "500" in operation["responses"], where
            if "requestBody" in operation:
                assert {"400", "408", "413", "415", "422"} <= set(operation["responses"]), where
    ids = [operation["operationId"] for item in document["paths"].values() for operation in item.values()]
    assert len(ids) == len(set(ids))


REFUSED = {400, 409, 422}


def test_every_documented_bound_of_a_parameter_is_the_servers_bound(story: TestClient) -> None:
    """Within the bounds of its schema a value is read (the answer may be any but a refusal), and beyond it is not."""
    document = get(story, "/openapi.json")
    tried = 0
    for path, item in document["paths"].items():
        required = [
            one for one in item.get("get", {}).get("parameters", ()) if one["in"] == "query" and one["required"]
        ]
        more = "".join(f"&{one['name']}={one['example']}" for one in required)
        url = path.format(subject="org:acme", event_id="none", audit_id="none", code="not_found", path="0/000")
        for parameter in item.get("get", {}).get("parameters", ()):
            if parameter["in"] != "query" or path.endswith("/stream") or parameter["name"] == "at_least":
                continue
            for text, fits in _boundary_values(parameter["schema"]):
                answer = story.get(f"{url}?{parameter['name']}={text}{more}")
                # A feed position beyond the head is within the bounds of a position, and refused for another reason.
                refused = answer.status_code in REFUSED and answer.json()["code"] == "bad_parameter"
                assert refused != fits, (path, parameter["name"], text[:40], answer.text)
                tried += 1
    assert tried > 40


def _boundary_values(schema: dict[str, Any]) -> Iterator[tuple[str, bool]]:
    """(text, whether the schema allows it), at each bound and one beyond it."""
    if schema.get("type") == "integer":
        assert {"minimum", "maximum"} <= set(schema), schema
        low, high = schema["minimum"], schema["maximum"]
        yield from ((str(low), True), (str(high), True), (str(low - 1), False), (str(high + 1), False))
    elif "maxLength" in schema:
        yield from (("a" * schema["minLength"], True), ("a" * schema["maxLength"], True))
        yield from (("a" * (schema["minLength"] - 1), False), ("a" * (schema["maxLength"] + 1), False))
    elif "pattern" in schema:
        yield "spaces and = are in no pattern", False
    elif "enum" in schema:
        yield from ((text, True) for text in schema["enum"])
        yield "nothing", False
    elif "items" in schema:
        yield "spaces and = are in no pattern", False


@pytest.mark.parametrize("missing", [{}, {"key_id": None, "account_id": None}, {"model_id": "m"}])
def test_a_record_without_any_of_the_four_ids_does_not_fit_the_document(story: TestClient, missing: Any) -> None:
    schema = get(story, "/openapi.json")["components"]["schemas"]["RequestRecord"]
    assert [rule["required"] for rule in schema["anyOf"]] == [["key_id"], ["account_id"], ["org_id"], ["project_id"]]
    rule = Draft202012Validator({"anyOf": schema["anyOf"]})
    assert not rule.is_valid(missing)
    assert rule.is_valid(missing | {"project_id": "p"})
    assert story.post("/v1/checks", json=missing).status_code == 422


def _references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for key, inner in value.items():
            if key == "$ref":
                yield inner
            else:
                yield from _references(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _references(inner)


def test_an_application_over_no_ledger_does_not_start(tmp_path: Path) -> None:
    file = tmp_path / "notes.txt"
    file.write_text("no ledger at all, but some text that is longer than a header of SQLite would be" * 3)
    app = create_app(f"sqlite:///{file}", sign_in=False)
    with pytest.raises(Exception, match="not a SQLite file"), TestClient(app):
        pass
    assert file.read_text().startswith("no ledger")


def test_nothing_is_served_under_another_name(tmp_path: Path) -> None:
    app = create_app(f"sqlite:///{tmp_path}/ledger.db", hosts={"localhost"}, sign_in=False)
    with TestClient(app, base_url="http://localhost:8000") as client:
        assert client.get("/healthz").status_code == 200
        assert client.get("/healthz", headers={"Host": "LOCALHOST"}).status_code == 200
        problem(client.get("/healthz", headers={"Host": "evil.example"}), "host_not_served")
