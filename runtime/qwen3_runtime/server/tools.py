"""Functions a request lets the model call, and which of them it must."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from qwen3_runtime.server.errors import ApiError
from qwen3_runtime.server.protocol import ChatCompletionRequest

__all__ = ["ToolWish", "tool_wish"]


@dataclass(frozen=True, slots=True)
class ToolWish:
    """What a request says of tools."""

    tools: tuple[dict[str, Any], ...] = ()
    """For the chat template; none where the request forbids calls."""
    must_call: tuple[Mapping[str, object], ...] = ()
    """Functions of which at least one has to be called."""
    only_one: bool = False
    """Whether a second call is one too many."""


def tool_wish(body: ChatCompletionRequest) -> ToolWish:
    """Returns what ``tools`` and ``tool_choice`` say.

    Raises:
        ApiError: 400 where they say nothing that can be followed.
    """
    for old, new in (("functions", "tools"), ("function_call", "tool_choice")):
        if getattr(body, old):
            raise ApiError(400, f"{old} is not supported; use {new}", param=old)
    tools = tuple(body.tools or ())
    functions = {_name(tool, index): tool["function"] for index, tool in enumerate(tools)}
    choice = body.tool_choice or ("auto" if tools else "none")
    if choice == "none" or (choice == "auto" and not tools):
        return ToolWish()
    if not tools:
        raise ApiError(400, "tool_choice needs tools", param="tool_choice")
    only_one = body.parallel_tool_calls is False
    if choice == "auto":
        return ToolWish(tools, only_one=only_one)
    if choice == "required":
        return ToolWish(tools, tuple(functions.values()), only_one)
    name = None
    if isinstance(choice, dict):
        function = choice.get("function")
        name = function.get("name") if isinstance(function, dict) else None
    if not isinstance(name, str) or name not in functions:
        raise ApiError(
            400,
            f"tool_choice is {repr(choice)[:80]}, expected none, auto, required, "
            f"or one of the tools: {', '.join(functions)[:500]}",
            param="tool_choice",
        )
    return ToolWish(tools, (functions[name],), only_one=True)


def _name(tool: Mapping[str, object], index: int) -> str:
    function = tool.get("function")
    if tool.get("type", "function") != "function" or not isinstance(function, dict):
        raise ApiError(400, "a tool is a function", param=f"tools[{index}].function")
    name, parameters = function.get("name"), function.get("parameters")
    if not isinstance(name, str) or not name:
        raise ApiError(400, "a function has a name", param=f"tools[{index}].function.name")
    if parameters is not None and not isinstance(parameters, dict):
        raise ApiError(
            400, "parameters are a JSON schema", param=f"tools[{index}].function.parameters"
        )
    return name
