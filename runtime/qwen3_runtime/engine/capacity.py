"""How long and how many sequences may be, given bytes for keys and values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from qwen3_runtime.engine.batch import CacheGroup
from qwen3_runtime.errors import EngineError

_BUCKET = 64
"""Lengths are padded to this by contiguous caches."""
_DEFAULT_BATCHED_TOKENS = 512
_LARGEST_DEFAULT_BUDGET = 2 << 30
_LARGEST_LIMIT = 2**31 - 1
"""Positions, rows and slots are int32."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Capacity:
    """Limits an engine is created with."""

    max_model_len: int
    max_num_seqs: int
    max_num_batched_tokens: int
    kv_cache_bytes: int
    num_blocks: int = 0
    """Blocks of every paged cache group."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a user asks for; None leaves it to ``plan_capacity``."""

    max_model_len: int | None = None
    """Most tokens of a sequence; by default what fits the budget."""
    max_num_seqs: int = 16
    """Most sequences in flight."""
    max_num_batched_tokens: int | None = None
    """Most tokens of a step; by default 512, fewer for a tiny engine."""
    kv_cache_memory: int | None = None
    """Bytes for keys and values; by default a quarter of free memory, at most 2 GiB, which gives
    way to an explicit ``max_model_len``."""


def plan_capacity(
    groups: Sequence[CacheGroup], max_position_embeddings: int, limits: Limits
) -> Capacity:
    """Returns limits that fit the byte budget.

    Args:
        groups: Cache groups of the engine.
        max_position_embeddings: Longest sequence the model was made for.
        limits: What is asked for.

    Raises:
        EngineError: A limit is not positive, beyond the model, or does not fit the budget.
    """
    _require_positive("max_num_seqs", limits.max_num_seqs)
    available = _available_memory()
    budget = limits.kv_cache_memory
    if budget is None:
        budget = min(available // 4, _LARGEST_DEFAULT_BUDGET)
    # A contiguous cache has room for every sequence at its longest, a paged one for one of them at
    # least: others wait until blocks are free.
    per_token = sum(group.bytes_per_token for group in groups)
    is_paged = any(group.kind == "paged" for group in groups)
    num_longest = 1 if is_paged else limits.max_num_seqs
    unit = max((group.block_size or _BUCKET for group in groups), default=_BUCKET)
    max_model_len = limits.max_model_len
    if max_model_len is None:
        fitting = budget // max(1, per_token * num_longest) // unit * unit
        max_model_len = _default_model_len(
            fitting, max_position_embeddings, budget, per_token * num_longest
        )
    _require_positive("max_model_len", max_model_len)
    if max_model_len > max_position_embeddings:
        raise EngineError(
            "max_model_len is beyond what the model was made for",
            got=max_model_len,
            expected=f"at most max_position_embeddings = {max_position_embeddings}",
        )
    units = num_longest * -(-max_model_len // unit)
    _require_room(units * unit * per_token, num_longest, max_model_len, limits, available)
    num_blocks = 0
    if is_paged:
        wanted = limits.max_num_seqs * -(-max_model_len // unit)
        num_blocks = units = max(units, min(wanted, budget // (unit * per_token)))
    max_num_batched_tokens = limits.max_num_batched_tokens
    if max_num_batched_tokens is None:
        whole = max_model_len * limits.max_num_seqs
        max_num_batched_tokens = max(limits.max_num_seqs, min(_DEFAULT_BATCHED_TOKENS, whole))
    _require_positive("max_num_batched_tokens", max_num_batched_tokens)
    return Capacity(
        max_model_len=max_model_len,
        max_num_seqs=limits.max_num_seqs,
        max_num_batched_tokens=max_num_batched_tokens,
        kv_cache_bytes=units * unit * per_token,
        num_blocks=num_blocks,
    )


def _require_room(
    needed: int, num_seqs: int, max_model_len: int, limits: Limits, available: int
) -> None:
    """Refuses keys and values that do not fit what the user gave, or what is free."""
    what = f"{num_seqs} sequence{'s' if num_seqs > 1 else ''} of {max_model_len} tokens"
    smaller = "a smaller max_model_len" + (" or max_num_seqs" if num_seqs > 1 else "")
    if limits.kv_cache_memory is not None and needed > limits.kv_cache_memory:
        raise EngineError(
            "keys and values do not fit kv_cache_memory",
            got=f"{needed} bytes for {what}",
            expected=f"at most {limits.kv_cache_memory} bytes",
            hint=smaller,
        )
    if needed > available:
        raise EngineError(
            "keys and values do not fit the free memory",
            got=f"{needed / 1e9:.1f} GB for {what}",
            expected=f"at most {available / 1e9:.1f} GB",
            hint=smaller,
        )


def _default_model_len(fitting: int, longest: int, budget: int, per_token: int) -> int:
    if fitting < 1:
        raise EngineError(
            "no sequence fits the memory for keys and values",
            got=f"{budget} bytes, {per_token} bytes per token of all sequences",
            hint="a larger kv_cache_memory or a smaller max_num_seqs",
        )
    return min(longest, fitting)


def _require_positive(name: str, value: object) -> None:
    if type(value) is not int or value < 1:
        raise EngineError(f"{name} must be positive", got=value, expected="a whole number from 1")
    if value > _LARGEST_LIMIT:
        raise EngineError(f"{name} is too large", got=value, expected=f"at most {_LARGEST_LIMIT}")


def _available_memory() -> int:
    """Bytes the kernel says may be taken without swapping."""
    try:
        text = Path("/proc/meminfo").read_text(encoding="ascii")
    except OSError:
        return _LARGEST_DEFAULT_BUDGET * 4
    for line in text.splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return _LARGEST_DEFAULT_BUDGET * 4
