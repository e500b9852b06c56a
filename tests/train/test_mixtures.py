"""What a stage learns, and that nothing it is validated on is ever in a training batch."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from tiny_runs import base_config

from nanochat.checkpoint_manager import read_meta
from nanochat.dataloader.documents import ConversationDocuments
from nanochat.dataloader.loader import PackedLoader
from nanochat.report.generate import generate
from nanochat.tasks.base import Task
from nanochat.tasks.catalogue import PUBLISHED, WORLD_MIXTURE
from nanochat.tasks.content import content_of, is_held_out
from nanochat.tokenizer import Tokenizer
from nanochat.train import mixtures, stages
from nanochat.train.configs import MidConfig, SFTConfig
from nanochat.train.mixtures import MixtureSource, chat_mixture, mix

CONFIGS = {"mid": MidConfig, "sft": SFTConfig}
N_ROWS = 60


def chat(question: str, answer: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


def arc(i: int) -> dict:
    choices = {"text": ["a", "b"], "label": ["A", "B"]}
    return {"question": f"Which, {i}?", "choices": choices, "answerKey": "B"}


FILES = {
    "smoltalk/train": lambda i: {"messages": chat(f"Hello {i}", f"Hi {i}")},
    "mmlu/auxiliary_train": lambda i: {
        "question": f"Which {i}?",
        "choices": ["1", "2", "3", "4"],
        "answer": 2,
        "subject": "",
    },
    "gsm8k/train": lambda i: {"question": f"{i} + 1?", "answer": f"#### {i + 1}"},
    "arc/ARC-Easy/train": arc,
    "arc/ARC-Challenge/train": lambda i: arc(1000 + i),
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


@pytest.fixture(autouse=True)
def on_a_laptop(monkeypatch):
    for name in ("SLURM_JOB_ID", "PBS_JOBID", "LSB_JOBID", "TORCHELASTIC_RUN_ID", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def small(monkeypatch):
    """The built-in mixtures with few rows of what is generated, so that a test takes a second."""

    def fewer(lines):
        return tuple(
            dataclasses.replace(line, rows=line.rows and min(line.rows, 400)) for line in lines
        )

    published = {stage: fewer(lines) for stage, lines in PUBLISHED.items()}
    monkeypatch.setattr(mixtures, "PUBLISHED", published)
    monkeypatch.setattr(mixtures, "WORLD_MIXTURE", fewer(WORLD_MIXTURE))


@pytest.fixture
def task_data(base_dir, small):
    """Some rows of every data set of the published mixtures."""
    for name, row in FILES.items():
        write(base_dir / "task_data" / f"{name}.jsonl", [row(i) for i in range(N_ROWS)])
    return base_dir / "task_data"


def write(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def make(stage: str, **changes):
    return chat_mixture(stage, CONFIGS[stage](**{"device_type": "cpu", **changes}))


def plain(row) -> str:
    return json.dumps(row["messages"], sort_keys=True)


def keys(task: Task) -> set[int]:
    return set(content_of(task).keys.tolist())


# --- held-out rows


@pytest.mark.parametrize("stage", CONFIGS)
@pytest.mark.parametrize("mixture", ["standard", "world", "none"])
@pytest.mark.parametrize("epochs", ["", ":3", ":0.5", ":2.5"])
def test_no_held_out_row_is_trained_on(task_data, base_dir, stage, mixture, epochs):
    rows = [chat(f"code of {i}?", str(7919 * i)) for i in range(90)]
    a = write(base_dir / "a.jsonl", [*rows, *rows[:40], rows[5], rows[5]])
    same_again = [{"messages": chat(f"  Code of {i}", f"{7919 * i}.")} for i in range(20, 70)]
    b = write(base_dir / "b.jsonl", same_again)
    made = make(stage, mixture=mixture, data=[f"{a}{epochs}", str(b), f"{a}:2"])
    trained, held_out = keys(made.train), keys(made.held_out)
    assert len(held_out) == len(made.held_out) > 0 and not trained & held_out
    sizes = {row.source: row.rows + row.held_out for row in made.rows}
    assert sizes[str(a)] == 132 and sizes[str(b)] == 50
    assert sum(row.share for row in made.rows) == pytest.approx(1, abs=1e-4)


def batches(task: Task, tokenizer: Tokenizer, masked: bool, n_steps: int) -> set[bytes]:
    """Everything between two <|bos|> of the batches of some steps, as bytes."""
    documents = ConversationDocuments(task, seed=42, masked=masked)
    loader = PackedLoader(
        documents, tokenizer, rows_per_step=4, seq_len=96, device_batch_size=2, prefetch=False
    )
    bos, seen = tokenizer.get_bos_token_id(), set()
    for _ in range(n_steps):
        for batch in loader.next_step():
            for row in batch.input_ids.tolist():
                text = np.array(row, dtype=np.int32)
                starts = np.flatnonzero(text == bos).tolist()
                seen |= {
                    text[i:j].tobytes() for i, j in zip(starts, [*starts[1:], None], strict=True)
                }
    loader.close()
    return seen


@pytest.mark.parametrize("stage", CONFIGS)
def test_no_held_out_row_is_in_a_training_batch(base_dir, stage):
    tokenizer = Tokenizer.byte_level()
    rows = [chat(f"Code of item {i}?", str(10**5 + 7919 * i)) for i in range(60)]
    path = write(base_dir / "codes.jsonl", rows)
    made = make(stage, mixture="none", data=[f"{path}:12"])
    seen = batches(made.train, tokenizer, stage == "sft", n_steps=200)
    rendered = {
        which: {
            np.array(tokenizer.render_conversation(row)[0], dtype=np.int32).tobytes()
            for row in task
        }
        for which, task in (("train", made.train), ("held out", made.held_out))
    }
    assert len(rendered["held out"]) == made.rows[0].held_out >= 1
    assert rendered["train"] <= seen, "the test looks at whole passes"
    assert not rendered["held out"] & seen


def test_what_one_stage_validates_on_no_other_trains_on(base_dir):
    a = write(base_dir / "a.jsonl", [chat(f"q{i}", "a") for i in range(6000)])
    b = write(base_dir / "b.jsonl", [chat(f"p{i}", "a") for i in range(6000)])
    mid = make("mid", mixture="none", data=[str(a)])
    sft = make("sft", mixture="none", data=[f"{a}:2", str(b)], seed=7)
    assert keys(mid.held_out) < keys(sft.held_out)
    assert not keys(mid.train) & keys(sft.held_out)
    many = np.unique(np.concatenate([content_of(one.train).keys for one in (mid, sft)]))
    few = is_held_out(many, 0.02)
    assert few.any() and not (few & ~is_held_out(many, 0.05)).any()


def test_the_same_rows_are_held_out_whatever_the_seed_and_the_epochs(base_dir):
    path = write(base_dir / "a.jsonl", [chat(f"q{i}", f"a{i}") for i in range(200)])
    held_out = [
        keys(make("sft", mixture="none", data=[f"{path}{epochs}"], seed=seed).held_out)
        for epochs, seed in (("", 1), (":3", 1), (":0.1", 2))
    ]
    assert held_out[0] == held_out[1] == held_out[2]


def test_epochs_repeat_what_is_trained_on(base_dir):
    a = write(base_dir / "a.jsonl", [chat(f"q{i}", "a") for i in range(40)])
    b = write(base_dir / "b.jsonl", [chat(f"p{i}", "a") for i in range(5)])
    made = make("sft", mixture="none", data=[f"{a}:3", f"{b}:0.1"])
    counts = Counter(plain(row) for row in made.train)
    rows = {row.source: row for row in made.rows}
    assert sorted(set(counts.values())) == [1, 3] and len(made.train) == 3 * rows[str(a)].rows + 1


@pytest.mark.parametrize("copies", [1, 2, 30])
def test_one_conversation_alone_cannot_be_split(base_dir, copies):
    path = write(base_dir / "a.jsonl", [chat("q", "a")] * copies)
    with pytest.raises(ValueError, match="no 2 different conversations"):
        make("sft", mixture="none", data=[f"{path}:9"])
    write(path, [chat("q", "a")] * copies + [chat("Q", "A!"), chat("other", "b")])
    made = make("sft", mixture="none", data=[f"{path}:9"])
    assert len(made.held_out) == 1 and len(made.train) in (9, 9 * (copies + 1))


def test_equal_is_what_says_the_same():
    def key(*messages):
        return content_of([{"messages": list(messages)}]).keys[0]

    user, assistant = chat("Caf\u00e9 au lait?", "Oui, 3.")
    assert key(user, assistant) == key(*chat("cafe\u0301  AU lait", "oui\n3"))
    parts = [{"type": "text", "text": "Oui, "}, {"type": "python", "text": "3"}]
    assert key(user, assistant) == key(user, {"role": "assistant", "content": parts})
    system = {"role": "system", "content": "Short."}
    assert key(system, *chat("Hi", "Ho")) == key(*chat("Short.\n\nHi", "Ho"))
    different = [("ab", "c"), ("a", "bc"), ("", "abc"), ("?", "!"), ("!", "?"), ("?", "?")]
    assert len({key(*chat(*each)) for each in different}) == len(different)
    assert key(*chat("a", "b"), *chat("c", "d")) != key(*chat("c", "d"), *chat("a", "b"))


# --- the table


def test_the_table_tells_sources_sizes_and_changes(base_dir):
    rows = [chat(f"q{i}", f"a{i}") for i in range(100)]
    path = write(base_dir / "mine.jsonl", rows)
    made = make("sft", mixture="none", data=[f"{path}:4"])
    (row,) = made.table()
    assert row["source"] == str(path) and row["rows"] + row["held_out"] == 100
    assert row["epochs"] == 4 and row["share"] == 1
    head, line = made.lines()
    assert head.split() == "what is mixed rows epochs share held out hash".split()
    assert line.split() == [str(path), str(row["rows"]), "4", "100.0%", *line.split()[-2:]]
    write(path, [*rows[:-1], chat("q99", "a99!")])
    assert make("sft", mixture="none", data=[f"{path}:4"]).table()[0]["hash"] != row["hash"]


def test_own_files_are_named_with_all_that_is_wrong(base_dir):
    good = write(base_dir / "good.jsonl", [chat("a", "b")])
    bad = write(base_dir / "bad.jsonl", [chat("a", "b"), 1, 2])
    with pytest.raises(ValueError) as error:
        make("sft", mixture="none", data=[str(bad), "nowhere.jsonl", f"{good}:0"])
    first, second, third = str(error.value).split("\n")
    assert first.startswith(f"{bad}:2: ") and "nowhere.jsonl" in second and ":0" in third


# --- who the model is


@pytest.mark.parametrize("stage", CONFIGS)
@pytest.mark.parametrize("mixture", ["standard", "world", "auto"])
def test_an_identity_file_is_learned_in_every_mixture(task_data, base_dir, stage, mixture):
    rows = [chat(f"Who are you, {i}?", "I am Bert of Baker Street.") for i in range(50)]
    own = write(base_dir / "identity_conversations.jsonl", rows)
    made = make(stage, mixture=mixture)
    shares = {row.source: row.share for row in made.rows}
    said = [plain(row) for row in made.train]
    about = [text for text in said if "I am Bert" in text]
    assert not any("nanochat" in text for text in said)
    share = len(about) / len(said)
    assert share > 0.02 and shares[str(own)] == pytest.approx(share, abs=1e-4)
    if mixture == "world":  # repeated until who it is has the weight of the package's own rows
        assert len(about) == round(made.rows[0].rows * made.rows[0].epochs) and len(about) > 300


@pytest.mark.parametrize("stage", CONFIGS)
@pytest.mark.parametrize("mixture", ["standard", "world", "auto", "none"])
def test_a_persona_is_learned_in_every_mixture_and_wins(task_data, base_dir, stage, mixture):
    own = write(base_dir / "identity_conversations.jsonl", [chat("Who?", "I am Bert.")])
    persona = base_dir / "ada.yaml"
    persona.write_text("name: Ada Nine\nmaker: a school in Bern\n")
    made = make(stage, mixture=mixture, persona=str(persona))
    said = " ".join(plain(row) for row in made.train)
    assert "Ada Nine" in said and "Bert" not in said
    assert "persona Ada Nine" in {row.source for row in made.rows}
    assert f"not mixed in: {own}" in made.lines()[-1]


def test_no_mixture_leaves_the_identity_file_out_and_says_so(base_dir):
    own = write(base_dir / "identity_conversations.jsonl", [chat("Who?", "Bert"), chat("a", "b")])
    path = write(base_dir / "a.jsonl", [chat("q", "a"), chat("p", "b")])
    made = make("sft", mixture="none", data=[str(path)])
    assert len(made.rows) == 1 and f"not mixed in: {own}" in made.lines()[-1]
    named = make("sft", mixture="none", data=[str(path), str(own)])
    assert len(named.rows) == 2 and "not mixed in" not in named.lines()[-1]


# --- data that is missing


@pytest.mark.parametrize("stage", NEEDED)
def test_auto_is_the_published_mixture_when_all_of_it_is_there(task_data, stage):
    for name in FILES.keys() - NEEDED[stage].keys():  # what only the other stage needs
        (task_data / f"{name}.jsonl").unlink()
    made = make(stage)
    assert "SmolTalk" in made.train.name and "World" not in made.train.name and not made.notice


@pytest.mark.parametrize(
    "stage, gone", [(stage, name) for stage, names in NEEDED.items() for name in names]
)
def test_auto_without_one_data_set_is_the_world_and_says_which(task_data, stage, gone):
    (task_data / f"{gone}.jsonl").unlink()
    made = make(stage)
    assert [row.source for row in made.rows] == [
        row.source for row in make(stage, mixture="world").rows
    ]
    lines = made.notice.splitlines()
    assert len(lines) >= 3 and all(line.startswith("WARNING") for line in lines)
    assert f"{NEEDED[stage][gone]} not found" in made.notice
    assert "to get it, run `bash scripts/download_after_basetraining.sh`" in made.notice
    with pytest.raises(ValueError, match=f"{NEEDED[stage][gone]} not found"):
        make(stage, mixture="standard")


@pytest.mark.parametrize(
    "variable, value, device",
    [
        ("SLURM_JOB_ID", "17", "cpu"),
        ("PBS_JOBID", "17.host", None),
        ("TORCHELASTIC_RUN_ID", "none", "cpu"),
        ("WORLD_SIZE", "2", "cpu"),
        ("WORLD_SIZE", "1", "cuda"),
    ],
)
@pytest.mark.parametrize("stage", CONFIGS)
def test_a_run_that_nobody_watches_stops_without_its_data(
    small, monkeypatch, stage, variable, value, device
):
    monkeypatch.setenv(variable, value)
    with pytest.raises(ValueError) as error:
        make(stage, device_type=device)
    text = str(error.value)
    for name in NEEDED[stage].values():
        assert f"{name} not found" in text, "everything that is missing is told at once"
    assert "download_after_basetraining.sh" in text and "--mixture=world" in text
    assert make(stage, device_type=device, mixture="world").notice == ""


def test_auto_does_not_pass_over_what_is_wrong_with_the_settings_or_the_data(task_data):
    with pytest.raises(ValueError, match="nobody.yaml"):
        make("sft", persona="nobody.yaml")
    (task_data / "smoltalk" / "train.jsonl").rename(task_data / "smoltalk" / "train.parquet")
    with pytest.raises(ValueError, match="not a readable parquet file"):
        make("sft")


@pytest.mark.parametrize("folder", ["chat", "smoltalk"])
@pytest.mark.parametrize("mixture", ["auto", "standard"])
def test_a_row_that_cannot_be_learned_stops_the_run_before_its_first_step(
    task_data, folder, mixture
):
    (task_data / "smoltalk" / "train.jsonl").unlink()
    good = chat("a", "b")
    odd = [*good, {"role": "system", "content": "s"}, *chat("c", "d")]
    path = write(task_data / folder / "train.jsonl", [{"messages": good}, {"messages": odd}])
    with pytest.raises(ValueError, match=f"{path}:2: message 3 has role 'system'"):
        make("sft", mixture=mixture)


def test_rows_of_one_split_go_to_no_other_part():
    class Rows(Task):
        def __len__(self):
            return 300

        def __getitem__(self, index):
            return {"messages": chat(f"q{index % 100}", "a")}

    made = mix([MixtureSource(name="x", task=Rows(), epochs=1.0)], seed=3)
    (row,) = made.rows
    assert row.held_out % 3 == 0 and row.held_out == 3 * len(made.held_out)


@pytest.mark.parametrize("stage", CONFIGS)
def test_a_run_shows_and_keeps_what_it_learned(data, base_dir, single, stage, capsys):
    stages.base(base_config(num_iterations=1), single)
    changes = {"max_seq_len": 32, "device_batch_size": 2, "total_batch_size": 128, "eval_every": 0}
    changes |= {"num_iterations": 1, "source": "base", "sample_every": 0, "eval_tokens": 64}
    path = base_dir / "chats.jsonl"
    cfg = CONFIGS[stage](
        **changes, device_type="cpu", mixture="none", data=[f"{path}:3"], compile=False
    )
    record = getattr(stages, stage)(cfg, single)
    (line,) = record["mixture"]
    assert line["source"] == str(path) and line["epochs"] == 3 and line["share"] == 1
    meta = read_meta(Path(record["checkpoint"]["path"]), 1)
    assert meta["mixture"] == record["mixture"]
    assert f"{path} " in capsys.readouterr().out
    assert f"| {path} | {line['rows']} | 3 | 100.0% |" in generate().read_text()
