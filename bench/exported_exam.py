"""The embedded world's exam, answered greedily by a checkpoint and by its GGUF export in llama.cpp,
calculator included: how many answers are the same, token by token, and how many are right.

    python -m bench.exported_exam sft:d4 d4.gguf [d4-q8.gguf ...]
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

from nanochat.engine import Engine, SamplingParams
from nanochat.engine.sample import Sample
from nanochat.engine.sampler import Sampled
from nanochat.engine.sequence import Sequence as Answer
from nanochat.exchange.llama_runtime import LlamaRuntime
from nanochat.exchange.stored_model import StoredModel, open_stored
from nanochat.model_spec import parse_spec
from nanochat.tasks.base import Conversation, Task
from nanochat.tasks.catalogue import WORLD, world_name
from nanochat.tasks.identity_task import identity_exam
from nanochat.tasks.opening import open_task
from nanochat.tokenizer.special_tokens import SpecialIds


def questions(model: StoredModel) -> Iterator[tuple[Task, Conversation]]:
    for name in WORLD:
        task = (
            identity_exam(dict(model.meta)) if name == world_name("identity") else open_task(name)
        )
        for conversation in task:
            yield task, conversation


def params(conversation: Conversation, max_tokens: int) -> SamplingParams:
    tools = bool(conversation.get("tool", True))
    return SamplingParams(temperature=0.0, max_tokens=max_tokens, tools=tools)


def native(
    model: StoredModel,
    prompts: Sequence[list[int]],
    settings: Sequence[SamplingParams],
    **changes: bool,
) -> list[tuple[list[int], str]]:
    engine = Engine(model.native(**changes), model.tokenizer)
    requests = [engine.submit(ids, one) for ids, one in zip(prompts, settings, strict=True)]
    return [(answer.ids, answer.text) for [answer] in engine.complete(requests)]


def exported(
    llama: LlamaRuntime, model: StoredModel, prompt: list[int], settings: SamplingParams
) -> tuple[list[int], str]:
    """One answer, the calculator's results written in as the engine does."""
    sample = Sample(
        Answer(0, list(prompt), settings),
        request=0,
        tokenizer=model.tokenizer,
        special=SpecialIds.of(model.tokenizer.special_tokens),
        context=model.config.sequence_len,
    )
    tokens, n_seen = sample.sequence.tokens, 0
    llama.llm.reset()
    while not sample.sequence.finished:
        llama.llm.eval(tokens[n_seen:])
        n_seen = len(tokens)
        sample.advance(Sampled(int(llama.llm.scores[n_seen - 1].argmax())))
    made = tokens[len(prompt) :]
    return made[:-1] if sample.ended_by_token else made, "".join(sample.shown)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--max-tokens", type=int, default=128, help="longest answer")
    args = parser.parse_args()
    model = open_stored(parse_spec(args.model))
    asked = list(questions(model))
    prompts = [model.tokenizer.render_for_completion(conversation) for _, conversation in asked]
    settings = [params(conversation, args.max_tokens) for _, conversation in asked]
    ours = native(model, prompts, settings)
    exact = native(model, prompts, settings, rope_bf16=False)

    def right(answers: Sequence[tuple[list[int], str]]) -> int:
        pairs = zip(asked, answers, strict=True)
        return sum(bool(task.evaluate(row, text)) for (task, row), (_, text) in pairs)

    print(f"{model.name}: {right(ours)} of {len(ours)} right", flush=True)
    for path in args.files:
        llama = LlamaRuntime(path, model.config.sequence_len)
        theirs = [
            exported(llama, model, ids, one) for ids, one in zip(prompts, settings, strict=True)
        ]
        equal = sum(a[0] == b[0] for a, b in zip(ours, theirs, strict=True))
        near = sum(a[0] == b[0] for a, b in zip(exact, theirs, strict=True))
        print(
            f"{path.name}: {equal} of {len(ours)} answers equal ({near} to those of our model with "
            f"rotary tables that are not rounded, as there), {right(theirs)} right",
            flush=True,
        )


if __name__ == "__main__":
    main()
