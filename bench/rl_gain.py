"""What reinforcement learning adds to a fine-tuned model in five minutes: letters counted without
the calculator.

    python -m bench.rl_gain              the newest SFT checkpoint of the base directory, 3 seeds
    python -m bench.rl_gain --seeds 1 --steps 50

Each seed is one `nanochat chat-rl` run with default settings from the same checkpoint, timed as a
whole. Before and after, the same held-out questions (words that no training text contains) are
answered greedily and by sampling, with 95% Wilson intervals over the questions.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from pathlib import Path
from typing import Any

from nanochat.checkpoint_manager import load_model
from nanochat.engine import Engine
from nanochat.eval.generative import AnswerSampling, evaluate_generative
from nanochat.eval.results import scored
from nanochat.runtime.world import World, init_world
from nanochat.train.rl_configs import RLConfig
from nanochat.train.rl_tasks import questions
from nanochat.train.stages import rl

TASK = "World-counting-without-tool"
SAMPLES = 2  # answers to each question where they are sampled


def examine(source: str, tag: str | None, world: World, n: int) -> dict[str, dict[str, Any]]:
    """Scores of a checkpoint on `n` held-out questions: greedy and sampled."""
    model, tokenizer, _ = load_model(source, world.device, "eval", tag)
    engine = Engine(model, tokenizer)
    task = questions(TASK, 0).held_out[TASK]
    scores = {}
    for how, sampling in (
        ("greedy", AnswerSampling(max_new_tokens=64)),
        (
            "sampled",
            AnswerSampling(max_new_tokens=64, temperature=1.0, top_k=None, num_samples=SAMPLES),
        ),
    ):
        answers = evaluate_generative(engine, task, world, range(min(n, len(task))), sampling)
        entry = scored([answer.pass_at(1) for answer in answers], 0.0)
        scores[how] = {name: entry[name] for name in ("score", "low", "high", "n")}
    return scores


def run(cfg: RLConfig, world: World) -> dict[str, float]:
    """One run of the stage -> its wall time, the processor time it took, and its own numbers."""
    wall, used = time.monotonic(), processor_s()
    record = rl(cfg, world)
    own = {name: record["metrics"][name] for name in ("steps", "train_s", "reward", "kl")}
    return {"wall_s": time.monotonic() - wall, "processor_s": processor_s() - used, **own}


def processor_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def show(name: str, scores: dict[str, dict[str, Any]]) -> str:
    return f"{name:8}" + "".join(
        f"  {how} {s['score']:.3f} [{s['low']:.3f}, {s['high']:.3f}]" for how, s in scores.items()
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--source", default="sft")
    parser.add_argument("--model-tag")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--questions", type=int, default=1000)
    parser.add_argument("--out", type=Path, help="write the numbers here as JSON")
    args = parser.parse_args()
    world = init_world("cpu")
    before = examine(args.source, args.model_tag, world, args.questions)
    print(show("before", before), flush=True)
    results: dict[str, Any] = {
        "before": before,
        "settings": {k: str(v) for k, v in vars(args).items()},
    }
    for seed in args.seeds:
        cfg = RLConfig(
            source=args.source,
            model_tag=args.model_tag,
            tag_out=f"gain-{seed}",
            task=TASK,
            seed=seed,
            num_iterations=args.steps,
            eval_every=0,
            save_every=-1,
            device_type="cpu",
        )
        cost = run(cfg, world)
        after = examine("rl", f"gain-{seed}", world, args.questions)
        results[f"seed {seed}"] = {"after": after, **cost}
        print(
            show(f"seed {seed}", after),
            {name: round(value, 3) for name, value in cost.items()},
            flush=True,
        )
        for how, score in after.items():
            rise, apart = score["score"] - before[how]["score"], score["low"] > before[how]["high"]
            print(
                f"         {how}: {rise:+.3f}, intervals {'apart' if apart else 'OVERLAP'}",
                flush=True,
            )
        if args.out:
            args.out.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
