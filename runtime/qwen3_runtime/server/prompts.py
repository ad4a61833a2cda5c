"""Prompts in the four forms in which requests bring them."""

from __future__ import annotations

from qwen3_runtime.server.errors import ApiError

__all__ = ["prompt_list"]

MAX_PROMPTS = 128
"""Of a request whose answers are all queued at once."""


def prompt_list(
    given: str | list[int] | list[str] | list[list[int]], field: str, most: int = MAX_PROMPTS
) -> list[str | list[int]]:
    """Returns texts or lists of token ids, at least one.

    Args:
        given: One or several of either.
        field: Name of the field, for messages.
        most: How many there may be.

    Raises:
        ApiError: 400 where there is none, or there are too many.
    """
    if isinstance(given, str):
        return [given]
    if given and isinstance(given[0], int):
        return [given]
    if not given or len(given) > most:
        raise ApiError(400, f"{field} has {len(given)} entries, expected 1 to {most}", param=field)
    return list(given)  # type: ignore[arg-type]
