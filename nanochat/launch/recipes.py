"""Recipes: whole pipelines as data. A recipe is a list of steps, a step one `nanochat` command and
what it makes.

To change a recipe, edit its table here; to try a value once, `nanochat recipe run cpu --override
base.depth=6`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from nanochat.config import Positional
from nanochat.launch.recipe_settings import CPU, CPU_SMOKE, SQL_SHOP, SQL_SMOKE, Settings
from nanochat.runtime.trackers import run_name

# The real thing on GPUs: depth -> shards to download, of about 250M characters (100 MB) each. d20
# (classic) at 20 tokens a parameter and 4.8 characters a token reads 54 billion characters: 216
# shards, and some to spare; d24 (modern) 8.8 billion tokens.
GPU_SHARDS: dict[int, int] = {20: 240, 24: 190, 32: 800}


@dataclass(frozen=True)
class RecipeStep:
    """One command of a recipe. `makes`: what it leaves under the base directory, to check and to
    set aside.
    """

    name: str
    command: str
    settings: Settings
    makes: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    words: tuple[str, ...] = ()  # words before the flags, such as `report generate`
    every_gpu: bool = False  # one process a GPU
    download: bool = False  # what it made is kept when the recipe starts over
    named_run: bool = False  # takes --run
    resumes: bool = False  # takes --resume
    replaces: bool = False  # takes --replace: what an interrupted try of it has left
    recipe: str = ""  # the recipe that it is a step of, where another one goes on from there
    always: bool = False  # cheap, and its inputs include what people do between runs

    def argv(self, run: str = "dummy") -> list[str]:
        """The command's words, without `nanochat` and the command itself."""
        words = list(self.words)
        for name, value in self.settings.items():
            if isinstance(value, (list, tuple)):
                words += [f"--{name.replace('_', '-')}={item}" for item in value]
            else:
                words.append(f"--{name.replace('_', '-')}={value}")
        return words + ([f"--run={run}"] if self.named_run and run not in ("", "dummy") else [])


@dataclass(frozen=True)
class Recipe:
    """A pipeline. `device` is what it needs: cpu or cuda. `hours`: at most, where they are known
    without knowing the GPUs.
    """

    name: str
    about: str
    device: Literal["cpu", "cuda"]
    steps: tuple[RecipeStep, ...]
    hours: float | None = None

    def fingerprints(self) -> dict[str, str]:
        """RecipeStep -> hash of its command and settings and of the steps it builds on. A run's
        name is not part of it.
        """
        found: dict[str, str] = {}
        for step in self.steps:
            told = [
                step.command,
                list(step.words),
                dict(step.settings),
                [found[name] for name in step.needs],
            ]
            text = json.dumps(told, sort_keys=True, default=str)
            found[step.name] = hashlib.sha256(text.encode()).hexdigest()[:16]
        return found


TAG = {
    "model_tag": "{tag}"
}  # filled in from the base model's depth, so that no other model is picked up


def cpu(smoke: bool = False) -> Recipe:
    """The embedded world on an ordinary computer: a small model that can really do a few things."""
    table = {
        name: {**settings, **(CPU_SMOKE.get(name, {}) if smoke else {})}
        for name, settings in CPU.items()
    }
    here = {"device_type": "cpu"}
    return Recipe(
        "cpu",
        "7 to 15 minutes on two cores, no network: the embedded world, a small model and its exam",
        "cpu",
        (
            RecipeStep("data", "dataset", table["data"], ("base_data",)),
            tokenizer(table["tokenizer"], "data"),
            train(
                "base", "base-train", {**table["base"], **TAG, **here}, "base", "data", "tokenizer"
            ),
            train("mid", "mid-train", {**table["mid"], **TAG, **here}, "mid", "base"),
            train("sft", "chat-sft", {**table["sft"], **TAG, **here}, "chatsft", "mid"),
            RecipeStep(
                "exam",
                "chat-eval",
                {**table["exam"], **TAG, **here},
                ("report/exam.json",),
                ("sft",),
            ),
            RecipeStep(
                "report",
                "report",
                {},
                ("report/report.md",),
                ("exam",),
                words=("generate",),
                always=True,
            ),
        ),
        hours=0.25,
    )


def sql(smoke: bool = False) -> Recipe:
    """From the cpu recipe's model, which is trained first where there is none, to an assistant for
    the embedded shop.
    """
    table = {
        name: {**settings, **(SQL_SMOKE.get(name, {}) if smoke else {})}
        for name, settings in SQL_SHOP.items()
    }
    before = [s for s in cpu(smoke).steps if s.name not in ("exam", "report")]
    assistant = {"source": "sft:{tag}", "tag_out": "{tag}-sql", **table["assistant"]}
    return Recipe(
        "sql",
        "ten minutes after cpu: an assistant that answers questions about an embedded shop in SQL",
        "cpu",
        (
            *(dataclasses.replace(step, recipe="cpu") for step in before),
            RecipeStep("shop", "sql", table["shop"], ("sql_shop/sources",), words=("shop",)),
            RecipeStep(
                "questions",
                "sql",
                table["questions"],
                ("sql_shop/data.jsonl", "sql_shop/data.test.jsonl"),
                ("shop",),
                words=("build",),
            ),
            RecipeStep(
                "assistant",
                "sql",
                {**assistant, "device_type": "cpu"},
                ("chatsft_checkpoints/{tag}-sql", "report/sql_train.json"),
                ("sft", "questions"),
                words=("train",),
                named_run=True,
                resumes=True,
            ),
            RecipeStep(
                "report",
                "report",
                {},
                ("report/report.md",),
                ("assistant",),
                words=("generate",),
                always=True,
            ),
        ),
        hours=0.5,
    )


def gpu(
    name: str, about: str, depth: int, generation: str = "classic", vocab_size: int = 65_536
) -> Recipe:
    """Real text and the published mixtures at one depth, on every GPU of this machine."""
    base = {"generation": generation, "depth": depth, **TAG}
    return Recipe(
        name,
        about,
        "cuda",
        (
            RecipeStep("first-shards", "dataset", {"num_files": 8}, ("base_data",), download=True),
            tokenizer({"vocab_size": vocab_size, "max_chars": 2_000_000_000}, "first-shards"),
            RecipeStep("tokenizer-eval", "tok-eval", {}, (), ("tokenizer",)),
            RecipeStep(
                "shards",
                "dataset",
                {"num_files": GPU_SHARDS[depth]},
                ("base_data",),
                ("first-shards",),
                download=True,
            ),
            RecipeStep(
                "other-data",
                "data",
                {},
                ("eval_bundle",),
                words=("fetch", "extras", "tasks"),
                download=True,
            ),
            train("base", "base-train", base, "base", "shards", "tokenizer"),
            evaluate("base-loss", "base-loss", {}, (), "base"),
            evaluate("base-eval", "base-eval", {}, ("report/base_eval.json",), "base"),
            train("mid", "mid-train", TAG, "mid", "base"),
            evaluate(
                "mid-eval", "chat-eval", {"source": "mid"}, ("report/chat_eval_mid.json",), "mid"
            ),
            train("sft", "chat-sft", TAG, "chatsft", "mid"),
            evaluate(
                "sft-eval", "chat-eval", {"source": "sft"}, ("report/chat_eval_sft.json",), "sft"
            ),
            RecipeStep(
                "report",
                "report",
                {},
                ("report/report.md",),
                ("sft-eval",),
                words=("generate",),
                always=True,
            ),
        ),
    )


def tokenizer(settings: Settings, *needs: str) -> RecipeStep:
    return RecipeStep("tokenizer", "tok-train", settings, ("tokenizer",), needs, replaces=True)


def train(name: str, command: str, settings: Settings, stage: str, *needs: str) -> RecipeStep:
    """A step that trains: on every GPU, under the run's name, into its stage's checkpoint
    folder."""
    places = (f"{stage}_checkpoints/{{tag}}",)
    return RecipeStep(
        name, command, settings, places, needs, every_gpu=True, named_run=True, resumes=True
    )


def evaluate(
    name: str, command: str, settings: Settings, makes: tuple[str, ...], *needs: str
) -> RecipeStep:
    return RecipeStep(name, command, {**settings, **TAG}, makes, needs, every_gpu=True)


RECIPES: dict[str, Callable[[bool], Recipe]] = {
    "cpu": cpu,
    "sql": sql,
    "gpu1": lambda smoke: gpu(
        "gpu1", "the guides' d20 (561M parameters) on one GPU: over a day on an H100", 20
    ),
    "node8": lambda smoke: gpu(
        "node8", "the guides' d20 (561M parameters) on a node: about 4 hours on eight H100", 20
    ),
    "d32": lambda smoke: gpu(
        "d32", "the guides' d32 (1.9 billion parameters) on a node: two days on eight H100", 32
    ),
    "modern": lambda smoke: gpu(
        "modern",
        "modern d24 (1.4 billion parameters, 730M of them multiplied) on a node: the hours of "
        "node8, the better model by what is published",
        24,
        generation="modern",
        vocab_size=32_768,
    ),
}


def build(name: str, smoke: bool = False, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe of that name with `step.setting=value` changes. Raises ValueError with everything
    wrong.
    """
    if name not in RECIPES:
        raise ValueError(
            f"recipe {name}: unknown; use one of {', '.join(RECIPES)}, or auto to pick by hardware"
        )
    if smoke and name not in ("cpu", "sql"):
        raise ValueError(
            f"--smoke: only the recipes cpu and sql have a short form; leave it out for {name}"
        )
    recipe = RECIPES[name](smoke)
    steps, wrong = {step.name: step for step in recipe.steps}, []
    for text in overrides:
        where, equals, value = text.partition("=")
        step, dot, setting = where.partition(".")
        if not (equals and dot and setting):
            wrong.append(f"--override={text}: write step.setting=value, for example base.depth=6")
        elif step not in steps:
            wrong.append(
                f"--override={text}: recipe {name} has no step {step}; it has {', '.join(steps)}"
            )
        else:
            changed = {**steps[step].settings, setting.replace("-", "_"): value}
            steps[step] = dataclasses.replace(steps[step], settings=changed)
    if wrong:
        raise ValueError("\n".join(wrong))
    base = steps["base"].settings
    tag = f"d{base['depth']}" if base["model_tag"] == TAG["model_tag"] else str(base["model_tag"])
    return dataclasses.replace(recipe, steps=tuple(tagged(step, tag) for step in steps.values()))


def only_problems(recipe: Recipe, only: Sequence[str]) -> list[str]:
    """One line for each name in `only` that is no step of the recipe."""
    names = [step.name for step in recipe.steps]
    has = f"recipe {recipe.name} has {', '.join(names)}"
    return [f"--only={name}: {has}" for name in only if name not in names]


def tagged(step: RecipeStep, tag: str) -> RecipeStep:
    """The step with {tag} filled in."""
    settings = {
        k: v.replace("{tag}", tag) if isinstance(v, str) else v for k, v in step.settings.items()
    }
    return dataclasses.replace(
        step, settings=settings, makes=tuple(p.replace("{tag}", tag) for p in step.makes)
    )


@dataclass
class RecipeConfig:
    """Run, show or list whole pipelines: `nanochat recipe run cpu`."""

    action: Positional[Literal["run", "show", "list"]] = "list"
    """What to do."""
    name: Positional[str] = "auto"
    """cpu, sql, gpu1, node8, d32, modern, or auto to pick by hardware."""
    fresh: bool = False
    """Start over: earlier results move to a dated folder in <base>/previous, downloads stay."""
    replace: bool = False
    """Where other runs have left models that a step would replace, move them to a dated folder
    too.
    """
    on: Literal["here", "slurm"] = "here"
    """slurm: each step as a job of its own, with what cluster.env says (extra `cluster`)."""
    only: tuple[str, ...] = ()
    """Run only these steps."""
    smoke: bool = False
    """The cpu recipe cut to about a minute, to see that everything works; its results go to
    <base>/smoke.
    """
    override: tuple[str, ...] = ()
    """Change a setting of a step: base.depth=6. May be given several times."""
    run: str = field(default_factory=run_name)
    """Name of the run for W&B, by default $WANDB_RUN; dummy logs to files only. It changes nothing
    else.
    """
