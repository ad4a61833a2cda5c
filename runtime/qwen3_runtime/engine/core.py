"""The engine loop: requests of token ids in, one token each per step out.

It knows nothing of text. Whoever reads the tokens decides on stop strings and aborts what is to
end; in a server that is another process.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from collections.abc import Sequence as SequenceOf
from dataclasses import dataclass, field

from qwen3_runtime.engine.batch import Engine, FloatRows
from qwen3_runtime.engine.pace import Pace
from qwen3_runtime.engine.scheduler import Scheduled, ScheduledStep, Scheduler, Sequence
from qwen3_runtime.errors import EngineError, QueueFullError, RequestError, RuntimeFault
from qwen3_runtime.sampling import SamplingParams
from qwen3_runtime.sampling.sampler import Draw, Sampler, sampler_for

__all__ = ["CoreStatus", "EngineCore", "EngineRequest", "TokenOutput"]


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineRequest:
    """A prompt to continue."""

    request_id: str
    """Unique among those in flight."""
    prompt_token_ids: tuple[int, ...]
    params: SamplingParams
    max_tokens: int
    """Most tokens to generate; prompt and answer fit ``max_model_len``."""
    end_token_ids: frozenset[int] = frozenset()
    """Tokens that end the answer, beside ``params.stop_token_ids``."""
    seed: int = 0
    """64 bits; tokens depend on it, and on nothing that shares a step."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenOutput:
    """What a step gave a request."""

    request_id: str
    token_id: int | None
    """None where the request failed."""
    finish_reason: str | None = None
    """``stop`` (end token or stop token), ``length`` or ``error``; None while it goes on."""
    num_cached_tokens: int = 0
    """Tokens of the prompt that were found in the cache when the request started."""
    error: RuntimeFault | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CoreStatus:
    """How busy an engine is."""

    num_running: int
    num_waiting: int
    num_blocks: int
    """Of a paged cache; 0 where there is none."""
    num_free_blocks: int
    num_preemptions: int
    """Times a sequence gave its blocks up, since the start."""


@dataclass(slots=True, eq=False)
class _Active:
    """A request on its way."""

    request: EngineRequest
    sequence: Sequence
    num_cached_tokens: int | None = None

    @property
    def num_output_tokens(self) -> int:
        return len(self.sequence.token_ids) - len(self.request.prompt_token_ids)


@dataclass(slots=True)
class EngineCore:
    """Steps one engine for many requests; for one thread at a time.

    Args:
        engine: A loaded engine. It may be used otherwise between steps while nothing is in flight:
            what its cache held is then forgotten.
        max_queue: Most requests that wait for a place; None is no bound.
    """

    engine: Engine
    max_queue: int | None = None
    _scheduler: Scheduler = field(init=False)
    _sampler: Sampler = field(init=False)
    _pace: Pace = field(init=False, default_factory=Pace)
    _active: dict[str, _Active] = field(init=False, default_factory=dict)
    _by_sequence: dict[int, _Active] = field(init=False, default_factory=dict)
    _num_steps: int = field(init=False)

    def __post_init__(self) -> None:
        self._scheduler = Scheduler(self.engine)
        self._sampler = sampler_for(self.engine)
        self._num_steps = self.engine.num_steps

    @property
    def has_work(self) -> bool:
        """Whether any request is in flight."""
        return self._scheduler.has_work

    @property
    def status(self) -> CoreStatus:
        """How busy the engine is."""
        scheduler = self._scheduler
        return CoreStatus(
            num_running=len(scheduler.running),
            num_waiting=len(scheduler.waiting),
            num_blocks=self.engine.num_blocks,
            num_free_blocks=scheduler.num_free_blocks,
            num_preemptions=scheduler.num_preemptions,
        )

    def add(self, request: EngineRequest) -> None:
        """Queues a request.

        Raises:
            RequestError: Its id is in flight already, or it does not fit ``max_model_len``.
            QueueFullError: Too many wait.
        """
        total = len(request.prompt_token_ids) + request.max_tokens
        if request.request_id in self._active:
            raise RequestError("a request with this id is in flight", where=request.request_id)
        if not request.prompt_token_ids or total > self.engine.max_model_len:
            raise RequestError(
                f"maximum context length is {self.engine.max_model_len} tokens",
                where=request.request_id,
                got=f"{len(request.prompt_token_ids)} of the prompt, {request.max_tokens} new ones",
            )
        if self.max_queue is not None and len(self._scheduler.waiting) >= self.max_queue:
            raise QueueFullError(
                "too many requests wait", got=len(self._scheduler.waiting), expected=self.max_queue
            )
        if not self.has_work and self.engine.num_steps != self._num_steps:
            self._scheduler.forget_prefixes()  # somebody else wrote to the cache
        active = _Active(request, Sequence(list(request.prompt_token_ids)))
        self._active[request.request_id] = active
        self._by_sequence[id(active.sequence)] = active
        self._scheduler.add(active.sequence)

    def abort(self, request_ids: Iterable[str]) -> None:
        """Takes requests out; ids that are not in flight are none's, or ended already."""
        for request_id in request_ids:
            active = self._active.get(request_id)
            if active is not None:
                self._finish(active)

    def step(self) -> list[TokenOutput]:
        """Carries out one step and returns what it gave, nothing where only prompts went on.

        A failing step ends the requests it was made for, each with an error; others go on.
        """
        if not self.has_work:
            return []
        step = self._scheduler.schedule(self._pace.max_prompt_tokens)
        try:
            with self._pace.measured(step):
                self._copy_blocks(step)
                logits = self.engine.forward(step.batch)
            self._scheduler.advance(step)
            outputs = list(self._sample(step, logits))
        except Exception as error:
            outputs = self._fail(step.shares, error)
        finally:
            self._scheduler.drop_copies()
            self._num_steps = self.engine.num_steps
        return outputs

    def check_integrity(self) -> None:
        """Raises AssertionError when a slot, a block or a request is lost."""
        self._scheduler.check_integrity()
        inside = [*self._scheduler.running, *self._scheduler.waiting]
        assert {id(sequence) for sequence in inside} == set(self._by_sequence)
        assert set(map(id, self._active.values())) == set(map(id, self._by_sequence.values()))

    def _copy_blocks(self, step: ScheduledStep) -> None:
        for copy in step.copies:
            self.engine.copy_blocks(copy.group, [copy.source], [copy.destination])

    def _sample(self, step: ScheduledStep, logits: FloatRows) -> Iterator[TokenOutput]:
        ready = [
            (self._by_sequence[id(share.sequence)], share)
            for share in step.shares
            if share.is_complete
        ]
        if not ready:
            return
        rows = logits[[share.logit_rows[-1] for _, share in ready]]
        draws = [
            Draw(active.request.params, active.request.seed, len(active.sequence.token_ids))
            for active, _ in ready
        ]
        tokens = self._sampler.sample(rows, draws)
        for (active, _), token in zip(ready, tokens, strict=True):
            yield self._take(active, token)

    def _take(self, active: _Active, token: int) -> TokenOutput:
        request, sequence = active.request, active.sequence
        sequence.token_ids.append(token)
        if active.num_cached_tokens is None:  # preempted, it would find its own blocks
            active.num_cached_tokens = sequence.num_prefix_tokens
        reason = None
        if token in request.end_token_ids or token in request.params.stop_token_ids:
            reason = "stop"
        elif active.num_output_tokens >= request.max_tokens:
            reason = "length"
        if reason is not None:
            self._finish(active)
        return TokenOutput(
            request_id=request.request_id,
            token_id=token,
            finish_reason=reason,
            num_cached_tokens=active.num_cached_tokens,
        )

    def _fail(self, shares: SequenceOf[Scheduled], error: Exception) -> list[TokenOutput]:
        fault = error if isinstance(error, RuntimeFault) else _unforeseen(error)
        failed = [
            self._by_sequence[id(share.sequence)]
            for share in shares
            if id(share.sequence) in self._by_sequence
        ]
        for active in failed:
            self._finish(active)
        return [
            TokenOutput(
                request_id=active.request.request_id,
                token_id=None,
                finish_reason="error",
                error=fault,
            )
            for active in failed
        ]

    def _finish(self, active: _Active) -> None:
        self._scheduler.finish(active.sequence)
        del self._active[active.request.request_id]
        del self._by_sequence[id(active.sequence)]


def _unforeseen(error: Exception) -> EngineError:
    return EngineError("a step failed", got=f"{type(error).__name__}: {error}")
