"""GET /readyz: how far the timelines may be behind, and how little room a disk may have."""

import shutil
import time
from collections import namedtuple
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from api.app import create_app
from api.audits.service import AuditSettings
from api.readiness import Disk, LedgerFigures, ReadyBounds, disks, low_disk
from api.service import Service
from tests.api.client import changed, problem, submit
from tests.support.waiting import GIVE_UP_S

Usage = namedtuple("Usage", ("total", "used", "free"))


@pytest.fixture
def bounds() -> ReadyBounds:
    return ReadyBounds(lag_max=2)


@pytest.fixture
def client(database_url: str, bounds: ReadyBounds, tmp_path: Path) -> Iterator[TestClient]:
    audits = AuditSettings(folder=tmp_path / "audits")
    service = Service.open(database_url, ready_bounds=bounds, audits=audits)
    with closing(service), TestClient(create_app(service, sign_in=False)) as client:
        # Brings the timelines up to the built-in catalog.
        client.get("/v1/catalog")
        yield client


def test_a_server_is_ready_up_to_the_allowed_lag_and_catches_up_by_itself_beyond_it(client: TestClient) -> None:
    for lag in (1, 2):
        submit(client, changed("org:acme", "training.opt_in", True))
        ready = client.get("/readyz")
        assert (ready.status_code, ready.json()["lag"]) == (200, lag)
    submit(client, changed("org:acme", "training.opt_in", False))
    behind = problem(client.get("/readyz"), "timelines_behind")
    assert (behind["lag"], behind["lag_max"]) == (3, 2)
    until = time.monotonic() + GIVE_UP_S
    while (ready := client.get("/readyz")).status_code == 503:
        assert time.monotonic() < until
        time.sleep(0.01)
    assert ready.json()["lag"] == 0


def test_lag_is_never_negative() -> None:
    assert LedgerFigures(5, None, 7).lag == 0


@pytest.mark.parametrize(("free", "is_ready"), [(256 * 1024**2, True), (256 * 1024**2 - 1, False)])
def test_a_server_is_not_ready_on_a_disk_with_less_room_than_it_needs(
    free: int, is_ready: bool, client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    total = 2560 * 1024**2
    monkeypatch.setattr(shutil, "disk_usage", lambda _folder: Usage(total, total - free, free))
    answer = client.get("/readyz")
    if is_ready:
        assert answer.status_code == 200
        return
    low = problem(answer, "disk_low")
    assert (low["free_bytes"], low["free_bytes_min"]) == (free, 256 * 1024**2)
    assert low["place"] in ("ledger", "audits")
    # It still records, as long as there is room.
    submit(client, changed("org:acme", "training.opt_in", True))


def test_of_a_small_disk_a_tenth_must_be_free_and_without_a_bound_nothing() -> None:
    small = Disk("ledger", 99, 1000)
    assert low_disk([Disk("audits", 100, 1000), small], 256) == small
    assert low_disk([small], 99) is None
    assert low_disk([Disk("ledger", 0, 1000)], 0) is None


def test_the_disk_of_a_ledger_that_is_only_read_does_not_matter(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/ledger.db"
    with closing(Service.open(url)) as service:
        assert [disk.place for disk in service.disks()] == ["ledger", "audits"]
    with closing(Service.open(f"{url}?mode=ro", must_exist=True)) as service:
        assert [disk.place for disk in service.disks()] == ["audits"]


def test_a_folder_that_does_not_exist_yet_lies_on_the_disk_of_the_nearest_that_does(tmp_path: Path) -> None:
    nearest = disks(None, tmp_path / "no" / "such" / "folder")
    assert [(disk.place, disk.total) for disk in nearest] == [("audits", shutil.disk_usage(tmp_path).total)]
