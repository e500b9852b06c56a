"""Answers as HTML: the structure the page shows while they are written, and never code."""

from __future__ import annotations

import re
import time
from html.parser import HTMLParser

import pytest

nh3 = pytest.importorskip("nh3", reason="the extra serve is not installed")

from nanochat.serve.rendering import LANGUAGES, coloured, render_answer  # noqa: E402

LINK = 'title="{0}" target="_blank" rel="noopener noreferrer nofollow"'
RENDERED = {
    "a **b** *c* `d*e*f` ~~g~~": "<p>a <strong>b</strong> <em>c</em> <code>d*e*f</code> "
    "<del>g</del></p>",
    "2*3*4 = 24, f(x)*g*(y), 2 * 3": "<p>2*3*4 = 24, f(x)*g*(y), 2 * 3</p>",
    "snake_case_name one\ntwo": "<p>snake_case_name one<br>two</p>",
    "# T\n###### U": "<h2>T</h2><h6>U</h6>",
    "a\n---\nb": "<p>a</p><hr><p>b</p>",
    "| a | b |\n|:-:|--:|\n| 1 | 2 |": '<div class="table"><table><thead><tr>'
    '<th class="centre">a</th><th class="right">b</th></tr></thead><tbody><tr>'
    '<td class="centre">1</td><td class="right">2</td></tr></tbody></table></div>',
    "```\n<b>&\n```": "<pre><code>&lt;b&gt;&amp;</code></pre>",
    "```sql\nselect 1 -- one\n```": '<pre><code><span class="hl-k">select</span> '
    '<span class="hl-n">1</span> <span class="hl-c">-- one</span></code></pre>',
    "```nosuch x=1\na\n```": "<pre><code>a</code></pre>",
    "(https://a.b/c_d). xhttps://f https://": '<p>(<a href="https://a.b/c_d" '
    + LINK.format("https://a.b/c_d")
    + ">https://a.b/c_d</a>). xhttps://f https://</p>",
    "[https://a.b](https://c.d)": '<p><a href="https://c.d" '
    + LINK.format("https://c.d")
    + ">https://a.b</a></p>",
    "![i](https://e.f)": f'<p><a href="https://e.f" {LINK.format("https://e.f")}>i</a></p>',
    "3. x\n4. y": '<ol start="3"><li>x</li><li>y</li></ol>',
    "": "",
}


@pytest.mark.parametrize("text", RENDERED)
def test_markdown_as_the_page_shows_it(text):
    assert re.sub(r"\n(?!two)", "", render_answer(text)).replace("\n", "") == RENDERED[text]


def test_tools_are_cards_where_they_were_used():
    html = render_answer(
        [
            {"type": "text", "text": "It **is"},
            {"type": "python", "text": "6*7"},
            {"type": "python_output", "text": "<b>42</b>"},
            {"type": "text", "text": "** 42.\n\n`x"},
            {"type": "python", "text": "1&2"},
            {"type": "text", "text": "`"},
        ]
    )
    card = '<span class="tool">6*7 = &lt;b&gt;42&lt;/b&gt;</span>'
    assert html.startswith(f"<p>It <strong>is{card}</strong> 42.</p>")
    assert "<code>x1&amp;2</code>" in html  # code holds no cards
    orphan = render_answer([{"type": "python_output", "text": "5"}])
    assert orphan.strip() == '<p><span class="tool">5</span></p>'


HOSTILE = [
    "<script>hit()</script><img src=x onerror=hit()><svg/onload=hit()>",
    "[c](javascript:hit()) [c](JaVaScRiPt:hit()) [c]( javascript:hit())",
    "[c](java\nscript:hit()) [c](java&#10;script:hit()) [c](&#106;avascript:hit())",
    "[c](data:text/html,x) [c](vbscript:x) [c](//evil.test) [c](file:///etc/passwd)",
    '[a](https://a.test/"onmouseover="hit()) ![x](https://a.test/"onerror="hit())',
    '[a](https://a.test "x\' onclick=\'hit()") <https://a.test/"onclick=hit()>',
    '```"><img/src=x/onerror=hit()>\nx\n```\n~~~html" onclick="hit()\n<b>\n~~~',
    "| <img src=x onerror=hit()> |\n|:-:|\n| <script>hit()</script> |",
    "\ue000\ue001 <b>\uf8ff</b> [x](https://a.test/\ue000) `\ue000`",
    "<style>body{}</style><base href=//evil.test><form action=//evil.test><!-- x --><?x?>",
    "[a]: javascript:hit()\n[a] [b][a]\n\n<a href=javascript:hit()>x</a>",
    "```html\n<script>hit()</script><img onerror=hit()>\n```\n```php\n<?php hit();\n```",
]
ALLOWED = {
    *"p h2 h3 h4 h5 h6 ul ol li blockquote pre code span em strong del a br hr div".split(),
    *"table thead tbody tr th td".split(),
}


class Watcher(HTMLParser):
    """Fails at whatever the page must not get."""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in ALLOWED, tag
        for name, value in attrs:
            assert name in {"href", "title", "target", "rel", "class", "start"}, (tag, name)
            if name == "href":
                assert re.match(r"(https?://|mailto:)", value or "", re.IGNORECASE), value

    def handle_comment(self, data: str) -> None:
        raise AssertionError(data)

    def handle_pi(self, data: str) -> None:
        raise AssertionError(data)

    def unknown_decl(self, data: str) -> None:
        raise AssertionError(data)


@pytest.mark.parametrize("text", HOSTILE)
def test_nothing_written_becomes_code(text):
    for parts in (
        text,
        [{"type": "text", "text": text}, {"type": "python", "text": text}],
        [{"type": "text", "text": f"```python\n{text}"}, {"type": text, "text": text}],
        text * 2000,  # too long to be parsed
    ):
        watcher = Watcher()
        watcher.feed(render_answer(parts))
        watcher.close()


PIECES = [
    *("*", "**a", "`", "``a`", "[a](", "> ", "1. ", "*a **b ", "a* ", "~~a", "|", "a|b\n", "]("),
    *("https://a)", "http://a.", "\\", "- a\n\n", "  - a\n", "[a](https://x ", "| a |\n|-|\n"),
    *("```\n", "_a", "\r\n", "1. a\n   ", "<a@b", "&amp", "[", "![", "[a]:b\n", "<!--", "\ue000"),
]


def test_no_text_takes_quadratic_time():
    start_s = time.process_time()
    for piece in PIECES:
        render_answer(piece * (4000 // len(piece)))
    for language in sorted(LANGUAGES):
        for piece in ("/*", '"', "(", "<", "a ", "\n", "'''"):
            coloured(piece * (1200 // len(piece)), language)
    assert time.process_time() - start_s < 15
