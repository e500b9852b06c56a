"""Any number of processes trains the same model: same losses, states that are cut anew for another
number of ranks.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from bench.ranks import arguments, run, train
from nanochat.runtime.world import World

STEPS = 10


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Sums split over another number of threads round differently."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def alone(*words: str) -> list[float]:
    """The losses of one process, this one."""
    trainer, losses = train(
        World(0, 0, 1, torch.device("cpu")), arguments([f"--steps={STEPS}", *words])
    )
    trainer.source.close()  # type: ignore[attr-defined]
    return losses.values


@pytest.fixture(scope="module")
def reference(one_thread) -> list[float]:
    return alone()


def close(losses: list[float], expected: list[float]) -> bool:
    return (
        len(losses) == len(expected)
        and max(abs(a - b) for a, b in zip(losses, expected, strict=True)) < 1e-4
    )


def test_two_agents_with_two_processes_each(reference):
    """Two torchrun agents that find each other by rendezvous, as two nodes do."""
    assert close(run(2, STEPS, agents=2)["losses"], reference)


def test_three_processes_stop_and_two_or_one_go_on(reference, tmp_path: Path):
    saved = tmp_path / "state.pt"
    first = run(3, STEPS, stop_at=5, save=saved)["losses"]
    assert close(first, reference[:5])
    assert close(run(2, STEPS, resume=saved)["losses"], reference[5:])
    assert close(alone(f"--resume={saved}"), reference[5:])
    alone("--stop-at=5", f"--save={tmp_path / 'one.pt'}")
    three, one = (torch.load(path, weights_only=True) for path in (saved, tmp_path / "one.pt"))
    for name, states in one["optimizer"]["state"].items():
        for mine, theirs in zip(states, three["optimizer"]["state"][name], strict=True):
            assert {k: v.shape for k, v in mine.items()} == {
                k: v.shape for k, v in theirs.items()
            }, name


def test_one_process_resumes_to_the_bit(reference, tmp_path: Path):
    saved = tmp_path / "state.pt"
    assert alone("--stop-at=4", f"--save={saved}") == reference[:4]
    assert alone(f"--resume={saved}") == reference[4:]
