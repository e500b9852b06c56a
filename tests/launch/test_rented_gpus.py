"""What is sent to rented machines: SkyPilot's own parser takes it, its commands parse, and
checkpoints travel.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml

from nanochat.config import collect
from nanochat.launch import commands

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted((ROOT / "deploy").glob("sky*.yaml"), key=lambda path: path.stem)
PARSE = "import sys, sky\nfor path in sys.argv[1:]:\n    print(sky.Task.from_yaml(path).name)\n"


def test_the_three_are_there():
    assert [path.stem for path in FILES] == ["sky", "sky-serve", "sky-sql"]


def test_skypilot_takes_them(tmp_path):
    """SkyPilot wants an environment of its own; $SKYPILOT_PYTHON names its Python."""
    python = os.environ.get("SKYPILOT_PYTHON")
    if not python and find_spec("sky") is None:
        pytest.skip("SkyPilot is not installed here, and SKYPILOT_PYTHON names no other Python")
    env = {**os.environ, "HOME": str(tmp_path), "SKYPILOT_DISABLE_USAGE_COLLECTION": "1"}
    env.pop("PYTHONPATH", None)
    done = subprocess.run(
        [python or sys.executable, "-c", PARSE, *map(str, FILES)],
        env=env,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["nanochat-speedrun", "nanochat-serve", "nanochat-sql"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_their_commands_are_ours(path):
    task = yaml.safe_load(path.read_text())
    assert (
        task["resources"]["autostop"]["down"] is True and len(task["resources"]["accelerators"]) > 2
    )
    checked = 0
    for line in (task["setup"] + task["run"]).replace("\\\n", " ").splitlines():
        line = line.removeprefix("exec ")
        for name, value in task["envs"].items():
            line = line.replace(f'"${name}', f'"{value}').replace(f"${name}", str(value))
        words = shlex.split(line)
        if words[:1] in (["source"], ["bash"]) and "/" in words[1] and "venv" not in words[1]:
            assert (ROOT / words[1]).is_file()
        if words[:1] == ["python"]:
            words = ["nanochat", words[2].removeprefix("scripts."), *words[3:]]
        if words[:1] == ["nanochat"]:
            _, command, rest = commands.find(words[1:])
            assert collect(commands.load(command.config), rest)[1] == [], line
            checked += 1
    assert checked == 1
    done = subprocess.run(["bash", "-n"], input=task["run"], text=True, capture_output=True)
    assert done.returncode == 0, done.stderr


@pytest.fixture
def job(tmp_path):
    """Runs a job's shell with a stand-in for the hub's client -> (exit code, its calls, output)."""
    bin_dir, base = tmp_path / "bin", tmp_path / "base"
    bin_dir.mkdir()
    (bin_dir / "hf").write_text('#!/bin/sh\necho "$@" >> "$CALLS"\nexit "${HF_CODE:-0}"\n')
    (bin_dir / "hf").chmod(0o755)
    calls = tmp_path / "calls"

    def run(script, **env):
        calls.write_text("")
        settings = {
            "PATH": f"{bin_dir}:{os.environ['PATH']}",
            "NANOCHAT_BASE_DIR": str(base),
            "CALLS": str(calls),
            **env,
        }
        text = f"set -e\nsource {ROOT}/deploy/carry_checkpoints.sh\n{script}"
        done = subprocess.run(
            ["bash", "-c", text], env=settings, capture_output=True, text=True, timeout=60
        )
        return done.returncode, calls.read_text().splitlines(), done.stdout + done.stderr

    return run


def test_checkpoints_come_and_go(job):
    code, calls, _ = job("sleep 2.5", HF_REPO="me/x", HF_TOKEN="t", PUSH_EVERY_S="1")
    assert code == 0 and calls[0].startswith("download me/x --local-dir ")
    sent = [call for call in calls if call.startswith("upload --private me/x ")]
    assert len(sent) >= 3, "while it runs, and at the end"
    for pattern in ("*_checkpoints/*", "tokenizer/*", "report/*", "recipes.json"):
        assert f"--include {pattern}" in sent[0]


def test_a_failed_job_sends_what_it_has(job):
    code, calls, _ = job("exit 75", HF_REPO="me/x", HF_TOKEN="t")
    assert code == 75 and calls[-1].startswith("upload ")


def test_a_hub_that_fails_ends_no_job(job):
    code, _, said = job("true", HF_REPO="me/x", HF_TOKEN="t", HF_CODE="1")
    assert code == 0 and "nothing to bring from me/x yet" in said and "were not sent" in said


def test_without_a_repository_nothing_travels(job):
    assert job("true")[:2] == (0, [])
    assert job("true", HF_REPO="me/x", HF_TOKEN="t", PUSH_EVERY_S="0")[1][1:] == []
    code, _, said = job("true", HF_REPO="me/x")
    assert code != 0 and "HF_TOKEN is not" in said
