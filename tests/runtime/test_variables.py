"""Environment variables: a bad value is one line that names variable, value and fix."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from nanochat.runtime import variables
from nanochat.runtime.world import read_launch

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    "name, value, fix",
    [
        ("NANOCHAT_HEARTBEAT_S", "abc", "number of seconds above 0"),
        ("NANOCHAT_HEARTBEAT_S", "0", "number of seconds above 0"),
        ("NANOCHAT_HEARTBEAT_S", "-1", "number of seconds above 0"),
        ("NANOCHAT_DIST_TIMEOUT_S", "nan", "number of seconds above 0"),
        ("NANOCHAT_DIST_TIMEOUT_S", "inf", "number of seconds above 0"),
        ("NANOCHAT_DIST_TIMEOUT_S", "10m", "number of seconds above 0"),
        ("NANOCHAT_DTYPE", "bf16", "use one of float32, bfloat16, float16"),
        ("NANOCHAT_DEBUG", "yes", "use 1 for on"),
        ("NANOCHAT_NATIVE", "off", "use 0 for off"),
        ("NANOCHAT_DATA_DIR", "/no/such/folder", "no such folder"),
        ("NANOCHAT_DATA_DIR", "~nobody-of-this-name", "no home directory"),
        ("NANOCHAT_BASE_DIR", "~nobody-of-this-name/x", "no home directory"),
    ],
)
def test_a_bad_value_is_told_before_anything_begins(monkeypatch, name, value, fix):
    monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=f"^{re.escape(f'{name}={value}: ')}.*{fix}") as told:
        variables.check_variables()
    assert len(str(told.value).split("\n")) == 1
    monkeypatch.setenv(name, "")  # as good as unset
    variables.check_variables()


def test_all_bad_values_at_once_from_the_command_line(tmp_path):
    env = {**os.environ, "PYTHONPATH": str(ROOT), "NANOCHAT_HEARTBEAT_S": "abc"}
    env |= {"NANOCHAT_DTYPE": "half", "NANOCHAT_BASEDIR": "/x"}
    command = [sys.executable, "-m", "nanochat", "recipe", "list"]
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    assert done.returncode == 2 and done.stdout == ""
    assert [line.split(":")[:2] for line in done.stderr.splitlines()] == [
        ["warning", " NANOCHAT_BASEDIR"],
        ["error", " NANOCHAT_DTYPE=half"],
        ["error", " NANOCHAT_HEARTBEAT_S=abc"],
    ]
    assert "did you mean NANOCHAT_BASE_DIR?" in done.stderr


def test_good_values_are_read(monkeypatch):
    monkeypatch.setenv("NANOCHAT_HEARTBEAT_S", "2.5")
    assert variables.read_variable("NANOCHAT_HEARTBEAT_S", 60.0) == 2.5
    assert variables.read_variable("NANOCHAT_DIST_TIMEOUT_S", 600.0) == 600.0


def test_every_variable_of_the_code_has_a_reader():
    files = [
        *(ROOT / "nanochat").rglob("*.py"),
        *(ROOT / "scripts").iterdir(),
        *ROOT.glob("*.sh"),
    ]
    used = {
        name
        for file in files
        if file.is_file()
        for name in re.findall(r"NANOCHAT_[A-Z_]+[A-Z]", file.read_text(encoding="utf-8"))
    }
    assert used == set(variables.READERS)


@pytest.mark.parametrize(
    "env, said",
    [
        ({"RANK": "a", "WORLD_SIZE": "2"}, "RANK=a: must be a whole number"),
        ({"RANK": "0", "WORLD_SIZE": ""}, "WORLD_SIZE=: must be a whole number"),
        ({"RANK": "2", "WORLD_SIZE": "2"}, "RANK=2: must be below WORLD_SIZE=2"),
        ({"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "-1"}, "LOCAL_RANK=-1"),
        ({"SLURM_NTASKS": "x", "SLURM_PROCID": "0"}, "SLURM_NTASKS=x"),
    ],
)
def test_a_launchers_variable_that_is_no_number_is_named(env, said):
    with pytest.raises(ValueError, match="^" + re.escape(said)):
        read_launch(env)
