"""What a model costs, in plain arithmetic: parameters, FLOPs, bytes in memory and on disk. Nothing here runs a model.

Shape legend: N tokens of a micro-batch, D model width, K width of keys, L layers, V vocabulary, W ranks.
Per layer and token the backward pass needs, in elements: what enters the two norms (2D) and the norms of q and k
(D + K), the two normalised inputs (2D), q, k, v and the attended values (2D + 2K), both halves of the MLP (8D); the
modern generation also what enters its residual mixing (D) and, on layers that have them, value embeddings (K).
Checked against the tensors that autograd saves (tests/test_cost.py).
"""

from __future__ import annotations

from dataclasses import dataclass

from nanochat.gpt import N_GATE_INPUTS, N_SMEAR_INPUTS, GPTConfig

GIB = 2**30
MASTER_BYTES = 4  # weights, gradients and optimizer states are fp32
MUON_TEMPORARIES = 6 * 2**26 * 4  # a stack of at most 2^26 elements in fp32, six times (measured in bench/memory.py)
LOGIT_BUFFERS = {"cpu": (8 + 2 * 2) * 2**20, "cuda": 3 * 128 * 2**20}  # objective.py: a chunk and two fp32 blocks
RUNTIME_BYTES = {"cpu": int(0.35 * GIB), "cuda": int(0.6 * GIB)}  # libraries, context, workspaces
# Gradients of one block's activations while it is passed backwards, in blocks. Measured on a CPU (d12, 8 x 2048, bf16):
# 9.77 GiB, 5.17 with checkpointing, where 1.5 gives 10.4 and 4.9; GPUs have fused norms and are not measured yet.
BACKWARD_BLOCKS = {"cpu": 1.5, "cuda": 1.0}
FRAGMENTATION = {"cpu": 0.0, "cuda": 0.04}  # what the allocator cannot hand out again


@dataclass(frozen=True)
class Parameters:
    """Counts by the part of the model."""

    matrices: int  # of the blocks: what Muon trains
    head: int
    embedding: int
    value_embeddings: int
    scalars: int

    @property
    def total(self) -> int:
        return self.matrices + self.head + self.embedding + self.value_embeddings + self.scalars

    @property
    def state_elements(self) -> int:
        """Numbers that the optimizer keeps: one for each element trained by Muon, two by AdamW."""
        return self.matrices + 2 * (self.total - self.matrices)


def count_parameters(config: GPTConfig) -> Parameters:
    width, kv = config.n_embd, config.kv_dim
    gated = sum(config.has_value_embedding(layer) for layer in range(config.n_layer))
    matrices = config.n_layer * (2 * width * width + 2 * width * kv + 8 * width * width)
    matrices += gated * N_GATE_INPUTS * config.n_kv_head
    table = config.padded_vocab_size * width
    scalars = 2 * config.n_layer + N_SMEAR_INPUTS + 2 if config.generation == "modern" else 0
    return Parameters(matrices, table, table, gated * config.padded_vocab_size * kv, scalars)


def flops_per_token(config: GPTConfig, seq_len: int | None = None) -> int:
    """Training FLOPs of a token: 6 for each matrix element, 12 * heads * head_dim * visible keys for each layer."""
    counts, tokens = count_parameters(config), seq_len or config.sequence_len
    windows = [config.window(layer) for layer in range(config.n_layer)]
    keys = sum(tokens if window < 0 else min(window, tokens) for window in windows)
    return 6 * (counts.matrices + counts.head) + 12 * config.n_embd * keys


def checkpoint_bytes(config: GPTConfig, with_optimizer: bool = True) -> int:
    """Size of one checkpoint on disk: fp32 weights and, for resuming, the optimizer states."""
    counts = count_parameters(config)
    return MASTER_BYTES * (counts.total + (counts.state_elements if with_optimizer else 0))


def kv_cache_bytes(config: GPTConfig, n_tokens: int, element_bytes: int = 2) -> int:
    """Keys and values of `n_tokens` positions over all layers and sequences."""
    return 2 * config.n_layer * config.kv_dim * n_tokens * element_bytes


def activation_bytes(config: GPTConfig, element_bytes: int, norm_bytes: int) -> tuple[float, float]:
    """(kept for backward per token and layer, kept where the block is checkpointed)."""
    width, kv, modern = config.n_embd, config.kv_dim, config.generation == "modern"
    mixing = element_bytes * width if modern else 0
    value = element_bytes * kv / 2 if modern else 0
    norms = norm_bytes * (2 * width + width + kv)
    products = element_bytes * (2 * width + 2 * width + 2 * kv + 8 * width)
    return norms + products + mixing + value, element_bytes * width + mixing + value


@dataclass(frozen=True)
class Memory:
    """Bytes on one device at the fullest moment: late in the forward pass, or in the optimizer's update."""

    weights: int
    gradients: int
    optimizer: int
    activations: int
    cast_weights: int  # of the blocks in the compute type, kept until their backward
    head: int  # logits under work, and the head's gradient while it is being added up
    update: int  # temporaries of the optimizer's step; not at the same time as the three above
    runtime: int

    @property
    def peak(self) -> int:
        passing = self.activations + self.cast_weights + self.head
        return self.weights + self.gradients + self.optimizer + max(passing, self.update) + self.runtime

    def table(self) -> str:
        """One line for each part, in GiB."""
        parts = [(name.replace("_", " "), getattr(self, name)) for name in self.__dataclass_fields__]
        return "\n".join(f"  {name:13} {size / GIB:8.2f} GiB" for name, size in [*parts, ("peak", self.peak)])


def memory(
    config: GPTConfig,
    rows: int,
    seq_len: int,
    *,
    world_size: int = 1,
    element_bytes: int = 2,
    checkpointing: bool = False,
    device_type: str = "cuda",
    shard_model: bool = False,
) -> Memory:
    """Peak memory of training on each of `world_size` devices with micro-batches of `rows` x `seq_len`.

    `element_bytes`: of the type the model computes in. `shard_model`: weights and gradients in pieces too. An upper
    bound where the model is compiled, which keeps less.
    """
    kind = device_type if device_type in RUNTIME_BYTES else "cpu"
    counts, n_tokens, width = count_parameters(config), rows * seq_len, config.n_embd
    norm_bytes = element_bytes if kind == "cuda" else 4  # CPUs have no fused norm and keep its fp32 input
    full, kept = activation_bytes(config, element_bytes, norm_bytes)
    n_full = 1 if checkpointing else config.n_layer
    n_alive = n_full + BACKWARD_BLOCKS[kind]
    ends = n_tokens * width * (3 * element_bytes + 2 * norm_bytes)  # embedding, smear, final norm and its gradient
    activations = n_tokens * (n_alive * full + (config.n_layer * kept if checkpointing else 0)) + ends
    casts = 0
    if element_bytes != MASTER_BYTES:
        casts = counts.matrices * element_bytes * n_full // config.n_layer + counts.head * element_bytes
    head = MASTER_BYTES * counts.head + LOGIT_BUFFERS[kind]
    stack = MASTER_BYTES * 4 * width * width * config.n_layer  # the largest: the MLP of all layers
    fixed = MASTER_BYTES * counts.total
    states = MASTER_BYTES * counts.state_elements // world_size
    update = 2 * stack // world_size + min(MUON_TEMPORARIES, 6 * stack)
    if shard_model and world_size > 1:
        fixed, casts, update = _in_pieces(config, world_size, element_bytes)
    lasting = fixed + fixed + states + int(activations) + int(casts) + head
    return Memory(
        weights=fixed,
        gradients=fixed,
        optimizer=states,
        activations=int(activations),
        cast_weights=int(casts),
        head=head,
        update=update,
        runtime=RUNTIME_BYTES[kind] + int(FRAGMENTATION[kind] * lasting),
    )


def _in_pieces(config: GPTConfig, world_size: int, element_bytes: int) -> tuple[int, int, int]:
    """(weights, or as much gradients; what is whole on its way; update, evaluation or begin) of a model cut by FSDP.

    The ends are whole from forward to backward. Two blocks and two tables are there at once, one in use and one being
    fetched, and what one of them leaves as gradients, with a copy to send. A run begins with whole weights alone.
    """
    counts = count_parameters(config)
    ends = counts.head + counts.embedding + counts.scalars
    fixed = MASTER_BYTES * (counts.total // world_size + ends)
    block, table = counts.matrices // config.n_layer, config.padded_vocab_size * config.kv_dim
    passing = (3 * element_bytes + MASTER_BYTES) * block + element_bytes * counts.head
    passing += 4 * MASTER_BYTES * table * (counts.value_embeddings > 0)
    stack = MASTER_BYTES * 4 * config.n_embd**2 * config.n_layer // world_size  # sent twice: to its owner and back
    update = 4 * stack + min(MUON_TEMPORARIES, 6 * stack)
    begin = MASTER_BYTES * (counts.total + (counts.total - counts.state_elements) // world_size) - 2 * fixed
    return fixed, passing, max(update, element_bytes * counts.total, begin)


def fitting_rows(config: GPTConfig, rows: int, seq_len: int, budget_bytes: float, **how: object) -> tuple[int, bool]:
    """(rows of a micro-batch, activation checkpointing) that fit: a power of two or `rows` itself, else (0, True).

    Checkpointing costs a third of the speed, so it is taken only where without it not even one row would fit.
    """
    wished = bool(how.pop("checkpointing", False))
    choices = [rows] + [2**power for power in range(20, -1, -1) if 2**power < rows]
    for checkpointing in [True] if wished else [False, True]:
        for choice in choices:
            peak = memory(config, choice, seq_len, checkpointing=checkpointing, **how).peak  # type: ignore[arg-type]
            if peak <= budget_bytes:
                return choice, checkpointing
    return 0, True
