"""nanochat: from raw text to a chat model that people use, in one readable code base."""

__version__ = "0.1.0"
