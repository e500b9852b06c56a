"""`nanochat <command>`: words -> config -> one call. `python -m scripts.base_train` and friends end
here too.

A command's code is imported only when it is asked for, so `nanochat --help` is quick and needs no
torch.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence

from nanochat.launch.commands import COMMANDS, call, find, finish
from nanochat.runtime.errors import is_out_of_memory, lines, rank


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
    """Run one command. What people can put right is a one-line error and exit code 2.

    `NANOCHAT_DEBUG=1` adds the trace. Ctrl+C exits with 130, as shells expect.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] in ("-h", "--help", "help"):
        print(usage(), end="")
        return
    if words[0] in ("-V", "--version", "version"):
        from nanochat import __version__

        print(f"nanochat {__version__}")
        return
    try:
        code = finish(call(*find(words)))
    except BrokenPipeError:  # the reader of our output, `| head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(141) from None
    except (ValueError, OSError) as error:
        fail(error)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        fail(error)
    except KeyboardInterrupt:
        print("\nstopped", file=sys.stderr)
        raise SystemExit(130) from None
    if code:
        raise SystemExit(code)


def fail(error: Exception) -> None:
    """Print an error as one line for each problem and exit with code 2."""
    if os.environ.get("NANOCHAT_DEBUG") == "1":
        traceback.print_exception(error)
    label = "error: " if rank() == "0" else f"error (rank {rank()}): "
    for line in lines(error):
        print(label + line, file=sys.stderr)
    raise SystemExit(2) from None


if __name__ == "__main__":
    main()
