"""``POST /v1/embeddings``: texts or token ids in, vectors out."""

from __future__ import annotations

import base64
import uuid
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response

from qwen3_runtime.engine.batch import FloatRows
from qwen3_runtime.engine.prefill import check_ids
from qwen3_runtime.server.errors import ApiError
from qwen3_runtime.server.model import ServedModel
from qwen3_runtime.server.prompts import prompt_list
from qwen3_runtime.server.protocol import EmbeddingRequest
from qwen3_runtime.server.streams import unless_disconnected
from qwen3_runtime.server.wire import JsonResponse

__all__ = ["embedding_router"]

_MAX_INPUTS = 2048
"""As OpenAI's; they are made one after another."""


def embedding_router(model: ServedModel) -> APIRouter:
    """Returns the routes of vectors."""
    router = APIRouter(tags=["embeddings"])

    @router.post("/v1/embeddings")
    @router.post("/embeddings")
    async def create_embedding(body: EmbeddingRequest, request: Request) -> Response:
        work = _embeddings(model, body)
        return JsonResponse(
            await unless_disconnected(request, work, model.settings.request_seconds)
        )

    return router


async def _embeddings(model: ServedModel, body: EmbeddingRequest) -> dict[str, Any]:
    name = model.check_name(body.model)
    facts = model.facts
    if not facts.can_embed:
        raise ApiError(
            400,
            "this server makes no embeddings; it does when it is started with --enable-embeddings",
            code="embeddings_not_enabled",
        )
    if body.dimensions is not None:
        raise ApiError(
            400, "vectors have the model's own size; leave dimensions out", param="dimensions"
        )
    prompts = []
    for index, prompt in enumerate(prompt_list(body.input, "input", _MAX_INPUTS)):
        ids = await model.encode(prompt) if isinstance(prompt, str) else prompt
        prompts.append(check_ids(ids, facts.vocab_size, f"input[{index}]"))
        if len(ids) > facts.max_model_len:
            raise ApiError(
                400,
                f"This model's maximum context length is {facts.max_model_len} tokens. However, "
                f"input {index} has {len(ids)} tokens.",
                param="input",
                code="context_length_exceeded",
            )
    vectors = [await model.client.embed(f"vector-{uuid.uuid4().hex}", prompt) for prompt in prompts]
    as_text = body.encoding_format == "base64"
    num_tokens = sum(map(len, prompts))
    return {
        "object": "list",
        "data": [
            {
                "object": "embedding",
                "index": index,
                "embedding": _base64(vector) if as_text else vector.tolist(),
            }
            for index, vector in enumerate(vectors)
        ],
        "model": name,
        "usage": {"prompt_tokens": num_tokens, "total_tokens": num_tokens},
    }


def _base64(vector: FloatRows) -> str:
    """Little-endian float32, as OpenAI's."""
    return base64.b64encode(vector.astype("<f4").tobytes()).decode("ascii")
