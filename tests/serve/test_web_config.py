"""The flags of chat-web: what is refused before anything is loaded, and with which fix."""

from __future__ import annotations

import pytest

from nanochat.config import collect
from nanochat.model_spec import ModelSpec, parse_spec
from nanochat.serve.web_config import ChatWebConfig, is_loopback, read_keys


def problems(*words: str) -> list[str]:
    return collect(ChatWebConfig, list(words))[1]


def test_documented_flags():
    words = (
        "-i mid -t 0.8 -k 50 -m 512 -n 4 -p 8000 --host 127.0.0.1 -g d20 -s 700 --device-type cpu"
    ).split()
    config, wrong = collect(ChatWebConfig, words)
    assert not wrong and config.specs() == [ModelSpec("mid", "d20", 700)]
    assert (config.temperature, config.top_k, config.max_tokens, config.num_gpus) == (
        0.8,
        50,
        512,
        4,
    )
    config, wrong = collect(
        ChatWebConfig, ["--num_gpus=4", "--model", "sft:d20", "--model", "base:d4:7"]
    )
    assert not wrong and config.specs() == [ModelSpec("sft", "d20"), ModelSpec("base", "d4", 7)]
    assert collect(ChatWebConfig, [])[0].host == "127.0.0.1"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--root-path chat", "write it as /chat"),
        ("--root-path /chat/", "write it as /chat"),
        ("--oidc-issuer https://login.example.org", "needed, too"),
        ("--host 0.0.0.0 --database off", "or --api-key-file"),
        ("--host= --database off", "or --api-key-file"),
        ("--host example.org --database off", "or --api-key-file"),
        ("--host 0.0.0.0 --api-key-file nowhere.txt", "cannot be read"),
        ("-p 70000", "--port=70000: must be from 0 to 65535"),
        ("-n 0", "--num-gpus=0: must be 1 or more"),
        ("-t nan", "--temperature=nan"),
        ("-k -1", "--top-k=-1"),
        ("-m 0", "--max-tokens=0: must be 1 or more"),
        ("--time-limit-s inf", "--time-limit-s=inf"),
        ("--model sft:d20 -g d4", "leave out -g and -s"),
        ("--model d20", "write stage:tag"),
        ("--model sft:../x", "write stage:tag"),
        ("--model sft:d4 --model sft:d4", "the same one twice"),
        ("--device-type tpu", "must be cuda, cpu or mps"),
        ("-i sft2", "--source=sft2"),
    ],
)
def test_refused(words, said):
    found = problems(*words.split())
    assert any(said in problem for problem in found), found


def test_all_problems_at_once():
    assert (
        len(problems("-p", "-1", "-m", "0", "--host=0.0.0.0", "--database=off", "--model", "x"))
        == 4
    )


def test_key_files(tmp_path):
    path = tmp_path / "keys.txt"
    for text, said in (
        ("", "holds no key"),
        ("short\n", "16 or more"),
        ("spaces in a long key\n", "16 or more"),
    ):
        path.write_text(text)
        with pytest.raises(ValueError, match=said):
            read_keys(path)
        assert problems("--host", "0.0.0.0", "--api-key-file", str(path))
    path.write_bytes(b"\xff" * 20)
    with pytest.raises(ValueError, match="UTF-8"):
        read_keys(path)
    path.write_text("# Anna\nkey-of-anna-01234567\n\n  key-of-ben-012345678  \n")
    assert read_keys(path) == ["key-of-anna-01234567", "key-of-ben-012345678"]
    assert not problems("--host", "0.0.0.0", "--api-key-file", str(path))


def test_loopback():
    assert all(map(is_loopback, ("localhost", "127.0.0.1", "127.8.9.1", "::1", "[::1]")))
    assert not any(
        map(is_loopback, ("0.0.0.0", "", "::", "192.168.1.2", "127.0.0.1.example.org", "local"))
    )


def test_specs():
    assert parse_spec("rl") == ModelSpec("rl")
    with pytest.raises(ValueError, match="base, mid, sft, rl"):
        parse_spec("chat:d4")
