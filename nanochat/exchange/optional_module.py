"""Modules of the extra `[export]`, imported when they are needed."""

from __future__ import annotations

import importlib
from types import ModuleType


class NotInstalled(ValueError):
    """A module of the extra is not there."""


def needed(module: str) -> ModuleType:
    """The module. NotInstalled, with the command that brings it, where it is not there."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module.split(".")[0]:
            raise
        raise NotInstalled(
            f"{error.name} is not installed; run `pip install -e '.[export]'`"
        ) from None
