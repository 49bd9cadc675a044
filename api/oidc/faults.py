"""The errors of a sign-in with a JSON Web Token. None of them ever holds the token, or a claim of it."""

from __future__ import annotations

from typing import Literal

Reason = Literal[
    "malformed",
    "too_large",
    "type",
    "issuer",
    "algorithm",
    "key",
    "signature",
    "claims",
    "audience",
    "expired",
    "not_yet_valid",
    "subject",
]


class TokenRefused(Exception):
    """The token signs nobody in. `reason`: stable, for metrics. `detail`: one line, for the caller."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


class KeysUnavailable(Exception):
    """The token cannot be verified now, because the provider's keys cannot be had. The caller may try again."""

    def __init__(self, alias: str) -> None:
        super().__init__(f"the keys of the provider {alias} cannot be read at the moment; try again in a few seconds")
        self.alias = alias


class ProviderFault(Exception):
    """The provider answers wrongly, or not at all. `str(fault)` is one line, for the operator."""
