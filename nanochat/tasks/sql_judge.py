"""Judging an answer to a question about a database: its query is taken out of the text, must only
read, is run in the cage on every filling, and its results are compared with the expected ones.
"""

from __future__ import annotations

import inspect
import json
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

from nanochat.sql import query_run
from nanochat.sql.answer_query import answer_query
from nanochat.sql.databases import QueryResult, filling_job, result_of
from nanochat.sql.dialect_parser import parse_one
from nanochat.sql.exact_match import same_query
from nanochat.sql.reading_gate import QueryRefused
from nanochat.sql.testbed import Testbed
from nanochat.tasks.cage.limits import MIB, Limits
from nanochat.tasks.sandbox import run_python

QUERY_TIMEOUT_S = 2.0  # of the processor, on each filling
WALL_S = 60.0  # of the clock, all of them together
MAX_ROWS = 2000  # fillings have some dozen rows: more is a product of tables
# Engine -> memory of its process; DuckDB reserves more than it uses.
MEMORY_BYTES = {"sqlite": 256 * MIB, "duckdb": 1536 * MIB}


@dataclass(frozen=True, kw_only=True)
class SQLVerdict:
    """What became of an answer. reason: right, wrong result, no query, not understood, refused,
    error, timeout, too many rows, memory; told: more about it. results: on each filling that it was
    run on.
    """

    reason: str
    told: str = ""
    query: str = ""
    exact: bool = False
    results: tuple[QueryResult, ...] = ()

    @property
    def right(self) -> bool:
        return self.reason == "right"

    @property
    def executable(self) -> bool:
        return self.reason in ("right", "wrong result")


def judge_answer(bed: Testbed, text: str, unsafe: bool = False) -> SQLVerdict:
    """What becomes of an answer. CageUnavailable where it cannot be run safely and `unsafe` is
    off."""
    query = answer_query(text)
    if not query:
        return SQLVerdict(reason="no query")
    try:
        runs = bed.engine_text(query)
    except QueryRefused as error:
        return SQLVerdict(reason="refused", told=str(error), query=query)
    except ValueError as error:
        return SQLVerdict(reason="not understood", told=str(error), query=query)
    results = run_caged(bed, runs, unsafe)
    exact = same_query(bed.tree, parsed(query, bed.facts.dialect), bed.facts.dialect)
    failed = next((result for result in results if not result.ok), None)
    if failed is not None:
        reason, told = failed.end, failed.told
    else:
        reason, told = ("right" if bed.matches(results) else "wrong result"), ""
    return SQLVerdict(reason=reason, told=told, query=query, exact=exact, results=tuple(results))


def parsed(query: str, dialect: str) -> object:
    """The tree of a query, or None."""
    try:
        return parse_one(query, dialect)
    except ValueError:
        return None


def run_caged(bed: Testbed, query: str, unsafe: bool = False) -> list[QueryResult]:
    """The query's result on each filling, up to the first that it does not end well on."""
    job = {
        "engine": bed.engine,
        "databases": [filling_job(filling, bed.engine) for filling in bed.fillings],
        "query": query,
        "max_rows": MAX_ROWS,
        "timeout_s": QUERY_TIMEOUT_S,
        "packages": list(package_folders(bed.engine)),
    }
    limits = Limits(
        timeout_s=WALL_S,
        memory_bytes=MEMORY_BYTES[bed.engine],
        output_bytes=16 * MIB,
        shows=shown_files(bed.engine),
    )
    text = json.dumps(json.dumps(job))
    ended = run_python(f"{program()}\nmain(json.loads({text}))", unsafe=unsafe, limits=limits)
    found = [result_of(json.loads(line)) for line in _whole_lines(ended.stdout)]
    if len(found) < len(bed.fillings) and all(result.ok for result in found):
        end = {"timeout": "timeout", "memory": "memory", "output": "too many rows"}
        last = ended.stderr.strip().splitlines()[-1:] or [ended.reason]
        found.append(QueryResult(end=end.get(ended.reason, "error"), told=last[0]))
    return found


def _whole_lines(text: str) -> list[str]:
    return [line for line in text.split("\n")[:-1] if line.startswith("{") and line.endswith("}")]


@lru_cache(maxsize=1)
def program() -> str:
    """The text of the program in the cage."""
    return inspect.getsource(query_run)


@lru_cache(maxsize=2)
def shown_files(engine: str) -> tuple[str, ...]:
    """What the cage must show for an engine: nothing for SQLite, which is Python's own."""
    if engine == "sqlite":
        return ()
    names = [find_spec(name) for name in ("duckdb", "_duckdb")]
    files = [Path(spec.origin) for spec in names if spec is not None and spec.origin]
    shown = [f.parent if f.name == "__init__.py" else f for f in files]
    # Its own version is read from what pip has left beside it.
    shown += [notes for f in shown for notes in f.parent.glob("duckdb-*.dist-info")]
    return tuple(dict.fromkeys(map(str, shown)))


def package_folders(engine: str) -> tuple[str, ...]:
    """The folders in which the program looks for them."""
    return tuple(dict.fromkeys(str(Path(path).parent) for path in shown_files(engine)))
