"""Checkpoints: whole or not there, verified on loading, found by stage, tag and step."""

from __future__ import annotations

import errno
import json
import os
import re
import subprocess
import sys

import pytest
import torch

from nanochat import checkpoint_manager as cm
from nanochat.gpt import GPT, GPTConfig
from nanochat.runtime import tensor_files
from nanochat.tokenizer import Tokenizer


@pytest.fixture
def model() -> GPT:
    model = GPT(
        GPTConfig.preset(
            "modern",
            sequence_len=32,
            vocab_size=265,
            n_layer=1,
            n_head=1,
            n_kv_head=1,
            n_embd=32,
            window_pattern="L",
        )
    )
    model.init_weights(0)
    return model


def save(directory, model, step=3, **meta):
    optimizer = {"n_updates": 1, "state": {"head": [{"m": torch.ones(4)}]}}
    document = {"model_config": model.config.to_dict(), **meta}
    return cm.save_checkpoint(directory, step, model.state_dict(), optimizer, document)


def names(directory):
    return sorted(path.name for path in directory.iterdir())


def test_roundtrip_with_hashes_and_weights_only(tmp_path, model):
    save(tmp_path, model, note="x")
    assert names(tmp_path) == ["meta_000003.json", "model_000003.pt", "optim_000003.pt"]
    state, optimizer, meta = cm.load_checkpoint(tmp_path, 3, "cpu", load_optimizer=True)
    assert all(torch.equal(state[name], tensor) for name, tensor in model.state_dict().items())
    assert optimizer["state"]["head"][0]["m"].sum() == 4 and (meta["step"], meta["note"]) == (
        3,
        "x",
    )
    for name, facts in meta["files"].items():
        assert tensor_files.sha256_file(tmp_path / name) == facts["sha256"]
        assert (tmp_path / name).stat().st_size == facts["bytes"]
        torch.load(tmp_path / name, weights_only=True)


def test_meta_comes_last_and_everything_is_flushed_before_it(tmp_path, model, monkeypatch):
    done = []
    replace, fsync = os.replace, os.fsync
    monkeypatch.setattr(
        os, "replace", lambda a, b: (done.append(os.path.basename(b)), replace(a, b))[1]
    )
    monkeypatch.setattr(os, "fsync", lambda handle: (done.append("fsync"), fsync(handle))[1])
    save(tmp_path, model)
    files = [name for name in done if name != "fsync"]
    assert files == ["model_000003.pt", "optim_000003.pt", "meta_000003.json"]
    for name in files:  # the file itself before its rename, the folder after
        assert done[done.index(name) - 1] == "fsync"
    assert done[-1] == "fsync"


@pytest.mark.parametrize("moment", range(6))
def test_a_save_cut_off_anywhere_leaves_no_step_and_keeps_the_old_one(
    tmp_path, model, monkeypatch, moment
):
    """Killed at the n-th flush or rename: nothing is cleaned up then, as after signal 9."""
    save(tmp_path, model, step=1)
    calls = []

    def die(function):
        def wrapper(*arguments):
            calls.append(function)
            if len(calls) > moment:
                raise KeyboardInterrupt
            return function(*arguments)

        return wrapper

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", die(os.replace))
        patch.setattr(os, "fsync", die(os.fsync))
        patch.setattr(type(tmp_path), "unlink", lambda *a, **k: None)
        with pytest.raises(KeyboardInterrupt):
            save(tmp_path, model, step=2)
    assert cm.complete_steps(tmp_path) == [1]
    cm.load_checkpoint(tmp_path, 1, "cpu", load_optimizer=True)
    assert cm.remove_leftovers(tmp_path) or moment == 0
    assert names(tmp_path) == ["meta_000001.json", "model_000001.pt", "optim_000001.pt"]


def test_a_full_disk_leaves_nothing_behind(tmp_path, model, monkeypatch):
    save(tmp_path, model, step=1)
    write = tensor_files._Hashing.write

    def full(self, data):
        if self.n_bytes > 2000 and "optim" in self.file.name:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(self, data)

    def fill(self, data):
        raise OSError(errno.ENOSPC, "No space left on device")

    for failing in (full, fill):
        monkeypatch.setattr(tensor_files._Hashing, "write", failing)
        big = {"state": {"x": torch.zeros(10_000)}}
        with pytest.raises(OSError, match="No space left"):
            cm.save_checkpoint(tmp_path, 2, model.state_dict(), big, {"model_config": {}})
        assert names(tmp_path) == ["meta_000001.json", "model_000001.pt", "optim_000001.pt"]


def test_incomplete_steps_do_not_exist(tmp_path, model):
    for step in (1, 2, 3, 4, 5):
        save(tmp_path, model, step=step)
    (tmp_path / "meta_000001.json").unlink()
    (tmp_path / "model_000002.pt").unlink()
    with open(tmp_path / "optim_000003.pt", "r+b") as file:
        file.truncate(100)
    (tmp_path / "meta_000004.json").write_text("{")
    assert cm.complete_steps(tmp_path) == [5]
    assert "missing" in cm.incomplete(tmp_path, 2)
    assert "100 bytes instead of" in cm.incomplete(tmp_path, 3)
    with pytest.raises(
        ValueError, match=r"meta_000001.json: no such step; complete steps here: \[5\]"
    ):
        cm.load_checkpoint(tmp_path, 1, "cpu")


def test_a_flipped_bit_is_found_and_named(tmp_path, model):
    save(tmp_path, model)
    path = tmp_path / "model_000003.pt"
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(raw)
    with pytest.raises(ValueError, match=r"model_000003.pt: damaged \(its SHA-256"):
        cm.load_checkpoint(tmp_path, 3, "cpu")


def test_the_newest_and_the_best_are_kept(tmp_path, model):
    for step, bpb in ((1, 2.0), (2, 1.0), (3, 1.5), (4, None), (5, 1.7)):
        save(tmp_path, model, step=step, val_bpb=bpb)
    for _ in range(2):
        cm.prune(tmp_path, 2, own=range(9))
        assert cm.complete_steps(tmp_path) == [2, 4, 5]


def test_pruning_leaves_what_is_not_the_runs_own_and_what_is_spared(tmp_path, model):
    for step in range(1, 9):
        save(tmp_path, model, step=step)
    cm.prune(tmp_path, 1, own={2, 3, 4, 5, 6}, spare=3)
    assert cm.complete_steps(tmp_path) == [1, 3, 6, 7, 8]


def test_leftovers_are_removed_and_only_they(tmp_path, model):
    save(tmp_path, model, step=1)
    (tmp_path / "tokenizer").mkdir()
    for name in (
        ".model_000002.pt.partial",
        "model_000002.pt",
        "optim_000002.pt",
        ".meta_000002.json.x1",
        ".saving_000002",
        "notes.txt",
        "model_000700.pt",  # brought here by hand
    ):
        (tmp_path / name).write_bytes(b"x")
    removed = cm.remove_leftovers(tmp_path)
    assert removed == [
        ".meta_000002.json.x1",
        ".model_000002.pt.partial",
        ".saving_000002",
        "model_000002.pt",
        "optim_000002.pt",
    ]
    assert names(tmp_path) == [
        "meta_000001.json",
        "model_000001.pt",
        "model_000700.pt",
        "notes.txt",
        "optim_000001.pt",
        "tokenizer",
    ]


def test_tensors_that_do_not_fit_are_listed(tmp_path, model):
    state = dict(model.state_dict())
    state["lm_head.weight"] = torch.zeros(2, 2)
    del state["resid_lambdas"]
    state["strange"] = torch.zeros(1)
    with pytest.raises(ValueError) as error:
        cm.build_model(state, {"model_config": model.config.to_dict()}, "here")
    for part in (
        "here:",
        "resid_lambdas (missing)",
        "strange (unknown)",
        "lm_head.weight (2, 2) instead of",
    ):
        assert part in str(error.value)


@pytest.fixture
def saved(base_dir, model):
    def make(stage, tag, *steps):
        for step in steps:
            save(base_dir / cm.FOLDERS[stage] / tag, model, step=step)

    return make


def test_choice_of_tag_and_step(saved, base_dir):
    saved("base", "d4", 10, 20)
    saved("base", "d12", 5)
    saved("base", "mine", 99)
    directory, step, why = cm.find_checkpoint("base")
    assert (directory.name, step) == ("d12", 5) and "largest depth" in why
    assert cm.find_checkpoint("base", "d4")[1:] == (20, "as asked; newest complete step")
    assert cm.find_checkpoint("base", "d4", 10)[1] == 10
    (base_dir / "base_checkpoints" / "d4" / "meta_000020.json").unlink()
    assert cm.find_checkpoint("base", "d4")[1] == 10


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("mid",), "no mid checkpoint in .*make one with `python -m scripts.mid_train`"),
        (("base", "d9"), "model_tag=d9: no base checkpoint of that name; there are: d4"),
        (("base", "d4", 7), r"step=7: not usable .* complete steps of d4: \[10\]"),
        (("bse",), "source=bse: unknown stage; use one of base, mid, sft, rl"),
        (("base", "../x"), "model_tag='../x': use letters"),
    ],
)
def test_what_is_not_there_is_said_with_the_fix(saved, arguments, message):
    saved("base", "d4", 10)
    with pytest.raises(ValueError, match=message):
        cm.find_checkpoint(*arguments)


def test_vocabulary_mismatch(saved, base_dir, model):
    saved("base", "d4", 10)
    Tokenizer.train(["the cat sat on the mat " * 50], 270).save(base_dir / "tokenizer")
    with pytest.raises(ValueError, match=re.escape("vocabulary mismatch")):
        cm.load_model("base", "cpu")


@pytest.mark.parametrize("name", ["classic_d2", "modern_d3"])
def test_public_checkpoints_load(shared_dir, base_dir, name):
    folder = shared_dir / "fixtures" / name
    meta_path = next(folder.rglob("meta_*.json"))
    step = int(meta_path.stem.split("_")[1])
    state, _, meta = cm.load_checkpoint(meta_path.parent, step, "cpu")
    model = cm.build_model(state, meta)
    assert model.config.smear == (name == "modern_d3")
    assert model(torch.tensor([[1, 2, 3]])).isfinite().all()
    assert json.loads(meta_path.read_text())["model_config"]["n_layer"] == model.config.n_layer


def test_a_home_folder_is_expanded(tmp_path, model, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    save("~/mine", model)
    assert names(tmp_path) == ["mine"] and cm.complete_steps("~/mine") == [3]
    assert cm.load_checkpoint("~/mine", 3, "cpu")[2]["step"] == 3


@pytest.mark.parametrize("lost", ["meta", "model", "optim"])
def test_an_incomplete_checkpoint_is_said_to_be_so(saved, base_dir, lost):
    """By name, without a name where it is all there is, and beside one that can be used."""
    saved("base", "d4", 700)
    (path,) = (base_dir / "base_checkpoints" / "d4").glob(f"{lost}_000700*")
    path.unlink()
    said = rf"incomplete: .*{path.name} is missing"
    for tag in ("d4", None):
        with pytest.raises(ValueError, match=said):
            cm.find_checkpoint("base", tag)
    saved("base", "d2", 5)
    directory, _, why = cm.find_checkpoint("base")
    assert directory.name == "d2" and re.search("d4 is " + said, why)


def test_loading_a_model_does_not_load_the_compiler(tmp_path):
    """It takes a second, which everybody would wait for who asks one question."""
    program = """
import sys
from nanochat.checkpoint_manager import build_model
from nanochat.gpt import GPT
from nanochat.gpt_config import GPTConfig

config = GPTConfig.preset("modern", sequence_len=8, vocab_size=32, n_layer=2, n_head=2,
                          n_kv_head=2, n_embd=32, window_pattern="L")
state = {name: tensor + 1 for name, tensor in GPT(config).state_dict().items()}
loaded = build_model(state, {"model_config": config.to_dict()})
assert all((tensor == state[name]).all() for name, tensor in loaded.state_dict().items())
assert not any(tensor.is_meta for tensor in [*loaded.parameters(), *loaded.buffers()])
assert "torch._dynamo" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
