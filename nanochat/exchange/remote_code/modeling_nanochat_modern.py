"""NanoChat models with extras (windows, value embeddings, residual mixing, smear, backout) for
Hugging Face transformers 5.

This file stands beside the weights and is all that is needed to run them. `config.json` says which
extras a model has.

Shape legend: B batch, T positions, D model width, H query heads, G key/value heads.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import DynamicCache, GenerationMixin, PreTrainedConfig, PreTrainedModel
from transformers.masking_utils import create_causal_mask, create_sliding_window_causal_mask
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

SMEAR_CHANNELS = 24  # of an embedding that the smear gate reads


DEFAULTS: dict[str, Any] = {
    "vocab_size": 32768,
    "padded_vocab_size": None,  # rows of the tables
    "hidden_size": 1280,
    "num_hidden_layers": 20,
    "num_attention_heads": 10,
    "num_key_value_heads": 10,
    "max_position_embeddings": 2048,
    "layer_types": None,
    "sliding_window": None,  # as the library counts it: the token itself is one of them
    "value_embedding_layers": (),
    "value_gate_channels": 12,
    "value_gate_scale": 3.0,
    "residual_mixing": False,
    "smear": False,
    "backout": False,
    "qk_scale": 1.0,
    "rope_theta": 10_000.0,
    "rope_bf16": False,
    "final_logit_softcapping": 15.0,
    "initializer_range": 0.02,
    "use_cache": True,
}


class NanoChatModernConfig(PreTrainedConfig):
    """Sizes by the library's names; each extra by a name of its own."""

    model_type = "nanochat_modern"
    keys_to_ignore_at_inference = ["past_key_values", "cache"]

    def __init__(self, **kwargs: Any) -> None:
        given: dict[str, Any] = {n: kwargs.pop(n, default) for n, default in DEFAULTS.items()}
        for name, value in given.items():
            setattr(self, name, value)
        self.intermediate_size = 4 * self.hidden_size
        self.head_dim = self.hidden_size // self.num_attention_heads
        self.padded_vocab_size = given["padded_vocab_size"] or self.vocab_size
        self.layer_types = given["layer_types"] or ["full_attention"] * self.num_hidden_layers
        kwargs.pop("intermediate_size", None)
        kwargs.pop("head_dim", None)
        kwargs.setdefault("tie_word_embeddings", False)
        super().__init__(**kwargs)


def rms_norm(x: Tensor) -> Tensor:
    return F.rms_norm(x, (x.size(-1),))


def eager_attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    **kwargs: Any,
) -> tuple[Tensor, Tensor]:
    """The definition, for `attn_implementation="eager"` -> (B, T, H, D) and the weights."""
    key = key.repeat_interleave(module.num_key_value_groups, dim=1)
    value = value.repeat_interleave(module.num_key_value_groups, dim=1)
    scores = query @ key.transpose(2, 3) * scaling
    if attention_mask is not None:
        scores = scores + attention_mask
    weights = scores.softmax(dim=-1, dtype=torch.float32).to(query.dtype)
    weights = F.dropout(weights, p=dropout, training=module.training)
    return (weights @ value).transpose(1, 2).contiguous(), weights


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary embedding of x (B, H, T, D) with tables (B, 1, T, D/2)."""
    x1, x2 = x.chunk(2, dim=-1)
    return torch.cat((x1 * cos + x2 * sin, x2 * cos - x1 * sin), dim=-1)


class NanoChatModernAttention(nn.Module):
    def __init__(self, config: NanoChatModernConfig, layer_idx: int) -> None:
        super().__init__()
        width, kv_width = config.hidden_size, config.num_key_value_heads * config.head_dim
        self.config = config
        self.layer_idx = layer_idx
        self.head_dim = config.head_dim
        self.num_key_value_groups = config.num_attention_heads // config.num_key_value_heads
        self.scaling = config.head_dim**-0.5
        self.is_causal = True
        sliding = config.layer_types[layer_idx] == "sliding_attention"
        self.sliding_window = config.sliding_window if sliding else None
        self.q_proj = nn.Linear(width, width, bias=False)
        self.k_proj = nn.Linear(width, kv_width, bias=False)
        self.v_proj = nn.Linear(width, kv_width, bias=False)
        self.o_proj = nn.Linear(width, width, bias=False)
        self.ve_gate = (
            nn.Linear(config.value_gate_channels, config.num_key_value_heads, bias=False)
            if layer_idx in config.value_embedding_layers
            else None
        )

    def forward(
        self,
        x: Tensor,
        value_embedding: Tensor | None,
        rotary: tuple[Tensor, Tensor],
        attention_mask: Tensor | None,
        cache: Any,
        **kwargs: Any,
    ) -> Tensor:
        config, shape = self.config, (*x.shape[:2], -1, self.head_dim)
        q, k = self.q_proj(x).view(shape), self.k_proj(x).view(shape)
        v = self.v_proj(x).view(shape)
        if self.ve_gate is not None and value_embedding is not None:
            gate = self.ve_gate(x[..., : config.value_gate_channels])
            gate = config.value_gate_scale * torch.sigmoid(gate)
            v = v + gate.unsqueeze(-1) * value_embedding.view(shape)
        q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
        q = rms_norm(rotate(q, *rotary)) * config.qk_scale
        k = rms_norm(rotate(k, *rotary)) * config.qk_scale
        if cache is not None:
            k, v = cache.update(k, v, self.layer_idx)
        attend: Callable = eager_attention
        if config._attn_implementation != "eager":
            attend = ALL_ATTENTION_FUNCTIONS[config._attn_implementation]
        y, _ = attend(
            self,
            q,
            k,
            v,
            attention_mask,
            dropout=0.0,
            scaling=self.scaling,
            sliding_window=self.sliding_window,
            **kwargs,
        )
        return self.o_proj(y.reshape(*x.shape[:2], -1))


class NanoChatModernMLP(nn.Module):
    def __init__(self, config: NanoChatModernConfig) -> None:
        super().__init__()
        self.fc1 = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.fc2 = nn.Linear(config.intermediate_size, config.hidden_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.relu(self.fc1(x)).square())


class NanoChatModernLayer(nn.Module):
    def __init__(self, config: NanoChatModernConfig, layer_idx: int) -> None:
        super().__init__()
        self.self_attn = NanoChatModernAttention(config, layer_idx)
        self.mlp = NanoChatModernMLP(config)

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        x = x + self.self_attn(rms_norm(x), *args, **kwargs)
        return x + self.mlp(rms_norm(x))


class NanoChatModernPreTrainedModel(PreTrainedModel):
    config_class = NanoChatModernConfig
    base_model_prefix = "model"
    _no_split_modules = ["NanoChatModernLayer"]
    _supports_flash_attn = True
    _supports_sdpa = True
    _supports_flex_attn = True
    _supports_attention_backend = True


def mask_arguments(function: Callable, given: dict[str, Any]) -> dict[str, Any]:
    """`given` by the names that this version of transformers has for them."""
    names = inspect.signature(function).parameters
    other = {"inputs_embeds": "input_embeds", "cache": "past_key_values"}
    named = {name if name in names else other.get(name, name): v for name, v in given.items()}
    if "cache_position" in names:
        named["cache_position"] = given["position_ids"][0]
    return {name: value for name, value in named.items() if name in names}


class NanoChatModernModel(NanoChatModernPreTrainedModel):
    def __init__(self, config: NanoChatModernConfig) -> None:
        super().__init__(config)
        rows, kv_width = config.padded_vocab_size, config.num_key_value_heads * config.head_dim
        self.embed_tokens = nn.Embedding(rows, config.hidden_size)
        self.layers = nn.ModuleList(
            NanoChatModernLayer(config, layer) for layer in range(config.num_hidden_layers)
        )
        self.value_embeds = nn.ModuleDict(
            {str(layer): nn.Embedding(rows, kv_width) for layer in config.value_embedding_layers}
        )
        if config.residual_mixing:
            self.resid_lambdas = nn.Parameter(torch.ones(config.num_hidden_layers))
            self.x0_lambdas = nn.Parameter(torch.zeros(config.num_hidden_layers))
        if config.smear:
            self.smear_gate = nn.Linear(SMEAR_CHANNELS, 1, bias=False)
            self.smear_lambda = nn.Parameter(torch.zeros(1))
        if config.backout:
            self.backout_lambda = nn.Parameter(torch.zeros(1))
        self.post_init()

    def rotary(self, position_ids: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """cos, sin (B, 1, T, D/2), made when they are needed: a buffer that is not saved would come
        back as zeros.
        """
        config = self.config
        channel = torch.arange(0, config.head_dim, 2, dtype=torch.float32)
        frequency = config.rope_theta ** (-channel.to(position_ids.device) / config.head_dim)
        angles = (position_ids.float().unsqueeze(-1) * frequency).unsqueeze(1)
        cos, sin = angles.cos(), angles.sin()
        if config.rope_bf16:
            cos, sin = cos.bfloat16(), sin.bfloat16()
        return cos.to(dtype), sin.to(dtype)

    def smeared(self, x: Tensor, before: Tensor | None, padding: Tensor | None) -> Tensor:
        """Mix a gated share of the previous token's embedding into each; `before` (B, D) is that of
        the last token already in the cache.
        """
        first = torch.zeros_like(x[:, :1]) if before is None else before.unsqueeze(1)
        previous = torch.cat((first, x[:, :-1]), dim=1)
        if padding is not None:  # what stands before the first token is not a token
            previous = previous * padding.to(x.dtype).unsqueeze(-1)
        gate = self.smear_lambda * torch.sigmoid(self.smear_gate(x[..., :SMEAR_CHANNELS]))
        return x + gate * previous

    def embed(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None,
        previous_ids: Tensor | None,
        n_past: int | Tensor,
        cache: Any,
    ) -> Tensor:
        """Ids (B, T) -> what enters the first layer (B, T, D)."""
        x = rms_norm(self.embed_tokens(input_ids))
        if not self.config.smear:
            return x
        if previous_ids is None and cache is not None and n_past > 0:
            previous_ids = getattr(cache, "last_ids", None)
            if previous_ids is None:
                raise ValueError(
                    "previous_ids: this cache was not filled by this model; pass the ids (B) of "
                    "the tokens before input_ids"
                )
        if cache is not None:
            cache.last_ids = input_ids[:, -1]
        before = None if previous_ids is None else rms_norm(self.embed_tokens(previous_ids))
        padding, n_tokens = None, input_ids.size(1)
        if attention_mask is not None and attention_mask.dim() == 2:
            known = F.pad(attention_mask, (1, 0))[:, :-1]
            padding = known[:, known.size(1) - n_tokens :]
        return self.smeared(x, before, padding)

    def masks(self, x: Tensor, attention_mask: Any, cache: Any, position_ids: Tensor) -> dict:
        if isinstance(attention_mask, dict):  # generate() has made them already
            return attention_mask
        given = {
            "config": self.config,
            "inputs_embeds": x,
            "attention_mask": attention_mask,
            "cache": cache,
            "position_ids": position_ids,
        }
        makers = {
            "full_attention": create_causal_mask,
            "sliding_attention": create_sliding_window_causal_mask,
        }
        return {
            kind: make(**mask_arguments(make, given))
            for kind, make in makers.items()
            if kind in self.config.layer_types
        }

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Any = None,
        position_ids: Tensor | None = None,
        cache: Any = None,
        past_key_values: Any = None,
        inputs_embeds: Tensor | None = None,
        use_cache: bool | None = None,
        previous_ids: Tensor | None = None,
        **kwargs: Any,
    ) -> Any:
        if input_ids is None or inputs_embeds is not None:
            raise ValueError("this model reads tables by token: pass input_ids, not inputs_embeds")
        config, cache = self.config, cache if cache is not None else past_key_values
        if cache is None and (config.use_cache if use_cache is None else use_cache):
            cache = DynamicCache(config=config)
        n_past = 0 if cache is None else cache.get_seq_length()
        if position_ids is None:
            new = torch.arange(input_ids.size(1), device=input_ids.device)
            position_ids = (new + n_past).unsqueeze(0)
        x = self.embed(input_ids, attention_mask, previous_ids, n_past, cache)
        masks = self.masks(x, attention_mask, cache, position_ids)
        rotary = self.rotary(position_ids, x.dtype)
        x0, middle = x, None
        for number, layer in enumerate(self.layers):
            if config.residual_mixing:
                x = self.resid_lambdas[number] * x + self.x0_lambdas[number] * x0
            value_embedding = None
            if number in config.value_embedding_layers:
                value_embedding = self.value_embeds[str(number)](input_ids)
            mask = masks[config.layer_types[number]]
            x = layer(x, value_embedding, rotary, mask, cache, **kwargs)
            if config.backout and number == config.num_hidden_layers // 2:
                middle = x
        if middle is not None:
            x = x - self.backout_lambda * middle
        return BaseModelOutputWithPast(
            last_hidden_state=rms_norm(x), **cache_output(BaseModelOutputWithPast, cache)
        )


def cache_output(output: Any, cache: Any) -> dict[str, Any]:
    """The cache by the name that this version of transformers has for it."""
    name = "cache" if "cache" in output.__dataclass_fields__ else "past_key_values"
    return {name: cache}


class NanoChatModernForCausalLM(NanoChatModernPreTrainedModel, GenerationMixin):
    def __init__(self, config: NanoChatModernConfig) -> None:
        super().__init__(config)
        self.model = NanoChatModernModel(config)
        self.lm_head = nn.Linear(config.hidden_size, config.padded_vocab_size, bias=False)
        self.post_init()

    def prepare_inputs_for_generation(self, input_ids: Tensor, *args: Any, **kwargs: Any) -> dict:
        prepared = super().prepare_inputs_for_generation(input_ids, *args, **kwargs)
        n_new = prepared["input_ids"].size(1)
        if self.config.smear and n_new < input_ids.size(1):
            prepared["previous_ids"] = input_ids[:, -n_new - 1]
        return prepared

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Any = None,
        position_ids: Tensor | None = None,
        cache: Any = None,
        past_key_values: Any = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        previous_ids: Tensor | None = None,
        **kwargs: Any,
    ) -> Any:
        for name in ("return_dict", "output_attentions", "output_hidden_states"):
            kwargs.pop(name, None)
        outputs = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            cache=cache if cache is not None else past_key_values,
            inputs_embeds=inputs_embeds,
            use_cache=use_cache,
            previous_ids=previous_ids,
            **kwargs,
        )
        kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        hidden = outputs.last_hidden_state[:, kept, :]
        logits = self.lm_head(hidden)[..., : self.config.vocab_size].float()
        cap = self.config.final_logit_softcapping
        logits = cap * torch.tanh(logits / cap)
        loss = None
        if labels is not None:
            loss = self.loss_function(logits, labels, self.config.vocab_size)
        (name,) = cache_output(CausalLMOutputWithPast, None)
        return CausalLMOutputWithPast(loss=loss, logits=logits, **{name: getattr(outputs, name)})
