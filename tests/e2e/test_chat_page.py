"""The page at GET / in a real browser: what it shows is what people take the server for."""

import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

FAKE = Path(__file__).with_name("serve_fake.py")
HOSTILE = (
    "<script>window.broken = 1</script> <img src=x onerror='window.broken = 2'> **bold** "
    "[a](javascript:alert(1))\n\n```html\n<b>code</b>\n\n  indented\n```\nand on"
)


@contextmanager
def served(*arguments: str) -> Iterator[str]:
    process = subprocess.Popen(
        [sys.executable, str(FAKE), *arguments], stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    try:
        while not (found := re.search(r"http://[\d.:]+", line := process.stderr.readline())):
            assert line, "the server has ended"
        yield found[0]
    finally:
        process.kill()
        process.wait()
        process.stderr.close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no Chromium on this machine (Debian: apt-get install chromium)")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        arguments = ["--no-sandbox", "--disable-background-networking"]
        browser = playwright.chromium.launch(executable_path=chromium, args=arguments)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with served() as url:
        yield url


@pytest.fixture
def visit(browser: Any) -> Iterator[Callable[..., Any]]:
    """Open a page; whatever it loads from elsewhere, or does wrong, fails the test."""
    requests: list[str] = []
    faults: list[str] = []
    with ExitStack() as stack:

        def opened(url: str, **options: Any) -> Any:
            context = stack.enter_context(browser.new_context(**options))
            context.set_default_timeout(10_000)
            page = context.new_page()
            page.on("request", lambda request: requests.append(request.url))
            page.on("pageerror", lambda error: faults.append(str(error)))
            page.on("console", lambda message: faults.append(message.text))
            page.goto(url)
            return page

        yield opened
    assert all(re.match(r"http://127\.0\.0\.1:|data:", url) for url in requests), requests
    # Chromium itself logs each answer that is an error.
    assert [fault for fault in faults if "Failed to load resource" not in fault] == []


def say(page: Any, text: str) -> None:
    page.get_by_label("Message", exact=True).fill(text)
    page.keyboard.press("Enter")


def answers(page: Any) -> list[str]:
    return page.locator("article:not(.mine) > div:first-child").all_inner_texts()


def reply(answer: dict[str, Any] | None, route: Any) -> None:
    """Answer in the server's place; without an answer, as if there were no server."""
    if answer is None:
        route.abort()
    else:
        route.fulfill(**answer)


def wait_for_end(page: Any) -> None:
    page.locator("#dialogue[aria-busy=false]").wait_for()


def test_an_answer_appears_while_it_is_written(visit: Any, url: str) -> None:
    page = visit(url)
    page.locator("h1", has_text="fake").wait_for()
    page.get_by_role("button", name="Settings").click()
    page.get_by_label("Tokens of an answer").fill("60")
    box = page.get_by_label("Message", exact=True)
    box.click()
    page.keyboard.type("be slow")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("please")
    page.keyboard.press("Enter")
    assert box.input_value() == ""
    page.get_by_role("button", name="Stop").wait_for()
    page.locator("article", has_text="abc").wait_for()
    assert len(answers(page)[0]) < 60
    wait_for_end(page)
    assert answers(page) == [("abcdefghijklmnopqrstuvwxyz" * 3)[:60]]
    assert page.locator("article.mine").inner_text() == "be slow\nplease"
    assert "the limit of tokens is reached" in page.locator("article").last.inner_text()
    assert not page.get_by_role("button", name="Stop").is_visible()


def test_stop_keeps_what_was_said_and_the_dialogue_goes_on(visit: Any, url: str) -> None:
    page = visit(url)
    page.locator("h1", has_text="fake").wait_for()
    sent: list[Any] = []
    page.on("request", lambda request: sent.append(request.post_data_json))
    say(page, "be slow")
    page.locator("article", has_text="abcdef").wait_for()
    page.get_by_role("button", name="Stop").click()
    wait_for_end(page)
    [said] = answers(page)
    assert said.startswith("abcdef")
    assert "stopped" in page.locator("article").last.inner_text()
    page.get_by_role("button", name="Settings").click()
    page.get_by_label("System message").fill("Be kind.")
    page.get_by_label("Temperature").fill("0")
    page.get_by_label("Tokens of an answer").fill("3")
    say(page, "Hi")
    page.locator("article", has_text=re.compile("^abc")).last.wait_for()
    wait_for_end(page)
    assert answers(page) == [said, "abc"]
    assert sent[-1] == {
        "model": "fake",
        "stream": True,
        "temperature": 0,
        "max_tokens": 3,
        "messages": [
            {"role": "system", "content": "Be kind."},
            {"role": "user", "content": "be slow"},
            {"role": "assistant", "content": said},
            {"role": "user", "content": "Hi"},
        ],
    }
    say(page, "be slow again")
    page.locator("article", has_text="be slow again").wait_for()
    page.get_by_role("button", name="New chat").click()
    wait_for_end(page)
    assert page.locator("article").count() == 0


def test_what_a_model_says_is_shown_as_text_and_never_run(visit: Any) -> None:
    with served("--reply", HOSTILE) as url:
        page = visit(url, permissions=["clipboard-read", "clipboard-write"])
        page.locator("h1", has_text="fake").wait_for()
        say(page, "<script>window.broken = 3</script>")
        page.locator("article:not(.mine)", has_text="and on").wait_for()
        wait_for_end(page)
        assert page.locator("article.mine").inner_text() == "<script>window.broken = 3</script>"
        first, last = page.locator("article:not(.mine) p").all_inner_texts()
        assert first == HOSTILE.partition("\n")[0]
        assert last == "and on"
        code = page.locator("article pre").inner_text()
        assert code == "<b>code</b>\n\n  indented"
        assert page.locator("article :is(script, img, a, b)").count() == 0
        assert page.evaluate("window.broken") is None
        page.get_by_role("button", name="Copy").click()
        page.get_by_role("button", name="Copied").wait_for()
        assert page.evaluate("navigator.clipboard.readText()") == HOSTILE


def test_a_key_is_asked_for_and_kept_for_this_session_only(visit: Any) -> None:
    with served("--key", "sk-right") as url:
        page = visit(url)
        key = page.get_by_label("This server asks for a key")
        key.fill("sk-wrong")
        page.get_by_role("button", name="Continue").click()
        page.get_by_text("This key is wrong.").wait_for()
        key.fill("sk-right")
        page.keyboard.press("Enter")
        page.locator("h1", has_text="fake").wait_for()
        assert not page.locator("dialog").is_visible()
        page.get_by_role("button", name="Settings").click()
        page.get_by_label("Tokens of an answer").fill("3")
        say(page, "Hi")
        page.locator("article", has_text=re.compile("^abc")).wait_for()
        page.reload()
        page.locator("h1", has_text="fake").wait_for()
        assert page.evaluate("localStorage.length") == 0
        assert page.context.cookies() == []
        page.evaluate("sessionStorage.setItem('lmwright-key', 'sk-old')")
        say(page, "a question")
        page.locator("dialog").wait_for()
        assert page.get_by_label("Message", exact=True).input_value() == "a question"


def test_an_error_is_a_sentence_and_what_was_written_is_not_lost(visit: Any, url: str) -> None:
    page = visit(url)
    page.locator("h1", has_text="fake").wait_for()
    error = page.get_by_role("alert").first
    long = "too long " * 400
    say(page, long)
    page.get_by_text("This is too long for the model").wait_for()
    assert "Begin a new chat" in error.inner_text()
    assert page.get_by_label("Message", exact=True).input_value() == long.strip()
    assert page.locator("article").count() == 0
    busy = '{"error": {"message": "too many requests wait"}}'
    replies = {
        "busy": {"status": 429, "body": busy, "headers": {"Retry-After": "2"}},
        "odd": {"status": 502, "body": "<html>"},
        "broken": {"body": 'data: {"choices": [{"delta": {"content": "half"}}]}\n\n'},
    }
    expected = {
        "busy": "The server is busy: too many requests wait. Try again in 2 s.",
        "odd": "The server refused this: it answered with status 502.",
        "broken": "The connection broke off before the answer was complete.",
        "gone": "The server cannot be reached. Is it still running?",
    }
    for name, sentence in expected.items():
        page.unroute_all()
        page.route("**/v1/chat/completions", partial(reply, replies.get(name)))
        say(page, name)
        page.get_by_text(sentence).wait_for()
    assert answers(page) == ["half"]
    assert page.get_by_label("Message", exact=True).input_value() == "gone"


def test_a_model_that_cannot_chat_continues_texts(visit: Any) -> None:
    with served("--no-template") as url:
        page = visit(url)
        page.get_by_text("fake has no chat template").wait_for()
        page.get_by_role("button", name="Settings").click()
        assert not page.get_by_label("System message").is_visible()
        page.get_by_label("Tokens of an answer").fill("5")
        say(page, "Once upon")
        page.locator("article", has_text=re.compile("^abcde")).wait_for()


def test_a_model_that_writes_nothing_says_so(visit: Any) -> None:
    with served("--no-template", "--kind", "encoder") as url:
        page = visit(url)
        page.get_by_text("fake writes no text").wait_for()
        assert page.get_by_label("Message", exact=True).is_disabled()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_shows_all_of_it(visit: Any, url: str, scheme: str) -> None:
    page = visit(url, viewport={"width": 390, "height": 780}, color_scheme=scheme)
    page.locator("h1", has_text="fake").wait_for()
    page.get_by_role("button", name="Settings").click()
    say(page, "wide " + "w" * 300)
    wait_for_end(page)
    wide = "document.documentElement.scrollWidth - window.innerWidth"
    assert page.evaluate(wide) <= 0, "the page is wider than its window"
    assert page.get_by_role("button", name="Send").is_visible()
    names = page.evaluate(
        "[...document.querySelectorAll('input, textarea')].map((field) => field.labels.length)"
    )
    assert min(names) == 1
    colors = page.evaluate(
        "[getComputedStyle(document.body).color, getComputedStyle(document.body).backgroundColor]"
    )
    text, background = (sum(map(int, re.findall(r"\d+", color))) for color in colors)
    assert (text < background) == (scheme == "light")
