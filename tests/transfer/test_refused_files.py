"""A file that is damaged, changed or not an export is refused with a line number, and nothing is imported."""

import gzip
import io
import json
import random
from pathlib import Path
from typing import Any

import pytest

from ledger.append.submissions import EFFECTIVE_MAX
from ledger.codec import decode, encode
from ledger.errors import BadImport
from ledger.times import parse_time
from ledger.transfer import import_ledger as importing
from tests.support.ledgers import GENESIS, NOW, ORIGIN, change
from tests.support.transfers import AT, at, entries, import_lines, is_untouched, jsonl

# Events


def line_changed(exported: bytes, number: int, old: bytes, new: bytes) -> bytes:
    lines = exported.split(b"\n")
    assert lines[number - 1].count(old) >= 1
    lines[number - 1] = lines[number - 1].replace(old, new, 1)
    return b"\n".join(lines)


def rewritten(exported: bytes, number: int, **changed: Any) -> bytes:
    """The line as the ledger would have written it for another event."""
    lines = exported.split(b"\n")
    event = decode(lines[number - 1]).model_copy(update=changed)
    lines[number - 1] = encode(event, f"urn:inforce:{ORIGIN}")
    return b"\n".join(lines)


def without(exported: bytes, number: int) -> bytes:
    lines = exported.split(b"\n")
    return b"\n".join(lines[: number - 1] + lines[number:])


FIRST_CHANGE = GENESIS + 1
RETRACTION = GENESIS + 5
AFTER_ALL = GENESIS + 12
ABSURD = parse_time("1899-12-31T23:59:59.999999Z")
TAMPERED: dict[str, Any] = {
    "a line is missing": (lambda lines: without(lines, 5), 5, "position 5 must come here"),
    "the beginning is missing": (lambda lines: without(lines, 1), 1, "position 1 must come here"),
    "two lines changed places": (
        lambda lines: b"\n".join([*lines.split(b"\n")[:3], lines.split(b"\n")[4], lines.split(b"\n")[3]]),
        4,
        "position 4 must come here",
    ),
    "a line occurs twice": (
        lambda lines: lines + lines.split(b"\n")[-2],
        AFTER_ALL,
        f"position {AFTER_ALL} must come here",
    ),
    "white space": (lambda lines: line_changed(lines, 7, b'":', b'": '), 7, "not the bytes"),
    "a value that is another": (
        lambda lines: line_changed(lines, FIRST_CHANGE, b"true", b"1"),
        FIRST_CHANGE,
        "true or false",
    ),
    "an unknown member": (lambda lines: line_changed(lines, 3, b'"data":{', b'"data":{"x":1,'), 3, "no event"),
    "a member twice": (lambda lines: line_changed(lines, 3, b'"data":{', b'"data":{"version":3,'), 3, "not the bytes"),
    "an unknown type": (lambda lines: line_changed(lines, 3, b"defined.v1", b"defined.v9"), 3, "no event"),
    "another source": (lambda lines: line_changed(lines, 3, b"test.example", b"fake.example"), 3, "not the bytes"),
    "another sequence": (lambda lines: line_changed(lines, 3, b'"000', b'"100'), 3, "not the bytes"),
    "the id of another position": (
        lambda lines: line_changed(lines, 3, b"00000000-0003", b"00000000-0004"),
        3,
        "not the bytes",
    ),
    "an id without a position": (lambda lines: rewritten(lines, 3, event_id="00000000-0003-nonsense"), 3, "id"),
    "not UTF-8": (lambda lines: line_changed(lines, 3, b"aching", b"\xff\xfe"), 3, "no event"),
    "no JSON": (lambda lines: line_changed(lines, 3, b"{", b"["), 3, "no event"),
    "a version that skips": (lambda lines: rewritten(lines, GENESIS + 2, version=3), GENESIS + 2, "version"),
    "a version that repeats": (lambda lines: rewritten(lines, GENESIS + 2, version=1), GENESIS + 2, "version"),
    "time runs backwards": (lambda lines: rewritten(lines, GENESIS + 2, recorded_at=NOW - 1), GENESIS + 2, "before"),
    "a commitment too short": (
        lambda lines: rewritten(lines, FIRST_CHANGE, commitment="abc"),
        FIRST_CHANGE,
        "SHA",
    ),
    "a value that the definition refuses": (
        lambda lines: rewritten(lines, FIRST_CHANGE, value="yes"),
        FIRST_CHANGE,
        "true or false",
    ),
    "a set that is not sorted": (
        lambda lines: rewritten(lines, GENESIS + 9, value=("us", "eu")),
        GENESIS + 9,
        "sorted",
    ),
    "a setting that is unknown": (
        lambda lines: rewritten(lines, FIRST_CHANGE, setting="no.such"),
        FIRST_CHANGE,
        "defined",
    ),
    "a kind that may not have it": (
        lambda lines: rewritten(lines, FIRST_CHANGE, subject="model:m"),
        FIRST_CHANGE,
        "defined",
    ),
    "a subject of no kind": (
        lambda lines: rewritten(lines, FIRST_CHANGE, subject="planet:earth"),
        FIRST_CHANGE,
        "kind of subject",
    ),
    "an absurd effective time": (
        lambda lines: rewritten(lines, FIRST_CHANGE, effective_from=ABSURD),
        FIRST_CHANGE,
        "1900",
    ),
    "an end after the last one": (
        lambda lines: rewritten(lines, FIRST_CHANGE, effective_until=EFFECTIVE_MAX + 1),
        FIRST_CHANGE,
        "2200-01-01",
    ),
    "an empty period": (
        lambda lines: rewritten(lines, FIRST_CHANGE, effective_from=NOW, effective_until=NOW),
        FIRST_CHANGE,
        "later",
    ),
    "a retraction of what comes later": (
        lambda lines: rewritten(lines, RETRACTION, retracts="00000000-0099-8000-8000-000000000000"),
        RETRACTION,
        "not among",
    ),
    "a retraction of another subject's change": (
        lambda lines: rewritten(lines, RETRACTION, retracts=decode(lines.split(b"\n")[GENESIS + 2]).event_id),
        RETRACTION,
        "no change of this subject",
    ),
    "a setting that changes its type": (
        lambda lines: lines.replace(
            b'"kinds":["account","org"],"value_type":"bool","default":false,"protective":false,'
            b'"writable_by":"admin","title":"Beta',
            b'"kinds":["account","org"],"value_type":"text","default":null,"protective":null,'
            b'"writable_by":"admin","title":"Beta',
        ),
        GENESIS + 11,
        "keeps its type",
    ),
    "no catalog at the beginning": (
        lambda lines: rewritten(
            lines.split(b"\n")[FIRST_CHANGE - 1], 1, position=1, event_id="00000000-0001-8000-8000-000000000000"
        ),
        1,
        "begins with the definitions",
    ),
}


@pytest.mark.parametrize("name", TAMPERED)
def test_a_changed_line_is_refused_by_its_number_and_nothing_is_imported(
    database_url: str, exported: bytes, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importing, "BATCH", 2)
    tamper, number, message = TAMPERED[name]
    lines = tamper(exported)
    assert lines != exported
    with pytest.raises(BadImport, match=message) as refused:
        import_lines(database_url, lines)
    assert refused.value.detail.startswith(f"line {number}: ")
    assert is_untouched(database_url)


def test_a_second_retraction_of_the_same_change_is_refused(tmp_path: Path, exported: bytes) -> None:
    lines = exported.split(b"\n")[:RETRACTION]
    second = decode(lines[-1])
    position = RETRACTION + 1
    again = second.model_copy(
        update={
            "position": position,
            "version": second.version + 1,
            "event_id": f"00000000-{position:04x}{second.event_id[13:]}",
        }
    )
    lines.append(encode(again, f"urn:inforce:{ORIGIN}"))
    with pytest.raises(BadImport, match=f"line {position}: .*retracted already"):
        import_lines(f"sqlite:///{tmp_path}/ledger.db", b"\n".join(lines))


# Personal data


PERSONAL_TAMPERED: dict[str, Any] = {
    "another reason": lambda rows: rows[0].update(content='{"reason":"invented"}'),
    "another salt": lambda rows: rows[0].update(salt="00" * 32),
    "another event": lambda rows: rows[0].update(position=GENESIS + 2),
    "a position beyond": lambda rows: rows[2].update(position=99),
    "out of order": lambda rows: rows.reverse(),
    "twice": lambda rows: rows.insert(0, rows[0]),
    "an odd salt": lambda rows: rows[0].update(salt="0"),
    "content that is no reason": lambda rows: rows[0].update(content="[]"),
    "an unknown member": lambda rows: rows[0].update(name="x"),
    "not an object": lambda rows: rows.insert(0, 1),
}


@pytest.mark.parametrize("name", PERSONAL_TAMPERED)
def test_personal_data_that_does_not_match_its_commitment_is_refused(
    database_url: str, exported: bytes, personal: bytes, name: str
) -> None:
    rows = [json.loads(line) for line in personal.splitlines()]
    PERSONAL_TAMPERED[name](rows)
    with pytest.raises(BadImport, match=r"line of personal data \d+: "):
        import_lines(database_url, exported, personal=io.BytesIO(jsonl(*rows)))
    assert is_untouched(database_url)


# Files of every kind

UNREADABLE: dict[str, Any] = {
    "nothing": (b"", "there is no line"),
    "only blank lines": (b"\n \n\r\n", "there is no line"),
    "no JSON": (b"hello\n", "line 1: the line is not JSON"),
    "an array": (b"[]\n", "line 1: each line must be one submission"),
    "a byte order mark": (b"\xef\xbb\xbf{}\n", "line 1: the line begins with a byte order mark"),
    "UTF-16": ('{"type":1}\n'.encode("utf-16"), "line 1: the line is not UTF-8"),
    "NaN": (b'{"type":NaN}\n', "line 1: the line holds NaN"),
    "a member twice": (b'{"type":1,"type":1}\n', "line 1: an object of the line has the same member twice"),
    "deep nesting": (b'{"a":' * 99 + b"1" + b"}" * 99, "line 1: the line is nested deeper"),
    "deepest nesting": (b"[" * 100_000, "line 1: the line is nested deeper"),
    "a line that is too long": (b'{"a":"' + b"x" * 2**20 + b'"}\n', "line 1: the line has more than 1048576 bytes"),
    "an endless line of zeros": (gzip.compress(bytes(2**23)), "line 1: the line has more than 1048576 bytes"),
    "gzip cut off": (gzip.compress(jsonl(at(AT, change())) * 999)[:200], "the gzip data ends here, too early"),
    "gzip with a wrong checksum": (gzip.compress(jsonl(at(AT, change())))[:-8] + bytes(8), "damaged"),
    "no gzip after its magic": (b"\x1f\x8b" + bytes(100), "line 1: the gzip data is damaged"),
    "half a surrogate pair": (b'{"actor":"\\ud800"}\n', "line 1: a text of the line holds half of a surrogate pair"),
}


@pytest.mark.parametrize("name", UNREADABLE)
def test_an_unreadable_file_is_refused_and_nothing_is_imported(tmp_path: Path, name: str) -> None:
    content, message = UNREADABLE[name]
    url = f"sqlite:///{tmp_path}/ledger.db"
    with pytest.raises(BadImport) as refused:
        import_lines(url, content)
    assert message in refused.value.detail
    assert "\n" not in refused.value.detail
    assert is_untouched(url)


def test_any_damaged_file_is_either_refused_or_restored_exactly(tmp_path: Path, exported: bytes) -> None:
    chance = random.Random(7)
    before = exported.splitlines()
    for attempt in range(60):
        damaged = bytearray(exported)
        for _ in range(chance.choice((1, 1, 1, 5))):
            damaged[chance.randrange(len(damaged))] = chance.randrange(256)
        url = f"sqlite:///{tmp_path}/{attempt}.db"
        try:
            import_lines(url, bytes(damaged))
        except BadImport:
            continue
        # An accepted file is restored exactly.
        assert [entry.leaf for entry in entries(url)] == bytes(damaged).splitlines()
    assert exported.splitlines() == before
