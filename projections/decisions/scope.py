"""Which subject governs a request record, at the question's (at, known_at): projections/README.md, "Governing subject".

1. A key: follow `owner` (key → project → org or account). An org at the end governs, whichever member sent it.
2. No key, but a project or an org: the org governs (a project is followed to its owner like a key).
3. An account, named or reached: the org it is `attached_to` if set, else the account itself.
4. The record's other ids must agree: an org_id must be the governing org, a project must lead to the same subject, and
   if the chain ends at an account, account_id must be that account. If the chain ends at an org, an account is the
   member who sent the request and agrees with any org.

A key or project without an owner, or that leads to neither an org nor an account, is `unknown_owner`. Nothing is
guessed. Proved by tests/scenarios and tests/decisions/test_scope.py.
"""

from __future__ import annotations

from typing import Final, Literal, NamedTuple

from ledger.subjects import kind_of
from projections.decisions.model import RequestRecord
from projections.decisions.states import States
from projections.temporal.effective_state import SettingState

CHAIN_MAX: Final = 8
"""A longer owner chain, or one that runs in a circle, is `unknown_owner`."""

OWNER: Final = "owner"
"""Of a key or a project: who owns it."""
ATTACHED_TO: Final = "attached_to"
"""Of an account: the org that governs its traffic."""

Problem = Literal["before_first_record", "unknown_owner", "scope_conflict"]


class Scope(NamedTuple):
    """`governing` None: see `problem`. `via`: the subjects on the way to it; `evidence`: the settings followed."""

    governing: str | None
    via: tuple[str, ...]
    evidence: tuple[SettingState, ...]
    problem: Problem | None = None


def resolve(record: RequestRecord, states: States) -> Scope:
    """Raises nothing: `problem` is the reason if no subject governs."""
    scope = _governing(_first_named(record), states)
    if scope.problem is not None:
        return scope
    if record.project_id is not None and f"project:{record.project_id}" not in scope.via:
        project = _governing(f"project:{record.project_id}", states)
        scope = scope._replace(evidence=scope.evidence + project.evidence)
        if project.problem is not None:
            return scope._replace(governing=None, problem=project.problem)
        if project.governing != scope.governing:
            return scope._replace(governing=None, problem="scope_conflict")
    if _contradicted(record, scope):
        return scope._replace(governing=None, problem="scope_conflict")
    return scope


def _first_named(record: RequestRecord) -> str:
    if record.key_id is not None:
        return f"key:{record.key_id}"
    if record.project_id is not None:
        return f"project:{record.project_id}"
    if record.org_id is not None:
        return f"org:{record.org_id}"
    return f"account:{record.account_id}"


def _governing(start: str, states: States) -> Scope:
    via = [start]
    evidence: list[SettingState] = []
    while kind_of(via[-1]) in ("key", "project"):
        state = states.setting(via[-1], OWNER)
        evidence.append(state)
        if state.source == "undefined":
            return Scope(None, tuple(via), tuple(evidence), "before_first_record")
        if not isinstance(state.value, str) or len(via) == CHAIN_MAX:
            return Scope(None, tuple(via), tuple(evidence), "unknown_owner")
        via.append(state.value)
    if kind_of(via[-1]) == "account":
        state = states.setting(via[-1], ATTACHED_TO)
        evidence.append(state)
        if state.source == "undefined":
            return Scope(None, tuple(via), tuple(evidence), "before_first_record")
        if isinstance(state.value, str):
            via.append(state.value)
    if kind_of(via[-1]) not in ("account", "org"):
        return Scope(None, tuple(via), tuple(evidence), "unknown_owner")
    return Scope(via[-1], tuple(via), tuple(evidence))


def _contradicted(record: RequestRecord, scope: Scope) -> bool:
    if record.org_id is not None and scope.governing != f"org:{record.org_id}":
        return True
    accounts = [subject for subject in scope.via if kind_of(subject) == "account"]
    return record.account_id is not None and bool(accounts) and accounts != [f"account:{record.account_id}"]
