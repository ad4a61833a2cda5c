"""``InferTask`` and ``KVCache``: a sequence that its owner carries from round to round."""

from __future__ import annotations

import math
from collections.abc import Iterable
from collections.abc import Sequence as SequenceOf
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar

from qwen3_runtime.engine.scheduler import Sequence
from qwen3_runtime.errors import RequestError
from qwen3_runtime.infer.rounds import Rounds
from qwen3_runtime.sampling import SamplingParams

if TYPE_CHECKING:
    from qwen3_runtime.infer.model import InferModel

__all__ = ["InferTask", "KVCache", "old_sampling_params"]


class KVCache:
    """Keys and values of one sequence, kept in the engine until they are dropped.

    There may be more caches than the engine has room for: those unused the longest then give their
    place up, and are computed again when they are used next.

    Args:
        model: The model whose engine keeps it.
    """

    def __init__(self, model: InferModel) -> None:
        self._rounds: Rounds | None = model.rounds
        self._held = self._rounds.hold()

    @property
    def tokens(self) -> list[int]:
        """The tokens it holds keys and values of, in order."""
        return list(self._held.token_ids)

    def sequence_in(self, rounds: Rounds, where: str) -> Sequence:
        """Returns what the cache is to the engine of ``rounds``.

        Raises:
            RequestError: It was dropped, or belongs to another model; ``where`` names the task.
        """
        if self._rounds is not rounds:
            raise RequestError(
                "the KV cache was dropped, or belongs to another model",
                where=where,
                hint="task.bind_kvcache(model.create_kv_cache(), 0)",
            )
        return self._held

    def drop(self, model: InferModel) -> None:
        """Gives its place back; the cache cannot be used any more, but dropped again.

        Args:
            model: The model it was made with; asked for since the old engine needed it.
        """
        if self._rounds is not None:
            self._rounds.drop(self._held)
            self._rounds = None


class InferTask:
    """A prompt and where it stands; one round after the other gives it a token.

    Args:
        id: Any name.
        tokens: The prompt, as token ids.
        max_tokens: Most tokens of prompt and answer together.
        temperature: Spread of the choice; 0 takes the likeliest token.
        topk: So many likeliest tokens are chosen from; 1 takes the likeliest, 0 leaves all.
        topp: The likeliest tokens of this mass are chosen from.
        end_tokens: Tokens that end the answer, or one alone.
    """

    def __init__(
        self,
        id: object,
        tokens: SequenceOf[int],
        max_tokens: int,
        temperature: float,
        topk: int,
        topp: float,
        end_tokens: Iterable[int] | int,
    ) -> None:
        self.id = id
        self.finish_reason: str | None = None
        """``stop`` or ``length`` when it is finished."""
        self.tokens = tokens
        """What the next round computes: the prompt, then the token the last round gave."""
        self.max_tokens = max_tokens
        self.temperature = temperature
        self.topk = topk
        self.topp = topp
        self.end_tokens = [end_tokens] if isinstance(end_tokens, int) else list(end_tokens)
        self.pos = 0
        """Tokens before ``tokens``, which the cache holds."""
        self._kv_cache: KVCache | None = None

    def bind_kvcache(self, kv_cache: KVCache, pos: int = 0) -> None:
        """Gives the task a cache that holds its first ``pos`` tokens already.

        Raises:
            RequestError: It is no cache, or does not hold them.
        """
        if not isinstance(kv_cache, KVCache):
            raise RequestError(
                "this is no KV cache",
                where=self._where,
                got=repr(kv_cache)[:80],
                expected="what model.create_kv_cache() returns",
            )
        begin = list(self.tokens[:pos])
        if kv_cache.tokens[:pos] != begin or len(begin) != pos:
            raise RequestError(
                f"the cache does not hold the first {pos} tokens of the task",
                where=self._where,
                hint="bind_kvcache(cache, 0) starts anew, whatever the cache holds",
            )
        self._kv_cache = kv_cache
        self.pos = pos
        self.tokens = self.tokens[pos:]

    def kvcache(self) -> KVCache:
        """Returns the task's cache.

        Raises:
            RequestError: It has none.
        """
        if self._kv_cache is None:
            raise RequestError(
                "the task has no KV cache",
                where=self._where,
                hint="task.bind_kvcache(model.create_kv_cache(), 0)",
            )
        return self._kv_cache

    def release_kvcache(self) -> KVCache | None:
        """Takes the cache from the task and returns it; it is not dropped."""
        cache, self._kv_cache = self._kv_cache, None
        return cache

    def next(self, out_token: int | None) -> None:
        """Takes the token a round gave and finds out whether the task is finished.

        None ends it, as an end token does.
        """
        self.pos += len(self.tokens)
        if out_token is None or out_token in self.end_tokens:
            self.finish_reason = "stop"
        elif self.pos >= self.max_tokens:
            self.finish_reason = "length"
        else:
            self.tokens = [out_token]

    @property
    def _where(self) -> str:
        return f"task {self.id}"


class OldSamplingParams(SamplingParams):
    """Sampling at any temperature, which InfiniLM's scripts may have."""

    __slots__ = ()
    max_temperature: ClassVar[float] = math.inf


def old_sampling_params(temperature: float, topk: int, topp: float) -> SamplingParams:
    """Returns sampling as ``infiniopRandomSample`` understands it.

    Raises:
        RequestError: A value is out of range.
    """
    params = OldSamplingParams(
        temperature=temperature, top_k=topk, top_p=1.0 if topp == 0 else topp
    )
    is_greedy = topk == 1 or topp == 0  # each meant the likeliest token, as temperature 0 does
    return replace(params, temperature=0.0) if is_greedy else params
