"""The page in a real browser: what a person sees, types, selects and copies.

Needs Chromium (`apt-get install chromium`) and the package playwright of the dev extra.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
expect = playwright.expect

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
CHROMIUM = next(filter(None, map(shutil.which, NAMES)), None)
if CHROMIUM is None:
    pytest.skip("no Chromium is installed: the page cannot be tried", allow_module_level=True)

QUIET = [
    *"--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-sync".split(),
    "--disable-background-networking",
    "--disable-component-update",
    "--host-resolver-rules=MAP nanochat.test 127.0.0.1",
]

# Puts the stream of answers into the test's hands: `emit` writes an event, `cut` ends the
# connection, `asked` is what was sent. Everything else goes to the server.
SCRIPTED = """
window.asked = [];
const real = window.fetch;
window.fetch = (path, options = {}) => {
  if (path !== "/chat/completions") return real(path, options);
  window.asked.push(JSON.parse(options.body));
  const { readable, writable } = new TransformStream();
  const writer = writable.getWriter();
  const stopped = () => writer.abort(new DOMException("stopped", "AbortError")).catch(() => {});
  options.signal.addEventListener("abort", stopped);
  window.emit = (data) => {
    writer.write(new TextEncoder().encode("data: " + JSON.stringify(data) + "\\n\\n"));
    return new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
  };
  window.cut = () => writer.close();
  return Promise.resolve(new Response(readable));
};
"""

BELOW = (
    "(main => main.scrollHeight - main.scrollTop - main.clientHeight)"
    "(document.querySelector('main'))"
)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield browser
        browser.close()


class Tab:
    """One tab with the page in it. `complaints` are errors of its scripts and refused requests to
    elsewhere.
    """

    def __init__(self, page: Any, url: str) -> None:
        self.page, self.url = page, url
        self.complaints: list[str] = []
        self.requested: list[str] = []
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("console", self._heard)
        page.on("request", lambda request: self.requested.append(request.url))
        page.goto(url)
        self.text = page.locator("#text")
        self.messages = page.locator(".message:visible")
        self.answers = page.locator(".message.assistant:visible")
        self.notice = page.locator("#notice")
        self.again = page.locator("#again")

    def _heard(self, message: Any) -> None:
        expected = (
            "Failed to load resource",  # the server refused a request of the test's
            "Cross-Origin-Opener-Policy header has been ignored",  # over plain HTTP
        )
        if message.type == "error" and not any(words in message.text for words in expected):
            self.complaints.append(message.text)

    def ask(self, words: str) -> None:
        self.text.fill(words)
        self.text.press("Enter")

    def emit(self, text: str = "", **data: Any) -> None:
        self.page.evaluate("data => emit(data)", {"token": text, "gpu": 0, **data})

    def done(self, **data: Any) -> None:
        self.page.evaluate("data => emit(data)", {"done": True, "finish_reason": "stop", **data})
        expect(self.page.locator("#send")).to_be_visible()

    def answer(self, words: str, text: str) -> None:
        """A whole turn."""
        self.ask(words)
        self.emit(text)
        self.done()

    def asked(self) -> list[list[str]]:
        """For each request that was made, what its messages say."""

        def said(content: Any) -> str:
            return (
                content if isinstance(content, str) else "".join(part["text"] for part in content)
            )

        bodies = self.page.evaluate("asked")
        return [[said(message["content"]) for message in body["messages"]] for body in bodies]

    def wait(self, condition: str) -> None:
        """Until the expression is true. (The page's policy forbids playwright's own way.)"""
        end = time.monotonic() + 10
        while not self.page.evaluate(condition):
            assert time.monotonic() < end, f"never: {condition}"
            time.sleep(0.02)

    def scrolled(self) -> float:
        return self.page.evaluate("document.querySelector('main').scrollTop")

    def below(self) -> float:
        """Pixels of the conversation below what is in view."""
        return self.page.evaluate(BELOW)


@pytest.fixture
def open_tab(chromium) -> Iterator[Callable[..., Tab]]:
    contexts, tabs = [], []

    def open_at(url: str, scripted: bool = False, **settings: Any) -> Tab:
        contexts.append(chromium.new_context(**settings))
        contexts[-1].set_default_timeout(10_000)
        page = contexts[-1].new_page()
        if scripted:
            page.add_init_script(SCRIPTED)
        tabs.append(Tab(page, url))
        return tabs[-1]

    yield open_at
    for context in contexts:
        context.close()
    assert [tab.complaints for tab in tabs] == [[] for _ in tabs]


@pytest.fixture
def tab(open_tab, server) -> Tab:
    """A tab whose answers the test writes."""
    return open_tab(server.url, scripted=True)


# --- against the server's own answers


def test_a_question_is_answered_and_only_this_server_asked(open_tab, server):
    tab = open_tab(server.url)
    tab.ask("Hello")
    expect(tab.again).to_have_text("Regenerate")
    expect(tab.messages).to_have_count(2)
    assert len(tab.answers.inner_text()) >= 32
    expect(tab.page.locator("#ending")).to_have_text("cut off after 32 tokens")
    assert all(url.startswith(server.url) for url in tab.requested)


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
        "**/chat/completions",
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
def test_a_refused_message_goes_back_to_be_changed(open_tab, server, typed):
    tab = open_tab(server.url)
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


def test_a_setting_that_is_refused_keeps_the_conversation(open_tab, server):
    tab = open_tab(server.url)
    tab.ask("Hello")
    expect(tab.again).to_have_text("Regenerate")
    before = tab.answers.inner_text()
    tab.page.locator("summary").click()
    tab.page.locator("#temperature").fill("1000")
    tab.page.keyboard.press("Escape")
    tab.again.click()
    expect(tab.notice).to_contain_text("temperature")
    assert tab.answers.inner_text() == before
    tab.ask("Again")
    expect(tab.notice).to_contain_text("Not sent")
    expect(tab.messages).to_have_count(2)
    assert tab.text.input_value() == "Again"


def test_a_reload_in_mid_answer_leaves_a_question_that_can_be_answered(open_tab, server):
    tab = open_tab(server.url)
    server.engine.step_s = 0.05
    tab.ask("Hello")
    tab.wait("document.querySelector('.assistant').textContent.length > 3")
    tab.page.reload()
    server.engine.step_s = 0.0
    expect(tab.messages).to_have_count(1)
    expect(tab.again).to_have_text("Answer")
    tab.again.click()
    expect(tab.messages).to_have_count(2)
    expect(tab.again).to_have_text("Regenerate")


def test_stopping_keeps_what_was_said(open_tab, server):
    tab = open_tab(server.url)
    server.engine.step_s = 0.05
    tab.ask("Hello")
    tab.wait("document.querySelector('.assistant').textContent.length > 3")
    tab.page.locator("#stop").click()
    expect(tab.page.locator("#ending")).to_have_text("stopped")
    assert 3 < len(tab.answers.inner_text()) < 32


def test_without_a_key_the_question_waits_for_one(open_tab, own_server):
    tab = open_tab(own_server(keys=("k" * 24,)).url)
    tab.ask("Hello")
    expect(tab.notice).to_contain_text("Settings")
    expect(tab.again).to_have_text("Answer")
    tab.page.locator("summary").click()
    tab.page.locator("#api-key").fill("k" * 24)
    tab.page.keyboard.press("Escape")
    tab.again.click()
    expect(tab.messages).to_have_count(2)
    expect(tab.again).to_have_text("Regenerate")


def test_copying_over_plain_http(open_tab, own_server):
    running = own_server(keys=("k" * 24,))
    tab = open_tab(running.url.replace("127.0.0.1", "nanochat.test"))
    assert tab.page.evaluate("isSecureContext") is False
    tab.page.locator("summary").click()
    tab.page.locator("#api-key").fill("k" * 24)
    tab.page.keyboard.press("Escape")
    tab.ask("Hello")
    expect(tab.again).to_have_text("Regenerate")
    tab.page.locator("#copy").click()
    expect(tab.page.locator("#copy")).to_have_text("Copied")
    tab.text.focus()
    tab.page.keyboard.press("Control+V")
    assert tab.text.input_value() == tab.answers.inner_text()


# --- regenerating


def test_regenerating_replaces_the_answer_when_the_new_one_has_come(tab):
    tab.answer("Hello", "old words")
    tab.again.click()
    tab.emit("new ")
    expect(tab.answers).to_have_text("new")
    tab.emit("words")
    tab.done()
    expect(tab.messages).to_have_count(2)
    expect(tab.answers).to_have_text("new words")
    tab.page.reload()
    expect(tab.answers).to_have_text("new words")


ENDINGS = {
    "stopped": lambda tab: tab.page.locator("#stop").click(),
    "cut": lambda tab: tab.page.evaluate("cut()"),
    "failed": lambda tab: tab.page.evaluate("emit({done: true, error: 'the engine broke'})"),
    "error event": lambda tab: tab.page.evaluate("emit({error: {message: 'shutting down'}})"),
    "reloaded": lambda tab: tab.page.reload(),
}


@pytest.mark.parametrize("written", ["", "half a new "])
def test_regenerating_that_fails_restores_the_answer(tab, written):
    tab.answer("Hello", "old *words*")
    for name, ending in ENDINGS.items():
        tab.again.click()
        expect(tab.again).to_be_hidden()
        if written:
            tab.emit(written)
        ending(tab)
        expect(tab.again).to_have_text("Regenerate")
        expect(tab.messages).to_have_count(2)
        assert tab.answers.inner_text() == "old words", name
    tab.ask("And then?")
    tab.wait("asked.length > 0")
    assert tab.asked()[-1] == ["Hello", "old *words*", "And then?"]


def test_an_answer_of_nothing_is_no_answer(tab):
    tab.answer("Hello", "old words")
    tab.again.click()
    tab.done()
    expect(tab.answers).to_have_text("old words")
    expect(tab.notice).to_contain_text("nothing")
    tab.ask("More")
    tab.done()
    expect(tab.messages).to_have_count(3)
    expect(tab.again).to_have_text("Answer")


def test_a_failure_before_the_answer_leaves_the_question(tab):
    tab.ask("Hello")
    tab.page.evaluate("cut()")
    expect(tab.notice).to_contain_text("connection")
    expect(tab.again).to_have_text("Answer")
    tab.ask("Anybody there?")
    tab.emit("Yes.")
    tab.done()
    assert tab.asked() == [["Hello"], ["Hello\n\nAnybody there?"]]
    expect(tab.messages).to_have_count(3)


STORED = [
    "no JSON",
    "null",
    '{"a": 1}',
    '[{"role": "assistant", "content": [{"type": "text", "text": "x"}]}]',
    '[null, 3, {"role": "user", "content": 5}, {"role": "system", "content": "s"}]',
]


def test_what_is_stored_is_checked(tab):
    for stored in STORED:
        tab.page.evaluate("text => sessionStorage.setItem('nanochat-conversation', text)", stored)
        tab.page.reload()
        expect(tab.page.locator("#welcome")).to_be_visible()
        tab.answer("Hello", "hi")
        assert tab.asked() == [["Hello"]], stored


def test_a_long_conversation_is_sent_from_its_newest_turns(tab):
    turn = [
        {"role": "user", "content": "q" * 1000},
        {"role": "assistant", "content": [{"type": "text", "text": "a" * 1000}]},
    ]
    tab.page.evaluate(
        "text => sessionStorage.setItem('nanochat-conversation', text)", json.dumps(turn * 1100)
    )
    tab.page.reload()
    tab.answer("Hello", "hi")
    (sent,) = tab.asked()
    assert 200 < len(sent) <= 1000 and sent[0] == "q" * 1000 and sent[-1] == "Hello"


# --- while it writes


def fill(tab: Tab, paragraphs: int = 60) -> None:
    tab.ask("Tell me much")
    tab.emit("".join(f"Paragraph {n} says a little.\n\n" for n in range(paragraphs)))


def test_the_end_stays_in_view(tab):
    fill(tab)
    assert tab.below() < 2
    for n in range(5):
        tab.emit(f"More {n}.\n\n")
        assert tab.below() < 2
    tab.done()
    assert tab.below() < 2


def test_a_reader_who_scrolled_up_stays_there(tab):
    fill(tab)
    tab.page.mouse.move(300, 300)
    tab.page.mouse.wheel(0, -30)
    tab.wait(f"{BELOW} > 20")
    place = tab.scrolled()
    for n in range(5):
        tab.emit(f"More {n}.\n\n")
    assert tab.scrolled() == place
    tab.done()
    assert tab.scrolled() == place
    tab.page.mouse.wheel(0, 100_000)
    tab.wait(f"{BELOW} < 2")
    tab.again.click()
    fill_more = "".join(f"Again {n}.\n\n" for n in range(60))
    tab.emit(fill_more)
    assert tab.below() < 2, "back at the end the page follows again"


SELECT = """words => {
  const walker = document.createTreeWalker(document.getElementById("log"), NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const at = walker.currentNode.data.indexOf(words);
    if (at < 0) continue;
    getSelection().setBaseAndExtent(walker.currentNode, at, walker.currentNode, at + words.length);
    return;
  }
}"""


GROWING = [
    ("Hello there, this is", "there", [" the rest.", "\n\n", "More.", "\n\n- a\n- b"]),
    ("- one\n- two words", "two", [" more", "\n- three", "\n\nend"]),
    ("Some **bold", "Some", [" text** and", " *this*", "\n\nend"]),
    ("| a | b |\n|---|---|\n| cell | x |", "cell", ["\n| y | z |", "\n\nend"]),
    ("```\ncode here", "code", [" goes on", "\nand on", "\n```\nend"]),
    ("First paragraph.\n\nSecond", "First", [" one.\n\n", "# T\n", "Third"]),
    ("1. one\n\n   two", "one", ["\n\n2. three", "\n\nend"]),
    ("> quoted words", "quoted", [" more", "\n> - list", "\n\nend"]),
]


def test_a_selection_survives_what_comes_after_it(tab):
    chosen = "getSelection().toString()"
    for start, words, more in GROWING:
        tab.page.locator("#new-chat").click()
        tab.ask("Hello")
        tab.emit(start)
        tab.page.evaluate(SELECT, words)
        assert tab.page.evaluate(chosen) == words
        for piece in more:
            tab.emit(piece)
            assert tab.page.evaluate(chosen) == words, (start, piece)
        tab.done()
        assert tab.page.evaluate(chosen) == words, start


def test_a_selection_holds_the_page_where_it_is(tab):
    fill(tab)
    tab.page.evaluate(SELECT, "Paragraph 59")
    place = tab.scrolled()
    tab.emit("More.\n\n" * 9)
    tab.done()
    assert tab.scrolled() == place


def test_only_what_changes_is_touched(tab):
    tab.ask("Hello")
    tab.emit("One.\n\nTwo.\n\n- a\n- b\n\nThree")
    tab.page.evaluate(
        """() => {
          window.touched = 0;
          new MutationObserver((seen) => { window.touched += seen.length }).observe(
            document.getElementById("log"),
            { subtree: true, childList: true, characterData: true, attributes: true });
        }"""
    )
    tab.emit(" more")
    assert tab.page.evaluate("touched") == 1


DOCUMENTS = [
    "One *two* **three** ***four*** `five` ~~six~~ [seven](https://a.b/c_(d)) https://e.f.\n\nA",
    "# Title #\n\nText\n\n- a\n  - b\n    1. c\n    2. d\n  - e\n\n  para\n- f\n\n\n- g\n\nt\n- h",
    "Table:\n| a | b |\n|:--|--:|\n| 1 | **2** |\n| `x\\|y` |\nno row\n\n---\n***\n> q\n> - l\n",
    "```py\nx = 1\n\n```\n~~~\nopen ```\n\n# no title\n~~~\n1. a\n```\nb\n```\n2. b\n\n-\n- \n-x",
    "a\n-\nb\n- c\n\n-\n\n1984. year\nin\n1984. it\n\n1. x\n\n   y\n\nz\\\nw \\*n\\* *a **b* c**",
    "> q\n> - l\n> > d\n> > - e\n\n2*3*4 https://a.b) x\n| a | b |\n|---\nno",
    "- a\r\n- b\r\n\r\ntext\r\n| a |\r\n| - |\r\n| b |\r\n\n\t- tab\n\t\t- tab\n",
]


def test_an_answer_looks_the_same_however_it_came(tab):
    """Writing it piece by piece ends like showing it at once, at every step."""
    differences = tab.page.evaluate(
        """async (documents) => {
          const { MessageView } = await import("/pages/message.js");
          const message = (text) => ({ role: "assistant", content: [{ type: "text", text }] });
          const found = [];
          let seed = 1;
          const random = (n) => (seed = (seed * 48271) % 2147483647) % n;
          for (let round = 0; round < 60; round += 1) {
            const text = documents[round % documents.length];
            const most = round % 3 ? 12 : 1;
            let shown = null;
            for (let at = 0; at < text.length; ) {
              at = Math.min(text.length, at + 1 + random(most));
              const part = message(text.slice(0, at));
              if (shown) shown.update(part); else shown = new MessageView(part);
              const whole = new MessageView(part);
              if (shown.box.innerHTML !== whole.box.innerHTML) {
                found.push([text.slice(0, at), shown.box.innerHTML, whole.box.innerHTML]);
                break;
              }
            }
          }
          return found;
        }""",
        DOCUMENTS,
    )
    assert differences == []


# --- what a model writes is never code


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


@pytest.mark.parametrize("asked", [False, True], ids=["model", "person"])
def test_nothing_written_becomes_code(tab, server, asked):
    for written in HOSTILE:
        tab.answer(written if asked else "Hello", "fine" if asked else written)
    for reloaded in (False, True):
        if reloaded:
            tab.page.reload()
        expect(tab.messages).to_have_count(2 * len(HOSTILE))
        for link in tab.page.locator(".message a").all():
            assert link.get_attribute("href").startswith(("https://", "http://", "mailto:"))
            assert link.get_attribute("rel") == "noopener noreferrer nofollow"
        bad = "script, img, iframe, svg, style, base, form, object, embed, input"
        written_elements = tab.page.locator(".message").locator(f"{bad}, [onclick], [onerror]")
        assert written_elements.count() == 0
        assert tab.page.evaluate("window.hit") is None
    assert all(url.startswith(server.url) for url in tab.requested)


def test_calculator_work_is_shown_where_it_belongs(tab):
    tab.ask("6*7?")
    tab.emit("It is ")
    tab.emit(python="6*7")
    tab.emit(python_output="<b>42</b>")
    tab.emit("42.")
    tab.done()
    expect(tab.page.locator(".tool")).to_have_text("6*7 = <b>42</b>")
    expect(tab.answers.locator("p")).to_have_count(1)
    tab.ask("Thanks")
    tab.wait("asked.length > 1")
    parts = tab.page.evaluate("asked[1].messages[1].content")
    assert [part["type"] for part in parts] == ["text", "python", "python_output", "text"]


# --- keys


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
    tab.page.evaluate(KEY, {})
    expect(tab.messages).to_have_count(2)


@pytest.mark.parametrize("touch", [False, True])
def test_enter_sends_or_makes_a_line(open_tab, server, touch):
    tab = open_tab(server.url, scripted=True, has_touch=touch, is_mobile=touch)
    tab.text.fill("one")
    tab.text.press("Shift+Enter")
    tab.text.press_sequentially("two")
    tab.text.press("Enter")
    if touch:
        assert tab.text.input_value() == "one\ntwo\n"
        expect(tab.messages).to_have_count(0)
        tab.page.locator("#send").tap()
    expect(tab.messages).to_have_count(2)
    assert tab.asked() == [["one\ntwo"]]


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
    for _ in range(20):
        tab.page.keyboard.press("Tab")
        names.append(
            tab.page.evaluate("document.activeElement.id || document.activeElement.tagName")
        )
    wanted = {"text", "send", "again", "copy", "new-chat", "temperature", "top-k", "max-tokens"}
    assert wanted | {"api-key", "model", "SUMMARY"} <= set(names)
    nameless = tab.page.evaluate(
        """[...document.querySelectorAll("button, input, select, textarea, summary")].filter(
             (one) => one.offsetParent && !one.textContent.trim() && !(one.labels || []).length
           ).map((one) => one.id)"""
    )
    assert nameless == []


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
