"""SQL text as tokens and trees, by sqlglot. Whoever needs either imports it from here, so that a
missing extra is one line."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

try:
    import sqlglot
    from sqlglot import exp
    from sqlglot.errors import SqlglotError
    from sqlglot.tokens import TokenType
except ModuleNotFoundError:
    raise ValueError(
        "SQL is parsed by sqlglot, which is not installed; `pip install 'nanochat[sql]'` adds it"
    ) from None

__all__ = ["TokenType", "TokenizedSQL", "exp", "guess_dialect", "parse_one", "tokenized"]

LONGEST_QUERY_CHARS = 20_000  # what no context holds, nobody can learn from
# What one dialect writes and the others do not.
_WORDS = {
    "postgres": re.compile(
        r"\bserial\b|\bjsonb\b|timestamptz|character varying|\bilike\b|~\*?\s*'|generate_series|"
        r"to_char\(",
        re.IGNORECASE,
    ),
    "clickhouse": re.compile(
        r"MergeTree|LowCardinality|Nullable\(|\bUInt\d|\bString\b|DateTime64|countIf|sumIf|uniq\w*\(|"
        r"toStartOf|toDate|toYYYY|\barrayJoin|\bFINAL\b|\bPREWHERE\b|\bcount\(\)"
    ),
    "bigquery": re.compile(r"`|\bINT64\b|\bSTRUCT<|\bUNNEST\(|SAFE_|OPTIONS\s*\(|_TABLE_SUFFIX"),
    "duckdb": re.compile(r"read_(?:csv|parquet)|\bHUGEINT\b|list_\w+\(|\bEXCLUDE\b", re.IGNORECASE),
    "sqlite": re.compile(
        r"AUTOINCREMENT|strftime\('|julianday|WITHOUT ROWID|\bifnull\(", re.IGNORECASE
    ),
}
GUESSED = ("postgres", "clickhouse", "bigquery", "duckdb", "sqlite")  # the first of equals is taken


@dataclass(frozen=True, kw_only=True)
class TokenizedSQL:
    """A statement and its tokens. text: the words as they were written, without comments, on one
    line. comments: what stood beside them, in order.
    """

    text: str
    tokens: list[Any]
    source: str
    comments: tuple[str, ...]


def tokenized(text: str, dialect: str) -> TokenizedSQL:
    """A statement in tokens, a semicolon at its end left out. ValueError when it has none, or none
    that the dialect knows.
    """
    try:
        tokens = sqlglot.tokenize(text, dialect=dialect or None)
    except (SqlglotError, RecursionError) as error:
        raise ValueError(f"not {dialect or 'SQL'}: {type(error).__name__}") from None
    comments = tuple(
        comment.strip() for token in tokens for comment in token.comments if comment.strip()
    )
    while tokens and tokens[-1].token_type == TokenType.SEMICOLON:
        tokens.pop()
    if not tokens:
        raise ValueError("no statement")
    return TokenizedSQL(
        text=_without_comments(text, tokens), tokens=tokens, source=text, comments=comments
    )


def _without_comments(text: str, tokens: list[Any]) -> str:
    """The tokens as they stand in the text; whatever stood between two of them becomes a space."""
    parts, end = [], None
    for token in tokens:
        if end is not None and token.start > end:
            parts.append(" ")
        parts.append(text[token.start : token.end + 1])
        end = token.end + 1
    return "".join(parts)


def parse_one(text: str, dialect: str) -> Any:
    """The tree of one statement. ValueError when the dialect does not know it, or when there are
    several. The message never repeats the statement.
    """
    try:
        found = sqlglot.parse(text, dialect=dialect or None)
        # a comment behind the last semicolon is a statement to sqlglot
        trees = [tree for tree in found if tree is not None and not isinstance(tree, exp.Semicolon)]
    except SqlglotError as error:
        places = getattr(error, "errors", None) or [{}]
        place = places[0]
        at = f" at line {place['line']}, column {place['col']}" if place.get("line") else ""
        raise ValueError(f"cannot be parsed as {dialect or 'SQL'}{at}") from None
    except (RecursionError, TypeError, AttributeError, KeyError, IndexError):
        raise ValueError(f"cannot be parsed as {dialect or 'SQL'}: nested too deeply") from None
    if len(trees) != 1:
        raise ValueError("no statement" if not trees else f"{len(trees)} statements in one")
    return trees[0]


def guess_dialect(statements: list[str]) -> str:
    """The dialect that understands most of the statements and whose own words are in them; of
    equals the first of `GUESSED`.
    """
    counts = dict.fromkeys(GUESSED, 0)
    for text in statements:
        for dialect in GUESSED:
            understood = _is_understood(text, dialect)
            counts[dialect] += understood + 2 * bool(understood and _WORDS[dialect].search(text))
    return max(counts, key=lambda dialect: counts[dialect])


def _is_understood(text: str, dialect: str) -> bool:
    try:
        tree = parse_one(text, dialect)
    except ValueError:
        return False
    return not isinstance(tree, exp.Command)  # what sqlglot passes over unread


# Quoted text, comments and semicolons, of which only the last end a statement.
_PIECES = re.compile(
    r"'(?:[^'\\]|\\.|'')*'|\"(?:[^\"\\]|\\.|\"\")*\"|`[^`]*`|--[^\n]*|/\*.*?\*/|\$(\w*)\$.*?\$\1\$|;",
    re.DOTALL,
)


def split_statements(text: str) -> list[tuple[int, str]]:
    """(line, statement with the comments before it) of a file of statements."""
    found, start = [], 0
    ends = [match.start() for match in _PIECES.finditer(text) if match.group() == ";"]
    line = 1
    for end in [*ends, len(text)]:
        piece = text[start:end]
        if piece.strip():
            blank = len(piece) - len(piece.lstrip())
            found.append((line + piece[:blank].count("\n"), piece.strip()))
        line += text[start : end + 1].count("\n")
        start = end + 1
    return found
