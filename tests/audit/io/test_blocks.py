"""Blocks are whole lines; together they are the log, and the digest covers its bytes as they arrived."""

import bz2
import gzip
import hashlib
import io
import lzma
import os
import random
import threading
from collections.abc import Callable
from typing import Any, NamedTuple

import pyarrow as pa
import pytest

from ledger.errors import BadRecord
from projections.audit.reading.blocks import BLOCK_PADDING, LINES_MAX, HashingStream, LineBlock, LineBlocks


def zstd(data: bytes) -> bytes:
    return bytes(pa.compress(data, "zstd", asbytes=True))


SKIPPABLE = b"\x5a\x2a\x4d\x18\x02\0\0\0ab"
PACKED: dict[str, Callable[[bytes], bytes]] = {
    "plain": lambda data: data,
    "gzip": gzip.compress,
    "gzip, two members": lambda data: gzip.compress(data[:100]) + gzip.compress(data[100:]),
    "zstd": zstd,
    "zstd, two frames and one without data": lambda data: (
        zstd(data[:9]) + b"\x5a\x2a\x4d\x18\x02\0\0\0ab" + zstd(data[9:])
    ),
    "bzip2, two streams": lambda data: bz2.compress(data[:100]) + bz2.compress(data[100:]),
    "xz, two streams with padding": lambda data: lzma.compress(data[:100]) + bytes(8) + lzma.compress(data[100:]),
}


class Snapshot(NamedTuple):
    """A block with a copy of its lines."""

    first: int
    lines: bytes
    last: bool


def blocks(body: bytes, size: int = 64, row_bytes_max: int = 1 << 20) -> tuple[list[Snapshot], str]:
    digest = hashlib.sha256()
    reading = LineBlocks(HashingStream(io.BytesIO(body), digest), "a.log", size, row_bytes_max)
    return list(map(snapshot, reading)), digest.hexdigest()


def snapshot(block: LineBlock) -> Snapshot:
    assert len(block.data) >= block.size + BLOCK_PADDING
    lines = bytes(block.data[: block.size])
    assert block.lines == lines.count(b"\n")
    return Snapshot(block.first, lines, block.last)


def log(seed: int) -> bytes:
    chance = random.Random(seed)
    return b"".join(bytes(chance.choices(b"ab\xc3\xa4 ", k=chance.randrange(90))) + b"\n" for _ in range(60))


@pytest.mark.parametrize("packed", PACKED)
@pytest.mark.parametrize("size", [1, 7, 64, 1 << 20])
def test_blocks_together_are_the_log_in_whole_lines(packed: str, size: int) -> None:
    for seed in range(5):
        data = log(seed)
        body = PACKED[packed](data)
        snapshots, digest = blocks(body, size)
        assert b"".join(block.lines for block in snapshots) == data
        assert digest == hashlib.sha256(body).hexdigest()
        first = 1
        for block in snapshots:
            assert block.lines.endswith(b"\n")
            assert block.first == first
            first += block.lines.count(b"\n")


@pytest.mark.parametrize("packed", PACKED)
def test_a_last_line_without_a_newline_gets_one(packed: str) -> None:
    snapshots, _ = blocks(PACKED[packed](b"one\n" * 40 + b"two"))
    assert b"".join(block.lines for block in snapshots) == b"one\n" * 40 + b"two\n"
    assert [block.last for block in snapshots][-1]
    assert not any(block.last for block in snapshots[:-1])


def test_an_empty_log_has_no_block() -> None:
    assert blocks(b"") == ([], hashlib.sha256(b"").hexdigest())


def test_a_byte_order_mark_is_part_of_the_digest_but_not_of_the_first_line() -> None:
    body = b"\xef\xbb\xbfone\n"
    assert blocks(body) == ([Snapshot(1, b"one\n", False)], hashlib.sha256(body).hexdigest())


def test_a_line_that_is_larger_than_a_row_may_be_comes_in_parts_and_costs_no_byte() -> None:
    body = b"one\n" + b"x" * (1 << 20) + b"\nthree\n"
    snapshots, digest = blocks(body, 1 << 12, 1 << 16)
    assert b"".join(block.lines for block in snapshots) == body
    parts = [block for block in snapshots if b"\n" not in block.lines]
    assert parts
    assert {block.first for block in parts} == {2}
    # The more is carried over, the more is read at once.
    assert max(len(block.lines) for block in snapshots) <= 4 << 16
    assert digest == hashlib.sha256(body).hexdigest()


def test_a_block_has_a_bounded_number_of_lines_unless_lines_were_put_back() -> None:
    body = b"\n" * (3 * LINES_MAX)
    snapshots, _ = blocks(body, 1 << 23)
    assert max(len(block.lines) for block in snapshots) == LINES_MAX
    reading = LineBlocks(HashingStream(io.BytesIO(body), hashlib.sha256()), "a.log", 1 << 23)
    ahead = iter(reading)
    next(ahead)
    second = next(ahead)
    assert second.lines == LINES_MAX
    reading.put_back(bytes(second.data[: second.size]), second.lines)
    assert next(ahead).lines == 2 * LINES_MAX


@pytest.mark.parametrize("packed", PACKED)
def test_the_format_is_recognised_even_if_the_first_bytes_arrive_one_by_one(packed: str) -> None:
    body = PACKED[packed](b"\xef\xbb\xbf" + log(3))
    out, into = os.pipe()
    byte_read = threading.Event()

    class Slow(io.FileIO):
        def read(self, size: int | None = -1, /) -> Any:
            data = super().read(-1 if size is None else size)
            byte_read.set()
            return data

    def write() -> None:
        with os.fdopen(into, "wb", buffering=0) as pipe:
            for at in range(4):
                pipe.write(body[at : at + 1])
                byte_read.wait()
                byte_read.clear()
            pipe.write(body[4:])

    writer = threading.Thread(target=write)
    writer.start()
    with Slow(out) as pipe:
        digest = hashlib.sha256()
        snapshots = [snapshot(block).lines for block in LineBlocks(HashingStream(pipe, digest), "a.log", 64)]
    writer.join()
    assert b"".join(snapshots) == log(3)
    assert digest.hexdigest() == hashlib.sha256(body).hexdigest()


@pytest.mark.parametrize("packed", [name for name in PACKED if name != "plain"])
def test_an_error_for_truncated_data_names_the_last_whole_line(packed: str) -> None:
    body = PACKED[packed](log(1) * 50)
    with pytest.raises(BadRecord, match=r"a\.log: the .* data, in line \d+, ends too early"):
        blocks(body[: len(body) // 2])


def test_lines_that_are_put_back_are_delivered_again() -> None:
    digest = hashlib.sha256()
    reading = LineBlocks(HashingStream(io.BytesIO(b"one\ntwo\nthree\n"), digest), "a.log", 8)
    ahead = iter(reading)
    first = snapshot(next(ahead))
    assert first == Snapshot(1, b"one\ntwo\n", False)
    reading.put_back(b"two\n", 1)
    rest = list(map(snapshot, ahead))
    assert rest[0].first == 2
    assert b"".join(block.lines for block in rest) == b"two\nthree\n"
