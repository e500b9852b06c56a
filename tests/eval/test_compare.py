"""`nanochat compare`: finds results, pairs the same examples, tells differences from noise."""

from __future__ import annotations

import json
import random

import pytest

from nanochat.eval.compare import CompareConfig, compare, compare_results, find_results


def verdicts(n, share, seed):
    rng = random.Random(seed)
    return [int(rng.random() < share) for _ in range(n)]


def entry(correct, **more):
    return {"correct": correct, "baseline": 0.25, **more}


def write(path, tasks):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"kind": "chat_eval", "tasks": tasks}))
    return path


def test_verdicts_of_noise_and_of_a_real_difference():
    same, better = verdicts(500, 0.5, 0), verdicts(500, 0.5, 1)
    raised = [max(a, b) for a, b in zip(same, verdicts(500, 0.3, 2), strict=True)]
    result = {
        d.task: d
        for d in compare_results(
            {"x": entry(same), "y": entry(same)}, {"x": entry(better), "y": entry(raised)}
        )
    }
    assert result["x"].p_corrected > 0.05 and result["x"].low < 0 < result["x"].high
    assert result["y"].p_corrected < 1e-6 and result["y"].low > 0
    assert result["y"].difference == pytest.approx((sum(raised) - sum(same)) / 500)
    mean = result["mean, centred"]
    assert mean.difference == pytest.approx(
        (result["x"].difference + result["y"].difference) / 2 / 0.75
    )
    assert mean.p < 0.05


def test_no_false_alarms():
    """Two equally good models: about one comparison in twenty at most may come out significant."""
    alarms = 0
    for seed in range(40):
        a, b = verdicts(200, 0.4, 2 * seed), verdicts(200, 0.4, 2 * seed + 1)
        alarms += compare_results({"x": entry(a)}, {"x": entry(b)})[0].p_corrected < 0.05
    assert alarms <= 5


def test_examples_are_paired_by_problem_number():
    a = entry([1, 0, 1], problems=[4, 7, 9])
    b = entry([1, 1, 0, 0], problems=[9, 4, 5, 7])
    (difference,) = compare_results({"x": a}, {"x": b})
    assert difference.n == 3 and difference.difference == 0 and difference.p == 1.0


def test_shares_of_several_samples_are_bootstrapped():
    a, b = [0.25] * 60, [0.5] * 60
    (difference,) = compare_results({"x": entry(a)}, {"x": entry(b)})
    assert difference.p < 0.001 and difference.low == pytest.approx(0.25)


def test_command_prints_the_verdicts(tmp_path, capsys):
    right = verdicts(300, 0.8, 0)
    a = write(tmp_path / "a" / "chat_eval_000010.json", {"T": entry([0] * 300), "only": entry([1])})
    b = write(tmp_path / "b" / "chat_eval_000020.json", {"T": entry(right)})
    write(tmp_path / "b" / "chat_eval_000005.json", {"T": entry([0] * 300)})
    compare(CompareConfig(str(a), str(b.parent)))
    shown = capsys.readouterr().out
    assert (
        "B is better" in shown and "chat_eval_000020" in shown and "one of them only: only" in shown
    )
    compare(CompareConfig(str(b), str(b)))
    assert "within noise" in capsys.readouterr().out


def test_errors_say_what_to_do(tmp_path):
    with pytest.raises(ValueError, match="nothing/here: no such file or folder; write stage:tag"):
        find_results("nothing/here")
    with pytest.raises(ValueError, match="evaluate it first"):
        find_results(str(tmp_path))
    for name in ("sft/d20", "sft:d20", "sft:d20:650"):
        with pytest.raises(ValueError, match="no sft checkpoint"):
            find_results(name)
    bad = tmp_path / "x.json"
    bad.write_text("{")
    with pytest.raises(ValueError, match="not a readable results file"):
        find_results(str(bad))
    one, two = (write(tmp_path / f"{n}.json", {n: entry([1])}) for n in "pq")
    with pytest.raises(ValueError, match="nothing to compare"):
        compare(CompareConfig(str(one), str(two)))
