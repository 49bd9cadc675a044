"""A shell reads each command of a report as the record that it shows."""

import json
import shlex
import subprocess

import pytest

from projections.audit.report.commands import check_command, explain_command, record_json
from projections.decisions.model import Observed, RequestRecord, read_record
from projections.temporal.coordinates import IN_FORCE
from tests.audit.report.making import HOSTILE, log
from tests.support.questions import NOON

SHELL = "inforce() {{ printf '%s\\0' \"$@\"; cat; }}\n{}"


@pytest.mark.parametrize("record", log()[:6], ids=range(6))
def test_a_shell_reads_a_command_as_the_record_that_it_shows(record: RequestRecord) -> None:
    line = check_command(record, "at")
    ended = subprocess.run(["sh", "-c", SHELL.format(line)], stdin=subprocess.DEVNULL, capture_output=True, check=True)
    *words, piped = ended.stdout.decode().split("\0")
    assert words[0] == "check"
    assert words[-1] == "--known-at=at"
    if words[1] == "-":
        assert read_record(json.loads(piped), 0) == record
        return
    options = [word.removeprefix("--").split("=", 1) for word in words[1:-1]]
    assert dict(options)["at"] == record_json(record)["at"]
    named = {"key_id": dict(options).get("key"), "org_id": dict(options).get("org")}
    assert named == {"key_id": record.key_id, "org_id": record.org_id}


def test_an_id_never_becomes_an_option_or_a_reference() -> None:
    record = RequestRecord(NOON, key_id="--help", org_id="org:x", handling=Observed(region="a b"))
    assert "| inforce check - --known-at=now" in check_command(record, None)
    line = check_command(record._replace(org_id=None), None)
    assert shlex.split(line)[2:4] == ["--key=--help", "--handling=region=a b"]
    assert (
        explain_command(("it's.log",), "--db", IN_FORCE, "it's.log", 7)
        == "inforce audit 'it'\"'\"'s.log' --explain=--db"
    )
    for unusable in (None, HOSTILE):
        assert explain_command(("a.log",), unusable, IN_FORCE, "a.log", 7) == "inforce audit a.log --explain=a.log:7"
        assert explain_command((HOSTILE,), unusable, IN_FORCE, HOSTILE, 7) is None
    assert explain_command(("a.log",), "r", None, "a.log", 7) == "inforce audit a.log --known-at=now --explain=r"
