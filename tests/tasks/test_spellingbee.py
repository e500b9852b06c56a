"""Letter counting and spelling: true answers, many wordings, words for tests that training never
shows.
"""

from __future__ import annotations

import random
import re

import pytest

from nanochat.tasks.gsm8k import spoken
from nanochat.tasks.spellingbee import SimpleSpelling, SpellingBee, ask_count


def test_every_answer_is_true_and_accepted():
    task = SpellingBee(300, "train")
    questions = set()
    for row in task:
        question, answer = (message["content"] for message in row["messages"])
        questions.add(question)
        call = next(part["text"] for part in answer if part["type"] == "python")
        word, letter = re.fullmatch(r"'([a-z]+)'\.count\('([a-z])'\)", call).groups()
        output = next(part["text"] for part in answer if part["type"] == "python_output")
        assert int(output) == word.count(letter)
        text = spoken(answer)
        assert f"{word}:{','.join(word)}" in text and len(
            re.findall(r"^\d+\. ", text, re.MULTILINE)
        ) == len(word)
        assert text.endswith(f"#### {output}") and task.evaluate(row, text)
        assert not task.evaluate(row, f"#### {int(output) + 1}") and not task.evaluate(
            row, "no idea"
        )
    assert len(questions) > 290


def test_rows_are_a_function_of_their_number():
    short, long = SpellingBee(5, "train"), SpellingBee(5000, "train")
    assert [short[i] for i in range(5)] == [long[i] for i in range(5)] and long[4] != long[5]


def test_test_words_are_not_trained_on():
    seen, held_out = set(SpellingBee(1, "train").words), set(SpellingBee(1, "test").words)
    assert seen and held_out and not seen & held_out
    assert set(SimpleSpelling(1, "train").words) == seen


def test_the_word_list_of_the_base_directory_comes_first(base_dir):
    base_dir.mkdir(parents=True)
    words = ["".join(random.Random(i).choices("abcdefgh", k=6)) for i in range(200)]
    (base_dir / "words_alpha.txt").write_text("\n".join([*words, "Not", "d0", "é", "x"]))
    both = {*SpellingBee(1, "train").words, *SpellingBee(1, "test").words}
    assert both == set(words)


def test_many_wordings():
    rng = random.Random(0)
    assert len({ask_count(rng, "strawberry", "r") for _ in range(2000)}) > 800


def test_simple_spelling_wants_the_letters_in_order():
    task = SimpleSpelling(20, "test")
    for row in task:
        answer = row["messages"][1]["content"]
        assert task.evaluate(row, answer) and task.evaluate(row, answer.replace(",", ", "))
        assert not task.evaluate(row, answer[:-2]) and not task.evaluate(row, answer + ",z")


@pytest.mark.parametrize(
    "arguments, message", [((3, "dev"), "use train or test"), ((-1, "train"), "0 or more")]
)
def test_refusals(arguments, message):
    with pytest.raises(ValueError, match=message):
        SpellingBee(*arguments)
