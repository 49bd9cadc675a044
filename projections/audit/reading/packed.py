"""A log's bytes as they were before they were packed: gzip, bzip2, xz or zstd, told by the first bytes, and UTF-16 as
UTF-8. Frames may follow one another, as `cat a.gz b.gz` leaves them. Proved by tests/audit/io/test_packed.py.
"""

from __future__ import annotations

import bz2
import codecs
import io
import lzma
import sys
import zlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

if sys.version_info >= (3, 14):  # pragma: no cover
    from compression import zstd
else:
    from backports import zstd

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer

FIRST_BYTES: Final = 4
"""The most first bytes that tell how a log is packed."""
_KNOWN_BY: Final = 4
"""The first bytes that tell what a log is, once it is unpacked."""
_CHUNK: Final = 1 << 18
_WINDOW_LOG_MAX: Final = 31
"""The largest window of zstd: 2 GiB, for which a packer must be asked (`zstd --long=31`)."""
_XZ_MEMORY_MAX: Final = 1 << 30
_SKIPPABLE: Final = b"\x2a\x4d\x18"
"""The rest of the first bytes of a frame of zstd that holds no data; its first byte is 0x50 to 0x5f."""


class Frame(Protocol):
    """A decompressor of one frame, as the modules of the standard library have it."""

    @property
    def eof(self) -> bool: ...

    @property
    def needs_input(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    def decompress(self, data: ReadableBuffer, max_length: int = -1) -> bytes: ...


class _Gzip:
    """A `Frame` of gzip."""

    def __init__(self) -> None:
        self._frame = zlib.decompressobj(wbits=31)
        self.needs_input = True

    @property
    def eof(self) -> bool:
        return self._frame.eof

    @property
    def unused_data(self) -> bytes:
        return self._frame.unused_data

    def decompress(self, data: ReadableBuffer, max_length: int = -1) -> bytes:
        tail = self._frame.unconsumed_tail
        unpacked = self._frame.decompress(tail + bytes(data) if tail else data, max_length)
        self.needs_input = not self._frame.unconsumed_tail and len(unpacked) < max_length
        return unpacked


class Packing(NamedTuple):
    name: str
    frame: Callable[[], Frame]
    padded: bool = False
    """Whether zeros may follow a frame."""


_BY_FIRST_BYTES: Final = {
    b"\x1f\x8b": Packing("gzip", _Gzip, padded=True),
    b"BZh": Packing("bzip2", bz2.BZ2Decompressor),
    b"\xfd7zX": Packing("xz", lambda: lzma.LZMADecompressor(memlimit=_XZ_MEMORY_MAX), padded=True),
    b"\x28\xb5\x2f\xfd": Packing(
        "zstd",
        lambda: zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: _WINDOW_LOG_MAX}),
    ),
}
FAULTS: Final = (EOFError, OSError, zlib.error, lzma.LZMAError, zstd.ZstdError)
"""The errors of reading. For damaged data that is an `OSError` without a number, or an error of the packing's own."""


def packing_of(first_bytes: bytes) -> Packing | None:
    for magic, packing in _BY_FIRST_BYTES.items():
        if first_bytes.startswith(magic):
            return packing
    if first_bytes[1:4] == _SKIPPABLE and 0x50 <= first_bytes[0] <= 0x5F:
        return _BY_FIRST_BYTES[b"\x28\xb5\x2f\xfd"]
    return None


class Unpacked(io.RawIOBase):
    """The frames of a stream, one after the other. Raises `EOFError` if the last one has no end, and other FAULTS."""

    def __init__(self, raw: Any, packing: Packing) -> None:
        self._raw = raw
        self._packing = packing
        self._frame: Frame | None = None
        self._read_already = b""
        self._is_known = False
        self._error: Exception | None = None

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        view = memoryview(buffer)
        size = self._read(view)
        # Enough to tell what the bytes are, however few a frame holds.
        while 0 < size < min(_KNOWN_BY, len(view)) and not self._is_known:
            try:
                more = self._read(view[size:])
            except FAULTS:
                # The next call raises it again.
                break
            if not more:
                break
            size += more
        self._is_known = True
        return size

    def _read(self, view: memoryview) -> int:
        if self._error is not None:
            raise self._error
        try:
            return self._unpack(view)
        except FAULTS as error:
            self._error = error
            raise

    def _unpack(self, view: memoryview) -> int:
        while True:
            if (self._frame is None or self._frame.eof) and not self._begin_frame():
                return 0
            frame = self._frame
            assert frame is not None
            data = b""
            if frame.needs_input:
                data, self._read_already = self._read_already or self._raw.read1(_CHUNK), b""
                if not data:
                    raise EOFError
            unpacked = frame.decompress(data, len(view))
            if unpacked:
                view[: len(unpacked)] = unpacked
                return len(unpacked)

    def _begin_frame(self) -> bool:
        data = b"" if self._frame is None else self._frame.unused_data
        while True:
            data = data or self._raw.read1(_CHUNK)
            if self._packing.padded and self._frame is not None:
                data_left = data.lstrip(b"\0")
                if data and not data_left:
                    data = b""
                    continue
                data = data_left
            if not data:
                return False
            self._frame, self._read_already = self._packing.frame(), data
            return True


UTF16: Final = {codecs.BOM_UTF16_LE: "utf-16-le", codecs.BOM_UTF16_BE: "utf-16-be"}


class _Utf8(io.RawIOBase):
    """Text of UTF-16 as UTF-8. Halves of surrogate pairs stay what they are, so that they cost no other row."""

    def __init__(self, raw: Any, encoding: str) -> None:
        self._raw = raw
        self._decoder = codecs.getincrementaldecoder(encoding)("surrogatepass")
        self._waiting = b""
        self._ended = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        while not self._waiting and not self._ended:
            data = self._raw.read(_CHUNK)
            self._ended = not data
            try:
                self._waiting = self._decoder.decode(data, final=self._ended).encode("utf-8", "surrogatepass")
            except UnicodeDecodeError:
                raise EOFError from None
        view = memoryview(buffer)
        count = min(len(view), len(self._waiting))
        view[:count] = self._waiting[:count]
        self._waiting = self._waiting[count:]
        return count


class PlainBytes(NamedTuple):
    """`stream`: an `io.BufferedReader` of the bytes without packing and byte order mark.

    packing: its name in errors.
    """

    stream: Any
    packing: str


def unpack(raw: Any) -> PlainBytes:
    """`raw`: an `io.BufferedReader`."""
    packing = packing_of(raw.peek(FIRST_BYTES)[:FIRST_BYTES])
    plain: Any = raw if packing is None else io.BufferedReader(Unpacked(raw, packing), _CHUNK)
    try:
        first_bytes = plain.peek(_KNOWN_BY)[:_KNOWN_BY]
    except FAULTS:
        # The next reading raises it again.
        first_bytes = b""
    encoding = UTF16.get(first_bytes[:2])
    name = "text" if packing is None else packing.name
    if encoding is not None:
        plain.read(2)
        return PlainBytes(io.BufferedReader(_Utf8(plain, encoding), _CHUNK), f"{name} in UTF-16")
    if first_bytes.startswith(codecs.BOM_UTF8):
        plain.read(len(codecs.BOM_UTF8))
    return PlainBytes(plain, name)
