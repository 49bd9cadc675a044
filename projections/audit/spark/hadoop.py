"""Files on the cluster's file systems, as the driver reaches them through Hadoop.

A name without a scheme is a file of this machine. Hadoop's own paths have no escapes. Proved by tests/audit/spark.
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from typing import Any, Final

from projections.audit.summary import LogDigest

_SCHEME: Final = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]*:/")


def has_scheme(name: str) -> bool:
    """Whether the name has the file system's scheme: `s3a://…`, `hdfs://…`, `file:/…`."""
    return _SCHEME.match(name) is not None


def hadoop_path(name: str) -> str:
    return name if has_scheme(name) else f"file:{os.path.abspath(name)}"


class Hadoop:
    """The file systems of one session. A failure raises the error of py4j."""

    def __init__(self, spark: Any) -> None:
        self._jvm = spark._jvm
        self._configuration = spark._jsc.hadoopConfiguration()

    def list_files(self, name: str) -> list[tuple[str, int]]:
        """(path, bytes) of one file, of all files in a folder, or of those that match a pattern."""
        system, path = self._resolve(name)
        files: list[tuple[str, int]] = []
        for match in system.globStatus(path) or []:
            if not match.isDirectory():
                files.append((match.getPath().toString(), match.getLen()))
                continue
            root = match.getPath().toString()
            below = system.listFiles(match.getPath(), True)
            while below.hasNext():
                file = below.next()
                text = file.getPath().toString()
                # Names that begin with a dot or an underscore are other programs' own files.
                if not any(name[:1] in "._" for name in text[len(root) :].strip("/").split("/")):
                    files.append((text, file.getLen()))
        return sorted(files, key=lambda one: one[0].encode())

    def exists(self, name: str) -> bool:
        system, path = self._resolve(name)
        return bool(system.exists(path))

    def stamp(self, name: str) -> tuple[int, int]:
        """(bytes, time of the last change in ms)"""
        system, path = self._resolve(name)
        status = system.getFileStatus(path)
        return status.getLen(), status.getModificationTime()

    @contextmanager
    def reading(self, name: str) -> Iterator[io.BufferedReader]:
        """The file's bytes, for a few reads here and there: each read is a call into the JVM."""
        system, path = self._resolve(name)
        with closing(system.open(path)) as stream:
            yield io.BufferedReader(_HadoopStream(self._jvm, stream, system.getFileStatus(path).getLen()))

    def digest(self, files: Iterable[tuple[str, str]]) -> LogDigest:
        """The digest of all bytes of the files (path, name), in order."""
        digests = self._jvm.org.apache.commons.codec.digest.DigestUtils
        sha256 = digests.getSha256Digest()
        sources = []
        for path, name in files:
            system, resolved = self._resolve(path)
            with closing(system.open(resolved)) as stream:
                digests.updateDigest(sha256, stream)
                sources.append((name, int(stream.getPos())))
        return LogDigest(bytes(sha256.digest()).hex(), sources)

    def write(self, name: str, content: bytes) -> None:
        """Writes a new file."""
        system, path = self._resolve(name)
        with closing(system.create(path, False)) as stream:
            stream.write(bytearray(content))

    def move_in(self, local: str, name: str) -> None:
        """Moves a file of this machine to `name`."""
        system, path = self._resolve(name)
        system.copyFromLocalFile(True, self._jvm.org.apache.hadoop.fs.Path(f"file:{local}"), path)

    def remove(self, name: str) -> None:
        """Removes a file, or a folder with all its files, if it exists."""
        system, path = self._resolve(name)
        system.delete(path, True)

    def _resolve(self, name: str) -> tuple[Any, Any]:
        """(file system, path)"""
        path = self._jvm.org.apache.hadoop.fs.Path(hadoop_path(name))
        return path.getFileSystem(self._configuration), path


class _HadoopStream(io.RawIOBase):
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
