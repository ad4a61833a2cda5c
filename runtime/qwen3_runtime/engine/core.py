"""The engine loop: requests of token ids in, one token each per step out.

It knows nothing of text. Whoever reads the tokens decides on stop strings and aborts what is to
end; in a server that is another process.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from collections.abc import Sequence as SequenceOf
from dataclasses import dataclass, field
from typing import NamedTuple

from qwen3_runtime.engine.batch import Engine, FloatRows
from qwen3_runtime.engine.pace import Pace
from qwen3_runtime.engine.scheduler import Scheduled, ScheduledStep, Scheduler, Sequence
from qwen3_runtime.errors import EngineError, QueueFullError, RequestError, RuntimeFault
from qwen3_runtime.sampling import SamplingParams
from qwen3_runtime.sampling.grammar import Grammar, GrammarCompiler, GrammarSpec
from qwen3_runtime.sampling.sampler import Draw, Sampler, TokenLogprobs, sampler_for

__all__ = ["CoreStatus", "EngineCore", "EngineRequest", "TokenOutput"]


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineRequest:
    """A prompt to continue."""

    request_id: str
    """Unique among those in flight."""
    prompt_token_ids: tuple[int, ...]
    params: SamplingParams
    max_tokens: int
    """Most tokens to generate; prompt and answer fit ``max_model_len``. 0 only scores a prompt."""
    end_token_ids: frozenset[int] = frozenset()
    """Tokens that end the answer, beside ``params.stop_token_ids``."""
    seed: int = 0
    """64 bits; tokens depend on it, and on nothing that shares a step."""
    grammar: GrammarSpec | None = None
    """What the answer must follow."""


class TokenOutput(NamedTuple):
    """What a step gave a request; a tuple, which crosses to another process fastest.

    Attributes:
        request_id: Of the request.
        token_id: None where the request failed, or only its prompt was scored.
        finish_reason: ``stop`` (end token or stop token), ``length`` or ``error``; None while it
            goes on.
        num_cached_tokens: Tokens of the prompt that were in the cache when the request started.
        logprobs: Of the token, where they were asked for.
        prompt_logprobs: Of every token of the prompt but the first, with the first output, where
            asked for.
        error: Why the request failed.
        prefill_seconds: With the first output, how long ago the prompt's first step began.
    """

    request_id: str
    token_id: int | None
    finish_reason: str | None = None
    num_cached_tokens: int = 0
    logprobs: TokenLogprobs | None = None
    prompt_logprobs: tuple[TokenLogprobs, ...] | None = None
    error: RuntimeFault | None = None
    prefill_seconds: float = 0.0


class CoreStatus(NamedTuple):
    """How busy an engine is; like ``TokenOutput``, it crosses with every step.

    Attributes:
        num_running: Requests that take part in steps.
        num_waiting: Requests that wait for a place.
        num_blocks: Blocks of a paged cache; 0 where there is none.
        num_free_blocks: Blocks that nobody holds.
        num_preemptions: Times a sequence gave its blocks up, since the start.
    """

    num_running: int
    num_waiting: int
    num_blocks: int
    num_free_blocks: int
    num_preemptions: int


@dataclass(slots=True, eq=False)
class _Active:
    """A request on its way."""

    request: EngineRequest
    sequence: Sequence
    grammar: Grammar | None
    started: float | None = None
    """When its first step began, by ``time.perf_counter``."""
    num_cached_tokens: int | None = None
    prompt_logprobs: list[TokenLogprobs] = field(default_factory=list)

    @property
    def num_output_tokens(self) -> int:
        return len(self.sequence.token_ids) - len(self.request.prompt_token_ids)

    @property
    def draw(self) -> Draw:
        """What decides the next token besides the logits."""
        request = self.request
        ends: tuple[int, ...] = ()
        if self.num_output_tokens < request.params.min_tokens and self.grammar is None:
            ends = (*request.end_token_ids, *request.params.stop_token_ids)
        return Draw(
            request.params,
            request.seed,
            self.sequence.token_ids,
            len(request.prompt_token_ids),
            banned=ends,
            mask=None if self.grammar is None else self.grammar.mask(),
        )


@dataclass(slots=True)
class EngineCore:
    """Steps one engine for many requests; for one thread at a time.

    Args:
        engine: A loaded engine. It may be used otherwise between steps while nothing is in flight:
            what its cache held is then forgotten.
        max_queue: Most requests that wait for a place; None is no bound.
        compile_grammar: Makes the grammars of requests; None where none are to be had.
    """

    engine: Engine
    max_queue: int | None = None
    compile_grammar: GrammarCompiler | None = None
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
            RequestError: Its id is in flight already, it does not fit the engine, or its grammar
                cannot be compiled.
            QueueFullError: Too many wait.
        """
        self._check(request)
        if not self.has_work and self.engine.num_steps != self._num_steps:
            self._scheduler.forget_prefixes()  # somebody else wrote to the cache
        grammar = None
        if request.grammar is not None and self.compile_grammar is not None:
            grammar = self.compile_grammar(request.grammar)
        wants_prompt = request.params.prompt_logprobs is not None
        sequence = Sequence(list(request.prompt_token_ids), wants_all_logits=wants_prompt)
        active = _Active(request, sequence, grammar)
        self._active[request.request_id] = active
        self._by_sequence[id(sequence)] = active
        self._scheduler.add(sequence)

    def _check(self, request: EngineRequest) -> None:
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
        outside = [id for id, _ in request.params.logit_bias if id >= self.engine.vocab_size]
        if outside:
            raise RequestError(
                "'logit_bias' names a token outside the vocabulary",
                where=request.request_id,
                got=outside[0],
                expected=f"0 to {self.engine.vocab_size - 1}",
            )
        if request.grammar is not None and self.compile_grammar is None:
            raise RequestError("a grammar needs a tokenizer", where=request.request_id)

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
        self._note_start(step)
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

    def _note_start(self, step: ScheduledStep) -> None:
        now = time.perf_counter()
        for share in step.shares:
            active = self._by_sequence[id(share.sequence)]
            if active.started is None:
                active.started = now

    def _copy_blocks(self, step: ScheduledStep) -> None:
        for copy in step.copies:
            self.engine.copy_blocks(copy.group, [copy.source], [copy.destination])

    def _sample(self, step: ScheduledStep, logits: FloatRows) -> Iterator[TokenOutput]:
        for share in step.shares:
            self._score_prompt(share, logits)
        ready = [
            (self._by_sequence[id(share.sequence)], share.logit_rows[-1])
            for share in step.shares
            if share.is_complete
        ]
        for active, _ in ready:
            if active.request.max_tokens == 0:
                yield self._output(active, None, "length")
        ready = [(active, row) for active, row in ready if active.request.max_tokens > 0]
        if not ready:
            return
        drawn: list[tuple[_Active, int, Draw]] = []
        for active, row in ready:
            try:
                drawn.append((active, row, active.draw))
            except Exception as error:  # a grammar's fault is no fault of the step
                yield self._ended(active, error)
        if not drawn:
            return
        rows = logits[[row for _, row, _ in drawn]]
        tokens = self._sampler.sample(rows, [draw for _, _, draw in drawn])
        logprobs = self._logprobs(rows, tokens, [active for active, _, _ in drawn])
        for (active, _, _), token, own in zip(drawn, tokens, logprobs, strict=True):
            try:
                yield self._take(active, token, own)
            except Exception as error:
                yield self._ended(active, error)

    def _score_prompt(self, share: Scheduled, logits: FloatRows) -> None:
        """Notes how likely the prompt's tokens were, where that is asked for."""
        active = self._by_sequence[id(share.sequence)]
        wanted = active.request.params.prompt_logprobs
        prompt, found = active.request.prompt_token_ids, active.prompt_logprobs
        if wanted is None:
            return
        end = share.sequence.num_cached_tokens
        rows = [
            (row, prompt[position + 1])
            for row, position in zip(
                share.logit_rows, range(end - share.num_tokens, end), strict=True
            )
            if len(found) <= position < len(prompt) - 1  # not again after giving way
        ]
        if rows:
            found += self._sampler.logprobs(
                logits[[row for row, _ in rows]],
                [token for _, token in rows],
                [wanted] * len(rows),
            )

    def _logprobs(
        self, rows: FloatRows, tokens: SequenceOf[int], requests: SequenceOf[_Active]
    ) -> list[TokenLogprobs | None]:
        """Of the tokens whose requests ask for them."""
        found: list[TokenLogprobs | None] = [None] * len(tokens)
        asking = {
            index: active.request.params.logprobs
            for index, active in enumerate(requests)
            if active.request.params.logprobs is not None
        }
        if asking:
            chosen = [tokens[index] for index in asking]
            of_asking = self._sampler.logprobs(rows[list(asking)], chosen, list(asking.values()))
            for index, logprobs in zip(asking, of_asking, strict=True):
                found[index] = logprobs
        return found

    def _take(self, active: _Active, token: int, logprobs: TokenLogprobs | None) -> TokenOutput:
        request, sequence = active.request, active.sequence
        sequence.token_ids.append(token)
        if active.grammar is not None:
            active.grammar.accept(token)
        reason = None
        if token in request.end_token_ids or token in request.params.stop_token_ids:
            reason = "stop"
        elif active.num_output_tokens >= request.max_tokens:
            reason = "length"
        return self._output(active, token, reason, logprobs)

    def _output(
        self,
        active: _Active,
        token: int | None,
        reason: str | None,
        logprobs: TokenLogprobs | None = None,
    ) -> TokenOutput:
        is_first = active.num_cached_tokens is None
        if active.num_cached_tokens is None:  # preempted, it would find its own blocks
            active.num_cached_tokens = active.sequence.num_prefix_tokens
        if reason is not None:
            self._finish(active)
        wants_prompt = is_first and active.request.params.prompt_logprobs is not None
        assert active.started is not None
        return TokenOutput(
            request_id=active.request.request_id,
            token_id=token,
            finish_reason=reason,
            num_cached_tokens=active.num_cached_tokens,
            logprobs=logprobs,
            prompt_logprobs=tuple(active.prompt_logprobs) if wants_prompt else None,
            prefill_seconds=time.perf_counter() - active.started if is_first else 0.0,
        )

    def _fail(self, shares: SequenceOf[Scheduled], error: Exception) -> list[TokenOutput]:
        failed = [
            self._by_sequence[id(share.sequence)]
            for share in shares
            if id(share.sequence) in self._by_sequence
        ]
        return [self._ended(active, error) for active in failed]

    def _ended(self, active: _Active, error: Exception) -> TokenOutput:
        self._finish(active)
        return TokenOutput(
            request_id=active.request.request_id,
            token_id=None,
            finish_reason="error",
            error=error if isinstance(error, RuntimeFault) else _unforeseen(error),
        )

    def _finish(self, active: _Active) -> None:
        self._scheduler.finish(active.sequence)
        del self._active[active.request.request_id]
        del self._by_sequence[id(active.sequence)]


def _unforeseen(error: Exception) -> EngineError:
    return EngineError("a step failed", got=f"{type(error).__name__}: {error}")
