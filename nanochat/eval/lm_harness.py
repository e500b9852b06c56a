"""Native checkpoints in lm-evaluation-harness: any of its tasks, through our scoring and our
engine.

`nanochat lm-eval --tasks arc_easy -i sft` needs `pip install lm_eval`, which is imported only then.
Every rank is handed all requests, does its share and returns all answers, so the harness needs no
launcher.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from nanochat.checkpoint_manager import load_model, weights_path
from nanochat.config import Short
from nanochat.engine import Engine, SamplingParams
from nanochat.engine.finite import checkpoint_named
from nanochat.eval.loglikelihood import ScoredRow, score_groups
from nanochat.eval.ranks import gather_in_order
from nanochat.gpt import GPT
from nanochat.runtime.progress import Progress
from nanochat.runtime.world import World
from nanochat.tokenizer import SPECIAL_TOKENS, Tokenizer
from nanochat.tokenizer.chat_prompt import render_prompt

DEFAULT_NEW_TOKENS = 256


class Harness:
    """What lm_eval asks of a model, in its terms but without importing it (`as_lm` makes its
    class).
    """

    def __init__(
        self, model: GPT, tokenizer: Tokenizer, world: World, max_tokens: int | None = None
    ) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.world = world
        self.max_tokens = max_tokens
        self.context = model.config.sequence_len
        self.bos = tokenizer.get_bos_token_id()

    def encode(self, text: str) -> list[int]:
        """Ids of `text` after <|bos|>. A text from `chat_text` brings its own, and its special
        tokens are read.
        """
        if not text.startswith("<|bos|>"):
            return self.tokenizer.encode(text, prepend=self.bos)
        ids: list[int] = []
        for piece in re.split("(" + "|".join(map(re.escape, SPECIAL_TOKENS)) + ")", text):
            if piece:
                ids += (
                    [self.tokenizer.encode_special(piece)]
                    if piece in SPECIAL_TOKENS
                    else self.tokenizer.encode(piece)
                )
        return ids

    def row(self, context: str, continuation: str) -> ScoredRow:
        """The harness's own rule for the seam: trailing blanks of the context go to the
        continuation.
        """
        kept = context.rstrip() if not context.startswith("<|bos|>") else context
        whole = self.encode(context + continuation)
        return ScoredRow(whole, min(len(self.encode(kept)), len(whole)), len(whole))

    def loglikelihood(self, pairs: Sequence[tuple[str, str]]) -> list[tuple[float, bool]]:
        """(log-likelihood in nats, is the greedy continuation) of each (context, continuation)."""
        by_context: dict[str, list[int]] = {}
        for number, (context, _) in enumerate(pairs):
            by_context.setdefault(context, []).append(number)
        groups = list(by_context.values())
        scored = self._score(
            [[self.row(*pairs[number]) for number in group] for group in groups], "log-likelihoods"
        )
        found: list[tuple[float, bool]] = [(0.0, False)] * len(pairs)
        for group, scores in zip(groups, scored, strict=True):
            for number, score in zip(group, scores, strict=True):
                found[number] = score
        return found

    def loglikelihood_rolling(self, texts: Sequence[str]) -> list[float]:
        """Log-likelihood of whole texts, each in windows of the context length that overlap as far
        as possible.
        """
        groups = [self.windows(self.encode(text)) for text in texts]
        return [
            sum(nll for nll, _ in scores)
            for scores in self._score(groups, "rolling log-likelihoods")
        ]

    def windows(self, tokens: Sequence[int]) -> list[ScoredRow]:
        """Rows that score every token but the first once, each row up to one token longer than the
        context.
        """
        rows, done = [], 1
        while done < len(tokens):
            end = min(len(tokens), done + self.context)
            begin = max(0, end - self.context - 1)
            rows.append(ScoredRow(tokens[begin:end], done - begin, end - begin))
            done = end
        return rows

    def _score(
        self, groups: Sequence[Sequence[ScoredRow]], title: str
    ) -> list[list[tuple[float, bool]]]:
        mine = groups[self.world.rank :: self.world.world_size]
        with Progress(sum(map(len, mine)), title, enabled=self.world.is_main) as progress:
            scores = score_groups(
                self.model,
                mine,
                self.max_tokens,
                on_done=progress.advance,
                context=self.context + 1,
            )
        own = [[(-score.nll, score.greedy) for score in group] for group in scores]
        return gather_in_order(self.world, own, len(groups))

    def generate_until(self, requests: Sequence[tuple[str, dict[str, Any]]]) -> list[str]:
        """Continuations of each context up to one of its `until` strings. Greedy unless `do_sample`
        is set.
        """
        engine = Engine(self.model, self.tokenizer)
        submitted = []
        for number in range(self.world.rank, len(requests), self.world.world_size):
            context, wanted = requests[number]
            params = self.sampling(wanted, seed=number)
            room = self.context - (params.max_tokens or 0)
            submitted.append(engine.submit(self.encode(context)[-room:], params))
        with Progress(len(submitted), "generation", enabled=self.world.is_main) as progress:
            answers = engine.complete(submitted, on_done=progress.advance)
        own = [completion.text for [completion] in answers]
        return gather_in_order(self.world, own, len(requests))

    def sampling(self, wanted: dict[str, Any], seed: int) -> SamplingParams:
        """The harness's generation arguments in our terms, on any number of ranks the same."""
        until = wanted.get("until") or ()
        stops = (until,) if isinstance(until, str) else until
        n_tokens = wanted.get("max_gen_toks") or wanted.get("max_new_tokens") or DEFAULT_NEW_TOKENS
        return SamplingParams(
            temperature=float(wanted.get("temperature", 1.0)) if wanted.get("do_sample") else 0.0,
            top_p=wanted.get("top_p"),
            top_k=wanted.get("top_k"),
            stop=tuple(stop for stop in stops if stop),
            max_tokens=min(int(n_tokens), self.context // 2),
            seed=seed,
            tools="off",
        )

    def chat_text(self, history: Sequence[dict[str, str]]) -> str:
        """A conversation as text with its special tokens spelled out, the way models are trained to
        see it: up to where the answer begins, or goes on after an assistant's message at the end.
        """
        ids = render_prompt(self.tokenizer, list(history))
        return self.tokenizer.decode(ids)


def as_lm(harness: Harness) -> Any:
    """An `lm_eval.api.model.LM` around the harness. ValueError when lm_eval is not installed."""
    try:
        from lm_eval.api.model import LM
    except ImportError as error:
        raise ValueError(
            f"lm_eval cannot be imported ({error}); install it with `pip install lm_eval`"
        ) from None

    class NativeLM(LM):
        tokenizer_name = f"nanochat-{harness.tokenizer.identity()[:16]}"

        def loglikelihood(self, requests: Any, **_: Any) -> list[tuple[float, bool]]:
            return harness.loglikelihood([request.args for request in requests])

        def loglikelihood_rolling(self, requests: Any, **_: Any) -> list[float]:
            return harness.loglikelihood_rolling([request.args[0] for request in requests])

        def generate_until(self, requests: Any, **_: Any) -> list[str]:
            return harness.generate_until([request.args for request in requests])

        def apply_chat_template(self, chat_history: Any, add_generation_prompt: bool = True) -> str:
            return harness.chat_text(chat_history)

        def chat_template(self, chat_template: bool | str = False) -> str:
            return "nanochat" if chat_template else ""

    return NativeLM()


@dataclass
class LMEvalConfig:
    """Run tasks of lm-evaluation-harness on a checkpoint."""

    tasks: str
    """Task names, separated by commas."""
    source: Annotated[Literal["base", "mid", "sft", "rl"], Short("-i")] = "base"
    """Stage whose checkpoint is evaluated."""
    model_tag: Annotated[str | None, Short("-g")] = None
    """Which checkpoint, such as d20."""
    step: Annotated[int | None, Short("-s")] = None
    """Which step; the newest when not given."""
    num_fewshot: int | None = None
    """Examples before each question; the task's own number when not given."""
    limit: int | None = None
    """Questions of each task."""
    chat: bool = False
    """Ask in the chat format."""
    include_path: str = ""
    """Folder with further task definitions."""
    device_type: str = ""
    """cuda, cpu or mps; the best there is when empty."""


def lm_eval(cfg: LMEvalConfig, world: World) -> dict[str, Any]:
    """Evaluate and print the harness's table -> its results. ValueError when lm_eval is not
    installed.
    """
    try:
        from lm_eval import simple_evaluate
        from lm_eval.tasks import TaskManager
        from lm_eval.utils import make_table
    except ImportError as error:
        raise ValueError(
            f"lm_eval cannot be imported ({error}); install it with `pip install lm_eval`"
        ) from None

    model, tokenizer, meta = load_model(cfg.source, world.device, "eval", cfg.model_tag, cfg.step)
    with checkpoint_named(weights_path(meta)):
        results = simple_evaluate(
            as_lm(Harness(model, tokenizer, world)),
            tasks=[name.strip() for name in cfg.tasks.split(",") if name.strip()],
            num_fewshot=cfg.num_fewshot,
            limit=cfg.limit,
            apply_chat_template=cfg.chat,
            task_manager=TaskManager(include_path=cfg.include_path or None),
        )
    if world.is_main:
        print(make_table(results))
        print(json.dumps(results["results"], default=str))
    return results["results"]
