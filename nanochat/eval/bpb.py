"""Bits per byte: how many bits the model needs for each byte of text. Comparable across tokenizers,
unlike the loss.

bpb = sum of target NLL (nats) / (ln 2 * UTF-8 bytes of the targets). Special tokens have no bytes
and count in neither.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor

from nanochat.dataloader.loader import Batch
from nanochat.gpt import GPT
from nanochat.logprobs import target_logprobs
from nanochat.runtime.world import World


@torch.inference_mode()
def nll_and_bytes(model: GPT, batch: Batch, token_bytes: Tensor) -> tuple[Tensor, Tensor]:
    """(sum of NLL in nats, bytes) over the batch's (B, T) targets that have bytes and a weight:
    float64, int64 scalars.

    `token_bytes`: (V,) bytes of each token, 0 for special tokens.
    """
    device = model.get_device()
    ids, targets = batch.input_ids.to(device), batch.targets.to(device)
    safe = targets.clamp(
        min=0
    )  # a negative target marks "none" in public data; its weight need not be 0 there
    sizes = token_bytes.to(device)[safe].long()
    counted = (sizes > 0) & (targets >= 0) & (batch.weights.to(device) != 0)
    if not counted.any():
        return torch.zeros((), dtype=torch.float64), torch.zeros((), dtype=torch.int64)
    # The head runs on counted positions only, in pieces: (B, T, V) logits never exist.
    logprobs = target_logprobs(model, model.hidden(ids)[counted], safe[counted]).logprobs
    return -logprobs.double().sum().cpu(), sizes[counted].sum().cpu()


def bits_per_byte(model: GPT, batches: Iterable[Batch], token_bytes: Tensor, world: World) -> float:
    """Bits per byte over all ranks' batches; NaN when no target has bytes. Leaves the model in its
    own mode.
    """
    was_training = model.training
    model.eval()
    total, n_bytes = torch.zeros((), dtype=torch.float64), torch.zeros((), dtype=torch.int64)
    for batch in batches:
        nll, size = nll_and_bytes(model, batch, token_bytes)
        total += nll
        n_bytes += size
    model.train(was_training)
    # MPS has no float64; the sums are formed on the CPU and only travel on the device.
    wire = world.device if world.backend == "nccl" else torch.device("cpu")
    total, n_bytes = world.all_reduce_sum(total.to(wire)), world.all_reduce_sum(n_bytes.to(wire))
    return float(total) / (math.log(2) * int(n_bytes)) if int(n_bytes) else math.nan
