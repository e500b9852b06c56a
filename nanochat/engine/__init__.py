"""The inference engine: continuous batching, paged key/value cache with prefix reuse, sampling, the
calculator tool.
"""

from nanochat.engine.engine import Engine
from nanochat.engine.event import Event
from nanochat.engine.request import Completion, Request
from nanochat.engine.sequence import SamplingParams
from nanochat.engine.session import ChatSession
from nanochat.engine.stats import EngineStats

__all__ = [
    "ChatSession",
    "Completion",
    "Engine",
    "EngineStats",
    "Event",
    "Request",
    "SamplingParams",
]
