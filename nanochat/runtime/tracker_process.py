"""The other end of trackers.py: `python -m nanochat.runtime.tracker_process` follows one
metrics.jsonl and copies its rows to one tracker, until its standard input ends.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Protocol

from nanochat.runtime.files import atomic_write
from nanochat.runtime.trackers import IDENTITY, TrackedRun, sync_hint, warn

LOOK_S = 0.5  # how often the log is looked at
REFUSED = 20  # rows that a tracker may fail on before it is given up
CONNECT_S = 15.0  # for a W&B server to answer; after that the run is kept on this disk
# Names of the log -> what W&B runs of this pipeline have always called them.
WANDB_NAMES = {"train_loss": "loss", "tokens_per_s": "tok/sec"}


class Backend(Protocol):
    """What rows are copied to."""

    def log(self, step: int, values: dict[str, Any]) -> None: ...
    def close(self) -> None: ...


class WandbBackend:
    """One W&B run, online, or on this disk where the server does not answer or refuses the key."""

    def __init__(self, tracked: TrackedRun) -> None:
        # Its reports about itself wait for its server, also at the end of an offline run.
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        import wandb

        self.wandb = wandb
        folder = Path(tracked.path).parent
        wanted = os.environ.get("WANDB_MODE", "").strip().lower() or None
        try:
            self.run = self._start(tracked, wanted)
        except Exception as error:
            if wanted == "offline":
                raise
            begin_again_offline(tracked, short(error))
        self._note(folder, tracked)
        if not self.run.offline:
            print(f"W&B: {self.run.url}", file=sys.stderr, flush=True)
        elif tracked.refused:
            told = f"W&B cannot be used online ({tracked.refused})"
            warn(f"{told}; this run is kept on disk{sync_hint(folder)}")
        else:
            print(f"W&B: offline{sync_hint(folder)}", file=sys.stderr, flush=True)

    def _start(self, tracked: TrackedRun, mode: Any) -> Any:
        settings = self.wandb.Settings(
            init_timeout=CONNECT_S,
            login_timeout=CONNECT_S,
            x_graphql_timeout_seconds=CONNECT_S,
            x_stats_pid=tracked.pid,  # the training's, for memory and processor
            console="off",
            silent=True,
        )
        return self.wandb.init(
            project=os.environ.get("WANDB_PROJECT", "").strip() or "nanochat",
            name=tracked.name,
            group=tracked.group,
            job_type=tracked.stage or None,
            id=tracked.identity,
            resume="allow",
            config=tracked.config,
            mode=mode,
            settings=settings,
        )

    def _note(self, folder: Path, tracked: TrackedRun) -> None:
        """Where W&B keeps this run, for who has to send it by hand."""
        told = {"id": tracked.identity, "directory": str(Path(self.run.dir).parent)}
        with suppress(OSError):
            atomic_write(folder / IDENTITY, json.dumps(told) + "\n")

    def log(self, step: int, values: dict[str, Any]) -> None:
        named = {WANDB_NAMES.get(name, name): self._value(v) for name, v in values.items()}
        self.run.log(named, step=step)

    def _value(self, value: Any) -> Any:
        """A list of records, such as samples, as a table."""
        if not is_table(value):
            return value
        names = list(value[0])
        return self.wandb.Table(
            columns=names, data=[[row.get(name) for name in names] for row in value]
        )

    def close(self) -> None:
        self.run.finish()


def begin_again_offline(tracked: TrackedRun, refused: str) -> None:
    """Become the same process anew, without what the attempt to be online has left running."""
    told = json.dumps(asdict(replace(tracked, refused=refused)))
    left = {name: value for name, value in os.environ.items() if name != "WANDB_SERVICE"}
    words = [sys.executable, "-m", "nanochat.runtime.tracker_process", told]
    os.execve(sys.executable, words, {**left, "WANDB_MODE": "offline"})


class TensorBoardBackend:
    """An event file in the folder of the run. What a stopped part wrote after the step that is gone
    on from is purged.
    """

    def __init__(self, tracked: TrackedRun) -> None:
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        self.writer = EventFileWriter(str(Path(tracked.path).parent / "tensorboard"))
        if tracked.step:
            started = SessionLog(status=SessionLog.START)
            event = Event(wall_time=time.time(), step=tracked.step + 1, session_log=started)
            self.writer.add_event(event)

    def log(self, step: int, values: dict[str, Any]) -> None:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary

        found = []
        for name, value in values.items():
            if isinstance(value, (int, float)):  # also yes and no
                found.append(Summary.Value(tag=name, simple_value=float(value)))
            elif is_table(value):
                found.append(_text(name, value))
        if found:
            event = Event(wall_time=time.time(), step=step, summary=Summary(value=found))
            self.writer.add_event(event)
            self.writer.flush()

    def close(self) -> None:
        self.writer.close()


def _text(name: str, rows: list[dict[str, Any]]) -> Any:
    """Records as a Markdown table in TensorBoard's text view."""
    from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
    from tensorboard.compat.proto.tensor_pb2 import TensorProto
    from tensorboard.compat.proto.types_pb2 import DT_STRING

    def line(cells: Sequence[object]) -> str:
        plain = [str(cell).replace("|", "\\|").replace("\n", " ") for cell in cells]
        return "| " + " | ".join(plain) + " |"

    names = list(rows[0])
    cells = [[row.get(key) for key in names] for row in rows]
    text = "\n".join([line(names), line(["---"] * len(names)), *map(line, cells)])
    metadata = SummaryMetadata(plugin_data=SummaryMetadata.PluginData(plugin_name="text"))
    tensor = TensorProto(dtype=DT_STRING, string_val=[text.encode("utf-8", "replace")])
    return Summary.Value(tag=name, metadata=metadata, tensor=tensor)


def is_table(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(row, dict) for row in value)


def follow(path: Path, offset: int) -> Iterator[dict[str, Any]]:
    """Rows of a log from a place on, as they are written, until standard input has ended."""
    rest = b""
    with open(path, "rb") as file:
        file.seek(offset)
        ended = threading.Event()
        threading.Thread(target=wait_for_end, args=(ended,), daemon=True).start()
        last = False
        while True:
            block = file.read()
            *lines, rest = (rest + block).split(b"\n")
            for line in lines:
                with suppress(ValueError):  # torn by a kill
                    row = json.loads(line)
                    if isinstance(row, dict) and "step" in row:
                        yield row
            if last and not block:
                return
            last = ended.wait(LOOK_S)


def wait_for_end(ended: threading.Event) -> None:
    sys.stdin.read()
    ended.set()


def copy(tracked: TrackedRun) -> None:
    """All of one log into its tracker."""
    backend: Backend
    backend = WandbBackend(tracked) if tracked.kind == "wandb" else TensorBoardBackend(tracked)
    refused = 0
    for row in follow(Path(tracked.path), tracked.offset):
        values = {name: v for name, v in row.items() if name not in ("step", "time")}
        try:
            backend.log(row["step"], {name: v for name, v in values.items() if v is not None})
        except Exception as error:  # of one row, such as a table that cannot be sent
            refused += 1
            if refused == 1:
                told = "a row" if len(values) > 1 else next(iter(values), "a row")
                warn(f"{tracked.kind} did not take {told} ({short(error)}); going on")
            elif refused >= REFUSED:
                raise
    backend.close()


def short(error: Exception) -> str:
    """The line of an error that says most, the last one."""
    rows = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (rows or [type(error).__name__])[-1][:200]


def main() -> None:
    """Read what to follow, from the one argument or else standard input, and follow it. Signals
    are for the training.
    """
    for name in ("SIGINT", "SIGTERM", "SIGUSR1"):
        signal.signal(getattr(signal, name), signal.SIG_IGN)
    told = sys.argv[1] if len(sys.argv) > 1 else sys.stdin.readline()
    tracked = TrackedRun(**json.loads(told))
    try:
        copy(tracked)
    except Exception as error:  # whatever a tracker does, a run must not end by it
        warn(f"{tracked.kind} stopped ({short(error)}); {tracked.path} has everything")
    os._exit(0)  # all is written; what a library does at exit may wait for its server


if __name__ == "__main__":
    main()
