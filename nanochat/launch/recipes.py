"""Recipes: whole pipelines as data. A recipe is a list of steps, a step one `nanochat` command and what it makes.

To change a recipe, edit its table here; to try a value once, `nanochat recipe run cpu --override base.depth=6`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import tyro

Settings = Mapping[str, Any]

# ---------------------------------------------------------------------------------------------------------------
# The CPU recipe: two cores, no network, ten minutes. Step -> settings of its command.
CPU: dict[str, Settings] = {
    "data": {"source": "embedded"},
    "tokenizer": {"vocab_size": 4096, "max_chars": 20_000_000},
    "base": {
        "depth": 4,
        "max_seq_len": 256,
        "device_batch_size": 16,
        "total_batch_size": 8192,
        "num_iterations": 600,
        "core_metric_every": -1,
    },
    "mid": {"device_batch_size": 16, "num_iterations": 300},
    "sft": {"device_batch_size": 16, "num_iterations": 150},
    "exam": {"source": "sft", "task_name": "world"},
}
# What `--smoke` changes: every step for real, all of them in about a minute, nothing learned.
CPU_SMOKE: dict[str, Settings] = {
    "tokenizer": {"vocab_size": 1024, "max_chars": 500_000},
    "base": {"depth": 2, "num_iterations": 10},
    "mid": {"num_iterations": 5},
    "sft": {"num_iterations": 5},
    "exam": {"max_problems": 4},
}


# The real thing on GPUs, by depth: shards to download (250M characters, 100 MB each) and rows a GPU takes at once.
# d20 is 561M parameters at 20 tokens each, 4.8 characters a token: 54 billion characters, 216 shards and some to spare.
GPU: dict[int, dict[str, int]] = {
    20: {"shards": 240, "device_batch_size": 32},
    32: {"shards": 800, "device_batch_size": 8},
}
# ---------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Step:
    """One command of a recipe. `makes`: what it leaves under the base directory, to check and to set aside."""

    name: str
    command: str
    settings: Settings
    makes: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    words: tuple[str, ...] = ()  # words before the flags, such as `report generate`
    every_gpu: bool = False  # one process a GPU
    download: bool = False  # what it made is kept when the recipe starts over
    named_run: bool = False  # takes --run
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
    """A pipeline. `device` is what it needs: cpu or cuda."""

    name: str
    about: str
    device: Literal["cpu", "cuda"]
    steps: tuple[Step, ...]

    def fingerprints(self) -> dict[str, str]:
        """Step -> hash of its command and settings and of the steps it builds on. A run's name is not part of it."""
        found: dict[str, str] = {}
        for step in self.steps:
            told = [step.command, list(step.words), dict(step.settings), [found[name] for name in step.needs]]
            text = json.dumps(told, sort_keys=True, default=str)
            found[step.name] = hashlib.sha256(text.encode()).hexdigest()[:16]
        return found


def cpu(smoke: bool = False) -> Recipe:
    """The embedded world on an ordinary computer: a small model that can really do a few things."""
    table = {name: {**settings, **(CPU_SMOKE.get(name, {}) if smoke else {})} for name, settings in CPU.items()}
    tag = f"d{table['base']['depth']}"
    cpu_only = {"device_type": "cpu"}
    return Recipe(
        "cpu",
        "ten minutes on two cores, no network: the embedded world, a tiny model, its exam",
        "cpu",
        (
            Step("data", "dataset", table["data"], ("base_data",)),
            Step("tokenizer", "tok-train", table["tokenizer"], ("tokenizer",), ("data",)),
            train("base", "base-train", {**table["base"], **cpu_only}, f"base_checkpoints/{tag}", "data", "tokenizer"),
            train("mid", "mid-train", {**table["mid"], **cpu_only}, f"mid_checkpoints/{tag}", "base"),
            train("sft", "chat-sft", {**table["sft"], **cpu_only}, f"chatsft_checkpoints/{tag}", "mid"),
            Step("exam", "chat-eval", {**table["exam"], **cpu_only}, ("report/exam.json",), ("sft",)),
            Step("report", "report", {}, ("report/report.md",), ("exam",), words=("generate",), always=True),
        ),
    )


def train(name: str, command: str, settings: Settings, checkpoints: str, *needs: str) -> Step:
    """A step that trains: on every GPU, under the run's name."""
    return Step(name, command, settings, (checkpoints,), needs, every_gpu=True, named_run=True)


def gpu(name: str, about: str, depth: int) -> Recipe:
    """Real text and the published recipe at one depth, on every GPU of this machine."""
    sizes, tag = GPU[depth], f"d{depth}"
    rows = {"device_batch_size": sizes["device_batch_size"]}
    half = {"device_batch_size": max(1, sizes["device_batch_size"] // 2)}
    parts = (
        Step("first-shards", "dataset", {"num_shards": 8}, ("base_data",), download=True),
        Step("tokenizer", "tok-train", {"max_chars": 2_000_000_000}, ("tokenizer",), ("first-shards",)),
        Step("tokenizer-eval", "tok-eval", {}, (), ("tokenizer",)),
        Step("shards", "dataset", {"num_shards": sizes["shards"]}, ("base_data",), ("first-shards",), download=True),
        train("base", "base-train", {"depth": depth, **rows}, f"base_checkpoints/{tag}", "shards", "tokenizer"),
        Step("base-loss", "base-loss", {}, (), ("base",), every_gpu=True),
        Step("base-eval", "base-eval", {}, ("report/base_eval.json",), ("base",), every_gpu=True),
        train("mid", "mid-train", half, f"mid_checkpoints/{tag}", "base"),
        Step("mid-eval", "chat-eval", {"source": "mid"}, ("report/chat_eval_mid.json",), ("mid",), every_gpu=True),
        train("sft", "chat-sft", {}, f"chatsft_checkpoints/{tag}", "mid"),
        Step("sft-eval", "chat-eval", {"source": "sft"}, ("report/chat_eval_sft.json",), ("sft",), every_gpu=True),
        Step("report", "report", {}, ("report/report.md",), ("sft-eval",), words=("generate",), always=True),
    )
    return Recipe(name, about, "cuda", parts)


def build(name: str, smoke: bool = False) -> Recipe:
    """The recipe of that name. Raises ValueError for a name there is not."""
    if name not in NAMES:
        raise ValueError(f"recipe {name}: unknown; use one of {', '.join(NAMES)}, or auto to pick by hardware")
    if smoke and name != "cpu":
        raise ValueError(f"--smoke: only the cpu recipe has a short form; leave it out for {name}")
    if name == "cpu":
        return cpu(smoke)
    depth, about = {
        "gpu1": (20, "d20 (561M parameters) on one GPU: about a day on an 80 GB card"),
        "node8": (20, "d20 (561M parameters) on a node of eight GPUs: about four hours"),
        "d32": (32, "d32 (1.9B parameters) on a node of eight GPUs: about a day and a half"),
    }[name]
    return gpu(name, about, depth)


NAMES = ("cpu", "gpu1", "node8", "d32")


def change(recipe: Recipe, overrides: tuple[str, ...]) -> Recipe:
    """The recipe with `step.setting=value` changes. Raises ValueError naming each change that makes no sense."""
    steps, wrong = {step.name: step for step in recipe.steps}, []
    for text in overrides:
        where, equals, value = text.partition("=")
        name, dot, setting = where.partition(".")
        if not (equals and dot and setting):
            wrong.append(f"--override={text}: write step.setting=value, for example base.depth=6")
        elif name not in steps:
            wrong.append(f"--override={text}: recipe {recipe.name} has no step {name}; it has {', '.join(steps)}")
        else:
            settings = {**steps[name].settings, setting.replace("-", "_"): value}
            steps[name] = dataclasses.replace(steps[name], settings=settings)
    if wrong:
        raise ValueError("\n".join(wrong))
    return retag(dataclasses.replace(recipe, steps=tuple(steps.values())))


def retag(recipe: Recipe) -> Recipe:
    """Checkpoint folders follow the base model's depth, also an overridden one."""
    base = next(step for step in recipe.steps if step.name == "base")
    tag = str(base.settings.get("model_tag") or f"d{base.settings['depth']}")

    def move(place: str) -> str:
        return f"{place.split('/')[0]}/{tag}" if "_checkpoints/" in place else place

    steps = tuple(dataclasses.replace(s, makes=tuple(move(m) for m in s.makes)) for s in recipe.steps)
    return dataclasses.replace(recipe, steps=steps)


@dataclass
class RecipeConfig:
    """Run, show or list whole pipelines: `nanochat recipe run cpu`."""

    action: tyro.conf.Positional[Literal["run", "show", "list"]] = "list"
    """What to do."""
    name: tyro.conf.Positional[str] = "auto"
    """cpu, gpu1, node8, d32, or auto to pick by hardware."""
    fresh: bool = False
    """Start over: earlier results move to <base>/previous (replacing what is there), downloads stay."""
    only: tuple[str, ...] = ()
    """Run only these steps."""
    smoke: bool = False
    """The cpu recipe cut to about a minute, to see that everything works."""
    override: tuple[str, ...] = ()
    """Change a setting of a step: base.depth=6. May be given several times."""
    run: Annotated[str, tyro.conf.arg(help_behavior_hint="(default: $WANDB_RUN or dummy)")] = field(
        default_factory=lambda: os.environ.get("WANDB_RUN") or "dummy"
    )
    """Name of the run for W&B; dummy logs to files only. It changes nothing else."""
