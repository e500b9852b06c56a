"""Who the model says it is follows from the persona file and nothing else."""

from __future__ import annotations

import torch
from tiny_config import tiny_config

from nanochat.checkpoint_manager import load_model, save_checkpoint
from nanochat.config import collect
from nanochat.dataset.identity import identity_conversations
from nanochat.dataset.persona import load_persona
from nanochat.engine import Engine
from nanochat.gpt import GPT
from nanochat.runtime.world import World
from nanochat.tokenizer import Tokenizer
from nanochat.train.configs import SFTConfig
from nanochat.train.stages import sft

PERSONA = """name: {name}
maker: {maker}
traits: [friendly, short]
facts:
  - ask: [what is your favorite food]
    answer: I like {food} best.
    accept: {food}
"""


def answer(world: World, tag: str, question: str) -> str:
    model, tokenizer, _ = load_model("sft", world.device, model_tag=tag)
    user = {"role": "user", "content": question}
    prompt = tokenizer.render_for_completion(
        {"messages": [user, {"role": "assistant", "content": ""}]}
    )
    [row], _ = Engine(model, tokenizer).generate_batch(prompt, max_tokens=24, temperature=0.0)
    return tokenizer.decode(row[len(prompt) :])


def test_another_persona_is_another_answer(base_dir, tmp_path):
    world = World(0, 0, 1, torch.device("cpu"))
    people = {"Robin": ("Ada Works", "plums"), "Quillo": ("Team Seven", "beans")}
    files = {}
    for name, (maker, food) in people.items():
        files[name] = tmp_path / f"{name}.yaml"
        files[name].write_text(PERSONA.format(name=name, maker=maker, food=food))
    texts = [
        str(row)
        for path in files.values()
        for row in identity_conversations(load_persona(path), 300, seed=0)
    ]
    tokenizer = Tokenizer.train(texts, 500)
    model = GPT(tiny_config(tokenizer.get_vocab_size(), n_embd=64))
    torch.manual_seed(0)
    model.init_weights()
    meta = {"model_config": model.config.to_dict(), "tokenizer": tokenizer.identity()}
    tokenizer.save(base_dir / "tokenizer")
    save_checkpoint(base_dir / "base_checkpoints" / "d2", 1, model.state_dict(), None, meta)
    for name, (maker, _) in people.items():
        words = [
            "--source=base",
            "--mixture=none",
            f"--persona={files[name]}",
            f"--tag-out={name}",
            "--device-type=cpu",
            "--max-seq-len=64",
        ]
        words += [
            "--total-batch-size=1024",
            "--num-iterations=160",
            "--init-lr-frac=1",
            "--eval-tokens=500",
        ]
        cfg, problems = collect(
            SFTConfig, [*words, "--eval-every=-1", "--sample-every=0", "--compile=False"]
        )
        assert cfg is not None and not problems
        sft(cfg, world)
        assert name in answer(world, name, "Who are you?")
        assert maker in answer(world, name, "Who made you?")
