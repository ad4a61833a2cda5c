"""The serving process's side of an engine: requests as async streams of tokens."""

from __future__ import annotations

import asyncio
import enum
import multiprocessing
import threading
from collections.abc import AsyncGenerator, Callable
from multiprocessing.connection import Connection

from qwen3_runtime.engine.core import CoreStatus, EngineRequest, TokenOutput
from qwen3_runtime.errors import EngineError, RuntimeFault
from qwen3_runtime.serving.messages import (
    Abort,
    Add,
    Command,
    EngineFacts,
    Failed,
    News,
    Outputs,
    Progress,
    Ready,
    Refused,
    Stop,
)
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
        self._streams: dict[str, asyncio.Queue[TokenOutput | RuntimeFault]] = {}
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
        threading.Thread(target=self._listen, args=(news,), name="news", daemon=True).start()

    @property
    def pid(self) -> int | None:
        """Process id of the engine."""
        return self._process.pid

    async def wait_until_loaded(self) -> None:
        """Returns when the engine can serve.

        Raises:
            EngineError: It cannot be loaded; the message says why.
        """
        while self.state is EngineState.LOADING:
            self._changed.clear()
            await self._changed.wait()
        self._require_ready()

    async def generate(self, request: EngineRequest) -> AsyncGenerator[TokenOutput, None]:
        """Yields what every step gives a request; leaving early ends its work.

        Raises:
            RequestError: The engine cannot serve it.
            QueueFullError: Too many wait.
            EngineError: The engine is not there, or a step failed.
        """
        self._require_ready()
        stream: asyncio.Queue[TokenOutput | RuntimeFault] = asyncio.Queue()
        self._streams[request.request_id] = stream
        self._send(Add(request))
        is_over = False
        try:
            while not is_over:
                output = await stream.get()
                is_over = isinstance(output, RuntimeFault) or output.finish_reason is not None
                if isinstance(output, RuntimeFault):
                    raise output
                if output.error is not None:
                    raise output.error
                yield output
        finally:
            del self._streams[request.request_id]
            if not is_over and self.state is EngineState.READY:
                self._send(Abort((request.request_id,)))

    async def stop(self) -> None:
        """Ends the engine's process; streams that still run end with an error."""
        if self.state in (EngineState.LOADING, EngineState.READY):
            self.state = EngineState.STOPPED
            self._send(Stop())
        await asyncio.to_thread(self._process.join, _EXIT_SECONDS)
        if self._process.is_alive():
            self._process.kill()
            await asyncio.to_thread(self._process.join)

    def _require_ready(self) -> None:
        if self.state is not EngineState.READY:
            raise EngineError(
                "the engine is not there",
                got=self.state.value,
                hint=self.failure,
            )

    def _send(self, command: Command) -> None:
        try:
            self._commands.send(command)
        except (BrokenPipeError, OSError):
            self._lose("the engine's process is gone")

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
            case Refused(request_id, error):
                self._deliver(request_id, error)
            case Progress(text):
                if self._on_progress is not None:
                    self._on_progress(text)
            case Ready(facts):
                self.facts = facts
                self._turn(EngineState.READY)
            case Failed(message):
                self.failure = message
                self._turn(EngineState.FAILED)

    def _deliver(self, request_id: str, output: TokenOutput | RuntimeFault) -> None:
        stream = self._streams.get(request_id)
        if stream is not None:
            stream.put_nowait(output)

    def _lose(self, message: str) -> None:
        """The process is gone: nobody waits for what will not come."""
        if self.state is not EngineState.STOPPED:
            self.failure = self.failure or message
            self._turn(EngineState.FAILED)
        for stream in self._streams.values():
            stream.put_nowait(EngineError(message))

    def _turn(self, state: EngineState) -> None:
        if self.state is not EngineState.STOPPED:
            self.state = state
        self._changed.set()
