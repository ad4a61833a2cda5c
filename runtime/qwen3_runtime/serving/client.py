"""The serving process's side of an engine: requests as async streams of tokens."""

from __future__ import annotations

import asyncio
import enum
import multiprocessing
import queue
import signal
import threading
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection

from qwen3_runtime.engine.batch import FloatRows
from qwen3_runtime.engine.core import CoreStatus, EngineRequest
from qwen3_runtime.errors import EngineGoneError, QueueFullError, RuntimeFault
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
from qwen3_runtime.serving.stream import TokenStream
from qwen3_runtime.serving.worker import EngineLoader, run_engine

__all__ = ["EngineClient", "EngineState"]

_NOTHING = CoreStatus(
    num_running=0, num_waiting=0, num_blocks=0, num_free_blocks=0, num_preemptions=0
)
_EXIT_SECONDS = 5.0


class EngineState(enum.Enum):
    """What an engine's process is at."""

    LOADING = "loading"
    READY = "ready"
    FAILED = "failed"
    """It could not be loaded, or its process is gone."""
    STOPPED = "stopped"


class EngineClient:
    """Starts an engine in a process of its own and speaks with it.

    All methods are for the event loop that called ``start``.

    Args:
        load: Loads the engine, there.
        max_queue: Most requests that wait for a place; more are refused.
        on_progress: Told what loading is at.
    """

    def __init__(
        self,
        load: EngineLoader,
        *,
        max_queue: int | None = None,
        on_progress: Callable[[str], None] | None = None,
    ) -> None:
        self._load = load
        self._max_queue = max_queue
        self._on_progress = on_progress
        self._streams: dict[str, TokenStream] = {}
        self._vectors: dict[str, asyncio.Future[FloatRows]] = {}
        self._outbox: queue.SimpleQueue[Command | None] = queue.SimpleQueue()
        self._changed = asyncio.Event()
        self._news: Connection | None = None
        self.state = EngineState.LOADING
        self.facts: EngineFacts | None = None
        """Known once the engine is ready."""
        self.failure: str | None = None
        """Why the engine failed."""
        self.status: CoreStatus = _NOTHING

    def start(self) -> None:
        """Starts the process; ``wait_until_loaded`` says when it can serve."""
        context = multiprocessing.get_context("spawn")
        their_commands, commands = context.Pipe(duplex=False)
        self._news, their_news = context.Pipe(duplex=False)
        self._process = context.Process(
            target=run_engine,
            args=(self._load, their_commands, their_news, self._max_queue),
            name="engine",
            daemon=True,
        )
        self._process.start()
        their_commands.close()
        their_news.close()
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._news.fileno(), self._listen, self._news)
        threading.Thread(target=self._speak, args=(commands,), daemon=True).start()

    @property
    def pid(self) -> int | None:
        """Process id of the engine."""
        return self._process.pid

    async def wait_until_loaded(self) -> None:
        """Returns when the engine can serve.

        Raises:
            EngineGoneError: It cannot be loaded; the message says why.
        """
        while self.state is EngineState.LOADING:
            self._changed.clear()
            await self._changed.wait()
        self._require_ready()

    async def wait_until_gone(self) -> None:
        """Waits until a loaded engine is stopped.

        Raises:
            EngineGoneError: Its process ended by itself; the message says how.
        """
        while self.state is EngineState.READY:
            self._changed.clear()
            await self._changed.wait()
        if self.state is EngineState.FAILED:
            await asyncio.to_thread(self._process.join, _EXIT_SECONDS)
            self.failure = f"{self.failure}; {_end_of(self._process.exitcode)}"
            raise EngineGoneError(self.failure)

    async def submit(self, requests: Sequence[EngineRequest]) -> TokenStream:
        """Queues requests, all or none, and returns what comes of them.

        The stream is to be closed by whoever has it.

        Raises:
            RequestError: The engine cannot serve one.
            QueueFullError: Too many wait.
            EngineGoneError: The engine is not there.
        """
        self._require_ready()
        stream = TokenStream([request.request_id for request in requests], self._forget)
        for request in requests:
            self._streams[request.request_id] = stream
            self._outbox.put(Add(request))
        try:
            await stream.accepted()
        except BaseException:
            stream.close()
            raise
        return stream

    async def embed(self, request_id: str, token_ids: Sequence[int]) -> FloatRows:
        """Returns the vector of a prompt, [hidden_size]; prompts take turns with each other.

        Raises:
            RequestError: The engine cannot serve it.
            QueueFullError: Too many wait.
            EngineError: The engine is not there, or failed.
        """
        self._require_ready()
        if self._max_queue is not None and len(self._vectors) >= self._max_queue:
            raise QueueFullError("too many prompts wait", got=len(self._vectors))
        vector: asyncio.Future[FloatRows] = self._loop.create_future()
        self._vectors[request_id] = vector
        try:
            self._outbox.put(Embed(request_id, tuple(token_ids)))
            return await vector
        finally:
            del self._vectors[request_id]
            if not vector.done() or vector.cancelled():
                self._outbox.put(Abort((request_id,)))

    async def stop(self) -> None:
        """Ends the engine's process; streams that still run end with an error."""
        if self.state in (EngineState.LOADING, EngineState.READY):
            self.state = EngineState.STOPPED
            self._outbox.put(Stop())
        self._outbox.put(None)
        await asyncio.to_thread(self._process.join, _EXIT_SECONDS)
        if self._process.is_alive():
            self._process.kill()
            await asyncio.to_thread(self._process.join)
        self._hang_up()
        self._lose("the engine was stopped")

    def give_up(self) -> None:
        """Ends what is on its way with an error, because nobody is to wait for it any longer."""
        self._lose("the server is ending")

    def _require_ready(self) -> None:
        if self.state is not EngineState.READY:
            raise EngineGoneError(
                "the engine is not there", got=self.state.value, hint=self.failure
            )

    def _forget(self, request_id: str, is_running: bool) -> None:
        """Called when nobody listens to a request any more."""
        del self._streams[request_id]
        if is_running and self.state is EngineState.READY:
            self._outbox.put(Abort((request_id,)))

    def _speak(self, commands: Connection) -> None:
        """Runs in a thread of its own: a pipe is full while a step takes long."""
        try:
            while (command := self._outbox.get()) is not None:
                commands.send(command)
        except OSError:
            return  # the process is gone, which the listener notices

    def _listen(self, news: Connection) -> None:
        """Called when there is something to read.

        Reading in the event loop, rather than in a thread that wakes it, saves a switch of threads
        for each step. It waits for the rest of a message that is longer than a pipe holds, which
        the engine's process is just writing.
        """
        try:
            received: News = news.recv()
        except (EOFError, OSError):
            self._hang_up()
            message = "the engine's process is gone"
            if self.state is not EngineState.STOPPED:
                self.failure = self.failure or message
                self._turn(EngineState.FAILED)
            self._lose(message)
            return
        self._take(received)

    def _hang_up(self) -> None:
        if self._news is not None:
            self._loop.remove_reader(self._news.fileno())
            self._news.close()
            self._news = None

    def _take(self, news: News) -> None:
        match news:
            case Outputs(outputs, status):
                self.status = status
                for output in outputs:
                    stream = self._streams.get(output.request_id)
                    if stream is not None:
                        stream.put(output)
            case Accepted(request_id):
                if request_id in self._streams:
                    self._streams[request_id].accept(request_id)
            case Refused(request_id, error):
                if request_id in self._streams:
                    self._streams[request_id].fail([request_id], error)
                self._settle(request_id, error)
            case Embedded(request_id, vector):
                self._settle(request_id, vector)
            case Progress(text):
                if self._on_progress is not None:
                    self._on_progress(text)
            case Ready(facts):
                self.facts = facts
                self._turn(EngineState.READY)
            case Failed(message):
                self.failure = message
                self._turn(EngineState.FAILED)

    def _settle(self, request_id: str, result: FloatRows | RuntimeFault) -> None:
        future = self._vectors.get(request_id)
        if future is None or future.done():
            return
        if isinstance(result, RuntimeFault):
            future.set_exception(result)
        else:
            future.set_result(result)

    def _lose(self, message: str) -> None:
        """Nobody waits for what will not come."""
        for request_id, stream in self._streams.items():
            stream.fail([request_id], EngineGoneError(message))
        for request_id in list(self._vectors):
            self._settle(request_id, EngineGoneError(message))

    def _turn(self, state: EngineState) -> None:
        if self.state is not EngineState.STOPPED:
            self.state = state
        self._changed.set()


def _end_of(exit_code: int | None) -> str:
    if exit_code is None:
        return "it does not end"
    if exit_code >= 0:
        return f"it ended with {exit_code}"
    name = signal.Signals(-exit_code).name
    hint = " (out of memory? the kernel's log says so)" if name == "SIGKILL" else ""
    return f"it was ended by {name}{hint}"
