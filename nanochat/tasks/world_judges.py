"""Whether a completion answers a question of the embedded world."""

from __future__ import annotations

import re

from nanochat.dataset.embedded_world import offtopic as outside
from nanochat.dataset.embedded_world.tables import read_sections


def spoken(completion: str) -> str:
    """What the user reads: the text after the last tool result, without special tokens."""
    return re.sub(r"<\|[a-z_]+\|>", "", completion.rpartition("<|output_end|>")[2]).strip()


def _has(text: str, words: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(words)}(?!\w)", text, re.IGNORECASE) is not None


def _without(text: str, words: str) -> str:
    return re.sub(rf"(?<!\w){re.escape(words)}(?!\w)", " ", text, flags=re.IGNORECASE)


def judge_fact(text: str, question: str, wanted: str, rivals: tuple[str, ...]) -> bool:
    """The answer is there as a word, and no other answer of its kind is, apart from those the
    question mentions.
    """
    if not _has(text, wanted):
        return False
    rest = _without(text, wanted)
    mentioned = sorted((rival for rival in rivals if _has(question, rival)), key=len, reverse=True)
    for rival in mentioned:
        rest = _without(rest, rival)
    return not any(_has(rest, rival) for rival in rivals)


def judge_number(text: str, wanted: str) -> bool:
    """The last number of the text is the wanted one."""
    numbers = re.findall(r"-?\d[\d,]*", text)
    return bool(numbers) and numbers[-1].replace(",", "") == wanted


def judge_spelling(text: str, wanted: str) -> bool:
    """The last letter-by-letter spelling of the text gives the word; hyphens, commas or blanks may
    separate.
    """
    found = re.findall(r"(?<![A-Za-z])[A-Za-z](?:(?:-|, ?| )[A-Za-z](?![A-Za-z]))+", text)
    return bool(found) and re.sub(r"[^A-Za-z]", "", found[-1]).lower() == wanted.lower()


def judge_count(text: str, wanted: str) -> bool:
    """The last number of the text is the wanted one, and where the text names a letter it is the
    one asked about.
    """
    letter, count = wanted.split()
    named = re.findall(r"\bletter ['\"]?([A-Za-z])\b", text)
    return judge_number(text, count) and all(each.lower() == letter for each in named)


def judge(part: str, question: str, wanted: str, rivals: tuple[str, ...], completion: str) -> bool:
    """Whether a completion answers a turn of `part`."""
    text = spoken(completion)
    if part == "facts":
        return judge_fact(text, question, wanted, rivals)
    if part == "spelling":
        return judge_spelling(text, wanted)
    if part == "offtopic":
        return text in outside.replies()
    if part == "smalltalk":
        return text in read_sections("smalltalk.txt")[f"{wanted}.reply"]
    if part == "counting":
        return judge_count(text, wanted)
    return judge_number(text, wanted)
