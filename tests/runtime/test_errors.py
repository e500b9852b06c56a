"""Errors as lines for people."""

from __future__ import annotations

import errno

import pytest

from nanochat.runtime.errors import lines


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


def test_other_errors_say_what_they_say():
    assert lines(ValueError("--a=1: bad; use 2\n\nerror: --b: missing")) == ["--a=1: bad; use 2", "--b: missing"]
    assert lines(OSError("no address")) == ["no address"]
    assert lines(ValueError()) == ["ValueError"]
