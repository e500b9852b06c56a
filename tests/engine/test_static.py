"""Steps of fixed shapes against the ordinary ones: the same tokens, whatever the batch, the windows
and the cache do.

On a CPU the steps run uncaptured; everything but the capture is the same code.
"""

from __future__ import annotations

import random

import pytest
import torch

from nanochat.engine import Engine, SamplingParams
from nanochat.engine.quantize import quantize_int8
from nanochat.engine.sampler import common_method, draw_fixed, sample
from nanochat.engine.scheduler import ScheduledRow
from nanochat.engine.sequence import Sequence
from nanochat.engine.static_decode import DecodeShape, StaticDecoder, power_of_two
from nanochat.gpt import GPT

GREEDY = {"temperature": 0.0, "tools": "off", "ignore_end": True}


def prompts_of(n: int, lengths: tuple[int, int] = (1, 60), seed: int = 0) -> list[list[int]]:
    generator = random.Random(seed)
    return [
        [generator.randrange(256) for _ in range(generator.randint(*lengths))] for _ in range(n)
    ]


def both(model: GPT, tokenizer, **settings) -> tuple[Engine, Engine]:
    """(with fixed shapes, without)."""
    return (
        Engine(model, tokenizer, static=True, **settings),
        Engine(model, tokenizer, native=False, static=False, **settings),
    )


def answers(engine: Engine, prompts: list[list[int]], n_tokens: int, **params) -> list[list[int]]:
    first = params.pop("seed", None)
    requests = []
    for number, prompt in enumerate(prompts):
        seed = None if first is None else first + number
        own = SamplingParams(**{**GREEDY, "max_tokens": n_tokens, "seed": seed, **params})
        requests.append(engine.submit(prompt, own))
    return [completion.ids for [completion] in engine.complete(requests)]


def row_of(sequence: Sequence, start: int, stop: int, store_from: int) -> ScheduledRow:
    return ScheduledRow(sequence=sequence, start=start, stop=stop, store_from=store_from)


@torch.no_grad()
def test_logits_are_close_and_so_is_what_is_stored(model, tokenizer):
    """Decoding rows of several lengths, one of them a last token whose keys and values are not
    written again.
    """
    static, plain = both(model, tokenizer)
    made = [
        Sequence(n, prompt, SamplingParams()) for n, prompt in enumerate(prompts_of(3, (200, 200)))
    ]
    for number, sequence in enumerate(made):
        sequence.pages = list(range(1 + 20 * number, 14 + 20 * number))[:: -1 if number == 1 else 1]
    a, b, c = made
    for rows in (
        [row_of(a, 0, 199, 0)],
        [row_of(b, 0, 17, 0)],
        [row_of(c, 0, 16, 0)],
    ):
        for engine in (static, plain):
            engine.runner.run(rows, 61)
    del b.tokens[18:], c.tokens[17:]
    rows = [
        row_of(a, 199, 200, 199),
        row_of(b, 17, 18, 17),
        row_of(c, 16, 17, 17),
    ]
    static.runner.cache.hold(61, static.runner.dtype)
    decoder = static.runner.static
    assert decoder is not None and decoder.takes(rows)
    shape = decoder._shape(rows, made)
    assert shape.n_rows == 4 and shape.n_pages == 16
    place = decoder.prepare(shape)
    place.fill(rows, 16)
    torch.manual_seed(0)
    table = place.table[3]
    table.copy_(torch.randint(0, 61, table.shape))  # a padding row may point anywhere
    for at, row in enumerate(rows):
        own = row.sequence.pages
        place.table[at, len(own) :] = torch.randint(
            0, 61, (16 - len(own),)
        )  # and so may what lies past a row's end
    from dataclasses import replace

    place.shape = replace(shape, draw="logits")
    torch.testing.assert_close(
        decoder._step(place)[:3], plain.runner.run(rows, 61), atol=1e-4, rtol=1e-4
    )
    for own, other in zip(
        static.runner.cache.keys + static.runner.cache.values,
        plain.runner.cache.keys + plain.runner.cache.values,
        strict=True,
    ):
        torch.testing.assert_close(own[16:], other[16:], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("streams", [1, 3, 17])
def test_greedy_tokens_are_equal(model, tokenizer, streams):
    static, plain = both(model, tokenizer)
    prompts = prompts_of(streams, (1, 150))
    assert answers(static, prompts, 40) == answers(plain, prompts, 40)
    decoder = static.runner.static
    assert (
        decoder is not None
        and decoder.n_steps >= 39
        and {s.draw for s in decoder.places} == {"greedy"}
    )
    assert static.stats().steps > decoder.n_steps, "prompts go the ordinary way"
    assert all(s.n_rows == power_of_two(s.n_rows) for s in decoder.places)


def test_beyond_windows_and_buckets(model, tokenizer, naive):
    static, _ = both(model, tokenizer)
    prompt = prompts_of(1, (240, 240))[
        0
    ]  # short windows cover 128 tokens; 16 pages are full on the way
    others = prompts_of(2, (100, 130), seed=5)
    assert answers(static, [prompt, *others], 30)[0] == naive(model, prompt, 30)
    assert {s.n_pages for s in static.runner.static.places} == {16, 32}


def test_up_to_the_end_of_the_context(model, tokenizer):
    static, plain = both(model, tokenizer, page_tokens=24)  # 512 is no multiple
    prompts = prompts_of(2, (490, 500))
    assert answers(static, prompts, None) == answers(plain, prompts, None)


def test_mixed_steps_reuse_and_preemption(model, tokenizer):
    """Prompts read between decoding steps, shared prefixes, and a cache too small for all: tokens
    stay the same.
    """
    shared = prompts_of(1, (96, 96))[0]
    prompts = [shared + more for more in prompts_of(5, (1, 40), seed=1)] + [shared, shared]
    expected = answers(both(model, tokenizer)[1], prompts, 60)
    for settings in (
        {"max_step_tokens": 32, "max_running": 8},
        {"reuse_prefixes": False},
        {"cache_tokens": 512, "page_tokens": 8},
    ):
        static, _ = both(model, tokenizer, **settings)
        assert answers(static, prompts, 60) == expected
        assert answers(static, prompts, 60) == expected, "once more, from what is in the cache"
        assert 0 < static.runner.static.n_steps < static.stats().steps
        assert static.stats().pages_used == 0
    assert static.stats().preemptions > 0, "the cache was meant to be too small"


def test_sampled_tokens_are_equal(classic, tokenizer):
    """Each request with its own parameters; those that the device cannot draw fall back to the
    ordinary sampler.
    """
    kinds = [
        {"top_k": 5},
        {"temperature": 0.0},
        {},
        {"top_k": 50, "temperature": 1.7},
        {"top_p": 0.8},
        {"min_p": 0.1},
    ]
    kinds += [{"top_k": 5, "top_p": 0.5}, {"top_k": 200}, {"logprobs": 2, "temperature": 0.0}]
    groups = [
        (kinds, "logits"),
        ([kinds[0], kinds[1], kinds[3]], "candidates"),
        (kinds[1:3], "all"),
    ]
    for group, method in groups:
        results = []
        for engine in both(classic, tokenizer):
            requests = [
                engine.submit(
                    prompt,
                    SamplingParams(**{"seed": 9, "max_tokens": 25, "ignore_end": True, **kind}),
                )
                for prompt, kind in zip(prompts_of(len(group)), group, strict=True)
            ]
            events = {request.id: [] for request in requests}
            while engine.has_work:
                for event in engine.step():
                    events[event.request].append(event)
            results.append([[(e.token, e.scores) for e in own] for own in events.values()])
            if engine.runner.static is not None:
                assert method in {s.draw for s in engine.runner.static.places}
        for own, other in zip(*results, strict=True):
            assert [token for token, _ in own] == [token for token, _ in other]
            likeliest = [
                [[[i for i, _ in score.top] for score in scores] for _, scores in events]
                for events in (own, other)
            ]
            assert likeliest[0] == likeliest[1]


@pytest.mark.parametrize(
    "params", [{}, {"top_k": 7}, {"top_k": 128, "temperature": 0.3}, {"temperature": 0.0}]
)
def test_draw_fixed_draws_what_sample_draws(params):
    logits = torch.randn(64, 300, generator=torch.Generator().manual_seed(1)) * 3
    sequences = [Sequence(n, [0], SamplingParams(**{"seed": n, **params})) for n in range(64)]
    again = [Sequence(n, [0], SamplingParams(**{"seed": n, **params})) for n in range(64)]
    method = common_method(sequences, 300)
    top_k = torch.tensor([1 if s.params.greedy else s.params.top_k or 0 for s in sequences])
    uniforms = torch.tensor([s.random.random() for s in sequences], dtype=torch.float64)
    temperature = torch.tensor(
        [s.params.temperature or 1.0 for s in sequences], dtype=torch.float64
    )
    drawn = draw_fixed(logits, method, top_k, temperature, uniforms).tolist()
    assert drawn == [sampled.token for sampled in sample(logits, again)]


@pytest.mark.parametrize("generation", ["classic", "modern"])
def test_int8_weights(build, tokenizer, generation):
    model = quantize_int8(build(generation, tokenizer.get_vocab_size()))
    static, plain = both(model, tokenizer)
    prompts = prompts_of(4)
    assert answers(static, prompts, 20) == answers(plain, prompts, 20)


def test_shapes_go_with_the_cache_and_the_weights(build, tokenizer):
    model = build("classic", tokenizer.get_vocab_size())
    static, plain = both(model, tokenizer)
    answers(static, [[1, 2, 3]], 5)
    decoder = static.runner.static
    first = next(iter(decoder.places.values()))
    answers(static, prompts_of(16, (200, 200)), 5)
    assert first not in decoder.places.values(), (
        "the cache has moved: what was captured over it is void"
    )
    with torch.no_grad():
        model.lm_head.weight.neg_()
    assert answers(static, [[1, 2, 3]], 5) == answers(plain, [[1, 2, 3]], 5)
    assert static.runner.static is decoder, "weights changed in place: the same graphs see them"
    quantize_int8(model)
    assert answers(static, [[1, 2, 3]], 5) == answers(both(model, tokenizer)[1], [[1, 2, 3]], 5)
    assert static.runner.static is not decoder
    static.trim()
    assert not static.runner.static.places


def test_what_cannot_be_captured_goes_the_ordinary_way(classic, tokenizer, monkeypatch, caplog):
    def refuse(self, shape):
        raise RuntimeError("CUDA error: operation not permitted when stream is capturing\nmore")

    expected = answers(both(classic, tokenizer)[1], [[1, 2, 3]], 20, temperature=1.0, seed=4)
    monkeypatch.setattr(StaticDecoder, "prepare", refuse)
    static, _ = both(classic, tokenizer)
    assert answers(static, [[1, 2, 3]], 20, temperature=1.0, seed=4) == expected
    assert static.runner.static.failed and len(caplog.records) == 1


def test_hooks_keep_a_model_out(build, tokenizer):
    model = build("classic", tokenizer.get_vocab_size())
    model.transformer.h[0].register_forward_hook(lambda *a: None)
    assert Engine(model, tokenizer, static=True).runner.static is None
    assert Engine(build("classic", tokenizer.get_vocab_size()), tokenizer).runner.static is None, (
        "not on a CPU by itself"
    )


@torch.no_grad()
def test_a_step_is_one_graph_without_looking_at_values(model, tokenizer):
    """torch's tracer, which stops at anything data-dependent, takes the whole step in one piece."""
    static, _ = both(model, tokenizer)
    answers(static, prompts_of(3), 3)
    decoder = static.runner.static
    for draw in ("greedy", "candidates", "all"):
        place = decoder.prepare(DecodeShape(n_rows=4, n_pages=16, draw=draw))
        traced = torch.compile(decoder._step, backend="eager", fullgraph=True)
        assert torch.equal(traced(place), decoder._step(place))


@pytest.mark.skipif(
    not torch.cuda.is_available(), reason="needs a CUDA device: captures and replays real graphs"
)
@pytest.mark.parametrize("kind", ["float32", "bfloat16", "int8"])
@pytest.mark.parametrize("generation", ["classic", "modern"])
def test_captured_steps_on_a_gpu(build, tokenizer, generation, kind):
    model = build(generation, tokenizer.get_vocab_size()).requires_grad_(False).cuda()
    if kind != "float32":
        model.bfloat16().compute_dtype = torch.bfloat16
    if kind == "int8":
        quantize_int8(model)
    captured, uncaptured = Engine(model, tokenizer), Engine(model, tokenizer)
    uncaptured.runner.static.capture = False
    for prompts in (prompts_of(1), prompts_of(17, (1, 150)), prompts_of(2, (200, 300), seed=3)):
        for params in (
            {},
            {"temperature": 1.0, "seed": 5},
            {"temperature": 0.8, "top_k": 50, "seed": 6},
        ):
            assert answers(captured, prompts, 30, **params) == answers(
                uncaptured, prompts, 30, **params
            )
    decoder = captured.runner.static
    assert (
        not decoder.failed
        and decoder.places
        and all(p.graph is not None for p in decoder.places.values())
    )
    if kind == "float32":
        plain, compiled = (
            Engine(model, tokenizer, static=False),
            Engine(model, tokenizer, static="compiled"),
        )
        expected = answers(plain, prompts_of(5), 20)
        assert (
            answers(captured, prompts_of(5), 20) == answers(compiled, prompts_of(5), 20) == expected
        )
        assert not compiled.runner.static.failed
