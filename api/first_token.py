"""The first minute of a server: the operator's token on a ledger that has none, as notebook servers print one.

The token is on the ledger like every other, as `principal:first-operator`; it and the role end after an hour, which is
time enough to make a lasting one. It is printed for the person who started the server, and stands in no log.
Proved by tests/cli/test_first_minute.py.
"""

from __future__ import annotations

import logging
from typing import Final

from api.service import Service
from ledger.append.submissions import parse_submissions
from ledger.entropy import random_bytes
from ledger.errors import InforceError
from ledger.times import format_time
from projections.access.tokens import needs_first_token, new_token

FIRST_OPERATOR: Final = "principal:first-operator"
LASTS_US: Final = 3_600_000_000
ACTOR: Final = "inforce serve"
WITHOUT_SIGN_IN: Final = (
    "WARNING: without sign-in (--no-auth) every program and every person on this machine may read and change everything"
)

_log = logging.getLogger("inforce.api")


def first_lines(service: Service, has_providers: bool = False) -> list[str]:
    """The lines about the operator's first token; none where the ledger has a token, or may not be written. None either
    where providers of OpenID Connect sign callers in: nobody may ever make a token there, and a server that starts
    again would print one each time."""
    if has_providers:
        return []
    try:
        if not needs_first_token(service.query, FIRST_OPERATOR):
            return []
        until = service.now() + LASTS_US
        token = new_token(FIRST_OPERATOR, ["operator"], until, random_bytes, roles_until=until)
        service.ledger.submit(parse_submissions({"events": token.events}), actor=ACTOR)
    except InforceError as error:
        _log.warning("no token for the operator could be made: %s", error.detail)
        return []
    return [
        f"this ledger has no token yet; until {format_time(until)} (one hour) the operator signs in with",
        f"  Authorization: Bearer {token.secret}",
        "make a lasting one with: inforce token create NAME --role operator",
    ]
