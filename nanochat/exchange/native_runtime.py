"""This project's own model, as what an export is compared with."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from nanochat.engine import Engine, SamplingParams
from nanochat.gpt import GPT
from nanochat.tokenizer import Tokenizer


class NativeRuntime:
    """A model and its tokenizer, asked as an exported one is."""

    def __init__(self, model: GPT, tokenizer: Tokenizer) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.engine = Engine(model, tokenizer, native=False)

    @torch.no_grad()
    def logits(self, ids: list[int]) -> Tensor:
        """Softcapped logits (T, V) fp32."""
        return self.model(torch.tensor([ids]))[0]

    def greedy(self, ids: list[int], n_tokens: int) -> list[int]:
        """The likeliest tokens, also past those that end an answer."""
        params = SamplingParams(temperature=0.0, max_tokens=n_tokens, tools="off", ignore_end=True)
        [[answer]] = self.engine.complete([self.engine.submit(ids, params)])
        return list(answer.ids)

    def render(self, messages: list[dict[str, Any]], asks: bool) -> list[int]:
        """Ids of a conversation; `asks`: with what asks for the next answer."""
        conversation = {"messages": messages}
        if asks:
            return self.tokenizer.render_for_completion(conversation)
        return self.tokenizer.render_conversation(conversation)[0]
