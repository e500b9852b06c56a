"""The loader: any source of documents -> batches, in an order that does not depend on the number of
ranks.

A step has R rows. Row r of every step is filled by *lane* r, and document i of the stream belongs
to lane i % R, so what a row holds follows from the data alone. Each rank owns a contiguous slice of
the lanes and tokenises only their documents. Because ranks are not part of the order, a run stopped
on 4 ranks resumes on 3 with the same batches.

Shapes: B rows, T tokens of a row.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from nanochat.dataloader.documents import Documents
from nanochat.dataloader.packing import Packer, Segment, count_rows, split_evenly

# Per lane. Chat rows of 512 tokens are 88% full with 4, 97% with 16, 99% with 64; text is cut about
# as often with 4.
BUFFER_DOCUMENTS = 16
# sources up to this size are tokenised whole to count their steps (2 s of chat, 6 s of text)
EXACT_DOCUMENTS = 20_000
SAMPLE_DOCUMENTS = 4000  # of larger ones, in runs of SAMPLE_RUN neighbours
SAMPLE_RUN = 50


@dataclass
class Batch:
    """Input ids (B, T) int64, targets (B, T) int64, weight of each target (B, T) float32 (0 = not
    trained on).
    """

    input_ids: torch.Tensor
    targets: torch.Tensor
    weights: torch.Tensor

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on a device."""
        tensors = (self.input_ids, self.targets, self.weights)
        return Batch(*(tensor.to(device, non_blocking=True) for tensor in tensors))


@dataclass
class _Lane:
    packer: Packer
    next_index: int  # stream index of the next document to take
    tokens: dict[int, tuple[np.ndarray, np.ndarray | None]] = field(
        default_factory=dict
    )  # of the buffered documents


class PackedLoader:
    """Batches of packed rows, with exact resume on any number of ranks.

    documents: a `Documents` source. rows_per_step: R = total batch size in tokens / seq_len, over
    all ranks. device_batch_size: rows of one micro-batch at most. passes: None = endless, else the
    number of passes over the source (each document exactly once per pass; the last rows are padded
    with weight 0). max_steps: stop earlier.
    """

    def __init__(
        self,
        documents: Documents,
        tokenizer: Any,
        *,
        rows_per_step: int,
        seq_len: int,
        device_batch_size: int,
        rank: int = 0,
        world_size: int = 1,
        passes: float | None = None,
        max_steps: int | None = None,
        buffer_documents: int = BUFFER_DOCUMENTS,
        prefetch: bool = True,
    ):
        if min(rows_per_step, seq_len, device_batch_size, world_size) < 1:
            raise ValueError(
                f"{rows_per_step=} {seq_len=} {device_batch_size=} {world_size=}: each must be "
                "at least 1"
            )
        if passes is None and rows_per_step < world_size:
            raise ValueError(
                f"total_batch_size is {rows_per_step} rows of {seq_len} tokens, too few for "
                f"{world_size} ranks: "
                f"raise it to at least {world_size * seq_len} tokens or use fewer ranks"
            )
        self.documents = documents
        self.tokenizer = tokenizer
        self.rows_per_step = rows_per_step
        self.seq_len = seq_len
        self.device_batch_size = device_batch_size
        self.lane_ids = split_evenly(rows_per_step, world_size, rank)
        self.max_steps = max_steps
        # A lane never looks further ahead than about one pass, or a small source would be seen
        # unevenly.
        self.buffer_documents = max(1, min(buffer_documents, len(documents) // rows_per_step))
        self._bos = tokenizer.get_bos_token_id()
        self._end = None if passes is None else round(passes * len(documents))
        self._executor = (
            ThreadPoolExecutor(max_workers=1, thread_name_prefix="loader") if prefetch else None
        )
        self._pending: Future | None = None
        self._start(0, {lane: (lane, []) for lane in self.lane_ids})

    @classmethod
    def validation(
        cls, documents: Documents, tokenizer: Any, *, eval_tokens: int, **options: Any
    ) -> PackedLoader:
        """A loader over at most eval_tokens targets, at most one pass, the same batches every time
        it is iterated.
        """
        step_tokens = options["rows_per_step"] * options["seq_len"]
        return cls(
            documents,
            tokenizer,
            passes=1,
            max_steps=max(1, round(eval_tokens / step_tokens)),
            **options,
        )

    def next_step(self) -> list[Batch]:
        """This rank's micro-batches of the next step; [] when a finite loader has no more rows for
        this rank.
        """
        if self._executor is None:
            batches, self._state = self._produce()
            return batches
        future = self._pending or self._executor.submit(self._produce)
        self._pending = None
        batches, self._state = future.result()
        self._pending = self._executor.submit(self._produce)
        return batches

    def restart(self) -> None:
        """Go back to the beginning of the stream."""
        self._settle()
        self._start(0, {lane: (lane, []) for lane in self.lane_ids})

    def __iter__(self) -> Iterator[list[Batch]]:
        """All steps of a finite loader, from the beginning."""
        if self._end is None and self.max_steps is None:
            raise ValueError(
                "this loader is endless: call next_step(), or give it `passes` or `max_steps`"
            )
        self.restart()
        while batches := self.next_step():
            yield batches

    def close(self) -> None:
        """Stop the prefetch thread."""
        self._settle()
        if self._executor is not None:
            self._executor.shutdown()
            self._executor = None

    @property
    def step(self) -> int:
        """Steps handed out so far."""
        return self._state["step"]

    @property
    def passes_done(self) -> float:
        """How often this rank's lanes have gone through the source so far, buffered documents
        included.
        """
        taken = [lane["next"] // self.rows_per_step for lane in self._state["lanes"]]
        return float(np.mean(taken)) * self.rows_per_step / len(self.documents) if taken else 0.0

    def estimate_steps(self, epochs: float = 1.0) -> int:
        """Optimizer steps that `epochs` passes over the source take (at least 1).

        Small sources are tokenised and packed whole; of larger ones a fixed sample is: evenly
        spread runs of neighbours, so that few row groups are read. The same on every rank.
        """
        count = len(self.documents)
        sampled, run = (
            (count, count) if count <= EXACT_DOCUMENTS else (SAMPLE_DOCUMENTS, SAMPLE_RUN)
        )
        lengths = []
        for i in range(sampled):
            index = i // run * run * count // sampled + i % run
            ids, _ = self.documents.encode(self.documents.raw(index), self.tokenizer)
            lengths.append(len(ids))
        rows = count_rows(lengths, self.seq_len + 1, self.documents.splittable, BUFFER_DOCUMENTS)
        return max(1, round(rows * count / sampled * epochs / self.rows_per_step))

    def state_dict(self) -> dict[str, Any]:
        """Where this rank's lanes stand after the last step handed out (not the prefetched one);
        plain JSON values.

        Gather the states of all ranks into a list to load them on any number of ranks.
        """
        return self._state

    def load_state_dict(self, states: dict[str, Any] | Sequence[dict[str, Any]]) -> None:
        """Continue after the step where `states` (one per rank of the earlier run) were taken.

        Raises ValueError when batch shape or data differ from those of the earlier run.
        """
        states = [states] if isinstance(states, dict) else list(states)
        self._settle()
        lanes = {}
        for state in states:
            self._check(state)
            lanes.update({lane["lane"]: (lane["next"], lane["pieces"]) for lane in state["lanes"]})
        missing = [lane for lane in self.lane_ids if lane not in lanes]
        if missing:
            raise ValueError(
                f"the loader state lacks rows {missing}: the states of all ranks are needed, in "
                "one list"
            )
        self._start(states[0]["step"], {lane: lanes[lane] for lane in self.lane_ids})

    def _check(self, state: dict[str, Any]) -> None:
        names = {
            "rows_per_step": "rows of a step",
            "seq_len": "tokens of a row",
            "documents": "documents",
        }
        wrong = [
            f"{names[name]}: {state[name]} then, {mine} now"
            for name, mine in self._header().items()
            if state[name] != mine
        ]
        if wrong:
            raise ValueError(
                f"cannot resume the data order ({'; '.join(wrong)}): use that run's settings and "
                "data"
            )

    def _header(self) -> dict[str, int]:
        return {
            "rows_per_step": self.rows_per_step,
            "seq_len": self.seq_len,
            "documents": len(self.documents),
        }

    def _start(self, step: int, lanes: dict[int, tuple[int, list[list[int]]]]) -> None:
        """Set up the lanes: the next stream index of each and its buffered pieces [document, first
        token].
        """
        self._produced = step
        self._lanes: dict[int, _Lane] = {}
        for lane, (next_index, _) in lanes.items():
            packer = Packer(self.seq_len + 1, self.documents.splittable, self.buffer_documents)
            self._lanes[lane] = _Lane(packer, next_index)
        pieces = {lane: pieces for lane, (_, pieces) in lanes.items()}
        wanted = sorted((document, lane) for lane in pieces for document, _ in pieces[lane])
        for document, lane in wanted:  # in stream order, so every row group is read once
            self._lanes[lane].tokens[document] = self.documents.encode(
                self.documents.raw(document), self.tokenizer
            )
        for lane in pieces:
            for document, start in pieces[lane]:
                self._lanes[lane].packer.add(
                    document, len(self._lanes[lane].tokens[document][0]), start
                )
        self._stream = min((lane.next_index for lane in self._lanes.values()), default=0)
        self._waiting: dict[int, deque] = {lane: deque() for lane in self._lanes}
        self._state = self._snapshot()

    def _snapshot(self) -> dict[str, Any]:
        lanes = [
            {
                "lane": i,
                "next": lane.next_index,
                "pieces": [[p.document, p.start] for p in lane.packer.pieces],
            }
            for i, lane in self._lanes.items()
        ]
        return {"step": self._produced, **self._header(), "lanes": lanes}

    def _settle(self) -> None:
        """Let the prefetched step finish and forget it."""
        if self._pending is not None:
            self._pending.exception()
            self._pending = None

    def _produce(self) -> tuple[list[Batch], dict[str, Any]]:
        if self.max_steps is not None and self._produced >= self.max_steps:
            return [], self._snapshot()
        rows = []
        for number, lane in self._lanes.items():
            self._refill(number, lane)
            segments = lane.packer.next_row()
            if segments:
                rows.append(self._fill_row(lane, segments))
            kept = {piece.document for piece in lane.packer.pieces}
            lane.tokens = {document: lane.tokens[document] for document in kept}
        self._produced += bool(rows)
        size = self.device_batch_size
        return [_to_batch(rows[i : i + size]) for i in range(0, len(rows), size)], self._snapshot()

    def _refill(self, number: int, lane: _Lane) -> None:
        while lane.packer.wants_more():
            taken = self._take(number)
            if taken is None:
                return
            index, raw = taken
            lane.tokens[index] = self.documents.encode(raw, self.tokenizer)
            lane.packer.add(index, len(lane.tokens[index][0]))
            lane.next_index = index + self.rows_per_step

    def _take(self, number: int) -> tuple[int, Any] | None:
        """The lane's next document. Reads the stream in order and keeps aside what belongs to this
        rank's other lanes.

        Lanes drift apart because documents differ in length; keeping the raw documents makes that
        cost memory for a few documents instead of re-reading row groups.
        """
        queue = self._waiting[number]
        while not queue:
            index = self._stream
            if self._end is not None and index >= self._end:
                return None
            self._stream += 1
            owner = index % self.rows_per_step
            if owner in self._lanes and index >= self._lanes[owner].next_index:
                self._waiting[owner].append((index, self.documents.raw(index)))
        return queue.popleft()

    def _fill_row(self, lane: _Lane, segments: list[Segment]) -> tuple[np.ndarray, np.ndarray]:
        """ids (T+1,) and weights (T+1,) of one row."""
        ids = np.full(self.seq_len + 1, self._bos, dtype=np.int64)
        weights = np.zeros(self.seq_len + 1, dtype=np.float32)
        at = 0
        for segment in segments:
            tokens, token_weights = lane.tokens[segment.document]
            begin, end = at + (segment.start > 0), at + segment.length
            weights[at:end] = 1.0
            ids[begin:end] = tokens[segment.start : segment.stop]
            if token_weights is not None:
                weights[begin:end] = token_weights[segment.start : segment.stop]
            at = end
        return ids, weights


def _to_batch(rows: list[tuple[np.ndarray, np.ndarray]]) -> Batch:
    ids = torch.from_numpy(np.stack([row[0] for row in rows]))
    weights = torch.from_numpy(np.stack([row[1] for row in rows]))
    return Batch(ids[:, :-1].contiguous(), ids[:, 1:].contiguous(), weights[:, 1:].contiguous())
