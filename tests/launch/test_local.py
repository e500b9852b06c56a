"""Running recipes: complete steps are skipped, changes rerun what depends on them, nothing of
anybody is lost.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
import signal
import subprocess
import sys
import time
import types
from pathlib import Path

import pytest

from nanochat.launch import commands, local, recipes
from nanochat.launch.ledger import Ledger
from nanochat.launch.recipes import Recipe, RecipeConfig, RecipeStep


@dataclasses.dataclass
class Write:
    """Write a file."""

    text: str = "x"
    place: str = "a"
    fail: bool = False
    resume: bool = False
    replace: bool = False

    def problems(self) -> list[str]:
        return ["--text=bad: not this one; use x"] if self.text == "bad" else []


@pytest.fixture
def world(monkeypatch, base_dir):
    """A recipe of two steps and a download, made of one command that writes a file, and the list of
    what ran.
    """
    ran: list[str] = []

    def write(cfg):
        ran.append(cfg.place + " resumed" * cfg.resume + " replaced" * cfg.replace)
        folder = base_dir / cfg.place
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "half").write_text("")
        if cfg.fail:
            raise ValueError("--fail: as asked; leave it out")
        (folder / "text").write_text(cfg.text)

    module = types.ModuleType("stand_in")
    module.Write, module.write = Write, write
    monkeypatch.setitem(sys.modules, "stand_in", module)
    monkeypatch.setitem(
        commands.COMMANDS, "write", commands.Command("write", "stand_in:write", "stand_in:Write")
    )

    def build(smoke):
        return Recipe(
            "toy",
            "a toy",
            "cpu",
            (
                RecipeStep("get", "write", {"place": "shards"}, ("shards",), download=True),
                RecipeStep("base", "write", {"place": "a", "model_tag": "d1"}, ("a",), ("get",)),
                RecipeStep("sft", "write", {"place": "b"}, ("b",), ("base",), resumes=True),
            ),
        )

    monkeypatch.setattr(recipes, "RECIPES", {"toy": build})
    monkeypatch.setattr(
        local, "build", lambda name, smoke, override: strip(recipes.build(name, smoke, override))
    )

    def strip(recipe):
        """The toy's command has no --model-tag."""
        steps = tuple(
            dataclasses.replace(
                s, settings={k: v for k, v in s.settings.items() if k != "model_tag"}
            )
            for s in recipe.steps
        )
        return dataclasses.replace(recipe, steps=steps)

    return ran


def go(ran, **settings) -> list[str]:
    """Run the toy and return the places written by this run."""
    ran.clear()
    local.recipe(RecipeConfig("run", "toy", **settings))
    return list(ran)


def test_complete_steps_are_skipped(world, capsys):
    assert go(world) == ["shards", "a", "b"]
    assert go(world) == []
    assert "[2/3] base: complete, skipped" in capsys.readouterr().out


def test_a_changed_setting_reruns_what_depends_on_it_and_keeps_the_old_result(world, base_dir):
    go(world)
    assert go(world, override=("base.text=new",), replace=True) == ["a", "b"]
    assert (base_dir / "a" / "text").read_text() == "new"
    (kept,) = (base_dir / "previous").glob("2*/a/text")
    assert kept.read_text() == "x"
    go(world, override=("base.text=newer",), replace=True)
    texts = {path.read_text() for path in (base_dir / "previous").glob("2*/a/text")}
    assert texts == {"x", "new"}, "nothing that was set aside is replaced"


def test_an_interrupted_tokenizer_is_made_again_and_others_are_asked_about(
    world, base_dir, monkeypatch
):
    """What stands in `tokenizer/` is this step's own where it was interrupted, another's else."""
    toy = recipes.RECIPES["toy"](False)
    step = recipes.tokenizer({"fail": True, "place": "t"})
    step = dataclasses.replace(step, command="write", makes=("t",))
    changed = dataclasses.replace(toy, steps=(step, *toy.steps[:2]))
    monkeypatch.setitem(recipes.RECIPES, "toy", lambda smoke: changed)
    only = ("tokenizer",)
    assert go(world, only=only) == ["t"] and go(world, only=only) == ["t replaced"]
    with pytest.raises(ValueError, match="recipe toy: t under .*add --replace"):
        go(world, only=only, override=("tokenizer.fail=False",))


@pytest.mark.parametrize("by", ["other settings", "someone else"])
def test_models_that_would_be_replaced_are_asked_about_first(world, base_dir, by):
    """`sft` is the step that trains. Nothing is moved or run before the answer."""
    if by == "other settings":
        go(world)
        again = {"override": ("sft.text=new",)}
    else:
        (base_dir / "b").mkdir(parents=True)
        (base_dir / "b" / "text").write_text("x")
        again = {}
    with pytest.raises(ValueError, match=r"recipe toy: b under .*add --replace.*model_tag=NAME"):
        go(world, **again)
    assert world == [] and (base_dir / "b" / "text").read_text() == "x"
    assert not list(base_dir.glob("previous/*/b"))
    assert go(world, replace=True, **again)[-1] == "b"
    assert [path.read_text() for path in base_dir.glob("previous/2*/b/text")] == ["x"]


def test_results_on_another_disk_are_set_aside_there(world, base_dir):
    other = Path("/dev/shm") / f"nanochat-recipe-{os.getpid()}"
    base_dir.mkdir(parents=True, exist_ok=True)
    if not other.parent.is_dir() or other.parent.stat().st_dev == base_dir.stat().st_dev:
        pytest.skip("no second file system here")
    (other / "b").mkdir(parents=True)
    (base_dir / "b").symlink_to(other / "b")
    try:
        go(world)
        go(world, fresh=True)
        assert (base_dir / "b").is_symlink() and (base_dir / "b" / "text").exists()
        assert [path.read_text() for path in other.glob("previous/2*/b/text")] == ["x"]
    finally:
        shutil.rmtree(other)


def test_missing_results_are_made_again(world, base_dir):
    go(world)
    for path in (base_dir / "b").iterdir():
        path.unlink()
    assert go(world) == ["b"]  # an empty folder, as a link or a disk that was cleared
    shutil.rmtree(base_dir / "b")
    assert go(world) == ["b"]


def test_fresh_starts_over_but_keeps_downloads(world, base_dir):
    go(world)
    (base_dir / "shards" / "mark").write_text("")
    assert go(world, fresh=True) == ["shards", "a", "b"]
    assert (base_dir / "shards" / "mark").exists()
    assert go(world, fresh=True, only=("sft",)) == ["b"]


def test_a_run_that_starts_over_and_stops_goes_on_without_fresh(world, base_dir, capsys):
    go(world)
    local.recipe(RecipeConfig("run", "toy", fresh=True, override=("sft.fail=True",)))
    said = capsys.readouterr().out
    assert "run the same command again without --fresh" in said
    assert "set aside: earlier b is now in " in said and "(2 files, 0.00 GB)" in said
    assert go(world, override=("sft.fail=True",)) == ["b resumed"]


def test_a_trial_asks_nobody_about_what_earlier_trials_trained(world, base_dir, monkeypatch):
    monkeypatch.setitem(recipes.RECIPES, "cpu", recipes.RECIPES["toy"])
    (base_dir / "smoke" / "b").mkdir(parents=True)
    (base_dir / "smoke" / "b" / "text").write_text("x")
    monkeypatch.setenv("NANOCHAT_BASE_DIR", str(base_dir))  # a trial changes it
    assert local.recipe(RecipeConfig("run", "cpu", smoke=True)) == 0
    assert [path.read_text() for path in base_dir.glob("smoke/previous/2*/b/text")] == ["x"]


def test_a_failure_stops_the_recipe_and_is_continued(world, base_dir, capsys):
    def failing(**settings):
        world.clear()
        return local.recipe(RecipeConfig("run", "toy", **settings))

    assert failing(override=("sft.fail=True",)) == 2
    assert world == ["shards", "a", "b"]
    said = capsys.readouterr()
    assert said.err == "error: --fail: as asked; leave it out\n" and "step sft failed" in said.out
    assert failing(override=("sft.fail=True",)) == 2 and world == ["b resumed"]
    assert go(world, replace=True) == ["b"]


def test_an_interrupted_step_with_the_same_settings_finds_its_files(world, base_dir):
    local.recipe(RecipeConfig("run", "toy", override=("sft.fail=True",)))
    (base_dir / "b" / "checkpoint").write_text("")
    local.recipe(RecipeConfig("run", "toy", override=("sft.fail=True",)))
    assert (base_dir / "b" / "checkpoint").exists()


def test_what_others_left_is_moved_to_a_dated_folder_and_never_deleted(world, base_dir):
    (base_dir / "a").mkdir(parents=True)
    (base_dir / "a" / "mine").write_text("precious")
    go(world)
    go(world, fresh=True)
    kept = list((base_dir / "previous").glob("2*/a/mine"))
    assert len(kept) == 1 and kept[0].read_text() == "precious"


def test_bad_settings_are_all_told_before_anything_is_written(world, base_dir):
    with pytest.raises(ValueError) as error:
        go(world, override=("base.text=bad", "sft.colour=red"), only=("nothing",))
    assert str(error.value).splitlines() == [
        "--only=nothing: recipe toy has get, base, sft",
        "step base: --text=bad: not this one; use x",
        "step sft: --colour=red: unknown flag; see --help",
    ]
    assert world == [] and not base_dir.exists()


def test_gpu_recipes_say_that_they_need_one(monkeypatch, base_dir):
    monkeypatch.setattr(local, "gpu_count", lambda: 0)
    with pytest.raises(ValueError, match="recipe node8: needs a GPU"):
        local.recipe(RecipeConfig("run", "node8"))
    assert not base_dir.exists()


def test_auto_does_not_take_a_gpu_node_for_a_cpu(monkeypatch, base_dir):
    """With torch's CPU build the CPU recipe would run there, on other data than was asked for."""
    monkeypatch.setattr(local, "gpu_count", lambda: 0)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    with pytest.raises(ValueError, match="recipe auto: GPUs are there .*nanochat recipe run cpu"):
        local.recipe(RecipeConfig("run", "auto"))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert local.pick() == "cpu"


@pytest.mark.parametrize("count, name", [(0, "cpu"), (1, "gpu1"), (2, "node8"), (8, "node8")])
def test_auto_picks_by_hardware(monkeypatch, count, name):
    monkeypatch.setattr(local, "gpu_count", lambda: count)
    assert local.pick() == name


def test_several_gpus_run_under_torchrun(monkeypatch, tmp_path):
    started: list[list[str]] = []
    monkeypatch.setattr(local, "gpu_count", lambda: 4)
    monkeypatch.setattr(local, "run_child", lambda words: started.append(words) or 0)
    for name in ("node8", "gpu1"):
        recipe = recipes.build(name)
        runner = local.RecipeRunner(recipe, RecipeConfig("run", name), Ledger(tmp_path, name))
        runner.execute(next(s for s in recipe.steps if s.name == "base"), ["--depth=20"])
        runner.execute(next(s for s in recipe.steps if s.name == "tokenizer"), [])
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=4"]
    assert started[0][1:] == [*torchrun, "-m", "nanochat", "base-train", "--depth=20"]
    assert started[1][1:] == ["-m", "nanochat", "tok-train"]
    assert started[2][1:] == ["-m", "nanochat", "base-train", "--depth=20"]


def test_a_stop_signal_reaches_the_training(tmp_path):
    """The child saves on SIGTERM and ends with 1, as torchrun does; the signal is sent to the
    parent alone.
    """
    child = (
        "import os, pathlib, signal, sys, time\n"
        "def stop(number, frame):\n"
        "    pathlib.Path('saved').touch()\n"
        "    sys.exit(1)\n"
        "signal.signal(signal.SIGTERM, stop)\n"
        "pathlib.Path('ready').touch()\n"
        "time.sleep(30)\n"
    )
    parent = "import sys\nfrom nanochat.launch.local import run_child\n"
    parent += f"sys.exit(run_child([sys.executable, '-c', {child!r}]))\n"
    for number in (signal.SIGTERM, signal.SIGUSR1):
        folder = tmp_path / str(int(number))
        folder.mkdir()
        with subprocess.Popen([sys.executable, "-c", parent], cwd=folder) as process:
            deadline = time.monotonic() + 30
            while not (folder / "ready").exists() and time.monotonic() < deadline:
                time.sleep(0.02)
            process.send_signal(number)
            assert process.wait(30) == 75
        assert (folder / "saved").exists()
