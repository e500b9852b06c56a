"""Every layout in which checkpoints lie about comes into the right folder, whole and recognised;
what is damaged, lies or is of another kind is refused with a line.
"""

from __future__ import annotations

import io
import json
import os
import pickle
import shutil
import struct

import pytest
import tiktoken
import torch
from fake_hub import FakeHub
from tiny_checkpoint import random_state, save_tiny, tiny_tokenizer

from nanochat.checkpoint_manager import checkpoint_dir, load_model
from nanochat.config import parse
from nanochat.dataset.fetcher import Fetcher
from nanochat.exchange.hf_folder import write_hf
from nanochat.exchange.layouts import find_checkpoints
from nanochat.exchange.pull import PullConfig, pull
from nanochat.exchange.repo_files import AddressFiles, HubFiles, safe_names
from nanochat.exchange.stored_model import open_stored
from nanochat.gpt_config import GPTConfig
from nanochat.model_spec import ModelSpec
from nanochat.tokenizer import Tokenizer

PUBLIC = {"n_layer": 2, "n_head": 2, "n_kv_head": 2, "n_embd": 64, "sequence_len": 256}


def public_pickle() -> bytes:
    """A tokenizer.pkl as public checkpoints have it."""
    ours = tiny_tokenizer()
    n_merges = ours.get_vocab_size() - len(ours.special_tokens)
    ranks = {ours.decode_bytes([number]): number for number in range(n_merges)}
    settings = {"pat_str": ours.pattern, "mergeable_ranks": ranks}
    return pickle.dumps(
        tiktoken.Encoding("rustbpe", special_tokens=ours.special_tokens, **settings)
    )


def public_files(n_layer: int = 2, **extra) -> tuple[dict, bytes, bytes]:
    """(state, model file, meta file) of a public classic checkpoint."""
    shape = {**PUBLIC, "n_layer": n_layer, "vocab_size": tiny_tokenizer().get_vocab_size()}
    state = random_state(GPTConfig(**shape, **extra))
    buffer = io.BytesIO()
    torch.save({f"_orig_mod.{name}": tensor for name, tensor in state.items()}, buffer)
    return state, buffer.getvalue(), json.dumps({"step": 650, "model_config": shape}).encode()


STATE, MODEL, META = public_files()
PICKLE = public_pickle()
LAYOUTS = {
    "flat root": {
        "model_000650.pt": MODEL,
        "meta_000650.json": META,
        "tokenizer.pkl": PICKLE,
        "token_bytes.pt": b"x",
    },
    "cache tree": {
        "chatsft_checkpoints/d34/model_000650.pt": MODEL,
        "chatsft_checkpoints/d34/meta_000650.json": META,
        "tokenizer/tokenizer.pkl": PICKLE,
    },
    "root, tokenizer folder, optimizer shards": {
        "model_000650.pt": MODEL,
        "meta_000650.json": META,
        "optim_000650_rank0.pt": b"x",
        "optim_000650_rank1.pt": b"x",
        "tokenizer/tokenizer.pkl": PICKLE,
    },
    "a folder for each": {
        "nanochat-sft/model_000650.pt": MODEL,
        "nanochat-sft/meta_000650.json": META,
        "nanochat-base/model_000100.pt": b"not asked for",
        "nanochat-base/meta_000100.json": META,
        "tokenizer.pkl": PICKLE,
    },
    "prefixed names": {
        "sft_model_000650.pt": MODEL,
        "sft_meta_000650.json": META,
        "mid_model_000813.pt": b"not asked for",
        "mid_meta_000813.json": META,
        "tokenizer.pkl": PICKLE,
    },
    "older steps": {
        "model_000650.pt": MODEL,
        "meta_000650.json": META,
        "model_000200.pt": b"not asked for",
        "meta_000200.json": META,
        "tokenizer.pkl": PICKLE,
    },
}


@pytest.fixture
def hub(monkeypatch):
    fake = FakeHub()
    monkeypatch.setenv("HF_ENDPOINT", fake.url)
    monkeypatch.delenv("HF_HUB_OFFLINE")
    yield fake
    fake.close()


def write(folder, files):
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return str(folder)


def pulled(cfg: PullConfig):
    """The state that a pull has left, by names."""
    folder = pull(cfg)
    step = int(next(folder.glob("meta_*.json")).stem.split("_")[1])
    return folder, torch.load(folder / f"model_{step:06d}.pt", weights_only=True)


def same(ours, theirs):
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        assert tensor.dtype == theirs[name].dtype and tensor.equal(theirs[name]), name


@pytest.mark.parametrize("layout", LAYOUTS)
def test_each_layout_comes_from_the_hub(layout, hub, capsys, base_dir):
    hub.repos["somebody/model"] = LAYOUTS[layout]
    folder, state = pulled(PullConfig(source="somebody/model", target="sft:d34"))
    assert folder == base_dir / "chatsft_checkpoints" / "d34"
    same(STATE, state)
    said = capsys.readouterr().out
    assert "saved as sft:d34:650" in said and "next: python -m scripts.chat_cli -i sft" in said
    assert not any("optim" in request for request in hub.requests)
    model, tokenizer, meta = load_model("sft", "cpu", model_tag="d34")
    assert tokenizer.identity() == tiny_tokenizer().identity()
    assert meta["pulled"]["source"] == "somebody/model" and model.config.rope_bf16


@pytest.mark.parametrize("layout", ["cache tree", "flat root"])
def test_a_folder_and_the_address_of_a_file(layout, hub, tmp_path):
    files = LAYOUTS[layout]
    source = write(tmp_path / "down", files)
    same(STATE, pulled(PullConfig(source=source, target="sft:one"))[1])
    if layout == "flat root":
        hub.repos["some/where"] = files
        url = f"{hub.url}/some/where/resolve/main/model_000650.pt"
        same(STATE, pulled(PullConfig(source=url, target="sft:two"))[1])
        page = f"{hub.url}/some/where/tree/main"
        same(STATE, pulled(PullConfig(source=page, target="sft:three"))[1])


def test_the_cache_of_the_hub_serves_offline(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    cfg = PullConfig(source="some/where", target="sft:d2")
    with pytest.raises(ValueError, match="not in the hub's cache, and HF_HUB_OFFLINE is set"):
        pull(cfg)
    write(tmp_path / "hub" / "models--some--where" / "snapshots" / "c0ffee", LAYOUTS["flat root"])
    same(STATE, pulled(cfg)[1])


@pytest.mark.parametrize("preset", ["classic", "modern"])
def test_hugging_face_format_and_back_is_bit_equal(preset, tmp_path, hub):
    pytest.importorskip("safetensors")
    save_tiny(preset, tag="d3")
    model = open_stored(ModelSpec("sft", "d3", 7))
    write_hf(model, tmp_path / "out", shard_bytes=100_000)
    shutil.rmtree(checkpoint_dir("sft", "d3"))
    paths = [path for path in (tmp_path / "out").iterdir() if path.is_file()]
    hub.repos["some/where"] = {path.name: path.read_bytes() for path in paths}
    folder, state = pulled(PullConfig(source="some/where"))  # it says itself what it is
    same(dict(model.state), state)
    assert folder == checkpoint_dir("sft", "d3")
    again = open_stored(ModelSpec("sft", "d3", 7))
    ids = torch.arange(50)[None]
    assert again.native()(ids).equal(model.native()(ids))
    assert again.tokenizer.identity() == model.tokenizer.identity()


def test_a_checkpoint_without_a_tokenizer_says_which_to_bring(tmp_path):
    files = {"model_000650.pt": MODEL, "meta_000650.json": META}
    source = write(tmp_path / "down", files)
    with pytest.raises(ValueError, match="without a tokenizer; bring the one .* of 340 tokens"):
        pull(PullConfig(source=source, target="sft:d2"))
    (tmp_path / "tokenizer.pkl").write_bytes(PICKLE)
    cfg = PullConfig(source=source, target="sft:d2", tokenizer=str(tmp_path / "tokenizer.pkl"))
    same(STATE, pulled(cfg)[1])
    Tokenizer.byte_level().save(tmp_path / "other")
    cfg = PullConfig(source=source, target="sft:x", tokenizer=str(tmp_path / "other"))
    with pytest.raises(ValueError, match="the tokenizer has 265 tokens, the model 340"):
        pull(cfg)


def test_what_no_tensor_tells_can_be_said_by_flag(tmp_path, capsys):
    source = write(tmp_path / "down", LAYOUTS["flat root"])
    words = [source, "--as", "base:march", "--softcap=20", "--rope-base=100000"]
    cfg = parse(PullConfig, words, prog="nanochat pull")
    assert pull(cfg).parent.name == "base_checkpoints"
    assert "softcap 20" in capsys.readouterr().out
    model, _, _ = load_model("base", "cpu", model_tag="march")
    assert (model.config.logit_softcap, model.config.rope_base) == (20, 100_000)


def test_where_names_do_not_tell_the_stage_it_is_asked_for(tmp_path):
    source = write(tmp_path / "down", LAYOUTS["flat root"])
    with pytest.raises(ValueError, match="do not say which stage .* add --as, e.g. --as=sft:d2"):
        pull(PullConfig(source=source))
    source = write(tmp_path / "tree", LAYOUTS["cache tree"])
    assert pull(PullConfig(source=source)) == checkpoint_dir("sft", "d34")
    with pytest.raises(ValueError, match="step 650 is there already; add --replace"):
        pull(PullConfig(source=source))
    pull(PullConfig(source=source, replace=True))


@pytest.mark.parametrize(
    "files, said",
    [
        ({}, "holds no checkpoint; looked for"),
        ({"x.gguf": b""}, "a GGUF file cannot be taken back"),
        ({"model_000001.pt": MODEL}, "without its meta file"),
        (
            {"a/model_000001.pt": MODEL, "a/meta_000001.json": META} | LAYOUTS["cache tree"],
            "say which",
        ),
    ],
)
def test_what_is_not_clear_is_said(files, said, tmp_path):
    (tmp_path / "down").mkdir()
    with pytest.raises(ValueError, match=said):
        pull(PullConfig(source=write(tmp_path / "down", files)))


def test_one_of_several_is_named_by_folder_or_step(tmp_path):
    files = {"a/model_000001.pt": MODEL, "a/meta_000001.json": META, **LAYOUTS["cache tree"]}
    source = write(tmp_path / "down", files)
    assert pull(PullConfig(source=source, step=650)).name == "d34"
    assert pull(PullConfig(source=source, folder="a/", target="base:a")).name == "a"
    with pytest.raises(ValueError, match="no such checkpoint there; it has a/model_000001.pt"):
        pull(PullConfig(source=source, step=3))


# --- what means harm


class Runs:
    def __reduce__(self):
        return os.system, ("touch harm",)


def safetensors_with(header: dict, data: bytes = b"\0" * 64) -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def entry(**changes):
    return {"dtype": "F32", "shape": [4], "data_offsets": [0, 16], **changes}


LYING = {
    "beyond the end": safetensors_with({"lm_head.weight": entry(data_offsets=[0, 10**12])}),
    "backwards": safetensors_with({"lm_head.weight": entry(data_offsets=[16, 0])}),
    "too short for the shape": safetensors_with({"lm_head.weight": entry(shape=[400])}),
    "negative": safetensors_with({"lm_head.weight": entry(data_offsets=[-16, 0])}),
    "overlapping": safetensors_with(
        {"lm_head.weight": entry(), "model.resid_lambdas": entry(data_offsets=[8, 24])}
    ),
    "a header longer than the file": struct.pack("<Q", 2**62) + b"{}",
    "no header": b"",
}


@pytest.mark.parametrize("what", LYING)
def test_a_safetensors_file_with_lying_offsets_is_refused(what, tmp_path):
    pytest.importorskip("safetensors")
    files = {"config.json": b"{}", "model.safetensors": LYING[what], "tokenizer.pkl": PICKLE}
    with pytest.raises(ValueError, match=r"model.safetensors: not a readable safetensors file"):
        pull(PullConfig(source=write(tmp_path / "down", files), target="sft:d2"))


@pytest.mark.parametrize(
    "name, data, said",
    [
        ("tokenizer.pkl", pickle.dumps(Runs()), "tokenizer pickle refused"),
        ("model_000650.pt", pickle.dumps(Runs()), "not a readable checkpoint"),
        ("meta_000650.json", b"[" * 100_000, "not readable"),
        ("meta_000650.json", b"[]", "no JSON object"),
        ("meta_000650.json", b'{"model_config": {"n_layer": "many"}}', "model_config"),
        ("meta_000650.json", b'{"model_config": 3}', "no model_config"),
    ],
)
def test_harmful_files_are_refused_and_never_run(name, data, said, tmp_path, monkeypatch, base_dir):
    monkeypatch.chdir(tmp_path)
    source = write(tmp_path / "down", {**LAYOUTS["flat root"], name: data})
    with pytest.raises(ValueError, match=said) as error:
        pull(PullConfig(source=source, target="sft:d2"))
    assert "\n" not in str(error.value)
    assert not (tmp_path / "harm").exists()
    assert not list(base_dir.glob("*_checkpoints/*/*"))


@pytest.mark.parametrize("name", ["model_000650.pt", "meta_000650.json"])
def test_a_hub_that_sends_other_bytes_than_it_lists_is_refused(name, hub, base_dir):
    hub.repos["some/where"] = LAYOUTS["flat root"]
    hub.lie.add(name)
    repo = HubFiles("some/where", "main", Fetcher(attempts=2, wait_s=0))
    with pytest.raises(ValueError, match=r"SHA-256 is wrong|hash is not the one"):
        repo.bring(name, base_dir / name)
    assert not (base_dir / name).exists()
    hub.lie.clear()
    repo.bring(name, base_dir / name)


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "a/../../x", "a\\..\\x", ""])
def test_a_listing_that_leads_out_of_its_place_is_refused(name, hub):
    with pytest.raises(ValueError, match="lists a file outside itself"):
        safe_names(["model_000001.pt", name], "some/where")
    hub.repos["some/where"] = {name: b"x"}
    with pytest.raises(ValueError, match="lists a file outside itself"):
        HubFiles("some/where", "main")


def test_a_broken_download_goes_on_where_it_stopped(hub, base_dir):
    hub.repos["some/where"] = LAYOUTS["flat root"]
    broken = iter([True, True])
    hub.fail = lambda method, path: path.endswith("model_000650.pt") and next(broken, False)
    repo = HubFiles("some/where", "main", Fetcher(wait_s=0))
    repo.bring("model_000650.pt", base_dir / "m.pt")
    assert (base_dir / "m.pt").read_bytes() == MODEL


def test_repositories_and_addresses_that_are_not_there(hub, tmp_path):
    with pytest.raises(ValueError, match="not found \\(404\\)"):
        pull(PullConfig(source="nobody/nothing"))
    with pytest.raises(ValueError, match="name a model file such as"):
        AddressFiles(f"{hub.url}/some/page.html")
    with pytest.raises(ValueError, match="no such folder; name a folder, an address, or"):
        pull(PullConfig(source=str(tmp_path / "none")))
    assert PullConfig(source="x", target="sft").problems() == [
        "--as=sft: write stage:tag, e.g. sft:d34"
    ]


def test_another_kind_of_model_is_named(tmp_path):
    pytest.importorskip("safetensors.torch")
    from safetensors.torch import save

    files = {
        "config.json": b'{"model_type": "llama"}',
        "model.safetensors": save({"lm_head.weight": torch.zeros(2, 2)}),
        "tokenizer.pkl": PICKLE,
    }
    with pytest.raises(ValueError, match="model_type 'llama' is not read"):
        pull(PullConfig(source=write(tmp_path / "a", files), target="sft:d2"))
    files["model.safetensors"] = save({"model.layers.0.mlp.gate_proj.weight": torch.zeros(2, 2)})
    with pytest.raises(ValueError, match="no variant has: model.layers.0.mlp.gate_proj"):
        pull(PullConfig(source=write(tmp_path / "b", files), target="sft:d2"))


def test_words_of_a_path_tell_the_stage():
    names = ["x/SFT-run/model_000001.pt", "x/SFT-run/meta_000001.json"]
    names += ["chatrl_checkpoints/d8/model_000002.pt", "chatrl_checkpoints/d8/meta_000002.json"]
    names += ["wabash/model_000003.pt", "wabash/meta_000003.json"]
    assert [(f.stage, f.tag) for f in find_checkpoints(names)] == [
        ("sft", None),
        ("rl", "d8"),
        (None, None),
    ]
