"""One dial, `--depth`: everything a pretraining run needs follows from it, each formula with its
source.

Pure functions of plain numbers; flags that are given replace what would follow.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

REFERENCE_DEPTH = 12
REFERENCE_BATCH_TOKENS = 2**19


@dataclass(frozen=True)
class ModelShape:
    """Width and heads of a model of some depth."""

    n_layer: int
    n_embd: int
    n_head: int


def shape_for_depth(depth: int, aspect_ratio: int = 64, head_dim: int = 128) -> ModelShape:
    """Width = depth * aspect_ratio rounded up to a multiple of head_dim; one head per head_dim of
    it.
    """
    width = -(-depth * aspect_ratio // head_dim) * head_dim
    return ModelShape(depth, width, width // head_dim)


def scaling_params(depth: int, vocab_size: int, aspect_ratio: int = 64, head_dim: int = 128) -> int:
    """Parameters that scaling laws count: the matrices of the blocks (12 width^2 each) and the
    head, no embeddings.
    """
    width = shape_for_depth(depth, aspect_ratio, head_dim).n_embd
    return 12 * depth * width**2 + width * vocab_size


def batch_tokens(horizon_tokens: float, reference_horizon_tokens: float) -> int:
    """Total batch: proportional to horizon^0.383 (arXiv 2505.13738), through 2^19 at depth 12; a
    power of two.
    """
    exact = REFERENCE_BATCH_TOKENS * (horizon_tokens / reference_horizon_tokens) ** 0.383
    return 2 ** round(math.log2(exact))


# Tiny batches belong to short runs, for which the square root alone is far too careful: d4, 240
# steps of 8,192 tokens of prose reached 1.943 bits per byte at 0.125 (the square root), 1.778 at
# 0.5 (docs/LOG.md).
LEAST_LR_SCALE = 0.5


def lr_scales(total_batch_tokens: int) -> tuple[float, float]:
    """(of tables and matrices, of scalars): the square root of the batch, 1 at 2^19 tokens; the
    first at least half.

    The scalars know no floor: at four times the square root the same run ended 0.06 bits per byte
    worse.
    """
    exact = math.sqrt(total_batch_tokens / REFERENCE_BATCH_TOKENS)
    return max(LEAST_LR_SCALE, exact), exact


def weight_decay_scale(
    total_batch_tokens: int, horizon_tokens: float, reference_horizon_tokens: float
) -> float:
    """Decay that keeps the averaging time of AdamW a fixed share of the run (arXiv 2405.13698)."""
    return (
        math.sqrt(total_batch_tokens / REFERENCE_BATCH_TOKENS)
        * reference_horizon_tokens
        / horizon_tokens
    )
