"""How well does a small model learn to write SQL in about an hour of two cores? From a folder of
questions (train.jsonl, test.jsonl: CREATE TABLE statements and a question, a query) and prose:

    python -m bench.sql_training QUESTIONS_FOLDER TEXT_FOLDER --base-dir FOLDER [--steps 1500]

Rows are varied before they are learned, so that the model learns to copy names and not the names:
columns stand in another order, tables with numbered names get other numbers, and the conditions of
a query stand in the order in which the question speaks of them. Long schemas keep their end, as an
evaluation keeps it. The expected queries of the test rows are left as they are.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from nanochat.sql.created_tables import created_tables
from nanochat.sql.dialect_parser import exp, parse_one
from nanochat.sql.table_schema import quoted
from nanochat.tasks.sql_questions import SQLQuestion, read_questions
from nanochat.tokenizer import Tokenizer

CONTEXT, ANSWER = 384, 96  # tokens; the context of an evaluation leaves a quarter to the answer
PROSE_DOCUMENTS = 1200  # of each shard
NUMBERED = re.compile(r"^(\D+_\d_)\d+_\d+$")


def varied(question: SQLQuestion, rng: random.Random) -> dict[str, Any]:
    """A row that asks the same of a table that looks otherwise."""
    query, schema = question.facts.query, question.facts.schema
    tables = [keyed.table for keyed in created_tables(schema, "sqlite")]
    if len(tables) == 1:
        query = in_order_of_question(query, question.question)
        columns = list(tables[0].columns)
        rng.shuffle(columns)
        name = tables[0].name
        if numbered := NUMBERED.match(name):
            name = f"{numbered[1]}{rng.randrange(10**6, 30 * 10**6)}_{rng.randrange(1, 40)}"
        shown = [" ".join(filter(None, (quoted(c.name), c.type))) for c in columns]
        schema = f"CREATE TABLE {quoted(name)} ({', '.join(shown)})"
        query = query.replace(tables[0].name, name)
    asked = {"role": "user", "content": f"{schema}\n\n{question.question}"}
    return {"messages": [asked, {"role": "assistant", "content": query}]}


def in_order_of_question(query: str, question: str) -> str:
    """The conditions of a WHERE in the order in which their values or names stand in the
    question; the text of each as it was written.
    """
    try:
        tree = parse_one(query, "sqlite")
    except ValueError:
        return query
    where = tree.args.get("where")
    if where is None or tree.find(exp.Or, exp.Subquery):
        return query
    parts = list(where.this.flatten()) if isinstance(where.this, exp.And) else []
    if len(parts) < 2 or " WHERE " not in query:
        return query
    texts = [part.sql(dialect="sqlite") for part in parts]
    head, _, tail = query.partition(" WHERE ")
    if tail.rstrip("; ") != " AND ".join(texts):
        return query
    spoken = question.casefold()

    def place(number: int) -> tuple[int, int]:
        names = [str(each.this) for each in parts[number].find_all(exp.Literal)]
        names += [c.name.replace("_", " ") for c in parts[number].find_all(exp.Column)]
        found = [spoken.find(name.casefold()) for name in names]
        return next((at for at in found if at >= 0), len(spoken)), number

    order = sorted(range(len(parts)), key=place)
    return f"{head} WHERE {' AND '.join(texts[number] for number in order)};"


def fitted(row: dict[str, Any], tokenizer: Tokenizer) -> dict[str, Any] | None:
    """The row with the end of its question, as an evaluation shows it; None where the answer is too
    long to be given.
    """
    asked, answer = row["messages"]
    if len(tokenizer.encode(answer["content"])) > ANSWER:
        return None
    ids = tokenizer.encode(asked["content"])[-(CONTEXT - ANSWER - 6) :]
    return {"messages": [{**asked, "content": tokenizer.decode(ids)}, answer]}


def write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def prepare(questions: Path, text: Path, folder: Path, passes: int) -> None:
    """Shards of prose and rows as text, a tokenizer of both, and rows in two files."""
    rng = random.Random(7)
    asked = read_questions(questions / "train.jsonl")
    rows = [varied(question, rng) for question in asked]
    documents = ["\n\n".join(m["content"] for m in row["messages"]) for row in rows]
    for shard in sorted(text.glob("*.parquet"))[:-1]:
        documents += pq.read_table(shard).column("text").to_pylist()[:PROSE_DOCUMENTS]
    rng.shuffle(documents)
    (folder / "text").mkdir(parents=True, exist_ok=True)
    for number, part in enumerate((documents[300:], documents[:300])):
        table = pa.table({"text": part})
        pq.write_table(table, folder / "text" / f"shard_{number:05d}.parquet", row_group_size=500)
    run(folder, "tok-train", f"--data={folder / 'text'}", "--vocab-size=2048")
    tokenizer = Tokenizer.load(folder / "tokenizer")
    single = [len(created_tables(q.facts.schema, "sqlite")) == 1 for q in asked]
    short = [q for q, alone in zip(asked, single, strict=True) if alone]
    long = [row for row, alone in zip(rows, single, strict=True) if not alone]
    many = [varied(question, rng) for _ in range(passes) for question in short]
    rng.shuffle(many)
    for name, part in (("single", many), ("several", long)):
        kept = [row for row in (fitted(row, tokenizer) for row in part) if row is not None]
        write_rows(folder / f"{name}.jsonl", kept)


def run(folder: Path, command: str, *words: str) -> None:
    """A nanochat command on one base directory."""
    environment = {**os.environ, "NANOCHAT_BASE_DIR": str(folder)}
    told = [sys.executable, "-m", "nanochat", command, *words]
    print("$ nanochat", command, *words, flush=True)
    subprocess.run(told, env=environment, check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("questions", type=Path)
    parser.add_argument("text", type=Path)
    parser.add_argument("--base-dir", type=Path, required=True)
    parser.add_argument("--base-steps", type=int, default=120)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--passes", type=int, default=6, help="variations of each short row")
    told = parser.parse_args()
    folder = told.base_dir.absolute()
    prepare(told.questions.absolute(), told.text.absolute(), folder, told.passes)
    shape = ("--device-type=cpu", "--total-batch-size=4608", f"--max-seq-len={CONTEXT}")
    quiet = ("--model-tag=d4", "--eval-tokens=9216", "--sample-every=0", *shape)
    base = ("--generation=modern", "--depth=4", "--head-dim=64", "--core-metric-every=-1")
    run(
        folder,
        "base-train",
        *base,
        f"--data={folder / 'text'}",
        f"--num-iterations={told.base_steps}",
        "--warmdown-ratio=0.2",
        "--final-lr-frac=0.5",
        "--eval-every=-1",
        *quiet,
    )
    run(
        folder,
        "chat-sft",
        "--source=base",
        "--mixture=none",
        f"--data={folder / 'single.jsonl'}",
        f"--data={folder / 'several.jsonl'}:{told.passes}",
        f"--num-iterations={told.steps}",
        "--init-lr-frac=1.0",
        "--warmup-ratio=0.02",
        "--eval-every=100",
        *quiet,
    )
    test = told.questions.absolute() / "test.jsonl"
    words = ("-i", "sft", "-a", "SQL", f"--sql-data={test}", f"--max-new-tokens={ANSWER}")
    run(folder, "chat-eval", *words, "--device-type=cpu")


if __name__ == "__main__":
    main()
