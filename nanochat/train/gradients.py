"""Gradients of one step: micro-batches in a row, smaller ones when memory runs out."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import torch
from torch import Tensor

from nanochat.dataloader.loader import Batch
from nanochat.gpt import GPT
from nanochat.optim.gradient_overlap import GradientOverlap
from nanochat.runtime.errors import reason
from nanochat.train.compiled import ForwardPass
from nanochat.train.loss_scale import LossScale
from nanochat.train.objective import loss_sum_and_count
from nanochat.train.shard_model import is_sharded


class Gradients:
    """Adds up the gradients of a rank's batches in `parameter.grad`.

    `device_batch_size`: rows that fit in memory at once where that is fewer than a batch has, else
    None.
    """

    def __init__(
        self,
        model: GPT,
        forward: ForwardPass,
        *,
        loss_scale: LossScale | None,
        overlap: GradientOverlap,
        rank: int = 0,
    ) -> None:
        self.model = model
        self.forward = forward
        self.loss_scale = loss_scale
        self.overlap = overlap
        self.rank = rank
        self.device_batch_size: int | None = None

    def accumulate(self, batches: list[Batch], n_targets: int) -> Tensor:
        """Backward through all rows -> this rank's share of the loss, a scalar. `n_targets`: of all
        ranks.

        When memory runs out, micro-batches have half the rows from then on and the step starts
        again; every row still counts once, so the step is the same. Raises ValueError when a single
        row does not fit, and for a model in pieces: its backward pass is common work of all ranks,
        which one of them cannot repeat alone.
        """
        while True:
            try:
                return self._backward(batches, n_targets)
            except torch.OutOfMemoryError as error:
                why = reason(error)
            if is_sharded(self.model):
                raise ValueError(
                    f"out of memory with --shard-model ({why}); go on with --resume and a "
                    "smaller "
                    "--device-batch-size, or --activation-checkpointing"
                )
            self._halve(
                max(len(batch.input_ids) for batch in batches), why
            )  # what the failed attempt had allocated is freed by now

    def _backward(self, batches: list[Batch], n_targets: int) -> Tensor:
        loss_sum = torch.zeros((), dtype=torch.float32, device=self.model.get_device())
        parts = list(split_rows(batches, self.device_batch_size))
        for number, batch in enumerate(parts, 1):
            total, _ = loss_sum_and_count(self.model, batch, self.forward)
            loss = total / max(n_targets, 1)
            self.overlap.armed = number == len(parts)
            (loss if self.loss_scale is None else loss * self.loss_scale.scale).backward()
            loss_sum += loss.detach()
        return loss_sum

    def _halve(self, rows: int, why: str) -> None:
        rows = min(rows, self.device_batch_size or rows)
        if rows == 1:
            raise ValueError(
                f"out of memory with a single row a micro-batch ({why}); use "
                "--activation-checkpointing, "
                "a smaller --max-seq-len or a smaller --depth"
            )
        self.device_batch_size = -(-rows // 2)
        print(
            f"WARNING: rank {self.rank} ran out of memory with {rows} rows ({why}); going on "
            "with micro-batches of "
            f"{self.device_batch_size}, the total batch stays the same",
            file=sys.stderr,
            flush=True,
        )
        self.model.zero_grad(set_to_none=True)
        self.forward.forget_shape()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def split_rows(batches: list[Batch], rows: int | None) -> Iterator[Batch]:
    """The same rows, in batches of at most `rows`."""
    for batch in batches:
        tensors = (batch.input_ids, batch.targets, batch.weights)
        for parts in zip(*(tensor.split(rows or len(tensor)) for tensor in tensors), strict=True):
            yield Batch(*parts)
