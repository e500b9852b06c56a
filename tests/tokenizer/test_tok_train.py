"""Training and measuring a tokenizer as commands: what they read, write and refuse."""

from __future__ import annotations

import json
import logging

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nanochat.tokenizer import Tokenizer
from nanochat.tokenizer.corpus import corpus_files, documents, size_estimate
from nanochat.tokenizer.evaluate import TokEvalConfig, tok_eval
from nanochat.tokenizer.train import TokTrainConfig, _MergeLog, tok_train

LINE = "It was a bright cold day, and the clocks were striking thirteen. "


def write_shards(folder, *texts):
    folder.mkdir(parents=True, exist_ok=True)
    for number, rows in enumerate(texts):
        pq.write_table(pa.table({"text": rows}), folder / f"shard_{number:05d}.parquet")


def no_network(name):
    raise OSError("no network in tests")


def test_the_last_shard_is_never_trained_on(base_dir):
    write_shards(
        base_dir / "base_data", [LINE] * 20, [LINE.upper()] * 20, ["zzzz qqqq zzzz qqqq "] * 50
    )
    record = tok_train(TokTrainConfig(vocab_size=290))
    tokenizer = Tokenizer.load()
    assert record["vocab_size"] == tokenizer.get_vocab_size() == 290
    assert (record["documents"], record["characters"]) == (40, 40 * len(LINE))
    assert len(tokenizer.encode("zzzz")) == 4 and len(tokenizer.encode("bright")) < 6
    saved = json.loads((base_dir / "report" / "tokenizer.json").read_text())
    assert saved["identity"] == tokenizer.identity()


def test_max_chars_and_doc_cap_limit_what_is_read(base_dir):
    write_shards(base_dir / "base_data", ["a" * 50, "b" * 50, "c" * 50], ["v"])
    train, validation = corpus_files()
    assert [len(path.name) for path in train + validation] == [19, 19]
    assert list(documents(train, 1000, 20)) == ["a" * 20, "b" * 20, "c" * 20]
    assert list(documents(train, 30, 20)) == ["a" * 20, "b" * 10]
    assert size_estimate(train) >= 150


def test_own_text_of_every_kind(tmp_path):
    (tmp_path / "a.txt").write_text(LINE * 3)
    (tmp_path / "b.md").write_text("# Title\n")
    (tmp_path / "c.jsonl").write_text(json.dumps({"text": "from json"}) + "\n\n")
    (tmp_path / "ignored.png").write_text("no")
    pq.write_table(pa.table({"text": ["from parquet", None]}), tmp_path / "d.parquet")
    train, validation = corpus_files(tmp_path)
    assert validation == []
    assert list(documents(train, 10**6, 10**6)) == [
        LINE * 3,
        "# Title\n",
        "from json",
        "from parquet",
    ]
    assert corpus_files(tmp_path / "a.txt") == ([tmp_path / "a.txt"], [])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder: None, "no text in .*python -m nanochat.dataset"),
        (lambda folder: folder.mkdir(), "no text in .*--data"),
        (lambda folder: write_shards(folder, [None, ""]), "no text to train a tokenizer on"),
    ],
)
def test_no_text_is_one_error_and_nothing_is_written(tmp_path, base_dir, make, message):
    make(tmp_path / "text")
    with pytest.raises(ValueError, match=message):
        tok_train(TokTrainConfig(data=str(tmp_path / "text")))
    assert not (base_dir / "tokenizer").exists() and not (base_dir / "report").exists()


def test_damaged_files_name_themselves(tmp_path):
    for name, content, message in [
        ("shard_00000.parquet", b"PAR1 not really", "damaged shard"),
        ("x.jsonl", b'{"text": "ok"}\n{"no": 1}\n', r"x\.jsonl:2: not a JSON object"),
        ("x.csv", b"a,b", r"use one of \.parquet"),
    ]:
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=message):
            tok_train(TokTrainConfig(data=str(tmp_path / name)))
    pq.write_table(pa.table({"words": ["x"]}), tmp_path / "column.parquet")
    with pytest.raises(ValueError, match="no column 'text', only words"):
        tok_train(TokTrainConfig(data=str(tmp_path / "column.parquet")))


def test_impossible_settings_are_reported_together():
    assert len(TokTrainConfig(max_chars=0, doc_cap=-1, vocab_size=100).problems()) == 3
    assert TokTrainConfig().problems() == [] and TokEvalConfig(max_chars=0).problems()


def test_tok_eval_without_network_compares_with_nothing_but_works(base_dir, monkeypatch, capsys):
    monkeypatch.setattr("tiktoken.get_encoding", no_network)
    write_shards(base_dir / "base_data", [LINE] * 20, [LINE])
    tok_train(TokTrainConfig(vocab_size=300))
    result = tok_eval(TokEvalConfig())
    ratios = result["bytes_per_token"]["this"]
    assert ratios["training text"] > ratios["languages"] >= 1.0
    assert result["not_available"] == ["GPT-2", "GPT-4"]
    saved = json.loads((base_dir / "report" / "tokenizer.json").read_text())
    assert saved["documents"] == 20 and saved["evaluation"]["vocab_size"] == {"this": 300}
    assert "not available offline" in capsys.readouterr().out


def test_tok_eval_works_without_any_own_text(monkeypatch):
    monkeypatch.setattr("tiktoken.get_encoding", no_network)
    Tokenizer.train([LINE], 280)
    with pytest.raises(ValueError, match="tok_train"):
        tok_eval(TokEvalConfig())


def test_reading_and_merging_show_progress(base_dir, capsys):
    write_shards(base_dir / "base_data", [LINE * 5 + str(n) for n in range(200)], ["v"])
    tok_train(TokTrainConfig(vocab_size=320))
    assert "(100%), took" in capsys.readouterr().err
    log = _MergeLog()
    for done in (20, 55):
        log.emit(
            logging.LogRecord(
                "rustbpe", 20, "", 0, f"Progress: ({done}/55 merges) - Last merge", None, None
            )
        )
    log.emit(
        logging.LogRecord(
            "rustbpe", 20, "", 0, "Finished training: 55 merges completed", None, None
        )
    )
    log.finish()
    assert "merging: 55/55 (100%)" in capsys.readouterr().err
