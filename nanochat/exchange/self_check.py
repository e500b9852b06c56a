"""Whether an exported model computes what ours does: logits, greedy tokens, rendered chats."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from nanochat.exchange.native_runtime import NativeRuntime
from nanochat.exchange.probes import CONVERSATIONS, PROMPTS
from nanochat.exchange.stored_model import StoredModel
from nanochat.tokenizer import Tokenizer

GREEDY_TOKENS = 64


class Runtime(Protocol):
    """A program that has loaded an export."""

    name: str

    def logits(self, ids: list[int]) -> Tensor: ...
    def greedy(self, ids: list[int], n_tokens: int) -> list[int]: ...
    def render(self, messages: list[dict[str, Any]], asks: bool) -> list[int]: ...


@dataclass(kw_only=True)
class Check:
    """What a comparison found. `greedy_ties`: prompts whose tokens part where our model has two
    that are as likely as the logits are exact.
    """

    program: str
    logit_difference: float
    logit_limit: float
    prompts: int
    greedy_tokens: int
    greedy_equal: int
    greedy_ties: int
    chats: int
    chats_equal: int
    notes: list[str] = field(default_factory=list)

    def problems(self) -> list[str]:
        found = []
        if not self.logit_difference <= self.logit_limit:
            found.append(
                f"logits differ by {self.logit_difference:.3g}, more than {self.logit_limit:.3g}"
            )
        if self.greedy_equal + self.greedy_ties < self.prompts:
            n = self.prompts - self.greedy_equal - self.greedy_ties
            found.append(f"greedy tokens differ on {n} of {self.prompts} prompts")
        if self.chats_equal < self.chats:
            n = self.chats - self.chats_equal
            found.append(f"{n} of {self.chats} conversations are rendered otherwise")
        return found

    def lines(self) -> list[str]:
        ties = f", {self.greedy_ties} part at a tie" if self.greedy_ties else ""
        return [
            f"checked in {self.program}:",
            f"  logits  largest difference {self.logit_difference:.2g} (at most "
            f"{self.logit_limit:.2g}) over {self.prompts} prompts",
            f"  greedy  {self.greedy_tokens} tokens equal over {self.greedy_equal} of "
            f"{self.prompts} prompts{ties}",
            f"  chat    {self.chats_equal} of {self.chats} renderings equal",
            *(f"  note    {note}" for note in self.notes),
        ]

    def record(self) -> dict[str, Any]:
        return asdict(self)


def compare(
    ours: NativeRuntime,
    other: Runtime,
    *,
    logit_limit: float,
    softcap: float | None = None,
    texts: Sequence[str] = PROMPTS,
    chats: Sequence[list[dict[str, Any]]] = CONVERSATIONS,
) -> Check:
    """Ask both the same. `softcap`: what the other program leaves out, applied before comparing."""
    context = ours.model.config.sequence_len
    prompts = prompt_ids(ours.tokenizer, context, texts)
    n_tokens = min(GREEDY_TOKENS, context - max(map(len, prompts)))
    largest, equal, parted = 0.0, 0, []
    for ids in prompts:
        theirs = other.logits(ids)
        if softcap is not None:
            theirs = softcap * torch.tanh(theirs / softcap)
        largest = max(largest, float((ours.logits(ids) - theirs).abs().max()))
        mine, its = ours.greedy(ids, n_tokens), other.greedy(ids, n_tokens)
        if mine == its:
            equal += 1
        else:
            parted.append(_gap(ours, ids, mine, its))
    rendered = [
        _same_rendering(ours, other, messages, asks) for messages in chats for asks in (False, True)
    ]
    return Check(
        program=other.name,
        logit_difference=largest,
        logit_limit=logit_limit,
        prompts=len(prompts),
        greedy_tokens=n_tokens,
        greedy_equal=equal,
        greedy_ties=sum(gap <= 2 * largest <= 2 * logit_limit for gap in parted),
        chats=len(rendered),
        chats_equal=sum(rendered),
    )


def prompt_ids(
    tokenizer: Tokenizer, context: int, texts: Sequence[str] = PROMPTS
) -> list[list[int]]:
    """The prompts as documents begin, at most half a context long."""
    bos = tokenizer.get_bos_token_id()
    return [tokenizer.encode(text, prepend=bos)[: max(1, context // 2)] for text in texts]


def rotary_note(
    model: StoredModel, exact: NativeRuntime, texts: Sequence[str] = PROMPTS
) -> list[str]:
    """What it changes that other programs do not round the rotary tables to bf16, where training
    did.
    """
    if not model.config.rope_bf16:
        return []
    trained = model.native()
    largest, moved, positions = 0.0, 0, 0
    for ids in prompt_ids(model.tokenizer, model.config.sequence_len, texts):
        with torch.no_grad():
            ours = trained(torch.tensor([ids]))[0]
        theirs = exact.logits(ids)
        largest = max(largest, float((ours - theirs).abs().max()))
        moved += int((ours.argmax(-1) != theirs.argmax(-1)).sum())
        positions += len(ids)
    return [
        "training rounded the rotary tables to bf16, this program does not: that moves logits by "
        f"up to {largest:.2g}, the likeliest token at {moved} of {positions} positions"
    ]


def refuse_failed(checks: Sequence[Check], out: Path) -> None:
    """ValueError for an export that does not compute what our model does."""
    problems = [f"{check.program}: {problem}" for check in checks for problem in check.problems()]
    if problems:
        raise ValueError("\n".join(f"{out}: not written: {problem}" for problem in problems))


def _gap(ours: NativeRuntime, ids: list[int], mine: list[int], its: list[int]) -> float:
    """How far apart our logits of the two tokens are where the answers part."""
    if len(mine) != len(its):
        return float("inf")
    at = next(place for place, (a, b) in enumerate(zip(mine, its, strict=True)) if a != b)
    logits = ours.logits([*ids, *mine[:at]])[-1]
    return float(logits[mine[at]] - logits[its[at]])


def _same_rendering(
    ours: NativeRuntime, other: Runtime, messages: list[dict[str, Any]], asks: bool
) -> bool:
    if asks and messages[-1]["role"] == "assistant":
        messages = messages[:-1]
    return ours.render(messages, asks) == other.render(messages, asks)
