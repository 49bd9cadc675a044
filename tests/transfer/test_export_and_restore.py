"""An export is restored byte for byte, on either database, plain or compressed."""

import gzip
import io
import os
from pathlib import Path
from typing import Any

import pytest

from ledger.clock import ManualClock
from ledger.codec import parse_leaf
from ledger.errors import BadInput
from ledger.opening import open_ledger
from ledger.store import Ledger
from ledger.times import format_time
from ledger.transfer import import_ledger as importing
from ledger.transfer.export import export_lines, export_personal
from ledger.transfer.import_ledger import ImportSummary, import_ledger
from tests.support.ledgers import NOW, ORIGIN, change, open_with_clock, submit
from tests.support.transfers import entries, import_lines

# Export


def test_an_export_is_the_exact_bytes_of_every_leaf(original: Ledger, exported: bytes) -> None:
    assert exported.endswith(b"\n")
    assert exported.split(b"\n")[:-1] == [entry.leaf for entry in original.page(0)]


def test_a_part_can_be_exported(original: Ledger) -> None:
    lines = list(export_lines(original, after=3, until=5))
    assert [parse_leaf(line).data.position for line in lines] == [4, 5]


def test_an_export_ends_where_the_head_was_when_it_began(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importing, "BATCH", 5)
    ledger, _ = open_with_clock(f"sqlite:///{tmp_path}/ledger.db")
    with ledger:
        head = ledger.head().position
        lines = export_lines(ledger)
        got = [next(lines)]
        submit(ledger, change())
        got += lines
    assert len(got) == head


# Restoring events


@pytest.mark.parametrize("batch", [1, 7, 10_000])
def test_an_export_is_restored_byte_for_byte(
    database_url: str, original: Ledger, exported: bytes, personal: bytes, batch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importing, "BATCH", batch)
    summary = import_lines(database_url, exported, personal=io.BytesIO(personal))
    assert entries(database_url) == original.page(0)
    with open_ledger(database_url) as restored:
        assert restored.origin == ORIGIN
        assert restored.reasons(range(100)) == original.reasons(range(100))
        assert b"".join(export_lines(restored)) == exported
        assert b"".join(export_personal(restored)) == personal
    assert summary == ImportSummary(
        source="events",
        origin=ORIGIN,
        events=original.head().position,
        submissions=len({entry.recorded_at for entry in original.page(0)}),
        first=NOW,
        last=original.head().recorded_at or 0,
        personal=3,
    )


def test_from_sqlite_to_postgresql_and_back_nothing_changes(
    postgres_url: str, tmp_path: Path, original: Ledger, exported: bytes, personal: bytes
) -> None:
    back = f"sqlite:///{tmp_path}/back.db"
    import_lines(postgres_url, exported, personal=io.BytesIO(personal))
    with open_ledger(postgres_url) as between:
        lines, rows = b"".join(export_lines(between)), b"".join(export_personal(between))
    import_lines(back, lines, personal=io.BytesIO(rows))
    assert entries(back) == entries(postgres_url) == original.page(0)
    assert (lines, rows) == (exported, personal)


def test_a_restored_ledger_continues_from_its_head(database_url: str, original: Ledger, exported: bytes) -> None:
    import_lines(database_url, exported)
    with open_ledger(database_url, create=True, clock=ManualClock(NOW - 5 * 10**7)) as restored:
        (receipt,) = submit(restored, change())
        head = original.head()
        assert head.recorded_at is not None
        assert (receipt.position, receipt.recorded_at) == (head.position + 1, head.recorded_at + 1)
        assert receipt.version == len(original.stream("org:acme")) + 1


def test_without_the_personal_data_the_events_are_the_same_and_their_reasons_are_gone(
    database_url: str, original: Ledger, exported: bytes
) -> None:
    assert import_lines(database_url, exported).personal == 0
    assert entries(database_url) == original.page(0)
    with open_ledger(database_url) as restored:
        assert restored.reasons(range(100)) == {}


@pytest.mark.parametrize(
    "disguise",
    [
        gzip.compress,
        lambda lines: gzip.compress(lines[:50]) + gzip.compress(lines[50:]),
        lambda lines: lines.replace(b"\n", b"\r\n"),
        lambda lines: b"\n  \n" + lines.replace(b"\n", b"\n\n\t\r\n"),
        lambda lines: lines.removesuffix(b"\n"),
    ],
    ids=["gzip", "two gzip members", "CRLF", "blank lines", "no last newline"],
)
def test_gzip_crlf_and_blank_lines_make_no_difference(
    tmp_path: Path, original: Ledger, exported: bytes, disguise: Any
) -> None:
    url = f"sqlite:///{tmp_path}/ledger.db"
    import_lines(url, disguise(exported))
    assert entries(url) == original.page(0)


def test_a_pipe_can_be_imported(tmp_path: Path, original: Ledger, exported: bytes) -> None:
    url = f"sqlite:///{tmp_path}/ledger.db"
    read, write = os.pipe()
    os.write(write, gzip.compress(exported))
    os.close(write)
    with os.fdopen(read, "rb", 0) as stream:
        import_ledger(url, stream, clock=ManualClock(NOW))
        assert not stream.closed
    assert entries(url) == original.page(0)


def test_progress_counts_events_and_the_bytes_of_the_file(
    tmp_path: Path, exported: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importing, "BATCH", 10)
    calls: list[tuple[int, int]] = []
    zipped = gzip.compress(exported)
    summary = import_lines(
        f"sqlite:///{tmp_path}/ledger.db", zipped, progress=lambda *arguments: calls.append(arguments)
    )
    assert [events for events, _ in calls] == [*range(10, summary.events, 10), summary.events]
    assert calls[-1][1] == len(zipped)


def test_the_origin_of_exported_events_is_kept(tmp_path: Path, exported: bytes) -> None:
    url = f"sqlite:///{tmp_path}/ledger.db"
    with pytest.raises(BadInput, match="keep the origin"):
        import_lines(url, exported, origin="other.example")
    assert import_lines(url, exported, origin=ORIGIN).origin == ORIGIN


def test_personal_data_of_only_some_events_is_accepted(tmp_path: Path, exported: bytes, personal: bytes) -> None:
    url = f"sqlite:///{tmp_path}/ledger.db"
    some = b"".join(personal.splitlines(keepends=True)[1:])
    assert import_lines(url, exported, personal=io.BytesIO(gzip.compress(some))).personal == 2


@pytest.mark.parametrize("ahead_us", [-1, 0, 1])
def test_an_import_of_events_that_lie_ahead_of_the_clock_warns(
    database_url: str, exported: bytes, original: Ledger, ahead_us: int
) -> None:
    last = original.head().recorded_at
    assert last is not None
    lines: list[str] = []
    clock = ManualClock(last - ahead_us)
    import_ledger(database_url, io.BytesIO(exported), clock=clock, announce=lines.append)
    assert lines[0].startswith("began a new ledger ")
    assert (len(lines) > 1) is (ahead_us > 0)
    if ahead_us > 0:
        assert format_time(last) in lines[1]
        assert format_time(clock.now()) in lines[1]
        assert "inforce doctor clock" in lines[1]
