"""How much faster batched evaluation is than one example at a time, and that the answers are the
same.

    python -m bench.eval_speed core --bundle ../shared/data/core --per-task 100
    python -m bench.eval_speed gsm8k --problems 200        (data found as for chat_eval)

Without --source an untrained model of the given shape is used: the work is the same, the scores
mean nothing.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import resource
import time

import torch

from nanochat.checkpoint_manager import load_model
from nanochat.engine import Engine
from nanochat.eval import core
from nanochat.eval.generative import AnswerSampling, evaluate_generative
from nanochat.eval.loglikelihood import crop_left, score_groups
from nanochat.eval.suite import choose_problems
from nanochat.gpt import GPT, GPTConfig
from nanochat.runtime.precision import pick_dtype
from nanochat.runtime.world import World
from nanochat.tasks.opening import open_task
from nanochat.tokenizer import Tokenizer


def get_model(args: argparse.Namespace, device: torch.device) -> tuple[GPT, Tokenizer]:
    if args.source:
        model, tokenizer, _ = load_model(args.source, device, "eval", args.model_tag)
        return model, tokenizer
    tokenizer = Tokenizer.load(args.tokenizer) if args.tokenizer else Tokenizer.byte_level()
    heads = max(1, -(-args.depth * 64 // 128))
    config = GPTConfig.preset(
        "modern",
        sequence_len=args.context,
        vocab_size=tokenizer.get_vocab_size(),
        n_layer=args.depth,
        n_head=heads,
        n_kv_head=heads,
        n_embd=heads * 128,
        window_pattern="L",
    )
    model = GPT(config).to(device)
    model.init_weights()
    dtype = pick_dtype(device)
    model.to(dtype).requires_grad_(False).eval()
    model.compute_dtype = dtype
    return model, tokenizer


@torch.inference_mode()
def one_at_a_time(model: GPT, rows: list[core.ScoredRow]) -> list[core.Score]:
    """The loop to beat: the rows of one example as a padded batch, logits everywhere."""
    cropped = [crop_left(row, model.config.sequence_len) for row in rows]
    width = max(len(row.tokens) for row in cropped)
    ids = torch.tensor(
        [[*row.tokens, *[0] * (width - len(row.tokens))] for row in cropped],
        device=model.get_device(),
    )
    logits = model(ids)
    scores = []
    for row, own, targets in zip(cropped, logits, ids, strict=True):
        span, wanted = own[row.start - 1 : row.end - 1], targets[row.start : row.end]
        nll = torch.nn.functional.cross_entropy(span, wanted, reduction="sum").item()
        scores.append(core.Score(nll, row.end - row.start, bool((span.argmax(-1) == wanted).all())))
    return scores


def bench_core(args: argparse.Namespace, model: GPT, tokenizer: Tokenizer) -> None:
    slow = fast = 0.0
    different = examples = 0
    bos = tokenizer.get_bos_token_id()
    for task in core.read_bundle(args.bundle):
        rows = core.read_examples(task, args.per_task)
        groups, golds = [], []
        for index, row in enumerate(rows):
            texts, gold = core.render_prompts(
                task, row, core.fewshot_examples(rows, index, task.num_fewshot)
            )
            groups.append(core.build_rows(task, tokenizer.encode(texts, prepend=bos)))
            golds.append(gold)
        started = time.perf_counter()
        batched = score_groups(model, groups)
        between = time.perf_counter()
        looped = [one_at_a_time(model, group) for group in groups]
        ended = time.perf_counter()
        fast, slow = fast + between - started, slow + ended - between
        verdicts = [
            (core.is_correct(task, a, g), core.is_correct(task, b, g))
            for a, b, g in zip(batched, looped, golds, strict=True)
        ]
        different += sum(a != b for a, b in verdicts)
        examples += len(rows)
        print(
            f"{task.label:34} {between - started:7.2f} s   loop {ended - between:7.2f} s",
            flush=True,
        )
    print(
        f"{examples} examples: {fast:.1f} s, one at a time {slow:.1f} s, {slow / fast:.1f} "
        f"times; {different} differ"
    )


def bench_gsm8k(args: argparse.Namespace, model: GPT, tokenizer: Tokenizer, world: World) -> None:
    task, sampling = open_task("GSM8K"), AnswerSampling(max_new_tokens=args.new_tokens)
    problems = choose_problems(len(task), args.problems)
    started = time.perf_counter()
    with contextlib.redirect_stderr(io.StringIO()):
        answers = evaluate_generative(Engine(model, tokenizer), task, world, problems, sampling)
        between = time.perf_counter()
        engine = Engine(model, tokenizer, max_running=1)
        looped = [
            evaluate_generative(engine, task, world, [problem], sampling)[0] for problem in problems
        ]
    slow, fast = time.perf_counter() - between, between - started
    same = sum(a.texts == b.texts for a, b in zip(answers, looped, strict=True))
    print(
        f"{len(problems)} problems: {fast:.1f} s, one at a time {slow:.1f} s, {slow / fast:.1f} "
        f"times; {same} same text"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("core", "gsm8k"))
    parser.add_argument("--bundle")
    parser.add_argument("--per-task", type=int, default=100)
    parser.add_argument("--problems", type=int, default=200)
    parser.add_argument("--new-tokens", type=int, default=128)
    parser.add_argument("--source")
    parser.add_argument("--model-tag")
    parser.add_argument("--tokenizer", help="a tokenizer folder, for the untrained model")
    parser.add_argument("--depth", type=int, default=4)
    parser.add_argument("--context", type=int, default=512)
    args = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model, tokenizer = get_model(args, device)
    if args.what == "core":
        bench_core(args, model, tokenizer)
    else:
        bench_gsm8k(args, model, tokenizer, World(0, 0, 1, device))
    print(
        f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB", end=""
    )
    print(
        f", GPU {torch.cuda.max_memory_allocated() / 2**30:.2f} GiB"
        if device.type == "cuda"
        else ""
    )


if __name__ == "__main__":
    main()
