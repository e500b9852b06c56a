"""HumanEval (arXiv 2107.03374): write a Python function; its hidden tests decide. Runs code only in
the sandbox.
"""

from __future__ import annotations

from typing import Any

from nanochat.tasks.base import Conversation
from nanochat.tasks.catalogue import TASKS
from nanochat.tasks.code_answer import answer_program, defines
from nanochat.tasks.row_task import RowTask, text_of
from nanochat.tasks.sandbox import run_python
from nanochat.tasks.task_data import load_rows

TIMEOUT_S = 10.0
# The tests have a namespace of their own, in which the prompt's helpers are what they were. The
# answer's statements run one after another, and none that fails keeps the next one from running:
# what counts is the function, not an example of its use that reads input, or asserts something
# wrong, or ends the program. The module is not the main one, so guarded examples do not run at all.
PROGRAM = """\
import __future__, ast, sys, types


def load(name, *sources):
    module = types.ModuleType(name)
    sys.modules[name] = module
    flags = 0
    for statement in [node for source in sources for node in ast.parse(source).body]:
        if isinstance(statement, ast.ImportFrom) and statement.module == "__future__":
            for alias in statement.names:
                flags |= getattr(__future__, alias.name).compiler_flag
        try:
            code = compile(ast.Module([statement], []), name, "exec", flags, True)
            exec(code, module.__dict__)
        except BaseException as error:
            print(type(error).__name__, error, file=sys.stderr)
    return module.__dict__


prompt, answer, test, entry_point = {texts!r}
tests = load("tests", prompt, test)
check = tests["check"]
tests[entry_point] = load("solution", prompt, answer)[entry_point]
check(tests[entry_point])
"""


def judging_program(problem: Conversation, completion: str) -> str:
    """A program that ends without an error exactly when the completion passes the problem's tests.

    The prompt always comes first: its imports and helper functions belong to the problem. An answer
    that defines the function replaces the prompt's empty one.
    """
    prompt, entry_point = problem["prompt"], problem["entry_point"]
    answer = answer_program(completion, prompt, entry_point)
    texts = (prompt.rstrip() + "\n    pass\n", answer, problem["test"], entry_point)
    return PROGRAM.format(texts=texts)


class HumanEval(RowTask):
    """164 problems, for evaluation. `unsafe_exec` runs model-written code uncaged where no sandbox
    can be built.
    """

    def __init__(self, split: str = "test", unsafe_exec: bool = False) -> None:
        super().__init__(TASKS["HumanEval"], load_rows("humaneval", split))
        self.unsafe_exec = unsafe_exec

    def read(self, row: dict[str, Any]) -> Conversation:
        prompt, entry_point = text_of(row, "prompt"), text_of(row, "entry_point")
        if not defines(prompt.rstrip() + "\n    pass\n", entry_point):
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
        program = judging_program(conversation, completion)
        return run_python(program, timeout_s=TIMEOUT_S, unsafe=self.unsafe_exec).ok
