"""`nanochat plan` and the micro-batch that follows from a card's memory."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from tiny_runs import base_config

from nanochat.cost import GIB, count_parameters
from nanochat.gpt import GPT
from nanochat.gpt_config import GPTConfig
from nanochat.runtime.world import World
from nanochat.train import stages
from nanochat.train.configs import BaseConfig
from nanochat.train.derive import pretraining
from nanochat.train.micro_batch import MicroBatch, choose_micro_batch
from nanochat.train.plan import PlanConfig, parse_memory, plan, run_plan
from nanochat.train.tok_train import TokTrainConfig
from nanochat.training_memory import StepShape, training_memory


def test_d20_on_one_24_gb_card():
    said = plan(PlanConfig(depth=20, gpus=1, memory="24GB", generation="modern"))
    assert (
        "DOES NOT FIT" not in said and "1 x 4090" in said and "activation checkpointing" not in said
    )
    for word in (
        "weights",
        "gradients",
        "optimizer",
        "activations",
        "head",
        "peak",
        "disk",
        " h ($",
    ):
        assert word in said
    classic = plan(PlanConfig(depth=20, memory="24GB", generation="classic"))
    assert "561M parameters" in classic and "DOES NOT FIT" not in classic


def test_what_does_not_fit_is_said_and_what_needs_checkpointing_takes_it():
    assert "DOES NOT FIT" in plan(PlanConfig(depth=32, memory="24GB"))
    assert "activation checkpointing" in plan(
        PlanConfig(depth=12, memory="6GB", generation="modern")
    )


def test_more_gpus_share_states_and_hours():
    one, eight = (plan(PlanConfig(depth=12, gpus=gpus, chip="H100")) for gpus in (1, 8))
    hours = [float(said.split("about ")[1].split(" h")[0]) for said in (one, eight)]
    assert hours[0] == pytest.approx(8 * hours[1], abs=0.5) and "8 x H100" in eight


def test_a_model_in_pieces_fits_where_a_whole_one_does_not():
    whole, pieces = (
        PlanConfig(depth=52, gpus=8, chip="H100", generation="modern", shard_model=shard)
        for shard in (False, True)
    )
    assert "DOES NOT FIT" in plan(whole) and "DOES NOT FIT" not in plan(pieces)
    shape = GPTConfig.preset(
        "modern",
        sequence_len=2048,
        vocab_size=32768,
        n_layer=24,
        n_head=12,
        n_kv_head=12,
        n_embd=1536,
        window_pattern="L",
    )
    step = StepShape(config=shape, rows=1, seq_len=2048)
    one, eight = (training_memory(replace(step, world_size=n, shard_model=True)) for n in (1, 8))
    assert one == training_memory(step), "a single process keeps its model whole"
    assert eight.weights < one.weights / 3 and eight.gradients < one.gradients / 3


@pytest.mark.parametrize(
    "text, size",
    [("24GB", 24), ("24 GiB", 24), ("5.5g", 5.5), ("80", 80), ("x", None), ("0", None)],
)
def test_memory_sizes(text, size):
    assert parse_memory(text) == (None if size is None else int(size * GIB))


def test_problems_name_the_flag():
    said = "\n".join(PlanConfig(depth=0, memory="much", mfu=2.0).problems())
    for flag in ("--depth=0", "--memory=much", "--mfu=2.0"):
        assert flag in said
    assert "--chip=abacus" in PlanConfig(chip="abacus").problems()[0]
    assert " h" not in plan(PlanConfig(chip="abacus", memory="24GB")).splitlines()[1], (
        "its speed is not known"
    )
    assert PlanConfig().problems() == []


def settings(**flags):
    return pretraining(BaseConfig(generation="modern", depth=12, **flags), 32768, "cuda")


def test_micro_batch_follows_free_memory_at_a_constant_total(monkeypatch):
    world, chosen = World(0, 0, 1, torch.device("cuda")), []
    monkeypatch.setenv("NANOCHAT_DTYPE", "float16")
    for gib in (6, 8, 16, 24, 80):
        monkeypatch.setattr(
            torch.cuda, "mem_get_info", lambda device, gib=gib: (gib * GIB, gib * GIB)
        )
        chosen.append(choose_micro_batch(BaseConfig(), settings(), world))
    rows = [micro.device_batch_size for micro in chosen]
    assert (
        rows == sorted(rows) and rows[0] >= 1 and rows[-1] == 32
    )  # 65,536 tokens are enough for any GPU
    checkpointing = [micro.activation_checkpointing for micro in chosen]
    assert checkpointing[0] and not checkpointing[-1], "only the small card recomputes activations"
    asked = choose_micro_batch(BaseConfig(device_batch_size=3), settings(), world)
    assert asked == MicroBatch(device_batch_size=3)
    share = choose_micro_batch(BaseConfig(), settings(total_batch_size=4096), world)
    assert share.device_batch_size == 2


def test_the_card_with_least_free_memory_decides(monkeypatch):
    class Ranks(World):
        """One of two ranks; the other has less memory."""

        def gather_objects(self, obj):
            return [obj, 8 * GIB]

    monkeypatch.setenv("NANOCHAT_DTYPE", "float16")
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (80 * GIB, 80 * GIB))
    alone, beside = (
        choose_micro_batch(BaseConfig(), settings(), kind(0, 0, n, torch.device("cuda")))
        for kind, n in ((World, 1), (Ranks, 2))
    )
    assert beside.device_batch_size < alone.device_batch_size


def test_rollouts_have_no_share_of_a_step(single):
    cfg = BaseConfig(depth=12, max_seq_len=256, total_batch_size=512)
    fixed, free = (
        choose_micro_batch(cfg, pretraining(cfg, 300, "cpu"), single, fixed_step=fixed)
        for fixed in (True, False)
    )
    assert (fixed.device_batch_size, free.device_batch_size) == (2, 32)


def test_the_plan_is_that_of_the_run(monkeypatch):
    """`nanochat plan` and the run on that card choose the same micro-batch and windows."""
    monkeypatch.setenv("NANOCHAT_DTYPE", "bfloat16")
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (80 * GIB, 80 * GIB))
    cfg, world = BaseConfig(depth=20), World(0, 0, 1, torch.device("cuda"))
    micro = choose_micro_batch(cfg, pretraining(cfg, 32768, "cuda"), world)
    assert f"micro-batches of {micro.device_batch_size} row(s)" in plan(
        PlanConfig(depth=20, chip="H100")
    )


def test_a_run_says_its_plan_in_two_lines():
    world = World(0, 0, 2, torch.device("cpu"))
    cfg = BaseConfig(
        depth=2, max_seq_len=128, total_batch_size=1536, num_iterations=5, device_batch_size=2
    )
    made = run_plan(
        pretraining(cfg, 1000, "cpu"),
        MicroBatch(device_batch_size=2),
        world,
        n_steps=5,
        compute_dtype=torch.float32,
        keep=2,
        compiled=False,
    )
    lines = made.lines()
    assert len(lines) == 2 and "2 row(s) (3 a step)" in lines[0] and "GiB a device" in lines[1]


def test_fp8_where_there_is_none_is_refused(data, single):
    with pytest.raises(ValueError, match="--fp8"):
        stages.base(base_config(fp8=True), single)


@pytest.mark.parametrize(
    "depth, parameters, multiplied",
    [
        (20, 560_988_160, 477_102_080),
        (26, 1_081_999_360, 972_947_456),
        (32, 1_879_048_192, 1_744_830_464),
        (34, 2_217_082_880, 2_074_476_544),
    ],
)
def test_commands_as_guides_write_them_give_the_guides_models(depth, parameters, multiplied):
    """`tok_train` and `base_train --depth` without further flags."""
    settings = pretraining(BaseConfig(depth=depth), TokTrainConfig().vocab_size, "cuda")
    with torch.device("meta"):
        model = GPT(settings.model_config)
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters
    counts = count_parameters(settings.model_config)
    assert (counts.total, counts.multiplied) == (parameters, multiplied)
    trained_on = settings.n_steps * settings.total_batch_size
    assert trained_on == pytest.approx(20 * parameters, rel=1e-3)
    assert settings.total_batch_size == 2**19


def test_both_sizes_and_the_other_generation_are_said():
    said = plan(PlanConfig(depth=20, gpus=8, chip="H100"))
    assert said.startswith("d20 classic: 561M parameters, 477M of them multiplied, 21,400 steps")
    other = "--generation=modern and a vocabulary of 32,768 give: 897M parameters, 435M of them"
    assert other in said.splitlines()[-1]
    modern = plan(PlanConfig(depth=20, generation="modern", vocab_size=65_536))
    assert "1,400M parameters, 477M of them multiplied (839M are tables of values)" in modern
    assert "--generation=classic and a vocabulary of 65,536 give: 561M" in modern


def test_a_run_says_both_sizes_before_its_first_step(data, single, capsys):
    stages.base(base_config(generation="classic", num_iterations=1), single)
    said = capsys.readouterr().out
    assert "base: classic d1, 29,248 parameters, 20,768 of them multiplied" in said
    assert "instead, --generation=modern and a vocabulary of 265 give: " in said
