"""A few greedy completions, through the engine that chat uses."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from nanochat.gpt import GPT
from nanochat.tokenizer import Tokenizer


def sample_texts(
    model: GPT, tokenizer: Tokenizer, prompts: Sequence[str], chat: bool, max_tokens: int = 48
) -> list[dict[str, str]]:
    """Greedy continuations of `prompts` as text (or, with `chat`, as user turns) -> [{"prompt",
    "completion"}].
    """
    from nanochat.engine import Engine, SamplingParams

    was_training = model.training
    model.eval()
    engine = Engine(model, tokenizer)
    if chat:
        rows = [
            tokenizer.render_for_completion(
                {
                    "messages": [
                        {"role": "user", "content": prompt},
                        {"role": "assistant", "content": ""},
                    ]
                }
            )
            for prompt in prompts
        ]
    else:
        rows = [
            tokenizer.encode(prompt, prepend=tokenizer.get_bos_token_id()) for prompt in prompts
        ]
    room = model.config.sequence_len - 1  # a short context must not end a training run
    rows = [row[-room:] for row in rows]
    with torch.no_grad():
        params = SamplingParams(temperature=0.0, max_tokens=max_tokens)
        answers = engine.complete([engine.submit(row, params) for row in rows])
    model.train(was_training)
    return [
        {"prompt": prompt, "completion": tokenizer.decode(completion.ids)}
        for prompt, [completion] in zip(prompts, answers, strict=True)
    ]
