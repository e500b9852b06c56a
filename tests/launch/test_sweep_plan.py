"""Files of sweeps: what runs they mean, and everything wrong with them at once."""

from __future__ import annotations

import pytest
import yaml

from nanochat.launch.sweep_plan import read_sweep


@pytest.fixture
def read(tmp_path):
    def from_data(data, name="lr.yaml"):
        path = tmp_path / name
        path.write_text(data if isinstance(data, str) else yaml.safe_dump(data, sort_keys=False))
        return read_sweep(path)

    return from_data


def test_every_combination_of_a_grid(read):
    plan = read(
        "settings: {num_iterations: 5, data: null-is-text}\n"
        "grid: {matrix-lr: [1e-3, 0.02], depth: [2, 4, 2]}\n"
    )
    assert plan.name == "lr" and plan.command == "base-train" and plan.measure == "val_bpb"
    assert plan.varied == ("matrix_lr", "depth")
    names = [run.name for run in plan.runs]
    assert names == [f"matrix_lr={lr},depth={d}" for lr in ("1e-3", "0.02") for d in (2, 4)]
    assert plan.runs[0].words() == [
        "--num-iterations=5",
        "--data=null-is-text",
        "--matrix-lr=1e-3",
        "--depth=2",
    ]


def test_more_random_runs_leave_the_first_ones_as_they_were(read):
    def draws(n, **more):
        how = {
            "matrix_lr": {"log_uniform": ["1e-3", 0.1]},
            "depth": {"choice": [2, 4]},
            "warmup_ratio": {"uniform": [0.0, 0.5]},
            "total_batch_size": {"uniform": [100, 200]},
        }
        plan = read({"settings": {"max_seq_len": 1}, "random": {"runs": n, **more, **how}})
        return [run.varied for run in plan.runs]

    few, many = draws(5), draws(20)
    assert many[:5] == few and len({row["matrix_lr"] for row in many}) == 20
    assert draws(5, seed=7) != few
    for row in many:
        assert 1e-3 <= row["matrix_lr"] <= 0.1 and row["depth"] in (2, 4)
        assert isinstance(row["total_batch_size"], int) and 0 <= row["warmup_ratio"] <= 0.5
    assert sum(row["matrix_lr"] < 0.01 for row in many) > 4, "as many below the middle as above"


def test_other_commands_bring_what_they_are_measured_by(read):
    plan = read({"command": "chat_rl", "grid": {"num_samples": [2, 4]}})
    assert (plan.command, plan.measure, plan.goal) == ("chat-rl", "pass@1", "max")
    assert plan.swept.section == "chat_rl"


def test_names_of_runs_are_names_of_folders(read):
    plan = read({"command": "mid-train", "grid": {"data": [["/a b/c.jsonl:2", "d"], ["e" * 200]]}})
    first, second = (run.name for run in plan.runs)
    assert "/" not in first and " " not in first and len(second) < 150 and first != second
    assert plan.runs[0].words() == ["--data=/a b/c.jsonl:2", "--data=d"]


WRONG = {
    "grid: {depht: [2]}": ["--depht=2: unknown flag; did you mean --depth?"],
    "grid: {depth: [0, two]}": ["--depth=0: must be", "--depth=two: expected"],
    "grid: {depth: 2}": ["grid.depth=2: must be a list"],
    "grid: {depth: []}": ["grid.depth=[]: must be a list"],
    "settings: {depth: 2}": ["give one of them"],
    "grid: {depth: [2]}\nrandom: {runs: 2, seed: 1}": ["give one of them"],
    "grid: {depth: [2]}\nresume: true": ["resume: unknown"],
    "grid: {depth: [2]}\nsettings: {resume: true}": ["resume: the sweep itself decides"],
    "grid: {run: [a, b]}": ["run: the sweep itself decides"],
    "grid: {depth: [2]}\ngird: 1\nfoo: 2": ["gird: unknown; did you mean grid?", "foo: unknown"],
    "grid: {depth: [2]}\ncommand: chat-web": ["command=chat-web: cannot be swept"],
    "grid: {depth: [2]}\ngoal: most": ["goal=most: must be min or max"],
    "grid: {depth: [2]}\nname: a/b": ["name=a/b: use letters"],
    "grid: [depth]": ["grid: must hold", "give one of them"],
    "settings: {depth: {a: 1}}\ngrid: {seed: [1]}": ["no settings inside of settings"],
    "random: {runs: 0, depth: {choice: [2]}}": ["random.runs=0: must be"],
    "random: {depth: {choice: [2]}}": ["random.runs=None: must be"],
    "random: {runs: 2}": ["names no setting that varies"],
    "random: {runs: 2, matrix_lr: [1, 2]}": ["random.matrix_lr=[1, 2]: use one of"],
    "random: {runs: 2, matrix_lr: {log_uniform: [0, 1]}}": ["needs numbers above 0"],
    "random: {runs: 2, matrix_lr: {uniform: [2, 1]}}": ["the lower one first"],
    "random: {runs: 2, matrix_lr: {uniform: [.nan, 1]}}": ["the lower one first"],
    "grid: {seed: [" + "1, " * 1001 + "]}": ["at most 1000"],
    "- a": ["must hold `key: value` lines"],
    "a: [": ["not valid YAML"],
    "": ["must hold `key: value` lines"],
}


@pytest.mark.parametrize("text", WRONG)
def test_everything_wrong_is_told_with_the_file(read, text):
    with pytest.raises(ValueError) as error:
        read(text)
    lines = str(error.value).split("\n")
    assert len(lines) == len(WRONG[text]), lines
    for line, told in zip(lines, WRONG[text], strict=True):
        assert told in line and "lr.yaml: " in line


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(ValueError, match=r"none\.yaml: cannot be read"):
        read_sweep(tmp_path / "none.yaml")
