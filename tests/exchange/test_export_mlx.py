"""Folders for mlx-lm: what its class reads, what is refused, and (where it is installed) that it
computes what we do.
"""

from __future__ import annotations

import json

import pytest
import torch
from tiny_checkpoint import save_tiny

from nanochat.exchange.export_mlx import MLXExportConfig, check_mlx, export_mlx, write_mlx
from nanochat.exchange.probes import PROMPTS
from nanochat.exchange.stored_model import open_stored
from nanochat.model_spec import ModelSpec

safetensors = pytest.importorskip("safetensors.torch")
SPEC = ModelSpec("sft", "d3", 7)


def stored(**fields):
    save_tiny(**fields)
    return open_stored(SPEC)


def test_the_folder_holds_our_names_and_its_config(tmp_path):
    model = stored(vocab_multiple=64)
    write_mlx(model, tmp_path / "out", "keep")
    tensors = safetensors.load_file(tmp_path / "out" / "model.safetensors")
    assert tensors.keys() == model.state.keys()
    assert tensors["lm_head.weight"].equal(model.state["lm_head.weight"][:340])
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["model_type"] == "nanochat" and config["intermediate_size"] == 256
    assert config["vocab_size"] == 340 and len(config["eos_token_id"]) == 2
    write_mlx(model, tmp_path / "narrow", "bfloat16")
    tensors = safetensors.load_file(tmp_path / "narrow" / "model.safetensors")
    assert {tensor.dtype for tensor in tensors.values()} == {torch.bfloat16}


@pytest.mark.parametrize(
    "fields, said",
    [
        ({"preset": "modern"}, "mlx-lm's nanochat holds classic models only"),
        ({"logit_softcap": 20.0}, "its softcap is 20, mlx-lm has 15 in its code"),
    ],
)
def test_what_its_class_cannot_hold_is_refused(fields, said, tmp_path):
    save_tiny(**fields)
    with pytest.raises(ValueError, match=said):
        export_mlx(MLXExportConfig(model="sft:d3", out=str(tmp_path / "out")))
    assert list(tmp_path.glob("*out*")) == []


def test_where_it_cannot_be_run_that_is_said(tmp_path, monkeypatch, capsys):
    """The one export that most machines cannot check."""
    import sys

    save_tiny()
    monkeypatch.setitem(sys.modules, "mlx", None)
    monkeypatch.setitem(sys.modules, "mlx.core", None)
    assert export_mlx(MLXExportConfig(model="sft:d3", out=str(tmp_path / "out"))) == []
    assert "not checked: mlx is not installed" in capsys.readouterr().out
    assert "not checked" in (tmp_path / "out" / "README.md").read_text()


def test_mlx_computes_what_we_do(tmp_path, monkeypatch):
    pytest.importorskip("mlx_lm")
    monkeypatch.setattr("nanochat.exchange.self_check.GREEDY_TOKENS", 12)
    model = stored()
    write_mlx(model, tmp_path / "out", "float32")
    (check,), _ = check_mlx(model, tmp_path / "out", "float32", PROMPTS[:3])
    assert check.problems() == []
