"""The page is complete, loads nothing, and shows the text of a log as text."""

import json
import re
import shutil
from collections.abc import Iterator
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from projections.audit.report.page.page import page, summary_page
from projections.audit.report.plots import time_bins
from projections.audit.report.report import ModelCount, ReasonCount
from projections.audit.report.report_json import report_json
from projections.audit.schemas import REASON_NAMES
from projections.audit.summary import LogDigest, SubjectCount
from scripts.audit.report import write_report
from tests.audit.report.making import audited, log, without_breaks
from tests.support.questions import QueryLedger

VOID = {"meta", "br", "wbr", "rect", "line"}
ELEMENTS = {
    *("html", "head", "title", "style", "body", "div", "header", "main", "footer", "nav", "section", "article"),
    *("h1", "h2", "h3", "h4", "p", "a", "b", "strong", "span", "code", "pre", "ul", "li", "dl", "dt", "dd"),
    *("table", "caption", "thead", "tbody", "tr", "th", "td", "svg", "g", "text", *VOID),
}


class Outline(HTMLParser):
    """Fails on an element that no template has, on one that is not closed, and on one that loads or runs something."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.headings: list[int] = []
        self.tables = self.captions = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in ELEMENTS
        attributes = dict(attrs)
        assert not {"src", "srcset", "style", "action", "data"} & attributes.keys()
        assert not any(name.startswith("on") for name in attributes)
        if "href" in attributes:
            self.links.append(attributes["href"] or "")
        if "id" in attributes:
            self.ids.append(attributes["id"] or "")
        if tag in ("h1", "h2", "h3", "h4"):
            self.headings.append(int(tag[1]))
        self.tables += tag == "table"
        self.captions += tag == "caption"
        if tag == "svg":
            assert attributes.get("aria-hidden") == "true" or attributes.get("aria-label")
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def outline(document: str) -> Outline:
    parser = Outline()
    parser.feed(document)
    parser.close()
    assert parser.open == []
    return parser


def test_the_page_is_complete_and_loads_nothing(bench: QueryLedger) -> None:
    document = page(audited(bench, log()).report)
    assert document.startswith("<!DOCTYPE html>\n")
    parts = outline(document)
    assert len(parts.ids) == len(set(parts.ids))
    assert all(link[0] == "#" and link[1:] in parts.ids for link in parts.links)
    assert {"#pin", "#finding-1"} <= set(parts.links)
    assert parts.headings[0] == 1
    assert parts.headings.count(1) == 1
    assert all(after - before <= 1 for before, after in zip(parts.headings, parts.headings[1:], strict=False))
    assert parts.tables == parts.captions > 10
    assert "url(" not in document
    assert "@import" not in document
    assert """http-equiv="Content-Security-Policy" content="default-src 'none';""" in document


def test_the_page_shows_the_text_of_a_log_as_text(bench: QueryLedger) -> None:
    document = page(audited(bench, log()).report)
    assert "<script" not in document.lower()
    assert "\u202e" not in document
    assert "&lt;script&gt;alert(&#39;1&#39;)&lt;/script&gt;&#34;&amp;\\x202e\\x0a$(touch x)`id`;&#39;" in document


def test_an_audit_without_requests_has_a_page(bench: QueryLedger) -> None:
    document = page(audited(bench, []).report)
    outline(document)
    assert "<strong>0 requests</strong> of 0" in document
    assert "No request was decided." in document


@pytest.mark.parametrize("days", [1, 130, 131, 910, 911, 3900, 3901, 3_600_000])
def test_bins_have_no_gaps_count_everything_once_and_are_few(days: int) -> None:
    first = -700_000
    unit, bins = time_bins([(first, [1, 2]), (first + days // 2, [4, 8]), (first + days - 1, [16, 32])])
    assert [one.end for one in bins[:-1]] == [one.start for one in bins[1:]]
    assert bins[0].start <= first < bins[0].end
    assert bins[-1].start <= first + days - 1 < bins[-1].end
    assert [sum(one.counts[place] for one in bins) for place in (0, 1)] == [21, 42]
    assert len(bins) <= 135 or unit == "year"


def test_the_json_and_the_page_have_the_same_content(bench: QueryLedger, tmp_path: Path) -> None:
    report = audited(bench, log()).report
    files = write_report(str(tmp_path / "new" / "folder"), report)
    assert [file.name for file in files] == ["report.html", "summary.html", "report.json"]
    members = json.loads(files[2].read_text())
    assert members == json.loads(json.dumps(report_json(report)))
    document = without_breaks(files[0].read_text())
    ids = outline(document).ids
    assert len(members["findings"]) == sum(bool(re.fullmatch(r"finding-\d+", one)) for one in ids)
    assert len(members["hindsight_shown"]) == sum(bool(re.fullmatch(r"hindsight-\d+", one)) for one in ids)
    assert members["pin"]["leaf_hash"] in document
    assert members["log"]["sha256"] in document
    for finding in members["findings"]:
        assert finding["commands"]["check"] in unescape(document)
    short = without_breaks(files[1].read_text())
    assert len(outline(short).ids) < len(ids)
    for reason in members["by_reason"]:
        assert not reason["against"] or f"<code>{reason['reason']}</code>" in short
    assert members["log"]["sha256"] in short
    assert sum(day["verdicts"].get("violation", 0) for day in members["by_day"]) == members["verdicts"]["violation"]
    again = write_report(str(tmp_path / "again"), report)
    assert [file.read_bytes() for file in again] == [file.read_bytes() for file in files]


@pytest.fixture
def chromium() -> Iterator[Any]:
    browser = shutil.which("chromium")
    if browser is None:
        pytest.skip("there is no chromium")
    from playwright.sync_api import sync_playwright

    options = ["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--disable-background-networking"]
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=browser, args=options)
        yield chromium
        chromium.close()


@pytest.mark.parametrize("name", ["report.html", "summary.html"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_browser_finds_nothing_wrong_with_a_page(
    bench: QueryLedger, tmp_path: Path, chromium: Any, name: str, scheme: str
) -> None:
    """In light and dark colours: no request but for the page, no script, and axe finds no barrier."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed")
    write_report(str(tmp_path), audited(bench, log()).report)
    file = tmp_path / name
    # Without the page's policy axe itself can run in it.
    tab = chromium.new_context(color_scheme=scheme, bypass_csp=True).new_page()
    urls: list[str] = []
    tab.on("request", lambda request: urls.append(request.url))
    tab.goto(file.as_uri())
    assert urls == [file.as_uri()]
    assert tab.evaluate("document.scripts.length") == 0
    assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth")
    results = axe.Axe().run(tab)
    assert results.violations_count == 0, results.generate_report()


@pytest.mark.parametrize("name", ["report.html", "summary.html"])
def test_a_phone_shows_each_column_or_says_that_a_table_scrolls(
    bench: QueryLedger, tmp_path: Path, chromium: Any, name: str
) -> None:
    write_report(str(tmp_path), audited(bench, log()).report)
    tab = chromium.new_context(viewport={"width": 390, "height": 844}).new_page()
    tab.goto((tmp_path / name).as_uri())
    assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth")
    captions = tab.evaluate(
        """[...document.querySelectorAll(".scroll")].filter(one => one.scrollWidth > one.clientWidth)
        .map(one => getComputedStyle(one.querySelector("caption"), "::after").content)"""
    )
    assert captions
    assert all("Scroll the table sideways" in one for one in captions)


def test_the_summary_has_at_most_ten_printed_pages_however_much_there_is_to_say(
    bench: QueryLedger, tmp_path: Path, chromium: Any
) -> None:
    report = audited(bench, log()).report
    long = "a-long-name/" * 20
    many = report._replace(
        subjects=tuple(SubjectCount(f"org:{long}{number}", {"violation": 9}) for number in range(25)),
        models=tuple(ModelCount(f"{long}{number}", {"violation": 9}) for number in range(25)),
        reasons=tuple(ReasonCount(reason, 5, 5, 10, 10) for reason in REASON_NAMES),
        undecided=tuple(one._replace(missing=one.missing * 15) for one in report.undecided),
        rejected=report.rejected._replace(
            faults=tuple((f"{number} {'words of a fault ' * 10}", 1) for number in range(20)),
            first=tuple(report.rejected.first * 20)[:20],
        ),
        invocation=report.invocation._replace(arguments=tuple(f"{long}{number}.jsonl" for number in range(1000))),
    )
    many.summary.log = LogDigest("0" * 64, [(f"{long}{number}.jsonl", 1) for number in range(1000)])
    file = tmp_path / "summary.html"
    file.write_text(summary_page(many))
    tab = chromium.new_page()
    tab.goto(file.as_uri())
    printed = tab.pdf(format="A4")
    assert 3 < len(re.findall(rb"/Type /Page\b", printed)) <= 10
