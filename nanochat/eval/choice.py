"""Categorical tasks: which of the question's letters does the model find likeliest as its answer?

Only the letters at the answer position are compared, so a small model need not have learned to
answer with a letter and nothing else, and one forward pass a question is enough.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from nanochat.eval.loglikelihood import ScoredRow, score_groups
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
    groups = [
        [ScoredRow([*prompt, letter], len(prompt), len(prompt) + 1) for letter in letters]
        for prompt, letters in zip(prompts, candidates, strict=True)
    ]
    # The candidates themselves are never forwarded, so the prompt may fill the context.
    context = model.config.sequence_len + 1
    scores = score_groups(model, groups, max_tokens, on_done=on_done, context=context)
    return [min(range(len(group)), key=lambda i: group[i].nll) for group in scores]


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
    candidates = [letter_tokens(tokenizer, row["letters"]) for row in conversations]
    n_letters = sum(map(len, candidates))
    with Progress(n_letters, f"{task.name}, choices", enabled=world.is_main) as progress:
        chosen = predict_letters(model, prompts, candidates, max_tokens, on_done=progress.advance)
    own = [
        task.evaluate(conversation, conversation["letters"][choice])
        for conversation, choice in zip(conversations, chosen, strict=True)
    ]
    return gather_in_order(world, own, len(problems))
