"""The folder that the demo leaves behind. Only what an earlier demo made is ever taken away."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from ledger.errors import BadInput

LEDGER: Final = "ledger.db"
LOG: Final = "requests.jsonl.gz"
PLANTED: Final = "planted.jsonl"
MARK: Final = "README.txt"
_MARKED: Final = "Made by inforce demo."
_OURS: Final = (LEDGER, f"{LEDGER}-wal", f"{LEDGER}-shm", LOG, PLANTED)

_ABOUT: Final = f"""{_MARKED} The next demo in this place makes these files anew; others it leaves alone.

{LEDGER}          the ledger of an invented platform (SQLite)
{LOG}  its invented request log
{PLANTED}      what was planted in the log, by request_id
"""


def prepare(folder: Path) -> None:
    """An empty place for the demo. Raises `BadInput` where the folder holds what no demo has made."""
    mark = folder / MARK
    if folder.exists():
        if not folder.is_dir():
            raise BadInput("the demo's folder is a file; name another with --keep")
        made_by_us = mark.is_file() and mark.read_text(errors="replace").startswith(_MARKED)
        if not made_by_us and any(folder.iterdir()):
            raise BadInput("the demo's folder holds files that no demo has made; name another with --keep")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name in _OURS:
            (folder / name).unlink(missing_ok=True)
        mark.write_text(_ABOUT)
    except OSError as error:
        raise BadInput(f"the demo's folder cannot be written ({error.strerror}); name another with --keep") from None
