"""torchrun asked to stop: it hands the signal on, the run saves, and its exit code shows that it is
not finished.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tiny_runs import make_base

from nanochat.checkpoint_manager import complete_steps, read_meta

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals")
ROOT = Path(__file__).resolve().parents[2]
FLAGS = (
    "--depth=1 --aspect-ratio=32 --head-dim=16 --max-seq-len=32 --device-batch-size=2 "
    "--total-batch-size=128 "
    "--num-iterations=100000 --eval-every=0 --sample-every=0 --core-metric-every=-1 "
    "--device-type=cpu --model-tag=t "
    "--window-pattern=L --compile=False"
)


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_a_signal_to_torchrun_saves_and_is_no_success(base_dir, tmp_path, name):
    make_base(base_dir)
    directory, said = base_dir / "base_checkpoints" / "t", tmp_path / "said"
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc_per_node=2",
        "-m",
        "nanochat",
    ]
    env = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "NANOCHAT_BASE_DIR": str(base_dir),
        "NANOCHAT_DTYPE": "float32",
        "OMP_NUM_THREADS": "1",
    }
    with said.open("w") as out:
        process = subprocess.Popen(
            [*command, "base-train", *FLAGS.split()], env=env, cwd=tmp_path, stdout=out, stderr=out
        )
        try:
            rows, deadline = directory / "metrics.jsonl", time.monotonic() + 60
            while not (rows.exists() and rows.stat().st_size) and time.monotonic() < deadline:
                time.sleep(0.05)
            process.send_signal(getattr(signal, name))
            code = process.wait(45)
        finally:
            process.kill()
    text = said.read_text()
    assert code != 0, text
    assert (
        f"{name}: saving and stopping" in text and f"{name}: saved and stopped after step" in text
    ), text
    (step,) = complete_steps(directory)
    assert read_meta(directory, step)["trainer"]["step"] == step and f"after step {step};" in text
