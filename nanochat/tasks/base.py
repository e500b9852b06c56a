"""What a task is: one object that gives training rows, judges completions and rewards them.

A conversation is a plain dict: `{"messages": [{"role", "content"}, ...]}` where an assistant's
content is a string or a list of parts `{"type": "text"|"python"|"python_output", "text": ...}`. A
task may add keys of its own (such as `letters`) that its `evaluate` reads back; the tokenizer
ignores them. `tool` False asks whoever has the question answered to leave the calculator off.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import numpy as np

Conversation = dict[str, Any]
EvalType = Literal["generative", "categorical"]


class Task:
    """A list of conversations that can judge an answer to any of its rows.

    `baseline` is the score of blind guessing, in [0, 1]. Subclasses implement `__len__`,
    `__getitem__`, `evaluate`.
    """

    name: str = "task"
    eval_type: EvalType = "generative"
    baseline: float = 0.0

    def __len__(self) -> int:
        raise NotImplementedError

    def __getitem__(self, index: int) -> Conversation:
        raise NotImplementedError

    def __iter__(self) -> Iterator[Conversation]:
        for index in range(len(self)):
            yield self[index]

    def evaluate(self, conversation: Conversation, completion: str) -> bool:
        """Whether `completion` (categorical: the predicted letter) answers the conversation's last
        user turn.
        """
        raise NotImplementedError(f"{self.name} is for training only: it cannot judge an answer")

    def reward(self, conversation: Conversation, completion: str) -> float:
        """What reinforcement learning pays for `completion`, by default 1 for a right answer and 0
        for a wrong one.
        """
        return float(self.evaluate(conversation, completion))

    def index(self, position: int) -> int:
        """`position` as an index from 0, negative ones counted from the end. IndexError outside the
        task.
        """
        length = len(self)
        if not -length <= position < length:
            raise IndexError(f"{self.name} has {length} rows, so there is no row {position}")
        return position % length


class Slice(Task):
    """Rows `start` to `stop` of a task, judged by that task."""

    def __init__(self, task: Task, start: int = 0, stop: int | None = None) -> None:
        self.task = task
        self.rows = range(len(task))[start:stop]
        self.name, self.eval_type, self.baseline = task.name, task.eval_type, task.baseline

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Conversation:
        return self.task[self.rows[self.index(index)]]

    def evaluate(self, conversation: Conversation, completion: str) -> bool:
        return self.task.evaluate(conversation, completion)

    def reward(self, conversation: Conversation, completion: str) -> float:
        return self.task.reward(conversation, completion)


class WithoutTool(Task):
    """The same questions, to be answered without the calculator."""

    def __init__(self, task: Task) -> None:
        self.task, self.name = task, f"{task.name}-without-tool"
        self.eval_type, self.baseline = task.eval_type, task.baseline

    def __len__(self) -> int:
        return len(self.task)

    def __getitem__(self, index: int) -> Conversation:
        return {**self.task[index], "tool": False}

    def evaluate(self, conversation: Conversation, completion: str) -> bool:
        return self.task.evaluate(conversation, completion)

    def reward(self, conversation: Conversation, completion: str) -> float:
        return self.task.reward(conversation, completion)


class Mixture(Task):
    """Several tasks shuffled together, each for its number of epochs.

    `parts`: tasks, or (task, epochs) pairs; 2.5 epochs are two whole passes and a random half of a
    third one. The order depends only on `seed` and the tasks' lengths, so any row can be read at
    any time, on any rank. Rows carry `origin`, the path to the task they came from, so that the
    mixture can judge them too. Raises ValueError when there is no part or an epoch count is
    negative.
    """

    def __init__(self, parts: Sequence[Task | tuple[Task, float]], seed: int = 42) -> None:
        pairs = [part if isinstance(part, tuple) else (part, 1.0) for part in parts]
        if not pairs:
            raise ValueError("parts: a mixture of no tasks has no rows; give at least one task")
        bad = [f"{task.name}: {epochs}" for task, epochs in pairs if not epochs >= 0]
        if bad:
            raise ValueError(f"epochs: must be 0 or more, got {', '.join(bad)}")
        self.tasks = [task for task, _ in pairs]
        self.epochs = [float(epochs) for _, epochs in pairs]
        kinds = {task.eval_type for task in self.tasks}
        self.name = " + ".join(task.name for task in self.tasks)
        self.eval_type = kinds.pop() if len(kinds) == 1 else "generative"
        self._starts = np.cumsum([0] + [len(task) for task in self.tasks]).tolist()
        self._order = _mixed_order([len(task) for task in self.tasks], self.epochs, seed)

    def __len__(self) -> int:
        return len(self._order)

    def locate(self, index: int) -> tuple[int, int]:
        """The (task number, row of that task) that row `index` of the mixture reads."""
        place = int(self._order[self.index(index)])
        part = bisect.bisect_right(self._starts, place) - 1
        return part, place - self._starts[part]

    def __getitem__(self, index: int) -> Conversation:
        part, row = self.locate(index)
        conversation = self.tasks[part][row]
        return {**conversation, "origin": (part, *conversation.get("origin", ()))}

    def _owner(self, conversation: Conversation) -> tuple[Task, Conversation]:
        if not conversation.get("origin"):
            raise ValueError(
                "origin: the conversation does not come from this mixture; judge it with its own "
                "task"
            )
        part, *rest = conversation["origin"]
        return self.tasks[part], {**conversation, "origin": tuple(rest)}

    def evaluate(self, conversation: Conversation, completion: str) -> bool:
        task, own = self._owner(conversation)
        return task.evaluate(own, completion)

    def reward(self, conversation: Conversation, completion: str) -> float:
        task, own = self._owner(conversation)
        return task.reward(own, completion)


def _mixed_order(lengths: list[int], epochs: list[float], seed: int) -> np.ndarray:
    """Row numbers of the concatenated tasks, repeated by epochs and shuffled: int64 (rows,)."""
    rng = np.random.default_rng(seed)
    pieces, start = [], 0
    for length, passes in zip(lengths, epochs, strict=True):
        rows = np.arange(start, start + length, dtype=np.int64)
        whole = int(passes)
        pieces.extend([rows] * whole)
        part = round((passes - whole) * length)
        if part:
            pieces.append(np.sort(rng.permutation(rows)[:part]))
        start += length
    order = np.concatenate(pieces) if pieces else np.zeros(0, dtype=np.int64)
    rng.shuffle(order)
    return order


def multiple_choice_prompt(question: str, letters: Sequence[str], choices: Sequence[str]) -> str:
    """The one wording of every multiple-choice question.

    The letter comes right after the choice without a space: small models bind " text=A" better than
    "A) text", and the letter is then the same token in the question and in the answer.
    """
    lines = [f"- {choice}={letter}" for letter, choice in zip(letters, choices, strict=True)]
    return (
        f"Multiple Choice question: {question}\n"
        + "\n".join(lines)
        + "\n\nRespond only with the letter of the correct answer."
    )


class MultipleChoice(Task):
    """A categorical task: the completion is one of the conversation's `letters`."""

    eval_type: EvalType = "categorical"
    baseline = 0.25

    @staticmethod
    def conversation(
        question: str, letters: Sequence[str], choices: Sequence[str], answer: str
    ) -> Conversation:
        """One question and its right letter. ValueError when `answer` is not among the letters."""
        if answer not in letters:
            raise ValueError(
                f"answer: {answer!r} is not one of the letters {list(letters)}; correct the row"
            )
        messages = [
            {"role": "user", "content": multiple_choice_prompt(question, letters, choices)},
            {"role": "assistant", "content": answer},
        ]
        return {"messages": messages, "letters": list(letters)}

    def evaluate(self, conversation: Conversation, completion: str) -> bool:
        return completion.strip() == conversation["messages"][-1]["content"]
