"""A model's decoding steps through the C code beside this file, reading the model's own weights in place."""

from __future__ import annotations

import ctypes
import os
from ctypes import POINTER, c_float, c_int64, c_void_p
from typing import Any

import torch
from torch import Tensor, nn

from nanochat.engine.kv_cache import KVCache
from nanochat.engine.native.build import library
from nanochat.engine.quantize import Int8Linear
from nanochat.engine.scheduler import Row
from nanochat.gpt import GPT, LOGIT_CAP, Linear

MAX_TOKENS = 256  # of one step
# Prompts are read here only while attention over them is little work (queries times keys): torch's is faster, but has
# a cost for each operation. Measured on d12, one core, bf16: 64 tokens 33 ms here, 49 in torch; 512 tokens 289 and 170.
MAX_SCORES, MAX_SCORES_ON_TILES = 2_048, 16_384
LANES = 16
KINDS = {torch.float32: 0, torch.bfloat16: 1, torch.int8: 2}


class Matrix(ctypes.Structure):
    _fields_ = [
        *((name, c_void_p) for name in ("data", "scale", "sums")),
        *((name, c_int64) for name in ("rows", "columns", "kind")),
    ]


class Layer(ctypes.Structure):
    _fields_ = [
        *((name, Matrix) for name in ("q", "k", "v", "proj", "fc", "out", "value_embedding", "value_gate")),
        ("window", c_int64),
        ("residual", c_float),
        ("first", c_float),
    ]


class Model(ctypes.Structure):
    _fields_ = [
        *((name, c_int64) for name in ("n_layer", "n_head", "n_kv_head", "head_dim", "width", "modern")),
        ("layers", POINTER(Layer)),
        *((name, Matrix) for name in ("embedding", "head", "smear_gate")),
        ("cos", c_void_p),
        ("sin", c_void_p),
        *((name, c_float) for name in ("smear", "backout", "qk_scale", "logit_cap")),
    ]


SCRATCH = ("x", "x0", "middle", "h", "q", "k", "v", "y", "hidden")


class Step(ctypes.Structure):
    _fields_ = [
        *((name, c_int64) for name in ("n_tokens", "n_sampled", "page_tokens", "kv_kind")),
        *(
            (name, POINTER(c_int64))
            for name in ("ids", "positions", "slots", "table_start", "tables", "previous", "sampled")
        ),
        ("keys", POINTER(c_void_p)),
        ("values", POINTER(c_void_p)),
        ("embeddings", c_void_p),
        *((name, c_void_p) for name in SCRATCH),
        ("packed", c_void_p),
        ("packed_scale", c_void_p),
        ("scores", c_void_p),
        ("longest", c_int64),
        ("logits", c_void_p),
        ("logits_stride", c_int64),
    ]


class Team:
    """The C code's threads, made when first needed and again after a fork, which leaves them behind."""

    def __init__(self, loaded: ctypes.CDLL) -> None:
        self._library, self._made_for, self._team = loaded, (0, 0), 0
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


def unsupported(model: GPT) -> str | None:
    """Why the C code cannot stand in for this model, or None when it can."""
    config = model.config
    if model.get_device().type != "cpu":
        return "the model is not on a CPU"
    if type(model) is not GPT:
        return f"it is a {type(model).__name__}, and the C code knows GPT alone"
    if config.n_embd % 64 or config.head_dim % LANES:
        return "its width is no multiple of 64 or its head dimension none of 16"
    for name, module in model.named_modules():
        if module._forward_hooks or module._forward_pre_hooks:
            return f"{name} has hooks"
        if isinstance(module, nn.Linear) and type(module) is not Linear:
            return f"{name} is a {type(module).__name__}"
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if tensor.dtype not in KINDS or not tensor.is_contiguous():
            return f"{name} is {tensor.dtype}"
    kinds = {m.weight_int8.dtype if isinstance(m, Int8Linear) else m.weight.dtype for m in matrices(model)}
    if len(kinds) > 1:
        return f"its matrices are of several kinds: {', '.join(sorted(map(str, kinds)))}"
    return None if library() is not None else "no C compiler"


def matrices(model: GPT) -> list[Any]:
    """The modules that hold the layers' and the head's weight matrices."""
    blocks: Any = model.transformer.h
    inner = [m for b in blocks for m in (b.attn.c_q, b.attn.c_k, b.attn.c_v, b.attn.c_proj, b.mlp.c_fc, b.mlp.c_proj)]
    return [*inner, model.lm_head]


class NativeDecoder:
    """Stands in for `model.hidden` and `model.head` on steps that it `takes`.

    Only for what `unsupported` has no objection to. The weights it points into are kept alive, and so are those that
    the model has since exchanged for others: after any change of weights make a new one.
    """

    def __init__(self, model: GPT) -> None:
        self.model = model
        loaded = library()
        assert loaded is not None
        self._library, self._team = loaded, Team(loaded)
        loaded.forward.argtypes, loaded.forward.restype = [POINTER(Model), POINTER(Step), c_void_p], None
        self._kept: list[Any] = []
        self._struct = self._describe()
        self._max_scores = MAX_SCORES_ON_TILES if loaded.has_tiles(self._struct.head.kind) else MAX_SCORES
        self._scratch = self._make_scratch()
        self._scores = torch.empty(0)
        self._packed = torch.zeros(MAX_TOKENS, 8 * model.config.n_embd, dtype=torch.uint8)
        self._packed_scale = torch.empty(MAX_TOKENS)

    def _matrix(self, tensor: Tensor | None, scale: Tensor | None = None) -> Matrix:
        if tensor is None:
            return Matrix()
        sums = None if scale is None else tensor.sum(dim=1, dtype=torch.int32)
        kept = [None if t is None else t.detach() for t in (tensor, scale, sums)]
        self._kept.append(kept)
        return Matrix(*[None if t is None else t.data_ptr() for t in kept], *tensor.shape, KINDS[tensor.dtype])

    def _weights(self, module: Any) -> Matrix:
        if isinstance(module, Int8Linear):
            return self._matrix(module.weight_int8, module.scale)
        return self._matrix(module.weight)

    def _describe(self) -> Model:
        """The model's shapes and the addresses of its weights."""
        model: Any = self.model
        config, modern = model.config, model.config.generation == "modern"
        layers = (Layer * config.n_layer)()
        for number, block in enumerate(model.transformer.h):
            attn, layer = block.attn, layers[number]
            layer.q, layer.k, layer.v = self._weights(attn.c_q), self._weights(attn.c_k), self._weights(attn.c_v)
            layer.proj, layer.fc, layer.out = map(self._weights, (attn.c_proj, block.mlp.c_fc, block.mlp.c_proj))
            layer.window, layer.residual, layer.first = config.window(number), 1.0, 0.0
            if modern:
                layer.residual, layer.first = model.resid_lambdas[number].item(), model.x0_lambdas[number].item()
            if attn.ve_gate is not None:
                layer.value_embedding = self._matrix(model.value_embeds[str(number)].weight)
                layer.value_gate = self._matrix(attn.ve_gate.weight)
        model.rotary(torch.zeros(1, 1, dtype=torch.long), torch.float32)  # makes the tables
        cos, sin = model._rotary
        self._kept += [layers, cos, sin]
        return Model(
            config.n_layer, config.n_head, config.n_kv_head, config.head_dim, config.n_embd, int(modern), layers,
            self._matrix(model.transformer.wte.weight), self._weights(model.lm_head),
            self._matrix(model.smear_gate.weight if modern else None), cos.data_ptr(), sin.data_ptr(),
            model.smear_lambda.item() if modern else 0.0, model.backout_lambda.item() if modern else 0.0,
            1.2 if modern else 1.0, LOGIT_CAP,
        )  # fmt: skip

    def takes(self, rows: list[Row]) -> bool:
        """Whether a step is better done here than by the model itself."""
        reading = sum(row.n_tokens * row.stop for row in rows if row.n_tokens > 1)
        return sum(row.n_tokens for row in rows) <= MAX_TOKENS and reading <= self._max_scores

    def _make_scratch(self) -> dict[str, Tensor]:
        config = self.model.config
        width = dict.fromkeys(SCRATCH, config.n_embd) | {"k": config.kv_dim, "v": config.kv_dim, "y": 4 * config.n_embd}
        return {name: torch.empty(MAX_TOKENS, width[name]) for name in SCRATCH}

    def run(self, rows: list[Row], cache: KVCache) -> Tensor:
        """Logits (S, V) fp32 of the rows that sample; keys and values of all tokens go into the cache."""
        size, step, sequences = cache.page_tokens, Step(), [row.sequence for row in rows]
        ids: list[int] = []
        positions: list[int] = []
        tables: list[int] = []
        slots, table_start, previous, sampled = [], [], [], []
        for row, sequence in zip(rows, sequences, strict=True):
            pages = sequence.pages
            ids += sequence.tokens[row.start : row.stop]
            for position in range(row.start, row.stop):
                stored = position >= row.store_from
                slots.append(pages[position // size] * size + position % size if stored else 0)
                before = position - 1
                previous.append(
                    -2 if position > row.start else -1 if not position else pages[before // size] * size + before % size
                )
                table_start.append(len(tables))
            positions += range(row.start, row.stop)
            tables += pages
            if row.samples:
                sampled.append(len(ids) - 1)
        arrays = {"ids": ids, "positions": positions, "slots": slots, "table_start": table_start, "tables": tables,
                  "previous": previous, "sampled": sampled}  # fmt: skip
        for name, values in arrays.items():
            setattr(step, name, (c_int64 * len(values))(*values))
        step.n_tokens, step.n_sampled, step.page_tokens = len(ids), len(sampled), size
        step.kv_kind = KINDS[cache.keys[0].dtype]
        step.keys = (c_void_p * len(cache.keys))(*[t.data_ptr() for t in cache.keys])
        step.values = (c_void_p * len(cache.values))(*[t.data_ptr() for t in cache.values])
        step.embeddings = None if cache.embeddings is None else cache.embeddings.data_ptr()
        for name, tensor in self._scratch.items():
            setattr(step, name, tensor.data_ptr())
        step.longest = -(-(max(positions) + 1) // LANES) * LANES
        n_scores = torch.get_num_threads() * self.model.config.n_head * step.longest
        if self._scores.numel() < n_scores:
            self._scores = torch.empty(2 * n_scores)
        step.scores = self._scores.data_ptr()
        step.packed = self._packed.data_ptr()
        step.packed_scale = self._packed_scale.data_ptr()
        step.logits_stride = -(-self._struct.head.rows // LANES) * LANES
        logits = torch.zeros(len(sampled), step.logits_stride)
        step.logits = logits.data_ptr()
        self._library.forward(self._struct, step, self._team.of(torch.get_num_threads()))
        return logits[:, : self.model.config.vocab_size]
