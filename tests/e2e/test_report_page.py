"""The report is read on a phone and printed: it must be short there, and whole here."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lmwright.core.stage import StepContext
from lmwright.reporting.config import Report
from lmwright.reporting.run import run


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no Chromium on this machine (Debian: apt-get install chromium)")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def address(finished_run: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = Path(shutil.copytree(finished_run, tmp_path_factory.mktemp("page") / "support"))
    inputs = {name: folder / name for name in ("card", "gate")}
    context = StepContext(inputs, {}, folder, seed=0)
    run(Report(evaluation="card", gates=["gate"]), folder / "report", context)
    return (folder / "report" / "report.html").as_uri()


def opened(browser: Any, address: str, width: int, height: int) -> Any:
    page = browser.new_page(viewport={"width": width, "height": height})
    page.goto(address)
    return page


# Whether what stands inside an element takes room on the page.
VISIBLE = """(e) =>
    e.checkVisibility({contentVisibilityAuto: true}) && e.getBoundingClientRect().height > 0"""


def test_a_phone_shows_the_verdict_first_and_folds_the_rest(browser: Any, address: str) -> None:
    page = opened(browser, address, 390, 844)
    assert page.locator(".verdict").bounding_box()["y"] < 300
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert page.evaluate("document.documentElement.scrollHeight") < 8_000
    lineage = page.locator("table.lineage")
    assert not lineage.evaluate(VISIBLE)
    page.locator("#lineage summary").first.click()
    assert lineage.evaluate(VISIBLE)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_a_desk_shows_every_section_without_a_click(browser: Any, address: str) -> None:
    page = opened(browser, address, 1180, 900)
    for section in ("#trade-off svg", ".panel", ".samples", ".audit", "table.lineage"):
        assert page.locator(section).first.evaluate(VISIBLE), section
    assert not page.locator("table.wrongs").first.evaluate(VISIBLE)


def test_paper_has_what_is_folded_on_a_screen(browser: Any, address: str) -> None:
    page = opened(browser, address, 1180, 900)
    page.emulate_media(media="print")
    for part in ("table.wrongs", "table.lineage", "#lineage details pre"):
        assert page.locator(part).first.evaluate(VISIBLE), part
    # What stands behind a heading comes on the same page.
    for heading in ("h2", "h3", ".lead"):
        style = page.locator(heading).first.evaluate("(e) => getComputedStyle(e).breakAfter")
        assert style == "avoid", heading
    pages = re.findall(rb"/Type\s*/Page\b", page.pdf(format="A4", print_background=True))
    assert 3 <= len(pages) <= 12
