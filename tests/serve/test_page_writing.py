"""The page while an answer is written: what is in view, selected or touched stays."""

from __future__ import annotations

import pytest

pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

from browser import BELOW, Tab


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
    tab.regenerate()
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
          const { MessageView } = await import("./pages/message.js");
          const message = (text) => ({ role: "assistant", content: text });
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
              if (shown.body.innerHTML !== whole.body.innerHTML) {
                found.push([text.slice(0, at), shown.body.innerHTML, whole.body.innerHTML]);
                break;
              }
            }
          }
          return found;
        }""",
        DOCUMENTS,
    )
    assert differences == []
