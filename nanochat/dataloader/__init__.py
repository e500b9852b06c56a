"""Documents -> packed batches (see loader.py).

The names are found when they are asked for: `nanochat doctor` and the download of shards need
neither batches nor torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
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


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = "loader" if name in ("Batch", "PackedLoader") else "documents"
    return getattr(importlib.import_module(f"{__name__}.{home}"), name)
