"""What midtraining and fine-tuning learn: built-in mixtures plus any number of your own
conversation files, split into what is trained on and what is held out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nanochat.dataset.conversations import parse_mix
from nanochat.tasks.base import Task
from nanochat.tasks.catalogue import PUBLISHED, WORLD_MIXTURE, MixtureLine
from nanochat.tasks.content import Content, is_held_out
from nanochat.tasks.conversation_file import ConversationFile
from nanochat.tasks.derived import Mixture, Selection
from nanochat.tasks.identity_task import IdentityTask, own_identity_file
from nanochat.tasks.opening import open_task
from nanochat.tasks.task_data import DataNotFound
from nanochat.train.configs import ChatTrainConfig
from nanochat.train.fallback import fall_back

# Of all different rows one in a hundred is held out, the same ones in every stage, so that none is
# validated on after an earlier stage has trained on it. Small mixtures hold out more: about fifty
# rows, but at most one in twenty.
HELD_OUT_SHARE, MOST_HELD_OUT = 0.01, 0.05
FEW_ROWS = 50
VALIDATION_ROWS = 500  # of those held out, looked at


@dataclass(frozen=True, kw_only=True)
class MixtureSource:
    """Conversations that go into a mixture, `epochs` times."""

    name: str
    task: Task
    epochs: float


@dataclass(frozen=True, kw_only=True)
class MixtureRow:
    """What became of a source. `rows`: trained on in each epoch; `share`: of everything trained on;
    `held_out`: its rows that never are; `hash`: another one whenever anything in the source
    changes.
    """

    source: str
    rows: int
    epochs: float
    share: float
    held_out: int
    hash: str


@dataclass(frozen=True, kw_only=True)
class ChatMixture:
    """`train`: a task in whose rows none of `held_out` is. `notice`: what the run's owner must be
    told at its beginning and its end; empty when nothing.
    """

    train: Task
    held_out: Task
    rows: list[MixtureRow]
    notice: str = ""
    remark: str = ""

    def table(self) -> list[dict[str, Any]]:
        """The rows as plain data, for the record and the checkpoints of a run."""
        return [asdict(row) for row in self.rows]

    def lines(self) -> list[str]:
        """The table for people."""
        width = max(len(row.source) for row in self.rows)
        head = f"{'what is mixed':<{width}}  {'rows':>9}  epochs   share  held out  hash"
        lines = [
            f"{row.source:<{width}}  {row.rows:>9,}  {row.epochs:>6.4g}  {row.share:>6.1%}  "
            f"{row.held_out:>8,}  {row.hash}"
            for row in self.rows
        ]
        return [head, *lines, *([self.remark] if self.remark else [])]


def chat_mixture(stage: str, cfg: ChatTrainConfig) -> ChatMixture:
    """What a stage learns and what it is validated on. Equal conversations, in one source or in
    several, are on one side, and only then repeated.

    Raises ValueError naming the data that is missing and how to get it, and every row that does not
    fit.
    """
    sources, notice = _built_in(stage, cfg)
    sources += _own_files(cfg.data)
    remark = ""
    own = own_identity_file()
    if own is not None and own.resolve() not in [Path(s.name).resolve() for s in sources]:
        remark = f"not mixed in: {own} (--persona and --mixture=none leave it out; --data adds it)"
    return mix(sources, cfg.seed, notice, remark)


def mix(
    sources: Sequence[MixtureSource], seed: int, notice: str = "", remark: str = ""
) -> ChatMixture:
    """Split the sources by content and shuffle each side. ValueError when they do not hold two
    different conversations.
    """
    contents = [source.task.content() for source in sources]
    held_out = _held_out([content.keys for content in contents])
    kept = [
        Selection(source.task, np.flatnonzero(~held))
        for source, held in zip(sources, held_out, strict=True)
    ]
    train = Mixture([(task, s.epochs) for task, s in zip(kept, sources, strict=True)], seed)
    if not len(train):
        raise ValueError(
            "the mixture has no 2 different conversations; as many are needed to train and validate"
        )
    counts = train.rows_of_parts()
    rows = [
        MixtureRow(
            source=source.name,
            rows=len(task),
            epochs=round(source.epochs, 4),
            share=round(count / len(train), 6),
            held_out=int(held.sum()),
            hash=content.digest,
        )
        for source, task, count, held, content in zip(
            sources, kept, counts, held_out, contents, strict=True
        )
    ]
    validation = _validation([source.task for source in sources], contents, held_out, seed)
    return ChatMixture(train=train, held_out=validation, rows=rows, notice=notice, remark=remark)


def _held_out(keys: list[np.ndarray]) -> list[np.ndarray]:
    """For each source, which of its rows are held out: at least one of all where there are two."""
    different = np.unique(np.concatenate(keys)) if keys else np.zeros(0, dtype=np.uint64)
    n_rows = len(different)
    if n_rows < 2:
        return [np.ones(len(each), dtype=bool) for each in keys]
    share = min(MOST_HELD_OUT, max(HELD_OUT_SHARE, FEW_ROWS / n_rows))
    if is_held_out(different, share)[0]:
        return [is_held_out(each, share) for each in keys]
    return [each == different[0] for each in keys]


def _validation(
    tasks: list[Task], contents: list[Content], held_out: list[np.ndarray], seed: int
) -> Task:
    """The held-out rows, each different one once, shuffled; some of them where there are many."""
    keys = [content.keys[held] for content, held in zip(contents, held_out, strict=True)]
    wanted = np.unique(np.concatenate(keys))[:VALIDATION_ROWS]
    parts: list[Task] = []
    for task, content in zip(tasks, contents, strict=True):
        found, first = np.unique(content.keys, return_index=True)
        here = np.isin(found, wanted)
        parts.append(Selection(task, np.sort(first[here])))
        wanted = np.setdiff1d(wanted, found[here])
    return Mixture(parts, seed)


def _own_files(specs: Sequence[str]) -> list[MixtureSource]:
    """`["a.jsonl", "b.jsonl:3"]` as sources. ValueError with the problems of all files."""
    sources: list[MixtureSource] = []
    problems: list[str] = []
    for spec in specs:
        try:
            path, epochs = parse_mix(spec)
            sources.append(
                MixtureSource(name=str(path), task=ConversationFile(path), epochs=epochs)
            )
        except ValueError as error:
            problems.append(str(error))
    if problems:
        raise ValueError("\n".join(problems))
    return sources


def _built_in(stage: str, cfg: ChatTrainConfig) -> tuple[list[MixtureSource], str]:
    """(the sources of --mixture, notice)."""
    if cfg.mixture == "none":
        lines = (MixtureLine(task="identity"),) if cfg.persona else ()
        return _opened(lines, cfg), ""
    if cfg.mixture == "world":
        return _opened(WORLD_MIXTURE, cfg), ""
    try:
        return _opened(PUBLISHED[stage], cfg), ""
    except DataNotFound as absent:
        if cfg.mixture != "auto":
            raise
        notice = fall_back("--mixture", str(absent), "world", cfg.device_type)
        return _opened(WORLD_MIXTURE, cfg), notice


def _opened(lines: Sequence[MixtureLine], cfg: ChatTrainConfig) -> list[MixtureSource]:
    """The sources of a mixture. DataNotFound naming all data that is missing."""
    sources: list[MixtureSource] = []
    missing: list[str] = []
    for line in lines:
        try:
            sources.append(_source(line, cfg))
        except DataNotFound as absent:
            missing.append(str(absent))
    if missing:
        raise DataNotFound("\n".join(missing))
    return sources


def _source(line: MixtureLine, cfg: ChatTrainConfig) -> MixtureSource:
    task = open_task(line.task, line.split, line.rows, persona=cfg.persona)
    if isinstance(task, IdentityTask):
        # A short file of one's own is repeated until who the model is has its share of the whole.
        epochs = max(line.epochs, (line.rows or 0) / len(task))
        return MixtureSource(name=task.source, task=task, epochs=epochs)
    if line.rows is not None and line.rows < len(task):
        task = Selection(task, range(line.rows))
    return MixtureSource(name=task.name, task=task, epochs=line.epochs)
