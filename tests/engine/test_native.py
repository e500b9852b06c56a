"""The C decoder against gpt.py, its definition: both generations, every precision, ragged steps,
any threads.

What rounding may do to a logit depends on the weights: errors grow or fade from layer to layer. So
the yardstick of a low precision is what it does to gpt.py with the same weights, against gpt.py in
fp32. gpt.py rounds every value to bf16. The C code computes in fp32 and rounds fewer of them: what
goes into the cache, on some processors also what goes into a matrix product. Roundings are nearly
independent, so the mean square of its errors over all logits must be smaller; the largest error of
a few thousand need not be.
"""

from __future__ import annotations

import copy
import os
import platform
import random
import tempfile
from dataclasses import fields, replace
from pathlib import Path

import pytest
import torch

from nanochat.engine import Engine
from nanochat.engine.kv_cache import StepView
from nanochat.engine.native import build as build_module
from nanochat.engine.native.decoder import unsupported
from nanochat.engine.quantize import Int8Linear, quantize_int8
from nanochat.engine.scheduler import ScheduledRow
from nanochat.engine.sequence import SamplingParams, Sequence
from nanochat.gpt import GPT
from nanochat.gpt_config import PRESETS, GPTConfig

FLOATS_ONLY = "-mno-amx-tile -mno-avx512f"  # on a processor of today's x86 kind
needs_compiler = pytest.mark.skipif(
    build_module.find_compiler() is None, reason="no C compiler: the engine uses gpt.py alone"
)


def completions(engine, prompts, **params):
    """One greedy completion of each prompt, unless told otherwise. Seeds count up from it."""
    first = params.pop("seed", None)
    requests = []
    for number, prompt in enumerate(prompts):
        seed = None if first is None else first + number
        own = SamplingParams(**{"temperature": 0.0, "seed": seed, **params})
        requests.append(engine.submit(prompt, own))
    return [completion for [completion] in engine.complete(requests)]


def convert(model: GPT, kind: str) -> GPT:
    model.requires_grad_(False)
    if kind != "float32":
        model.bfloat16()
        model.compute_dtype = torch.bfloat16
    return quantize_int8(model) if kind == "int8" else model


def row_of(sequence: Sequence, start: int, stop: int, store_from: int) -> ScheduledRow:
    return ScheduledRow(sequence=sequence, start=start, stop=stop, store_from=store_from)


def steps(vocab: int) -> list[list[ScheduledRow]]:
    """Ragged steps of three sequences: prompts, decoding, prompts beside decoding, a last token
    computed again.
    """
    generator = random.Random(0)
    lengths = (250, 40, 7)
    made = [
        Sequence(n, [generator.randrange(vocab) for _ in range(n)], SamplingParams())
        for n in lengths
    ]
    for number, sequence in enumerate(made):
        sequence.pages = list(range(1 + 20 * number, 21 + 20 * number))[:: -1 if number == 1 else 1]
    a, b, c = made
    return [
        [row_of(a, 0, 200, 0)],
        [row_of(b, 0, 9, 0)],
        [row_of(a, 200, 201, 200), row_of(b, 9, 22, 9), row_of(c, 0, 7, 0)],
        [row_of(a, 201, 230, 201), row_of(b, 22, 23, 22)],
        [row_of(a, 230, 231, 230), row_of(b, 23, 24, 23), row_of(c, 6, 7, 7)],
        [row_of(a, 231, 250, 231)],
        [row_of(b, 24, 40, 24), row_of(a, 249, 250, 250)],
    ]


class Compared:
    """Runners over the same weights: the C code, gpt.py in the model's type, gpt.py in fp32."""

    def __init__(self, model: GPT, tokenizer, alone: bool = False) -> None:
        precise = copy.deepcopy(model).float()
        precise.compute_dtype = torch.float32
        self.native = Engine(model, tokenizer).runner
        self.plain = Engine(model, tokenizer, native=False).runner
        self.exact = Engine(precise, tokenizer, native=False).runner
        assert self.native.native is not None and self.plain.native is None
        # Without matrix units prompts are left to torch, unless the C code shall do all alone.
        self.native.native.has_tiles |= alone
        self.logits: list[list[torch.Tensor]] = [[], [], []]

    def run(self, plan: list[list[ScheduledRow]]) -> Compared:
        for rows in plan:
            for runner, seen in zip(
                (self.native, self.plain, self.exact), self.logits, strict=True
            ):
                seen.append(runner.run(rows, 61))
        return self

    def errors(self) -> tuple[float, float]:
        """Root mean square over all logits, of the C code and of gpt.py in the model's type."""
        native, plain, exact = (torch.cat(seen) for seen in self.logits)
        return rms(native - exact), rms(plain - exact)


def rms(x: torch.Tensor) -> float:
    return float(x.double().square().mean().sqrt())


@needs_compiler
@pytest.mark.parametrize("kind", ["float32", "bfloat16", "int8"])
@pytest.mark.parametrize("generation", ["classic", "modern"])
@pytest.mark.parametrize("alone", [False, True])
@torch.no_grad()
def test_logits_equal_those_of_the_model(build, tokenizer, generation, kind, alone):
    model = convert(build(generation, tokenizer.get_vocab_size()), kind)
    compared = Compared(model, tokenizer, alone).run(steps(256))
    logits, _, exact = (torch.cat(seen) for seen in compared.logits)
    assert logits.shape == (5, tokenizer.get_vocab_size())
    native, plain = compared.errors()
    if kind == "float32":
        assert (logits - exact).abs().max() < 1e-4  # sums of up to 256 terms, 10 in a row
    else:
        assert 0 < native < plain
    caches = [runner.cache for runner in (compared.native, compared.plain, compared.exact)]
    for tensors in zip(*(cache.keys + cache.values for cache in caches), strict=True):
        own, rounded, reference = (tensor[16:].float() for tensor in tensors)
        # Where torch reads the prompts both hold the same there.
        assert rms(own - reference) <= max(1.01 * rms(rounded - reference), 1e-5)


class RoundingView(StepView):
    """For gpt.py in fp32: rounds what the cache of a bf16 model rounds, nothing else."""

    def attend(self, layer, q, k, v, window):
        return super().attend(layer, q, k.bfloat16().float(), v.bfloat16().float(), window)

    def previous(self, x):
        return super().previous(x.bfloat16().float())


@pytest.fixture(scope="session")
def libraries(tmp_path_factory):
    return tmp_path_factory.mktemp("libraries", numbered=False)  # each compiled once


@pytest.fixture
def compiled_for(monkeypatch, libraries):
    """The C code built with further flags of the compiler's, for a processor that can do less."""

    def build_with(*flags: str) -> None:
        monkeypatch.setenv("CC", " ".join([*build_module.find_compiler(), *flags]))
        monkeypatch.setenv("NANOCHAT_NATIVE", str(libraries))
        build_module.library.cache_clear()
        if build_module.library() is None:
            pytest.skip(f"the compiler knows no {' '.join(flags)}")

    yield build_with
    build_module.library.cache_clear()


@needs_compiler
@pytest.mark.parametrize("generation", ["classic", "modern"])
@pytest.mark.parametrize("kind", ["bfloat16", "int8"])
@torch.no_grad()
def test_where_products_are_in_fp32_only_the_cache_rounds(
    build, tokenizer, compiled_for, generation, kind
):
    """On processors without products of bf16 or bytes. What differs from gpt.py in fp32 with such
    a cache: a value that sums in another order bring to the next bf16 number, few of hundreds.
    """
    if platform.machine() in ("x86_64", "AMD64"):
        compiled_for(*FLOATS_ONLY.split())
    model = convert(build(generation, tokenizer.get_vocab_size()), kind)
    compared = Compared(model, tokenizer, alone=True).run(steps(256))
    rounding, expected = Compared(model, tokenizer).exact, []
    for rows in steps(256):
        rounding.cache.hold(61, torch.float32)
        ids = [token for row in rows for token in row.sequence.tokens[row.start : row.stop]]
        hidden = rounding.model.hidden(torch.tensor([ids]), RoundingView(rounding.cache, rows))
        ends = torch.tensor([row.n_tokens for row in rows]).cumsum(0) - 1
        expected.append(rounding.model.head(hidden[0, ends[[row.samples for row in rows]]]))
    assert rms(torch.cat(compared.logits[0]) - torch.cat(expected)) < 0.1 * compared.errors()[1]


@needs_compiler
@pytest.mark.parametrize("kind", ["float32", "bfloat16", "int8"])
def test_a_tokens_logits_do_not_depend_on_its_neighbours(build, tokenizer, kind):
    model = convert(build("modern", tokenizer.get_vocab_size()), kind)
    alone, together = Engine(model, tokenizer).runner, Engine(model, tokenizer).runner
    plan = steps(256)
    for rows in plan[:4]:
        alone.run(rows, 61)
        together.run(rows, 61)
    a, b, c = (plan[4][n] for n in range(3))
    for row in (a, b):
        alone.run([row], 61)
    together.run([b, c, a], 61)
    for own, other in zip(
        alone.cache.keys + alone.cache.values,
        together.cache.keys + together.cache.values,
        strict=True,
    ):
        assert torch.equal(own[16:], other[16:])
    last = row_of(a.sequence, 231, 232, 231), row_of(b.sequence, 24, 40, 24)
    assert torch.equal(alone.run([last[1]], 61), together.run(list(last), 61))


@needs_compiler
@pytest.mark.parametrize("kind", ["float32", "bfloat16", "int8"])
@pytest.mark.parametrize(
    "flags", ["-mno-amx-tile", "-mno-amx-tile -mno-avx512bf16 -mno-avx512vnni", FLOATS_ONLY]
)
@torch.no_grad()
def test_every_form_of_product(build, tokenizer, compiled_for, flags, kind):
    """What processors with fewer instructions would run."""
    compiled_for(*flags.split())
    model = convert(build("classic", tokenizer.get_vocab_size()), kind)
    native, plain = Compared(model, tokenizer, alone=True).run(steps(256)).errors()
    assert native < (2e-5 if kind == "float32" else plain)


@needs_compiler
@pytest.mark.parametrize("kind", ["float32", "bfloat16", "int8"])
@torch.no_grad()
def test_steps_of_many_tokens(build, tokenizer, kind):
    """The native code takes them only where they are fast; it must be right about them
    everywhere."""
    model = convert(build("modern", tokenizer.get_vocab_size()), kind)
    compared, generator = Compared(model, tokenizer, alone=True), random.Random(1)
    for n_tokens in (17, 33, 100, 250):
        ids = [generator.randrange(256) for _ in range(n_tokens)]
        sequence = Sequence(0, ids, SamplingParams())
        sequence.pages = list(range(1, 20))
        compared.run([[row_of(sequence, 0, n_tokens, 0)]])
    native, plain = compared.errors()
    assert native < (2e-5 if kind == "float32" else plain)


# Every extra, alone and beside the others; what only fresh weights depend on is left out.
CHANGES = {
    "sequence_len": 300,
    "vocab_size": 301,
    "n_layer": 2,
    "n_head": 2,
    "n_kv_head": 1,
    "n_embd": 128,
    "window_pattern": "SL",
    "window_tokens": 5,
    "value_embeddings": True,
    "value_gate_channels": 32,
    "value_gate_scale": 2.0,
    "residual_mixing": True,
    "smear": True,
    "backout": True,
    "qk_scale": 1.15,
    "rope_base": 50_000.0,
    "rope_bf16": False,
    "logit_softcap": 20.0,
    "vocab_multiple": 7,
}


def test_every_field_is_tried():
    fresh = {"embedding_init_std", "head_init_std", "matrix_init"}
    assert {field.name for field in fields(GPTConfig)} == fresh | set(CHANGES)


@needs_compiler
@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("changed", CHANGES)
@torch.no_grad()
def test_every_field_of_the_config_is_followed(build, tokenizer, name, changed):
    vocab_size = tokenizer.get_vocab_size()
    config = build(name, vocab_size).config
    extras = {"window_pattern": "SL", "window_tokens": 9} if changed == "window_tokens" else {}
    value = CHANGES[changed]
    if value is True:  # where the preset has it: without
        value = not getattr(config, changed)
    if changed.startswith("value_gate"):
        extras["value_embeddings"] = True
    config = replace(config, **{"window_tokens": 7, **extras, changed: value})
    model = GPT(config).requires_grad_(False)
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        scale = 1.0 if parameter.dim() < 2 else parameter.size(-1) ** -0.5
        parameter.normal_(0.0, scale, generator=generator)
    native, plain = (Engine(model, tokenizer, native=n).runner for n in (True, False))
    assert native.native is not None
    for rows in steps(256):
        torch.testing.assert_close(native.run(rows, 61), plain.run(rows, 61), atol=1e-4, rtol=1e-4)


@needs_compiler
@pytest.mark.parametrize("kind", ["bfloat16", "int8"])
@pytest.mark.parametrize("generation", ["classic", "modern"])
def test_cutting_prompts_changes_no_bit(build, tokenizer, generation, kind):
    """Where everything goes through the C code, answers are the same to the last bit whatever else
    is going on.
    """
    model = convert(build(generation, tokenizer.get_vocab_size()), kind)
    generator = random.Random(3)
    shared = [generator.randrange(256) for _ in range(100)]
    prompts = [shared + [generator.randrange(256) for _ in range(n)] for n in (1, 20, 90, 200)] + [
        [5],
        shared[:96],
    ]
    settings = {
        "max_tokens": 48,
        "temperature": 0.7,
        "seed": 0,
        "logprobs": 3,
        "tools": "off",
        "ignore_end": True,
    }

    def run(prompts, seed=0, **engine_settings):
        engine = Engine(model, tokenizer, **engine_settings)
        engine.runner.native.has_tiles = True
        done = completions(engine, prompts, **{**settings, "seed": seed})
        return [(c.ids, c.logprobs) for c in done], engine.stats().preemptions

    expected, _ = run(prompts)
    assert run(prompts, reuse_prefixes=False)[0] == expected
    assert run(prompts, max_step_tokens=37)[0] == expected
    assert [run([prompt], seed=n)[0][0] for n, prompt in enumerate(prompts)] == expected
    preempting, n_preempted = run(prompts, cache_tokens=512, max_step_tokens=100)
    assert preempting == expected and n_preempted > 0


@needs_compiler
@pytest.mark.parametrize("kind", ["bfloat16", "int8"])
@pytest.mark.parametrize("generation", ["classic", "modern"])
def test_many_streams_change_no_bit(build, tokenizer, generation, kind):
    """More tokens than a tile holds take another way through every product, also the last rows of
    an odd vocabulary.
    """
    model = convert(build(generation, tokenizer.get_vocab_size()), kind)
    assert tokenizer.get_vocab_size() % 32  # the modern head is padded, the classic one is not
    prompts = [[n, 200 - n, 7] for n in range(40)]
    settings = {"max_tokens": 12, "logprobs": 20, "tools": "off", "ignore_end": True}
    together = completions(Engine(model, tokenizer, max_running=64), prompts, **settings)
    engine = Engine(model, tokenizer)
    for prompt, completion in list(zip(prompts, together, strict=True))[::7]:
        assert completions(engine, [prompt], **settings)[0] == completion


@needs_compiler
def test_threads_change_nothing(build, tokenizer):
    model = convert(build("classic", tokenizer.get_vocab_size()), "bfloat16")
    results, before = [], torch.get_num_threads()
    try:
        for n_threads in (1, 2, 5, 2):
            torch.set_num_threads(n_threads)
            engine = Engine(model, tokenizer)
            results.append(
                [
                    c.ids
                    for c in completions(engine, [[1, 2, 3], [4] * 20], max_tokens=40, tools="off")
                ]
            )
    finally:
        torch.set_num_threads(before)
    assert all(result == results[0] for result in results)


@needs_compiler
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_decoding_goes_on_in_a_forked_process(build, tokenizer):
    model = build("classic", tokenizer.get_vocab_size())
    engine = Engine(model, tokenizer)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    expected = completions(engine, [[1, 2]], max_tokens=5)[0].ids
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.write(write, bytes(str(completions(engine, [[1, 2]], max_tokens=5)[0].ids), "ascii"))
        os._exit(0)
    os.waitpid(pid, 0)
    torch.set_num_threads(before)
    assert os.read(read, 1000).decode() == str(expected)


@pytest.mark.parametrize(
    "change, reason",
    [
        (lambda model: model.half(), "float16"),
        (lambda model: model.double(), "float64"),
        (lambda model: setattr(model, "compute_dtype", torch.float16), "computes in torch.float16"),
        (lambda model: setattr(model, "compute_dtype", torch.float64), "computes in torch.float64"),
        (
            lambda model: setattr(model, "lm_head", torch.nn.Linear(64, 300, bias=False)),
            "lm_head is a Linear",
        ),
        (
            lambda model: setattr(model, "lm_head", Int8Linear(model.lm_head.weight)),
            "several kinds",
        ),
        (
            lambda model: model.blocks[0].register_forward_hook(lambda *_: None),
            "transformer.h.0 has hooks",
        ),
    ],
)
def test_what_the_c_code_does_not_know_is_left_to_the_model(build, tokenizer, change, reason):
    model = build("classic", 300).requires_grad_(False)
    change(model)
    assert reason in unsupported(model)
    engine = Engine(model, tokenizer)
    assert engine.runner.native is None
    assert completions(engine, [[1, 2, 3]], max_tokens=2)[0].ids


@pytest.mark.parametrize(
    "sizes, reason",
    [
        ({"n_embd": 32}, "its width is 32, no multiple of 64"),
        ({"n_head": 8}, "its head dimension is 8, no multiple of 16"),
        ({"n_embd": 2048, "n_head": 128}, "128 query heads share a key head, more than 64"),
    ],
)
def test_sizes_that_the_c_code_does_not_know_are_left_to_the_model(sizes, reason):
    few = {"vocab_size": 265, "n_layer": 1, "n_head": 1, "n_kv_head": 1, "n_embd": 64}
    assert unsupported(GPT(GPTConfig(**{**few, **sizes}))) == reason


def test_without_a_compiler_the_model_itself_answers(build, tokenizer, monkeypatch):
    model = build("classic", tokenizer.get_vocab_size())
    expected = completions(Engine(model, tokenizer), [[1, 2, 3]], max_tokens=20)[0].ids
    build_module.library.cache_clear()
    monkeypatch.setenv("CC", "no-such-compiler")
    try:
        engine = Engine(model, tokenizer)
        assert engine.runner.native is None
        assert completions(engine, [[1, 2, 3]], max_tokens=20)[0].ids == expected
    finally:
        build_module.library.cache_clear()


@needs_compiler
def test_a_library_in_a_folder_others_can_write_to_is_not_loaded(tmp_path, monkeypatch):
    folder = tmp_path / "shared"
    folder.mkdir()
    folder.chmod(0o777)
    monkeypatch.setenv("NANOCHAT_NATIVE", str(folder))
    assert build_module.private_folder() != folder
    folder.chmod(0o700)
    assert build_module.private_folder() == folder
    monkeypatch.setenv("NANOCHAT_NATIVE", "0")
    build_module.library.cache_clear()
    try:
        assert build_module.library() is None
    finally:
        build_module.library.cache_clear()


def test_a_user_without_a_home_directory_gets_a_folder_of_this_run(monkeypatch):
    monkeypatch.delenv("NANOCHAT_NATIVE", raising=False)
    monkeypatch.delenv("HOME")
    monkeypatch.setattr("pwd.getpwuid", lambda uid: {}[uid])
    folder = build_module.private_folder()
    assert folder.is_dir() and folder.parent == Path(tempfile.gettempdir())
    folder.rmdir()


@needs_compiler
def test_new_weights_are_noticed(build, tokenizer):
    model = build("modern", tokenizer.get_vocab_size())
    engine = Engine(model, tokenizer)
    completions(engine, [[1, 2, 3]], max_tokens=5)
    model.bfloat16().float()
    assert completions(engine, [[1, 2, 3]], max_tokens=20) == completions(
        Engine(model, tokenizer), [[1, 2, 3]], max_tokens=20
    )
    with torch.no_grad():
        model.x0_lambdas.add_(1.0)
        model.lm_head.weight.neg_()
    assert completions(engine, [[1, 2, 3]], max_tokens=20) == completions(
        Engine(model, tokenizer), [[1, 2, 3]], max_tokens=20
    )
    quantize_int8(model)
    assert completions(engine, [[1, 2, 3]], max_tokens=20) == completions(
        Engine(model, tokenizer), [[1, 2, 3]], max_tokens=20
    )
