"""``LLM``: a checkpoint in, text out; builds the engine on first use."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import TracebackType

from qwen3_codegen.byte_size import parse_bytes
from qwen3_codegen.compile import CompileOptions, Spelling
from qwen3_codegen.hub import locate_checkpoint
from qwen3_codegen.ir.interpreter import Interpreter
from qwen3_codegen.llm_arguments import (
    dtype_or_auto,
    field_names,
    folders_of_ops,
    in_float32,
    overrides_as_text,
    refuse_compiled_options,
    refuse_unavailable,
)
from qwen3_codegen.llm_engines import compiled_engine, interpreter_engine
from qwen3_codegen.llm_values import ValueReader
from qwen3_codegen.own_ops import load_ops
from qwen3_codegen.spec.catalog import load_checkpoint_model
from qwen3_codegen.spec.model import ModelSpec
from qwen3_runtime.checkpoint import Checkpoint, open_checkpoint
from qwen3_runtime.engine.batch import Engine, FloatRows
from qwen3_runtime.engine.capacity import Limits
from qwen3_runtime.engine.prefill import prompt_logits
from qwen3_runtime.engine.tracing import TracedEngine
from qwen3_runtime.errors import EngineError, RequestError
from qwen3_runtime.generation import Generator, Message, OnText, Prompt, RequestOutput
from qwen3_runtime.generation_config import default_sampling_params, sampling_notes
from qwen3_runtime.perplexity import Perplexity, measure_perplexity
from qwen3_runtime.sampling import SamplingParams
from qwen3_runtime.text import Tokenizer, load_tokenizer


class LLM:
    """A model ready to generate; calls from several threads take turns.

    Args:
        model: Hugging Face folder, GGUF file, or hub id (``org/name``, ``org/name@revision``).
        dev: Device name, alias or YAML file.
        dtype: ``auto`` (the checkpoint's), ``float32``, ``bfloat16`` or ``float16``; the
            interpreter computes in float32.
        activation_dtype: What values between ops are kept in: ``auto`` (``float32``; in the
            portable lowering ``dtype``), or in the native lowering ``float32`` or ``dtype`` itself,
            which is less exact. With ``auto``, products of dense bfloat16 models round their rows
            where the processor multiplies bfloat16 (AVX512_BF16), with ``float32`` they do not.
        kv_cache_dtype: What keys and values are kept in: ``auto`` (as ``dtype``; in mixtures of
            experts as values between ops), or another dtype in the native lowering.
        quant: Weight quantisation; none is available in this version.
        ndev: Number of devices; one in this version.
        max_num_seqs: Most sequences in flight.
        max_model_len: Most tokens of a sequence; None takes what fits the memory for keys and
            values.
        max_num_batched_tokens: Most tokens of a step.
        kv_cache_memory: Bytes for keys and values, also as text: ``2GiB``.
        engine: ``compiled``, or ``interpreter`` (NumPy; slow, needs no compiler).
        arch: Architecture to use instead of the one the checkpoint names.
        overrides: Config fields to override: numbers, booleans, lists, or text as after ``--set``.
        ignore_config_keys: Config fields to accept though the architecture does not know them.
        infinicore: ``embedded``, ``0.1.0`` or an INFINI_ROOT folder.
        infinicore_api: Release of InfiniCore's C API.
        isa: Instruction set of the compiled code.
        lowering: ``portable`` or ``native``; None takes the device's.
        ops: Folder with ops of your own, or a list of such; their Python is run and their C++
            compiled, so name only what you trust.
        show_progress: Draws progress on standard error.

    Raises:
        CodegenError: The checkpoint's configuration or a choice does not fit, or a build failed.
        RuntimeFault: The checkpoint's files do not fit.
    """

    def __init__(
        self,
        model: str | Path,
        *,
        dev: str = "cpu",
        dtype: str = "auto",
        activation_dtype: str = "auto",
        kv_cache_dtype: str = "auto",
        quant: str | None = None,
        ndev: int = 1,
        max_num_seqs: int = 16,
        max_model_len: int | None = None,
        max_num_batched_tokens: int | None = None,
        kv_cache_memory: int | str | None = None,
        engine: str = "compiled",
        arch: str | None = None,
        overrides: Mapping[str, object] | None = None,
        ignore_config_keys: Sequence[str] = (),
        infinicore: str = "embedded",
        infinicore_api: str | None = None,
        isa: str = "native",
        lowering: str | None = None,
        ops: str | Path | Sequence[str | Path] = (),
        show_progress: bool = True,
    ) -> None:
        refuse_unavailable(quant, ndev, engine)
        op_folders = folders_of_ops(ops)
        options = CompileOptions(
            dtype=dtype_or_auto(dtype),
            activation_dtype=dtype_or_auto(activation_dtype, "activation_dtype"),
            kv_cache_dtype=dtype_or_auto(kv_cache_dtype, "kv_cache_dtype"),
            infinicore=infinicore,
            release=infinicore_api,
            isa=isa,
            lowering=lowering,
            spelling=Spelling(dev=dev, arch=arch, ops=op_folders),
        )
        if engine == "interpreter":
            refuse_compiled_options(dev, options)
        limits = Limits(
            max_model_len=max_model_len,
            max_num_seqs=max_num_seqs,
            max_num_batched_tokens=max_num_batched_tokens,
            kv_cache_memory=parse_bytes(kv_cache_memory, "kv_cache_memory")
            if isinstance(kv_cache_memory, str)
            else kv_cache_memory,
        )
        located = locate_checkpoint(model, show_progress=show_progress)
        self.spec = load_checkpoint_model(
            str(located.path),
            overrides=overrides_as_text(overrides),
            ignore_config_keys=field_names(ignore_config_keys),
            architecture=arch,
            name=located.name,
            own_functions=load_ops(op_folders),
        )
        engine_notes: tuple[str, ...] = ()
        if engine == "interpreter":
            self.spec, engine_notes = in_float32(self.spec)
        self._checkpoint: Checkpoint = open_checkpoint(located.path)
        try:  # small files first: what is wrong with them is said before minutes of compiling
            self.default_sampling_params: SamplingParams = default_sampling_params(
                self._checkpoint, self.spec.chat.sampling
            )
            self.tokenizer: Tokenizer | None = load_tokenizer(self._checkpoint)
            self.engine: Engine
            if engine == "compiled":
                self.engine, engine_notes = compiled_engine(
                    self.spec, self._checkpoint, dev, options, limits, show_progress
                )
            else:
                self.engine = interpreter_engine(self.spec, self._checkpoint, limits)
        except BaseException:
            self._checkpoint.close()
            raise
        self._values = ValueReader(
            self.spec, lambda: self._traced_engine(dev, options, show_progress)
        )
        self._generator = Generator(self.engine, self.tokenizer, self._checkpoint)
        self._lock = threading.Lock()
        self._owner: int | None = None
        self.notes: tuple[str, ...] = (
            *self.spec.notes,
            *engine_notes,
            *_longrope_notes(self.spec, self.engine.max_model_len),
            *sampling_notes(self._checkpoint),
        )
        """One-line facts the user should know about this model."""

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """Calls of several threads take turns: each uses the cache's slots from the first on."""
        if self._owner == threading.get_ident():
            raise EngineError(
                "the model is busy with a call of this very thread",
                hint="on_text must not call the model",
            )
        with self._lock:
            self._owner = threading.get_ident()
            try:
                yield
            finally:
                self._owner = None

    def generate(
        self,
        prompts: Prompt | Sequence[Prompt],
        sampling_params: SamplingParams | Sequence[SamplingParams] | None = None,
        *,
        on_text: OnText | None = None,
    ) -> list[RequestOutput]:
        """Continues prompts, all of them as one continuously mixed batch.

        Args:
            prompts: Strings or lists of token ids; one alone is a list of one.
            sampling_params: One for all, or one each; None takes the checkpoint's defaults.
            on_text: Called with (prompt index, new text) as text becomes final.

        Returns:
            One output per prompt, in order.

        Raises:
            RequestError: A prompt or its parameters cannot be served.
        """
        params = self.default_sampling_params if sampling_params is None else sampling_params
        with self._turn():
            return self._generator.generate(prompts, params, on_text=on_text)

    def chat(
        self,
        messages: Sequence[Message],
        sampling_params: SamplingParams | None = None,
        *,
        tools: Sequence[Mapping[str, object]] | None = None,
        on_text: OnText | None = None,
        **template_arguments: object,
    ) -> RequestOutput:
        """Answers a conversation.

        Args:
            messages: ``{"role": ..., "content": ...}`` in order.
            sampling_params: None takes the checkpoint's defaults.
            tools: Functions the model may call, as OpenAI describes them.
            on_text: Called with (0, new text) as text becomes final.
            template_arguments: Passed to the chat template, e.g. ``enable_thinking=False``.

        Raises:
            TokenizerError: There is no chat template, or it refuses the messages.
            RequestError: The conversation is too long.
        """
        params = self.default_sampling_params if sampling_params is None else sampling_params
        with self._turn():
            return self._generator.chat(
                self._with_system_prompt(messages),
                params,
                tools=tools,
                on_text=on_text,
                **template_arguments,
            )

    def _with_system_prompt(self, messages: Sequence[Message]) -> Sequence[Message]:
        prompt = self.spec.chat.system_prompt
        if prompt is None or any(message.get("role") == "system" for message in messages):
            return messages
        return [{"role": "system", "content": prompt}, *messages]

    def logits(self, prompts: Sequence[Sequence[int]]) -> list[FloatRows]:
        """Returns float32 logits ``[num_tokens, vocab_size]`` of each prompt, as mixed batches."""
        with self._turn():
            return prompt_logits(self.engine, prompts)

    def perplexity(
        self,
        text: Prompt,
        *,
        ctx_len: int | None = None,
        stride: int | None = None,
        max_windows: int | None = None,
        on_progress: Callable[[int], None] = lambda num_tokens: None,
    ) -> Perplexity:
        """Measures how well the model foresees a text; see ``qwen3_runtime.perplexity``.

        Args:
            text: A string or a list of token ids, of any length.
            ctx_len: Tokens of a window; None is what the engine takes.
            stride: From one window to the next; None is half a window.
            max_windows: Ends after so many; None goes to the end of the text.
            on_progress: Told the number of tokens just scored, window by window.

        Raises:
            RequestError: The text or the lengths cannot be served.
        """
        if isinstance(text, str) and self.tokenizer is None:
            raise RequestError(
                "this checkpoint has no tokenizer", hint="give the text as a list of token ids"
            )
        ids = self.tokenizer.encode(text) if isinstance(text, str) and self.tokenizer else text
        with self._turn():
            return measure_perplexity(
                self.engine,
                ids,  # type: ignore[arg-type] # token ids, which are checked there
                ctx_len=ctx_len,
                stride=stride,
                max_windows=max_windows,
                on_progress=on_progress,
            )

    def hidden_states(self, prompts: Prompt | Sequence[Prompt]) -> list[FloatRows]:
        """Returns what transformers returns for ``output_hidden_states=True``, of each prompt.

        A compiled model compiles a second engine on first use, which shows its values and has
        weights and a cache for one sequence of its own.

        Args:
            prompts: Strings or lists of token ids; one alone is a list of one.

        Returns:
            Per prompt float32 ``[num_layers + 1, num_tokens, hidden_size]``: embeddings as the
            first layer gets them, then what each layer leaves, the last one after the final norm.

        Raises:
            RequestError: A prompt cannot be served.
            CodegenError: The second engine cannot be built.
            RuntimeFault: It cannot be loaded.
        """
        with self._turn():
            return self._values.hidden_states(self._generator.token_ids(prompts))

    def embed(
        self, prompts: Prompt | Sequence[Prompt], *, pooling: str = "last"
    ) -> list[FloatRows]:
        """Returns a vector of each prompt: the final hidden state, pooled, of length 1.

        As with ``hidden_states``, a compiled model compiles a second engine on first use.

        Args:
            prompts: Strings or lists of token ids; one alone is a list of one.
            pooling: ``last`` (as Qwen3-Embedding is meant) or ``mean``.

        Returns:
            Per prompt float32 ``[hidden_size]``.

        Raises:
            RequestError: A prompt cannot be served, or there is no such pooling.
            CodegenError: The second engine cannot be built.
            RuntimeFault: It cannot be loaded.
        """
        with self._turn():
            return self._values.embeddings(self._generator.token_ids(prompts), pooling)

    def trace(self, prompt: Prompt) -> dict[str, FloatRows]:
        """Returns every value of one prompt by name; see ``CompiledEngine.trace``.

        As with ``hidden_states``, a compiled model compiles a second engine on first use.

        Args:
            prompt: A string or a list of token ids.

        Returns:
            float32 arrays ``[num_tokens, ...]``, in order.

        Raises:
            RequestError: It cannot be served, or is several prompts.
            CodegenError: The second engine cannot be built.
            RuntimeFault: It cannot be loaded.
        """
        with self._turn():
            return self._values.trace(self._generator.token_ids(prompt))

    def _traced_engine(
        self, dev: str, options: CompileOptions, show_progress: bool
    ) -> tuple[TracedEngine, str]:
        """An engine that shows its values, and the lowering of its graph."""
        if isinstance(self.engine, Interpreter):
            return self.engine, "portable"
        limits = Limits(
            max_model_len=self.engine.max_model_len,  # rotary tables depend on it
            max_num_seqs=1,
            max_num_batched_tokens=self.engine.max_num_batched_tokens,
        )
        traced, _ = compiled_engine(
            self.spec, self._checkpoint, dev, replace(options, trace=True), limits, show_progress
        )
        return traced, str(traced.manifest["device"]["lowering"])

    def close(self) -> None:
        """Closes the checkpoint's files; the engine keeps its weights, copied or mapped."""
        self._checkpoint.close()

    def __enter__(self) -> LLM:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def _longrope_notes(spec: ModelSpec, max_model_len: int) -> Iterator[str]:
    """Answers differ with the table even where they are short, so the choice is said."""
    for table in spec.rope.values():
        if table.long_threshold is not None:
            chosen = "long" if max_model_len > table.long_threshold else "short"
            yield (
                f"longrope: the {chosen} factors apply, because max_model_len is {max_model_len} "
                f"(long above {table.long_threshold})"
            )
