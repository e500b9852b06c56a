"""Decoding steps of fixed shapes, which a GPU replays as one CUDA graph instead of being handed
hundreds of kernels.

Where every row of a step decodes one token, the step is padded to one of a few shapes. Its inputs
go into buffers that stay where they are, in one copy; nothing in it depends on a value the host
would have to look at; drawing the tokens is part of it, so that only their ids come back. The first
step of a shape is captured, later ones are replayed. Without capture the same step runs operation
by operation, which is what the tests do on a CPU.

Shape legend: R rows (padded), P pages a row (padded), V vocabulary.
"""

from __future__ import annotations

import itertools
import logging
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from nanochat.engine.finite import NonFiniteLogits
from nanochat.engine.kv_cache import KVCache
from nanochat.engine.sampler import (
    COLDEST,
    NOT_FINITE,
    Sampled,
    common_method,
    draw_fixed,
    sample,
)
from nanochat.engine.scheduler import ScheduledRow
from nanochat.engine.sequence import Sequence
from nanochat.engine.static_view import StaticView
from nanochat.gpt import GPT
from nanochat.runtime.errors import reason

MAX_ROWS = 128
FEWEST_PAGES = 16
MOST_SHAPES = 128  # that are compiled before torch gives up
WARM_UPS = 2  # before a capture: libraries make their handles and workspaces
HEADER = 5  # ids, positions, slots, slots before, top_k

log = logging.getLogger(__name__)


def fixed(model: GPT) -> bool:
    """Whether replaying the model's kernels is all that a forward pass does: no subclass, no
    hooks."""
    return type(model) is GPT and not any(
        m._forward_hooks or m._forward_pre_hooks for m in model.modules()
    )


@dataclass(frozen=True, kw_only=True)
class DecodeShape:
    """What a captured step is made for. `draw`: how it ends, a method of `draw_fixed` or
    "logits"."""

    n_rows: int
    n_pages: int
    draw: str


class Place:
    """The buffers of one shape: `header` (HEADER, R), `table` (R, P), `floats` (2, R); on a GPU
    each with a pinned twin on the host, filled there and sent over in one copy each. Padding rows
    decode token 0 into page 0, which nobody reads.
    """

    def __init__(self, shape: DecodeShape, device: torch.device) -> None:
        self.shape, n_rows = shape, shape.n_rows
        pinned = device.type == "cuda"
        self._host_ints = torch.zeros(
            n_rows * (HEADER + shape.n_pages), dtype=torch.int64, pin_memory=pinned
        )
        self._host_floats = torch.zeros(2, n_rows, dtype=torch.float64, pin_memory=pinned)
        self._ints, self.floats = self._host_ints, self._host_floats
        if pinned:
            self._ints, self.floats = self._host_ints.to(device), self._host_floats.to(device)
        self.header, self.table = self._split(self._ints)
        header, table = self._split(self._host_ints)
        self._header = header.numpy()
        self._table = table.numpy()
        self._numbers = self._host_floats.numpy()
        self._pages: list[tuple[list[int], int]] = [
            ([], 0)
        ] * n_rows  # what each row of the table was filled from
        self.graph: torch.cuda.CUDAGraph | None = None
        self.out = torch.empty(0)
        self._pad(0)
        self.send()

    def _split(self, ints: Tensor) -> tuple[Tensor, Tensor]:
        n_rows = self.shape.n_rows
        return ints[: HEADER * n_rows].view(HEADER, n_rows), ints[HEADER * n_rows :].view(
            n_rows, -1
        )

    def _pad(self, n_rows: int) -> None:
        self._header[:, n_rows:] = 0
        self._header[4, n_rows:] = 1
        self._numbers[0, n_rows:] = 1.0
        self._numbers[1, n_rows:] = 0.0

    def send(self) -> None:
        if self._ints is not self._host_ints:
            self._ints.copy_(self._host_ints, non_blocking=True)
            self.floats.copy_(self._host_floats, non_blocking=True)

    def fill(self, rows: list[ScheduledRow], page_tokens: int) -> None:
        """Put the rows' tokens, places and sampling parameters into the buffers; draws each
        sequence's next number.
        """

        def slot(pages: list[int], position: int) -> int:
            return pages[position // page_tokens] * page_tokens + position % page_tokens

        n_rows, columns = len(rows), []
        for at, row in enumerate(rows):
            sequence, position = row.sequence, row.start
            pages = sequence.pages
            if self._pages[at][0] is not pages or self._pages[at][1] != len(pages):
                self._table[at, : len(pages)] = pages
                self._pages[at] = pages, len(pages)
            own = slot(pages, position) if position >= row.store_from else 0
            before = slot(pages, position - 1) if position else 0
            top_k = 1 if sequence.params.greedy else sequence.params.top_k or 0
            columns.append((sequence.tokens[position], position, own, before, top_k))
        self._header[:, :n_rows] = list(zip(*columns, strict=True))
        if self.shape.draw in ("candidates", "all"):
            draws = [_draw(row.sequence) for row in rows]
            self._numbers[:, :n_rows] = list(zip(*draws, strict=True))
        self._pad(n_rows)
        self.send()


def _draw(sequence: Sequence) -> tuple[float, float]:
    """(temperature, a number in [0, 1)). A greedy sequence draws no number, as in `sample`."""
    if sequence.params.greedy:
        return 1.0, 0.0
    return max(sequence.params.temperature, COLDEST), sequence.random.random()


class StaticDecoder:
    """Runs the steps it `takes` over fixed shapes; with `capture` as CUDA graphs, with `compiled`
    of fused kernels.

    Compiling joins norms, rotary embedding and gates, for about a minute a shape: for measurements
    and long runs.

    Graphs hold addresses: they go when the cache grew or shrank. After weights were replaced by
    others make a new one (`current` says so); weights changed in place are seen.
    """

    def __init__(
        self, model: GPT, cache: KVCache, n_tokens: int, capture: bool, compiled: bool = False
    ) -> None:
        self.model = model
        self.cache = cache
        self.n_tokens = n_tokens
        self.capture = capture
        self._run = (
            torch.compile(self._step, fullgraph=True, dynamic=False) if compiled else self._step
        )
        model.make_rotary()
        self.places: dict[DecodeShape, Place] = {}
        self.n_steps = 0
        self.failed = False
        self._n_resized = cache.n_resized
        self._pool: Any = (
            None  # a handle of the memory that all graphs share: one is replayed at a time
        )
        self._addresses = self._weights()

    def _weights(self) -> list[int]:
        return [
            t.data_ptr() for t in itertools.chain(self.model.parameters(), self.model.buffers())
        ]

    def current(self) -> bool:
        """Whether the model still has the weights this was made for, at the same addresses."""
        return self._addresses == self._weights()

    def drop(self) -> None:
        """Forget all shapes and give their memory back."""
        self.places.clear()
        self._pool, self._n_resized = None, self.cache.n_resized

    def takes(self, rows: list[ScheduledRow]) -> bool:
        return (
            not self.failed
            and len(rows) <= MAX_ROWS
            and all(row.n_tokens == 1 and row.samples for row in rows)
        )

    def draw(self, rows: list[ScheduledRow]) -> list[Sampled] | None:
        """The next token of each row; None (once, and `failed` from then on) when the step cannot
        be captured.
        """
        if self._n_resized != self.cache.n_resized:
            self.drop()
        due = [row.sequence for row in rows]
        shape = self._shape(rows, due)
        if shape not in self.places:
            try:
                self.places[shape] = self.prepare(shape)
            except RuntimeError as error:
                log.warning("decoding without CUDA graphs: %s", reason(error))
                self.failed = True
                self.drop()
                return None
        place = self.places[shape]
        place.fill(rows, self.cache.page_tokens)
        if place.graph is None:
            place.out = self._run(place)
        else:
            with torch.cuda.device(self.cache.device):
                place.graph.replay()
        self.n_steps += 1
        out = place.out[: len(rows)]
        if shape.draw == "logits":
            return sample(out, due)
        tokens = out.tolist()
        if NOT_FINITE in tokens:
            raise NonFiniteLogits
        return [Sampled(token) for token in tokens]

    def _shape(self, rows: list[ScheduledRow], due: list[Sequence]) -> DecodeShape:
        size = self.cache.page_tokens
        n_pages = max(FEWEST_PAGES, power_of_two(max(row.stop for row in rows) // size + 1))
        most = -(-self.model.config.sequence_len // size)
        return DecodeShape(
            n_rows=power_of_two(len(rows)),
            n_pages=min(n_pages, most),
            draw=common_method(due, self.n_tokens),
        )

    def _step(self, place: Place) -> Tensor:
        """Token ids (R), or logits (R, n_tokens) fp32, from what is in the buffers. No shape
        depends on a value.
        """
        view = StaticView(self.cache, place.header, place.table)
        hidden = self.model.hidden(place.header[:1], view)[0]
        logits = self.model.head(hidden)[:, : self.n_tokens]
        if place.shape.draw == "logits":
            return logits
        return draw_fixed(
            logits, place.shape.draw, place.header[4], place.floats[0], place.floats[1]
        )

    def prepare(self, shape: DecodeShape) -> Place:
        """Buffers of a new shape and, with `capture`, the graph over them, recorded on padding
        rows.
        """
        place = Place(shape, self.cache.device)
        if not self.capture:
            return place
        with torch.cuda.device(self.cache.device):
            aside = torch.cuda.Stream()
            aside.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(aside), torch._dynamo.config.patch(recompile_limit=MOST_SHAPES):
                for _ in range(WARM_UPS):
                    self._run(place)
            torch.cuda.current_stream().wait_stream(aside)
            graph = torch.cuda.CUDAGraph()
            # Another model's worker may be using the device from its own thread: only ours is
            # recorded.
            with torch.cuda.graph(
                graph, pool=self._pool, stream=aside, capture_error_mode="thread_local"
            ):
                place.out = self._run(place)
        self._pool = self._pool or graph.pool()
        place.graph = graph
        return place


def power_of_two(number: int) -> int:
    """The smallest power of two that is not below `number`."""
    return 1 << (number - 1).bit_length()
