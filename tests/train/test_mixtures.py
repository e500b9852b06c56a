"""Which conversations a stage learns: the published mixture when all of it is there, else the
embedded world.
"""

from __future__ import annotations

import json

import pytest

from nanochat.train.configs import MidConfig, SFTConfig
from nanochat.train.mixtures import chat_mixture

QUESTION = {"question": "Which?", "choices": ["1", "2", "3", "4"], "answer": 2, "subject": ""}
ARC = {"question": "Which?", "choices": {"text": ["a", "b"], "label": ["A", "B"]}, "answerKey": "B"}
CHAT = {"messages": [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi"}]}
FILES = {
    "smoltalk/train": CHAT,
    "mmlu/auxiliary_train": QUESTION,
    "gsm8k/train": {"question": "1 + 1?", "answer": "#### 2"},
    "arc/ARC-Easy/train": ARC,
    "arc/ARC-Challenge/train": ARC,
}
# What each stage is made of, as the error about the data set calls it.
NEEDED = {
    "mid": {
        "smoltalk/train": "SmolTalk train",
        "mmlu/auxiliary_train": "MMLU auxiliary_train train",
        "gsm8k/train": "GSM8K train",
    },
    "sft": {
        "smoltalk/train": "SmolTalk train",
        "gsm8k/train": "GSM8K train",
        "arc/ARC-Easy/train": "ARC-Easy train",
        "arc/ARC-Challenge/train": "ARC-Challenge train",
    },
}
CONFIGS = {"mid": MidConfig, "sft": SFTConfig}


@pytest.fixture
def task_data(base_dir):
    """Two rows of every data set of the published mixtures."""
    for name, row in FILES.items():
        path = base_dir / "task_data" / f"{name}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(2 * (json.dumps(row) + "\n"))
    return base_dir / "task_data"


@pytest.mark.parametrize("stage", NEEDED)
def test_auto_is_the_published_mixture_when_all_of_it_is_there(task_data, stage, capsys):
    for name in FILES.keys() - NEEDED[stage].keys():  # what only the other stage needs
        (task_data / f"{name}.jsonl").unlink()
    train, validation = chat_mixture(stage, CONFIGS[stage]())
    assert "SmolTalk" in train.name and train.name == validation.name and "World" not in train.name
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    "stage, gone", [(stage, name) for stage, names in NEEDED.items() for name in names]
)
def test_auto_without_one_data_set_is_the_world_and_says_which(task_data, stage, gone, capsys):
    (task_data / f"{gone}.jsonl").unlink()
    train, _ = chat_mixture(stage, CONFIGS[stage]())
    assert (
        "SmolTalk" not in train.name
        and train.name == chat_mixture(stage, CONFIGS[stage](mixture="world"))[0].name
    )
    (said,) = capsys.readouterr().out.splitlines()
    assert said.startswith(
        f"--mixture=auto: learning from the embedded world: {NEEDED[stage][gone]} not found"
    )
    assert "to get it, run `bash scripts/download_after_basetraining.sh`" in said
    with pytest.raises(ValueError, match=f"{NEEDED[stage][gone]} not found"):
        chat_mixture(stage, CONFIGS[stage](mixture="standard"))


def test_auto_does_not_pass_over_what_is_wrong_with_the_settings_or_the_data(task_data):
    with pytest.raises(ValueError, match="nobody.yaml"):
        chat_mixture("sft", SFTConfig(persona="nobody.yaml"))
    (task_data / "smoltalk" / "train.jsonl").rename(task_data / "smoltalk" / "train.parquet")
    with pytest.raises(ValueError, match="not a readable parquet file"):
        chat_mixture("sft", SFTConfig())
