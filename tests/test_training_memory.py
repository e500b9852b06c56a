"""The arithmetic of a training step's memory against tensors that autograd really saves, against
simulated steps, and against itself.
"""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nanochat.cost import GIB, count_parameters
from nanochat.gpt import GPT
from nanochat.gpt_config import GPTConfig
from nanochat.train.derive import shape_for_depth
from nanochat.training_memory import (
    Memory,
    StepShape,
    activation_bytes,
    fitting_rows,
    training_memory,
)


def of_depth(name: str, depth: int, vocab_size: int = 32768, windows: str = "L") -> GPTConfig:
    shape = shape_for_depth(depth)
    return GPTConfig.preset(
        name,
        vocab_size=vocab_size,
        n_layer=depth,
        n_head=shape.n_head,
        n_kv_head=shape.n_head,
        n_embd=shape.n_embd,
        window_pattern=windows,
    )


def memory(config: GPTConfig, rows: int, seq_len: int = 2048, **how: object) -> Memory:
    return training_memory(StepShape(config=config, rows=rows, seq_len=seq_len, **how))


def saved_bytes(config: GPTConfig, n_tokens: int, checkpointing: bool) -> int:
    """What autograd keeps of a bf16 forward pass, each storage once, parameters left out."""
    model = GPT(config)
    model.init_weights(0)
    model.compute_dtype, model.activation_checkpointing = torch.bfloat16, checkpointing
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, torch.UntypedStorage] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        model.hidden(torch.zeros(1, n_tokens, dtype=torch.long))
    return sum(storage.nbytes() for storage in kept.values())


@pytest.mark.parametrize("generation", ["classic", "modern"])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_activations_are_what_autograd_saves(generation, checkpointing):
    """Difference of two depths: what a layer adds, without what the ends of the model take."""
    shallow, deep = (
        GPTConfig.preset(
            generation,
            sequence_len=256,
            vocab_size=64,
            n_layer=n,
            n_head=2,
            n_kv_head=1,
            n_embd=256,
            window_pattern="L",
        )
        for n in (4, 6)
    )
    saved = (saved_bytes(deep, 256, checkpointing) - saved_bytes(shallow, 256, checkpointing)) / 2
    casts = 2 * (count_parameters(deep).matrices - count_parameters(shallow).matrices) / 2
    full, kept = activation_bytes(deep, 2, norm_bytes=4)
    predicted = 256 * kept if checkpointing else 256 * full + casts
    assert saved == pytest.approx(predicted, rel=0.03)


@pytest.mark.parametrize("name, vocab_size", [("modern", 32768), ("classic", 65536)])
def test_d20_trains_in_24_gb(name, vocab_size):
    step = StepShape(config=of_depth(name, 20, vocab_size), rows=256, seq_len=2048)
    rows, checkpointing = fitting_rows(step, 0.95 * 24 * GIB)
    assert rows >= 2 and not checkpointing
    assert memory(step.config, rows).peak <= 0.95 * 24 * GIB


def test_small_cards_take_small_models():
    d12 = StepShape(config=of_depth("modern", 12), rows=256, seq_len=2048)
    for gb in (6, 8, 12, 16):
        assert fitting_rows(d12, gb * 0.95 * GIB)[0] >= 1, gb
    d20 = StepShape(config=of_depth("modern", 20), rows=256, seq_len=2048)
    assert fitting_rows(d20, 4 * GIB) == (0, True)


@settings(max_examples=50, deadline=None)
@given(
    rows=st.integers(1, 64),
    ranks=st.integers(1, 8),
    depth=st.integers(1, 30),
    element_bytes=st.sampled_from([2, 4]),
    device_type=st.sampled_from(["cuda", "cpu", "mps"]),
)
def test_memory_grows_and_shrinks_as_it_should(rows, ranks, depth, element_bytes, device_type):
    config = of_depth("modern", depth, 5000)
    how = {"world_size": ranks, "element_bytes": element_bytes, "device_type": device_type}
    here = memory(config, rows, 1024, **how)
    assert memory(config, rows + 1, 1024, **how).activations > here.activations
    assert memory(config, rows, 1024, **{**how, "world_size": ranks + 1}).optimizer < here.optimizer
    if depth > 1:
        saving = memory(config, rows, 1024, checkpointing=True, **how)
        assert saving.activations < here.activations
    parts = [float(line.split()[-2]) for line in here.table().splitlines()]
    assert parts[-1] == pytest.approx(here.peak / GIB, abs=0.01)


def test_gradients_of_a_compiled_pass_come_together():
    """With few tokens the fullest moment is the end of the pass, where they are beside those of
    earlier ones.
    """
    config = GPTConfig.preset(
        "modern",
        sequence_len=512,
        vocab_size=8192,
        n_layer=8,
        n_head=2,
        n_kv_head=2,
        n_embd=256,
    )
    few, eager = (
        memory(config, 1, 128, checkpointing=True, compiled=compiled).peak
        for compiled in (True, False)
    )
    assert few > eager + 4 * 8 * 12 * 256**2 * 0.5


# Allocated GiB of a step simulated on shapes alone (docs/reliability.md): preset, depth, rows of
# 2,048 tokens, vocabulary, windows; then eager, eager with checkpointing, compiled, both.
SIMULATED = {
    ("classic", 12, 8, 65536, "L"): (8.57, 3.62, 8.55, 3.80),
    ("classic", 20, 4, 65536, "L"): (15.77, 8.37, 15.75, 8.80),
    ("modern", 12, 16, 32768, "SSSL"): (16.11, 6.97, 16.00, 7.16),
    ("modern", 20, 4, 32768, "SSSL"): (21.25, 13.73, 21.12, 15.54),
}


@pytest.mark.parametrize("case", SIMULATED)
def test_the_plan_of_a_gpu_is_the_simulated_step(case):
    name, depth, rows, vocab_size, windows = case
    config = of_depth(name, depth, vocab_size, windows)
    ways = [(compiled, checkpointing) for compiled in (False, True) for checkpointing in (0, 1)]
    for (compiled, checkpointing), simulated in zip(ways, SIMULATED[case], strict=True):
        needs = memory(config, rows, compiled=compiled, checkpointing=bool(checkpointing))
        assert (needs.peak - needs.runtime) / GIB == pytest.approx(simulated, rel=0.04)
