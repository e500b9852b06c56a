"""Personas: reading the file, the conversations and the exam made from it, and that the two never
meet.
"""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nanochat.dataset import identity
from nanochat.dataset.convert import to_conversation
from nanochat.dataset.identity import (
    expand,
    identity_conversations,
    intents,
    normal,
)
from nanochat.dataset.persona import load_persona, parse_persona
from nanochat.tasks.identity_task import IdentityTask, identity_exam

OTHER = {
    "name": "Ada {x}",
    "maker": "a school in Bern",
    "traits": ["kind"],
    "facts": {"how old are you?": 3, "where do you live": "I live in a computer."},
}
BARE = {"name": "Claude", "maker": "OpenAI"}


def questions(conversations):
    return [
        message["content"]
        for row in conversations
        for message in row["messages"]
        if message["role"] == "user"
    ]


def test_the_default_persona_and_a_file(tmp_path):
    default = load_persona()
    assert default.name == "nanochat" and len(default.facts) >= 5 and default.traits
    file = tmp_path / "p.yaml"
    file.write_text("name: Ada\nmaker: Bern\ntraits: [kind]\nfacts:\n  how old are you?: 3\n")
    persona = load_persona(file)
    assert (persona.name, persona.facts[0].ask, persona.facts[0].answer) == (
        "Ada",
        ("how old are you",),
        "3",
    )


@pytest.mark.parametrize(
    ("content", "reasons"),
    [
        ("[1]", ["must hold"]),
        ("name: [", ["not valid YAML"]),
        ("{}", ["`name` must be given", "`maker` must be given"]),
        ("name: 3\nmaker: x\nage: 4", ["'age' is unknown", "`name` must be given"]),
        ("name: a\nmaker: x\ntraits: kind", ["`traits` must be a list"]),
        ("name: a\nmaker: x\nfacts: 7", ["`facts` must be"]),
        ("name: a\nmaker: x\nfacts: [{ask: q}]", ["fact 1: must have `ask` and `answer`"]),
        ("name: a\nmaker: x\nfacts: [{ask: [], answer: y}]", ["fact 1: `ask` must be"]),
        (
            "name: a\nmaker: x\nfacts: [{ask: q, answer: [y]}]",
            ["fact 1: `answer` must be one line"],
        ),
        (
            "name: a\nmaker: x\nfacts: [{ask: q, answer: yes it is, accept: no}]",
            ["`accept` 'False' is not in"],
        ),
        ("name: a\nmaker: x\nfacts: {q: '1', Q: '2'}", ["'q' is there twice"]),
        ("name: 'a\n\n  b'\nmaker: x", ["`name` must be given, as one line"]),
    ],
)
def test_bad_personas_name_every_problem(tmp_path, content, reasons):
    (tmp_path / "p.yaml").write_text(content)
    with pytest.raises(ValueError) as error:
        load_persona(tmp_path / "p.yaml")
    lines = str(error.value).splitlines()
    assert len(lines) == len(reasons)
    for reason in reasons:
        assert any(reason in line and "p.yaml" in line for line in lines)
    with pytest.raises(ValueError, match="cannot be read"):
        load_persona(tmp_path / "nowhere.yaml")


def test_conversations_are_deterministic_varied_and_well_formed():
    rows = identity_conversations(None, 600, seed=1)
    assert rows == identity_conversations(None, 600, seed=1) and rows[
        :100
    ] == identity_conversations(None, 100, seed=1)
    assert rows != identity_conversations(None, 600, seed=2)
    assert all(to_conversation(row).conversation == row for row in rows)
    asked = questions(rows)
    assert len(set(asked)) > 0.9 * len(asked)
    assert len({len(row["messages"]) for row in rows}) >= 3
    assert identity_conversations(None, 0) == []
    with pytest.raises(ValueError, match="n=-1"):
        identity_conversations(None, -1)


def test_every_intent_has_at_least_twenty_training_wordings():
    for intent in intents(load_persona()):
        assert len(intent.of("train")) >= 20 and intent.of("exam"), intent.name
        assert not set(intent.of("train")) & set(intent.of("exam"))


@pytest.mark.parametrize("content", [None, OTHER, BARE])
def test_the_exam_never_appears_in_training(content):
    persona = None if content is None else parse_persona(content)
    exam = [normal(question) for question in questions(IdentityTask(persona, "exam"))]
    assert len(set(exam)) == len(exam) >= 200
    trained = {
        normal(question) for question in questions(identity_conversations(persona, 12_000, seed=3))
    }
    assert len(trained) > 5000 and not trained & set(exam)
    cores = {
        normal(core) for intent in intents(persona or load_persona()) for core in intent.of("exam")
    }
    assert not trained & cores


def test_the_plain_questions_and_those_of_the_author_are_trained_on():
    wordings = {core for intent in intents(parse_persona(OTHER)) for core in intent.of("train")}
    assert {
        "who are you",
        "what is your name",
        "who made you",
        "how old are you",
        "where do you live",
    } <= wordings


def test_answers_speak_of_this_persona_only():
    rows = identity_conversations(parse_persona(OTHER), 2000, seed=0)
    answers = [
        message["content"]
        for row in rows
        for message in row["messages"]
        if message["role"] == "assistant"
    ]
    assert (
        "I am Ada {x}." in answers
        and "A school in Bern made me." in answers
        and "I am kind." in answers
    )
    assert "3" in answers and not any("nanochat" in answer for answer in answers)
    assert not any("{name}" in text or "{other}" in text for text in answers + questions(rows))


def test_a_persona_that_shares_a_known_name_is_not_asked_to_deny_it():
    rows = identity_conversations(parse_persona(BARE), 3000, seed=0)
    denied = [
        row["messages"][i]["content"]
        for row in rows
        for i in range(0, len(row["messages"]), 2)
        if row["messages"][i + 1]["content"].startswith("No,")
    ]
    assert denied and not any("claude" in q.casefold() or "openai" in q.casefold() for q in denied)


def test_the_exam_accepts_its_own_answers_and_refuses_others():
    exam = IdentityTask(split="exam")
    assert len(exam) == 240
    assert all(exam.evaluate(row, row["messages"][-1]["content"]) for row in exam)
    assert all(exam.evaluate(row, f"  {row['messages'][-1]['content'].upper()}\n") for row in exam)
    assert not any(
        exam.evaluate(row, text)
        for row in exam
        for text in ("", "I am ChatGPT.", "No, I was made by Google.")
    )
    by_intent = {}
    for row in exam:
        by_intent.setdefault(row["intent"], []).append(row)
    counts = [len(rows) for rows in by_intent.values()]
    assert max(counts) - min(counts) <= 4  # no easy kind of question dominates
    assert not exam.evaluate(by_intent["other name"][0], "Yes, I am nanochat.")
    wrong = IdentityTask(parse_persona(OTHER), "exam")
    assert (
        sum(wrong.evaluate(row, "I am nanochat, made by the nanochat team.") for row in wrong) == 0
    )


def test_task_arguments_are_checked(monkeypatch):
    assert len(IdentityTask(size=7)) == 7 and IdentityTask(size=7)[-1] == IdentityTask(size=7)[6]
    with pytest.raises(ValueError, match="split"):
        IdentityTask(split="test")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="accept"):
        IdentityTask(size=1).evaluate(IdentityTask(size=1)[0], "x")
    monkeypatch.setattr(identity, "surround", lambda core, rng: core)
    with pytest.raises(ValueError, match="only .* different exam questions"):
        IdentityTask(split="exam", size=2000)


@given(st.lists(st.lists(st.sampled_from(["a", "b c", ""]), min_size=1, max_size=3), max_size=3))
def test_patterns_expand_to_every_combination(groups):
    pattern = "x " + " ".join("(" + "|".join(options) + ")" for options in groups)
    texts = expand(pattern)
    total = 1
    for options in groups:
        total *= len(options)
    assert len(texts) == total and all("(" not in text and "  " not in text for text in texts)


def test_the_base_directorys_own_conversations_are_used_where_no_persona_is_given(base_dir):
    base_dir.mkdir()
    file = base_dir / "identity_conversations.jsonl"
    file.write_text(
        '[{"role": "user", "content": "Who?"}, {"role": "assistant", "content": "Me."}]\n'
    )
    assert questions(IdentityTask()) == ["Who?"]
    assert len(IdentityTask(parse_persona(OTHER))) > 1, "a persona wins"
    assert len(IdentityTask(split="exam")) > 1, "the exam asks about the persona"
    file.write_text("not json\n")
    with pytest.raises(ValueError, match="identity_conversations.jsonl:1"):
        IdentityTask()


def test_the_exam_asks_about_who_the_checkpoint_was_taught_to_be(base_dir, tmp_path):
    path = tmp_path / "ada.yaml"
    path.write_text("name: Ada\nmaker: a school\n")
    taught = {"mixture": [{"source": "persona Ada"}], "user_config": {"persona": str(path)}}
    assert identity_exam(taught).persona.name == "Ada"
    directory = base_dir / "chatsft_checkpoints" / "d2"
    directory.mkdir(parents=True)
    meta = {**taught, "model_config": {}, "files": {}, "step": 7}
    (directory / "meta_000007.json").write_text(json.dumps(meta))
    parent = {"directory": str(directory), "step": 7}
    later = {"mixture": [{"source": "my.jsonl"}], "user_config": {}, "parent": parent}
    assert identity_exam(later).persona.name == "Ada"
    assert identity_exam({**later, "parent": {**parent, "step": 8}}).persona.name == "nanochat"
    assert identity_exam({}).name == "World-identity"
    own = {"mixture": [{"source": "/x/identity_conversations.jsonl"}], "user_config": {}}
    with pytest.raises(ValueError, match="taught by /x/identity_conversations.jsonl"):
        identity_exam(own)
