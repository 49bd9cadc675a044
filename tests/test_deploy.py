"""scripts/deploy/: each file is checked with the tool that reads it, and against the code that it speaks of."""

from __future__ import annotations

import configparser
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from itertools import combinations
from pathlib import Path
from typing import Any, Final

import promql_parser
import pytest
import trustme
import yaml
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient

from api.app import create_app
from api.network import NetworkSettings, plan
from api.service import Service
from ledger.transparency.note import SigningKey
from scripts.cli import exits
from scripts.cli.configuration import PREFIX, Configuration, load
from scripts.cli.server_keys import network_settings
from scripts.main import VERBS
from tests.support.waiting import GIVE_UP_S

ROOT: Final = Path(__file__).parent.parent
DEPLOY: Final = ROOT / "scripts" / "deploy"
DURATION: Final = re.compile(r"[1-9][0-9]*[smhd]")
OF_PROMETHEUS: Final = {"up"}
"""Prometheus makes these itself."""


def test_every_file_is_listed_in_the_readme() -> None:
    page = (DEPLOY / "README.md").read_text(encoding="utf-8")
    assert [path.name for path in DEPLOY.iterdir() if f"`{path.name}`" not in page and path.name != "README.md"] == []


# The systemd unit


def unit() -> dict[str, dict[str, str]]:
    parser = configparser.ConfigParser(interpolation=None, strict=True)
    parser.optionxform = str  # type: ignore[assignment,method-assign]  # keys keep their case
    parser.read_string((DEPLOY / "inforce.service").read_text(encoding="utf-8"))
    return {name: dict(parser[name]) for name in parser.sections()}


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="this machine has no systemd-analyze")
def test_systemd_accepts_the_unit(tmp_path: Path) -> None:
    text = (DEPLOY / "inforce.service").read_text(encoding="utf-8")
    path = tmp_path / "inforce.service"
    path.write_text(text.replace("/opt/inforce/bin/inforce", "/bin/true"), encoding="utf-8")
    verified = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(path)], capture_output=True, text=True, check=False
    )
    assert (verified.returncode, verified.stderr) == (0, "")


def test_the_unit_runs_a_verb_that_there_is_and_does_not_restart_on_a_wrong_configuration() -> None:
    service = unit()["Service"]
    command, verb, option, file = shlex.split(service["ExecStart"])
    assert Path(command).name == "inforce"
    assert verb in VERBS
    assert (option, file.endswith(".toml")) == ("--config", True)
    assert int(service["RestartPreventExitStatus"]) == exits.BAD_INPUT
    assert service["UMask"] == "0077"


# The image


def instructions() -> list[tuple[str, str]]:
    text = (DEPLOY / "Containerfile").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [(word, rest) for word, _, rest in (line.partition(" ") for line in lines)]


def test_the_image_is_made_of_known_instructions_and_runs_as_no_root() -> None:
    words = [word for word, _ in instructions()]
    assert set(words) <= {"FROM", "WORKDIR", "COPY", "RUN", "ENV", "USER", "EXPOSE", "HEALTHCHECK", "ENTRYPOINT", "CMD"}
    values = dict(instructions())
    assert int(values["USER"]) > 0
    assert values["EXPOSE"] == str(Configuration.model_fields["port"].default)
    assert words.index("USER") > max(index for index, word in enumerate(words) if word == "RUN")
    image, _, tag = values["FROM"].partition(":")
    assert image.endswith("/python")
    assert re.fullmatch(r"3\.\d+-slim", tag)


@pytest.mark.skipif(os.geteuid() != 0, reason="the commands of an image run as root")
def test_the_commands_of_the_image_run_in_a_plain_folder_and_their_server_is_healthy(tmp_path: Path) -> None:
    """Every path of the image lies in `tmp_path`; its checkout holds what git knows."""

    def inside(text: str) -> str:
        return re.sub(r"(?<![\w.])/(?=opt/|var/lib/)", f"{tmp_path}/", text)

    environment = {name: os.environ[name] for name in os.environ if not name.startswith((PREFIX, "VIRTUAL_ENV"))}
    environment["PATH"] = f"{Path(sys.base_prefix) / 'bin'}:/usr/bin:/bin"
    folder, arguments = tmp_path, dict[str, list[str]]()
    for word, rest in instructions():
        match word:
            case "WORKDIR":
                folder = Path(inside(rest))
                folder.mkdir(parents=True, exist_ok=True)
            case "COPY":
                assert rest == ". ."
                listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True).stdout
                for name in filter(None, listed.decode().split("\0")):
                    if (ROOT / name).exists():
                        (folder / name).parent.mkdir(parents=True, exist_ok=True)
                        shutil.copy2(ROOT / name, folder / name)
            case "RUN":
                ran = subprocess.run(
                    ["sh", "-c", inside(rest)], cwd=folder, env=environment, capture_output=True, text=True, check=False
                )
                assert ran.returncode == 0, (rest, ran.stderr)
            case "ENV":
                for pair in inside(rest).split():
                    name, _, value = pair.partition("=")
                    environment[name] = value.replace("$PATH", environment["PATH"])
            case "ENTRYPOINT" | "CMD":
                arguments[word] = json.loads(rest)
    assert (tmp_path / "var/lib/inforce").stat().st_uid == int(dict(instructions())["USER"])
    entry = shutil.which(arguments["ENTRYPOINT"][0], path=environment["PATH"])
    assert entry is not None
    assert Path(entry).is_relative_to(tmp_path)
    # Another user runs it.
    assert Path(entry).stat().st_mode & 0o005 == 0o005
    command = [entry, *arguments["CMD"], "--port", "0"]
    with subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            url = server.stdout.readline().split()[-1]
            health = dict(instructions())["HEALTHCHECK"].removeprefix("CMD ").replace("http://127.0.0.1:8000", url)
            subprocess.run(["sh", "-c", health], cwd=folder, env=environment, check=True, timeout=GIVE_UP_S)
            with urllib.request.urlopen(f"{url}/readyz", timeout=GIVE_UP_S) as ready:  # noqa: S310 - our own server
                assert ready.status == 200
        finally:
            server.terminate()
    assert server.returncode == 0


# The compose file and its proxy


SERVICE_KEYS: Final = {
    *("image", "build", "environment", "volumes", "networks", "healthcheck", "restart", "scale", "depends_on"),
    *("read_only", "tmpfs", "cap_drop", "security_opt", "ports"),
}


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))
    return document


def test_the_compose_file_names_only_what_it_defines(compose: dict[str, Any]) -> None:
    assert compose.keys() == {"name", "services", "networks", "volumes"}
    services = compose["services"]
    for name, service in services.items():
        assert service.keys() <= SERVICE_KEYS, name
        assert "image" in service
        assert set(service["networks"]) <= compose["networks"].keys()
        assert set(service.get("depends_on", ())) <= services.keys()
        for volume in service.get("volumes", ()):
            source = volume.split(":")[0]
            # tls/ holds the operator's own certificate.
            exists = source in compose["volumes"] or source == "./tls" or (DEPLOY / source).exists()
            assert exists, (name, source)
    build = services["inforce"]["build"]
    assert (DEPLOY / build["context"]).resolve() == ROOT
    assert (ROOT / build["dockerfile"]).is_file()
    # Only the proxy is reached from outside.
    assert [name for name, service in services.items() if "ports" in service] == ["proxy"]


def test_the_servers_keys_are_keys_that_the_configuration_allows(
    compose: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    service = compose["services"]["inforce"]
    assert service["scale"] == 2
    for name, value in service["environment"].items():
        assert name.startswith(PREFIX)
        monkeypatch.setenv(name, str(value).replace("${POSTGRES_PASSWORD}", "secret"))
    keys = load()
    database = compose["services"]["database"]["environment"]
    user = database["POSTGRES_USER"]
    assert keys.database == f"postgresql://{user}:secret@database/{user}"
    listening = plan(network_settings(keys)._replace(signs_in=True))
    assert listening.is_https
    assert "inforce.example.com" in listening.hosts
    assert str(listening.proxies.networks[0]) == compose["networks"]["inside"]["ipam"]["config"][0]["subnet"]


def test_the_proxy_serves_the_public_name_and_passes_on_who_asks() -> None:
    text = (DEPLOY / "nginx.conf").read_text(encoding="utf-8")
    assert text.count("{") == text.count("}")
    for line in (
        "server_name inforce.example.com;",
        "proxy_set_header Host $host;",
        "proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;",
        "listen 443 ssl;",
    ):
        assert line in text
    assert NetworkSettings().forwarded_header == "x-forwarded-for"


@pytest.mark.skipif(shutil.which("nginx") is None, reason="this machine has no nginx")
def test_nginx_accepts_its_configuration(tmp_path: Path) -> None:
    (tmp_path / "tls").mkdir()
    (tmp_path / "logs").mkdir()
    issued = trustme.CA().issue_cert("inforce.example.com")
    (tmp_path / "tls" / "cert.pem").write_bytes(issued.cert_chain_pems[0].bytes())
    (tmp_path / "tls" / "key.pem").write_bytes(issued.private_key_pem.bytes())
    shutil.copy(DEPLOY / "nginx.conf", tmp_path / "nginx.conf")
    tested = subprocess.run(
        ["nginx", "-t", "-p", str(tmp_path), "-c", "nginx.conf", "-g", f"pid {tmp_path}/pid;"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert tested.returncode == 0, tested.stderr


# The alert rules and the dashboard


@pytest.fixture(scope="module")
def exposed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[str]]:
    """The name of each sample of a scrape → the names of its labels, with those that Prometheus adds."""
    url = f"sqlite:///{tmp_path_factory.mktemp('metrics')}/l.db"
    # With a key, because only then is the log measured.
    service = Service.open(url, signing_keys=[SigningKey("log.example/eu", bytes(32))])
    with closing(service), TestClient(create_app(service, sign_in=False)) as client:
        client.get("/nothing")
        client.get("/v1/subjects/org:acme/state")
        samples = [
            sample
            for family in text_string_to_metric_families(client.get("/metrics").text)
            for sample in family.samples
        ]
    labels: dict[str, set[str]] = {name: {"job", "instance"} for name in OF_PROMETHEUS}
    for sample in samples:
        labels.setdefault(sample.name, {"job", "instance"}).update(sample.labels)
    return labels


def selectors(expression: Any) -> Iterator[Any]:
    """Every selector of a parsed query."""
    if isinstance(expression, promql_parser.VectorSelector):
        yield expression
    for name in ("lhs", "rhs", "expr", "vs", "vector_selector", "args", "param"):
        part = getattr(expression, name, None)
        for one in part if isinstance(part, list) else [part]:
            if one is not None:
                yield from selectors(one)


def check_query(query: str, exposed: dict[str, set[str]]) -> None:
    parsed = promql_parser.parse(query.replace("$__rate_interval", "5m"))
    names = [selector.name for selector in selectors(parsed)]
    assert sorted(names) == sorted(re.findall(r"\b(?:inforce_\w+|process_\w+|up)\b", query)), query
    for selector in selectors(parsed):
        assert selector.name in exposed, (query, selector.name)
        matched = {matcher.name for matcher in selector.matchers.matchers}
        assert matched <= exposed[selector.name], (query, matched)
    grouped = {label.strip() for labels in re.findall(r"\bby \(([^)]*)\)", query) for label in labels.split(",")}
    assert grouped <= set().union(*(exposed[name] for name in names)), (query, grouped)


def alerts() -> list[dict[str, Any]]:
    document = yaml.safe_load((DEPLOY / "alerts.yaml").read_text(encoding="utf-8"))
    assert document.keys() == {"groups"}
    for group in document["groups"]:
        assert group.keys() == {"name", "rules"}
    return [rule for group in document["groups"] for rule in group["rules"]]


def test_every_alert_asks_for_metrics_that_there_are_and_says_what_to_do(exposed: dict[str, set[str]]) -> None:
    rules = alerts()
    assert len({rule["alert"] for rule in rules}) == len(rules) >= 10
    for rule in rules:
        assert rule.keys() <= {"alert", "expr", "for", "labels", "annotations"}
        assert re.fullmatch(r"[A-Z][A-Za-z]+", rule["alert"])
        assert "for" not in rule or DURATION.fullmatch(rule["for"])
        assert rule["labels"].keys() == {"severity"}
        assert rule["labels"]["severity"] in ("critical", "warning", "info")
        assert rule["annotations"].keys() == {"summary", "action"}
        check_query(rule["expr"], exposed)


def test_a_query_for_a_metric_or_a_label_that_is_missing_is_noticed(exposed: dict[str, set[str]]) -> None:
    for wrong in (
        "inforce_no_such == 0",
        'inforce_audits{status="failed"} > 0',
        "sum by (verdct) (rate(inforce_checks_total[5m]))",
    ):
        with pytest.raises(AssertionError):
            check_query(wrong, exposed)
    with pytest.raises(ValueError, match="unclosed left parenthesis"):
        check_query("rate(inforce_checks_total[5m]", exposed)


def test_the_dashboards_panels_ask_for_metrics_that_there_are_and_do_not_overlap(exposed: dict[str, set[str]]) -> None:
    dashboard = json.loads((DEPLOY / "dashboard.json").read_text(encoding="utf-8"))
    assert dashboard.keys() >= {"uid", "title", "schemaVersion", "panels", "templating", "time"}
    source = dashboard["templating"]["list"][0]
    assert (source["name"], source["type"], source["query"]) == ("source", "datasource", "prometheus")
    panels = dashboard["panels"]
    assert len({panel["id"] for panel in panels}) == len({panel["title"] for panel in panels}) == len(panels) >= 10
    for panel in panels:
        assert panel["type"] == "timeseries"
        assert panel["fieldConfig"]["defaults"]["unit"]
        assert panel["targets"]
        for target in panel["targets"]:
            assert target["datasource"] == panel["datasource"] == {"type": "prometheus", "uid": "${source}"}
            check_query(target["expr"], exposed)
    for one, other in combinations([panel["gridPos"] for panel in panels], 2):
        apart = (
            one["x"] + one["w"] <= other["x"]
            or other["x"] + other["w"] <= one["x"]
            or one["y"] + one["h"] <= other["y"]
            or other["y"] + other["h"] <= one["y"]
        )
        assert apart
        assert one["x"] + one["w"] <= 24
