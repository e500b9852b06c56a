"""The program in an answer: what a chat model wrote around it, and how it wrote it down, left out.

Answers come as fenced blocks (also inside lists and quotations), as bare code among prose, as the
body of the function alone, as a Python session, with tabs or other line ends. The text is only
parsed here; running it is the sandbox's work.
"""

from __future__ import annotations

import ast
import re
import textwrap
import warnings
from collections.abc import Callable, Iterator

_FENCE = re.compile(r"(?P<marks>`{3,}|~{3,})[ \t]*(?P<info>[^`]*)$")
_PYTHON = re.compile(r"\W*(?:$|i?py(?:thon|con)?[\d.]*\b)", re.IGNORECASE)  # or no language at all
_INVISIBLE = re.compile("[\ufeff\u200b\u2060]")
MOST_LINES = 400  # of prose before a definition that are tried as code


def answer_program(completion: str, prompt: str, entry_point: str) -> str:
    """Python source that binds `entry_point` as the completion defines it: its first block that
    does so, with what other blocks define besides; else a definition among the prose; else the
    completion taken as the body of the prompt's function. Empty where there is none.
    """
    text = _INVISIBLE.sub("", completion.replace("\r\n", "\n").replace("\r", "\n"))
    blocks, outside = _split(text)
    for place, block in enumerate(blocks):
        found = _defining(block, entry_point)
        if found is not None:
            others = [_helpers(b, entry_point) for b in [*blocks[:place], *blocks[place + 1 :]]]
            return "\n\n".join([*filter(None, others), found])
    found = _defining(text if not blocks else outside, entry_point)
    if found is not None:
        return found
    return max((_with_body(prompt, part) for part in (*blocks, outside)), key=_weight)


def defines(code: str, name: str) -> bool:
    """Whether the code binds a function of that name at its top level."""
    tree = _parsed(code)
    return tree is not None and any(_binds(node, name) for node in tree.body)


def _split(text: str) -> tuple[list[str], str]:
    """(the fenced blocks of Python, else those of any language; what stands before the first)."""
    before: list[str] = []
    blocks: list[tuple[bool, list[str]]] = []
    fence: re.Match[str] | None = None  # the one that is open
    for line in text.split("\n"):
        if fence is None:
            fence = _FENCE.search(line)
            if fence is not None:
                blocks.append((_PYTHON.match(fence["info"]) is not None, []))
            elif not blocks:
                before.append(line)
        elif _closes(line, fence):
            fence = None
        elif line.rstrip().endswith(fence["marks"]) and line.strip(" \t`~"):  # after the last code
            blocks[-1][1].append(line.rstrip()[: -len(fence["marks"])])
            fence = None
        else:
            quoted = fence.string.lstrip().startswith(">")
            blocks[-1][1].append(re.sub(r"^[ \t]*> ?", "", line) if quoted else line)
    python = ["\n".join(lines) for is_python, lines in blocks if is_python]
    return python or ["\n".join(lines) for _, lines in blocks], "\n".join(before)


def _closes(line: str, fence: re.Match[str]) -> bool:
    """Whether a line ends the block that `fence` begins: fences that are indented by four more
    stand inside a docstring.
    """
    mark = fence["marks"][0]
    bare = line.strip(" \t>")
    deep = len(line) - len(line.lstrip()) >= 4 + len(fence.string[: fence.start()].expandtabs(4))
    return set(bare) == {mark} and len(bare) >= len(fence["marks"]) and not deep


def _parsed(code: str) -> ast.Module | None:
    """The syntax tree, or None where the code has none."""
    return _parse(code)[0]


def _parse(code: str) -> tuple[ast.Module | None, int]:
    """(the syntax tree or None, the line at which reading failed or 0)."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # such as an invalid escape in a string
            return ast.parse(code), 0
    except SyntaxError as error:
        return None, error.lineno or 0
    except (ValueError, RecursionError, MemoryError):
        return None, 0


def _binds(node: ast.stmt, name: str) -> bool:
    """Whether a statement binds `name` to a function."""
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
        return node.name == name
    if isinstance(node, ast.Assign) and isinstance(node.value, ast.Lambda):
        return any(isinstance(target, ast.Name) and target.id == name for target in node.targets)
    return False


def _spellings(text: str) -> Iterator[str]:
    """A text as it stands, and with what keeps Python from reading it put right: indentation as a
    whole, blanks that do not break, tabs, the prompts of a session.
    """
    plain = textwrap.dedent(text.replace("\u00a0", " "))
    yield text
    yield plain
    yield plain.expandtabs(4)
    yield plain.expandtabs(8)
    session = re.findall(r"^(?:>>>|\.\.\.)(?: (.*))?$", plain, re.MULTILINE)
    if session:
        yield "\n".join(session)


def _defining(text: str, name: str) -> str | None:
    """The code in a text that binds `name`: all of it where that parses, else as much as does."""
    if name not in text:
        return None
    for spelling in _spellings(text):
        if defines(spelling, name):
            return spelling
    for spelling in _spellings(text):
        found = _region(spelling, name)
        if found is not None:
            return found
    return None


def _region(text: str, name: str) -> str | None:
    """The longest run of lines that parses and begins with, or contains, the definition of `name`:
    prose before and after it, or a cut at the end, stays out.
    """
    lines = text.split("\n")
    head = re.compile(rf"\s*(?:(?:async\s+)?def\s+{re.escape(name)}\b|{re.escape(name)}\s*=)")
    for at, line in enumerate(lines):
        if not head.match(line):
            continue
        indent = re.compile(rf"[ \t]{{0,{len(line) - len(line.lstrip())}}}")
        level = [indent.sub("", each, count=1) for each in lines]  # with the definition
        stop = at + _longest(level[at:], _wrong_from)
        if not defines("\n".join(level[at:stop]), name):
            continue
        starts = range(max(0, at - MOST_LINES), at + 1)
        parts = ("\n".join(level[start:stop]) for start in starts)
        return next(part for part in parts if defines(part, name))
    return None


def _longest(lines: list[str], wrong_from: Callable[[str], int]) -> int:
    """How many first lines are right together. `wrong_from`: the line, counted from 1, at which a
    text goes wrong; 0 where it does not.
    """
    stop = len(lines)
    while stop > 0:
        line = wrong_from("\n".join(lines[:stop]))
        if line == 0:
            return stop
        stop = min(stop, line) - 1
    return 0


def _wrong_from(code: str) -> int:
    tree, line = _parse(code)
    return 0 if tree is not None else max(1, line or MOST_LINES)


def _helpers(block: str, name: str) -> str:
    """The imports, functions and classes of a block that does not define `name` itself."""
    tree = next(filter(None, map(_parsed, _spellings(block))), None)
    if tree is None or any(_binds(node, name) for node in tree.body):
        return ""
    kinds = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef)
    return "\n".join(ast.unparse(node) for node in tree.body if isinstance(node, kinds))


def _with_body(prompt: str, text: str) -> str:
    """The prompt with as many lines of the text as belong to its function; empty where none do."""
    if not text.strip():
        return ""
    start = prompt.rstrip() + "\n"
    n_statements = len(getattr(_parsed(start + "    pass\n"), "body", ()))
    n_start = start.count("\n")
    lines = text.strip("\n").split("\n")
    # The tokenizer's leading spaces are easily lost in a chat answer.
    outdented = ["    " + lines[0].lstrip(), *lines[1:]]
    best = ""
    most = 0
    for variant in (lines, outdented):
        for write in (str, _as_body):

            def wrong_from(part: str, write: Callable[[str], str] = write) -> int:
                tree, line = _parse(start + write(part))
                if tree is not None and len(tree.body) <= n_statements:
                    return 0
                if tree is not None:
                    line = tree.body[n_statements].lineno
                return max(1, line - n_start) if line else MOST_LINES

            n_lines = _longest(variant, wrong_from)
            if n_lines > most:
                most, best = n_lines, start + write("\n".join(variant[:n_lines])) + "\n"
    return best


def _weight(code: str) -> tuple[bool, int]:
    """How much an answer's code looks like the body of a function."""
    return "return" in code, code.count("\n")


def _as_body(text: str) -> str:
    """Lines indented like a prompt's body, whatever they were indented with."""
    return textwrap.indent(textwrap.dedent(text.expandtabs(4)), "    ")
