"""The docs tell the truth: commands in them parse against the real settings, links lead somewhere,
and the blocks marked `bash run` are run as written.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from nanochat import config
from nanochat.dataset.persona import parse_persona
from nanochat.launch import commands, recipes
from nanochat.launch.sweep_plan import read_sweep

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
PAGES = [page for page in PAGES if page.name != "report.md"]  # made by runs, not part of the tree
FENCE = re.compile(r"^```(\w*)([^\n]*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
PLAIN = {
    "source",
    "cd",
    "git",
    "pip",
    "export",
    "curl",
    "cat",
    "mkdir",
    "uv",
    "tar",
    "open",
    "ssh",
    "docker",
}
BATCH_STAGES = {
    "base_loss": "base-loss",
    "base_eval": "base-eval",
    "mid": "mid-train",
    "mid_eval": "chat-eval",
    "sft": "chat-sft",
    "sft_eval": "chat-eval",
}
SECRET_FILES = ("key.txt", "keys.txt", "secret.txt")  # what examples read
BATCH_FLAGS = {"scripts/speedrun.slurm": "base-train"}  # words after the file go to this command


def blocks(page: Path, *languages: str) -> list[tuple[str, str]]:
    """(what follows the language, text) of the fenced blocks in these languages."""
    found = FENCE.findall(page.read_text(encoding="utf-8"))
    return [(extra.strip(), text) for language, extra, text in found if language in languages]


def lines(text: str) -> list[str]:
    joined = text.replace("\\\n", " ")
    kept = [line.strip().removeprefix("$ ") for line in joined.splitlines()]
    return [line for line in kept if line and not line.startswith("#")]


COMMANDS = sorted(
    {line for page in PAGES for _, text in blocks(page, "bash", "sh") for line in lines(text)}
)
RUN = [
    line
    for page in PAGES
    for extra, text in blocks(page, "bash")
    if extra == "run"
    for line in lines(text)
]


def problems(line: str) -> list[str]:
    """What is wrong with one documented command line; it is parsed, not run."""
    words = shlex.split(line.replace("$WANDB_RUN", "dummy"), comments=True)
    while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):  # NAME=value command
        words.pop(0)
    if words[:1] == ["echo"] and "|" in words:
        words = words[words.index("|") + 1 :]
    if not words or words[0] in PLAIN:
        return []
    if words[0] == "echo" and "|" in words:
        return problems(shlex.join(words[words.index("|") + 1 :]))
    name = words[0].removeprefix(".venv/bin/")
    if name == "bash":
        return [] if (ROOT / words[1]).is_file() else [f"{words[1]} is not in the tree"]
    if name == "sbatch":
        return batch_problems(words[1:])
    if name == "srun":
        return problems(shlex.join(without_options(words[1:])))
    if name == "nanochat":
        return command_problems(words[1:])
    if name == "torchrun" or name.startswith("python"):
        return module_problems(words)
    if name == "pre-commit":
        return []
    return [f"{name}: a command this test does not know; add it"]


def without_options(words: list[str]) -> list[str]:
    """What follows the leading `--name=value` options."""
    return without_options(words[1:]) if words and words[0].startswith("--") else words


def batch_problems(words: list[str]) -> list[str]:
    """`sbatch [--option=value ...] FILE [words for the job]`."""
    file, *rest = without_options(words)
    if not (ROOT / file).is_file():
        return [f"{file} is not in the tree"]
    plain = [word for word in rest if word.startswith("-")]
    others = [word.partition(".") for word in rest if word not in plain and "=" in word]
    found = [problem for stage, _, word in others for problem in stage_problems(stage, word)]
    return found + (command_problems([BATCH_FLAGS[file], *plain]) if file in BATCH_FLAGS else [])


def stage_problems(stage: str, word: str) -> list[str]:
    """`stage.flag=value` after a batch script."""
    if stage not in BATCH_STAGES:
        return [f"{stage}: no stage of the batch scripts"]
    return command_problems([BATCH_STAGES[stage], f"--{word}"])


def module_problems(words: list[str]) -> list[str]:
    """`python -m MODULE ...`, `torchrun ... -m MODULE ...` or `python FILE ...`."""
    if "-m" not in words:
        return [] if (ROOT / words[1]).is_file() else [f"{words[1]} is not in the tree"]
    at = words.index("-m") + 1
    module, rest = words[at], words[at + 1 :]
    rest = rest[1:] if rest[:1] == ["--"] else rest
    if module == "nanochat":
        return command_problems(rest)
    package, _, name = module.partition(".")
    if package == "scripts":
        return command_problems([name, *rest])
    if package == "nanochat" and name in ("dataset", "report"):
        return command_problems([name, *rest])
    return [] if package == "bench" else [f"{module}: not a module people run"]


def command_problems(words: list[str]) -> list[str]:
    try:
        _, command, rest = commands.find(words)
    except ValueError as error:
        return [str(error)]
    if command.config is not None:
        try:
            settings = commands.load(command.config)
        except ValueError as error:
            pytest.skip(str(error))
        found = config.collect(settings, rest)[1]
        return [said for said in found if "cannot be read" not in said]  # a reader's own files
    return (
        []
        if rest[:1] in (["generate"], ["reset"])
        else [f"{' '.join(words)}: neither generate nor reset"]
    )


@pytest.mark.parametrize("line", COMMANDS)
def test_documented_commands_parse(line, tmp_path, monkeypatch):
    for name in SECRET_FILES:
        (tmp_path / name).write_text("k" * 40)
    monkeypatch.chdir(tmp_path)
    assert problems(line) == []


@pytest.mark.parametrize(
    "line",
    [
        "python -m scripts.base_train --depht=20",
        "python -m scripts.nothing",
        "torchrun -m scripts.base_train -- --depth=deep",
        "bash no_such.sh",
        "nanochat recipe walk",
        "sbatch --time=1:00:00 scripts/speedrun.slurm --depht=3",
        "sbatch scripts/speedrun.slurm mid.num_iteration=3",
        "srun --gpus=1 .venv/bin/python scripts/no_such.py",
        "frobnicate",
        "echo secret | nanochat users add anna --role king",
    ],
)
def test_the_check_can_fail(line):
    assert problems(line)


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", FENCE.sub("", page.read_text(encoding="utf-8"))):
        if not target.startswith(("http", "mailto:", "#")):
            assert (page.parent / target.partition("#")[0]).exists(), f"{page.name}: {target}"


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_examples_in_other_languages(page, tmp_path):
    """Python examples compile and what they import exists; JSON examples are JSON."""
    for number, (extra, text) in enumerate(blocks(page, "yaml")):
        if extra == "sweep":
            file = tmp_path / f"sweep{number}.yaml"
            file.write_text(text)
            assert read_sweep(file).runs
        else:
            assert parse_persona(yaml.safe_load(text))
    for _, text in blocks(page, "json"):
        assert [json.loads(line) for line in text.splitlines() if line.strip()]
    for _, text in blocks(page, "python"):
        for node in ast.walk(ast.parse(text)):
            if (
                isinstance(node, ast.ImportFrom)
                and node.module
                and node.module.startswith("nanochat")
            ):
                module = importlib.import_module(node.module)
                assert all(hasattr(module, alias.name) for alias in node.names), ast.unparse(node)


@pytest.mark.parametrize("step", list(recipes.CPU))
def test_the_tutorial_does_by_hand_what_the_cpu_recipe_does(step):
    """Else a reader of the tutorial gets another model than the one whose answers the README
    shows."""
    found = {s.name: s.command for s in recipes.build("cpu").steps}
    command, shown = (
        found[step],
        lines(
            "\n".join(
                t for _, t in blocks(ROOT / "docs/tutorials/01-local-cpu-quickstart.md", "bash")
            )
        ),
    )
    names = (f"nanochat {command} ", f"python -m scripts.{command.replace('-', '_')} ")
    line = next(line for line in shown if line.startswith(names))
    words = shlex.split(line)[2 if line.startswith("nanochat") else 3 :]
    cfg = config.collect(commands.load(commands.COMMANDS[command].config), words)[0]
    for name, value in recipes.CPU[step].items():
        if name not in ("sample_every", "eval_every", "compile"):  # what is watched, and how fast
            assert getattr(cfg, name) == value, (line, name)


def test_every_command_is_documented():
    text = (ROOT / "docs" / "reference" / "commands.md").read_text(encoding="utf-8")
    names = [name for name in commands.COMMANDS if name not in commands.GROUPS and name != "plan"]
    names += [f"{group} {name}" for group, table in commands.GROUPS.items() for name in table]
    assert [name for name in names if f"`nanochat {name}`" not in text] == []


def test_every_variable_is_documented():
    files = [
        *(ROOT / "nanochat").rglob("*.py"),
        *(ROOT / "scripts").glob("*.sh"),
        *ROOT.glob("*.sh"),
    ]
    used = {
        name
        for file in files
        for name in re.findall(r"NANOCHAT_[A-Z_]+[A-Z]", file.read_text(encoding="utf-8"))
    }
    text = (ROOT / "docs" / "reference" / "environment.md").read_text(encoding="utf-8")
    assert [name for name in sorted(used) if f"`{name}`" not in text] == []


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("documented")


@pytest.mark.parametrize("line", RUN)
def test_documented_runs(line, place):
    """In order, in one base directory; a failure shows the command's own output."""
    env = {
        **os.environ,
        "NANOCHAT_BASE_DIR": str(place / "base"),
        "PYTHONPATH": str(ROOT),
        "HF_HUB_OFFLINE": "1",
    }
    words = shlex.split(line)
    launcher = [sys.executable, "-m", "nanochat"] if words[0] == "nanochat" else [sys.executable]
    done = subprocess.run(
        [*launcher, *words[1:]], cwd=place, env=env, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]


def test_what_guides_call_it_is_where_the_page_says():
    page = (ROOT / "docs" / "explanation" / "architecture.md").read_text(encoding="utf-8")
    rows = [line.split("|")[1:4] for line in page.split("## What guides call it")[1].splitlines()]
    checked = 0
    for row in (row for row in rows if len(row) == 3 and "nanochat/" in row[2]):
        guides, here, files = (re.findall(r"`([^`]+)`", cell) for cell in row)
        text = "\n".join((ROOT / name).read_text(encoding="utf-8") for name in files)
        for name in guides if "the same name" in row[1] else here[:1]:
            assert re.search(rf"\b(def|class) {name}\b", text), (name, files)
            checked += 1
    assert checked > 25


def test_the_architecture_page_lists_every_file_and_only_files_that_exist():
    """`python dev/architecture.py` lists and draws them anew."""
    text = (ROOT / "docs" / "explanation" / "architecture.md").read_text(encoding="utf-8")
    package = ROOT / "nanochat"
    files = {
        path.relative_to(package).as_posix()
        for path in package.rglob("*.py")
        if path.read_text(encoding="utf-8").strip()
    }
    listed = re.findall(r"^\| `([\w/]+\.py)` \|", text, re.MULTILINE)
    assert files - set(listed) == set()
    named = re.findall(r"`((?:[\w]+/)*[\w]+\.py)`", text.partition("## Every file")[0])
    foreign = {"common.py", "configurator.py", "execution.py", "core_eval.py", "loss_eval.py"}
    gone = [name for name in {*named, *listed} - foreign if not (package / name).exists()]
    assert [name for name in gone if not (ROOT / name).exists() and "/" in name] == []


GUIDES = """
index tutorials/01-local-cpu-quickstart tutorials/02-hpc-first-job
how-to/setup-environment how-to/run-a-training-job how-to/troubleshoot-common-issues
how-to/analyze-results how-to/deploy explanation/training-environments explanation/hpc-environment
explanation/project-architecture reference/configuration reference/data-pipeline reference/formats
""".split()


@pytest.mark.parametrize("name", GUIDES)
def test_pages_that_guides_link_to_are_there(name):
    assert (ROOT / "docs" / f"{name}.md").read_text(encoding="utf-8").startswith("# ")


def reference_pages():
    spec = importlib.util.spec_from_file_location("pages", ROOT / "dev" / "reference_pages.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_configuration_page_has_every_setting_as_it_is():
    """`python dev/reference_pages.py` writes it anew."""
    assert reference_pages().CONFIGURATION.read_text("utf-8") == reference_pages().configuration()


def test_every_error_message_is_found_among_the_common_issues():
    pages = reference_pages()
    text = pages.ISSUES.read_text(encoding="utf-8")
    words = [message for texts in pages.messages().values() for message in texts]
    assert len(words) > 300
    assert [message for message in words if message.replace("`", "'") not in text] == []
    assert pages.fill(text) == text, "run python dev/reference_pages.py"


def test_the_symptoms_among_the_common_issues_are_in_the_code_words():
    """A message shown in bold code is one that the program prints."""
    page = (ROOT / "docs" / "how-to" / "troubleshoot-common-issues.md").read_text("utf-8")
    shown = re.findall(r"^\*\*`([^`]+)`", page, re.MULTILINE)
    files = [*(ROOT / "nanochat").rglob("*.py"), ROOT / "scripts" / "setup.sh"]
    code = " ".join(re.sub(r'"\s*f?"', "", path.read_text("utf-8")) for path in files)
    missing = [words for words in shown if words.partition(" ...")[0] not in code]
    assert len(shown) > 5 and missing == []


def test_the_docs_build_as_a_site_without_a_dead_link(tmp_path):
    pytest.importorskip("material", reason="the extra docs is not installed")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    page = (tmp_path / "site" / "index.html").read_text(encoding="utf-8")
    loads = re.findall(r"<(?:script|img|link)[^>]*>", page)
    loaded = [tag for tag in loads if re.search(r'(?:src|stylesheet[^>]*href)="http', tag)]
    assert loaded == [], "a page of the docs asks another host"
