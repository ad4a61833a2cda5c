"""What is asked of a server, and what its answers say about time."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from qwen3_codegen.bench.stream import Address, Exchange, StreamError, exchange
from qwen3_codegen.errors import CodegenError

__all__ = ["AnswerTimes", "Prompt", "Wanted", "ask", "file_prompts", "random_prompts"]

Prompt: TypeAlias = str | list[int]


@dataclass(frozen=True, slots=True)
class Wanted:
    """A text completion to ask for, streamed."""

    prompt: Prompt
    max_tokens: int
    temperature: float = 0.0
    seed: int | None = None
    ignore_eos: bool = True
    """So that every answer has ``max_tokens`` tokens."""

    def body(self, model: str) -> dict[str, Any]:
        """Returns the request's body."""
        return {
            "model": model,
            "prompt": self.prompt,
            "max_tokens": self.max_tokens,
            "temperature": self.temperature,
            **({} if self.seed is None else {"seed": self.seed}),
            **({"ignore_eos": True} if self.ignore_eos else {}),
            "stream": True,
            "stream_options": {"include_usage": True},
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerTimes:
    """When the parts of one answer came, in seconds of ``time.perf_counter``."""

    started: float
    chunks: tuple[float, ...] = ()
    """Of events with text; text that is held back, such as half a character, comes with later."""
    ended: float = 0.0
    text: str = ""
    num_prompt_tokens: int = 0
    num_output_tokens: int = 0
    num_cached_tokens: int = 0
    finish_reason: str | None = None
    error: str | None = None


async def ask(
    address: Address, model: str, wanted: Wanted, *, leave_after: int | None = None
) -> AnswerTimes:
    """Asks and waits for the end of the answer; what goes wrong is part of the result."""
    try:
        answer = await exchange(
            address, "POST", "/v1/completions", wanted.body(model), leave_after=leave_after
        )
        return _times(answer)
    except StreamError as error:
        return AnswerTimes(started=0.0, error=str(error))


def _times(answer: Exchange) -> AnswerTimes:
    if answer.status != 200:
        return AnswerTimes(started=answer.started, error=_refusal(answer))
    events = answer.events()
    chunks: list[float] = []
    texts: list[str] = []
    usage: dict[str, Any] = {}
    reason = None
    for seconds, data in events:
        if data == "[DONE]":
            continue
        event = json.loads(data)
        if "error" in event:
            return AnswerTimes(started=answer.started, error=str(event["error"].get("message")))
        usage = event.get("usage") or usage
        for choice in event["choices"]:
            reason = choice.get("finish_reason") or reason
            if choice.get("text"):
                chunks.append(seconds)
                texts.append(choice["text"])
    if answer.is_whole and (not events or events[-1][1] != "[DONE]"):
        raise StreamError("the stream ended without [DONE]")
    details = usage.get("prompt_tokens_details") or {}
    return AnswerTimes(
        started=answer.started,
        chunks=tuple(chunks),
        ended=events[-1][0] if events else answer.started,
        text="".join(texts),
        num_prompt_tokens=usage.get("prompt_tokens", 0),
        num_output_tokens=usage.get("completion_tokens", len(chunks)),
        num_cached_tokens=details.get("cached_tokens") or 0,
        finish_reason=reason,
    )


def _refusal(answer: Exchange) -> str:
    try:
        said = json.loads(answer.body)["error"]["message"]
    except (ValueError, KeyError, TypeError, StreamError):
        said = "no reason given"
    return f"HTTP {answer.status}: {said}"


def random_prompts(
    count: int, length: int, *, vocab_size: int, shared_prefix_len: int = 0, seed: int = 0
) -> list[Prompt]:
    """Returns prompts of random token ids.

    Args:
        count: How many.
        length: Tokens of each, the shared ones included.
        vocab_size: Ids are below it.
        shared_prefix_len: Tokens all of them begin with.
        seed: Another one gives other prompts.

    Raises:
        CodegenError: The shared part is longer than a prompt.
    """
    if shared_prefix_len > length:
        raise CodegenError(
            "the shared prefix is longer than the prompts", got=shared_prefix_len, expected=length
        )
    draw = random.Random(seed)
    shared = [draw.randrange(vocab_size) for _ in range(shared_prefix_len)]
    rest = length - shared_prefix_len
    return [[*shared, *(draw.randrange(vocab_size) for _ in range(rest))] for _ in range(count)]


def file_prompts(path: Path, count: int) -> list[Prompt]:
    """Reads prompts, one a line: text, or JSON objects with ``prompt``; they are used in turn.

    Raises:
        CodegenError: There are none, or a line of JSON has no prompt.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise CodegenError("the prompts are not UTF-8 text", where=path, got=error) from None
    found = [
        _prompt(line, f"{path}:{number}") for number, line in enumerate(lines, 1) if line.strip()
    ]
    if not found:
        raise CodegenError("there is no prompt in this file", where=path)
    return [found[index % len(found)] for index in range(count)]


def _prompt(line: str, where: str) -> Prompt:
    if not line.lstrip().startswith("{"):
        return line
    try:
        prompt = json.loads(line)["prompt"]
    except (ValueError, KeyError):
        raise CodegenError("this line is no JSON object with a prompt", where=where) from None
    if isinstance(prompt, str) or _is_token_ids(prompt):
        return prompt  # type: ignore[no-any-return] # checked
    raise CodegenError("a prompt is text or a list of token ids", where=where, got=str(prompt)[:60])


def _is_token_ids(prompt: object) -> bool:
    return isinstance(prompt, Sequence) and all(type(token) is int for token in prompt)
