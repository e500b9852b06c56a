"""Everything behind the endpoints: the served models by name, which come and go while it runs, and
an orderly end.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import time
from dataclasses import dataclass, field

from nanochat.model_spec import parse_spec
from nanochat.serve.api_error import ApiError
from nanochat.serve.work.model_loader import ModelLoader
from nanochat.serve.work.served_model import ServedModel
from nanochat.serve.work.serving_metrics import ServingMetrics

log = logging.getLogger(__name__)
LOOK_EVERY_S = 0.05


@dataclass(frozen=True, kw_only=True)
class Defaults:
    """Sampling for requests that leave it out."""

    temperature: float = 0.8
    top_k: int | None = 50
    max_tokens: int = 512


@dataclass(kw_only=True)
class Service:
    """The models by name. `default`: the one that answers requests that name none; else the first.

    `leaving`: those that take no requests any more and finish what they have.
    """

    models: dict[str, ServedModel]
    metrics: ServingMetrics
    loader: ModelLoader | None = None
    defaults: Defaults = field(default_factory=Defaults)
    drain_s: float = 30.0
    default: str | None = None
    started_s: float = field(default_factory=time.monotonic)
    draining: bool = False
    leaving: list[ServedModel] = field(default_factory=list)
    _loading: asyncio.Lock = field(default_factory=asyncio.Lock)
    _endings: set[asyncio.Task[None]] = field(default_factory=set)

    def start(self) -> None:
        for model in self.models.values():
            model.start()

    def stop(self) -> None:
        for model in (*self.models.values(), *self.leaving):
            model.stop()

    @property
    def default_name(self) -> str:
        return self.default if self.default in self.models else next(iter(self.models))

    def model(self, name: str | None) -> ServedModel:
        """A model by its name, by stage:tag:step, or by the beginning stage or stage:tag, of which
        the default comes first. ApiError 404 naming those there are.
        """
        if name is None:
            return self.models[self.default_name]
        if name in self.models:
            return self.models[name]
        for known in dict.fromkeys((self.default_name, *self.models)):
            card = self.models[known].card
            if card.remote:
                continue
            if name == f"{known}:{card.step}" or known.startswith(f"{name}:"):
                return self.models[known]
        reason = f"model={name[:100]!r}: not served here; there is {', '.join(self.models)}"
        raise ApiError(404, reason, "model", "model_not_found")

    @property
    def ready(self) -> bool:
        return not self.draining and all(model.ready for model in self.models.values())

    # --- models come and go

    async def load(self, text: str) -> str:
        """Load a checkpoint beside those that are served; the name it is served under. ApiError
        400 when that cannot be.
        """
        if self.loader is None:
            raise ApiError(400, "model: this server loads no checkpoints", "model")
        async with self._loading:  # one at a time: two would take the same name and memory
            try:
                spec = parse_spec(text)
                cards = [model.card for model in self.models.values()]
                model = await asyncio.to_thread(self.loader.load, spec, cards)
            except ValueError as error:
                raise ApiError(400, f"model={text[:100]}: {error}", "model") from None
            if self.draining:
                model.stop()
                raise ApiError(503, "the server is shutting down", code="shutting_down")
            model.start()
            self.models[model.card.name] = model
        log.info("loaded %s", model.card.name)
        return model.card.name

    def make_default(self, name: str) -> None:
        """Requests that name no model are answered by it from now on. ApiError 404."""
        self.default = self._named_exactly(name)

    def unload(self, name: str) -> int:
        """Take a model out: no new request gets to it, its running and waiting ones finish, then
        its memory is free. How many those are. ApiError 404, or 409 for the last one.
        """
        name = self._named_exactly(name)
        if len(self.models) == 1:
            reason = f"{name} is the only model here; load another one first"
            raise ApiError(409, reason, "model", "last_model")
        model = self.models.pop(name)
        self.leaving.append(model)
        ending = asyncio.get_running_loop().create_task(self._see_off(model))
        self._endings.add(ending)
        ending.add_done_callback(self._endings.discard)
        return model.running + len(model.queue)

    def _named_exactly(self, name: str) -> str:
        if name not in self.models:
            reason = f"model={name[:100]!r}: not served here; there is {', '.join(self.models)}"
            raise ApiError(404, reason, "model", "model_not_found")
        return name

    async def _see_off(self, model: ServedModel) -> None:
        while model.running or len(model.queue):
            await asyncio.sleep(LOOK_EVERY_S)
        await asyncio.to_thread(model.stop)
        if model.card.name not in self.models:  # else another has taken the name meanwhile
            model.hide_holdings()
        self.leaving.remove(model)
        log.info("unloaded %s", model.card.name)
        del model
        gc.collect()  # weights hang in circles of engine and runner

    # --- the end

    async def drain(self) -> None:
        """Take nothing new, let running answers finish within `drain_s`, then cut them."""
        self.draining = True
        models = [*self.models.values(), *self.leaving]
        for model in models:
            model.drain()
        end_s = time.monotonic() + self.drain_s
        while any(model.running for model in models) and time.monotonic() < end_s:
            await asyncio.sleep(LOOK_EVERY_S)
        for model in models:
            model.cut_all()
