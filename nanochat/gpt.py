"""The model: a decoder-only transformer that loads the public checkpoints of every variant.

Rotary positions, QK-norm, ReLU^2, an untied head and softcapped logits; on top of them whatever
extras `GPTConfig` names.

Shape legend: B batch, T positions, D model width, H query heads, G key/value heads, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.checkpoint import checkpoint

from nanochat.attention import Cache, attend, rotary_tables, rotate
from nanochat.gpt_config import SMEAR_CHANNELS, GPTConfig

BlockCall = Callable[..., Tensor]


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
        self.config = config
        self.layer = layer
        self.window = config.window(layer)
        self.c_q = Linear(config.n_embd, config.n_embd)
        self.c_k = Linear(config.n_embd, config.kv_dim)
        self.c_v = Linear(config.n_embd, config.kv_dim)
        self.c_proj = Linear(config.n_embd, config.n_embd)
        self.ve_gate = (
            Linear(config.value_gate_channels, config.n_kv_head)
            if config.has_value_embedding(layer)
            else None
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
            gate = self.ve_gate(x[..., : config.value_gate_channels])
            gate = config.value_gate_scale * torch.sigmoid(gate)
            v = v + gate.unsqueeze(-1) * value_embedding.view_as(v)
        q, k = rms_norm(rotate(q, *rotary)), rms_norm(rotate(k, *rotary))
        if config.qk_scale != 1:
            q, k = q * config.qk_scale, k * config.qk_scale
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
    # Keep only what enters a block; the backward pass computes the rest again.
    activation_checkpointing: bool
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
        self.compute_dtype = None
        self.activation_checkpointing = False
        self.transformer = nn.ModuleDict(
            {
                "wte": nn.Embedding(config.padded_vocab_size, config.n_embd),
                "h": nn.ModuleList(
                    TransformerBlock(config, layer) for layer in range(config.n_layer)
                ),
            }
        )
        self.lm_head = Linear(config.n_embd, config.padded_vocab_size)
        if config.value_embeddings:
            layers = [layer for layer in range(config.n_layer) if config.has_value_embedding(layer)]
            tables = {
                str(layer): nn.Embedding(config.padded_vocab_size, config.kv_dim)
                for layer in layers
            }
            self.value_embeds = nn.ModuleDict(tables)
        if config.residual_mixing:
            self.resid_lambdas = nn.Parameter(torch.ones(config.n_layer))
            self.x0_lambdas = nn.Parameter(torch.zeros(config.n_layer))
        if config.smear:
            self.smear_gate = Linear(SMEAR_CHANNELS, 1)
            self.smear_lambda = nn.Parameter(torch.zeros(1))
        if config.backout:
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

    def value_tables(self) -> list[nn.Embedding]:
        """The tables of values of the layers that have one, first layer first."""
        if not self.config.value_embeddings:
            return []
        return [cast(nn.Embedding, table) for table in self.value_embeds.values()]

    def get_device(self) -> torch.device:
        return self.lm_head.weight.device

    @torch.no_grad()
    def init_weights(self, seed: int = 42) -> None:
        """Fresh weights, a function of the seed alone. Whatever writes to the residual stream
        starts at zero.
        """
        config, device = self.config, self.get_device()
        generator = torch.Generator(device=device).manual_seed(seed)
        bound = 3**0.5 * config.n_embd**-0.5  # of a uniform with standard deviation 1/sqrt(D)
        self.wte.weight.normal_(0.0, config.embedding_init_std, generator=generator)
        if config.head_init_std:
            self.lm_head.weight.normal_(0.0, config.head_init_std, generator=generator)
        else:
            self.lm_head.weight.zero_()
        for block in self.blocks:
            for linear in (block.attn.c_q, block.attn.c_k, block.attn.c_v, block.mlp.c_fc):
                if config.matrix_init == "uniform":
                    most = bound * (0.4 if linear is block.mlp.c_fc else 1.0)
                    linear.weight.uniform_(-most, most, generator=generator)
                else:
                    fan_out, fan_in = linear.weight.shape
                    std = min(1.0, (fan_out / fan_in) ** 0.5) / fan_in**0.5
                    linear.weight.normal_(0.0, std, generator=generator)
            block.attn.c_proj.weight.zero_()
            block.mlp.c_proj.weight.zero_()
            if block.attn.ve_gate is not None:
                block.attn.ve_gate.weight.uniform_(0.0, 0.02, generator=generator)
        for table in self.value_tables():
            table.weight.uniform_(-bound, bound, generator=generator)
        if config.residual_mixing:
            depth = torch.linspace(0, 1, config.n_layer, device=device)
            self.resid_lambdas.copy_(1.15 + (1.05 - 1.15) * depth)
            self.x0_lambdas.copy_(0.20 + (0.05 - 0.20) * depth)
        if config.smear:
            self.smear_gate.weight.uniform_(0.0, 0.02, generator=generator)
            self.smear_lambda.zero_()
        if config.backout:
            self.backout_lambda.fill_(0.2)

    def make_rotary(self) -> tuple[Tensor, Tensor]:
        """The tables cos, sin (positions, D/2), made once for the device the model is on.

        Whoever compiles the forward pass calls it before: made inside, the tables would be made
        twice, and the compiler would drop their rounding to bf16.
        """
        device = self.get_device()
        if self._rotary is None or self._rotary[0].device != device:
            config = self.config
            self._rotary = rotary_tables(
                config.rope_base,
                config.head_dim,
                n_positions=10 * config.sequence_len,
                device=device,
                exact=not config.rope_bf16,
            )
        return self._rotary

    def rotary(self, positions: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Tables for `positions` (1 or B, T) -> cos, sin (1 or B, T, 1, D/2)."""
        cos, sin = self.make_rotary()
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
        config, n_tokens = self.config, input_ids.size(1)
        dtype = self.compute_dtype or self.wte.weight.dtype
        new = torch.arange(n_tokens, device=input_ids.device)[None]
        rotary = self.rotary(new if cache is None else cache.positions(n_tokens), dtype)
        x = rms_norm(F.embedding(input_ids, self.wte.weight).to(dtype))
        if config.smear:
            x = self._smear(x, cache)
        x0, middle = x, None
        for layer, block in enumerate(self.blocks):
            value_embedding = None
            if config.residual_mixing:
                x = self.resid_lambdas[layer].to(dtype) * x + self.x0_lambdas[layer].to(dtype) * x0
            if config.has_value_embedding(layer):
                value_embedding = self.value_embedding(layer)(input_ids).to(dtype)
            if self.activation_checkpointing and cache is None and torch.is_grad_enabled():
                x = checkpoint(run, block, x, value_embedding, rotary, None, use_reentrant=False)
            else:
                x = run(block, x, value_embedding, rotary, cache)
            if config.backout and layer == config.n_layer // 2:
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
            self.smear_gate(x[..., :SMEAR_CHANNELS])
        )
        return x + gate * previous

    def head(self, hidden: Tensor) -> Tensor:
        """Activations (..., D) -> softcapped fp32 logits (..., V)."""
        logits = self.lm_head(hidden)[..., : self.config.vocab_size].float()
        cap = self.config.logit_softcap
        return cap * torch.tanh(logits / cap)

    def forward(self, input_ids: Tensor, cache: Cache | None = None) -> Tensor:
        """Token ids (B, T) -> softcapped fp32 logits (B, T, V)."""
        return self.head(self.hidden(input_ids, cache))


class _WithoutInit(TorchFunctionMode):
    """Leaves out what fills fresh parameters. On tensors without storage it would do nothing, and
    takes a second: PyTorch loads its compiler for it.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if getattr(func, "__module__", None) == "torch.nn.init":
            return args[0] if args else (kwargs or {})["tensor"]
        return func(*args, **(kwargs or {}))


def model_without_storage(config: GPTConfig) -> GPT:
    """A model whose tensors are still to come, by `load_state_dict(..., assign=True)`."""
    with torch.device("meta"), _WithoutInit():
        return GPT(config)
