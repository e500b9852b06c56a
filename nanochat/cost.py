"""What a model costs, in plain arithmetic: parameters, FLOPs, bytes in memory and on disk. Nothing
here runs a model.

Shape legend: N tokens of a micro-batch, D model width, K width of keys, L layers, V vocabulary, W
ranks. Per layer and token the backward pass needs, in elements: what enters the two norms (2D) and
the norms of q and k (D + K), the two normalised inputs (2D), q, k, v and the attended values (2D +
2K), both halves of the MLP (8D); with residual mixing also what enters it (D) and, on layers that
have them, value embeddings (K). Checked against the tensors that autograd saves
(tests/test_cost.py).
"""

from __future__ import annotations

from dataclasses import dataclass

from nanochat.gpt_config import SMEAR_CHANNELS, GPTConfig

GIB = 2**30
MASTER_BYTES = 4  # weights, gradients and optimizer states are fp32
MUON_TEMPORARIES = (
    6 * 2**26 * 4
)  # a stack of at most 2^26 elements in fp32, six times (measured in bench/memory.py)
LOGIT_BUFFER = {
    "cpu": 4 * 2**20,
    "cuda": 128 * 2**20,
}  # objective.py: of a chunk of logits, and of an fp32 block
RUNTIME_BYTES = {"cpu": int(0.35 * GIB), "cuda": int(0.6 * GIB)}  # libraries, context, workspaces
# Gradients of one block's activations while it is passed backwards. On a CPU in blocks, measured
# (d12, 8 x 2048, bf16). On a GPU in widths, from a step simulated on shapes
# (docs/reliability.md): fullest inside of the MLP, whose squared ReLU has three tensors of four widths, beside two of one.
CPU_BACKWARD_BLOCKS = 1.5
CUDA_BACKWARD_WIDTHS = 14
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
    def multiplied(self) -> int:
        """Those that every token is multiplied with; the rest are rows that it looks up."""
        return self.matrices + self.head

    def __str__(self) -> str:
        sizes = f"{millions(self.total)} parameters, {millions(self.multiplied)} of them multiplied"
        if not self.value_embeddings:
            return sizes
        return f"{sizes} ({millions(self.value_embeddings)} are tables of values)"

    @property
    def state_elements(self) -> int:
        """Numbers that the optimizer keeps: one for each element trained by Muon, two by AdamW."""
        return self.matrices + 2 * (self.total - self.matrices)


def millions(count: int) -> str:
    """`561M`; a few as they are."""
    return f"{count / 1e6:,.0f}M" if count >= 10**7 else f"{count:,}"


def count_parameters(config: GPTConfig) -> Parameters:
    width, kv = config.n_embd, config.kv_dim
    gated = sum(config.has_value_embedding(layer) for layer in range(config.n_layer))
    matrices = config.n_layer * (2 * width * width + 2 * width * kv + 8 * width * width)
    matrices += gated * config.value_gate_channels * config.n_kv_head
    table = config.padded_vocab_size * width
    scalars = 2 * config.n_layer * config.residual_mixing + config.backout
    scalars += (SMEAR_CHANNELS + 1) * config.smear
    return Parameters(matrices, table, table, gated * config.padded_vocab_size * kv, scalars)


def flops_per_token(config: GPTConfig, seq_len: int | None = None) -> int:
    """Training FLOPs of a token: 6 for each matrix element, 12 * heads * head_dim * visible keys
    for each layer.
    """
    counts, tokens = count_parameters(config), seq_len or config.sequence_len
    windows = [config.window(layer) for layer in range(config.n_layer)]
    keys = sum(tokens if window < 0 else min(window, tokens) for window in windows)
    return 6 * counts.multiplied + 12 * config.n_embd * keys


def checkpoint_bytes(config: GPTConfig, with_optimizer: bool = True) -> int:
    """Size of one checkpoint on disk: fp32 weights and, for resuming, the optimizer states."""
    counts = count_parameters(config)
    return MASTER_BYTES * (counts.total + (counts.state_elements if with_optimizer else 0))


def kv_cache_bytes(config: GPTConfig, n_tokens: int, element_bytes: int = 2) -> int:
    """Keys and values of `n_tokens` positions over all layers and sequences."""
    return 2 * config.n_layer * config.kv_dim * n_tokens * element_bytes


def activation_bytes(config: GPTConfig, element_bytes: int, norm_bytes: int) -> tuple[float, float]:
    """(kept for backward per token and layer, kept where the block is checkpointed)."""
    width, kv = config.n_embd, config.kv_dim
    mixing = element_bytes * width if config.residual_mixing else 0
    value = element_bytes * kv / 2 if config.value_embeddings else 0
    norms = norm_bytes * (2 * width + width + kv)
    products = element_bytes * (2 * width + 2 * width + 2 * kv + 8 * width)
    return norms + products + mixing + value, element_bytes * width + mixing + value


@dataclass(frozen=True)
class Memory:
    """Bytes on one device at the fullest moment: at the head, in the backward pass, or in the
    optimizer's update.
    """

    weights: int
    gradients: int
    optimizer: int
    activations: int
    cast_weights: int  # in the compute type, the blocks' kept until their backward
    head: int  # logits under work, and the head's gradient while it is being added up
    # of this micro-batch, beside those of earlier ones; less than 0 where there are no earlier ones
    new_gradients: int
    update: int  # temporaries of the optimizer's step; not at the same time as the four above
    runtime: int

    @property
    def peak(self) -> int:
        passing = self.activations + self.cast_weights + self.head + self.new_gradients
        return (
            self.weights
            + self.gradients
            + self.optimizer
            + max(passing, self.update)
            + self.runtime
        )

    def table(self) -> str:
        """One line for each part, in GiB."""
        parts = [
            (name.replace("_", " "), getattr(self, name)) for name in self.__dataclass_fields__
        ]
        return "\n".join(
            f"  {name:13} {size / GIB:8.2f} GiB" for name, size in [*parts, ("peak", self.peak)]
        )


@dataclass(frozen=True)
class _Moment:
    """What one moment of a step needs beside weights, optimizer states and the gradients of earlier
    micro-batches.
    """

    activations: float
    casts: float = 0
    head: float = 0
    new_gradients: float = 0

    @property
    def total(self) -> float:
        return self.activations + self.casts + self.head + self.new_gradients


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
    compiled: bool = False,
    micro_batches: int = 2,
) -> Memory:
    """Peak memory of training on each of `world_size` devices with micro-batches of `rows` x
    `seq_len`.

    `element_bytes`: of the type the model computes in. `shard_model`: weights and gradients in
    pieces too, never compiled. `compiled`: the whole forward pass. `micro_batches`: of an optimizer
    step; one alone finds no gradients.
    """
    kind = device_type if device_type in RUNTIME_BYTES else "cpu"
    counts, in_pieces = count_parameters(config), shard_model and world_size > 1
    shape = (config, rows, seq_len, element_bytes, checkpointing)
    if kind == "cpu":
        moment = _cpu_moment(*shape)
    else:
        several = micro_batches > 1 or in_pieces
        moment = max(
            _cuda_moments(*shape, compiled and not in_pieces, several),
            key=lambda moment: moment.total,
        )
    fixed, states = MASTER_BYTES * counts.total, MASTER_BYTES * counts.state_elements // world_size
    casts, update = moment.casts, _update(config, world_size)
    if in_pieces:
        fixed, casts, update = _in_pieces(config, world_size, element_bytes)
    lasting = fixed + fixed + states + int(moment.total - moment.casts + casts)
    return Memory(
        weights=fixed,
        gradients=fixed,
        optimizer=states,
        activations=int(moment.activations),
        cast_weights=int(casts),
        head=int(moment.head),
        new_gradients=int(moment.new_gradients),
        update=update,
        runtime=RUNTIME_BYTES[kind] + int(FRAGMENTATION[kind] * lasting),
    )


def _cpu_moment(
    config: GPTConfig, rows: int, seq_len: int, element_bytes: int, checkpointing: bool
) -> _Moment:
    """One bound for the whole pass. CPUs have no fused norm and keep its fp32 input."""
    counts, n_tokens = count_parameters(config), rows * seq_len
    full, kept = activation_bytes(config, element_bytes, norm_bytes=MASTER_BYTES)
    n_full = 1 if checkpointing else config.n_layer
    ends = (
        n_tokens * config.n_embd * (3 * element_bytes + 2 * MASTER_BYTES)
    )  # embedding, final norm and its gradient
    layers = n_tokens * (
        (n_full + CPU_BACKWARD_BLOCKS) * full + (config.n_layer * kept if checkpointing else 0)
    )
    casts = counts.matrices * n_full // config.n_layer + counts.head
    head = MASTER_BYTES * counts.head + 3 * LOGIT_BUFFER["cpu"]
    return _Moment(layers + ends, casts * element_bytes * (element_bytes != MASTER_BYTES), head)


def _cuda_moments(
    config: GPTConfig,
    rows: int,
    seq_len: int,
    element_bytes: int,
    checkpointing: bool,
    compiled: bool,
    several: bool,
) -> list[_Moment]:
    """The moments that can be the fullest: at the head, in the last block's backward, where
    gradients are handed out.

    `several`: there are gradients of earlier micro-batches.
    """
    counts, n_tokens = count_parameters(config), rows * seq_len
    full, kept = activation_bytes(config, element_bytes, element_bytes)
    width = n_tokens * config.n_embd * element_bytes
    n_windows = sum(0 <= config.window(layer) < seq_len - 1 for layer in range(config.n_layer))
    masks = (
        element_bytes * seq_len**2 * (min(1, n_windows) if compiled or checkpointing else n_windows)
    )
    layers = n_tokens * config.n_layer * (kept if checkpointing else full) + masks
    cast_bytes = element_bytes * (element_bytes != MASTER_BYTES)
    blocks = cast_bytes * counts.matrices
    head = MASTER_BYTES * counts.head
    missing = 0 if several else -MASTER_BYTES * counts.total
    # The head's gradient is made in fp32 from a product in the compute type.
    working = head + element_bytes * counts.head + _logit_buffers(config, n_tokens, element_bytes)
    at_head = _Moment(
        layers + 5 * width,
        (0 if checkpointing else blocks) + cast_bytes * counts.head,
        working,
        missing,
    )
    backward = _Moment(
        layers + (n_tokens * full if checkpointing else 0) + (2 + CUDA_BACKWARD_WIDTHS) * width,
        blocks / config.n_layer if checkpointing else blocks,
        new_gradients=missing + (0 if several else head),
    )
    # At the end a table's gradient is added up in fp32. Compiled, one function returns the
    # gradients of all blocks and tables there; only then are they added to earlier ones.
    last = MASTER_BYTES * counts.total - head if compiled else head
    return [at_head, backward, _Moment(6 * width, new_gradients=last if several else 0)]


def _logit_buffers(config: GPTConfig, n_tokens: int, element_bytes: int) -> int:
    """Of objective.py on a GPU: two chunks in the compute type, one done and one under work, and
    two fp32 blocks.
    """
    chunk, block = (
        min(n_tokens * config.vocab_size * size, LOGIT_BUFFER["cuda"])
        for size in (element_bytes, 4)
    )
    return (2 if n_tokens * config.vocab_size * element_bytes > chunk else 1) * chunk + 2 * block


def _update(config: GPTConfig, world_size: int) -> int:
    """Bytes beside weights, gradients and states: a stack of gradients that is being made, or Muon
    at work on one.

    By then the tables are updated and their gradients gone. The largest stack: one side of the MLPs
    of all layers.
    """
    counts = count_parameters(config)
    stack = MASTER_BYTES * 4 * config.n_embd**2 * config.n_layer
    muon = stack // world_size + min(MUON_TEMPORARIES, 6 * stack)
    sums = (
        MASTER_BYTES * counts.total // world_size if world_size > 1 else 0
    )  # over ranks, all on their way
    return max(
        stack + sums,
        MASTER_BYTES * counts.head,
        muon - MASTER_BYTES * (counts.total - counts.matrices),
    )


def _in_pieces(config: GPTConfig, world_size: int, element_bytes: int) -> tuple[int, int, int]:
    """(weights, or as much gradients; what is whole on its way; update, evaluation or begin) of a
    model cut by FSDP.

    The ends are whole from forward to backward. Two blocks and two tables are there at once, one in
    use and one being fetched, and what one of them leaves as gradients, with a copy to send. A run
    begins with whole weights alone.
    """
    counts = count_parameters(config)
    ends = counts.head + counts.embedding + counts.scalars
    fixed = MASTER_BYTES * (counts.total // world_size + ends)
    block, table = counts.matrices // config.n_layer, config.padded_vocab_size * config.kv_dim
    passing = (3 * element_bytes + MASTER_BYTES) * block + element_bytes * counts.head
    passing += 4 * MASTER_BYTES * table * (counts.value_embeddings > 0)
    stack = (
        MASTER_BYTES * 4 * config.n_embd**2 * config.n_layer // world_size
    )  # sent twice: to its owner and back
    update = 4 * stack + min(MUON_TEMPORARIES, 6 * stack)
    begin = (
        MASTER_BYTES * (counts.total + (counts.total - counts.state_elements) // world_size)
        - 2 * fixed
    )
    return fixed, passing, max(update, element_bytes * counts.total, begin)


def fitting_rows(
    config: GPTConfig,
    rows: int,
    seq_len: int,
    budget_bytes: float,
    step_rows: int | None = None,
    **how: object,
) -> tuple[int, bool]:
    """(rows of a micro-batch, activation checkpointing) that fit: a power of two or `rows` itself,
    else (0, True).

    `step_rows`: of a rank in an optimizer step. Checkpointing costs a third of the speed, so it is
    taken only where without it not even one row would fit.
    """
    wished = bool(how.pop("checkpointing", False))
    choices = [rows] + [2**power for power in range(20, -1, -1) if 2**power < rows]
    for checkpointing in [True] if wished else [False, True]:
        for choice in choices:
            n_micro = -(-(step_rows or 2 * choice) // choice)
            needs = memory(
                config,
                choice,
                seq_len,
                checkpointing=checkpointing,
                micro_batches=n_micro,
                **how,  # type: ignore[arg-type]
            )
            if needs.peak <= budget_bytes:
                return choice, checkpointing
    return 0, True
