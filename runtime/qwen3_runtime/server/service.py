"""Routes beside the answers: models, tokens, health, metrics, version."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import APIRouter
from fastapi.responses import JSONResponse, PlainTextResponse, Response

from qwen3_runtime.engine.prefill import check_ids
from qwen3_runtime.server.errors import ApiError
from qwen3_runtime.server.metrics import Metrics
from qwen3_runtime.server.model import ServedModel
from qwen3_runtime.server.protocol import DetokenizeRequest, TokenizeRequest
from qwen3_runtime.server.wire import JsonResponse

__all__ = ["service_router"]


def service_router(model: ServedModel, metrics: Metrics) -> APIRouter:
    """Returns the routes."""
    router = APIRouter()
    _add_models(router, model)
    _add_tokens(router, model)
    _add_health(router, model, metrics)
    return router


def _add_models(router: APIRouter, model: ServedModel) -> None:
    def entry(name: str) -> dict[str, Any]:
        facts = model.client.facts
        return {
            "id": name,
            "object": "model",
            "created": model.created,
            "owned_by": "qwen3-codegen",
            "max_model_len": facts.max_model_len if facts else None,
        }

    @router.get("/v1/models", tags=["models"])
    @router.get("/models", tags=["models"])
    async def list_models() -> dict[str, Any]:
        return {"object": "list", "data": [entry(name) for name in model.settings.model_names]}

    @router.get("/v1/models/{name:path}", tags=["models"])
    async def retrieve_model(name: str) -> dict[str, Any]:
        return entry(model.check_name(name))


def _add_tokens(router: APIRouter, model: ServedModel) -> None:
    @router.post("/tokenize", tags=["tokens"])
    @router.post("/v1/tokenize", tags=["tokens"])
    async def tokenize(body: TokenizeRequest) -> Response:
        model.check_name(body.model)
        if (body.prompt is None) == (body.messages is None):
            raise ApiError(400, "give either a prompt or messages")
        if body.messages is not None:
            rendered = await model.render_chat(
                body.messages,
                template_arguments=body.chat_template_kwargs,
                add_generation_prompt=body.add_generation_prompt,
            )
            ids = rendered.token_ids
        else:
            assert body.prompt is not None
            ids = await model.encode(body.prompt, add_special_tokens=body.add_special_tokens)
        # Given as a dict, it would be looked through number by number, while all streams wait.
        return JsonResponse(
            {"tokens": ids, "count": len(ids), "max_model_len": model.facts.max_model_len}
        )

    @router.post("/detokenize", tags=["tokens"])
    @router.post("/v1/detokenize", tags=["tokens"])
    async def detokenize(body: DetokenizeRequest) -> dict[str, Any]:
        model.check_name(body.model)
        tokenizer = model.need_tokenizer()
        vocab_size = model.facts.vocab_size

        def decode() -> str:
            ids = check_ids(body.tokens, vocab_size, "tokens") if body.tokens else []
            return tokenizer.decode(ids, skip_special_tokens=False)

        return {"prompt": await asyncio.to_thread(decode)}


def _add_health(router: APIRouter, model: ServedModel, metrics: Metrics) -> None:
    @router.api_route("/health", methods=["GET", "HEAD"], tags=["service"])
    async def health() -> Response:
        state = model.client.state.value
        facts, status = model.client.facts, model.client.status
        body: dict[str, Any] = {
            "status": "draining" if model.is_draining else state,
            "model": model.settings.model_names[0],
            "num_requests_running": status.num_running,
            "num_requests_waiting": status.num_waiting,
        }
        if facts is not None:
            body["engine"] = {
                **facts.description,
                "max_model_len": facts.max_model_len,
                "max_num_seqs": facts.max_num_seqs,
                "kv_cache_bytes": facts.kv_cache_bytes,
            }
        is_ready = state == "ready" and not model.is_draining
        return JSONResponse(body, 200 if is_ready else 503)

    @router.get("/metrics", tags=["service"], response_class=PlainTextResponse)
    async def prometheus() -> Response:
        return Response(metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    @router.get("/version", tags=["service"])
    async def version() -> dict[str, str]:
        return {"version": model.settings.version}
