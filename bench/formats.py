"""The table of docs/reference/formats.md: every kind of model in every format, checked in whatever
of transformers, llama.cpp and mlx-lm is installed here.

    python -m bench.formats --write docs/reference/formats.md

Weights are random, the hardest case for equal tokens: no trained model has logits this flat.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

import nanochat.exchange.self_check as self_check
from nanochat.checkpoint_manager import checkpoint_dir, save_checkpoint
from nanochat.exchange.export_gguf import check_gguf
from nanochat.exchange.export_hf import HFExportConfig, check_hf
from nanochat.exchange.export_mlx import check_mlx, write_mlx
from nanochat.exchange.gguf_file import write_gguf
from nanochat.exchange.hf_folder import write_hf
from nanochat.exchange.hf_reader import read_safetensors
from nanochat.exchange.probes import PROMPTS
from nanochat.exchange.self_check import Check
from nanochat.exchange.stock_classes import cropped, extras
from nanochat.exchange.stored_model import StoredModel, open_stored
from nanochat.gpt import GPT
from nanochat.gpt_config import GPTConfig
from nanochat.model_spec import ModelSpec
from nanochat.tokenizer import Tokenizer

COLUMNS = ("native", "HF", "HF stock", "GGUF BF16", "GGUF Q8_0", "MLX")
TEXT = (
    "It was the best of times, it was the worst of times; 1234 and 98 more.\n\n"
    "def f(x):\n    return x + 1  # what they've said\n" * 3
)


@dataclass(frozen=True, kw_only=True)
class Row:
    """`shape`: fields of the model; `told`: what a public meta file says of it besides sizes, or
    None where ours names every field.
    """

    name: str
    shape: dict[str, Any] = field(default_factory=dict)
    told: dict[str, Any] | None = None


JANUARY = {"residual_mixing": True, "window_pattern": "SSSL", "window_tokens": 256}
VALUES = {**JANUARY, "value_embeddings": True, "value_gate_channels": 32, "value_gate_scale": 2.0}
MARCH = {
    **VALUES,
    "value_gate_channels": 12,
    "value_gate_scale": 3.0,
    "qk_scale": 1.15,
    "rope_base": 1e5,
    "rope_bf16": False,
    "window_tokens": 256,
}
SSSL = {"window_pattern": "SSSL"}
ROWS = (
    Row(name="classic, d2"),
    Row(name="classic, d4 with GQA", shape={"n_layer": 4, "n_kv_head": 1}),
    Row(name="9 December 2025, padded rows", shape={"vocab_multiple": 64}, told={}),
    Row(name="11 January 2026", shape={**JANUARY, "vocab_multiple": 64}, told=SSSL),
    Row(name="16 January 2026", shape={**VALUES, "vocab_multiple": 64}, told=SSSL),
    Row(
        name="3 March 2026, softcap 20",
        shape={**VALUES, "vocab_multiple": 64, "logit_softcap": 20.0},
        told={**SSSL, "logit_softcap": 20.0},
    ),
    Row(name="9 March 2026", shape={**MARCH, "vocab_multiple": 64}, told=SSSL),
    Row(
        name="modern",
        shape={
            **MARCH,
            "vocab_multiple": 64,
            "qk_scale": 1.2,
            "window_tokens": 128,
            "smear": True,
            "backout": True,
        },
        told=SSSL,
    ),
)
SIZES = {"n_layer": 2, "n_head": 2, "n_kv_head": 2, "n_embd": 128, "sequence_len": 512}


def stored(row: Row, tokenizer: Tokenizer) -> StoredModel:
    """The row's model as a checkpoint under the base directory."""
    shape = {**SIZES, "vocab_size": tokenizer.get_vocab_size(), **row.shape}
    config = GPTConfig(**shape)
    model, generator = GPT(config), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            std = 0.3 if parameter.dim() < 2 else parameter.size(-1) ** -0.5
            parameter.normal_(0, std, generator=generator)
    about = config.to_dict()
    if row.told is not None:
        about = {name: shape[name] for name in (*SIZES, "vocab_size")} | row.told
    folder = checkpoint_dir("sft", "row")
    save_checkpoint(folder, 1, model.state_dict(), None, {"model_config": about})
    tokenizer.save(folder / "tokenizer")
    found = open_stored(ModelSpec("sft", "row", 1))
    assert found.config.window(0) == config.window(0) and extras(found.config) == extras(config)
    return found


def round_trip(model: StoredModel, folder: Path) -> str:
    """Whether the Hugging Face export, read back, has the same bits."""
    write_hf(model, folder)
    back = read_safetensors(sorted(folder.glob("*.safetensors")))
    kept = model.state if extras(model.config) else cropped(model.config, model.state)
    equal = back.keys() == kept.keys() and all(back[n].equal(kept[n]) for n in kept)
    return "round trip bit-equal" if equal else "ROUND TRIP DIFFERS"


def cell(make: Callable[[], tuple[list[Check], list[str]]], programs: set[str]) -> str:
    """`difference, greedy, template, where` of a check; why not where there is none."""
    with contextlib.redirect_stdout(io.StringIO()):
        try:
            checks, told = make()
        except ValueError as error:
            return "classic only" if "classic models only" in str(error) else f"no: {error}"
    if not checks:
        return told[-1].split(";")[0]
    (check,) = checks
    programs.add(check.program.partition(",")[0])
    ties = f" + {check.greedy_ties} ties" if check.greedy_ties else ""
    wrong = " FAILS" if check.problems() else ""
    return (
        f"{check.logit_difference:.1g}, {check.greedy_equal}{ties} of {check.prompts}, "
        f"{check.chats_equal} of {check.chats}{wrong}"
    )


def cells(model: StoredModel, place: Path, texts: tuple[str, ...], programs: set[str]) -> list[str]:
    def hf(stock: bool) -> tuple[list[Check], list[str]]:
        folder = place / f"hf{stock}"
        write_hf(model, folder, stock=stock)
        cfg = HFExportConfig(model="sft:row", out=str(folder), stock=stock)
        return check_hf(model, folder, cfg, texts)

    def gguf(kind: Any) -> tuple[list[Check], list[str]]:
        write_gguf(model, place / f"{kind}.gguf", kind)
        return check_gguf(model, place / f"{kind}.gguf", kind, texts)

    def mlx() -> tuple[list[Check], list[str]]:
        write_mlx(model, place / "mlx", "float32")
        return check_mlx(model, place / "mlx", "float32", texts)

    return [
        round_trip(model, place / "native"),
        cell(lambda: hf(False), programs),
        cell(lambda: hf(True), programs),
        cell(lambda: gguf("bf16"), programs),
        cell(lambda: gguf("q8_0"), programs),
        cell(mlx, programs),
    ]


def table(texts: tuple[str, ...], programs: set[str]) -> str:
    """The table; `programs` gets the names of those that were asked."""
    tokenizer = Tokenizer.train([TEXT], 340)
    lines = [f"| model | {' | '.join(COLUMNS)} |", "|---" * (1 + len(COLUMNS)) + "|"]
    for row in ROWS:
        with tempfile.TemporaryDirectory() as place:
            os.environ["NANOCHAT_BASE_DIR"] = f"{place}/base"
            model = stored(row, tokenizer)
            found = cells(model, Path(place), texts, programs)
            lines.append(f"| {row.name} | {' | '.join(found)} |")
            print(lines[-1], flush=True)
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", type=Path, help="put the table into this page")
    parser.add_argument("--prompts", type=int, default=len(PROMPTS))
    parser.add_argument("--tokens", type=int, default=self_check.GREEDY_TOKENS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    self_check.GREEDY_TOKENS = args.tokens
    programs: set[str] = set()
    made = table(PROMPTS[: args.prompts], programs)
    caption = (
        f"Random weights, fp32 where the column does not say otherwise; {args.tokens} greedy "
        f"tokens over {args.prompts} prompts. Cells: largest difference of the logits, prompts "
        "with equal tokens, conversations rendered alike. A tie: two tokens as likely as the "
        f"logits are exact. Checked in {', '.join(sorted(programs))}, on a CPU."
    )
    if args.write:
        text = args.write.read_text(encoding="utf-8")
        before, _, rest = text.partition("<!-- table -->\n")
        _, _, after = rest.partition("<!-- end -->")
        page = f"{before}<!-- table -->\n{made}\n\n{caption}\n<!-- end -->{after}"
        args.write.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
