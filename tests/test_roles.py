"""Roles: their grammar, and the values of the settings of access that a ledger refuses."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.errors import BadSubmission
from ledger.opening import open_ledger
from ledger.roles import FORMS, PLATFORM_ROLES, WRITERS, Role, fault_of_access, parse_role, parse_roles
from tests.support.ledgers import change, submit

HEX = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"


@pytest.mark.parametrize("name", PLATFORM_ROLES)
def test_a_role_of_the_platform_is_a_word(name: str) -> None:
    assert parse_role(name) == Role(name)  # type: ignore[arg-type]  # one of the literals


@pytest.mark.parametrize("text", ["admin@org:acme", "member@org:a/b@c", "self@account:u1"])
def test_a_role_at_a_subject_names_it(text: str) -> None:
    role = parse_role(text)
    assert role is not None
    assert (str(role), role.subject) == (text, text.partition("@")[2])


@pytest.mark.parametrize(
    "text",
    [
        *("", "Operator", "operator ", "admin", "admin@", "admin@org:", "admin@acme", "admin@account:u1", "root"),
        *("self@org:acme", "member@project:p1", "operator@org:acme", "admin@org:a b", "@org:acme"),
    ],
)
def test_any_other_text_is_no_role(text: str) -> None:
    assert parse_role(text) is None


@given(st.text())
def test_a_role_reads_back_from_its_text(text: str) -> None:
    role = parse_role(text)
    assert role is None or str(role) == text


def test_texts_that_are_no_roles_permit_nothing() -> None:
    assert parse_roles(["operator", "root", 7, None, "admin@org:x"]) == (Role("operator"), Role("admin", "org:x"))


def test_every_writer_is_a_role_and_each_level_adds_to_the_one_above() -> None:
    assert set(WRITERS["operator"]) < set(WRITERS["admin"]) < set(WRITERS["owner"])
    assert len(FORMS) == 8


@pytest.mark.parametrize(
    ("subject", "setting", "value", "fault"),
    [
        ("principal:p", "access.roles", ["operator", "oprator"], "1 of the 2 texts sent are none of them"),
        ("principal:p", "access.roles", ["admin@org:"], "admin@org:ID"),
        ("token:t", "token.secret_sha256", "ift_secret", "Never record the secret itself"),
        ("token:t", "token.secret_sha256", HEX.upper(), "64 of 0-9 a-f"),
        ("token:t", "token.principal", "org:acme", "principal"),
        (f"principal:{'p' * 247}", "access.disabled", True, "at most 256 characters"),
    ],
)
def test_a_ledger_refuses_what_is_no_access(
    tmp_path: Path, subject: str, setting: str, value: object, fault: str
) -> None:
    with open_ledger(f"sqlite:///{tmp_path}/ledger.db", create=True) as ledger:
        head = ledger.head()
        with pytest.raises(BadSubmission) as refused:
            submit(ledger, {**change(subject, value), "setting": setting})
        assert fault in refused.value.detail
        assert refused.value.faults[0].pointer.endswith("/value")
        assert "ift_secret" not in refused.value.detail
        assert ledger.head() == head


def test_a_principal_of_the_greatest_length_is_recorded(tmp_path: Path) -> None:
    with open_ledger(f"sqlite:///{tmp_path}/ledger.db", create=True) as ledger:
        (receipt,) = submit(ledger, {**change(f"principal:{'p' * 246}", ["operator"]), "setting": "access.roles"})
        assert len(receipt.subject) == 256


def test_settings_of_others_are_not_looked_at() -> None:
    assert fault_of_access("org:acme", "beta.roles", ("root",)) is None
