"""World: launcher variables, devices, and that collectives agree between one process and two."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch

from nanochat.runtime import world as w

ROOT = Path(__file__).resolve().parents[2]
LAUNCH = (
    "RANK",
    "WORLD_SIZE",
    "LOCAL_RANK",
    "MASTER_ADDR",
    "MASTER_PORT",
    "SLURM_PROCID",
    "SLURM_NTASKS",
    "SLURM_JOB_ID",
)


@pytest.fixture(autouse=True)
def no_launcher(monkeypatch):
    for name in LAUNCH:
        monkeypatch.delenv(name, raising=False)
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def test_single_process_collectives_are_identities():
    world = w.init_world("cpu")
    tensor = torch.tensor([3.0])
    assert (world.rank, world.world_size, world.is_main, world.backend) == (0, 1, True, None)
    assert world.all_reduce_sum(tensor) is tensor and tensor.item() == 3.0
    assert world.gather_objects({"a": 1}) == [{"a": 1}] and world.broadcast_object("x") == "x"
    world.barrier()
    world.close()
    assert not torch.distributed.is_initialized()


def test_torchrun_variables():
    env = {
        "RANK": "5",
        "LOCAL_RANK": "1",
        "WORLD_SIZE": "8",
        "LOCAL_WORLD_SIZE": "4",
        "MASTER_ADDR": "a",
        "MASTER_PORT": "1",
    }
    launch = w.read_launch(env)
    assert (launch.rank, launch.local_rank, launch.world_size, launch.local_world_size) == (
        5,
        1,
        8,
        4,
    )
    del env["MASTER_PORT"]
    with pytest.raises(ValueError, match="MASTER_PORT not set"):
        w.read_launch(env)


def test_slurm_variables(monkeypatch):
    monkeypatch.setattr(os, "environ", {})
    env = {
        "SLURM_PROCID": "9",
        "SLURM_LOCALID": "1",
        "SLURM_NTASKS": "16",
        "SLURM_JOB_ID": "123",
        "SLURM_STEP_ID": "0",
        "SLURM_STEP_TASKS_PER_NODE": "8(x2)",
        "SLURM_JOB_NODELIST": "gpu[07-08]",
    }
    launch = w.read_launch(env)
    assert (launch.rank, launch.local_rank, launch.world_size, launch.local_world_size) == (
        9,
        1,
        16,
        8,
    )
    assert os.environ == {"MASTER_ADDR": "gpu07", "MASTER_PORT": "20123"}
    os.environ.clear()
    w.read_launch({**env, "SLURM_STEP_TASKS_PER_NODE": "16", "SLURM_JOB_NODELIST": "gpu07"})
    assert os.environ["MASTER_ADDR"] == "127.0.0.1", "one node needs no name"


def test_slurm_batch_script_is_a_single_process(capsys):
    launch = w.read_launch(
        {"SLURM_PROCID": "0", "SLURM_NTASKS": "8", "SLURM_JOB_ID": "1", "SLURM_JOB_NODELIST": "n1"}
    )
    assert launch.world_size == 1 and "not under srun" in capsys.readouterr().err


@pytest.mark.parametrize(
    "nodelist, hosts",
    [
        ("node1", ["node1"]),
        ("a,b", ["a", "b"]),
        ("gpu[003-005,12],login", ["gpu003", "gpu004", "gpu005", "gpu12", "login"]),
        ("r[1-2]n[1-2]", ["r1n1", "r1n2", "r2n1", "r2n2"]),
        ("", []),
    ],
)
def test_expand_nodelist(nodelist, hosts):
    assert w.expand_nodelist(nodelist) == hosts


def test_device_errors_name_the_fix():
    with pytest.raises(ValueError, match="--device-type=tpu: unknown device; use cuda, cpu or mps"):
        w.init_world("tpu")
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="--device-type=cuda.*--device-type=cpu"):
            w.init_world("cuda")


def test_threads(monkeypatch, capsys):
    monkeypatch.setattr(w, "core_count", lambda: 6)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    w.set_cpu_threads(w.Launch(local_world_size=2))
    assert torch.get_num_threads() == 3
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    w.set_cpu_threads(w.Launch())
    assert torch.get_num_threads() == 3 and "one of 6 cores" in capsys.readouterr().err
    w.set_cpu_threads(
        w.Launch(world_size=2, local_world_size=2)
    )  # torchrun itself sets 1: nothing to say
    assert capsys.readouterr().err == ""


def test_two_processes_agree(tmp_path):
    program = tmp_path / "two.py"
    program.write_text(
        textwrap.dedent("""
        import torch
        from nanochat.runtime.world import init_world
        world = init_world("cpu")
        total = world.all_reduce_sum(torch.tensor([world.rank + 1.0]))
        seen = world.gather_objects({"rank": world.rank})
        word = world.broadcast_object("from 0" if world.is_main else None)
        world.barrier()
        assert total.item() == 3.0, total
        assert seen == [{"rank": 0}, {"rank": 1}] and word == "from 0", (seen, word)
        world.close()
        # one write: unbuffered output of two would mix
        print(f"agreed {world.rank} {world.backend}\\n", end="")
        """)
    )
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc_per_node=2",
        str(program),
    ]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "agreed 0 gloo" in done.stdout and "agreed 1 gloo" in done.stdout


def test_absent_peer_is_one_clear_error(monkeypatch):
    for name, value in dict(
        RANK="1", WORLD_SIZE="2", MASTER_ADDR="127.0.0.1", MASTER_PORT="1"
    ).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("NANOCHAT_DIST_TIMEOUT_S", "1")
    with pytest.raises(ValueError, match="rank 1 of 2 .* could not join 127.0.0.1:1"):
        w.init_world("cpu")


GPUS = {
    "CUDA_VISIBLE_DEVICES": ("0,1", "MIG-1234"),
    "SLURM_JOB_GPUS": ("0", "0,1,2,3"),
    "SLURM_STEP_GPUS": ("2",),
    "SLURM_GPUS_ON_NODE": ("8",),
    "SLURM_GPUS": ("a100:4",),
    "SLURM_GPUS_PER_NODE": ("1",),
    "SLURM_GPUS_PER_TASK": ("h100:1",),
}
NO_GPUS = (
    {},
    {"CUDA_VISIBLE_DEVICES": ""},
    {"CUDA_VISIBLE_DEVICES": "-1", "SLURM_JOB_GPUS": "0"},  # hidden on purpose
    {"CUDA_VISIBLE_DEVICES": "NoDevFiles"},
    {"SLURM_GPUS_ON_NODE": "0", "SLURM_GPUS": "a100:0"},
)


@pytest.fixture
def cpu_build(monkeypatch, tmp_path):
    """A machine whose torch has no CUDA, without nvidia-smi and without variables of a job."""
    for name in (*GPUS, "GPU_DEVICE_ORDINAL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", None)
    return tmp_path


@pytest.mark.parametrize("name, value", [(name, v) for name, vs in GPUS.items() for v in vs])
def test_gpus_that_torch_cannot_use_end_the_run(cpu_build, monkeypatch, name, value):
    """A job on a GPU node with torch's CPU build must not train on the CPU without a word."""
    monkeypatch.setenv(name, value)
    said = f"GPUs are there .{name}={value}.*build for CPUs; install.*or give --device-type=cpu"
    for empty in (None, ""):
        with pytest.raises(ValueError, match=said):
            w.init_world(empty)
    assert w.init_world("cpu").device.type == "cpu"
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    with pytest.raises(ValueError, match="sees none; compare `nvidia-smi`.*--device-type=cpu"):
        w.init_world()


@pytest.mark.parametrize("variables", NO_GPUS)
def test_no_gpus_are_no_reason_to_stop(cpu_build, monkeypatch, variables):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert w.init_world().device.type == "cpu"


@pytest.mark.skipif(sys.platform == "win32", reason="a shell script")
@pytest.mark.parametrize("lists", [0, 2])
def test_nvidia_smi_is_asked(cpu_build, monkeypatch, lists):
    program = cpu_build / "nvidia-smi"
    lines = "\n".join(f"GPU {n}: NVIDIA H100 (UUID: GPU-{n})" for n in range(lists))
    program.write_text(f"#!/bin/sh\necho '{lines or 'No devices found'}'\n")
    program.chmod(0o755)
    if lists:
        with pytest.raises(ValueError, match="nvidia-smi lists 2 GPU"):
            w.init_world()
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert w.init_world().device.type == "cpu"


def test_one_gpu_for_each_task_is_number_0():
    """SLURM may show a task its own GPU alone; a GPU shared by mistake is still an error."""
    third = w.Launch(rank=3, local_rank=3, world_size=8, local_world_size=8, by="SLURM")
    assert w.gpu_index(third, 8, {"SLURM_GPUS_ON_NODE": "8"}) == 3
    assert w.gpu_index(third, 1, {"SLURM_GPUS_ON_NODE": "8"}) == 0
    assert w.gpu_index(third, 1, {"SLURM_GPUS_PER_TASK": "1"}) == 0
    assert w.gpu_index(third, 1, {"SLURM_NTASKS_PER_GPU": "1"}) == 0
    with pytest.raises(ValueError, match="local rank 3 has no GPU: 1 here for 8 processes"):
        w.gpu_index(third, 1, {"SLURM_GPUS_ON_NODE": "1"})
    with pytest.raises(ValueError, match="lower --nproc_per_node"):
        w.gpu_index(w.Launch(local_rank=3, local_world_size=8, by="torchrun"), 1, {})


def test_a_node_whose_name_the_network_does_not_know(tmp_path, monkeypatch):
    """Its address comes from SLURM; where SLURM knows no better the name is tried all the same."""
    (tmp_path / "scontrol").write_text(
        '#!/bin/sh\n[ "$4" = n1.invalid ] && echo "NodeName=n1 NodeAddr=127.0.0.1 State=IDLE"\n'
    )
    (tmp_path / "scontrol").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert w.meeting_place(["n1.invalid", "n2.invalid"]) == "127.0.0.1"
    assert w.meeting_place(["n3.invalid", "n2.invalid"]) == "n3.invalid"
    assert w.meeting_place(["localhost", "n2.invalid"]) == "localhost"
    assert w.meeting_place(["n9.invalid"]) == "127.0.0.1", "one node needs no name"
