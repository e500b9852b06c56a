"""`nanochat sql train`: a chat model learns the questions that `nanochat sql build` has made, mixed
into what it learned before, and is examined before and after: on SQL and on everything else.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from nanochat.checkpoint_manager import find_checkpoint, read_meta
from nanochat.config import Short
from nanochat.dataset.conversations import scan_conversations
from nanochat.eval.chat_eval import ChatEvalConfig, chat_eval, open_tasks
from nanochat.eval.compare import Difference, compare_results, render
from nanochat.model_spec import ModelSpec, parse_spec
from nanochat.runtime.base_dir import base_dir, expanded
from nanochat.runtime.files import atomic_write
from nanochat.runtime.precision import pick_dtype
from nanochat.runtime.trackers import run_name
from nanochat.runtime.world import World
from nanochat.sql.shop import SHOP_DATA
from nanochat.tasks.catalogue import SQL
from nanochat.train.added_data import add_as_share, free_tag, learning_rate_share
from nanochat.train.compiled import wants_compiling
from nanochat.train.configs import ChatTrainConfig, MidConfig, SFTConfig, at_least
from nanochat.train.derive import later_stage
from nanochat.train.micro_batch import choose_micro_batch
from nanochat.train.plan import run_plan
from nanochat.train.stages import mid, sft

ALPHA = 0.05  # a difference counts when its corrected p-value is below this


@dataclass
class SQLTrainConfig:
    """Fine-tune a chat model on questions about your databases, and say what it gained and lost.

    The rows are mixed into the built-in conversations: own rows alone make a model forget how to
    talk and, with it, the dialect; a few hundred among many thousands change nothing. Hence a share
    of the whole, and a number of times that each row is learned.
    """

    data: str | None = None
    """The file that `nanochat sql build` has written, examined on NAME.test.jsonl; by default the
    embedded shop's.
    """
    source: Annotated[str, Short("--from")] = "sft"
    """Model to start from, as stage:tag:step, such as sft:d34:700; newest step when not given."""
    stage: Literal["sft", "mid"] = "sft"
    """sft learns the answers only; mid every word of a row, for a model that has never seen SQL."""
    tag_out: str | None = None
    """Name of the new checkpoint folder; by default the old one's with -sql behind it."""
    mixture: Literal["auto", "standard", "world", "none"] | None = None
    """What the rows are mixed into, as for chat-sft; by default what the model was finetuned on."""
    share: float = 0.3
    """The rows' part of what is learned, counted in conversations."""
    exposures: float = 4.0
    """How often each row is learned."""
    init_lr_frac: float | None = None
    """Learning rate at the first step, as a share of the base recipe's; by default as the model's
    own finetuning had it.
    """
    num_iterations: int | None = None
    """Optimizer steps; by default from the exposures."""
    total_batch_size: int | None = None
    """Tokens of an optimizer step; by default as the model was trained with."""
    max_seq_len: int | None = None
    """Tokens of a row; by default the model's context."""
    device_batch_size: int | None = None
    """Rows of a micro-batch; by default what fits."""
    compile: bool | None = None
    """Compile the model, as for chat-sft."""
    task_name: Annotated[str | None, Short("-a")] = None
    """What else it is examined on, as for chat-eval; by default all that can be found."""
    max_problems: Annotated[int | None, Short("-x")] = None
    """Problems of each task: a fixed random subset. All when not given."""
    max_new_tokens: Annotated[int, Short("-m")] = 256
    """Longest answer in the examination."""
    unsafe_exec: bool = False
    """Run model-written code even where no sandbox can be built. Only on a machine you can lose."""
    resume: bool = False
    """Continue a training that was interrupted."""
    run: str = field(default_factory=run_name)
    """Name of the run for W&B; dummy logs to files only."""
    device_type: Literal["cuda", "cpu", "mps"] | None = None
    """The best there is when not given."""

    def problems(self) -> list[str]:
        found = at_least(self, max_problems=1, max_new_tokens=1, num_iterations=1, init_lr_frac=0)
        if not 0 < self.share < 1:
            found.append(f"--share={self.share}: must be between 0 and 1, for example 0.3")
        if not self.exposures > 0:
            found.append(f"--exposures={self.exposures}: must be above 0, for example 4")
        try:
            parse_spec(self.source)
        except ValueError as error:
            found.append(f"--from={self.source}: {error}")
        return found


@dataclass(frozen=True, kw_only=True)
class SQLOutcome:
    """What came of it: the difference on SQL, and those on all else."""

    old: ModelSpec
    new: ModelSpec
    gained: list[Difference]
    others: list[Difference]

    def lines(self) -> list[str]:
        """For people."""
        told = ["", f"A: {self.old}", f"B: {self.new}", "", render(self.gained, ALPHA)]
        if not self.others:
            return [*told, "nothing else was examined, so what was forgotten is not known"]
        lost = [d for d in self.others if d.difference < 0 and d.p_corrected < ALPHA]
        verdict = (
            "forgotten: " + ", ".join(f"{d.task} {d.difference:+.4f}" for d in lost)
            if lost
            else "forgotten: nothing beyond noise"
        )
        return [*told, "", render(self.others, ALPHA), verdict]


def sql_train(cfg: SQLTrainConfig, world: World) -> dict[str, Any]:
    """`nanochat sql train` -> what came of it, as plain data; also in the report's folder as
    sql_train.json. ValueError before anything is trained for a missing model, file or cage.
    """
    if problems := cfg.problems():
        raise ValueError("\n".join(problems))
    asked = parse_spec(cfg.source)
    directory, step, _ = find_checkpoint(asked.source, asked.tag, asked.step)
    old = ModelSpec(asked.source, directory.name, step)
    settings = training_settings(cfg, old, directory)
    say_plan(settings, directory, step, world)
    tasks = "|".join(task_names(cfg, old))
    before = examine(cfg, old, tasks, world)
    train = mid if cfg.stage == "mid" else sft
    train(settings, world)  # type: ignore[arg-type]
    assert settings.tag_out is not None
    made, last, _ = find_checkpoint(cfg.stage, settings.tag_out)
    new = ModelSpec(cfg.stage, made.name, last)
    after = examine(cfg, new, tasks, world)
    outcome = SQLOutcome(
        old=old,
        new=new,
        gained=compare_results({SQL: before[SQL]}, {SQL: after[SQL]}),
        others=compare_results(
            *({k: v for k, v in results.items() if k != SQL} for results in (before, after))
        ),
    )
    record = {"old": str(old), "new": str(new), "tasks": _numbers(outcome)}
    if world.is_main:
        print("\n".join(outcome.lines()), flush=True)
        atomic_write(base_dir() / "report" / "sql_train.json", json.dumps(record, indent=1) + "\n")
    return record


def questions_file(cfg: SQLTrainConfig) -> Path:
    """What is learned."""
    return expanded(cfg.data) if cfg.data else base_dir() / SHOP_DATA


def training_settings(cfg: SQLTrainConfig, old: ModelSpec, directory: Path) -> ChatTrainConfig:
    """The settings of the stage, the rows as their share of the mixture. ValueError for a file with
    bad rows, or without a question that has a query.
    """
    assert old.step is not None
    data = questions_file(cfg)
    if not data.is_file():
        raise ValueError(
            f"--data={data}: there is no such file; `nanochat sql build --out {data} SOURCE...` "
            "makes it"
        )
    contents = scan_conversations(data)
    if contents.problems:
        raise ValueError(
            f"{contents.problems[0]} ({len(contents.problems):,} bad rows; `nanochat data check "
            f"{data}` lists them)"
        )
    before = read_meta(directory, old.step).get("user_config", {})
    tag = cfg.tag_out or f"{directory.name}-sql"
    settings = (MidConfig if cfg.stage == "mid" else SFTConfig)(
        source=old.source,  # type: ignore[arg-type]
        model_tag=old.tag,
        step=old.step,
        tag_out=tag if cfg.tag_out or cfg.resume else free_tag(cfg.stage, tag),
        persona=before.get("persona"),
        mixture=cfg.mixture or before.get("mixture") or "auto",
        init_lr_frac=learning_rate_share(directory, old.step, cfg.init_lr_frac),
        total_batch_size=cfg.total_batch_size,
        max_seq_len=cfg.max_seq_len,
        device_batch_size=cfg.device_batch_size,
        compile=cfg.compile,
        device_type=cfg.device_type,
        resume=cfg.resume,
        run=cfg.run,
        sample_every=-1,
    )
    n_rows = len(contents.conversations)
    add_as_share(settings, cfg.stage, data, n_rows, cfg.share, cfg.exposures)
    settings.num_iterations = cfg.num_iterations
    return settings


def say_plan(settings: ChatTrainConfig, directory: Path, step: int, world: World) -> None:
    """Whether it fits, before the examination that comes first takes its time."""
    derived = later_stage(settings, read_meta(directory, step))
    micro = choose_micro_batch(settings, derived, world)
    n_steps = derived.n_steps or 1  # hours are told once the steps are known
    kind, pieces = world.device.type, micro.shard_model
    plan = run_plan(
        derived,
        micro,
        world,
        n_steps=n_steps,
        compute_dtype=pick_dtype(world.device),
        keep=settings.keep,
        compiled=wants_compiling(
            kind, settings.compile, pieces, n_steps * derived.total_batch_size
        ),
    )
    if world.is_main:
        print(plan.lines()[-1], flush=True)


def task_names(cfg: SQLTrainConfig, old: ModelSpec) -> list[str]:
    """SQL and everything else that can be examined here."""
    wanted = ChatEvalConfig(task_name=cfg.task_name, unsafe_exec=cfg.unsafe_exec)
    try:
        tasks, _ = open_tasks(wanted)
    except ValueError:
        if cfg.task_name is not None:
            raise
        tasks = {}  # none of the benchmarks' data is here
    return [SQL, *(name for name in tasks if name != SQL)]


def examine(cfg: SQLTrainConfig, spec: ModelSpec, tasks: str, world: World) -> dict[str, Any]:
    """Task -> results of a checkpoint."""
    return chat_eval(
        ChatEvalConfig(
            source=spec.source,  # type: ignore[arg-type]
            model_tag=spec.tag,
            step=spec.step,
            task_name=tasks,
            sql_data=str(questions_file(cfg)),
            max_problems=cfg.max_problems,
            max_new_tokens=cfg.max_new_tokens,
            unsafe_exec=cfg.unsafe_exec,
            device_type=cfg.device_type or "",
        ),
        world,
    )


def _numbers(outcome: SQLOutcome) -> dict[str, dict[str, float]]:
    return {
        d.task: {"n": d.n, "before": d.a, "after": d.b, "low": d.low, "high": d.high, "p": d.p}
        for d in (*outcome.gained, *outcome.others)
    }
