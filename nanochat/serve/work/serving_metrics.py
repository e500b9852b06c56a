"""What the server counts while it runs, for Prometheus."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Histogram

FIRST_TOKEN_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
BETWEEN_TOKENS_S = (0.0025, 0.005, 0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56)


class ServingMetrics:
    """Counters and histograms of one server, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = self._counter("requests", "Requests answered.", "path", "status")
        self.answers = self._counter(
            "answers", "Answers finished, by reason.", "model", "finish_reason"
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

    def _counter(self, name: str, about: str, *labels: str) -> Counter:
        return Counter(f"nanochat_{name}", about, labels, registry=self.registry)

    def _histogram(self, name: str, about: str, bounds_s: tuple[float, ...]) -> Histogram:
        labels = ("model",)
        return Histogram(
            f"nanochat_{name}", about, labels, registry=self.registry, buckets=bounds_s
        )
