"""Reductions that begin during the backward pass change no bit, also where a rank has no rows or
repeats the pass.
"""

from __future__ import annotations

import sys

import pytest
import torch

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="fork")
WIDE = {
    "aspect_ratio": 32,
    "depth": 3,
    "device_batch_size": 1,
}  # tables are large enough to be shared out


def test_tables_are_sent_early_and_the_end_is_bit_equal(train):
    late = train(2, "after the pass", **WIDE)
    weights = late.weights()
    early = train(2, **WIDE)
    assert late.codes == early.codes == [0, 0], (late.said, early.said)
    assert all(torch.equal(tensor, weights[name]) for name, tensor in early.weights().items())
    assert [row["train_loss"] for row in early.rows()] == [row["train_loss"] for row in late.rows()]


def test_ranks_keep_one_order_when_one_has_no_rows(train):
    """Head, then the value embeddings of layers 2 and 0, in the last micro-batch of a step
    alone."""
    result = train(2, "told when early", **WIDE)
    assert result.codes == [0, 0], result.said
    told = [
        [line for line in said.splitlines() if line.startswith("early")] for said in result.said
    ]
    assert told[0] == ["early (320, 96)"] * 3 * 6 and len(told[1]) == 3 * 5


def test_a_pass_repeated_for_lack_of_memory_sends_once(train):
    whole = [row["train_loss"] for row in train(2, **{**WIDE, "device_batch_size": 2}).rows()]
    result = train(2, "out of memory late", **{**WIDE, "device_batch_size": 2})
    assert result.codes == [0, 0] and "going on with micro-batches of 1" in result.said[1], (
        result.said
    )
    assert [row["train_loss"] for row in result.rows()] == pytest.approx(whole, abs=1e-5)
