"""What goes wrong for people is one line that names the value and the fix, and leaves nothing
half-written.
"""

from __future__ import annotations

import os
import sys

import pytest
import torch
from tiny_config import tiny_config

from nanochat import cli
from nanochat.checkpoint_manager import save_checkpoint
from nanochat.dataset.shards import write_shards
from nanochat.gpt import GPT
from nanochat.tokenizer import Tokenizer

TINY = [
    "--depth=1",
    "--aspect-ratio=32",
    "--head-dim=32",
    "--max-seq-len=16",
    "--total-batch-size=32",
    "--device-type=cpu",
]


@pytest.fixture
def world(base_dir):
    """A base directory with shards, a tokenizer and one tiny base checkpoint."""
    texts = [f"Document number {i} says something about the number {i * 7}." for i in range(60)]
    write_shards(
        base_dir / "base_data", texts[:50], texts[50:], kind="test", source="test", licence="none"
    )
    tokenizer = Tokenizer.byte_level()
    tokenizer.save(base_dir / "tokenizer")
    model = GPT(tiny_config(tokenizer.get_vocab_size(), sequence_len=32, n_layer=1))
    model.init_weights()
    meta = {"model_config": model.config.to_dict(), "tokenizer": tokenizer.identity()}
    save_checkpoint(base_dir / "base_checkpoints" / "d1", 5, model.state_dict(), None, meta)
    return base_dir


def files(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file()) if folder.exists() else []


def complaint(argv, capsys) -> str:
    """The error lines of a command that must fail with exit code 2."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as stopped:
        cli.main(argv)
    assert stopped.value.code == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert errors
    return "\n".join(errors)


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["base-train", "--dept=4"], ["--dept=4", "--depth"]),
        (["base-train", "--depth=-3"], ["--depth=-3", "at least 1"]),
        (["base-train", "--depth=-3", "--max-seq-len=abc"], ["--depth=-3", "--max-seq-len=abc"]),
        (
            ["base-train", "--max-seq-len=512", "--total-batch-size=1000"],
            ["--total-batch-size=1000", "multiple"],
        ),
        (
            ["base-train", "--matrix-lr=nan", "--embedding-lr=inf"],
            ["--matrix-lr=nan", "--embedding-lr=inf"],
        ),
        (
            ["base-train", "--target-param-data-ratio=-1"],
            ["--target-param-data-ratio=-1", "above 0"],
        ),
        (
            ["base-train", *TINY, "--generation=modern", "--aspect-ratio=16", "--head-dim=16"],
            ["n_embd=16", "--head-dim"],
        ),
        (["base-train", *TINY, "--model-tag=../elsewhere"], ["../elsewhere", "letters, digits"]),
        (["base-train", "--window-pattern=SXL"], ["--window-pattern=SXL", "SSSL"]),
        (["chat-cli", "--model-tag=d99", "-p", "hi"], ["no sft checkpoint", "scripts.chat_sft"]),
        (["chat-cli", "-i", "base", "-g", "d99", "-p", "hi"], ["model_tag=d99", "d1"]),
        (["chat-cli", "-i", "base", "-p", "word " * 50], ["tokens", "32"]),
        (["chat-cli", "-i", "base", "-s", "7", "-p", "hi"], ["step=7", "[5]"]),
        (["chat-sft", "--source=base", "--mixture=none"], ["--data"]),
        (
            ["chat-sft", "--source=base", "--mixture=none", "--data=nowhere.jsonl"],
            ["nowhere.jsonl"],
        ),
    ],
)
def test_mistyped_commands(argv, words, world, capsys):
    before = files(world)
    said = complaint(argv, capsys)
    assert all(word in said for word in words), said
    assert files(world) == before


@pytest.mark.parametrize("target", ["ascii", "/dev/full", "reader gone", "closed"])
def test_a_training_goes_on_whatever_becomes_of_its_output(target, world, tmp_path, monkeypatch):
    texts = [f"{n} Ä漢字Ä漢字Ä漢字Ä漢字Ä漢字Ä漢字" for n in range(60)]
    data = tmp_path / "data"
    write_shards(data, texts[:50], texts[50:], kind="test", source="test", licence="none")
    argv = [
        "base-train",
        *TINY,
        f"--data={data}",
        "--num-iterations=2",
        "--sample-every=1",
        "--eval-every=-1",
    ]
    argv += ["--core-metric-every=-1", "--model-tag=new", "--eval-tokens=64"]
    reader, writer = os.pipe()
    os.close(reader)
    where = {"ascii": tmp_path / "log", "reader gone": writer}.get(target, target)
    shown = None if target == "closed" else open(where, "w", encoding="ascii")
    monkeypatch.setattr(sys, "stdout", shown)
    cli.main(argv)
    assert sys.stdout is shown
    assert (world / "base_checkpoints" / "new" / "model_000002.pt").exists()
    if target == "ascii":
        shown.close()
        assert b"-> '\\u" in (tmp_path / "log").read_bytes()


def test_missing_tokenizer(world, capsys):
    for path in (world / "tokenizer").iterdir():
        path.unlink()
    assert "tok_train" in complaint(["base-train", *TINY], capsys)
    assert not (world / "base_checkpoints" / "d1" / "metrics.jsonl").exists()


def test_empty_data_folder(world, tmp_path, capsys):
    empty = tmp_path / "empty"
    empty.mkdir()
    assert str(empty) in complaint(["base-train", *TINY, f"--data={empty}"], capsys)
    for path in (world / "base_data").iterdir():
        path.unlink()
    said = complaint(["base-train", *TINY], capsys)
    assert "base_data" in said and "python -m nanochat.dataset" in said


def test_a_binary_file_leaves_the_tokenizer_as_it_is(world, tmp_path, capsys):
    path, before = tmp_path / "picture.txt", (world / "tokenizer" / "tokenizer.json").read_bytes()
    path.write_bytes(b"\x89PNG\0\0")
    assert "zero bytes" in complaint(["tok-train", f"--data={path}", "--replace"], capsys)
    assert (world / "tokenizer" / "tokenizer.json").read_bytes() == before


def test_a_file_where_a_folder_is_needed(world, tmp_path, monkeypatch, capsys):
    place = tmp_path / "file"
    place.write_text("")
    assert f"{place}: a file is where a folder is needed" in complaint(
        ["dataset", "--embedded", "--characters=100000", f"--out={place}"], capsys
    )
    monkeypatch.setenv("NANOCHAT_BASE_DIR", str(place))
    assert f"NANOCHAT_BASE_DIR={place}" in complaint(["chat-cli", "-i", "base", "-p", "hi"], capsys)


def test_corrupt_shard(world, capsys):
    shard = world / "base_data" / "shard_00000.parquet"
    content = shard.read_bytes()
    shard.write_bytes(
        content[: len(content) // 2] + bytes(len(content) - len(content) // 2)
    )  # same size, no footer
    said = complaint(["base-train", *TINY, "--model-tag=new"], capsys)
    assert "shard_00000.parquet" in said
    assert not (world / "base_checkpoints" / "new").exists()


def test_vocabulary_mismatch(world, capsys):
    Tokenizer.train(["some other text, repeated. " * 20], 300).save(world / "tokenizer")
    said = complaint(["chat-cli", "-i", "base", "-p", "hi"], capsys)
    assert "vocabulary mismatch" in said


def test_bad_conversations(world, tmp_path, capsys):
    path = tmp_path / "bad.jsonl"
    path.write_text('{"messages": [{"role": "user", "content": "hi"}]}\nnot json\n')
    said = complaint(["chat-sft", "--source=base", "--mixture=none", f"--data={path}"], capsys)
    assert f"{path}:1" in said and "nanochat data check" in said
    assert not (world / "chatsft_checkpoints").exists()


def test_unreadable_checkpoint(world, capsys):
    path = world / "base_checkpoints" / "d1" / "model_000005.pt"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    said = complaint(["chat-cli", "-i", "base", "-p", "hi"], capsys)
    assert "model_000005.pt" in said and "damaged" in said
    torch.save(
        [1, 2], path
    )  # a pickle of something else, of another size: the step no longer exists
    assert "no base checkpoint" in complaint(["chat-cli", "-i", "base", "-p", "hi"], capsys)
