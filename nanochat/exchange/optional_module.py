"""Modules of the extra `[export]`, imported when they are needed."""

from __future__ import annotations

import importlib
from types import ModuleType

# Programs that only checks need, by the packages they come in.
OTHERS = {"llama_cpp": "llama-cpp-python", "mlx": "mlx-lm", "mlx_lm": "mlx-lm"}


class NotInstalled(ValueError):
    """A module is not there."""


def needed(module: str) -> ModuleType:
    """The module. NotInstalled, with the command that brings it, where it is not there."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        name = module.split(".")[0]
        if (error.name or "").split(".")[0] != name:
            raise
        bring = OTHERS.get(name, "-e '.[export]'")
        raise NotInstalled(f"{name} is not installed; run `pip install {bring}`") from None
