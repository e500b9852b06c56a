"""Slices and mixtures: every row where it should be, the same on every machine, judged by the task
it came from.
"""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nanochat.tasks.base import Task
from nanochat.tasks.derived import Mixture, Selection, WithoutTool
from nanochat.tasks.multiple_choice import MultipleChoice, multiple_choice_prompt


class Numbers(Task):
    """Row i asks for i; right when the completion is i plus `offset`."""

    def __init__(self, n: int, name: str = "numbers", offset: int = 0) -> None:
        self.n, self.name, self.offset = n, name, offset

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, index: int):
        return {
            "messages": [{"role": "user", "content": f"{self.name} {self.index(index)}"}],
            "value": index,
        }

    def evaluate(self, conversation, completion):
        return completion == str(conversation["value"] + self.offset)


def said(conversation):
    return conversation["messages"][0]["content"]


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 40), st.floats(0, 3.5)), min_size=1, max_size=4),
    st.integers(0, 5),
)
def test_mixture_holds_each_task_for_its_epochs(parts, seed):
    mixture = Mixture(
        [(Numbers(n, f"t{i}"), epochs) for i, (n, epochs) in enumerate(parts)], seed=seed
    )
    counts = Counter(said(row) for row in mixture)
    for i, (n, epochs) in enumerate(parts):
        per_row = [counts[f"t{i} {row}"] for row in range(n)]
        assert all(int(epochs) <= count <= int(epochs) + 1 for count in per_row)
        part = round((epochs - int(epochs)) * n)
        least = 1 if n and 0 < epochs < 1 else 0  # what is mixed in at all is heard
        assert sum(per_row) == max(int(epochs) * n + part, least)
    again = Mixture(
        [(Numbers(n, f"t{i}"), epochs) for i, (n, epochs) in enumerate(parts)], seed=seed
    )
    assert [said(again[i]) for i in reversed(range(len(again)))] == [said(row) for row in mixture][
        ::-1
    ]


def test_mixture_order_is_shuffled_and_depends_on_the_seed():
    one, two = (Mixture([Numbers(50, "a"), Numbers(50, "b")], seed=seed) for seed in (1, 2))
    rows = [said(row) for row in one]
    assert rows != [said(row) for row in two] and sorted(rows) == sorted(said(row) for row in two)
    assert 15 < sum(row.startswith("a") for row in rows[:50]) < 35


def test_mixture_judges_with_the_right_task_also_when_nested():
    inner = Mixture([Numbers(3, "plain"), Numbers(3, "shifted", offset=100)], seed=0)
    outer = Mixture([Selection(inner, range(1, 6)), Numbers(2, "last", offset=7)], seed=3)
    for row in outer:
        offset = {"plain": 0, "shifted": 100, "last": 7}[said(row).split()[0]]
        assert outer.evaluate(row, str(row["value"] + offset))
        assert not outer.evaluate(row, str(row["value"] + offset + 1))
        assert outer.reward(row, str(row["value"] + offset)) == 1.0
    with pytest.raises(ValueError, match="does not come from this mixture"):
        outer.evaluate(Numbers(1)[0], "0")


def test_selection_and_bounds():
    part = Selection(Numbers(10), range(2, 8))
    assert [row["value"] for row in part] == [2, 3, 4, 5, 6, 7] and part[-1]["value"] == 7
    assert [row["value"] for row in Selection(Numbers(10), [9, 0, 9])] == [9, 0, 9]
    assert part.evaluate(part[1], "3") and not part.evaluate(part[1], "4")
    with pytest.raises(IndexError, match="no row 6"):
        part[6]


def test_without_tool_asks_the_same_and_says_so():
    unaided = WithoutTool(Numbers(3))
    assert (
        unaided.name == "numbers-without-tool" and [row["tool"] for row in unaided] == [False] * 3
    )
    assert unaided[2] == {**Numbers(3)[2], "tool": False} and unaided.reward(unaided[2], "2") == 1.0


@pytest.mark.parametrize(
    "parts, message", [([], "no tasks"), ([(Numbers(3), -1.0)], "numbers: -1.0")]
)
def test_mixture_refuses(parts, message):
    with pytest.raises(ValueError, match=message):
        Mixture(parts)


def test_multiple_choice_wording():
    assert multiple_choice_prompt("Which?", "AB", ["one", "two"]) == (
        "Multiple Choice question: Which?\n- one=A\n- two=B\n\nRespond only with the letter of "
        "the correct answer."
    )
    row = MultipleChoice.conversation("Which?", ["A", "B"], ["one", "two"], "B")
    task = MultipleChoice()
    assert task.evaluate(row, "B") and task.evaluate(row, " B\n") and not task.evaluate(row, "A")
    with pytest.raises(ValueError, match="'C' is not one of the letters"):
        MultipleChoice.conversation("Which?", ["A", "B"], ["one", "two"], "C")
