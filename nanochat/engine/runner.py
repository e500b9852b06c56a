"""Runs one planned step through the model: rows of tokens in, logits or drawn tokens out for each
sequence due one.

Three ways to the same answer: `gpt.py` over a ragged row of tokens, which takes everything; the C
code on a CPU; steps of fixed shapes, replayed as CUDA graphs on a GPU.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Literal

import torch
from torch import Tensor

from nanochat.engine.kv_cache import KVCache, StepView
from nanochat.engine.native.decoder import NativeDecoder, unsupported
from nanochat.engine.sampler import Sampled, sample
from nanochat.engine.scheduler import ScheduledRow
from nanochat.engine.static_decode import StaticDecoder, fixed
from nanochat.gpt import GPT

Static = bool | Literal["compiled"] | None


@contextmanager
def one_thread() -> Iterator[None]:
    """torch on one thread. OpenMP's threads spin for milliseconds after their work, on the cores
    that the C code's team wants next: a step of 16 streams (d12, two cores) took 28 ms with the
    sampler on both, 19 ms with it on one.
    """
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(n_threads)


class Runner:
    """A model and its cache. `n_tokens` is how many ids may be sampled: ids the tokenizer cannot
    decode are cut off.

    `static` None: fixed shapes on CUDA alone. On a CPU they gain nothing, but can be had
    (uncaptured) to test them. "compiled" also fuses their kernels.
    """

    def __init__(
        self,
        model: GPT,
        page_tokens: int,
        n_tokens: int,
        native: bool = True,
        static: Static = None,
    ) -> None:
        self.model = model
        self.n_tokens = n_tokens
        self._native_wanted = native
        self.device = model.get_device()
        self._static_wanted = self.device.type == "cuda" if static is None else static
        self.cache = KVCache(model.config, page_tokens, self.device)
        self.native: NativeDecoder | None = None
        self.static: StaticDecoder | None = None
        self._weights_seen = self._weights_version()
        self.refresh()

    def _weights_version(self) -> list[tuple[int, int]]:
        """Differs after a weight was changed in place (an optimizer step, a load) or replaced (a
        quantisation).
        """
        tensors = itertools.chain(self.model.parameters(), self.model.buffers())
        return [(t.data_ptr(), 0 if t.is_inference() else t._version) for t in tensors]

    def refresh_if_changed(self) -> bool:
        """Whether the model's weights are others than before: what was computed with the old ones
        is then of no use.
        """
        version = self._weights_version()
        changed = version != self._weights_seen
        if changed:
            self._weights_seen = version
            self.refresh()
        return changed

    def refresh(self) -> None:
        """Look at the model's weights again, after they changed or moved."""
        usable = (
            self._native_wanted
            and self.cache.page_tokens % 4 == 0
            and unsupported(self.model) is None
        )
        self.native = NativeDecoder(self.model) if usable else None
        if not self._static_wanted or not fixed(self.model):
            self.static = None
        elif self.static is None or not self.static.current():
            how = self.device.type == "cuda", self._static_wanted == "compiled"
            self.static = StaticDecoder(self.model, self.cache, self.n_tokens, *how)

    def trim(self, n_pages: int) -> None:
        """Give memory back: keep pages 0 to n_pages - 1 of the cache, and no graphs."""
        self.cache.shrink(n_pages)
        if self.static is not None:
            self.static.drop()

    @property
    def dtype(self) -> torch.dtype:
        """Precision of activations, and with them of keys and values."""
        return self.model.compute_dtype or self.model.get_parameter("transformer.wte.weight").dtype

    @torch.no_grad()
    def draw(self, rows: list[ScheduledRow], n_pages: int) -> list[Sampled]:
        """The next token of each row that samples, in order. `n_pages`: how many pages the rows may
        use.
        """
        if self.static is not None and self.static.takes(rows):
            self.cache.hold(n_pages, self.dtype)
            drawn = self.static.draw(rows)
            if drawn is not None:
                return drawn
        by_team = self.native is not None and self.native.takes(rows)
        logits = self.run(rows, n_pages)
        with one_thread() if by_team else nullcontext():
            return sample(logits, [row.sequence for row in rows if row.samples])

    # not inference_mode: the model may be in training, and must not keep inference tensors
    @torch.no_grad()
    def run(self, rows: list[ScheduledRow], n_pages: int) -> Tensor:
        """Logits (S, n_tokens) fp32 of the S rows that sample, in order."""
        self.cache.hold(n_pages, self.dtype)
        if self.native is not None and self.native.takes(rows):
            return self.native.run(rows, self.cache)[:, : self.n_tokens]
        view = StepView(self.cache, rows)
        ids = [token for row in rows for token in row.sequence.tokens[row.start : row.stop]]
        hidden = self.model.hidden(torch.tensor([ids], dtype=torch.long, device=self.device), view)[
            0
        ]
        last, end = [], 0
        for row in rows:
            end += row.n_tokens
            if row.samples:
                last.append(end - 1)
        if len(last) < len(ids):
            hidden = hidden[last]
        return (
            self.model.head(hidden)[:, : self.n_tokens]
            if last
            else hidden.new_zeros(0, self.n_tokens)
        )
