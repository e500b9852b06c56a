"""A training stage whose machine may vanish: its newest checkpoint is carried to a safe place while
it runs, and brought back where it starts again. For workflow engines.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nanochat.checkpoint_manager import FOLDERS, complete_steps, step_files
from nanochat.launch.local import gpu_count, launcher

IDENTITY = "identity"
LOOK_S = 1.0  # how often the folder of the run is looked at


@dataclass(frozen=True)
class CarriedStage:
    """A stage (base | mid | sft | rl) and tag under a base directory. `identity`: of what is
    trained, on what; a checkpoint of anything else is not brought back.
    """

    base: Path
    stage: str
    tag: str
    identity: str = ""

    @property
    def folder(self) -> Path:
        return self.base / FOLDERS[self.stage] / self.tag

    def restore(self, carried: Path | None) -> int | None:
        """Bring back what an earlier attempt carried away -> its step, None where that was not this
        training.
        """
        kept = None if carried is None else carried / FOLDERS[self.stage] / self.tag
        if carried is None or kept is None or not kept.is_dir():
            return None
        mark = carried / IDENTITY
        if not mark.exists() or mark.read_text(encoding="utf-8") != self.identity:
            return None
        shutil.copytree(kept, self.folder, dirs_exist_ok=True)
        return complete_steps(self.folder)[-1]

    def run(
        self,
        words: Sequence[str],
        carry: Callable[[Path, int], None],
        env: Mapping[str, str] | None = None,
    ) -> int:
        """Run `nanochat WORDS` to its end, on every GPU -> its exit code.

        carry: is given a folder, to be copied before it returns, and the step whose checkpoint it
        holds, each time that there is a newer one. SIGTERM to this process reaches the training,
        which saves; what it saved is carried too.
        """
        environment = {**os.environ, **(env or {}), "NANOCHAT_BASE_DIR": str(self.base)}
        carried = newest(self.folder)
        told = self.n_rows()
        with subprocess.Popen([*launcher(gpu_count()), *words], env=environment) as child:
            old = _pass_on(signal.SIGTERM, child)
            try:
                code = None
                while code is None:
                    with suppress(subprocess.TimeoutExpired):
                        code = child.wait(LOOK_S)
                    told = self.tell(told)
                    if newest(self.folder) not in (None, carried):
                        carried = self.carry_newest(carry)
            finally:
                if old is not None:
                    signal.signal(signal.SIGTERM, old)
        return code

    def carry_newest(self, carry: Callable[[Path, int], None]) -> int | None:
        """Give the newest checkpoint, with the log up to it, to `carry`."""
        step = newest(self.folder)
        if step is None:
            return None
        with tempfile.TemporaryDirectory(dir=self.base) as place:
            target = Path(place) / FOLDERS[self.stage] / self.tag
            target.mkdir(parents=True)
            for path in step_files(self.folder, step):
                try:
                    os.link(path, target / path.name)  # no copy, and safe from --keep
                except FileNotFoundError:  # a newer one has taken its place just now
                    return None
            for name in ("metrics.jsonl", "config.yaml", "wandb.json"):
                if (self.folder / name).exists():
                    shutil.copy2(self.folder / name, target)
            (Path(place) / IDENTITY).write_text(self.identity, encoding="utf-8")
            carry(Path(place), step)
        return step

    def rows(self) -> list[dict[str, Any]]:
        """The log of the run."""
        path = self.folder / "metrics.jsonl"
        if not path.exists():
            return []
        found = []
        for line in path.read_text(encoding="utf-8", errors="replace").split("\n"):
            try:
                found.append(json.loads(line))
            except ValueError:  # half a line
                continue
        return found

    def n_rows(self) -> int:
        return len(self.rows())

    def tell(self, told: int) -> int:
        """Print a line for each validation among the rows from number `told` on -> rows there
        are.
        """
        rows = self.rows()
        for number in range(min(told, len(rows)), len(rows)):
            if rows[number].get("val_bpb") is not None:
                print(step_line(rows[: number + 1]), flush=True)
        return len(rows)


def step_line(rows: Sequence[Mapping[str, Any]]) -> str:
    """`Step 100: loss=5.234, val_bpb=2.145, lr=0.02, tok/sec=1024`, from rows that end with a
    validation.
    """
    step, bpb = rows[-1]["step"], rows[-1]["val_bpb"]
    steps = [row for row in rows if row.get("train_loss") is not None]
    trained = steps[-1] if steps else {}
    parts = [f"loss={trained['train_loss']:.3f}"] if trained else []
    parts.append(f"val_bpb={bpb:.3f}")
    if trained:
        parts += [f"lr={trained.get('lr', 0):.4g}", f"tok/sec={trained.get('tokens_per_s', 0):.0f}"]
    return f"Step {step}: {', '.join(parts)}"


def newest(folder: Path) -> int | None:
    """The newest complete step in a folder that may not be there yet."""
    return max(complete_steps(folder), default=None)


def _pass_on(number: int, child: subprocess.Popen[bytes]) -> Any:
    """Let a signal to this process reach the child -> the handler there was."""
    if threading.current_thread() is not threading.main_thread():
        return None  # only the main thread may have handlers
    return signal.signal(number, lambda *_: child.send_signal(number))
