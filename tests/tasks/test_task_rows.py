"""What the readers make of real rows, and how they judge."""

from __future__ import annotations

import json

import pytest

from nanochat.tasks.gsm8k import GSM8K, answer_parts, final_number, spoken
from nanochat.tasks.smoltalk import SmolTalk


def test_calculator_calls_become_parts():
    parts = answer_parts("Half is 48/2 = <<48/2=24>>24.\nIn all <<24+48=72>>72\n#### 72")
    assert [(p["type"], p["text"]) for p in parts] == [
        ("text", "Half is 48/2 = "),
        ("python", "48/2"),
        ("python_output", "24"),
        ("text", "24.\nIn all "),
        ("python", "24+48"),
        ("python_output", "72"),
        ("text", "72\n#### 72"),
    ]
    assert spoken(parts) == "Half is 48/2 = 24.\nIn all 72\n#### 72"
    assert answer_parts("<<odd>> no call") == [{"type": "text", "text": "<<odd>> no call"}]


@pytest.mark.parametrize(
    "text, wanted",
    [
        ("#### 72", "72"),
        ("so ####1,234", "1234"),
        ("#### $5.50 a day", "5.50"),
        ("#### -3.", "-3"),
        ("#### 7 then #### 8", "7"),
        ("72", None),
        ("#### many", None),
        ("", None),
        ("#### Step 1\n#### 4", "4"),
        ("#### 72%", "72"),
        ("#### 72 apples", "72"),
        ("#### 18 dollars (9*2)", "18"),
        ("#### 72.\n5", "72"),
        ("#### .5", "0.5"),
        ("#### -$1,234,567.25", "-1234567.25"),
        *((f"#### {text}", None) for text in ("3/4", "3 / 4", "1e3", "2.5e-3", "1,23", "1,2345")),
        *((f"#### {text}", None) for text in ("1234,567", "3 1/2", "3 \u00bd", "3\u00bd", "1 000")),
        *(
            (f"#### {text}", None)
            for text in ("1'000", "5k", "5km", "20th", "0x10", "1_000", "1.2.3")
        ),
        *(
            (f"#### {text}", None)
            for text in ("10^3", "10**3", "10 x 3", "5-7", "5 to 7", "5 or 6")
        ),
        *(
            (f"#### {text}", None)
            for text in ("2 million", "3 dozen", "12:30", "1.000,5", "5 and 1/2")
        ),
    ],
)
def test_final_number(text, wanted):
    found = final_number(text)
    assert (None if found is None else str(found)) == wanted


def test_gsm8k_judges_numbers_not_text(base_dir):
    folder = base_dir / "task_data" / "gsm8k"
    folder.mkdir(parents=True)
    (folder / "test.jsonl").write_text(
        json.dumps({"question": "q", "answer": "<<36*2=72>>72\n#### 72"}) + "\n"
    )
    task = GSM8K("test")
    assert task.evaluate(task[0], "well #### 72.0") and task.reward(task[0], "#### 72") == 1.0
    assert (
        not task.evaluate(task[0], "#### 720")
        and not task.evaluate(task[0], "72")
        and task.reward(task[0], "") == 0.0
    )


def test_smoltalk_reads_conversations_and_their_stand_in(base_dir):
    folder = base_dir / "task_data" / "chat"
    folder.mkdir(parents=True)
    messages = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}]
    (folder / "val.jsonl").write_text(json.dumps({"messages": messages, "source": "x"}) + "\n")
    assert SmolTalk("test")[0] == {"messages": messages}
    with pytest.raises(NotImplementedError, match="training only"):
        SmolTalk("test").evaluate({}, "")
