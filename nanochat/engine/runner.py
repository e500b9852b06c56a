"""Runs one planned step through the model: rows of tokens in, logits out for each sequence that wants a token."""

from __future__ import annotations

import torch
from torch import Tensor

from nanochat.engine.kv_cache import KVCache, StepView
from nanochat.engine.native.decoder import NativeDecoder, unsupported
from nanochat.engine.scheduler import Row
from nanochat.gpt import GPT


class Runner:
    """A model and its cache. `n_tokens` is how many ids may be sampled: ids the tokenizer cannot decode are cut off."""

    def __init__(self, model: GPT, page_tokens: int, n_tokens: int, native: bool = True) -> None:
        self.model, self.n_tokens, self._native_wanted = model, n_tokens, native
        self.device = model.get_device()
        self.cache = KVCache(model.config, page_tokens, self.device)
        self.native: NativeDecoder | None = None
        self.refresh()

    def refresh(self) -> None:
        """Look at the model's weights again, after they changed or moved."""
        usable = self._native_wanted and self.cache.page_tokens % 4 == 0 and unsupported(self.model) is None
        self.native = NativeDecoder(self.model) if usable else None

    @property
    def dtype(self) -> torch.dtype:
        """Precision of activations, and with them of keys and values."""
        return self.model.compute_dtype or self.model.get_parameter("transformer.wte.weight").dtype

    @torch.no_grad()  # not inference_mode: the model may be in training, and must not keep inference tensors
    def run(self, rows: list[Row], n_pages: int) -> Tensor:
        """Logits (S, n_tokens) fp32 of the S rows that sample, in order. `n_pages`: how many pages the rows may use."""
        self.cache.hold(n_pages, self.dtype)
        if self.native is not None and self.native.takes(rows):
            return self.native.run(rows, self.cache)[:, : self.n_tokens]
        view = StepView(self.cache, rows)
        ids = [token for row in rows for token in row.sequence.tokens[row.start : row.stop]]
        hidden = self.model.hidden(torch.tensor([ids], dtype=torch.long, device=self.device), view)[0]
        last, end = [], 0
        for row in rows:
            end += row.n_tokens
            if row.samples:
                last.append(end - 1)
        if len(last) < len(ids):
            hidden = hidden[last]
        return self.model.head(hidden)[:, : self.n_tokens] if last else hidden.new_zeros(0, self.n_tokens)
