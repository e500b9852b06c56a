"""The commands as people type them: every flag is one that the parser knows."""

from __future__ import annotations

import pytest

from nanochat import config
from nanochat.launch import commands


@pytest.mark.parametrize(
    "line, expected",
    [
        ("export hf sft:d20 out --stock --dtype bfloat16 --no-check", {"stock": True}),
        ("export gguf sft:d20 d20.gguf", {"type": "bf16"}),
        ("export gguf sft:d20:7 d20.gguf --type=q4_k_m --replace", {"type": "q4_k_m"}),
        ("export mlx sft:d20 out --dtype keep", {"dtype": "keep"}),
        ("pull a/b@v1 --as sft:d34 --step 3 --softcap 20", {"target": "sft:d34"}),
        ("push sft:d20 a/b --layouts native hf-stock gguf", {"public": False}),
        ("tok_train --split gguf", {"split": "gguf"}),
    ],
)
def test_lines_that_are_right(line, expected):
    _, command, rest = commands.find(line.split())
    settings, problems = config.collect(commands.load(command.config), rest)
    assert problems == []
    assert {name: getattr(settings, name) for name in expected} == expected
    assert callable(commands.load(command.function))


@pytest.mark.parametrize(
    "line, said",
    [
        ("export gguf sft:d20 d20.gguf --type f16", "become NaN"),
        ("export gguf sft:d20 d20.gguf --type q3", "q3"),
        ("export hf d20 out", "write stage:tag"),
        ("pull a/b --as d34", "--as=d34"),
        ("pull a/b --softcap 0", "--softcap=0"),
        ("push sft:d20 b", "owner/name"),
    ],
)
def test_lines_that_are_wrong(line, said):
    _, command, rest = commands.find(line.split())
    _, problems = config.collect(commands.load(command.config), rest)
    assert len(problems) == 1 and said in problems[0]
