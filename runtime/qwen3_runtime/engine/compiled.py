"""Generated engines at run time: the manifest, the native module, and loading a checkpoint."""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, overload

import numpy as np
import numpy.typing as npt

from qwen3_runtime.checkpoint import (
    Array,
    Checkpoint,
    WeightBinding,
    WeightStore,
    open_checkpoint,
    progress_bar,
)
from qwen3_runtime.engine.batch import Batch, CacheGroup, FloatRows
from qwen3_runtime.engine.capacity import Capacity, Limits, plan_capacity
from qwen3_runtime.engine.manifest import (
    TRACED_KEY,
    Manifest,
    cache_groups,
    memory_needs,
    read_manifest,
    weight_bindings,
)
from qwen3_runtime.engine.native_module import load_native_module
from qwen3_runtime.engine.prefill import prompt_logits
from qwen3_runtime.engine.tracing import in_half_split_order, require_names
from qwen3_runtime.errors import CheckpointError, EngineError
from qwen3_runtime.sampling.sampler import SamplingKernels


class CompiledEngine:
    """A generated engine with its weights loaded.

    Steps of one engine follow each other: calls from several threads wait for each other.
    """

    directory: Path
    """Folder of the generated engine."""

    def __init__(self, native: Any, manifest: Manifest, capacity: Capacity) -> None:
        self._native = native
        self.manifest = manifest
        self.capacity = capacity
        self._cache_groups = cache_groups(manifest)
        self._slots_in_use = threading.Lock()
        self._num_steps = 0

    @classmethod
    def from_checkpoint(
        cls,
        path: str | Path | Checkpoint,
        *,
        limits: Limits | None = None,
        show_progress: bool = True,
    ) -> CompiledEngine:
        """Loads a checkpoint's weights into the engine.

        Args:
            path: Hugging Face folder, GGUF file, or an open checkpoint.
            limits: Lengths and numbers of sequences the engine must hold.
            show_progress: Draws a bar on standard error while loading.

        Raises:
            CheckpointError: Files or tensors are missing or do not fit the engine.
            EngineError: The module does not load here, or the limits cannot be met.
        """
        manifest = read_manifest(cls.directory)
        native = load_native_module(cls.directory)
        if isinstance(path, (str, Path)):
            with open_checkpoint(Path(path)) as checkpoint:
                capacity = check_fit(manifest, checkpoint, limits or Limits())
                engine = _load(native, manifest, checkpoint, capacity, show_progress)
        else:
            capacity = check_fit(manifest, path, limits or Limits())
            engine = _load(native, manifest, path, capacity, show_progress)
        return cls(engine, manifest, capacity)

    @property
    def vocab_size(self) -> int:
        """Columns of the logits."""
        return int(self._native.vocab_size)

    @property
    def max_model_len(self) -> int:
        """Most tokens of a sequence."""
        return self.capacity.max_model_len

    @property
    def max_num_seqs(self) -> int:
        """Most sequences in flight."""
        return self.capacity.max_num_seqs

    @property
    def max_num_batched_tokens(self) -> int:
        """Most tokens of a step."""
        return self.capacity.max_num_batched_tokens

    @property
    def num_blocks(self) -> int:
        """Blocks of every paged cache group; 0 where there is none."""
        return self.capacity.num_blocks

    @property
    def cache_groups(self) -> tuple[CacheGroup, ...]:
        """Cache groups, in the order a batch gives places for them."""
        return self._cache_groups

    @property
    def num_steps(self) -> int:
        """Steps carried out so far; who keeps account of the cache sees that others wrote to it."""
        return self._num_steps

    @property
    def sampling_kernels(self) -> SamplingKernels:
        """The compiled sampler; see ``qwen3_runtime.sampling``."""
        kernels: SamplingKernels = self._native
        return kernels

    @overload
    def forward(self, inputs: Batch) -> FloatRows: ...

    @overload
    def forward(self, inputs: Sequence[Sequence[int]]) -> list[FloatRows]: ...

    def forward(self, inputs: Batch | Sequence[Sequence[int]]) -> FloatRows | list[FloatRows]:
        """Runs one step, or whole sequences from their start.

        Whole sequences take slots, or blocks of a paged cache, for themselves; calls with them
        wait for each other, but batches of one's own must not run meanwhile.

        Args:
            inputs: A batch, or token ids of some sequences.

        Returns:
            For a batch ``[num_logit_rows, vocab_size]``; for sequences, one array
            ``[num_tokens, vocab_size]`` each.

        Raises:
            EngineError: The batch breaks a limit, or an operator failed.
        """
        if not isinstance(inputs, Batch):
            with self._slots_in_use:
                return prompt_logits(self, inputs)
        self._num_steps += 1
        logits: FloatRows = self._native.forward(*_arguments(inputs))
        return logits

    def copy_blocks(self, group: int, sources: Sequence[int], destinations: Sequence[int]) -> None:
        """Copies blocks of a paged cache group, as ``qwen3_runtime.engine.batch.Engine`` says.

        Raises:
            EngineError: There is no such paged group, or blocks are out of range, named twice, or
                both source and destination; nothing was changed.
        """
        if not 0 <= group < len(self._cache_groups):
            raise EngineError(
                "there is no such cache group",
                got=group,
                expected=f"0 to {len(self._cache_groups) - 1}",
            )
        self._native.copy_blocks(group, _blocks(sources), _blocks(destinations))

    def trace(self, batch: Batch, names: Collection[str] | None = None) -> dict[str, FloatRows]:
        """Runs one step and returns its values by name, in order, weights left out.

        Names are those of the graph after the passes of the engine's lowering: ``prologue.h``,
        ``layers.3.q_rms_norm``, ``epilogue.logits``, and inside a fused op
        ``layers.3.a.k_rope``. What an engine never keeps in memory, such as attention scores or
        the token ids, has no name here. Without logit rows there is no epilogue.

        Args:
            batch: The step; caches change as in ``forward``.
            names: The values wanted; None is all of them, which may be gigabytes.

        Returns:
            float32 arrays ``[num_tokens, ...]``, in the epilogue ``[num_logit_rows, ...]``.

        Raises:
            EngineError: The engine was not built with ``--trace``, has no value of such a name,
                the batch breaks a limit, or an operator failed.
        """
        if TRACED_KEY not in self.manifest:
            raise EngineError(
                "the engine was not built for tracing",
                where=self.directory,
                hint="build it again with `qwen3-codegen build --trace`, or "
                "CompileOptions(trace=True)",
            )
        if names is not None and not names:
            return {}
        self._num_steps += 1
        values = in_half_split_order(
            self._native.trace(*_arguments(batch), set(names or ())), self.manifest
        )
        require_names(names, values, self.directory)
        return values


def _blocks(numbers: Sequence[int]) -> npt.NDArray[np.int32]:
    """Blocks as the native module takes them; a cast alone would make other blocks of some."""
    given = np.asarray(numbers)
    blocks = given.astype(np.int32)
    if given.size and (given.dtype.kind not in "iu" or (blocks != given).any()):
        raise EngineError("blocks are whole numbers of 32 bits", got=repr(numbers)[:80])
    return blocks


def _arguments(batch: Batch) -> tuple[object, ...]:
    """A batch as the native module takes it."""
    return (
        batch.token_ids,
        batch.positions,
        batch.query_lens,
        batch.seq_lens,
        batch.logit_rows,
        [(places.slots, places.block_table) for places in batch.places],
    )


def engine_class(directory: Path) -> type[CompiledEngine]:
    """Returns the engine class of a generated folder; nothing is loaded yet."""
    return type("Engine", (CompiledEngine,), {"directory": directory, "__doc__": None})


def check_fit(manifest: Manifest, checkpoint: Checkpoint, limits: Limits) -> Capacity:
    """Compares a checkpoint and limits with an engine; before it is compiled, where that is due.

    Returns:
        The limits the engine is to be created with.

    Raises:
        CheckpointError: Tensors are missing, left over, or of other shapes.
        EngineError: The limits cannot be met, or what the engine needs exceeds the free memory.
    """
    check_weights(checkpoint, weight_bindings(manifest), manifest["ignored_tensors"])
    longest = int(manifest["max_position_embeddings"])
    return plan_capacity(
        cache_groups(manifest), longest, limits, memory_needs(manifest, checkpoint)
    )


def check_weights(
    checkpoint: Checkpoint, bindings: Sequence[WeightBinding], ignore: Sequence[str]
) -> None:
    """Compares a checkpoint's tensors with those an engine is made of, reading none of them.

    Raises:
        CheckpointError: Tensors are missing, left over, or of other shapes.
    """
    try:
        WeightStore(checkpoint, bindings, ignore=ignore).check()
    except CheckpointError as error:
        raise _with_other_architecture(error, checkpoint, bindings) from None


def _load(
    native: ModuleType,
    manifest: Manifest,
    checkpoint: Checkpoint,
    capacity: Capacity,
    show_progress: bool,
) -> object:
    with progress_bar() as report:
        store = WeightStore(
            checkpoint,
            weight_bindings(manifest),
            ignore=manifest["ignored_tensors"],
            progress=report if show_progress else None,
        )

        def read_weight(name: str, layer: int | None) -> Array:
            array = store.load(name, layer)
            # NumPy has no bfloat16 of its own; the engine wants the bytes.
            return array.view(np.uint16) if array.itemsize == 2 else array

        engine: object = native.Engine(
            read_weight=read_weight,
            max_model_len=capacity.max_model_len,
            max_num_seqs=capacity.max_num_seqs,
            max_num_batched_tokens=capacity.max_num_batched_tokens,
            num_blocks=capacity.num_blocks,
        )
        store.release()
    return engine


def _with_other_architecture(
    error: CheckpointError, checkpoint: Checkpoint, bindings: Sequence[WeightBinding]
) -> CheckpointError:
    """A Qwen3 checkpoint without q/k norm is a Llama in all but name; say so."""
    wanted = {name for binding in bindings for name in binding.sources}
    if _has_qk_norm(wanted) and not _has_qk_norm(checkpoint.tensors):
        return CheckpointError(
            error.message,
            where=error.where,
            got=error.got,
            expected=error.expected,
            hint="there is no q_norm/k_norm in this checkpoint: --arch llama fits it",
        )
    return error


def _has_qk_norm(names: Iterable[str]) -> bool:
    return any("q_norm" in name or "k_norm" in name for name in names)
