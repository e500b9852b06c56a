"""`tok_train`: learn the vocabulary from text and put it under the base directory."""

from __future__ import annotations

import contextlib
import logging
import re
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from nanochat.dataset.text_encoding import encoding_problem
from nanochat.dataset.text_source import PlainText, plain_text
from nanochat.runtime.base_dir import base_dir, check_writable
from nanochat.runtime.previous import set_aside
from nanochat.runtime.progress import Progress
from nanochat.runtime.records import write_record
from nanochat.tokenizer.bpe import (
    FILES,
    MAX_VOCAB_SIZE,
    MIN_VOCAB_SIZE,
    SPLIT_DIGITS,
    SPLIT_PATTERN,
    Tokenizer,
)

SPLITS = {"pairs": SPLIT_PATTERN, "gguf": SPLIT_DIGITS}


@dataclass
class TokTrainConfig:
    """Train a byte-level BPE tokenizer on the training shards, or on any text."""

    max_chars: int = 2_000_000_000
    """Characters of text to read."""
    doc_cap: int = 10_000
    """Characters taken of one document, so that a few long ones do not decide."""
    vocab_size: int = 65_536
    """Entries, special tokens included."""
    split: Literal["pairs", "gguf"] = "pairs"
    """How numbers are cut: into pairs of digits, as in public models, or digit by digit, which GGUF
    files for llama.cpp can say.
    """
    data: str | None = None
    """A text file or a folder; default: the base directory's training shards."""
    encoding: str | None = None
    """Encoding of text files that are not UTF-8 (default: found out and told); utf-8 reads damaged
    ones, with U+FFFD for what is damaged.
    """
    replace: bool = False
    """Take the place of a tokenizer that is there: it is moved into a dated folder."""

    def problems(self) -> list[str]:
        found = [
            f"--{name.replace('_', '-')}={getattr(self, name)}: must be at least 1"
            for name in ("max_chars", "doc_cap")
            if getattr(self, name) < 1
        ]
        if not MIN_VOCAB_SIZE <= self.vocab_size <= MAX_VOCAB_SIZE:
            found.append(
                f"--vocab-size={self.vocab_size}: must lie between {MIN_VOCAB_SIZE} (bytes and "
                "special tokens) "
                f"and {MAX_VOCAB_SIZE}"
            )
        if self.encoding and (problem := encoding_problem(self.encoding)):
            found.append(f"--encoding={problem}")
        return found


def tok_train(cfg: TokTrainConfig) -> dict[str, Any]:
    """Train, save to `<base>/tokenizer`, write the report's record and return it. ValueError when
    there is no text.
    """
    if problems := cfg.problems():
        raise ValueError("\n".join(problems))
    folder = base_dir() / "tokenizer"
    _check_place(folder, cfg.replace)
    text = plain_text(cfg.data, cfg.encoding)
    started = time.perf_counter()
    counted = _Counted(text, cfg)
    with _merge_progress():
        tokenizer = Tokenizer.train(counted, cfg.vocab_size, SPLITS[cfg.split])
    if target := set_aside(folder, base_dir()):
        print(f"set aside: the earlier tokenizer is now in {target}")
    tokenizer.save(folder)
    sizes = tokenizer.token_bytes()[: -len(tokenizer.special_tokens)].float()
    record = {
        "config": asdict(cfg),
        "vocab_size": tokenizer.get_vocab_size(),
        "documents": counted.documents,
        "characters": counted.characters,
        "characters_cut": counted.cut_characters,
        "wall_s": round(time.perf_counter() - started, 2),
        "token_bytes_min": int(sizes.min()),
        "token_bytes_max": int(sizes.max()),
        "token_bytes_mean": round(float(sizes.mean()), 3),
        "token_bytes_std": round(float(sizes.std()), 3),
        "identity": tokenizer.identity(),
    }
    write_record("tokenizer", record)
    if tokenizer.get_vocab_size() < cfg.vocab_size:
        print(
            "the text holds no more pairs to merge: the vocabulary has "
            f"{tokenizer.get_vocab_size():,} entries "
            f"instead of {cfg.vocab_size:,} (more text would fill it)"
        )
    print(
        f"tokenizer of {tokenizer.get_vocab_size():,} entries from {counted.characters:,} "
        "characters "
        f"in {record['wall_s']} s -> {folder}"
    )
    for note in counted.notes():
        print(note)
    return record


def _check_place(folder: Path, replace: bool) -> None:
    """Raise ValueError where a tokenizer would be lost that models may have been trained with."""
    if not replace and any((folder / name).exists() for name in FILES):
        raise ValueError(
            f"{folder}: holds a tokenizer, which a new one would replace; keep it, set "
            "NANOCHAT_BASE_DIR to another folder, or add --replace to move it into a dated folder"
        )
    check_writable(folder, "make it so, or set NANOCHAT_BASE_DIR to a folder of your own")


class _Counted:
    """Passes texts on, each cut to doc_cap, until max_chars have been given; counts what it leaves
    out and shows how far along the reading is.

    The bar ends with the iteration: the merging that follows has its own, and a terminal shows one
    at a time.
    """

    def __init__(self, source: PlainText, cfg: TokTrainConfig) -> None:
        self.source = source
        self.cfg = cfg
        self.documents = 0
        self.characters = 0
        self.cut_documents = 0
        self.cut_characters = 0
        self.ended_early = False

    def __iter__(self) -> Iterator[str]:
        expected = min(self.cfg.max_chars, self.source.estimated_characters)
        with Progress(expected, "reading text") as progress:
            for text in self.source.texts:
                left = self.cfg.max_chars - self.characters
                if left <= 0:
                    self.ended_early = True
                    break
                if len(text) > self.cfg.doc_cap:
                    self.cut_documents += 1
                    self.cut_characters += len(text) - self.cfg.doc_cap
                    text = text[: self.cfg.doc_cap]
                self.ended_early = len(text) > left
                text = text[:left]
                self.documents += 1
                self.characters += len(text)
                progress.advance(max(0, min(len(text), expected - progress.done)))
                yield text
            # what doc_cap leaves out makes the estimate too high
            progress.advance(expected - progress.done)

    def notes(self) -> list[str]:
        """What of the text was not used."""
        told = []
        if self.cut_documents:
            told.append(
                f"not used: {self.cut_characters:,} characters of {self.cut_documents:,} documents "
                f"longer than --doc-cap={self.cfg.doc_cap:,}"
            )
        if self.ended_early:
            rest = self.source.estimated_characters - self.characters - self.cut_characters
            told.append(
                f"not used: what comes after --max-chars={self.cfg.max_chars:,}, about "
                f"{max(0, rest):,} characters"
            )
        return told + self.source.notes()


@contextlib.contextmanager
def _merge_progress() -> Iterator[None]:
    """Shows how far the merging is. rustbpe tells it only through its log, so that is where it is
    read from.
    """
    handler = _MergeLog()
    logger = logging.getLogger("rustbpe")
    level, propagate = logger.level, logger.propagate
    logger.setLevel(logging.INFO)
    logger.propagate = False
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
        logger.propagate = propagate
        handler.finish()


class _MergeLog(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.bar: Progress | None = None

    def emit(self, record: logging.LogRecord) -> None:
        found = re.search(r"\((\d+)/(\d+) merges\)", record.getMessage())
        if not found:
            return
        done, total = int(found[1]), int(found[2])
        if self.bar is None:
            self.bar = Progress(total, "merging").__enter__()
        self.bar.advance(done - self.bar.done)

    def finish(self) -> None:
        if self.bar is not None:
            self.bar.__exit__(None, None, None)
