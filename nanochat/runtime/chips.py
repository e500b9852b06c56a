"""What is publicly known of common GPUs: memory, dense peak, a rough price. First guesses for plans
and reports.
"""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Chip:
    """One GPU. `tflops`: dense 16-bit peak with fp32 sums (None: not in the table); `usd`: of an
    hour.
    """

    name: str
    usd: float
    memory_gb: float | None = None
    tflops: float | None = None
    mfu: float = 0.4  # share of the peak that training reaches: a guess until measured


# Dollars for one GPU-hour are rounded from public on-demand prices of several clouds in 2025: a
# first idea only, --hourly-rate gives the real one. The first name that a GPU's name contains
# counts, so longer ones come first.
CHIPS = (
    Chip("RTX PRO 6000", 1.9, 96, 504),
    Chip("RTX 6000 Ada", 0.8, 48, 364),
    Chip("RTX A6000", 0.5, 48, 155),
    Chip("A100-SXM4-80GB", 1.8, 80, 312),
    Chip("A100 80GB", 1.8, 80, 312),
    Chip("MI355X", 4.0, 288, 2500, 0.3),
    Chip("MI325X", 3.0, 256, 1307, 0.3),
    Chip("MI300X", 2.5, 192, 1307, 0.3),
    Chip("MI250X", 1.5, 64, 191, 0.3),  # one of the two dies, which systems show as two GPUs
    Chip("GH200", 1.5, 96, 989),
    Chip("GB200", 6.0, 186, 2450),
    Chip("B200", 5.0, 180, 2250),
    Chip("H200", 3.5, 141, 989),
    Chip("H100", 3.0, 80, 989),
    Chip("H800", 3.0, 80, 989),
    Chip("H20", 1.5, 96, 148),
    Chip("A100", 1.3, 40, 312),
    Chip("A800", 1.3, 80, 312),
    Chip("L40S", 1.0, 48, 362),
    Chip("L40", 0.9, 48, 181),
    Chip("A40", 0.5, 48, 150),
    Chip("A10", 0.7, 24, 125),
    Chip("L4", 0.7, 24, 121, 0.3),
    Chip("V100", 0.6, 16, 112, 0.25),
    Chip("T4", 0.4, 16, 65, 0.2),
    Chip("5090", 0.7, 32, 210),
    Chip("4090", 0.4, 24, 165),
    Chip("3090", 0.25, 24, 71),
    Chip("A30", 0.4, 24, 165),  # as a 4090, but rarer: behind it, so that 24 GB means that one
)


def find_chip(name: str) -> Chip | None:
    """The table's row for a GPU's full name, None when it is not there."""
    for chip in CHIPS:
        if re.search(rf"(?<![a-z0-9]){re.escape(chip.name)}(?![0-9])", name, re.IGNORECASE):
            return chip
    return None


def gpu_rate(name: str) -> float | None:
    """Rough US dollars for an hour of the named GPU, None when it is not in the table."""
    chip = find_chip(name)
    return None if chip is None else chip.usd
