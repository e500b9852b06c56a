"""A GGUF file in llama.cpp, through llama-cpp-python."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nanochat.exchange.optional_module import needed

F32 = 0  # its number for the type of the key/value cache


class LlamaRuntime:
    """The model and the tokenizer of a file, on the CPU, its cache in fp32."""

    def __init__(self, path: Path, context_tokens: int, n_threads: int = 1) -> None:
        llama_cpp = needed("llama_cpp")
        self.llm = llama_cpp.Llama(
            str(path),
            n_ctx=context_tokens,
            n_batch=min(512, context_tokens),
            n_threads=n_threads,
            n_threads_batch=n_threads,
            type_k=F32,
            type_v=F32,
            logits_all=True,
            verbose=False,
        )
        self.formatter = llama_cpp.llama_chat_format.Jinja2ChatFormatter(
            template=self.llm.metadata["tokenizer.chat_template"],
            eos_token="",
            bos_token="",
            add_generation_prompt=False,
        )
        self.name = f"llama-cpp-python {llama_cpp.__version__}"

    def logits(self, ids: list[int]) -> Tensor:
        """Logits (T, V) fp32 as the program computes them."""
        self.llm.reset()
        self.llm.eval(ids)
        return torch.from_numpy(np.array(self.llm.scores[: len(ids)], dtype=np.float32))

    def greedy(self, ids: list[int], n_tokens: int) -> list[int]:
        """The likeliest tokens, also past those that end an answer."""
        self.llm.reset()
        self.llm.eval(ids)
        made: list[int] = []
        while len(made) < n_tokens:
            made.append(int(self.llm.scores[self.llm.n_tokens - 1].argmax()))
            if len(made) < n_tokens:
                self.llm.eval(made[-1:])
        return made

    def tokenize(self, text: str, special: bool = False) -> list[int]:
        """Ids of a text; `special`: spelled special tokens count as such."""
        return list(self.llm.tokenize(text.encode(), add_bos=False, special=special))

    def render(self, messages: list[dict[str, Any]], asks: bool) -> list[int]:
        self.formatter.add_generation_prompt = asks
        return self.tokenize(self.formatter(messages=messages).prompt, special=True)
