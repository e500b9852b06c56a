"""Small training runs in forked processes, any number of ranks, for the tests of faults and of
models in pieces.
"""

from __future__ import annotations

import json
import multiprocessing
import multiprocessing.forkserver
import os
import socket
import time
from pathlib import Path

import pytest

from nanochat.checkpoint_manager import complete_steps, load_checkpoint


def fork_server():
    """Processes forked from a server that has torch loaded: a rank starts in a tenth of a
    second."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["fault_child", "torch.distributed.fsdp"])
    with pytest.MonkeyPatch.context() as patch:  # older Pythons do not hand sys.path to the server
        patch.setenv(
            "PYTHONPATH",
            os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parents[2])]),
        )
        patch.setenv("OMP_NUM_THREADS", "1")
        multiprocessing.forkserver.ensure_running()
    return context


class Result:
    def __init__(self, base: Path, codes: list[int], said: list[str], took_s: float) -> None:
        self.directory = base / "base_checkpoints" / "t"
        self.codes, self.said, self.took_s = codes, said, took_s

    @property
    def steps(self) -> list[int]:
        return complete_steps(self.directory)

    def rows(self) -> list[dict]:
        rows = [
            json.loads(line) for line in (self.directory / "metrics.jsonl").read_text().splitlines()
        ]
        return [row for row in rows if "train_loss" in row]

    def weights(self, step: int = 6) -> dict:
        state, optimizer, _ = load_checkpoint(self.directory, step, "cpu", load_optimizer=True)
        return {
            **state,
            **{
                f"{n}{i}{k}": t
                for n, s in optimizer["state"].items()
                for i, g in enumerate(s)
                for k, t in g.items()
            },
        }


def starter(forks, base_dir: Path, tmp_path: Path):
    """train(ranks, fault, **config changes) -> Result; several calls share the base directory, the
    next one setting aside what the last one made.
    """
    numbers = iter(range(99))

    def start(
        ranks: int, fault: str = "none", dtype: str = "float32", limit_s: float = 30.0, **changes
    ) -> Result:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        env = {
            "NANOCHAT_BASE_DIR": str(base_dir),
            "NANOCHAT_DTYPE": dtype,
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
            "NANOCHAT_HEARTBEAT_S": "2",
            "OMP_NUM_THREADS": "1",
        }
        import fault_child

        changes = {"replace": True, **changes}
        out, began = str(tmp_path / f"out{next(numbers)}"), time.monotonic()
        processes = [
            forks.Process(target=fault_child.run, args=(rank, ranks, env, out, fault, changes))
            for rank in range(ranks)
        ]
        for process in processes:
            process.start()
        for process in processes[: 1 if fault == "stopped" else ranks]:
            process.join(max(0.1, began + limit_s - time.monotonic()))
        took = time.monotonic() - began
        codes = [
            process.exitcode if process.exitcode is not None else -1000 for process in processes
        ]
        for process in processes:
            process.kill()
            process.join()
        return Result(
            base_dir, codes, [Path(f"{out}.{rank}").read_text() for rank in range(ranks)], took
        )

    return start
