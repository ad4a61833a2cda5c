"""What comes of the requests behind one call, token by token."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence

from qwen3_runtime.engine.core import TokenOutput
from qwen3_runtime.errors import RuntimeFault

__all__ = ["TokenStream"]


class TokenStream:
    """Outputs of one or several requests, in the order they came.

    One await gives all that has come, whichever request it is of: small models give a token every
    few milliseconds, on processors that the serving process shares with the engine.

    Args:
        request_ids: Of the requests; outputs come with their places in it.
        on_leave: Told which requests nobody listens to from now on, and whether the engine still
            works on them.
    """

    def __init__(self, request_ids: Sequence[str], on_leave: Callable[[str, bool], None]) -> None:
        self._index = {request_id: index for index, request_id in enumerate(request_ids)}
        self._unanswered = set(request_ids)
        self._running = set(request_ids)
        self._on_leave = on_leave
        self._news: list[tuple[int, TokenOutput]] = []
        self._fault: RuntimeFault | None = None
        self._is_nudged = False
        self._waiter: asyncio.Future[None] | None = None

    # ---- the engine's side --------------------------------------------------------------------

    def accept(self, request_id: str) -> None:
        """Notes that a request was queued."""
        self._unanswered.discard(request_id)
        self._wake()

    def put(self, output: TokenOutput) -> None:
        """Adds what a step gave."""
        if output.error is not None:
            self.fail([output.request_id], output.error)
            return
        if output.finish_reason is not None:
            self._running.discard(output.request_id)
        self._news.append((self._index[output.request_id], output))
        self._wake()

    def fail(self, request_ids: Iterable[str], fault: RuntimeFault) -> None:
        """Notes that requests will give nothing more; the first fault is the stream's."""
        self._running.difference_update(request_ids)
        self._fault = self._fault or fault
        self._wake()

    # ---- the reader's side --------------------------------------------------------------------

    async def accepted(self) -> None:
        """Returns once all requests are queued; raises why one is not."""
        while self._unanswered and self._fault is None:
            await self._wait()
        if self._fault is not None:
            raise self._fault

    async def take(self) -> list[tuple[int, TokenOutput]]:
        """Returns what has come since the last call, or [] when it was nudged while nothing came.

        Raises:
            RuntimeFault: Nothing more will come; all that came before was returned.
        """
        while not self._news and not self._is_nudged:
            if self._fault is not None:
                raise self._fault
            await self._wait()
        self._is_nudged = False
        news, self._news = self._news, []
        return news

    def nudge(self) -> None:
        """Makes ``take`` return, for a reader who has something else to do."""
        self._is_nudged = True
        self._wake()

    def leave(self, index: int) -> None:
        """Ends the engine's work on one of the requests; what comes of it is dropped."""
        for request_id, own in list(self._index.items()):
            if own == index:
                self._leave(request_id)

    def close(self) -> None:
        """Ends the engine's work on all of them; a second time does nothing."""
        for request_id in list(self._index):
            self._leave(request_id)

    def _leave(self, request_id: str) -> None:
        del self._index[request_id]
        self._on_leave(request_id, request_id in self._running)
        self._running.discard(request_id)

    async def _wait(self) -> None:
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
