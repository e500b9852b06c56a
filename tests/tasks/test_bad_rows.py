"""Rows that do not fit are refused with file and line when a task is opened, before any run."""

from __future__ import annotations

import json

import pytest

from nanochat.eval.chat_eval import ChatEvalConfig, open_tasks
from nanochat.tasks.opening import open_task
from nanochat.tasks.rows import read_rows

MMLU = {"question": "2+2?", "choices": ["1", "2", "4", "D"], "answer": 2, "subject": "s"}
GSM8K = {"question": "1+1?", "answer": "<<1+1=2>>2\n#### 2"}
ARC = {"question": "Why?", "choices": {"text": ["a", "b"], "label": ["A", "B"]}, "answerKey": "B"}
OLD_ARC = {
    "question": {"stem": "Why?", "choices": [{"text": "a", "label": "1"}, {"text": "b"}]},
    "answerKey": "1",
}
HUMANEVAL = {
    "prompt": "def f():\n",
    "entry_point": "f",
    "canonical_solution": "    return 1\n",
    "test": "def check(f): pass",
}
CHAT = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}
FILES = {
    "MMLU": ("mmlu/test.jsonl", MMLU),
    "GSM8K": ("gsm8k/test.jsonl", GSM8K),
    "ARC-Easy": ("arc/ARC-Easy/test.jsonl", ARC),
    "ARC-Challenge": ("arc/ARC-Challenge/test.jsonl", ARC),
    "HumanEval": ("humaneval/HumanEval.jsonl", HUMANEVAL),
    "SmolTalk": ("chat/test.jsonl", CHAT),
}
WRONG = [
    *(
        ("MMLU", {**MMLU, "answer": a}, "answer: must be a number from 0")
        for a in (-1, 4, "C", "2")
    ),
    *(("MMLU", {**MMLU, "answer": a}, "answer: must be a number") for a in (None, True, 2.0, [2])),
    ("MMLU", {**MMLU, "choices": ["1", "2", "3"]}, "choices: must be a list of 4 texts"),
    ("MMLU", {**MMLU, "choices": [1, 2, 3, 4]}, "choices: must be a list of 4 texts"),
    ("MMLU", {**MMLU, "choices": "abcd"}, "choices: must be"),
    ("MMLU", {"question": "x", "A": "1", "B": "2", "answer": "A"}, "choices: .* got nothing"),
    ("MMLU", {**MMLU, "question": None}, "question: must be text, got None"),
    ("GSM8K", {**GSM8K, "question": " "}, "question: must be text"),
    *(
        ("GSM8K", {**GSM8K, "answer": f"So it is\n#### {last}"}, "answer: must end in `#### `")
        for last in ("3/4", "1e3", "many", "3 1/2", "1,23", "5k", "2 million", "0x10", "½", "12:30")
    ),
    ("GSM8K", {**GSM8K, "answer": "It is 72."}, "answer: must end in `#### `"),
    ("GSM8K", {**GSM8K, "answer": None}, "answer: must be text, got None"),
    ("GSM8K", {**GSM8K, "answer": 72}, "answer: must be text, got 72"),
    ("GSM8K", {"answer": "#### 2"}, "question: must be text, got nothing"),
    ("ARC-Easy", {**ARC, "answerKey": "C"}, "'C' is not one of the letters"),
    ("ARC-Easy", {**ARC, "answerKey": None}, "answerKey: must be text, got None"),
    ("ARC-Easy", {**ARC, "answerKey": 1}, "answerKey: must be text, got 1"),
    ("ARC-Easy", {**ARC, "choices": ["a", "b"]}, "choices: must hold lists"),
    ("ARC-Easy", {**ARC, "choices": {"text": ["a"], "label": ["A"]}}, "give 2 or more"),
    ("ARC-Easy", {**ARC, "choices": {"text": ["a"], "label": ["A", "B"]}}, "1 texts with 2"),
    (
        "ARC-Easy",
        {**ARC, "choices": {"text": ["a", "b"], "label": ["B", "B"]}},
        "not all different",
    ),
    ("ARC-Challenge", OLD_ARC, "labels and texts must be text"),
    ("ARC-Challenge", {**OLD_ARC, "question": {"stem": "x"}}, "question.choices: must be a list"),
    ("HumanEval", {**HUMANEVAL, "test": None}, "test: must be text"),
    ("HumanEval", {**HUMANEVAL, "entry_point": "g"}, "'g' is no function of the prompt"),
    ("HumanEval", {}, "prompt: must be text, got nothing"),
    ("SmolTalk", {"messages": CHAT["messages"][:1]}, "the last message is the user's"),
    ("SmolTalk", {"messages": CHAT["messages"][::-1]}, "message 1 has role 'assistant'"),
    ("SmolTalk", {"text": "x"}, "unknown fields"),
    ("SmolTalk", 3, "a JSON number"),
    *((name, [1], "a JSON object is needed") for name in FILES if name != "SmolTalk"),
]


@pytest.fixture
def file(base_dir):
    def write(name: str, *rows, text: bytes | None = None):
        path = base_dir / "task_data" / FILES[name][0]
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        path.write_bytes(lines.encode() if text is None else text)
        return path

    return write


@pytest.mark.parametrize("name, row, reason", WRONG)
def test_a_row_that_does_not_fit_is_refused_with_its_line(file, name, row, reason):
    good = FILES[name][1]
    path = file(name, good, row, good)
    with pytest.raises(ValueError, match=reason) as error:
        open_task(name, unsafe_exec=True)
    assert str(error.value).startswith(f"{path}:2: ") and "\n" not in str(error.value)


@pytest.mark.parametrize("name", FILES)
def test_good_rows_are_taken_and_an_empty_file_is_not(file, name):
    good = json.dumps(FILES[name][1]).encode()
    file(name, text=b"\xef\xbb\xbf" + good + b"\r\n\r\n  \n" + good)
    assert len(open_task(name, unsafe_exec=True)) == 2
    for text in (b"", b"\n\n", b"\xef\xbb\xbf"):
        path = file(name, text=text)
        with pytest.raises(ValueError, match=f"{path}:1: holds no rows"):
            open_task(name, unsafe_exec=True)


def test_several_bad_rows_are_told_together(file):
    path = file("MMLU", *[{**MMLU, "answer": -1}] * 9)
    with pytest.raises(ValueError) as error:
        open_task("MMLU")
    lines = str(error.value).split("\n")
    assert lines[4].startswith(f"{path}:5: ") and lines[5] == "... and 4 more rows"


def test_a_bad_file_stops_an_evaluation_that_did_not_name_it(file):
    path = file("MMLU", MMLU, {**MMLU, "answer": -1})
    file("ARC-Easy", ARC)
    with pytest.raises(ValueError, match=f"{path}:2: answer"):
        open_tasks(ChatEvalConfig())
    file("MMLU", MMLU)
    tasks, absent = open_tasks(ChatEvalConfig(unsafe_exec=True))
    assert {"MMLU", "ARC-Easy"} <= set(tasks) and "GSM8K test not found" in absent["GSM8K"]


@pytest.mark.parametrize(
    "line, reason",
    [
        (b"{nope", "not JSON"),
        (b'{"question": "caf\xe9"}', r"not UTF-8 \(byte 18 of the line\)"),
        (b"[" * 100_000, "not usable JSON"),
        (b'{"a": ' + b"9" * 5000 + b"}", "not usable JSON"),
        (
            b'{"question": "q", "answer": "#### 2", "answer": "#### 3"}',
            "the key 'answer' is there 2",
        ),
    ],
)
def test_lines_that_cannot_be_read(file, line, reason):
    good = json.dumps(GSM8K).encode()
    path = file("GSM8K", text=good + b"\n\n" + line + b"\n")
    with pytest.raises(ValueError, match=f"{path}:3: .*{reason}"):
        open_task("GSM8K")


@pytest.mark.parametrize(
    "head, kind",
    [(b"PAR1", "a parquet file"), (b"\x1f\x8b\x08", "gzip"), (b"7z\xbc\xaf'\x1c", "a 7z")],
)
def test_a_file_of_another_kind_is_told_apart(file, head, kind):
    path = file("MMLU", text=head + b"\0" * 600)
    with pytest.raises(ValueError, match=f"{path}: not JSONL but {kind}"):
        open_task("MMLU")


def test_what_a_conversation_file_holds_besides_is_told(file, capsys):
    odd = {"role": "assistant", "content": "b", "reasoning_content": "hmm"}
    file("SmolTalk", CHAT, {"messages": [CHAT["messages"][0], odd]})
    assert len(open_task("SmolTalk")) == 2
    said = capsys.readouterr().out
    assert "not used: " in said and "reasoning_content" in said and "(1 rows)" in said


def test_only_a_newline_ends_a_line(file):
    odd = "one\u2028two\u2029three\u0085four\x0bfive"
    row = {"question": odd, "answer": "#### 2"}
    file("GSM8K", text=(json.dumps(row, ensure_ascii=False) + "\n").encode())
    task = open_task("GSM8K")
    assert len(task) == 1 and task[0]["messages"][0]["content"] == odd


def test_rows_know_their_place(tmp_path):
    for name, text in (("a.jsonl", "1\n\n2\n"), ("b.jsonl", "\n3")):
        (tmp_path / name).write_text(text)
    rows = read_rows([tmp_path / "a.jsonl", tmp_path / "b.jsonl"])
    assert list(rows) == rows[:] == list(rows.each()) == [1, 2, 3] and rows[-1] == 3
    assert [rows.place(i) for i in range(3)] == [
        f"{tmp_path}/a.jsonl:1",
        f"{tmp_path}/a.jsonl:3",
        f"{tmp_path}/b.jsonl:2",
    ]


def test_public_conversations_need_only_be_renderable(base_dir):
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = base_dir / "task_data" / "smoltalk" / "train.parquet"
    path.parent.mkdir(parents=True)
    ends_with_user = {"messages": [*CHAT["messages"], {"role": "user", "content": "bye"}]}
    pq.write_table(pa.Table.from_pylist([CHAT, ends_with_user]), path)
    assert len(open_task("SmolTalk", "train")) == 2
    pq.write_table(pa.Table.from_pylist([CHAT, {"messages": CHAT["messages"][::-1]}]), path)
    with pytest.raises(ValueError, match=f"{path}, row 2: message 1 has role 'assistant'"):
        open_task("SmolTalk", "train")
