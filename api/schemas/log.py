"""Models of the transparency log's answers, which are texts and bytes of the C2SP specifications."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, RootModel

from api.schemas.base import WireModel


class LogCheckpoint(RootModel[str]):
    """A signed note: the log's origin, the number of events, the root in base64, and signatures under an empty line."""


class VerifierKeys(RootModel[str]):
    """Keys in the form `name+hash+base64`, one a line."""


class EventProof(RootModel[str]):
    """The line `c2sp.org/tlog-proof@v1`, the index, the hashes from the leaf up, and a checkpoint."""


class LogTile(RootModel[bytes]):
    """Hashes of 32 bytes each; or events, each behind its length in 16 bits, most significant byte first."""


class LogIssue(WireModel):
    """Why no checkpoint is signed. Everything else goes on."""

    code: Literal["log_went_back", "log_forked", "log_damaged", "log_unavailable"]
    detail: str


class LogState(WireModel):
    """The transparency log, as far as this process knows."""

    size: int = Field(description="The number of events under the last published checkpoint.")
    integrates: bool = Field(description="Whether this process integrates and signs; one of all servers does.")
    problem: LogIssue | None
