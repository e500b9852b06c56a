"""What the server holds at the moment, read when Prometheus asks; and the text it is told in."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.responses import Response

from nanochat.serve.work.service import Service

CACHE = {
    "pages_used": ("cache_pages_used", "Cache pages held by running answers."),
    "pages_retained": ("cache_pages_retained", "Cache pages kept for prompts that begin alike."),
    "pages_total": ("cache_pages_total", "Cache pages there may be."),
    "cache_bytes": ("cache_bytes", "Memory of the cache."),
}


class Holdings(Collector):
    """Queues, running answers and caches of a service."""

    def __init__(self, service: Service) -> None:
        self.service = service

    def collect(self) -> Iterator[Metric]:
        waiting = gauge("queue_length", "Requests waiting.", "model")
        running = gauge("running_answers", "Answers being written.", "model")
        ready = gauge("ready", "1 when requests are taken.", "model")
        cache = {
            held: gauge(name, about, "model", "worker") for held, (name, about) in CACHE.items()
        }
        for name, model in self.service.models.items():
            waiting.add_metric([name], len(model.queue))
            running.add_metric([name], model.running)
            ready.add_metric([name], model.ready)
            for worker in model.workers:
                stats = worker.stats()
                if stats is not None:
                    for held, family in cache.items():
                        family.add_metric([name, str(worker.index)], getattr(stats, held))
        yield from (waiting, running, ready, *cache.values())


def gauge(name: str, about: str, *labels: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"nanochat_{name}", about, labels=labels)


def exposition(service: Service) -> Response:
    """Everything that is measured, in Prometheus' text format."""
    text = generate_latest(service.metrics.registry)
    return Response(text, media_type=CONTENT_TYPE_PLAIN_0_0_4)
