"""A cluster whose nodes have no internet: the login node's scripts fetch everything from a local
hub, then the whole pipeline runs where there is no network at all (`unshare -n`).
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import textwrap
import zipfile
from pathlib import Path

import pytest

from nanochat.dataset.embedded_world.tables import read_words
from tests.launch.local_hub import LocalHub

ROOT = Path(__file__).resolve().parents[2]
SMALL = "--max-seq-len=128 --total-batch-size=256 --device-batch-size=2 --eval-tokens=256"
TRAIN = f"{SMALL} --num-iterations=2 --eval-every=-1 --sample-every=-1"
COMMANDS = f"""
tok-train --vocab-size=512 --max-chars=200000
doctor --offline --recipe=node8 --override=base.depth=2 --override=base.device_type=cpu
base-train --depth=2 --core-metric-every=-1 {TRAIN}
base-loss --split-tokens=512
base-eval --max-per-task=2
mid-train --mixture=standard {TRAIN}
chat-sft --mixture=standard {TRAIN}
chat-rl --task=GSM8K --examples-per-step=4 --num-samples=2 --max-new-tokens=4 --eval-every=-1
chat-eval -i rl --max-problems=1 --max-new-tokens=4
report generate
chat-cli -i rl -p Hello -m 8
"""
# The commands one after another in one process, so that torch is loaded once. In a network of its
# own even the loopback is down at first.
DRIVER = """
import fcntl, shlex, socket, struct, sys
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
    request = bytearray(struct.pack("16sH14s", b"lo", 0x1 | 0x40, b""))  # IFF_UP, IFF_RUNNING
    fcntl.ioctl(control, 0x8914, request)  # SIOCSIFFLAGS
try:
    socket.create_connection(("1.1.1.1", 443), timeout=1)
    sys.exit("there is a network here")
except OSError:
    pass
from nanochat.launch.local import in_process
for line in sys.stdin.read().split("\\n"):
    if line and (code := in_process(shlex.split(line))):
        sys.exit(f"{line}: exit code {code}")
"""


def without_network() -> list[str]:
    """The words that start a command without a network. Skips where that cannot be had."""
    for words in (["unshare", "-n"], ["unshare", "-rn"]):
        if shutil.which("unshare") and not subprocess.run([*words, "true"]).returncode:
            return words
    pytest.skip("no network namespaces here (unshare -n)")


@pytest.fixture
def login_node(tmp_path):
    """The environment of a cluster whose login node reaches a hub and a mirror."""
    words = read_words("words.txt", "spelling")
    text = [" ".join(words[i : i + 60]) for i in range(0, len(words) - 60, 7)] * 4
    hub = LocalHub(n_rows=8, text=text)
    mirror = tmp_path / "mirror"
    mirror.mkdir()
    told = [{"role": "user", "content": "Who are you?"}, {"role": "assistant", "content": "Ann."}]
    rows = [json.dumps(told), json.dumps([told[0] | {"content": "Your name?"}, told[1]])]
    (mirror / "identity_conversations.jsonl").write_text("\n".join(rows) + "\n")
    (mirror / "words_alpha.txt").write_text("\n".join([*words, *(f"{w}s" for w in words)]))
    with zipfile.ZipFile(mirror / "eval_bundle.zip", "w") as bundle:
        task = "-\n  label: sky\n  dataset_uri: sky.jsonl\n  num_fewshot: [1]\n"
        task += "  icl_task_type: language_modeling\n"
        bundle.writestr("eval_bundle/core.yaml", f"icl_tasks:\n{task}")
        bundle.writestr("eval_bundle/eval_meta_data.csv", "Eval Task,Random baseline\nsky,0\n")
        row = json.dumps({"context": "The sky is", "continuation": " blue"})
        bundle.writestr("eval_bundle/eval_data/sky.jsonl", f"{row}\n" * 4)
    names = [name for name in os.environ if not name.startswith(("HF_", "SLURM_", "NANOCHAT_"))]
    env = {name: os.environ[name] for name in names} | {
        "NANOCHAT_BASE_DIR": str(tmp_path / "scratch"),
        "HF_HOME": str(tmp_path / "hf"),
        "HF_ENDPOINT": hub.url,
        "NANOCHAT_SKIP_SETUP": "1",
        "NANOCHAT_PYTHON": sys.executable,
        "PYTHONPATH": str(ROOT),
        "MIRROR": str(mirror),
        "OMP_NUM_THREADS": "1",
    }
    yield env
    hub.server.shutdown()


def run(words: list[str], env: dict[str, str], text: str | None = None) -> str:
    done = subprocess.run(
        words, env=env, input=text, capture_output=True, text=True, timeout=600, cwd=env["HERE"]
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout + done.stderr


def test_the_whole_pipeline_without_a_network(login_node, tmp_path):
    env = {**login_node, "HERE": str(tmp_path)}
    alone = without_network()
    command = [sys.executable, "-m", "nanochat"]
    run(["bash", str(ROOT / "scripts" / "download_after_basetraining.sh")], env)
    run([*command, "dataset", "-n", "1"], env)
    run([*command, "data", "fetch", "extras", "--mirror", env["MIRROR"]], env)
    node = {**env, "HF_HUB_OFFLINE": "1", "WANDB_MODE": "offline"}
    node.pop("HF_ENDPOINT")
    said = run([*alone, sys.executable, "-c", textwrap.dedent(DRIVER)], node, COMMANDS)
    assert "doctor: 0 error(s)" in said
    assert "HumanEval test" in said and "MMLU auxiliary_train" in said
    report = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert "| RL |" in report and "GSM8K" in report
    for stage in ("base", "mid", "chatsft", "chatrl"):
        assert list((tmp_path / "scratch" / f"{stage}_checkpoints" / "d2").glob("model_*.pt"))


def test_what_was_forgotten_is_told_before_hours_of_work(login_node, tmp_path):
    """Nothing but the tasks was fetched: the doctor names the rest, and no stage waits for a
    network.
    """
    env = {**login_node, "HERE": str(tmp_path)}
    alone = without_network()
    run(["bash", str(ROOT / "scripts" / "download_after_basetraining.sh")], env)
    words = [*alone, sys.executable, "-m", "nanochat", "doctor", "--offline", "--recipe=node8"]
    done = subprocess.run(words, env=env, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    told = [row for row in done.stdout.splitlines() if row.startswith("error")]
    assert done.returncode == 2
    for name in ("text shards", "tokenizer", "eval bundle"):
        assert any(f" {name} " in row and "scripts/download_data.sh" in row for row in told), told
    assert not any("HumanEval" in row for row in told)
