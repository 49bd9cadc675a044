"""The log as static files: any reader of tiled logs verifies them from outside, and an export that was cut off goes on.

One outside reader is below: it has the files, the verifier key and this test's own hashing. Another is aics-tlog, a
package of other authors, which is not made for Python 3.11: set INFORCE_TLOG_PYTHON to a Python that has it.
"""

from __future__ import annotations

import base64
import importlib.util
import os
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from ledger.clock import ManualClock
from ledger.errors import BadInput, LedgerUnavailable
from ledger.opening import open_ledger
from ledger.store import Ledger
from ledger.transparency import static_export as module
from ledger.transparency.published_log import PublishedLog
from ledger.transparency.static_export import export_log
from ledger.transparency.tiles import tiles_of
from tests.support import reference_tree
from tests.support.ledgers import GENESIS, NOW, ORIGIN
from tests.support.log_ledger import KEY, grow, integrator_of


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    url = f"sqlite:///{tmp_path}/ledger.db"
    with open_ledger(url, create=True, clock=ManualClock(NOW), origin=ORIGIN) as ledger:
        yield ledger


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "log"


def publish(ledger: Ledger, events: int) -> int:
    grow(ledger, events)
    return integrator_of(ledger).catch_up()


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Says nothing."""


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The folder behind Python's own http.server."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def read_log(fetch: Callable[[str], bytes], verifier_key: str) -> list[bytes]:
    """Every event of a log, verified as the C2SP texts say. Shares no code with the source. Raises `AssertionError`."""
    name, hash_, encoded = verifier_key.split("+", 2)
    key = base64.b64decode(encoded)
    text, _, signatures = fetch("checkpoint").decode().rpartition("\n\n")
    signed = text + "\n"
    line = next(one for one in signatures.splitlines() if one.startswith(f"— {name} "))
    signature = base64.b64decode(line.split(" ")[2])
    assert signature[:4].hex() == hash_
    Ed25519PublicKey.from_public_bytes(key[1:]).verify(signature[4:], signed.encode())
    origin, size_text, root = text.split("\n")[:3]
    assert origin == name
    size = int(size_text)

    def number(index: int) -> str:
        groups = [f"{index:03}"[-3:]] if index < 1000 else [f"x{index // 1000:03}", f"{index % 1000:03}"]
        return "/".join(groups)

    leaves: list[bytes] = []
    hashes: list[bytes] = []
    for index in range((size + 255) // 256):
        width = min(256, size - 256 * index)
        path = number(index) + ("" if width == 256 else f".p/{width}")
        bundle, tile = fetch(f"tile/entries/{path}"), fetch(f"tile/0/{path}")
        while bundle:
            length = int.from_bytes(bundle[:2], "big")
            leaves.append(bundle[2 : 2 + length])
            bundle = bundle[2 + length :]
        hashes += [tile[32 * place : 32 * place + 32] for place in range(width)]
    assert hashes == [reference_tree.leaf(leaf) for leaf in leaves]
    assert base64.b64encode(reference_tree.root(hashes)).decode() == root
    above = [reference_tree.root(hashes, start, start + 256) for start in range(0, size - 255, 256)]
    if above:
        assert fetch(f"tile/1/000.p/{len(above)}") == b"".join(above)
    return leaves


def test_a_static_export_behind_http_server_is_verified_from_outside(ledger: Ledger, folder: Path) -> None:
    size = publish(ledger, 700)
    done = export_log(PublishedLog(ledger.recorder), folder)
    assert (done.origin, done.size) == (ORIGIN, size)
    with served(folder) as url:

        def fetch(path: str) -> bytes:
            with urllib.request.urlopen(f"{url}/{path}") as answer:  # noqa: S310  # our own server's http URL
                content: bytes = answer.read()
                return content

        assert read_log(fetch, str(KEY.verifier)) == [entry.leaf for page in ledger.pages(0, size) for entry in page]
        assert fetch("vkeys").decode().splitlines() == [str(KEY.verifier)]


@pytest.mark.parametrize("path", ["checkpoint", "tile/0/001", "tile/entries/000", "tile/1/000.p/2"])
def test_a_flipped_bit_of_any_file_is_found(ledger: Ledger, folder: Path, path: str) -> None:
    publish(ledger, 700)
    export_log(PublishedLog(ledger.recorder), folder)
    content = bytearray((folder / path).read_bytes())
    content[len(content) // 2] ^= 4
    (folder / path).write_bytes(content)
    with pytest.raises(Exception):  # noqa: B017, PT011  # a wrong signature, no base64, another hash
        read_log(lambda name: (folder / name).read_bytes(), str(KEY.verifier))


AICS = """
import sys
from aics_tlog import HttpTileReader, VerifiedTileReader, audit_tiles, parse_note, parse_vkey, verify_checkpoint
url, key, origin = sys.argv[1:]
reader = HttpTileReader(url + "/", proxies={})
head = verify_checkpoint(parse_note(reader.read_checkpoint()), parse_vkey(key), expected_origin=origin)
assert head.ok and head.log_ok, head.error
report = audit_tiles(reader, head.size, head.root)
entry = VerifiedTileReader(reader, head.size, head.root).entry(head.size - 1)
print(head.size, report.tiles, report.bundles, entry.hex())
"""


def aics_python() -> str:
    """A Python that has aics-tlog. Skips if there is none."""
    chosen = os.environ.get("INFORCE_TLOG_PYTHON")
    if chosen:
        return chosen
    if importlib.util.find_spec("aics_tlog") is None:
        pytest.skip("aics-tlog is not installed: it needs Python 3.12; set INFORCE_TLOG_PYTHON to a Python that has it")
    return sys.executable


def test_aics_tlog_verifies_the_log(ledger: Ledger, folder: Path) -> None:
    python = aics_python()
    size = publish(ledger, 700)
    export_log(PublishedLog(ledger.recorder), folder)
    with served(folder) as url:
        command = [python, "-c", AICS, url, str(KEY.verifier), ORIGIN]
        shown = subprocess.run(command, capture_output=True, text=True, check=False)
    assert shown.returncode == 0, shown.stderr
    tiles, bundles = len(list(tiles_of(size))), (size + 255) // 256
    assert shown.stdout.split() == [str(size), str(tiles), str(bundles), ledger.page(size - 1)[0].leaf.hex()]


def test_a_later_export_writes_only_what_is_new(ledger: Ledger, folder: Path) -> None:
    log = PublishedLog(ledger.recorder)
    publish(ledger, 300)
    export_log(log, folder)
    assert export_log(log, folder).written == 0
    before = {name: (folder / name).stat().st_mtime_ns for name in files(folder)}
    size = publish(ledger, 300)
    done = export_log(log, folder)
    now = files(folder)
    kept = [name for name in before if name in now and (folder / name).stat().st_mtime_ns == before[name]]
    assert {"tile/0/000", "tile/entries/000", "vkeys"} <= set(kept)
    assert done.written == len(now) - len(kept)
    assert not any(name.startswith("tile/0/001.p/") for name in now), "the full tile takes its place"
    read_log(lambda name: (folder / name).read_bytes(), str(KEY.verifier))
    assert export_log(log, folder).size == size


def test_an_export_that_was_cut_off_anywhere_goes_on_and_never_shows_half(
    ledger: Ledger, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = PublishedLog(ledger.recorder)
    publish(ledger, 300)
    export_log(log, folder)
    publish(ledger, 600)
    write = module._Files.write
    for at in range(1, 100):
        count = 0

        def cut_off(self: module._Files, path: str, content: bytes, at: int = at) -> None:
            nonlocal count
            count += 1
            if count == at:
                raise KeyboardInterrupt
            write(self, path, content)

        with monkeypatch.context() as patch:
            patch.setattr(module._Files, "write", cut_off)
            try:
                export_log(log, folder)
                break
            except KeyboardInterrupt:
                pass
        # Whichever checkpoint is there: all its files are, too.
        read_log(lambda name: _or_wider(folder, name), str(KEY.verifier))
    assert at > 5
    assert len(read_log(lambda name: (folder / name).read_bytes(), str(KEY.verifier))) == GENESIS + 900
    assert not [name for name in files(folder) if "/." in f"/{name}"]


def _or_wider(folder: Path, name: str) -> bytes:
    """A reader of the specification takes the full tile where a partial one is gone."""
    path = folder / name
    if path.exists() or ".p/" not in name:
        return path.read_bytes()
    full, width = name.split(".p/")
    content = (folder / full).read_bytes()
    if "entries" not in name:
        return content[: 32 * int(width)]
    place = 0
    for _ in range(int(width)):
        place += 2 + int.from_bytes(content[place : place + 2], "big")
    return content[:place]


def test_a_bundle_of_a_cut_off_export_is_compared_before_it_is_kept(ledger: Ledger, folder: Path) -> None:
    log = PublishedLog(ledger.recorder)
    publish(ledger, 600)
    export_log(log, folder)
    (folder / "checkpoint").unlink()
    (folder / "tile/entries/001").write_bytes(b"half")
    export_log(log, folder)
    read_log(lambda name: (folder / name).read_bytes(), str(KEY.verifier))


def test_the_files_are_for_their_owner_only(ledger: Ledger, folder: Path) -> None:
    publish(ledger, 1)
    export_log(PublishedLog(ledger.recorder), folder)
    assert {path.stat().st_mode & 0o777 for path in folder.rglob("*") if path.is_file()} == {0o600}


def test_a_folder_of_another_log_is_not_overwritten(ledger: Ledger, folder: Path, tmp_path: Path) -> None:
    log = PublishedLog(ledger.recorder)
    publish(ledger, 5)
    export_log(log, folder)
    before = files(folder)
    for name, origin, events, fault in (
        ("other", "other.example/log", 9, "holds the log test.example/ledger, and this one is other.example/log"),
        ("older", ORIGIN, 1, "holds a checkpoint of .* it went back, or"),
        ("forked", ORIGIN, 9, "holds another tree of .* one of the two logs is forked"),
    ):
        url = f"sqlite:///{tmp_path}/{name}.db"
        with open_ledger(url, create=True, clock=ManualClock(NOW), origin=origin) as other:
            grow(other, events)
            key = KEY if origin == ORIGIN else type(KEY)(origin, bytes(32))
            integrator_of(other, key).catch_up()
            with pytest.raises(BadInput, match=fault):
                export_log(PublishedLog(other.recorder), folder)
    assert files(folder) == before
    (folder / "checkpoint").write_text("a page of my own\n")
    with pytest.raises(BadInput, match="is no checkpoint; name a folder of its own"):
        export_log(log, folder)


def test_a_log_without_a_checkpoint_is_not_exported(ledger: Ledger, folder: Path) -> None:
    with pytest.raises(LedgerUnavailable, match="make a key with inforce keygen"):
        export_log(PublishedLog(ledger.recorder), folder)
    assert not folder.exists()
