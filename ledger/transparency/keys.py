"""The keys that sign a ledger's checkpoints: a file that only its owner may read, or an environment variable.

A file has one key a line; lines that begin with # are comments. Every key signs each checkpoint, so while keys change,
those who know only the older one and those who know only the newer one can both verify.
Proved by tests/transparency/test_keys.py.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from ledger.entropy import random_bytes
from ledger.errors import BadInput
from ledger.transparency.note import BadKey, SigningKey

KEY_VARIABLE: Final = "INFORCE_SIGNING_KEY"
"""The keys themselves, separated by white space."""
KEYS_MAX: Final = 8


def new_key(origin: str) -> SigningKey:
    return SigningKey(origin, random_bytes(32))


def configured_keys(file: Path | None, environment: Mapping[str, str]) -> list[SigningKey]:
    """The keys of the file, or of the environment if there is no file; none: the log is not signed. Raises `BadInput`
    and `OSError`."""
    text = environment.get(KEY_VARIABLE, "")
    if file is not None:
        if text.strip():
            raise BadInput(f"the keys of the log come from a file or from {KEY_VARIABLE}, not from both; unset one")
        return read_key_file(file)
    return _parse(text.split(), KEY_VARIABLE)


def read_key_file(file: Path) -> list[SigningKey]:
    """Raises `BadInput` if others may read the file or it holds no key, and `OSError`."""
    with file.open("rb") as opened:
        if (mode := stat.S_IMODE(os.fstat(opened.fileno()).st_mode)) & 0o077:
            raise BadInput(f"{file} has the mode {mode:04o}, so others may read the key; set it to 0600")
        content = opened.read(64 * 1024)
    try:
        lines = [line.strip() for line in content.decode().splitlines()]
    except UnicodeDecodeError:
        raise BadInput(f"{file} holds no key of inforce keygen") from None
    keys = _parse([line for line in lines if line and not line.startswith("#")], str(file))
    if not keys:
        raise BadInput(f"{file} holds no key; make one with inforce keygen")
    return keys


def _parse(texts: Sequence[str], where: str) -> list[SigningKey]:
    if len(texts) > KEYS_MAX:
        raise BadInput(f"{where} holds {len(texts)} keys, and {KEYS_MAX} are enough; remove those that are retired")
    keys: list[SigningKey] = []
    for number, text in enumerate(texts, 1):
        try:
            key = SigningKey.parse(text)
        except BadKey as error:
            raise BadInput(f"key {number} of {where} cannot be read: {error}") from None
        if any(key.verifier == other.verifier for other in keys):
            raise BadInput(f"key {number} of {where} is there twice; remove it")
        keys.append(key)
    if len({key.verifier.name for key in keys}) > 1:
        raise BadInput(f"the keys of {where} have different names, and a log has one origin")
    return keys
