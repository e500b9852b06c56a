"""One rank of a small training run with a fault put into it. Forked from a process that has
imported torch.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
import time

import torch
from tiny_runs import base_config

from nanochat.runtime import tensor_files
from nanochat.runtime.world import init_world
from nanochat.train import saving, stages
from nanochat.train.gradients import Gradients
from nanochat.train.trainer import Trainer


def run(rank: int, ranks: int, env: dict[str, str], out: str, fault: str, changes: dict) -> None:
    """Train; ends the process with the code that the command line would."""
    os.environ.update(
        env,
        RANK=str(rank),
        LOCAL_RANK=str(rank),
        WORLD_SIZE=str(ranks),
        LOCAL_WORLD_SIZE=str(ranks),
    )
    handle = os.open(f"{out}.{rank}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    torch.set_num_threads(1)
    code = 0
    try:
        world = init_world("cpu")
        if fault != "none":
            FAULTS[fault](rank == ranks - 1)
        stages.base(base_config(**changes), world)
    except SystemExit as stop:
        code = stop.code
    except (ValueError, KeyboardInterrupt) as error:
        print(f"error: {error or type(error).__name__}", file=sys.stderr)
        code = 130 if isinstance(error, KeyboardInterrupt) else 2
    except BaseException as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def at_step(step: int, act, always: bool = False) -> None:
    """Call `act(gradients)` right after the gradients of step number `step` (from 1) have been
    computed.
    """
    accumulate, calls = Gradients.accumulate, []

    def wrapper(self, *arguments):
        calls.append(1)
        loss = accumulate(self, *arguments)
        if len(calls) == step or (always and len(calls) >= step):
            act(self)
        return loss

    Gradients.accumulate = wrapper


def spoil(gradients: Gradients) -> None:
    grad = gradients.model.wte.weight.grad
    own = (
        grad.to_local() if hasattr(grad, "to_local") else grad
    )  # of a model in pieces, this rank's
    own[0] = float("inf")


def nan_once(last: bool) -> None:
    if last:
        at_step(2, spoil)


def nan_always(last: bool) -> None:
    if last:
        at_step(2, spoil, always=True)


def killed(last: bool) -> None:
    if last:
        at_step(3, lambda _: os.kill(os.getpid(), signal.SIGKILL))


def stopped(last: bool) -> None:
    if last:
        at_step(3, lambda _: os.kill(os.getpid(), signal.SIGSTOP))


def fails(last: bool) -> None:
    def fail(_):
        raise ValueError("the disk under rank's data went away")

    if last:
        at_step(3, fail)


def signalled(number: int):
    def fault(last: bool) -> None:
        if last:
            at_step(2, lambda _: os.kill(os.getpid(), number))

    return fault


def signal_in_evaluation(last: bool) -> None:
    """The last rank gets the signal; the others sit in an evaluation of a minute."""

    def long_one(model, batches, token_bytes, world):
        if last:
            os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(60)
        return 1.0

    import nanochat.eval.bpb

    nanochat.eval.bpb.bits_per_byte = long_one


def interrupt_twice(last: bool) -> None:
    """Ctrl+C, and again while a save hangs."""
    if last:
        at_step(2, lambda _: os.kill(os.getpid(), signal.SIGINT))

        def hang(self, trainer):
            time.sleep(0.6)
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(60)

        saving.SaveHook.save = hang


def out_of_memory(last: bool) -> None:
    backward, calls = Gradients._backward, []

    def wrapper(self, batches, n_targets):
        calls.append(1)
        rows = min(self.device_batch_size or 99, max(len(batch.input_ids) for batch in batches))
        if last and len(calls) >= 2 and rows > 1:
            backward(self, batches[:1], n_targets)  # half-made gradients that must not count
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return backward(self, batches, n_targets)

    Gradients._backward = wrapper


def disk_full(last: bool) -> None:
    """The second and third save fail."""
    write, seen = tensor_files._Hashing.write, set()

    def full(self, data):
        seen.add(self.file.name)
        if any(f"_{step:06d}" in self.file.name for step in (2, 3)):
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(self, data)

    tensor_files._Hashing.write = full


def disk_stays_full(last: bool) -> None:
    """Only the first save succeeds."""
    write = tensor_files._Hashing.write

    def full(self, data):
        if "_000001" not in self.file.name:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(self, data)

    tensor_files._Hashing.write = full


def weights_differ(last: bool) -> None:
    """After training, every rank says what its weights sum to."""
    fit = Trainer.fit

    def wrapper(self):
        fit(self)
        total = sum(float(p.detach().double().sum()) for p in self.model.parameters())
        print(f"weights {total!r}", flush=True)

    Trainer.fit = wrapper


def overflow(last: bool) -> None:
    nan_once(last)
    weights_differ(last)


def after_the_pass(last: bool) -> None:
    """No reduction begins while the backward pass goes on."""
    from nanochat.optim.gradient_overlap import GradientOverlap

    GradientOverlap._hook = lambda self, number: lambda parameter: None


def told_when_early(last: bool) -> None:
    """A reduction that begins while the backward pass goes on is told; the last rank has no rows in
    step 3.
    """
    from nanochat.dataloader.loader import PackedLoader
    from nanochat.optim.gradient_overlap import GradientOverlap

    start, finish, next_step, finishing, calls = (
        GradientOverlap._start,
        GradientOverlap.finish,
        PackedLoader.next_step,
        [],
        [],
    )

    def tell(self):
        if not finishing:
            print(f"early {tuple(self.shards[self._n_started].parameters[0].shape)}", flush=True)
        start(self)

    def finish_all(self):
        finishing.append(1)
        finish(self)
        finishing.clear()

    def maybe_none(self):
        calls.append(1)
        batches = next_step(self)
        return [] if last and len(calls) == 3 else batches

    GradientOverlap._start, GradientOverlap.finish, PackedLoader.next_step = (
        tell,
        finish_all,
        maybe_none,
    )


def out_of_memory_late(last: bool) -> None:
    """Memory runs out at the very end of the second step's last backward pass, when tables have
    been sent.
    """
    backward, calls = Gradients._backward, []

    def wrapper(self, batches, n_targets):
        def fail(parameter):
            if self.overlap.armed and len(calls) == 2:
                assert self.overlap._n_started == 3
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

        calls.append(1)
        if last and len(calls) == 1:
            self.model.wte.weight.register_post_accumulate_grad_hook(fail)
        return backward(self, batches, n_targets)

    Gradients._backward = wrapper


FAULTS = {
    "out of memory late": out_of_memory_late,
    "after the pass": after_the_pass,
    "told when early": told_when_early,
    "nan once": nan_once,
    "nan always": nan_always,
    "overflow": overflow,
    "killed": killed,
    "stopped": stopped,
    "fails": fails,
    "SIGTERM": signalled(signal.SIGTERM),
    "SIGINT": signalled(signal.SIGINT),
    "SIGUSR1": signalled(signal.SIGUSR1),
    "signal in evaluation": signal_in_evaluation,
    "SIGINT twice": interrupt_twice,
    "out of memory": out_of_memory,
    "disk full": disk_full,
    "disk stays full": disk_stays_full,
}
