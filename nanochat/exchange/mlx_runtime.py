"""An exported folder in mlx-lm, on whatever device MLX has."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nanochat.exchange.optional_module import needed


class MLXRuntime:
    """Model and tokenizer of a folder, as mlx-lm loads them."""

    def __init__(self, folder: Path) -> None:
        self.mx = needed("mlx.core")
        self.lm = needed("mlx_lm")
        self.caches = needed("mlx_lm.models.cache")
        self.model, self.tokenizer = self.lm.load(str(folder))
        self.name = f"mlx-lm {self.lm.__version__}, {self.mx.default_device()}"

    def logits(self, ids: list[int]) -> Tensor:
        """Softcapped logits (T, V) fp32."""
        return self._tensor(self.model(self.mx.array([ids])))

    def greedy(self, ids: list[int], n_tokens: int) -> list[int]:
        """The likeliest tokens with the program's own cache, also past those that end an answer."""
        cache = self.caches.make_prompt_cache(self.model)
        made: list[int] = []
        given = ids
        while len(made) < n_tokens:
            logits = self.model(self.mx.array([given]), cache=cache)
            made.append(int(self._tensor(logits)[-1].argmax()))
            given = made[-1:]
        return made

    def render(self, messages: list[dict[str, Any]], asks: bool) -> list[int]:
        return list(
            self.tokenizer.apply_chat_template(
                messages, add_generation_prompt=asks, tokenize=True, return_dict=False
            )
        )

    def _tensor(self, logits: Any) -> Tensor:
        return torch.from_numpy(np.array(logits[0].astype(self.mx.float32)))
