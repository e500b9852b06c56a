"""How commands end, and what is settled before torch is loaded in every way into the package."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from nanochat.runtime.entry import exit_code, run_as_command
from nanochat.runtime.openmp import let_waiting_threads_sleep

ROOT = Path(__file__).resolve().parents[2]
POLICIES = ("OMP_WAIT_POLICY", "KMP_BLOCKTIME")
# Stands in for torch: says what it finds in the environment when it is loaded.
TORCH = """
import os
print("torch finds", *[os.environ.get(name) for name in {names}], flush=True)
os._exit(0)
"""
# Every way in; each imports torch sooner or later.
ENTRIES = [
    ["-m", "nanochat", "base-train"],
    ["-m", "nanochat", "recipe", "run", "cpu"],
    ["-c", "from nanochat.cli import main; main(['chat-sft'])"],  # the console script
    *(
        ["-m", f"scripts.{path.stem}"]
        for path in sorted((ROOT / "scripts").glob("*.py"))
        if "nanochat.cli" in path.read_text(encoding="utf-8") and not path.stem.startswith("tok_")
    ),
    *(
        ["-m", f"bench.{path.stem}", "--help"]
        for path in sorted((ROOT / "bench").glob("*.py"))
        if "\nimport torch" in path.read_text(encoding="utf-8")
    ),
]


def raising(error: BaseException):
    def call():
        raise error

    return call


@pytest.mark.parametrize(
    "call, code",
    [
        (lambda: None, 0),
        (lambda: True, 0),
        (lambda: "done", 0),
        (lambda: 3, 3),
        (raising(ValueError("--a=1: bad; use 2")), 2),
        (raising(OSError(errno.ENOSPC, "full", "x")), 2),
        (raising(MemoryError()), 2),
        (raising(RuntimeError("CUDA out of memory")), 2),
    ],
)
def test_exit_codes(call, code, capsys):
    assert exit_code(call) == code
    said = capsys.readouterr()
    assert said.err.startswith("error: ") == (code == 2) and "Trace" not in said.err
    assert said.out == ("done\n" if call() == "done" else "") if code != 2 else not said.out


def test_what_only_a_programmer_can_put_right_is_a_trace():
    with pytest.raises(RuntimeError, match="shapes"):
        exit_code(raising(RuntimeError("shapes")))
    with pytest.raises(TypeError):
        run_as_command(raising(TypeError()))


def test_a_reader_that_has_gone_is_no_error():
    command = [sys.executable, "-m", "nanochat", "recipe", "list"]
    program = subprocess.list2cmdline(command) + " | true; exit ${PIPESTATUS[0]}"
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(["bash", "-c", program], env=env, capture_output=True, text=True)
    assert done.returncode in (0, 141) and done.stderr == ""


@pytest.mark.parametrize("words", ENTRIES, ids=lambda words: words[1][-60:])
def test_threads_sleep_before_torch_is_loaded(words, tmp_path):
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "__init__.py").write_text(TORCH.format(names=POLICIES))
    env = {name: value for name, value in os.environ.items() if name not in POLICIES}
    env |= {"PYTHONPATH": f"{tmp_path}:{ROOT}", "NANOCHAT_BASE_DIR": str(tmp_path / "base")}
    done = subprocess.run([sys.executable, *words], cwd=ROOT, env=env, capture_output=True)
    assert done.stdout.decode().splitlines()[-1:] == ["torch finds passive 0"], done.stderr.decode()


@pytest.mark.parametrize(
    "given, found",
    [
        ({}, {"OMP_WAIT_POLICY": "passive", "KMP_BLOCKTIME": "0"}),
        ({"OMP_WAIT_POLICY": "ACTIVE"}, {"OMP_WAIT_POLICY": "ACTIVE"}),
        ({"OMP_WAIT_POLICY": ""}, {"OMP_WAIT_POLICY": ""}),
        ({"KMP_BLOCKTIME": "5"}, {"OMP_WAIT_POLICY": "passive", "KMP_BLOCKTIME": "5"}),
        (
            {"GOMP_SPINCOUNT": "9"},
            {"OMP_WAIT_POLICY": "passive", "KMP_BLOCKTIME": "0", "GOMP_SPINCOUNT": "9"},
        ),
    ],
)
def test_what_the_user_decided_about_waiting_stays(monkeypatch, given, found):
    monkeypatch.setattr(os, "environ", dict(given))
    let_waiting_threads_sleep()
    assert os.environ == found
