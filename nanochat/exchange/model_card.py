"""The README of an export or of a repository on the hub, written from what the checkpoint says of
itself.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nanochat.checkpoint_manager import FOLDERS, complete_steps, read_meta
from nanochat.cost import count_parameters
from nanochat.exchange.stock_classes import extras
from nanochat.exchange.stored_model import StoredModel

STAGE_NAMES = {
    "base": "pretraining",
    "mid": "midtraining",
    "sft": "supervised finetuning",
    "rl": "reinforcement learning",
}
LOADING = {
    "native": """\
```bash
nanochat pull REPO --as {source}:{tag}
nanochat chat-cli -i {source} -g {tag}
```""",
    "hf": """\
```python
from transformers import pipeline

chat = pipeline("text-generation", "REPO"{trust})
print(chat([{{"role": "user", "content": "Hello"}}], max_new_tokens=256))
```
vLLM: `vllm serve REPO --chat-template-content-format string{vllm_trust}`""",
    "gguf": """\
```bash
llama-cli --model FILE.gguf --jinja -cnv
ollama create my-model -f Modelfile   # Modelfile: FROM ./FILE.gguf
```""",
    "mlx": """\
```bash
mlx_lm.chat --model REPO
```""",
}


def model_card(
    model: StoredModel,
    layout: str,
    notes: Sequence[str] = (),
    *,
    license_id: str | None = None,
    repo: str | None = None,
) -> str:
    """Markdown with the hub's header. `layout`: native | hf | hf-stock | gguf | mlx; `notes`: what
    checking an export found; `license_id` stays out where nobody has said it.
    """
    header = {"library_name": "nanochat" if layout == "native" else "transformers"}
    if license_id:
        header["license"] = license_id
    front = "".join(f"{name}: {value}\n" for name, value in header.items())
    sections = [
        f"---\n{front}tags:\n- nanochat\n- text-generation\n---\n# {_title(model)}",
        _architecture(model),
        f"## How to load it\n{_loading(model, layout, repo)}",
        _stages(model),
        _scores(model),
    ]
    if notes:
        sections.append("## Checked\n```\n" + "\n".join(notes) + "\n```")
    return "\n\n".join(section for section in sections if section) + "\n"


def _title(model: StoredModel) -> str:
    return f"nanochat {model.directory.name}, {STAGE_NAMES[model.source]}, step {model.step}"


def _architecture(model: StoredModel) -> str:
    config = model.config
    return (
        f"{count_parameters(config).total:,} parameters: {config.n_layer} layers of width "
        f"{config.n_embd}, {config.n_head} query and {config.n_kv_head} key/value heads, a context "
        f"of {config.sequence_len:,} tokens, a vocabulary of {config.vocab_size:,}."
    )


def _loading(model: StoredModel, layout: str, repo: str | None) -> str:
    remote = layout == "hf" and bool(extras(model.config))
    text = LOADING[layout.removesuffix("-stock")].format(
        source=model.source,
        tag=model.directory.name,
        trust=", trust_remote_code=True" if remote else "",
        vllm_trust=" --trust-remote-code" if remote else "",
    )
    text = text.replace("REPO", repo or "FOLDER")
    return f"{text}\nA plain prompt (no chat) begins with `<|bos|>`."


def training_history(model: StoredModel) -> list[tuple[str, Mapping[str, Any]]]:
    """(stage, meta) of every stage that led to the model, as far as their checkpoints are here."""
    history = [(model.source, model.meta)]
    root = model.directory.parent.parent
    while parent := history[0][1].get("parent"):
        found = _parent(root, parent)
        if found is None or len(history) > len(FOLDERS):
            break
        history.insert(0, found)
    return history


def _parent(root: Path, parent: Any) -> tuple[str, Mapping[str, Any]] | None:
    if not isinstance(parent, Mapping):
        return None
    source, step = parent.get("source"), parent.get("step")
    tag = str(parent.get("model_tag") or parent.get("tag") or "")
    directory = root / FOLDERS.get(str(source), "") / tag
    if source not in FOLDERS or step not in complete_steps(directory):
        return None
    return str(source), read_meta(directory, int(step))


def _stages(model: StoredModel) -> str:
    rows = ["## How it was trained", "| stage | steps | tokens | hours | processes | code |"]
    rows.append("|---|---|---|---|---|---|")
    data: list[str] = []
    for source, meta in training_history(model):
        trainer, metrics = meta.get("trainer") or {}, meta.get("metrics") or {}
        tokens = metrics.get("tokens", trainer.get("tokens_seen"))
        seconds = metrics.get("train_s", trainer.get("train_s"))
        told = "" if tokens is None else f"{tokens:,}"
        hours = "" if seconds is None else f"{seconds / 3600:.2f}"
        rows.append(
            f"| {STAGE_NAMES[source]} | {meta.get('step', '')} | {told} | {hours} | "
            f"{meta.get('world_size', '')} | {meta.get('code_version') or ''} |"
        )
        data += [f"- {STAGE_NAMES[source]}: {line}" for line in _data(meta)]
    if data:
        rows += ["", "Data:", *data]
    return "\n".join(rows)


def _data(meta: Mapping[str, Any]) -> list[str]:
    """What a stage was trained on, with rows and digests where they were recorded."""
    lines = []
    for part in meta.get("mixture") or []:
        if isinstance(part, Mapping):
            facts = [f"{name} {value}" for name, value in part.items() if name != "name"]
            lines.append(f"{part.get('name', 'rows')} ({', '.join(facts)})")
    data = meta.get("data") or {}
    if isinstance(data, Mapping) and data and not lines:
        digests = sorted(data.items())
        shown = ", ".join(f"{name} {digest}" for name, digest in digests[:4])
        lines.append(f"{len(digests)} shards ({shown}{', ...' if len(digests) > 4 else ''})")
    return lines


def _scores(model: StoredModel) -> str:
    rows = []
    if model.meta.get("val_bpb") is not None:
        rows.append(f"Validation: {model.meta['val_bpb']:.4f} bits per byte.")
    table = []
    for kind in ("base_eval", "chat_eval"):
        path = model.directory / f"{kind}_{model.step:06d}.json"
        if not path.is_file():
            continue
        document = json.loads(path.read_text(encoding="utf-8"))
        for name, entry in document.get("tasks", {}).items():
            table.append(
                f"| {name} | {entry['score']:.4f} | {entry['low']:.4f} to {entry['high']:.4f} | "
                f"{entry['n']} |"
            )
    if table:
        rows += ["", "| task | score | 95% interval | problems |", "|---|---|---|---|", *table]
    return "## Scores\n" + "\n".join(rows) if rows else ""
