"""Reads leaves for an index a page of bytes at a time: values of 64 KiB take no more memory than flags.

Proved by tests/audit/index/test_read_leaves.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from ledger.reader import STREAM_BYTES
from ledger.recorders.contract import StreamSize
from ledger.store import Ledger

READ_BYTES: Final = 4 * 1024 * 1024
"""Leaves that are parsed at once, about. Pages of ordinary events are smaller."""


class LeafPage(NamedTuple):
    """The leaves with after < position <= until, joined by line feeds."""

    after: int
    until: int
    leaves: bytes


def leaf_pages(ledger: Ledger, after: int, until: int, events: int) -> Iterator[LeafPage]:
    """All leaves with after < position <= until, in order: up to `events` or about `READ_BYTES` at a time."""
    recorder = ledger.recorder
    while after < until:
        end = min(after + recorder.page_length(after, events, until, READ_BYTES), until)
        yield LeafPage(after, end, recorder.leaves(after, end))
        after = end


def history_pages(ledger: Ledger, sizes: dict[str, StreamSize], until: int) -> Iterator[bytes]:
    """All leaves of these subjects at positions up to `until`, joined by line feeds: about `READ_BYTES` at a time.

    `sizes`: see `Recorder.stream_sizes`.
    """
    some: list[str] = []
    bytes_ = 0
    for subject, size in sizes.items():
        if size.bytes > READ_BYTES:
            yield from _pages_of(ledger, subject, size.events)
            continue
        if bytes_ + size.bytes > READ_BYTES:
            yield from _together(ledger, some, until)
            some, bytes_ = [], 0
        some.append(subject)
        bytes_ += size.bytes
    yield from _together(ledger, some, until)


def _together(ledger: Ledger, subjects: Sequence[str], until: int) -> Iterator[bytes]:
    leaves = ledger.recorder.leaves_of(subjects, until) if subjects else b""
    if leaves:
        yield leaves


def _pages_of(ledger: Ledger, subject: str, version: int) -> Iterator[bytes]:
    page: list[bytes] = []
    bytes_ = 0
    for entry in ledger.stream_entries(subject, until=version):
        page.append(entry.leaf)
        bytes_ += len(entry.leaf)
        if bytes_ >= STREAM_BYTES:
            yield b"\n".join(page)
            page, bytes_ = [], 0
    if page:
        yield b"\n".join(page)
