"""The shape of a model and the extras it has: all one needs to rebuild it around its tensors.

Shape legend: D model width, V vocabulary, S short attention window.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

SMEAR_CHANNELS = 24  # of an embedding that the smear gate reads
MAX_SOFTCAP = 64.0  # the loss adds up exp(logit) over the vocabulary in fp32


@dataclass(frozen=True, kw_only=True)
class GPTConfig:
    """Sizes and named extras; by default those of the classic generation, which has none.

    Raises ValueError naming every field that does not fit.
    """

    sequence_len: int = 2048
    vocab_size: int = 65536
    n_layer: int = 20
    n_head: int = 10
    n_kv_head: int = 10
    n_embd: int = 1280
    # Attention windows, tiled over the layers: L sees everything, S `window_tokens` to the left.
    # The last layer is always L.
    window_pattern: str = "L"
    window_tokens: int | None = None
    # A table of values by token on every second layer, added through gates of scale * sigmoid.
    value_embeddings: bool = False
    value_gate_channels: int = 12
    value_gate_scale: float = 3.0
    residual_mixing: bool = False  # learned scales of the residual stream and of the embedding
    smear: bool = False  # a gated share of the previous token's embedding
    backout: bool = False  # take a share of the middle layer's output away at the end
    qk_scale: float = 1.0  # of queries and of keys, after their norms
    rope_base: float = 10_000.0
    rope_bf16: bool = True  # rotary tables rounded to bf16, as the first checkpoints were trained
    logit_softcap: float = 15.0
    vocab_multiple: int = 1  # rows of the embedding and the head are rounded up to one of this
    # Fresh weights. The matrices: `spectral` normal with std min(1, sqrt(out / in)) / sqrt(in), or
    # `uniform` with std 1/sqrt(D), those into the MLP 0.4 of it.
    embedding_init_std: float = 1.0
    head_init_std: float = 0.0
    matrix_init: Literal["spectral", "uniform"] = "spectral"

    def __post_init__(self) -> None:
        problems = [*_below(self), *self._size_problems(), *self._extra_problems()]
        if problems:
            raise ValueError("; ".join(problems))

    def _size_problems(self) -> list[str]:
        if min(self.n_embd, self.n_head, self.n_kv_head) < 1:
            return []  # said already
        problems = []
        if self.n_embd % self.n_head or self.head_dim % 2:
            problems.append(
                f"n_embd={self.n_embd}: must be n_head={self.n_head} times an even head dimension"
            )
        if self.n_head % self.n_kv_head:
            problems.append(f"n_kv_head={self.n_kv_head}: must divide n_head={self.n_head}")
        return problems

    def _extra_problems(self) -> list[str]:
        problems = []
        pattern = self.window_pattern.upper()
        if not pattern or set(pattern) - set("SL"):
            problems.append(
                f"window_pattern={self.window_pattern!r}: use the letters S and L, e.g. SSSL"
            )
        elif "S" in pattern and self.window_tokens is None:
            problems.append(
                f"window_tokens=None: say how many tokens the S layers of {pattern} see, e.g. 512"
            )
        read = {"smear": SMEAR_CHANNELS, "value_embeddings": self.value_gate_channels}
        for extra, channels in read.items():
            if getattr(self, extra) and 1 <= self.n_embd < channels:
                problems.append(
                    f"n_embd={self.n_embd}: must be at least {channels} for {extra}; use a larger "
                    "--head-dim"
                )
        if self.logit_softcap > MAX_SOFTCAP:
            problems.append(f"logit_softcap={self.logit_softcap}: must be at most {MAX_SOFTCAP}")
        if self.matrix_init not in ("spectral", "uniform"):
            problems.append(f"matrix_init={self.matrix_init!r}: must be spectral or uniform")
        return problems

    @property
    def head_dim(self) -> int:
        return self.n_embd // self.n_head

    @property
    def kv_dim(self) -> int:
        return self.n_kv_head * self.head_dim

    @property
    def padded_vocab_size(self) -> int:
        """Rows of the embedding and the head."""
        return -(-self.vocab_size // self.vocab_multiple) * self.vocab_multiple

    def window(self, layer: int) -> int:
        """Tokens to the left that `layer` sees; -1 for all of them."""
        pattern = self.window_pattern.upper()
        if layer == self.n_layer - 1 or pattern[layer % len(pattern)] == "L":
            return -1
        assert self.window_tokens is not None
        return self.window_tokens

    def has_value_embedding(self, layer: int) -> bool:
        """Every second layer, counted so that the last one has it."""
        return self.value_embeddings and layer % 2 == (self.n_layer - 1) % 2

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def preset(cls, name: str, **given: Any) -> GPTConfig:
        """The extras of a published generation (classic | modern) with the sizes and whatever else
        is `given`. Short windows are a quarter of the context unless they are given.
        """
        if name not in PRESETS:
            raise ValueError(f"{name}: no such preset; use one of {', '.join(PRESETS)}")
        return _with_window({**PRESETS[name], **given}, divisor=4, multiple=128)

    @classmethod
    def from_checkpoint(
        cls, model_config: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]
    ) -> GPTConfig:
        """What a checkpoint's `model_config` and the shapes of its tensors (by name) tell.

        Today's files name every field. Older ones of this project name a `generation`. Public ones
        record sizes and the window pattern alone: the tensors tell which variant it is. A field
        that the file does name always counts, so one can be corrected there (the softcap of 20 of
        early March 2026 leaves no trace in the tensors).
        """
        names = {field.name for field in fields(cls)}
        given = {name: value for name, value in model_config.items() if name in names}
        if given.get("window_tokens", 0) is None:
            del given["window_tokens"]  # it then followed from the context
        if "generation" in model_config:
            return cls.preset(model_config["generation"], **{"window_pattern": "L", **given})
        return _public(given, shapes)


PRESETS: dict[str, dict[str, Any]] = {
    "classic": {},
    "modern": {
        "window_pattern": "SSSL",
        "value_embeddings": True,
        "residual_mixing": True,
        "smear": True,
        "backout": True,
        "qk_scale": 1.2,
        "rope_base": 100_000.0,
        "rope_bf16": False,
        "vocab_multiple": 64,
        "embedding_init_std": 0.8,
        "head_init_std": 0.001,
        "matrix_init": "uniform",
    },
}


def _below(config: GPTConfig) -> list[str]:
    """Numbers that are too small."""
    problems = []
    for field in fields(config):
        value = getattr(config, field.name)
        if isinstance(value, bool) or not isinstance(value, int | float):
            continue
        if field.name.endswith("_std"):
            if not value >= 0:
                problems.append(f"{field.name}={value}: must not be negative")
        elif isinstance(value, float):
            if not value > 0:
                problems.append(f"{field.name}={value}: must be above 0")
        elif value < 1:
            problems.append(f"{field.name}={value}: must be at least 1")
    return problems


def _with_window(values: dict[str, Any], divisor: int, multiple: int) -> GPTConfig:
    """`values` with short windows of a part of the context, rounded up, where they need and lack
    them.
    """
    if "S" in values.get("window_pattern", "L").upper():
        context = values.get("sequence_len", GPTConfig.sequence_len)
        tokens = (
            context // divisor if multiple == 1 else -(-context // (divisor * multiple)) * multiple
        )
        values = {"window_tokens": tokens, **values}
    return GPTConfig(**values)


def _public(given: dict[str, Any], shapes: Mapping[str, tuple[int, ...]]) -> GPTConfig:
    """A public checkpoint, recognised by the tensors that its variant brought. What belongs to the
    variant and is not there is then missed when the tensors are loaded.
    """
    gates = {shape[-1] for name, shape in shapes.items() if name.endswith(".ve_gate.weight")}
    found: dict[str, Any] = {}
    divisor, multiple = 2, 1
    if shapes.keys() & {"smear_gate.weight", "smear_lambda", "backout_lambda"}:  # 14 March 2026
        found = dict(PRESETS["modern"])
        divisor, multiple = 4, 128
    elif 12 in gates:  # 9 March
        found = {**PRESETS["modern"], "smear": False, "backout": False, "qk_scale": 1.15}
        divisor, multiple = 3, 128
    elif gates or any(name.startswith("value_embeds.") for name in shapes):  # 16 January
        found = {
            "residual_mixing": True,
            "value_embeddings": True,
            "value_gate_channels": 32,
            "value_gate_scale": 2.0,
        }
    elif shapes.keys() & {"resid_lambdas", "x0_lambdas"}:  # 11 January
        found = {"residual_mixing": True}
    vocab_size = given.get("vocab_size", GPTConfig.vocab_size)
    rows = shapes.get("lm_head.weight", (vocab_size,))[0]
    if rows != vocab_size:  # since 9 December 2025
        found["vocab_multiple"] = 64
    elif vocab_size % 64:
        found["vocab_multiple"] = 1
    return _with_window({**found, "window_pattern": "L", **given}, divisor, multiple)
