"""From prompts to text: encode, step the engine, sample, detokenize, stop."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from collections.abc import Sequence as SequenceOf
from dataclasses import dataclass, field
from numbers import Number
from typing import TypeAlias

from qwen3_runtime.checkpoint import Checkpoint
from qwen3_runtime.engine.batch import Engine, FloatRows
from qwen3_runtime.engine.prefill import check_token_ids, prompt_list
from qwen3_runtime.engine.scheduler import ScheduledStep, Scheduler, Sequence
from qwen3_runtime.errors import RequestError
from qwen3_runtime.generation_config import end_token_ids
from qwen3_runtime.sampling import SamplingParams
from qwen3_runtime.sampling.sampler import Draw, Sampler, sampler_for
from qwen3_runtime.text import IncrementalDetokenizer, StopChecker, Tokenizer

Prompt: TypeAlias = str | SequenceOf[int]
Message: TypeAlias = Mapping[str, object]
OnText: TypeAlias = Callable[[int, str], None]


@dataclass(frozen=True, slots=True)
class RequestOutput:
    """What a prompt was continued with."""

    text: str
    """Without the end token and without a stop string; empty when there is no tokenizer."""
    token_ids: tuple[int, ...]
    """Generated ids, an end token included."""
    finish_reason: str
    """``stop`` (end token, stop token or stop string) or ``length``."""
    num_prompt_tokens: int


@dataclass(slots=True, eq=False)
class _Request:
    """A prompt on its way."""

    index: int
    sequence: Sequence
    params: SamplingParams
    num_prompt_tokens: int
    max_tokens: int
    seed: int
    end_token_ids: frozenset[int]
    detokenizer: IncrementalDetokenizer | None
    stop: StopChecker
    pieces: list[str] = field(default_factory=list)
    finish_reason: str | None = None

    @property
    def output_ids(self) -> list[int]:
        return self.sequence.token_ids[self.num_prompt_tokens :]


class Generator:
    """Generates with one engine; for one thread at a time.

    Args:
        engine: A loaded engine.
        tokenizer: None where prompts are token ids only.
        checkpoint: Where end tokens are listed.
    """

    def __init__(self, engine: Engine, tokenizer: Tokenizer | None, checkpoint: Checkpoint) -> None:
        self._engine = engine
        self._tokenizer = tokenizer
        self._end_token_ids = frozenset(end_token_ids(checkpoint))
        if tokenizer is not None:
            self._end_token_ids |= frozenset(tokenizer.eos_token_ids)
        self._sampler: Sampler = sampler_for(engine)

    def generate(
        self,
        prompts: Prompt | SequenceOf[Prompt],
        params: SamplingParams | SequenceOf[SamplingParams],
        *,
        on_text: OnText | None = None,
    ) -> list[RequestOutput]:
        """Continues prompts as one continuously mixed batch; see ``LLM.generate``."""
        given = self.token_ids(prompts)
        requests = [
            self._request(index, ids, chosen)
            for index, (ids, chosen) in enumerate(
                zip(given, _one_each(params, len(given)), strict=True)
            )
        ]
        for _ in self._run(requests, on_text):
            pass
        return [_output(request) for request in requests]

    def chat(
        self,
        messages: SequenceOf[Message],
        params: SamplingParams,
        *,
        tools: SequenceOf[Mapping[str, object]] | None = None,
        on_text: OnText | None = None,
        **template_arguments: object,
    ) -> RequestOutput:
        """Answers a conversation; see ``LLM.chat``."""
        tokenizer = self._need_tokenizer()
        ids = tokenizer.encode_chat(messages, True, tools=tools, **template_arguments)
        (output,) = self.generate([ids], params, on_text=on_text)
        return output

    def token_ids(self, prompts: Prompt | SequenceOf[Prompt]) -> list[list[int]]:
        """Returns the token ids of each prompt; one prompt alone is a list of one.

        Raises:
            RequestError: A prompt is empty, too long, or text where there is no tokenizer.
        """
        return [self._token_ids(prompt, index) for index, prompt in enumerate(_as_list(prompts))]

    def _need_tokenizer(self) -> Tokenizer:
        if self._tokenizer is None:
            raise RequestError(
                "this checkpoint has no tokenizer", hint="give prompts as lists of token ids"
            )
        return self._tokenizer

    def _token_ids(self, prompt: object, index: int) -> list[int]:
        ids = self._need_tokenizer().encode(prompt) if isinstance(prompt, str) else prompt
        return check_token_ids(self._engine, ids, index)

    def _request(self, index: int, ids: list[int], params: SamplingParams) -> _Request:
        room = self._engine.max_model_len - len(ids)
        if room < 1:
            raise RequestError(
                f"maximum context length is {self._engine.max_model_len} tokens",
                where=f"prompt {index}",
                got=f"{len(ids)} tokens, which leaves no room for an answer",
            )
        if params.stop and self._tokenizer is None:
            raise RequestError("stop strings need a tokenizer", where=f"prompt {index}")
        max_tokens = room if params.max_tokens is None else min(room, params.max_tokens)
        return _Request(
            index=index,
            sequence=Sequence(ids),
            params=params,
            num_prompt_tokens=len(ids),
            max_tokens=max_tokens,
            seed=params.seed_or_new(),
            end_token_ids=frozenset() if params.ignore_eos else self._end_token_ids,
            detokenizer=self._tokenizer.stream() if self._tokenizer else None,
            stop=StopChecker(params.stop),
        )

    def _run(self, requests: SequenceOf[_Request], on_text: OnText | None) -> Iterator[None]:
        scheduler = Scheduler(self._engine)
        by_sequence = {id(request.sequence): request for request in requests}
        for request in requests:
            scheduler.add(request.sequence)
        while scheduler.has_work:
            step = scheduler.schedule()
            logits = self._engine.forward(step.batch)
            scheduler.advance(step)
            for request, token in self._sample(step, by_sequence, logits):
                request.sequence.token_ids.append(token)
                _take(request, token, on_text)
                if request.finish_reason is not None:
                    scheduler.finish(request.sequence)
            yield

    def _sample(
        self, step: ScheduledStep, by_sequence: Mapping[int, _Request], logits: FloatRows
    ) -> list[tuple[_Request, int]]:
        ready = [
            (by_sequence[id(share.sequence)], share) for share in step.shares if share.logit_rows
        ]
        if not ready:
            return []
        rows = logits[[share.logit_rows[-1] for _, share in ready]]
        draws = [
            Draw(request.params, request.seed, len(request.sequence.token_ids))
            for request, _ in ready
        ]
        tokens = self._sampler.sample(rows, draws)
        return [(request, token) for (request, _), token in zip(ready, tokens, strict=True)]


def _as_list(prompts: object) -> list[object]:
    if isinstance(prompts, str):
        return [prompts]
    items = prompt_list(prompts)
    if items and all(isinstance(item, Number) for item in items):
        return [items]  # one list of token ids
    return items


def _one_each(
    params: SamplingParams | SequenceOf[SamplingParams], count: int
) -> list[SamplingParams]:
    if isinstance(params, SamplingParams):
        return [params] * count
    each = list(params) if isinstance(params, SequenceOf) else [params]
    for chosen in each:
        if not isinstance(chosen, SamplingParams):
            raise RequestError(
                "sampling parameters are of another type",
                got=repr(chosen)[:80],
                expected="SamplingParams(temperature=...), one for all prompts or one each",
            )
    if len(each) != count:
        raise RequestError(
            "one set of sampling parameters per prompt is needed",
            got=f"{len(each)} for {count} prompts",
        )
    return each


def _take(request: _Request, token: int, on_text: OnText | None) -> None:
    """Adds a token's text and finds out whether the request is finished."""
    if token in request.end_token_ids or token in request.params.stop_token_ids:
        request.finish_reason = "stop"
        _emit(request, "", on_text, last=True)
        return
    text = request.detokenizer.add(token) if request.detokenizer else ""
    is_last = len(request.output_ids) >= request.max_tokens
    if is_last:
        request.finish_reason = "length"
    _emit(request, text, on_text, last=is_last)


def _emit(request: _Request, text: str, on_text: OnText | None, *, last: bool) -> None:
    if last and request.detokenizer is not None:
        text += request.detokenizer.finish()
    final = request.stop.add(text)
    if last and request.stop.stopped_by is None:
        final += request.stop.finish()
    if request.stop.stopped_by is not None:
        request.finish_reason = "stop"
    if final:
        request.pieces.append(final)
        if on_text is not None:
            on_text(request.index, final)


def _output(request: _Request) -> RequestOutput:
    return RequestOutput(
        text="".join(request.pieces),
        token_ids=tuple(request.output_ids),
        finish_reason=request.finish_reason or "length",
        num_prompt_tokens=request.num_prompt_tokens,
    )
