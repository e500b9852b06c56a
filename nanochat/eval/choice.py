"""Categorical tasks: which of the question's letters does the model find likeliest as its answer?

Only the letters' logits at the answer position are compared, so a small model need not have learned
to answer with a letter and nothing else, and one forward pass a question is enough.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from nanochat.engine.finite import check_finite
from nanochat.eval.loglikelihood import default_max_tokens
from nanochat.eval.ranks import gather_in_order
from nanochat.gpt import GPT
from nanochat.runtime.progress import Progress
from nanochat.runtime.world import World
from nanochat.tasks.base import Task
from nanochat.tokenizer import Tokenizer


def letter_tokens(tokenizer: Tokenizer, letters: Sequence[str]) -> list[int]:
    """The token of each letter. ValueError when one takes several tokens: then its logit says
    little.
    """
    ids = [tokenizer.encode(letter) for letter in letters]
    wrong = [letter for letter, tokens in zip(letters, ids, strict=True) if len(tokens) != 1]
    if wrong:
        raise ValueError(
            f"letters: {', '.join(wrong)} are not single tokens of this tokenizer; relabel the "
            "choices"
        )
    return [tokens[0] for tokens in ids]


def batches_by_length(lengths: Sequence[int], max_tokens: int) -> list[list[int]]:
    """Indices in batches of similar length, longest first, at most `max_tokens` padded tokens
    each."""
    done: list[list[int]] = []
    current: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        if current and (len(current) + 1) * lengths[current[0]] > max_tokens:
            done.append(current)
            current = []
        current.append(index)
    return [*done, current] if current else done


@torch.inference_mode()
def predict_letters(
    model: GPT,
    prompts: Sequence[Sequence[int]],
    candidates: Sequence[Sequence[int]],
    max_tokens: int | None = None,
    on_done: Callable[[int], None] | None = None,
) -> list[int]:
    """For each prompt the index of the likeliest of its candidate next tokens. Prompts are cropped
    from the left. NonFiniteLogits when the model computes no numbers.
    """
    context, device = model.config.sequence_len, model.get_device()
    cropped = [list(prompt[-context:]) for prompt in prompts]
    chosen = [0] * len(cropped)
    for batch in batches_by_length(
        [len(p) for p in cropped], max_tokens or default_max_tokens(device)
    ):
        width = len(cropped[batch[0]])
        rows = [cropped[i] + [0] * (width - len(cropped[i])) for i in batch]
        hidden = model.hidden(torch.tensor(rows, device=device))
        last = torch.tensor([len(cropped[i]) - 1 for i in batch], device=device)
        logits = model.head(hidden[torch.arange(len(batch), device=device), last])
        check_finite(logits.amax(dim=-1))
        for i, row in zip(batch, logits, strict=True):
            chosen[i] = int(row[torch.tensor(candidates[i], device=device)].argmax())
        if on_done is not None:
            on_done(len(batch))
    return chosen


def evaluate_choice(
    model: GPT,
    tokenizer: Tokenizer,
    task: Task,
    world: World,
    problems: Sequence[int],
    max_tokens: int | None = None,
) -> list[bool]:
    """Right or wrong for each of the task's rows in `problems`, dealt out to the ranks, the same
    list on every rank.
    """
    mine = problems[world.rank :: world.world_size]
    conversations = [task[index] for index in mine]
    prompts = [tokenizer.render_for_completion(conversation) for conversation in conversations]
    known: dict[tuple[str, ...], list[int]] = {}
    for conversation in conversations:
        letters = tuple(conversation["letters"])
        if letters not in known:
            known[letters] = letter_tokens(tokenizer, letters)
    candidates = [known[tuple(conversation["letters"])] for conversation in conversations]
    with Progress(len(prompts), task.name, enabled=world.is_main) as progress:
        chosen = predict_letters(model, prompts, candidates, max_tokens, on_done=progress.advance)
    own = [
        task.evaluate(conversation, conversation["letters"][choice])
        for conversation, choice in zip(conversations, chosen, strict=True)
    ]
    return gather_in_order(world, own, len(problems))
