"""The embedded world's text: the same for everybody, true, in the shares asked for, and free of the
exam.
"""

from __future__ import annotations

import json
import random
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nanochat.dataset.embedded import KINDS, SHARES, documents, take, write_shards
from nanochat.dataset.embedded_world import grammar
from nanochat.dataset.embedded_world.facts import all_facts, phrases, relations
from nanochat.dataset.embedded_world.numbers import equation
from nanochat.dataset.embedded_world.split import held_out_pair, held_out_word
from nanochat.dataset.embedded_world.tables import read_sections, read_table
from nanochat.dataset.embedded_world.words import (
    exam_word,
    made_up_word,
    real_words,
    spelled,
    training_word,
)


@pytest.fixture(scope="module")
def text() -> str:
    return "\n".join(take(documents(seed=7), 3_000_000))


def test_the_text_is_the_same_every_time_and_differs_by_seed():
    first, again, other = (list(take(documents(seed), 60_000)) for seed in (3, 3, 4))
    assert first == again != other
    assert len(set(first)) > 0.99 * len(first)


def test_shares_come_out_as_asked():
    spelling = total = 0
    for document in take(documents(1), 600_000):
        total += len(document)
        if len(re.findall(r"\b[A-Za-z](?:-[a-z]){2,}", document)) > 2:
            spelling += len(document)
    assert abs(sum(SHARES.values()) - 1.02) < 1e-9 and SHARES.keys() == KINDS.keys()
    assert abs(spelling / total - SHARES["spelling"] / sum(SHARES.values())) < 0.03


def test_every_kind_of_document_is_whole():
    for kind, makers in KINDS.items():
        for maker in makers:
            for seed in range(30):
                made = maker(random.Random(seed))
                assert made == maker(random.Random(seed)), (
                    f"{kind} {maker.__name__} is not deterministic"
                )
                assert 15 < len(made) < 2000 and made == made.strip() and made.isascii()
                assert not re.search(r"[{}|]|  |(?m:^\")", made), made


def test_shards_are_written_with_validation_last(tmp_path):
    import pyarrow.parquet as pq

    manifest = write_shards(tmp_path, target_characters=300_000, seed=5)
    entries = json.loads((tmp_path / "manifest.json").read_text())["shards"]
    assert [entry["split"] for entry in entries] == ["train", "validation"] and manifest[
        "kind"
    ] == "embedded"
    assert entries[0]["characters"] >= 300_000
    groups = [pq.ParquetFile(tmp_path / entry["name"]) for entry in entries]
    assert (
        groups[0].metadata.row_group(0).num_rows == 1000
        and groups[1].metadata.row_group(0).num_rows == 64
    )
    train, validation = (set(file.read()["text"].to_pylist()) for file in groups)
    assert len(validation & train) < 0.02 * len(validation)
    with pytest.raises(ValueError, match="100000 or more"):
        write_shards(tmp_path / "small", target_characters=5)


# --- truth


def test_tables_are_whole_and_agree():
    countries = read_table("countries.tsv")
    assert len(countries) >= 110 and len({row["capital"] for row in countries}) == len(countries)
    by_country = {row["country"]: row for row in countries}
    assert by_country["Japan"]["capital"] == "Tokyo" and by_country["Japan"]["currency"] == "yen"
    elements = {row["element"]: row for row in read_table("elements.tsv")}
    assert elements["gold"]["symbol"] == "Au" and elements["iron"]["number"] == "26"
    numbers = [int(row["number"]) for row in elements.values() if "number" in row]
    assert numbers == sorted(numbers) and len({row["symbol"] for row in elements.values()}) == len(
        elements
    )


def test_every_relation_has_enough_wordings_and_one_answer_per_subject():
    for name, relation in relations().items():
        wordings = phrases()
        assert len(set(wordings[f"{name}.text"])) >= 8, name
        assert len(set(wordings[f"{name}.ask"])) >= 12, name
        assert len(set(wordings[f"{name}.exam"])) >= 3, name
        assert not set(wordings[f"{name}.ask"]) & set(wordings[f"{name}.exam"]), name
        subjects = [fact.subject for fact in relation.facts]
        assert len(subjects) == len(set(subjects)), name
        for fact in relation.facts:
            for line in (*fact.text, *fact.ask, *fact.exam, fact.reply):
                assert "{" not in line and "  " not in line, line
                assert not re.search(r"\b[Aa] [aeio]\w", line), line


def test_opposites_go_both_ways():
    opposite = {fact.subject: fact.answer for fact in relations()["opposite"].facts}
    assert all(opposite[answer] == subject for subject, answer in opposite.items())


@given(st.integers(0, 2**32))
def test_equations_are_right(seed):
    a, x, b, c = equation(random.Random(seed))
    assert a * x + b == c


def test_sums_in_the_text_are_right(text):
    found = re.findall(r"(?<![\d*x] )(?<![\d.])\b(\d+) ([-+*/]) (\d+) = (\d+)\b(?! [-+*/])", text)
    assert len(found) > 1000
    compute = {
        "+": lambda x, y: x + y,
        "-": lambda x, y: x - y,
        "*": lambda x, y: x * y,
        "/": lambda x, y: x / y,
    }
    assert not [
        sum_ for sum_ in found if compute[sum_[1]](int(sum_[0]), int(sum_[2])) != int(sum_[3])
    ]
    solved = re.findall(r"If (\d+)\*x \+ (\d+) = (\d+), then x is (\d+)\.", text)
    assert len(solved) > 1000 and all(int(a) * int(x) + int(b) == int(c) for a, b, c, x in solved)


def test_spellings_in_the_text_are_right(text):
    found = re.findall(r"(?m)^([A-Za-z]+): ([A-Za-z](?:-[a-z])+)$", text)
    assert len(found) > 3000 and all(letters.replace("-", "") == word for word, letters in found)


@given(st.integers(0, 999))
def test_numbers_in_words_are_unique(number):
    assert (grammar.in_words(number) == grammar.in_words((number * 7) % 1000)) == (
        number == (number * 7) % 1000
    )


def test_articles_plurals_lists():
    assert [grammar.article(noun) for noun in ("owl", "dog", "uncle", "unit", "hour")] == [
        "an owl",
        "a dog",
        "an uncle",
        "a unit",
        "an hour",
    ]
    assert [grammar.plural(noun) for noun in ("fox", "berry", "day", "goose")] == [
        "foxes",
        "berries",
        "days",
        "geese",
    ]
    assert grammar.joined(["a"]) == "a" and grammar.joined(["a", "b", "c"]) == "a, b and c"


# --- the exam stays out


def test_words_keep_to_their_side_of_the_split():
    rng = random.Random(1)
    assert (
        not set(real_words()) & set(real_words(held_out=True))
        and len(real_words(held_out=True)) >= 200
    )
    for _ in range(3000):
        assert held_out_word(exam_word(rng)) and held_out_word(made_up_word(rng, held_out=True))
        word = training_word(rng)
        assert word in real_words() or word[0].isupper() or not held_out_word(word)
    assert spelled("lantern") == "l-a-n-t-e-r-n"


@given(st.integers(1, 999), st.integers(1, 999))
def test_pairs_are_split_without_regard_to_order(x, y):
    assert held_out_pair(x, y) == held_out_pair(y, x)
    assert not held_out_pair(x, y) or max(x, y) > 20


def test_no_held_out_word_or_pair_is_in_the_text(text):
    words = set(re.findall(r"[a-z]+", text.lower()))
    assert not words & set(real_words(held_out=True))
    copied = set(re.findall(r"[a-z]+(?=: [a-z]-[a-z])|(?<=\")[a-z]+(?=\")", text))
    assert len(copied) > 1000 and not [
        word for word in copied if held_out_word(word) and word not in real_words()
    ]
    sums = re.findall(r"(\d+) ?(?:[-+*/]|plus|minus|times|divided by|take away) ?(\d+)", text)
    assert len(sums) > 3000 and not [
        pair for pair in sums if held_out_pair(int(pair[0]), int(pair[1]))
    ]


def test_no_held_out_wording_is_in_the_text(text):
    assert held_out_wordings(text) == []
    asked = random.Random(0).choice(all_facts()).exam[0]
    assert held_out_wordings(f"Anna: {asked}\nBen: I do not know.")  # the check can fail


def test_exam_questions_are_not_in_the_text(text):
    lines = set(re.split(r"(?<=[.?!]) |\n|: ", text))
    assert not lines & {question for fact in all_facts() for question in fact.exam}


SLOTS = {"e": r"\d+ ?\S ?\d+", "x": r"\d+", "y": r"\d+", "l": r'"?[a-z]"?', "w": r'"?[A-Za-z]+"?'}


def held_out_wordings(text: str) -> list[str]:
    """The held-out wordings that occur in a text, whatever fills their slots."""
    wordings = [
        line for name, lines in phrases().items() if name.endswith(".exam") for line in lines
    ]
    for name in ("phrases_skills.txt", "smalltalk.txt"):
        wordings += [
            line
            for title, lines in read_sections(name).items()
            if title.endswith(".exam")
            for line in lines
        ]
    found = []
    for wording in wordings:
        literal = max(re.split(r"\{\w+\}", wording), key=len)
        pattern = "".join(
            SLOTS.get(part[1:-1], r"[\w' -]{1,40}") if part.startswith("{") else re.escape(part)
            for part in re.split(r"(\{\w+\})", wording)
        )
        if literal in text and re.search(pattern, text):
            found.append(wording)
    return found
