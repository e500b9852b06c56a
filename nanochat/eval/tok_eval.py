"""`tok_eval`: bytes per token on several kinds of text, beside GPT-2's and GPT-4's vocabularies
where they are had.
"""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from nanochat.dataset.text_source import plain_text, shard_texts
from nanochat.eval.results import why_closed
from nanochat.runtime.records import report_dir, write_record
from nanochat.tokenizer.bpe import Tokenizer, open_tokenizer

OTHERS = {"gpt2": "GPT-2", "cl100k_base": "GPT-4"}
SAMPLES = {
    "english": (
        "The harbour was quiet when the ferry came in. A woman in a grey coat counted the crates "
        "twice, signed the "
        "paper unread, and asked the captain whether the storm had been as bad as people said. "
        "He shrugged. "
        "It had been worse the year before, he told her, and nobody had written about that one."
    ),
    "code": (
        "def moving_average(values: list[float], window: int) -> list[float]:\n"
        '    """Mean of each run of `window` neighbours."""\n'
        "    if window < 1:\n"
        '        raise ValueError(f"window={window} must be positive")\n'
        "    total, means = 0.0, []\n"
        "    for index, value in enumerate(values):\n"
        "        total += value - (values[index - window] if index >= window else 0.0)\n"
        "        if index >= window - 1:\n"
        "            means.append(total / window)\n"
        "    return means\n"
    ),
    "maths": (
        "Let $f(x) = 3x^2 - 12x + 7$. Then $f'(x) = 6x - 12 = 0$ gives $x = 2$, and $f(2) = 12 - "
        "24 + 7 = -5$. "
        "Since $f''(2) = 6 > 0$ the point $(2, -5)$ is a minimum; $f(0) = 7$, $f(10) = 187$ and "
        "$f(100) = 28807$."
    ),
    "languages": (
        "Der Zug fährt um Viertel nach sieben. La bibliothèque ferme à dix-huit heures. El café "
        "está en la plaza. "
        "Сегодня холодно, но солнечно. 今日は天気がいいですね。"
        "오늘은 책을 읽고 싶어요. الكتاب على الطاولة."
    ),
}


@dataclass
class TokEvalConfig:
    """Measure a tokenizer in bytes per token (higher is better), beside GPT-2's and GPT-4's."""

    tokenizer: str | None = None
    """A directory or a tiktoken name; default: the trained one."""
    data: str | None = None
    """Text besides the built-in samples: a file or folder; default: the shards, if any."""
    max_chars: int = 1_000_000
    """Characters taken of that text."""

    def problems(self) -> list[str]:
        return [] if self.max_chars >= 1 else [f"--max-chars={self.max_chars}: must be at least 1"]


def tok_eval(cfg: TokEvalConfig) -> dict[str, Any]:
    """Print the comparison, write it to the report's record and return it. ValueError when a round
    trip fails.
    """
    if problems := cfg.problems():
        raise ValueError("\n".join(problems))
    if closed := why_closed(report_dir()):
        print(f"warning: {closed}", file=sys.stderr)
    mine = open_tokenizer(cfg.tokenizer)
    texts = {**SAMPLES, **_own_text(cfg)}
    tokenizers, absent = {"this": mine}, []
    for name, label in OTHERS.items():
        try:
            tokenizers[label] = Tokenizer.from_pretrained(name)
        except ValueError:
            absent.append(label)
    measured = {label: measure(tokenizer, texts) for label, tokenizer in tokenizers.items()}
    result = {
        "vocab_size": {
            label: tokenizer.get_vocab_size() for label, tokenizer in tokenizers.items()
        },
        "bytes_per_token": {label: values["bytes_per_token"] for label, values in measured.items()},
        "characters_per_s": {
            label: values["characters_per_s"] for label, values in measured.items()
        },
        "text_bytes": {name: len(text.encode()) for name, text in texts.items()},
        "not_available": absent,
    }
    _show(result)
    if not closed:
        _add_to_record(result)
    return result


def _add_to_record(result: dict[str, Any]) -> None:
    """Put the comparison beside what `tok_train` wrote, when that is about the same base
    directory."""
    trained: dict[str, Any] = {}
    with contextlib.suppress(OSError, ValueError, TypeError):
        trained = dict(json.loads((report_dir() / "tokenizer.json").read_text(encoding="utf-8")))
    write_record("tokenizer", {**trained, "evaluation": result})


def measure(tokenizer: Tokenizer, texts: dict[str, str]) -> dict[str, Any]:
    """Bytes per token of each text and the encoding speed over all. ValueError when decoding gives
    another text.
    """
    ratios = {}
    started = time.perf_counter()
    encoded = {name: tokenizer.encode(text) for name, text in texts.items()}
    spent = max(time.perf_counter() - started, 1e-9)
    for name, ids in encoded.items():
        if tokenizer.decode(ids) != texts[name]:
            raise ValueError(
                f"the tokenizer does not give back the sample {name!r}: train it again"
            )
        ratios[name] = round(len(texts[name].encode()) / len(ids), 3)
    return {
        "bytes_per_token": ratios,
        "characters_per_s": round(sum(map(len, texts.values())) / spent),
    }


def _own_text(cfg: TokEvalConfig) -> dict[str, str]:
    try:
        source = plain_text(cfg.data)
    except ValueError:
        if cfg.data is not None:
            raise
        return {}
    found = {}
    for name, texts in (
        ("training text", source.texts),
        ("validation text", shard_texts(source.validation)),
    ):
        text = _start(texts, cfg.max_chars).encode("utf-8", "replace").decode()
        if text:
            found[name] = text
    return found


def _start(texts: Iterable[str], characters: int) -> str:
    """The first characters of texts put together."""
    taken: list[str] = []
    for text in texts:
        taken.append(text[:characters])
        characters -= len(text)
        if characters <= 0:
            break
    return "".join(taken)


def _show(result: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    labels = list(result["bytes_per_token"])
    table = Table(title="bytes per token (higher is better)")
    table.add_column("text")
    table.add_column("bytes", justify="right")
    for label in labels:
        table.add_column(f"{label} ({result['vocab_size'][label]:,})", justify="right")
    for name, size in result["text_bytes"].items():
        values = [result["bytes_per_token"][label][name] for label in labels]
        best = max(values)
        shown = [
            f"[bold]{value:.3f}[/bold]" if value == best else f"{value:.3f}" for value in values
        ]
        table.add_row(name, f"{size:,}", *shown)
    speeds = [f"{result['characters_per_s'][label] / 1e6:.1f}" for label in labels]
    table.add_row("million characters/s", "", *speeds, style="dim")
    Console().print(table)
    if result["not_available"]:
        print(
            f"{', '.join(result['not_available'])}: not available offline (TIKTOKEN_CACHE_DIR "
            "can hold the files)"
        )
