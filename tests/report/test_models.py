"""`nanochat models`: the table of checkpoints, notes, differences."""

from __future__ import annotations

import json

import pytest

from nanochat.report.checkpoint_table import checkpoint_rows
from nanochat.report.models_command import ModelsConfig, models


@pytest.fixture
def base(tmp_path, monkeypatch):
    monkeypatch.setenv("NANOCHAT_BASE_DIR", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "250")
    made(tmp_path, "base", "d4", 100)
    made(tmp_path, "chatsft", "d4", 20, init_lr_frac=0.02)
    made(tmp_path, "chatsft", "d4", 40, init_lr_frac=0.5)
    scores = {"metrics": {"ChatCORE": 0.25}, "tasks": {"SQL": {"score": 0.5}}}
    (tmp_path / "chatsft_checkpoints/d4/chat_eval_000040.json").write_text(json.dumps(scores))
    return tmp_path


def made(base, folder, tag, step, **settings):
    place = base / f"{folder}_checkpoints" / tag
    place.mkdir(parents=True, exist_ok=True)
    (place / f"model_{step:06d}.pt").write_bytes(b"weights")
    source = None if folder == "base" else {"source": "base", "directory": "/x/d4", "step": 100}
    meta = {
        "model_config": {"n_layer": 4},
        "user_config": settings,
        "code_version": "abc123",
        "parent": source,
        "mixture": [{"source": "own.jsonl", "rows": 629, "epochs": 3.0, "hash": "0123456789ab"}],
        "trainer": {"train_s": 1800.0},
        "files": {f"model_{step:06d}.pt": {"bytes": 7, "sha256": f"{folder}{step}"}},
    }
    (place / f"meta_{step:06d}.json").write_text(json.dumps(meta))


def test_every_complete_checkpoint_is_listed(base):
    (base / "chatsft_checkpoints/d4/model_000060.pt").write_bytes(b"no meta")
    told = models(ModelsConfig())
    assert [row.name for row in checkpoint_rows()] == ["base:d4:100", "sft:d4:20", "sft:d4:40"]
    for part in ("base:d4:100", "own.jsonl (629 rows x 3) 01234567", "abc123", "0.50", "SQL 0.5"):
        assert part in told
    assert "60" not in "".join(row.name for row in checkpoint_rows())


def test_costs_are_hours_times_a_rate(base):
    assert [row.usd for row in checkpoint_rows()] == [None] * 3
    assert [row.usd for row in checkpoint_rows(4.0)] == [2.0] * 3
    record = {
        "checkpoint": {"sha256": "chatsft40"},
        "environment": {"gpus": ["NVIDIA H100 80GB HBM3"]},
        "device": "cuda:0",
        "world_size": 1,
    }
    (base / "report").mkdir()
    (base / "report" / "chat_sft.json").write_text(json.dumps(record))
    assert [row.usd for row in checkpoint_rows()] == [None, None, 1.5]


def test_notes_stay_with_the_checkpoint(base):
    assert "noted about sft:d4:40" in models(ModelsConfig("note", "sft:d4", "good on joins"))
    models(ModelsConfig("note", "sft:d4:40", "shipped"))
    models(ModelsConfig("note", "sft:d4:20", "worse"))
    assert [row.notes for row in checkpoint_rows()] == [
        (),
        ("worse",),
        ("good on joins", "shipped"),
    ]
    assert "good on joins; shipped" in models(ModelsConfig())


def test_differences(base):
    told = models(ModelsConfig("diff", "sft:d4:20", "sft:d4:40"))
    assert "setting init_lr_frac" in told and "0.0200" in told and "0.5000" in told
    assert "score SQL" in told and "nanochat compare sft:d4:20 sft:d4:40" in told
    assert "n_layer" not in told


def test_the_table_as_a_file(base, tmp_path):
    models(ModelsConfig(markdown=str(tmp_path / "MODELS.md")))
    text = (tmp_path / "MODELS.md").read_text()
    assert text.count("sft:d4") == 2 and text.startswith("# nanochat")


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("d4", "several stages have it; write base:d4 or sft:d4"),
        ("sft:d9", "no such model"),
        ("sft:d4:30", "no such model"),
        ("nothing", "no such model"),
    ],
)
def test_a_model_that_there_is_not(base, name, told):
    with pytest.raises(ValueError, match=told):
        models(ModelsConfig("note", name, "text"))


def test_an_empty_folder_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setenv("NANOCHAT_BASE_DIR", str(tmp_path))
    assert "no models in" in models(ModelsConfig())
    assert "models note: write the model and a text" in ModelsConfig("note", "sft:d4").problems()[0]
