"""Errors as lines for people."""

from __future__ import annotations

import errno

import pytest

from nanochat.runtime.errors import is_out_of_memory, lines, reason


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "disk is full"),
        (errno.EROFS, "read-only"),
        (errno.EACCES, "NANOCHAT_BASE_DIR"),
        (errno.ENOTDIR, "a file is where a folder is needed"),
    ],
)
def test_a_failed_file_operation_names_the_place_and_the_fix(number, words):
    (line,) = lines(OSError(number, "whatever the system says", "/some/place"))
    assert line.startswith("/some/place: ") and words in line


def test_running_out_of_memory_says_what_is_smaller():
    told = (
        "[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory: you "
        "tried to allocate 9 bytes"
    )
    for error in (
        MemoryError(),
        RuntimeError(told),
        RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"),
    ):
        assert is_out_of_memory(error) and "--device-batch-size" in lines(error)[0]
    assert not is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))


def test_what_others_wrote_cannot_steer_the_terminal():
    """Nor make one problem look like two."""
    wrote = ValueError(
        "a\x1b[31m\x9b2J\u2028b\x85\u202ec\udc80\td\U0001f468\u200d\U0001f469\r\nnext"
    )
    assert lines(wrote) == [
        "a\\x1b[31m\\x9b2J\\u2028b\\x85\\u202ec\\udc80\td\U0001f468\u200d\U0001f469",
        "next",
    ]
    assert lines(OSError(errno.ENOENT, "no", "a\x07b"))[0].startswith("a\\x07b: ")


def test_an_error_in_brackets_is_one_line_even_when_it_says_nothing():
    """Such as what a download or a damaged file ends with."""
    assert reason(EOFError()) == "EOFError" and reason(ValueError("\n \n")) == "ValueError"
    assert reason(ValueError("\n  first\u2028line\nsecond")) == "first\\u2028line"
    assert len(reason(RuntimeError("x" * 5000))) == 200


def test_other_errors_say_what_they_say():
    assert lines(ValueError("--a=1: bad; use 2\n\nerror: --b: missing")) == [
        "--a=1: bad; use 2",
        "--b: missing",
    ]
    assert lines(OSError("no address")) == ["no address"]
    assert "disk is full" in lines(OSError(errno.ENOSPC, "Error writing bytes to file"))[0]
    assert lines(ValueError()) == ["ValueError"]
