"""Configuration: spellings, precedence, all problems at once, and dump -> parse gives the same
value.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Literal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nanochat import config
from nanochat.config import Positional, Short
from nanochat.train.configs import MidConfig, SFTConfig


@dataclasses.dataclass
class Sample:
    """Train a sample."""

    depth: int = 4
    """Transformer layers."""
    matrix_lr: float = 0.02
    """Learning rate of matrices."""
    source: Annotated[Literal["base", "mid"], Short("-i")] = "base"
    """Where to start."""
    prompt: Annotated[str, Short("-p")] = ""
    """One prompt."""
    data: tuple[str, ...] = ()
    """Files."""
    model_tag: str | None = None
    """Tag."""
    num_iterations: int | None = None
    """Steps."""
    out: Path = Path("here")
    """Where to."""
    fp8: bool = False
    """Compute in fp8."""
    sizes: list[int] = dataclasses.field(default_factory=lambda: [1, 2])
    """Sizes."""

    def problems(self) -> list[str]:
        if self.depth < 1:
            return [f"--depth={self.depth}: must be at least 1; use e.g. --depth 4"]
        return []


@dataclasses.dataclass
class Check:
    """Check a file."""

    file: Positional[Path]
    """File to check."""
    limit: int = 3


def parsed(*argv):
    value, problems = config.collect(Sample, argv)
    assert problems == []
    return value


def errors(capsys, *argv, cls=Sample):
    with pytest.raises(SystemExit) as stopped:
        config.parse(cls, list(argv))
    assert stopped.value.code == 2
    out = capsys.readouterr()
    assert out.out == ""
    return out.err.splitlines()


@pytest.mark.parametrize(
    "argv, name, value",
    [
        (["--matrix_lr=0.5"], "matrix_lr", 0.5),
        (["--matrix-lr", "1e-3"], "matrix_lr", 1e-3),
        (["--num_iterations", "-1"], "num_iterations", -1),
        (["--num-iterations=524_288"], "num_iterations", 524288),
        (["--num-iterations=None"], "num_iterations", None),
        (["-i", "mid"], "source", "mid"),
        (["-i=mid"], "source", "mid"),
        (["-p", "-3 + 5"], "prompt", "-3 + 5"),
        (["--prompt=--a=b c"], "prompt", "--a=b c"),
        (["--prompt="], "prompt", ""),
        (["--fp8"], "fp8", True),
        (["--fp8=True"], "fp8", True),
        (["--fp8=1"], "fp8", True),
        (["--fp8", "False"], "fp8", False),
        (["--fp8", "--no-fp8"], "fp8", False),
        (["--fp8", "--depth=2"], "fp8", True),
        (["--data", "a:2", "b"], "data", ("a:2", "b")),
        (["--data=a", "--data=b"], "data", ("a", "b")),
        (["--sizes", "3", "-4", "--fp8"], "sizes", [3, -4]),
        (["--out", "x/y"], "out", Path("x/y")),
        (["--model_tag=d34"], "model_tag", "d34"),
        (["--model-tag=123"], "model_tag", "123"),
        (["--depth=2", "--depth=3"], "depth", 3),
    ],
)
def test_spellings(argv, name, value):
    got = getattr(parsed(*argv), name)
    assert got == value and type(got) is type(value)


def test_torchrun_separator():
    assert config.parse(Sample, ["--", "--depth=20"]).depth == 20


def test_file_is_between_defaults_and_command_line(tmp_path):
    (tmp_path / "c.yaml").write_text("depth: 8\nmatrix-lr: 1e-3\ndata: [x]\nout: there\n")
    got = parsed("--config", str(tmp_path / "c.yaml"), "--depth=6")
    assert (got.depth, got.matrix_lr, got.data, got.out, got.fp8) == (
        6,
        1e-3,
        ("x",),
        Path("there"),
        False,
    )


def test_all_problems_in_one_message(capsys, tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("dept: 8\nfp8: maybe\n")
    lines = errors(
        capsys,
        "--config",
        str(path),
        "--depth=-3",
        "--matrx_lr=1",
        "--matrix_lr=fast",
        "-i",
        "sft",
        "--data",
        "stray=1",
    )
    assert lines == [
        f"error: {path}: dept=8: unknown setting; did you mean depth?",
        f"error: {path}: fp8=maybe: expected True or False; use e.g. --fp8 False",
        "error: --matrx_lr=1: unknown flag; did you mean --matrix-lr?",
        "error: --matrix-lr=fast: expected a number; use e.g. --matrix-lr 0.02",
        "error: --source=sft: expected one of base, mid; use e.g. --source base",
        "error: --depth=-3: must be at least 1; use e.g. --depth 4",
    ]


@pytest.mark.parametrize(
    "argv, line",
    [
        (["--depth"], "error: --depth: needs a value (a whole number); use e.g. --depth 4"),
        (
            ["--depth", "--fp8"],
            "error: --depth: needs a value (a whole number); use e.g. --depth 4",
        ),
        (["--depth=2.5"], "error: --depth=2.5: expected a whole number; use e.g. --depth 4"),
        (["--fp8=maybe"], "error: --fp8=maybe: expected True or False; use e.g. --fp8 False"),
        (["depth=4"], "error: depth=4: unexpected word; write --depth=4"),
        (["stray"], "error: stray: unexpected word; see --help"),
        (["--zzzz", "7"], "error: --zzzz: unknown flag; see --help"),
        (["-z"], "error: -z: unknown flag; see --help"),
        (["-imid"], "error: -imid: unknown flag; write -i mid"),
        (["\u2013\u2013depth=4"], "error: \u2013\u2013depth=4: unexpected word; write --depth=4"),
        (["\u2014fp8"], "error: \u2014fp8: unexpected word; write --fp8"),
        (["\u2013i"], "error: \u2013i: unexpected word; write -i"),
        (["--dep\x1b[2Jth=4"], "error: --dep\\x1b[2Jth=4: unknown flag; did you mean --depth?"),
        (["--out=~nobody-of-this-name/x"], None),
        (["--depth=" + "9" * 5000], None),
        (["--config", "a.yaml", "--config=b.yaml"], None),
        (["--config"], None),
        (["--config", "/"], None),
    ],
)
def test_one_line_errors(capsys, argv, line):
    said = errors(capsys, *argv)
    if line is None:
        assert all(text.startswith(f"error: {argv[0].partition('=')[0]}") for text in said) and said
    else:
        assert said == [line]


@pytest.mark.parametrize(
    "text",
    [
        "- a\n- b\n",
        "a: [1\n",
        "depth: null\n",
        "depth: [1, 2]\n",
        "depth: {a: 1}\n",
        "depth: true\n",
        "depth:\n",
        "data:\n",
        "sizes: [1, {a: 1}]\n",
        "prompt: [a]\n",
        "prompt: null\n",
        "? [a, b]\n: 1\n",
        "depth: 1\n---\ndepth: 2\n",
        "[" * 20_000,
        "depth: 4\ndepth: 5\n",
        "matrix-lr: 1\nmatrix_lr: 2\n",
    ],
)
def test_bad_files(capsys, tmp_path, text):
    (tmp_path / "c.yaml").write_text(text)
    (line,) = errors(capsys, "--config", str(tmp_path / "c.yaml"))
    assert line.startswith("error: ") and "c.yaml" in line


def test_text_in_a_file_is_taken_as_it_is_written(tmp_path):
    (tmp_path / "c.yaml").write_text(
        "\ufeffmodel_tag: 007\nprompt: yes\nout: 2026-11-25\ndata: [1e3, 'null', 0x10]\n"
        "num_iterations: ~\nmatrix_lr: .inf\nsizes: 3\nfp8: on\n",
        encoding="utf-8",
    )
    got = parsed("--config", str(tmp_path / "c.yaml"))
    assert (got.model_tag, got.prompt, got.out) == ("007", "yes", Path("2026-11-25"))
    assert got.data == ("1e3", "null", "0x10") and got.sizes == [3]
    assert (got.num_iterations, got.matrix_lr, got.fp8) == (None, float("inf"), True)


def test_paths_are_taken_from_the_home_directory(monkeypatch, tmp_path):
    """No shell expands `~` in a file, and not every shell in --out=~/x."""
    monkeypatch.setenv("HOME", "/somewhere")
    (tmp_path / "c.yaml").write_text("out: ~/x/y\n")
    for argv in (["--out=~/x/y"], ["--config", str(tmp_path / "c.yaml")]):
        assert parsed(*argv).out == Path("/somewhere/x/y")
    assert parsed("--out", "a/~/b").out == Path("a/~/b")


def test_a_kind_of_setting_that_no_command_line_can_fill():
    @dataclasses.dataclass
    class Strange:
        table: dict[str, int]

    with pytest.raises(TypeError, match="not a kind of setting"):
        config.fields_of(Strange)


def test_positional_and_required(capsys):
    got, problems = config.collect(Check, ["file.jsonl", "--limit=1"])
    assert problems == [] and got == Check(Path("file.jsonl"), 1)
    assert errors(capsys, cls=Check) == ["error: file: must be given (a path)"]
    assert errors(capsys, "a", "b", cls=Check) == ["error: b: unexpected word; see --help"]


def test_help_comes_from_docstrings(capsys):
    with pytest.raises(SystemExit) as stopped:
        config.parse(Sample, ["--help"], prog="nanochat sample")
    out = capsys.readouterr().out
    assert stopped.value.code == 0
    for line in (
        "usage: nanochat sample [--flag value ...]",
        "  --depth N                   Transformer layers. (default: 4)",
        "  -i, --source {base,mid}     Where to start. (default: base)",
        "  --data TEXT ...             Files.",
        "  --fp8                       Compute in fp8.",
        "  --sizes N ...               Sizes. (default: 1 2)",
    ):
        assert line in out.splitlines()


@dataclasses.dataclass
class Longer(Sample):
    """A class that adds to another, with a help text that has to be wrapped to fit beside its
    flag."""

    compile: bool = True
    """Compile the model; by default on GPUs, and on CPUs where the run is long enough to pay for
    it.
    """


@pytest.mark.parametrize("columns", [60, 100, 300])
def test_help_fits_the_terminal(capsys, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    with pytest.raises(SystemExit):
        config.parse(Longer, ["-h"], prog="x")
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= min(columns, 100)
    assert "--compile, --no-compile" in out and "Transformer layers." in out


def test_validate_checks_configs_made_in_python():
    config.validate(Sample())
    with pytest.raises(ValueError, match="--depth='4': expected a whole number"):
        config.validate(Sample(depth="4"))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="must be at least 1"):
        config.validate(Sample(depth=0))


WORDS = st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), max_size=12)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    sample=st.builds(
        Sample,
        depth=st.integers(1, 99),
        matrix_lr=st.floats(allow_nan=False),
        source=st.sampled_from(["base", "mid"]),
        prompt=WORDS,
        data=st.lists(WORDS, max_size=3).map(tuple),
        model_tag=st.none() | WORDS,
        num_iterations=st.none() | st.integers(),
        out=WORDS.filter(lambda t: t and t[0] not in "\0~").map(Path),
        fp8=st.booleans(),
        sizes=st.lists(st.integers(), max_size=3),
    )
)
def test_dump_then_parse_is_the_same(tmp_path, sample):
    config.dump(sample, tmp_path / "c.yaml")
    assert parsed("--config", str(tmp_path / "c.yaml")) == sample


@pytest.mark.parametrize("stage", [MidConfig, SFTConfig])
def test_a_flag_of_older_versions_is_named_in_the_error(tmp_path, stage):
    """Alone, with its value as a word of its own, and in the config.yaml of an older run."""
    path = tmp_path / "config.yaml"
    path.write_text("mixture: world\nchat_eval_every: -1\n")
    for words in (["--chat_eval_every=5"], ["--chat-eval-every", "5"], [f"--config={path}"]):
        _, problems = config.collect(stage, words)
        assert len(problems) == 1 and "chat" in problems[0]
        assert "is gone; leave it out, and examine the checkpoint with" in problems[0]
