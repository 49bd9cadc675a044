"""One finding of `inforce doctor`: what was looked at, how it is, and what to do about it."""

from __future__ import annotations

from typing import Literal, NamedTuple

FindingStatus = Literal["ok", "warning", "failed", "skipped"]


class Finding(NamedTuple):
    """`check`: what was looked at. `detail`: the facts, with no secret. `advice`: what to do; None: nothing."""

    check: str
    status: FindingStatus
    detail: str
    advice: str | None = None
