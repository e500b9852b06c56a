"""Messages typed and pasted into a real terminal, and piped in."""

from __future__ import annotations

import io
import sys

import pytest
from pseudo_terminal import Terminal

from nanochat.serve.keyboard import read_piped

READ_ON = """
from nanochat.serve.keyboard import read_message
while True:
    try:
        print("GOT", ascii(read_message("You: ")), flush=True)
    except EOFError:
        break
    except UnicodeDecodeError:
        print("GOT no text", flush=True)
"""
WITHOUT_READLINE = "import sys\nsys.modules['readline'] = None\n"


def got(terminal: Terminal, number: int) -> str:
    """The child's message of that number, as it printed it."""
    shown = terminal.wait(r"GOT [^\n]*\n.*" * number)
    return shown.split("GOT ")[number].splitlines()[0]


def leave(terminal: Terminal) -> None:
    terminal.asked("You: ")
    terminal.send("\x04")
    assert terminal.end() == 0


@pytest.mark.parametrize("env", [{}, {"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "C"}])
def test_a_paste_is_one_message(env):
    terminal = Terminal("-c", READ_ON, **env)
    terminal.asked("You: ")
    terminal.paste("one\n  two\n\nthree é")
    terminal.send("\r")
    assert got(terminal, 1) == ascii("one\n  two\n\nthree é")
    terminal.asked("You: ")
    terminal.send("typed\r")
    assert got(terminal, 2) == "'typed'"
    terminal.asked("You: ")
    terminal.send("before ")
    terminal.paste("quit\nclear\n")
    terminal.send("after\r")
    assert got(terminal, 3) == ascii("before quit\nclear\nafter")
    leave(terminal)


def test_lines_typed_one_after_the_other_are_messages():
    terminal = Terminal("-c", READ_ON)
    terminal.asked("You: ")
    terminal.send("one\rtwo\r")
    assert got(terminal, 1) == "'one'" and got(terminal, 2) == "'two'"
    leave(terminal)


def test_a_paste_is_one_message_without_line_editing():
    terminal = Terminal("-c", WITHOUT_READLINE + READ_ON)
    terminal.asked("You: ")
    terminal.paste("one\ntwo\n\nthree\n")
    assert got(terminal, 1) == ascii("one\ntwo\n\nthree")
    terminal.asked("You: ")
    terminal.send("typed\r")
    assert got(terminal, 2) == "'typed'"
    leave(terminal)


def test_what_is_no_text_is_not_the_end():
    terminal = Terminal("-c", READ_ON, PYTHONIOENCODING="utf-8:strict")
    terminal.asked("You: ")
    terminal.send(b"\xff\xfe\r")
    assert got(terminal, 1) == "no text"
    terminal.asked("You: ")
    terminal.send("text\r")
    assert got(terminal, 2) == "'text'"
    leave(terminal)


@pytest.mark.parametrize(
    ("piped", "message"),
    [
        (b"one\ntwo\n", "one\ntwo"),
        (b"\xef\xbb\xbfone\r\n\r\ntwo", "one\n\ntwo"),
        ("é\u2028漢".encode(), "é\u2028漢"),
        (b"one\nquit\n", "one"),
        (b"one\n  EXIT  \n\n", "one"),
        (b"quit", ""),
        (b"\n \n", ""),
        (b"", ""),
        (b"quit\none", "quit\none"),
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "latin-1"])
def test_all_that_is_piped_in_is_one_message(monkeypatch, piped, message, encoding):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(piped), encoding))
    assert read_piped() == message


def test_piped_bytes_that_are_no_text(monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"abc\xe9"), "latin-1"))
    with pytest.raises(ValueError, match="standard input: byte 3 is not UTF-8"):
        read_piped()
