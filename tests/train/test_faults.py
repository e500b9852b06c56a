"""Each fault on one and on two ranks: what happens, that nothing is lost, that the run goes on to
the same end.

The long form is `python -m bench.kill`; the table is in docs/reliability.md.
"""

from __future__ import annotations

import json
import re
import shutil
import sys

import pytest
import torch
from forked_runs import Result

from nanochat.checkpoint_manager import load_checkpoint

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals and fork")
RANKS = pytest.mark.parametrize("ranks", [1, 2])


def same(a: dict, b: dict) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def finish_and_compare(train, ranks: int, interrupted: Result) -> None:
    """Resume the run, then run it again without any fault: the ends must be equal, bit for bit."""
    resumed = train(ranks, resume=True)
    assert resumed.codes == [0] * ranks, resumed.said
    ours, losses = resumed.weights(), [(row["step"], row["train_loss"]) for row in resumed.rows()]
    shutil.rmtree(interrupted.directory)
    whole = train(ranks)
    assert same(ours, whole.weights())
    assert losses == [(row["step"], row["train_loss"]) for row in whole.rows()]


@RANKS
@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGUSR1"])
def test_a_signal_to_one_rank_saves_and_stops_all_within_a_step(train, ranks, name):
    result = train(ranks, name)
    assert result.codes == [75] * ranks, result.said
    assert result.steps == [2] and "saved and stopped after step 2" in result.said[0]
    if name == "SIGTERM":
        finish_and_compare(train, ranks, result)


@RANKS
def test_a_signal_during_evaluation_does_not_wait_for_its_end(train, ranks):
    result = train(ranks, "signal in evaluation", eval_every=2)
    assert result.codes == [75] * ranks and result.took_s < 20, result.said
    assert result.steps == [2]
    resumed = train(ranks, resume=True, eval_every=2)
    rows = [
        json.loads(line) for line in (result.directory / "metrics.jsonl").read_text().splitlines()
    ]
    assert resumed.codes == [0] * ranks
    assert [row["step"] for row in rows if "val_bpb" in row] == [
        2,
        4,
        6,
    ]  # the broken off one was made up for


def test_a_second_ctrl_c_stops_at_once(train):
    result = train(1, "SIGINT twice")
    assert result.codes == [130] and result.took_s < 20 and result.steps == []


@RANKS
def test_a_bad_gradient_on_one_rank_skips_the_step_on_all(train, ranks):
    result = train(ranks, "nan once")
    assert result.codes == [0] * ranks, result.said
    assert [row["skipped"] for row in result.rows()] == [False, True, False, False, False, False]
    assert all(tensor.isfinite().all() for tensor in result.weights().values())


@RANKS
def test_bad_gradients_in_a_row_halt_with_a_clear_message(train, ranks):
    result = train(ranks, "nan always", num_iterations=20, save_every=1)
    assert set(result.codes) <= {2, 76} and 2 in result.codes
    assert any(
        "not finite for 5 steps in a row; lower --matrix-lr" in said for said in result.said
    ), result.said
    assert all(tensor.isfinite().all() for tensor in result.weights(result.steps[-1]).values())


@RANKS
def test_a_float16_overflow_on_one_rank_is_skipped_on_all(train, ranks):
    result = train(ranks, "overflow", dtype="float16")
    assert result.codes == [0] * ranks, result.said
    rows = result.rows()
    assert [row["skipped"] for row in rows] == [False, True, False, False, False, False]
    assert [row["loss_scale"] for row in rows] == [65536.0] + [32768.0] * 5
    assert len({re.search(r"weights (\S+)", said).group(1) for said in result.said}) == 1


@RANKS
def test_out_of_memory_halves_the_micro_batch_and_keeps_the_step(train, ranks):
    result = train(ranks, "out of memory")
    assert result.codes == [0] * ranks, result.said
    assert "going on with micro-batches of 1, the total batch stays the same" in result.said[-1]
    losses, n_targets = (
        [row["train_loss"] for row in result.rows()],
        {row["n_targets"] for row in result.rows()},
    )
    assert load_checkpoint(result.directory, 6, "cpu")[2]["trainer"]["device_batch_size"] == 1
    shutil.rmtree(result.directory)
    whole = train(ranks)
    assert losses == pytest.approx(
        [row["train_loss"] for row in whole.rows()], abs=2e-3
    ) and n_targets == {128}


@RANKS
def test_a_full_disk_costs_no_step_and_no_old_checkpoint(train, ranks):
    result = train(ranks, "disk full", save_every=1)
    assert result.codes == [0] * ranks, result.said
    assert len(re.findall(r"WARNING: saving step [23] failed .*No space left", result.said[0])) == 2
    assert result.steps == [5, 6] and len(result.rows()) == 6


@RANKS
def test_a_disk_that_stays_full_is_said_at_the_end_and_the_old_step_is_there(train, ranks):
    result = train(ranks, "disk stays full", save_every=1)
    assert result.codes == [2] * ranks
    assert (
        "step 6 could not be saved; complete steps: [1]. Free disk space and go on with --resume"
        in result.said[0]
    )
    finish_and_compare(train, ranks, result)


def test_too_little_disk_is_said_before_the_start(train, base_dir, single, monkeypatch):
    from tiny_runs import base_config

    from nanochat.train import run_folder, stages

    monkeypatch.setattr(
        run_folder.shutil, "disk_usage", lambda place: shutil._ntuple_diskusage(9, 9, 10**6)
    )
    with pytest.raises(
        ValueError, match=r"checkpoints need 0.\d GB .* lower --keep, or set NANOCHAT_BASE_DIR"
    ):
        stages.base(base_config(), single)
    assert not (base_dir / "base_checkpoints").exists()


@pytest.mark.parametrize("fault", ["killed", "stopped", "fails"])
def test_a_lost_rank_is_named_and_the_other_ends_soon(train, fault):
    result = train(2, fault, save_every=1, keep=9)
    assert result.codes[0] == 76 and result.took_s < 20, (result.codes, result.said)
    named = "rank 1 failed: the disk under" if fault == "fails" else "rank 1 has not answered for"
    assert named in result.said[0]
    assert result.steps == [1, 2]
    if fault == "killed":
        finish_and_compare(train, 2, result)


def test_one_rank_killed_goes_on_from_its_last_save(train):
    result = train(1, "killed", save_every=1, keep=9)
    assert result.codes == [-9] and result.steps[-1] in (1, 2)
    finish_and_compare(train, 1, result)


@RANKS
@pytest.mark.parametrize("where", ["footer", "data"])
def test_a_damaged_shard_is_named_or_left_out_and_counted(train, ranks, where, base_dir):
    path = min((base_dir / "base_data").glob("shard_*.parquet"))
    for name in ("shard_00002.parquet", "shard_00003.parquet"):
        shutil.copy(path, path.with_name(name))
    if (
        where == "data"
    ):  # its size is still the manifest's; without one only reading finds the damage
        (base_dir / "base_data" / "manifest.json").unlink()
    raw = bytearray(path.read_bytes())
    if where == "footer":
        raw = raw[: len(raw) // 2]
    else:
        raw[100:400] = bytes(300)
    path.write_bytes(raw)
    result = train(ranks)
    assert set(result.codes) <= {2, 76} and 2 in result.codes, result.said
    assert any(
        "shard_00000.parquet: damaged or unreadable text shard" in said for said in result.said
    ), result.said
    result = train(ranks, skip_bad_shards=True)
    assert result.codes == [0] * ranks, result.said
    record = json.loads((base_dir / "report" / "base_train.json").read_text())
    assert record["metrics"]["bad_shards"] == 1 and "left out (--skip-bad-shards)" in result.said[0]


def test_another_number_of_ranks_is_no_fault(train):
    """Saved on two, resumed on one: the same order of samples, losses within rounding."""
    whole = train(1)
    losses = [row["train_loss"] for row in whole.rows()]
    shutil.rmtree(whole.directory)
    stopped = train(2, "SIGTERM")
    assert stopped.codes == [75, 75]
    resumed = train(1, resume=True)
    assert resumed.codes == [0]
    assert [row["train_loss"] for row in resumed.rows()] == pytest.approx(losses, abs=1e-3)
