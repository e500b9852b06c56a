"""Documents -> packed batches (see loader.py)."""

from nanochat.dataloader.documents import (
    ConversationDocuments,
    Documents,
    ShardDocuments,
    TextDocuments,
)
from nanochat.dataloader.loader import Batch, PackedLoader

__all__ = [
    "Batch",
    "ConversationDocuments",
    "Documents",
    "PackedLoader",
    "ShardDocuments",
    "TextDocuments",
]
