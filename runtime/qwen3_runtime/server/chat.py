"""``POST /v1/chat/completions``: a conversation in, its next turn out."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response

from qwen3_runtime.chat import AnswerDelta, AnswerParser, answer_parser
from qwen3_runtime.sampling import MAX_LOGPROBS, TokenLogprobs
from qwen3_runtime.sampling.grammar import GrammarSpec
from qwen3_runtime.server.errors import ApiError
from qwen3_runtime.server.generation import Answers, AnswerWish, submit_answers
from qwen3_runtime.server.logprobs import chat_logprobs, prompt_logprobs
from qwen3_runtime.server.metrics import Metrics
from qwen3_runtime.server.model import ServedModel
from qwen3_runtime.server.params import num_choices, sampling_params
from qwen3_runtime.server.pieces import TextPiece
from qwen3_runtime.server.protocol import ChatCompletionRequest
from qwen3_runtime.server.streams import respond
from qwen3_runtime.server.thoughts import Thought, thought_of
from qwen3_runtime.server.tools import ToolWish, tool_wish
from qwen3_runtime.server.usage import Usage
from qwen3_runtime.structured import GRAMMAR_FIELDS, grammar_of_tools, grammar_of_wishes

__all__ = ["chat_router"]


def chat_router(model: ServedModel, metrics: Metrics) -> APIRouter:
    """Returns the routes of chats."""
    router = APIRouter(tags=["chat"])

    @router.post("/v1/chat/completions")
    @router.post("/chat/completions")
    async def create_chat_completion(body: ChatCompletionRequest, request: Request) -> Response:
        completion, answers = await _prepare(model, metrics, body)
        seconds = model.settings.request_seconds
        return await respond(
            request, completion, answers, stream=bool(body.stream), seconds=seconds
        )

    return router


async def _prepare(
    model: ServedModel, metrics: Metrics, body: ChatCompletionRequest
) -> tuple[_ChatCompletion, Answers]:
    """Everything that can be wrong with a request is found here, before an answer begins."""
    name = model.check_name(body.model)
    model.facts  # noqa: B018 - raises while there is no engine
    count = num_choices(body, model.settings.max_choices)
    tools = tool_wish(body)
    num_top = _num_top_logprobs(body)
    limit = _token_limit(body)
    rendered = await model.render_chat(
        body.messages,
        tools=list(tools.tools) or None,
        template_arguments=body.chat_template_kwargs,
        add_generation_prompt=body.add_generation_prompt is not False,
    )
    thought = await thought_of(model, rendered.text)
    params = sampling_params(
        body,
        model.default_params if thought.may_come else model.default_params_without_thinking,
        max_tokens=limit,
        logprobs=num_top if body.logprobs else None,
    )
    first_seed = params.seed_or_new()
    wish = AnswerWish(
        prompt_token_ids=rendered.token_ids,
        params=params,
        max_tokens=model.room_for(len(rendered.token_ids), limit),
        seed=first_seed,
        grammar=_grammar(model, body, tools, thought),
    )
    wishes = [replace(wish, seed=(first_seed + index) % 2**64) for index in range(count)]
    choices = [
        _Choice(
            answer_parser(
                reasoning_format=model.reasoning_format,
                tool_format=model.tool_format,
                prompt_text=rendered.text,
                has_tools=bool(tools.tools),
                only_one_call=tools.only_one,
            )
        )
        for _ in wishes
    ]
    completion = _ChatCompletion(model, body, name, choices, Usage(len(rendered.token_ids)))
    return completion, await submit_answers(model, metrics, wishes)


def _num_top_logprobs(body: ChatCompletionRequest) -> int:
    count = body.top_logprobs or 0
    if count and not body.logprobs:
        raise ApiError(400, "top_logprobs needs logprobs: true", param="top_logprobs")
    if not 0 <= count <= MAX_LOGPROBS:
        raise ApiError(
            400, f"top_logprobs is {count}, expected 0 to {MAX_LOGPROBS}", param="top_logprobs"
        )
    return count


def _token_limit(body: ChatCompletionRequest) -> int | None:
    """The newer name goes first; the older one is what most clients still send."""
    for name in ("max_completion_tokens", "max_tokens"):
        limit: int | None = getattr(body, name)
        if limit is not None and limit < 1:
            raise ApiError(400, f"{name} is {limit}, expected at least 1", param=name)
        if limit is not None:
            return limit
    return None


def _grammar(
    model: ServedModel, body: ChatCompletionRequest, tools: ToolWish, thought: Thought
) -> GrammarSpec | None:
    if not tools.must_call:
        grammar = grammar_of_wishes(body.model_dump(include=GRAMMAR_FIELDS), thought.end_token_ids)
    elif model.tool_format is None:
        raise ApiError(400, "this model has no form for tool calls", param="tool_choice")
    else:
        grammar = grammar_of_tools(tools.must_call, thought.end_token_ids, only_one=tools.only_one)
    return grammar and replace(grammar, opening_token_id=thought.opening_token_id)


@dataclass(slots=True)
class _Choice:
    """One of the answers on its way."""

    parser: AnswerParser
    deltas: list[AnswerDelta] = field(default_factory=list)
    logprobs: list[TokenLogprobs] = field(default_factory=list)
    prompt_logprobs: Sequence[TokenLogprobs] | None = None
    finish_reason: str | None = None

    def take(self, piece: TextPiece) -> AnswerDelta:
        if piece.prompt_logprobs is not None:
            self.prompt_logprobs = piece.prompt_logprobs
        delta = self.parser.add(piece.text)
        if piece.finish_reason is not None:
            delta += self.parser.finish()
            has_called = piece.finish_reason == "stop" and self.parser.has_tool_calls
            self.finish_reason = "tool_calls" if has_called else piece.finish_reason
        return delta


class _ChatCompletion:
    """A checked request; gives its answer whole or in chunks."""

    def __init__(
        self,
        model: ServedModel,
        body: ChatCompletionRequest,
        name: str,
        choices: list[_Choice],
        usage: Usage,
    ) -> None:
        self._model = model
        self._request = body
        self._choices = choices
        self._usage = usage
        self._head = {
            "id": f"chatcmpl-{uuid.uuid4().hex}",
            "created": int(time.time()),
            "model": name,
            "system_fingerprint": None,
        }
        self._counts = bool(body.stream_options and body.stream_options.include_usage)
        self._chunk_head = {**self._head, "object": "chat.completion.chunk"}
        if self._counts:  # null but in the last chunk, as OpenAI's
            self._chunk_head["usage"] = None

    def add(self, index: int, piece: TextPiece) -> None:
        """See ``Completion``."""
        choice = self._choices[index]
        self._usage.add(piece)
        choice.deltas.append(choice.take(piece))
        choice.logprobs += _shown_logprobs(piece)

    def body(self) -> dict[str, Any]:
        """See ``Completion``."""
        choices = [
            {
                "index": index,
                "message": self._message(choice.deltas),
                "logprobs": self._logprobs(choice.logprobs),
                "finish_reason": choice.finish_reason,
            }
            for index, choice in enumerate(self._choices)
        ]
        body = {**self._head, "object": "chat.completion", "choices": choices}
        prompt = self._choices[0].prompt_logprobs
        if self._request.prompt_logprobs is not None and prompt is not None:
            body["prompt_logprobs"] = prompt_logprobs(self._model.tokenizer, prompt)
        return {**body, "usage": self._usage.body}

    def first_chunks(self) -> Iterator[dict[str, Any]]:
        """See ``Completion``."""
        for index in range(len(self._choices)):
            yield self._chunk(index, {"role": "assistant", "content": ""})

    def chunks(self, index: int, piece: TextPiece) -> Iterator[dict[str, Any]]:
        """See ``Completion``."""
        choice = self._choices[index]
        self._usage.add(piece)
        delta = choice.take(piece)
        logprobs = self._logprobs(_shown_logprobs(piece))
        if delta or logprobs:
            yield self._chunk(index, self._delta(delta), logprobs)
        if choice.finish_reason is not None:
            yield self._chunk(index, {}, finish_reason=choice.finish_reason)

    def last_chunks(self) -> Iterator[dict[str, Any]]:
        """See ``Completion``."""
        if self._counts:
            yield {**self._chunk_head, "choices": [], "usage": self._usage.body}

    def _message(self, deltas: list[AnswerDelta]) -> dict[str, Any]:
        content = "".join(delta.content for delta in deltas)
        reasoning = "".join(delta.reasoning for delta in deltas)
        message: dict[str, Any] = {"role": "assistant", "content": content, "refusal": None}
        if reasoning and self._request.include_reasoning:
            message |= {"reasoning_content": reasoning, "reasoning": reasoning}
        calls: list[dict[str, Any]] = []
        for part in (part for delta in deltas for part in delta.tool_calls):
            if part.id is not None:
                function = {"name": part.name, "arguments": part.arguments}
                calls.append({"id": part.id, "type": "function", "function": function})
            else:
                calls[part.index]["function"]["arguments"] += part.arguments
        if calls:
            message |= {"tool_calls": calls, "content": content or None}
        return message

    def _delta(self, delta: AnswerDelta) -> dict[str, Any]:
        body: dict[str, Any] = {}
        if delta.content:
            body["content"] = delta.content
        if delta.reasoning and self._request.include_reasoning:
            body |= {"reasoning_content": delta.reasoning, "reasoning": delta.reasoning}
        calls = []
        for part in delta.tool_calls:
            function = {"arguments": part.arguments}
            if part.id is None:
                calls.append({"index": part.index, "function": function})
            else:
                named = {"name": part.name, **function}
                calls.append(
                    {"index": part.index, "id": part.id, "type": "function", "function": named}
                )
        if calls:
            body["tool_calls"] = calls
        return body

    def _logprobs(self, tokens: Sequence[TokenLogprobs]) -> dict[str, Any] | None:
        if not self._request.logprobs or not tokens:
            return None
        return chat_logprobs(self._model.need_tokenizer(), tokens)

    def _chunk(
        self,
        index: int,
        delta: dict[str, Any],
        logprobs: dict[str, Any] | None = None,
        finish_reason: str | None = None,
    ) -> dict[str, Any]:
        choice = {
            "index": index,
            "delta": delta,
            "logprobs": logprobs,
            "finish_reason": finish_reason,
        }
        return {**self._chunk_head, "choices": [choice]}


def _shown_logprobs(piece: TextPiece) -> Sequence[TokenLogprobs]:
    """Those of the content: joined, the tokens are its text."""
    return piece.logprobs[:-1] if piece.has_end_token else piece.logprobs
