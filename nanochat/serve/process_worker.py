"""A worker in a process of its own, one for each device. When it dies its requests end with an
error and it is started again; the others notice nothing. The two sides exchange JSON, so that
neither can run code in the other.
"""

from __future__ import annotations

import json
import logging
import multiprocessing
import threading
import time
from dataclasses import asdict
from multiprocessing.connection import Connection
from typing import Any

import torch

from nanochat.engine import EngineStats, Event, SamplingParams
from nanochat.serve.settings import ModelSpec
from nanochat.serve.worker import Deliver, ThreadWorker

log = logging.getLogger(__name__)
START_TIME_S = 600.0
RESTART_PAUSE_S = 1.0
STATS_EVERY_S = 0.5


def devices(device: torch.device, count: int) -> list[str]:
    """Where `count` workers go. ValueError when there are not as many GPUs."""
    if device.type != "cuda":
        return [str(device)] * count
    there = torch.cuda.device_count()
    if count > there:
        raise ValueError(f"--num-gpus={count}: this machine has {there}; use {there} or fewer")
    return [f"cuda:{index}" for index in range(count)]


class ProcessWorker:
    """The parent's side. The process is started at once; `wait` until its model is loaded before
    anything else.
    """

    def __init__(
        self,
        spec: ModelSpec,
        device: str,
        int8: bool,
        max_running: int,
        index: int,
        threads: int = 0,
    ) -> None:
        self.index, self._how = index, (spec, device, int8, max_running, index, threads)
        self._open: dict[int, set[int]] = {}  # key -> samples not finished
        self._lock = threading.Lock()
        self._stats: EngineStats | None = None
        self._stopping = False
        self._ready = False
        self._deliver: Deliver = _nowhere
        self._connection, self.process = self._launch()

    def wait(self) -> None:
        """Until the model is loaded. ValueError with the problem when it cannot be."""
        if problem := self._wait_until_loaded():
            raise ValueError(problem)

    def _launch(self) -> tuple[Connection, Any]:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(
            target=child, args=(theirs, *self._how), daemon=True, name=f"worker-{self.index}"
        )
        process.start()
        theirs.close()
        return ours, process

    def _wait_until_loaded(self) -> str:
        """Until the process can be used; why it cannot, if so."""
        problem = f"worker {self.index} on {self._how[1]} did not start"
        try:
            if self._connection.poll(START_TIME_S):
                problem = json.loads(self._connection.recv_bytes())["problem"]
        except (EOFError, OSError):
            pass
        self._ready = not problem
        return problem

    @property
    def alive(self) -> bool:
        return self._ready and not self._stopping

    def start(self, deliver: Deliver) -> None:
        self._deliver = deliver
        threading.Thread(target=self._listen, name=f"listen-{self.index}", daemon=True).start()

    def submit(self, key: int, prompt: list[int], params: SamplingParams, n: int) -> None:
        with self._lock:
            ready = self._ready
            if ready:
                self._open[key] = set(range(n))
        if not ready:  # it died in the moment it was chosen
            self._deliver(lost_updates({key: set(range(n))}))
        self._tell({"do": "submit", "key": key, "prompt": prompt, "params": asdict(params), "n": n})

    def cancel(self, key: int) -> None:
        self._tell({"do": "cancel", "key": key})

    def stats(self) -> EngineStats | None:
        """As the process last told, half a second ago at most while it works."""
        return self._stats

    def stop(self) -> None:
        self._stopping = True
        self._tell({"do": "stop"})
        self.process.join(timeout=5)
        if self.process.is_alive():
            self.process.kill()

    def _tell(self, message: dict[str, Any]) -> None:
        try:
            self._connection.send_bytes(json.dumps(message).encode())
        except (OSError, ValueError):
            pass  # it has died: the listener answers for it

    def _listen(self) -> None:
        while not self._stopping:
            try:
                message = json.loads(self._connection.recv_bytes())
            except (EOFError, OSError):
                self._recover()
                continue
            if "stats" in message:
                self._stats = EngineStats(**message["stats"])
                continue
            updates = [Event.from_json(values) for values in message["updates"]]
            with self._lock:
                for update in updates:
                    if update.finish_reason is not None:
                        self._open[update.request].discard(update.sample)
                        if not self._open[update.request]:
                            del self._open[update.request]
            self._deliver(updates)

    def _recover(self) -> None:
        """Answer for the dead process, then start another; again and again until one comes up."""
        with self._lock:
            self._ready, self._stats = False, None
            lost, self._open = self._open, {}
        if self._stopping:
            return
        log.error("worker %d died; starting another", self.index)
        self._deliver(lost_updates(lost))
        while not self._stopping and not self._ready:
            self._connection.close()
            self.process.kill()
            self.process.join()
            time.sleep(RESTART_PAUSE_S)
            self._connection, self.process = self._launch()
            self._wait_until_loaded()
        self._deliver([])  # whoever waits for a worker looks again


def _nowhere(updates: list[Event]) -> None:
    """Before the worker is started there is nobody to tell."""


def lost_updates(lost: dict[int, set[int]]) -> list[Event]:
    """The ends of samples (by key) that no worker will finish."""
    detail = "the worker process died; send the request again"
    samples = [
        (key, sample) for key, open_samples in lost.items() for sample in sorted(open_samples)
    ]
    return [
        Event(request=key, sample=sample, finish_reason="error", finish_detail=detail)
        for key, sample in samples
    ]


def child(
    connection: Connection,
    spec: ModelSpec,
    device: str,
    int8: bool,
    max_running: int,
    index: int,
    threads: int,
) -> None:
    """The process: an engine in a thread, commands read here. Ends when told to, or when the parent
    is gone.
    """
    import signal

    from nanochat.serve.loading import load_engine

    signal.signal(
        signal.SIGINT, signal.SIG_IGN
    )  # Ctrl+C reaches the whole group: the parent decides
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if threads:
        torch.set_num_threads(threads)
    try:
        worker = ThreadWorker(load_engine(spec, device, int8, max_running), index)
    except ValueError as error:
        connection.send_bytes(json.dumps({"problem": str(error)}).encode())
        return
    writing = threading.Lock()
    last_s = 0.0

    def send(message: Any) -> None:
        with writing:
            try:
                connection.send_bytes(json.dumps(message).encode())
            except OSError:
                pass

    def deliver(updates: list[Event]) -> None:
        nonlocal last_s
        send({"updates": [update.to_json() for update in updates]})
        if time.monotonic() - last_s > STATS_EVERY_S or not worker.engine.has_work:
            last_s = time.monotonic()
            send({"stats": asdict(worker.engine.stats())})

    send({"problem": ""})
    send({"stats": asdict(worker.engine.stats())})
    worker.start(deliver)
    while True:
        try:
            message = json.loads(connection.recv_bytes())
        except (EOFError, OSError):
            return
        if message["do"] == "stop":
            worker.stop()
            return
        if message["do"] == "cancel":
            worker.cancel(message["key"])
        else:
            worker.submit(
                message["key"], message["prompt"], SamplingParams(**message["params"]), message["n"]
            )
