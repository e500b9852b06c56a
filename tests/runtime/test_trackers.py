"""W&B and TensorBoard get every row, under one run for all its parts, and are never waited for."""

from __future__ import annotations

import json
import subprocess
import sys
import time

import pytest
from wandb_stub import silent_server, wandb_server

from nanochat.config import collect
from nanochat.launch.recipes import RecipeConfig
from nanochat.runtime import trackers
from nanochat.runtime.metric_log import MetricLog, track_scores
from nanochat.runtime.trackers import run_name, start_trackers
from nanochat.train.configs import BaseConfig, MidConfig, SFTConfig
from nanochat.train.rl_configs import RLConfig

SAMPLES = [{"prompt": "Hi", "completion": "Ho"}, {"prompt": "a|b", "completion": "c\nd"}]
# Stands in for the library: writes down what it was asked to do, or does what $FAILS says.
STAND_IN = """
import json, os, time

def note(**said):
    with open(os.environ["CALLS"], "a") as file:
        file.write(json.dumps(said, default=str) + "\\n")

class Table:
    def __init__(self, columns, data):
        if os.environ.get("FAILS") == "table":
            raise ValueError("no tables today")
        self.told = {"columns": columns, "data": data}
    def __str__(self):
        return json.dumps(self.told)

def Settings(**given):
    return given

class Run:
    url, dir = "http://w/run", "/tmp/w/files"
    offline = os.environ.get("WANDB_MODE") == "offline"
    def log(self, values, step):
        if os.environ.get("FAILS") == "log":
            raise OSError("no network")
        note(step=step, **values)
    def finish(self):
        note(finish=True)
        if os.environ.get("FAILS") == "finish":
            time.sleep(1000)

def init(**given):
    note(**given)
    if os.environ.get("FAILS") == "start":
        time.sleep(1000)
    if os.environ.get("FAILS") == "key" and given["mode"] != "offline":
        raise ValueError("API key is wrong")
    return Run()
"""


@pytest.fixture
def wandb(tmp_path, monkeypatch):
    """The stand-in, here and in the process that tracks -> what it was asked."""
    folder = tmp_path / "packages"
    folder.mkdir()
    (folder / "wandb.py").write_text(STAND_IN)
    calls = tmp_path / "calls"
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setenv("PYTHONPATH", str(folder))
    monkeypatch.setenv("CALLS", str(calls))
    for name in ("WANDB_MODE", "WANDB_PROJECT", "WANDB_RUN_GROUP", "FAILS"):
        monkeypatch.delenv(name, raising=False)

    def told():
        found = calls.read_text().splitlines() if calls.exists() else []
        calls.write_text("")
        return [json.loads(line) for line in found]

    return told


def track(folder, n_steps=2, step=0, run="mine", stage="base", **more):
    """A run of some steps that go on after `step` -> seconds until its last step, in all."""
    path = folder / "metrics.jsonl"
    started = time.monotonic()
    with MetricLog(path) as log:
        log.trackers = start_trackers(path, run=run, stage=stage, config={}, step=step, **more)
        for number in range(step + 1, step + n_steps + 1):
            log.log(number, train_loss=1 / number, tokens_per_s=10.0, lr=0.1, mfu=None)
        log.log(step + n_steps, val_bpb=0.5, samples=SAMPLES, nothing=float("nan"))
        stepped = time.monotonic() - started
    return stepped, time.monotonic() - started


def test_every_row_under_the_names_that_people_know(tmp_path, wandb, monkeypatch):
    track(tmp_path, stage="sft")
    start, *rows, last = wandb()
    assert (start["project"], start["name"], start["group"]) == ("nanochat", "mine-sft", "mine")
    assert start["job_type"] == "sft" and start["mode"] is None
    assert rows[0] == {"step": 1, "loss": 1.0, "tok/sec": 10.0, "lr": 0.1}
    assert rows[2]["step"] == 2 and rows[2]["val_bpb"] == 0.5 and "nothing" not in rows[2]
    table = json.loads(rows[2]["samples"])
    assert table == {"columns": ["prompt", "completion"], "data": [["Hi", "Ho"], ["a|b", "c\nd"]]}
    assert last == {"finish": True}
    monkeypatch.setenv("WANDB_RUN_GROUP", "study")
    monkeypatch.setenv("WANDB_PROJECT", "other")
    monkeypatch.setenv("WANDB_MODE", "offline")
    track(tmp_path)
    start = wandb()[0]
    told = (start["project"], start["name"], start["group"], start["mode"])
    assert told == ("other", "mine", "study", "offline")


def test_a_resumed_run_is_the_same_run(tmp_path, wandb):
    track(tmp_path)
    first = wandb()[0]
    track(tmp_path, step=2)
    second, *rows = wandb()
    assert second["id"] == first["id"] and second["resume"] == "allow"
    assert [row["step"] for row in rows[:-1]] == [3, 4, 4], "only the new rows"
    track(tmp_path)
    assert wandb()[0]["id"] != first["id"], "a fresh start is another run"
    (tmp_path / "wandb.json").write_text("{torn")
    track(tmp_path, step=2)
    assert wandb()[0]["id"]


@pytest.mark.parametrize("run, mode", [("dummy", ""), ("", ""), ("mine", "disabled")])
def test_only_where_it_is_wanted(tmp_path, wandb, monkeypatch, run, mode):
    monkeypatch.setenv("WANDB_MODE", mode)
    track(tmp_path, run=run)
    assert wandb() == []


@pytest.mark.parametrize("fails", ["start", "finish"])
def test_one_that_hangs_is_not_waited_for(tmp_path, wandb, monkeypatch, capsys, fails):
    monkeypatch.setenv("FAILS", fails)
    monkeypatch.setenv("NANOCHAT_TRACKER_WAIT_S", "4")
    stepped, together = track(tmp_path, n_steps=200)
    assert stepped < 2 and together < 10
    said = capsys.readouterr().err
    assert f"wandb did not finish within 4 s; {tmp_path}/metrics.jsonl has everything" in said
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 201


def test_a_stopped_run_waits_less(tmp_path, wandb, monkeypatch):
    """The scheduler that stopped it may not wait long."""
    monkeypatch.setenv("FAILS", "start")
    monkeypatch.setattr(trackers, "STOPPED_S", 0.5)
    started = time.monotonic()
    with pytest.raises(SystemExit), MetricLog(tmp_path / "metrics.jsonl") as log:
        log.trackers = start_trackers(log.path, run="mine", stage="rl", config={})
        raise SystemExit(75)
    assert time.monotonic() - started < 20 < trackers.FINISH_S


def test_a_wrong_key_is_one_line_and_the_run_is_kept(tmp_path, wandb, monkeypatch, capfd):
    monkeypatch.setenv("FAILS", "key")
    track(tmp_path)
    online, offline, *rows = wandb()
    assert online["mode"] is None and offline["mode"] == "offline"
    assert len(rows) == 4 and online["id"] == offline["id"]
    warned = [line for line in capfd.readouterr().err.splitlines() if "warning" in line]
    assert len(warned) == 1 and "API key is wrong" in warned[0]
    assert "`wandb sync /tmp/w` sends it later" in warned[0]


@pytest.mark.parametrize("fails, told", [("log", "no network"), ("table", "no tables today")])
def test_a_row_that_is_refused(tmp_path, wandb, monkeypatch, capfd, fails, told):
    monkeypatch.setenv("FAILS", fails)
    track(tmp_path, n_steps=30)
    said = capfd.readouterr().err
    assert f"wandb did not take a row ({told}); going on" in said
    assert ("wandb stopped" in said) == (fails == "log"), "after many of them it is given up"


def test_one_that_is_not_installed(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(trackers, "find_spec", lambda name: None)
    track(tmp_path, tensorboard=True)
    said = capsys.readouterr().err
    assert "wandb is not installed" in said and "tensorboard is not installed" in said
    assert "NANOCHAT_EXTRAS=wandb" in said and "--run=dummy silences this" in said
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 3


@pytest.mark.parametrize("value, name", [("mine", "mine"), (" ", "dummy"), ("", "dummy")])
def test_every_stage_takes_its_run_name_from_the_environment(monkeypatch, value, name):
    """As recipes and batch jobs do: WANDB_RUN=mine python -m scripts.base_train"""
    monkeypatch.setenv("WANDB_RUN", value)
    assert run_name() == name
    for cls in (BaseConfig, MidConfig, SFTConfig, RLConfig, RecipeConfig):
        assert collect(cls, [])[0].run == name
        assert collect(cls, ["--run=other"])[0].run == "other"


def test_an_evaluation_is_a_run_beside_the_stages(base_dir, wandb, monkeypatch):
    track_scores("chat_eval_sft", 700, {"GSM8K": 0.25, "ChatCORE": 0.1})
    assert wandb() == []
    monkeypatch.setenv("WANDB_RUN", "mine")
    track_scores("chat_eval_sft", 700, {"GSM8K": 0.25, "ChatCORE": 0.1})
    start, row, _ = wandb()
    assert (start["name"], start["group"]) == ("mine-chat_eval_sft", "mine")
    assert row == {"step": 700, "GSM8K": 0.25, "ChatCORE": 0.1}


def test_tensorboard(tmp_path):
    pytest.importorskip("tensorboard", reason="the extra tensorboard is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    track(tmp_path, n_steps=4, run="dummy", tensorboard=True)
    track(tmp_path, n_steps=2, step=2, run="dummy", tensorboard=True)
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    losses = events.Scalars("train_loss")
    assert [(each.step, round(each.value, 3)) for each in losses] == [
        (1, 1.0),
        (2, 0.5),
        (3, 0.333),
        (4, 0.25),
    ]
    (text,) = {each.tensor_proto.string_val[0] for each in events.Tensors("samples")}
    assert b"| a\\|b | c d |" in text


def real_wandb(monkeypatch, address, **more):
    pytest.importorskip("wandb", reason="the extra wandb is not installed")
    given = {"WANDB_BASE_URL": address, "WANDB_API_KEY": "0" * 40, **more}
    for name, value in given.items():
        monkeypatch.setenv(name, value)


def test_a_server_that_never_answers(tmp_path, monkeypatch, capfd):
    with silent_server() as address:
        real_wandb(monkeypatch, address, NANOCHAT_TRACKER_WAIT_S="3", WANDB_DIR=str(tmp_path))
        stepped, together = track(tmp_path, n_steps=500)
    assert stepped < 3 and together < 12
    assert "wandb did not finish within 3 s" in capfd.readouterr().err


def test_sync_after_an_offline_job(tmp_path, monkeypatch):
    """`wandb sync`, as the warning and the line at the start of the run say it."""
    with wandb_server() as (address, server):
        real_wandb(monkeypatch, address, WANDB_MODE="offline", WANDB_DIR=str(tmp_path))
        track(tmp_path, stage="sft")
        assert not server.received
        directory = json.loads((tmp_path / "wandb.json").read_text())["directory"]
        monkeypatch.delenv("WANDB_MODE")
        words = [sys.executable, "-m", "wandb", "sync", directory]
        done = subprocess.run(words, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        rows = server.received["wandb-history.jsonl"]
        assert [(row["_step"], row["loss"]) for row in rows] == [(1, 1.0), (2, 0.5)]
        assert rows[1]["val_bpb"] == 0.5 and rows[1]["samples"]["_type"] == "table-file"
        assert any(
            "system.proc.memory.rssMB" in row for row in server.received["wandb-events.jsonl"]
        )
        (made,) = [told for told in server.upserts if told.get("displayName")][:1]
        assert (made["displayName"], made["groupName"]) == ("mine-sft", "mine")
        assert (made["jobType"], made["project"]) == ("sft", "nanochat")
