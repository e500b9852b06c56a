"""What people ran into on other people's machines, each as the one line that doctor says of it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from nanochat.launch.cluster.settings import TIME_HELP, read_settings
from nanochat.launch.doctor import folder_checks, job_checks, machine_checks
from nanochat.launch.doctor.doctor import DoctorConfig, doctor, run_checks
from nanochat.launch.doctor.finding import Finding, ok

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def machine_of_ones_own(tmp_path, monkeypatch):
    """No SLURM, no W&B, a checkout without settings; programs may be added to its PATH."""
    bin_dir = tmp_path / "bin"
    bin_dir.mkdir()
    for name in [n for n in os.environ if n.startswith(("SLURM_", "WANDB_", "CUDA_", "BASH_FUNC"))]:
        monkeypatch.delenv(name)
    for name in ("LMOD_CMD", "MODULESHOME", "EMAIL", "MASTER_PORT", "MASTER_ADDR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PATH", f"{bin_dir}:{os.environ['PATH']}")
    (tmp_path / "home").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))

    def program(name: str, text: str) -> None:
        (bin_dir / name).write_text(f"#!/bin/sh\n{text}\n")
        (bin_dir / name).chmod(0o755)

    return program


@pytest.fixture
def settings(tmp_path):
    """Writes cluster.env and reads it back."""

    def read(text: str = ""):
        (tmp_path / "cluster.env").write_text(text)
        return read_settings(tmp_path)

    return read


def told(capsys, **options) -> tuple[int, dict[str, dict[str, str]]]:
    """(exit code, name -> finding) of `nanochat doctor --json`."""
    code = doctor(DoctorConfig(json=True, **options))
    said = json.loads(capsys.readouterr().out)
    assert said["ok"] == (code == 0)
    return code, {check["name"]: check for check in said["checks"]}


def test_a_machine_in_order(machine_of_ones_own, capsys):
    code, found = told(capsys)
    assert code == 0, found
    for name in ("Python", "torch", "base directory", "HOME", "file locks", "ports", "ulimit"):
        assert found[name]["state"] != "error", found[name]
    assert doctor(DoctorConfig()) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("ok       Python") and lines[-1].startswith("doctor: 0 error(s)")
    assert "\x1b" not in "".join(lines), "colour is for terminals"


def test_nothing_is_left_behind(machine_of_ones_own, base_dir, capsys):
    told(capsys, recipe="node8", offline=True)
    assert list(base_dir.rglob("*")) == [] and os.listdir(os.environ["HOME"]) == []


def test_run_name_unset(machine_of_ones_own, capsys, monkeypatch):
    _, found = told(capsys)
    assert found["W&B"]["state"] == "warning" and "WANDB_RUN is not set" in found["W&B"]["found"]
    assert "WANDB_RUN=name" in found["W&B"]["fix"]
    monkeypatch.setenv("WANDB_RUN", "name")
    monkeypatch.setenv("WANDB_MODE", "disabled")
    _, found = told(capsys)
    assert found["W&B"]["state"] == "ok"


@pytest.mark.parametrize(
    "key, says",
    [
        ("", "there is no key"),
        ("abc", "has 3 characters"),
        ("a" * 20 + " " + "b" * 20, "blanks"),
        ("a" * 40 + "\n", "line ends"),
        ("0123456789abcdef" * 3, ""),
    ],
)
def test_key_for_wandb(machine_of_ones_own, key, says, tmp_path):
    problem = job_checks.key_problem({"WANDB_API_KEY": key, "HOME": str(tmp_path)})
    assert says in problem and bool(says) == bool(problem)
    (tmp_path / ".netrc").write_text("machine api.wandb.ai login user password x\n")
    assert job_checks.key_problem({"HOME": str(tmp_path)}) == ""


def test_a_wrong_key_is_an_error_only_where_it_would_be_used(
    machine_of_ones_own, settings, monkeypatch
):
    monkeypatch.setattr(job_checks.util, "find_spec", lambda name: object())
    monkeypatch.setenv("WANDB_RUN", "name")
    env = {"WANDB_API_KEY": "short"}
    assert job_checks.tracking(settings(), env)[0].state == "error"
    assert job_checks.tracking(settings("wandb_mode=offline"), env)[0].state == "ok"


def test_what_was_not_brought(machine_of_ones_own, capsys, base_dir):
    """Tokenizer, shards, eval bundle and every task's data, HumanEval included."""
    code, found = told(capsys, recipe="node8", offline=True)
    assert code == 2
    for name, command in {
        "text shards": "download_data.sh",
        "tokenizer": "download_data.sh",
        "eval bundle": "download_data.sh",
        "HumanEval test": "download_after_basetraining.sh",
        "SmolTalk train": "download_after_basetraining.sh",
        "MMLU auxiliary_train": "download_after_basetraining.sh",
        "ARC-Challenge train": "download_after_basetraining.sh",
    }.items():
        assert found[name]["state"] == "error", name
        assert found[name]["fix"] == f"on the login node run: bash scripts/{command}"
    assert found["word list"]["state"] == "warning", "something else is learned without it"
    row = {"task_id": "t/0", "prompt": "def f():\n", "canonical_solution": "  return 1\n"}
    row |= {"test": "def check(c): assert c() == 1\n", "entry_point": "f"}
    place = base_dir / "task_data" / "humaneval"
    place.mkdir(parents=True)
    (place / "test.jsonl").write_text(json.dumps(row) + "\n")
    _, found = told(capsys, recipe="node8", offline=True, only=("sft-eval",))
    assert found["HumanEval test"]["state"] == "ok" and "1 rows" in found["HumanEval test"]["found"]
    assert "SmolTalk train" not in found, "only what the step reads"
    assert "chatsft_checkpoints/d20" in found, "and the model that it needs"


def test_a_damaged_file_is_no_file(machine_of_ones_own, capsys, base_dir):
    (base_dir / "tokenizer").mkdir(parents=True)
    (base_dir / "tokenizer" / "tokenizer.json").write_text('{"format": ')
    (base_dir / "base_checkpoints" / "d12").mkdir(parents=True)
    (base_dir / "base_checkpoints" / "d12" / "meta_000010.json").write_text("{}")
    _, found = told(capsys, recipe="node8", offline=True, override=("base.depth=12",))
    assert "damaged" in found["tokenizer"]["found"]
    _, found = told(
        capsys, recipe="node8", offline=True, override=("base.depth=12",), only=("mid",)
    )
    assert "without model_000010.pt" in found["base_checkpoints/d12"]["found"]


def test_the_cpu_recipe_needs_nothing_but_the_machine(machine_of_ones_own, capsys):
    code, found = told(capsys, recipe="cpu", offline=True)
    assert code == 0 and "text shards" not in found
    code, found = told(capsys, recipe="cpu", only=("mid",))
    assert code == 2 and found["base_checkpoints/d4"]["state"] == "error"


def test_a_step_or_a_setting_that_is_none(machine_of_ones_own):
    with pytest.raises(ValueError, match="--only=nid: recipe node8 has first-shards, "):
        doctor(DoctorConfig(recipe="node8", only=("nid",)))
    with pytest.raises(ValueError, match="recipe node9: unknown"):
        doctor(DoctorConfig(recipe="node9"))


def in_small_disk(tmp_path: Path, variable: str, size_kb: int = 64) -> subprocess.CompletedProcess:
    """doctor with that variable naming a disk of a few KiB."""
    place = tmp_path / "small"
    place.mkdir()
    command = f"mount -t tmpfs -o size={size_kb}k none {place} && exec {sys.executable} -m nanochat"
    env = {**os.environ, "PYTHONPATH": str(ROOT), variable: str(place)}
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", f"{command} doctor"],
        env=env,
        capture_output=True,
        text=True,
        timeout=60,
    )
    if "unshare" in done.stderr or "mount:" in done.stderr:
        pytest.skip(f"no user namespaces with mounts here: {done.stderr.strip()}")
    return done


def test_a_full_home(machine_of_ones_own, tmp_path):
    done = in_small_disk(tmp_path, "HOME")
    line = next(row for row in done.stdout.splitlines() if " HOME " in row)
    assert done.returncode == 2 and line.startswith("error") and "the disk is full" in line
    assert "XDG_CACHE_HOME" in line


def test_a_full_base_directory(machine_of_ones_own, tmp_path):
    done = in_small_disk(tmp_path, "NANOCHAT_BASE_DIR")
    line = next(row for row in done.stdout.splitlines() if "base directory" in row)
    assert done.returncode == 2 and line.startswith("error") and "the disk is full" in line


QUOTA = """echo 'Disk quotas for user me (uid 1000):'
echo '  Filesystem  blocks   quota   limit   grace   files   quota   limit   grace'
echo '  /dev/home   {used}  20000000 22000000  6days    100       0       0'"""


def test_quotas(machine_of_ones_own, tmp_path):
    machine_of_ones_own("quota", QUOTA.format(used="20000001*"))
    found = folder_checks.quotas(tmp_path, 0.0)
    assert [f.state for f in found] == ["error"] and "exceeded" in found[0].found
    machine_of_ones_own("quota", QUOTA.format(used="100"))
    assert [f.state for f in folder_checks.quotas(tmp_path, 1e12)] == ["ok"], "of some disk"
    machine_of_ones_own("lfs", "echo '/scratch 900 1000 1200 - 3 0 0 -'")
    found = folder_checks.quotas(tmp_path, 1e6)
    assert [f.state for f in found] == ["ok", "error"] and "more needed" in found[1].found


def test_git_missing(machine_of_ones_own, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    assert machine_checks.git().state == "warning" and "is missing" in machine_checks.git().found
    machine_of_ones_own("git", "echo git version 2.1")
    assert machine_checks.git() == ok("git", "2.1")


def test_no_module_system(settings):
    assert job_checks.modules(settings(), {}) == []
    found = job_checks.modules(settings("modules=cuda/12.8 gcc"), {})[0]
    assert found.state == "error" and "no command `module` here" in found.found
    assert "module_init=" in found.fix
    init = "module_init=/nowhere/init\nmodules=cuda"
    assert "/nowhere/init: no such file" in job_checks.modules(settings(init), {})[0].found
    env = {"BASH_FUNC_module%%": "() { x; }", "LOADEDMODULES": "cuda/12.8"}
    assert job_checks.modules(settings("modules=cuda/12.8"), env)[0] == ok("modules", "cuda/12.8")


def test_bad_lines_of_the_settings_are_told_together(settings):
    with pytest.raises(ValueError) as failure:
        settings("partiton=gpu\n# a comment\ntime=soon\nnodes=none\n")
    assert str(failure.value).splitlines() == [
        "cluster.env:1: partiton: unknown; did you mean partition?",
        f"cluster.env:3: time=soon: is no time limit; {TIME_HELP}",
        "cluster.env:4: nodes=none: must be a whole number above 0",
    ]


def test_time_against_the_hours(machine_of_ones_own, settings):
    def limit(text: str, hours: float, **env: str) -> Finding:
        return job_checks.time_limit(settings(f"time={text}"), env, hours)[0]

    assert limit("12:00:00", 4.0).state == "ok"
    assert limit("1:00:00", 4.0).state == "warning", "it saves and goes on"
    assert limit("10", 4.0).state == "error" and "24 times" in limit("10", 4.0).fix
    machine_of_ones_own("squeue", "echo 1:00:00")
    assert limit("12:00:00", 4.0, SLURM_JOB_ID="7").state == "warning", "the job's own counts"


NVIDIA = """case "$*" in
-L) echo 'GPU 0: NVIDIA H100 (UUID: GPU-a)'; echo 'GPU 1: NVIDIA H100 (UUID: GPU-b)' ;;
*index,name*) echo '0, NVIDIA H100, 80000, 81559, 550.1'; echo '1, NVIDIA H100, 9, 81559, 550.1' ;;
*index,uuid*) echo '0, GPU-a'; echo '1, GPU-b' ;;
*compute-apps*) echo 'GPU-b, 77, /usr/bin/python3, 80000' ;;
esac"""


def test_gpus_and_who_uses_them(machine_of_ones_own, monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    machine_of_ones_own("nvidia-smi", NVIDIA)
    first, second, *_ = machine_checks.gpus(True, {})
    assert first.state == "ok" and "78.1 of 79.6 GiB free, driver 550.1" in first.found
    assert second.state == "warning" and "python3 (pid 77, 80000 MiB)" in second.fix


def test_no_gpu(machine_of_ones_own, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    assert machine_checks.gpus(False, {})[0].state == "ok"
    assert machine_checks.gpus(True, {})[0].state == "error"
    assert "--gpus-per-node" in machine_checks.gpus(True, {"SLURM_JOB_ID": "7"})[0].fix
    machine_of_ones_own("sbatch", "")
    assert machine_checks.gpus(True, {})[0].state == "warning", "a login node"


def test_ports(machine_of_ones_own):
    import socket

    with socket.create_server(("127.0.0.1", 0)) as server:
        port = str(server.getsockname()[1])
        assert job_checks.ports({"MASTER_PORT": port}).state == "error"
    assert job_checks.ports({"MASTER_PORT": port}).state == "ok"


def test_a_check_that_hangs_or_breaks_is_told():
    def breaks() -> Finding:
        raise KeyError("x")

    found = run_checks([lambda: ok("a", "b"), threading.Event().wait, breaks], patience_s=0.2)  # type: ignore[list-item]
    assert [f.state for f in found] == ["ok", "error", "error"]
    assert "hangs" in found[1].found and found[2].found == "a check failed: 'x'"


def test_an_old_python_is_told_its_version():
    program = "import sys; sys.version_info = (3, 9, 2); import nanochat"
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith("error: this is Python 3.9 (") and "3.10 to 3.13" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_an_old_python_first_on_the_path(tmp_path):
    """Set-up takes a newer one where there is one, and names the old one where there is none."""
    bash = shutil.which("bash")
    for name in ("bin", "scripts"):
        (tmp_path / name).mkdir()
    shutil.copy(ROOT / "scripts" / "setup.sh", tmp_path / "scripts")
    old = '#!/bin/sh\n[ "$1" = -V ] && echo Python 3.9.18\nexit 1\n'
    (tmp_path / "bin" / "python3").write_text(old)
    for tool in ("dirname", "sed", "cat", "uname"):
        (tmp_path / "bin" / tool).symlink_to(shutil.which(tool) or "")
    env = {"PATH": str(tmp_path / "bin"), "NANOCHAT_SKIP_SETUP": "1", "HOME": str(tmp_path)}
    words = [bash, "-c", "source scripts/setup.sh; echo $PYTHON"]
    (tmp_path / "bin" / "python3").chmod(0o755)
    done = subprocess.run(words, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 1 and "no Python 3.10 to 3.13 found" in done.stderr
    assert "python3 is Python 3.9.18" in done.stderr
    newer = tmp_path / "bin" / "python3.12"
    newer.write_text("#!/bin/sh\nexit 0\n")
    newer.chmod(0o755)
    done = subprocess.run(words, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.stdout.strip() == str(newer), done.stderr
