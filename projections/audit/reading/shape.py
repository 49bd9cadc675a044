"""The shape of a log: how its bytes become rows. `fields.py` then says how a row becomes a request record.

Proved by tests/audit/io/test_shapes.py.
"""

from __future__ import annotations

from typing import Any, Final, Literal, NamedTuple, get_args

from ledger.errors import BadRecord
from ledger.subjects import is_text

LogFormat = Literal["jsonl", "csv", "json"]
LOG_FORMATS: Final[tuple[LogFormat, ...]] = get_args(LogFormat)

ROW_BYTES_MAX: Final = 64 << 20
"""A log is untrusted: a row with more bytes is one reject, however much a packed file unpacks to."""
ROW_BYTES_LIMIT: Final = 1 << 30
"""The most that `row_bytes_max` can be: places within a block are 32-bit numbers."""


LogForm = Literal["JSON Lines", "JSON", "CSV", "a spreadsheet", "Parquet"]
"""The form of a log, for people."""
_FORMS_OF: Final[dict[str, tuple[LogForm, ...]]] = {
    "delimiter": ("CSV",),
    "rows": ("JSON",),
    "sheet": ("a spreadsheet",),
}
"""Field of `LogShape` → the forms for which it has a meaning."""
_NAMES: Final = {"row_bytes_max": "max_row_bytes"}
"""Field of `LogShape` → its name for users, if that is another one."""


class LogShape(NamedTuple):
    """`log_format` None: recognise it by the log's first bytes. `row_bytes_max`: the most bytes of a row. `delimiter`:
    what stands between two cells of CSV; None: recognise it by the header. `rows`: the path to the list of rows in each
    document of JSON. `sheet`: the sheet of a spreadsheet; None: its first."""

    log_format: LogFormat | None = None
    row_bytes_max: int = ROW_BYTES_MAX
    delimiter: str | None = None
    rows: str | None = None
    sheet: str | None = None

    def check(self) -> LogShape:
        """Raises `BadRecord` for a shape that no log can have."""
        if not 1 <= self.row_bytes_max <= ROW_BYTES_LIMIT:
            raise BadRecord(f"a row has between 1 and {ROW_BYTES_LIMIT} bytes, not {self.row_bytes_max}")
        if self.delimiter is not None and (
            len(self.delimiter) != 1 or not self.delimiter.isascii() or self.delimiter in '"\r\n\0'
        ):
            raise BadRecord("a delimiter is one ASCII character, such as ; or a tab, and no quote")
        if self.rows is not None and not all(self.rows.split(".")):
            raise BadRecord("the path to the list of rows is names with dots between them, as in records or data.rows")
        if not is_text(f"{self.rows}{self.sheet}"):
            raise BadRecord("the name of a list or a sheet is not UTF-8")
        return self

    def unused(self, form: LogForm) -> list[str]:
        """Those of `named` that have no meaning for a log of that form."""
        return [option for option in sorted(self.named()) if form not in _FORMS_OF[option.removeprefix("--")]]

    def named(self) -> set[str]:
        """The options of this shape that mean something for some forms of logs only."""
        return {f"--{name}" for name in _FORMS_OF if getattr(self, name) is not None}

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
