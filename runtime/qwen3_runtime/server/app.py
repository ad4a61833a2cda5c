"""The application: routes, guards and the engine's life, put together."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware

from qwen3_runtime.server.chat import chat_router
from qwen3_runtime.server.completions import completion_router
from qwen3_runtime.server.embeddings import embedding_router
from qwen3_runtime.server.errors import install_handlers
from qwen3_runtime.server.guards import Guards
from qwen3_runtime.server.messages import messages_router
from qwen3_runtime.server.metrics import Metrics
from qwen3_runtime.server.model import ServedModel
from qwen3_runtime.server.page import page_router
from qwen3_runtime.server.responses import responses_router
from qwen3_runtime.server.service import service_router

__all__ = ["create_app"]


def create_app(model: ServedModel) -> FastAPI:
    """Returns the ASGI application; its start starts the engine, its end ends it."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        model.client.start()
        try:
            yield
        finally:
            await asyncio.shield(model.client.stop())

    app = FastAPI(
        title="qwen3-codegen",
        description="OpenAI-compatible API of one model",
        version=model.settings.version or "0",
        lifespan=lifespan,
    )
    metrics = Metrics(model.client)
    install_handlers(app)
    app.include_router(chat_router(model, metrics))
    app.include_router(messages_router(model, metrics))
    app.include_router(responses_router(model, metrics))
    app.include_router(completion_router(model, metrics))
    app.include_router(embedding_router(model))
    app.include_router(service_router(model, metrics))
    app.include_router(page_router())
    app.add_middleware(Guards, model=model)
    if model.settings.allowed_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(model.settings.allowed_origins),
            allow_methods=["GET", "POST", "OPTIONS"],
            allow_headers=["*"],
            expose_headers=["X-Request-Id"],
        )
    return app
