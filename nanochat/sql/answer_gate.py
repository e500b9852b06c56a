"""The gate behind an answer: does its dialect understand the query, and does it only read? If not,
the model is asked once more, with the reason; then there is no valid answer.
"""

from __future__ import annotations

from dataclasses import dataclass

from nanochat.sql.answer_query import answer_query
from nanochat.sql.reading_gate import QueryRefused, reading_query


@dataclass(frozen=True, kw_only=True)
class GateVerdict:
    """What the gate says of an answer: the query that may be run, or why there is none."""

    query: str = ""
    reason: str = ""


def gated(answer: str, dialect: str, columns: frozenset[str] = frozenset()) -> GateVerdict:
    """Look at an answer. `columns`: see `reading_query`."""
    query = answer_query(answer)
    if not query:
        return GateVerdict(reason="there is no query in it")
    try:
        reading_query(query, dialect, columns)
    except QueryRefused as error:
        return GateVerdict(reason=f"it does more than reading: {error}")
    except ValueError as error:
        return GateVerdict(reason=str(error))
    return GateVerdict(query=query)


def correction(dialect: str, reason: str) -> str:
    """What is asked after an answer that the gate does not let through."""
    return f"That is no valid {dialect} query: {reason}. Answer with one {dialect} query."
