"""No row that a stage is validated on is ever in one of its training batches, over several
passes."""

from __future__ import annotations

import json
import re

import pytest
from test_trainer import stage_config
from tiny_rl import save_sft
from tiny_runs import base_config, make_base

from nanochat.dataset.shards import write_shards
from nanochat.tokenizer import Tokenizer
from nanochat.train import stages
from nanochat.train.rl_configs import RLConfig

MARK = re.compile(r"<[a-z]\d+>")


class Seen(Exception):
    """The stage has been put together; what it holds is looked at instead of trained on."""


@pytest.fixture
def assembled(monkeypatch):
    """stage, config -> (trainer, hooks) of a run that is about to begin."""

    def run(stage, cfg, world):
        caught = []

        def stop(trainer, saver, resumed):
            caught.append(trainer)
            raise Seen

        monkeypatch.setattr(stages, "fit", stop)
        with pytest.raises(Seen):
            getattr(stages, stage)(cfg, world)
        return caught[0]

    return run


def marks(tokenizer, batches) -> set[str]:
    """The marks of all rows that stand in some batches."""
    found = set()
    for batch in batches:
        for row in batch.input_ids.tolist():
            found |= set(MARK.findall(tokenizer.decode(row)))
    return found


def sides(trainer, n_steps: int) -> tuple[set[str], set[str]]:
    """(marks in that many training steps, marks that are validated on)."""
    tokenizer = Tokenizer.byte_level()
    (loader,) = [hook.loader for hook in trainer.hooks if hasattr(hook, "loader")]
    trained = marks(tokenizer, (b for _ in range(n_steps) for b in trainer.source.next_step()))
    held_out = marks(tokenizer, (batch for step in loader for batch in step))
    trainer.source.close()
    return trained, held_out


def test_base(base_dir, single, assembled, monkeypatch):
    monkeypatch.setenv("NANOCHAT_DTYPE", "float32")
    make_base(base_dir)
    about = {"kind": "own text", "source": "test", "licence": "none"}
    train, held_out = ([f"{kind}{n}> text" for n in range(40)] for kind in ("<a", "<b"))
    write_shards(base_dir / "base_data", train, held_out, **about)
    trainer = assembled("base", base_config(eval_tokens=4000, eval_every=1), single)
    trained, validated = sides(trainer, n_steps=40)
    assert len(trained) == 40 and len(validated) > 30 and not trained & validated


@pytest.mark.parametrize("stage", ["mid", "sft"])
@pytest.mark.parametrize("repeated", ["", ":12", ":0.5"])
def test_conversations(base_dir, single, assembled, monkeypatch, stage, repeated):
    """Repeated, halved, and with rows that stand in the file more than once."""
    monkeypatch.setenv("NANOCHAT_DTYPE", "float32")
    make_base(base_dir)
    stages.base(base_config(num_iterations=1), single)
    chats = [
        [{"role": "user", "content": f"<c{n}>"}, {"role": "assistant", "content": f"it is {n}"}]
        for n in [*range(60), *range(30)]
    ]
    path = base_dir / "marked.jsonl"
    path.write_text("".join(json.dumps(chat) + "\n" for chat in chats))
    cfg = stage_config(stage, base_dir, data=[f"{path}{repeated}"], eval_every=1, eval_tokens=9999)
    trained, validated = sides(assembled(stage, cfg, single), n_steps=60)
    assert trained and validated and not trained & validated
    assert len(trained) > (20 if repeated == ":0.5" else 50)


def test_reinforcement_learning(base_dir, single, assembled, monkeypatch):
    """Every question of two passes, of each kind of task that needs no data set."""
    monkeypatch.setenv("NANOCHAT_DTYPE", "float32")
    save_sft(Tokenizer.byte_level())
    cfg = RLConfig(
        task="World-facts|World-arithmetic|World-spelling|World-counting",
        device_type="cpu",
        eval_every=0,
    )
    trainer = assembled("rl", cfg, single)
    source, (exam,) = trainer.source, [hook for hook in trainer.hooks if hasattr(hook, "tasks")]

    def question(conversation) -> str:
        return next(m["content"] for m in conversation["messages"] if m["role"] == "user")

    held_out = {question(row) for task in exam.tasks.values() for row in task}
    asked = {question(source.conversation(n)) for n in range(2 * len(source.task))}
    assert len(held_out) > 100 and len(asked) > 1000 and not held_out & asked
