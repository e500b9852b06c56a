"""HumanEval (arXiv 2107.03374): write a Python function; its hidden tests decide. Runs code only in
the sandbox.
"""

from __future__ import annotations

import re
from typing import Any

from nanochat.tasks.base import Conversation
from nanochat.tasks.catalogue import TASKS
from nanochat.tasks.row_task import RowTask, text_of
from nanochat.tasks.sandbox import run_python
from nanochat.tasks.task_data import load_rows

TIMEOUT_S = 10.0
_BLOCK = re.compile(
    r"```[ \t]*(?:python|py|python3)?[ \t]*\n(.*?)(?:```|\Z)", re.DOTALL | re.IGNORECASE
)
# A bare completion of the function's body is over where the next thing at the left margin begins.
_NEXT_TOP_LEVEL = re.compile(r"\n(?=[^\s#)\]}'\"])")


def extract_code(completion: str, entry_point: str) -> str:
    """The code in a completion: the first markdown block that defines the function, else the first
    block, else all.
    """
    blocks = _BLOCK.findall(completion)
    if not blocks:
        return completion
    defining = [block for block in blocks if defines(block, entry_point)]
    return (defining or blocks)[0]


def defines(code: str, name: str) -> bool:
    return (
        re.search(rf"^[ \t]*(?:async[ \t]+)?def[ \t]+{re.escape(name)}\b", code, re.MULTILINE)
        is not None
    )


def build_program(prompt: str, completion: str, entry_point: str, test: str) -> str:
    """A program that ends without an error exactly when the completion passes the tests.

    The prompt always comes first: its imports and helper functions belong to the problem. A
    completion that defines the function replaces the prompt's empty one, any other is taken as the
    function's body.
    """
    code = extract_code(completion, entry_point)
    if defines(code, entry_point):
        solution = f"{prompt.rstrip()}\n    pass\n\n{code}"
    else:
        body = code.lstrip("\n")
        if (
            body and not body[0].isspace()
        ):  # the tokenizer's leading spaces are easily lost in a chat answer
            body = "    " + body
        solution = prompt.rstrip() + "\n" + _NEXT_TOP_LEVEL.split(body, maxsplit=1)[0]
    return f"{solution}\n\n{test}\n\ncheck({entry_point})\n"


class HumanEval(RowTask):
    """164 problems, for evaluation. `unsafe_exec` runs model-written code uncaged where no sandbox
    can be built.
    """

    def __init__(self, split: str = "test", unsafe_exec: bool = False) -> None:
        super().__init__(TASKS["HumanEval"], load_rows("humaneval", split))
        self.unsafe_exec = unsafe_exec

    def read(self, row: dict[str, Any]) -> Conversation:
        prompt, entry_point = text_of(row, "prompt"), text_of(row, "entry_point")
        if not defines(prompt, entry_point):
            raise ValueError(f"entry_point: {entry_point!r} is no function of the prompt")
        solution = text_of(row, "canonical_solution")
        messages = [
            {"role": "user", "content": prompt},
            {"role": "assistant", "content": f"```python\n{prompt}{solution}\n```"},
        ]
        problem = {"prompt": prompt, "entry_point": entry_point, "test": text_of(row, "test")}
        return {"messages": messages, **problem}

    def evaluate(self, conversation: Conversation, completion: str) -> bool:
        """Raises ValueError when no sandbox can be built and `unsafe_exec` is off: refusing is not
        a wrong answer.
        """
        program = build_program(
            conversation["prompt"], completion, conversation["entry_point"], conversation["test"]
        )
        return run_python(program, timeout_s=TIMEOUT_S, unsafe=self.unsafe_exec).ok
