"""The model a server serves: its engine, its tokenizer, and what both processes know of it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from qwen3_runtime.chat import template_messages
from qwen3_runtime.errors import RequestError
from qwen3_runtime.sampling import SamplingParams
from qwen3_runtime.server.errors import ApiError
from qwen3_runtime.server.settings import ServerSettings
from qwen3_runtime.serving import EngineClient, EngineState
from qwen3_runtime.serving.messages import EngineFacts
from qwen3_runtime.text import Tokenizer

__all__ = ["RenderedChat", "ServedModel"]

_RESERVED = frozenset({"messages", "tools", "add_generation_prompt", "self"})
"""What a template gets besides the variables a request names."""


@dataclass(frozen=True, slots=True)
class RenderedChat:
    """A conversation as the model reads it."""

    text: str
    token_ids: list[int]


@dataclass(slots=True, kw_only=True)
class ServedModel:
    """What routes need of the model."""

    client: EngineClient
    settings: ServerSettings
    tokenizer: Tokenizer | None
    end_token_ids: frozenset[int]
    default_params: SamplingParams
    """The model's makers' recommendation."""
    default_params_without_thinking: SamplingParams
    """The same for conversations that have it answer at once."""
    system_prompt: str | None = None
    tool_format: str | None = None
    reasoning_format: str | None = None
    created: int = field(default_factory=lambda: int(time.time()))
    is_draining: bool = False
    """Whether the server takes no new requests."""
    num_in_flight: int = 0
    """HTTP requests that are being answered."""

    @property
    def facts(self) -> EngineFacts:
        """What is known of the loaded engine; ``ApiError`` 503 until it is."""
        if self.client.state is EngineState.LOADING:
            raise ApiError(503, "the model is being loaded; try again soon", code="loading")
        if self.is_draining or self.client.state is EngineState.STOPPED:
            raise ApiError(503, "the server is shutting down", code="shutting_down")
        if self.client.state is EngineState.FAILED or self.client.facts is None:
            raise ApiError(503, "the engine is gone; the server's log says why", code="failed")
        return self.client.facts

    def require_engine(self) -> None:
        """Raises ``ApiError`` 503 while there is no engine, for routes that need no fact of it."""
        _ = self.facts

    def check_name(self, name: str | None) -> str:
        """Returns the name an answer carries; ``ApiError`` 404 for a model that is not here."""
        if name is None or name == "":
            return self.settings.model_names[0]
        if name not in self.settings.model_names:
            raise ApiError(
                404,
                f"the model '{name[:200]}' does not exist; this server has "
                f"{', '.join(self.settings.model_names)}",
                param="model",
                code="model_not_found",
            )
        return name

    def need_tokenizer(self) -> Tokenizer:
        """Returns the tokenizer; ``ApiError`` 400 where the checkpoint has none."""
        if self.tokenizer is None:
            raise ApiError(400, "this model has no tokenizer; give a prompt of token ids")
        return self.tokenizer

    async def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        """Returns the token ids of a text, without holding up other requests."""
        encode = partial(self.need_tokenizer().encode, add_special_tokens=add_special_tokens)
        return await asyncio.to_thread(encode, text)

    async def render_chat(
        self,
        messages: Sequence[Mapping[str, object]],
        *,
        tools: Sequence[Mapping[str, object]] | None = None,
        template_arguments: Mapping[str, object] | None = None,
        add_generation_prompt: bool = True,
    ) -> RenderedChat:
        """Returns a conversation as text and token ids, without holding up other requests.

        Raises:
            RequestError: The messages are no conversation the template accepts.
            TokenizerError: There is no chat template, or it fails.
        """
        taken = template_messages(messages)
        if reserved := _RESERVED & (template_arguments or {}).keys():
            raise RequestError(
                "these are fields of the request itself",
                where="chat_template_kwargs",
                got=", ".join(sorted(reserved)),
            )
        if self.system_prompt is not None and taken[0]["role"] != "system":
            taken.insert(0, {"role": "system", "content": self.system_prompt})
        arguments = {**self.settings.template_arguments, **(template_arguments or {})}
        return await asyncio.to_thread(self._render, taken, tools, arguments, add_generation_prompt)

    def _render(
        self,
        messages: Sequence[Mapping[str, object]],
        tools: Sequence[Mapping[str, object]] | None,
        arguments: Mapping[str, object],
        add_generation_prompt: bool,
    ) -> RenderedChat:
        tokenizer = self.need_tokenizer()
        text = tokenizer.apply_chat_template(
            messages, add_generation_prompt, tools=tools, **arguments
        )
        return RenderedChat(text, tokenizer.encode(text, add_special_tokens=False))

    def room_for(self, num_prompt_tokens: int, max_tokens: int | None) -> int:
        """Returns how many tokens an answer may have.

        Raises:
            RequestError: The prompt leaves no room.
        """
        longest = self.facts.max_model_len
        room = longest - num_prompt_tokens
        if room < 1:
            raise RequestError(
                f"This model's maximum context length is {longest} tokens. However, the prompt "
                f"has {num_prompt_tokens} tokens and leaves no room for an answer. Please reduce "
                "the length of the messages"
            )
        return room if max_tokens is None else min(room, max_tokens)
