"""The engine's process: loads, then steps for as long as requests are in flight."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Protocol

from qwen3_runtime.engine.batch import Engine, FloatRows
from qwen3_runtime.engine.core import EngineCore, EngineRequest
from qwen3_runtime.errors import EngineError, RequestError, RuntimeFault
from qwen3_runtime.sampling.grammar import GrammarCompiler
from qwen3_runtime.serving.messages import (
    Abort,
    Accepted,
    Add,
    Command,
    Embed,
    Embedded,
    EngineFacts,
    Failed,
    News,
    Outputs,
    Progress,
    Ready,
    Refused,
    Stop,
)

__all__ = ["EngineLoader", "LoadedEngine", "run_engine"]

_STATUS_SECONDS = 0.25
"""Longest time without a word about how busy the engine is, while it is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedEngine:
    """What a loader gives."""

    engine: Engine
    facts: EngineFacts
    compile_grammar: GrammarCompiler | None = None
    embed: Embedder | None = None


class Embedder(Protocol):
    """Makes vectors of prompts."""

    def __call__(self, token_ids: Sequence[int], /) -> FloatRows:
        """Returns the vector of a prompt, [hidden_size], of length 1.

        Raises:
            RuntimeFault: It cannot be made.
        """


class EngineLoader(Protocol):
    """Loads an engine in the engine's process; must be picklable."""

    def __call__(self, notify: Callable[[str], None], /) -> LoadedEngine:
        """Loads the engine, telling ``notify`` what it is at.

        Raises:
            Exception: It cannot be loaded; its text is shown to the user.
        """


def run_engine(
    load: EngineLoader, commands: Connection, news: Connection, max_queue: int | None
) -> None:
    """Runs until told to stop, or until the serving process is gone.

    Args:
        load: Loads the engine.
        commands: Gives ``Command``.
        news: Takes ``News``.
        max_queue: Most requests that wait for a place.
    """
    # Ctrl-C reaches the whole group of processes; what is to end is the serving process's business.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        try:
            loaded = load(lambda text: news.send(Progress(text)))
        except Exception as error:
            news.send(Failed(str(error) or type(error).__name__))
            return
        core = EngineCore(
            loaded.engine, max_queue=max_queue, compile_grammar=loaded.compile_grammar
        )
        news.send(Ready(loaded.facts))
        _Loop(core, loaded.embed, commands, news).run()
        _check_books(core)
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return  # nobody is there to serve


def _check_books(core: EngineCore) -> None:
    """Ends the process with 1 where a block or a request was lost on the way.

    A leak slows a server down over days until nothing fits; whoever ends it should hear of it.
    """
    try:
        core.check_integrity()
    except AssertionError as error:
        print(
            f"error: the engine lost account of its cache; please report this: {error!r}",
            file=sys.stderr,
            flush=True,
        )
        sys.exit(1)


@dataclass(slots=True)
class _Loop:
    core: EngineCore
    embed: Embedder | None
    commands: Connection
    news: Connection
    last_status: float = 0.0

    def run(self) -> None:
        while True:
            # Sleeps where there is nothing to do, looks up between steps where there is.
            while self.commands.poll(0 if self.core.has_work else None):
                command: Command = self.commands.recv()
                if isinstance(command, Stop):
                    return
                self._carry_out(command)
            self._step()

    def _carry_out(self, command: Add | Abort | Embed) -> None:
        match command:
            case Add(request):
                self._tell(self._answer_to(request))
            case Abort(request_ids):
                self.core.abort(request_ids)
                self._tell(Outputs((), self.core.status))
            case Embed(request_id, token_ids):
                self._tell(self._vector_of(request_id, token_ids))

    def _answer_to(self, request: EngineRequest) -> Accepted | Refused:
        try:
            self.core.add(request)
        except RuntimeFault as error:
            return Refused(request.request_id, error)
        except Exception as error:  # one request must not end the process of all
            fault = EngineError(
                "a request cannot be queued", got=f"{type(error).__name__}: {error}"
            )
            return Refused(request.request_id, fault)
        return Accepted(request.request_id)

    def _vector_of(self, request_id: str, token_ids: tuple[int, ...]) -> Embedded | Refused:
        try:
            if self.embed is None:
                raise RequestError("this engine makes no vectors")
            return Embedded(request_id, self.embed(token_ids))
        except RuntimeFault as error:
            return Refused(request_id, error)
        except Exception as error:
            got = f"{type(error).__name__}: {error}"
            return Refused(request_id, EngineError("a prompt cannot be embedded", got=got))

    def _step(self) -> None:
        outputs = self.core.step()
        now = time.monotonic()
        if outputs or now - self.last_status >= _STATUS_SECONDS:
            self.last_status = now
            self._tell(Outputs(tuple(outputs), self.core.status))

    def _tell(self, news: News) -> None:
        self.news.send(news)
