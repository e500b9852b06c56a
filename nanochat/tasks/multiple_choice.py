"""Multiple-choice questions: one wording for all of them, and the letter as the answer."""

from __future__ import annotations

from collections.abc import Sequence

from nanochat.tasks.base import Conversation, Task
from nanochat.tasks.catalogue import Kind


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
    """A task whose completion is one of the conversation's `letters`."""

    eval_type: Kind = "categorical"

    @staticmethod
    def conversation(
        question: str, letters: Sequence[str], choices: Sequence[str], answer: str
    ) -> Conversation:
        """One question and its right letter. ValueError when `answer` is not among the letters."""
        if answer not in letters:
            raise ValueError(f"answer: {answer!r} is not one of the letters {list(letters)}")
        messages = [
            {"role": "user", "content": multiple_choice_prompt(question, letters, choices)},
            {"role": "assistant", "content": answer},
        ]
        return {"messages": messages, "letters": list(letters)}

    def evaluate(self, conversation: Conversation, completion: str) -> bool:
        return bool(completion.strip() == conversation["messages"][-1]["content"])
