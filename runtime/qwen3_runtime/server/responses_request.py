"""What a request of the Responses API asks for, said as a chat."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from qwen3_runtime.server.errors import ApiError
from qwen3_runtime.server.protocol import ChatCompletionRequest, ResponsesRequest
from qwen3_runtime.server.wire import json_bytes

__all__ = ["ResponseWish", "response_wish"]

_STATELESS = {
    "previous_response_id": "nothing is stored here: send the whole conversation as input",
    "conversation": "nothing is stored here: send the whole conversation as input",
    "prompt": "no prompts are stored here: send instructions and input",
    "background": "nothing is stored here: an answer comes with its request",
}
_PASSED_ON = (
    "model",
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "presence_penalty",
    "frequency_penalty",
    "repetition_penalty",
    "seed",
    "stop",
    "stream",
    "parallel_tool_calls",
)
"""Fields that mean the same in a chat."""
_PASSED_OVER = ("web_search", "web_search_preview")
"""Tools that agents offer unasked, Codex among them: one less is no reason to refuse the rest."""
_LOGPROBS = "message.output_text.logprobs"


@dataclass(slots=True)
class ResponseWish:
    """A request that has been understood."""

    chat: ChatCompletionRequest
    tools: list[dict[str, Any]]
    """Those the model may call, as a response shows them."""
    namespaces: dict[str, str]
    """Of the functions that a client has put into one, by the function's name."""


def response_wish(body: ResponsesRequest) -> ResponseWish:
    """Returns what a request asks for.

    Raises:
        ApiError: 400 where it asks for what there is not, or is malformed; ``param`` says where.
    """
    for name, reason in _STATELESS.items():
        if getattr(body, name):
            raise ApiError(400, reason, param=name)
    if body.max_output_tokens is not None and body.max_output_tokens < 1:
        raise ApiError(
            400,
            f"max_output_tokens is {body.max_output_tokens}, expected at least 1",
            param="max_output_tokens",
        )
    tools = _Tools.of(body.tools or ())
    _check_numbers(tools.shown, body.text, body.reasoning, body.tool_choice)
    wants_logprobs = bool(body.top_logprobs) or _LOGPROBS in (body.include or ())
    chat = ChatCompletionRequest(
        **{name: getattr(body, name) for name in _PASSED_ON},
        messages=_messages(body),
        max_completion_tokens=body.max_output_tokens,
        logprobs=wants_logprobs,
        top_logprobs=body.top_logprobs,
        tools=tools.functions or None,
        tool_choice=_tool_choice(body.tool_choice),
        response_format=_response_format((body.text or {}).get("format")),
        chat_template_kwargs=_template_arguments(body),
    )
    return ResponseWish(chat, tools.shown, tools.namespaces)


def _wrong(where: str, sentence: str) -> ApiError:
    return ApiError(400, f"{where}: {sentence}", param=where)


def _check_numbers(*shown: object) -> None:
    """A response repeats these, and JSON has neither infinity nor NaN; Python's reader has."""
    try:
        json_bytes(shown)
    except (ValueError, RecursionError):
        raise ApiError(400, "a number in the request is none that JSON has") from None


def _string(record: Mapping[str, Any], name: str, where: str) -> str:
    value = record.get(name)
    if not isinstance(value, str):
        raise _wrong(f"{where}.{name}", f"expected a text, got {type(value).__name__}")
    return value


def _template_arguments(body: ResponsesRequest) -> dict[str, Any] | None:
    if (body.reasoning or {}).get("effort") != "none":
        return body.chat_template_kwargs
    return {"enable_thinking": False, **(body.chat_template_kwargs or {})}


def _response_format(wish: object) -> dict[str, Any] | None:
    where = "text.format"
    if wish is None:
        return None
    kind = wish.get("type") if isinstance(wish, Mapping) else wish
    if not isinstance(wish, Mapping) or kind not in ("text", "json_object", "json_schema"):
        raise _wrong(
            f"{where}.type", f"expected text, json_object or json_schema, got {repr(kind)[:80]}"
        )
    if kind != "json_schema":
        return {"type": kind}
    if not isinstance(wish.get("schema"), Mapping):
        raise _wrong(f"{where}.schema", "the schema is missing")
    named = {name: wish[name] for name in ("name", "schema", "strict") if name in wish}
    return {"type": "json_schema", "json_schema": named}


# ---- tools ----------------------------------------------------------------------------------


@dataclass(slots=True)
class _Tools:
    functions: list[dict[str, Any]] = field(default_factory=list)
    """As chats have them."""
    shown: list[dict[str, Any]] = field(default_factory=list)
    namespaces: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, tools: Iterable[Mapping[str, Any]]) -> _Tools:
        taken = cls()
        for index, tool in enumerate(tools):
            where, kind = f"tools[{index}]", tool.get("type")
            if kind == "function":
                taken.shown.append(taken._take(tool, where))
            elif kind == "namespace":
                taken._take_namespace(tool, where)
            elif kind not in _PASSED_OVER:
                raise _wrong(
                    f"{where}.type", f"there is no tool {repr(kind)[:80]} here, expected function"
                )
        return taken

    def _take_namespace(self, tool: Mapping[str, Any], where: str) -> None:
        """A model's calls have no namespaces, so its functions stand beside all others."""
        name, members = _string(tool, "name", where), tool.get("tools")
        if not isinstance(members, list):
            raise _wrong(f"{where}.tools", "expected a list of functions")
        shown = []
        for index, member in enumerate(members):
            place = f"{where}.tools[{index}]"
            if not isinstance(member, Mapping) or member.get("type") != "function":
                raise _wrong(f"{place}.type", "expected function")
            shown.append(self._take(member, place))
            self.namespaces[shown[-1]["name"]] = name
        description = tool.get("description") or ""
        self.shown.append(
            {"type": "namespace", "name": name, "description": description, "tools": shown}
        )

    def _take(self, tool: Mapping[str, Any], where: str) -> dict[str, Any]:
        name, parameters = _string(tool, "name", where), tool.get("parameters")
        if not name or any(name == known["function"]["name"] for known in self.functions):
            raise _wrong(f"{where}.name", "each function has a name of its own")
        if parameters is not None and not isinstance(parameters, Mapping):
            raise _wrong(f"{where}.parameters", "parameters are a JSON schema")
        shown = {
            "name": name,
            "description": tool.get("description"),
            "parameters": parameters,
            "strict": tool.get("strict"),
        }
        function = {key: value for key, value in shown.items() if value is not None}
        self.functions.append({"type": "function", "function": function})
        return {"type": "function", **shown}


def _tool_choice(choice: str | dict[str, Any] | None) -> str | dict[str, Any] | None:
    if not isinstance(choice, dict):
        return choice
    if choice.get("type") != "function":
        raise _wrong("tool_choice.type", f"expected function, got {repr(choice.get('type'))[:80]}")
    return {"type": "function", "function": {"name": choice.get("name")}}


# ---- the conversation -----------------------------------------------------------------------


def _messages(body: ResponsesRequest) -> list[dict[str, Any]]:
    conversation = _Conversation()
    if body.instructions:
        conversation.messages.append({"role": "system", "content": body.instructions})
    if isinstance(body.input, str):
        conversation.messages.append({"role": "user", "content": body.input})
    elif not body.input:
        raise _wrong("input", "expected a text or at least one item")
    else:
        for index, item in enumerate(body.input):
            conversation.add(item, f"input[{index}]")
    return conversation.messages


@dataclass(slots=True)
class _Conversation:
    """Items become messages: what an assistant thought, said and called in one turn is one."""

    messages: list[dict[str, Any]] = field(default_factory=list)

    def add(self, item: Mapping[str, Any], where: str) -> None:
        kind = item.get("type") or ("message" if "role" in item else None)
        takers: dict[str, Callable[[Mapping[str, Any], str], None]] = {
            "message": self._add_message,
            "reasoning": self._add_reasoning,
            "function_call": self._add_call,
            "function_call_output": self._add_call_output,
        }
        if kind == "item_reference":
            raise _wrong(where, "nothing is stored here: send the item itself")
        if not isinstance(kind, str) or kind not in takers:
            raise _wrong(
                f"{where}.type",
                f"there is no item {repr(kind)[:80]} here, expected {', '.join(takers)}",
            )
        takers[kind](item, where)

    def _add_message(self, item: Mapping[str, Any], where: str) -> None:
        role, roles = item.get("role"), ("user", "assistant", "system", "developer")
        if role not in roles:
            raise _wrong(f"{where}.role", f"expected {', '.join(roles)}, got {repr(role)[:80]}")
        text = _text(item.get("content"), f"{where}.content")
        if role == "assistant" and self._has_only_thought:
            self.messages[-1]["content"] = text
        else:
            self.messages.append({"role": role, "content": text})

    def _add_reasoning(self, item: Mapping[str, Any], where: str) -> None:
        """Encrypted thoughts are another server's, and nothing here can read them."""
        name = "content" if item.get("content") else "summary"
        thought = _text(item.get(name) or [], f"{where}.{name}")
        if not thought:
            return
        if self._has_only_thought:
            self.messages[-1]["reasoning_content"] += f"\n{thought}"
        else:
            self.messages.append({"role": "assistant", "content": "", "reasoning_content": thought})

    @property
    def _has_only_thought(self) -> bool:
        last = self.messages[-1] if self.messages else {}
        return "reasoning_content" in last and not last["content"] and "tool_calls" not in last

    def _add_call(self, item: Mapping[str, Any], where: str) -> None:
        arguments = _string(item, "arguments", where)
        try:
            value = json.loads(arguments or "{}")
        except (ValueError, RecursionError):
            value = None
        if not isinstance(value, dict):
            raise _wrong(f"{where}.arguments", "the arguments of a call are no JSON object")
        function = {"name": _string(item, "name", where), "arguments": arguments}
        call = {"id": _string(item, "call_id", where), "type": "function", "function": function}
        if not self.messages or self.messages[-1]["role"] != "assistant":
            self.messages.append({"role": "assistant", "content": ""})
        self.messages[-1].setdefault("tool_calls", []).append(call)

    def _add_call_output(self, item: Mapping[str, Any], where: str) -> None:
        call_id = _string(item, "call_id", where)
        text = _text(item.get("output"), f"{where}.output")
        self.messages.append({"role": "tool", "tool_call_id": call_id, "content": text})


_TEXT_PARTS = ("input_text", "output_text", "text", "reasoning_text", "summary_text")


def _text(content: object, where: str) -> str:
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise _wrong(where, f"expected a text or a list of parts, got {type(content).__name__}")
    return "".join(_part(part, f"{where}[{index}]") for index, part in enumerate(content))


def _part(part: object, where: str) -> str:
    kind = part.get("type") if isinstance(part, Mapping) else None
    if isinstance(part, Mapping) and kind in _TEXT_PARTS:
        return _string(part, "text", where)
    if isinstance(part, Mapping) and kind == "refusal":
        return _string(part, "refusal", where)
    got = repr(part if kind is None else kind)[:80]
    raise _wrong(where, f"this model reads text alone, expected input_text, got {got}")
