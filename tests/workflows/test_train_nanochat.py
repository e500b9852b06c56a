"""The Flyte workflow, where Flyte is installed: what it asks for, its result, its cache. Killing
and resuming: tests/launch/test_carried_stage.py.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FILE = ROOT / "workflows" / "train_nanochat.py"
SHORT = (
    "--depth=1 --source=embedded --characters=200000 --vocab_size=512 --max_seq_len=64 "
    "--num_iterations=4 --device_batch_size=4 --total_batch_size=256 --eval_every=2 "
    "--eval_tokens=256 --sample_every=4 --generation=modern --run_name=short"
)


@pytest.fixture
def workflow():
    pytest.importorskip("flyte", reason="the extra flyte is not installed")
    spec = importlib.util.spec_from_file_location("train_nanochat", FILE)
    module = importlib.util.module_from_spec(spec)
    sys.modules["train_nanochat"] = module
    spec.loader.exec_module(module)
    return module


def test_what_the_tasks_ask_for(workflow):
    tasks = workflow.gpu_env.tasks
    assert {name.split(".")[1] for name in tasks} == {
        "setup_environment",
        "train_base_model",
        "midtrain",
        "finetune",
        "reinforce",
        "evaluate",
    }
    resources = workflow.gpu_env.resources
    assert (resources.gpu, resources.cpu, resources.memory) == ("T4:1", 8, "32Gi")
    train = tasks["nanochat-train.train_base_model"]
    assert train.retries.count == workflow.ATTEMPTS and train.report
    defaults = {name: value[1] for name, value in train.native_interface.inputs.items()}
    told = ("depth", "max_seq_len", "num_iterations", "device_batch_size", "total_batch_size")
    assert [defaults[name] for name in told] == [8, 512, 1000, 16, 65_536]
    assert (defaults["eval_every"], defaults["sample_every"]) == (100, 500)
    packages = [layer.packages for layer in workflow.image._layers if hasattr(layer, "packages")]
    assert any("git" in names for names in packages)


def test_changed_code_is_another_version(workflow, tmp_path, monkeypatch):
    import nanochat

    class Params:
        func = staticmethod(test_what_the_tasks_ask_for)

    (tmp_path / "a").mkdir()
    (tmp_path / "__init__.py").write_text("")
    (tmp_path / "a" / "b.py").write_text("x = 1\n")
    monkeypatch.setattr(nanochat, "__file__", str(tmp_path / "__init__.py"))
    versions = [workflow.ProjectCode().get_version("", Params)]
    (tmp_path / "a" / "b.py").write_text("x = 2\n")
    versions.append(workflow.ProjectCode().get_version("", Params))
    versions.append(workflow.ProjectCode().get_version("salt", Params))
    assert len(set(versions)) == 3
    assert workflow.ProjectCode().get_version("salt", Params) == versions[2]


def test_the_key_is_optional_and_checked(workflow, monkeypatch):
    import flyte

    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.delenv("WANDB_SECRET", raising=False)
    assert workflow.wandb_mode("run") == "disabled" and workflow.wandb_secret() == []
    monkeypatch.setenv("WANDB_API_KEY", "0123456789" * 4)
    assert workflow.wandb_mode("run") == "online" and workflow.wandb_mode("") == "disabled"
    monkeypatch.setenv("WANDB_API_KEY", "my key")
    with pytest.raises(flyte.errors.NonRecoverableError, match="WANDB_API_KEY: is not a W&B key"):
        workflow.wandb_mode("run")
    monkeypatch.setenv("WANDB_SECRET", "wandb-api-key")
    (secret,) = workflow.wandb_secret()
    assert (secret.key, secret.as_env_var) == ("wandb-api-key", "WANDB_API_KEY")


def test_run_here_and_again_from_the_cache(workflow, tmp_path):
    env = {**os.environ, "PYTHONPATH": str(ROOT), "HOME": str(tmp_path), "WANDB_MODE": "disabled"}
    words = [sys.executable, "-c", "from flyte.cli.main import main; main()", "run", "--local"]
    words += ["--raw-data-path", str(tmp_path / "raw"), str(FILE), "main", *SHORT.split()]
    results = []
    for _ in range(2):
        done = subprocess.run(words, env=env, cwd=ROOT, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        text = done.stdout[done.stdout.index("\n{\n") :]
        results.append(json.JSONDecoder().raw_decode(text.strip())[0])
        trained = "base: from the beginning" in done.stdout
        assert trained == (len(results) == 1)
    assert results[0] == results[1]
    training = results[0]["training"]
    assert set(results[0]) == {"workflow", "run_name", "training"}
    assert (training["status"], training["depth"], training["num_iterations"]) == (
        "completed",
        1,
        4,
    )
    assert 0 < training["min_validation_bpb"] <= training["final_validation_bpb"]
    assert (Path(training["checkpoint_dir"]) / "model_000004.pt").exists()
