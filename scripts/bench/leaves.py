"""The exact bytes of a made ledger's events: the codec's own text of each shape, with what is the event's filled in.

A test exports such a ledger and imports it again, which verifies every line. As a program, `python -m
scripts.bench.leaves SUBJECTS BEFORE ROUNDS SOURCE` writes entries to standard output, for the process that inserts
them.
"""

from __future__ import annotations

import marshal
import os
import subprocess
import sys
from collections.abc import Generator, Iterator
from functools import cache
from itertools import islice
from typing import Any, Final

from ledger.codec import complete, draft_bytes, event_id, id_tail, leaf_hash
from ledger.drafts import RECORDED, Draft
from ledger.events import ChangeRetracted, SettingChanged
from ledger.times import DAY, format_time
from scripts.bench.population import BEGIN, Population, Said, Shape

Row = tuple[int, str, int, str, bytes, int, bytes]
"""An entry: position, subject, version, topic, leaf, recorded_at in µs, leaf hash."""

ACTOR: Final = "bench"
_ROWS_AT_ONCE: Final = 2000
_POSITION: Final = 0x9EEEEEEEEEE
_VERSION: Final = 987_654_321
_RECORDED_AT, _FROM, _UNTIL = (BEGIN + DAY + number for number in (111_111, 222_222, 333_333))
_ENTROPY: Final = (1 << 80) - 1


def rows(population: Population, source: str) -> Iterator[Row]:
    """`source`: of the ledger that they belong to."""
    position = population.before
    for index, said in enumerate(population.said()):
        position += 1
        recorded_at = population.recorded_at(index)
        leaf = _leaf(said, source, position, recorded_at)
        yield position, said.subject, said.version, said.shape.topic, leaf, recorded_at, leaf_hash(leaf)


def _leaf(said: Said, source: str, position: int, recorded_at: int) -> bytes:
    filled = {
        "id": event_id(position, _tail(position)),
        "subject": said.subject,
        "time": format_time(recorded_at),
        "sequence": f"{position:020}",
        "position": position,
        "version": said.version,
        "owner": said.owner,
    }
    if said.effective_from is not None:
        filled["from"] = format_time(said.effective_from)
    if said.effective_until is not None:
        filled["until"] = format_time(said.effective_until)
    if said.retracts:
        filled["retracts"] = event_id(said.retracts, _tail(said.retracts))
    return (_text(said.shape, source) % filled).encode()


@cache
def _text(shape: Shape, source: str) -> str:
    """The codec's text of an event of this shape, with a place for everything that differs from event to event."""
    body: dict[str, Any] = {"setting": shape.setting}
    if shape.topic == ChangeRetracted.TOPIC:
        body = {"retracts": "@retracts@", **body}
    else:
        if shape.topic == SettingChanged.TOPIC:
            body["value"] = "@owner@" if shape.value is None else shape.value
        body["effective_from"] = _FROM if shape.starts else RECORDED
        body["effective_until"] = _UNTIL if shape.ends else None
    draft = Draft(shape.topic, "@subject@", _VERSION, body, ACTOR, "@tail@")
    text = complete(draft_bytes(draft, source), _POSITION, _RECORDED_AT).decode().replace("%", "%%")
    for name, stands_for in (
        ("subject", "@subject@"),
        ("owner", "@owner@"),
        ("retracts", "@retracts@"),
        ("id", event_id(_POSITION, "@tail@")),
        ("sequence", f"{_POSITION:020}"),
        ("position", str(_POSITION)),
        ("version", str(_VERSION)),
        ("time", format_time(_RECORDED_AT)),
        ("from", format_time(_FROM)),
        ("until", format_time(_UNTIL)),
    ):
        text = text.replace(stands_for, f"%({name})s")
    return text


def _tail(position: int) -> str:
    # Looks random, as it would be, and can be had again for a retraction.
    return id_tail((position * 0x9E3779B97F4A7C15F39D & _ENTROPY).to_bytes(10, "big"))


def rows_of_child(population: Population, source: str) -> Generator[Row]:
    """What `rows` gives, written by a process of its own, which ends with whoever takes them."""
    from scripts.bench.server import module_environment

    arguments = [*map(str, population), source]
    child = subprocess.Popen(  # noqa: S603 - our own module
        [sys.executable, "-m", "scripts.bench.leaves", *arguments],
        stdout=subprocess.PIPE,
        env=module_environment(),
    )
    try:
        assert child.stdout is not None
        while length := int.from_bytes(child.stdout.read(4), "big"):
            # Our own child's bytes.
            yield from marshal.loads(child.stdout.read(length))  # noqa: S302
        if child.wait() != 0:
            raise ChildProcessError("the process that writes the events of a large ledger failed")
    finally:
        child.kill()
        child.wait()
        if child.stdout is not None:
            child.stdout.close()


def main(population: Population, source: str) -> None:
    made = rows(population, source)
    try:
        with os.fdopen(sys.stdout.fileno(), "wb", closefd=False) as output:
            while batch := list(islice(made, _ROWS_AT_ONCE)):
                content = marshal.dumps(batch)
                output.write(len(content).to_bytes(4, "big") + content)
            output.write(bytes(4))
    except (BrokenPipeError, KeyboardInterrupt):
        # Whoever wanted them went away.
        os._exit(1)


if __name__ == "__main__":
    main(Population._make(map(int, sys.argv[1:4])), sys.argv[4])
