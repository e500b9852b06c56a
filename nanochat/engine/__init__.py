"""The inference engine: continuous batching, paged key/value cache with prefix reuse, sampling, the
calculator tool.
"""

from nanochat.engine.chat import ChatSession, fit_messages
from nanochat.engine.engine import Engine
from nanochat.engine.request import Completion, Event, Request
from nanochat.engine.sequence import SamplingParams
from nanochat.engine.stats import EngineStats

__all__ = [
    "ChatSession",
    "Completion",
    "Engine",
    "EngineStats",
    "Event",
    "Request",
    "SamplingParams",
    "fit_messages",
]
