"""`keygen`: makes the key that signs the checkpoints of a ledger's transparency log.

Proved by tests/cli/test_keygen.py.
"""

from __future__ import annotations

import os
from pathlib import Path

import click

from ledger.errors import BadInput
from ledger.opening import ledger_exists, open_ledger, require_origin
from ledger.private_files import open_private
from ledger.transparency.keys import KEYS_MAX, new_key, read_key_file
from ledger.transparency.note import SigningKey
from scripts.cli import exits
from scripts.cli.options import FILE, Format, database, output_format
from scripts.cli.output import show_record


@click.command
@click.argument("file", type=FILE, metavar="FILE")
@click.option(
    "--origin", metavar="NAME", help="The log's name, like ledger.example.com/eu. Default: the ledger's origin."
)
@click.option("--add", is_flag=True, help="Add the key to FILE, so that it and the older ones sign together.")
@database
@output_format
def keygen(file: str, db: str, format_: Format, origin: str | None, *, add: bool) -> None:
    """Make a key that signs the checkpoints of the transparency log.

    Prints the verifier key. FILE gets the secret key (Ed25519), for its owner only (0600); it is never printed. Name
    FILE to inforce serve with --signing-key-file. Give the verifier key to everybody who shall verify the log. A new
    ledger takes its origin from the key; the origin of a ledger that exists never changes.

    To change keys: --add a new one and restart the server, which then signs with both. Once everybody has the new
    verifier key, delete the line of the older key from FILE and restart again.

    \b
      inforce keygen log.key --origin ledger.example.com/eu
      inforce keygen log.key --add
    """
    if file == "-":
        raise click.UsageError("a secret key is not printed; name a file")
    path = Path(file)
    name = _origin(db, origin)
    before = read_key_file(path) if add and path.exists() else []
    if before and before[0].verifier.name != name:
        raise BadInput(f"{file} holds keys of {before[0].verifier.name}, and this ledger is {name}; name another file")
    if len(before) >= KEYS_MAX:
        raise BadInput(f"{file} holds {len(before)} keys already; remove those that are retired")
    key = new_key(name)
    _write(path, key, add=bool(before))
    record = {"verifier_key": str(key.verifier), "origin": name, "file": file, "keys": len(before) + 1}
    show_record(format_, record, "key")


def _origin(db: str, origin: str | None) -> str:
    """Of the ledger at `db` if there is one, else the one that is named. Raises `BadInput`."""
    if origin is not None:
        require_origin(origin)
    if not ledger_exists(db):
        if origin is None:
            raise click.UsageError("there is no ledger yet, so --origin must name it: ledger.example.com/eu")
        return origin
    with open_ledger(db) as ledger:
        if origin not in (None, ledger.origin):
            raise BadInput(f"this ledger has the origin {ledger.origin} for ever; leave --origin out")
        return ledger.origin


def _write(path: Path, key: SigningKey, *, add: bool) -> None:
    try:
        with open_private(path, "ab" if add else "xb") as file:
            file.write(f"# {key.verifier}\n{key.secret_text()}\n".encode())
            file.flush()
            os.fsync(file.fileno())
    except FileExistsError:
        raise BadInput(
            f"{path} exists already, and a key that is overwritten is lost; name another file, or --add a key to it"
        ) from None
    exits.print_note(f"the secret key is in {path}; keep a copy where the ledger is not")
