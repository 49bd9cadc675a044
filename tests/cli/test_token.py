"""token: a secret is printed once, listed never, and revoked by its token or by itself."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.test_main import ENVIRONMENT
from tests.support.command import Inforce

SECRET = re.compile(r"ift_[A-Za-z0-9_-]{43}\n")


def test_a_token_is_made_listed_and_revoked(inforce_on_both: Inforce) -> None:
    inforce = inforce_on_both
    made = inforce("token", "create", "ops-anna", "--role", "operator", "--role", "corrector", "--expires", "90d")
    assert (made.code, SECRET.fullmatch(made.out) is not None) == (0, True)
    assert re.search(r"made token:[0-9a-f]{16} of principal:ops-anna, until \d{4}-", made.err)
    assert made.out.strip() not in made.err
    (row,) = inforce("token", "list", "--format", "json").json()["tokens"]
    assert (row["principal"], row["roles"], row["state"]) == ("principal:ops-anna", ["corrector", "operator"], "valid")
    assert (row["created_by"], row["last_used"], row["disabled"]) == ("cli", None, False)
    again = inforce("token", "create", "ops-anna", "--format", "json").json()
    assert (again["until"], again["principal"]) == (None, "principal:ops-anna")
    assert again["secret"] != made.out.strip()
    assert inforce("token", "revoke", again["token"]).code == 0
    assert inforce("token", "revoke", "--token-file", "-", stdin=made.out).code == 0
    listed = inforce("token", "list", "--format", "json").json()["tokens"]
    assert [one["state"] for one in listed] == ["revoked", "revoked"]
    # What could they do then?
    state = inforce("state", "principal:ops-anna", "--format", "json").json()["settings"]
    assert state["access.roles"]["value"] == ["corrector", "operator"]
    for secret in (made.out.strip(), again["secret"]):
        assert secret not in inforce("export").out
        assert secret not in inforce("replay").out


@pytest.mark.parametrize(
    ("words", "fault"),
    [
        (("create", "anna"), "has no role yet; name one with --role"),
        (("create", "anna", "--role", "root"), "the roles are operator, auditor"),
        (("create", "anna", "--role", "admin@acme"), "admin@org:ID"),
        (("create", "an na", "--role", "operator"), "a name is 1-246 of"),
        (("create", "principal:anna", "--role", "operator"), "without the kind principal"),
        (("create", "a" * 247, "--role", "operator"), "a name is 1-246 of"),
        (("create", "anna", "--role", "operator", "--expires", "90"), "a number and d, h or m"),
        (("create", "anna", "--role", "operator", "--expires", "0d"), "a number and d, h or m"),
        (("revoke",), "name a token"),
        (("revoke", "ift_" + "a" * 43), "a secret is no argument"),
        (("revoke", "--token-file", "-"), "the file holds no secret"),
    ],
)
def test_bad_input_is_one_line_and_makes_nothing(
    words: tuple[str, ...],
    fault: str,
    inforce: Inforce,
    folder: Path,
) -> None:
    refused = inforce("token", *words)
    assert (refused.code, refused.out, refused.err.count("\n")) == (2, "", 1), refused.err
    assert fault in refused.err
    assert "a" * 43 not in refused.err or "a" * 43 in fault
    assert list(folder.iterdir()) == []


def test_other_roles_than_the_principal_has_are_refused_with_both(inforce: Inforce) -> None:
    assert inforce("token", "create", "anna", "--role", "auditor").code == 0
    refused = inforce("token", "create", "anna", "--role", "operator")
    assert refused.code == 2
    assert "has the roles auditor, and --role says operator" in refused.err
    assert inforce("token", "revoke", "token:nothing").code == 2
    assert inforce("token", "revoke", "--token-file", "-", stdin="ift_" + "x" * 43).code == 2
    assert len(inforce("token", "list", "--format", "json").json()["tokens"]) == 1


def test_no_secret_is_in_the_list_of_processes(inforce: Inforce, folder: Path) -> None:
    """Its own arguments and environment, as another user sees them: the secret comes by a file."""
    made = inforce("token", "create", "anna", "--role", "auditor")
    (folder / "secret").write_text(made.out)
    program = (
        "import sys; from scripts.main import cli\n"
        "try: cli.main(['token', 'revoke', '--token-file', 'secret'])\n"
        "except SystemExit as end: assert end.code == 0\n"
        "print(open('/proc/self/cmdline').read(), open('/proc/self/environ').read())"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=folder, env=ENVIRONMENT
    )
    assert made.out.strip() not in ran.stdout + ran.stderr
