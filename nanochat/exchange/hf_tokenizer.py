"""Our tokenizer as Hugging Face's `tokenizer.json`, and back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from nanochat.exchange.byte_merges import byte_letters, merge_pairs, token_spellings
from nanochat.exchange.chat_template import KEPT_APART, PART_MARK, SPELLED, chat_template
from nanochat.tokenizer import Tokenizer
from nanochat.tokenizer.special_tokens import ASSISTANT_END, BOS


def tokenizer_files(tokenizer: Tokenizer, context_tokens: int) -> dict[str, str]:
    """The files of an export that make the tokenizer: name -> text."""
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": BOS,
        "eos_token": ASSISTANT_END,
        "pad_token": BOS,  # not the end token, which whoever pads would then leave out of the loss
        "additional_special_tokens": list(tokenizer.special_tokens),
        "clean_up_tokenization_spaces": False,
        "model_max_length": context_tokens,
        "chat_template": chat_template(marks=True),
    }
    return {
        "tokenizer.json": json.dumps(fast_tokenizer(tokenizer)) + "\n",
        "tokenizer_config.json": json.dumps(settings, indent=1) + "\n",
        "chat_template.jinja": chat_template(marks=True),
    }


def fast_tokenizer(tokenizer: Tokenizer) -> dict[str, Any]:
    """The contents of `tokenizer.json`."""
    special = sorted(tokenizer.special_tokens.items(), key=lambda item: item[1])
    n_merges = tokenizer.get_vocab_size() - len(special)
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {"id": number, "content": name, **plain, "special": True} for name, number in special
        ],
        "normalizer": {
            "type": "Replace",
            "pattern": {"String": KEPT_APART},
            "content": SPELLED,
        },
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [
                _split({"String": PART_MARK}, "Removed"),
                _split({"Regex": tokenizer.pattern}, "Isolated"),
                {**byte_level, "use_regex": False},
            ],
        },
        "post_processor": None,
        "decoder": {**byte_level, "use_regex": True},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": True,
            "vocab": {
                token: number for number, token in enumerate(token_spellings(tokenizer)[:n_merges])
            },
            "merges": [list(pair) for pair in merge_pairs(tokenizer)],
        },
    }


def _split(pattern: dict[str, str], behavior: str) -> dict[str, Any]:
    return {"type": "Split", "pattern": pattern, "behavior": behavior, "invert": False}


def from_fast_tokenizer(content: Any) -> Tokenizer:
    """The tokenizer that a `tokenizer.json` of a byte-level BPE describes. ValueError with what
    does not fit.
    """
    try:
        model = content["model"]
        if model["type"] != "BPE" or model.get("byte_fallback"):
            raise ValueError(f"model type {model['type']!r} is no byte-level BPE")
        pattern = _pattern(content["pre_tokenizer"])
        special = {str(t["content"]): int(t["id"]) for t in content["added_tokens"]}
        bytes_of = {letter: byte for byte, letter in byte_letters().items()}
        ranks = {
            bytes(bytes_of[letter] for letter in token): int(number)
            for token, number in model["vocab"].items()
            if token not in special
        }
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        raise ValueError(
            f"tokenizer.json is none of a byte-level BPE ({type(error).__name__}: {error})"
        ) from None
    return Tokenizer(ranks, special, pattern)


def _pattern(pre_tokenizer: Mapping[str, Any]) -> str:
    """The split pattern of a pre-tokenizer."""
    parts = pre_tokenizer.get("pretokenizers", [pre_tokenizer])
    patterns = [
        part["pattern"]["Regex"]
        for part in parts
        if part["type"] == "Split" and "Regex" in part["pattern"]
    ]
    if len(patterns) != 1:
        raise ValueError(f"its pre-tokenizer has {len(patterns)} split patterns instead of one")
    return str(patterns[0])
