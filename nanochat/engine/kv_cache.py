"""Keys and values of everything the engine holds, in pages, and the view of them that one forward
pass gets.

A forward pass sees all rows of a step as one ragged sequence, (1, N): every weight is read once for
all of them, with no padding. Only attention and smear look across tokens, and they ask this cache.

Shape legend: N tokens of the step, R rows (sequences), H query heads, G key/value heads, D head
dim, P pages a row.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor

from nanochat.attention import attend
from nanochat.engine.scheduler import ScheduledRow
from nanochat.gpt_config import GPTConfig

FIRST_PAGES = 16


class KVCache:
    """The tensors behind a PagePool: per layer keys and values (pages * page_tokens, G, D), grown
    as pages are used.

    A model with smear also needs each token's embedding, which is mixed into the token after
    it; a sequence that starts from a shared prefix finds it there like its keys and values.
    Everything starts as zeros, because attention gives masked positions weight 0, and 0 times the
    NaN of uninitialised memory would be NaN.
    """

    def __init__(self, config: GPTConfig, page_tokens: int, device: torch.device) -> None:
        self.config = config
        self.page_tokens = page_tokens
        self.device = device
        self.n_pages = self.n_resized = 0
        self.keys: list[Tensor] = []
        self.values: list[Tensor] = []
        self.embeddings: Tensor | None = None

    def bytes_held(self) -> int:
        tensors = [*self.keys, *self.values] + (
            [] if self.embeddings is None else [self.embeddings]
        )
        return sum(t.numel() * t.element_size() for t in tensors)

    def hold(self, n_pages: int, dtype: torch.dtype) -> None:
        """Make room for pages 0 to n_pages - 1, at least doubling, so that growth costs little in
        the long run.
        """
        if self.keys and self.keys[0].dtype != dtype:
            held = self.keys[0].dtype
            raise ValueError(
                f"dtype: the cache holds {held}, the model now computes in {dtype}; make a new "
                "Engine"
            )
        if n_pages > self.n_pages:
            self._resize(max(n_pages, 2 * self.n_pages, FIRST_PAGES), dtype)

    def shrink(self, n_pages: int) -> None:
        """Give memory back: keep pages 0 to n_pages - 1 only."""
        if self.keys and n_pages < self.n_pages // 2:
            self._resize(n_pages, self.keys[0].dtype)

    def clear(self) -> None:
        """Forget everything, so that no page holds a NaN that others would be masked against."""
        self.keys.clear()
        self.values.clear()
        self.embeddings = None
        self.n_pages = 0
        self.n_resized += 1

    def _resize(self, n_pages: int, dtype: torch.dtype) -> None:
        config, n_slots = self.config, n_pages * self.page_tokens

        def resized(old: Tensor | None, *shape: int) -> Tensor:
            new = torch.zeros(n_slots, *shape, dtype=dtype, device=self.device)
            if old is not None:
                kept = min(n_slots, old.size(0))
                new[:kept] = old[:kept]
            return new

        olds = self.keys, self.values
        for layer in range(config.n_layer):  # one layer at a time: never two whole caches
            for old in olds:
                if len(old) <= layer:
                    old.append(resized(None, config.n_kv_head, config.head_dim))
                else:
                    old[layer] = resized(old[layer], config.n_kv_head, config.head_dim)
        if config.smear:
            self.embeddings = resized(self.embeddings, config.n_embd)
        self.n_pages = n_pages
        self.n_resized += 1

    def pages(self, tensor: Tensor, table: Tensor) -> Tensor:
        """Copy pages (R, P) of `tensor` out -> (R, P * page_tokens, G, D)."""
        flat = tensor.view(self.n_pages, -1).index_select(0, table.flatten())
        return flat.view(table.size(0), table.size(1) * self.page_tokens, *tensor.shape[1:])


@dataclass(frozen=True, kw_only=True)
class DecodeGroup:
    """The rows of one new token each, attended to together: which pages they see and which slots of
    those count.
    """

    table: Tensor  # (R, P) pages
    mask: Tensor  # (R, 1, 1, P * page_tokens) bool


class StepView:
    """What the model sees of the cache during one forward pass (the `Cache` protocol of gpt.py)."""

    def __init__(self, cache: KVCache, rows: list[ScheduledRow]) -> None:
        self.cache = cache
        self.rows = rows
        self.device = cache.device
        self.n_tokens = sum(row.n_tokens for row in rows)
        positions = [position for row in rows for position in range(row.start, row.stop)]
        self._positions = torch.tensor([positions], dtype=torch.long, device=self.device)
        slots = [
            self._slot(row, p) if p >= row.store_from else 0
            for row in rows
            for p in range(row.start, row.stop)
        ]
        self._slots = torch.tensor(slots, dtype=torch.long, device=self.device)
        ends = list(accumulate(row.n_tokens for row in rows))
        self._starts = [end - row.n_tokens for end, row in zip(ends, rows, strict=True)]
        self._reading = [
            (at, row) for at, row in zip(self._starts, rows, strict=True) if row.n_tokens > 1
        ]
        self._decoding = [row for row in rows if row.n_tokens == 1]
        decoding_at = [at for at, row in zip(self._starts, rows, strict=True) if row.n_tokens == 1]
        self._decoding_at = torch.tensor(decoding_at, dtype=torch.long, device=self.device)
        self._groups: dict[int, DecodeGroup] = {}
        self._smear: tuple[Tensor, Tensor, Tensor] | None = None

    def _slot(self, row: ScheduledRow, position: int) -> int:
        size = self.cache.page_tokens
        return row.sequence.pages[position // size] * size + position % size

    def positions(self, n_tokens: int) -> Tensor:
        """Absolute positions (1, N) of the step's tokens in their sequences."""
        assert n_tokens == self.n_tokens
        return self._positions

    def advance(self, n_tokens: int) -> None:
        """Nothing to do: how far each sequence has come is the scheduler's business."""

    def previous(self, x: Tensor) -> Tensor:
        """The embedding before each token of x (1, N, D); zeros before the first token of a
        sequence.
        """
        embeddings = self.cache.embeddings
        assert embeddings is not None
        if self._smear is None:
            self._smear = self._row_starts()
        starts, before, first = self._smear
        embeddings.index_copy_(0, self._slots, x[0])
        shifted = torch.cat((x[:, :1], x[:, :-1]), dim=1)
        shifted[0, starts] = embeddings[before].masked_fill(first, 0.0)
        return shifted

    def _row_starts(self) -> tuple[Tensor, Tensor, Tensor]:
        """Where each row starts (R), the slot of the token before it (R), whether there is none (R,
        1).
        """
        before = [self._slot(row, row.start - 1) if row.start else 0 for row in self.rows]
        first = torch.tensor([[row.start == 0] for row in self.rows], device=self.device)
        return (
            torch.tensor(self._starts, device=self.device),
            torch.tensor(before, device=self.device),
            first,
        )

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, window: int) -> Tensor:
        """Store k, v (1, N, G, D) and attend with q (1, N, H, D), each row over its own sequence ->
        (1, N, H, D).
        """
        keys, values = self.cache.keys[layer], self.cache.values[layer]
        keys.index_copy_(0, self._slots, k[0])
        values.index_copy_(0, self._slots, v[0])
        if not self._reading:
            return self._decode(q[0], keys, values, window)[None]
        y = torch.empty_like(q)
        if self._decoding:
            y[0, self._decoding_at] = self._decode(q[0, self._decoding_at], keys, values, window)
        for at, row in self._reading:
            here = slice(at, at + row.n_tokens)
            if row.start == 0:
                y[:, here] = attend(q[:, here], k[:, here], v[:, here], window)
            else:
                y[:, here] = self._attend_one(q[:, here], row, keys, values, window)
        return y

    def _decode(self, q: Tensor, keys: Tensor, values: Tensor, window: int) -> Tensor:
        """q (R, H, D) of the decoding rows -> (R, H, D)."""
        if len(self._decoding) == 1:
            return self._attend_one(q[None], self._decoding[0], keys, values, window)[0]
        group = self._groups.get(window)
        if group is None:
            group = self._groups[window] = self._decode_group(window)
        k, v = self.cache.pages(keys, group.table), self.cache.pages(values, group.table)
        return attend(q[:, None], k, v, mask=group.mask)[:, 0]

    def _decode_group(self, window: int) -> DecodeGroup:
        size = self.cache.page_tokens
        tables, low, high = [], [], []
        for row in self._decoding:
            first = first_visible(row, window)
            tables.append(row.sequence.pages[first // size : (row.stop - 1) // size + 1])
            low.append([first % size])
            high.append([row.stop - first // size * size])
        widest = max(map(len, tables))
        table = torch.tensor(
            [pages + [0] * (widest - len(pages)) for pages in tables], device=self.device
        )
        offset = torch.arange(widest * size, device=self.device)
        seen = (offset >= torch.tensor(low, device=self.device)) & (
            offset < torch.tensor(high, device=self.device)
        )
        return DecodeGroup(table=table, mask=seen[:, None, None])

    def _attend_one(
        self, q: Tensor, row: ScheduledRow, keys: Tensor, values: Tensor, window: int
    ) -> Tensor:
        """q (1, T, H, D), the last T tokens of one row, over all the row's window covers -> (1, T,
        H, D).
        """
        size = self.cache.page_tokens
        first = first_visible(row, window)
        pages = row.sequence.pages[first // size : (row.stop - 1) // size + 1]
        offset, length = first % size, row.stop - first
        if pages == list(
            range(pages[0], pages[0] + len(pages))
        ):  # neighbours in memory: nothing to copy
            start = pages[0] * size + offset
            k, v = keys[start : start + length][None], values[start : start + length][None]
        else:
            table = torch.tensor([pages], device=self.device)
            k = self.cache.pages(keys, table)[:, offset : offset + length]
            v = self.cache.pages(values, table)[:, offset : offset + length]
        return attend(q, k, v, window)


def first_visible(row: ScheduledRow, window: int) -> int:
    """The first position that any of the row's new tokens sees."""
    return max(0, row.start - window) if window >= 0 else 0
