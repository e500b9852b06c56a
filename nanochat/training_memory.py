"""Memory that a training step takes on one device, by arithmetic: a sum of parts with names.

Weights, gradients and optimizer states last from step to step. What comes on top differs from
moment to moment, and the fullest counts: at the head, where all layers have kept their activations
and logits are under work; in the backward pass of the last block; where gradients are handed out;
in the optimizer's update. Then what no arithmetic tells: libraries and fragmentation.

Shape legend: N tokens of a micro-batch, D model width, K width of keys, L layers, V vocabulary, W
ranks.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

from nanochat.cost import GIB, MASTER_BYTES, Parameters, count_parameters
from nanochat.gpt_config import GPTConfig

LOGIT_BUFFER = {"cpu": 4 * 2**20, "cuda": 128 * 2**20}  # of objective.py, in either type
MUON_BYTES = (
    6 * 2**26 * MASTER_BYTES
)  # six times a stack of at most 2^26 elements (bench/memory.py)
# Gradients of one block's activations while it is passed backwards. On a CPU in blocks, measured
# (d12, 8 x 2048, bf16). On a GPU in tensors (N, D), from a step simulated on shapes
# (docs/reliability.md): fullest inside of the MLP, whose squared ReLU has three of four times the
# width, beside two of one.
CPU_BACKWARD_BLOCKS = 1.5
CUDA_BACKWARD_TENSORS = 14
RUNTIME_BYTES = {"cpu": int(0.35 * GIB), "cuda": int(0.6 * GIB)}  # libraries, context, workspaces
FRAGMENTATION = {"cpu": 0.0, "cuda": 0.04}  # what the allocator cannot hand out again


@dataclass(frozen=True, kw_only=True)
class StepShape:
    """All of a training step that its memory depends on.

    `rows` of `seq_len` tokens in a micro-batch, `micro_batches` of them on a rank (one alone finds
    no gradients of earlier ones). `element_bytes`: of the type the model computes in.
    `shard_model`: weights and gradients in pieces over the ranks too, never compiled. `compiled`:
    the whole forward pass.
    """

    config: GPTConfig
    rows: int
    seq_len: int
    world_size: int = 1
    element_bytes: int = 2
    checkpointing: bool = False
    device_type: str = "cuda"
    shard_model: bool = False
    compiled: bool = False
    micro_batches: int = 2

    @property
    def device(self) -> str:
        return self.device_type if self.device_type in RUNTIME_BYTES else "cpu"

    @property
    def sharded(self) -> bool:
        return self.shard_model and self.world_size > 1

    @property
    def n_tokens(self) -> int:
        return self.rows * self.seq_len

    @property
    def tensor(self) -> int:
        """Bytes of one (N, D) in the compute type."""
        return self.n_tokens * self.config.n_embd * self.element_bytes

    @property
    def cast_bytes(self) -> int:
        """Of a weight's copy in the compute type; none is made where that is fp32."""
        return 0 if self.element_bytes == MASTER_BYTES else self.element_bytes

    @cached_property
    def counts(self) -> Parameters:
        return count_parameters(self.config)

    @property
    def all_gradients(self) -> int:
        return MASTER_BYTES * self.counts.total

    @property
    def head_gradient(self) -> int:
        return MASTER_BYTES * self.counts.head

    @property
    def largest_stack(self) -> int:
        """Of matrices that Muon works on: one side of the MLPs of all layers, fp32."""
        return MASTER_BYTES * 4 * self.config.n_embd**2 * self.config.n_layer


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Bytes on one device at the fullest moment."""

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
        lasting = self.weights + self.gradients + self.optimizer + self.runtime
        passing = self.activations + self.cast_weights + self.head + self.new_gradients
        return lasting + max(passing, self.update)

    def table(self) -> str:
        """One line for each part, in GiB."""
        parts = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return "\n".join(
            f"  {name.replace('_', ' '):13} {size / GIB:8.2f} GiB"
            for name, size in {**parts, "peak": self.peak}.items()
        )


def training_memory(step: StepShape) -> Memory:
    """Peak memory of a training step on each of the devices."""
    moment = _cpu_pass(step) if step.device == "cpu" else _fullest_on_gpu(step)
    weights, casts, update = step.all_gradients, moment.cast_weights, _update(step)
    if step.sharded:
        weights, casts, update = _sharded(step)
    states = MASTER_BYTES * step.counts.state_elements // step.world_size
    passing = moment.activations + moment.head + moment.new_gradients + casts
    used = 2 * weights + states + int(passing)
    return Memory(
        weights=weights,
        gradients=weights,
        optimizer=states,
        activations=int(moment.activations),
        cast_weights=int(casts),
        head=int(moment.head),
        new_gradients=int(moment.new_gradients),
        update=update,
        runtime=RUNTIME_BYTES[step.device] + int(FRAGMENTATION[step.device] * used),
    )


def activation_bytes(config: GPTConfig, element_bytes: int, norm_bytes: int) -> tuple[float, float]:
    """(per token and layer kept for the backward pass, kept where the block is checkpointed).

    In elements: what enters the two norms (2D) and the norms of q and k (D + K), in `norm_bytes`
    each; the two normalised inputs (2D), q, k, v and the attended values (2D + 2K), both halves of
    the MLP (8D); with residual mixing also what enters it (D) and, on the half of the layers that
    have them, value embeddings (K). tests/test_cost.py compares this with what autograd saves.
    """
    width, kv = config.n_embd, config.kv_dim
    extras = element_bytes * width if config.residual_mixing else 0.0
    extras += element_bytes * kv / 2 if config.value_embeddings else 0.0
    norms = norm_bytes * (2 * width + width + kv)
    products = element_bytes * (2 * width + 2 * width + 2 * kv + 8 * width)
    return norms + products + extras, element_bytes * width + extras


@dataclass(frozen=True, kw_only=True)
class _Moment:
    """What one moment needs beside weights, states and the gradients of earlier micro-batches."""

    activations: float
    cast_weights: float = 0
    head: float = 0
    new_gradients: float = 0

    @property
    def total(self) -> float:
        return self.activations + self.cast_weights + self.head + self.new_gradients


def _cpu_pass(step: StepShape) -> _Moment:
    """One bound for the whole pass. CPUs have no fused norm and keep its fp32 input."""
    config, n_layer = step.config, step.config.n_layer
    full, kept = activation_bytes(config, step.element_bytes, norm_bytes=MASTER_BYTES)
    n_full = 1 if step.checkpointing else n_layer
    layers = (n_full + CPU_BACKWARD_BLOCKS) * full
    if step.checkpointing:
        layers += n_layer * kept
    # The embedding, the final norm and its gradient.
    ends = config.n_embd * (3 * step.element_bytes + 2 * MASTER_BYTES)
    casts = step.counts.matrices * n_full // n_layer + step.counts.head
    return _Moment(
        activations=step.n_tokens * (layers + ends),
        cast_weights=step.cast_bytes * casts,
        head=step.head_gradient + 3 * LOGIT_BUFFER["cpu"],
    )


def _fullest_on_gpu(step: StepShape) -> _Moment:
    config, counts = step.config, step.counts
    full, kept = activation_bytes(config, step.element_bytes, step.element_bytes)
    layers = step.n_tokens * config.n_layer * (kept if step.checkpointing else full) + _masks(step)
    casts = step.cast_bytes * counts.matrices
    # A first micro-batch finds no gradients, though they are counted.
    several = step.micro_batches > 1 or step.sharded
    absent = 0 if several else -step.all_gradients
    at_head = _Moment(
        activations=layers + 5 * step.tensor,
        cast_weights=(0 if step.checkpointing else casts) + step.cast_bytes * counts.head,
        # The head's gradient is made in fp32 from a product in the compute type.
        head=step.head_gradient + step.element_bytes * counts.head + _logit_buffers(step),
        new_gradients=absent,
    )
    in_backward = _Moment(
        activations=layers
        + (step.n_tokens * full if step.checkpointing else 0)
        + (2 + CUDA_BACKWARD_TENSORS) * step.tensor,
        cast_weights=casts / config.n_layer if step.checkpointing else casts,
        new_gradients=absent + (0 if several else step.head_gradient),
    )
    # At the end a table's gradient is added up in fp32. Compiled, one function returns the
    # gradients of all blocks and tables there; only then are they added to earlier ones.
    together = step.compiled and not step.sharded
    last = step.all_gradients - step.head_gradient if together else step.head_gradient
    at_end = _Moment(activations=6 * step.tensor, new_gradients=last if several else 0)
    return max(at_head, in_backward, at_end, key=lambda moment: moment.total)


def _masks(step: StepShape) -> int:
    """Of attention windows, one for each layer that has one, or one for all."""
    windows = [step.config.window(layer) for layer in range(step.config.n_layer)]
    n_masks = sum(0 <= window < step.seq_len - 1 for window in windows)
    if (step.compiled and not step.sharded) or step.checkpointing:
        n_masks = min(1, n_masks)
    return step.element_bytes * step.seq_len**2 * n_masks


def _logit_buffers(step: StepShape) -> int:
    """Of objective.py on a GPU: two chunks in the compute type, one done and one under work, and
    two fp32 blocks.
    """
    n_logits, most = step.n_tokens * step.config.vocab_size, LOGIT_BUFFER["cuda"]
    chunk = min(n_logits * step.element_bytes, most)
    n_chunks = 2 if n_logits * step.element_bytes > chunk else 1
    return n_chunks * chunk + 2 * min(n_logits * MASTER_BYTES, most)


def _update(step: StepShape) -> int:
    """Beside weights, gradients and states: a stack of gradients that is being made (and the sums
    over ranks, all on their way), or Muon at work on one. By then the tables are updated and their
    gradients gone.
    """
    counts, stack = step.counts, step.largest_stack
    sums = step.all_gradients // step.world_size if step.world_size > 1 else 0
    muon = stack // step.world_size + min(MUON_BYTES, 6 * stack)
    gone = MASTER_BYTES * (counts.total - counts.matrices)
    return max(stack + sums, step.head_gradient, muon - gone)


def _sharded(step: StepShape) -> tuple[int, int, int]:
    """(weights, or as much gradients; what is whole on its way; update, evaluation or begin) of a
    model cut by FSDP.

    The ends are whole from forward to backward. Two blocks and two tables are there at once, one in
    use and one being fetched, and what one of them leaves as gradients, with a copy to send.
    """
    config, counts, world_size = step.config, step.counts, step.world_size
    ends = counts.head + counts.embedding + counts.scalars
    weights = MASTER_BYTES * (counts.total // world_size + ends)
    block, table = counts.matrices // config.n_layer, config.padded_vocab_size * config.kv_dim
    passing = (3 * step.element_bytes + MASTER_BYTES) * block + step.element_bytes * counts.head
    if config.value_embeddings:
        passing += 4 * MASTER_BYTES * table
    stack = step.largest_stack // world_size  # sent twice: to its owner and back
    update = 4 * stack + min(MUON_BYTES, 6 * stack)
    evaluation = step.element_bytes * counts.total  # a whole copy in the compute type
    # A run begins with whole weights alone, without the states that are counted.
    no_states = (counts.total - counts.state_elements) // world_size
    begin = MASTER_BYTES * (counts.total + no_states) - 2 * weights
    return weights, passing, max(update, evaluation, begin)


def fitting_rows(
    step: StepShape, budget_bytes: float, step_rows: int | None = None
) -> tuple[int, bool]:
    """(rows of a micro-batch, activation checkpointing) that fit: a power of two or the step's
    rows, else (0, True).

    `step_rows`: of a rank in an optimizer step. Checkpointing costs a third of the speed, so it is
    taken only where without it not even one row would fit.
    """
    choices = [step.rows] + [2**power for power in range(20, -1, -1) if 2**power < step.rows]
    for checkpointing in [True] if step.checkpointing else [False, True]:
        for rows in choices:
            tried = replace(
                step,
                rows=rows,
                checkpointing=checkpointing,
                micro_batches=-(-(step_rows or 2 * rows) // rows),
            )
            if training_memory(tried).peak <= budget_bytes:
                return rows, checkpointing
    return 0, True
