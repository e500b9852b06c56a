"""The loop: its arithmetic, what it skips, and that a resumed run is the uninterrupted one, bit for
bit.
"""

from __future__ import annotations

import json
import math

import pytest
import torch
from tiny_runs import base_config

from nanochat.checkpoint_manager import load_checkpoint, read_meta, write_meta
from nanochat.dataloader.loader import Batch
from nanochat.gpt import GPT, GPTConfig
from nanochat.optim.groups import parameter_groups
from nanochat.optim.optimizer import Optimizer
from nanochat.optim.schedule import Schedule
from nanochat.optim.training_recipe import RECIPES
from nanochat.train import stages
from nanochat.train.configs import MidConfig, SFTConfig
from nanochat.train.gradients import split_rows
from nanochat.train.loss_scale import LossScale
from nanochat.train.trainer import Trainer

GOLDEN = [4.15967, 3.831636, 2.623779, 1.855871]


class Fixed:
    """A source that gives prepared steps."""

    def __init__(self, steps):
        self.steps, self.at = steps, 0

    def next_step(self):
        self.at += 1
        return self.steps[(self.at - 1) % len(self.steps)]

    def state_dict(self):
        return {"at": self.at}

    def load_state_dict(self, states):
        self.at = (states if isinstance(states, dict) else states[0])["at"]


def batch(rows=4, seed=0, weight=1.0):
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(0, 64, (rows, 17), generator=generator)
    return Batch(ids[:, :-1].contiguous(), ids[:, 1:].contiguous(), torch.full((rows, 16), weight))


def make(steps, world, generation="modern", dtype=None, hooks=(), n_steps=20, **options) -> Trainer:
    model = GPT(
        GPTConfig.preset(
            generation,
            sequence_len=16,
            vocab_size=64,
            n_layer=2,
            n_head=2,
            n_kv_head=2,
            n_embd=32,
            window_pattern="L",
        )
    )
    model.init_weights(0)
    model.compute_dtype = dtype
    optimizer = Optimizer(parameter_groups(model, RECIPES[generation].optim), world)
    return Trainer(model, Fixed(steps), optimizer, Schedule(n_steps), world, hooks, **options)


def weights(trainer):
    return {name: tensor.clone() for name, tensor in trainer.model.state_dict().items()}


def same(a, b):
    return all(torch.equal(a[name], b[name]) for name in a)


def test_golden_losses(single):
    trainer = make([[batch()]], single)
    losses = [trainer.train_step().loss for _ in range(4)]
    assert losses == pytest.approx(GOLDEN, abs=2e-3)


@pytest.mark.parametrize("generation", ["classic", "modern"])
def test_a_step_without_targets_changes_nothing_and_costs_nothing(single, generation):
    trainer = make([[batch(weight=0.0)], []], single, generation)
    before = weights(trainer)
    for _ in range(2):  # no weights, then no batches at all
        stats = trainer.train_step()
        assert (stats.loss, stats.n_targets, stats.skipped) == (0.0, 0, False)
    assert same(before, weights(trainer)) and trainer.optimizer.n_updates == 0 and trainer.step == 2


@pytest.mark.parametrize("rows", [1, 3, 8])
def test_micro_batch_size_does_not_change_the_result(single, rows):
    whole = batch(8)
    one, parts = make([[whole]], single), make([list(split_rows([whole], rows))], single)
    assert len(parts.source.steps[0]) == -(-8 // rows)
    grads = []
    for trainer in (one, parts):
        trainer._update = lambda own, *_: grads.append([grad.clone() for grad in own])
    a, b = one.train_step(), parts.train_step()
    assert a.loss == pytest.approx(b.loss, abs=1e-6) and a.grad_norm == pytest.approx(
        b.grad_norm, rel=1e-5
    )
    for mine, other in zip(*grads, strict=True):
        torch.testing.assert_close(mine, other, atol=1e-6, rtol=1e-4)


def test_the_loss_is_per_target_over_all_batches(single):
    """Averaging each micro-batch on its own would give the lone target of the second one half of
    the weight.
    """
    full, lone = batch(4, 1), batch(4, 2)
    lone.weights[:] = 0
    lone.weights[0, 0] = 1
    trainer = make([[full, lone], [full], [lone]], single)
    trainer.optimizer.step = lambda *_: None
    both, first, second = (trainer.train_step() for _ in range(3))
    assert both.n_targets == 65
    assert both.loss == pytest.approx((64 * first.loss + second.loss) / 65, abs=1e-5)


def test_gradient_clipping(single):
    seen = []
    trainer = make([[batch()]], single, grad_clip=0.01)
    update = trainer.optimizer.step
    trainer.optimizer.step = lambda *a: (seen.append(trainer.optimizer.grad_norm()), update(*a))
    assert trainer.train_step().grad_norm > 0.01
    assert seen[0] == pytest.approx(0.01, rel=1e-3)


def test_state_is_plain_json_and_complete(single):
    trainer = make([[batch(seed=i)] for i in range(4)], single)
    trainer.train_step()
    state = json.loads(json.dumps(trainer.state_dict()))
    drawn = torch.rand(3)
    other = make([[batch(seed=i)] for i in range(4)], single)
    other.load_state_dict(state)
    assert (other.step, other.tokens_seen, other.source.at) == (1, 64, 1)
    assert torch.equal(torch.rand(3), drawn)  # random states too


# --- float16


def test_float16_scales_and_recovers_from_an_overflow(single):
    trainer = make([[batch()]], single, dtype=torch.float16, n_steps=50)
    trainer.loss_scale = trainer.gradients.loss_scale = LossScale(2.0**40)
    before = weights(trainer)
    assert trainer.train_step().skipped and same(before, weights(trainer))
    assert trainer.loss_scale.scale == 2.0**39 and trainer.n_bad_steps == 0
    for _ in range(40):
        stats = trainer.train_step()
    assert not stats.skipped and not same(before, weights(trainer))


def test_float16_trains_like_float32(single):
    half, full = (make([[batch()]], single, dtype=dtype) for dtype in (torch.float16, None))
    assert half.loss_scale is not None and full.loss_scale is None
    a, b = half.train_step(), full.train_step()
    assert a.loss == pytest.approx(b.loss, abs=1e-3) and a.grad_norm == pytest.approx(
        b.grad_norm, rel=0.01
    )
    for _ in range(18):
        a = half.train_step()
    assert a.loss < 0.2 and half.n_bad_steps == 0


def test_loss_scale_grows_after_patience_and_is_saved():
    scale = LossScale(8.0, patience=3)
    for overflow in (False, False, False, False):
        scale.update(overflow)
    assert (scale.scale, scale.good_steps) == (16.0, 1)
    other = LossScale()
    other.load_state_dict(json.loads(json.dumps(scale.state_dict())))
    assert (other.scale, other.good_steps) == (16.0, 1)
    for _ in range(20):
        other.update(True)
    assert other.scale == 1.0 and other.exhausted


# --- N = k + (N - k)


def stage_config(stage, base_dir, **changes):
    if stage == "base":
        return base_config(**changes)
    shape = dict(
        max_seq_len=32,
        device_batch_size=2,
        total_batch_size=128,
        num_iterations=6,
        eval_every=0,
        eval_tokens=64,
        sample_every=0,
        device_type="cpu",
        model_tag="t",
        source="base",
        mixture="none",
        data=[str(base_dir / "chats.jsonl")],
    )
    return (MidConfig if stage == "mid" else SFTConfig)(**{**shape, **changes})


@pytest.mark.parametrize("stage", ["base", "mid", "sft"])
def test_resumed_equals_uninterrupted_bit_for_bit(data, single, stage, capsys):
    run = getattr(stages, stage)
    if stage != "base":
        stages.base(base_config(num_iterations=1), single)
    record = run(stage_config(stage, data, save_every=3, keep=9, eval_every=2), single)
    folder = data / {"base": "base", "mid": "mid", "sft": "chatsft"}[stage]
    directory = folder.with_name(folder.name + "_checkpoints") / "t"
    whole = load_checkpoint(directory, 6, "cpu", load_optimizer=True)
    log = losses(directory)
    torch.rand(7)  # another process would be elsewhere in its random numbers
    again = run(
        stage_config(stage, data, save_every=3, keep=9, eval_every=2, resume_from_step=3), single
    )
    parts = load_checkpoint(directory, 6, "cpu", load_optimizer=True)
    assert "after step 3 of 6" in capsys.readouterr().out
    assert same(whole[0], parts[0])
    for name, states in whole[1]["state"].items():
        for a, b in zip(states, parts[1]["state"][name], strict=True):
            assert same(a, b)
    assert losses(directory) == log and len(log) == 6  # every step once
    for name in ("val_bpb", "min_val_bpb", "steps", "tokens"):
        assert record["metrics"][name] == again["metrics"][name], name


def losses(directory):
    rows = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
    return [(row["step"], row["train_loss"]) for row in rows if "train_loss" in row]


def test_resume_with_other_settings_names_them_and_changes_nothing(data, single):
    stages.base(base_config(), single)
    directory = data / "base_checkpoints" / "t"
    before = {path.name: path.stat().st_mtime_ns for path in directory.iterdir()}
    with pytest.raises(
        ValueError,
        match=r"n_steps: 6 then, 8 now.*matrix_lr: 0.02 then, 0.5 now.*seed: 42 then, 7 now",
    ):
        stages.base(base_config(num_iterations=8, matrix_lr=0.5, seed=7, resume=True), single)
    assert before == {path.name: path.stat().st_mtime_ns for path in directory.iterdir()}
    stages.base(base_config(device_batch_size=4, resume=True), single)  # that one may change


def test_resume_passes_over_a_damaged_step(data, single, capsys):
    stages.base(base_config(save_every=2, keep=9), single)
    path = data / "base_checkpoints" / "t" / "optim_000006.pt"
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(raw)
    stages.base(base_config(save_every=2, keep=9, resume=True), single)
    said = capsys.readouterr()
    assert "optim_000006.pt: damaged" in said.err and "after step 4 of 6" in said.out


def test_a_finished_run_can_be_resumed_and_keeps_its_numbers(data, single):
    first = stages.base(base_config(eval_every=3), single)
    again = stages.base(base_config(eval_every=3, resume=True), single)
    assert math.isfinite(first["metrics"]["val_bpb"]) and again["checkpoint"] == first["checkpoint"]
    assert again["metrics"]["val_bpb"] == first["metrics"]["val_bpb"]


def test_a_score_that_cannot_be_had_does_not_end_the_run(data, single, capsys):
    """Without an eval bundle CORE is left out; the run, its record and its last meta file are whole
    all the same.
    """
    record = stages.base(base_config(core_metric_every=4), single)
    assert record["metrics"]["steps"] == 6 and "CORE is not measured" in capsys.readouterr().err
    directory = data / "base_checkpoints" / "t"
    write_meta(directory, 6, {**read_meta(directory, 6), "val_bpb": math.nan})
    assert read_meta(directory, 6)["val_bpb"] is None
