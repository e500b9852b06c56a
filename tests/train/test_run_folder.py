"""Nothing trained is lost: a run asks before it takes a folder, sets aside, never deletes."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest
import torch
from test_trainer import stage_config
from tiny_rl import TINY, FirstLetter, save_sft
from tiny_runs import base_config

from nanochat.checkpoint_manager import (
    checkpoint_dir,
    complete_steps,
    load_model,
    read_meta,
    save_checkpoint,
)
from nanochat.tokenizer import Tokenizer
from nanochat.train import rl_tasks, stages


def models(folder: Path) -> dict[str, bytes]:
    """Every model file below a folder, by what is in it."""
    return {str(path): path.read_bytes() for path in folder.rglob("model_*.pt")}


def run_stage(stage, data, single, **changes):
    return getattr(stages, stage)(stage_config(stage, data, **changes), single)


@pytest.fixture
def trained(data, single):
    """A base model of nine steps."""
    stages.base(base_config(num_iterations=9, save_every=3, keep=9), single)
    return data


@pytest.mark.parametrize("stage", ["base", "mid", "sft"])
def test_a_run_does_not_take_a_folder_unasked(trained, single, stage):
    if stage != "base":
        run_stage(stage, trained, single)
    before = models(trained)
    flag = "--model-tag" if stage == "base" else "--tag-out"
    said = f"holds what an earlier run trained .steps [369, ]+.*--resume.*{flag}.*--replace"
    for fresh in ({}, {"resume_from_step": -1}):
        with pytest.raises(ValueError, match=said):
            run_stage(stage, trained, single, num_iterations=2, **fresh)
    assert models(trained) == before and not (trained / "previous").exists()


def test_replace_moves_to_a_dated_folder_each_time_and_lists_it(trained, single, capsys):
    before = set(models(trained).values())
    for n_steps in (2, 3, 4):
        stages.base(base_config(num_iterations=n_steps, replace=True), single)
        assert complete_steps(trained / "base_checkpoints" / "t") == [n_steps]
    dated = sorted((trained / "previous").iterdir())
    assert all(re.fullmatch(r"\d{8}-\d{6}(-\d)?", folder.name) for folder in dated)
    kept = sorted(
        str(complete_steps(folder))
        for folder in (trained / "previous").glob("*/base_checkpoints/*")
    )
    assert kept == ["[2]", "[3, 6, 9]", "[3]"]
    assert before <= set(models(trained).values())
    said = capsys.readouterr().out
    assert said.count("set aside: steps ") == 3 and "steps 3, 6, 9 of" in said and "GB)" in said
    for folder in (trained / "previous").glob("*/base_checkpoints/*"):
        assert (folder / "metrics.jsonl").exists() and (folder / "tokenizer").is_dir()


@pytest.mark.parametrize("replace", [False, True])
def test_a_run_never_moves_the_checkpoint_it_starts_from(trained, single, replace):
    """Fine-tuning on from step 700 of a fine-tuned model, without and with --replace."""
    run_stage("sft", trained, single)
    before = models(trained)
    again = {"source": "sft", "step": 6, "replace": replace}
    with pytest.raises(ValueError, match=r"starts from a checkpoint in this folder .step 6.*t-2"):
        run_stage("sft", trained, single, **again)
    assert models(trained) == before
    run_stage("sft", trained, single, tag_out="t-2", **again)
    assert before.items() <= models(trained).items()
    with pytest.raises(ValueError, match="would go on with the run that made the checkpoint"):
        run_stage("sft", trained, single, source="sft", resume=True)
    assert before.items() <= models(trained).items()


def test_reinforcement_learning_asks_too(base_dir, single, monkeypatch):
    monkeypatch.setenv("NANOCHAT_DTYPE", "float32")
    save_sft(Tokenizer.byte_level())
    asked = rl_tasks.Questions(FirstLetter(40), {"letters": FirstLetter(4)})
    monkeypatch.setattr(stages, "questions", lambda *args: asked)
    from dataclasses import replace

    cfg = replace(TINY, num_iterations=1, eval_every=0)
    stages.rl(cfg, single)
    before = models(base_dir)
    for again in ({}, {"source": "rl", "replace": True}):
        with pytest.raises(ValueError, match="holds what an earlier|starts from a checkpoint"):
            stages.rl(replace(cfg, **again), single)
    assert models(base_dir) == before


def test_going_back_sets_the_later_steps_aside(trained, single, capsys):
    """They are not deleted, nor taken for the newest ones, nor pruned in place of own ones."""
    before = set(models(trained).values())
    folder = trained / "base_checkpoints" / "t"
    changes = {"num_iterations": 9, "save_every": 1, "keep": 2}
    stages.base(base_config(resume_from_step=3, **changes), single)
    assert complete_steps(folder) == [8, 9]
    assert "set aside: steps 6, 9" in capsys.readouterr().out
    (aside,) = (trained / "previous").glob("*/base_checkpoints/t")
    assert complete_steps(aside) == [6, 9]
    rows = [json.loads(line) for line in (aside / "metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["step"] == 9
    # Step 3 was this run's own and is pruned like any other.
    assert before - set(models(trained).values()) == {
        data for data in before if data not in set(models(trained).values())
    }


def test_a_model_without_a_meta_file_is_not_taken_for_rubbish(data, single):
    """Brought here by hand, or half of a download."""
    folder = data / "base_checkpoints" / "t"
    folder.mkdir(parents=True)
    (folder / "model_000700.pt").write_bytes(b"precious")
    with pytest.raises(ValueError, match="steps 700"):
        stages.base(base_config(), single)
    stages.base(base_config(resume=True), single)
    assert complete_steps(folder) == [6]
    assert b"precious" in models(data).values()


def test_steps_that_come_in_during_a_run_are_not_pruned(data, single, monkeypatch):
    from nanochat.train.hooks import LogHook

    log, folder = LogHook.after_step, data / "base_checkpoints" / "t"
    meta = {"model_config": {"n_layer": 1}}

    def bring(self, trainer, stats):
        log(self, trainer, stats)
        if stats.step == 2:
            save_checkpoint(folder, 1000, {"x": torch.zeros(1)}, None, meta)
            save_checkpoint(folder, 0, {"x": torch.zeros(1)}, None, meta)

    monkeypatch.setattr(LogHook, "after_step", bring)
    stages.base(base_config(save_every=1, keep=1), single)
    assert complete_steps(folder) == [0, 6, 1000]


@pytest.fixture
def other_disk(tmp_path):
    """A folder on another disk than the tests'."""
    place = Path("/dev/shm")
    if not place.is_dir() or place.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("no second file system here")
    folder = place / f"nanochat-test-{os.getpid()}"
    folder.mkdir()
    yield folder
    import shutil

    shutil.rmtree(folder)


@pytest.mark.parametrize("link", ["stage", "tag", "tag on the same disk"])
def test_checkpoints_on_another_disk_stay_there(data, single, link, other_disk, tmp_path):
    """The stage's folder or the tag's is a link; so it stays, and nothing is copied between
    disks.
    """
    there = tmp_path / "there" if link.endswith("same disk") else other_disk
    there.mkdir(exist_ok=True)
    place = data / "base_checkpoints"
    if link == "stage":
        place.symlink_to(there)
    else:
        place.mkdir()
        (there / "elsewhere").mkdir()
        (place / "t").symlink_to(there / "elsewhere")
    stages.base(base_config(num_iterations=1), single)
    first = set(models(there).values())
    assert len(first) == 1
    stages.base(base_config(num_iterations=2, replace=True), single)
    assert (place if link == "stage" else place / "t").is_symlink()
    assert complete_steps(place / "t") == [2]
    assert len(models(place / "t" if link != "stage" else place)) >= 1
    everywhere = {**models(there), **models(data / "previous")}
    assert first <= set(everywhere.values()) and len(set(everywhere.values())) == 2
    if there == other_disk:
        assert len(models(there)) == 2, "both on the other disk"
    assert load_model("base", "cpu")[2]["step"] == 2


@pytest.mark.parametrize("what", ["folder", "record", "link"])
def test_a_place_that_cannot_be_written_is_said_before_anything(data, single, what):
    place = data / "base_checkpoints"
    if what == "link":
        place.mkdir()
        (place / "t").symlink_to(data / "gone")
    else:
        (place if what == "folder" else data / "report").write_text("a file where a folder goes")
    with pytest.raises(ValueError, match="cannot be written|which is not there"):
        stages.base(base_config(), single)
    assert models(data) == {}


def test_unfinished_saves_are_cleared_and_resumed_from_the_start(data, single):
    """A run killed in its first save leaves half a step, known by its mark."""
    folder = data / "base_checkpoints" / "t"
    folder.mkdir(parents=True)
    for name in ("model_000003.pt", ".saving_000003"):
        (folder / name).write_bytes(b"half")
    stages.base(base_config(resume=True), single)
    assert complete_steps(folder) == [6] and b"half" not in models(data).values()
    assert read_meta(checkpoint_dir("base", "t"), 6)["step"] == 6
