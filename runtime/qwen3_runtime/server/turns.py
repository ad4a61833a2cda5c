"""From a conversation to answers on their way, whatever protocol it came by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from qwen3_runtime.chat import AnswerDelta, AnswerParser, answer_parser
from qwen3_runtime.sampling import MAX_LOGPROBS, TokenLogprobs
from qwen3_runtime.sampling.grammar import GrammarSpec
from qwen3_runtime.server.errors import ApiError
from qwen3_runtime.server.generation import Answers, AnswerWish, submit_answers
from qwen3_runtime.server.metrics import Metrics
from qwen3_runtime.server.model import RenderedChat, ServedModel
from qwen3_runtime.server.params import num_choices, sampling_params
from qwen3_runtime.server.pieces import TextPiece
from qwen3_runtime.server.protocol import ChatCompletionRequest
from qwen3_runtime.server.thoughts import Thought, thought_of
from qwen3_runtime.server.tools import ToolWish, tool_wish
from qwen3_runtime.server.usage import Usage
from qwen3_runtime.structured import GRAMMAR_FIELDS, grammar_of_tools, grammar_of_wishes

__all__ = ["ChatTurn", "Choice", "begin_turn", "render_turn"]


@dataclass(frozen=True, slots=True)
class ChatTurn:
    """The next turn of a conversation, which the engine has taken."""

    model_name: str
    """What the answer carries."""
    choices: list[Choice]
    usage: Usage
    answers: Answers
    """To be closed by whoever has the turn."""


async def begin_turn(model: ServedModel, metrics: Metrics, body: ChatCompletionRequest) -> ChatTurn:
    """Queues the answers to a conversation; whatever is wrong with the request is found here.

    Raises:
        ApiError: The request is wrong, or there is no engine.
        RuntimeFault: The engine or the chat template cannot serve it.
    """
    name = model.check_name(body.model)
    model.require_engine()
    count = num_choices(body, model.settings.max_choices)
    tools = tool_wish(body)
    num_top = _num_top_logprobs(body)
    limit = _token_limit(body)
    rendered = await render_turn(model, body, tools)
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
        Choice(
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
    answers = await submit_answers(model, metrics, wishes)
    return ChatTurn(name, choices, Usage(len(rendered.token_ids)), answers)


async def render_turn(
    model: ServedModel, body: ChatCompletionRequest, tools: ToolWish
) -> RenderedChat:
    """Returns a conversation as the model reads it, tools included.

    Raises:
        ApiError: 400 for tools where the model's spec names no form for calls.
        RuntimeFault: The messages are no conversation, or the chat template fails.
    """
    if tools.tools and model.tool_format is None:
        raise ApiError(
            400,
            "this model has no form for tool calls (its spec names no tool_format): send no tools",
            param="tools",
        )
    return await model.render_chat(
        body.messages,
        tools=list(tools.tools) or None,
        template_arguments=body.chat_template_kwargs,
        add_generation_prompt=body.add_generation_prompt is not False,
    )


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
    else:
        grammar = grammar_of_tools(tools.must_call, thought.end_token_ids, only_one=tools.only_one)
    return grammar and replace(grammar, opening_token_id=thought.opening_token_id)


@dataclass(slots=True)
class Choice:
    """One of the answers on its way: thoughts, text and tool calls told apart."""

    parser: AnswerParser
    deltas: list[AnswerDelta] = field(default_factory=list)
    logprobs: list[TokenLogprobs] = field(default_factory=list)
    prompt_logprobs: Sequence[TokenLogprobs] | None = None
    finish_reason: str | None = None
    """``stop``, ``length`` or ``tool_calls``, once it is over."""

    def take(self, piece: TextPiece) -> AnswerDelta:
        """Returns what a piece adds."""
        if piece.prompt_logprobs is not None:
            self.prompt_logprobs = piece.prompt_logprobs
        delta = self.parser.add(piece.text)
        if piece.finish_reason is not None:
            delta += self.parser.finish()
            has_called = piece.finish_reason == "stop" and self.parser.has_tool_calls
            self.finish_reason = "tool_calls" if has_called else piece.finish_reason
        return delta
