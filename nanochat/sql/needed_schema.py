"""The tables that a question is shown: those that its query reads, and a few others, so that
choosing has to be learnt; cut to what fits."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable, Iterable, Sequence

from nanochat.sql.table_schema import SQLTable, schema_text

CountTokens = Callable[[str], int]


def needed_schema(
    used: Sequence[SQLTable],
    others: Sequence[SQLTable],
    columns: Iterable[str],
    *,
    dialect: str,
    distractors: int,
    most_tokens: int,
    count: CountTokens,
    seed: str,
) -> str:
    """`CREATE TABLE` text with the used tables and up to `distractors` others, in an order that
    tells nothing, of at most `most_tokens` tokens; used columns are always in it.

    columns: names of the columns that the query uses, in lower case.
    """
    rng = random.Random(seed)
    wanted = frozenset(columns)
    chosen = list(used)
    if count(schema_text(chosen, dialect)) > most_tokens:
        share = most_tokens // len(chosen)
        chosen = [_cut(table, wanted, share, dialect, count) for table in chosen]
    left = [table for table in others if table.columns]
    for table in rng.sample(left, min(distractors, len(left))):
        if count(schema_text([*chosen, table], dialect)) <= most_tokens:
            chosen.append(table)
    rng.shuffle(chosen)
    return schema_text(chosen, dialect)


def _cut(
    table: SQLTable, wanted: frozenset[str], most_tokens: int, dialect: str, count: CountTokens
) -> SQLTable:
    """The table with the columns that are used, and others, first to last, as long as they fit."""
    keep = {column.name for column in table.columns if column.name.casefold() in wanted}
    if not keep:
        keep = {column.name for column in table.columns[:1]}

    def with_columns(names: set[str]) -> SQLTable:
        kept = tuple(column for column in table.columns if column.name in names)
        return dataclasses.replace(table, columns=kept)

    spent = count(schema_text([with_columns(keep)], dialect))
    for column in table.columns:
        if column.name not in keep:
            spent += count(f"{column.name} {column.type}, {column.description}") + 1
            if spent > most_tokens:
                break
            keep.add(column.name)
    return with_columns(keep)
