"""What the readers make of real rows, and how they judge."""

from __future__ import annotations

import json

import pytest

from nanochat.tasks.gsm8k import GSM8K, answer_parts, final_number, spoken
from nanochat.tasks.humaneval import HumanEval, build_program, extract_code
from nanochat.tasks.smoltalk import SmolTalk

PROBLEM = {
    "task_id": "T/0",
    "prompt": "from typing import List\n\ndef helper(x):\n    return x\n\n"
    'def total(xs: List[int]) -> int:\n    """ Sum. """\n',
    "entry_point": "total",
    "canonical_solution": "    n = 0\n    for x in xs:\n        n += helper(x)\n    return n\n",
    "test": "def check(candidate):\n    assert candidate([1, 2]) == 3\n",
}


@pytest.fixture
def problem(base_dir):
    folder = base_dir / "task_data" / "humaneval"
    folder.mkdir(parents=True)
    (folder / "HumanEval.jsonl").write_text(json.dumps(PROBLEM) + "\n")
    return HumanEval()


def test_calculator_calls_become_parts():
    parts = answer_parts("Half is 48/2 = <<48/2=24>>24.\nIn all <<24+48=72>>72\n#### 72")
    assert [(p["type"], p["text"]) for p in parts] == [
        ("text", "Half is 48/2 = "),
        ("python", "48/2"),
        ("python_output", "24"),
        ("text", "24.\nIn all "),
        ("python", "24+48"),
        ("python_output", "72"),
        ("text", "72\n#### 72"),
    ]
    assert spoken(parts) == "Half is 48/2 = 24.\nIn all 72\n#### 72"
    assert answer_parts("<<odd>> no call") == [{"type": "text", "text": "<<odd>> no call"}]


@pytest.mark.parametrize(
    "text, wanted",
    [
        ("#### 72", "72"),
        ("so ####1,234", "1234"),
        ("#### $5.50 a day", "5.50"),
        ("#### -3.", "-3"),
        ("#### 7 then #### 8", "7"),
        ("72", None),
        ("#### many", None),
        ("", None),
    ],
)
def test_final_number(text, wanted):
    found = final_number(text)
    assert (None if found is None else str(found)) == wanted


def test_gsm8k_judges_numbers_not_text(base_dir):
    folder = base_dir / "task_data" / "gsm8k"
    folder.mkdir(parents=True)
    (folder / "test.jsonl").write_text(
        json.dumps({"question": "q", "answer": "<<36*2=72>>72\n#### 72"}) + "\n"
    )
    task = GSM8K("test")
    assert task.evaluate(task[0], "well #### 72.0") and task.reward(task[0], "#### 72") == 1.0
    assert (
        not task.evaluate(task[0], "#### 720")
        and not task.evaluate(task[0], "72")
        and task.reward(task[0], "") == 0.0
    )


BODY = "    return sum(xs)\n"
WHOLE = "def total(xs):\n    return sum(xs)\n"


@pytest.mark.parametrize(
    "completion",
    [
        BODY,
        "return sum(xs)",
        BODY + "\ndef other():\n    raise SystemExit(1)\n",
        BODY + "\nprint(total(3))\n",
        WHOLE,
        PROBLEM["prompt"] + BODY,
        f"Here it is:\n```python\n{WHOLE}```\nDone.",
        f"First\n```\nx = 1\n```\nthen\n```py\n{WHOLE}\n```",
        f"```python\n{WHOLE}",
    ],
)
def test_right_programs_pass_whatever_their_form(completion, problem):
    pytest.importorskip("nanochat.tasks.sandbox")
    assert problem.evaluate(problem[0], completion)


@pytest.mark.parametrize(
    "completion", ["", "    return 4", "```python\ndef total(xs): return 4\n```", "    exit(0)"]
)
def test_wrong_programs_fail(completion, problem):
    pytest.importorskip("nanochat.tasks.sandbox")
    assert not problem.evaluate(problem[0], completion)


def test_extract_code_takes_the_defining_block():
    text = "```\nimport os\n```\n```python\ndef f():\n    pass\n```"
    assert (
        extract_code(text, "f") == "def f():\n    pass\n"
        and extract_code(text, "g") == "import os\n"
    )
    assert build_program("def f():\n    '''d'''\n", "    return 1", "f", "T").endswith(
        "T\n\ncheck(f)\n"
    )


def test_humaneval_canonical_solutions(shared_dir, monkeypatch):
    """All 164 problems parse; a few are run (the whole set is a benchmark)."""
    monkeypatch.setenv("NANOCHAT_DATA_DIR", str(shared_dir / "data"))
    task = HumanEval()
    assert len(task) == 164
    for row in task.rows:
        for form in (
            row["canonical_solution"],
            f"```python\n{row['prompt']}{row['canonical_solution']}```",
        ):
            compile(
                build_program(row["prompt"], form, row["entry_point"], row["test"]),
                row["task_id"],
                "exec",
            )
    for index in (0, 32, 38):  # 32 and 38 lean on helpers in the prompt
        assert task.evaluate(task[index], task.rows[index]["canonical_solution"])
        assert not task.evaluate(task[index], "    return None")


def test_smoltalk_reads_conversations_and_their_stand_in(base_dir):
    folder = base_dir / "task_data" / "chat"
    folder.mkdir(parents=True)
    messages = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}]
    (folder / "val.jsonl").write_text(json.dumps({"messages": messages, "source": "x"}) + "\n")
    assert SmolTalk("test")[0] == {"messages": messages}
    with pytest.raises(NotImplementedError, match="training only"):
        SmolTalk("test").evaluate({}, "")
