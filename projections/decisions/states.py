"""The facts that the scope and decision rules read, at one (at, known_at)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from projections.decisions.directory import Directory
from projections.temporal.changes import Retraction
from projections.temporal.effective_state import SettingState


class States(Protocol):
    """Effective state at one (at, known_at): all that the scope and decision rules read."""

    def setting(self, subject: str, setting: str) -> SettingState: ...

    def known(self, subject: str) -> bool:
        """Whether the ledger has an event of the subject, about any setting, among those that are known."""

    def directory(self) -> Directory:
        """The regions and providers."""

    def definition(self, setting: str) -> Mapping[str, Any] | None:
        """The definition's members (`kinds`, `default`, `protective`, …), or None if the setting is not defined."""

    def retraction_since(self, subject: str, setting: str, after: int) -> Retraction | None:
        """The retraction, later than position `after`, of the change that decided there. None: nothing retracted it."""
