"""An exported folder in Hugging Face transformers, as somebody who has only the folder loads it."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nanochat.exchange.optional_module import needed


class TransformersRuntime:
    """Model and tokenizer of a folder, in fp32 on the CPU."""

    def __init__(self, folder: Path) -> None:
        transformers = needed("transformers")
        self.transformers = transformers
        with _quiet():
            # the code in the folder is the one that this export has just put there
            self.model, told = transformers.AutoModelForCausalLM.from_pretrained(
                folder, dtype=torch.float32, trust_remote_code=True, output_loading_info=True
            )
            self.tokenizer = transformers.AutoTokenizer.from_pretrained(
                folder, trust_remote_code=True
            )
        wrong = {kind: sorted(map(str, names)) for kind, names in told.items() if names}
        if wrong:
            raise ValueError(f"transformers does not load it as written: {wrong}")
        self.model.requires_grad_(False).eval()
        self.name = f"transformers {transformers.__version__}, {type(self.model).__name__}, fp32"

    def logits(self, ids: list[int]) -> Tensor:
        """Logits (T, V) fp32 as the program computes them."""
        with torch.no_grad():
            return self.model(torch.tensor([ids])).logits[0].float()

    def greedy(self, ids: list[int], n_tokens: int) -> list[int]:
        """The likeliest tokens with the program's own cache, also past those that end an answer."""
        settings = self.transformers.GenerationConfig(
            do_sample=False, max_new_tokens=n_tokens, pad_token_id=0
        )
        own = self.model.generation_config
        self.model.generation_config = settings
        try:
            prompt = torch.tensor([ids])
            done = self.model.generate(prompt, attention_mask=torch.ones_like(prompt))
        finally:
            self.model.generation_config = own
        return done[0, len(ids) :].tolist()

    def render(self, messages: list[dict[str, Any]], asks: bool) -> list[int]:
        return list(
            self.tokenizer.apply_chat_template(
                messages, add_generation_prompt=asks, tokenize=True, return_dict=False
            )
        )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the library's bars and remarks."""
    logger = logging.getLogger("transformers")
    level = logger.level
    logger.setLevel(logging.ERROR)
    bars = needed("transformers.utils.logging")
    bars.disable_progress_bar()
    try:
        yield
    finally:
        logger.setLevel(level)
