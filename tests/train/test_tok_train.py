"""Training and measuring a tokenizer as commands: what they read, write and refuse."""

from __future__ import annotations

import json
import logging

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nanochat.eval.tok_eval import TokEvalConfig, tok_eval
from nanochat.tokenizer import Tokenizer
from nanochat.train.tok_train import TokTrainConfig, _MergeLog, tok_train

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


def read(data=None, **settings) -> list[str]:
    """What the tokenizer is trained on."""
    seen = []
    place = None if data is None else str(data)
    cfg = TokTrainConfig(data=place, vocab_size=270, replace=True, **settings)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Tokenizer, "train", lambda texts, *_: seen.extend(texts) or byte_level())
        tok_train(cfg)
    return seen


def byte_level():
    return Tokenizer.byte_level()


def test_max_chars_and_doc_cap_limit_what_is_read_and_say_so(base_dir, capsys):
    write_shards(base_dir / "base_data", ["a" * 50, "b" * 50, None, "c" * 50], ["v"])
    assert read(max_chars=1000, doc_cap=20) == ["a" * 20, "b" * 20, "c" * 20]
    out = capsys.readouterr().out
    assert "not used: 90 characters of 3 documents longer than --doc-cap=20\n" in out
    assert "not read: shard_00001.parquet, the validation shard\n" in out
    assert read(max_chars=30, doc_cap=20) == ["a" * 20, "b" * 10]
    assert "not used: what comes after --max-chars=30" in capsys.readouterr().out
    assert read(max_chars=150, doc_cap=50) == ["a" * 50, "b" * 50, "c" * 50]
    assert "not used" not in capsys.readouterr().out
    assert read(max_chars=100, doc_cap=50) == ["a" * 50, "b" * 50]
    assert "not used: what comes after --max-chars=100" in capsys.readouterr().out


def test_every_character_of_a_long_book_is_used(tmp_path, capsys):
    paragraphs = [f"Paragraph {i}. " + LINE * (i % 40) for i in range(900)]
    for name, text in (("book.txt", "\n\n".join(paragraphs)), ("line.TXT", LINE * 18_000)):
        (tmp_path / name).write_text(text)
        seen = read(tmp_path / name)
        assert len(text) > 1_000_000 and max(map(len, seen)) <= 10_000
        assert sum(len("".join(piece.split())) for piece in seen) == len("".join(text.split()))
        assert "not used" not in capsys.readouterr().out


def test_own_text_of_every_kind(tmp_path, capsys):
    (tmp_path / "a.txt").write_text(LINE * 3)
    (tmp_path / "b.MD").write_text("\ufeff# Title\n")
    (tmp_path / "c.jsonl").write_text("\ufeff" + json.dumps({"text": "from json"}) + "\n\n")
    (tmp_path / "e.jsonl").write_bytes(json.dumps({"text": "wide"}).encode("utf-16"))
    (tmp_path / "ignored.png").write_text("no")
    (tmp_path / "._a.txt").write_bytes(b"\0\5\x16\7 of a Mac")
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "x.txt").write_text("not this")
    pq.write_table(pa.table({"text": ["from parquet", None]}), tmp_path / "d.parquet")
    coded = pa.array(["coded", "coded"]).dictionary_encode()
    pq.write_table(pa.table({"text": coded}), tmp_path / "f.PARQUET")
    assert read(tmp_path) == [
        (LINE * 3).strip(),
        "# Title",
        "from json",
        "from parquet",
        "wide",
        "coded",
        "coded",
    ]
    out = capsys.readouterr().out
    assert "read as utf-16: e.jsonl" in out
    assert "not read: 2 hidden files and folders (._a.txt, .git)" in out
    assert "1 files of other kinds" in out and "1 .png" in out
    assert read(tmp_path / "a.txt") == [(LINE * 3).strip()]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder: None, "--data=.*no such file or folder"),
        (lambda folder: folder.mkdir(), "--data=.*no .txt, .md"),
        (lambda folder: write_shards(folder, [None, ""]), "no text to train a tokenizer on"),
    ],
)
def test_no_text_is_one_error_and_nothing_is_written(tmp_path, base_dir, make, message):
    make(tmp_path / "text")
    with pytest.raises(ValueError, match=message):
        tok_train(TokTrainConfig(data=str(tmp_path / "text")))
    assert not (base_dir / "tokenizer").exists() and not (base_dir / "report").exists()


def test_no_shards_say_how_to_get_some(base_dir):
    with pytest.raises(ValueError, match="no text shards here; get some with"):
        tok_train(TokTrainConfig())


DAMAGED = {
    "shard_00000.parquet": (b"PAR1 not really", "shard_00000.parquet: damaged"),
    "x.jsonl": (b'{"text": "ok"}\n{"no": 1}\n', r"x\.jsonl:2: no string field"),
    "deep.jsonl": (b'{"text": ' + b"[" * 10_000, r"deep\.jsonl:1: not usable JSON .*nested"),
    "x.csv": (b"a,b", "not a .txt, .md, .jsonl, .parquet file"),
    "cut.txt": ("schön €".encode()[:-1], r"cut\.txt: UTF-8 with damaged bytes.*offset 7"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_files_name_themselves(tmp_path, name):
    data, message = DAMAGED[name]
    (tmp_path / name).write_bytes(data)
    with pytest.raises(ValueError, match=message):
        tok_train(TokTrainConfig(data=str(tmp_path / name)))


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"words": pa.array(["x"])}, "it has words: string.; rename 'words' to 'text'"),
        ({"text": pa.array([b"x"])}, "it has text: binary"),
        ({"text": pa.array([1])}, "it has text: int64"),
        ({"text": pa.array([["x"]])}, "it has text: list<"),
        ({"text": pa.array([{"text": "x"}])}, "it has text: struct<"),
    ],
)
def test_columns_that_are_no_text_are_named(tmp_path, columns, message):
    pq.write_table(pa.table(columns), tmp_path / "t.parquet")
    with pytest.raises(ValueError, match=f"no column 'text' of strings .*{message}"):
        tok_train(TokTrainConfig(data=str(tmp_path / "t.parquet")))


def test_impossible_settings_are_reported_together():
    cfg = TokTrainConfig(max_chars=0, doc_cap=-1, vocab_size=100, encoding="klingon")
    assert len(cfg.problems()) == 4
    assert TokTrainConfig().problems() == [] and TokEvalConfig(max_chars=0).problems()


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer.pkl"])
def test_an_earlier_tokenizer_is_kept_unless_it_is_to_go(base_dir, capsys, name):
    """Models may have been trained with it: it is refused before anything is read, then moved."""
    write_shards(base_dir / "base_data", [LINE] * 20, [LINE])
    place = base_dir / "tokenizer" / name
    place.parent.mkdir(parents=True)
    place.write_bytes(b"of last month")
    with pytest.raises(ValueError, match=r"tokenizer: holds a tokenizer.*--replace"):
        tok_train(TokTrainConfig(vocab_size=300))
    assert place.read_bytes() == b"of last month" and not (base_dir / "report").exists()
    tok_train(TokTrainConfig(vocab_size=300, replace=True))
    assert Tokenizer.load().get_vocab_size() == 300
    (moved,) = base_dir.glob(f"previous/*/tokenizer/{name}")
    assert moved.read_bytes() == b"of last month"
    assert f"now in {moved.parent}" in capsys.readouterr().out


def test_a_failed_try_leaves_the_earlier_tokenizer_in_place(base_dir, monkeypatch):
    write_shards(base_dir / "base_data", [LINE] * 20, [LINE])
    tok_train(TokTrainConfig(vocab_size=300))

    def fails(texts, *_):
        raise ValueError("out of luck")

    monkeypatch.setattr(Tokenizer, "train", fails)
    with pytest.raises(ValueError, match="out of luck"):
        tok_train(TokTrainConfig(vocab_size=320, replace=True))
    assert Tokenizer.load().get_vocab_size() == 300


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
