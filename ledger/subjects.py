"""Subject references and their grammar, and the number types of the ledger.

A subject is anything with a history: `account:u1`, `org:acme`, `key:k1`. Proved by tests/test_subjects.py.
"""

from __future__ import annotations

import re
from typing import Final, NewType

from ledger.errors import BadSubject

Position = NewType("Position", int)
"""An event's place in the whole ledger: 1, 2, 3 … without gaps, in commit order. 0 is before the first."""

Version = NewType("Version", int)
"""An event's place among its subject's events: 1, 2, 3 … without gaps. 0 is before the first."""

CATALOG_SUBJECT: Final = "catalog:settings"
LEDGER_SUBJECT: Final = "ledger:self"
"""The ledger as a subject of its own: what its operators have acknowledged about it (`acknowledgements`)."""
KINDS: Final = ("account", "org", "project", "key", "model", "region", "provider", "principal", "token")
"""The kinds of subject that settings can be defined for. The kind `catalog` holds the definitions themselves."""

MUST_BE_KNOWN: Final = "subjects.must_be_known"
"""The setting whose default names kinds of subject: the ledger must have an event of such a subject before anything
refers to it, and before anything is decided about it. No subject has a value of its own."""

RESERVED_KINDS: Final = ("catalog", "ledger")
"""The kinds of the two subjects that nobody submits changes about, in the form `kind:id`."""

ACTOR_LENGTH_MAX: Final = 256
ID_SHOWN_MAX: Final = 64
"""Errors show no longer ids."""
ID_PATTERN: Final = r"[A-Za-z0-9._~@/+:-]{1,256}"
SETTING_PATTERN: Final = r"[A-Za-z0-9._-]{1,128}"
_ID: Final = re.compile(ID_PATTERN)
_SETTING: Final = re.compile(SETTING_PATTERN)
_ORIGIN: Final = re.compile(r"[a-z0-9][a-z0-9.-]{0,62}(/[a-z0-9._-]{1,63}){0,3}")
_ID_RULE: Final = "1-256 of A-Z a-z 0-9 . _ ~ @ / + : -"


def parse_subject(text: object, kinds: tuple[str, ...] = (*KINDS, *RESERVED_KINDS)) -> str:
    """The text itself if it is `kind:id` with a kind among `kinds`. Raises `BadSubject`."""
    if not isinstance(text, str):
        raise BadSubject("a subject must be a text like org:acme")
    kind, colon, identifier = text.partition(":")
    if not colon:
        raise BadSubject(f"a subject is written kind:id, with a kind among {', '.join(kinds)}")
    if kind not in kinds:
        raise BadSubject(f"unknown kind of subject; the kinds are {', '.join(kinds)}")
    if not is_id(identifier):
        raise BadSubject(f"a subject's id is {_ID_RULE}")
    return text


def refuse_second_kind(subject: str) -> None:
    """Raises `BadSubject` if the id of a subject that is to be recorded holds its kind, as `org:org:acme` does.

    A request record names bare ids, so no record can name such a subject."""
    kind, _, identifier = subject.partition(":")
    if identifier.startswith(f"{kind}:"):
        shown = f"write {identifier}" if len(kind) + 1 < len(identifier) <= ID_SHOWN_MAX else "write the kind once"
        raise BadSubject(f"the subject's id holds its kind, {kind}; {shown}")


def is_id(text: str) -> bool:
    """Whether `text` may follow the colon of a subject reference."""
    return _ID.fullmatch(text) is not None


def is_setting_key(text: str) -> bool:
    """Whether `text` may name a setting: 1-128 of A-Z a-z 0-9 . _ -"""
    return _SETTING.fullmatch(text) is not None


def is_origin(text: str) -> bool:
    """Whether `text` may name a ledger permanently: like a host and a path in lower case, `ledger.example.com/eu`."""
    return _ORIGIN.fullmatch(text) is not None


def is_actor(text: object) -> bool:
    """Whether `text` may name the actor of a submission: 1 to 256 characters."""
    return isinstance(text, str) and 1 <= len(text) <= ACTOR_LENGTH_MAX and is_text(text)


def is_text(text: str) -> bool:
    """Whether `text` can be encoded as UTF-8. Half of a surrogate pair cannot, although JSON can escape it."""
    return text.isascii() or not any("\ud800" <= character <= "\udfff" for character in text)


def kind_of(subject: str) -> str:
    """The part of a subject reference before its first colon."""
    return subject.partition(":")[0]


def has_words(text: str) -> bool:
    """Whether a person sees anything in the text: not only spaces, line ends and characters without a shape."""
    seen = (one for one in text if one.isprintable() and not one.isspace())
    return any(one not in _BLANK for one in seen)


_BLANK: Final = frozenset("\u115f\u1160\u2800\u3164\uffa0")
"""Letters and a pattern that Unicode counts as printable, and fonts draw as an empty space."""
