"""`nanochat <command>`: words -> config -> one call. `python -m scripts.base_train` and friends end
here too.

A command's code is imported only when it is asked for, so `nanochat --help` is quick and needs no
torch.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from nanochat import __version__
from nanochat.launch.commands import COMMANDS, call, find
from nanochat.runtime.entry import run_as_command
from nanochat.runtime.output import output_is_the_result


def usage() -> str:
    rows = "\n".join(f"  {name:11} {command.about}" for name, command in COMMANDS.items())
    return (
        "usage: nanochat COMMAND [--flag value ...]\n\n"
        "From raw text to a chat model. `nanochat COMMAND --help` lists a command's flags; the "
        "whole pipeline on this\n"
        "machine is `bash speedrun.sh` or `nanochat recipe run cpu`.\n\n"
        f"commands:\n{rows}\n"
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Run one command and end with its exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    run_as_command(lambda: run(words))


def run(words: Sequence[str]) -> Any:
    """Run one command -> its result. Raises what `runtime.entry` turns into lines for people."""
    if not words or words[0] in ("-h", "--help", "help"):
        output_is_the_result()
        return usage().rstrip()
    if words[0] in ("-V", "--version", "version"):
        output_is_the_result()
        return f"nanochat {__version__}"
    name, command, rest = find(words)
    if command.prints:
        output_is_the_result()
    return call(name, command, rest)


if __name__ == "__main__":
    main()
