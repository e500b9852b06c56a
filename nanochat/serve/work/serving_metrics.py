"""What the server counts while it runs, and what it holds when it is asked, for Prometheus."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

FIRST_TOKEN_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
BETWEEN_TOKENS_S = (0.0025, 0.005, 0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56)

CACHE = {
    "pages_used": ("cache_pages_used", "Cache pages held by running answers."),
    "pages_retained": ("cache_pages_retained", "Cache pages kept for prompts that begin alike."),
    "pages_total": ("cache_pages_total", "Cache pages there may be."),
    "cache_bytes": ("cache_bytes", "Memory of the cache."),
}


class ServingMetrics:
    """Counters, histograms and gauges of one server, in a registry of their own. `cache` has gauges
    by the field of EngineStats that they show.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = self._counter("requests", "Requests answered.", "path", "status")
        self.answers = self._counter(
            "answers", "Answers finished, by reason.", "model", "finish_reason"
        )
        self.upstream_failures = self._counter(
            "upstream_failures",
            "Requests that the server behind this one refused or failed, by the status told.",
            "model",
            "status",
        )
        self.prompt_tokens = self._counter("prompt_tokens", "Tokens of prompts.", "model")
        self.cached_tokens = self._counter(
            "cached_prompt_tokens", "Those found in the cache.", "model"
        )
        self.generated_tokens = self._counter("generated_tokens", "Tokens of answers.", "model")
        self.first_token = self._histogram(
            "time_to_first_token_seconds",
            "From a request's arrival to its first token.",
            FIRST_TOKEN_S,
        )
        self.between_tokens = self._histogram(
            "inter_token_latency_seconds", "Between two tokens of one answer.", BETWEEN_TOKENS_S
        )

        self.waiting = self._gauge("queue_length", "Requests waiting.", "model")
        self.running = self._gauge("running_answers", "Answers being written.", "model")
        self.ready = self._gauge("ready", "1 when requests are taken.", "model")
        self.cache = {
            held: self._gauge(name, about, "model", "worker")
            for held, (name, about) in CACHE.items()
        }

    def upstream_failure(self, model: str) -> Callable[[int], None]:
        """Counts a failure of the model's server by its status."""
        return lambda status: self.upstream_failures.labels(model, status).inc()

    def _counter(self, name: str, about: str, *labels: str) -> Counter:
        return Counter(f"nanochat_{name}", about, labels, registry=self.registry)

    def _histogram(self, name: str, about: str, bounds_s: tuple[float, ...]) -> Histogram:
        labels = ("model",)
        return Histogram(
            f"nanochat_{name}", about, labels, registry=self.registry, buckets=bounds_s
        )

    def _gauge(self, name: str, about: str, *labels: str) -> Gauge:
        return Gauge(f"nanochat_{name}", about, labels, registry=self.registry)
