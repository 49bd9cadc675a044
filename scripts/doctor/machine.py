"""The checks of `inforce doctor` that need no ledger: configuration, network, permissions of files, disks."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from api.certificates import days_left, key_warning
from api.network import NetworkSettings, plan
from api.readiness import disks
from ledger.errors import BadInput
from ledger.opening import NOTE_SUFFIX, database_file
from scripts.cli.configuration import PREFIX, Configuration
from scripts.doctor.findings import Finding

EXPIRY_WARN_DAYS: Final = 21.0
OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO


def configuration(fault: BadInput | None, file: str | None) -> Iterator[Finding]:
    """`fault`: why it was refused, if it was. `file`: the TOML file in use."""
    if fault is None:
        variables = sum(name.upper().startswith(PREFIX) for name in os.environ)
        source = "no file" if file is None else file
        yield Finding("configuration", "ok", f"every key is known and allowed ({source}, {variables} variables)")
        return
    for sentence in fault.sentences():
        advice = "Correct it; the other checks use the default of the key. scripts/OPERATING.md has all keys"
        yield Finding("configuration", "failed", sentence, advice)


def network(settings: NetworkSettings) -> Iterator[Finding]:
    """Where `serve` would listen, and its certificate."""
    try:
        listening = plan(settings)
    except BadInput as error:
        yield Finding("network", "failed", error.detail, "Correct these keys: inforce serve would not start")
        return
    hosts = ", ".join(sorted(listening.hosts))
    yield Finding("network", "ok", f"serve would listen on {listening.address}, and answer to {hosts}")
    if listening.tls is None:
        return
    cert, key = listening.tls
    name = listening.public_name
    try:
        days = days_left(cert, key, name)
    except BadInput as error:
        yield Finding("certificate", "failed", error.detail, "Install another certificate, and restart the servers")
        return
    fact = f"{cert} is valid for another {days:.0f} days"
    if days >= EXPIRY_WARN_DAYS:
        yield Finding("certificate", "ok", fact)
    else:
        advice = "Renew it, and restart the servers: they read it at the start"
        yield Finding("certificate", "warning", fact, advice)
    if warning := key_warning(key):
        fact, _, advice = warning.partition("; ")
        yield Finding("permissions", "warning", fact, f"{advice[:1].upper()}{advice[1:]}")


def permissions(keys: Configuration, config_file: str | None, audits: Path) -> Iterator[Finding]:
    """Files and folders with somebody's settings or with secrets that others than their owner may use."""
    open_ = [path for path in _private_places(keys, config_file, audits) if _mode(path) & OTHERS]
    for path in open_:
        right = "700" if path.is_dir() else "600"
        yield Finding(
            "permissions",
            "warning",
            f"{path} is open to others than its owner (mode {_mode(path):04o})",
            f"Run chmod {right} {path}, unless a group shall read it",
        )
    if not open_:
        yield Finding("permissions", "ok", "files and folders are for their owner only")


def _private_places(keys: Configuration, config_file: str | None, audits: Path) -> Iterable[Path]:
    file = database_file(keys.database)
    if file is not None:
        for suffix in ("", "-wal", "-shm", NOTE_SUFFIX):
            yield file.with_name(file.name + suffix)
    yield audits
    if config_file is not None:
        yield Path(config_file)


def _mode(path: Path) -> int:
    """0 for a file that does not exist."""
    try:
        return stat.S_IMODE(path.stat().st_mode)
    except OSError:
        return 0


def disk_room(keys: Configuration, audits: Path) -> Iterator[Finding]:
    """Free space of the disks that a server writes to."""
    file = database_file(keys.database)
    for disk in disks(None if file is None or "mode=ro" in keys.database else file.absolute(), audits):
        least = disk.least(keys.disk_free_min)
        fact = f"the disk of the {disk.place} has {_size(disk.free)} of {_size(disk.total)} free"
        if disk.free < least:
            advice = f"Free space: /readyz fails below {_size(least)}, and nothing is recorded on a full disk"
            yield Finding("disk", "failed", fact, advice)
        else:
            yield Finding("disk", "ok", fact)


def _size(bytes_: int) -> str:
    return f"{bytes_ / 1024**3:.1f} GiB" if bytes_ >= 1024**3 else f"{bytes_ / 1024**2:.0f} MiB"
