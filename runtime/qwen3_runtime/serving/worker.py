"""The engine's process: loads, then steps for as long as requests are in flight."""

from __future__ import annotations

import signal
import sys
import threading
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


class _Loop:
    """Steps the engine, and carries out commands between steps."""

    def __init__(
        self, core: EngineCore, embed: Embedder | None, commands: Connection, news: Connection
    ) -> None:
        self._core = core
        self._commands = commands
        self._news = news
        self._lock = threading.Lock()
        self._last_status = 0.0
        self._vectors = _Vectors(embed, self._tell)

    def run(self) -> None:
        while True:
            # Sleeps where there is nothing to do, looks up between steps where there is.
            while self._commands.poll(0 if self._core.has_work else None):
                command: Command = self._commands.recv()
                if isinstance(command, Stop):
                    return
                self._carry_out(command)
            self._step()

    def _carry_out(self, command: Add | Abort | Embed) -> None:
        match command:
            case Add(request):
                self._tell(self._answer_to(request))
            case Abort(request_ids):
                self._vectors.drop(request_ids)
                self._core.abort(request_ids)
                self._tell(Outputs((), self._core.status))
            case Embed():
                self._vectors.add(command)

    def _answer_to(self, request: EngineRequest) -> Accepted | Refused:
        try:
            self._core.add(request)
        except RuntimeFault as error:
            return Refused(request.request_id, error)
        except Exception as error:  # one request must not end the process of all
            fault = EngineError(
                "a request cannot be queued", got=f"{type(error).__name__}: {error}"
            )
            return Refused(request.request_id, fault)
        return Accepted(request.request_id)

    def _step(self) -> None:
        outputs = self._core.step()
        now = time.monotonic()
        if outputs or now - self._last_status >= _STATUS_SECONDS:
            self._last_status = now
            self._tell(Outputs(tuple(outputs), self._core.status))

    def _tell(self, news: News) -> None:
        with self._lock:  # vectors come from a thread of their own
            self._news.send(news)


class _Vectors:
    """Makes vectors one after another, in a thread beside the steps, which share the processors.

    Between steps they would hold up every stream for as long as a prompt takes.
    """

    def __init__(self, embed: Embedder | None, tell: Callable[[News], None]) -> None:
        self._embed = embed
        self._tell = tell
        self._wanted: dict[str, Embed] = {}
        self._changed = threading.Condition()
        if embed is not None:
            threading.Thread(target=self._run, name="vectors", daemon=True).start()

    def add(self, wish: Embed) -> None:
        """Queues a prompt."""
        if self._embed is None:
            self._tell(Refused(wish.request_id, RequestError("this engine makes no vectors")))
            return
        with self._changed:
            self._wanted[wish.request_id] = wish
            self._changed.notify()

    def drop(self, request_ids: Sequence[str]) -> None:
        """Takes prompts out whose turn has not come."""
        with self._changed:
            for request_id in request_ids:
                self._wanted.pop(request_id, None)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._wanted)
                wish = self._wanted.pop(next(iter(self._wanted)))
            try:
                self._tell(self._vector_of(wish))
            except OSError:
                return  # nobody is there to serve

    def _vector_of(self, wish: Embed) -> Embedded | Refused:
        assert self._embed is not None
        try:
            return Embedded(wish.request_id, self._embed(wish.token_ids))
        except RuntimeFault as error:
            return Refused(wish.request_id, error)
        except Exception as error:
            got = f"{type(error).__name__}: {error}"
            return Refused(wish.request_id, EngineError("a prompt cannot be embedded", got=got))
