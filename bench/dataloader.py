"""Tokens per second of the loader on one thread: `python bench/dataloader.py SHARD.parquet ...
[--vocab_size 8192]`.
"""

from __future__ import annotations

import argparse
import time
from itertools import islice

from nanochat.dataloader import PackedLoader, ShardDocuments
from nanochat.tokenizer import Tokenizer


def measure(
    documents: ShardDocuments, tokenizer: Tokenizer, rows: int, seq_len: int, steps: int
) -> dict[str, float]:
    """tokens/s without prefetch, and how the rows look: <|bos|> per row and the share of targets
    with weight.
    """
    options = {
        "rows_per_step": rows,
        "seq_len": seq_len,
        "device_batch_size": 32,
        "prefetch": False,
    }
    loader = PackedLoader(documents, tokenizer, **options)
    start = time.perf_counter()
    loader.next_step()
    first_s = time.perf_counter() - start
    bos, weight, count = 0, 0.0, 0
    start = time.perf_counter()
    for _ in range(steps):
        for batch in loader.next_step():
            bos += int((batch.input_ids == tokenizer.get_bos_token_id()).sum())
            weight += float(batch.weights.sum())
            count += batch.targets.numel()
    seconds = time.perf_counter() - start
    return {
        "first_step_s": first_s,
        "tokens_per_s": count / seconds,
        "bos_per_row": bos * seq_len / count,
        "trained": weight / count,
    }


def main() -> None:
    """Train a vocabulary on the first documents, then measure two common shapes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("shards", nargs="+")
    parser.add_argument("--vocab_size", type=int, default=8192)
    arguments = parser.parse_args()
    documents = ShardDocuments(arguments.shards)
    sample = islice((documents.raw(i) for i in range(len(documents))), 3000)
    tokenizer = Tokenizer.train(sample, arguments.vocab_size)
    for rows, seq_len, steps in ((16, 512, 200), (64, 2048, 20)):
        result = measure(documents, tokenizer, rows, seq_len, steps)
        print(
            f"{rows} x {seq_len}: "
            + ", ".join(f"{name} {value:,.2f}" for name, value in result.items())
        )


if __name__ == "__main__":
    main()
