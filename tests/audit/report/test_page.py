"""The page is complete, loads nothing, and shows hostile text of a log as text."""

import json
import re
import shutil
from html import unescape
from html.parser import HTMLParser
from pathlib import Path

import pytest

from projections.audit.report.page.page import page
from projections.audit.report.page.plots import time_bins
from projections.audit.report.report_json import report_json
from scripts.audit.report import write_report
from tests.audit.report.making import audited, log
from tests.support.asking import Bench

VOID = {"meta", "br", "rect", "line"}
ELEMENTS = {
    *("html", "head", "title", "style", "body", "div", "header", "main", "footer", "nav", "section", "article"),
    *("h1", "h2", "h3", "h4", "p", "a", "b", "strong", "span", "code", "pre", "ul", "li", "dl", "dt", "dd"),
    *("table", "caption", "thead", "tbody", "tr", "th", "td", "svg", "g", "text", *VOID),
}


class Outline(HTMLParser):
    """Raises where an element is none of ours, not closed, or asks for anything from elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.headings: list[int] = []
        self.tables = self.captions = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in ELEMENTS
        found = dict(attrs)
        assert not {"src", "srcset", "style", "action", "data"} & found.keys()
        assert not any(name.startswith("on") for name in found)
        if "href" in found:
            self.links.append(found["href"] or "")
        if "id" in found:
            self.ids.append(found["id"] or "")
        if tag in ("h1", "h2", "h3", "h4"):
            self.headings.append(int(tag[1]))
        self.tables += tag == "table"
        self.captions += tag == "caption"
        if tag == "svg":
            assert found.get("aria-hidden") == "true" or found.get("aria-label")
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def outline(written: str) -> Outline:
    found = Outline()
    found.feed(written)
    found.close()
    assert found.open == []
    return found


def test_the_page_is_whole_and_asks_for_nothing(bench: Bench) -> None:
    written = page(audited(bench, log()).report)
    assert written.startswith("<!DOCTYPE html>\n")
    found = outline(written)
    assert len(found.ids) == len(set(found.ids))
    assert found.links
    assert all(link[0] == "#" and link[1:] in found.ids for link in found.links)
    assert found.headings[0] == 1
    assert found.headings.count(1) == 1
    assert all(after - before <= 1 for before, after in zip(found.headings, found.headings[1:], strict=False))
    assert found.tables == found.captions > 10
    assert "url(" not in written
    assert "@import" not in written
    assert 'http-equiv="Content-Security-Policy" content="default-src \'none\';' in written


def test_what_a_log_says_stays_text(bench: Bench) -> None:
    written = page(audited(bench, log()).report)
    assert "<script" not in written.lower()
    assert "\u202e" not in written
    assert "&lt;script&gt;alert(&#39;1&#39;)&lt;/script&gt;&#34;&amp;\\x202e\\x0a$(touch x)`id`;&#39;" in written


def test_an_audit_that_found_nothing_has_a_page_too(bench: Bench) -> None:
    written = page(audited(bench, []).report)
    outline(written)
    assert "0 of 0 requests" in written
    assert "No request was decided." in written


@pytest.mark.parametrize("days", [1, 130, 131, 910, 911, 3900, 3901, 3_600_000])
def test_bars_have_no_gaps_count_everything_once_and_are_few(days: int) -> None:
    first = -700_000
    unit, bins = time_bins([(first, [1, 2]), (first + days // 2, [4, 8]), (first + days - 1, [16, 32])])
    assert [one.end for one in bins[:-1]] == [one.start for one in bins[1:]]
    assert bins[0].start <= first < bins[0].end
    assert bins[-1].start <= first + days - 1 < bins[-1].end
    assert [sum(one.counts[thing] for one in bins) for thing in (0, 1)] == [21, 42]
    assert len(bins) <= 135 or unit == "year"


def test_the_document_says_what_the_page_says(bench: Bench, tmp_path: Path) -> None:
    report = audited(bench, log()).report
    places = write_report(str(tmp_path / "new" / "folder"), report)
    assert [place.name for place in places] == ["report.html", "report.json"]
    document = json.loads(places[1].read_text())
    assert document == json.loads(json.dumps(report_json(report)))
    written = places[0].read_text()
    found = outline(written)
    assert len(document["findings"]) == sum(bool(re.fullmatch(r"finding-\d+", one)) for one in found.ids)
    assert len(document["hindsight_shown"]) == sum(bool(re.fullmatch(r"hindsight-\d+", one)) for one in found.ids)
    assert document["pin"]["leaf_hash"] in written
    assert document["log"]["sha256"] in written
    for finding in document["findings"]:
        assert finding["commands"]["check"] in unescape(written)
    assert sum(day["verdicts"].get("violation", 0) for day in document["by_day"]) == document["verdicts"]["violation"]
    again = write_report(str(tmp_path / "again"), report)
    assert [place.read_bytes() for place in again] == [place.read_bytes() for place in places]


def test_a_browser_finds_nothing_wrong_with_it(bench: Bench, tmp_path: Path) -> None:
    """By light and in the dark: no request but for the page, no script, and axe finds no barrier."""
    browser = shutil.which("chromium")
    if browser is None:
        pytest.skip("there is no chromium")
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed")
    from playwright.sync_api import Request, sync_playwright

    place, _ = write_report(str(tmp_path), audited(bench, log()).report)
    options = ["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--disable-background-networking"]
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=browser, args=options)
        for scheme in ("light", "dark"):
            # So that axe itself may run in it.
            context = chromium.new_context(color_scheme=scheme, bypass_csp=True)
            opened = context.new_page()
            asked: list[str] = []

            def noted(request: Request, asked: list[str] = asked) -> None:
                asked.append(request.url)

            opened.on("request", noted)
            opened.goto(place.as_uri())
            assert asked == [place.as_uri()]
            assert opened.evaluate("document.scripts.length") == 0
            assert opened.evaluate("document.documentElement.scrollWidth <= innerWidth")
            results = axe.Axe().run(opened)
            assert results.violations_count == 0, results.generate_report()
            context.close()
        chromium.close()
