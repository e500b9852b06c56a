"""Everything behind the endpoints: the served models by name, and an orderly end."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field

from nanochat.serve.api_error import ApiError
from nanochat.serve.work.served_model import ServedModel
from nanochat.serve.work.serving_metrics import ServingMetrics


@dataclass(frozen=True, kw_only=True)
class Defaults:
    """Sampling for requests that leave it out."""

    temperature: float = 0.8
    top_k: int | None = 50
    max_tokens: int = 512


@dataclass(kw_only=True)
class Service:
    """The models by name; the first one answers requests that name none. `aliases` are further
    names.
    """

    models: dict[str, ServedModel]
    metrics: ServingMetrics
    defaults: Defaults = field(default_factory=Defaults)
    drain_s: float = 30.0
    aliases: dict[str, str] = field(default_factory=dict)
    started_s: float = field(default_factory=time.monotonic)
    draining: bool = False

    def start(self) -> None:
        for model in self.models.values():
            model.start()

    def stop(self) -> None:
        for model in self.models.values():
            model.stop()

    def model(self, name: str | None) -> ServedModel:
        """A model by name. ApiError 404 naming those there are."""
        if name is None:
            return next(iter(self.models.values()))
        model = self.models.get(self.aliases.get(name, name))
        if model is None:
            reason = f"model={name[:100]!r}: not served here; there is {', '.join(self.models)}"
            raise ApiError(404, reason, "model", "model_not_found")
        return model

    @property
    def ready(self) -> bool:
        return not self.draining and all(model.ready for model in self.models.values())

    async def drain(self) -> None:
        """Take nothing new, let running answers finish within `drain_s`, then cut them."""
        self.draining = True
        for model in self.models.values():
            model.drain()
        end_s = time.monotonic() + self.drain_s
        while any(model.running for model in self.models.values()) and time.monotonic() < end_s:
            await asyncio.sleep(0.05)
        for model in self.models.values():
            model.cut_all()
