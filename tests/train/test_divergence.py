"""A run that diverges never ends as if it had not; the last good checkpoint stays the newest."""

from __future__ import annotations

import math

import pytest
import torch
from tiny_runs import base_config

from nanochat.checkpoint_manager import complete_steps, incomplete, load_checkpoint, load_model
from nanochat.optim.optimizer import Optimizer
from nanochat.train import stages
from nanochat.train.gradients import Gradients
from nanochat.train.trainer import Trainer


def break_weights(monkeypatch, after_step: int, value: float = math.nan) -> None:
    """The update of that step makes weights from which nothing finite can be computed."""
    train_step = Trainer.train_step

    def wrapper(self):
        stats = train_step(self)
        if self.step == after_step:
            with torch.no_grad():
                self.model.wte.weight.fill_(value)
        return stats

    monkeypatch.setattr(Trainer, "train_step", wrapper)


def spoil_loss(monkeypatch, steps: range) -> None:
    """The losses of those steps are not finite, the weights stay as they are."""
    accumulate, calls = Gradients.accumulate, []

    def wrapper(self, *arguments):
        calls.append(1)
        loss = accumulate(self, *arguments)
        return loss * math.nan if len(calls) in steps else loss

    monkeypatch.setattr(Gradients, "accumulate", wrapper)


def finite(step: int) -> bool:
    state = load_checkpoint(load_model("base", "cpu", step=step)[2]["directory"], step, "cpu")[0]
    return all(bool(tensor.isfinite().all()) for tensor in state.values())


@pytest.mark.parametrize("n_last", [1, 4])
@pytest.mark.parametrize("save_every", [1, -1])
def test_divergence_in_the_last_steps_is_an_error(data, single, monkeypatch, n_last, save_every):
    spoil_loss(monkeypatch, range(10 - n_last + 1, 11))
    with pytest.raises(ValueError, match="ended in a step that is not finite, so step 10 is not"):
        stages.base(base_config(num_iterations=10, save_every=save_every, keep=1), single)
    steps = complete_steps(data / "base_checkpoints" / "t")
    assert all(step <= 10 - n_last for step in steps) and all(map(finite, steps))
    assert bool(steps) == (save_every == 1)
    assert not (data / "report" / "base_train.json").exists()


@pytest.mark.parametrize("keep", [1, 2])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_broken_weights_leave_the_step_before_them(data, single, monkeypatch, keep, value):
    """The step whose update broke them had a finite loss itself."""
    break_weights(monkeypatch, 4, value)
    with pytest.raises(ValueError, match="not finite for 5 steps in a row"):
        stages.base(base_config(num_iterations=20, save_every=1, keep=keep), single)
    folder = data / "base_checkpoints" / "t"
    assert complete_steps(folder)[-1] == 3 and finite(3)


def test_finite_weights_that_only_give_nan_are_marked_and_kept(data, single, monkeypatch, capsys):
    """Nothing shows when they are saved: the next steps tell. Files stay, `--resume` and chat take
    the step before.
    """
    spoil_loss(monkeypatch, range(5, 99))
    with pytest.raises(ValueError, match="not finite for 5 steps in a row"):
        stages.base(base_config(num_iterations=20, save_every=1, keep=1), single)
    folder = data / "base_checkpoints" / "t"
    assert complete_steps(folder) == [3] and (folder / "model_000004.pt").exists()
    assert "losses that are not finite" in incomplete(folder, 4)
    assert "diverged from step 4 on" in capsys.readouterr().err
    assert load_model("base", "cpu")[2]["step"] == 3
    with pytest.raises(ValueError, match="step=4: not usable .*not finite"):
        load_model("base", "cpu", step=4)
    monkeypatch.undo()
    monkeypatch.setenv("NANOCHAT_DTYPE", "float32")
    monkeypatch.setenv("NANOCHAT_BASE_DIR", str(data))
    stages.base(base_config(num_iterations=20, save_every=1, keep=1, resume=True), single)
    assert complete_steps(folder) == [20]
    (aside,) = (data / "previous").glob("*/base_checkpoints/t/model_000004.pt")
    assert aside.exists()


@pytest.mark.parametrize("value", [math.nan, 1e30])
def test_weights_broken_by_the_very_last_update_are_not_saved(data, single, monkeypatch, value):
    """Its loss was finite and no step comes after it."""
    update = Optimizer.step

    def wrapper(self, *arguments):
        update(self, *arguments)
        if self.n_updates == 6:
            with torch.no_grad():
                for group in self.groups:
                    for parameter in group.parameters:
                        parameter.mul_(value)

    monkeypatch.setattr(Optimizer, "step", wrapper)
    with pytest.raises(ValueError, match="step 6 is not saved; complete steps: .5"):
        stages.base(base_config(save_every=1, keep=1), single)


def test_one_bad_gradient_in_the_middle_costs_a_step_and_nothing_else(data, single, monkeypatch):
    spoil_loss(monkeypatch, range(3, 4))
    record = stages.base(base_config(save_every=1, keep=9), single)
    assert record["metrics"]["steps"] == 6
    assert complete_steps(data / "base_checkpoints" / "t") == [1, 2, 4, 5, 6]
