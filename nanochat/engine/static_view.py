"""What a decoding step of fixed shape sees of the key/value cache: no shape depends on a value,
nothing asks the host.

Shape legend: R rows (padded), P pages a row (padded), W pages a window touches, S = W *
page_tokens, H query heads, G key/value heads, D head dim.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from nanochat.engine.kv_cache import KVCache


class StaticView:
    """What the model sees of the cache during one such step (the `Cache` protocol of gpt.py),
    tensors alone.
    """

    def __init__(self, cache: KVCache, header: Tensor, table: Tensor) -> None:
        self.cache, self.table = (
            cache,
            table,
        )  # (R, P) pages; past a row's own pages anything that exists
        self._positions = header[1]
        self._slots = header[2]
        self._before = header[3]
        self._windows: dict[int, tuple[Tensor, Tensor]] = {}

    def positions(self, n_tokens: int) -> Tensor:
        return self._positions[None]

    def advance(self, n_tokens: int) -> None:
        pass

    def previous(self, x: Tensor) -> Tensor:
        """The embedding before each token of x (1, R, D); zeros where there is none."""
        embeddings = self.cache.embeddings
        assert embeddings is not None
        embeddings.index_copy_(0, self._slots, x[0])
        before = embeddings.index_select(0, self._before)
        return before.masked_fill((self._positions == 0)[:, None], 0.0)[None]

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, window: int) -> Tensor:
        """Store k, v (1, R, G, D) and attend with q (1, R, H, D), each row over its own pages ->
        (1, R, H, D).

        The queries that share a key/value head go as so many positions: no copies of keys for
        grouped queries.
        """
        keys, values = self.cache.keys[layer], self.cache.values[layer]
        keys.index_copy_(0, self._slots, k[0])
        values.index_copy_(0, self._slots, v[0])
        if window not in self._windows:
            self._windows[window] = self._visible(window, q.dtype)
        pages, bias = self._windows[window]
        n_rows, n_groups, head_dim = k.shape[1:]
        grouped = q.view(n_rows, n_groups, -1, head_dim)
        k, v = (self.cache.pages(t, pages).transpose(1, 2) for t in (keys, values))
        return F.scaled_dot_product_attention(grouped, k, v, attn_mask=bias).reshape(q.shape)

    def _visible(self, window: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """The W pages that a window of tokens touches at most (R, W); 0 where a token sees, else
        -inf (R, 1, 1, S).
        """
        size, last = self.cache.page_tokens, self._positions[:, None]
        n_pages, device = self.table.size(1), self.table.device
        if window < 0:
            pages, first, start = self.table, torch.zeros_like(last), torch.zeros_like(last)
        else:
            n_pages = min(n_pages, (size - 1 + window) // size + 1)
            first = (last - window).clamp(min=0)
            start = first // size
            at = start + torch.arange(n_pages, device=device)
            pages = self.table.gather(1, at.clamp(max=self.table.size(1) - 1))
        position = start * size + torch.arange(n_pages * size, device=device)
        hidden = (position < first) | (position > last)
        bias = torch.zeros(hidden.shape, dtype=dtype, device=device).masked_fill(
            hidden, float("-inf")
        )
        return pages, bias[:, None, None]
