"""Recipes as data: every one is built, every setting is a real one, overrides reach the checkpoint
folders.
"""

from __future__ import annotations

import re

import pytest

from nanochat import config
from nanochat.cost import count_parameters
from nanochat.launch import commands, ledger, recipes
from nanochat.train.derive import pretraining


@pytest.mark.parametrize(
    "name, smoke", [*((name, False) for name in recipes.RECIPES), ("cpu", True), ("sql", True)]
)
def test_every_recipe_is_built_from_real_commands_and_settings(name, smoke):
    recipe, seen = recipes.build(name, smoke), set()
    for step in recipe.steps:
        assert set(step.needs) <= seen, f"{step.name} needs a step after it"
        seen.add(step.name)
        _, command, words = commands.find([step.command, *step.argv("a-run")])
        if command.config is not None:
            _, problems = config.collect(commands.load(command.config), words)
            assert problems == [], step.name
        assert not any("{" in text for text in (*step.makes, *step.argv()))
    assert recipe.steps[-1].command == "report"


def test_stages_name_the_model_they_go_on_from():
    steps = {s.name: s for s in recipes.build("cpu", overrides=("base.depth=6",)).steps}
    assert steps["base"].makes == ("base_checkpoints/d6",) and steps["sft"].makes == (
        "chatsft_checkpoints/d6",
    )
    assert "--model-tag=d6" in steps["mid"].argv() and "--model-tag=d6" in steps["exam"].argv()
    steps = {s.name: s for s in recipes.build("cpu", overrides=("base.model-tag=mine",)).steps}
    assert (
        steps["mid"].makes == ("mid_checkpoints/mine",)
        and "--model-tag=mine" in steps["sft"].argv()
    )


def test_a_setting_changes_its_step_and_what_follows():
    before, after = (
        recipes.build("cpu").fingerprints(),
        recipes.build("cpu", overrides=("mid.seed=7",)).fingerprints(),
    )
    assert {name for name in before if before[name] != after[name]} == {
        "mid",
        "sft",
        "exam",
        "report",
    }
    assert recipes.build("cpu").fingerprints() == before


def test_the_run_name_reaches_training_steps_only_and_never_a_fingerprint():
    steps = {s.name: s for s in recipes.build("cpu").steps}
    assert steps["base"].argv("mine")[-1] == "--run=mine"
    assert not any(
        "--run" in word for word in steps["tokenizer"].argv("mine") + steps["base"].argv("dummy")
    )


@pytest.mark.parametrize(
    "name, smoke, overrides, said",
    [
        ("gpu9", False, (), "recipe gpu9: unknown; use one of cpu, sql, gpu1, node8, d32"),
        ("node8", True, (), "--smoke: only the recipes cpu and sql"),
        ("cpu", False, ("depth=6",), "--override=depth=6: write step.setting=value"),
        (
            "cpu",
            False,
            ("bse.depth=6",),
            "--override=bse.depth=6: recipe cpu has no step bse; it has data, tokenizer",
        ),
    ],
)
def test_bad_names_are_explained(name, smoke, overrides, said):
    with pytest.raises(ValueError, match="^" + re.escape(said)):
        recipes.build(name, smoke, overrides)


@pytest.mark.parametrize(
    "name, generation, parameters, multiplied",
    [
        ("gpu1", "classic", 560_988_160, 477_102_080),
        ("node8", "classic", 560_988_160, 477_102_080),
        ("d32", "classic", 1_879_048_192, 1_744_830_464),
        ("modern", "modern", 1_384_122_122, 729_810_624),
    ],
)
def test_recipes_give_the_model_that_they_name(name, generation, parameters, multiplied):
    steps = {step.name: step for step in recipes.build(name).steps}
    made = {}
    for step in ("base", "tokenizer"):
        _, command, words = commands.find([steps[step].command, *steps[step].argv()])
        made[step], problems = config.collect(commands.load(command.config), words)
        assert problems == []
    settings = pretraining(made["base"], made["tokenizer"].vocab_size, "cuda")
    counts = count_parameters(settings.model_config)
    assert (settings.recipe, counts.total) == (generation, parameters)
    assert counts.multiplied == multiplied
    assert recipes.GPU_SHARDS[made["base"].depth] * 250e6 > 4.8 * (
        settings.n_steps * settings.total_batch_size
    )


def test_the_sql_recipe_goes_on_from_what_the_cpu_recipe_has_made(tmp_path):
    steps = recipes.build("sql").steps
    keys = [ledger.Ledger(tmp_path, "sql").key(step) for step in steps]
    assert "cpu/sft" in keys and "sql/assistant" in keys
    prints = recipes.build("cpu").fingerprints()
    assert recipes.build("sql").fingerprints()["sft"] == prints["sft"]
