"""Fills the tables of the docs from what the benchmarks wrote to bench/results/.

    python -m bench.tables          writes the pages; a table whose file is missing says so

Tables stand between `<!-- table: name -->` and `<!-- end -->`; the commands above each table write
its files.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "docs" / "performance.md", ROOT / "docs" / "how-to" / "reinforcement-learning.md"]
RESULTS = ROOT / "bench" / "results"
GOALS = {"d12 bf16": "65 tokens/s", "d12 int8": "110 tokens/s", "d20 int8": "25 tokens/s"}
UNKNOWN = "not measured yet"


def read(name: str) -> dict[str, Any]:
    path = RESULTS / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(row) + " |" for row in lines).replace("|  |", "| |")


def shown(value: float | None, pattern: str = "{:.1f}") -> str:
    return UNKNOWN if value is None else pattern.format(value)


def one_stream() -> str:
    head = ["", "tokens/s", "llama.cpp", "ratio (lowest to highest round)", "MBU", "goal"]
    mbu = {(f"d{r['depth']}", r["kind"]): r["mbu"] for r in read("decode").get("decode", ())}
    rows = []
    for depth, pairs in (("d12", ("bf16:F16", "bf16:BF16", "int8:Q8_0")), ("d20", ("int8:Q8_0",))):
        results = {result["pair"]: result for result in read(f"peer_{depth}").get("results", ())}
        for pair in pairs:
            (own, peer), result = pair.split(":"), results.get(pair, {})
            name, low_high = f"{depth} {own}", result.get("ratio_range", (None, None))
            ratio = shown(result.get("ratio"), "{:.2f}")
            ratio += f" ({low_high[0]:.2f} to {low_high[1]:.2f})" if result else ""
            theirs = f"{peer}: {shown(result.get('peer_tokens_per_s'))}"
            share = shown(mbu.get((depth, own)), "{:.0%}")
            rows.append(
                [
                    name,
                    shown(result.get("ours_tokens_per_s")),
                    theirs,
                    ratio,
                    share,
                    f"{GOALS[name]}, ratio 0.9",
                ]
            )
    return table(head, rows)


def together() -> str:
    found = read("claims")

    def value(part: str, name: str, pattern: str) -> str:
        return shown(found.get(part, {}).get(name), pattern)

    turns = found.get("turns")
    ms = f", {turns['with_s'] * 1e3:.0f} against {turns['without_s'] * 1e3:.0f} ms" if turns else ""
    eight, sixteen = (
        "8 samples of one prompt, tokens/s together",
        "16 streams against one after another",
    )
    rows = [
        [f"{eight}, prompt included", value("samples", "tokens_per_s", "{:.0f}"), "400"],
        ["the same, while decoding", value("samples", "decoding", "{:.0f}"), ""],
        [f"{sixteen}, prompts included", value("streams", "ratio", "{:.1f} times"), "6 times"],
        ["the same, while decoding", value("streams", "decoding_ratio", "{:.1f} times"), ""],
        [
            "first token of turn 10, reuse against none",
            value("turns", "ratio", "{:.2f}") + ms,
            "under 0.25",
        ],
    ]
    return table(["d12 bf16", "measured", "goal"], rows)


def quality() -> str:
    found = read("quality").get("quality", {}).get("bits_per_byte", {})
    rows = []
    for kind in ("fp32", "bf16", "int8"):
        against = f"{found[kind] / found['fp32'] - 1:+.3%}" if found else ""
        rows.append(
            [
                kind,
                shown(found.get(kind), "{:.4f}"),
                against,
                "at most +0.2%" if kind == "int8" else "",
            ]
        )
    return table(["weights", "bits per byte", "against fp32", "goal"], rows)


def curve() -> str:
    head = ["clients", "tokens/s", "ms to first token, p50 / p99", "ms between tokens, p50 / p99"]
    rows = []
    for level in read("serve_d12").get("levels", ()):
        pairs = [
            f"{shown(level[name]['p50'] * 1e3, '{:.0f}')} / "
            f"{shown(level[name]['p99'] * 1e3, '{:.0f}')}"
            for name in ("first_token_s", "between_tokens_s")
        ]
        rows.append([str(level["clients"]), shown(level["tokens_per_s"]), *pairs])
    return table(head, rows or [[UNKNOWN, "", "", ""]])


def load() -> str:
    found = read("load")
    if not found:
        return table(["200 clients, 60 s", ""], [["answers", UNKNOWN]])
    rows = [["answers finished, clients vanished", f"{found['finished']}, {found['vanished']}"]]
    rows += [["tokens/s", shown(found["tokens_per_s"])]]
    rows += [["growth of memory from the second third on", f"{found['memory_mb']['growth']} MB"]]
    rows += [[name, "yes" if held else "**no**"] for name, held in found["checks"].items()]
    return table(
        [f"{found['settings']['clients']} clients, {found['settings']['seconds']:.0f} s", ""], rows
    )


def gpu() -> str:
    head = ["d20 bf16", "CUDA graphs: tokens/s", "MBU", "fused first", "MBU", "without graphs"]
    ways = [
        {r["streams"]: r for r in read(f"gpu_d20{way}").get("results", ())}
        for way in ("", "_compiled", "_plain")
    ]
    rows = []
    for streams in (1, 8, 32, 128):
        graphs, fused, plain = (way.get(streams, {}) for way in ways)
        cells = [shown(graphs.get("tokens_per_s")), shown(graphs.get("mbu"), "{:.0%}")]
        cells += [shown(fused.get("tokens_per_s")), shown(fused.get("mbu"), "{:.0%}")]
        rows.append([f"{streams} streams", *cells, shown(plain.get("tokens_per_s"))])
    return table(head, rows)


def rl_gain() -> str:
    found, rows = read("rl_gain"), []
    for name, result in found.items():
        scores = result if name == "before" else result.get("after")
        if scores:
            cells = [
                f"{s['score']:.3f} [{s['low']:.3f}, {s['high']:.3f}]"
                for s in map(scores.get, ("greedy", "sampled"))
            ]
            rows.append([name, *cells, f"{result['wall_s']:.0f} s" if "wall_s" in result else ""])
    return table(["", "right, greedy", "right, sampled", "took"], rows or [[UNKNOWN, "", "", ""]])


TABLES: dict[str, Callable[[], str]] = {
    "one stream": one_stream,
    "together": together,
    "quality": quality,
    "curve": curve,
    "load": load,
    "gpu": gpu,
    "rl gain": rl_gain,
}


def filled(text: str) -> str:
    """The page with every table made anew. KeyError for a table that nobody makes."""
    pattern = re.compile(r"(<!-- table: ([\w ]+) -->\n).*?(<!-- end -->)", re.DOTALL)
    return pattern.sub(lambda found: f"{found[1]}\n{TABLES[found[2]]()}\n\n{found[3]}", text)


if __name__ == "__main__":
    for page in PAGES:
        page.write_text(filled(page.read_text(encoding="utf-8")), encoding="utf-8")
