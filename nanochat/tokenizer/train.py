"""`tok_train`: learn the vocabulary from text and put it under the base directory."""

from __future__ import annotations

import contextlib
import logging
import re
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

from nanochat.runtime.progress import Progress
from nanochat.runtime.records import write_record
from nanochat.runtime.run_dir import base_dir
from nanochat.tokenizer.bpe import MAX_VOCAB_SIZE, MIN_VOCAB_SIZE, Tokenizer
from nanochat.tokenizer.corpus import corpus_files, documents, size_estimate


@dataclass
class TokTrainConfig:
    """Train a byte-level BPE tokenizer on the training shards, or on any text."""

    max_chars: int = 2_000_000_000
    """Characters of text to read."""
    doc_cap: int = 10_000
    """Characters taken of one document, so that a few long ones do not decide."""
    vocab_size: int = 65_536
    """Entries, special tokens included."""
    data: str | None = None
    """A text file or a folder; default: the base directory's training shards."""

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
        return found


def tok_train(cfg: TokTrainConfig) -> dict[str, Any]:
    """Train, save to `<base>/tokenizer`, write the report's record and return it. ValueError when
    there is no text.
    """
    if problems := cfg.problems():
        raise ValueError("\n".join(problems))
    train, _ = corpus_files(cfg.data)
    started = time.perf_counter()
    counted = _Counted(
        documents(train, cfg.max_chars, cfg.doc_cap), min(cfg.max_chars, size_estimate(train))
    )
    with _merge_progress():
        tokenizer = Tokenizer.train(counted, cfg.vocab_size)
    folder = base_dir() / "tokenizer"
    tokenizer.save(folder)
    sizes = tokenizer.token_bytes()[: -len(tokenizer.special_tokens)].float()
    record = {
        "config": asdict(cfg),
        "vocab_size": tokenizer.get_vocab_size(),
        "documents": counted.documents,
        "characters": counted.characters,
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
    return record


class _Counted:
    """Counts the documents as they are read and shows how far along the reading is.

    The bar ends with the iteration: the merging that follows has its own, and a terminal shows one
    at a time.
    """

    def __init__(self, texts: Iterable[str], expected: int) -> None:
        self.texts, self.expected = texts, expected
        self.documents = self.characters = 0

    def __iter__(self) -> Iterator[str]:
        with Progress(self.expected, "reading text") as progress:
            for text in self.texts:
                self.documents += 1
                self.characters += len(text)
                progress.advance(max(0, min(len(text), self.expected - progress.done)))
                yield text
            progress.advance(
                self.expected - progress.done
            )  # doc_cap leaves text out: the estimate was too high


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
