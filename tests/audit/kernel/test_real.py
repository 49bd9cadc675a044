"""The compiled reader and the kernel equal the slow ways for real logs and a real history of settings.

The logs are short, so an audit of them alone would be read strictly and decided without compiled code.
"""

import gzip
import hashlib
import io
import json
from collections.abc import Callable, Iterator
from datetime import UTC
from pathlib import Path
from random import Random
from typing import Any

import pyarrow as pa
import pytest

from ledger.opening import open_ledger
from ledger.store import Ledger
from ledger.times import format_time, parse_time
from ledger.transfer.import_ledger import import_ledger
from projections.audit.index.compile import compile_index
from projections.audit.index.reference import compile_by_fold
from projections.audit.kernel.batch_decider import RowByRow
from projections.audit.kernel.kernel import Kernel
from projections.audit.reading import text_logs
from projections.audit.reading.blocks import HashingStream, LineBlocks
from projections.audit.reading.fields import ColumnMapping
from projections.audit.reading.strict import RowParser
from projections.audit.reference import decide_slowly
from projections.audit.schemas import REQUESTS
from projections.query.query import PinnedQuery, Query
from projections.temporal.coordinates import IN_FORCE, KnownAt
from tests.audit.index.canonical import canonical
from tests.audit.io.reading import read_fast, read_strictly
from tests.query.test_settings_history import EVENTS, read, subject_of

AIDER = "requests/aider-requests.jsonl.gz"
AZURE = "requests/azure-llm-conv-2023.csv.gz"
SHAPES = {
    AIDER: ColumnMapping(
        {"request_id": "id", "account_id": "user", "model_id": "model"},
        {"handling.trained": "true", "handling.region": "us", "handling.forwarded_to": "Orbital"},
    ),
    AZURE: ColumnMapping(
        {"at": "TIMESTAMP"}, {"org_id": "acme", "handling.cached": "1", "enforced_position": "40"}, UTC
    ),
}
ROWS = {AIDER: 5563, AZURE: 19366}
SWITCHES = ("training.opt_in", "storage.inputs_outputs", "caching.temporary")
OF_ORGS = (*SWITCHES, "passthrough.allowed", "network.private_only")
AXES: list[KnownAt] = [IN_FORCE, None, parse_time("2024-12-01T00:00:00Z")]


@pytest.fixture(autouse=True)
def many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("projections.audit.numba_support.FEW", 0)


@pytest.fixture(params=[AIDER, AZURE])
def log(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.mark.parametrize("block_bytes", [50_000, 1 << 23])
def test_the_compiled_reader_reads_each_real_log_as_line_by_line(
    log: str, block_bytes: int, real_data: Callable[[str], Path]
) -> None:
    body = gzip.decompress(real_data(log).read_bytes())
    rows = read_fast(body, SHAPES[log], block_bytes)
    assert len(rows[0]) == ROWS[log]
    assert not any(fault for _, _, fault in rows[0])
    assert rows == read_strictly(body, SHAPES[log])


@pytest.mark.parametrize("known_at", AXES, ids=["in force", "now", "at an instant"])
def test_the_kernel_equals_check_for_each_real_log(
    log: str, known_at: KnownAt, real_data: Callable[[str], Path], tmp_path: Path
) -> None:
    body = gzip.decompress(real_data(log).read_bytes())
    blocks = LineBlocks(HashingStream(io.BytesIO(body), hashlib.sha256()), log, 1 << 23)
    parts = list(text_logs.read_batches(blocks, RowParser(log, SHAPES[log]), 0))
    batch = pa.Table.from_batches([part.requests for part in parts]).combine_chunks().to_batches()[0]
    instants = batch.column("at").cast(pa.int64()).to_pylist()
    users, models = (set(batch.column(name).to_pylist()) - {None} for name in ("account_id", "model_id"))
    with _imported(tmp_path, _said_of_log(instants, sorted(users), sorted(models))) as ledger:
        verdicts = _alike(ledger, batch, known_at)
    assert len(set(verdicts)) > 1


@pytest.mark.parametrize("known_at", AXES[:2], ids=["in force", "now"])
def test_the_kernel_equals_check_at_the_changes_of_a_real_history(
    known_at: KnownAt, real_data: Callable[[str], Path], tmp_path: Path
) -> None:
    events = read(real_data(EVENTS))
    with _imported(tmp_path, _said_by_history(events)) as ledger:
        rows = [
            {"at": parse_time(event["at"]) + by, "org_id": subject_of(event["scope"])[4:], deed: True, "region": "eu"}
            for event in events[::5]
            for by in (-1, 0, 1)
            for deed in ("stored", "trained")
        ]
        verdicts = _alike(ledger, pa.RecordBatch.from_pylist(rows, schema=REQUESTS), known_at)
    assert {"violation", "compliant"} <= set(verdicts)


def _alike(ledger: Ledger, batch: pa.RecordBatch, known_at: KnownAt) -> list[str]:
    index = compile_index(ledger, known_at)
    assert canonical(index) == canonical(compile_by_fold(ledger, known_at))
    expected = decide_slowly(PinnedQuery(Query(ledger)), batch, known_at)
    assert Kernel(index).decide(batch).verdicts.equals(expected)
    assert RowByRow(index).decide(batch).verdicts.equals(expected)
    verdicts: list[str] = expected.column("verdict").to_pylist()
    return verdicts


def _imported(folder: Path, lines: Iterator[dict[str, Any]]) -> Ledger:
    url = f"sqlite:///{folder}/ledger.db"
    import_ledger(url, io.BytesIO(b"".join(json.dumps(line).encode() + b"\n" for line in lines)))
    return open_ledger(url)


def _said_of_log(instants: list[int], users: list[str], models: list[str]) -> Iterator[dict[str, Any]]:
    """Changes at the exact moments of requests, about their accounts and models."""
    chance = Random(9)
    for at in sorted(chance.sample(instants, 1500)):
        value: bool | str = chance.random() < 0.5
        subject, setting = f"org:{chance.choice(('acme', 'beta'))}", chance.choice(OF_ORGS)
        match chance.randrange(4 if users else 1):
            case 1:
                subject, setting = f"account:{chance.choice(users)}", chance.choice(SWITCHES)
            case 2:
                subject, setting = f"account:{chance.choice(users)}", "attached_to"
                value = f"org:{chance.choice(('acme', 'beta'))}"
            case 3:
                subject, setting = f"model:{chance.choice(models)}", "model.hosting"
                value = chance.choice(("hosted", "passthrough"))
        yield {
            "type": "setting.changed",
            "subject": subject,
            "setting": setting,
            "value": value,
            "recorded_at": format_time(at),
        }


def _said_by_history(events: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The real changes with their times and subjects; each of their settings becomes one of ours."""
    for event in events:
        setting = OF_ORGS[sum(event["setting"].encode()) % len(OF_ORGS)]
        change = {"subject": subject_of(event["scope"]), "setting": setting, "recorded_at": event["at"]}
        if event["op"] == "set":
            yield {"type": "setting.changed", "value": event["value"] == "enabled", **change}
        else:
            yield {"type": "setting.cleared", **change}
