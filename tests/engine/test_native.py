"""The C decoder against gpt.py, its definition: both generations, every precision, ragged steps,
any threads.
"""

from __future__ import annotations

import os
import random
import tempfile
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
from nanochat.gpt import GPT, GPTConfig

needs_compiler = pytest.mark.skipif(
    build_module.find_compiler() is None, reason="no C compiler: the engine uses gpt.py alone"
)


def completions(engine, prompts, **params):
    """One greedy completion of each prompt, unless told otherwise; a seed counts up from the first."""
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
    plan = [
        [ScheduledRow(a, 0, 200, 0)],
        [ScheduledRow(b, 0, 9, 0)],
        [ScheduledRow(a, 200, 201, 200), ScheduledRow(b, 9, 22, 9), ScheduledRow(c, 0, 7, 0)],
        [ScheduledRow(a, 201, 230, 201), ScheduledRow(b, 22, 23, 22)],
        [ScheduledRow(a, 230, 231, 230), ScheduledRow(b, 23, 24, 23), ScheduledRow(c, 6, 7, 7)],
        [ScheduledRow(a, 231, 250, 231)],
        [ScheduledRow(b, 24, 40, 24), ScheduledRow(a, 249, 250, 250)],
    ]
    return plan


@needs_compiler
@pytest.mark.parametrize("kind", ["float32", "bfloat16", "int8"])
@pytest.mark.parametrize("generation", ["classic", "modern"])
@torch.no_grad()
def test_logits_equal_those_of_the_model(build, tokenizer, generation, kind):
    """Compared with gpt.py in fp32 on the same (rounded) weights: nearer to it than gpt.py in bf16
    is.
    """
    model = convert(build(generation, tokenizer.get_vocab_size()), kind)
    precise = convert(build(generation, tokenizer.get_vocab_size()), kind).float()
    precise.compute_dtype = torch.float32
    native, plain, exact = (
        Engine(m, tokenizer, native=n).runner
        for m, n in ((model, True), (model, False), (precise, False))
    )
    assert native.native is not None and plain.native is None and exact.native is None
    worst_native = worst_plain = 0.0
    for rows in steps(256):
        for runner in (native, plain, exact):
            runner.cache.hold(61, runner.dtype)
        ids = [token for row in rows for token in row.sequence.tokens[row.start : row.stop]]
        logits = native.run(rows, 61)
        assert logits.shape == (sum(row.samples for row in rows), tokenizer.get_vocab_size())
        reference, rounded = exact.run(rows, 61), plain.run(rows, 61)
        assert StepView(exact.cache, rows).n_tokens == len(ids)
        if len(logits):
            worst_native = max(worst_native, float((logits - reference).abs().max()))
            worst_plain = max(worst_plain, float((rounded - reference).abs().max()))
    if kind == "float32":
        assert worst_native < 1e-4
    else:
        assert 0 < worst_native < 1.1 * worst_plain < 0.6
    for own, other in zip(
        native.cache.keys + native.cache.values, exact.cache.keys + exact.cache.values, strict=True
    ):
        torch.testing.assert_close(
            own[16:].float(),
            other[16:].float(),
            atol=0.15 if kind != "float32" else 1e-4,
            rtol=0.05,
        )


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
    last = ScheduledRow(a.sequence, 231, 232, 231), ScheduledRow(b.sequence, 24, 40, 24)
    assert torch.equal(alone.run([last[1]], 61), together.run(list(last), 61))


@needs_compiler
@pytest.mark.parametrize(
    "flags", ["-mno-amx-tile", "-mno-amx-tile -mno-avx512bf16 -mno-avx512vnni", "-mno-avx512f"]
)
@torch.no_grad()
def test_every_form_of_product(build, tokenizer, monkeypatch, tmp_path, flags):
    """What processors with fewer instructions would run."""
    monkeypatch.setenv("CC", " ".join([*build_module.find_compiler(), *flags.split()]))
    monkeypatch.setenv("NANOCHAT_NATIVE", str(tmp_path))
    build_module.library.cache_clear()
    try:
        if build_module.library() is None:
            pytest.skip(f"the compiler knows no {flags}")
        for kind in ("float32", "bfloat16", "int8"):
            model, exact = (
                convert(build("classic", tokenizer.get_vocab_size()), kind) for _ in range(2)
            )
            exact.float().compute_dtype = torch.float32
            native, plain = (
                Engine(model, tokenizer).runner,
                Engine(exact, tokenizer, native=False).runner,
            )
            for rows in steps(256):
                difference = native.run(rows, 61) - plain.run(rows, 61)
                assert not len(difference) or float(difference.abs().max()) < (
                    1e-4 if kind == "float32" else 0.3
                )
    finally:
        build_module.library.cache_clear()


@needs_compiler
@torch.no_grad()
def test_steps_of_many_tokens(build, tokenizer):
    """The native code takes them only where they are fast; it must be right about them
    everywhere."""
    for kind in ("float32", "bfloat16", "int8"):
        model = convert(build("modern", tokenizer.get_vocab_size()), kind)
        exact = convert(build("modern", tokenizer.get_vocab_size()), kind).float()
        exact.compute_dtype = torch.float32
        native, plain = (
            Engine(model, tokenizer).runner,
            Engine(exact, tokenizer, native=False).runner,
        )
        native.native.has_tiles = True
        generator = random.Random(1)
        for n_tokens in (17, 33, 100, 250):
            sequence = Sequence(
                0, [generator.randrange(256) for _ in range(n_tokens)], SamplingParams()
            )
            sequence.pages = list(range(1, 20))
            rows = [ScheduledRow(sequence, 0, n_tokens, 0)]
            difference = (native.run(rows, 20) - plain.run(rows, 20)).abs().max()
            assert float(difference) < (1e-4 if kind == "float32" else 0.3)


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


def test_what_the_c_code_does_not_know_is_left_to_the_model(build, tokenizer):
    assert "width" in unsupported(
        GPT(
            GPTConfig.preset(
                "modern",
                sequence_len=64,
                vocab_size=265,
                n_layer=1,
                n_head=2,
                n_kv_head=2,
                n_embd=32,
                window_pattern="L",
            )
        )
    )
    model = build("classic", tokenizer.get_vocab_size())
    handle = model.transformer.h[0].register_forward_hook(lambda *a: None)
    assert "hooks" in unsupported(model)
    handle.remove()
    model.half()
    assert "float16" in unsupported(model)
    other = build("classic", tokenizer.get_vocab_size())
    other.lm_head = torch.nn.Linear(64, tokenizer.get_vocab_size(), bias=False)
    assert "lm_head is a Linear" in unsupported(other)
    assert completions(Engine(other, tokenizer), [[1]], max_tokens=2)[0].ids
    mixed = build("classic", tokenizer.get_vocab_size())
    mixed.lm_head = Int8Linear(mixed.lm_head.weight)
    assert "several kinds" in unsupported(mixed)


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
