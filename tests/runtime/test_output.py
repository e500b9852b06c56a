"""Output that cannot be shown, or that nobody takes, ends no run; a command whose output is all it
gives ends as shells expect.
"""

from __future__ import annotations

import errno
import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from nanochat.runtime.entry import run_as_command
from nanochat.runtime.output import SteadyStream, output_is_the_result, steady_output

ROOT = Path(__file__).resolve().parents[2]
TEXT = "é € 😀 \x1b \ud800 \udc9b"
LOG = f"""
import sys
from nanochat.runtime.entry import run_as_command
def work():
    for n in range(3000):
        print(n, {TEXT!a})
        print(n, {TEXT!a}, file=sys.stderr, flush=True)
    open(sys.argv[1], "w").write("done")
run_as_command(work)
"""
KINDS = {
    "ascii": ("PYTHONIOENCODING=ascii", ""),
    "latin-1": ("PYTHONIOENCODING=latin-1", ""),
    "strict UTF-8": ("PYTHONIOENCODING=utf-8:strict", ""),
    "C": ("LC_ALL=C PYTHONCOERCECLOCALE=0 PYTHONUTF8=0", ""),
    "POSIX": ("LC_ALL=POSIX LANG=C", ""),
    "stdout closed": ("", ">&-"),
    "stderr closed": ("", "2>&-"),
    "all closed": ("", "<&- >&- 2>&-"),
    "stdout full": ("", ">/dev/full"),
    "stderr full": ("", "2>/dev/full"),
    "both full": ("", ">/dev/full 2>&1"),
    "reader gone": ("", "| true"),
    "readers gone": ("", "2>&1 | true"),
    "unbuffered": ("PYTHONUNBUFFERED=1", ">/dev/full"),
    "unbuffered pipe": ("PYTHONUNBUFFERED=1", "| true"),
}


def shell(program: str, *words: str) -> subprocess.CompletedProcess[bytes]:
    """Run a line of bash in which $PY is this Python; its exit code is that of the line's first
    command.
    """
    env = {**os.environ, "PYTHONPATH": str(ROOT), "PY": sys.executable}
    line = f"{program}; exit ${{PIPESTATUS[0]}}"
    return subprocess.run(["bash", "-c", line, "sh", *words], env=env, capture_output=True)


@pytest.mark.parametrize("kind", KINDS)
def test_work_goes_on_whatever_becomes_of_its_output(kind, tmp_path):
    env, target = KINDS[kind]
    done = shell(f'env {env} "$PY" -c "$1" "$2" {target}', LOG, str(tmp_path / "made"))
    assert done.returncode == 0, done.stderr[-2000:]
    assert (tmp_path / "made").read_text() == "done"
    assert b"Traceback" not in done.stderr and b"Exception ignored" not in done.stderr
    if not target:
        assert b"2999 " in done.stdout and b"\\ud800" in done.stdout


@pytest.mark.parametrize(
    "words", ["--version", "--help", "recipe list", "plan --help", "recipe --help"]
)
def test_what_only_prints_ends_as_shells_expect(words):
    command = f'"$PY" -m nanochat {words}'
    full = shell(f"{command} >/dev/full")
    assert full.returncode == 2
    assert full.stderr == b"error: standard output: No space left on device\n"
    closed = shell(f"{command} >&-")
    assert closed.returncode == 2 and closed.stderr == b"error: standard output: it is closed\n"
    gone = shell(f"{command} | true")  # `true` may end before or after the write
    assert gone.returncode in (0, 141) and gone.stderr == b""
    quiet = shell(f"{command} 2>&-")
    assert quiet.returncode == 0 and quiet.stdout


def test_a_broken_pipe_ends_a_printing_command():
    def work():
        output_is_the_result()
        while True:
            print("more")

    reader, writer = os.pipe()
    os.close(reader)
    before, sys.stdout = sys.stdout, open(writer, "w")
    try:
        with pytest.raises(SystemExit) as ended:
            run_as_command(work)
    finally:
        sys.stdout = before
    assert ended.value.code == 141


class Failing(io.StringIO):
    """Fails with each of `failures`, then takes what is written."""

    def __init__(self, *failures: int) -> None:
        super().__init__()
        self.failures = list(failures)

    def write(self, text: str) -> int:
        if self.failures:
            raise OSError(self.failures.pop(0), "no")
        return super().write(text)


def test_a_disk_that_has_room_again_is_written_to():
    stream = Failing(errno.ENOSPC, errno.EAGAIN)
    steady = SteadyStream(stream, "standard output")
    for n in range(4):
        assert steady.write(str(n)) == 1
    assert stream.getvalue() == "23"


def test_a_terminal_that_is_gone_is_left_alone():
    stream = Failing(errno.EIO)
    steady = SteadyStream(stream, "standard output")
    for n in range(4):
        steady.write(str(n))
    assert stream.getvalue() == "" and steady.failure is not None


def test_streams_are_themselves_again(capsys):
    before = sys.stdin, sys.stdout, sys.stderr
    with pytest.raises(KeyError), steady_output():
        assert sys.stdout.isatty() is False and sys.stdout.encoding
        raise KeyError
    assert (sys.stdin, sys.stdout, sys.stderr) == before


def test_a_closed_stream_gives_its_number_to_no_file(tmp_path):
    """What C code prints must not end up in the first file that is opened."""
    code = (
        "import os, sys\n"
        "from nanochat.runtime.entry import run_as_command\n"
        "def work():\n"
        "    with open(sys.argv[1], 'w') as file:\n"
        "        os.write(1, b'from C'); os.write(2, b'from C')\n"
        "        file.write('mine')\n"
        "run_as_command(work)\n"
    )
    done = shell('"$PY" -c "$1" "$2" <&- >&- 2>&-', code, str(tmp_path / "made"))
    assert done.returncode == 0 and (tmp_path / "made").read_text() == "mine"
