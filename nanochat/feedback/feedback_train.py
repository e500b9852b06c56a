"""`nanochat feedback train`: accepted feedback -> a new SFT checkpoint beside the old one, both
examined on the same held-out questions, and a verdict on whether the new one may be served.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from nanochat.checkpoint_manager import find_checkpoint, load_model, read_meta
from nanochat.config import Short
from nanochat.dataset.conversations import read_conversations
from nanochat.engine import Engine
from nanochat.eval.chat_eval import ChatEvalConfig, chat_eval
from nanochat.eval.compare import Difference, compare_results, render
from nanochat.eval.generative import AnswerSampling, complete_all
from nanochat.feedback.feedback_export import FeedbackExportConfig, write_export
from nanochat.model_spec import ModelSpec
from nanochat.runtime.progress import Progress
from nanochat.runtime.world import World
from nanochat.train.added_data import add_as_share, free_tag, learning_rate_share
from nanochat.train.configs import SFTConfig
from nanochat.train.stages import sft

Verdict = Literal["safe", "not safe", "cannot tell"]


@dataclass
class FeedbackTrainConfig:
    """Train on accepted feedback beside the old model, and say whether the result is safe to serve.

    The new checkpoint starts from the old one and learns the feedback mixed into the built-in
    conversations, so that it does not forget. Both then answer the same held-out questions.
    """

    source: Annotated[Literal["mid", "sft", "rl"], Short("-i")] = "sft"
    """Stage of the model that is to get better."""
    model_tag: Annotated[str | None, Short("-g")] = None
    """Which model (default: the deepest)."""
    step: Annotated[int | None, Short("-s")] = None
    """Which checkpoint (default: the newest)."""
    tag_out: str | None = None
    """Name of the new checkpoint folder (default: the old one's with -feedback behind it)."""
    data: Path | None = None
    """Conversations to learn (default: exports accepted feedback now)."""
    database: str | None = None
    """Address of the database (default: SQLite in the base directory)."""
    retain_days: int | None = None
    """Delete feedback that is older, and exports in the base directory that are."""
    mixture: Literal["auto", "standard", "world", "none"] | None = None
    """What the feedback is mixed into, as for chat_sft (default: what the old model's finetuning
    had).
    """
    share: float = 0.25
    """Feedback's part of what is learned, counted in conversations."""
    exposures: float = 16.0
    """How often each accepted conversation is learned."""
    init_lr_frac: float | None = None
    """Learning rate at the first step, as a share of the base recipe's (default: as the old model's
    own finetuning had it).
    """
    total_batch_size: int | None = None
    """Tokens of a step (default: the old model's). Smaller steps learn few conversations faster."""
    device_batch_size: int | None = None
    """Rows in one forward pass, as for chat_sft."""
    task_name: Annotated[str | None, Short("-a")] = None
    """Tasks both are examined on, as for chat_eval (default: all that can be found)."""
    max_problems: Annotated[int | None, Short("-x")] = None
    """Problems of each task: a fixed random subset. All when not given."""
    max_new_tokens: Annotated[int, Short("-m")] = 256
    """Longest answer in the examination."""
    alpha: float = 0.05
    """A task has got worse when its corrected p-value is below this."""
    margin: float = 0.03
    """The new model may lose this much of the mean score, with 95% confidence, and be served."""
    device_type: Literal["cuda", "cpu", "mps"] | None = None
    """The best there is when not given."""

    def problems(self) -> list[str]:
        found = []
        for name in ("share", "alpha", "margin"):
            if not 0 < getattr(self, name) < 1:
                found.append(f"--{name}={getattr(self, name)}: must be between 0 and 1")
        if not 0 < self.exposures < 10_000:
            found.append(f"--exposures={self.exposures}: must be above 0, for example 16")
        if self.init_lr_frac is not None and not self.init_lr_frac > 0:
            found.append(f"--init-lr-frac={self.init_lr_frac}: must be above 0")
        if self.retain_days is not None and self.retain_days < 1:
            found.append(f"--retain-days={self.retain_days}: must be 1 or more")
        if self.data is not None and not self.data.expanduser().is_file():
            found.append(f"--data={self.data}: there is no such file")
        for name in ("max_problems", "max_new_tokens", "total_batch_size", "device_batch_size"):
            if (value := getattr(self, name)) is not None and value < 1:
                found.append(f"--{name.replace('_', '-')}={value}: must be 1 or more")
        return found


@dataclass(frozen=True, kw_only=True)
class FeedbackOutcome:
    """What came of it. `known`: how many of the answers asked for the old and the new give."""

    old: ModelSpec
    new: ModelSpec
    differences: list[Difference]
    known: tuple[int, int]
    asked: int
    verdict: Verdict
    reason: str

    def lines(self, alpha: float) -> list[str]:
        """For people."""
        before, after = self.known
        return [
            "",
            f"A: {self.old}",
            f"B: {self.new}",
            "",
            render(self.differences, alpha),
            "",
            f"answers as in the feedback: A {before} of {self.asked}, B {after} of {self.asked}",
            f"{self.verdict.upper()} to serve: {self.reason}",
            f"To serve it: load {self.new} at /admin/models, or nanochat chat-web --model "
            f"{self.new}",
        ]


def feedback_train(config: FeedbackTrainConfig, world: World) -> int:
    """`nanochat feedback train` -> 0 when the new checkpoint is safe to serve, else 1. ValueError
    before anything is trained when there is no feedback or no model.
    """
    outcome = improve(config, world)
    if world.is_main:
        print("\n".join(outcome.lines(config.alpha)), flush=True)
    return 0 if outcome.verdict == "safe" else 1


def improve(config: FeedbackTrainConfig, world: World) -> FeedbackOutcome:
    directory, step, _ = find_checkpoint(config.source, config.model_tag, config.step)
    old = ModelSpec(config.source, directory.name, step)
    data = config.data
    if data is None:
        made = write_export(
            FeedbackExportConfig(database=config.database, retain_days=config.retain_days)
        )
        print("\n".join(made.lines()), flush=True)
        data = made.conversations_file
    conversations, problems = read_conversations(data)
    if problems:
        raise ValueError(problems[0])
    settings = sft_settings(config, old, directory, data, len(conversations))
    sft(settings, world)
    assert settings.tag_out is not None
    new_directory, new_step, _ = find_checkpoint("sft", settings.tag_out)
    new = ModelSpec("sft", new_directory.name, new_step)
    results = [examine(config, spec, world) for spec in (old, new)]
    differences = compare_results(*results)
    if not differences:
        raise ValueError("nothing to compare: no task could be run; see chat_eval")
    verdict, reason = judged(differences, config.alpha, config.margin)
    before, after = (count_known(spec, conversations, config, world) for spec in (old, new))
    return FeedbackOutcome(
        old=old,
        new=new,
        differences=differences,
        known=(before, after),
        asked=len(conversations),
        verdict=verdict,
        reason=reason,
    )


def sft_settings(
    config: FeedbackTrainConfig, old: ModelSpec, directory: Path, data: Path, n_feedback: int
) -> SFTConfig:
    """The finetuning: feedback is gone through so often within one pass over the mixture that it is
    `share` of it, and so much of the mixture is learned that each of it is learned `exposures`
    times.
    """
    assert old.step is not None
    before = read_meta(directory, old.step).get("user_config", {})
    mixture = config.mixture or before.get("mixture") or "auto"
    settings = SFTConfig(
        source=old.source,  # type: ignore[arg-type]
        model_tag=old.tag,
        step=old.step,
        tag_out=config.tag_out or free_tag("sft", f"{directory.name}-feedback"),
        data=[str(data)],
        persona=before.get("persona"),
        mixture=mixture,
        init_lr_frac=learning_rate_share(directory, old.step, config.init_lr_frac),
        total_batch_size=config.total_batch_size,
        device_batch_size=config.device_batch_size,
        device_type=config.device_type,
        compile=False,  # takes longer than the few steps there are
        eval_every=-1,
        sample_every=-1,
    )
    add_as_share(settings, "sft", data, n_feedback, config.share, config.exposures)
    return settings


def examine(config: FeedbackTrainConfig, spec: ModelSpec, world: World) -> dict[str, Any]:
    return chat_eval(
        ChatEvalConfig(
            source=spec.source,  # type: ignore[arg-type]
            model_tag=spec.tag,
            step=spec.step,
            task_name=config.task_name,
            max_problems=config.max_problems,
            max_new_tokens=config.max_new_tokens,
            device_type=config.device_type or "",
        ),
        world,
    )


def judged(differences: Sequence[Difference], alpha: float, margin: float) -> tuple[Verdict, str]:
    """Not safe when anything got worse beyond noise; safe when the mean has not lost more than the
    margin, with 95% confidence; else there were too few questions to tell.
    """
    worse = [d.task for d in differences if d.difference < 0 and d.p_corrected < alpha]
    if worse:
        return "not safe", f"worse beyond noise on {', '.join(worse)}"
    whole = differences[-1]  # the mean, or the only task
    found = f"{whole.difference:+.4f} [{whole.low:+.4f}, {whole.high:+.4f}] on {whole.task}"
    if whole.low < -margin:
        return "cannot tell", f"{found}: may have lost more than {margin:g}; examine more problems"
    return "safe", f"nothing is worse beyond noise; {found}"


def count_known(
    spec: ModelSpec, conversations: list[dict[str, Any]], config: FeedbackTrainConfig, world: World
) -> int:
    """How many of the conversations a model ends as they end."""
    model, tokenizer, _ = load_model(
        spec.source, world.device, phase="eval", model_tag=spec.tag, step=spec.step
    )
    prompts = [tokenizer.render_for_completion(each) for each in conversations]
    sampling = AnswerSampling(max_new_tokens=config.max_new_tokens)
    with Progress(len(prompts), "feedback", enabled=world.is_main) as progress:
        written = complete_all(
            Engine(model, tokenizer), prompts, range(len(prompts)), sampling, progress
        )
    return sum(
        same_answer(completions[0].text, each["messages"][-1]["content"])
        for completions, each in zip(written, conversations, strict=True)
    )


def same_answer(said: str, wanted: str | list[dict[str, str]]) -> bool:
    """Equal up to case, spaces and the punctuation at the end."""
    if not isinstance(wanted, str):
        wanted = "".join(part["text"] for part in wanted if part["type"] == "text")
    return plain(said) == plain(wanted)


def plain(text: str) -> str:
    return " ".join(text.casefold().split()).rstrip(".! ")
