"""`token`: makes, lists and revokes the tokens that callers of the server sign in with.

They are changes of settings like any other; `projections/access/tokens.py` makes them. A secret is printed once, on
standard output and nowhere else, so that `TOKEN=$(inforce token create …)` holds it. No secret is an argument: other
processes could read it there. Proved by tests/cli/test_token.py.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import click

from ledger.errors import BadInput
from ledger.opening import ledger_exists, open_ledger
from ledger.roles import FORMS, ROLES, parse_role
from ledger.store import Ledger
from ledger.subjects import ACTOR_LENGTH_MAX, is_id
from ledger.times import DAY, format_time
from scripts.cli import exits
from scripts.cli.options import Format, output_format
from scripts.cli.output import Columns, human_bound, human_time, json_text, print_line, show
from scripts.cli.settings import setting

_DURATION: Final = re.compile(r"([1-9][0-9]{0,4})([dhm])")
_UNITS: Final = {"d": DAY, "h": DAY // 24, "m": DAY // 1440}
_SECRET_BYTES_MAX: Final = 4096

_COLUMNS: Final[Columns] = {
    "token": lambda row: row["token"],
    "principal": lambda row: row["principal"] or "",
    "roles": lambda row: ", ".join(row["roles"]),
    "state": lambda row: f"{row['state']}, disabled" if row["disabled"] else row["state"],
    "until": lambda row: human_bound(row["until"]),
    "made": lambda row: human_time(row["created_at"]),
    "by": lambda row: row["created_by"],
    "last used": lambda row: row["last_used"] or "",
}


@click.group
def token() -> None:
    """Make, list and revoke the tokens that callers sign in with.

    \b
      inforce token create ops-anna --role operator --expires 90d
      inforce token list
      inforce token revoke token:5f0c2a91d4e6b783
    """


def _principal(_context: click.Context, _parameter: click.Parameter, name: str) -> str:
    reference = f"principal:{name}"
    if not is_id(name) or name.startswith("principal:") or len(reference) > ACTOR_LENGTH_MAX:
        raise click.BadParameter("a name is 1-246 of A-Z a-z 0-9 . _ ~ @ / + : -, without the kind principal")
    return reference


def _roles(_context: click.Context, _parameter: click.Parameter, texts: tuple[str, ...]) -> tuple[str, ...]:
    if any(parse_role(text) is None for text in texts):
        raise click.BadParameter(f"the roles are {', '.join(FORMS)}")
    return tuple(sorted(set(texts)))


def _duration(_context: click.Context, _parameter: click.Parameter, text: str | None) -> int | None:
    """In µs."""
    match = None if text is None else _DURATION.fullmatch(text)
    if text is not None and match is None:
        raise click.BadParameter("a time to live is a number and d, h or m, such as 90d")
    return None if match is None else int(match[1]) * _UNITS[match[2]]


@token.command
@click.argument("principal", metavar="NAME", callback=_principal)
@click.option(
    "--role",
    "roles",
    multiple=True,
    callback=_roles,
    metavar="ROLE",
    help=f"A role of the principal: {', '.join(FORMS)}. Can be repeated. Needed for a new principal.",
)
@click.option(
    "--expires", callback=_duration, metavar="TIME", help="When the token expires, such as 90d, 12h or 30m. Else never."
)
@setting("actor")
@output_format
@setting("database", "db")
def create(
    principal: str, roles: tuple[str, ...], expires: int | None, *, actor: str, format_: Format, db: str
) -> None:
    """Make a token for the person or service NAME, and print its secret once.

    The principal is principal:NAME on the ledger. A new one needs its roles; one that has roles keeps them.

    \b
      inforce token create ops-anna --role operator --role corrector --expires 90d
      inforce token create gateway-eu --role gateway
      inforce token create acme-it --role admin@org:acme --format json
    """
    from ledger.append.submissions import parse_submissions
    from ledger.entropy import random_bytes
    from projections.access.tokens import new_token

    if not roles and not ledger_exists(db):
        raise _no_role(principal)
    with _opened(db) as ledger:
        now = ledger.clock.now()
        until = None if expires is None else now + expires
        new = new_token(principal, _new_roles(ledger, principal, roles), until, random_bytes)
        ledger.submit(parse_submissions({"events": new.events}), actor=actor)
    if format_ == "table":
        period = "without end" if until is None else f"until {format_time(until)}"
        exits.print_note(f"made {new.token} of {principal}, {period}; its secret is shown this once")
        print_line(new.secret)
        return
    document = {
        "token": new.token,
        "principal": principal,
        "until": None if until is None else format_time(until),
        "secret": new.secret,
    }
    print_line(json_text(document))


def _new_roles(ledger: Ledger, principal: str, roles: tuple[str, ...]) -> tuple[str, ...] | None:
    """The roles to record; None: the principal has them. Raises `BadInput`."""
    from projections.query.as_of_view import AsOfView
    from projections.query.query import Query

    context = Query(ledger).context()
    state = AsOfView(context, context.now, None).setting(principal, ROLES)
    current = tuple(sorted(state.value)) if state.source == "explicit" and isinstance(state.value, list) else None
    if current is None and not roles:
        raise _no_role(principal)
    if current is not None and roles and roles != current:
        raise BadInput(
            f"{principal} has the roles {', '.join(current)}, and --role says {', '.join(roles)}; leave --role out, or "
            f"change them first with inforce submit {principal} {ROLES}"
        )
    return roles if current is None else None


def _no_role(principal: str) -> BadInput:
    return BadInput(f"{principal} has no role yet; name one with --role: {', '.join(FORMS)}")


@token.command("list")
@output_format
@setting("database", "db")
def list_(format_: Format, db: str) -> None:
    """List all tokens, with their principals and roles now, and the day of the last use.

    \b
      inforce token list
      inforce token list --format json
    """
    from projections.access.tokens import tokens
    from projections.access.uses import TokenUses
    from projections.query.query import Query

    with open_ledger(db) as ledger:
        uses = TokenUses(ledger).days()
        rows = []
        for row in tokens(Query(ledger)):
            document = row._asdict()
            for name in ("created_at", "until"):
                document[name] = None if document[name] is None else format_time(document[name])
            day = uses.get(row.token)
            rows.append({**document, "last_used": None if day is None else format_time(day * DAY)[:10]})
    show(format_, {"tokens": rows}, rows, tuple(rows[0]) if rows else (), _COLUMNS)


@token.command
@click.argument("tokens", metavar="TOKEN...", nargs=-1)
@click.option(
    "--token-file",
    type=click.File("rb"),
    metavar="FILE",
    help="Revoke the token whose secret this file holds; - for standard input.",
)
@setting("actor")
@setting("database", "db")
def revoke(tokens: tuple[str, ...], token_file: Any, *, actor: str, db: str) -> None:
    """Revoke tokens: nobody signs in with them any more, on every server within a second.

    TOKEN is a token's reference, as inforce token list shows it. A secret is never an argument.

    \b
      inforce token revoke token:5f0c2a91d4e6b783
      inforce token revoke --token-file leaked.txt
    """
    from ledger.append.submissions import parse_submissions
    from projections.access.tokens import is_secret, revocation

    if any(is_secret(text) for text in tokens):
        raise BadInput("a secret is no argument, because others may see it there; send it with --token-file -")
    if not tokens and token_file is None:
        raise BadInput("name a token, as inforce token list shows it, or give its secret with --token-file")
    secret = None if token_file is None else _read_secret(token_file)
    with _opened(db, must_exist=True) as ledger:
        named = [*tokens, *([] if secret is None else [_token_of_secret(ledger, secret)])]
        versions = ledger.recorder.versions(named)
        for name in named:
            if not name.startswith("token:") or not versions[name]:
                raise BadInput("there is no such token; inforce token list shows all of them")
        ledger.submit(parse_submissions({"events": [revocation(name) for name in dict.fromkeys(named)]}), actor=actor)
    for name in dict.fromkeys(named):
        exits.print_note(f"revoked {name}")


def _read_secret(file: Any) -> str:
    """Raises `BadInput`."""
    from projections.access.tokens import is_secret

    text: str = file.read(_SECRET_BYTES_MAX).decode("latin-1").strip()
    if not is_secret(text):
        raise BadInput("the file holds no secret: one begins with ift_ and has 47 characters")
    return text


def _token_of_secret(ledger: Ledger, secret: str) -> str:
    """Raises `BadInput`."""
    from projections.access.tokens import digest_of, tokens_with_digest
    from projections.query.query import Query

    names = tokens_with_digest(Query(ledger), digest_of(secret))
    if not names:
        raise BadInput("no token of this ledger has this secret")
    return names[0]


@contextmanager
def _opened(db: str, *, must_exist: bool = False) -> Iterator[Ledger]:
    """The ledger, for writing; made if there is none, which is said."""
    exists = must_exist or ledger_exists(db)
    announce: Callable[[str], None] = exits.print_note
    with open_ledger(db, create=not exists, write=True, announce=announce) as ledger:
        yield ledger
