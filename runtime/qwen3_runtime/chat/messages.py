"""OpenAI's messages, as clients send them, in the form that chat templates take."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import takewhile

from qwen3_runtime.errors import RequestError

__all__ = ["template_messages"]

_ROLES = ("system", "user", "assistant", "tool")
_SYSTEM = ("system", "developer")
_KEPT = ("name", "reasoning_content", "reasoning", "tool_call_id")


def template_messages(messages: object) -> list[dict[str, object]]:
    """Returns messages for a template.

    Content parts become one text; ``developer`` is another word for ``system``; system messages
    at the head become one, since most templates take a single one; arguments of earlier tool
    calls become objects; a ``function_call``, as there was before tools, becomes a tool call, and
    a ``function``'s message a tool's.

    Raises:
        RequestError: A message is malformed; ``where`` names it, as in ``messages[2].content``.
    """
    if not isinstance(messages, Sequence) or isinstance(messages, str) or not messages:
        raise RequestError("a conversation is a list of at least one message", where="messages")
    taken = [_message(message, f"messages[{index}]") for index, message in enumerate(messages)]
    head = list(takewhile(lambda message: message["role"] == "system", taken))
    if len(head) > 1:
        text = "\n\n".join(str(message["content"]) for message in head)
        return [{"role": "system", "content": text}, *taken[len(head) :]]
    return taken


def _message(message: object, where: str) -> dict[str, object]:
    if not isinstance(message, Mapping):
        raise RequestError("a message is a record", where=where, got=type(message).__name__)
    message = _with_tools(message)
    role = message.get("role")
    if role in _SYSTEM:
        role = "system"
    if role not in _ROLES:
        raise RequestError(
            "a message has no role that is known",
            where=f"{where}.role",
            got=repr(role)[:80],
            expected=", ".join((*_ROLES, "developer")),
        )
    taken: dict[str, object] = {"role": role}
    calls = message.get("tool_calls")
    content = message.get("content")
    if content is None and not (role == "assistant" and (calls or "content" in message)):
        raise RequestError("a message has no content", where=f"{where}.content")
    taken["content"] = _text(content, f"{where}.content")
    for name in _KEPT:
        value = message.get(name)
        if value is not None:
            taken[name] = _string(value, f"{where}.{name}")
    if role == "tool" and "tool_call_id" not in taken:
        raise RequestError("a tool's message names no call", where=f"{where}.tool_call_id")
    if calls is not None:
        taken["tool_calls"] = _tool_calls(calls, f"{where}.tool_calls")
    return taken


def _with_tools(message: Mapping[str, object]) -> Mapping[str, object]:
    """The message as it is said today; an old call has no id, its function's name serves."""
    call = message.get("function_call")
    if message.get("role") == "assistant" and call is not None and "tool_calls" not in message:
        return {**message, "tool_calls": [{"type": "function", "function": call}]}
    if message.get("role") == "function":
        return {"tool_call_id": message.get("name"), **message, "role": "tool"}
    return message


def _text(content: object, where: str) -> str:
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if not isinstance(content, Sequence):
        raise RequestError(
            "content is neither a text nor a list of parts",
            where=where,
            got=type(content).__name__,
        )
    return "".join(_part(part, f"{where}[{index}]") for index, part in enumerate(content))


def _part(part: object, where: str) -> str:
    if isinstance(part, str):
        return part
    kind = part.get("type") if isinstance(part, Mapping) else None
    if not isinstance(part, Mapping) or kind not in ("text", "input_text", "refusal"):
        raise RequestError(
            "this model reads text alone",
            where=where,
            got=repr(kind if kind is not None else part)[:80],
            expected='{"type": "text", "text": ...}',
        )
    return _string(part.get("refusal" if kind == "refusal" else "text"), f"{where}.text")


def _tool_calls(calls: object, where: str) -> list[dict[str, object]]:
    if not isinstance(calls, Sequence) or isinstance(calls, str):
        raise RequestError("tool calls are a list", where=where, got=type(calls).__name__)
    return [_tool_call(call, f"{where}[{index}]") for index, call in enumerate(calls)]


def _tool_call(call: object, where: str) -> dict[str, object]:
    function = call.get("function") if isinstance(call, Mapping) else None
    if not isinstance(call, Mapping) or not isinstance(function, Mapping):
        raise RequestError("a tool call names a function", where=f"{where}.function")
    name = _string(function.get("name"), f"{where}.function.name")
    arguments = _arguments(function.get("arguments"), f"{where}.function.arguments")
    taken: dict[str, object] = {
        "type": "function",
        "function": {"name": name, "arguments": arguments},
    }
    if call.get("id") is not None:
        taken["id"] = _string(call["id"], f"{where}.id")
    return taken


def _arguments(value: object, where: str) -> Mapping[str, object]:
    """Clients send JSON text, templates want the object, or both would quote it twice."""
    if isinstance(value, str):
        try:
            value = json.loads(value or "{}")
        except (ValueError, RecursionError) as error:
            raise RequestError(
                "the arguments of a tool call are no JSON", where=where, got=str(error)[:200]
            ) from None
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise RequestError(
            "the arguments of a tool call are no JSON object",
            where=where,
            got=type(value).__name__,
        )
    return value


def _string(value: object, where: str) -> str:
    if not isinstance(value, str):
        raise RequestError("this is no text", where=where, got=type(value).__name__)
    return value
