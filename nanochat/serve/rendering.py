"""What a model wrote, as HTML that is safe to show: Markdown with tables and coloured code, a small
card for each use of a tool.

Three walls keep text from becoming code. markdown-it is told that HTML is text, nh3 lets through
only the elements named here, and the page builds its elements from what is left and no others.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

import nh3
from markdown_it import MarkdownIt
from markdown_it.common.utils import escapeHtml
from markdown_it.rules_inline import StateInline
from markdown_it.token import Token
from pygments.lexers import get_lexer_by_name
from pygments.token import Comment, Generic, Keyword, Literal, Name
from pygments.util import ClassNotFound

if TYPE_CHECKING:
    from markdown_it.rules_core import StateCore

MOST_CHARACTERS = 100_000  # more than a context holds; longer text is shown as it was written
MOST_COLOURED = 8_000  # characters of one block of code
ADDRESS = re.compile(r"(?:https?://|mailto:)", re.IGNORECASE)
BARE = re.compile(r"""(?<![^\W_])https?://[^\s<>"*`|\\[\]\ue000-\uf8ff]+""", re.IGNORECASE)
FIRST_MARK = 0xE000  # private-use characters stand for tools while the text is parsed
MARKS = re.compile("[\ue000-\uf8ff]")
FACTOR_BEFORE = re.compile(r"[A-Za-z0-9)]")
FACTOR = re.compile(r"[A-Za-z0-9(]")

# Lexers that are quick on any text, by the names people write after ``` (those of C are not: 8,000
# empty lines take them seconds)
LANGUAGES = frozenset(
    "bash sh shell console python py python3 sql sqlite3 postgresql mysql json yaml toml ini html "
    "xml css js javascript typescript ts rust go java kotlin ruby php r diff "
    "dockerfile make".split()
)
COLOURS = (  # the class of the first kind that a token is
    (Comment, "hl-c"),
    (Keyword, "hl-k"),
    (Literal.String, "hl-s"),
    (Literal.Number, "hl-n"),
    (Name.Function, "hl-f"),
    (Name.Class, "hl-f"),
    (Name.Tag, "hl-k"),
    (Name.Builtin, "hl-b"),
    (Name.Attribute, "hl-f"),
    (Generic.Deleted, "hl-d"),
    (Generic.Inserted, "hl-i"),
)
TAGS = set(
    "p h2 h3 h4 h5 h6 ul ol li blockquote pre code span em strong del a br hr div table thead "
    "tbody tr th td".split()
)
CLASSES = {
    "div": {"table"},
    "span": {"tool", *(name for _, name in COLOURS)},
    "th": {"left", "centre", "right"},
    "td": {"left", "centre", "right"},
}


def render_answer(parts: str | Sequence[dict[str, Any]]) -> str:
    """Clean HTML of a message: its text, or its parts `{"type", "text"}` in order. Parts of the
    types python and python_output, and any other but text, become cards.
    """
    text, tools = marked([{"type": "text", "text": parts}] if isinstance(parts, str) else parts)
    if len(text) > MOST_CHARACTERS:
        html = f"<p>{with_tools(escapeHtml(text), tools)}</p>"
    else:
        html = parser().render(text, {"tools": tools})
    return nh3.clean(
        html,
        tags=TAGS,
        attributes={"a": {"href", "title", "target"}, "ol": {"start"}},
        allowed_classes=CLASSES,
        url_schemes={"http", "https", "mailto"},
        link_rel="noopener noreferrer nofollow",
    )


def marked(parts: Sequence[dict[str, Any]]) -> tuple[str, list[str]]:
    """(one text with a mark for each use of a tool, what the marks stand for). A result belongs to
    the call before it.
    """
    text = ""
    tools: list[str] = []
    called = False
    for part in parts:
        said = str(part.get("text", ""))
        if part["type"] == "text":
            text += MARKS.sub("\ufffd", said)
        elif part["type"].endswith("_output") and called:
            tools[-1] += f" = {said}"
        elif len(tools) <= 0xF8FF - FIRST_MARK:
            text += chr(FIRST_MARK + len(tools))
            tools.append(said)
        called = part["type"] != "text" and not part["type"].endswith("_output")
    return text.replace("\r\n", "\n").replace("\r", "\n"), tools


def with_tools(html: str, tools: Sequence[str]) -> str:
    """Escaped text with its marks made cards."""

    def card(mark: re.Match[str]) -> str:
        return f'<span class="tool">{escapeHtml(tools[ord(mark[0]) - FIRST_MARK])}</span>'

    return MARKS.sub(card, html)


def without_marks(text: str, tools: Sequence[str]) -> str:
    """The same for code, which holds no cards."""
    return MARKS.sub(lambda mark: tools[ord(mark[0]) - FIRST_MARK], text)


@cache
def parser() -> MarkdownIt:
    """CommonMark with tables, struck text and bare links; a line's end stays one."""
    markdown = MarkdownIt("commonmark", {"html": False, "breaks": True})
    markdown.enable(["table", "strikethrough"])
    markdown.disable("lheading")  # a model that writes --- below a line means a rule
    markdown.validateLink = lambda url: ADDRESS.match(url) is not None  # type: ignore[method-assign]
    markdown.inline.ruler.before("emphasis", "times", times)
    markdown.core.ruler.push("links", link_addresses)
    markdown.core.ruler.push("page", fit_page)
    markdown.add_render_rule("text", render_text)
    markdown.add_render_rule("code_inline", render_code)
    markdown.add_render_rule("code_block", render_block)
    markdown.add_render_rule("fence", render_block)
    markdown.add_render_rule("image", render_image)
    markdown.add_render_rule("table_open", lambda *_: '<div class="table"><table>\n')
    markdown.add_render_rule("table_close", lambda *_: "</table></div>\n")
    return markdown


def times(state: StateInline, silent: bool) -> bool:
    """`2*3*4` is a product and no emphasis."""
    at = state.pos
    if state.src[at] != "*" or at == 0 or at + 1 >= state.posMax:
        return False
    if not FACTOR_BEFORE.match(state.src[at - 1]) or not FACTOR.match(state.src[at + 1]):
        return False
    if not silent:
        state.pending += "*"
    state.pos += 1
    return True


def link_addresses(state: StateCore) -> None:
    """Addresses that stand in a text become links. (linkify-it takes quadratic time for some.)"""
    for token in state.tokens:
        children: list[Token] = []
        in_link = 0
        for inner in token.children or ():
            in_link += inner.nesting if inner.type in ("link_open", "link_close") else 0
            plain = inner.type != "text" or in_link
            children += [inner] if plain else linked(inner.content)
        if token.children:
            token.children = children


def linked(text: str) -> list[Token]:
    """Text as tokens of text and links."""
    tokens = []
    at = 0
    for found in BARE.finditer(text):
        address = trimmed(found[0])
        if not re.search(r"//.", address):
            continue
        tokens += [plain_text(text[at : found.start()])]
        tokens += [Token("link_open", "a", 1, attrs={"href": address})]
        tokens += [plain_text(address), Token("link_close", "a", -1)]
        at = found.start() + len(address)
    return [*tokens, plain_text(text[at:])]


def plain_text(text: str) -> Token:
    return Token("text", "", 0, content=text)


def trimmed(address: str) -> str:
    """Without the punctuation of the sentence around it."""
    extra = address.count(")") - address.count("(")
    while address:
        if address[-1] == ")" and extra > 0:
            extra -= 1
        elif address[-1] not in ".,:;!?'":
            break
        address = address[:-1]
    return address


def fit_page(state: StateCore) -> None:
    """Headings one level down, as the page has one of its own; classes in place of styles, which
    its policy forbids; links that open beside it and say where they lead.
    """
    for at, token in enumerate(state.tokens[:-2]):
        if token.type == "list_item_open" and state.tokens[at + 1].type == "paragraph_open":
            # the first words of an item stand in it as they did before a blank line followed
            state.tokens[at + 1].hidden = True
            state.tokens[at + 3].hidden = True  # its end, after its text
    for token in state.tokens:
        if token.type in ("heading_open", "heading_close"):
            token.tag = f"h{min(6, int(token.tag[1]) + 1)}"
        if token.type in ("th_open", "td_open"):
            align = str(token.attrs.pop("style", "")).removeprefix("text-align:")
            if align:
                token.attrs["class"] = "centre" if align == "center" else align
        for inner in token.children or ():
            if inner.type == "link_open":
                href = inner.attrs["href"]
                inner.attrs = {"href": href, "title": href, "target": "_blank"}
            elif inner.type in ("s_open", "s_close"):
                inner.tag = "del"


def render_text(renderer: Any, tokens: Sequence[Token], at: int, options: Any, env: Any) -> str:
    return with_tools(escapeHtml(tokens[at].content), env["tools"])


def render_code(renderer: Any, tokens: Sequence[Token], at: int, options: Any, env: Any) -> str:
    return f"<code>{escapeHtml(without_marks(tokens[at].content, env['tools']))}</code>"


def render_block(renderer: Any, tokens: Sequence[Token], at: int, options: Any, env: Any) -> str:
    code = without_marks(tokens[at].content, env["tools"]).removesuffix("\n")
    language = tokens[at].info.strip().partition(" ")[0].lower()
    return f"<pre><code>{coloured(code, language)}</code></pre>\n"


def render_image(renderer: Any, tokens: Sequence[Token], at: int, options: Any, env: Any) -> str:
    """A link: the page loads nothing from elsewhere."""
    address = escapeHtml(str(tokens[at].attrs["src"]))
    text = with_tools(escapeHtml(tokens[at].content), env["tools"]) or address
    return f'<a href="{address}" title="{address}" target="_blank">{text}</a>'


def coloured(code: str, language: str) -> str:
    """Escaped code, with a span around what has a colour. Plain where the language is none of ours
    or the code is long.
    """
    if language not in LANGUAGES or len(code) > MOST_COLOURED:
        return escapeHtml(code)
    try:
        lexer = get_lexer_by_name(language, stripnl=False, ensurenl=False)
    except ClassNotFound:
        return escapeHtml(code)
    html = []
    for kind, text in lexer.get_tokens(code):
        name = next((name for known, name in COLOURS if kind in known), None)
        html.append(f'<span class="{name}">{escapeHtml(text)}</span>' if name else escapeHtml(text))
    return "".join(html)
