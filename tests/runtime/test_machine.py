"""The record of machine and code."""

from __future__ import annotations

import json

from nanochat.runtime import machine


def test_environment_is_json_and_works_outside_git(tmp_path, monkeypatch):
    env = json.loads(json.dumps(machine.environment()))
    assert env["cores"] >= 1 and env["torch"] and env["memory_bytes"] > 1e8 and env["cpu"]
    monkeypatch.setattr(machine, "ROOT", tmp_path)
    env = machine.environment()
    assert env["git_commit"] is None and env["git_dirty"] is None and machine.code_version()
