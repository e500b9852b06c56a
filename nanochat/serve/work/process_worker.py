"""A worker in a process of its own, one for each device. When it dies its requests end with an
error and it is started again; the others notice nothing. The two sides exchange JSON, so that
neither can run code in the other.
"""

from __future__ import annotations

import contextlib
import json
import logging
import multiprocessing
import signal
import threading
import time
from dataclasses import asdict
from multiprocessing.connection import Connection
from typing import Any

import torch

from nanochat.engine import EngineStats, Event, SamplingParams
from nanochat.engine.sequence import FinishReason
from nanochat.serve.work.loading import EngineSetup, load_engine
from nanochat.serve.work.remote import RemotePrompt
from nanochat.serve.work.worker import Deliver, Lost, ThreadWorker

log = logging.getLogger(__name__)
START_TIME_S = 600.0
STOP_TIME_S = 5.0
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

    def __init__(self, setup: EngineSetup, index: int) -> None:
        self.setup = setup
        self.index = index
        self._stats: EngineStats | None = None
        self._stopping = False
        self._ready = False
        self._connection, self.process = self._launch()

    def wait(self) -> None:
        """Until the model is loaded. ValueError with the problem when it cannot be."""
        if problem := self._wait_until_loaded():
            raise ValueError(problem)

    def _launch(self) -> tuple[Connection, Any]:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(
            target=child,
            args=(theirs, self.setup, self.index),
            daemon=True,
            name=f"worker-{self.index}",
        )
        process.start()
        theirs.close()
        return ours, process

    def _wait_until_loaded(self) -> str:
        """Until the process can be used; why it cannot, if so."""
        problem = f"worker {self.index} on {self.setup.device} did not start"
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

    def start(self, deliver: Deliver, lost: Lost) -> None:
        listen = threading.Thread(target=self._listen, args=(deliver, lost), daemon=True)
        listen.start()

    def submit(
        self, request: int, prompt: list[int] | RemotePrompt, params: SamplingParams, n: int
    ) -> None:
        assert isinstance(prompt, list), "an engine here takes token ids"
        self._tell(do="submit", request=request, prompt=prompt, params=asdict(params), n=n)

    def cancel(self, request: int, reason: FinishReason, detail: str) -> None:
        self._tell(do="cancel", request=request, reason=reason, detail=detail)

    def stats(self) -> EngineStats | None:
        """As the process last told, half a second ago at most while it works."""
        return self._stats

    def stop(self) -> None:
        self._stopping = True
        self._tell(do="stop")
        self.process.join(timeout=STOP_TIME_S)
        if self.process.is_alive():
            self.process.kill()

    def _tell(self, **message: Any) -> None:
        with contextlib.suppress(OSError, ValueError):  # it has died: the listener notices
            self._connection.send_bytes(json.dumps(message).encode())

    def _listen(self, deliver: Deliver, lost: Lost) -> None:
        while not self._stopping:
            try:
                message = json.loads(self._connection.recv_bytes())
            except (EOFError, OSError):
                self._ready = False
                self._stats = None
                if not self._stopping:
                    log.error("worker %d died; starting another", self.index)
                    lost("the worker process died; send the request again")
                    self._start_again()
                    deliver([])  # whoever waits for a worker looks again
                continue
            if "stats" in message:
                self._stats = EngineStats(**message["stats"])
            else:
                deliver([Event.from_json(values) for values in message["events"]])

    def _start_again(self) -> None:
        """Another process, again and again until one comes up."""
        while not self._stopping and not self._ready:
            self._connection.close()
            self.process.kill()
            self.process.join()
            time.sleep(RESTART_PAUSE_S)
            self._connection, self.process = self._launch()
            self._wait_until_loaded()


def child(connection: Connection, setup: EngineSetup, index: int) -> None:
    """The process: an engine in a thread, commands read here. Ends when told to, or when the parent
    is gone.
    """
    for number in (signal.SIGINT, signal.SIGTERM):  # they reach the whole group: the parent decides
        signal.signal(number, signal.SIG_IGN)
    if setup.threads:
        torch.set_num_threads(setup.threads)
    try:
        worker = ThreadWorker(load_engine(setup), str(setup.spec), index)
    except ValueError as error:
        connection.send_bytes(json.dumps({"problem": str(error)}).encode())
        return
    writing = threading.Lock()
    last_s = 0.0

    def send(**message: Any) -> None:
        with writing, contextlib.suppress(OSError):
            connection.send_bytes(json.dumps(message).encode())

    def deliver(events: list[Event]) -> None:
        nonlocal last_s
        send(events=[event.to_json() for event in events])
        if time.monotonic() - last_s > STATS_EVERY_S or not worker.engine.has_work:
            last_s = time.monotonic()
            send(stats=asdict(worker.engine.stats()))

    send(problem="")
    send(stats=asdict(worker.engine.stats()))
    worker.start(deliver, lost=log.error)
    obey(worker, connection)


def obey(worker: ThreadWorker, connection: Connection) -> None:
    """Do what the parent says, until it says stop or is gone."""
    while True:
        try:
            message = json.loads(connection.recv_bytes())
        except (EOFError, OSError):
            return
        match message.pop("do"):
            case "stop":
                worker.stop()
                return
            case "cancel":
                worker.cancel(**message)
            case "submit":
                worker.submit(**{**message, "params": SamplingParams(**message["params"])})
