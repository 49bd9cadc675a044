"""The exact rows of a generated ledger: the codec's text of each event shape is a template for many events.

As a program, `python -m scripts.bench.event_rows SUBJECTS BEFORE ROUNDS SOURCE` writes rows to standard output, for the
process that inserts them. tests/bench/test_ledgers.py exports such a ledger and imports it again, which verifies every
line.
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

from ledger.codec import event_id, id_tail, leaf_bytes, leaf_hash
from ledger.drafts import AT_RECORDING, Draft
from ledger.events import ChangeRetracted, SettingChanged
from ledger.times import DAY, format_time
from scripts.bench.population import ACTOR, BEGIN, EventShape, GeneratedEvent, Population
from scripts.bench.processes import module_environment

EventRow = tuple[int, str, int, str, bytes, int, bytes]
"""position, subject, version, topic, leaf, recorded_at in µs, leaf hash."""

_ROWS_AT_ONCE: Final = 2000
# No other part of a leaf equals these values, so that each can be replaced by its placeholder.
_POSITION: Final = 0x9EEEEEEEEEE
_VERSION: Final = 987_654_321
_RECORDED_AT, _FROM, _UNTIL = (BEGIN + DAY + number for number in (111_111, 222_222, 333_333))
_ENTROPY: Final = (1 << 80) - 1


def event_rows(population: Population, source: str) -> Iterator[EventRow]:
    """`source` is the CloudEvents source of the ledger."""
    position = population.before
    for index, event in enumerate(population.generate()):
        position += 1
        recorded_at = population.recorded_at(index)
        leaf = _leaf(event, source, position, recorded_at)
        yield position, event.subject, event.version, event.shape.topic, leaf, recorded_at, leaf_hash(leaf)


def _leaf(event: GeneratedEvent, source: str, position: int, recorded_at: int) -> bytes:
    values = {
        "id": event_id(position, _tail(position)),
        "subject": event.subject,
        "time": format_time(recorded_at),
        "sequence": f"{position:020}",
        "position": position,
        "version": event.version,
        "owner": event.owner,
    }
    if event.effective_from is not None:
        values["from"] = format_time(event.effective_from)
    if event.effective_until is not None:
        values["until"] = format_time(event.effective_until)
    if event.retracts:
        values["retracts"] = event_id(event.retracts, _tail(event.retracts))
    return (_template(event.shape, source) % values).encode()


@cache
def _template(shape: EventShape, source: str) -> str:
    """The codec's text of an event of this shape, with a placeholder for each value that differs between events."""
    body: dict[str, Any] = {"setting": shape.setting}
    if shape.topic == ChangeRetracted.TOPIC:
        body = {"retracts": "@retracts@", **body}
    else:
        if shape.topic == SettingChanged.TOPIC:
            body["value"] = "@owner@" if shape.value is None else shape.value
        body["effective_from"] = _FROM if shape.starts else AT_RECORDING
        body["effective_until"] = _UNTIL if shape.ends else None
    draft = Draft(shape.topic, "@subject@", _VERSION, body, ACTOR, "@tail@")
    text = leaf_bytes(draft, source, _POSITION, _RECORDED_AT).decode().replace("%", "%%")
    for name, value in (
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
        text = text.replace(value, f"%({name})s")
    return text


def _tail(position: int) -> str:
    # Looks random, and can be computed again for a retraction.
    return id_tail((position * 0x9E3779B97F4A7C15F39D & _ENTROPY).to_bytes(10, "big"))


def event_rows_of_child(population: Population, source: str) -> Generator[EventRow]:
    """The rows of `event_rows`, from another process, which ends when this generator is closed."""
    arguments = [*map(str, population), source]
    child = subprocess.Popen(  # noqa: S603 - our own module
        [sys.executable, "-m", "scripts.bench.event_rows", *arguments],
        stdout=subprocess.PIPE,
        env=module_environment(),
    )
    try:
        assert child.stdout is not None
        while length := int.from_bytes(child.stdout.read(4), "big"):
            yield from marshal.loads(child.stdout.read(length))  # noqa: S302 - our own child's bytes
        if child.wait() != 0:
            raise ChildProcessError("the process that writes the events of a large ledger failed")
    finally:
        child.kill()
        child.wait()
        if child.stdout is not None:
            child.stdout.close()


def main(population: Population, source: str) -> None:
    rows = event_rows(population, source)
    try:
        with os.fdopen(sys.stdout.fileno(), "wb", closefd=False) as output:
            while batch := list(islice(rows, _ROWS_AT_ONCE)):
                content = marshal.dumps(batch)
                output.write(len(content).to_bytes(4, "big") + content)
            output.write(bytes(4))
    except (BrokenPipeError, KeyboardInterrupt):
        # The reader is gone.
        os._exit(1)


if __name__ == "__main__":
    main(Population._make(map(int, sys.argv[1:4])), sys.argv[4])
