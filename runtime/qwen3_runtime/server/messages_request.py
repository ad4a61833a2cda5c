"""Bodies of Anthropic's Messages API, and the conversations they mean."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from qwen3_runtime.server.errors import ApiError
from qwen3_runtime.server.protocol import ChatCompletionRequest, Temperature, TopP

__all__ = ["CountTokensRequest", "MessagesRequest", "chat_request"]

_BILLING_LINE = re.compile(r"x-anthropic-billing-header:[^\n]*\n?")
"""Claude Code begins its system prompt with it. It says nothing to the model, and since it is
another one in each request, nothing after it would be found in the cache."""


class MessagesTool(BaseModel):
    """A tool the client carries out."""

    type: Literal["custom"] | None = None
    """Others, such as a web search, Anthropic's servers carry out."""
    name: str = Field(min_length=1)
    description: str | None = None
    input_schema: dict[str, Any]
    strict: bool | None = None


class MessagesToolChoice(BaseModel):
    """Which tools the model must call."""

    type: Literal["auto", "any", "tool", "none"]
    name: str | None = None
    disable_parallel_tool_use: bool | None = False


class MessagesThinking(BaseModel):
    """Whether the model thinks; ``adaptive`` leaves it to the model."""

    type: Literal["enabled", "disabled", "adaptive"]


class MessagesOutputFormat(BaseModel):
    """The JSON schema an answer must follow."""

    type: Literal["json_schema"]
    json_schema: dict[str, Any] = Field(alias="schema")


class MessagesOutputConfig(BaseModel):
    """How the answer is to be."""

    format: MessagesOutputFormat | None = None


class CountTokensRequest(BaseModel):
    """``POST /v1/messages/count_tokens``; what is not known is ignored."""

    model: str | None = None
    messages: list[dict[str, Any]] = Field(min_length=1)
    system: str | list[Any] | None = None
    tools: list[MessagesTool] | None = None
    tool_choice: MessagesToolChoice | None = None
    thinking: MessagesThinking | None = None
    output_config: MessagesOutputConfig | None = None


class MessagesRequest(CountTokensRequest):
    """``POST /v1/messages``."""

    max_tokens: Annotated[int, Field(ge=1)]
    stop_sequences: list[Annotated[str, Field(min_length=1)]] | None = None
    temperature: Temperature | None = None
    top_p: TopP | None = None
    top_k: int | None = None
    stream: bool | None = False


def chat_request(body: CountTokensRequest) -> ChatCompletionRequest:
    """Returns the same request as a chat completion's.

    Raises:
        ApiError: 400 where it says what this server cannot follow.
    """
    request = ChatCompletionRequest(
        model=body.model,
        messages=_conversation(body),
        tools=[_tool(tool) for tool in body.tools] if body.tools else None,
        tool_choice=_tool_choice(body),
        chat_template_kwargs=_template_arguments(body.thinking),
        response_format=_response_format(body.output_config),
    )
    if body.tool_choice is not None and body.tool_choice.disable_parallel_tool_use:
        request.parallel_tool_calls = False
    if isinstance(body, MessagesRequest):
        request.max_tokens = body.max_tokens
        request.stop = body.stop_sequences or None
        request.temperature = body.temperature
        request.top_p = body.top_p
        request.top_k = body.top_k
    return request


# ---- settings -------------------------------------------------------------------------------


def _tool(tool: MessagesTool) -> dict[str, Any]:
    function: dict[str, Any] = {"name": tool.name, "parameters": tool.input_schema}
    for name in ("description", "strict"):
        value = getattr(tool, name)
        if value is not None:
            function[name] = value
    return {"type": "function", "function": function}


def _tool_choice(body: CountTokensRequest) -> str | dict[str, Any] | None:
    choice = body.tool_choice
    if choice is None:
        return None
    if choice.type != "tool":
        return "required" if choice.type == "any" else choice.type
    names = [tool.name for tool in body.tools or ()]
    if choice.name not in names:
        raise ApiError(
            400,
            f"{choice.name!r:.80} is none of the tools, which are: {', '.join(names)[:500]}",
            param="tool_choice.name",
        )
    return {"type": "function", "function": {"name": choice.name}}


def _template_arguments(thinking: MessagesThinking | None) -> dict[str, Any] | None:
    if thinking is None or thinking.type == "adaptive":
        return None
    return {"enable_thinking": thinking.type == "enabled"}


def _response_format(config: MessagesOutputConfig | None) -> dict[str, Any] | None:
    if config is None or config.format is None:
        return None
    schema = {"name": "answer", "schema": config.format.json_schema}
    return {"type": "json_schema", "json_schema": schema}


# ---- messages -------------------------------------------------------------------------------


def _conversation(body: CountTokensRequest) -> list[dict[str, Any]]:
    messages = []
    if body.system is not None:
        text = "".join(
            _BILLING_LINE.sub("", _text(block, place), count=1)
            for place, block in _blocks(body.system, "system")
        )
        if text:
            messages.append({"role": "system", "content": text})
    for index, message in enumerate(body.messages):
        messages += _taken(message, f"messages.{index}")
    if messages[-1]["role"] == "assistant":
        raise ApiError(
            400,
            "a conversation ends with a message of the user; this server begins every answer anew",
            param=f"messages.{len(body.messages) - 1}",
        )
    return messages


def _taken(message: Mapping[str, Any], where: str) -> Iterator[dict[str, Any]]:
    blocks = _blocks(message.get("content"), f"{where}.content")
    match message.get("role"):
        case "user":
            return _of_user(blocks)
        case "assistant":
            return iter([_of_assistant(blocks)])
        case "system":
            text = "".join(_text(block, place) for place, block in blocks)
            return iter([{"role": "system", "content": text}])
        case role:
            raise ApiError(400, f"{role!r:.80}, expected user or assistant", param=f"{where}.role")


def _blocks(content: object, where: str) -> list[tuple[str, Mapping[str, Any]]]:
    """Blocks, each with its place in the request; a text is one."""
    if isinstance(content, str):
        return [(where, {"type": "text", "text": content})]
    if not isinstance(content, list):
        raise ApiError(400, "content is a text or a list of blocks", param=where)
    blocks: list[tuple[str, Mapping[str, Any]]] = []
    for index, block in enumerate(content):
        place = f"{where}.{index}"
        if not isinstance(block, dict):
            raise ApiError(400, "a block is an object with a type", param=place)
        blocks.append((place, block))
    return blocks


def _of_user(blocks: list[tuple[str, Mapping[str, Any]]]) -> Iterator[dict[str, Any]]:
    """Results of tools are messages of their own, in the order of the blocks."""
    texts: list[str] = []
    for place, block in blocks:
        if block.get("type") != "tool_result":
            texts.append(_text(block, place, "text, tool_result"))
            continue
        if texts:
            yield {"role": "user", "content": "".join(texts)}
            texts = []
        yield {
            "role": "tool",
            "tool_call_id": _string(block, "tool_use_id", place),
            "content": _result(block, place),
        }
    if texts or not blocks:
        yield {"role": "user", "content": "".join(texts)}


def _result(block: Mapping[str, Any], where: str) -> str:
    content = block.get("content")
    blocks = _blocks("" if content is None else content, f"{where}.content")
    text = "".join(_text(block, place) for place, block in blocks)
    # Templates know no failed results, and the model should not take one for the other.
    return f"Error: {text}" if block.get("is_error") is True else text


def _of_assistant(blocks: list[tuple[str, Mapping[str, Any]]]) -> dict[str, Any]:
    texts, thoughts, calls = [], [], []
    for place, block in blocks:
        match block.get("type"):
            case "thinking":
                thoughts.append(_string(block, "thinking", place))
            case "tool_use":
                calls.append(_call(block, place))
            case _:
                texts.append(_text(block, place, "text, thinking, tool_use"))
    message: dict[str, Any] = {"role": "assistant", "content": "".join(texts)}
    if thoughts:
        message["reasoning_content"] = "\n".join(thoughts)
    if calls:
        message["tool_calls"] = calls
    return message


def _call(block: Mapping[str, Any], where: str) -> dict[str, Any]:
    arguments = block.get("input")
    if not isinstance(arguments, dict):
        raise ApiError(400, "the input of a tool is an object", param=f"{where}.input")
    return {
        "id": _string(block, "id", where),
        "type": "function",
        "function": {"name": _string(block, "name", where), "arguments": arguments},
    }


def _text(block: object, where: str, expected: str = "text") -> str:
    kind = block.get("type") if isinstance(block, Mapping) else None
    if not isinstance(block, Mapping) or kind != "text":
        raise ApiError(
            400,
            f"this model reads text alone; got a block of type {kind!r:.80}, expected {expected}",
            param=where,
        )
    return _string(block, "text", where)


def _string(block: Mapping[str, Any], name: str, where: str) -> str:
    value = block.get(name)
    if not isinstance(value, str):
        raise ApiError(400, "this is no text", param=f"{where}.{name}")
    return value
