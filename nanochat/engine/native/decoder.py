"""A model's decoding steps through the C code beside this file, reading the model's own weights in
place.
"""

from __future__ import annotations

from ctypes import POINTER, c_int64, c_void_p
from typing import Any

import torch
from torch import Tensor, nn

from nanochat.engine.kv_cache import KVCache
from nanochat.engine.native.build import library
from nanochat.engine.native.structs import KINDS, SCRATCH, Layer, Matrix, Model, StepStruct, Team
from nanochat.engine.quantize import Int8Linear
from nanochat.engine.scheduler import ScheduledRow
from nanochat.gpt import GPT, Linear
from nanochat.gpt_config import SMEAR_CHANNELS

# Without matrix units, prompts are read here only while they and attention over them (queries times
# keys) are little work: torch's products are faster then, though each of its operations costs. With
# them everything is read here, faster (d12 bf16, one core: 64 tokens 32 ms here, 56 in torch; 512
# tokens 127 and 164) and to the same bits however a prompt is cut.
MAX_TOKENS, MAX_SCORES = 256, 2_048
LANES = 16
CACHE_KINDS = (torch.float32, torch.bfloat16)
BLOCK_QUERIES, MAX_QUERIES = 8, 64  # that attention handles together: usually, and at most
PANEL_ROWS = 128  # of a weight matrix that a thread packs at a time (panels.h)


def unsupported(model: GPT) -> str | None:
    """Why the C code cannot stand in for this model, or None when it can."""
    config = model.config
    if model.get_device().type != "cpu":
        return "the model is not on a CPU"
    if type(model) is not GPT:
        return f"it is a {type(model).__name__}, and the C code knows GPT alone"
    if config.n_embd % 64:
        return f"its width is {config.n_embd}, no multiple of 64"
    if config.head_dim % LANES:
        return f"its head dimension is {config.head_dim}, no multiple of {LANES}"
    sharing = config.n_head // config.n_kv_head
    if sharing > MAX_QUERIES:
        return f"{sharing} query heads share a key head, more than {MAX_QUERIES}"
    dtype = model.compute_dtype or model.wte.weight.dtype
    if dtype not in CACHE_KINDS:
        return f"it computes in {dtype}, and the cache is fp32 or bf16 here"
    for name, module in model.named_modules():
        if module._forward_hooks or module._forward_pre_hooks:
            return f"{name} has hooks"
        if isinstance(module, nn.Linear) and type(module) is not Linear:
            return f"{name} is a {type(module).__name__}"
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if tensor.dtype not in KINDS or not tensor.is_contiguous():
            return f"{name} is {tensor.dtype}"
    kinds = {
        m.weight_int8.dtype if isinstance(m, Int8Linear) else m.weight.dtype
        for m in matrices(model)
    }
    if len(kinds) > 1:
        return f"its matrices are of several kinds: {', '.join(sorted(map(str, kinds)))}"
    return None if library() is not None else "no C compiler"


def matrices(model: GPT) -> list[Any]:
    """The modules that hold the layers' and the head's weight matrices."""
    blocks: Any = model.transformer.h
    inner = [
        m
        for b in blocks
        for m in (b.attn.c_q, b.attn.c_k, b.attn.c_v, b.attn.c_proj, b.mlp.c_fc, b.mlp.c_proj)
    ]
    return [*inner, model.lm_head]


class NativeDecoder:
    """Stands in for `model.hidden` and `model.head` on steps that it `takes`.

    Only for what `unsupported` has no objection to. The weights it points into are kept alive, and
    so are those that the model has since exchanged for others: after any change of weights make a
    new one.
    """

    def __init__(self, model: GPT) -> None:
        self.model = model
        loaded = library()
        assert loaded is not None
        self._library, self._team = loaded, Team(loaded)
        loaded.forward.argtypes, loaded.forward.restype = (
            [POINTER(Model), POINTER(StepStruct), c_void_p],
            None,
        )
        self._kept: list[Any] = []
        self._struct = self._describe()
        self.has_tiles = bool(loaded.has_tiles(self._struct.head.kind))
        self._block_tokens = max(1, BLOCK_QUERIES * model.config.n_kv_head // model.config.n_head)
        self._scratch = dict.fromkeys(("x", "scores", "panels"), torch.empty(0))

    def _matrix(self, tensor: Tensor | None, scale: Tensor | None = None) -> Matrix:
        if tensor is None:
            return Matrix()
        sums = None if scale is None else tensor.sum(dim=1, dtype=torch.int32)
        kept = [None if t is None else t.detach() for t in (tensor, scale, sums)]
        self._kept.append(kept)
        return Matrix(
            *[None if t is None else t.data_ptr() for t in kept], *tensor.shape, KINDS[tensor.dtype]
        )

    def _weights(self, module: Any) -> Matrix:
        if isinstance(module, Int8Linear):
            return self._matrix(module.weight_int8, module.scale)
        return self._matrix(module.weight)

    def _describe(self) -> Model:
        """The model's shapes and the addresses of its weights."""
        model: Any = self.model
        config = model.config
        layers = (Layer * config.n_layer)()
        for number, block in enumerate(model.transformer.h):
            attn, layer = block.attn, layers[number]
            layer.q = self._weights(attn.c_q)
            layer.k = self._weights(attn.c_k)
            layer.v = self._weights(attn.c_v)
            layer.proj = self._weights(attn.c_proj)
            layer.fc = self._weights(block.mlp.c_fc)
            layer.out = self._weights(block.mlp.c_proj)
            layer.window = config.window(number)
            layer.residual = 1.0
            layer.first = 0.0
            if config.residual_mixing:
                layer.residual, layer.first = (
                    model.resid_lambdas[number].item(),
                    model.x0_lambdas[number].item(),
                )
            if attn.ve_gate is not None:
                layer.value_embedding = self._matrix(model.value_embeds[str(number)].weight)
                layer.value_gate = self._matrix(attn.ve_gate.weight)
        cos, sin = model.make_rotary()
        self._kept += [layers, cos, sin]
        return Model(
            n_layer=config.n_layer,
            n_head=config.n_head,
            n_kv_head=config.n_kv_head,
            head_dim=config.head_dim,
            width=config.n_embd,
            gate_channels=config.value_gate_channels,
            smear_channels=SMEAR_CHANNELS if config.smear else 0,
            mixes=config.residual_mixing,
            layers=layers,
            embedding=self._matrix(model.transformer.wte.weight),
            head=self._weights(model.lm_head),
            smear_gate=self._matrix(model.smear_gate.weight if config.smear else None),
            cos=cos.data_ptr(),
            sin=sin.data_ptr(),
            smear=model.smear_lambda.item() if config.smear else 0.0,
            backout=model.backout_lambda.item() if config.backout else 0.0,
            gate_scale=config.value_gate_scale,
            qk_scale=config.qk_scale,
            logit_cap=config.logit_softcap,
        )

    def takes(self, rows: list[ScheduledRow]) -> bool:
        """Whether a step is better done here than by the model itself."""
        reading = sum(row.n_tokens * row.stop for row in rows if row.n_tokens > 1)
        few = sum(row.n_tokens for row in rows) <= MAX_TOKENS and reading <= MAX_SCORES
        return self.has_tiles or few

    def run(self, rows: list[ScheduledRow], cache: KVCache) -> Tensor:
        """Logits (S, V) fp32 of the rows that sample; keys and values of all tokens go into the
        cache.
        """
        step = StepStruct()
        self._place_tokens(step, rows, cache.page_tokens)
        self._place_cache(step, cache)
        self._place_scratch(step, max(row.stop for row in rows))
        step.logits_stride = -(-self._struct.head.rows // LANES) * LANES
        logits = torch.empty(step.n_sampled, step.logits_stride)
        step.logits = logits.data_ptr()
        self._library.forward(self._struct, step, self._team.of(torch.get_num_threads()))
        return logits[:, : self.model.config.vocab_size]

    def _place_tokens(self, step: StepStruct, rows: list[ScheduledRow], size: int) -> None:
        """The tokens of the step and where each one's keys, values and predecessor are."""
        ids: list[int] = []
        positions: list[int] = []
        tables: list[int] = []
        slots: list[int] = []
        table_start, previous, sampled, blocks = [], [], [], []
        for row in rows:
            pages, first = row.sequence.pages, len(ids)
            ids += row.sequence.tokens[row.start : row.stop]
            positions += range(row.start, row.stop)
            stored = [
                pages[p // size] * size + p % size for p in range(max(row.start - 1, 0), row.stop)
            ]
            previous.append(stored[0] if row.start else -1)
            previous += [-2] * (row.n_tokens - 1)
            slots += [
                slot if position >= row.store_from else 0
                for position, slot in zip(
                    range(row.start, row.stop), stored[-row.n_tokens :], strict=True
                )
            ]
            table_start += [len(tables)] * row.n_tokens
            tables += pages
            for at in range(first, len(ids), self._block_tokens):
                blocks += [at, min(self._block_tokens, len(ids) - at)]
            if row.samples:
                sampled.append(len(ids) - 1)
        step.n_tokens = len(ids)
        step.n_sampled = len(sampled)
        step.n_blocks = len(blocks) // 2
        arrays = {
            "ids": ids,
            "positions": positions,
            "slots": slots,
            "table_start": table_start,
            "tables": tables,
            "previous": previous,
            "sampled": sampled,
            "blocks": blocks,
        }
        for name, values in arrays.items():
            setattr(step, name, (c_int64 * len(values))(*values))

    def _place_cache(self, step: StepStruct, cache: KVCache) -> None:
        step.page_tokens, step.kv_kind = cache.page_tokens, KINDS[cache.keys[0].dtype]
        step.keys = (c_void_p * len(cache.keys))(*[t.data_ptr() for t in cache.keys])
        step.values = (c_void_p * len(cache.values))(*[t.data_ptr() for t in cache.values])
        step.embeddings = None if cache.embeddings is None else cache.embeddings.data_ptr()

    def _place_scratch(self, step: StepStruct, longest: int) -> None:
        """Room to work in, for as many tokens as the step has and scores of `longest` positions."""
        config, n_tokens = self.model.config, -(-step.n_tokens // 32) * 32
        if self._scratch["x"].size(0) < n_tokens:
            width = dict.fromkeys(SCRATCH, config.n_embd) | {
                "y": 4 * config.n_embd,
                "packed_scale": 1,
            }
            self._scratch.update(
                (name, torch.empty(n_tokens, columns)) for name, columns in width.items()
            )
            for name, factor in (("packed", 8), ("packed_h", 2)):
                self._scratch[name] = torch.zeros(
                    n_tokens, factor * config.n_embd, dtype=torch.uint8
                )
        step.longest = -(-(longest + step.page_tokens) // LANES) * LANES
        n_scores = torch.get_num_threads() * MAX_QUERIES * step.longest
        if self._scratch["scores"].numel() < n_scores:
            self._scratch["scores"] = torch.empty(2 * n_scores)
        n_bytes = torch.get_num_threads() * PANEL_ROWS * 8 * config.n_embd if self.has_tiles else 0
        if self._scratch["panels"].numel() < n_bytes:
            self._scratch["panels"] = torch.empty(n_bytes, dtype=torch.uint8)
        for name, tensor in self._scratch.items():
            setattr(step, name, tensor.data_ptr())
