"""Talk to a model in the terminal: streaming, several turns, the calculator shown as it is used.

What a person types goes to `keyboard.py`; what a model writes is shown without its control
characters, which would steer the terminal.
"""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Generator
from dataclasses import dataclass, replace
from types import FrameType
from typing import Annotated, Literal

from nanochat.checkpoint_manager import load_model, weights_path
from nanochat.config import Short
from nanochat.engine import ChatSession, Engine, Event, SamplingParams
from nanochat.engine.finite import NonFiniteLogits, checkpoint_named
from nanochat.engine.quantize import quantize_int8
from nanochat.runtime.printable import printable
from nanochat.runtime.world import World
from nanochat.serve.database_chat import RUN, DatabaseChat
from nanochat.serve.keyboard import LEAVE, read_message, read_piped
from nanochat.tokenizer.chat_prompt import answer_room

HELP = (
    "Type or paste a message. `clear` starts over, `quit` or `exit` leaves, Ctrl+C stops an answer."
)
DIM, PLAIN = "\033[2m", "\033[0m"
MARKS = 4  # tokens around a message


@dataclass
class ChatCLIConfig:
    """Chat with a trained model in the terminal. `-i base` completes text instead of answering.
    What is piped in is one message: `nanochat chat-cli < question.txt`."""

    source: Annotated[Literal["sft", "mid", "base", "rl"], Short("-i")] = "sft"
    """Stage whose checkpoint answers."""
    prompt: Annotated[str | None, Short("-p")] = None
    """Answer this one prompt and exit."""
    temperature: Annotated[float, Short("-t")] = 0.6
    """0 always takes the likeliest token."""
    top_k: Annotated[int | None, Short("-k")] = 50
    """Draw from the k likeliest tokens only (0: from all)."""
    max_tokens: Annotated[int, Short("-m")] = 512
    """Longest answer, in tokens."""
    model_tag: Annotated[str | None, Short("-g")] = None
    """Which model (default: the deepest)."""
    step: Annotated[int | None, Short("-s")] = None
    """Which checkpoint (default: the newest)."""
    seed: int | None = None
    """Makes the answers repeatable."""
    device_type: str | None = None
    """cuda, cpu or mps (default: the best there is)."""
    sql: str | None = None
    """Ask this database: sqlite:///FILE, duckdb:///FILE, clickhouse:///FOLDER,
    postgresql://USER@HOST/NAME or a file. It is only read; a proposed query runs when you say so.
    """
    knowledge: str | None = None
    """Folder of definitions, pages and past queries; the few that fit a question are put before
    it.
    """
    int8: bool = False
    """Weights as 8-bit whole numbers: half the memory, up to twice the decoding speed."""

    def problems(self) -> list[str]:
        problems = []
        if self.device_type not in (None, "", "cuda", "cpu", "mps"):
            problems.append(f"--device-type={self.device_type}: must be cuda, cpu or mps")
        if self.max_tokens < 1:
            problems.append(f"--max-tokens={self.max_tokens}: must be 1 or more")
        if self.source == "base" and (self.sql or self.knowledge):
            problems.append("--sql, --knowledge: a base model completes text; use -i sft")
        try:
            self.sampling()
        except ValueError as error:
            problems += [
                f"--{reason}"
                for reason in str(error).split("; ")
                if not reason.startswith("max_tokens")
            ]
        return problems

    def sampling(self) -> SamplingParams:
        """What the flags mean for the engine. ValueError when they do not fit."""
        return SamplingParams(
            temperature=self.temperature,
            top_k=self.top_k,
            seed=self.seed,
            max_tokens=self.max_tokens,
        )


def chat_cli(config: ChatCLIConfig, world: World) -> None:
    """Load the model that `config` names and talk to it until the person leaves, or answer the one
    message that is piped in.
    """
    if config.prompt is None:
        config = replace(config, prompt=read_piped())
        if config.prompt == "":
            print("(standard input holds no message)")
            return
    tag, step = config.model_tag, config.step
    model, tokenizer, meta = load_model(
        config.source, world.device, phase="eval", model_tag=tag, step=step
    )
    if config.int8:
        quantize_int8(model)
    with checkpoint_named(weights_path(meta)):
        TerminalChat(Engine(model, tokenizer), config).run()


class TerminalChat:
    """The conversation loop. `read` asks for a message and raises EOFError at the end; `write`
    shows text at once.
    """

    def __init__(
        self,
        engine: Engine,
        config: ChatCLIConfig,
        read: Callable[[str], str] | None = None,
        write: Callable[[str], None] | None = None,
    ) -> None:
        self.engine = engine
        self.config = config
        self.read = read or read_message
        self.write = write or write_now
        self.colour = write is None and sys.stdout.isatty()
        self.session = ChatSession(engine, params=config.sampling())
        asked = config.sql or config.knowledge
        self.desk = DatabaseChat(config.sql, config.knowledge, self._fits) if asked else None

    def _fits(self, text: str) -> bool:
        """Whether a message leaves room for an answer."""
        n_tokens = len(self.engine.tokenizer.encode(text)) + MARKS
        context = self.engine.context
        return n_tokens <= context - answer_room(context, self.config.max_tokens)

    def run(self) -> None:
        """One answer to `config.prompt`, or the loop."""
        if self.config.prompt is not None:
            self.answer(self.config.prompt)
            return
        self.write(HELP + "\n")
        while True:
            try:
                text = self.read("\nUser: ").strip()
            except (EOFError, KeyboardInterrupt):
                self.write("\nGoodbye.\n")
                return
            except UnicodeDecodeError as error:
                self.write(f"(this is not text in {error.encoding})\n")
                continue
            if text.lower() in LEAVE:
                self.write("Goodbye.\n")
                return
            if text.lower() == "clear":
                self.session.clear()
                self.write("The conversation starts over.\n")
            elif text.lower() == RUN and self.desk is not None and self.desk.database is not None:
                self.write(self.desk.run() + "\n")
            elif text:
                self.answer(text)

    def answer(self, text: str) -> None:
        """Stream the answer to one message, and say what a person should know about how it ended.
        ValueError when there is none; in a conversation that is said, too, and it goes on, unless
        the model is of no use (NonFiniteLogits).
        """
        try:
            self._answer(text)
        except NonFiniteLogits:
            raise
        except ValueError as error:
            if self.config.prompt is not None:  # scripts look at the exit code
                raise
            self.write(f"({printable(str(error))})\n")

    def _answer(self, text: str) -> None:
        talking = self.config.prompt is None
        if self.config.source == "base":
            events = self._completion(text)
            if talking:
                self.write(printable(text, keep="\n"))
        elif self.desk is not None:
            self._ask_desk(self.desk, text)
            return
        else:
            events = self._asked(text)
        self._say(events)

    def _asked(self, text: str) -> Generator[Event, None, None]:
        """The answer to one more message of the conversation."""
        events = self.session.ask(text)
        if dropped := self.session.dropped_turns:
            turns = "turn was" if dropped == 1 else f"{dropped} turns were"
            self.write(f"(the context is full: the oldest {turns} forgotten)\n")
        if self.config.prompt is None:
            self.write("\nAssistant: ")
        return events

    def _say(self, events: Generator[Event, None, None]) -> str:
        """Write an answer as it comes, and how it ended where that is worth saying -> its text."""
        try:
            text, detail = self._show(events)
        finally:
            self.write("\n")
        if detail:
            self.write(f"({detail})\n")
        return text

    def _ask_desk(self, desk: DatabaseChat, question: str) -> None:
        """Answer a question about a database: each is a conversation of its own, as in training.
        An answer that the gate does not let through is asked for once more, with the reason.
        """
        self.session.clear()
        desk.proposed = ""
        answer = self._say(self._asked(desk.prompt(question)))
        if desk.database is None:
            return
        from nanochat.sql.answer_gate import correction, gated  # which needs the extra [sql]

        verdict = gated(answer, desk.dialect, desk.columns)
        if verdict.reason:
            self.write(f"({printable(verdict.reason)}; asking once more)\n")
            answer = self._say(self._asked(correction(desk.dialect, verdict.reason)))
            verdict = gated(answer, desk.dialect, desk.columns)
        desk.proposed = verdict.query
        if verdict.reason:
            self.write(f"(no valid answer: {printable(verdict.reason)})\n")
        elif self.config.prompt is None:
            self.write(f"(`{RUN}` runs it)\n")

    def _completion(self, text: str) -> Generator[Event, None, None]:
        ids = self.engine.tokenizer.encode(text, prepend=self.engine.tokenizer.get_bos_token_id())
        return self.engine.stream(ids, self.config.sampling())

    def _show(self, events: Generator[Event, None, None]) -> tuple[str, str]:
        """Write the events' text as it comes -> what was answered, and why that ended, if it is
        worth saying.
        """
        kind, detail, said = "text", "", ""
        with NoticingInterrupt() as interrupt:
            for event in events:
                for piece in event.pieces:
                    if piece.kind != kind:
                        self.write(self._border(kind, piece.kind))
                        kind = piece.kind
                    self.write(printable(piece.text, keep="\n"))
                    said += piece.text if piece.kind == "text" else ""
                detail = event.finish_detail if event.finish_reason == "length" else ""
                if interrupt.is_set():
                    detail = "stopped"
                    break
            events.close()
        if kind != "text":
            self.write(self._border(kind, "text"))
        return said, detail

    def _border(self, old: str, new: str) -> str:
        """What goes between answer, call and result: `[12*3 = 36] `, dimmed on a terminal."""
        dim, plain = (DIM, PLAIN) if self.colour else ("", "")
        if new == "text":
            return f"]{plain} "
        return " = " if old == "python" else f"{dim}["


def write_now(text: str) -> None:
    print(text, end="", flush=True)


class NoticingInterrupt:
    """Within the block Ctrl+C sets an event instead of breaking into the middle of a step; a second
    one breaks.
    """

    def __enter__(self) -> threading.Event:
        self._event, self._old = threading.Event(), None
        if threading.current_thread() is threading.main_thread():
            self._old = signal.signal(signal.SIGINT, self._pressed)
        return self._event

    def _pressed(self, number: int, frame: FrameType | None) -> None:
        if self._event.is_set():
            raise KeyboardInterrupt
        self._event.set()

    def __exit__(self, *exc: object) -> None:
        if self._old is not None:
            signal.signal(signal.SIGINT, self._old)
