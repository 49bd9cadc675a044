"""Audits over HTTP decide every request of a log as all other paths do."""

import hashlib
import json
import subprocess
import sys
from contextlib import chdir
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient

from api.app import create_app
from api.audits.folder import FINDINGS, LOG, REJECTS
from api.audits.jobs import Job
from api.audits.paged_lines import read_page
from api.audits.service import AuditSettings
from api.audits.worker_process import outcome_of
from api.schemas.audits import Audit, AuditList, FindingPage, RejectPage
from api.service import Service
from ledger.times import format_time
from projections.audit.counting import against
from projections.audit.reference import decide_slowly
from projections.audit.schemas import OBSERVED
from projections.audit.verdict_files import VerdictWriter
from projections.query.query import PinnedQuery
from tests.api.audits.logs import NDJSON, ended, line, log, read_pages, send
from tests.api.client import changed, get, head, problem, submit
from tests.audit.strategies import batch_of, grown, histories, instants, known_ats, rows


def test_a_log_is_audited(client: TestClient) -> None:
    submit(client, changed("org:acme", "training.opt_in", True))
    submit(client, changed("org:acme", "storage.inputs_outputs", False))
    position = head(client)
    audit = send(client, log(1000) + b"nonsense\n")
    assert audit["state"] == "queued"
    # The audit is pinned already, so this change must not count.
    submit(client, changed("org:acme", "storage.inputs_outputs", True))
    audit = ended(client, audit["id"])
    Audit.model_validate_json(json.dumps(audit))
    assert (audit["state"], audit["error"], audit["pin"]["position"]) == ("done", None, position)
    assert audit["progress"] == {"rows": 1001, "bytes_read": audit["log"]["bytes"]}
    summary = audit["summary"]
    assert summary["verdicts"] == {"violation": 500, "compliant": 500}
    assert summary["subjects"] == [{"subject": "org:acme", "verdicts": {"violation": 500, "compliant": 500}}]
    findings = read_pages(client, audit["id"], "findings", 300)
    assert [finding["line"] for finding in findings] == list(range(1, 1001, 2))
    assert {tuple(finding["deciding_positions"]) for finding in findings} == {(position - 1, position)}
    assert audit["findings"] == 500
    (reject,) = read_pages(client, audit["id"], "rejects", 1)
    assert (summary["rejects"], reject["line"]) == (1, 1001)
    FindingPage.model_validate_json(client.get(f"/v1/audits/{audit['id']}/findings").text)
    RejectPage.model_validate_json(client.get(f"/v1/audits/{audit['id']}/rejects").text)
    AuditList.model_validate_json(client.get("/v1/audits").text)
    assert get(client, "/v1/audits")["audits"] == [audit]


def test_a_deleted_audit_is_not_found(sqlite_client: TestClient, tmp_path: Path) -> None:
    audit = ended(sqlite_client, send(sqlite_client, log(10))["id"])
    assert sqlite_client.delete(f"/v1/audits/{audit['id']}").status_code == 204
    for ask in (sqlite_client.get, sqlite_client.delete):
        problem(ask(f"/v1/audits/{audit['id']}"), "audit_not_found")
    problem(sqlite_client.get(f"/v1/audits/{audit['id']}/findings"), "audit_not_found")
    assert get(sqlite_client, "/v1/audits") == {"audits": []}


def test_the_log_is_deleted_once_it_is_audited(sqlite_client: TestClient, tmp_path: Path) -> None:
    audit = ended(sqlite_client, send(sqlite_client, log(10))["id"])
    there = {file.name for file in (tmp_path / "ledger.db.audits" / audit["id"]).iterdir()}
    assert (LOG in there, FINDINGS in there) == (False, True)


def test_columns_are_read_as_the_parameters_map_them(sqlite_client: TestClient) -> None:
    submit(sqlite_client, changed("org:acme", "storage.inputs_outputs", False))
    body = b"when,who,kept\n2100-01-01 01:00:00,acme,true\n2100-01-01 01:00:00,acme,false\n"
    query = "?map=at=when&map=org_id=who&map=handling.stored=kept&timezone=Europe/Berlin&set=request_id=same"
    audit = ended(sqlite_client, send(sqlite_client, body, query)["id"])
    assert audit["reading"] == {
        "map": {"at": "when", "org_id": "who", "handling.stored": "kept"},
        "set": {"request_id": "same"},
        "timezone": "Europe/Berlin",
        "time_unit": None,
        "time_format": None,
        "true": [],
        "false": [],
        "neither": [],
        "aliases": None,
        "happened": False,
        "log_format": None,
        "max_row_bytes": 64 << 20,
        "delimiter": None,
        "rows": None,
        "sheet": None,
    }
    (finding,) = read_pages(sqlite_client, audit["id"], "findings", 10)
    assert (finding["at"], finding["request_id"], finding["line"]) == ("2100-01-01T00:00:00.000000Z", "same", 2)


def test_values_are_read_in_the_forms_that_the_parameters_name(sqlite_client: TestClient) -> None:
    submit(sqlite_client, changed("org:acme", "storage.inputs_outputs", False))
    body = b"at,org_id,handling.stored\n"
    body += b"".join(b"01.01.2100 01:00,Acme Inc,%s\n" % flag for flag in (b"Y", b"N", b"None"))
    forms = {
        "time_format": "%d.%m.%Y %H:%M",
        "timezone": "Europe/Berlin",
        "true": "Y,yes",
        "false": "N",
        "neither": "None",
        "alias": "org,Acme Inc,acme",
    }
    audit = ended(sqlite_client, send(sqlite_client, body, f"?{urlencode(forms)}")["id"])
    reading = audit["reading"]
    assert (reading["time_format"], reading["true"], reading["neither"]) == (
        forms["time_format"],
        ["Y", "yes"],
        ["None"],
    )
    assert reading["aliases"]["count"] == 1
    assert audit["summary"]["verdicts"] == {"violation": 1, "compliant": 1, "allowed": 1}
    (finding,) = read_pages(sqlite_client, audit["id"], "findings", 10)
    assert (finding["at"], finding["governed_by"]) == ("2100-01-01T00:00:00.000000Z", "org:acme")
    numbers = b'{"at":4102444800000,"org_id":"acme","handling":{"stored":true}}\n'
    audit = ended(sqlite_client, send(sqlite_client, numbers, "?time_unit=ms")["id"])
    assert audit["summary"]["first_at"] == "2100-01-01T00:00:00.000000Z"


def test_an_audit_of_which_no_row_could_be_read_has_failed(sqlite_client: TestClient) -> None:
    body = b'{"at":"yesterday","org_id":"acme"}\n{"at":"today","org_id":"acme"}\n'
    audit = ended(sqlite_client, send(sqlite_client, body)["id"])
    assert (audit["state"], audit["summary"], audit["error"]["code"]) == ("failed", None, "bad_record")
    assert audit["error"]["detail"].startswith("none of the 2 rows could be read, the first: line 1: ")
    assert "yesterday" not in audit["error"]["detail"]


def test_rows_without_observations_are_questions_or_requests_that_happened(sqlite_client: TestClient) -> None:
    submit(sqlite_client, changed("model:m", "model.hosting", "passthrough"))
    body = b'{"at":"2100-01-01T00:00:00Z","org_id":"acme","model_id":"m"}\n'
    for query, happened, verdict in (("", False, "denied"), ("?happened=true", True, "violation")):
        audit = ended(sqlite_client, send(sqlite_client, body, query)["id"])
        summary = audit["summary"]
        assert (summary["observed"], summary["happened"], summary["verdicts"]) == (False, happened, {verdict: 1})
        assert audit["reading"]["happened"] is happened


def test_an_audit_warns_of_a_log_without_rows_and_of_requests_before_the_ledger_began(
    sqlite_client: TestClient,
) -> None:
    submit(sqlite_client, changed("org:acme", "training.opt_in", True))
    for body, warnings in (
        (b"at,org_id\n", ["the log has no rows, so nothing was audited; check that it is the right log"]),
        (b"[]", ["the log has no rows, so nothing was audited; check that it is the right log"]),
        (log(2), []),
    ):
        assert ended(sqlite_client, send(sqlite_client, body)["id"])["warnings"] == warnings, body
    early = b'{"at":"1999-01-01T00:00:00Z","org_id":"acme"}\n' + line(0)
    (warning,) = ended(sqlite_client, send(sqlite_client, early)["id"])["warnings"]
    first = get(sqlite_client, "/v1/events?limit=1")["events"][0]["time"]
    assert warning.startswith(f"1 of 2 requests were made before the ledger's first event, of {first}: ")


def test_too_many_rejects_fail_the_audit(sqlite_client: TestClient) -> None:
    audit = ended(
        sqlite_client, send(sqlite_client, b"nonsense\n" * 3 + line(0), "?log_format=jsonl&max_rejects=2")["id"]
    )
    assert (audit["state"], audit["error"]["code"], audit["summary"]) == ("failed", "bad_record", None)
    assert "nonsense" not in audit["error"]["detail"]
    problem(sqlite_client.get(f"/v1/audits/{audit['id']}/findings"), "audit_not_done")


def test_a_queued_audit_has_no_findings_yet(sqlite_client: TestClient) -> None:
    first, second = send(sqlite_client, log(10)), send(sqlite_client, log(10))
    answer = sqlite_client.get(f"/v1/audits/{second['id']}/findings")
    assert problem(answer, "audit_not_done")["detail"].startswith("the audit is queued")
    assert answer.headers["retry-after"] == "1"
    assert ended(sqlite_client, second["id"])["state"] == ended(sqlite_client, first["id"])["state"] == "done"


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("?map=at", "bad_parameter"),
        ("?map=nothing=x", "bad_parameter"),
        ("?map=at=x&map=at=y", "bad_parameter"),
        ("?set=at=yesterday", "bad_parameter"),
        ("?timezone=Mars/Olympus", "bad_parameter"),
        ("?log_format=parquet", "bad_parameter"),
        ("?time_unit=days", "bad_parameter"),
        ("?time_format=%25H:%25M", "bad_parameter"),
        ("?time_unit=s&time_format=%25Y-%25m-%25d%20%25H", "bad_parameter"),
        ("?true=Y&false=y", "bad_parameter"),
        ("?true=0", "bad_parameter"),
        ("?alias=org,Acme", "bad_parameter"),
        ("?alias=team,Acme,acme", "bad_parameter"),
        ("?alias=org,Acme,a&alias=org,Acme,b", "bad_parameter"),
        ("?max_rejects=-1", "bad_parameter"),
        ("?known_at=now", "bad_time"),
        ("?what=else", "bad_parameter"),
    ],
)
def test_invalid_parameters_are_refused_before_the_log_is_read(
    shared_client: TestClient, query: str, code: str
) -> None:
    refusal = problem(shared_client.post(f"/v1/audits{query}", content=log(1), headers=NDJSON), code)
    names = {part.partition("=")[0] for part in query[1:].split("&")}
    assert set(refusal["detail"].partition(":")[0].replace(" or ", ", ").split(", ")) & names or "what" in names
    assert get(shared_client, "/v1/audits") == {"audits": []}


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Type": "text/plain"},
        {"Content-Type": "multipart/form-data; boundary=x"},
        {"Content-Type": "application/x-www-form-urlencoded"},
        {},
        NDJSON | {"Content-Encoding": "gzip"},
    ],
)
def test_media_types_that_a_web_page_may_send_without_preflight_are_refused(
    shared_client: TestClient, headers: dict[str, str]
) -> None:
    answer = shared_client.post("/v1/audits", content=log(1), headers=headers)
    problem(answer, "unsupported_media_type")
    assert "text/csv" in answer.headers["accept"]
    assert get(shared_client, "/v1/audits") == {"audits": []}


def test_the_document_has_an_example_of_every_response(shared_client: TestClient) -> None:
    paths = get(shared_client, "/openapi.json")["paths"]
    for path, item in paths.items():
        for method, operation in item.items():
            status = next(status for status in operation["responses"] if status.startswith("2"))
            if path.startswith("/v1/audits") and status != "204":
                assert operation["responses"][status]["content"]["application/json"]["examples"], (method, path)


@pytest.mark.parametrize("ask", ["", "/findings", "/rejects"])
def test_an_unknown_audit_is_not_found(shared_client: TestClient, ask: str) -> None:
    problem(shared_client.get(f"/v1/audits/{'0' * 32}{ask}"), "audit_not_found")


def test_results_expire_in_their_microsecond(tmp_path: Path) -> None:
    service = Service.open(f"sqlite:///{tmp_path}/ledger.db", audits=AuditSettings(keep_hours=1))
    try:
        with TestClient(create_app(service, sign_in=False)) as client:
            audit = ended(client, send(client, log(3))["id"])
            finished = service.audits.status(audit["id"]).outcome
            assert finished is not None
            end = finished.finished_at + timedelta(hours=1) // timedelta(microseconds=1)
            assert audit["expires_at"] == format_time(end)
            for now, status in ((end - 1, 200), (end, 404), (end + 1, 404)):
                service.ledger.clock = Stopped(now)
                assert client.get(f"/v1/audits/{audit['id']}").status_code == status
                assert client.get(f"/v1/audits/{audit['id']}/findings").status_code == status
    finally:
        service.close()


class Stopped:
    """A clock that stands still."""

    def __init__(self, now_us: int) -> None:
        self.now_us = now_us

    def now(self) -> int:
        return self.now_us


def test_a_ledger_without_a_url_is_not_audited(tmp_path: Path) -> None:
    service = Service.open(f"sqlite:///{tmp_path}/ledger.db")
    other = Service.open(service.ledger)
    try:
        with TestClient(create_app(other, sign_in=False)) as client:
            problem(client.post("/v1/audits", content=log(1), headers=NDJSON), "audits_unavailable")
    finally:
        other.close()
        service.close()


def test_serving_needs_no_bulk_engine(tmp_path: Path) -> None:
    script = (
        "import sys; from api.app import create_app; import api.server; create_app('sqlite:///x', sign_in=False);"
        "print([name for name in ('numpy', 'pyarrow', 'numba') if name in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ran.stdout == "[]\n"


@settings(max_examples=20, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(data=st.data())
def test_an_audit_decides_each_request_as_a_single_check_does(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with grown(data.draw(histories())) as bench:
        times = instants(bench)
        records = data.draw(st.lists(rows(bench.ledger.head().position), min_size=1, max_size=30))
        for row in records:
            row["at"] = data.draw(st.sampled_from(times))
        known_at = data.draw(known_ats(times))
        query = PinnedQuery(bench.query)
        folder = tmp_path_factory.mktemp("audit")
        body = b"".join(as_line(row) for row in records)
        (folder / LOG).write_bytes(body)
        with chdir(folder):
            outcome = outcome_of(bench.ledger, folder, job_of(query, known_at, body))
        batch = decide_slowly(query, batch_of(records), known_at)
        finding_rows = against(batch)
        expected = CollectedBytes()
        writer = VerdictWriter(expected, "ndjson")
        writer.take(LOG, finding_rows + 1, batch.take(finding_rows))
        writer.finish({})
        assert (outcome.error, outcome.findings, outcome.rejects) == (None, len(finding_rows), 0)
        assert read_page(folder / FINDINGS, 0, 1000, 2**30) == expected.data.splitlines()
        assert read_page(folder / REJECTS, 0, 1000, 2**30) == []
        assert outcome.summary is not None
        assert sum(outcome.summary["verdicts"].values()) == len(records)


class CollectedBytes:
    def __init__(self) -> None:
        self.data = b""

    def write(self, data: bytes | memoryview, /) -> int:
        self.data += bytes(data)
        return len(data)


def job_of(query: PinnedQuery, known_at: Any, body: bytes, max_rejects: int | None = 0) -> Job:
    return Job(
        id="0" * 32,
        created_at=0,
        map={},
        set={},
        timezone=None,
        log_format="jsonl",
        known_at=known_at,
        max_rejects=max_rejects,
        **query.pinned._asdict(),
        bytes=len(body),
        sha256=hashlib.sha256(body).hexdigest(),
    )


def as_line(row: dict[str, Any]) -> bytes:
    """The row as a line of a log."""
    record = {name: value for name, value in row.items() if name not in OBSERVED and value is not None}
    handling = {name: row[name] for name in OBSERVED if row.get(name) is not None}
    if handling:
        record["handling"] = handling
    return json.dumps(record | {"at": format_time(row["at"])}).encode() + b"\n"
