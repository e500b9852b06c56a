"""The pipeline as a Flyte workflow (Flyte 2): docs/how-to/flyte.md.

    flyte run --local workflows/train_nanochat.py main --depth 2 --source embedded ...
    flyte run workflows/train_nanochat.py main

Every task runs `nanochat` commands under a base directory of its own. What a task makes is an
output in the object store; a task that is killed goes on from its newest checkpoint on the next
attempt.
"""

from __future__ import annotations

import base64
import hashlib
import html
import inspect
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import date
from importlib import metadata
from pathlib import Path
from typing import Any

import flyte
import flyte.report
from flyte.io import Dir

ROOT = Path(__file__).resolve().parents[1]
ATTEMPTS = 3  # besides the first one
SAVE_S = 120  # between checkpoints
FOLDERS = {"base": "base", "mid": "mid", "sft": "chatsft", "rl": "chatrl"}  # _checkpoints
STARTS_FROM = {"mid": "base", "sft": "mid", "rl": "sft"}
SECTIONS = {"base": "base_train", "mid": "mid_train", "sft": "chat_sft", "rl": "chat_rl"}
COMMANDS = {"base": "base-train", "mid": "mid-train", "sft": "chat-sft", "rl": "chat-rl"}


class ProjectCode:
    """A cache policy: results are those of today's code, of the whole package and not only of the
    task's own body.
    """

    def get_version(self, salt: str, params: Any) -> str:
        import nanochat

        digest = hashlib.sha256(salt.encode())
        if params.func is not None:
            digest.update(inspect.getsource(params.func).encode())
        package = Path(nanochat.__file__).parent
        for path in sorted(package.rglob("*")):
            if path.suffix in (".py", ".c", ".h", ".yaml", ".json", ".tsv", ".txt"):
                digest.update(str(path.relative_to(package)).encode() + path.read_bytes())
        return digest.hexdigest()


def wandb_secret() -> list[flyte.Secret]:
    """The W&B key, where the environment that deploys names it: WANDB_SECRET=wandb-api-key."""
    name = os.environ.get("WANDB_SECRET", "").strip()
    return [flyte.Secret(key=name, as_env_var="WANDB_API_KEY")] if name else []


image = (
    flyte.Image.from_debian_base(name="nanochat", python_version=(3, 12))
    .with_apt_packages("git", "build-essential")
    .with_uv_project(
        ROOT / "pyproject.toml",
        extra_args="--extra wandb",
        project_install_mode="install_project",
    )
)
cache = flyte.Cache(behavior="auto", policies=[ProjectCode()])
cpu_env = flyte.TaskEnvironment(
    name="nanochat-data",
    image=image,
    resources=flyte.Resources(cpu=4, memory="16Gi", disk="100Gi"),
    cache=cache,
)
gpu_env = flyte.TaskEnvironment(
    name="nanochat-train",
    image=image,
    resources=flyte.Resources(cpu=8, memory="32Gi", gpu="T4:1", disk="50Gi"),
    secrets=wandb_secret(),
    cache=cache,
)
env = flyte.TaskEnvironment(
    name="nanochat",
    image=image,
    resources=flyte.Resources(cpu=1, memory="1Gi"),
    depends_on=[cpu_env, gpu_env],
)


@dataclass
class TrainedStage:
    """What a stage leaves: `checkpoint` holds the base directory that later stages need, without
    text shards; `report` is the folder with its record.
    """

    checkpoint: Dir
    report: Dir
    metrics: dict[str, float]


@dataclass
class TrainingResult:
    """Of pretraining. `checkpoint_dir` outlives the task that wrote it."""

    status: str
    depth: int
    num_iterations: int
    min_validation_bpb: float
    final_validation_bpb: float
    checkpoint_dir: str


@dataclass
class WorkflowResult:
    """What `main` gives."""

    workflow: str
    run_name: str
    training: TrainingResult


@dataclass
class ChatResult:
    """What `chat_model` gives: scores by stage."""

    run_name: str
    scores: dict[str, dict[str, float]]
    checkpoint_dir: str


@gpu_env.task(cache="disable")
def setup_environment(run_name: str = "") -> dict[str, str]:
    """Versions and hardware; the W&B key is checked where there is one. About half a minute."""
    found = {
        "python": platform.python_version(),
        **{name: metadata.version(name) for name in ("torch", "flyte", "numpy")},
        "gpu": gpu_name(),
        "git": shutil.which("git") or "missing: only the code's version in records needs it",
        "wandb": wandb_mode(run_name),
    }
    for name, value in found.items():
        print(f"{name}: {value}", flush=True)
    return found


@cpu_env.task(retries=ATTEMPTS)
def download_and_prepare_data(
    num_shards: int = 50, source: str = "fineweb-edu", vocab_size: int = 0, characters: int = 0
) -> Dir:
    """Text shards, and a tokenizer of `vocab_size` entries trained on them; 0: GPT-2's vocabulary.

    source: fineweb-edu, climbmix, or embedded (made here, of `characters`).
    """
    with tempfile.TemporaryDirectory(prefix="nanochat-") as place:
        base = Path(place)
        if source == "embedded":
            nanochat(base, "dataset", "--embedded", *flag("characters", characters or 20_000_000))
        else:
            nanochat(base, "dataset", f"-n={num_shards}", f"--dataset={source}")
        if vocab_size:
            nanochat(base, "tok-train", *flag("vocab_size", vocab_size))
        return kept(base, "data")


@gpu_env.task(retries=ATTEMPTS, report=True)
def train_base_model(
    data: Dir,
    run_name: str,
    depth: int = 8,
    max_seq_len: int = 512,
    num_iterations: int = 1000,
    device_batch_size: int = 16,
    total_batch_size: int = 65_536,
    eval_every: int = 100,
    eval_tokens: int = 2_097_152,
    sample_every: int = 500,
    generation: str = "classic",
) -> TrainedStage:
    """Pretrain; 45 to 75 minutes with these settings on a T4, in float16."""
    settings: dict[str, Any] = dict(
        depth=depth,
        max_seq_len=max_seq_len,
        num_iterations=num_iterations,
        device_batch_size=device_batch_size,
        total_batch_size=total_batch_size,
        eval_every=eval_every,
        eval_tokens=eval_tokens,
        sample_every=sample_every,
        generation=generation,
        core_metric_every=-1,
    )
    with fetched(data) as base:
        if not (base / "tokenizer").exists():
            settings["tokenizer"] = "gpt2"
        return stage(base, "base", f"d{depth}", run_name, settings, source=data.path)


@gpu_env.task(retries=ATTEMPTS, report=True)
def midtrain(model: Dir, run_name: str, settings: dict[str, str] = {}) -> TrainedStage:  # noqa: B006
    """Conversations and tools, from a base model. `settings`: flags of `nanochat mid-train`."""
    return later_stage(model, "mid", run_name, settings)


@gpu_env.task(retries=ATTEMPTS, report=True)
def finetune(model: Dir, run_name: str, settings: dict[str, str] = {}) -> TrainedStage:  # noqa: B006
    """Fine-tuning, from a midtrained model. `settings`: flags of `nanochat chat-sft`."""
    return later_stage(model, "sft", run_name, settings)


@gpu_env.task(retries=ATTEMPTS, report=True)
def reinforce(model: Dir, run_name: str, settings: dict[str, str] = {}) -> TrainedStage:  # noqa: B006
    """Reinforcement learning, from a fine-tuned model. `settings`: flags of `nanochat chat-rl`."""
    return later_stage(model, "rl", run_name, settings)


@gpu_env.task(retries=ATTEMPTS)
def evaluate(model: Dir, source: str = "sft", settings: dict[str, str] = {}) -> dict[str, float]:  # noqa: B006
    """Chat benchmarks. `settings`: flags of `nanochat chat-eval`."""
    with fetched(model) as base:
        tag = tag_of(base, source)
        nanochat(base, "chat-eval", f"-i={source}", f"--model_tag={tag}", *flags(settings))
        return scores(base / "report", source)


def scores(report: Path, source: str) -> dict[str, float]:
    """Means and the score of each task, from what an evaluation has left."""
    found: dict[str, float] = {}
    for name in (f"chat_eval_{source}", "exam"):
        path = report / f"{name}.json"
        record = json.loads(path.read_text()) if path.exists() else {}
        tasks = {task: entry["score"] for task, entry in (record.get("tasks") or {}).items()}
        found |= numbers({**(record.get("metrics") or {}), **tasks})
    return found


@env.task
def main(
    run_name: str = "",
    depth: int = 8,
    num_iterations: int = 1000,
    num_shards: int = 50,
    source: str = "fineweb-edu",
    vocab_size: int = 0,
    characters: int = 0,
    max_seq_len: int = 512,
    device_batch_size: int = 16,
    total_batch_size: int = 65_536,
    eval_every: int = 100,
    eval_tokens: int = 2_097_152,
    sample_every: int = 500,
    generation: str = "classic",
) -> WorkflowResult:
    """Pretraining, as one result."""
    name = run_name or f"nanochat_d{depth}_flyte_{date.today():%Y%m%d}"
    setup_environment(run_name=name)
    data = download_and_prepare_data(
        num_shards=num_shards, source=source, vocab_size=vocab_size, characters=characters
    )
    trained = train_base_model(
        data=data,
        run_name=name,
        depth=depth,
        max_seq_len=max_seq_len,
        num_iterations=num_iterations,
        device_batch_size=device_batch_size,
        total_batch_size=total_batch_size,
        eval_every=eval_every,
        eval_tokens=eval_tokens,
        sample_every=sample_every,
        generation=generation,
    )
    training = TrainingResult(
        status="completed",
        depth=depth,
        num_iterations=num_iterations,
        min_validation_bpb=trained.metrics["min_val_bpb"],
        final_validation_bpb=trained.metrics["val_bpb"],
        checkpoint_dir=f"{trained.checkpoint.path}/base_checkpoints/d{depth}",
    )
    result = WorkflowResult(workflow="train_nanochat", run_name=name, training=training)
    print(json.dumps(asdict(result), indent=2), flush=True)
    return result


@env.task
def chat_model(
    model: Dir,
    run_name: str,
    mid: dict[str, str] = {},  # noqa: B006
    sft: dict[str, str] = {},  # noqa: B006
    evaluation: dict[str, str] = {},  # noqa: B006
    rl: dict[str, str] = {},  # noqa: B006
) -> ChatResult:
    """From a base model to a chat model: midtraining, fine-tuning, evaluation; reinforcement
    learning where `rl` has settings. `model`: what `main` calls `checkpoint_dir`, without the last
    two folders.
    """
    mid_stage = midtrain(model=model, run_name=run_name, settings=mid)
    tuned = finetune(model=mid_stage.checkpoint, run_name=run_name, settings=sft)
    found = {"sft": evaluate(model=tuned.checkpoint, source="sft", settings=evaluation)}
    last = tuned.checkpoint
    if rl:
        better = reinforce(model=tuned.checkpoint, run_name=run_name, settings=rl)
        found["rl"] = better.metrics
        last = better.checkpoint
    result = ChatResult(run_name=run_name, scores=found, checkpoint_dir=last.path)
    print(json.dumps(asdict(result), indent=2), flush=True)
    return result


def later_stage(model: Dir, name: str, run_name: str, settings: dict[str, str]) -> TrainedStage:
    """A stage that starts from the model of the one before."""
    with fetched(model) as base:
        tag = tag_of(base, STARTS_FROM[name])
        return stage(base, name, tag, run_name, dict(settings), source=model.path)


def tag_of(base: Path, name: str) -> str:
    """The one model of a stage under a base directory."""
    folder = base / f"{FOLDERS[name]}_checkpoints"
    tags = sorted(path.name for path in folder.glob("*")) if folder.is_dir() else []
    if not tags:
        raise flyte.errors.NonRecoverableError(f"the model given has no {folder.name}")
    return tags[0]


def stage(
    base: Path, name: str, tag: str, run_name: str, settings: dict[str, Any], *, source: str
) -> TrainedStage:
    """One training stage, from where an earlier attempt was, with its checkpoints carried away.
    `source`: where what it learns from or starts from is kept.
    """
    from nanochat.launch.carried_stage import CarriedStage

    words = [COMMANDS[name], f"--model_tag={tag}", f"--run={run_name or 'dummy'}", "--resume"]
    words += [f"--save_every_s={SAVE_S}", *flags(settings)]
    context = flyte.ctx()
    checkpoint = context.checkpoint if context else None
    carried = CarriedStage(base, name, tag, identity=json.dumps([words, source]))
    step = carried.restore(checkpoint.load_sync() if checkpoint else None)
    told = "from the beginning" if step is None else f"resuming after step {step}"
    print(f"{name}: {told}", flush=True)

    def carry(folder: Path, at: int) -> None:
        if checkpoint:
            checkpoint.save_sync(folder)
        print(f"{name}: checkpoint of step {at} is safe", flush=True)

    code = carried.run(words, carry, {"WANDB_MODE": wandb_mode(run_name)})
    if code == 2:  # something to be put right: another attempt would end the same way
        raise flyte.errors.NonRecoverableError(f"{name}: wrong settings or data (above)")
    if code:
        raise RuntimeError(f"{name}: ended with {code}; the next attempt resumes")
    record = json.loads((base / "report" / f"{SECTIONS[name]}.json").read_text())
    show(name, record, carried.rows(), base)
    remove(base / "base_data")  # later stages read none of it
    return TrainedStage(
        checkpoint=kept(base, name),
        report=kept(base / "report", f"{name}-report"),
        metrics=numbers(record["metrics"]),
    )


def show(name: str, record: dict[str, Any], rows: list[dict[str, Any]], base: Path) -> None:
    """The report tab: curves, numbers, samples. All text is escaped: a model wrote it."""
    from nanochat.report.curves import REWARD, TRAINING, run_curves

    curves = REWARD if name == "rl" else TRAINING
    image = run_curves(name, rows, curves, base / "report" / f"flyte_{name}.png")
    parts = []
    if image is not None:
        data = base64.b64encode(image.path.read_bytes()).decode()
        parts.append(f'<img alt="{html.escape(image.alt)}" src="data:image/png;base64,{data}">')
    for key, value in numbers(record["metrics"]).items():
        parts.append(f"<div>{html.escape(key)}: {value:g}</div>")
    for sample in record.get("samples") or []:
        told = f"{sample.get('prompt', '')} -> {sample.get('completion', '')}"
        parts.append(f"<pre>{html.escape(told)}</pre>")
    flyte.report.get_tab(name).replace("\n".join(parts))
    flyte.report.flush()


def nanochat(base: Path, *words: str) -> None:
    """One command under a base directory. Raises where it fails."""
    done = subprocess.run(
        [sys.executable, "-m", "nanochat", *words],
        env={**os.environ, "NANOCHAT_BASE_DIR": str(base)},
        check=False,
    )
    if done.returncode == 2:
        raise flyte.errors.NonRecoverableError(f"nanochat {' '.join(words)}: failed (above)")
    if done.returncode:
        raise RuntimeError(f"nanochat {' '.join(words)}: ended with {done.returncode}")


@contextmanager
def fetched(place: Dir) -> Iterator[Path]:
    """A folder of the object store as a base directory on this machine's disk, while it is
    needed.
    """
    with tempfile.TemporaryDirectory(prefix="nanochat-") as folder:
        base = Path(folder)
        if not os.path.isdir(place.path):
            base = Path(place.download_sync(folder))
        else:  # a run on this machine
            for item in Path(place.path).iterdir():
                if item.name == "base_data":  # large, and only read
                    (base / item.name).symlink_to(item.resolve())
                elif item.is_dir():
                    shutil.copytree(item, base / item.name)
                else:
                    shutil.copy2(item, base)
        yield base


def kept(folder: Path, name: str) -> Dir:
    """A folder that outlives the task: in the object store, or for a run on this machine under its
    raw data path.
    """
    context = flyte.ctx()
    if context is None or context.mode != "local":
        return Dir.from_local_sync(str(folder))
    target = Path(context.raw_data_path.path) / f"{name}-{uuid.uuid4().hex[:8]}"
    shutil.copytree(folder, target)
    return Dir.from_local_sync(str(target))


def remove(folder: Path) -> None:
    if folder.is_symlink():
        folder.unlink()
    else:
        shutil.rmtree(folder, ignore_errors=True)


def flag(name: str, value: Any) -> list[str]:
    return [f"--{name.replace('_', '-')}={value}"]


def flags(settings: dict[str, Any]) -> list[str]:
    return [word for name, value in settings.items() for word in flag(name, value)]


def numbers(metrics: dict[str, Any]) -> dict[str, float]:
    """The entries of a record that are numbers."""
    return {
        name: float(value)
        for name, value in metrics.items()
        if isinstance(value, (int, float)) and not isinstance(value, bool)
    }


def gpu_name() -> str:
    if shutil.which("nvidia-smi") is None:
        return "none"
    words = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "none"


def wandb_mode(run_name: str) -> str:
    """What W&B will do: online with a key, else nothing. Raises for a key that cannot be one."""
    key = os.environ.get("WANDB_API_KEY", "").strip()
    if not run_name or not key:
        return os.environ.get("WANDB_MODE", "").strip() or "disabled"
    if not re.fullmatch(r"(local-)?[0-9a-f]{40}|wandb_v\d_\w{20,}", key):
        raise flyte.errors.NonRecoverableError(
            "WANDB_API_KEY: is not a W&B key (40 hexadecimal digits, or wandb_v1_...); put the one "
            "from https://wandb.ai/authorize into the secret"
        )
    return os.environ.get("WANDB_MODE", "").strip() or "online"
