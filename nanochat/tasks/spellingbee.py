"""Letters in words: counting them (SpellingBee) and spelling them out (SimpleSpelling).

A model sees tokens, not letters. Spelling a word out first turns counting into something it can
read off, and the Python call then checks the count. Both tasks are generated from a word list, row
by row, from the row's number alone.
"""

from __future__ import annotations

import random
import re
from functools import lru_cache
from pathlib import Path

from nanochat.dataset.embedded_world.split import held_out_word
from nanochat.runtime.base_dir import base_dir
from nanochat.tasks.base import Conversation, Task
from nanochat.tasks.catalogue import TASKS, TaskEntry
from nanochat.tasks.gsm8k import final_number, spoken

LETTERS = "abcdefghijklmnopqrstuvwxyz"
COUNT_QUESTIONS = (
    "How many {letter} are in the word {word}",
    "How many {letter} are in {word}",
    "How many {letter}'s are there in {word}",
    "How many times does {letter} appear in {word}",
    "How many times does the letter {letter} occur in {word}",
    "How often does {letter} occur in the word {word}",
    "How often do you see {letter} in {word}",
    "Count the {letter} in {word}",
    "Count the number of {letter} in the word {word}",
    "Count how many times {letter} shows up in {word}",
    "Can you count the letter {letter} in {word}",
    "Could you tell me how many {letter} there are in {word}",
    "What is the number of {letter} in {word}",
    "What's the count of {letter} in the word {word}",
    "Tell me the number of {letter} in {word}",
    "Find how many {letter} the word {word} has",
    "Number of {letter} in {word}",
    "In the word {word}, how many {letter} are there",
    "In {word}, how many times do I find {letter}",
    "{word} has how many {letter}",
    "Does {word} contain {letter}, and how many times",
    "Give me the count of {letter} in {word}",
    "Please count {letter} in {word}",
    "Quick question: how many {letter} in {word}",
    "I wonder how many {letter} are in {word}",
    "¿Cuántas letras {letter} hay en {word}",
    "¿Cuántas veces aparece {letter} en {word}",
    "Combien de {letter} dans {word}",
    "Combien de fois la lettre {letter} apparaît-elle dans {word}",
    "Wie viele {letter} sind in {word}",
    "Wie oft kommt {letter} in {word} vor",
    "Quante {letter} ci sono in {word}",
)
QUOTES = ("", "", "'", '"', "`")
ENDINGS = ("?", "?", "", ".", " ?")
SPELL_QUESTIONS = (
    "Spell the word: {word}",
    "Spell {word}",
    "How do you spell {word}?",
    "Spell out the word {word}",
)


@lru_cache(maxsize=4)
def _read_words(path: Path | None) -> tuple[str, ...]:
    if path is None:
        from nanochat.dataset.embedded_world.tables import read_words

        return tuple(w for w in read_words("words.txt", "spelling") if usable(w))
    words = path.read_text(encoding="utf-8", errors="replace").split()
    return tuple(sorted({word for word in words if usable(word)}))


def usable(word: str) -> bool:
    return word.isascii() and word.isalpha() and word.islower() and len(word) > 1


def word_list(held_out: bool) -> tuple[str, ...]:
    """`<base>/words_alpha.txt` when it is there, else the embedded world's words; one in eight is
    for tests only.
    """
    path = base_dir() / "words_alpha.txt"
    words = _read_words(path if path.is_file() else None)
    chosen = tuple(word for word in words if held_out_word(word) == held_out)
    if not chosen:
        raise ValueError(
            f"{path}: no usable words (lower-case letters only); delete the file to use the "
            "built-in list"
        )
    return chosen


class _WordTask(Task):
    def __init__(self, entry: TaskEntry, size: int, split: str) -> None:
        super().__init__(entry)
        if split not in ("train", "test"):
            raise ValueError(f"split: {split!r} is unknown; use train or test")
        if size < 0:
            raise ValueError(f"size: must be 0 or more, got {size}")
        self.split = split
        self.size = size
        self.words = word_list(held_out=split == "test")

    def __len__(self) -> int:
        return self.size

    def _rng(self, index: int) -> random.Random:
        # Seeding with text goes through SHA-512, so neighbouring rows have nothing in common.
        return random.Random(f"{self.name}/{self.split}/{self.index(index)}")


class SpellingBee(_WordTask):
    """How many r are in strawberry: spelled by hand, counted, checked in Python; right when `####
    n` is.
    """

    def __init__(self, size: int = 1000, split: str = "train") -> None:
        super().__init__(TASKS["SpellingBee"], size, split)

    def __getitem__(self, index: int) -> Conversation:
        rng = self._rng(index)
        word = rng.choice(self.words)
        letter = rng.choice(word) if rng.random() < 0.9 else rng.choice(LETTERS)
        return {
            "messages": [
                {"role": "user", "content": ask_count(rng, word, letter)},
                {"role": "assistant", "content": count_answer(word, letter)},
            ]
        }

    def evaluate(self, conversation: Conversation, completion: str) -> bool:
        return final_number(completion) == final_number(
            spoken(conversation["messages"][-1]["content"])
        )


def ask_count(rng: random.Random, word: str, letter: str) -> str:
    """One of many ways to ask, with or without quotes, question mark and capitals."""
    quote_letter, quote_word = rng.choice(QUOTES), rng.choice(QUOTES)
    question = rng.choice(COUNT_QUESTIONS).format(
        letter=f"{quote_letter}{letter}{quote_letter}", word=f"{quote_word}{word}{quote_word}"
    )
    if rng.random() < 0.3:
        question = question.lower()
    return question + rng.choice(ENDINGS)


def count_answer(word: str, letter: str) -> list[dict[str, str]]:
    """The worked answer: each letter on a line of its own with the running count, then the check in
    Python.
    """
    lines, count = [], 0
    for number, character in enumerate(word, start=1):
        count += character == letter
        lines.append(f"{number}. {character}" + (f" -> {count}" if character == letter else ""))
    spelled = ",".join(word)
    listing = "\n".join(lines)
    by_hand = (
        f"I will count the letter '{letter}' in '{word}'. Spelled out:\n\n{word}:{spelled}\n\n"
        f"Going through the letters:\n\n{listing}\n\nBy hand I get {count}. Checking with "
        "Python:\n\n"
    )
    return [
        {"type": "text", "text": by_hand},
        {"type": "python", "text": f"'{word}'.count('{letter}')"},
        {"type": "python_output", "text": str(count)},
        {
            "type": "text",
            "text": f"\n\nPython says {count}, so that is the answer.\n\n#### {count}",
        },
    ]


class SimpleSpelling(_WordTask):
    """Spell a word: the first half of SpellingBee alone, `word:w,o,r,d`. Right when the letters
    are, in order.
    """

    def __init__(self, size: int = 1000, split: str = "train") -> None:
        super().__init__(TASKS["SimpleSpelling"], size, split)

    def __getitem__(self, index: int) -> Conversation:
        rng = self._rng(index)
        word = rng.choice(self.words)
        return {
            "messages": [
                {"role": "user", "content": rng.choice(SPELL_QUESTIONS).format(word=word)},
                {"role": "assistant", "content": f"{word}:{','.join(word)}"},
            ],
        }

    def evaluate(self, conversation: Conversation, completion: str) -> bool:
        wanted = conversation["messages"][-1]["content"].partition(":")[2].split(",")
        return re.findall(r"[a-z]", completion.strip().lower().rpartition(":")[2]) == wanted
