"""The terminal chat: what is read, what is shown, how it ends."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys

import pytest
import torch
from pseudo_terminal import ROOT, Terminal

from nanochat import cli
from nanochat import config as configs
from nanochat.checkpoint_manager import load_checkpoint, save_checkpoint
from nanochat.engine import Engine
from nanochat.engine.finite import NonFiniteLogits
from nanochat.engine.quantize import Int8Linear
from nanochat.gpt import GPT, GPTConfig
from nanochat.runtime.world import World
from nanochat.serve.terminal import HELP, ChatCLIConfig, TerminalChat, chat_cli
from nanochat.tokenizer import Tokenizer

CPU = torch.device("cpu")


@pytest.fixture
def engine() -> Engine:
    tokenizer = Tokenizer.byte_level()
    model = GPT(
        GPTConfig(
            sequence_len=256,
            vocab_size=tokenizer.get_vocab_size(),
            n_layer=2,
            n_head=2,
            n_kv_head=2,
            n_embd=32,
        )
    )
    model.init_weights(0)
    with torch.no_grad():
        model.lm_head.weight.normal_(generator=torch.Generator().manual_seed(0))
        model.lm_head.weight[256:] = 0  # keep to plain bytes: the answers run to max_tokens
    return Engine(model, tokenizer, native=False)


def converse(engine: Engine, lines: list, **settings) -> tuple[str, TerminalChat]:
    shown: list[str] = []
    queue = list(lines)

    def read(prompt: str) -> str:
        shown.append(prompt)
        if not queue:
            raise EOFError
        line = queue.pop(0)
        if isinstance(line, BaseException):
            raise line
        return line

    chat = TerminalChat(
        engine, ChatCLIConfig(**{"max_tokens": 8, "seed": 0, **settings}), read, shown.append
    )
    chat.run()
    return "".join(shown), chat


def test_several_turns_then_quit(engine):
    shown, chat = converse(engine, ["hello", "", "again", "QUIT", "never read"])
    assert (
        shown.startswith(HELP) and shown.count("Assistant: ") == 2 and shown.endswith("Goodbye.\n")
    )
    assert len(chat.session.turns) == 2


@pytest.mark.parametrize("last", ["exit", EOFError(), KeyboardInterrupt()])
def test_ways_to_leave(engine, last):
    assert converse(engine, ["hi", last])[0].endswith("Goodbye.\n")


def test_clear_forgets(engine):
    shown, chat = converse(engine, ["hello", "clear", "hello"])
    assert "starts over" in shown and len(chat.session.turns) == 1
    first, second = (part.split("\n")[0] for part in shown.split("Assistant: ")[1:])
    assert first == second, "after `clear` the model answers as if it had heard nothing"


def test_one_prompt_prints_one_answer(engine):
    shown, chat = converse(engine, [], prompt="hello", temperature=0.0)
    assert HELP not in shown and "User:" not in shown and "Assistant:" not in shown
    assert len(chat.session.turns) == 1


def test_base_completes_text(engine):
    shown, chat = converse(engine, [], prompt="The capital of", source="base", temperature=0.0)
    tokenizer = engine.tokenizer
    prompt = [tokenizer.get_bos_token_id(), *tokenizer.encode("The capital of")]
    ids = engine.generate_batch(prompt, max_tokens=8, temperature=0.0)[0][0]
    assert shown.startswith(tokenizer.decode(ids[15:])) and chat.session.turns == []


def test_full_context_and_limits_are_said(engine):
    shown, _ = converse(engine, ["x" * 90, "y" * 90, "z" * 90, "w" * 300])
    assert "the oldest turn was forgotten" in shown
    assert "(max_tokens=8 reached)" in shown
    assert "takes 304 tokens, the context has room for 248" in shown


def test_ctrl_c_stops_the_answer_only(engine):
    chat_lines: list[str] = []

    def write(text: str) -> None:
        chat_lines.append(text)
        if len(chat_lines) == 3:
            os.kill(os.getpid(), signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    chat = TerminalChat(engine, ChatCLIConfig(max_tokens=100, temperature=0.0), write=write)
    chat.answer("hello")
    assert "(stopped)" in chat_lines[-1] and len(chat_lines) < 20
    assert signal.getsignal(signal.SIGINT) is before
    assert 1 <= len(chat.session.turns[0].answer) < 20
    chat_lines[:] = [""] * 10
    chat.answer("still there?")
    assert len(chat.session.turns) == 2


def test_calls_are_shown_in_brackets(engine, scripted):
    encode, special = engine.tokenizer.encode, engine.tokenizer.encode_special
    call = [special("<|python_start|>"), *encode("6*7"), special("<|python_end|>")]
    forced = [0] * 4  # the result, which the calculator writes
    scripted(
        engine, [*encode("6*7="), *call, *forced, *encode("42!"), special("<|assistant_end|>")]
    )
    shown, _ = converse(engine, ["what is 6*7?"], max_tokens=50, temperature=0.0)
    assert "Assistant: 6*7=[6*7 = 42] 42!\n" in shown


STEERING = {
    "\x1b[2J\x1b]0;title\x07": "\\x1b[2J\\x1b]0;title\\x07",  # clear the screen, set the title
    "\x9b31m\x90q\x9c": "\\x9b31m\\x90q\\x9c",  # the same in one byte
    "a\rb\bc\x7f\x00": "a\\rb\\x08c\\x7f\\x00",  # write over what is there
    "\u202eabc\u2066\u2069": "\\u202eabc\\u2066\\u2069",  # turn the direction of writing
    "\u2028\u2029\x85": "\\u2028\\u2029\\x85",
    ":smile: [red]x[/red]\n\té漢😀": ":smile: [red]x[/red]\n\té漢😀",
}


@pytest.mark.parametrize("written", STEERING)
def test_what_a_model_writes_does_not_steer_the_terminal(engine, scripted, written):
    ids = [*engine.tokenizer.encode(written), engine.tokenizer.encode_special("<|assistant_end|>")]
    scripted(engine, ids)
    shown, _ = converse(engine, ["hi"], max_tokens=80, temperature=0.0)
    assert f"Assistant: {STEERING[written]}\n" in shown
    scripted(engine, ids)
    shown, _ = converse(engine, [f"<{written}>"], source="base", max_tokens=80, temperature=0.0)
    assert f"<{STEERING[written]}>{STEERING[written]}\n" in shown
    assert not set(shown) & set("\x1b\x07\x9b\x90\r\b\x7f\x00\u202e\u2066\u2028\u2029\x85")


def test_what_cannot_be_read_is_not_the_end(engine):
    broken = UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte")
    shown, chat = converse(engine, [broken, "hello"])
    assert "(this is not text in utf-8)" in shown and len(chat.session.turns) == 1


@pytest.mark.parametrize(
    "settings", [{}, {"prompt": "hi"}, {"temperature": 1.0}, {"source": "base"}]
)
def test_a_model_of_no_use_ends_the_conversation(engine, settings):
    with torch.no_grad():
        engine.model.lm_head.weight.fill_(float("nan"))
    with pytest.raises(NonFiniteLogits, match="not finite"):
        converse(engine, ["hello", "again"], **settings)


def test_a_checkpoint_of_no_use_is_named_in_one_line(checkpoint, capsys):
    """Its weights are numbers, as else it is not even loaded, but too large to compute with."""
    state, _, meta = load_checkpoint(checkpoint, 10, CPU)
    large = {name: torch.full_like(tensor, 3e38) for name, tensor in state.items()}
    save_checkpoint(checkpoint, 20, large, None, meta)
    with pytest.raises(SystemExit) as ended:
        cli.main(["chat-cli", "-p", "hi", "--device-type=cpu"])
    assert ended.value.code == 2
    (error,) = [line for line in capsys.readouterr().err.splitlines() if "warning" not in line]
    assert error.startswith("error: ") and "model_000020.pt" in error and "not finite" in error


@pytest.fixture
def command(checkpoint) -> list[str]:
    return ["-m", "nanochat", "chat-cli", "--device-type=cpu", "-m", "8", "-t", "0"]


def test_a_conversation_in_a_real_terminal(command):
    terminal = Terminal(*command, PYTHONIOENCODING="ascii")
    terminal.asked("User: ")
    terminal.paste("clear\nquit\nand é")
    terminal.send("\r")
    terminal.wait("reached")
    terminal.asked("User: ")
    assert terminal.shown.count("Assistant: ") == 1
    assert "conversation starts over" not in terminal.shown
    terminal.send("quit\r")
    assert terminal.end() == 0 and "Goodbye." in terminal.shown


def test_what_is_piped_in_is_one_message(command):
    env = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "ascii"}
    words = [sys.executable, *command]
    done = subprocess.run(words, input="one\ntwo é\n".encode(), capture_output=True, env=env)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(b"(max_tokens=8 reached)") == 1
    assert b"User:" not in done.stdout and b"Assistant:" not in done.stdout


@pytest.mark.parametrize("piped", ["", "quit\n"])
def test_no_message_is_piped_in(piped, capsys, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO(piped))
    chat_cli(ChatCLIConfig(), World(0, 0, 1, CPU))
    assert capsys.readouterr().out == "(standard input holds no message)\n"


def test_a_prompt_leaves_what_is_piped_in_alone(checkpoint, capsys, monkeypatch):
    """Whoever starts it may never close the pipe."""
    monkeypatch.setattr(sys, "stdin", None)
    chat_cli(ChatCLIConfig(prompt="hi", max_tokens=8, temperature=0.0), World(0, 0, 1, CPU))
    assert "(max_tokens=8 reached)" in capsys.readouterr().out


@pytest.mark.parametrize("int8", [True, False])
def test_int8_weights_answer_too(checkpoint, capsys, monkeypatch, int8):
    engines = []
    monkeypatch.setattr(
        "nanochat.serve.terminal.Engine", lambda *a: engines.append(Engine(*a)) or engines[-1]
    )
    chat_cli(
        ChatCLIConfig(prompt="hello", max_tokens=6, temperature=0.0, int8=int8), World(0, 0, 1, CPU)
    )
    assert isinstance(engines[0].model.lm_head, Int8Linear) == int8
    assert len(capsys.readouterr().out.splitlines()[1]) == 6


def test_flags_and_their_errors(capsys):
    words = [
        "-i",
        "base",
        "-p",
        "hi",
        "-t",
        "0",
        "-k",
        "0",
        "-g",
        "d4",
        "-s",
        "7",
        "--device-type",
        "cpu",
    ]
    parsed = configs.parse(ChatCLIConfig, words)
    assert parsed == ChatCLIConfig("base", "hi", 0.0, 0, model_tag="d4", step=7, device_type="cpu")
    assert parsed.sampling().greedy
    assert ChatCLIConfig().temperature == 0.6 and ChatCLIConfig().top_k == 50
    with pytest.raises(SystemExit):
        configs.parse(
            ChatCLIConfig, ["-t", "-1", "-k", "-2", "--max-tokens", "0", "--device-type", "tpu"]
        )
    message = capsys.readouterr().err
    for part in ("temperature=-1", "top_k=-2", "max-tokens=0", "device-type=tpu"):
        assert part in message
