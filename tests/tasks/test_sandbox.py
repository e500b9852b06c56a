"""The sandbox's answers: what a program gets, how its end is named, when it is not run at all."""

from __future__ import annotations

import json
import os
import struct
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nanochat.tasks import sandbox
from nanochat.tasks.cage import seccomp
from nanochat.tasks.cage.limits import MIB, CagePlan, Limits
from nanochat.tasks.cage.supervisor import Outcome


@pytest.fixture(autouse=True)
def needs_a_cage():
    kind, why = sandbox.find_cage()
    if kind is None:
        pytest.skip(f"no cage can be built here: {why}")


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("print('hi')", "ok"),
        ("", "ok"),
        ("import math, collections, re, hashlib, typing, itertools, decimal, json, datetime", "ok"),
        ("def f(:", "error"),
        ("x = 1 / 0", "error"),
        ("assert 1 == 2", "error"),
        ("'''never closed", "error"),
        ("import sys\nsys.exit(3)", "error"),
        ("input()", "error"),
        ("def f():\n  f()\nf()", "error"),
        ("import numpy", "error"),
        ("import sys\nsys.exit()", "exit"),
        ("import os\nos._exit(0)", "exit"),
        ("import os\nos.abort()", "crash"),
        ("import ctypes\nctypes.string_at(0)", "crash"),
        ("import os\nos.kill(os.getpid(), 9)", "killed"),
        ("raise MemoryError", "memory"),
        ("try:\n  x = bytearray(10**12)\nexcept MemoryError:\n  pass", "ok"),
        ("print('a')\0", "error"),
        ("print('\ud800')", "ok"),
    ],
)
def test_each_end_has_its_name(code, reason):
    result = sandbox.run_python(code)
    assert (result.reason, result.ok) == (reason, reason == "ok"), result


def test_the_program_has_a_private_place_and_clean_surroundings():
    code = (
        "import os, sys, json\nopen('a.txt', 'w').write('kept')\nprint(json.dumps([os.getcwd(), "
        "open('a.txt').read(),"
        " sorted(os.environ), sys.argv, os.listdir('/tmp'), os.uname().nodename, len(sys.path)]))"
    )
    first, second = sandbox.run_python(code), sandbox.run_python(code)
    cwd, text, names, argv, listing, host, _ = json.loads(first.stdout)
    assert (cwd, text, argv, listing, host) == (
        "/tmp",
        "kept",
        ["/cage/main.py"],
        ["a.txt"],
        "cage",
    )
    assert not {"NANOCHAT_BASE_DIR", "USER", "LD_LIBRARY_PATH"} & set(names)
    assert first.stdout == second.stdout, "something of the first run was left for the second"


def test_unicode_goes_in_and_comes_out():
    result = sandbox.run_python("import sys\nprint('é漢')\nprint('ß', file=sys.stderr)")
    assert (result.stdout, result.stderr) == ("é漢\n", "ß\n")


def test_sets_print_in_the_same_order_each_time():
    outputs = {sandbox.run_python("print({str(i) for i in range(50)})").stdout for _ in range(3)}
    assert len(outputs) == 1


def test_output_up_to_the_limit_is_whole():
    result = sandbox.run_python("print('x' * 99_999)", limits=Limits(output_bytes=100_000))
    assert (result.reason, len(result.stdout)) == ("ok", 100_000)
    result = sandbox.run_python("print('x' * 100_000)", limits=Limits(output_bytes=100_000))
    assert (result.reason, len(result.stdout)) == ("output", 100_000)


def test_many_run_side_by_side_and_keep_their_order():
    started = time.monotonic()
    results = sandbox.run_many(
        [f"import time\ntime.sleep(0.3)\nprint({i})" for i in range(8)], workers=8
    )
    assert [r.stdout for r in results] == [f"{i}\n" for i in range(8)]
    assert time.monotonic() - started < 8 * 0.3, "they ran one after another"


def test_impossible_limits_are_named_together():
    with pytest.raises(ValueError, match=r"timeout_s=0.*; memory_bytes=5"):
        sandbox.run_python("pass", timeout_s=0, memory_bytes=5)


def test_without_a_cage_nothing_runs_unless_asked(monkeypatch, tmp_path):
    monkeypatch.setattr(
        sandbox, "find_cage", lambda: (None, "bubblewrap: not here; namespaces: forbidden")
    )
    mark = tmp_path / "ran"
    code = f"open({str(mark)!r}, 'w').close()"
    for call in (lambda: sandbox.run_python(code), lambda: sandbox.run_many([code])):
        with pytest.raises(
            sandbox.CageUnavailable, match=r"not run.*bubblewrap: not here.*--unsafe-exec"
        ):
            call()
    assert not mark.exists()
    assert sandbox.run_python(code, unsafe=True).ok
    assert mark.exists()
    assert sandbox.run_python("x = bytearray(10**12)", unsafe=True).reason == "memory"
    assert (
        sandbox.run_python("import time\ntime.sleep(60)", timeout_s=1.0, unsafe=True).reason
        == "timeout"
    )


def test_a_cage_that_fails_to_start_is_no_failure_of_the_program(monkeypatch):
    class Broken:
        @staticmethod
        def plan(program, limits, status_fd):
            return CagePlan(["/bin/sh", "-c", "echo 'bwrap: no permission' >&2; exit 1"])

    monkeypatch.setitem(sandbox.CAGES, "bubblewrap", Broken)
    monkeypatch.setattr(sandbox, "find_cage", lambda: ("bubblewrap", ""))
    with pytest.raises(sandbox.CageUnavailable, match="bwrap: no permission"):
        sandbox.run_python("pass")


def test_nothing_is_left_behind(monkeypatch, tmp_path):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    before = len(os.listdir("/proc/self/fd"))
    for kind in sandbox.CAGES:
        if sandbox.CAGES[kind].missing() is None:
            sandbox._spawn(kind, b"pass", Limits())
    sandbox._spawn("none", b"pass", Limits())
    assert len(os.listdir("/proc/self/fd")) == before
    assert list(tmp_path.iterdir()) == []


@given(
    st.integers(-64, 255),
    st.integers(64, 123),
    st.binary(max_size=80),
    st.sampled_from([None, "timeout", "memory"]),
)
def test_only_the_last_line_is_ok(returncode, end_status, stderr, verdict):
    outcome = Outcome(verdict, returncode, bytearray(), bytearray(stderr), 0.0)
    reason = sandbox.classify(outcome, end_status)
    assert reason in sandbox.REASONS
    assert (reason == "ok") == (verdict is None and returncode == end_status)


def decide(program: bytes, arch: int, number: int, arg0: int = 0, arg1: int = 0) -> int:
    """What the kernel would do: a small interpreter of the filter's instructions."""
    data = struct.pack("<IIQQQ", number, arch, 0, arg0, arg1)
    at, accumulator = 0, 0
    for _ in range(10_000):
        code, yes, no, k = struct.unpack_from("<HBBI", program, at * 8)
        at += 1
        if code == seccomp.RETURN:
            return k
        if code == seccomp.LOAD:
            accumulator = struct.unpack_from("<I", data, k)[0]
            continue
        truth = {
            seccomp.EQUAL: accumulator == k,
            seccomp.GREATER_OR_EQUAL: accumulator >= k,
            seccomp.ANY_BIT: bool(accumulator & k),
        }[code]
        at += yes if truth else no
    raise AssertionError("the filter does not end")


@given(st.sampled_from(list(seccomp.MACHINES)), st.integers(0, 600), st.integers(0, 2**32 - 1))
def test_the_filter_refuses_its_list_and_nothing_else(machine, number, arg0):
    column, arch, clone, clone3, socket, _ = seccomp.MACHINES[machine]
    refused = {numbers[column] for numbers in seccomp.REFUSED.values()}
    answer = decide(seccomp.program(machine), arch, number, arg0)
    if number in refused:
        assert answer == seccomp.ERRNO | 1
    elif number == clone3:
        assert answer == seccomp.ERRNO | 38
    elif number == clone:
        assert (answer == seccomp.ALLOW) == (not arg0 & seccomp.NEW_NAMESPACES)
    elif number == socket:
        assert (answer == seccomp.ALLOW) == (arg0 in seccomp.SOCKET_FAMILIES)
    else:
        assert answer == seccomp.ALLOW


@pytest.mark.parametrize("machine", seccomp.MACHINES)
def test_the_filter_closes_the_side_doors(machine):
    _, arch, clone, _, socket, ioctl = seccomp.MACHINES[machine]
    program = seccomp.program(machine)
    assert decide(program, 0x40000003, 1) == seccomp.KILL  # 32-bit calls
    if machine == "x86_64":
        assert decide(program, arch, 0x40000000 | 1) == seccomp.KILL  # x32
    assert decide(program, arch, clone, 0x01200011) == seccomp.ALLOW  # an ordinary fork
    assert [decide(program, arch, socket, family) for family in (1, 2, 10)] == [seccomp.ALLOW] * 3
    assert decide(program, arch, ioctl, 0, 0x5412) == seccomp.ERRNO | 1
    assert decide(program, arch, ioctl, 0, 0x5401) == seccomp.ALLOW
    with pytest.raises(ValueError, match="m68k"):
        seccomp.program("m68k")


def test_human_eval_solutions_pass_and_wrong_ones_fail(shared_dir):
    path = shared_dir / "data" / "humaneval" / "HumanEval.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()][::8]
    check = "\n{test}\ncheck({entry_point})\n"
    right = [row["prompt"] + row["canonical_solution"] + check.format(**row) for row in rows]
    wrong = [row["prompt"] + "    return None\n" + check.format(**row) for row in rows]
    results = sandbox.run_many(right + wrong, workers=2, timeout_s=20, memory_bytes=256 * MIB)
    assert [r.reason for r in results[: len(rows)]] == ["ok"] * len(rows)
    assert [r.reason for r in results[len(rows) :]] == ["error"] * len(rows)
