"""No text becomes markup, whatever it says and wherever a template puts it; the templates are where they are loaded."""

import dataclasses
import json
import os
import re
import subprocess
import sys
import zipfile
from collections.abc import Callable, Collection
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import hatchling.build
import jinja2
import msgspec
import pytest

from ledger.times import DAY
from projections.audit.report.formats import breakable, duration, shell_line
from projections.audit.report.page.page import page, summary_page
from projections.audit.report.report import AuditReport
from projections.audit.report.report_json import report_json
from projections.audit.report.templating import environment
from projections.audit.schemas import VERDICT_NAMES
from projections.audit.summary import Summary
from projections.decisions.model import REASONS, Observed, RequestRecord
from scripts.cli.output import encode
from tests.audit.report.making import HOSTILE, audited, log, without_breaks
from tests.support.questions import CACHING, NOON, STORAGE, TRAINING, QueryLedger, changed, cleared, retracted

ROOT = Path(__file__).parents[3]
TEMPLATES = ROOT / "projections" / "audit" / "report" / "templates"

PAYLOADS = [
    HOSTILE,
    "<img src=x onerror=alert(1)>",
    "\"'><svg onload=alert(1)>",
    "' onmouseover='alert(1)' x='",
    "x onfocus=alert(1) autofocus y",
    "</style></title></code></pre></svg><script>alert(1)</script>",
    "--><b>]]><i>{{ 7 * 7 }}{% raw %}{# #}",
    "}</style>*{background:url(//evil.example)}",
    "&lt;b&gt;&#60;b&#62;&amp",
    "\x00\x1b[31m\u2028\u202e\ud800",
]


class MarkupShape(HTMLParser):
    """The elements of a page with the names of their attributes, its texts, and its style sheet."""

    def __init__(self) -> None:
        super().__init__()
        self.elements: list[Any] = []
        self.values: list[str] = []
        self.style = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, *(name for name, _ in attrs)))
        self.values += [value or "" for _, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        self.elements.append(f"/{tag}")

    def handle_data(self, data: str) -> None:
        if self.elements and self.elements[-1] == ("style",):
            self.style += data
        self.values.append(data)

    def handle_comment(self, data: str) -> None:
        self.elements.append("comment")


def shape(document: str) -> MarkupShape:
    parser = MarkupShape()
    parser.feed(without_breaks(document))
    parser.close()
    return parser


CODES = {*VERDICT_NAMES, *REASONS, "default", "explicit", "at", "platform", "provider"}
"""Words that no log can choose."""


def replaced(value: Any, text: str, spared: Collection[str] = ()) -> Any:
    """The value with `text` in place of every string in it, but for the spared ones and the keys of dictionaries."""
    if isinstance(value, str):
        return value if value in spared else text
    if isinstance(value, tuple):
        parts = [replaced(part, text, spared) for part in value]
        return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
    if isinstance(value, list):
        return [replaced(part, text, spared) for part in value]
    if isinstance(value, dict):
        return type(value)({key: replaced(part, text, spared) for key, part in value.items()})
    if isinstance(value, msgspec.Struct):
        members = {name: replaced(getattr(value, name), text, spared) for name in value.__struct_fields__}
        return msgspec.structs.replace(value, **members)
    if isinstance(value, Summary):
        members = {name: replaced(part, text, spared) for name, part in vars(value).items() if name != "subjects"}
        return dataclasses.replace(value, **members)
    assert value is None or isinstance(value, int | float), "a value of another type would keep its strings"
    return value


@pytest.fixture
def report(bench: QueryLedger) -> AuditReport:
    """Has every part that a page can show: org:lag has a retraction that decides, a clear that brings a default back,
    and a change that repeats the default."""
    (opted,) = bench.submit(
        NOON + 6 * DAY,
        changed("org:lag", TRAINING, True),
    )
    bench.submit(NOON + 7 * DAY, retracted(opted.event_id))
    bench.submit(NOON + 7 * DAY, changed("org:lag", CACHING, True), changed("org:lag", STORAGE, True))
    bench.submit(NOON + 8 * DAY, cleared("org:lag", CACHING), changed("org:lag", STORAGE, False))
    more = [
        RequestRecord(NOON + 9 * DAY, org_id="lag", enforced_position=opted.position, handling=Observed(trained=True)),
        RequestRecord(NOON + 9 * DAY, org_id="lag", handling=Observed(cached=True, stored=True)),
    ]
    return audited(bench, log() + more).report


@pytest.mark.parametrize("spared", [(), CODES], ids=["every string", "every string but codes"])
@pytest.mark.parametrize("payload", PAYLOADS)
@pytest.mark.parametrize(("make", "times"), [(page, 300), (summary_page, 60)])
def test_no_string_of_a_report_becomes_an_element_or_an_attribute(
    report: AuditReport, payload: str, spared: Collection[str], make: Callable[[AuditReport], str], times: int
) -> None:
    hostile = make(replaced(report, payload, spared))
    expected, actual = shape(make(replaced(report, "harmless", spared))), shape(hostile)
    assert actual.elements == expected.elements
    assert actual.style.strip() == (TEMPLATES / "style.css").read_text().strip()
    shown = "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in payload)
    assert "".join(actual.values).count(shown) > times
    assert all(c.isprintable() or c == "\n" for c in hostile)


def test_the_report_of_these_tests_has_every_part_that_a_page_can_show(report: AuditReport) -> None:
    document = page(report)
    for part in ("that decided before: training", "clears the value", "defines the default", "enforced position"):
        assert part in document
    for part in ("without it cached_against", "Handling:", "retracted a change of", "recorded on", "could not be read"):
        assert part in document


def test_text_and_attributes_are_escaped_and_invisible_characters_are_spelt_out() -> None:
    template = environment().from_string('<p title="{{ a }}">{{ b }}<b>{{ c|safe }}</b></p>')
    assert template.render(a='"><i>', b="<b>&'\x00\x1b\u2028é", c="&amp;") == (
        '<p title="&#34;&gt;&lt;i&gt;">&lt;b&gt;&amp;&#39;\\x00\\x1b\\x2028é<b>&amp;</b></p>'
    )


def test_a_name_may_end_a_line_between_its_words_only() -> None:
    assert breakable("org:quill-legal/a_b.c") == "org:quill-<wbr>legal/<wbr>a_<wbr>b.<wbr>c"
    assert breakable("<b>-x\u202e") == "&lt;b&gt;-<wbr>x\\x202e"


def test_an_option_keeps_its_dashes() -> None:
    assert shell_line("inforce audit 'a --b' --known-at=at '--map=at=a b'") == (
        'inforce audit &#39;a <span class="option">--b</span>&#39; <span class="option">--known-at=</span>at '
        '<span class="option">&#39;--map=</span>at=a b&#39;'
    )
    assert shell_line("--x<y>") == '<span class="option">--x</span>&lt;y&gt;'


def test_a_long_time_is_said_in_days() -> None:
    second = 1_000_000
    texts = {
        1: "1e-06 s",
        59 * second + 500_000: "59.5 s",
        60 * second: "1 min",
        3_599 * second: "59 min 59 s",
        3_600 * second: "1 h",
        86_399 * second: "23 h 59 min",
        86_400 * second: "1 day",
        3 * DAY + 4 * 3_600 * second + 59: "3 days 4 h",
    }
    assert {instant: duration(instant) for instant in texts} == texts


def test_a_name_that_no_page_defines_is_an_error() -> None:
    with pytest.raises(jinja2.UndefinedError):
        environment().from_string("{{ page.nothing }}").render(page=None)


def test_hostile_text_comes_back_from_the_json_unchanged(report: AuditReport) -> None:
    document = json.loads(msgspec.json.format(encode(report_json(report))))
    assert document["rejected"]["first"][0]["reason"] == f"/{HOSTILE}: this member does not belong here"
    assert any(finding["record"].get("request_id") == HOSTILE for finding in document["findings"])


def test_the_same_report_gives_the_same_bytes(report: AuditReport) -> None:
    first = page(report)
    environment.cache_clear()
    assert page(report) == first


def test_every_template_is_valid_and_escapes() -> None:
    engine = environment()
    names = {str(path.relative_to(TEMPLATES)) for path in TEMPLATES.rglob("*") if path.is_file()}
    assert set(engine.list_templates()) == names
    for name in names:
        engine.get_template(name)
        source = (TEMPLATES / name).read_text()
        assert "autoescape" not in source
        assert not re.search(r'=[^\s"]*\{\{', source), "an attribute needs quotes around an expression"
        assert source.count("|safe") == source.count('"\\n"|safe'), "only a line break needs no escaping"


def test_an_installed_wheel_has_the_templates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    wheel = tmp_path / hatchling.build.build_wheel(str(tmp_path))
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    script = (
        "import projections; from projections.audit.report.templating import environment as e;"
        "print(projections.__file__, *e().list_templates(), sep='\\n'); e().get_template('report.html.jinja')"
    )
    path = {"PYTHONPATH": str(tmp_path / "site"), "PYTHONDONTWRITEBYTECODE": "1"}
    ended = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, env=os.environ | path, capture_output=True, check=True, text=True
    )
    where, *names = ended.stdout.splitlines()
    assert Path(where).is_relative_to(tmp_path)
    assert names == environment().list_templates()
