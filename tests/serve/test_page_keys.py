"""Keyboard, phone, dark, and what assistive programs get."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
expect = playwright.expect

KEY = """init => {
  const about = { key: "Enter", bubbles: true, cancelable: true, ...init };
  const event = new KeyboardEvent("keydown", about);
  if (init.keyCode) Object.defineProperty(event, "keyCode", { value: init.keyCode });
  document.getElementById("text").dispatchEvent(event);
}"""


def test_enter_during_an_input_method_does_not_send(tab):
    tab.text.fill("にほん")
    for init in ({"isComposing": True}, {"keyCode": 229}):
        tab.page.evaluate(KEY, init)
        expect(tab.messages).to_have_count(0)
        assert tab.text.input_value() == "にほん"
    tab.expect_asked(lambda: tab.page.evaluate(KEY, {}))
    expect(tab.messages).to_have_count(2)
    tab.done()


@pytest.mark.parametrize("touch", [False, True])
def test_enter_sends_or_makes_a_line(open_tab, scripted_server, touch):
    running, worker = scripted_server
    tab = open_tab(running.url, worker, has_touch=touch, is_mobile=touch)
    tab.text.fill("one")
    tab.text.press("Shift+Enter")
    tab.text.press_sequentially("two")
    if touch:
        tab.text.press("Enter")
        assert tab.text.input_value() == "one\ntwo\n"
        expect(tab.messages).to_have_count(0)
        tab.expect_asked(tab.page.locator("#send").tap)
    else:
        tab.expect_asked(lambda: tab.text.press("Enter"))
    expect(tab.messages).to_have_count(2)
    assert tab.asked() == [["one\ntwo"]]
    tab.done()


def test_escape_closes_settings(tab):
    tab.page.locator("summary").click()
    tab.page.locator("#temperature").focus()
    tab.page.keyboard.press("Escape")
    expect(tab.page.locator("#temperature")).to_be_hidden()
    assert tab.page.evaluate("document.activeElement.tagName") == "SUMMARY"


def test_everything_is_reached_with_the_keyboard_and_named(tab):
    tab.answer("Hello", "hi")
    tab.page.locator("summary").click()
    names = []
    for _ in range(120):
        tab.page.keyboard.press("Tab")
        names.append(
            tab.page.evaluate(
                "(one => one.id || one.getAttribute('aria-label') || one.tagName)"
                "(document.activeElement)"
            )
        )
    wanted = {"text", "send", "again", "copy", "new-chat", "temperature", "top-k", "max-tokens"}
    wanted |= {"search", "folder", "folder-menu", "me", "chat-menu", "attach", "system-prompt"}
    wanted |= {"Good answer", "Bad answer", "Edit this question and ask again"}
    assert wanted | {"api-key", "SUMMARY", "A"} <= set(names)


def test_a_conversation_by_keyboard_only(tab):
    """Ask, rename, search and open it again without a mouse."""
    keys = tab.page.keyboard
    keys.type("What is seven times six?")
    tab.expect_asked(lambda: keys.press("Enter"))
    tab.emit("42")
    tab.done()
    tab.page.locator("#chat-menu").focus()
    keys.press("Enter")
    expect(tab.dialog).to_be_visible()
    keys.press("Enter")  # the first choice is to rename
    expect(tab.dialog.locator("input")).to_be_focused()
    keys.press("Control+A")
    keys.type("Keyboard only")
    keys.press("Enter")
    expect(tab.page.locator("#title")).to_have_text("Keyboard only")
    assert tab.page.evaluate("document.activeElement.id") in ("chat-menu", "text")
    tab.page.locator("#search").focus()
    keys.type("keyboard on")
    expect(tab.titles).to_have_text(["Keyboard only"])
    for _ in range(3):
        keys.press("Tab")
    keys.press("Enter")
    expect(tab.answers).to_have_text(["42"])


def test_nothing_sticks_out_on_a_phone(tab):
    heads = "| a very wide heading | another one | and another one | and the last |"
    wide = f"{heads}\n|-|-|-|-|\n| 1 | 2 | 3 | 4 |"
    tab.answer("x" * 200, "y" * 200 + "\n\n```\n" + "z" * 200 + "\n```\n\n" + wide)
    for width in (320, 375, 768):
        tab.page.set_viewport_size({"width": width, "height": 667})
        assert tab.page.evaluate("document.documentElement.scrollWidth") == width
        inside = "(main => main.scrollWidth <= main.clientWidth)(document.querySelector('main'))"
        assert tab.page.evaluate(inside)
        tab.page.locator("summary").click()
        box = tab.page.locator("#settings-form").bounding_box()
        assert box["x"] >= 0 and box["x"] + box["width"] <= width
        tab.page.keyboard.press("Escape")
        tab.page.locator("#chat-menu").click()
        box = tab.dialog.bounding_box()
        assert box["x"] >= 0 and box["x"] + box["width"] <= width
        tab.page.keyboard.press("Escape")


def test_the_list_opens_and_closes_on_a_phone(tab):
    tab.answer("Find me", "here")
    tab.page.set_viewport_size({"width": 375, "height": 667})
    expect(tab.page.locator("#side")).to_be_hidden()
    tab.page.locator("#open-side").click()
    expect(tab.page.locator("#side")).to_be_visible()
    tab.page.keyboard.press("Escape")
    expect(tab.page.locator("#side")).to_be_hidden()
    assert tab.page.evaluate("document.activeElement.id") == "open-side"
    tab.page.locator("#open-side").click()
    tab.titles.first.click()
    expect(tab.page.locator("#side")).to_be_hidden()
    expect(tab.answers).to_have_text(["here"])


def axe() -> str:
    """axe-core's script: $AXE_CORE, or where `npm install axe-core` puts it."""
    places = [os.environ.get("AXE_CORE", ""), "node_modules/axe-core/axe.min.js"]
    found = next((place for place in places if place and Path(place).is_file()), None)
    if found is None:
        pytest.skip("axe-core is not installed: npm install --no-save axe-core@4")
    return Path(found).read_text(encoding="utf-8")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(open_tab, scripted_server, scheme):
    script = axe()
    running, worker = scripted_server
    tab = open_tab(running.url, worker, color_scheme=scheme, bypass_csp=True)
    everything = (
        "# T\n\n- a\n\n| a |\n|-|\n| 1 |\n\n```sql\nselect 1 -- one\n```\n> q\n\nhttps://a.b"
    )
    tab.answer("Hello", everything)
    tab.page.evaluate(script)

    def problems() -> list[str]:
        found = tab.page.evaluate("axe.run()")["violations"]
        return [
            f"{one['id']}: {node['html'][:200]} {node['failureSummary'][:300]}"
            for one in found
            if one["impact"] in ("serious", "critical")
            for node in one["nodes"]
        ]

    assert problems() == []
    tab.page.locator("summary").click()
    assert problems() == []
    tab.page.keyboard.press("Escape")
    tab.page.locator("#chat-menu").click()
    assert problems() == []
    tab.dialog.get_by_role("button", name="Share").click()
    assert problems() == []
    tab.page.keyboard.press("Escape")
    tab.page.set_viewport_size({"width": 375, "height": 667})
    tab.page.locator("#open-side").click()
    assert problems() == []
