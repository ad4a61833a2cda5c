"""``Qwen3ForCausalLM`` and ``JiugeForCauslLM``, over ``LLM``'s engine and tokenizer."""

from __future__ import annotations

import math
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import closing
from itertools import islice
from pathlib import Path
from statistics import fmean
from typing import Any, Protocol

from qwen3_runtime.engine.batch import Engine
from qwen3_runtime.engine.prefill import check_ids, prompt_list
from qwen3_runtime.errors import EngineError, RequestError, RuntimeFault
from qwen3_runtime.infer.compiler import compiler_module
from qwen3_runtime.infer.devices import DeviceType, device_name
from qwen3_runtime.infer.old_names import hint_for, sampling_names
from qwen3_runtime.infer.rounds import Rounds, Turn
from qwen3_runtime.infer.tasks import InferTask, KVCache, old_sampling_params
from qwen3_runtime.infer.tokenizer import InferTokenizer
from qwen3_runtime.text import Tokenizer

__all__ = ["InferModel", "JiugeForCauslLM", "Qwen3ForCausalLM"]


_OLD_ARGUMENTS = {
    "model": "model_dir_path=",
    "dev": "device= or device_type=",
    "max_model_len": "max_tokens=",
    "quant": "quantization=",
}


class _OpenModel(Protocol):
    """What is used of ``qwen3_codegen.LLM``."""

    engine: Engine
    tokenizer: Tokenizer | None
    spec: Any

    def close(self) -> None: ...


class InferModel:
    """A model as programs for InfiniCore-Infer use it; which one it is, the checkpoint says.

    Args:
        model_dir_path: Hugging Face folder; a GGUF file or a hub id will do, too.
        device: Name, number or ``DeviceType``; the cpu by default.
        ndev: Number of devices; one in this version.
        max_tokens: Most tokens of a sequence; None takes what fits the memory.
        device_type: Another name of ``device``.
        quantization: None; quantised engines are not available in this version.
        options: What else ``qwen3_codegen.LLM`` takes, such as ``dtype="float32"``.

    Raises:
        CodegenError: The checkpoint's configuration or a choice does not fit, or a build failed.
        RuntimeFault: The checkpoint's files do not fit, or the compiler is not installed.
    """

    def __init__(
        self,
        model_dir_path: str | Path,
        device: str | int | DeviceType | None = None,
        ndev: int = 1,
        max_tokens: int | None = None,
        *,
        device_type: str | int | DeviceType | None = None,
        quantization: str | None = None,
        **options: Any,
    ) -> None:
        if device is not None and device_type is not None:
            raise EngineError(
                "the device is given twice", got=f"device={device!r}, device_type={device_type!r}"
            )
        chosen = next((each for each in (device, device_type) if each is not None), "cpu")
        arguments = {
            "dev": device_name(chosen),
            "ndev": ndev,
            "max_model_len": max_tokens,
            "quant": quantization,
        }
        _refuse_new_spellings(options)
        opened: _OpenModel = compiler_module("llm").LLM(model_dir_path, **arguments, **options)
        self._open: _OpenModel | None = opened
        self._rounds: Rounds | None = Rounds(opened.engine)

    @property
    def rounds(self) -> Rounds:
        """Where KV caches are kept.

        Raises:
            EngineError: The model was destroyed.
        """
        if self._rounds is None:
            raise _destroyed()
        return self._rounds

    @property
    def tokenizer(self) -> InferTokenizer:
        """The checkpoint's tokenizer.

        Raises:
            RequestError: It has none.
        """
        return InferTokenizer(self._need_tokenizer())

    @property
    def eos_token_id(self) -> list[int]:
        """Every token that ends an answer.

        Raises:
            RequestError: The checkpoint has no tokenizer.
        """
        return list(self._need_tokenizer().eos_token_ids)

    def max_context_len(self) -> int:
        """Returns the most tokens of prompt and answer together."""
        return self.rounds.engine.max_model_len

    def create_kv_cache(self) -> KVCache:
        """Returns an empty cache; ``cache.drop(model)`` gives its place back."""
        return KVCache(self)

    def drop_kv_cache(self, kv_cache: KVCache) -> None:
        """The same as ``kv_cache.drop(model)``."""
        kv_cache.drop(self)

    def batch_infer_one_round(self, tasks: Sequence[InferTask]) -> list[int]:
        """Computes what each task brings, prompts and single tokens mixed, as one batch.

        Args:
            tasks: Each with a cache of its own, which is longer by the task's tokens afterwards.

        Returns:
            One sampled token per task, in order; ``task.next(token)`` takes it for the next round.

        Raises:
            RequestError: A task cannot be served; nothing was computed then.
            EngineError: A step failed.
        """
        rounds = self.rounds
        turns = [_turn(rounds, task) for task in tasks]
        if len({turn.sequence for turn in turns}) < len(turns):
            raise RequestError("two tasks share one KV cache")
        return rounds.infer(turns) if turns else []

    def generate(
        self,
        input_content: str,
        max_steps: int,
        topp_: float = 1.0,
        topk_: int = 1,
        temperature_: float = 1.0,
        **sampling: float,
    ) -> tuple[str, float]:
        """Answers one message and prints the answer as it comes, as the old engine did.

        The chat template is applied. ``topk_=1``, the default, takes the likeliest token whatever
        the temperature.

        Args:
            input_content: The user's message.
            max_steps: Most tokens of the answer.
            topp_: The likeliest tokens of this mass are chosen from.
            topk_: So many likeliest tokens are chosen from; 0 leaves all.
            temperature_: Spread of the choice.
            sampling: The same as ``topp``, ``top_p``, ``topk``, ``top_k`` or ``temperature``.

        Returns:
            The answer, and seconds per token: of those after the first, where there are any.

        Raises:
            RequestError: The message or a parameter cannot be served.
            TokenizerError: There is no chat template.
        """
        _require_positive("max_steps", max_steps)
        usual = {"topp_": topp_, "topk_": topk_, "temperature_": temperature_}
        chosen = sampling_names(usual, sampling)
        task = self._chat_task(input_content, chosen)
        room = self.max_context_len() - len(task.tokens)
        if room < 1:
            raise RequestError(
                f"maximum context length is {self.max_context_len()} tokens",
                got=f"{len(task.tokens)} tokens, which leaves no room for an answer",
            )
        stream = self._need_tokenizer().stream()
        pieces: list[str] = []
        seconds: list[float] = []
        with closing(self._answer(task)) as answer:
            for token, took in islice(answer, min(max_steps, room)):
                seconds.append(took)
                if token not in task.end_tokens:
                    pieces.append(stream.add(token))
                    print(pieces[-1], end="", flush=True)
        pieces.append(stream.finish())
        print(pieces[-1])
        return "".join(pieces), fmean(seconds[1:] or seconds)

    def perplexity(self, test_sequences: Sequence[Sequence[int]], batch_size: int = 10) -> float:
        """Returns exp of the mean negative log-likelihood of all tokens but each first one.

        Args:
            test_sequences: Token ids, two at least in each.
            batch_size: Sequences computed together.

        Raises:
            RequestError: There are no sequences, or one cannot be served.
        """
        rounds = self.rounds
        _require_positive("batch_size", batch_size)
        sequences = [
            _scorable(rounds.engine, ids, f"sequence {index}")
            for index, ids in enumerate(prompt_list(test_sequences))
        ]
        if not sequences:
            raise RequestError("perplexity needs at least one sequence")
        total = sum(
            rounds.log_likelihood(sequences[start : start + batch_size])
            for start in range(0, len(sequences), batch_size)
        )
        return math.exp(-total / sum(len(ids) - 1 for ids in sequences))

    def destroy_model_instance(self) -> None:
        """Frees the engine and its memory; after that the model can only be destroyed again."""
        if self._open is not None:
            self._open.close()
        self._open = self._rounds = None

    def __getattr__(self, name: str) -> Any:
        said = f"{type(self).__name__!r} object has no attribute {name!r}"
        raise AttributeError(hint_for(name) or said)

    def _need_tokenizer(self) -> Tokenizer:
        if self._open is None:
            raise _destroyed()
        if self._open.tokenizer is None:
            raise RequestError(
                "this checkpoint has no tokenizer",
                hint="InferTask takes token ids and end_tokens of your own",
            )
        return self._open.tokenizer

    def _chat_task(self, text: str, sampling: Mapping[str, Any]) -> InferTask:
        if not isinstance(text, str):
            raise RequestError(
                "generate answers one message, a text",
                got=type(text).__name__,
                hint="qwen3_codegen.LLM.chat takes whole conversations",
            )
        tokenizer = self._need_tokenizer()
        assert self._open is not None, "a destroyed model has no tokenizer"
        system = self._open.spec.chat.system_prompt
        messages = [{"role": "system", "content": system}] if system else []
        return InferTask(
            id=0,
            tokens=tokenizer.encode_chat([*messages, {"role": "user", "content": text}]),
            max_tokens=self.max_context_len(),
            temperature=sampling["temperature_"],
            topk=sampling["topk_"],
            topp=sampling["topp_"],
            end_tokens=self.eos_token_id,
        )

    def _answer(self, task: InferTask) -> Generator[tuple[int, float], None, None]:
        """Yields a task's tokens with the seconds each took, an end token included."""
        cache = self.create_kv_cache()
        task.bind_kvcache(cache)
        try:
            while task.finish_reason is None:
                started = time.perf_counter()
                (token,) = self.batch_infer_one_round([task])
                yield token, time.perf_counter() - started
                task.next(token)
        finally:
            cache.drop(self)


class Qwen3ForCausalLM(InferModel):
    """What scripts/qwen3.py has; see ``InferModel``."""


class JiugeForCauslLM(InferModel):
    """What scripts/jiuge.py has, spelled as there; see ``InferModel``."""


def _destroyed() -> EngineError:
    return EngineError("the model was destroyed", hint="make it anew")


def _require_positive(name: str, value: object) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise RequestError(f"'{name}' is invalid", got=repr(value)[:80], expected="1 or more")


def _refuse_new_spellings(options: dict[str, Any]) -> None:
    """``LLM``'s own names of what has an old one here."""
    for name in options:
        if name in _OLD_ARGUMENTS:
            raise EngineError(f"the argument '{name}' has its old name", hint=_OLD_ARGUMENTS[name])


def _turn(rounds: Rounds, task: InferTask) -> Turn:
    where = f"task {task.id}"
    if task.finish_reason is not None:
        raise RequestError("the task is finished", where=where, got=task.finish_reason)
    try:
        params = old_sampling_params(task.temperature, task.topk, task.topp)
    except RuntimeFault as error:
        raise RequestError(
            error.message, where=where, got=error.got, expected=error.expected
        ) from None
    return Turn(
        sequence=task.kvcache().sequence_in(rounds, where),
        position=task.pos,
        token_ids=check_ids(task.tokens, rounds.engine.vocab_size, where),
        params=params,
    )


def _scorable(engine: Engine, ids: object, where: str) -> list[int]:
    tokens = check_ids(ids, engine.vocab_size, where)
    if not 1 < len(tokens) <= engine.max_model_len + 1:
        raise RequestError(
            "a sequence cannot be scored",
            where=where,
            got=f"{len(tokens)} tokens",
            expected=f"2 to {engine.max_model_len + 1}",
        )
    return tokens
