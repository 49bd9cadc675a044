"""How long a certificate is accepted, and by whom: as a client that trusts it sees it."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trustme

from api.certificates import days_left
from ledger.errors import BadInput

NAME = "inforce.example.com"


def files(folder: Path, not_before: timedelta, not_after: timedelta) -> tuple[Path, Path]:
    now = datetime.now(UTC)
    issued = trustme.CA().issue_cert(NAME, not_before=now + not_before, not_after=now + not_after)
    cert, key = folder / "cert.pem", folder / "key.pem"
    cert.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
    key.write_bytes(issued.private_key_pem.bytes())
    return cert, key


def test_the_days_until_a_certificate_ends(tmp_path: Path) -> None:
    cert, key = files(tmp_path, timedelta(days=-1), timedelta(days=30))
    for name in (NAME, NAME.upper(), None):
        assert 29.9 < days_left(cert, key, name) <= 30


@pytest.mark.parametrize(
    ("not_before", "not_after", "name", "why"),
    [
        (-2, -1, NAME, "expired"),
        (1, 2, NAME, "not yet valid"),
        (-1, 30, "other.example.com", "not valid for|mismatch"),
    ],
)
def test_a_certificate_that_no_client_accepts(
    not_before: int, not_after: int, name: str, why: str, tmp_path: Path
) -> None:
    cert, key = files(tmp_path, timedelta(days=not_before), timedelta(days=not_after))
    with pytest.raises(BadInput, match=rf"--tls-cert .*cert\.pem: .*({why})"):
        days_left(cert, key, name)
