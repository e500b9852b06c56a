"""Every file that a recipe's steps will read: is it there, whole, how large, and which command
brings it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

from nanochat.dataloader.file_digest import file_digests
from nanochat.dataset.extras import EXTRAS
from nanochat.dataset.shards import MANIFEST, list_shards, read_manifest, shard_paths
from nanochat.eval.core_bundle import read_bundle
from nanochat.launch.doctor.finding import Finding, error, ok, warning
from nanochat.launch.doctor.recipe_sizes import pretraining_settings
from nanochat.launch.recipes import Recipe, RecipeStep
from nanochat.runtime.base_dir import base_dir
from nanochat.tasks.catalogue import CHATCORE, DATA_SETS, PUBLISHED, TASKS
from nanochat.tasks.task_data import load_rows, local_files
from nanochat.tokenizer import Tokenizer

FETCH = "bash scripts/download_data.sh"
FETCH_TASKS = "bash scripts/download_after_basetraining.sh"
SHARD_BYTES = 100e6
SHARD_CHARACTERS = 250e6
CHARACTERS_OF_A_TOKEN = 4.8
OPTIONAL = ("identity conversations", "word list")  # something else is learned without them
REWARDED_BY_DEFAULT = "GSM8K"


@dataclass(frozen=True, kw_only=True)
class Need:
    """Something that steps read. `look`: what is there; ValueError where it is missing or damaged.
    `fix`: the command that brings it.
    """

    name: str
    look: Callable[[], Brought]
    fix: str
    optional: bool = False


@dataclass(frozen=True, kw_only=True)
class Brought:
    """What is there, in words, and its files. `hashed`: those whose hash is told, else all."""

    about: str
    files: list[Path]
    hashed: list[Path] | None = None

    def __str__(self) -> str:
        size = sum(path.stat().st_size for path in self.files)
        told = f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:,.2f} MB"
        paths = self.files if self.hashed is None else self.hashed
        digest = blake2b("".join(file_digests(paths).values()).encode(), digest_size=8).hexdigest()
        return f"{self.about}, {told}, hash {digest}"


def data_findings(recipe: Recipe, selected: Sequence[RecipeStep], offline: bool) -> list[Finding]:
    """One finding for each thing that the steps read and that none of them makes before.

    offline: nothing can be fetched while the recipe runs, so what is missing is an error.
    """
    needs = _needs(recipe, selected, offline)
    with ThreadPoolExecutor(max_workers=8) as pool:
        return list(pool.map(lambda need: _look(need, offline), needs))


def _look(need: Need, offline: bool) -> Finding:
    try:
        return ok(need.name, str(need.look()))
    except (ValueError, OSError) as problem:
        told = str(problem).split("\n")[0]
        if need.optional:
            return warning(need.name, "is missing, built-in ones are used", f"run: {need.fix}")
        where = "on the login node run" if offline else "run"
        return error(need.name, told, f"{where}: {need.fix}")


def _needs(recipe: Recipe, selected: Sequence[RecipeStep], offline: bool) -> list[Need]:
    """What the steps read. A step that downloads, or on a cluster the tokenizer's, is not run where
    there is no network: what it would make has to be there.
    """
    real = recipe.device == "cuda"
    running = [s for s in selected if not (offline and real and brought(s))]
    steps = {step.name: step for step in recipe.steps}
    made = {place for step in running for place in step.makes}
    needs: dict[str, Need] = {}
    for step in running:
        for name in step.needs:
            for place in steps[name].makes:
                if place not in made and not place.startswith("report/"):
                    need = _place(steps[name], place, recipe)
                    needs[need.name] = need
        if real:
            needs.update({need.name: need for need in _read_by(step, made)})
    return list(needs.values())


def brought(step: RecipeStep) -> bool:
    """Whether the step is done where there is internet, before the job."""
    return step.download or step.command in ("tok-train", "tok-eval")


def _place(step: RecipeStep, place: str, recipe: Recipe) -> Need:
    """What another step has to have left."""
    if place == "base_data":
        return Need(name="text shards", look=lambda: _shards(recipe), fix=FETCH)
    if place == "tokenizer":
        return Need(name="tokenizer", look=_tokenizer, fix=FETCH)
    fix = "sbatch scripts/speedrun.slurm, or nanochat recipe run"
    return Need(name=place, look=lambda: _checkpoint(place), fix=fix)


def _read_by(step: RecipeStep, made: set[str]) -> list[Need]:
    """What a step reads besides what other steps make."""
    found: list[Need] = []
    if step.command == "base-eval" and "eval_bundle" not in made:
        found.append(Need(name="eval bundle", look=_bundle, fix=FETCH))
    lines = {"mid-train": PUBLISHED["mid"], "chat-sft": PUBLISHED["sft"]}.get(step.command, ())
    wanted = [(line.task, line.split) for line in lines]
    if step.command == "chat-eval":
        wanted = [(name, "test") for name in CHATCORE]
    if step.command == "chat-rl":
        wanted = [(REWARDED_BY_DEFAULT, split) for split in ("train", "test")]
    if step.command in ("mid-train", "chat-sft"):
        found += [_extra(name) for name in OPTIONAL]
    for task, split in wanted:
        name = TASKS[task].data_set
        if name is not None:
            name = "mmlu-auxiliary" if split == "auxiliary_train" else name
            found.append(_rows(name, "train" if split == "auxiliary_train" else split))
    return found


def _rows(name: str, split: str) -> Need:
    def look() -> Brought:
        files = local_files(DATA_SETS[name], split)
        if not files:
            raise ValueError("is not there")
        return Brought(about=f"{len(load_rows(name, split)):,} rows", files=files)

    title = DATA_SETS[name].title
    return Need(
        name=title if title.endswith(split) else f"{title} {split}", look=look, fix=FETCH_TASKS
    )


def _extra(name: str) -> Need:
    def look() -> Brought:
        path = base_dir() / EXTRAS[name].makes
        if not path.is_file():
            raise ValueError("is not there")
        EXTRAS[name].check(path)
        return Brought(about="checked", files=[path])

    return Need(name=name, look=look, fix=FETCH, optional=True)


def _shards(recipe: Recipe) -> Brought:
    """Sizes against the manifest, which holds each shard's SHA-256; hashing them all takes long."""
    folder = base_dir() / "base_data"
    if not list_shards(folder):
        raise ValueError(f"none in {folder}")
    train, validation = shard_paths(folder)
    listed = {entry["name"]: entry for entry in read_manifest(folder).get("shards", [])}
    about = f"{len(train)} to train on and {validation.name}"
    if listed:
        about += ", sizes as in manifest.json"
    characters = sum(
        listed.get(path.name, {}).get("characters", SHARD_CHARACTERS) for path in train
    )
    settings = pretraining_settings(recipe)
    wanted = settings.total_batch_size * (settings.n_steps or 0) * CHARACTERS_OF_A_TOKEN
    if characters < wanted:
        about += f"; the run reads them {wanted / characters:,.1f} times"
    hashed = [folder / MANIFEST] if listed else [validation]
    return Brought(about=about, files=[*train, validation], hashed=hashed)


def _wanted_shards(recipe: Recipe) -> int:
    counts = [int(s.settings.get("num_files", 0)) for s in recipe.steps if s.command == "dataset"]
    return max(counts, default=0)


def _tokenizer() -> Brought:
    folder = base_dir() / "tokenizer"
    size = Tokenizer.load(folder).get_vocab_size()
    return Brought(about=f"{size:,} entries", files=sorted(folder.glob("tokenizer.*")))


def _bundle() -> Brought:
    tasks = read_bundle()
    return Brought(about=f"{len(tasks)} tasks", files=[task.path for task in tasks])


def _checkpoint(place: str) -> Brought:
    folder = base_dir() / place
    newest = sorted(folder.glob("meta_*.json"))[-1:]
    if not newest:
        raise ValueError(f"no complete checkpoint in {folder}")
    step = newest[0].stem.removeprefix("meta_")
    model = folder / f"model_{step}.pt"
    if not model.is_file():
        raise ValueError(f"{newest[0].name} is there without {model.name}")
    return Brought(about=f"step {int(step)}", files=[model])


def wanted_bytes(recipe: Recipe, selected: Sequence[RecipeStep], checkpoint_bytes: int) -> float:
    """Disk that the steps will fill: checkpoints of each stage, and shards not there yet."""
    trained = sum(step.resumes for step in selected)
    there = len(list_shards(base_dir() / "base_data"))
    downloads = any(step.download for step in selected)
    missing = max(0, _wanted_shards(recipe) - there) if downloads else 0
    return 4.0 * trained * checkpoint_bytes + missing * SHARD_BYTES
