"""What a rendered conversation says of the thought that may come before an answer."""

from __future__ import annotations

from dataclasses import dataclass

from qwen3_runtime.chat.reasoning import THINK_END, THINK_START
from qwen3_runtime.server.model import ServedModel

__all__ = ["Thought", "thought_of"]


@dataclass(frozen=True, slots=True)
class Thought:
    """A thought to come; none by default."""

    may_come: bool = False
    opening_token_id: int | None = None
    """What begins it; None where the conversation has begun it."""
    end_token_ids: tuple[int, ...] = ()


async def thought_of(model: ServedModel, prompt_text: str) -> Thought:
    """Returns whether the model may think before it answers a rendered conversation."""
    prompt = prompt_text.rstrip()
    if model.reasoning_format != "think" or prompt.endswith(THINK_END):
        return Thought()
    end = tuple(await model.encode(THINK_END, add_special_tokens=False))
    if prompt.endswith(THINK_START):
        return Thought(True, None, end)
    opening = await model.encode(THINK_START, add_special_tokens=False)
    return Thought(True, opening[0] if len(opening) == 1 else None, end)
