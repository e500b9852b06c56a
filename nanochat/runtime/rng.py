"""The process's random states as plain JSON values, so that a resumed run draws what the first
would have drawn.
"""

from __future__ import annotations

import base64
import random
from typing import Any

import numpy as np
import torch


def rng_state(device: torch.device) -> dict[str, Any]:
    """States of torch (CPU and `device`), numpy and Python."""
    version, words, gauss = random.getstate()
    kind, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    assert kind == "MT19937", kind
    state = {
        "torch": _text(torch.get_rng_state().numpy()),
        "numpy": [_text(np.asarray(keys)), int(position), int(has_gauss), float(cached)],
        "python": [version, _text(np.array(words, dtype=np.uint32)), gauss],
    }
    if device.type == "cuda":
        state["cuda"] = _text(torch.cuda.get_rng_state(device).numpy())
    return state


def set_rng_state(state: dict[str, Any], device: torch.device) -> None:
    """Put back what `rng_state` returned. A run that moves to another kind of device keeps that
    device's own state.
    """
    torch.set_rng_state(torch.from_numpy(_array(state["torch"], np.uint8)))
    keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state(("MT19937", _array(keys, np.uint32), position, has_gauss, cached))
    version, words, gauss = state["python"]
    random.setstate((version, tuple(_array(words, np.uint32).tolist()), gauss))
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(torch.from_numpy(_array(state["cuda"], np.uint8)), device)


def _text(array: np.ndarray) -> str:
    return base64.b64encode(array.tobytes()).decode("ascii")


def _array(text: str, dtype: Any) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text), dtype=dtype).copy()
