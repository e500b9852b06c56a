"""`nanochat export gguf MODEL OUT`: a checkpoint for llama.cpp and Ollama."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import torch

from nanochat.dataloader.parquet_text import read_groups
from nanochat.dataset.shards import list_shards
from nanochat.exchange.divergence import softcap_divergence
from nanochat.exchange.export_hf import ExportConfig
from nanochat.exchange.fresh_place import fresh_place
from nanochat.exchange.gguf_file import FileType, read_gguf_tensors, write_gguf
from nanochat.exchange.gguf_tensors import from_gguf
from nanochat.exchange.llama_runtime import LlamaRuntime
from nanochat.exchange.native_runtime import NativeRuntime
from nanochat.exchange.optional_module import NotInstalled
from nanochat.exchange.probes import CONVERSATIONS, PROMPTS
from nanochat.exchange.self_check import (
    Check,
    compare,
    prompt_ids,
    refuse_failed,
    rotary_note,
)
from nanochat.exchange.stored_model import StoredModel, native_model, open_stored
from nanochat.model_spec import parse_spec
from nanochat.runtime.base_dir import base_dir, expanded
from nanochat.tokenizer import Tokenizer
from nanochat.tokenizer.bpe import SPLIT_DIGITS

# llama.cpp rounds activations to the type of the weights in each product; f32 is as exact as ours.
LOGIT_LIMITS = {"f32": 1e-3, "bf16": 0.2, "q8_0": 0.5, "q6_k": 0.5, "q5_k_m": 0.5, "q4_k_m": 0.5}
TEXTS = 500  # documents on which ids are compared
TEXT_CHARACTERS = 2000


@dataclass
class GGUFExportConfig(ExportConfig):
    """Write a classic checkpoint as a GGUF file for llama.cpp and Ollama, and check it there."""

    type: Literal[FileType, "f16"] = "bf16"
    """Type of the weights. f16 is refused: ReLU squared exceeds its range and gives NaN."""

    def problems(self) -> list[str]:
        found = super().problems()
        if self.type == "f16":
            found.append(
                "--type=f16: the activations of ReLU squared exceed what float16 holds, answers "
                "become NaN; use bf16 or q8_0"
            )
        if not self.out.endswith(".gguf"):
            found.append(f"{self.out}: must end in .gguf, e.g. {self.out.rstrip('/')}.gguf")
        return found


def export_gguf(cfg: GGUFExportConfig) -> list[Check]:
    """Write the file; prints and returns what checking it found. Raises ValueError when the check
    fails, and leaves no file then.
    """
    model = open_stored(parse_spec(cfg.model))
    out = expanded(cfg.out)
    assert cfg.type != "f16"
    with fresh_place(out, cfg.replace) as path:
        write_gguf(model, path, cfg.type)
        checks, told = check_gguf(model, path, cfg.type) if cfg.check else ([], ["not checked"])
        for line in [*(line for check in checks for line in check.lines()), *told]:
            print(line)
        refuse_failed(checks, out)
    print(f"{model.name} -> {out} ({out.stat().st_size / 1e6:.1f} MB)")
    return checks


def check_gguf(
    model: StoredModel, path: Path, kind: FileType, texts: Sequence[str] = PROMPTS
) -> tuple[list[Check], list[str]]:
    """What llama.cpp makes of the file, and what is to be said besides.

    Compared with our model of the very weights in the file, and our tokenizer cutting digits as
    llama.cpp does: what that changes is told apart.
    """
    exact = replace(model.config, rope_bf16=False, vocab_multiple=1)
    state = from_gguf(exact, read_gguf_tensors(path))
    tokenizer = digit_by_digit(model.tokenizer)
    ours = NativeRuntime(native_model(exact, state), tokenizer)
    prompts = prompt_ids(model.tokenizer, exact.sequence_len, texts)
    told = [softcap_divergence(ours.model, prompts).line()]
    try:
        other = LlamaRuntime(path, exact.sequence_len)
    except NotInstalled as error:
        return [], [*told, f"not checked: {error}"]
    chats = [chat for chat in CONVERSATIONS if survives_text(tokenizer, chat)]
    check = compare(
        ours,
        other,
        logit_limit=LOGIT_LIMITS[kind],
        softcap=exact.logit_softcap,
        texts=texts,
        chats=chats,
    )
    if len(chats) < len(CONVERSATIONS):
        check.notes.append(
            f"{len(CONVERSATIONS) - len(chats)} conversations left out: where a message spells a "
            "special token, or parts of text follow each other, llama.cpp cannot tell"
        )
    check.notes += rotary_note(model, ours, texts) if kind == "f32" else []
    check.notes += weight_note(model, ours, prompts)
    told += [tokenizer_note(model.tokenizer, other, list(real_texts()))]
    return [check], told


def digit_by_digit(tokenizer: Tokenizer) -> Tokenizer:
    """The same tokens, the text cut as llama.cpp cuts it."""
    n_merges = tokenizer.get_vocab_size() - len(tokenizer.special_tokens)
    ranks = {tokenizer.decode_bytes([number]): number for number in range(n_merges)}
    return Tokenizer(ranks, tokenizer.special_tokens, SPLIT_DIGITS)


def survives_text(tokenizer: Tokenizer, messages: list[dict[str, Any]]) -> bool:
    """Whether a conversation written as one text has the ids that it has part by part."""
    ids, _ = tokenizer.render_conversation({"messages": messages})
    special = tokenizer.special_tokens
    again: list[int] = []
    for piece in re.split(f"({'|'.join(map(re.escape, special))})", tokenizer.decode(ids)):
        again += [special[piece]] if piece in special else tokenizer.encode(piece)
    return again == ids


@torch.no_grad()
def weight_note(model: StoredModel, ours: NativeRuntime, prompts: Sequence[list[int]]) -> list[str]:
    """What storing the weights in another type changes."""
    before = native_model(replace(model.config, rope_bf16=False), model.state)
    largest, moved, positions = 0.0, 0, 0
    for ids in prompts:
        first, second = before(torch.tensor([ids]))[0], ours.logits(ids)
        largest = max(largest, float((first - second).abs().max()))
        moved += int((first.argmax(-1) != second.argmax(-1)).sum())
        positions += len(ids)
    return [
        f"storing the weights so moves logits by up to {largest:.2g}, the likeliest token at "
        f"{moved} of {positions} positions"
    ]


def real_texts() -> Iterator[str]:
    """Beginnings of documents of the base directory's validation shard, else the prompts."""
    shards = list_shards(base_dir() / "base_data")
    if not shards:
        yield from PROMPTS
        return
    texts = (text for group in read_groups(shards[-1]) for text in group.to_pylist())
    for text in islice(texts, TEXTS):
        yield text[:TEXT_CHARACTERS]


def tokenizer_note(tokenizer: Tokenizer, other: LlamaRuntime, texts: list[str]) -> str:
    """How often the ids of real text are other ones in llama.cpp."""
    differ = sum(tokenizer.encode(text) != other.tokenize(text) for text in texts)
    told = f"ids differ in {differ} of {len(texts)} real texts"
    if tokenizer.pattern != SPLIT_DIGITS:
        told += (
            ": llama.cpp has no split into pairs of digits, it cuts numbers digit by digit; "
            "`nanochat tok-train --split gguf` makes a tokenizer without that difference"
        )
    return told
