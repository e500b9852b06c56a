"""The command line: quick help, one-line errors, exit codes, a world where one is wanted, every
command wired.
"""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import types
from pathlib import Path

import pytest

from nanochat import cli, config
from nanochat.launch import commands

ROOT = Path(__file__).resolve().parents[1]
LATER = {"plan"}  # in the table before their code is in the tree
WIRED = {
    name: command for name, command in commands.COMMANDS.items() if name not in commands.GROUPS
}
WIRED |= {
    f"{group} {name}": c for group, table in commands.GROUPS.items() for name, c in table.items()
}


@dataclasses.dataclass
class Settings:
    """Settings of a stand-in command."""

    depth: int = 4
    device_type: str = "cpu"


@pytest.fixture
def stand_in(monkeypatch):
    """A module whose functions record how they were called."""
    module = types.ModuleType("stand_in")
    calls: list = []

    def with_world(config, world):
        calls.append((config.depth, world.world_size, world.device.type))

    def plain(config):
        calls.append(config.depth)

    def raises(words):
        raise {
            "value": ValueError("--a=1: bad; use 2"),
            "two": ValueError("--a: x\n--b: y"),
            "stop": KeyboardInterrupt(),
        }[words[0]]

    def code(words):
        return int(words[0])

    for item in (Settings, with_world, plain, raises, code):
        setattr(module, item.__name__, item)
    monkeypatch.setitem(sys.modules, "stand_in", module)
    for name, settings in (
        ("with_world", "Settings"),
        ("plain", "Settings"),
        ("raises", None),
        ("code", None),
    ):
        command = commands.Command(name, f"stand_in:{name}", settings and f"stand_in:{settings}")
        monkeypatch.setitem(commands.COMMANDS, name.replace("_", "-"), command)
    return calls


def test_functions_get_their_config_and_a_world_if_they_ask(stand_in):
    cli.main(["plain", "--depth=3"])
    cli.main(["with_world", "--", "--depth", "5"])
    assert stand_in == [3, (5, 1, "cpu")]


@pytest.mark.parametrize(
    "words, code, said",
    [
        (["raises", "value"], 2, "error: --a=1: bad; use 2\n"),
        (["raises", "two"], 2, "error: --a: x\nerror: --b: y\n"),
        (["raises", "stop"], 130, "\nstopped\n"),
        (["plain", "--dept=3"], 2, "error: --dept=3: unknown flag; did you mean --depth?\n"),
        (["code", "3"], 3, ""),
        (["base-trian"], 2, "error: base-trian: unknown command; did you mean base-train?\n"),
        (
            ["data", "chek"],
            2,
            "error: data chek: unknown command; use one of: nanochat data check, nanochat data "
            "fetch\n",
        ),
    ],
)
def test_exit_codes_and_one_line_errors(stand_in, capsys, words, code, said):
    with pytest.raises(SystemExit) as stopped:
        cli.main(words)
    assert stopped.value.code == code and capsys.readouterr().err == said


def test_debug_adds_the_trace(stand_in, capsys, monkeypatch):
    monkeypatch.setenv("NANOCHAT_DEBUG", "1")
    with pytest.raises(SystemExit):
        cli.main(["raises", "value"])
    assert "Traceback" in capsys.readouterr().err


def test_success_is_silent(stand_in, capsys):
    cli.main(["code", "0"])
    assert capsys.readouterr() == ("", "")


def test_help_lists_every_command_without_importing_torch():
    program = (
        "import sys; from nanochat.cli import main; main(['--help']); sys.exit('torch' in "
        "sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for name in commands.COMMANDS:
        assert f"  {name} " in done.stdout


@pytest.mark.parametrize("name", WIRED)
def test_every_command_is_wired(name, capsys):
    command = WIRED[name]
    try:
        assert callable(commands.load(command.function))
    except ValueError:
        if name not in LATER:
            raise
        pytest.skip(f"{name} is not in this tree yet")
    if command.config is None:
        return
    fields = config.fields_of(commands.load(command.config))
    spellings = [s for f in fields for s in f.spellings]
    assert len(spellings) == len(set(spellings)), f"{name}: a flag is declared twice"
    assert [f.flag for f in fields if not f.help] == [], f"{name}: flags without a word of help"
    with pytest.raises(SystemExit) as stopped:
        cli.main([*name.split(), "--help"])
    assert stopped.value.code == 0 and "--config" in capsys.readouterr().out


@pytest.mark.parametrize("path", sorted((ROOT / "scripts").glob("*.py")), ids=lambda p: p.stem)
def test_scripts_are_thin_and_name_real_commands(path):
    text = path.read_text()
    if "nanochat.cli import main" not in text:
        pytest.skip(f"{path.name} is not a command's entry point")
    assert f'main(["{path.stem.replace("_", "-")}", *sys.argv[1:]])' in text
    assert path.stem.replace("_", "-") in commands.COMMANDS and len(text.splitlines()) < 15
