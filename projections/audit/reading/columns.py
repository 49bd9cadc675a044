"""The columns of a log that no field is read from: which they are, and which of them may hold a field by another name.

A log of a gateway has many columns that are no fields of a request record, so they are ignored, and named once. A
column whose name is near to a missing field's (`org`, `OrgId`, `timestamp`) is proposed for `--map`. Nothing is read
from it unasked. Proved by tests/audit/io/test_columns.py.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple

from projections.audit.reading.fields import FIELDS, WHO, ColumnMapping

ROWS_SEEN: Final = 1000
"""The first rows of a log or of a part of it, whose members are noted."""
_NAMES_SHOWN: Final = 12
_NAMES_MAX: Final = 400
_NAME_LENGTH_SHOWN: Final = 60
_DEPTH: Final = 4
_ALIKE: Final = 0.84
"""The least similarity of a name with a typing error: `handling.storred`, `acount_id`."""

_OTHER_NAMES: Final[Mapping[str, str]] = {
    "request_id": "id request requestid reqid callid traceid xrequestid eventid genairesponseid",
    "at": "time timestamp ts date datetime createdat created starttime startedat requesttime requestedat when "
    "starttimeunixnano eventtime requestcreatedat zeit zeitpunkt datum",
    "key_id": "key apikey apikeyid keyhash userapikeyhash virtualkey keyname apikeyname consumerid credentialid",
    "account_id": "account user userid accountname username enduser customer customerid email useremail "
    "userapikeyuserid",
    "org_id": "org organization organisation organizationid organisationid orgname tenant tenantid company companyid "
    "workspace workspaceid workspacename userapikeyorgid",
    "project_id": "project team teamid projectname userapikeyprojectid userapikeyteamid",
    "model_id": "model modelname requestedmodel requestmodel aimodel genairequestmodel genaimodelname "
    "providedmodelname deployment engine",
    "enforced_position": "position policyposition ledgerposition",
    "handling.stored": "stored isstored retained persisted logged",
    "handling.cached": "cached cachehit iscached cachestatus fromcache",
    "handling.trained": "trained usedfortraining training istrained",
    "handling.forwarded_to": "forwardedto provider providername customllmprovider upstream aiorg genaiprovidername "
    "genaisystem genaibackendname",
    "handling.region": "region inferenceregion location datacenter awsregion",
    "handling.network": "network networktype",
    "handling.precision": "precision quantization dtype",
    "handling.distilled": "distilled isdistilled",
    "handling.system_prompt_forced": "systempromptforced forcedsystemprompt",
    "handling.censored": "censored iscensored",
    "handling.revision": "revision modelrevision modelversion",
}
"""Field → names that logs give it, in small letters and digits only."""


def _bare(name: str) -> str:
    return "".join(re.findall(r"[^\W_]", name)).lower()


_BY_BARE_NAME: Final = {name: field for field, names in _OTHER_NAMES.items() for name in names.split()} | {
    _bare(field): field for field in FIELDS
}


class Proposal(NamedTuple):
    """The column that may hold the field."""

    field: str
    column: str


class ColumnSurvey:
    """The columns of one log, and the fields that are read from none of them."""

    def __init__(self, mapping: ColumnMapping, present: Iterable[str]) -> None:
        """`present`: fields that have a value without a column."""
        self.names: dict[str, None] = {}
        """Columns, and the members of a row of JSON, in the order in which they were first seen."""
        self._paths: dict[str, None] = {}
        self._by_column: dict[str, list[str]] = {}
        for field in FIELDS:
            self._by_column.setdefault(mapping.column(field), []).append(field)
        self._read = {column for column in self._by_column if column}
        self._beginnings = {column[:at] for column in self._read for at in _dots(column)}
        self._is_mapped = any(mapping.columns.values())
        # A field that was mapped needs no proposal: a log without its column has an error of its own.
        self._present = {*present, *mapping.columns}

    def note(self, names: Iterable[str], fields: Iterable[str] = ()) -> None:
        """`fields`: those that are read from these columns by other names than theirs."""
        self._present.update(fields)
        for name in names:
            if name not in self.names and len(self.names) < _NAMES_MAX:
                self.names[name] = None
            self._present.update(self._by_column.get(name, ()))

    def note_row(self, row: Any) -> None:
        """Notes the members of a row of JSON, inner ones too."""
        if isinstance(row, dict):
            self.note(row)
            self._note_paths("", row, 1)

    def _note_paths(self, path: str, row: Mapping[str, Any], depth: int) -> None:
        for name, value in row.items():
            inner = f"{path}.{name}" if path else name
            self._present.update(self._by_column.get(inner, ()))
            if isinstance(value, dict) and depth < _DEPTH:
                self._note_paths(inner, value, depth + 1)
            elif path and len(self._paths) < _NAMES_MAX:
                self._paths[inner] = None

    def facts(self) -> set[tuple[str, str]]:
        """Returns all notes, for a survey of the same log in another process."""
        kinds = (("name", self.names), ("path", self._paths), ("present", self._present))
        return {(kind, text) for kind, texts in kinds for text in texts}

    def add_facts(self, facts: Iterable[tuple[str, str]]) -> None:
        for kind, text in sorted(facts):
            if kind == "present":
                self._present.add(text)
            else:
                (self.names if kind == "name" else self._paths)[text] = None

    @property
    def ignored(self) -> list[str]:
        return [name for name in self.names if name not in self._read | self._beginnings]

    def proposals(self) -> list[Proposal]:
        """At most one column for each field that no column holds; a column that bears its name first."""
        missing = [field for field in FIELDS if field not in self._present]
        columns = [*self.ignored, *(path for path in self._paths if path not in self._read)]
        columns_by_field: dict[str, str] = {}
        for column in columns:
            field = _BY_BARE_NAME.get(_bare(column)) or _BY_BARE_NAME.get(_bare(column.rpartition(".")[2]))
            if field in missing:
                columns_by_field.setdefault(field, column)
        for column in self.ignored:
            if column in columns_by_field.values():
                continue
            near = difflib.get_close_matches(_bare(column), [_bare(field) for field in missing], 1, _ALIKE)
            if near:
                columns_by_field.setdefault(_BY_BARE_NAME[near[0]], column)
        return [Proposal(field, columns_by_field[field]) for field in FIELDS if field in columns_by_field]

    def lacks(self, fields: Iterable[str]) -> bool:
        """Whether none of the fields has a column or a value."""
        return self._present.isdisjoint(fields)

    def ignored_text(self) -> str | None:
        """The columns that were ignored, for people. A log whose columns were named is met with silence, unless one of
        the others seems to hold a field."""
        ignored, proposals = self.ignored, self.proposals()
        if not ignored or (self._is_mapped and not proposals):
            return None
        count = len(ignored)
        text = f"{count} column{'s were' if count > 1 else ' was'} ignored: {shown(ignored)}"
        return f"{text}; {advice(proposals)}" if proposals else text

    def missing_text(self, what: str) -> str:
        """Says that no column holds `what`, with the columns that were seen and those that may be meant."""
        if any(map(_is_data, self.names)):
            # The first row of a log without a header: its cells are somebody's data.
            return (
                f"no column {what}; the first row has {len(self.names)} different cells that seem to be data and no "
                "names of columns: put a header before it"
            )
        seen = shown(self.names) if self.names else "none"
        return f"no column {what}; the log's columns are {seen}; {advice(self.proposals())}"

    def require_subject_and_time(self, source: str) -> str | None:
        """The fault of a log in which no row can name a subject, or none a time; None if there is no such fault."""
        if self.lacks(WHO):
            return f"{source}: {self.missing_text(f'names a subject ({_or(WHO)})')}"
        if self.lacks(["at"]):
            return f"{source}: {self.missing_text('holds the time of a request (at)')}"
        return None


def holds_observations(mapping: ColumnMapping) -> bool:
    """Whether a column or group `handling` belongs to the record: no field is read from a column of that name, and no
    observation from a column of another."""
    columns = mapping.columns.items()
    return not any(column == "handling" or (column and field.startswith("handling.")) for field, column in columns)


def unknown_handling(names: Iterable[str]) -> list[str]:
    """The columns `handling.…` that are no fields. They seem to be observations: ignored, they would hide what was
    done."""
    return [name for name in names if name.startswith("handling.") and name not in FIELDS]


def shown(names: Iterable[str]) -> str:
    """Names of columns, for people: the first ones, each in one line and not too long."""
    listed = list(names)
    texts = [_shown(name) for name in listed[:_NAMES_SHOWN]]
    more = len(listed) - len(texts)
    return ", ".join(texts) + (f" and {more} more" if more else "")


def _shown(name: str) -> str:
    one_line = "".join(c if c.isprintable() else "\ufffd" for c in name)
    return one_line if len(one_line) <= _NAME_LENGTH_SHOWN else f"{one_line[:_NAME_LENGTH_SHOWN]}…"


def advice(proposals: Iterable[Proposal]) -> str:
    maps = [f"--map {field}={_shown(column)}" for field, column in proposals]
    return f"perhaps with {' '.join(maps)}" if maps else "name them with --map FIELD=COLUMN"


def _is_data(name: str) -> bool:
    """Whether the name of a column seems to be a value: a number, a time, an address or a piece of JSON."""
    return name[:1].isdigit() or "@" in name[1:] or any(sign in name for sign in '{}[]"')


def _dots(column: str) -> list[int]:
    return [at for at, character in enumerate(column) if character in ".:"]


def _or(names: Iterable[str]) -> str:
    *most, last = names
    return f"{', '.join(most)} or {last}"


assert set(_OTHER_NAMES) == set(FIELDS)
