"""The serving process's side of an engine: requests as async streams of tokens."""

from __future__ import annotations

import asyncio
import enum
import multiprocessing
import queue
import threading
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection

from qwen3_runtime.engine.batch import FloatRows
from qwen3_runtime.engine.core import CoreStatus, EngineRequest, TokenOutput
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
        self.state = EngineState.LOADING
        self.facts: EngineFacts | None = None
        """Known once the engine is ready."""
        self.failure: str | None = None
        """Why the engine failed."""
        self.status: CoreStatus = _NOTHING

    def start(self) -> None:
        """Starts the process; ``wait_until_loaded`` says when it can serve."""
        context = multiprocessing.get_context("spawn")
        their_commands, self._commands = context.Pipe(duplex=False)
        news, their_news = context.Pipe(duplex=False)
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
        for target, argument in ((self._listen, news), (self._speak, self._commands)):
            threading.Thread(target=target, args=(argument,), daemon=True).start()

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

    async def submit(self, request: EngineRequest) -> TokenStream:
        """Queues a request and returns what comes of it, to be closed by whoever has it.

        Raises:
            RequestError: The engine cannot serve it.
            QueueFullError: Too many wait.
            EngineGoneError: The engine is not there.
        """
        self._require_ready()
        stream = TokenStream(lambda: self._forget(request.request_id))
        self._streams[request.request_id] = stream
        self._outbox.put(Add(request))
        try:
            await stream.accepted()
        except BaseException:
            stream.close()
            raise
        return stream

    async def embed(self, request_id: str, token_ids: Sequence[int]) -> FloatRows:
        """Returns the vector of a prompt, [hidden_size]; prompts take turns with steps.

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

    def _require_ready(self) -> None:
        if self.state is not EngineState.READY:
            raise EngineGoneError(
                "the engine is not there", got=self.state.value, hint=self.failure
            )

    def _forget(self, request_id: str) -> None:
        """Called when a stream is closed."""
        stream = self._streams.pop(request_id)
        if not stream.is_over and self.state is EngineState.READY:
            self._outbox.put(Abort((request_id,)))

    def _speak(self, commands: Connection) -> None:
        """Runs in a thread of its own: a pipe is full while a step takes long."""
        try:
            while (command := self._outbox.get()) is not None:
                commands.send(command)
        except OSError:
            return  # the process is gone, which the listener notices

    def _listen(self, news: Connection) -> None:
        """Runs in a thread of its own: hands news to the event loop until there are no more."""
        try:
            while True:
                self._loop.call_soon_threadsafe(self._take, news.recv())
        except (EOFError, OSError):
            message = "the engine's process is gone"
        except RuntimeError:
            return  # the event loop is closed
        try:
            self._loop.call_soon_threadsafe(self._lose, message)
        except RuntimeError:
            return

    def _take(self, news: News) -> None:
        match news:
            case Outputs(outputs, status):
                self.status = status
                for output in outputs:
                    self._deliver(output.request_id, output)
            case Accepted(request_id):
                self._deliver(request_id, None)
            case Refused(request_id, error):
                self._deliver(request_id, error)
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

    def _deliver(self, request_id: str, news: TokenOutput | RuntimeFault | None) -> None:
        stream = self._streams.get(request_id)
        if stream is not None:
            stream.put(news)

    def _settle(self, request_id: str, result: FloatRows | RuntimeFault) -> None:
        future = self._vectors.get(request_id)
        if future is None or future.done():
            return
        if isinstance(result, RuntimeFault):
            future.set_exception(result)
        else:
            future.set_result(result)

    def _lose(self, message: str) -> None:
        """The process is gone: nobody waits for what will not come."""
        if self.state is not EngineState.STOPPED:
            self.failure = self.failure or message
            self._turn(EngineState.FAILED)
        for stream in self._streams.values():
            stream.put(EngineGoneError(message))
        for request_id in list(self._vectors):
            self._settle(request_id, EngineGoneError(message))

    def _turn(self, state: EngineState) -> None:
        if self.state is not EngineState.STOPPED:
            self.state = state
        self._changed.set()
