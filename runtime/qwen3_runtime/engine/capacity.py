"""How long and how many sequences may be, given bytes for keys and values and the free memory."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from qwen3_runtime.engine.batch import CacheGroup
from qwen3_runtime.engine.free_memory import available_memory
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
    """What a user asks for; None leaves it to ``plan_capacity``.

    Raises:
        EngineError: One is no whole number from 1.
    """

    max_model_len: int | None = None
    """Most tokens of a sequence; by default what fits the budget."""
    max_num_seqs: int = 16
    """Most sequences in flight."""
    max_num_batched_tokens: int | None = None
    """Most tokens of a step; by default 512, fewer for a tiny engine."""
    kv_cache_memory: int | None = None
    """Bytes for keys and values; by default a quarter of free memory, at most 2 GiB, which gives
    way to an explicit ``max_model_len``."""

    def __post_init__(self) -> None:
        numbers = {
            "max_num_seqs": _positive("max_num_seqs", self.max_num_seqs),
            "max_model_len": _positive_or_none("max_model_len", self.max_model_len),
            "max_num_batched_tokens": _positive_or_none(
                "max_num_batched_tokens", self.max_num_batched_tokens
            ),
            "kv_cache_memory": _positive_or_none("kv_cache_memory", self.kv_cache_memory, "bytes"),
        }
        for name, number in numbers.items():
            object.__setattr__(self, name, number)


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryNeeds:
    """Bytes an engine takes beside keys and values, as its manifest counts them."""

    weights: int = 0
    """Those that are copied into memory."""
    logits: int = 0
    attention_scratch: int = 0
    activations_per_token: int = 0
    """Per token of max_num_batched_tokens."""
    rope_per_position: int = 0
    """Per position of max_model_len."""
    mask_per_token_and_position: int = 0

    def fixed(self, num_tokens: int) -> int:
        """Returns bytes that do not grow with lengths, for steps of so many tokens."""
        return self.weights + self.logits + self._activations(num_tokens)

    def per_position(self, num_tokens: int) -> int:
        """Returns bytes per position of max_model_len, for steps of so many tokens."""
        return self.rope_per_position + self.mask_per_token_and_position * num_tokens

    def parts(self, capacity: Capacity) -> dict[str, int]:
        """Returns the bytes of every part of an engine, keys and values included."""
        num_tokens = capacity.max_num_batched_tokens
        padded = -(-capacity.max_model_len // _BUCKET) * _BUCKET
        return {
            "weights": self.weights,
            "keys and values": capacity.kv_cache_bytes,
            "masks": self.mask_per_token_and_position * num_tokens * padded,
            "activations": self._activations(num_tokens),
            "rotary tables": self.rope_per_position * capacity.max_model_len,
            "logits": self.logits,
        }

    def _activations(self, num_tokens: int) -> int:
        return self.activations_per_token * num_tokens + self.attention_scratch


@dataclass(frozen=True, slots=True)
class _Cache:
    """What keys and values cost; an engine may have groups of both kinds."""

    paged: int
    """Bytes of a token in all paged groups, which have room for one longest sequence at least:
    others wait until blocks are free."""
    slots: int
    """Bytes of a position in all contiguous groups, where every sequence has a slot."""
    unit: int
    """Tokens that are taken together: a block where there are any."""
    num_longest: int
    """Sequences there is room for at their longest."""

    @classmethod
    def of(cls, groups: Sequence[CacheGroup], max_num_seqs: int) -> _Cache:
        paged = [group for group in groups if group.kind == "paged"]
        others = [group for group in groups if group.kind != "paged"]
        return cls(
            paged=sum(group.bytes_per_token for group in paged),
            slots=sum(group.bytes_per_token for group in others) * max_num_seqs,
            unit=max((group.block_size or _BUCKET for group in paged), default=_BUCKET),
            num_longest=1 if paged and not others else max_num_seqs,
        )

    @property
    def is_paged(self) -> bool:
        """Whether there are blocks to count."""
        return self.paged > 0

    def units(self, length: int) -> int:
        """Units that a sequence of this length fills."""
        return -(-length // self.unit)

    def num_bytes(self, max_model_len: int, num_units: int) -> int:
        """Bytes of all groups, the paged ones with so many units."""
        slots = self.units(max_model_len) * self.slots
        return (slots + num_units * self.paged) * self.unit


def plan_capacity(
    groups: Sequence[CacheGroup],
    max_position_embeddings: int,
    limits: Limits,
    needs: MemoryNeeds | None = None,
) -> Capacity:
    """Returns limits that fit the byte budget and the free memory.

    Args:
        groups: Cache groups of the engine.
        max_position_embeddings: Longest sequence the model was made for.
        limits: What is asked for.
        needs: What else the engine takes of this machine's memory; None where what it takes lies
            on a device of its own, whose memory is not looked at.

    Raises:
        EngineError: A limit is beyond the model, or does not fit the budget or the free memory.
    """
    cache = _Cache.of(groups, limits.max_num_seqs)
    available = available_memory()
    budget = limits.kv_cache_memory or min(available // 4, _LARGEST_DEFAULT_BUDGET)
    tokens = limits.max_num_batched_tokens or _DEFAULT_BATCHED_TOKENS
    room, per_position = budget, 0
    if needs is not None:
        room, per_position = available - needs.fixed(tokens), needs.per_position(tokens)
    max_model_len = limits.max_model_len or _fitting_length(
        cache, budget, room, per_position, max_position_embeddings
    )
    if max_model_len > max_position_embeddings:
        raise EngineError(
            "max_model_len is beyond what the model was made for",
            got=max_model_len,
            expected=f"at most max_position_embeddings = {max_position_embeddings}",
        )
    units = cache.units(max_model_len)
    least = cache.num_bytes(max_model_len, units)
    _require_budget(least, cache, max_model_len, limits)
    if cache.is_paged:
        if limits.kv_cache_memory is None:
            budget = min(budget, room - per_position * max_model_len)
        wanted = limits.max_num_seqs * units
        units += max(0, min(wanted - units, (budget - least) // (cache.unit * cache.paged)))
    capacity = Capacity(
        max_model_len=max_model_len,
        max_num_seqs=limits.max_num_seqs,
        max_num_batched_tokens=limits.max_num_batched_tokens or _step(limits, max_model_len),
        kv_cache_bytes=cache.num_bytes(max_model_len, units),
        num_blocks=units if cache.is_paged else 0,
    )
    if needs is not None:
        _require_room(needs.parts(capacity), available, capacity, cache)
    return capacity


def _step(limits: Limits, max_model_len: int) -> int:
    """Tokens of a step where none are asked for: no more than there can ever be."""
    whole = max_model_len * limits.max_num_seqs
    return max(limits.max_num_seqs, min(_DEFAULT_BATCHED_TOKENS, whole))


def _fitting_length(
    cache: _Cache, budget: int, room: int, per_position: int, max_position_embeddings: int
) -> int:
    """The longest length that fits the budget, and the memory where anything at all does."""
    longest = cache.paged + cache.slots
    units = budget // max(1, longest) // cache.unit
    if units < 1:
        raise EngineError(
            "no sequence fits the memory for keys and values",
            got=f"{budget} bytes, {longest} bytes per token of all sequences",
            hint="a larger kv_cache_memory"
            + (" or a smaller max_num_seqs" if cache.num_longest > 1 else ""),
        )
    in_room = room // max(1, longest + per_position) // cache.unit
    return min(max_position_embeddings, min(units, max(1, in_room)) * cache.unit)


def _require_budget(needed: int, cache: _Cache, max_model_len: int, limits: Limits) -> None:
    """Refuses keys and values that do not fit what the user gave."""
    if limits.kv_cache_memory is not None and needed > limits.kv_cache_memory:
        raise EngineError(
            "keys and values do not fit kv_cache_memory",
            got=f"{needed} bytes for {_sequences(cache, max_model_len)}",
            expected=f"at most {limits.kv_cache_memory} bytes",
            hint=_smaller("max_model_len", *(["max_num_seqs"] if cache.num_longest > 1 else [])),
        )


def _require_room(
    parts: Mapping[str, int], available: int, capacity: Capacity, cache: _Cache
) -> None:
    """Refuses an engine that does not fit the free memory, and says what takes it."""
    total = sum(parts.values())
    if total <= available:
        return
    named = sorted(((size, name) for name, size in parts.items() if size), reverse=True)
    listed = ", ".join(f"{_readable(size)} {name}" for size, name in named)
    raise EngineError(
        "the engine does not fit the free memory",
        got=f"{_readable(total)}: {listed}; for {_sequences(cache, capacity.max_model_len)}, "
        f"{capacity.max_num_batched_tokens} tokens a step",
        expected=f"at most {_readable(available)}",
        hint=_helpful(parts, total - available, cache),
    )


def _helpful(parts: Mapping[str, int], excess: int, cache: _Cache) -> str:
    """What to change: options whose parts are a good share of what is too much."""
    by_option = {
        "max_model_len": parts["keys and values"] + parts["masks"] + parts["rotary tables"],
        "max_num_seqs": parts["keys and values"] if cache.num_longest > 1 else 0,
        "max_num_batched_tokens": parts["masks"] + parts["activations"],
        "kv_cache_memory": parts["keys and values"] if cache.is_paged else 0,
    }
    options = [name for name, size in by_option.items() if size * 4 >= excess]
    if parts["weights"] > sum(parts.values()) - excess or not options:
        return "a smaller model, or a dtype of fewer bits"
    return _smaller(*options)


def _smaller(*options: str) -> str:
    return f"a smaller {' or '.join(options)}"


def _sequences(cache: _Cache, max_model_len: int) -> str:
    plural = "s" if cache.num_longest > 1 else ""
    return f"{cache.num_longest} sequence{plural} of {max_model_len} tokens"


def _readable(size: int) -> str:
    for unit, name in ((1e9, "GB"), (1e6, "MB")):
        if size >= unit / 20:
            return f"{size / unit:.1f} {name}"
    return f"{size} bytes"


def _positive_or_none(name: str, value: object, unit: str = "") -> int | None:
    return None if value is None else _positive(name, value, unit)


def _positive(name: str, value: object, unit: str = "") -> int:
    """Takes what counts as an int, NumPy's too; bytes may be beyond 31 bits."""
    try:
        number = 0 if isinstance(value, bool) else operator.index(value)  # type: ignore[arg-type] # what it refuses is caught
    except TypeError:
        number = 0
    if number < 1:
        expected = f"a whole number of {unit} from 1" if unit else "a whole number from 1"
        raise EngineError(f"{name} must be positive", got=value, expected=expected)
    if number > _LARGEST_LIMIT and not unit:
        raise EngineError(f"{name} is too large", got=value, expected=f"at most {_LARGEST_LIMIT}")
    return number
