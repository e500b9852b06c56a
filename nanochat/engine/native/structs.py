"""What the C code is handed, field by field as in matmul.h and model.h, and the threads it runs
on."""

from __future__ import annotations

import ctypes
import os
import time
from ctypes import POINTER, c_float, c_int64, c_void_p

import torch

from nanochat.engine.native.build import library

KINDS = {torch.float32: 0, torch.bfloat16: 1, torch.int8: 2}


class Matrix(ctypes.Structure):
    _fields_ = [
        *((name, c_void_p) for name in ("data", "scale", "sums")),
        *((name, c_int64) for name in ("rows", "columns", "kind")),
    ]


class Layer(ctypes.Structure):
    _fields_ = [
        *(
            (name, Matrix)
            for name in ("q", "k", "v", "proj", "fc", "out", "value_embedding", "value_gate")
        ),
        ("window", c_int64),
        ("residual", c_float),
        ("first", c_float),
    ]


class Model(ctypes.Structure):
    _fields_ = [
        *(
            (name, c_int64)
            for name in (
                "n_layer",
                "n_head",
                "n_kv_head",
                "head_dim",
                "width",
                "gate_channels",
                "smear_channels",
                "mixes",
            )
        ),
        ("layers", POINTER(Layer)),
        *((name, Matrix) for name in ("embedding", "head", "smear_gate")),
        ("cos", c_void_p),
        ("sin", c_void_p),
        *((name, c_float) for name in ("smear", "backout", "gate_scale", "qk_scale", "logit_cap")),
    ]


SCRATCH = ("x", "x0", "middle", "h", "q", "k", "v", "y", "hidden")


class StepStruct(ctypes.Structure):
    _fields_ = [
        *(
            (name, c_int64)
            for name in ("n_tokens", "n_sampled", "n_blocks", "page_tokens", "kv_kind")
        ),
        *(
            (name, POINTER(c_int64))
            for name in (
                "ids",
                "positions",
                "slots",
                "table_start",
                "tables",
                "previous",
                "sampled",
                "blocks",
            )
        ),
        ("keys", POINTER(c_void_p)),
        ("values", POINTER(c_void_p)),
        ("embeddings", c_void_p),
        *((name, c_void_p) for name in SCRATCH),
        ("packed", c_void_p),
        ("packed_h", c_void_p),
        ("packed_scale", c_void_p),
        ("panels", c_void_p),
        ("scores", c_void_p),
        ("longest", c_int64),
        ("logits", c_void_p),
        ("logits_stride", c_int64),
    ]


class Team:
    """The C code's threads, made when first needed and again after a fork, which leaves them
    behind.
    """

    def __init__(self, loaded: ctypes.CDLL) -> None:
        self._library = loaded
        self._made_for = (0, 0)
        self._team = 0
        loaded.team_begin.argtypes, loaded.team_begin.restype = [ctypes.c_int], c_void_p
        loaded.team_end.argtypes, loaded.team_end.restype = [c_void_p], None

    def of(self, n_threads: int) -> int:
        """The address of a team of `n_threads`, or of one thread if the system gives no more."""
        wanted = (os.getpid(), n_threads)
        if wanted != self._made_for:
            self.end()
            self._team = self._library.team_begin(n_threads) or self._library.team_begin(1)
            self._made_for = wanted
        return self._team

    def end(self) -> None:
        if self._team and self._made_for[0] == os.getpid():
            self._library.team_end(self._team)
        self._team = 0

    def __del__(self) -> None:
        self.end()


def memory_bandwidth(n_bytes: int, repeats: int = 5) -> float | None:
    """Bytes a second that the decoder's threads read from memory at best, over `n_bytes`; None
    without the C code.
    """
    loaded = library()
    if loaded is None:
        return None
    loaded.read_memory.argtypes, loaded.read_memory.restype = [c_void_p, c_int64, c_void_p], c_int64
    memory, team = torch.ones(n_bytes // 8 + 8, dtype=torch.int64), Team(loaded)
    address, threads = -(-memory.data_ptr() // 64) * 64, team.of(torch.get_num_threads())
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        loaded.read_memory(address, n_bytes >> 20 << 20, threads)
        times.append(time.perf_counter() - start)
    return (n_bytes >> 20 << 20) / min(times)
