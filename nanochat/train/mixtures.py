"""What midtraining and fine-tuning learn: built-in mixtures plus any number of your own
conversation files.
"""

from __future__ import annotations

from nanochat.runtime.errors import rank
from nanochat.tasks.base import Mixture, Slice, Task
from nanochat.tasks.rows import DataNotFound
from nanochat.train.configs import ChatTrainConfig

VALIDATION_ROWS = 500


def chat_mixture(stage: str, cfg: ChatTrainConfig) -> tuple[Task, Task]:
    """(training, validation) tasks of a stage: the mixture shuffled, its last rows (at most 5%)
    held out.

    Raises ValueError naming the data that is missing and how to get it.
    """
    parts: list[tuple[Task, float]] = []
    if cfg.mixture == "world":
        parts += _world(cfg)
    elif cfg.mixture == "standard":
        parts += _standard(stage, cfg)
    elif cfg.mixture == "auto":
        parts += _standard_if_there(stage, cfg)
    elif cfg.persona:
        parts.append((_identity(cfg), 1.0))
    parts += [_own_file(spec) for spec in cfg.data]
    mixture = Mixture(parts, seed=cfg.seed)
    n_held_out = max(1, min(VALIDATION_ROWS, len(mixture) // 20))
    if len(mixture) < 2:
        raise ValueError(
            f"the mixture has {len(mixture)} conversation(s); at least 2 are needed to train and "
            "validate"
        )
    return Slice(mixture, 0, len(mixture) - n_held_out), Slice(
        mixture, len(mixture) - n_held_out, len(mixture)
    )


def _identity(cfg: ChatTrainConfig) -> Task:
    from nanochat.tasks.identity_exam import IdentityTask

    return IdentityTask(cfg.persona, "train")


def _own_file(spec: str) -> tuple[Task, float]:
    from nanochat.dataset.conversations import parse_mix
    from nanochat.tasks.conversation_file import ConversationFile

    path, epochs = parse_mix(spec)
    return ConversationFile(path), epochs


def _world(cfg: ChatTrainConfig) -> list[tuple[Task, float]]:
    from nanochat.tasks.world_exam import training_tasks

    return [(task, 1.0) for task in training_tasks(cfg.persona)]


def _standard_if_there(stage: str, cfg: ChatTrainConfig) -> list[tuple[Task, float]]:
    """The published mixture when all of its data sets are there; else the embedded world, and a
    line saying why.
    """
    try:
        return _standard(stage, cfg)
    except DataNotFound as absent:
        if rank() == "0":
            print(f"--mixture=auto: learning from the embedded world: {absent}", flush=True)
        return _world(cfg)


def _standard(stage: str, cfg: ChatTrainConfig) -> list[tuple[Task, float]]:
    """The published mixtures: 848K rows to midtrain on, 23K to fine-tune on."""
    from nanochat.tasks.arc import ARC
    from nanochat.tasks.gsm8k import GSM8K
    from nanochat.tasks.mmlu import MMLU
    from nanochat.tasks.smoltalk import SmolTalk
    from nanochat.tasks.spellingbee import SimpleSpelling, SpellingBee

    identity = _identity(cfg)
    if stage == "mid":
        return [
            (SmolTalk("train"), 1),
            (MMLU("auxiliary_train"), 1),
            (GSM8K("train"), 1),
            (identity, 2),
            (SimpleSpelling(200_000, "train"), 1),
            (SpellingBee(80_000, "train"), 1),
        ]
    chat = SmolTalk("train")
    return [
        (ARC("ARC-Easy", "train"), 1),
        (ARC("ARC-Challenge", "train"), 1),
        (GSM8K("train"), 1),
        (Slice(chat, 0, min(10_000, len(chat))), 1),
        (identity, 1),
        (SimpleSpelling(300, "train"), 1),
        (SpellingBee(300, "train"), 1),
    ]
