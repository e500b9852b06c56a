"""The gate before a database: an answer's query must be one statement of the asked dialect that
only reads. The database and the cage behind it refuse too; here the reason has a name.
"""

from __future__ import annotations

import re
from typing import Any

from nanochat.sql.dialect_parser import exp, parse_one, split_statements
from nanochat.sql.query_shape import is_query

# Functions that reach files, other machines, the server or its settings.
OUTSIDE = re.compile(
    r"file|url|s3|gcs|azure\w*|hdfs|remote|remotesecure|mysql|postgresql|sqlite|mongodb|jdbc|odbc|"
    r"input|executable|cluster|clusterallreplicas|iceberg|deltalake|hudi|dictionary|sleep\w*|"
    r"read_\w+|glob|parquet_\w+|sniff_csv|scan_\w+|\w+_scan|sqlite_query|postgres_query|"
    r"mysql_query|getenv|load_extension|readfile|writefile|edit|pg_read_\w+|pg_ls_\w+|pg_sleep\w*|"
    r"pg_terminate_backend|pg_cancel_backend|lo_import|lo_export|dblink\w*|set_config|nextval|"
    r"setval|\w+_to_xml\w*|currval|external_query|system|shell|install|load|pragma_\w+|"
    r"fts3_tokenizer|query|query_table|st_read\w*|pg_advisory\w*|merge",
    re.IGNORECASE,
)
WRITES = (exp.Insert, exp.Update, exp.Delete, exp.Merge, exp.Create, exp.Drop, exp.Into)
FIRST_WORD = re.compile(r"\s*(?:--[^\n]*\n\s*|/\*.*?\*/\s*)*\(*\s*(\w+)", re.DOTALL)
READING = {"SELECT", "WITH", "FROM"}
DOING = frozenset(
    "INSERT UPDATE DELETE MERGE REPLACE UPSERT CREATE DROP ALTER TRUNCATE RENAME ATTACH DETACH "
    "COPY PRAGMA VACUUM ANALYZE EXPLAIN SHOW DESCRIBE DESC SET RESET USE CALL DO EXECUTE PREPARE "
    "GRANT REVOKE BEGIN COMMIT ROLLBACK SAVEPOINT RELEASE REINDEX INSTALL LOAD UNLOAD EXPORT "
    "IMPORT CHECKPOINT OPTIMIZE SYSTEM KILL EXCHANGE BACKUP RESTORE LOCK LISTEN NOTIFY DECLARE "
    "SUMMARIZE PIVOT COMMENT REFRESH CLUSTER".split()
)
_QUOTED = re.compile(r"'(?:[^']|'')*'|\"[^\"]*\"|`[^`]*`|--[^\n]*|/\*.*?\*/", re.DOTALL)
_OUTFILE = re.compile(r"\bINTO\s+(?:OUTFILE|DUMPFILE)\b", re.IGNORECASE)
_COMMENT = re.compile(r"--[^\n]*|/\*.*?\*/", re.DOTALL)
_CALL = re.compile(r"\b(\w+)\s*\(")


class QueryRefused(ValueError):
    """A statement that does something else than reading, or reaches outside of the database. The
    message is what it would have done.
    """


def reading_query(text: str, dialect: str, columns: frozenset[str] = frozenset()) -> Any:
    """The tree of a query that only reads. `columns`: names in lower case that may be words of the
    language, too.

    QueryRefused for what does more, ValueError where the dialect does not understand it.
    """
    statements = [each for each in split_statements(text) if _COMMENT.sub("", each[1]).strip()]
    if len(statements) == 1:
        text = statements[0][1]
    first = FIRST_WORD.match(text)
    word = first.group(1).upper() if first else ""
    if len(statements) > 1:
        words = [FIRST_WORD.match(each) for _, each in statements]
        told = ", ".join(w.group(1).upper() for w in words if w)
        raise QueryRefused(f"{len(statements)} statements ({told})")
    if word in DOING:
        raise QueryRefused(word)
    if word not in READING:
        raise ValueError(f"not a query: begins with {word or 'nothing'}")
    bare = _QUOTED.sub("", text)
    if _OUTFILE.search(bare):
        raise QueryRefused("INTO OUTFILE")
    for call in _CALL.finditer(bare):
        if OUTSIDE.fullmatch(call.group(1)):
            raise QueryRefused(f"{call.group(1).lower()}()")
    try:
        tree = parse_one(text, dialect)
    except ValueError:
        tree = parse_one(_quoted_words(text, columns), dialect)
    _check_reading(tree)
    return tree


def _quoted_words(text: str, columns: frozenset[str]) -> str:
    """The text with the names of columns in double quotes where they stand bare: a parser takes
    `for` for something else.
    """

    def quote(match: re.Match[str]) -> str:
        word = match.group()
        return f'"{word}"' if word.casefold() in columns else word

    parts = re.split(r"('(?:[^']|'')*'|\"[^\"]*\"|`[^`]*`)", text)
    return "".join(
        part if number % 2 else re.sub(r"\b\w+\b", quote, part) for number, part in enumerate(parts)
    )


def _check_reading(tree: Any) -> None:
    """QueryRefused where any part of the tree writes or reaches outside."""
    for node in tree.walk():
        if isinstance(node, WRITES):
            raise QueryRefused(type(node).__name__.upper())
        if isinstance(node, exp.Lock):
            raise QueryRefused("FOR UPDATE")
        if isinstance(node, (exp.ReadCSV, exp.ReadParquet)):
            raise QueryRefused("reading a file")
        if isinstance(node, exp.Table) and isinstance(node.this, exp.Identifier):
            if re.search(r"[/\\]|\.(csv|parquet|json|db)$", node.name, re.IGNORECASE):
                raise QueryRefused("reading a file")
    if not is_query(tree):
        raise QueryRefused(type(tree).__name__.upper())
