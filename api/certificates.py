"""The server's certificate and private key, in PEM files. Proved by tests/api/test_network.py and
tests/api/test_certificates.py.
"""

from __future__ import annotations

import logging
import ssl
from pathlib import Path
from typing import Final

from ledger.clock import SystemClock
from ledger.errors import BadInput
from ledger.times import DAY, SECOND

_HANDSHAKE_STEPS_MAX: Final = 10

_log = logging.getLogger("inforce.api")


def certificate(cert: Path | None, key: Path | None) -> tuple[Path, Path] | None:
    """Raises `BadInput` unless both files, or neither, are given, and fit each other."""
    if cert is None and key is None:
        return None
    if cert is None or key is None:
        raise BadInput("--tls-cert and --tls-key belong together: the certificate with its chain, and its private key")
    for option, path in (("--tls-cert", cert), ("--tls-key", key)):
        try:
            path.open("rb").close()
        except OSError as error:
            raise BadInput(f"{option} {path} cannot be read: {error.strerror}") from None
    if fault := certificate_fault(cert, key):
        raise BadInput(fault)
    if warning := key_warning(key):
        _log.warning("%s", warning)
    return cert, key


def certificate_fault(cert: Path, key: Path) -> str | None:
    """Why the server cannot use the files, which must be readable; None: it can."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        # Without a password OpenSSL would ask for one on the terminal.
        context.load_cert_chain(cert, key, lambda: "")
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            return f"the key in {key} is not that of the certificate in {cert}"
        if _holds_certificate(cert):
            return f"--tls-key {key} holds no private key in PEM, or one with a password, which is not supported"
        return f"--tls-cert {cert} holds no certificate in PEM"
    except (OSError, ValueError):
        return f"--tls-cert {cert} and --tls-key {key} cannot be used as a certificate and its key"
    return None


def _holds_certificate(cert: Path) -> bool:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cert)
    except ssl.SSLError:
        return False
    return True


def key_warning(key: Path) -> str | None:
    """A sentence if others than its owner may read the private key."""
    mode = key.stat().st_mode & 0o777
    if not mode & 0o077:
        return None
    return f"the private key {key} may be read by others than its owner (mode {mode:04o}); run chmod 600 on it"


def days_left(cert: Path, key: Path, name: str | None) -> float:
    """For how many days a client that trusts the certificate itself accepts it. Raises `BadInput` if it does not now,
    because it has expired, is not valid yet, or is not for the host name `name` (None: any)."""
    trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    trusting.check_hostname = name is not None
    trusting.verify_flags |= ssl.VerifyFlags.VERIFY_X509_PARTIAL_CHAIN
    trusting.load_verify_locations(cert)
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(cert, key)
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = trusting.wrap_bio(to_client, to_server, server_hostname=name)
    server = serving.wrap_bio(to_server, to_client, server_side=True)
    for side in [client, server] * _HANDSHAKE_STEPS_MAX:
        try:
            side.do_handshake()
        except ssl.SSLWantReadError:
            continue
        except ssl.SSLCertVerificationError as error:
            raise BadInput(f"--tls-cert {cert}: {error.verify_message}") from None
        if side is client:
            break
    facts = client.getpeercert() or {}
    until = ssl.cert_time_to_seconds(str(facts["notAfter"])) * SECOND
    return (until - SystemClock().now()) / DAY
