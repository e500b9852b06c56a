"""Exports for transformers: files, refusals, and (where transformers is installed) that it computes
what we do.
"""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from tiny_checkpoint import save_tiny

from nanochat.engine import Engine, SamplingParams
from nanochat.exchange.export_hf import HFExportConfig, check_hf, export_hf
from nanochat.exchange.fresh_place import fresh_place
from nanochat.exchange.hf_folder import write_hf
from nanochat.exchange.probes import CONVERSATIONS, PROMPTS
from nanochat.exchange.self_check import Check, refuse_failed
from nanochat.exchange.stock_classes import swap_halves, to_apertus
from nanochat.exchange.stored_model import open_stored
from nanochat.exchange.tensor_names import from_hf, to_hf
from nanochat.model_spec import ModelSpec, parse_spec

safetensors = pytest.importorskip("safetensors.torch")
SPEC = ModelSpec("sft", "d3", 7)


def stored(preset="classic", **fields):
    save_tiny(preset, **fields)
    return open_stored(SPEC)


def tensors_of(folder):
    found = {}
    for path in folder.glob("*.safetensors"):
        found.update(safetensors.load_file(path))
    return found


def same(ours, theirs):
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        assert tensor.dtype == theirs[name].dtype and tensor.equal(theirs[name]), name


@pytest.mark.parametrize("preset", ["classic", "modern"])
def test_to_hugging_face_and_back_is_bit_equal(preset, tmp_path):
    model = stored(preset)
    write_hf(model, tmp_path / "out", shard_bytes=100_000)
    assert len(list((tmp_path / "out").glob("model-*.safetensors"))) > 1
    assert (tmp_path / "out" / "model.safetensors.index.json").is_file()
    same(dict(model.state), from_hf(tensors_of(tmp_path / "out")))


def test_the_class_of_each_generation(tmp_path):
    write_hf(stored(), tmp_path / "classic")
    config = json.loads((tmp_path / "classic" / "config.json").read_text())
    assert config["architectures"] == ["NanoChatForCausalLM"]
    assert config["intermediate_size"] == 4 * 64 and config["dtype"] == "float32"
    ends = json.loads((tmp_path / "classic" / "generation_config.json").read_text())
    special = stored().tokenizer.special_tokens
    assert ends["eos_token_id"] == [special["<|assistant_end|>"], special["<|bos|>"]]
    write_hf(stored("modern", window_tokens=128), tmp_path / "modern")
    config = json.loads((tmp_path / "modern" / "config.json").read_text())
    assert config["model_type"] == "nanochat_modern" and config["sliding_window"] == 129
    assert (tmp_path / "modern" / "modeling_nanochat_modern.py").is_file()


def test_rows_that_pad_the_vocabulary_stay_out_of_the_classic_class(tmp_path):
    model = stored(vocab_multiple=64)
    assert len(model.state["lm_head.weight"]) == 384
    write_hf(model, tmp_path / "out")
    assert len(tensors_of(tmp_path / "out")["lm_head.weight"]) == 340


def test_a_model_with_extras_is_no_stock_model(tmp_path):
    said = "classic models only, this one has .*value embeddings.*smear.*leave --stock out"
    with pytest.raises(ValueError, match=said):
        write_hf(stored("modern"), tmp_path / "out", stock=True)
    assert not (tmp_path / "out").exists()


def test_halves_of_heads_change_places_and_back():
    weight = torch.arange(16.0).view(8, 2)
    swapped = swap_halves(weight, n_heads=2)
    assert swapped[:, 0].tolist() == [4, 6, 0, 2, 12, 14, 8, 10]
    assert swap_halves(swapped, n_heads=2).equal(weight)


def test_every_tensor_of_a_stock_model_is_named():
    model = stored()
    names = to_apertus(model.config, model.state)
    assert len(names) == 2 + 1 + model.config.n_layer * (6 + 4 + 4)


def test_names_that_no_variant_has_are_refused():
    with pytest.raises(ValueError, match="tensors that no variant has: bigram.weight"):
        to_hf({"bigram.weight": torch.zeros(1)})


def test_a_place_that_is_taken_is_not_written_over(tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine").touch()
    said = "is there already; name another place or add --replace"
    with pytest.raises(ValueError, match=said), fresh_place(out, replace=False):
        pytest.fail("the block ran")
    with pytest.raises(OSError), fresh_place(out, replace=True) as place:
        place.mkdir()
        raise OSError
    assert [path.name for path in tmp_path.iterdir()] == ["out"] and (out / "mine").exists()
    with fresh_place(out, replace=True) as place:
        place.mkdir()
    assert list(out.iterdir()) == []


def passed(**changes):
    good = Check(
        program="p",
        logit_difference=1e-6,
        logit_limit=1e-3,
        prompts=20,
        greedy_tokens=64,
        greedy_equal=19,
        greedy_ties=1,
        chats=26,
        chats_equal=26,
    )
    return replace(good, **changes)


@pytest.mark.parametrize(
    "changes, said",
    [
        ({"logit_difference": 0.1}, "logits differ by 0.1, more than 0.001"),
        ({"logit_difference": float("nan")}, "logits differ by nan"),
        ({"greedy_equal": 18}, "greedy tokens differ on 1 of 20 prompts"),
        ({"chats_equal": 25}, "1 of 26 conversations are rendered otherwise"),
    ],
)
def test_a_check_that_fails_is_an_error(changes, said, tmp_path):
    refuse_failed([passed()], tmp_path)
    with pytest.raises(ValueError, match=f"not written: p: {said}"):
        refuse_failed([passed(), passed(**changes)], tmp_path)


def test_the_command_needs_a_model_by_name():
    assert "write stage:tag" in HFExportConfig(model="d20", out="x").problems()[0]
    assert HFExportConfig(model="sft:d20:7", out="x").problems() == []
    assert parse_spec("sft:d3:7") == SPEC


# --- with transformers

VARIANTS = {
    "classic": {},
    "modern": {"preset": "modern", "window_tokens": 8},
    "January": {
        "residual_mixing": True,
        "value_embeddings": True,
        "value_gate_channels": 32,
        "value_gate_scale": 2.0,
        "window_pattern": "SSL",
        "window_tokens": 9,
        "vocab_multiple": 64,
    },
}


@pytest.fixture
def few_tokens(monkeypatch):
    monkeypatch.setattr("nanochat.exchange.self_check.GREEDY_TOKENS", 12)


@pytest.mark.parametrize("stock", [False, True])
@pytest.mark.parametrize("name", VARIANTS)
def test_transformers_computes_what_we_do(name, stock, tmp_path, few_tokens):
    pytest.importorskip("transformers")
    if stock and name != "classic":
        return
    model = stored(**VARIANTS[name])
    write_hf(model, tmp_path / "out", stock=stock)
    cfg = HFExportConfig(model="sft:d3:7", out="unused", stock=stock)
    (check,), told = check_hf(model, tmp_path / "out", cfg, PROMPTS[:3])
    assert check.problems() == [] and check.logit_difference < 1e-4
    assert check.greedy_equal + check.greedy_ties == 3
    assert check.chats_equal == 2 * len(CONVERSATIONS)
    assert ["diverges by" in line for line in told] == [True] * stock


def test_a_wrong_export_leaves_nothing_behind(tmp_path, few_tokens, monkeypatch):
    pytest.importorskip("transformers")
    save_tiny()
    right = HFExportConfig(model="sft:d3", out=str(tmp_path / "right"))
    (check,) = export_hf(right)
    assert check.program in (tmp_path / "right" / "README.md").read_text()
    monkeypatch.setattr("nanochat.exchange.stock_classes.swap_halves", lambda weight, n: weight)
    with pytest.raises(ValueError, match=r"not written: transformers .*logits differ"):
        export_hf(HFExportConfig(model="sft:d3", out=str(tmp_path / "out"), stock=True))
    assert list(tmp_path.glob("*out*")) == []


@pytest.fixture
def loaded(tmp_path):
    """A modern model as transformers loads it, and ours."""
    transformers = pytest.importorskip("transformers")
    model = stored("modern", window_tokens=8)
    write_hf(model, tmp_path / "out")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path / "out", trust_remote_code=True
    )
    return theirs.requires_grad_(False), model.native()


def test_the_cache_of_the_modern_class_step_by_step(loaded):
    """One token at a time, several at once, and rows of different lengths padded on the left."""
    theirs, ours = loaded
    ids = torch.randint(0, 300, (2, 40), generator=torch.Generator().manual_seed(3))
    whole = ours(ids)
    cache = None
    for start, stop in ((0, 5), (5, 6), (6, 7), (7, 20), (20, 40)):
        done = theirs(ids[:, start:stop], past_key_values=cache, use_cache=True)
        cache = done[next(name for name in done if name in ("cache", "past_key_values"))]
        torch.testing.assert_close(done.logits, whole[:, start:stop], atol=1e-4, rtol=1e-4)
    mask = torch.ones(2, 30, dtype=torch.long)
    mask[1, :12] = 0
    padded = ids[:, :30].clone()
    padded[1, :12] = 0
    written = theirs.generate(padded, attention_mask=mask, max_new_tokens=20, do_sample=False)
    for row, first in ((0, 0), (1, 12)):
        sequence = padded[row : row + 1, first:]
        for _ in range(20):
            sequence = torch.cat((sequence, ours(sequence)[:, -1:].argmax(-1)), dim=1)
        made = written[row, first:]
        ended = [place for place, token in enumerate(made[30 - first :]) if token in END_IDS]
        n_made = 30 - first + (ended[0] + 1 if ended else 20)
        assert made[:n_made].tolist() == sequence[0, :n_made].tolist()


END_IDS = {331, 335}  # <|bos|>, <|assistant_end|> of the tiny tokenizer


@pytest.mark.parametrize("ends", sorted(END_IDS))
def test_generation_ends_at_both_ends(loaded, ends):
    """The configuration in the folder names them; nothing is passed here."""
    theirs, _ = loaded

    def choose(ids, scores):
        chosen = torch.full_like(scores, -1e9)
        chosen[:, ends if ids.size(1) == 8 else 5] = 0
        return chosen

    written = theirs.generate(torch.arange(6)[None], logits_processor=[choose], max_new_tokens=9)
    assert written[0].tolist() == [0, 1, 2, 3, 4, 5, 5, 5, ends]


def test_beams_of_the_modern_class_carry_their_own_smear(loaded):
    theirs, _ = loaded
    ids = torch.randint(0, 300, (1, 9), generator=torch.Generator().manual_seed(4))
    beams = {"num_beams": 3, "max_new_tokens": 12, "do_sample": False}
    with_cache = theirs.generate(ids, use_cache=True, **beams)
    assert with_cache.tolist() == theirs.generate(ids, use_cache=False, **beams).tolist()


def test_save_and_load_of_transformers_itself(loaded, tmp_path):
    theirs, ours = loaded
    theirs.save_pretrained(tmp_path / "again")
    import transformers

    again = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path / "again", trust_remote_code=True
    )
    ids = torch.arange(20)[None]
    assert again(ids).logits.equal(theirs(ids).logits)
    torch.testing.assert_close(again(ids).logits, ours(ids), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", ["classic", "modern"])
def test_the_pipeline_answers_a_chat_as_the_engine_does(name, tmp_path):
    transformers = pytest.importorskip("transformers")
    model = stored(**VARIANTS[name])
    write_hf(model, tmp_path / "out")
    chat = [{"role": "user", "content": "Who are you?"}]
    pipe = transformers.pipeline(
        "text-generation", str(tmp_path / "out"), device="cpu", trust_remote_code=True
    )
    said = pipe(chat, max_new_tokens=16, do_sample=False)[0]["generated_text"][-1]["content"]
    engine = Engine(model.native(rope_bf16=False), model.tokenizer, native=False)
    params = SamplingParams(temperature=0.0, max_tokens=16, tools="off")
    prompt = model.tokenizer.render_for_completion({"messages": chat})
    [[answer]] = engine.complete([engine.submit(prompt, params)])
    special = set(model.tokenizer.special_tokens.values())
    assert said == model.tokenizer.decode([i for i in answer.ids if i not in special])


def test_the_modern_class_can_be_compiled(loaded):
    theirs, ours = loaded
    compiled = torch.compile(theirs, backend="aot_eager")
    for n_tokens in (30, 31):
        ids = torch.arange(n_tokens)[None]
        torch.testing.assert_close(compiled(ids).logits, ours(ids), atol=1e-4, rtol=1e-4)
    written = theirs.generate(torch.arange(9)[None], max_new_tokens=5, do_sample=False)
    theirs.forward = torch.compile(theirs.forward, backend="aot_eager")
    again = theirs.generate(torch.arange(9)[None], max_new_tokens=5, do_sample=False)
    assert again.tolist() == written.tolist()


@pytest.mark.parametrize("attention", ["eager", "sdpa", "flex_attention"])
def test_attention_of_the_modern_class_through_the_library(loaded, attention):
    theirs, ours = loaded
    theirs.set_attn_implementation(attention)
    ids = torch.arange(40)[None]
    torch.testing.assert_close(theirs(ids).logits, ours(ids), atol=1e-4, rtol=1e-4)
