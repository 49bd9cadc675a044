"""help, unknown verbs, and how much a verb prints: --quiet and --verbose."""

import logging
from pathlib import Path

import pytest

from scripts.main import VERBS
from tests.support.command import Inforce


@pytest.mark.parametrize("name", VERBS)
def test_help_of_a_verb_is_what_its_option_prints(name: str, inforce: Inforce) -> None:
    helped, option = inforce("help", name), inforce(name, "--help")
    assert (helped.code, helped.err) == (0, "")
    assert helped.out.split() == option.out.split()


def test_help_without_a_verb_lists_the_verbs(inforce: Inforce) -> None:
    assert inforce("help").out == inforce("--help").out
    assert inforce("help", "doctor", "clock").out.startswith("Usage: inforce doctor clock ")


@pytest.mark.parametrize(
    ("words", "near"),
    [
        (("stat",), "state"),
        (("timelines",), "timeline"),
        (("Submit",), "submit"),
        (("catalogue",), "catalog"),
        (("help", "audits"), "audit"),
        (("help", "doctor", "clocks"), "clock"),
        (("doctor", "clocks"), "clock"),
    ],
)
def test_an_unknown_verb_proposes_near_ones(words: tuple[str, ...], near: str, inforce: Inforce) -> None:
    refused = inforce(*words)
    assert (refused.code, refused.out, refused.err.count("\n")) == (2, "", 1)
    assert "did you mean" in refused.err.lower()
    assert f"{near}" in refused.err.lower().partition("did you mean")[2]


def test_a_verb_without_verbs_of_its_own_says_so(inforce: Inforce) -> None:
    refused = inforce("help", "state", "org:acme")
    assert (refused.code, "has no verbs of its own" in refused.err) == (2, True)


@pytest.mark.parametrize("name", [name for name in VERBS if name not in ("doctor", "bench", "token")])
def test_every_verb_has_quiet_and_verbose(name: str, inforce: Inforce) -> None:
    out = inforce(name, "--help").out
    assert "--quiet" in out
    assert "--verbose" in out


def test_quiet_prints_no_notes_and_keeps_errors(inforce: Inforce, folder: Path) -> None:
    assert inforce("submit", "org:acme", "training.opt_in", "true", "--quiet").err == ""
    refused = inforce("state", "org:nosuch", "--quiet")
    assert (refused.code, refused.err.count("\n")) == (2, 1)
    loud = inforce("submit", "org:acme", "training.opt_in", "true", "--db", "sqlite:///other.db")
    assert loud.err == "inforce: began a new ledger at other.db\n"


def test_verbose_says_what_is_done_and_how_long_it_took(inforce: Inforce) -> None:
    result = inforce("submit", "org:acme", "training.opt_in", "true", "--verbose", "--format", "json")
    assert result.json()["receipts"]
    first, *_, last = result.err.splitlines()
    assert first.startswith("inforce: ")
    assert "opened the ledger at inforce.db" in result.err
    assert last.startswith("inforce: finished in ")
    # The next command is as loud as any.
    assert inforce("state", "org:acme").err == ""
    assert logging.getLogger("inforce").level == logging.NOTSET


def test_quiet_and_verbose_exclude_each_other(inforce: Inforce) -> None:
    for words in (("state", "org:acme"), ("doctor", "clock")):
        refused = inforce(*words, "--quiet", "--verbose")
        assert (refused.code, refused.err.count("\n")) == (2, 1)
        assert "contradict" in refused.err
