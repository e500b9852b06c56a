"""A model in pieces over two and three processes trains, saves, resumes and is examined like a
whole one.
"""

from __future__ import annotations

import json
import re
import sys

import pytest
import torch

from nanochat.train.configs import BaseConfig, SFTConfig
from nanochat.train.rl_configs import RLConfig
from nanochat.train.shard_model import evened

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="fork")
LONG = {"num_iterations": 10, "depth": 3}


def losses(result) -> list[float]:
    return [row["train_loss"] for row in result.rows()]


def scores(result) -> list[float]:
    rows = [
        json.loads(line) for line in (result.directory / "metrics.jsonl").read_text().splitlines()
    ]
    return [row["val_bpb"] for row in rows if "val_bpb" in row]


def close(a: list[float], b: list[float]) -> bool:
    return len(a) == len(b) and max(abs(x - y) for x, y in zip(a, b, strict=True)) < 1e-4


@pytest.mark.parametrize(
    "ranks, more", [(2, {}), (2, {"generation": "classic"}), (3, {"device_batch_size": 1})]
)
def test_losses_evaluations_and_checkpoints_are_those_of_a_whole_model(train, ranks, more):
    """Three ranks share four rows: one has a micro-batch that the others have not. Evaluation and
    samples go on.
    """
    often = {"eval_every": 4, "sample_every": 5, **LONG, **more}
    whole = train(ranks, **often)
    assert whole.codes == [0] * ranks, whole.said
    expected, expected_scores, expected_weights = losses(whole), scores(whole), whole.weights(10)
    pieces = train(ranks, shard_model=True, **often)
    assert pieces.codes == [0] * ranks, pieces.said
    assert (
        close(losses(pieces), expected)
        and close(scores(pieces), expected_scores)
        and len(expected_scores) == 3
    )
    weights = pieces.weights(10)
    assert weights.keys() == expected_weights.keys()
    for name, tensor in weights.items():
        assert tensor.shape == expected_weights[name].shape, name
        torch.testing.assert_close(tensor, expected_weights[name], atol=2e-3, rtol=1e-2, msg=name)
    assert all(
        len(re.findall(r" -> '", result.said[0])) == 14 for result in (whole, pieces)
    )  # seven prompts, twice


@pytest.mark.parametrize(
    "first, then", [((2, True), (1, False)), ((2, False), (3, True)), ((2, True), (2, True))]
)
def test_stopped_and_gone_on_in_pieces_and_whole(train, first, then):
    expected = losses(train(1, **LONG))
    stopped = train(first[0], "SIGTERM", shard_model=first[1], **LONG)
    assert stopped.codes == [75] * first[0] and stopped.steps == [2], stopped.said
    resumed = train(then[0], shard_model=then[1], resume=True, **LONG)
    assert resumed.codes == [0] * then[0], resumed.said
    assert close(losses(resumed), expected)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_and_checkpointed_activations(train, dtype):
    """The first steps differ by rounding alone; an overflow on one rank is skipped on all."""
    whole = losses(train(2, "overflow", dtype=dtype))
    pieces = train(2, "overflow", dtype=dtype, shard_model=True, activation_checkpointing=True)
    assert pieces.codes == [0, 0], pieces.said
    assert losses(pieces) == pytest.approx(whole, abs=0.02)
    assert [row["skipped"] for row in pieces.rows()] == [False, True, False, False, False, False]
    assert ("loss_scale" in pieces.rows()[0]) == (dtype == "float16")


def test_out_of_memory_is_said_with_what_to_do(train):
    result = train(2, "out of memory", shard_model=True, save_every=1)
    assert set(result.codes) <= {2, 76} and 2 in result.codes and result.took_s < 20
    assert any(
        "out of memory with --shard-model" in said and "--resume" in said for said in result.said
    ), result.said


def test_a_signal_during_evaluation_stops_all(train):
    result = train(2, "signal in evaluation", eval_every=2, shard_model=True)
    assert result.codes == [75, 75] and result.took_s < 20 and result.steps == [2], result.said


def test_one_process_keeps_its_model_whole(train):
    result = train(1, shard_model=True)
    assert result.codes == [0] and "--shard-model: a single process has nobody" in result.said[0]
    assert losses(result) == losses(train(1))


def test_missing_micro_batches_teach_nothing():
    batches = evened([], 2, torch.device("cpu"))
    assert len(batches) == 2 and not any(batch.weights.any() for batch in batches)
    assert evened(batches[:1], 1, torch.device("cpu")) == batches[:1]


def test_what_does_not_go_together_is_said():
    assert any(
        "--compile" in problem for problem in BaseConfig(shard_model=True, compile=True).problems()
    )
    assert any("--shard-model" in problem for problem in RLConfig(shard_model=True).problems())
    assert SFTConfig(shard_model=True).problems() == []
