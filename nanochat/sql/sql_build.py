"""`nanochat sql build`: query logs, definitions, transformations and documentation -> conversations
to train on, and others, of shapes never trained on, to examine with."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from nanochat.config import Positional, Short
from nanochat.dataset.chat_endpoint import ChatEndpoint
from nanochat.runtime.base_dir import base_dir, expanded
from nanochat.runtime.files import atomic_write
from nanochat.sql.build_report import BuildReport
from nanochat.sql.definitions import Definitions
from nanochat.sql.doc_sections import DocumentSection
from nanochat.sql.knowledge import KnowledgeIndex, few_texts
from nanochat.sql.learnt_queries import LearntQueries, LearntQuery
from nanochat.sql.needed_schema import needed_schema
from nanochat.sql.prompt import SQLFacts, training_row
from nanochat.sql.question_writer import QuestionWriter
from nanochat.sql.shop import SHOP_DATA, SHOP_SOURCES
from nanochat.sql.source_reader import SourceReader
from nanochat.sql.stand_ins import SQLRedactor
from nanochat.tokenizer import Tokenizer, open_tokenizer

BYTES_PER_TOKEN = 3  # of SQL, where there is no tokenizer to ask
Row = dict[str, Any]


@dataclass
class SQLBuildConfig:
    """Turn query logs, table definitions, transformations and documentation into conversations."""

    sources: Positional[tuple[str, ...]] = ()
    """Files and folders, each read by what is in it; by default the embedded shop's, which
    `nanochat sql shop` makes.
    """
    out: Annotated[str | None, Short("-o")] = None
    """File of conversations to train on; the ones to examine with are put beside it as
    NAME.test.jsonl, a report as NAME.report.md.
    """
    dialect: Literal["clickhouse", "bigquery", "postgres", "duckdb", "sqlite"] | None = None
    """Dialect of the queries; by default that of the log, else the one that understands most."""
    query_column: str = ""
    """Column of a table that holds queries, where it has another name than query or sql."""
    names: str | None = None
    """File with names of people or customers, one a line, to be replaced wherever they stand."""
    test_share: float = 0.1
    """Share of the query shapes that is never trained on."""
    per_shape: int = 1
    """Queries to keep of those that differ in literals only."""
    wordings: int = 1
    """Questions to make of a query that has none beside it."""
    distractors: int = 2
    """Tables shown with a question that its query does not need."""
    schema_tokens: int = 1024
    """Most tokens of the tables shown."""
    knowledge: str | None = None
    """Folder of definitions, pages and past queries: the few pieces that fit a question are put
    before it, as `chat_cli --knowledge` does; its own query never is.
    """
    base_url: str | None = None
    """An OpenAI-compatible endpoint that writes questions where none stand beside a query."""
    model: str | None = None
    """The endpoint's name of the model."""
    api_key_env: str = "OPENAI_API_KEY"
    """Environment variable that holds the endpoint's key; sent when it is set."""
    concurrency: int = 4
    """Requests at a time."""
    input_price: float = 0.0
    """Dollars for a million tokens read, for the report."""
    output_price: float = 0.0
    """Dollars for a million tokens written."""
    overwrite: bool = False
    """Replace the files of an earlier build."""
    seed: int = 0
    """Decides split, wordings and distractors."""

    def problems(self) -> list[str]:
        least = {"per_shape": 1, "wordings": 1, "distractors": 0, "schema_tokens": 16}
        least |= {"concurrency": 1, "input_price": 0, "output_price": 0}
        found = [
            f"--{name.replace('_', '-')}={getattr(self, name)}: must be {low} or more"
            for name, low in least.items()
            if not getattr(self, name) >= low
        ]
        if not 0 <= self.test_share < 1:
            found.append(f"--test-share={self.test_share}: must be from 0 to below 1")
        if self.sources and self.out is None:
            found.append("--out: must be given: the file of conversations to write")
        if self.base_url is None:
            return found
        if not self.base_url.startswith(("http://", "https://")):
            found.append(f"--base-url={self.base_url}: must begin with http:// or https://")
        if not self.model:
            found.append("--model: must be given with --base-url (the endpoint's name of it)")
        return found


def sql_build(cfg: SQLBuildConfig) -> Path:
    """Write the files and print the report; the path of the one to train on. ValueError when a
    source cannot be read at all or nothing is left to learn.
    """
    if problems := cfg.problems():
        raise ValueError("\n".join(problems))
    out = expanded(cfg.out) if cfg.out else base_dir() / SHOP_DATA
    sources = cfg.sources or (str(base_dir() / SHOP_SOURCES),)
    test, report_path = out.with_suffix(".test.jsonl"), out.with_suffix(".report.md")
    answers = out.with_suffix(".questions.jsonl")
    if (out.exists() or test.exists()) and not cfg.overwrite:
        raise ValueError(f"{out} exists; --overwrite replaces it, --out names another file")
    redactor = SQLRedactor(_names(cfg.names))
    definitions = Definitions(describe=redactor.text)
    reader = SourceReader(definitions, dialect=cfg.dialect or "", query_column=cfg.query_column)
    reader.open(source_files(sources, (out, test, report_path, answers)))
    queries = LearntQueries(
        redactor,
        definitions,
        per_shape=cfg.per_shape,
        wordings=cfg.wordings,
        asks=cfg.base_url is not None,
        seed=cfg.seed,
    )
    reader.read(queries)
    alone = queries.add_inferred()
    builder = RowBuilder(cfg, definitions, _token_counter(), redactor)
    cost = ask_endpoint(cfg, queries, builder, answers)
    train, examined = builder.split(queries.kept)
    documents = [_document_row(redactor, section) for section in reader.sections]
    if not train and not documents:
        raise ValueError(_nothing(reader))
    report = BuildReport(
        reader=reader,
        redactor=redactor,
        queries=queries.kept,
        train=train,
        test=examined,
        documents=len(documents),
        tables=len(definitions),
        inferred=alone,
        unanswered=queries.without_question,
        cost=cost,
    )
    atomic_write(out, "".join(map(_line, [*train, *documents])))
    atomic_write(test, "".join(map(_line, examined)))
    atomic_write(report_path, redactor.text(report.markdown()))
    print(redactor.text("\n".join(report.lines())))
    print(f"{out}: {len(train) + len(documents):,} conversations; train with --data {out}")
    print(f"{test}: {len(examined):,} to examine with; the report: {report_path}")
    return out


def source_files(sources: tuple[str, ...], made: tuple[Path, ...]) -> list[Path]:
    """The files themselves, and every file below the folders, in a fixed order; hidden ones and
    what an earlier build has made are left out. ValueError for what is not there.
    """
    found: list[Path] = []
    missing = []
    for source in map(expanded, sources):
        if source.is_dir():
            below = (path for path in sorted(source.rglob("*")) if path.is_file())
            found += [p for p in below if not _hidden(p.relative_to(source))]
        elif source.exists():
            found.append(source)
        else:
            missing.append(f"{source}: there is no such file or folder; check the name")
    if missing:
        raise ValueError("\n".join(missing))
    ours = {path.resolve() for path in made}
    ours |= {
        path.with_suffix(ending).resolve()
        for path in made
        for ending in (".report.md", ".questions.jsonl")
    }
    return [path for path in dict.fromkeys(found) if path.resolve() not in ours]


def _hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def _names(path: str | None) -> list[str]:
    if path is None:
        return []
    try:
        return expanded(path).read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"--names={path}: cannot be read ({error})") from None


def _token_counter() -> Callable[[str], int]:
    """Counts tokens by the trained tokenizer where there is one."""
    try:
        tokenizer: Tokenizer = open_tokenizer(None)
    except ValueError:
        return lambda text: len(text.encode()) // BYTES_PER_TOKEN
    return lambda text: len(tokenizer.encode(text))


class RowBuilder:
    """Queries and their tables -> rows, on two sides that share no shape."""

    def __init__(
        self,
        cfg: SQLBuildConfig,
        definitions: Definitions,
        count: Callable[[str], int],
        redactor: SQLRedactor,
    ) -> None:
        self.redactor = redactor
        self.known = KnowledgeIndex(cfg.knowledge) if cfg.knowledge else None
        self.cfg = cfg
        self.definitions = definitions
        self.count = count

    def schema(self, query: LearntQuery, number: int = 0) -> str:
        """The tables shown with a question of a query."""
        found = (self.definitions.find(name) for name in query.tables)
        used = [table for table in found if table is not None]
        others = [table for table in self.definitions if table not in used]
        return needed_schema(
            used,
            others,
            query.columns,
            dialect=query.dialect,
            distractors=self.cfg.distractors,
            most_tokens=self.cfg.schema_tokens,
            count=self.count,
            seed=f"{self.cfg.seed}:{number}:{query.text}",
        )

    def split(self, queries: list[LearntQuery]) -> tuple[list[Row], list[Row]]:
        """(rows to train on, rows to examine with): all of a shape are on one side. Of queries that
        are examined with, one question each.
        """
        held_out = self._held_out({query.shape for query in queries})
        train: list[Row] = []
        test: list[Row] = []
        for query in queries:
            rows = self._rows(query)
            if query.shape in held_out:
                test += itertools.islice(rows, 1)
            else:
                train += rows
        return train, test

    def _held_out(self, shapes: set[str]) -> set[str]:
        """The shapes with the lowest hashes: at least one where there are two."""
        ranked = sorted(
            shapes, key=lambda s: hashlib.sha256(f"{self.cfg.seed}{s}".encode()).digest()
        )
        wanted = round(self.cfg.test_share * len(ranked))
        if self.cfg.test_share and len(ranked) > 1:
            wanted = max(1, wanted)
        return set(ranked[:wanted])

    def _rows(self, query: LearntQuery) -> Iterator[Row]:
        for number, question in enumerate(query.questions):
            schema = self.schema(query, number)
            facts = SQLFacts(
                dialect=query.dialect,
                query=query.text,
                schema=schema,
                tables=tuple(query.tables),
                shape=query.shape,
                source=query.source,
                order_matters=query.order_matters,
            )
            yield training_row(question, facts, self._knowledge(question, query.text))

    def _knowledge(self, question: str, answer: str) -> list[str]:
        """What is told besides the schema, redacted like everything else that is written."""
        if self.known is None:
            return []
        return list(map(self.redactor.text, self.known.chosen(question, few_texts, answer)))


def ask_endpoint(
    cfg: SQLBuildConfig, queries: LearntQueries, builder: RowBuilder, answers: Path
) -> str:
    """Have the endpoint write the questions that are missing -> what that has cost, for people; ""
    without an endpoint.
    """
    if cfg.base_url is None:
        return ""
    writer = QuestionWriter(
        endpoint=ChatEndpoint(
            base_url=cfg.base_url,
            model=cfg.model or "",
            api_key_env=cfg.api_key_env,
            temperature=0.7,
        ),
        cache=answers,
        concurrency=cfg.concurrency,
        input_price=cfg.input_price,
        output_price=cfg.output_price,
    )
    asked = [(query.dialect, builder.schema(query), query.text) for query in queries.to_ask()]
    queries.write_questions(writer.write(asked))
    return writer.cost()


def _document_row(redactor: SQLRedactor, found: tuple[str, DocumentSection]) -> Row:
    source, section = found
    return {
        "messages": [
            {"role": "user", "content": redactor.text(section.question)},
            {"role": "assistant", "content": redactor.text(section.answer)},
        ],
        "source": redactor.text(source),
    }


def _line(row: Row) -> str:
    return json.dumps(row, ensure_ascii=False).encode("utf-8", "replace").decode() + "\n"


def _nothing(reader: SourceReader) -> str:
    """Why nothing is left to learn from."""
    dropped: Counter[str] = sum((s.counts.dropped for s in reader.sources), Counter())
    told = [f"{count:,} {why}" for why, count in dropped.most_common()]
    told += [f"{path}: {why}" for path, why in reader.unread.items()]
    return "nothing is left to learn from: " + ("; ".join(told) or "the sources hold no queries")
