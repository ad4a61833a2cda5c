"""What comes of one request, token by token."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from qwen3_runtime.engine.core import TokenOutput
from qwen3_runtime.errors import RuntimeFault

__all__ = ["TokenStream"]


class TokenStream:
    """An async iterator; closing it early ends the engine's work.

    Args:
        on_close: Called once, when it is closed.
    """

    def __init__(self, on_close: Callable[[], None]) -> None:
        self._news: asyncio.Queue[TokenOutput | RuntimeFault | None] = asyncio.Queue()
        self._on_close: Callable[[], None] | None = on_close
        self.is_over = False
        """Whether the engine has nothing more to say."""

    def put(self, news: TokenOutput | RuntimeFault | None) -> None:
        """Adds what the engine says; None is that the request was queued."""
        self._news.put_nowait(news)

    async def accepted(self) -> None:
        """Returns once the request is queued; raises why it is not."""
        await self._next()

    def close(self) -> None:
        """Ends it, whatever state it is in; a second time does nothing."""
        on_close, self._on_close = self._on_close, None
        if on_close is not None:
            on_close()

    def __aiter__(self) -> TokenStream:
        return self

    async def __anext__(self) -> TokenOutput:
        if self.is_over:
            raise StopAsyncIteration
        output = await self._next()
        assert output is not None, "a request is queued once"
        self.is_over = output.finish_reason is not None
        if output.error is not None:
            raise output.error
        return output

    async def _next(self) -> TokenOutput | None:
        news = await self._news.get()
        if isinstance(news, RuntimeFault):
            self.is_over = True
            raise news
        return news
