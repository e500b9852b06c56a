"""Questions about databases as a task: an answer is right when its query, run on generated rows,
gives what the expected query gives (nanochat/sql/testbed.py)."""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from nanochat.runtime.base_dir import base_dir, expanded
from nanochat.sql.answer_gate import GateVerdict, correction, gated
from nanochat.sql.dialect_parser import exp
from nanochat.sql.knowledge import KnowledgeIndex, few_texts
from nanochat.sql.match import same_result
from nanochat.sql.prompt import SQLFacts, question_messages
from nanochat.sql.query_shape import tables_of
from nanochat.sql.testbed import Testbed, make_testbed
from nanochat.tasks.base import Breakdown, Conversation
from nanochat.tasks.catalogue import SQL, TASKS
from nanochat.tasks.row_task import RowTask
from nanochat.tasks.rows import Rows, read_rows
from nanochat.tasks.sql_judge import SQLVerdict, judge_answer
from nanochat.tasks.sql_questions import question_of
from nanochat.tasks.task_data import DataNotFound

EXECUTABLE_REWARD = 0.1  # of a query that runs and gives something else
KEPT_TESTBEDS, KEPT_VERDICTS = 4096, 65_536
SHOWN_CASES, SHOWN_ROWS = 12, 6
CLAUSES = {
    "WHERE": exp.Where,
    "JOIN": exp.Join,
    "GROUP BY": exp.Group,
    "HAVING": exp.Having,
    "ORDER BY": exp.Order,
    "LIMIT": exp.Limit,
    "DISTINCT": exp.Distinct,
    "aggregate": exp.AggFunc,
    "subquery": exp.Subquery,
    "set operation": exp.SetOperation,
}


def sql_rows(split: str, data: str | None) -> Rows:
    """The rows of a split. `data`: a file that `nanochat sql build` has written, which has its test
    rows beside it in NAME.test.jsonl; without them the file is both. By default `sql/` in the
    folders of task data. DataNotFound where there are none.
    """
    if data is not None:
        path = expanded(data)
        beside = path.with_name(f"{path.stem}.test{path.suffix}")
        return read_rows([beside if split != "train" and beside.is_file() else path])
    folders = [base_dir() / "task_data"]
    if os.environ.get("NANOCHAT_DATA_DIR"):
        folders.insert(0, expanded(os.environ["NANOCHAT_DATA_DIR"]))
    places = [folder / "sql" / f"{split}.jsonl" for folder in folders]
    found = next((place for place in places if place.is_file()), None)
    if found is None:
        raise DataNotFound(
            f"{SQL} {split} not found (looked for {', '.join(map(str, places))}); name a file of "
            "questions with --sql-data, or make one with `nanochat sql build`"
        )
    return read_rows([found])


class SQLTask(RowTask):
    """The questions of a file, each with its schema and the expected query. `unsafe_exec` runs
    model-written queries uncaged where no sandbox can be built. `knowledge`: a folder of which the
    few pieces that fit a question are put before it, never its own expected query. `gate`: an
    answer that the dialect does not understand is asked for once more.
    """

    def __init__(
        self,
        split: str = "test",
        data: str | None = None,
        unsafe_exec: bool = False,
        knowledge: str | None = None,
        gate: bool = False,
    ) -> None:
        self.gate = gate
        self.known = KnowledgeIndex(knowledge) if knowledge else None
        super().__init__(TASKS[SQL], sql_rows(split, data))
        self.unsafe_exec = unsafe_exec
        self._verdict = lru_cache(KEPT_VERDICTS)(self._judge)

    def read(self, row: dict[str, Any]) -> Conversation:
        question = question_of(row)
        messages = list(question.messages)
        if self.known is not None:
            facts = question.facts
            known = self.known.chosen(question.question, few_texts, leave_out=facts.query)
            asked = question_messages(question.question, facts.schema, facts.dialect, known)
            messages = [*asked, messages[-1]]
        return {
            "messages": messages,
            "question": question.question,
            "facts": question.facts,
        }

    def second_try(self, conversation: Conversation, completion: str) -> Conversation | None:
        facts: SQLFacts = conversation["facts"]
        verdict = gated(completion, facts.dialect) if self.gate else GateVerdict()
        if not verdict.reason:
            return None
        *asked, expected = conversation["messages"]
        said = {"role": "assistant", "content": completion or " "}
        told = {"role": "user", "content": correction(facts.dialect, verdict.reason)}
        return {**conversation, "messages": [*asked, said, told, expected]}

    def verdict(self, conversation: Conversation, completion: str) -> SQLVerdict:
        """What became of an answer."""
        return self._verdict(conversation["facts"], completion)

    def _judge(self, facts: SQLFacts, completion: str) -> SQLVerdict:
        try:
            bed = testbed_of(facts)
        except ValueError as error:
            return SQLVerdict(reason="unanswerable", told=str(error))
        return judge_answer(bed, completion, self.unsafe_exec)

    def evaluate(self, conversation: Conversation, completion: str) -> bool:
        """CageUnavailable (a ValueError) when no sandbox can be built and `unsafe_exec` is off."""
        return self.verdict(conversation, completion).right

    def reward(self, conversation: Conversation, completion: str) -> float:
        """1 for the expected result, a little for a query that runs at all."""
        verdict = self.verdict(conversation, completion)
        return 1.0 if verdict.right else EXECUTABLE_REWARD * verdict.executable

    def breakdown(
        self, conversations: Sequence[Conversation], completions: Sequence[str]
    ) -> Breakdown:
        parts: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
        counts: Counter[str] = Counter()
        wrong = []
        for conversation, completion in zip(conversations, completions, strict=True):
            verdict = self.verdict(conversation, completion)
            counts[verdict.reason] += 1
            parts["measure"]["executable"].append(int(verdict.executable))
            parts["measure"]["exact match"].append(int(verdict.exact))
            parts["measure"]["execution match"].append(int(verdict.right))
            for kind, name in _places(conversation["facts"]):
                parts[kind][name].append(int(verdict.right))
            if not verdict.right:
                wrong.append(_case(conversation, completion, verdict))
        worst = _varied(wrong)
        ordered = {kind: dict(sorted(of.items())) for kind, of in parts.items()}
        return Breakdown(parts=ordered, counts=dict(counts.most_common()), cases=worst)


@lru_cache(KEPT_TESTBEDS)
def testbed_of(facts: SQLFacts) -> Testbed:
    """The testbed of a question; the newest are kept. ValueError where the expected query does not
    run.
    """
    return make_testbed(facts)


def _places(facts: SQLFacts) -> list[tuple[str, str]]:
    """The groups that a question belongs to, as (kind, name)."""
    source = Path(re.sub(r":\d+$", "", facts.source)).name or "(not told)"
    found = [("source", source), ("dialect", facts.dialect)]
    try:
        tree = testbed_of(facts).tree
    except ValueError:
        return found
    n_tables = len(tables_of(tree))
    found.append(("tables", str(n_tables) if n_tables < 4 else "4 and more"))
    clauses = [name for name, kind in CLAUSES.items() if tree.find(kind) is not None]
    return found + [("clause", name) for name in clauses or ["(none)"]]


def _case(conversation: Conversation, completion: str, verdict: SQLVerdict) -> dict[str, Any]:
    """A wrong answer beside the expected one, with the results where they first differ."""
    facts: SQLFacts = conversation["facts"]
    case = {
        "question": conversation["question"],
        "expected": facts.query,
        "answer": verdict.query or completion,
        "reason": verdict.reason + (f": {verdict.told}" if verdict.told else ""),
    }
    if verdict.reason != "wrong result":
        return case
    bed = testbed_of(facts)
    for ours, theirs in zip(bed.expected, verdict.results, strict=True):
        if not same_result(ours.rows, theirs.rows, bed.order_matters):
            case["expected_rows"] = [list(map(_shown, row)) for row in ours.rows[:SHOWN_ROWS]]
            case["answer_rows"] = [list(map(_shown, row)) for row in theirs.rows[:SHOWN_ROWS]]
            case["n_rows"] = [len(ours.rows), len(theirs.rows)]
            break
    return case


def _shown(value: Any) -> str:
    return "NULL" if value is None else str(value)[:80]


def _varied(cases: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Some of the wrong answers, of every way of being wrong."""
    ways: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for case in cases:
        ways[case["reason"].partition(":")[0]].append(case)
    found: list[dict[str, Any]] = []
    while len(found) < min(SHOWN_CASES, len(cases)):
        for way in ways.values():
            if way and len(found) < SHOWN_CASES:
                found.append(way.pop(0))
    return found
