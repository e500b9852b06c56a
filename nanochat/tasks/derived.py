"""Tasks made of other tasks: some of the rows, the same questions without the calculator, several
tasks shuffled into one. The tasks they are made of judge the answers.
"""

from __future__ import annotations

import bisect
from collections.abc import Sequence

import numpy as np

from nanochat.tasks.base import Conversation, Task
from nanochat.tasks.catalogue import WITHOUT_TOOL


class Selection(Task):
    """The rows of a task whose numbers are in `rows`, in that order."""

    def __init__(self, task: Task, rows: Sequence[int] | np.ndarray) -> None:
        self.task = task
        self.rows = rows
        self.name = task.name
        self.eval_type = task.eval_type
        self.baseline = task.baseline

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Conversation:
        return self.task[int(self.rows[self.index(index)])]

    def evaluate(self, conversation: Conversation, completion: str) -> bool:
        return self.task.evaluate(conversation, completion)

    def reward(self, conversation: Conversation, completion: str) -> float:
        return self.task.reward(conversation, completion)


class WithoutTool(Selection):
    """The same questions, to be answered without the calculator."""

    def __init__(self, task: Task) -> None:
        super().__init__(task, range(len(task)))
        self.name = task.name + WITHOUT_TOOL

    def __getitem__(self, index: int) -> Conversation:
        return {**super().__getitem__(index), "tool": False}


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

    def rows_of_parts(self) -> list[int]:
        """How many rows of the mixture are from each part."""
        parts = np.searchsorted(self._starts, self._order, side="right") - 1
        return [int(count) for count in np.bincount(parts, minlength=len(self.tasks))]

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
        if length and passes and not whole:
            part = max(part, 1)  # a source that is mixed in at all is heard at least once
        if part:
            pieces.append(np.sort(rng.permutation(rows)[:part]))
        start += length
    order = np.concatenate(pieces) if pieces else np.zeros(0, dtype=np.int64)
    rng.shuffle(order)
    return order
