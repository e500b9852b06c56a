"""The model: a decoder-only transformer in two generations that load the public checkpoints.

`classic` (rotary, QK-norm, ReLU^2, untied head, softcapped logits) and `modern` on top of it:
sliding windows, value embeddings, learned residual mixing, smear and backout. Every extra is its
own field of `GPTConfig`'s generation switch, so a checkpoint's `model_config` alone rebuilds the
module.

Shape legend: B batch, T positions, D model width, H query heads, G key/value heads, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from nanochat.attention import Cache, attend, rotary_tables, rotate

LOGIT_CAP = 15.0
N_GATE_INPUTS = 12
N_SMEAR_INPUTS = 24
BlockCall = Callable[..., Tensor]


@dataclass(frozen=True)
class GPTConfig:
    """Shape of a model. Raises ValueError naming every field that does not fit."""

    sequence_len: int = 2048
    vocab_size: int = 65536
    n_layer: int = 20
    n_head: int = 10
    n_kv_head: int = 10
    n_embd: int = 1280
    window_pattern: str = "L"
    generation: Literal["classic", "modern"] = "modern"
    window_tokens: int | None = None  # of S layers; by default a quarter of the context

    def __post_init__(self) -> None:
        problems = [
            f"{name}={getattr(self, name)}: must be at least 1"
            for name in ("sequence_len", "vocab_size", "n_layer", "n_head", "n_kv_head", "n_embd")
            if getattr(self, name) < 1
        ]
        if not problems:
            if self.n_embd % self.n_head or self.head_dim % 2:
                problems.append(
                    f"n_embd={self.n_embd}: must be n_head={self.n_head} times an even head "
                    "dimension"
                )
            if self.n_head % self.n_kv_head:
                problems.append(f"n_kv_head={self.n_kv_head}: must divide n_head={self.n_head}")
        if not self.window_pattern or set(self.window_pattern.upper()) - set("SL"):
            problems.append(
                f"window_pattern={self.window_pattern!r}: use the letters S and L, e.g. SSSL"
            )
        if self.window_tokens is not None and self.window_tokens < 1:
            problems.append(f"window_tokens={self.window_tokens}: must be at least 1")
        if self.generation not in ("classic", "modern"):
            problems.append(f"generation={self.generation!r}: must be classic or modern")
        if self.generation == "modern" and self.n_embd < N_SMEAR_INPUTS:
            problems.append(
                f"n_embd={self.n_embd}: must be at least {N_SMEAR_INPUTS}; use a larger --head-dim"
            )
        if problems:
            raise ValueError("; ".join(problems))

    @property
    def head_dim(self) -> int:
        return self.n_embd // self.n_head

    @property
    def kv_dim(self) -> int:
        return self.n_kv_head * self.head_dim

    @property
    def padded_vocab_size(self) -> int:
        """Rows of the embedding and the head: the modern generation rounds up to 64 for the matrix
        units.
        """
        return -(-self.vocab_size // 64) * 64 if self.generation == "modern" else self.vocab_size

    def window(self, layer: int) -> int:
        """Tokens to the left that `layer` sees; -1 for all of them. The last layer always sees
        all."""
        pattern = self.window_pattern.upper()
        if layer == self.n_layer - 1 or pattern[layer % len(pattern)] == "L":
            return -1
        return self.window_tokens or -(-(self.sequence_len // 4) // 128) * 128

    def has_value_embedding(self, layer: int) -> bool:
        """Every second layer, counted so that the last one has it."""
        return self.generation == "modern" and layer % 2 == (self.n_layer - 1) % 2

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> GPTConfig:
        """Read a checkpoint's `model_config`. Public files name no generation: only the modern one
        has windows.
        """
        known = {name: value for name, value in values.items() if name in cls.__dataclass_fields__}
        known.setdefault("generation", "modern" if "window_pattern" in values else "classic")
        return cls(**known)


def rms_norm(x: Tensor) -> Tensor:
    return F.rms_norm(x, (x.size(-1),))


class Linear(nn.Linear):
    """No bias; the weight is kept in its own precision and follows the input's at the matrix
    product.
    """

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__(in_features, out_features, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight.to(x.dtype))


class CausalSelfAttention(nn.Module):
    def __init__(self, config: GPTConfig, layer: int) -> None:
        super().__init__()
        self.config, self.layer, self.window = config, layer, config.window(layer)
        self.c_q = Linear(config.n_embd, config.n_embd)
        self.c_k = Linear(config.n_embd, config.kv_dim)
        self.c_v = Linear(config.n_embd, config.kv_dim)
        self.c_proj = Linear(config.n_embd, config.n_embd)
        self.ve_gate = (
            Linear(N_GATE_INPUTS, config.n_kv_head) if config.has_value_embedding(layer) else None
        )

    def forward(
        self,
        x: Tensor,
        value_embedding: Tensor | None,
        rotary: tuple[Tensor, Tensor],
        cache: Cache | None,
    ) -> Tensor:
        config, (n_batch, n_tokens, _) = self.config, x.shape
        q = self.c_q(x).view(n_batch, n_tokens, config.n_head, config.head_dim)
        k = self.c_k(x).view(n_batch, n_tokens, config.n_kv_head, config.head_dim)
        v = self.c_v(x).view(n_batch, n_tokens, config.n_kv_head, config.head_dim)
        if self.ve_gate is not None:
            assert value_embedding is not None
            gate = 3 * torch.sigmoid(self.ve_gate(x[..., :N_GATE_INPUTS]))
            v = v + gate.unsqueeze(-1) * value_embedding.view_as(v)
        q, k = rms_norm(rotate(q, *rotary)), rms_norm(rotate(k, *rotary))
        if config.generation == "modern":
            q, k = q * 1.2, k * 1.2
        y = (
            attend(q, k, v, self.window)
            if cache is None
            else cache.attend(self.layer, q, k, v, self.window)
        )
        return self.c_proj(y.reshape(n_batch, n_tokens, config.n_embd))


class MLP(nn.Module):
    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.c_fc = Linear(config.n_embd, 4 * config.n_embd)
        self.c_proj = Linear(4 * config.n_embd, config.n_embd)

    def forward(self, x: Tensor) -> Tensor:
        return self.c_proj(F.relu(self.c_fc(x)).square())


class TransformerBlock(nn.Module):
    def __init__(self, config: GPTConfig, layer: int) -> None:
        super().__init__()
        self.attn = CausalSelfAttention(config, layer)
        self.mlp = MLP(config)

    def forward(
        self,
        x: Tensor,
        value_embedding: Tensor | None,
        rotary: tuple[Tensor, Tensor],
        cache: Cache | None,
    ) -> Tensor:
        x = x + self.attn(rms_norm(x), value_embedding, rotary, cache)
        return x + self.mlp(rms_norm(x))


class GPT(nn.Module):
    """Token ids (B, T) -> logits (B, T, V). Activations run in `compute_dtype`, weights keep their
    own precision.
    """

    compute_dtype: torch.dtype | None
    activation_checkpointing: (
        bool  # keep only what enters a block; the backward pass computes the rest again
    )
    lm_head: Linear
    value_embeds: nn.ModuleDict
    resid_lambdas: nn.Parameter
    x0_lambdas: nn.Parameter
    smear_gate: Linear
    smear_lambda: nn.Parameter
    backout_lambda: nn.Parameter

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.config = config
        self.compute_dtype, self.activation_checkpointing = None, False
        self.transformer = nn.ModuleDict(
            {
                "wte": nn.Embedding(config.padded_vocab_size, config.n_embd),
                "h": nn.ModuleList(
                    TransformerBlock(config, layer) for layer in range(config.n_layer)
                ),
            }
        )
        self.lm_head = Linear(config.n_embd, config.padded_vocab_size)
        if config.generation == "modern":
            layers = [layer for layer in range(config.n_layer) if config.has_value_embedding(layer)]
            tables = {
                str(layer): nn.Embedding(config.padded_vocab_size, config.kv_dim)
                for layer in layers
            }
            self.value_embeds = nn.ModuleDict(tables)
            self.resid_lambdas = nn.Parameter(torch.ones(config.n_layer))
            self.x0_lambdas = nn.Parameter(torch.zeros(config.n_layer))
            self.smear_gate = Linear(N_SMEAR_INPUTS, 1)
            self.smear_lambda = nn.Parameter(torch.zeros(1))
            self.backout_lambda = nn.Parameter(torch.zeros(1))
        self._rotary: tuple[Tensor, Tensor] | None = None

    @property
    def wte(self) -> nn.Embedding:
        return cast(nn.Embedding, self.transformer["wte"])

    @property
    def blocks(self) -> list[TransformerBlock]:
        return list(cast(nn.ModuleList, self.transformer["h"]))  # type: ignore[arg-type]

    def value_embedding(self, layer: int) -> nn.Embedding:
        """The table of a layer that has one (`GPTConfig.has_value_embedding`)."""
        return cast(nn.Embedding, self.value_embeds[str(layer)])

    def get_device(self) -> torch.device:
        return self.lm_head.weight.device

    @torch.no_grad()
    def init_weights(self, seed: int = 42) -> None:
        """Fresh weights, a function of the seed alone (facts per generation: embedding scale,
        zeroed projections).
        """
        device = self.get_device()
        generator = torch.Generator(device=device).manual_seed(seed)
        modern, width = self.config.generation == "modern", self.config.n_embd
        uniform_bound = 3**0.5 * width**-0.5  # a uniform with standard deviation 1/sqrt(width)

        self.wte.weight.normal_(0.0, 0.8 if modern else 1.0, generator=generator)
        self.lm_head.weight.normal_(
            0.0, 0.001, generator=generator
        ) if modern else self.lm_head.weight.zero_()
        for block in self.blocks:
            for linear in (block.attn.c_q, block.attn.c_k, block.attn.c_v, block.mlp.c_fc):
                if modern:
                    bound = uniform_bound * (0.4 if linear is block.mlp.c_fc else 1.0)
                    linear.weight.uniform_(-bound, bound, generator=generator)
                else:
                    fan_out, fan_in = linear.weight.shape
                    linear.weight.normal_(
                        0.0, min(1.0, (fan_out / fan_in) ** 0.5) / fan_in**0.5, generator=generator
                    )
            block.attn.c_proj.weight.zero_()
            block.mlp.c_proj.weight.zero_()
            if block.attn.ve_gate is not None:
                block.attn.ve_gate.weight.uniform_(0.0, 0.02, generator=generator)
        if modern:
            depth = torch.linspace(0, 1, self.config.n_layer, device=device)
            for layer in map(int, self.value_embeds):
                self.value_embedding(layer).weight.uniform_(
                    -uniform_bound, uniform_bound, generator=generator
                )
            self.resid_lambdas.copy_(1.15 + (1.05 - 1.15) * depth)
            self.x0_lambdas.copy_(0.20 + (0.05 - 0.20) * depth)
            self.smear_gate.weight.uniform_(0.0, 0.02, generator=generator)
            self.smear_lambda.zero_()
            self.backout_lambda.fill_(0.2)

    def rotary(self, positions: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Tables for `positions` (1 or B, T) -> cos, sin (1 or B, T, 1, D/2)."""
        if self._rotary is None or self._rotary[0].device != positions.device:
            config, exact = self.config, self.config.generation == "modern"
            base, n_positions = (100_000 if exact else 10_000), 10 * config.sequence_len
            self._rotary = rotary_tables(
                base, config.head_dim, n_positions, positions.device, exact
            )
        cos, sin = self._rotary
        return cos[positions].unsqueeze(2).to(dtype), sin[positions].unsqueeze(2).to(dtype)

    def hidden(
        self,
        input_ids: Tensor,
        cache: Cache | None = None,
        run: BlockCall = TransformerBlock.__call__,
    ) -> Tensor:
        """Token ids (B, T) -> final normalised activations (B, T, D). With a cache the ids continue
        its sequences.

        `run` calls a block with its arguments: the place where training puts a compiled call.
        """
        config, modern = self.config, self.config.generation == "modern"
        dtype, n_tokens = self.compute_dtype or self.wte.weight.dtype, input_ids.size(1)
        new = torch.arange(n_tokens, device=input_ids.device)[None]
        rotary = self.rotary(new if cache is None else cache.positions(n_tokens), dtype)
        x = rms_norm(F.embedding(input_ids, self.wte.weight).to(dtype))
        if modern:
            x = self._smear(x, cache)
        x0, middle = x, None
        for layer, block in enumerate(self.blocks):
            value_embedding = None
            if modern:
                x = self.resid_lambdas[layer].to(dtype) * x + self.x0_lambdas[layer].to(dtype) * x0
                if config.has_value_embedding(layer):
                    value_embedding = self.value_embedding(layer)(input_ids).to(dtype)
            if self.activation_checkpointing and cache is None and torch.is_grad_enabled():
                x = checkpoint(run, block, x, value_embedding, rotary, None, use_reentrant=False)
            else:
                x = run(block, x, value_embedding, rotary, cache)
            if modern and layer == config.n_layer // 2:
                middle = x
        if middle is not None:
            x = x - self.backout_lambda.to(dtype) * middle
        if cache is not None:
            cache.advance(n_tokens)
        return rms_norm(x)

    def _smear(self, x: Tensor, cache: Cache | None) -> Tensor:
        """Mix a gated share of the previous token's embedding into each token: bigrams before the
        first layer.
        """
        previous = F.pad(x, (0, 0, 1, 0))[:, :-1] if cache is None else cache.previous(x)
        gate = self.smear_lambda.to(x.dtype) * torch.sigmoid(
            self.smear_gate(x[..., :N_SMEAR_INPUTS])
        )
        return x + gate * previous

    def head(self, hidden: Tensor) -> Tensor:
        """Activations (..., D) -> softcapped fp32 logits (..., V)."""
        logits = self.lm_head(hidden)[..., : self.config.vocab_size].float()
        return LOGIT_CAP * torch.tanh(logits / LOGIT_CAP)

    def forward(self, input_ids: Tensor, cache: Cache | None = None) -> Tensor:
        """Token ids (B, T) -> softcapped fp32 logits (B, T, V)."""
        return self.head(self.hidden(input_ids, cache))
