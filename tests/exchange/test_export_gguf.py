"""GGUF files: what stands in them, what is refused, and (where llama-cpp-python is installed) that
llama.cpp computes what we do.
"""

from __future__ import annotations

import pytest
import torch
from tiny_checkpoint import SIZES, TEXT, random_state, save_tiny, tiny_tokenizer

from nanochat.checkpoint_manager import save_checkpoint
from nanochat.exchange.export_gguf import (
    GGUFExportConfig,
    check_gguf,
    digit_by_digit,
    export_gguf,
    survives_text,
)
from nanochat.exchange.gguf_file import K_QUANTS, read_gguf_tensors, write_gguf
from nanochat.exchange.gguf_tensors import from_gguf
from nanochat.exchange.probes import CONVERSATIONS, PROMPTS
from nanochat.exchange.stored_model import open_stored
from nanochat.gpt import rms_norm
from nanochat.gpt_config import GPTConfig
from nanochat.model_spec import ModelSpec
from nanochat.tokenizer import Tokenizer
from nanochat.tokenizer.bpe import SPLIT_DIGITS, SPLIT_PATTERN
from nanochat.train.tok_train import TokTrainConfig, tok_train

gguf = pytest.importorskip("gguf")
SPEC = ModelSpec("sft", "d3", 7)


def stored(**fields):
    save_tiny(**fields)
    return open_stored(SPEC)


def test_tensors_come_back_as_they_were(tmp_path):
    model = stored(vocab_multiple=64)
    write_gguf(model, tmp_path / "x.gguf", "f32")
    back = from_gguf(model.config, read_gguf_tensors(tmp_path / "x.gguf"))
    assert back.keys() == model.state.keys()
    for name, tensor in back.items():
        ours = model.state[name].float()
        if "wte" in name:
            ours = rms_norm(ours)
        assert tensor.equal(ours[: len(tensor)]), name
    assert len(back["lm_head.weight"]) == model.config.vocab_size == 340


@pytest.mark.parametrize("kind, expected", [("bf16", "BF16"), ("q8_0", "Q8_0")])
def test_matrices_have_the_asked_type_and_norms_stay_fp32(kind, expected, tmp_path):
    write_gguf(stored(), tmp_path / "x.gguf", kind)
    for tensor in gguf.GGUFReader(tmp_path / "x.gguf").tensors:
        assert tensor.tensor_type.name == ("F32" if "norm" in tensor.name else expected)


def test_a_row_too_short_for_a_block_is_not_quantised(tmp_path):
    """Q8_0 scales 32 columns together."""
    write_gguf(stored(n_embd=48), tmp_path / "x.gguf", "q8_0")
    types = {t.name: t.tensor_type.name for t in gguf.GGUFReader(tmp_path / "x.gguf").tensors}
    assert types["blk.0.attn_q.weight"] == "BF16" and types["blk.0.ffn_down.weight"] == "Q8_0"


def test_tokenizer_and_template_are_inside(tmp_path):
    write_gguf(stored(), tmp_path / "x.gguf", "bf16")
    fields = gguf.GGUFReader(tmp_path / "x.gguf").fields
    special = tiny_tokenizer().special_tokens
    assert fields["general.architecture"].contents() == "apertus"
    assert fields["tokenizer.ggml.pre"].contents() == "bailingmoe"
    assert fields["tokenizer.ggml.eos_token_id"].contents() == special["<|assistant_end|>"]
    assert fields["tokenizer.ggml.tokens"].contents()[special["<|bos|>"]] == "<|bos|>"
    assert "<|assistant_start|>" in fields["tokenizer.chat_template"].contents()
    assert fields["apertus.feed_forward_length"].contents() == 256


def test_f16_and_other_names_are_refused_with_the_reason():
    said = GGUFExportConfig(model="sft:d3", out="x.gguf", type="f16").problems()
    assert len(said) == 1 and "NaN" in said[0] and "use bf16 or q8_0" in said[0]
    said = GGUFExportConfig(model="sft:d3", out="x/").problems()
    assert said == ["x/: must end in .gguf, e.g. x.gguf"]


def test_float16_does_overflow_where_bfloat16_does_not():
    """Why f16 is refused."""
    activation = torch.tensor([300.0])
    assert activation.half().square().isinf() and activation.bfloat16().square().isfinite()


def test_a_model_with_extras_is_refused(tmp_path):
    save_tiny("modern")
    with pytest.raises(ValueError, match=r"GGUF holds classic models only.*nanochat export hf"):
        export_gguf(GGUFExportConfig(model="sft:d3", out=str(tmp_path / "x.gguf")))
    assert list(tmp_path.glob("*x.gguf*")) == []


def save_with(tokenizer: Tokenizer) -> None:
    folder = save_tiny()
    config = GPTConfig(**{**SIZES, "vocab_size": tokenizer.get_vocab_size()})
    save_checkpoint(folder, 7, random_state(config), None, {"model_config": config.to_dict()})
    tokenizer.save(folder / "tokenizer")


def test_a_split_that_llama_cpp_has_no_name_for_is_refused(tmp_path):
    save_with(Tokenizer.train([TEXT], 340, pattern=r"\p{L}+|\s|."))
    with pytest.raises(ValueError, match="has no name for how its tokenizer splits"):
        write_gguf(open_stored(SPEC), tmp_path / "x.gguf", "bf16")


def test_tok_train_can_split_digits_one_at_a_time(tmp_path):
    (tmp_path / "text.txt").write_text("12 345 6789 " * 50)
    for split, pattern in (("pairs", SPLIT_PATTERN), ("gguf", SPLIT_DIGITS)):
        data = str(tmp_path / "text.txt")
        tok_train(TokTrainConfig(vocab_size=300, data=data, split=split, replace=True))
        assert Tokenizer.load().pattern == pattern
    assert [Tokenizer.load().decode([i]) for i in Tokenizer.load().encode("12 3")] == [
        "1",
        "2",
        " ",
        "3",
    ]


def test_what_a_text_can_carry():
    kept = [survives_text(tiny_tokenizer(), chat) for chat in CONVERSATIONS]
    spelled = ["<|bos|>" in str(chat) or "<|output_end|>" in str(chat) for chat in CONVERSATIONS]
    assert 0 < kept.count(False) <= 4
    assert not any(kept[n] for n, there in enumerate(spelled) if there)


@pytest.mark.parametrize("kind", ["f32", "bf16", "q8_0", "q4_k_m"])
def test_llama_cpp_computes_what_we_do(kind, tmp_path, monkeypatch):
    pytest.importorskip("llama_cpp")
    monkeypatch.setattr("nanochat.exchange.self_check.GREEDY_TOKENS", 12)
    model = stored()
    write_gguf(model, tmp_path / "x.gguf", kind)
    (check,), told = check_gguf(model, tmp_path / "x.gguf", kind, PROMPTS[:3])
    assert check.problems() == []
    assert kind != "f32" or check.logit_difference < 1e-4
    assert "diverges by" in told[0] and "cuts numbers digit by digit" in told[1]


def test_ids_are_equal_with_a_tokenizer_that_is_meant_for_it(tmp_path, monkeypatch):
    pytest.importorskip("llama_cpp")
    monkeypatch.setattr("nanochat.exchange.self_check.GREEDY_TOKENS", 4)
    save_with(Tokenizer.train([TEXT], 340, pattern=SPLIT_DIGITS))
    model = open_stored(SPEC)
    assert digit_by_digit(model.tokenizer).identity() == model.tokenizer.identity()
    write_gguf(model, tmp_path / "x.gguf", "f32")
    _, told = check_gguf(model, tmp_path / "x.gguf", "f32", PROMPTS[:1])
    assert told[1] == f"ids differ in 0 of {len(PROMPTS)} real texts"


def test_a_wrong_file_leaves_nothing_behind(tmp_path, monkeypatch):
    pytest.importorskip("llama_cpp")
    save_tiny()
    monkeypatch.setattr("nanochat.exchange.self_check.GREEDY_TOKENS", 2)
    monkeypatch.setattr("nanochat.exchange.gguf_file.ALPHA_P", 0.0)  # another activation
    with pytest.raises(ValueError, match=r"not written: llama-cpp-python .*logits differ"):
        export_gguf(GGUFExportConfig(model="sft:d3", out=str(tmp_path / "x.gguf"), type="f32"))
    assert list(tmp_path.glob("*x.gguf*")) == []
    assert set(K_QUANTS) == {"q6_k", "q5_k_m", "q4_k_m"}
