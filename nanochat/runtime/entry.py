"""The way into every command: what people can put right is one line, and an exit code says how it
ended.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable

from nanochat.runtime.errors import is_out_of_memory, lines, rank
from nanochat.runtime.openmp import let_waiting_threads_sleep
from nanochat.runtime.output import steady_output
from nanochat.runtime.variables import check_variables

WRONG_INPUT = 2  # something a person can put right
INTERRUPTED = 130  # Ctrl+C, as shells have it
READER_GONE = 141  # `| head` has seen enough


def run_as_command(call: Callable[[], object]) -> None:
    """Run a process's one command and end the process with its exit code.

    Call it before torch is loaded.
    """
    let_waiting_threads_sleep()
    with steady_output():
        try:
            code = exit_code(check_variables) or exit_code(call) or exit_code(sys.stdout.flush)
        except BrokenPipeError:
            code = READER_GONE
        except KeyboardInterrupt:
            print("\nstopped", file=sys.stderr)
            code = INTERRUPTED
    if code:
        raise SystemExit(code)


def exit_code(call: Callable[[], object]) -> int:
    """Run `call` -> its exit code, with what people can put right said in a line each.

    A number that `call` returns is the code, a text is printed, all else is success.
    `NANOCHAT_DEBUG=1` adds the trace. Errors that nobody but a programmer can put right are raised.
    """
    try:
        result = call()
        if isinstance(result, str):
            print(result)
    except (BrokenPipeError, KeyboardInterrupt):
        raise
    except (ValueError, OSError, MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and not is_out_of_memory(error):
            raise
        say_error(error)
        return WRONG_INPUT
    return result if isinstance(result, int) and not isinstance(result, bool) else 0


def say_error(error: BaseException) -> None:
    """One line for each problem on stderr; a run of several processes says which one had it."""
    if os.environ.get("NANOCHAT_DEBUG") == "1":
        traceback.print_exception(error)
    label = "error: " if rank() == "0" else f"error (rank {rank()}): "
    for line in lines(error):
        print(label + line, file=sys.stderr)
