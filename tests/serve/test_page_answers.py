"""The page in a real browser: asking, being refused, stopping, regenerating, editing."""

from __future__ import annotations

import pytest

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

from browser import Tab  # noqa: E402
from team import sqlite_storage  # noqa: E402

expect = playwright.expect
KEY = "k" * 24


# --- against the server's own answers


def test_a_question_is_answered_and_only_this_server_asked(open_tab, local_server):
    tab = open_tab(local_server.url)
    tab.ask("Hello")
    expect(tab.again).to_have_text("Regenerate")
    expect(tab.messages).to_have_count(2)
    assert len(tab.answers.inner_text()) >= 32
    expect(tab.page.locator("#ending")).to_have_text("cut off after 32 tokens")
    assert all(url.startswith(local_server.url) for url in tab.requested)
    tab.page.reload()
    expect(tab.page.locator("#ending")).to_have_text("cut off after 32 tokens")


def too_long(tab: Tab) -> str:
    tab.text.fill("x" * 300)
    return "x" * 300


def too_large(tab: Tab) -> str:
    """More than the page sends: megabytes as JSON, few enough characters for the browser."""
    words = "\1" * 400_000
    tab.page.evaluate("words => { document.getElementById('text').value = words }", words)
    return words


def refused_on_the_way(tab: Tab) -> str:
    """As a proxy does it: in HTML."""
    page = "<html><h1>413 Request Entity Too Large</h1></html>"
    tab.page.route(
        "**/messages",
        lambda route: route.fulfill(status=413, content_type="text/html", body=page),
        times=1,
    )
    tab.text.fill("Hello")
    return "Hello"


def half_a_character(tab: Tab) -> str:
    words = "\ud83d half"
    tab.page.evaluate("document.getElementById('text').value = '\\ud83d half'")
    return words


@pytest.mark.parametrize("typed", [too_long, too_large, refused_on_the_way, half_a_character])
def test_a_refused_message_goes_back_to_be_changed(open_tab, local_server, typed):
    tab = open_tab(local_server.url)
    tab.ask("Hello")
    expect(tab.again).to_have_text("Regenerate")
    words = typed(tab)
    tab.page.locator("#send").click()
    expect(tab.notice).to_contain_text("Not sent")
    expect(tab.messages).to_have_count(2)
    held = "document.getElementById('text').value.length"
    assert tab.page.evaluate(held) == len(words)
    tab.page.reload()
    expect(tab.messages).to_have_count(2)
    tab.ask("Shorter")
    expect(tab.messages).to_have_count(4)
    expect(tab.again).to_have_text("Regenerate")
    expect(tab.notice).to_be_hidden()


def test_a_setting_that_is_refused_keeps_the_conversation(open_tab, local_server):
    tab = open_tab(local_server.url)
    tab.ask("Hello")
    expect(tab.again).to_have_text("Regenerate")
    before = tab.answers.inner_text()
    tab.page.locator("summary").click()
    tab.page.locator("#temperature").fill("1000")
    tab.page.keyboard.press("Escape")
    expect(tab.notice).to_contain_text("temperature")
    assert tab.answers.inner_text() == before
    tab.page.reload()
    expect(tab.messages).to_have_count(2)
    tab.page.locator("summary").click()
    expect(tab.page.locator("#temperature")).to_have_value("")


def test_a_reload_in_mid_answer_keeps_what_was_said(open_tab, local_server):
    tab = open_tab(local_server.url)
    local_server.engine.step_s = 0.1
    tab.ask("Hello")
    tab.wait("(document.querySelector('.assistant .body') || {}).textContent?.length > 3")
    seen = tab.answers.inner_text()
    tab.page.reload()
    local_server.engine.step_s = 0.0
    expect(tab.page.locator("#ending")).to_have_text("stopped")
    expect(tab.messages).to_have_count(2)
    assert tab.answers.inner_text().startswith(seen)
    tab.again.click()
    expect(tab.page.locator("#ending")).to_have_text("cut off after 32 tokens")
    expect(tab.page.locator(".versions")).to_contain_text("2/2")


def test_stopping_keeps_what_was_said(open_tab, local_server):
    tab = open_tab(local_server.url)
    local_server.engine.step_s = 0.1
    tab.ask("Hello")
    tab.wait("(document.querySelector('.assistant .body') || {}).textContent?.length > 3")
    tab.page.locator("#stop").click()
    local_server.engine.step_s = 0.0
    expect(tab.page.locator("#ending")).to_have_text("stopped")
    assert 3 < len(tab.answers.inner_text()) < 32
    local_server.wait_until_idle()
    tab.page.reload()
    expect(tab.page.locator("#ending")).to_have_text("stopped")


def test_without_a_key_the_page_asks_for_one(open_tab, own_server, tmp_path):
    running = own_server(keys=(KEY,), storage=sqlite_storage(tmp_path))
    tab = open_tab(running.url)
    expect(tab.notice).to_contain_text("Settings")
    tab.ask("Hello")
    expect(tab.notice).to_contain_text("Not sent: An API key is needed")
    assert tab.text.input_value() == "Hello"
    tab.page.locator("summary").click()
    tab.page.locator("#api-key").fill(KEY)
    tab.page.keyboard.press("Escape")
    expect(tab.notice).to_be_hidden()
    tab.text.press("Enter")
    expect(tab.messages).to_have_count(2)
    expect(tab.again).to_have_text("Regenerate")


def test_copying_over_plain_http(open_tab, own_server, tmp_path):
    running = own_server(keys=(KEY,), storage=sqlite_storage(tmp_path))
    tab = open_tab(running.url.replace("127.0.0.1", "nanochat.test"))
    assert tab.page.evaluate("isSecureContext") is False
    tab.page.locator("summary").click()
    tab.page.locator("#api-key").fill(KEY)
    tab.page.keyboard.press("Escape")
    expect(tab.notice).to_be_hidden()
    tab.ask("Hello")
    expect(tab.again).to_have_text("Regenerate")
    tab.page.locator("#copy").click()
    expect(tab.page.locator("#copy")).to_have_text("Copied")
    tab.text.focus()
    tab.page.keyboard.press("Control+V")
    assert tab.text.input_value() == tab.answers.inner_text()


# --- regenerating and editing


def test_regenerating_replaces_the_answer_when_the_new_one_has_come(tab):
    tab.answer("Hello", "old words")
    tab.regenerate()
    tab.emit("new ")
    expect(tab.answers).to_have_text("new")
    tab.emit("words")
    tab.done()
    for reloaded in (False, True):
        if reloaded:
            tab.page.reload()
        expect(tab.messages).to_have_count(2)
        expect(tab.answers).to_have_text("new words")
        expect(tab.page.locator(".versions")).to_contain_text("2/2")
    tab.page.get_by_role("button", name="Earlier version").click()
    expect(tab.answers).to_have_text("old words")
    tab.page.reload()
    expect(tab.answers).to_have_text("old words")
    tab.ask("And then?")
    assert tab.asked()[-1] == ["Hello", "old words", "And then?"]
    tab.done()


ENDINGS = {
    "stopped": lambda tab: tab.page.locator("#stop").click(),
    "cut": lambda tab: tab.page.evaluate("cut()"),
    "failed": lambda tab: tab.worker.end("error", "the engine broke"),
    "reloaded": lambda tab: tab.page.reload(),
}


@pytest.mark.parametrize("written", ["", "half a new "])
def test_regenerating_that_fails_restores_the_answer(tab, written):
    tab.answer("Hello", "old *words*")
    for name, ending in ENDINGS.items():
        tab.regenerate()
        expect(tab.again).to_be_hidden()
        if written:
            tab.emit(written)
        ending(tab)
        expect(tab.again).to_have_text("Regenerate")
        expect(tab.messages).to_have_count(2)
        assert tab.answers.inner_text() == "old words", name
        tab.until(lambda: not tab.worker.writing)
    tab.ask("And then?")
    assert tab.asked()[-1] == ["Hello", "old *words*", "And then?"]
    tab.done()


def test_an_answer_of_nothing_is_no_answer(tab):
    tab.answer("Hello", "old words")
    tab.regenerate()
    tab.done()
    expect(tab.answers).to_have_text("old words")
    expect(tab.notice).to_contain_text("nothing")
    tab.ask("More")
    tab.done()
    expect(tab.messages).to_have_count(3)
    expect(tab.again).to_have_text("Answer")
    tab.page.reload()
    expect(tab.messages).to_have_count(3)


def test_a_failure_before_the_answer_leaves_the_question(tab):
    tab.ask("Hello")
    tab.page.evaluate("cut()")
    expect(tab.notice).to_contain_text("connection")
    expect(tab.again).to_have_text("Answer")
    tab.until(lambda: not tab.worker.writing)
    tab.ask("Anybody there?")
    tab.emit("Yes.")
    tab.done()
    assert tab.asked() == [["Hello"], ["Hello\n\nAnybody there?"]]
    expect(tab.messages).to_have_count(3)


def test_an_edited_question_is_asked_anew_and_the_old_one_kept(tab):
    tab.answer("Helo", "one")
    tab.answer("More", "two")
    edit = tab.page.get_by_role("button", name="Edit this question and ask again")
    edit.first.click()
    assert tab.text.input_value() == "Helo"
    tab.ask("Hello")
    tab.emit("three")
    tab.done()
    assert tab.asked()[-1] == ["Hello"]
    for reloaded in (False, True):
        if reloaded:
            tab.page.reload()
        expect(tab.questions).to_have_text(["Hello"])
        expect(tab.answers).to_have_text(["three"])
    tab.page.get_by_role("button", name="Earlier version").click()
    expect(tab.questions).to_have_text(["Helo", "More"])
    expect(tab.answers).to_have_text(["one", "two"])


def test_an_edit_is_given_up_with_escape(tab):
    tab.answer("Hello", "one")
    tab.page.get_by_role("button", name="Edit this question and ask again").click()
    expect(tab.page.locator("#send")).to_have_text("Ask again")
    tab.text.press("Escape")
    expect(tab.page.locator("#send")).to_have_text("Send")
    assert tab.text.input_value() == ""
    tab.ask("More")
    assert tab.asked()[-1] == ["Hello", "one", "More"]
    tab.done()
