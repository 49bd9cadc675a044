"""The configuration: where a key comes from, what is refused, and that each key is in the table of OPERATING.md."""

import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from scripts.cli.configuration import OTHER_VARIABLES, PREFIX, Configuration, key_of, load, provider_table, table
from scripts.main import VERBS, cli
from tests.support.command import CommandResult, Inforce

OPERATING = Path(__file__).parents[2] / "scripts" / "OPERATING.md"


def run(environment: dict[str, str], *args: str) -> CommandResult:
    result = CliRunner(env=environment).invoke(cli, args)
    return CommandResult(result.exit_code, result.stdout, result.stderr)


def test_the_table_of_the_operating_page_is_that_of_the_code() -> None:
    """To mend it: paste what `python -m scripts.cli.configuration` prints."""
    page = OPERATING.read_text(encoding="utf-8")
    assert "\n".join(table()) in page
    assert "\n".join(provider_table()) in page
    for variable, meaning in OTHER_VARIABLES.items():
        assert f"| `{variable}` | {meaning} |" in page


def test_the_provider_of_the_operating_page_is_one(folder: Path) -> None:
    example = re.search(r"```toml\n(\[\[oidc\]\].*?)```", OPERATING.read_text(encoding="utf-8"), re.S)
    assert example
    (folder / "c.toml").write_text(example[1], encoding="utf-8")
    (issuer,) = load("c.toml").oidc
    assert issuer.group_roles["acme-admins"] == ("admin@org:acme",)


def test_every_key_has_a_meaning_and_an_option_of_its_own() -> None:
    keys = [key_of(name) for name in Configuration.model_fields]
    assert all(field.description and key.allowed for field, key in keys)
    assert len({key.option for _, key in keys}) == len(keys)


def test_every_key_is_an_option_of_some_verb(folder: Path) -> None:
    helps = "".join(run({}, verb, "--help").out for verb in VERBS) + run({}, "doctor", "clock", "--help").out
    assert [name for name in Configuration.model_fields if f"{key_of(name)[1].option} " not in helps] == []


@pytest.fixture
def file(folder: Path) -> Path:
    path = folder / "inforce.toml"
    path.write_text('actor = "file"\n', encoding="utf-8")
    return path


def actor_of(environment: dict[str, str], *options: str) -> str:
    recorded = run(environment, "submit", "org:acme", "training.opt_in", "true", *options)
    assert recorded.code == 0, recorded.err
    history = run({}, "history", "org:acme", "--format", "json")
    return str(history.json()["events"][0]["event"]["data"]["actor"])


def test_command_line_before_environment_before_file_before_default(inforce: Inforce, file: Path) -> None:
    assert actor_of({}) == "cli"
    assert actor_of({}, "--config", str(file)) == "file"
    assert actor_of({"INFORCE_CONFIG": str(file)}) == "file"
    both = {"INFORCE_CONFIG": str(file), "INFORCE_ACTOR": "variable"}
    assert actor_of(both) == "variable"
    assert actor_of(both, "--actor", "option") == "option"
    assert actor_of(both | {"INFORCE_ACTOR": ""}) == "file"


def test_another_file_on_the_command_line_replaces_that_of_the_environment(inforce: Inforce, file: Path) -> None:
    other = file.with_name("other.toml")
    other.write_text("", encoding="utf-8")
    assert actor_of({"INFORCE_CONFIG": str(file)}, "--config", str(other)) == "cli"


@pytest.mark.parametrize(
    ("environment", "line"),
    [
        (
            {"INFORCE_PORT": "70000"},
            "inforce: INFORCE_PORT: 70000 is not allowed; it takes a number from 0 to 65535\n",
        ),
        (
            {f"{PREFIX}DATABSE": "sqlite:///secret"},
            "inforce: INFORCE_DATABSE: there is no such variable (did you mean INFORCE_DATABASE",
        ),
        ({"INFORCE_MUST_EXIST": "perhaps"}, "INFORCE_MUST_EXIST: perhaps is not allowed; it takes true or false\n"),
        ({"INFORCE_CLOCK_AHEAD_WARN": "nan"}, "nan is not allowed; it takes a number from 0 on\n"),
    ],
)
def test_an_unknown_or_wrong_variable_is_refused_in_one_line(
    inforce: Inforce, folder: Path, environment: dict[str, str], line: str
) -> None:
    for verb in (
        ("subjects",),
        ("submit", "org:acme", "training.opt_in", "true"),
        ("serve", "--no-auth", "--port", "0"),
    ):
        refused = run(environment, *verb)
        assert (refused.code, refused.out, refused.err.count("\n")) == (2, "", 1)
        assert line in refused.err
        assert "secret" not in refused.err
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b"prot = 1\n", ": there is no key prot (did you mean port?)\n"),
        (b"port = 'x'\n", ": port: x is not allowed; it takes a number from 0 to 65535\n"),
        (b"port = [1]\n", ": port: [1] is not allowed; it takes a number from 0 to 65535\n"),
        (b"database = ['postgresql://u:hunter2@h/n']\n", ": database: its value is not allowed; it takes a URL"),
        (b"port = \n", " is not TOML in UTF-8: "),
        (b"port = 1\nport = 2\n", " is not TOML in UTF-8: "),
        (b"\xff", " is not TOML in UTF-8: "),
        (b"[server]\nport = 1\n", ": there is no key server"),
    ],
)
def test_an_unknown_or_wrong_line_of_the_file_is_refused_in_one_line(
    inforce: Inforce, folder: Path, content: bytes, line: str
) -> None:
    (folder / "c.toml").write_bytes(content)
    for refused in (run({}, "subjects", "--config", "c.toml"), run({"INFORCE_CONFIG": "c.toml"}, "subjects")):
        assert (refused.code, refused.out, refused.err.count("\n")) == (2, "", 1)
        assert f"inforce: c.toml{line}" in refused.err
        assert "hunter2" not in refused.err


def test_all_faults_are_named_at_once(inforce: Inforce, folder: Path) -> None:
    (folder / "c.toml").write_text("audits_max = 0\nprot = 1\n", encoding="utf-8")
    refused = run({"INFORCE_CONFIG": "c.toml", "INFORCE_PORT": "-1", f"{PREFIX}X": "1"}, "subjects")
    assert (refused.code, refused.err.count("\n")) == (2, 4)


@pytest.mark.parametrize("name", ["missing.toml", "."])
def test_a_file_that_cannot_be_read_is_refused_in_one_line(inforce: Inforce, name: str) -> None:
    refused = run({}, "subjects", "--config", name)
    assert (refused.code, refused.err.count("\n")) == (2, 1)
    assert name in refused.err


def test_a_wrong_variable_does_not_hide_help(folder: Path) -> None:
    assert run({"INFORCE_PORT": "x"}, "serve", "--help").code == 0


def test_the_bounds_are_those_of_the_table(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, good, bad in (
        ("port", ("0", "65535"), ("-1", "65536", "1.5")),
        ("audits_keep", ("0.001", "876000"), ("0", "876001", "inf")),
        ("audits_max_bytes", ("1",), ("0",)),
        ("audits_max", ("1", "1000"), ("0", "1001")),
        ("clock_behind_max", ("1", "1000000000"), ("0.9", "1000000001", "nan")),
        ("clock_ahead_warn", ("0", "1e300"), ("-1", "inf")),
    ):
        option = key_of(name)[1].option
        for value in good:
            monkeypatch.setenv(PREFIX + name.upper(), value)
            assert getattr(load(), name) == float(value)
        for value in bad:
            by_variable = run({PREFIX + name.upper(): value}, "serve", "--db", "sqlite:////nowhere/x.db")
            by_option = run({PREFIX + name.upper(): good[0]}, "serve", option, value, "--db", "sqlite:////nowhere/x.db")
            assert (by_variable.code, by_option.code) == (2, 2), (name, value)
            assert "is not allowed" in by_variable.err
            assert option in by_option.err, (name, value, by_option.err)
        monkeypatch.delenv(PREFIX + name.upper())


PROVIDER = {"alias": "corp", "issuer": "https://login.example.com", "audiences": ["inforce"]}


def test_providers_come_as_json_outside_of_the_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INFORCE_OIDC", json.dumps([PROVIDER | {"clock_skew_s": 5}]))
    (issuer,) = load().oidc
    assert issuer.model_dump(include={*PROVIDER, "clock_skew_s"}) == {
        **PROVIDER,
        "audiences": ("inforce",),
        "clock_skew_s": 5,
    }
    # An option is checked as a variable is.
    refused = run({}, "serve", "--oidc", json.dumps([PROVIDER | {"alias": "A"}]), "--db", "sqlite:////nowhere/x.db")
    assert refused.code == 2
    assert "[0].alias: an alias is 1-32 of a-z 0-9 -" in refused.err


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (json.dumps([{**PROVIDER, "issuer": "http://u:hunter2@h"}]), "[0].issuer: the URL must not hold a user"),
        (json.dumps([{**PROVIDER, "issuer": "http://login.example.com"}]), "[0].issuer: keys come over https"),
        (json.dumps([{**PROVIDER, "algorithms": ["HS256"]}]), "[0].algorithms[0]: Input should be 'RS256'"),
        (json.dumps([{**PROVIDER, "clock_skew_s": 61}]), "[0].clock_skew_s: Input should be less than or equal to 60"),
        (json.dumps([{**PROVIDER, "client_secret": "hunter2"}]), "[0].client_secret: there is no such member"),
        (json.dumps([{**PROVIDER, "group_roles": {"ops": ["hunter2"]}}]), "[0].group_roles: the roles are operator, "),
        (json.dumps([{"alias": "corp", "issuer": "https://a.example.com"}]), "[0].audiences: is missing"),
        (json.dumps([PROVIDER, PROVIDER]), ": two OIDC issuers have the alias corp"),
        ("hunter2", ": the value is not JSON"),
        ('{"hunter2": 1}', ": its value is not allowed; it takes tables"),
    ],
)
def test_a_wrong_provider_is_refused_in_lines_without_its_values(folder: Path, text: str, line: str) -> None:
    refused = run({"INFORCE_OIDC": text}, "serve", "--port", "0")
    assert (refused.code, refused.out) == (2, "")
    assert f"inforce: INFORCE_OIDC{line}" in refused.err
    assert "hunter2" not in refused.err


@pytest.mark.parametrize("key", ["rate_limit", "sign_in_failures_max"])
def test_a_rate_limit_is_off_or_a_number_and_a_window(key: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for good in ("off", "1/second", "600/minute", "5/hour", "9/day"):
        monkeypatch.setenv(PREFIX + key.upper(), good)
        assert getattr(load(), key) == good
    monkeypatch.delenv(PREFIX + key.upper())
    for bad in ("0/minute", "600", "1/week", "600/minutes"):
        by_variable = run({PREFIX + key.upper(): bad}, "serve", "--db", "sqlite:////nowhere/x.db")
        by_option = run({}, "serve", key_of(key)[1].option, bad, "--db", "sqlite:////nowhere/x.db")
        for refused in (by_variable, by_option):
            assert (refused.code, refused.err.count("\n")) == (2, 1)
            assert "a rate limit is off, or a number and one of second" in refused.err
