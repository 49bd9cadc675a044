"""The page is complete, loads nothing, and shows the text of a log as text."""

import json
import re
import shutil
from html import unescape
from html.parser import HTMLParser
from pathlib import Path

import pytest

from projections.audit.report.page.page import page
from projections.audit.report.plots import time_bins
from projections.audit.report.report_json import report_json
from scripts.audit.report import write_report
from tests.audit.report.making import audited, log
from tests.support.questions import QueryLedger

VOID = {"meta", "br", "rect", "line"}
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
    assert "0 of 0 requests" in document
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
    assert [file.name for file in files] == ["report.html", "report.json"]
    members = json.loads(files[1].read_text())
    assert members == json.loads(json.dumps(report_json(report)))
    document = files[0].read_text()
    ids = outline(document).ids
    assert len(members["findings"]) == sum(bool(re.fullmatch(r"finding-\d+", one)) for one in ids)
    assert len(members["hindsight_shown"]) == sum(bool(re.fullmatch(r"hindsight-\d+", one)) for one in ids)
    assert members["pin"]["leaf_hash"] in document
    assert members["log"]["sha256"] in document
    for finding in members["findings"]:
        assert finding["commands"]["check"] in unescape(document)
    assert sum(day["verdicts"].get("violation", 0) for day in members["by_day"]) == members["verdicts"]["violation"]
    again = write_report(str(tmp_path / "again"), report)
    assert [file.read_bytes() for file in again] == [file.read_bytes() for file in files]


def test_a_browser_finds_nothing_wrong_with_the_page(bench: QueryLedger, tmp_path: Path) -> None:
    """In light and dark colours: no request but for the page, no script, and axe finds no barrier."""
    browser = shutil.which("chromium")
    if browser is None:
        pytest.skip("there is no chromium")
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed")
    from playwright.sync_api import Request, sync_playwright

    file, _ = write_report(str(tmp_path), audited(bench, log()).report)
    options = ["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--disable-background-networking"]
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=browser, args=options)
        for scheme in ("light", "dark"):
            # Without the page's policy axe itself can run in it.
            context = chromium.new_context(color_scheme=scheme, bypass_csp=True)
            tab = context.new_page()
            urls: list[str] = []

            def note(request: Request, urls: list[str] = urls) -> None:
                urls.append(request.url)

            tab.on("request", note)
            tab.goto(file.as_uri())
            assert urls == [file.as_uri()]
            assert tab.evaluate("document.scripts.length") == 0
            assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth")
            results = axe.Axe().run(tab)
            assert results.violations_count == 0, results.generate_report()
            context.close()
        chromium.close()
