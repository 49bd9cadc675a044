"""The address of a caller behind proxies: from one header, and only as far as trusted proxies wrote it.

A proxy appends the address that it saw to the header. So the hops are read from the right, as long as each one that
wrote is trusted: the first other one is the caller. Its own part of the header, further left, is never read. The other
header is never read either: a proxy that writes X-Forwarded-For passes on whatever Forwarded its client invented.
Called where an address is needed, such as after a failed sign-in, and not for each request.
Proved by tests/api/http/test_forwarded.py.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Final, NamedTuple

from starlette.types import Scope

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_FOR: Final = re.compile(r'(?:^|;)\s*for\s*=\s*(?:"([^"]*)"|([^\s;,"]*))\s*(?=;|$)', re.IGNORECASE)
_ELEMENT: Final = re.compile(r'((?:"(?:[^"\\]|\\.)*"|[^,"])*)(?:,|$)')
UNKNOWN: Final = "unknown"


class TrustedProxies(NamedTuple):
    """`header`: in lower case, the one that the proxies write."""

    networks: tuple[Network, ...] = ()
    header: str = "x-forwarded-for"

    def caller_address(self, scope: Scope) -> str:
        """The IP address of the caller of a request; `unknown` if it cannot be told. A trusted proxy that wrote no
        address is the caller itself."""
        client = scope.get("client")
        address = _address(client[0]) if client else None
        if address is None:
            return UNKNOWN
        if not self._trusts(address):
            return str(address)
        for hop in reversed(self._hops(scope)):
            address = _address(hop)
            if address is None:
                # A hop that is not known wrote it, so nothing further left is trusted.
                return UNKNOWN
            if not self._trusts(address):
                break
        return str(address)

    def caller_network(self, scope: Scope) -> str:
        """As `caller_address`, with the /64 network of an IPv6 address: a caller has 2^64 addresses there."""
        text = self.caller_address(scope)
        if ":" not in text:
            return text
        return str(ipaddress.IPv6Address(int(ipaddress.IPv6Address(text)) >> 64 << 64))

    def _trusts(self, address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
        return any(address in network for network in self.networks)

    def _hops(self, scope: Scope) -> list[str]:
        name = self.header.encode()
        text = ",".join(value.decode("latin-1") for field, value in scope["headers"] if field == name)
        if self.header == "x-forwarded-for":
            return [part.strip() for part in text.split(",")] if text else []
        elements = [match[1] for match in _ELEMENT.finditer(text) if match[1].strip()]
        return [_for_of(element) for element in elements]


def _for_of(element: str) -> str:
    """The parameter `for` of an element of Forwarded (RFC 7239 section 4), without its port."""
    match = _FOR.search(element)
    return "" if match is None else match[1] if match[1] is not None else match[2]


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """An address, with or without brackets and a port; an IPv4 address in an IPv6 one as what it is."""
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    mapped = getattr(address, "ipv4_mapped", None)
    return mapped if mapped is not None else address
