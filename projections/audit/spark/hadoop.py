"""Files wherever the cluster's file systems are, as the driver sees them through Hadoop.

A name without a scheme is one of this machine's files. Hadoop's own paths escape nothing. Proved by tests/audit/spark.
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from projections.audit.summary import LogDigest

_SCHEME: Final = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]*:/")


def has_scheme(name: str) -> bool:
    """Whether it says itself which file system it is of: `s3a://…`, `hdfs://…`, `file:/…`."""
    return _SCHEME.match(name) is not None


def hadoop_path(name: str) -> str:
    """As Hadoop has it."""
    return name if has_scheme(name) else f"file:{os.path.abspath(name)}"


class Hadoop:
    """Of one session. Every method raises what py4j raises where the file system does."""

    def __init__(self, spark: Any) -> None:
        self._jvm = spark._jvm
        self._configuration = spark._jsc.hadoopConfiguration()

    def listed(self, name: str) -> list[tuple[str, int]]:
        """(path, bytes) of the files that a name with a scheme stands for: one, all in a folder, those of a pattern."""
        system, path = self._place(name)
        found: list[tuple[str, int]] = []
        for match in system.globStatus(path) or []:
            if not match.isDirectory():
                found.append((match.getPath().toString(), match.getLen()))
                continue
            root = match.getPath().toString()
            below = system.listFiles(match.getPath(), True)
            while below.hasNext():
                file = below.next()
                text = file.getPath().toString()
                # What begins with a dot or an underscore is other programs' own.
                if not any(part[:1] in "._" for part in text[len(root) :].strip("/").split("/")):
                    found.append((text, file.getLen()))
        return sorted(found, key=lambda one: one[0].encode())

    def exists(self, name: str) -> bool:
        system, path = self._place(name)
        return bool(system.exists(path))

    def stamp(self, name: str) -> tuple[int, int]:
        """(bytes, instant of its last change in ms)."""
        system, path = self._place(name)
        status = system.getFileStatus(path)
        return status.getLen(), status.getModificationTime()

    @contextmanager
    def reading(self, name: str) -> Iterator[io.BufferedReader]:
        """Its bytes, to be read a little here and there: each reading is a call into the JVM."""
        system, path = self._place(name)
        stream = system.open(path)
        try:
            yield io.BufferedReader(_Bytes(self._jvm, stream, system.getFileStatus(path).getLen()))
        finally:
            stream.close()

    def digest(self, files: Iterable[tuple[str, str]]) -> LogDigest:
        """Of every byte of the files (path, name), in order."""
        digests = self._jvm.org.apache.commons.codec.digest.DigestUtils
        whole = digests.getSha256Digest()
        sources = []
        for path, name in files:
            system, place = self._place(path)
            stream = system.open(place)
            try:
                digests.updateDigest(whole, stream)
                sources.append((name, int(stream.getPos())))
            finally:
                stream.close()
        return LogDigest(bytes(whole.digest()).hex(), sources)

    def write(self, name: str, content: bytes) -> None:
        """A new file."""
        system, path = self._place(name)
        stream = system.create(path, False)
        try:
            stream.write(bytearray(content))
        finally:
            stream.close()

    def move_in(self, local: str, name: str) -> None:
        """A file of this machine, to be there instead."""
        system, path = self._place(name)
        system.copyFromLocalFile(True, self._jvm.org.apache.hadoop.fs.Path(f"file:{local}"), path)

    def remove(self, name: str) -> None:
        """A folder with all that is in it, where it is."""
        system, path = self._place(name)
        system.delete(path, True)

    def _place(self, name: str) -> tuple[Any, Any]:
        path = self._jvm.org.apache.hadoop.fs.Path(hadoop_path(name))
        return path.getFileSystem(self._configuration), path


class _Bytes(io.RawIOBase):
    def __init__(self, jvm: Any, stream: Any, size: int) -> None:
        self._jvm = jvm
        self._stream = stream
        self._size = size
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, into: Any) -> int:
        count = max(0, min(len(into), self._size - self._at))
        if count:
            self._stream.seek(self._at)
            into[:count] = self._jvm.org.apache.commons.io.IOUtils.toByteArray(self._stream, count)
            self._at += count
        return count
