"""What a model or a person writes is never code, wherever the page shows it."""

from __future__ import annotations

import json

import pytest

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
expect = playwright.expect

HOSTILE = [
    "<script>window.hit = 1</script>",
    "<img src=x onerror='window.hit = 1'>",
    "<svg/onload=window.hit=1><iframe srcdoc='<script>parent.hit=1</script>'>",
    "[click](javascript:window.hit=1) [click](JaVaScRiPt:window.hit=1)",
    "[click](\x01javascript:window.hit=1) [click]( javascript:window.hit=1)",
    "[click](java\nscript:window.hit=1) [click](java&#10;script:window.hit=1)",
    "[click](data:text/html,<script>window.hit=1</script>) [c](vbscript:x) [c](//evil.test)",
    "[click](<javascript:window.hit=1>) <javascript:window.hit=1>",
    '[a](https://a.test/"onmouseover="window.hit=1) ![x](https://a.test/"onerror="window.hit=1)',
    '[a](https://a.test "x" onclick="window.hit=1")',
    "![x](javascript:window.hit=1) ![x](https://evil.test/pixel.png)",
    "```html\n<script>window.hit = 1</script>\n```",
    "| <img src=x onerror=window.hit=1> |\n|---|\n| <script>window.hit=1</script> |",
    '```"><img/src=x/onerror=window.hit=1>\nx\n```',
    "\ue000\ue001 <b>\uf8ff</b>",
    "# <style>body{display:none}</style>\n\n<base href=//evil.test><form action=//evil.test>",
]


BAD = "script, img, iframe, svg, style, base, form, object, embed, input"


def check(tab, where: str) -> None:
    """Nothing hostile has become an element or run."""
    for link in tab.page.locator(f"{where} a").all():
        assert link.get_attribute("href").startswith(("https://", "http://", "mailto:", "?c="))
        if not link.get_attribute("href").startswith("?c="):
            assert link.get_attribute("rel") == "noopener noreferrer nofollow"
    assert tab.page.locator(where).locator(f"{BAD}, [onclick], [onerror]").count() == 0
    assert tab.page.evaluate("window.hit") is None
    assert all(url.startswith(tab.url) for url in tab.requested)


@pytest.mark.parametrize("asked", [False, True], ids=["model", "person"])
def test_nothing_written_becomes_code(tab, asked):
    for written in HOSTILE:
        tab.answer(written if asked else "Hello", "fine" if asked else written)
    for reloaded in (False, True):
        if reloaded:
            tab.page.reload()
        expect(tab.messages).to_have_count(2 * len(HOSTILE))
        check(tab, ".message .body")


def test_titles_names_and_imported_files_are_text(tab):
    code = "<img src=x onerror='window.hit = 1'><script>window.hit=1</script>"
    message = {"parent": None, "role": "user", "content": code, "created_at": 1.0}
    answer = {**message, "parent": 0, "role": "assistant", "model": code}
    tool = {
        **answer,
        "parts": [{"type": "<img src=x>", "text": code}, {"type": "text", "text": code}],
    }
    about = {"created_at": 1.0, "updated_at": 4e9, "title": code, "folder": code, "active": 2}
    chat = {**about, "system_prompt": code, "messages": [message, answer, tool]}
    file = {"name": code + ".txt", "media_type": code[:60], "text": code, "created_at": 1.0}
    message["attachments"] = [file]
    body = json.dumps({"nanochat_export": 1, "conversations": [chat]})
    answered = tab.page.request.post(f"{tab.url}/api/conversations/import", data=body)
    assert answered.ok, answered.text()
    tab.page.reload()
    tab.titles.first.click()
    expect(tab.messages).to_have_count(2)
    expect(tab.page.locator("#title")).to_have_text(code)
    expect(tab.page.locator("#folder")).to_contain_text(code)
    check(tab, ".message .body")
    check(tab, "#side nav")
    assert tab.page.locator("#folder img, h1 img, #list img, .file img").count() == 0
    tab.page.locator("#chat-menu").click()
    tab.dialog.get_by_role("button", name="Rename").click()
    expect(tab.dialog.locator("input")).to_have_value(code)
    tab.page.keyboard.press("Escape")
    assert tab.page.evaluate("window.hit") is None


def test_tools_are_shown_where_they_belong(tab):
    tab.ask("6*7?")
    tab.emit("It is ")
    tab.emit("6*7", kind="python")
    tab.emit("<b>42</b>", kind="python_output")
    tab.emit("42.")
    for reloaded in (False, True):
        if reloaded:
            tab.page.reload()
        else:
            tab.done()
        expect(tab.page.locator(".tool")).to_have_text("6*7 = <b>42</b>")
        expect(tab.answers.locator("p")).to_have_count(1)
    tab.ask("Thanks")
    (_, sent) = tab.asked()
    assert sent == ["6*7?", "It is ", "6*7", "<b>42</b>", "42.", "Thanks"]
    tab.done()
