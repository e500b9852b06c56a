"""An upload ends in a complete repository whatever happens in between, and holds nothing secret."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import signal
import time

import pytest
import torch
from fake_hub import FakeHub
from tiny_checkpoint import save_tiny, tiny_tokenizer

from nanochat.checkpoint_manager import read_meta, write_meta
from nanochat.exchange.model_card import model_card
from nanochat.exchange.pull import PullConfig, pull
from nanochat.exchange.push import PushConfig, push
from nanochat.exchange.secrets import LEFT_OUT, without_secrets
from nanochat.exchange.stored_model import open_stored
from nanochat.model_spec import ModelSpec

huggingface_hub = pytest.importorskip("huggingface_hub")
constants = pytest.importorskip("huggingface_hub.constants")
REPO = "me/model"
COMPLETE = {
    "README.md",
    "meta_000007.json",
    "model_000007.pt",
    "tokenizer/token_bytes.pt",
    "tokenizer/tokenizer.json",
}


@pytest.fixture
def hub(monkeypatch):
    fake = FakeHub()
    monkeypatch.setenv("HF_ENDPOINT", fake.url)
    monkeypatch.setenv("HF_TOKEN", "hf_" + "a" * 30)
    monkeypatch.delenv("HF_HUB_OFFLINE")
    # Read when the library was imported: its own second protocol and the switch of the tests.
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    huggingface_hub.close_session()  # a client made before would still think so
    yield fake
    fake.close()


def config(**changes) -> PushConfig:
    return PushConfig(model="sft:d3", repo=REPO, wait_s=0, license="mit", **changes)


def test_what_is_uploaded_can_be_pulled(hub, capsys):
    folder = save_tiny()
    state = torch.load(folder / "model_000007.pt", weights_only=True)
    assert push(config()) == f"{hub.url}/{REPO}"
    assert set(hub.repos[REPO]) == COMPLETE
    assert hub.private[REPO]
    card = hub.repos[REPO]["README.md"].decode()
    assert "license: mit" in card and f"nanochat pull {REPO} --as sft:d3" in card
    again = pull(PullConfig(source=REPO, target="sft:again"))
    back = torch.load(again / "model_000007.pt", weights_only=True)
    assert all(back[name].equal(tensor) for name, tensor in state.items())
    capsys.readouterr()
    push(config())  # nothing large is sent twice
    assert sum(request.startswith("PUT") for request in hub.requests) == 1


def test_ten_interruptions_at_random_instants_end_in_a_complete_repository(hub, capsys):
    save_tiny()
    chance = random.Random(5)
    context = multiprocessing.get_context("fork")
    torch.set_num_threads(1)
    killed = 0
    for _ in range(10):
        child = context.Process(target=push, args=(config(),))
        child.start()
        n_seen = len(hub.requests)
        wait_for = chance.randrange(0, 9)
        until = time.monotonic() + 20
        while child.is_alive() and len(hub.requests) < n_seen + wait_for:
            assert time.monotonic() < until
            time.sleep(0.001)
        time.sleep(chance.random() * 0.01)
        killed += child.is_alive()
        if child.is_alive():
            os.kill(child.pid, signal.SIGKILL)
        child.join()
        # A repository is complete or has nothing yet: the commit comes last.
        assert set(hub.repos.get(REPO, {})) in (set(), COMPLETE)
    assert killed >= 5
    push(config())
    assert set(hub.repos[REPO]) == COMPLETE
    torch.load(pull(PullConfig(source=REPO, target="sft:x")) / "model_000007.pt")


def test_connections_that_break_are_tried_again(hub):
    save_tiny()
    seen: dict[str, int] = {}

    def first_two(method, path):
        if "resolve" in path or method == "GET":
            return False
        seen[path] = seen.get(path, 0) + 1
        return seen[path] <= 2

    hub.fail = first_two
    push(config())
    assert set(hub.repos[REPO]) == COMPLETE and len(seen) >= 5


def test_a_hub_that_stays_away_is_one_line(hub):
    save_tiny()
    hub.fail = lambda method, path: True
    with pytest.raises(ValueError, match="the upload broke off .* run the command again"):
        push(config())
    hub.fail = lambda method, path: False
    hub.listing = lambda repo: {"id": repo, "sha": "c0ffee", "siblings": [], "tags": []}
    with pytest.raises(ValueError, match="not complete on the hub: README.md, meta_000007.json"):
        push(config())


# --- secrets

TOKEN = "hf_" + "AbCdEfGhIj" * 3


def test_a_card_and_a_meta_file_with_somebodys_token_are_cleaned(hub, capsys):
    folder = save_tiny()
    meta = read_meta(folder, 7)
    meta["user_config"] = {"run": TOKEN, "eval_tokens": 5, "url": "https://me:pw@host/x"}
    meta["mixture"] = [{"name": f"rows of {TOKEN}", "rows": 3}]
    write_meta(folder, 7, meta)
    push(config())
    everything = b"".join(hub.repos[REPO].values())
    assert TOKEN.encode() not in everything and b"me:pw@" not in everything
    said = capsys.readouterr().out
    assert "looks like a secret: user_config.run" in said and TOKEN not in said
    sent = json.loads(hub.repos[REPO]["meta_000007.json"])
    assert sent["user_config"] == {"run": LEFT_OUT, "eval_tokens": 5, "url": LEFT_OUT}
    assert LEFT_OUT in hub.repos[REPO]["README.md"].decode()


@pytest.mark.parametrize(
    "name, value",
    [
        ("anything", "sk-proj-" + "x" * 24),
        ("anything", "ghp_" + "x" * 36),
        ("anything", "github_pat_" + "x" * 30),
        ("anything", "AKIA" + "A" * 16),
        ("anything", "prefix hf_" + "x" * 20 + " suffix"),
        ("anything", "eyJhbGciOiJI.eyJzdWIiOiIx.SflKxwRJ"),
        ("anything", "postgres://user:word@host/db"),
        ("anything", "Bearer abcdefghijklmnop"),
        ("anything", "-----BEGIN RSA PRIVATE KEY-----"),
        ("run", "0123456789abcdef0123456789abcdef01234567"),
        ("wandb_api_key", "short"),
        ("HF_TOKEN", "short"),
        ("password", "short"),
        ("aws-secret-access-key", "short"),
    ],
)
def test_what_looks_like_a_secret(name, value):
    cleaned, found = without_secrets({"a": [{name: value}]})
    assert cleaned == {"a": [{name: LEFT_OUT}]} and found == [f"a.{name}"]


@pytest.mark.parametrize(
    "content",
    [
        {"code_version": "0123456789abcdef0123456789abcdef01234567"},
        {"tokenizer": "20bf8d4f" * 8, "files": {"model_000007.pt": {"sha256": "ab" * 32}}},
        {"eval_tokens": 262144, "run": "dummy", "total_batch_size": None, "bos_token": "<|bos|>"},
        {"data": {"shard_00000.parquet": "b4bd4f4655dd58d8"}, "password": "", "keys": 3},
    ],
)
def test_what_does_not(content):
    assert without_secrets(content) == (content, [])


def test_a_secret_for_a_key_is_not_told_either():
    cleaned, found = without_secrets({"a": {TOKEN: 1}})
    assert cleaned == {"a": {LEFT_OUT: 1}} and found == ["a"]


# --- the card and the flags


def test_the_card_tells_what_the_checkpoint_says_of_itself(hub):
    folder = save_tiny()
    meta = read_meta(folder, 7)
    meta |= {
        "val_bpb": 0.5,
        "metrics": {"tokens": 123456, "train_s": 7200},
        "mixture": [{"name": "SmolTalk", "rows": 100, "sha256": "abcd"}],
    }
    write_meta(folder, 7, meta)
    scores = {"GSM8K": {"score": 0.25, "low": 0.2, "high": 0.3, "n": 400}}
    (folder / "chat_eval_000007.json").write_text(json.dumps({"tasks": scores}))
    card = model_card(open_stored(ModelSpec("sft", "d3", 7)), "native", repo=REPO)
    for said in (
        "supervised finetuning | 7 | 123,456 | 2.00",
        "SmolTalk (rows 100, sha256 abcd)",
        "| GSM8K | 0.2500 | 0.2000 to 0.3000 | 400 |",
        "0.5000 bits per byte",
    ):
        assert said in card
    assert "license" not in card  # nobody has said it


def test_the_licence_is_never_guessed(hub, capsys):
    save_tiny()
    push(PushConfig(model="sft:d3", repo=REPO, wait_s=0))
    assert "nobody said which; add --license=NAME" in capsys.readouterr().out
    assert b"license" not in hub.repos[REPO]["README.md"]


@pytest.mark.parametrize(
    "changes, said",
    [
        ({"repo": "model"}, "write a repository as owner/name"),
        ({"layouts": ("hf", "hf-stock")}, "but not both"),
        ({"layouts": ()}, "name at least one"),
        ({"license": "my own: words\n"}, "use the hub's name for it"),
        ({"model": "d20"}, "write stage:tag"),
        ({"wait_s": -1.0}, "must be 0 or more"),
    ],
)
def test_flags_that_do_not_fit(changes, said):
    cfg = PushConfig(**{"model": "sft:d3", "repo": REPO, **changes})
    assert [said in problem for problem in cfg.problems()] == [True]


def test_offline_is_said_at_once(monkeypatch):
    with pytest.raises(ValueError, match="HF_HUB_OFFLINE is set"):
        push(config())
    assert tiny_tokenizer().get_vocab_size() == 340
