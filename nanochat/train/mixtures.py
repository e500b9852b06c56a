"""What midtraining and fine-tuning learn: built-in mixtures plus any number of your own
conversation files.
"""

from __future__ import annotations

from nanochat.dataset.conversations import parse_mix
from nanochat.runtime.errors import rank
from nanochat.tasks.base import Task
from nanochat.tasks.catalogue import PUBLISHED, WORLD_MIXTURE, MixtureLine
from nanochat.tasks.conversation_file import ConversationFile
from nanochat.tasks.derived import Mixture, Selection
from nanochat.tasks.opening import open_task
from nanochat.tasks.task_data import DataNotFound
from nanochat.train.configs import ChatTrainConfig

VALIDATION_ROWS = 500


def chat_mixture(stage: str, cfg: ChatTrainConfig) -> tuple[Task, Task]:
    """(training, validation) tasks of a stage: the mixture shuffled, its last rows (at most 5%)
    held out.

    Raises ValueError naming the data that is missing and how to get it.
    """
    parts: list[tuple[Task, float]] = []
    if cfg.mixture == "world":
        parts += _built_in(WORLD_MIXTURE, cfg)
    elif cfg.mixture == "standard":
        parts += _built_in(PUBLISHED[stage], cfg)
    elif cfg.mixture == "auto":
        parts += _published_if_there(stage, cfg)
    elif cfg.persona:
        parts += _built_in((MixtureLine(task="identity"),), cfg)
    for spec in cfg.data:
        path, epochs = parse_mix(spec)
        parts.append((ConversationFile(path), epochs))
    mixture = Mixture(parts, seed=cfg.seed)
    n_held_out = max(1, min(VALIDATION_ROWS, len(mixture) // 20))
    if len(mixture) < 2:
        raise ValueError(
            f"the mixture has {len(mixture)} conversation(s); at least 2 are needed to train and "
            "validate"
        )
    n_rows = len(mixture)
    return Selection(mixture, range(n_rows - n_held_out)), Selection(
        mixture, range(n_rows - n_held_out, n_rows)
    )


def _built_in(lines: tuple[MixtureLine, ...], cfg: ChatTrainConfig) -> list[tuple[Task, float]]:
    parts: list[tuple[Task, float]] = []
    for line in lines:
        task = open_task(line.task, line.split, line.rows, persona=cfg.persona)
        if line.rows is not None and line.rows < len(task):
            task = Selection(task, range(line.rows))
        parts.append((task, line.epochs))
    return parts


def _published_if_there(stage: str, cfg: ChatTrainConfig) -> list[tuple[Task, float]]:
    """The published mixture when all of its data sets are there; else the embedded world, and a
    line saying why.
    """
    try:
        return _built_in(PUBLISHED[stage], cfg)
    except DataNotFound as absent:
        if rank() == "0":
            print(f"--mixture=auto: learning from the embedded world: {absent}", flush=True)
        return _built_in(WORLD_MIXTURE, cfg)
