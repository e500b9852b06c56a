"""HumanEval judges what a function does, however the answer is written down."""

from __future__ import annotations

import json
import textwrap

import pytest

from nanochat.tasks.code_answer import answer_program, defines
from nanochat.tasks.humaneval import HumanEval, judging_program
from nanochat.tasks.sandbox import run_python

PROMPT = """\
from typing import List

def helper(x):
    return x

def total(xs: List[int]) -> int:
    \"\"\" Sum.
    >>> total([1, 2])
    3
    \"\"\"
"""
PROBLEM = {
    "task_id": "T/0",
    "prompt": PROMPT,
    "entry_point": "total",
    "canonical_solution": "    n = 0\n    for x in xs:\n        n += helper(x)\n    return n\n",
    "test": "def check(candidate):\n    assert candidate([1, 2]) == 3\n    assert helper(4) == 4\n"
    "    assert total([5]) == 5\n",
}
BODY = "    n = 0\n    for x in xs:\n        n += x\n    return n\n"
WHOLE = "def total(xs):\n    n = 0\n    for x in xs:\n        n += x\n    return n\n"


def indented(by: str) -> str:
    return textwrap.indent(WHOLE, by)


def fenced(code: str) -> str:
    return f"```python\n{code}```\n"


RIGHT = {
    "list item": f"1. Here:\n\n   ```python\n{indented('   ')}   ```\n2. Done",
    "dash fence": f"- ```python\n{indented('  ')}  ```\n",
    "quote": "> ```python\n"
    + "".join("> " + line + "\n" for line in WHOLE.splitlines())
    + "> ```\n",
    "tab list": f"*\t```py\n{indented(chr(9))}\t```",
    "crlf": f"Sure:\r\n```python\r\n{WHOLE.replace(chr(10), chr(13) + chr(10))}```\r\n",
    "crlf bare": WHOLE.replace("\n", "\r\n"),
    "cr body": BODY.replace("\n", "\r"),
    "future": fenced(f"from __future__ import annotations\n{WHOLE}"),
    "future typed": "```python\nfrom __future__ import annotations\n"
    "from dataclasses import dataclass\n@dataclass\nclass N:\n    v: int\n"
    "    next: 'N | None' = None\ndef total(xs: Foo) -> Bar:\n"
    "    return sum(N(x).v for x in xs)\n```",
    "unittest main": fenced(
        f"import unittest\n{WHOLE}\nclass T(unittest.TestCase):\n"
        "    def test_it(self):\n        self.assertEqual(total([1]), 2)\n\n"
        "unittest.main()\n"
    ),
    "unittest guard": fenced(
        f"import unittest\n{WHOLE}\nif __name__ == '__main__':\n    unittest.main()\n"
    ),
    "doctest guard": fenced(
        f'import doctest\n{WHOLE}\nif __name__ == "__main__":\n'
        "    doctest.testmod()\n    import sys\n    sys.exit(1)\n"
    ),
    "doctest bare": fenced(f"{WHOLE}\nimport doctest\ndoctest.testmod(verbose=True)\n"),
    "exit": fenced(f"{WHOLE}\nimport sys\nsys.exit(0)\n"),
    "input": fenced(f"n = int(input())\n{WHOLE}\nprint(total([n]))\n"),
    "wrong example assert": fenced(f"{WHOLE}\nassert total([1]) == 7\n"),
    "prose around bare": f"Here is the function:\n\n{WHOLE}\nThis works because it adds.\n",
    "prose indented": f"Here is the function:\n\n{indented('    ')}\nThis works, isn't it?\n",
    "several, usage first": f"```python\nprint(total([1]))\n```\nand\n```python\n{WHOLE}```\n",
    "helper in another": "First a helper:\n```python\ndef add(a, b):\n    return a + b\n```\n"
    "Then\n```python\ndef total(xs):\n    n = 0\n    for x in xs:\n"
    "        n = add(n, x)\n    return n\n```\n",
    "helper after it": "```python\ndef total(xs):\n    n = 0\n    for x in xs:\n"
    "        n = add(n, x)\n    return n\n```\nwith\n```python\n"
    "def add(a, b):\n    return a + b\n```\n",
    "bash first": f"```bash\npip install x\n```\n```python\n{WHOLE}```\n```\n3\n```",
    "tabs": "```python\n" + WHOLE.replace("    ", "\t") + "```",
    "tabs body": BODY.replace("    ", "\t"),
    "tabs mixed": "```python\ndef total(xs):\n\tn = 0\n        \n\tfor x in xs:\n"
    "\t    n += x\n\treturn n\n```",
    "2 space body": "  n = 0\n  for x in xs:\n    n += x\n  return n\n",
    "outdented body": "n = 0\nfor x in xs:\n    n += x\nreturn n",
    "first line lost": BODY.lstrip(),
    "body fenced": fenced(f"{BODY}"),
    "body closing fence": f"{BODY}```\n\nExplanation",
    "body then junk": BODY + "\ndef other():\n    raise SystemExit(1)\nprint(total(3))\n",
    "nbsp": "```python\n" + WHOLE.replace("    ", "\u00a0\u00a0\u00a0\u00a0") + "```",
    "bom": "\ufeff" + WHOLE,
    "zero width": "```python\n\u200b" + WHOLE + "```",
    "session": "```\n>>> def total(xs):\n...     return sum(xs)\n...\n>>> total([1])\n1\n```",
    "lambda": "```python\ntotal = lambda xs: sum(xs)\n```",
    "decorated": "```python\nimport functools\n@functools.wraps(print)\ndef total(xs):\n"
    "    return sum(xs)\n```",
    "tilde": f"~~~python\n{WHOLE}~~~",
    "four ticks": f"````python\n{WHOLE}````",
    "unclosed": f"```python\n{WHOLE}",
    "cut in second": f"```python\n{WHOLE}\ndef other(x):\n    return (x +",
    "py2 usage": fenced(f"{WHOLE}\nprint total([1])\n"),
    "magic": fenced(f"!pip install numpy\n{WHOLE}\n"),
    "glued close": "```python\ndef total(xs):\n    return sum(xs)```",
    "no newline prose": f"Answer: ```python\n{WHOLE}```",
    "fence in docstring": '```python\ndef total(xs):\n    """Sum.\n\n    ```\n    total([1])\n'
    '    ```\n    """\n    return sum(xs)\n```',
    "check helper": "```python\ndef check(x):\n    return x\ndef total(xs):\n"
    "    return sum(check(x) for x in xs)\n```",
    "redefines prompt helper": "```python\ndef helper(x):\n    return 0\ndef total(xs):\n"
    "    return sum(xs)\n```",
    "info title": f'```python title="a.py"\n{WHOLE}```',
    "Python3": f"```Python3\n{WHOLE}```",
    "class pre": fenced(f"class Stack:\n    pass\n\n{WHOLE}"),
    "echo prompt": PROMPT + BODY,
    "main function": fenced(f"{WHOLE}\ndef main():\n    print(total([int(input())]))\n\nmain()\n"),
    "only other lang": f"```solution\n{WHOLE}```",
    "html prose": f"<p>Use this</p>\n{WHOLE}<p>done</p>",
    "null": f"```python\n{WHOLE}```\x00",
    "global const": "```python\nSTART = 0\ndef total(xs):\n    return sum(xs, START)\n```",
    "import missing": fenced(f"import numpy as np\n{WHOLE}"),
    "body with multiline string": '    text = """\na\n"""\n    return sum(xs)\n',
    "semicolon": "def total(xs): return sum(xs)",
    "async prose": f"The solution\n=====\n\n{WHOLE}\n---\n* note\n",
    "walrus": "    return (n := sum(xs))",
    "indented in a list": "1. Define:\n   def total(xs):\n       return sum(xs)\n2. Call it.",
    "raise KeyboardInterrupt": f"```python\n{WHOLE}\nraise KeyboardInterrupt\n```",
    "typing self": "```python\nfrom typing import *\ndef total(xs: List[int]) -> int:\n"
    "    return sum(xs)\n```",
}
WRONG = {
    "empty": "",
    "wrong": "    return 4",
    "wrong fenced": "```python\ndef total(xs): return 4\n```",
    "exit body": "    exit(0)",
    "pass": "pass",
    "stub": "```python\ndef total(xs):\n    ...\n```",
    "prose": "I cannot do that, sorry.",
    "os._exit": "```python\nimport os\ndef total(xs):\n    os._exit(0)\n```",
    "sysexit in fn": "```python\nimport sys\ndef total(xs):\n    sys.exit(0)\n```",
    "name only": "total",
    "class method": "```python\nclass A:\n    def total(self, xs):\n        return sum(xs)\n```",
    "other name": "```python\ndef totall(xs):\n    return sum(xs)\n```",
    "exit at top": "import os\nos._exit(0)",
    "redefined wrong last": "```python\ndef total(xs):\n    return sum(xs)\ndef total(xs):\n"
    "    return 1\n```",
}


@pytest.fixture
def problem(base_dir):
    folder = base_dir / "task_data" / "humaneval"
    folder.mkdir(parents=True)
    (folder / "HumanEval.jsonl").write_text(json.dumps(PROBLEM) + "\n")
    return HumanEval()


def test_the_task_runs_what_it_is_given(problem):
    row = problem[0]
    assert problem.evaluate(row, row["messages"][-1]["content"])
    assert problem.evaluate(row, PROBLEM["canonical_solution"])
    assert not problem.evaluate(row, "    return None")


@pytest.mark.parametrize("name", RIGHT)
def test_right_answers_pass_whatever_their_form(name):
    result = run_python(judging_program(PROBLEM, RIGHT[name]), timeout_s=20)
    assert result.ok, (result.reason, result.stderr, answer_program(RIGHT[name], PROMPT, "total"))


@pytest.mark.parametrize("name", WRONG)
def test_wrong_answers_fail(name):
    assert not run_python(judging_program(PROBLEM, WRONG[name]), timeout_s=20).ok


def test_the_first_block_that_defines_the_function_counts():
    text = (
        "```\nimport os\n```\n```python\ndef f():\n    pass\n```\n```\ndef f():\n    return 1\n```"
    )
    assert answer_program(text, "def f():\n", "f") == "import os\n\ndef f():\n    pass"
    assert defines("async def f():\n    pass", "f") and not defines("x = f", "f")
    assert not defines("def f(:", "f") and not defines("(" * 100_000, "f")


def test_long_prose_is_read_quickly_and_is_no_program():
    prose = "\n".join(f"Line {i} (of many: it's prose, total" for i in range(3000))
    assert answer_program(prose, PROMPT, "total") == ""


def test_canonical_solutions(shared_dir, monkeypatch):
    """All 164 problems in many forms parse; a few are run (the whole set is a benchmark)."""
    monkeypatch.setenv("NANOCHAT_DATA_DIR", str(shared_dir / "data"))
    task = HumanEval()
    assert len(task) == 164
    for raw, row in zip(task.rows, task, strict=True):
        body = raw["canonical_solution"]
        for form in (
            body,
            textwrap.dedent(body).lstrip(),
            body.replace("    ", "\t"),
            f"Here it is:\n\n{raw['prompt']}{body}\n\nIt works: yes, it does.\n",
            f"1. Code\n\n   ```py\n{textwrap.indent(raw['prompt'] + body, '   ')}   ```\n",
        ):
            assert defines(
                answer_program(form, raw["prompt"], raw["entry_point"]), raw["entry_point"]
            )
            compile(judging_program(row, form), raw["task_id"], "exec")
    for index in (0, 32, 33, 38):  # 32 and 38 lean on helpers in the prompt, 33 on itself
        assert task.evaluate(task[index], task.rows[index]["canonical_solution"])
        assert not task.evaluate(task[index], "    return None")
