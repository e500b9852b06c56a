"""The engine over tiny models: the same tokens as the slow definition, whatever else is going
on."""

from __future__ import annotations

import json
import random
import threading

import pytest
import torch

from nanochat.engine import Engine, Event, SamplingParams

GREEDY = {
    "temperature": 0.0,
    "tools": "off",
    "ignore_end": True,
}  # random models end at random: let them go on


def prompts_of(n: int, lengths: tuple[int, int] = (1, 60), seed: int = 0) -> list[list[int]]:
    generator = random.Random(seed)
    return [
        [generator.randrange(256) for _ in range(generator.randint(*lengths))] for _ in range(n)
    ]


def completions(engine, prompts, **params):
    """One greedy completion of each prompt, unless told otherwise. Seeds count up from it."""
    first = params.pop("seed", None)
    requests = []
    for number, prompt in enumerate(prompts):
        seed = None if first is None else first + number
        own = SamplingParams(**{"temperature": 0.0, "seed": seed, **params})
        requests.append(engine.submit(prompt, own))
    return [completion for [completion] in engine.complete(requests)]


def answers(engine: Engine, prompts: list[list[int]], n_tokens: int, **params) -> list[list[int]]:
    return [
        c.ids for c in completions(engine, prompts, max_tokens=n_tokens, **{**GREEDY, **params})
    ]


def run(engine: Engine) -> dict[int, list[Event]]:
    """Step until there is nothing to do; the events of each request."""
    events: dict[int, list[Event]] = {}
    while engine.has_work:
        for event in engine.step():
            events.setdefault(event.request, []).append(event)
    return events


def test_greedy_equals_full_forward_passes(model, tokenizer, naive):
    prompt = prompts_of(1, (20, 20))[0]
    expected = naive(model, prompt, 40)
    assert len(set(expected)) > 5, "a constant answer would prove nothing"
    for budget in (512, 33, 7):
        engine = Engine(model, tokenizer, max_step_tokens=budget, max_running=4)
        assert answers(engine, [prompt], 40) == [expected]


def test_greedy_is_the_same_beyond_the_window(model, tokenizer, naive):
    prompt = prompts_of(1, (300, 300))[0]  # the modern model's short windows cover 128 tokens
    engine = Engine(model, tokenizer, max_step_tokens=64, max_running=8)
    others = prompts_of(3, (100, 200), seed=5)
    assert answers(engine, [prompt, *others], 12)[0] == naive(model, prompt, 12)


def test_greedy_is_the_same_alone_and_among_16(model, tokenizer):
    prompts = prompts_of(17, (1, 150))
    alone = [answers(Engine(model, tokenizer), [prompt], 24)[0] for prompt in prompts]
    assert answers(Engine(model, tokenizer, max_step_tokens=100), prompts, 24) == alone


def test_greedy_is_the_same_with_and_without_prefix_reuse(model, tokenizer):
    shared = prompts_of(1, (150, 150))[0]
    prompts = [shared + more for more in prompts_of(6, (1, 40), seed=1)] + [
        shared[:96],
        shared[:96],
        shared,
    ]
    plain = Engine(model, tokenizer, reuse_prefixes=False)
    expected = answers(plain, prompts, 20)
    assert plain.stats().reused_tokens == 0 and plain.stats().pages_retained == 0
    reusing = Engine(model, tokenizer)
    assert answers(reusing, prompts, 20) == expected, (
        "prompts that share their beginning with running ones"
    )
    assert reusing.stats().reused_tokens >= 6 * 144
    assert answers(reusing, prompts, 20) == expected, "and with ended ones"
    assert reusing.stats().reused_tokens > 2 * 6 * 144


def test_greedy_is_the_same_with_and_without_preemption(model, tokenizer):
    prompts = prompts_of(6, (60, 120))
    expected = answers(Engine(model, tokenizer), prompts, 60)
    for reuse in (False, True):
        small = Engine(model, tokenizer, cache_tokens=512, page_tokens=8, reuse_prefixes=reuse)
        assert answers(small, prompts, 60) == expected
        assert small.stats().preemptions > 0, "the cache was meant to be too small"
        assert small.stats().pages_used == 0


def test_next_turn_prefills_only_what_is_new(model, tokenizer):
    engine = Engine(model, tokenizer)
    first = prompts_of(1, (200, 200))[0]
    answer = answers(engine, [first], 20)[0]
    before = engine.stats()
    turn = first + answer + [1, 2, 3, 4, 5]
    result = answers(engine, [turn], 10)
    after = engine.stats()
    assert after.reused_tokens - before.reused_tokens >= 208
    assert after.prefill_tokens - before.prefill_tokens < 32
    assert result == answers(Engine(model, tokenizer, reuse_prefixes=False), [turn], 10)


def test_samples_do_not_depend_on_neighbours(classic, tokenizer):
    prompts = prompts_of(7)
    kinds = [
        {},
        {"top_k": 5},
        {"top_p": 0.8},
        {"min_p": 0.2},
        {"top_k": 9, "top_p": 0.5},
        {"temperature": 2.0},
        {"top_k": 7},
    ]
    params = [
        SamplingParams(**{"seed": n, "max_tokens": 20, "ignore_end": True, **kind})
        for n, kind in enumerate(kinds)
    ]
    alone = []
    for prompt, own in zip(prompts, params, strict=True):
        engine = Engine(classic, tokenizer)
        alone.append(list(engine.stream(prompt, own)))
    together = Engine(classic, tokenizer)
    requests = [together.submit(prompt, own) for prompt, own in zip(prompts, params, strict=True)]
    events_of = run(together)
    for request, events in zip(requests, alone, strict=True):
        assert [e.token for e in events_of[request.id]] == [e.token for e in events]


def test_a_seed_repeats_and_samples_differ(classic, tokenizer):
    engine = Engine(classic, tokenizer)
    settings = {"max_tokens": 30, "tools": "off", "ignore_end": True}
    rows, masks = engine.generate_batch([1, 2, 3], num_samples=4, seed=7, **settings)
    assert rows == engine.generate_batch([1, 2, 3], num_samples=4, seed=7, **settings)[0]
    assert len({tuple(row) for row in rows}) == 4
    assert rows[0] == engine.generate_batch([1, 2, 3], seed=7, **settings)[0][0]
    assert rows != engine.generate_batch([1, 2, 3], num_samples=4, seed=8, **settings)[0]
    assert all(row[:3] == [1, 2, 3] and len(row) == 33 for row in rows)
    assert all(mask == [0] * 3 + [1] * 30 for mask in masks)


def test_generate_yields_columns_like_generate_batch(classic, tokenizer):
    engine = Engine(classic, tokenizer)
    settings = {"num_samples": 5, "max_tokens": 200, "temperature": 1.5, "seed": 3, "tools": "off"}
    columns = list(engine.generate([5, 6], **settings))
    rows, masks = engine.generate_batch([5, 6], **settings)
    end = tokenizer.encode_special("<|assistant_end|>")
    assert all(len(tokens) == len(mask) == 5 for tokens, mask in columns)
    lengths = []
    for sample, row in enumerate(rows):
        column = [tokens[sample] for tokens, _ in columns]
        mask = [m[sample] for _, m in columns]
        n = len(row) - 2
        lengths.append(n)
        assert column[:n] == row[2:] and mask[:n] == masks[sample][2:]
        if n < len(column):
            assert engine.special.ends(column[n]) and mask[n] == 1
            assert set(column[n + 1 :]) <= {end} and not any(mask[n + 1 :])
    assert min(lengths) < max(lengths), "samples of different length were meant to occur"


def test_reference_checkpoints_continue_as_recorded(shared_dir):
    import numpy as np

    from nanochat.checkpoint_manager import build_model, load_checkpoint
    from nanochat.tokenizer import Tokenizer

    for name, tag in (("classic_d2", "d2"), ("modern_d3", "d3")):
        folder = shared_dir / "fixtures" / name
        checkpoint = folder / "base_checkpoints" / tag
        state, _, meta = load_checkpoint(checkpoint, 60, "cpu")
        model = build_model(state, meta).float()
        tokenizer = Tokenizer.load(folder / "tokenizer")
        expected = np.load(folder / "expected.npz")
        prompt, greedy = expected["greedy_prompt"].tolist(), expected["greedy"].tolist()
        engine = Engine(model.eval(), tokenizer)
        others = [prompt[: len(prompt) // 2], prompt[::-1]]
        assert answers(engine, [prompt, *others], len(greedy))[0] == greedy


@pytest.mark.parametrize(
    ("tokens", "reason"),
    [
        ([], "at least one token"),
        ([0] * 513, "has 513 tokens, the context holds 512"),
        ([999], "999 is no token id"),
        ([-1], "-1 is no token id"),
        (["a"], "'a' is no token id"),
    ],
)
def test_bad_prompts_are_refused(classic, tokenizer, tokens, reason):
    engine = Engine(classic, tokenizer)
    for call in (
        engine.submit,
        engine.generate,
        engine.generate_batch,
        engine.stream,
    ):
        with pytest.raises(ValueError, match=reason):
            call(tokens)


def test_full_context_ends_with_a_reason(model, tokenizer, naive):
    engine = Engine(model, tokenizer)
    prompt = prompts_of(1, (500, 500))[0]
    done = completions(engine, [prompt, prompt + [1] * 12], **GREEDY)
    assert [c.finish_reason for c in done] == ["length", "length"]
    assert [len(c.ids) for c in done] == [13, 1], "the last token needs no place in the cache"
    assert "context of 512 tokens is full" in done[0].finish_detail
    assert done[0].ids[:4] == naive(model, prompt, 4)


def test_zero_tokens_and_stop_token(classic, tokenizer):
    engine = Engine(classic, tokenizer)
    none = completions(engine, [[1, 2]], max_tokens=0)[0]
    assert none.ids == [] and none.finish_reason == "length"
    done = completions(engine, [[n] for n in range(40)], max_tokens=400, temperature=1.5, seed=0)
    ended = [c for c in done if c.stop_token]
    assert ended and all(
        c.finish_reason == "stop" and engine.special.ends(c.stop_token) for c in ended
    )
    assert not any(
        engine.special.ends(token)
        for c in ended
        for token, m in zip(c.ids, c.mask, strict=True)
        if m
    )


def test_cancel_frees_everything(classic, tokenizer):
    engine = Engine(classic, tokenizer)
    requests = [
        engine.submit(prompt, SamplingParams(temperature=0), n=2)
        for prompt in prompts_of(4, (30, 90))
    ]
    engine.step()
    engine.cancel(requests[0].id)
    late = engine.submit([1, 2, 3], SamplingParams(max_tokens=4))
    engine.cancel(requests[3].id)
    events = engine.step()
    ended = [e for e in events if e.finish_reason == "cancelled"]
    assert sorted(e.request for e in ended) == [requests[0].id] * 2 + [requests[3].id] * 2
    assert requests[0].finished and not requests[1].finished
    stream = engine.stream([1, 2, 3], SamplingParams(temperature=0, ignore_end=True))
    next(stream)
    stream.close()
    assert engine.stats().running == 5, "two samples of requests 1 and 2 each, and the late one"
    engine.cancel(requests[1].id, "length", "the time limit is reached")
    engine.cancel(requests[2].id)
    run(engine)
    assert [(c.finish_reason, c.finish_detail) for c in requests[1].completions()] == [
        ("length", "the time limit is reached")
    ] * 2
    assert late.finished and len(late.completions()[0].ids) == 4
    assert engine.stats().pages_used == 0 and engine.stats().running == engine.stats().waiting == 0
    engine.cancel(late.id)
    engine.cancel(12345)
    assert engine.step() == [], "cancelling what is over changes nothing"


def test_submitting_from_other_threads(classic, tokenizer):
    engine = Engine(classic, tokenizer)
    prompts = prompts_of(12)
    expected = answers(Engine(classic, tokenizer), prompts, 10)
    events: dict[int, list[Event]] = {}

    def submit(index: int) -> None:
        params = SamplingParams(**GREEDY, max_tokens=10)
        engine.submit(prompts[index], params, request_id=100 + index)

    threads = [threading.Thread(target=submit, args=(n,)) for n in range(12)]
    for thread in threads:
        thread.start()
    while any(t.is_alive() for t in threads) or engine.has_work:
        for event in engine.step():
            events.setdefault(event.request, []).append(event)
    assert [[e.token for e in events[100 + n]] for n in range(12)] == expected


def test_each_event_is_delivered_once(classic, tokenizer):
    """Streams read in turn, and a request that `step` reports, on one engine: nobody gets the
    other's events, none is lost.
    """
    params = SamplingParams(**GREEDY, max_tokens=12)
    prompts = prompts_of(4)
    expected = answers(Engine(classic, tokenizer), prompts, 12)
    engine = Engine(classic, tokenizer)
    stepped = engine.submit(prompts[0], params)
    streams = [engine.stream(prompt, params) for prompt in prompts[1:3]]
    got: list[list[Event]] = [[], []]
    for _ in range(5):
        for own, stream in zip(got, streams, strict=True):
            own.append(next(stream))
    [[completion]] = engine.complete([engine.submit(prompts[3], params)])
    events = run(engine)
    for own, stream in zip(got, streams, strict=True):
        own += stream
    assert [[e.token for e in own] for own in got] == expected[1:3]
    assert completion.ids == expected[3]
    assert list(events) == [stepped.id] and [e.token for e in events[stepped.id]] == expected[0]


def test_complete_tells_how_many_are_done_and_leaves_nothing_behind(classic, tokenizer):
    engine = Engine(classic, tokenizer)
    told: list[int] = []
    requests = [
        engine.submit([1, 2], SamplingParams(**GREEDY, max_tokens=n), n=2) for n in (9, 3, 3, 0)
    ]
    done = engine.complete(requests, on_done=told.append)
    assert [[len(c.ids) for c in row] for row in done] == [[9, 9], [3, 3], [3, 3], [0, 0]]
    assert sum(told) == 4 and len(told) == 3 and engine.step() == []

    def refused_halfway():
        yield engine.submit([1, 2], SamplingParams(temperature=0))
        yield engine.submit([999])

    with pytest.raises(ValueError, match="999 is no token id"):
        engine.complete(refused_halfway())
    assert not engine.has_work


def test_an_event_survives_json(classic, tokenizer):
    params = SamplingParams(temperature=0, max_tokens=20, logprobs=2, ignore_end=True)
    events = list(Engine(classic, tokenizer).stream([1, 2, 3], params, n=2))
    assert any(event.scores for event in events) and any(event.pieces for event in events)
    for event in events:
        again = Event.from_json(json.loads(json.dumps(event.to_json())))
        assert again == event and again.text == event.text


def test_memory_follows_the_tokens_held(classic, tokenizer):
    engine = Engine(classic, tokenizer, cache_tokens=16384)
    answers(engine, prompts_of(1, (20, 20)), 5)
    small = engine.stats().cache_bytes
    answers(engine, prompts_of(16, (400, 400)), 5)
    large = engine.stats().cache_bytes
    assert small < large / 8
    engine.trim()
    assert engine.stats().cache_bytes <= small and engine.stats().pages_retained == 0
    assert answers(engine, [[1, 2, 3]], 5) == answers(Engine(classic, tokenizer), [[1, 2, 3]], 5)


def test_new_weights_forget_the_old_prefixes(build, tokenizer):
    model = build("classic", tokenizer.get_vocab_size())
    engine = Engine(model, tokenizer)
    prompt = prompts_of(1, (80, 80))[0]
    old = answers(engine, [prompt], 10)
    model.load_state_dict(build("classic", tokenizer.get_vocab_size(), seed=1).state_dict())
    new = answers(engine, [prompt], 10)
    assert new == answers(Engine(model, tokenizer), [prompt], 10) != old


def test_training_goes_on_after_sampling(build, tokenizer):
    model = build("modern", tokenizer.get_vocab_size())
    Engine(model, tokenizer).generate_batch([1, 2, 3], max_tokens=3)
    model(torch.tensor([[1, 2, 3]])).sum().backward()
    assert model.lm_head.weight.grad is not None


def test_a_failing_model_leaves_a_usable_engine(build, tokenizer, monkeypatch):
    model = build("classic", tokenizer.get_vocab_size())
    engine = Engine(model, tokenizer, native=False)
    expected = answers(engine, [[1, 2, 3]], 5)
    bystander = engine.submit([4, 5], SamplingParams(max_tokens=3))
    with monkeypatch.context() as broken:
        broken.setattr(
            model, "hidden", lambda *a: (_ for _ in ()).throw(RuntimeError("out of memory"))
        )
        with pytest.raises(RuntimeError, match="out of memory"):
            answers(engine, [[1, 2, 3]], 5)
        events = engine.fail_all("out of memory")
    assert [(e.request, e.finish_reason, e.finish_detail) for e in events] == [
        (bystander.id, "error", "out of memory")
    ]
    assert engine.stats().pages_used == 0 and not engine.has_work
    assert answers(engine, [[1, 2, 3]], 5) == expected


def test_impossible_engines_are_refused(classic, tokenizer):
    with pytest.raises(ValueError, match="cache_tokens=100: must hold one full context, 512"):
        Engine(classic, tokenizer, cache_tokens=100)
    with pytest.raises(ValueError, match="max_running=0"):
        Engine(classic, tokenizer, max_running=0)
    with pytest.raises(ValueError, match="n=0"):
        Engine(classic, tokenizer).submit([1], n=0)


def test_ids_the_tokenizer_lacks_are_never_drawn(build, tokenizer):
    model = build("classic", tokenizer.get_vocab_size() + 64)
    with torch.no_grad():
        model.lm_head.weight[tokenizer.get_vocab_size() :] = 10 * model.lm_head.weight[:64]
    done = completions(Engine(model, tokenizer), [[1], [2]], max_tokens=50, temperature=1.0, seed=0)
    assert max(token for c in done for token in c.ids) < tokenizer.get_vocab_size()
