"""metrics.jsonl after a resume: the rows of steps that are done again go, all others stay."""

from __future__ import annotations

import json

from nanochat.train.run_folder import rewind_metrics


def test_rows_stay_whatever_stands_in_their_strings(tmp_path):
    path = tmp_path / "metrics.jsonl"
    rows = [{"step": i, "sample": "a\u2028b\u2029c\x85d\x0ce"} for i in range(5)]
    written = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    path.write_text(written + '{"step": 9', encoding="utf-8")
    assert rewind_metrics(path, 3) == rows[:4]
    assert rewind_metrics(path, 3) == rows[:4], "what was written back reads the same"
