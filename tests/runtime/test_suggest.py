"""A mistyped word is told what it was meant to be, or what there is."""

from __future__ import annotations

import pytest

from nanochat.runtime.suggest import suggestion


@pytest.mark.parametrize(
    "word, known, said",
    [
        ("--dept", ["--depth", "--run"], "; did you mean --depth?"),
        ("--Device_Batch_Sise", ["--device-batch-size"], "; did you mean --device-batch-size?"),
        ("gsm9k", ["GSM8K", "MMLU"], "; did you mean GSM8K?"),
        ("zzzz", ["GSM8K", "MMLU"], "; use one of GSM8K, MMLU"),
    ],
)
def test_the_closest_word_or_all_of_them(word, known, said):
    assert suggestion(word, known) == said


def test_another_way_out_may_be_named():
    assert suggestion("--zzzz", ["--depth"], "see --help") == "; see --help"
    assert suggestion("--dept", ["--depth"], "see --help") == "; did you mean --depth?"
