"""Progress: plain lines off a terminal, a bar on one, silence when disabled."""

from __future__ import annotations

import io

from nanochat.runtime.progress import Progress, clock


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_plain_lines(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    out = io.StringIO()
    with Progress(10, "base", every_s=5, stream=out) as progress:
        for step in range(10):
            now[0] += 2
            progress.advance(loss=3.0 - step / 10)
    lines = out.getvalue().splitlines()
    assert lines[0] == "base: 3/10 (30%), 0:14 left, loss 2.8"
    assert lines[-1] == "base: 10/10 (100%), took 0:20, loss 2.1"
    assert len(lines) == 4


def test_a_slow_first_step_does_not_frighten(monkeypatch):
    """Compiling makes the first step minutes long and the others a second."""
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    out = io.StringIO()
    with Progress(101, "base", every_s=5, stream=out) as progress:
        for took_s in (60, *[1] * 10):
            now[0] += took_s
            progress.advance()
    lines = out.getvalue().splitlines()
    assert lines[:2] == ["base: 1/101 (1%)", "base: 6/101 (6%), 1:35 left"]


def test_the_last_line_is_said_once():
    out = io.StringIO()
    with Progress(1, "x", every_s=0, stream=out) as progress:
        progress.advance()
    assert out.getvalue().splitlines() == ["x: 1/1 (100%), took 0:00"]


def test_terminal_gets_a_bar():
    out = Terminal()
    with Progress(4, "sft", stream=out) as progress:
        progress.advance(4, loss=1.25)
    assert "sft" in out.getvalue() and "4/4" in out.getvalue() and "loss 1.25" in out.getvalue()


def test_a_name_neither_steers_the_terminal_nor_is_markup():
    for out in (Terminal(), io.StringIO()):
        with Progress(1, "[red]a[/red] :smile: \x1b[2J\x07", every_s=0, stream=out) as progress:
            progress.advance(path="[bold]b[/x] :smile:")
        shown = out.getvalue()
        assert "[red]a[/red] :smile: \\x1b[2J\\x07" in shown and "\x07" not in shown
        assert "[bold]b[/x] :smile:" in shown and "\x1b[2J" not in shown


def test_what_is_printed_to_a_file_stays_there(capsys):
    """Also while a bar is shown on the terminal."""
    out = Terminal()
    with Progress(1, "x", stream=out) as progress:
        print("a sample")
        progress.advance()
    assert capsys.readouterr().out == "a sample\n" and "a sample" not in out.getvalue()


def test_disabled_is_silent():
    out = io.StringIO()
    with Progress(2, "x", enabled=False, every_s=0, stream=out) as progress:
        progress.advance()
    assert out.getvalue() == ""


def test_clock():
    assert [clock(s) for s in (0, 59.6, 61, 3725)] == ["0:00", "1:00", "1:01", "1:02:05"]
