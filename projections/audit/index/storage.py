"""Stores an index in a folder: one file of bytes for each array, and a manifest that says how much of each counts.

A file only grows at its end, and the manifest, replaced as a whole, has its length and its CRC-32. So a process that is
killed at any moment leaves either the old state or the new one. Changes to subjects that are in the index already are a
log of patches, applied when the arrays are mapped (privately: no process writes into the files of another). Each index
that is compiled anew gets a folder of its own, a *generation*.
"""

from __future__ import annotations

import json
import math
import mmap
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ledger.private_files import make_private_folder, open_private, write_private
from projections.audit.index.directory import DirectoryEvents
from projections.audit.index.schema import (
    FORMAT,
    SETTINGS,
    Assertions,
    CatalogSteps,
    Links,
    Models,
    Policies,
    PolicyIndex,
    Slices,
    Subjects,
    Texts,
)
from projections.temporal.coordinates import KnownAt, Pin

try:
    # The same checksum five times as fast: every audit checks all bytes of its index.
    from isal.isal_zlib import crc32
except ImportError:
    from zlib import crc32

MANIFEST: Final = "manifest.json"
PARTS: Final[Mapping[str, type[Any]]] = {
    "subjects": Subjects,
    "slices": Slices,
    "links": Links,
    "policies": Policies,
    "models": Models,
    "texts": Texts,
    "assertions": Assertions,
}
_STORED_NAMES: Final = {"assertions": "said", "assertions_of": "said_of"}
"""Attribute → its name in the stored format, where the two differ."""
PATCHED: Final = (
    "link_start",
    "link_count",
    "state_start",
    "state_count",
    "later",
    "assertions_of",
    "first_recorded_at",
)
"""The columns of Slices by subject: a patch of subjects is int64[8], a code and then these."""
_SUBJECT_PATCHES: Final = "patches.subjects"
_SLOT_PATCHES: Final = "patches.slots"
"""uint64[2]: a place, and what is there."""
_THREADS: Final = 2

Array = NDArray[Any]


class NotUsable(Exception):
    """The stored index cannot be used. Its text is a half-sentence that ends a message."""


def stored_name(part: str, field: str) -> str:
    """The name of the file for one array of the index: `links.rows`."""
    return f"{_STORED_NAMES.get(part, part)}.{_STORED_NAMES.get(field, field)}"


def arrays_of(index: PolicyIndex) -> dict[str, Array]:
    """By name: the arrays that are stored as files."""
    arrays = {
        stored_name(part, field.name): getattr(getattr(index, part), field.name)
        for part, type_ in PARTS.items()
        for field in fields(type_)
    }
    return arrays | {
        "since": index.since,
        _SUBJECT_PATCHES: np.zeros((0, 1 + len(PATCHED)), np.int64),
        _SLOT_PATCHES: np.zeros((0, 2), np.uint64),
    }


class StoredIndex:
    """One generation of an index, described by its manifest."""

    def __init__(self, folder: Path, body: Mapping[str, Any]) -> None:
        self.folder = folder
        self.body = body
        self.pin = Pin(*body["pin"])
        self.known_at: KnownAt = body["known_at"]

    @property
    def generation(self) -> Path:
        return self.folder / str(self.body["generation"])

    def rows(self, name: str) -> int:
        return int(self.body["arrays"][name]["shape"][0])

    def _bytes(self, name: str) -> int:
        entry = self.body["arrays"][name]
        return math.prod(map(int, entry["shape"])) * int(np.dtype(entry["dtype"]).itemsize)

    def verify(self) -> None:
        """Raises `NotUsable` if a file differs from what was written."""
        # The largest first: one array has half of all bytes.
        names = sorted(self.body["arrays"], key=self._bytes, reverse=True)
        with ThreadPoolExecutor(_THREADS) as pool:
            for name, sound in zip(names, pool.map(self._is_sound, names), strict=True):
                if not sound:
                    raise NotUsable(f"its file {name} is not what was written")

    def _is_sound(self, name: str) -> bool:
        array = self._map(name)
        return crc32(array.reshape(-1).view(np.uint8).data) == int(self.body["arrays"][name]["crc32"])

    def _map(self, name: str) -> Array:
        entry = self.body["arrays"][name]
        shape, dtype = tuple(entry["shape"]), np.dtype(entry["dtype"])
        if 0 in shape:
            return np.zeros(shape, dtype)
        try:
            with (self.generation / name).open("rb") as file:
                length = math.prod(shape) * dtype.itemsize
                mapped = mmap.mmap(file.fileno(), length, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_WRITE)
            return np.frombuffer(mapped, dtype).reshape(shape)
        except (OSError, ValueError) as error:
            raise NotUsable(f"its file {name} cannot be mapped") from error

    def index(self) -> PolicyIndex:
        """Mapped. Raises `NotUsable`."""
        arrays = {name: self._map(name) for name in self.body["arrays"]}
        patches, slots = arrays.pop(_SUBJECT_PATCHES), arrays.pop(_SLOT_PATCHES)
        for place, name in enumerate(PATCHED, 1):
            column = arrays[stored_name("slices", name)]
            column[patches[:, 0]] = patches[:, place].astype(column.dtype)
        arrays["subjects.slots"][slots[:, 0].astype(np.int64)] = slots[:, 1]
        parts = {
            part: type_(**{field.name: arrays[stored_name(part, field.name)] for field in fields(type_)})
            for part, type_ in PARTS.items()
        }
        catalogs = [
            CatalogSteps(
                *(
                    np.array(steps[field.name], _CATALOG_TYPES[field.name]).reshape(_shape(field.name))
                    for field in fields(CatalogSteps)
                )
            )
            for steps in self.body["catalogs"]
        ]
        return PolicyIndex(
            pin=self.pin,
            known_at=self.known_at,
            catalog=catalogs[0],
            later_catalog=catalogs[1],
            since=arrays["since"],
            directory=DirectoryEvents.from_json(self.body["directory"]),
            **parts,
        )


_CATALOG_TYPES: Final[Mapping[str, type[np.generic]]] = {
    "at": np.int64,
    "position": np.uint32,
    "kinds": np.uint8,
    "default": np.int32,
    "protective": np.int32,
    "demands": np.uint8,
    "demand_position": np.uint32,
}


def _shape(column: str) -> tuple[int, ...]:
    return (-1,) if column in ("at", "demands", "demand_position") else (-1, len(SETTINGS))


def load(folder: Path) -> StoredIndex | None:
    """The index in `folder`; None if there is none. Raises `NotUsable` and `OSError`."""
    try:
        text = (folder / MANIFEST).read_bytes()
    except FileNotFoundError:
        return None
    try:
        whole = json.loads(text)
        body = whole["body"]
        if whole["format"] != FORMAT:
            raise NotUsable("it is of another format")
        if crc32(_written(body)) != whole["crc32"]:
            raise NotUsable("its manifest is not what was written")
        return StoredIndex(folder, body)
    except (ValueError, KeyError, TypeError) as error:
        raise NotUsable("its manifest cannot be read") from error


def write(folder: Path, index: PolicyIndex) -> StoredIndex:
    """Writes a new generation, which replaces the stored one. Raises `OSError`."""
    make_private_folder(folder)
    generation = f"generation-{secrets.token_hex(8)}"
    make_private_folder(folder / generation, exist_ok=False)
    try:
        arrays = {}
        for name, array in arrays_of(index).items():
            content = np.ascontiguousarray(array)
            flat = content.reshape(-1).view(np.uint8)
            with open_private(folder / generation / name, "wb") as file:
                file.write(flat.data)
            arrays[name] = {"dtype": content.dtype.str, "shape": list(content.shape), "crc32": crc32(flat.data)}
        return _replace(folder, {"generation": generation, "arrays": arrays, **_rest(index)})
    except BaseException:
        shutil.rmtree(folder / generation, ignore_errors=True)
        raise


def append(
    stored: StoredIndex,
    more: Mapping[str, Array],
    pin: Pin,
    catalogs: tuple[CatalogSteps, CatalogSteps],
    directory: DirectoryEvents,
) -> StoredIndex:
    """Appends rows to the arrays that `more` names. Raises `OSError`. The caller holds the lock."""
    arrays = dict(stored.body["arrays"])
    for name, array in more.items():
        entry = arrays[name]
        content = np.ascontiguousarray(array, np.dtype(entry["dtype"]))
        if not len(content):
            continue
        flat = content.reshape(-1).view(np.uint8)
        row_bytes = flat.nbytes // len(content)
        # Overwrites rows that a killed process may have left there.
        with (stored.generation / name).open("r+b") as file:
            file.seek(entry["shape"][0] * row_bytes)
            file.write(flat.data)
        arrays[name] = {
            **entry,
            "shape": [entry["shape"][0] + len(content), *entry["shape"][1:]],
            "crc32": crc32(flat.data, entry["crc32"]),
        }
    body = {"generation": stored.body["generation"], "arrays": arrays, "pin": list(pin), "known_at": stored.known_at}
    body |= {"catalogs": [_catalog(steps) for steps in catalogs], "directory": directory.as_json()}
    return _replace(stored.folder, body)


def _rest(index: PolicyIndex) -> dict[str, Any]:
    catalogs = [_catalog(steps) for steps in (index.catalog, index.later_catalog)]
    return {
        "pin": list(index.pin),
        "known_at": index.known_at,
        "catalogs": catalogs,
        "directory": index.directory.as_json(),
    }


def _catalog(steps: CatalogSteps) -> dict[str, Any]:
    return {field.name: getattr(steps, field.name).tolist() for field in fields(CatalogSteps)}


def _replace(folder: Path, body: Mapping[str, Any]) -> StoredIndex:
    beside = folder / f".{MANIFEST}.{secrets.token_hex(4)}"
    try:
        whole = {"format": FORMAT, "crc32": crc32(_written(body)), "body": body}
        write_private(beside, json.dumps(whole).encode())
        beside.replace(folder / MANIFEST)
    finally:
        beside.unlink(missing_ok=True)
    return StoredIndex(folder, body)


def _written(body: Any) -> bytes:
    return json.dumps(body, sort_keys=True).encode()


def clear_others(stored: StoredIndex) -> None:
    """Removes the generations that no manifest names. A process that has mapped one can still read it."""
    for other in _generations(stored.folder):
        if other != stored.generation:
            shutil.rmtree(other, ignore_errors=True)


def _generations(folder: Path) -> Iterator[Path]:
    for name in os.listdir(folder):
        if name.startswith("generation-"):
            yield folder / name


def remove(folder: Path) -> None:
    """Removes an index as far as possible: its manifest first, so that no process starts to read it."""
    (folder / MANIFEST).unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)
