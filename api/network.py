"""Where the server listens, with which certificate, under which host names, and behind which proxies.

Without sign-in it is for this machine only: a loopback address, and loopback names in the Host field, because a web
page could let its own name resolve to 127.0.0.1. On any other address callers sign in, over TLS: the server's own, or
that of a proxy which it trusts. Each wrong combination is refused before the server listens.
Proved by tests/api/test_network.py.
"""

from __future__ import annotations

import ipaddress
import logging
import ssl
from collections.abc import Iterable
from pathlib import Path
from typing import Final, Literal, NamedTuple
from urllib.parse import urlsplit

from api.http.forwarded import Network, TrustedProxies
from api.http.middleware import LOOPBACK_NAMES
from ledger.errors import BadInput

HOST: Final = "127.0.0.1"

_log = logging.getLogger("inforce.api")


class NetworkSettings(NamedTuple):
    """`public_url`: as callers write it. `allowed_hosts`: further names of the Host field. `trusted_proxies`: addresses
    and networks whose `forwarded_header` is believed. `signs_in`: whether callers must sign in."""

    host: str = HOST
    tls_cert: Path | None = None
    tls_key: Path | None = None
    public_url: str | None = None
    allowed_hosts: tuple[str, ...] = ()
    trusted_proxies: tuple[str, ...] = ()
    forwarded_header: Literal["x-forwarded-for", "forwarded"] = "x-forwarded-for"
    signs_in: bool = False


class Listening(NamedTuple):
    """The settings, checked. `is_loopback`: whether only this machine reaches it. `hosts`: the names that the Host
    field may hold, in lower case and without a port. `is_https`: whether callers reach it by TLS."""

    address: str
    is_loopback: bool
    tls: tuple[Path, Path] | None
    hosts: frozenset[str]
    proxies: TrustedProxies
    is_https: bool

    def url(self, port: int) -> str:
        return f"{'http' if self.tls is None else 'https'}://{as_host(self.address)}:{port}"


def plan(settings: NetworkSettings) -> Listening:
    """Raises `BadInput` if the settings contradict each other or a file cannot be used."""
    address, is_loopback = _address(settings.host)
    tls = _certificate(settings.tls_cert, settings.tls_key)
    public = None if settings.public_url is None else public_host(settings.public_url)
    proxies = TrustedProxies(networks(settings.trusted_proxies), settings.forwarded_header)
    if not settings.signs_in:
        _require_local(settings, is_loopback)
    elif not is_loopback:
        if public is None:
            raise BadInput(
                f"--host {settings.host} is not of this machine alone, so --public-url must say how callers write this "
                "server's address, such as https://inforce.example.com"
            )
        if tls is None and not settings.trusted_proxies:
            raise BadInput(
                f"--host {settings.host} is not of this machine alone, so it needs TLS: give --tls-cert and --tls-key, "
                "or --trusted-proxies with the addresses of a proxy that does TLS"
            )
    is_https = tls is not None or public is not None
    if public is not None and urlsplit(settings.public_url or "").scheme == "http":
        if tls is not None or not is_loopback:
            raise BadInput("--public-url begins with http://, but callers reach this server by TLS; write https://")
        is_https = False
    # A wildcard address is no name that a caller writes.
    own = set() if ipaddress.ip_address(address).is_unspecified else {as_host(address)}
    names = {public.lower()} if public is not None else set()
    hosts = LOOPBACK_NAMES | own | names | {_bare_host(name) for name in settings.allowed_hosts}
    return Listening(address, is_loopback, tls, frozenset(hosts), proxies, is_https)


def _require_local(settings: NetworkSettings, is_loopback: bool) -> None:
    if not is_loopback:
        raise BadInput(
            "without authentication the server listens on this machine only: localhost, 127.0.0.1 or ::1; "
            f"--host {settings.host} needs callers that sign in"
        )
    for option, value in (
        ("--public-url", settings.public_url),
        ("--allowed-hosts", settings.allowed_hosts),
        ("--trusted-proxies", settings.trusted_proxies),
    ):
        if value:
            raise BadInput(f"without authentication the server is for this machine only; leave {option} out")


def _address(host: str) -> tuple[str, bool]:
    """(the IP address of `host`, whether it is of this machine alone). Raises `BadInput`."""
    if host == "localhost":
        return HOST, True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        raise BadInput(
            f"--host takes an IP address of this machine or localhost, and {host or 'an empty text'} is neither"
        ) from None
    return str(address), address.is_loopback and not getattr(address, "ipv4_mapped", None)


def as_host(address: str) -> str:
    """The address as a URL and the Host field contain it."""
    return f"[{address}]" if ":" in address else address


def public_host(url: str) -> str:
    """The host name of a URL without a path. Raises `BadInput`."""
    wrong = f"--public-url {url} is not of the form https://inforce.example.com, with a port where it has one"
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise BadInput(wrong) from None
    host = parts.hostname
    extra = parts.path not in ("", "/") or parts.query or parts.fragment or parts.username is not None or port == 0
    if parts.scheme not in ("https", "http") or not host or extra:
        raise BadInput(wrong)
    return as_host(host)


def _bare_host(name: str) -> str:
    host = public_host(f"https://{name}") if name and not set("/@?#") & set(name) else None
    if host is None or urlsplit(f"https://{name}").port is not None:
        raise BadInput(f"--allowed-hosts takes names or addresses without a port, and {name} is none")
    return host.lower()


def networks(texts: Iterable[str]) -> tuple[Network, ...]:
    """Raises `BadInput`."""
    try:
        return tuple(ipaddress.ip_network(text) for text in texts)
    except ValueError as error:
        raise BadInput(
            f"--trusted-proxies takes addresses and networks such as 10.0.0.7,10.1.0.0/16: {error}"
        ) from None


def _certificate(cert: Path | None, key: Path | None) -> tuple[Path, Path] | None:
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
