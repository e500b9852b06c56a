"""Set-up against stand-ins for Python, uv and pip: which build of torch is taken from where, and
that one tool's failure is made up for by the other.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# Stands in for every Python. An environment is a folder with `pip` in it when it has pip, and
# `torch` with the version in it. INDEX lists what pip's index has, CPU_INDEX the public index of
# CPU builds.
PYTHON = r"""#!/bin/bash
env="$(cd "$(dirname "$0")/.." && pwd)"
echo "python $*" >>"$CALLS"
case "$*" in
-V) echo Python 3.12.0 ;;
"-c import sys"*) ;;
"-c import importlib.metadata"*) cat "$env/torch" 2>/dev/null ;;
"-m venv "*) mkdir -p "$3/bin" && cp "$0" "$3/bin/python" && touch "$3/pip" ;;
"-m ensurepip"*) [ -n "$NO_ENSUREPIP" ] && exit 1; touch "$env/pip" ;;
"-m pip"*)
    [ -f "$env/pip" ] || { echo "No module named pip" >&2; exit 1; }
    [[ "$*" == *--version* ]] && exit 0
    have="$INDEX"
    [[ "$*" == *--index-url* ]] && have="$CPU_INDEX"
    wanted="$(grep -o "torch==*[^ ]*" <<<"$*" | tail -n 1)"
    [ -z "$wanted" ] && exit "${PIP_FAILS:-0}"
    number="$(sed "s/torch=*//" <<<"$wanted")"
    found=""
    for version in $have $(ls .torch | sed s/.whl//); do
        case "$wanted" in
        torch===*) [ "$version" = "$number" ] && found="$version" ;;
        *) [ "${version%+*}" = "$number" -o "$version" = "$number" ] && found="$version" ;;
        esac
    done
    [ -n "$found" ] || exit 1
    [[ "$*" == *download* ]] && touch ".torch/$found.whl" || echo "$found" >"$env/torch" ;;
esac
"""
UV = r"""#!/bin/bash
echo "uv $*" >>"$CALLS"
case "$1" in
venv) [[ "$*" == *--seed* ]] && exit 1
      mkdir -p "${@: -1}/bin" && cp "$(dirname "$0")/python3" "${@: -1}/bin/python" ;;
pip) exit 1 ;;
esac
"""


@pytest.fixture
def checkout(tmp_path):
    """Runs set-up in a checkout of its own -> (exit code, installed torch, calls, what it said)."""
    place, tools = tmp_path / "checkout", tmp_path / "bin"
    (place / "scripts").mkdir(parents=True)
    (place / ".torch").mkdir()
    for name in ("scripts/setup.sh", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, place / name)
    tools.mkdir()

    def tool(name: str, text: str | None) -> None:
        (tools / name).unlink(missing_ok=True)
        if text is not None:
            (tools / name).write_text(text)
            (tools / name).chmod(0o755)

    def run(uv=False, gpu=False, **env):
        tool("python3", PYTHON)
        tool("uv", UV if uv else None)
        tool("nvidia-smi", "#!/bin/sh\necho GPU 0\n" if gpu else "#!/bin/sh\nexit 1\n")
        calls = tmp_path / "calls"
        calls.write_text("")
        settings = {"PATH": f"{tools}:/usr/bin:/bin", "HOME": str(tmp_path), "CALLS": str(calls)}
        settings |= {"INDEX": "", "CPU_INDEX": "", "NO_ENSUREPIP": "", **env}
        program = "set -euo pipefail; source scripts/setup.sh; echo ready"
        done = subprocess.run(
            ["bash", "-c", program], cwd=place, env=settings, capture_output=True, text=True
        )
        torch = place / ".venv" / "torch"
        version = torch.read_text().strip() if torch.exists() else None
        assert (done.returncode == 0) == ("ready" in done.stdout), done.stderr
        return done.returncode, version, calls.read_text(), done.stderr

    run.place = place
    return run


VERSION = re.search(r"^torch==(.+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)[1]
CPU = VERSION + "+cpu"


@pytest.mark.parametrize("uv", [False, True])
def test_a_small_build_from_pips_own_index(checkout, uv):
    code, version, _, said = checkout(uv=uv, INDEX=f"{VERSION} {CPU}")
    assert (code, version) == (0, CPU), said
    assert os.listdir(checkout.place / ".torch") == [CPU + ".whl"]  # where uv finds it again


@pytest.mark.parametrize("uv", [False, True])
def test_a_small_build_from_the_public_index(checkout, uv):
    code, version, _, said = checkout(uv=uv, INDEX=VERSION, CPU_INDEX=CPU)
    assert (code, version) == (0, CPU), said


@pytest.mark.parametrize("uv", [False, True])
def test_only_a_package_index_with_the_default_build(checkout, uv):
    code, version, _, said = checkout(uv=uv, INDEX=VERSION)
    assert (code, version) == (0, VERSION) and "taking the default build" in said
    assert os.listdir(checkout.place / ".torch") == []


def test_an_environment_that_uv_made_and_then_no_uv(checkout):
    """uv makes environments without pip."""
    assert checkout(uv=True, NO_ENSUREPIP="1")[0] == 1
    assert (checkout.place / ".venv" / "bin" / "python").exists()
    code, version, _, said = checkout(INDEX=VERSION)
    assert (code, version) == (0, VERSION), said


def test_no_way_to_get_pip_is_said(checkout):
    checkout(uv=True, NO_ENSUREPIP="1")
    code, _, _, said = checkout(INDEX=VERSION, NO_ENSUREPIP="1")
    assert code == 1 and ".venv has no pip: install uv, or remove" in said
    assert "error: could not install torch" in said and "No module named" not in said


def test_a_machine_with_a_gpu_never_takes_a_cpu_build(checkout):
    code, version, _, said = checkout(gpu=True, INDEX=f"{VERSION} {CPU}", CPU_INDEX=CPU)
    assert (code, version) == (0, VERSION), said
    code, version, _, said = checkout(gpu=True, INDEX=f"{VERSION} {CPU}", NANOCHAT_EXTRAS="dev")
    assert (code, version) == (0, VERSION), said


def test_a_login_node_may_ask_for_the_gpu_build(checkout):
    assert checkout(INDEX=f"{VERSION} {CPU}")[1] == CPU
    code, version, _, said = checkout(INDEX=f"{VERSION} {CPU}", NANOCHAT_EXTRAS="gpu,wandb")
    assert (code, version) == (0, VERSION), said
    assert os.listdir(checkout.place / ".torch") == []
    assert checkout(INDEX=f"{VERSION} {CPU}")[1] == VERSION, "and it stays"


def test_a_gpu_and_an_index_of_cpu_builds_alone_is_said(checkout):
    code, version, _, said = checkout(gpu=True, INDEX=CPU)
    assert (code, version) == (0, CPU) and "GPUs will not be used" in said


def test_the_named_index_and_no_other(checkout):
    code, version, _, said = checkout(INDEX=VERSION, CPU_INDEX=CPU, NANOCHAT_TORCH_INDEX="URL")
    assert (code, version) == (0, CPU), said
    checkout.place.joinpath(".venv/torch").unlink()
    code, _, _, said = checkout(INDEX="", NANOCHAT_TORCH_INDEX="URL", NANOCHAT_EXTRAS="dev")
    assert code == 1 and "could not install torch" in said


def test_what_is_installed_is_not_installed_again(checkout):
    checkout(INDEX=VERSION)
    code, _, calls, said = checkout()
    assert code == 0 and " pip" not in calls and said == ""
    code, _, _, said = checkout(PIP_FAILS="1", NANOCHAT_EXTRAS="dev")
    assert code == 1 and "could not install the dependencies" in said


def test_the_pinned_torch_is_the_same_everywhere():
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    pins = re.findall(r"torch==([0-9.]+)", text)
    assert pins == [VERSION] * 3 and 'find-links = [".torch"]' in text


def test_no_package_registry_is_named():
    """Which one a machine reaches is a matter of its own settings."""
    hosts = re.compile(r"pypi\.org|pythonhosted|npmjs\.(?:org|com)|deb\.debian")
    files = [
        path
        for folder in ("deploy", "dev", "nanochat", "scripts", "workflows", ".ci")
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and path.suffix not in (".pyc", ".png", ".so")
    ]
    files += [*ROOT.glob("*.sh"), *ROOT.glob("*.toml"), *ROOT.glob("*.txt"), ROOT / "mkdocs.yml"]
    named = [path for path in files if hosts.search(path.read_text("utf-8", "replace"))]
    assert len(files) > 300 and named == []
