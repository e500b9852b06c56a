"""The report as a whole: from records to files, whatever there is of them and whatever a model has
written.
"""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nanochat.eval.results import scored
from nanochat.report import html
from nanochat.report.__main__ import main
from nanochat.report.blocks import Details, Heading, SampleBlock, Table, Text
from nanochat.report.curves import smooth
from nanochat.report.generate import generate
from nanochat.report.markdown import fence, markdown
from nanochat.report.quantities import duration, number
from nanochat.runtime.records import write_record

EVIL = (
    "<script>alert(1)</script> | **x** ![p](http://example.invalid/a.png) ``` </details> <img "
    "src=x onerror=y>"
)


def entry(correct: int, n: int, baseline: float = 0.0) -> dict:
    """A task's score as an evaluation hands it to the report."""
    return {**scored([1] * correct + [0] * (n - correct), baseline), "correct": correct}


class Page(HTMLParser):
    """Tags, attributes and text of a page, as a browser would see them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.text: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text.append(data)


def write_everything(base_dir):
    """Records of a whole run, small."""
    folder = base_dir / "base_checkpoints" / "d4"
    folder.mkdir(parents=True)
    rows = [
        {"step": i, "train_loss": 5.0 - i / 30, "reward": i / 60}
        | ({"val_bpb": 2.0} if i % 20 == 0 else {})
        for i in range(60)
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    common = {
        "wall_s": 120.0,
        "device": "cpu",
        "world_size": 1,
        "metrics_jsonl": str(folder / "metrics.jsonl"),
    }
    common |= {
        "config": {"depth": 4, "note": EVIL},
        "checkpoint": {"path": "x", "step": 3, "sha256": "ab"},
    }
    sample = {"prompt": "The capital of France is", "completion": EVIL}
    write_record(
        "base_train",
        {**common, "metrics": {"val_bpb": 1.1, "x": float("nan")}, "samples": [sample] * 6},
    )
    tasks = {f"task_{i}": entry(40, 100, 0.25) for i in range(22)}
    write_record("base_eval", {"metrics": {"CORE": 0.2219}, "tasks": tasks})
    for stage, correct in (("mid", 337), ("sft", 329)):
        results = {"ARC-Challenge": entry(correct, 1172, 0.25)}
        write_record(f"chat_eval_{stage}", {"tasks": results, "metrics": {"ChatCORE": 0.073}})
    rewarded = [{**sample, "completion": f"answer {i}", "reward": i / 10} for i in range(10)]
    write_record("chat_rl", {**common, "metrics": {"pass@1": 0.6}, "samples": rewarded})
    of = {"source": "sft", "model_tag": "d4", "step": 90}
    parts = {"World-identity": entry(190, 200)}
    samples = [{**sample, "correct": False}]
    write_record("exam", {"tasks": parts, "samples": samples, "checkpoint": of})
    write_record(
        "tokenizer", {"training": {"vocab_size": 4096}, "rows": [{"text": EVIL, "ours": 1.2}]}
    )
    line = {"source": "my.jsonl", "rows": 990, "epochs": 3.0, "share": 0.25, "held_out": 10}
    write_record("chat_sft", {**common, "mixture": [{**line, "hash": "0123abcd"}]})


def test_a_whole_run(base_dir, tmp_path, monkeypatch, capsys):
    write_everything(base_dir)
    monkeypatch.chdir(tmp_path)
    main(["generate", "--hourly-rate=24"])
    assert "report.md" in capsys.readouterr().out
    text = (tmp_path / "report.md").read_text()
    for line in (
        "| Metric | BASE | MID | SFT | RL |",
        "| CORE | 0.2219 | - | - | - |",
        "| ARC-Challenge | - | 0.2875 | 0.2807 | - |",
        "| HumanEval | - | - | - | - |",
        "| World-identity | 0.9500 | 0.910 to 0.973 | 190 | 200 |",
        "| my.jsonl | 990 | 3 | 25.0% | 10 | 0123abcd |",
        "Held-out questions, greedy decoding. Model: sft d4, step 90.",
        "At $24 for an hour of the machine (--hourly-rate).",
    ):
        assert line in text
    assert re.search(r"\| Base training \| .* \| 2 min 00 s \| \$0.80 \|", text)
    assert text.index("answer 9") < text.index("Worst samples") < text.index("answer 0")
    pictures = set(re.findall(r"\]\((report_files/[^)]+)\)", text))
    assert pictures >= {
        f"report_files/plot_{n}.png" for n in ("base_train", "base_eval", "chat_rl_reward", "exam")
    }
    for picture in pictures:
        assert (tmp_path / picture).read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert (base_dir / "report" / "report.md").read_text() == text


def test_the_page_stands_alone_and_runs_nothing(base_dir):
    write_everything(base_dir)
    page = Page(generate().with_suffix(".html").read_text())
    names = {tag for tag, _ in page.tags}
    assert not names & {"script", "link", "iframe", "object", "base", "form"}
    assert sum(tag == "img" for tag, _ in page.tags) >= 5
    for tag, attrs in page.tags:
        assert not [name for name in attrs if name.startswith("on")], (tag, attrs)
        for name in ("src", "href"):
            assert attrs.get(name, "#").startswith(("data:image/png;base64,", "#"))
        assert tag != "img" or attrs["alt"]
    anchors = {attrs.get("id") for _, attrs in page.tags}
    assert all(attrs["href"][1:] in anchors for tag, attrs in page.tags if tag == "a")
    assert EVIL in page.text, "what the model wrote is shown as it is"


@pytest.mark.parametrize(
    "section", ["tokenizer", "base_train", "base_eval", "chat_eval_rl", "chat_rl", "exam"]
)
@pytest.mark.parametrize(
    "data", [{}, {"metrics": None, "samples": None, "config": None, "tasks": {}, "environment": {}}]
)
def test_one_poor_record_is_enough(section, data):
    write_record(section, data)
    assert "| Metric | BASE | MID | SFT | RL |" in generate().read_text()


def test_a_moved_base_directory_still_has_its_curves(base_dir):
    folder = base_dir / "base_checkpoints" / "d4"
    folder.mkdir(parents=True)
    (folder / "metrics.jsonl").write_text('{"step": 1, "train_loss": 2.0}\n')
    write_record("base_train", {"metrics_jsonl": "/elsewhere/base_checkpoints/d4/metrics.jsonl"})
    assert "plot_base_train.png" in generate().read_text()


def test_old_pictures_do_not_stay(base_dir, tmp_path):
    write_everything(base_dir)
    generate(copy_to=tmp_path)
    (base_dir / "report" / "exam.json").unlink()
    generate(copy_to=tmp_path)
    for folder in (base_dir / "report", tmp_path):
        assert not (folder / "report_files" / "plot_exam.png").exists()
        assert (folder / "report_files" / "plot_base_eval.png").exists()


def test_without_records_it_says_how_to_get_some(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit):
        main(["generate"])
    assert re.search(r"no records yet.*bash speedrun\.sh", capsys.readouterr().err)
    assert not (tmp_path / "report.md").exists()
    main(["reset"])
    assert "removed 0 files" in capsys.readouterr().out


@pytest.mark.parametrize(
    "words, said",
    [([], "must be given"), (["make"], "make"), (["reset", "now"], "now: unexpected word")],
)
def test_wrong_words_are_one_error(words, said, capsys):
    with pytest.raises(SystemExit):
        main(words)
    error = capsys.readouterr().err
    assert said in error and error.startswith("error: ") and error.count("\n") == 1


@pytest.mark.parametrize(
    "words", [["--hourly-rate=-1"], ["--hourly-rate=nan"], ["--out=/nowhere"], ["--rate=3"]]
)
def test_wrong_settings_write_nothing(words, base_dir, capsys):
    write_record("exam", {})
    with pytest.raises(SystemExit) as stopped:
        main(["generate", *words])
    assert stopped.value.code == 2 and words[0].split("=")[0] in capsys.readouterr().err
    assert not (base_dir / "report" / "report.md").exists()


@given(st.text(st.characters(exclude_categories=("Cs", "Cc")), max_size=60))
def test_any_text_is_shown_and_never_acts(text):
    blocks = [
        Heading(2, text),
        Text(text),
        Table([text, "b"], [[text, text]]),
        SampleBlock(text, text, text),
    ]
    page = Page(html.page(text, [*blocks, Details(text, blocks)]))
    allowed = {
        "html",
        "head",
        "meta",
        "title",
        "style",
        "body",
        "main",
        "nav",
        "ul",
        "li",
        "a",
        "h2",
        "p",
        "div",
    }
    assert {tag for tag, _ in page.tags} <= allowed | {
        "table",
        "thead",
        "tbody",
        "tr",
        "th",
        "td",
        "pre",
        "details",
    } | {"summary"}
    # A pre swallows one newline at its start; control characters are excluded above.
    assert not text.strip() or "".join(page.text).count(text) >= 10
    written = markdown(blocks, "p")
    assert len([line for line in written.splitlines() if line.startswith("| ")]) >= 3


@given(st.text("`~ab \n", max_size=40))
def test_no_text_closes_its_fence(text):
    first, *inside, last = fence(text).split("\n")
    marks = first.removesuffix("text")
    assert last == marks and set(marks) == {"`"}
    assert not any(line.strip().startswith(marks) for line in inside)


def test_numbers_and_times_read_well():
    assert [number(v) for v in (None, True, 12, 1234567, 0.123456, 1.0, 123456.7)] == [
        "-",
        "yes",
        "12",
        "1,234,567",
        "0.1235",
        "1",
        "123,457",
    ]
    assert [duration(s) for s in (None, 1.23, 42, 192, 7500)] == [
        "-",
        "1.2 s",
        "42 s",
        "3 min 12 s",
        "2 h 05 min",
    ]


def test_smoothing_follows_and_ignores_a_spike():
    falling = [10.0 - i / 10 for i in range(100)]
    assert smooth(falling, 11)[:90] == pytest.approx(falling[:90])
    spiked = [2.0] * 50 + [90.0] + [2.0] * 50
    assert smooth(spiked, 11) == pytest.approx([2.0] * 101)


def test_before_and_after_on_tasks_outside_the_table(base_dir):
    for stage, correct in (("sft", 50), ("rl", 80)):
        tasks = {"World-counting": entry(correct, 100)}
        tasks |= {"World-facts": entry(50, 100)} if stage == "rl" else {}
        write_record(f"chat_eval_{stage}", {"tasks": tasks})
    write_record("chat_rl", {"metrics": {"pass@1": 0.8, "pass@1 before": 0.5, "steps": 7}})
    text = generate().read_text()
    assert "| World-counting | - | - | 0.500 (0.404 to 0.596) | 0.800 (0.711 to 0.867) |" in text
    assert "| World-facts | - |" not in text, "one stage alone has no before and after"
    assert "plot_stages.png" in text
    assert (
        "| pass@1 | 0.5 | 0.8 |" in text
        and "| steps | 7 |" in text
        and "none of these benchmarks" in text
    )


def test_short_samples_stand_in_a_table_and_long_ones_in_full(base_dir):
    short = [
        {"prompt": f"question {i}", "completion": "a | b", "correct": i > 0} for i in range(13)
    ]
    write_record("chat_eval_sft", {"samples": short})
    write_record("chat_eval_mid", {"samples": [{"prompt": "q", "completion": "line\nline"}]})
    text = generate().read_text()
    assert "| question 0 | a \\| b | wrong |" in text and "| question 1 | a \\| b | right |" in text
    assert "<summary>One more sample</summary>" in text
    assert "```text\nline\nline\n```" in text


@pytest.mark.filterwarnings("error")
def test_few_questions_all_wrong_still_make_a_picture(base_dir):
    write_record("chat_eval_sft", {"tasks": {f"task {i}": entry(0, 4) for i in range(5)}})
    assert "plot_chat_eval_sft.png" in generate().read_text()
