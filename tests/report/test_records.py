"""Run records: what is written can be read, by any JSON reader, and nothing else is touched."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nanochat.report import stage_records as records
from nanochat.runtime.records import plain, write_record

anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=12,
)


def test_a_record_comes_back_with_its_surroundings(base_dir):
    path = write_record("base_train", {"metrics": {"val_bpb": 1.25}, "config": {"depth": 4}})
    assert path == base_dir / "report" / "base_train.json"
    record = records.read_records()["base_train"]
    assert record["metrics"] == {"val_bpb": 1.25}
    assert record["section"] == "base_train" and record["written"] > 1e9
    assert record["environment"]["torch"] == torch.__version__ and record["code_version"]
    assert [p.name for p in path.parent.iterdir()] == ["base_train.json"]


def test_odd_values_become_plain_ones():
    @dataclasses.dataclass
    class Config:
        depth: int
        out: Path

    data = {
        "a": float("nan"),
        "b": [float("inf"), np.float32(0.5)],
        "c": torch.tensor(3),
        "d": Config(4, Path("x")),
    }
    data |= {"e": (1, 2), "f": {"z", "y"}, "g": "half \ud800 character", "h": torch.float32}
    write_record("exam", data)
    record = records.read_records()["exam"]
    assert (record["a"], record["b"], record["c"], record["d"]) == (
        None,
        [None, 0.5],
        3,
        {"depth": 4, "out": "x"},
    )
    assert (record["e"], record["f"], record["g"], record["h"]) == (
        [1, 2],
        ["y", "z"],
        "half ? character",
        "torch.float32",
    )


@given(anything)
def test_plain_is_strict_json(value):
    text = json.dumps(plain({"value": value}), ensure_ascii=False, allow_nan=False)
    assert json.loads(text.encode("utf-8")) == plain({"value": value})


def test_sections_come_in_the_order_of_the_pipeline_and_unknown_ones_are_refused():
    for section in ("exam", "chat_sft", "tokenizer"):
        write_record(section, {})
    assert list(records.read_records()) == ["tokenizer", "chat_sft", "exam"]
    with pytest.raises(ValueError, match="chat_stf.*chat_sft"):
        write_record("chat_stf", {})


@pytest.mark.parametrize("content", [b'{"section": ', b"[1]", b"\xff\xfe"])
def test_a_broken_record_is_named(base_dir, content):
    (base_dir / "report").mkdir(parents=True)
    (base_dir / "report" / "exam.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"exam\.json.*delete it"):
        records.read_records()


def test_metrics_are_merged_by_step_and_half_lines_passed_over(tmp_path):
    path = tmp_path / "metrics.jsonl"
    lines = [
        '{"step": 1, "loss": 2.0}',
        '{"step": 0, "loss": 3.0}',
        "[]",
        '{"loss": 9}',
        '{"step": 1, "val_bpb": 1.5}',
    ]
    path.write_text("\n".join([*lines, '{"step": 1, "loss": 1.0}', '{"step": 2, "lo']))
    rows = [{"step": 0, "loss": 3.0}, {"step": 1, "loss": 1.0, "val_bpb": 1.5}]
    assert records.read_metrics(path) == rows
    assert records.read_metrics(tmp_path / "absent.jsonl") == records.read_metrics(None) == []


def test_reset_removes_its_own_files_only(base_dir):
    write_record("exam", {})
    folder = base_dir / "report"
    (folder / records.PICTURES).mkdir()
    for name in (
        "report.md",
        "report.html",
        "notes.txt",
        "report_files/plot_exam.png",
        "report_files/mine.png",
    ):
        (folder / name).write_text("x")
    assert len(records.clear_records()) == 4
    left = sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())
    assert left == ["notes.txt", "report_files/mine.png"]
    assert records.clear_records() == []
