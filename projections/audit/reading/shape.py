"""The shape of a log: how its bytes become rows. `fields.py` then says how a row becomes a request record.

Proved by tests/audit/io/test_shapes.py.
"""

from __future__ import annotations

from typing import Any, Final, Literal, NamedTuple, get_args

from ledger.errors import BadRecord

LogFormat = Literal["jsonl", "csv"]
LOG_FORMATS: Final[tuple[LogFormat, ...]] = get_args(LogFormat)

ROW_BYTES_MAX: Final = 64 << 20
"""A log is untrusted: a row with more bytes is one reject, however much a packed file unpacks to."""
ROW_BYTES_LIMIT: Final = 1 << 30
"""The most that `row_bytes_max` can be: places within a block are 32-bit numbers."""


_NAMES: Final = {"row_bytes_max": "max_row_bytes"}
"""Field of `LogShape` → its name for users, if that is another one."""


class LogShape(NamedTuple):
    """`log_format` None: recognise it by the log's first bytes. `row_bytes_max`: the most bytes of a row."""

    log_format: LogFormat | None = None
    row_bytes_max: int = ROW_BYTES_MAX

    def check(self) -> LogShape:
        """Raises `BadRecord` for a shape that no log can have."""
        if not 1 <= self.row_bytes_max <= ROW_BYTES_LIMIT:
            raise BadRecord(f"a row has between 1 and {ROW_BYTES_LIMIT} bytes, not {self.row_bytes_max}")
        return self

    def json(self) -> dict[str, Any]:
        return {_NAMES.get(name, name): value for name, value in self._asdict().items()}

    def arguments(self) -> list[str]:
        """The shape as options of `inforce audit`."""
        return [
            f"--{_NAMES.get(name, name).replace('_', '-')}={value}"
            for name, value in self._asdict().items()
            if value != self._field_defaults[name]
        ]


ANY_SHAPE: Final = LogShape()
