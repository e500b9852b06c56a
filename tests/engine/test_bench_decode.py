"""`nanochat bench decode`: every precision and number of streams is measured, written and drawn."""

from __future__ import annotations

import json

import pytest
import torch

from bench.decode import DecodeBenchConfig, bench_decode
from bench.random_models import random_model, spell_letters, wide_tokenizer
from nanochat import config as configs
from nanochat.engine import Engine, SamplingParams
from nanochat.runtime.world import World


def test_everything_is_measured(tmp_path, capsys):
    words = (
        "--depth 1 --vocab-size 300 --context 64 --prompt-tokens 8 --tokens 16 --streams 1 3 "
        "--kinds int8 fp32"
    )
    settings = configs.parse(DecodeBenchConfig, words.split())
    settings.json, settings.plot = tmp_path / "out.json", tmp_path / "out.png"
    before = torch.get_num_threads()
    bench_decode(settings, World(0, 0, 1, torch.device("cpu")))
    assert torch.get_num_threads() == before
    report = json.loads(settings.json.read_text())
    assert [(r["kind"], r["streams"]) for r in report["results"]] == [
        ("fp32", 1),
        ("fp32", 3),
        ("int8", 1),
        ("int8", 3),
    ]
    assert all(r["tokens_per_s"] > 0 and r["step_s"] > 0 for r in report["results"])
    head, block = 300 * 128, 12 * 128 * 128
    assert report["results"][0]["step_bytes"] == 4 * (head + block + 16 * 2 * 128)
    assert report["parameters"] == 2 * head + block
    assert settings.plot.read_bytes().startswith(b"\x89PNG")
    assert capsys.readouterr().out.count("tokens/s") == 4


def test_random_models_spell_letters_to_their_limit():
    for generation in ("classic", "modern"):
        model = spell_letters(random_model(2, 320, generation, 64))
        tokenizer = wide_tokenizer(320)
        assert tokenizer.get_vocab_size() == 320
        engine = Engine(model, tokenizer)
        params = SamplingParams(temperature=0.0, max_tokens=20)
        [[done]] = engine.complete([engine.submit([1, 2, 3], params)])
        assert len(done.text) == 20 and done.text.isalpha() and done.finish_reason == "length"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--tokens 4", "--tokens=4: must be 12 or more"),
        ("--context 100", "--context=100: must hold"),
        ("--streams 0", "streams of 1 or more"),
        ("--kinds fp8", "--kinds=fp8"),
        ("--device-type tpu", "must be cuda or cpu"),
    ],
)
def test_refused(words, said):
    found = configs.collect(DecodeBenchConfig, words.split())[1]
    assert any(said in problem for problem in found), found
