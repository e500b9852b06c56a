"""Conversation files: every accepted shape, every kind of bad line, converting, counting,
mixing."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nanochat.dataset.check import DataCheckConfig, data_check
from nanochat.dataset.conversations import (
    parse_mix,
    read_conversations,
    scan_conversations,
    write_conversations,
)
from nanochat.tasks.conversation_file import ConversationFile
from nanochat.tokenizer import Tokenizer

GOOD = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
SHAREGPT = [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]
SYSTEM = [{"role": "system", "content": "Be brief."}, *GOOD]
PARTS = [
    {"type": "text", "text": "So: "},
    {"type": "python", "text": "1+1"},
    {"type": "python_output", "text": "2"},
]


def write(path, *lines):
    path.write_bytes(
        b"\n".join(x if isinstance(x, bytes) else json.dumps(x).encode() for x in lines) + b"\n"
    )
    return path


@pytest.mark.parametrize(
    ("record", "messages"),
    [
        (GOOD, GOOD),
        ({"messages": GOOD, "source": "x"}, GOOD),
        (SYSTEM, SYSTEM),
        (
            [GOOD[0], {"role": "assistant", "content": PARTS}],
            [GOOD[0], {"role": "assistant", "content": PARTS}],
        ),
        ([{"role": "user", "content": [{"type": "text", "text": "Hi"}]}, GOOD[1]], GOOD),
        ([{**GOOD[0], "name": "Ann"}, GOOD[1]], GOOD),
        ({"conversations": SHAREGPT}, GOOD),
        ({"system": "Be brief.", "conversations": SHAREGPT}, SYSTEM),
        ({"conversations": GOOD}, GOOD),
        ({"instruction": "Hi", "input": "", "output": "Hello"}, GOOD),
        ({"instruction": "Hi", "response": "Hello", "system": "Be brief."}, SYSTEM),
        (
            {"instruction": "Add", "input": "1 2", "output": "3"},
            [{"role": "user", "content": "Add\n\n1 2"}, {"role": "assistant", "content": "3"}],
        ),
        ({"instruction": "Hi", "output": "Hello", "history": [["Hi", "Hello"]]}, GOOD + GOOD),
    ],
)
def test_every_form_becomes_messages(tmp_path, record, messages):
    assert read_conversations(write(tmp_path / "f.jsonl", record)) == ([{"messages": messages}], [])


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"messages": [', "not JSON"),
        (b"hello", "not JSON"),
        (b'{"a": NaN', "not JSON"),
        (b"[" * 100_000, "not usable JSON (RecursionError)"),
        (b"1" * 10_000, "not usable JSON"),
        (b'["caf\xe9"]', "not UTF-8 (byte 6 of the line)"),
        (b"42", "a JSON number; expected"),
        (b"null", "a JSON null; expected"),
        (b'"text"', "a JSON string; expected"),
        ({"text": "x"}, "unknown fields ('text'); expected"),
        ({}, "unknown fields (none)"),
        ([], "no messages"),
        ({"messages": "x"}, "must be a list, not str"),
        ({"messages": []}, "no messages"),
        (["Hi", "Hello"], "message 1 must be an object"),
        (GOOD[:1], "the last message is the user's"),
        (GOOD[::-1], "message 1 has role 'assistant', expected 'user'"),
        (GOOD[:1] + SYSTEM, "message 2 has role 'system', expected 'assistant'"),
        (GOOD + GOOD[1:], "message 3 has role 'assistant'"),
        (SYSTEM[:1], "system message alone"),
        ([GOOD[0], {"role": "bot", "content": "x"}], "role 'bot'"),
        ([GOOD[0], {"role": ["x"], "content": "x"}], "role ['x']"),
        ([{"role": "user", "content": 7}, GOOD[1]], "must be a string, not int"),
        ([{"role": "user", "content": None}, GOOD[1]], "must be a string, not NoneType"),
        ([{"role": "user", "content": [{"type": "image_url"}]}, GOOD[1]], "must be a string"),
        (
            [GOOD[0], {"role": "assistant", "content": "  "}],
            "message 2: the assistant's answer is empty",
        ),
        ([GOOD[0], {"role": "assistant", "content": []}], "answer is empty"),
        ([GOOD[0], {"role": "assistant", "content": PARTS[2:]}], "answer is empty"),
        (
            [GOOD[0], {"role": "assistant", "content": [{"type": "code", "text": "x"}]}],
            "type 'code'",
        ),
        ([GOOD[0], {"content": "x"}], 'message 2 must be an object with "role" and "content"'),
        ({"conversations": {"a": 1}}, "conversations must be a list"),
        ({"conversations": [{"from": "human"}]}, "turn 1 must be"),
        ({"conversations": [{"from": "tool", "value": "x"}]}, "from 'tool'"),
        ({"conversations": [{"from": {}, "value": "x"}]}, "from {}"),
        ({"instruction": "x"}, 'without "output"'),
        ({"instruction": "x", "output": 3}, "must be a string, not int"),
        ({"instruction": 1, "output": "x"}, "must be strings"),
        ({"instruction": "x", "output": "y", "history": [3]}, "pairs"),
    ],
)
def test_each_bad_line_says_where_and_why(tmp_path, line, reason):
    path = write(tmp_path / "f.jsonl", {"messages": GOOD}, b"", line, GOOD)
    conversations, problems = read_conversations(path)
    assert len(conversations) == 2 and len(problems) == 1
    assert problems[0].startswith(f"{path}:3: ") and reason in problems[0]


def test_odd_but_right_files(tmp_path):
    path = write(
        tmp_path / "f.jsonl", b"\xef\xbb\xbf" + json.dumps(GOOD).encode() + b"\r", b"", b"  \r"
    )
    assert read_conversations(path) == ([{"messages": GOOD}], [])
    surrogate = write(
        tmp_path / "s.jsonl",
        b'[{"role":"user","content":"\\ud800"},{"role":"assistant","content":"x"}]',
    )
    conversations, problems = read_conversations(surrogate)
    write_conversations(tmp_path / "out.jsonl", conversations)
    assert problems == [] and read_conversations(tmp_path / "out.jsonl") == (conversations, [])


def test_a_json_list_of_records_keeps_its_line_numbers(tmp_path):
    records = [
        {"instruction": "Hi", "output": "Hello"},
        {"instruction": "é\nx"},
        {"messages": GOOD},
        5,
    ]
    path = tmp_path / "alpaca.json"
    path.write_text("\n" + json.dumps(records, indent=2, ensure_ascii=False))
    found = scan_conversations(path)
    assert [c["messages"] for c in found.conversations] == [GOOD, GOOD]
    assert [p.split(": ")[0] for p in found.problems] == [f"{path}:7", f"{path}:22"]
    (tmp_path / "one.json").write_text(
        json.dumps(GOOD, indent=2)
    )  # one conversation over several lines is no JSONL
    assert read_conversations(tmp_path / "one.json")[1]


def test_an_empty_file_and_a_missing_one(tmp_path):
    for content in (b"", b"\n\n  \n"):
        (tmp_path / "empty.jsonl").write_bytes(content)
        assert read_conversations(tmp_path / "empty.jsonl")[1] == [
            f"{tmp_path / 'empty.jsonl'}:1: the file is empty"
        ]
    with pytest.raises(ValueError, match="cannot be read"):
        read_conversations(tmp_path / "nowhere.jsonl")
    with pytest.raises(ValueError, match="cannot be read"):
        read_conversations(tmp_path)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "role",
                    "content",
                    "messages",
                    "conversations",
                    "from",
                    "value",
                    "instruction",
                    "output",
                    "text",
                    "type",
                    "input",
                    "history",
                ]
            ),
            inner | st.sampled_from(["user", "assistant", "human", "gpt", "text"]),
            max_size=4,
        )
    ),
    max_leaves=12,
)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.binary(max_size=40) | json_values.map(lambda v: json.dumps(v).encode()), max_size=4)
)
def test_whatever_is_in_a_file_it_is_read_or_reported(tmp_path_factory, lines):
    path = tmp_path_factory.mktemp("any") / "f.jsonl"
    path.write_bytes(b"\n".join(lines))
    conversations, problems = read_conversations(path)
    assert conversations or problems
    for conversation in conversations:
        ids, mask = Tokenizer.byte_level().render_conversation(conversation)
        assert sum(mask) > 0


@pytest.mark.parametrize(
    ("spec", "path", "epochs"),
    [
        ("my.jsonl", "my.jsonl", 1),
        ("my.jsonl:3", "my.jsonl", 3),
        ("a:b/my.jsonl:0.5", "a:b/my.jsonl", 0.5),
        ("a:b.jsonl", "a:b.jsonl", 1),
        ("my.jsonl:", "my.jsonl:", 1),
        (":3", ":3", 1),
        ("my.jsonl:nan", "my.jsonl:nan", 1),
    ],
)
def test_mix_specs(spec, path, epochs):
    found, times = parse_mix(spec)
    assert (str(found), times) == (path, epochs)


def test_mix_specs_that_cannot_be(tmp_path, monkeypatch):
    for spec in ("my.jsonl:0", "my.jsonl:-2", "my.jsonl:1e999"):
        with pytest.raises(ValueError, match="epochs; write a number above 0"):
            parse_mix(spec)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "odd:7").write_text("")
    assert parse_mix("odd:7")[1] == 1.0


def test_a_file_with_a_bad_line_is_refused_whole(tmp_path):
    a = write(tmp_path / "a.jsonl", GOOD, GOOD)
    assert len(ConversationFile(a)) == 2 and ConversationFile(a)[-1]["messages"] == GOOD
    bad = write(tmp_path / "bad.jsonl", GOOD, 1, 2)
    with pytest.raises(ValueError, match="1 more bad line.*nanochat data check") as error:
        ConversationFile(bad)
    assert str(error.value).startswith(f"{bad}:2: ")


def test_check_counts_and_previews_without_a_tokenizer(tmp_path, capsys):
    path = write(
        tmp_path / "f.jsonl", GOOD, {"messages": GOOD}, {"instruction": "[red]", "output": "ok"}, 5
    )
    assert data_check(DataCheckConfig(str(path), sequence_len=14)) == 1
    out = capsys.readouterr().out
    assert f"{path}:4: a JSON number" in out and "3 good, 1 bad" in out
    assert "3 (1 alpaca, 1 list, 1 messages), 6 messages" in out and "1 exact repetitions" in out
    # bos, 4 delimiters, and the texts in bytes; trained: the answers and their end tokens
    assert (
        f"bytes          {3 * 5 + 7 + 7 + 7}," in out and f"trained bytes  {5 + 5 + 2 + 3} (" in out
    )
    assert "counted in bytes" in out and "scripts.tok_train" in out
    assert "<|user_start|>Hi<|user_end|>" in out and "cut at the end" not in out


def test_check_with_a_tokenizer_uses_it(tmp_path, base_dir, capsys):
    Tokenizer.train(["Hello Hello Hi"], 278).save(base_dir / "tokenizer")
    assert (
        data_check(
            DataCheckConfig(str(write(tmp_path / "f.jsonl", GOOD)), preview=0, sequence_len=3)
        )
        == 0
    )
    out = capsys.readouterr().out
    assert "tokens         8, longest" in out and "bytes" not in out and "1 exceed 3 tokens" in out
    assert "1 good, 0 bad: ready" in out and "preview" not in out


def test_convert_writes_what_is_good_and_reads_back(tmp_path, capsys):
    path = write(tmp_path / "f.jsonl", SYSTEM, b"oops", {"instruction": "Hi", "output": "Hello"})
    assert data_check(DataCheckConfig(str(path), convert=str(tmp_path / "new" / "out.jsonl"))) == 1
    assert read_conversations(tmp_path / "new" / "out.jsonl") == (
        [{"messages": SYSTEM}, {"messages": GOOD}],
        [],
    )
    with pytest.raises(ValueError, match="the checked file itself"):
        data_check(DataCheckConfig(str(path), convert=str(path)))


def test_many_bad_lines_are_counted_but_not_all_listed(tmp_path, capsys):
    path = write(tmp_path / "f.jsonl", *range(20))
    assert data_check(DataCheckConfig(str(path), max_problems=3)) == 1
    out = capsys.readouterr().out
    assert (
        out.count("a JSON number") == 3
        and "and 17 more bad lines" in out
        and "0 good, 20 bad" in out
    )


def test_real_conversations_are_all_readable(shared_dir):
    conversations, problems = read_conversations(shared_dir / "data" / "chat" / "val.jsonl")
    assert len(conversations) == 600 and problems == []
