"""A model's chat template: from messages to the text the model was trained to see."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from jinja2.environment import Template
from jinja2.exceptions import SecurityError, TemplateError, TemplateSyntaxError

from qwen3_runtime.errors import RequestError, TokenizerError
from qwen3_runtime.text.template_limits import limits, require_length, spend
from qwen3_runtime.text.template_sandbox import RefusedByTemplate, make_environment

__all__ = ["ChatTemplate"]

_MAX_SOURCE_CHARS = 1 << 20
_MAX_DEPTH = 64
_RESERVED = frozenset({"messages", "tools", "add_generation_prompt"})
_REASONING_FIELDS = ("reasoning_content", "thinking", "reasoning")
"""Names under which clients send a message's reasoning; templates read the first or the second."""


class ChatTemplate:
    """A compiled Jinja template with Hugging Face's settings, in a sandbox with bounds.

    Args:
        source: The template.
        where: The file it came from, for messages.

    Raises:
        TokenizerError: The source is too long or no template.
    """

    def __init__(self, source: str, where: object) -> None:
        self.source = source
        self._where = where
        self._template = _compiled(source, where)

    def render(
        self,
        messages: Sequence[Mapping[str, object]],
        *,
        tools: Sequence[Mapping[str, object]] | None = None,
        add_generation_prompt: bool = True,
        variables: Mapping[str, object] | None = None,
    ) -> str:
        """Renders a conversation as transformers' ``apply_chat_template`` does.

        Args:
            messages: Records with ``role`` and ``content``; fields that are None count as absent,
                and an assistant's absent content as empty.
            tools: JSON schemas of functions the model may call.
            add_generation_prompt: Whether to end with the header of the assistant's turn.
            variables: What else the template may see, such as ``bos_token`` or
                ``enable_thinking``.

        Raises:
            RequestError: The messages are no list of records, or the template refuses them.
            TokenizerError: The template fails or exceeds a limit.
        """
        if reserved := _RESERVED & (variables or {}).keys():
            raise RequestError("a template variable has a reserved name", got=sorted(reserved))
        context: dict[str, object] = {
            **{name: _plain(value) for name, value in (variables or {}).items()},
            "messages": [_plain_message(message) for message in _checked(messages)],
            "tools": None if tools is None else [_plain(tool) for tool in tools],
            "add_generation_prompt": add_generation_prompt,
        }
        context.setdefault("documents", None)
        try:
            with limits():
                return self._joined(context)
        except RefusedByTemplate as error:
            raise RequestError(
                f"the model's chat template refuses the messages: {error.message}",
                where=self._where,
            ) from None
        except SecurityError as error:
            raise self._fault(f"the chat template does what is not allowed: {error}") from None
        except Exception as error:  # a template can raise anything Python's operators raise
            raise self._fault(
                f"the chat template cannot render the messages: {type(error).__name__}: {error}"
            ) from None

    def _joined(self, context: dict[str, object]) -> str:
        pieces, size = [], 0
        for piece in self._template.generate(context):
            size += len(piece)
            require_length(size)
            spend(len(piece))
            pieces.append(piece)
        return "".join(pieces)

    def _fault(self, message: str) -> TokenizerError:
        return TokenizerError(message, where=self._where)


def _compiled(source: str, where: object) -> Template:
    if len(source) > _MAX_SOURCE_CHARS:
        raise TokenizerError(
            "the chat template is too long",
            where=where,
            got=f"{len(source)} characters",
            expected=f"at most {_MAX_SOURCE_CHARS}",
        )
    try:
        with limits():
            return make_environment().from_string(source)
    except TemplateSyntaxError as error:
        raise TokenizerError(
            f"the chat template is no valid Jinja: {error.message}", where=f"{where}:{error.lineno}"
        ) from None
    except (TemplateError, RecursionError, SyntaxError, ValueError, MemoryError) as error:
        raise TokenizerError(
            f"the chat template cannot be compiled: {error}", where=where
        ) from None


def _checked(messages: Sequence[Mapping[str, object]]) -> Sequence[Mapping[str, object]]:
    is_list = isinstance(messages, Sequence) and not isinstance(messages, str | bytes)
    if not is_list or not messages:
        raise RequestError("a conversation is a list of at least one message", where="messages")
    for index, message in enumerate(messages):
        if not isinstance(message, Mapping):
            raise RequestError(
                "a message is a record with role and content",
                where=f"messages[{index}]",
                got=type(message).__name__,
            )
    return messages


def _plain_message(message: Mapping[str, object]) -> dict[str, object]:
    plain = {str(key): _plain(value) for key, value in message.items() if value is not None}
    if plain.get("role") == "assistant":
        # Clients send null beside tool calls, and many templates take the text for granted.
        plain.setdefault("content", "")
    reasoning = next((plain[name] for name in _REASONING_FIELDS if name in plain), None)
    if reasoning is not None:
        plain = {"thinking": reasoning, **plain, "reasoning_content": reasoning}
    return plain


def _plain(value: object, depth: int = 0) -> object:
    """Rebuilds a value of JSON's types only, so that a template holds no object with methods."""
    if depth > _MAX_DEPTH:
        raise RequestError("a chat template's input is nested too deeply", expected=_MAX_DEPTH)
    if value is None or type(value) in (str, bool, int):
        return value
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise RequestError("a chat template's input holds no finite number", got=value)
        return float(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(item, depth + 1) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, bytes | bytearray):
        return [_plain(item, depth + 1) for item in value]
    raise RequestError(
        "a chat template's input is not plain JSON",
        got=type(value).__name__,
        expected="strings, numbers, booleans, lists and records",
    )
