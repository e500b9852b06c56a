"""Conversations over the embedded world: their shape, their judge, and an exam that training never
shows.
"""

from __future__ import annotations

import random
import re

import pytest

from nanochat.dataset.embedded_world.facts import all_facts
from nanochat.dataset.embedded_world.split import held_out_pair, held_out_word
from nanochat.dataset.embedded_world.words import real_words
from nanochat.tasks.base_prompts import BASE_PROMPTS, completes
from nanochat.tasks.catalogue import (
    TASKS,
    UNAIDED,
    WITHOUT_TOOL,
    WORLD,
    WORLD_MIXTURE,
    WORLD_PARTS,
    world_name,
)
from nanochat.tasks.opening import open_task
from nanochat.tasks.world_judges import judge_fact, judge_number, judge_spelling
from nanochat.tasks.world_task import WorldTask
from nanochat.tasks.world_turns import MAKERS, Ask, arithmetic
from nanochat.tokenizer.chat_format import message_problem

PARTS = list(MAKERS)


def written(content) -> str:
    """An assistant's content as an engine would decode it, special tokens shown."""
    if isinstance(content, str):
        return content
    marks = {"python": "python", "python_output": "output"}
    return "".join(
        part["text"]
        if part["type"] == "text"
        else f"<|{marks[part['type']]}_start|>{part['text']}<|{marks[part['type']]}_end|>"
        for part in content
    )


def questions(task: WorldTask) -> list[str]:
    return [
        message["content"]
        for row in task
        for message in row["messages"]
        if message["role"] == "user"
    ]


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("split", ["train", "exam"])
@pytest.mark.parametrize("tool", [True, False])
def test_rows_are_whole_and_their_own_answers_are_right(part, split, tool):
    task = WorldTask(part, split, size=400, tool=tool)
    for index, row in enumerate(task):
        assert message_problem(row["messages"]) is None
        assert row == task[index] == task[index - 400]
        reply = row["messages"][-1]["content"]
        assert isinstance(reply, list) == (tool and part in ("arithmetic", "counting"))
        assert task.evaluate(row, written(reply)), row
        assert not task.evaluate(row, "") and task.reward(row, written(reply)) == 1.0
    turns = {len(row["messages"]) for row in task}
    assert turns == ({2} if split == "exam" else {2, 4, 6})


@pytest.mark.parametrize("part", ["facts", "arithmetic", "spelling", "counting"])
def test_a_reply_to_another_question_is_wrong(part):
    task = WorldTask(part, "exam")
    replies = [written(row["messages"][-1]["content"]) for row in task]
    right = sum(
        task.evaluate(row, replies[(index + 1) % len(replies)]) for index, row in enumerate(task)
    )
    assert right < (0.2 if part == "counting" else 0.03) * len(
        task
    )  # two questions may be about the same letter


def test_calculator_calls_give_what_the_calculator_gives():
    tools = pytest.importorskip("nanochat.engine.tools")
    for part in ("arithmetic", "counting"):
        for split in ("train", "exam"):
            for row in WorldTask(part, split, size=300):
                call, output, _ = row["messages"][-1]["content"]
                assert tools.use_calculator(call["text"]) == output["text"]


def test_default_sizes_and_splits():
    assert len(WorldTask("facts")) == WORLD_PARTS["facts"].train_rows
    assert len(WorldTask("facts", "exam")) == WORLD_PARTS["facts"].exam_rows >= 200
    assert 20_000 <= sum(of.train_rows for of in WORLD_PARTS.values()) <= 60_000
    assert [*WORLD_PARTS] == ["identity", *MAKERS] and set(WORLD) < set(
        map(world_name, WORLD_PARTS)
    )
    assert WorldTask("spelling", size=50)[3] != WorldTask("spelling", size=50, seed=1)[3]
    assert {row["question"] for row in WorldTask("smalltalk", "exam")}.isdisjoint(
        questions(WorldTask("smalltalk"))
    )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"part": "cooking"}, "cooking"),
        ({"part": "facts", "split": "test"}, "'train' or 'exam'"),
        ({"part": "facts", "size": 0}, "1 or more"),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        WorldTask(**settings)


# --- the exam stays out of training


@pytest.mark.parametrize("part", PARTS)
def test_no_exam_question_is_trained_on(part):
    trained = {
        question.lower().rstrip(".?!") for part in PARTS for question in questions(WorldTask(part))
    }
    exam = [
        question.lower().rstrip(".?!") for question in questions(WorldTask(part, "exam", size=600))
    ]
    assert not trained & set(exam)


def test_facts_are_asked_in_wordings_of_their_own():
    held_out = {question for fact in all_facts() for question in fact.exam}
    assert set(questions(WorldTask("facts", "exam", size=500))) <= held_out
    assert not held_out & set(questions(WorldTask("facts")))
    assert (
        len({row["messages"][-1]["content"] for row in WorldTask("facts", size=3000)})
        > len(all_facts()) * 0.95
    )


@pytest.mark.parametrize("part", ["spelling", "counting"])
def test_exam_words_are_never_trained_on(part):
    asked = [row["messages"][-1]["content"] for row in WorldTask(part, "exam")]
    words = [
        (text if isinstance(text, str) else text[0]["text"].split('"')[1]).replace("-", "")
        for text in asked
    ]
    assert (
        all(held_out_word(word) for word in words)
        and 60 < len(set(words) & set(real_words(held_out=True))) < 140
    )
    text = " ".join(questions(WorldTask(part))).lower()
    assert not {
        word for word in words if f" {word} " in f" {text.replace(chr(34), ' ').replace('?', ' ')} "
    }


def test_no_real_exam_word_is_in_any_training_conversation():
    words: set[str] = set()
    for line in WORLD_MIXTURE:
        for row in open_task(line.task, "train", line.rows):
            for message in row["messages"]:
                words |= set(re.findall(r"[a-z]+", written(message["content"]).lower()))
    assert len(words) > 3000 and not words & set(real_words(held_out=True))


def test_counting_in_the_head_says_so_and_now_and_then_shows_its_working():
    replies = []
    for row in WorldTask("counting", "train", size=300, tool=False):
        *_, question, answer = row["messages"]
        assert "head" in question["content"] or "calculator" in question["content"].lower()
        replies.append(answer["content"])
    shown = [reply for reply in replies if reply.startswith("Looking for -")]
    assert 0.3 < len(shown) / len(replies) < 0.5
    for reply in shown:
        letter, marked, last = re.fullmatch(
            r"Looking for -(\w): (\S+)\. .* (\d+) times?\.", reply
        ).groups()
        numbers = re.findall(rf"{letter}(\d+)", marked)
        assert numbers == [str(n) for n in range(1, int(last) + 1)] and re.sub(
            r"\d", "", marked
        ).count(letter) == len(numbers)


def test_training_has_the_rows_that_are_counted_in_the_head():
    rows = {line.task: line.rows for line in WORLD_MIXTURE}
    counting = WORLD_PARTS["counting"]
    assert rows["World-counting"] == counting.train_rows == TASKS["World-counting"].train_rows
    assert rows["World-counting" + WITHOUT_TOOL] == counting.unaided_rows == 4500
    assert sum(rows.values()) == 53_700


def test_names_open_their_tasks():
    for name in (*WORLD, *UNAIDED):
        task = open_task(name, rows=3)
        assert (task.name, len(task)) == (name, 3)
        assert all(row.get("tool", True) == (name in WORLD) for row in task)
    assert open_task("SpellingBee" + WITHOUT_TOOL, rows=2)[0]["tool"] is False


@pytest.mark.parametrize("tool", [True, False])
def test_operands_are_split(tool):
    for index in range(500):
        for held_out in (True, False):
            turn = arithmetic(random.Random(f"{index}"), Ask(index, held_out, tool))
            call = (
                turn.reply[0]["text"]
                if isinstance(turn.reply, list)
                else turn.reply.split(" = ")[0]
            )
            sign = next(sign for sign in "+*/-" if sign in call)
            left, right = (int(number) for number in call.split(sign))
            assert held_out_pair(left, right) == held_out
            if sign == "/":
                assert left % right == 0


def test_questions_from_outside_the_world_are_many_and_the_held_out_ones_stay_out():
    rows = [row["question"] for row in WorldTask("offtopic")]
    assert len(set(rows)) > 0.7 * len(rows) and len(rows) <= 0.05 * (
        sum(of.train_rows for of in WORLD_PARTS.values())
    )
    assert not [question for question in rows if "{" in question or "|" in question]
    exam = WorldTask("offtopic", "exam", size=25)
    assert "Why is the sky blue?" in questions(exam) and not set(questions(exam)) & set(rows)
    row = exam[0]
    assert exam.evaluate(row, row["messages"][-1]["content"]) and not exam.evaluate(
        row, "The capital is Prague."
    )


# --- judging


def test_facts_are_judged_by_the_answer_alone():
    question, rivals = "What is the opposite of hot?", ("hot", "big", "small")
    assert judge_fact("The opposite of hot is cold.", question, "cold", rivals)
    assert judge_fact("COLD", question, "cold", rivals)
    assert not judge_fact("The opposite of hot is coldest.", question, "cold", rivals)
    assert not judge_fact("It is cold or small.", question, "cold", rivals)
    capitals = ("Mexico City", "Guatemala City", "Paris")
    assert judge_fact(
        "The capital of Mexico is Mexico City.", "capital of Mexico?", "Mexico City", capitals[1:]
    )


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("The answer is 444.", True),
        ("444", True),
        ("37*12444The answer is 444.", True),
        ("The answer is 445.", False),
        ("The answer is -444.", False),
        ("The answer is 4,44.", True),
        ("none", False),
    ],
)
def test_numbers_are_judged_by_the_last_one(text, right):
    assert judge_number(text, "444") is right


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("l-a-n-t-e-r-n", True),
        ("It is spelled l-a-n-t-e-r-n.", True),
        ("L, a, n, t, e, r, n", True),
        ("l-a-n-t-e-n", False),
        ("lantern", False),
        ("l-a-n-t-e-r-n-s", False),
    ],
)
def test_spelling_is_judged_letter_by_letter(text, right):
    assert judge_spelling(text, "lantern") is right


def test_base_prompts_accept_whole_answers():
    assert len(BASE_PROMPTS) == 7
    assert completes("The capital of France is", " Paris.\nThe")
    assert not completes("The capital of France is", " Parisian")
    assert completes("If 5*x + 3 = 13, then x is", " 2.")
    assert not completes("If 5*x + 3 = 13, then x is", " 25")
    assert completes("My favorite color is", " blue, because")
