"""The folder that the demo leaves behind. A demo deletes only files of an earlier demo."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from ledger.errors import BadInput

LEDGER: Final = "ledger.db"
LOG: Final = "requests.jsonl.gz"
PLANTED: Final = "planted.jsonl"
ABOUT: Final = "README.txt"
_FIRST_WORDS: Final = "Made by inforce demo."
_FILES: Final = (LEDGER, f"{LEDGER}-wal", f"{LEDGER}-shm", LOG, PLANTED)

_ABOUT_TEXT: Final = f"""{_FIRST_WORDS} The next demo in this folder replaces these files and no others.

{LEDGER}          the ledger of an invented platform (SQLite)
{LOG}  its invented request log
{PLANTED}      the violations planted in the log, by request_id
"""


def prepare(folder: Path) -> None:
    """Makes the folder, or empties it of an earlier demo. Raises `BadInput` if it holds files of anybody else."""
    about = folder / ABOUT
    if folder.exists():
        if not folder.is_dir():
            raise BadInput("the demo's folder is a file; name another with --keep")
        is_ours = about.is_file() and about.read_text(errors="replace").startswith(_FIRST_WORDS)
        if not is_ours and any(folder.iterdir()):
            raise BadInput("the demo's folder holds files that are not of a demo; name another with --keep")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name in _FILES:
            (folder / name).unlink(missing_ok=True)
        about.write_text(_ABOUT_TEXT)
    except OSError as error:
        raise BadInput(f"the demo's folder cannot be written ({error.strerror}); name another with --keep") from None
