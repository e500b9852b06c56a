"""Conversation files: every accepted shape, every kind of bad line, converting, counting,
mixing."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import os
import re
import zipfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nanochat.dataloader import ConversationDocuments
from nanochat.dataset.check import DataCheckConfig, data_check
from nanochat.dataset.conversations import (
    parse_mix,
    read_conversations,
    scan_conversations,
    write_conversations,
)
from nanochat.tasks.conversation_file import ConversationFile
from nanochat.tasks.derived import Mixture
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
        ([GOOD[0], {**GOOD[1], "weight": 1, "train": True, "loss": 1.0}], GOOD),
        ([GOOD[0], {**GOOD[1], "tool_calls": [], "function_call": None, "images": []}], GOOD),
        ({"system": "Be brief.", "messages": GOOD}, SYSTEM),
        ({"system": "Be brief.", "messages": SYSTEM}, SYSTEM),
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
        (b'{"messages": ' + b"[" * 10_000, "nested too deeply"),
        (b'{"messages": [], "messages": []}', "the key 'messages' is there 2 times"),
        (
            b'[{"role": "user", "content": "a", "content": "b"}, {"role": "assistant"}]',
            "the key 'content' is there 2 times",
        ),
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
        ([GOOD[0], {**GOOD[1], "weight": 0.5}], 'message 2: "weight" is 0.5; use true'),
        ([GOOD[0], {**GOOD[1], "train": "false"}], 'message 2: "train" is "false"; use'),
        ([GOOD[0], {**GOOD[1], "loss": [1]}], 'message 2: "loss" is [1]; use true'),
        ([GOOD[0], {**GOOD[1], "trainable": False}], 'message 2: "trainable" is not understood'),
        ([GOOD[0], {**GOOD[1], "mask": 0}], 'message 2: "mask" is not understood'),
        ({"messages": GOOD, "weight": 0.3}, '"weight" is 0.3; use true'),
        (
            [GOOD[0], {**GOOD[1], "tool_calls": [{"id": "c"}]}],
            'message 2: "tool_calls" cannot be trained on',
        ),
        (
            [GOOD[0], {"role": "assistant", "content": None, "function_call": {"name": "f"}}],
            'message 2: "function_call" cannot be trained on',
        ),
        ([{**GOOD[0], "images": ["a.png"]}, GOOD[1]], 'message 1: "images" cannot be trained on'),
        ({"messages": GOOD, "images": ["a.png"]}, '"images" cannot be trained on'),
        ({"conversations": SHAREGPT, "videos": ["a.mp4"]}, '"videos" cannot be trained on'),
        (
            {"conversations": [SHAREGPT[0], {**SHAREGPT[1], "tool_calls": [1]}]},
            'message 2: "tool_calls" cannot be trained on',
        ),
        ({"instruction": "Hi", "output": "Hello", "audio": "x"}, '"audio" cannot be trained on'),
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


@pytest.mark.parametrize("indent", [2, "\t"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_indented_json_is_read(tmp_path, indent, end):
    def written(name, *values):
        text = "\n".join(json.dumps(value, indent=indent) for value in values) + "\n"
        (tmp_path / name).write_bytes(text.replace("\n", end).encode())
        return tmp_path / name

    one, two = {"messages": GOOD}, {"messages": SYSTEM}
    for values, wanted in (
        ([one], [one]),
        ([GOOD], [one]),
        ([one, two], [one, two]),
        ([GOOD, SYSTEM], [one, two]),
        ([[one, {"conversations": SHAREGPT}]], [one, one]),
    ):
        assert read_conversations(written("f.json", *values)) == (wanted, [])
    lines = scan_conversations(written("bad.json", one, {"messages": 3}, GOOD[:1])).problems
    height = len(json.dumps(one, indent=indent).split("\n"))
    assert lines[0].startswith(f"{tmp_path / 'bad.json'}:{height + 1}: messages must be a list")
    assert lines[1].startswith(f"{tmp_path / 'bad.json'}:{height + 4}: the last message is")


def test_broken_indented_json_is_one_error_with_its_place(tmp_path):
    text = json.dumps({"messages": GOOD * 20}, indent=2)
    by_row = text.replace("{\n      ", "{").replace(',\n      "c', ', "c').replace("\n    }", "}")
    for damaged, line in (
        (text[:-30], 161),
        (text.replace('"Hello"', "Hello", 1), 9),
        (by_row.replace("Hello", '"', 1), 4),
    ):
        (tmp_path / "f.json").write_text(damaged)
        (problem,) = read_conversations(tmp_path / "f.json")[1]
        assert problem.startswith(f"{tmp_path / 'f.json'}:{line}: not JSON (")


def test_bad_first_lines_of_jsonl_are_still_lines(tmp_path):
    for first in (b'{"messages": [', b"[", b"{", b'{"a": "\xff"}', b"[" * 50_000):
        conversations, problems = read_conversations(write(tmp_path / "f", first, GOOD, b"{", GOOD))
        assert len(conversations) == 2
        assert [problem.split(": ")[0] for problem in problems] == [
            f"{tmp_path / 'f'}:1",
            f"{tmp_path / 'f'}:3",
        ]


def zipped(member):
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        archive.writestr(member, "x")
    return data.getvalue()


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"PAR1" + b"\0" * 20, "a parquet file; .*write its rows as JSONL"),
        (gzip.compress(b'{"messages": []}'), "gzip-compressed; unpack it"),
        (lzma.compress(b"x"), "xz-compressed; unpack it"),
        (bz2.compress(b"x"), "bzip2-compressed; unpack it"),
        (b"\x28\xb5\x2f\xfd\0", "zstd-compressed; unpack it"),
        (zipped("f.jsonl"), "a zip archive; unpack it"),
        (zipped("word/document.xml"), "a Word document .docx.; save it as plain text"),
        (zipped("xl/workbook.xml"), "an Excel sheet"),
        (b"%PDF-1.7", "a PDF document; extract its text"),
        (b"\0" * 257 + b"ustar", "a tar archive; unpack it"),
    ],
)
def test_files_of_another_kind_say_what_they_are_and_what_to_do(tmp_path, data, kind):
    (tmp_path / "f.jsonl").write_bytes(data)
    conversations, (problem,) = read_conversations(tmp_path / "f.jsonl")
    assert conversations == [] and re.search(f"f.jsonl:1: not JSONL but {kind}", problem)
    with pytest.raises(ValueError, match=f"f.jsonl:1: not JSONL but {kind}"):
        ConversationFile(tmp_path / "f.jsonl")


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "f.jsonl")
    with pytest.raises(ValueError, match=r"f.jsonl: a pipe \(FIFO\), not a file"):
        read_conversations(tmp_path / "f.jsonl")


@pytest.mark.parametrize("codec", ["utf-16", "utf-32", "utf-8-sig", "utf-16-le", "utf-32-be"])
def test_files_with_a_byte_order_mark_or_wide_ones_without_are_read(tmp_path, codec):
    row = [{"role": "user", "content": "Grüße 你好"}, GOOD[1]]
    lines = f"{json.dumps(row, ensure_ascii=False)}\n" * 2
    (tmp_path / "f.jsonl").write_bytes(lines.encode(codec))
    assert read_conversations(tmp_path / "f.jsonl") == ([{"messages": row}] * 2, [])


def test_damaged_wide_files_and_zero_bytes_are_one_problem(tmp_path):
    for data, reason in (
        (json.dumps(GOOD).encode("utf-16") + b"x", "damaged utf-16 text: the bytes at offset"),
        (b'{"messages": "\0"}', "holds zero bytes, the first at offset 14"),
    ):
        (tmp_path / "f.jsonl").write_bytes(data)
        (problem,) = read_conversations(tmp_path / "f.jsonl")[1]
        assert problem.startswith(f"{tmp_path / 'f.jsonl'}:1: {reason}")


def test_separators_inside_strings_end_no_line(tmp_path):
    row = [{"role": "user", "content": "a\u2028b\u2029c\x85d\x0be"}, GOOD[1]]
    lines = [json.dumps(row, ensure_ascii=False).encode()] * 2
    assert read_conversations(write(tmp_path / "f.jsonl", *lines)) == ([{"messages": row}] * 2, [])


# --- what to train on

TWO = [*GOOD, *GOOD]


@pytest.mark.parametrize("mark", [{"weight": 0}, {"weight": 0.0}, {"train": False}, {"loss": 0}])
@pytest.mark.parametrize("form", ["list", "messages", "sharegpt"])
def test_answers_marked_as_not_to_be_learnt_are_not(tmp_path, mark, form):
    if form == "sharegpt":
        turns = [SHAREGPT[0], {**SHAREGPT[1], **mark}, *SHAREGPT]
        record = {"conversations": turns}
    else:
        record = [GOOD[0], {**GOOD[1], **mark}, *GOOD]
        record = record if form == "list" else {"messages": record}
    contents = scan_conversations(write(tmp_path / "f.jsonl", record))
    assert contents.problems == [] and contents.notes() == []
    (conversation,) = contents.conversations
    assert conversation["messages"] == [GOOD[0], {**GOOD[1], "train": False}, *GOOD]
    tokenizer = Tokenizer.byte_level()
    ids, mask = tokenizer.render_conversation(conversation)
    learnt = tokenizer.decode([i for i, m in zip(ids, mask, strict=True) if m])
    assert learnt == "Hello<|assistant_end|>"
    everything = ConversationDocuments([conversation], masked=False)
    ids, weights = everything.encode(conversation, tokenizer)
    left_out = tokenizer.decode([i for i, w in zip(ids, weights, strict=True) if not w])
    assert left_out == "Hello<|assistant_end|>" and weights.sum() == len(ids) - 6
    assert everything.encode({"messages": TWO}, tokenizer)[1] is None
    write_conversations(tmp_path / "out.jsonl", [conversation])
    assert read_conversations(tmp_path / "out.jsonl") == ([conversation], [])


@pytest.mark.parametrize(
    "record",
    [
        [GOOD[0], {**GOOD[1], "weight": 0}],
        {"messages": GOOD, "weight": 0},
        {"messages": GOOD, "train": False},
        {"conversations": SHAREGPT, "weight": 0},
        {"instruction": "Hi", "output": "Hello", "train": False},
    ],
)
def test_rows_of_which_nothing_is_to_be_learnt_are_left_out_and_counted(tmp_path, record):
    path = write(tmp_path / "f.jsonl", GOOD, record, record)
    contents = scan_conversations(path)
    assert contents.conversations == [{"messages": GOOD}] and contents.problems == []
    assert contents.notes() == [
        f"{path}:2: not used: rows of which no answer is to be trained on (2 in the file)"
    ]
    only = write(tmp_path / "only.jsonl", record)
    assert read_conversations(only) == (
        [],
        [f"{only}:1: rows of which no answer is to be trained on"],
    )


def test_every_field_that_is_not_used_is_named_with_line_and_count(tmp_path, capsys):
    thinking = {**GOOD[1], "reasoning_content": "hmm", "refusal": None}
    parts = {"role": "assistant", "content": [{"type": "text", "text": "x", "cache": 1}]}
    path = write(
        tmp_path / "f.jsonl",
        GOOD,
        [GOOD[0], thinking],
        {"messages": [GOOD[0], thinking, *GOOD], "tools": [{"type": "function"}], "label": False},
        [{**GOOD[0], "train": True}, parts],
        {"instruction": "Hi", "output": "Hello", "response": "Bye", "score": 0},
    )
    notes = [
        f'{path}:3: not used: field "label" (1 in the file)',
        f'{path}:5: not used: field "response" (1 in the file)',
        f'{path}:5: not used: field "score" (1 in the file)',
        f'{path}:3: not used: field "tools" (1 in the file)',
        f"{path}:4: not used: mark to train on what the user says (1 in the file)",
        f'{path}:2: not used: message field "reasoning_content" (2 in the file)',
        f'{path}:4: not used: part field "cache" (1 in the file)',
    ]
    contents = scan_conversations(path)
    assert contents.notes() == notes and len(contents.conversations) == 5
    assert data_check(DataCheckConfig(str(path))) == 0
    out = capsys.readouterr().out
    assert all(note in out for note in notes)
    ConversationFile(path)  # training says the same
    assert capsys.readouterr().out.split("\n") == [*notes, ""]


def test_previews_cannot_steer_the_terminal_and_show_what_is_written(tmp_path, capsys):
    wild = "\x1b[31mred\x07 :smile: [bold]x[/bold] \u202eback\x9b2J"
    path = write(tmp_path / "f.jsonl", [{"role": "user", "content": wild}, GOOD[1]])
    assert data_check(DataCheckConfig(str(path))) == 0
    out = capsys.readouterr().out
    assert "\\x1b[31mred\\x07 :smile: [bold]x[/bold] \\u202eback\\x9b2J" in out
    assert not {"\x1b", "\x07", "\x9b", "\u202e"} & set(out)


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
        _, mask = Tokenizer.byte_level().render_conversation(conversation)
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


@pytest.mark.parametrize(("share", "rows"), [("0.1", 1), ("0.001", 1), ("0.6", 3), ("2.5", 12)])
def test_a_part_of_a_file_is_at_least_one_row(tmp_path, share, rows):
    path, epochs = parse_mix(f"{write(tmp_path / 'f.jsonl', *[GOOD] * 5)}:{share}")
    assert len(Mixture([(ConversationFile(path), epochs)])) == rows


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


def test_check_counts_the_answers_that_are_not_learnt(tmp_path, capsys):
    row = [GOOD[0], {**GOOD[1], "weight": 0}, *GOOD]
    assert data_check(DataCheckConfig(str(write(tmp_path / "f.jsonl", row, GOOD)))) == 0
    out = capsys.readouterr().out
    assert "not learnt     1 answers marked so" in out and "trained bytes  12 (" in out


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
