"""An engine's weights, checked against its manifest and made one at a time from a checkpoint."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import numpy as np

from qwen3_runtime.checkpoint.base import Checkpoint
from qwen3_runtime.checkpoint.tensor import FLOAT_DTYPES, Array, TensorInfo
from qwen3_runtime.checkpoint.transform import (
    Expression,
    Shape,
    evaluate,
    resolve_name,
    shape_of,
    tensor_names,
)
from qwen3_runtime.errors import CheckpointError

__all__ = ["Progress", "WeightBinding", "WeightStore"]

Progress = Callable[[int, int, str], None]
"""Called after each weight with bytes done, bytes in all, and the weight's name."""

_MAX_LISTED = 12
"""Kinds of problem spelled out in one error; the rest are counted."""
_ROWS_COMPARED = 1024
"""Rows of two matrices in memory at a time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightBinding:
    """One weight of an engine and how a checkpoint gives it."""

    name: str
    """The engine's name of the weight."""
    layer: int | None
    """Layer the weight belongs to, None outside the layers."""
    shape: Shape
    """Shape the engine expects."""
    dtype: str
    """``float32``, ``bfloat16`` or ``float16``."""
    expression: Expression
    """How to compute it."""
    sources: Mapping[str, Shape]
    """Shape each tensor of the expression must have, by its name with ``{layer}`` left in."""

    @property
    def num_bytes(self) -> int:
        """Bytes of the weight in the engine."""
        return int(np.prod(self.shape, dtype=object)) * FLOAT_DTYPES[self.dtype].itemsize

    @property
    def label(self) -> str:
        """The name as messages show it."""
        return self.name if self.layer is None else f"{self.name}[layer {self.layer}]"


class WeightStore:
    """Gives an engine its weights, tensor by tensor, from a checkpoint that stays the caller's.

    Only the weight at hand and what it is made of are in memory; the mapped pages of a tensor are
    given back as soon as the next weight is asked for. Not for use by two threads at once.

    Args:
        checkpoint: Where the tensors come from; must outlive the store.
        bindings: Every weight of the engine.
        ignore: ``fnmatch`` patterns of tensors the checkpoint may hold and no weight needs, such
            as rotary frequencies.
        progress: Told after each weight.

    Raises:
        CheckpointError: Two bindings share a name and layer, or a binding's dtype is unknown.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        bindings: Sequence[WeightBinding],
        *,
        ignore: Sequence[str] = (),
        progress: Progress | None = None,
    ) -> None:
        self._checkpoint = checkpoint
        self._ignore = tuple(ignore)
        self._progress = progress
        self._bindings: dict[tuple[str, int | None], WeightBinding] = {}
        for binding in bindings:
            if binding.dtype not in FLOAT_DTYPES:
                raise CheckpointError(
                    "unknown weight dtype",
                    where=binding.label,
                    got=binding.dtype,
                    expected=", ".join(FLOAT_DTYPES),
                )
            if (binding.name, binding.layer) in self._bindings:
                raise CheckpointError("weight bound twice", where=binding.label)
            self._bindings[binding.name, binding.layer] = binding
        self.total_bytes = sum(binding.num_bytes for binding in bindings)
        """Bytes of all weights in the engine."""
        self._bytes_done = 0
        self._pages_in_use: list[str] = []

    def check(self) -> None:
        """Compares the checkpoint with the bindings, reading no tensor that is needed only once.

        A tied head may be stored a second time, as published Qwen3 checkpoints do, if it equals
        what it is tied to.

        Raises:
            CheckpointError: Names every tensor that is missing, of another shape or of an element
                type that is no plain float, every tensor left over, and every expression that does
                not give its weight's shape.
        """
        problems = _Problems(self._checkpoint.tensors)
        used: set[str] = set()
        for binding in self._bindings.values():
            names = set(tensor_names(binding.expression, binding.layer))
            used |= names
            expected = {
                resolve_name(name, binding.layer): tuple(shape)
                for name, shape in binding.sources.items()
            }
            for name in sorted(names):
                problems.check_tensor(name, expected.get(name), binding)
            problems.check_result(binding, expected)
        for name, info in self._checkpoint.tensors.items():
            ignored = any(fnmatchcase(name, glob) for glob in self._ignore)
            if name not in used and not ignored and not self._is_second_copy(info):
                problems.add_leftover(info)
        problems.raise_if_any(self._checkpoint)

    def _is_second_copy(self, info: TensorInfo) -> bool:
        """Whether a tensor equals a matrix that is used outside the layers, bit for bit."""
        matrices = [
            self._checkpoint.tensors.get(name)
            for binding in self._bindings.values()
            if binding.layer is None and len(binding.shape) == 2
            for name in binding.sources
        ]
        return any(
            matrix is not None
            and (matrix.shape, matrix.dtype) == (info.shape, info.dtype)
            and self._are_equal(matrix.name, info.name)
            for matrix in matrices
        )

    def _are_equal(self, first: str, second: str) -> bool:
        left, right = self._checkpoint.read(first), self._checkpoint.read(second)
        parts = range(0, len(left), _ROWS_COMPARED)
        equal = all(
            left[row : row + _ROWS_COMPARED].tobytes()
            == right[row : row + _ROWS_COMPARED].tobytes()
            for row in parts
        )
        for name in (first, second):
            self._checkpoint.release(name)
        return equal

    def load(self, name: str, layer: int | None = None) -> Array:
        """Computes one weight.

        Returns:
            A contiguous, aligned, possibly read-only array in the binding's shape and dtype;
            conversion to a half precision rounds to nearest even.

        Raises:
            CheckpointError: No such binding, a tensor cannot be read, its shape does not fit, or a
                finite number is too large for the binding's dtype.
        """
        binding = self._bindings.get((name, layer))
        if binding is None:
            raise CheckpointError(
                "the engine asks for a weight its manifest does not bind",
                where=name if layer is None else f"{name}[layer {layer}]",
            )
        self.release()
        self._pages_in_use = tensor_names(binding.expression, layer)
        array = evaluate(binding.expression, self._read, layer)
        if array.shape != tuple(binding.shape):
            raise CheckpointError(
                "the weight has the wrong shape",
                where=f"{self._checkpoint.path}: {binding.label}",
                got=array.shape,
                expected=tuple(binding.shape),
            )
        array = np.require(self._converted(array, binding), requirements=["C", "A"])
        self._bytes_done += binding.num_bytes
        if self._progress is not None:
            self._progress(self._bytes_done, self.total_bytes, binding.label)
        return array

    def release(self) -> None:
        """Gives back the pages of the tensors the last weight was made of."""
        for name in self._pages_in_use:
            self._checkpoint.release(name)
        self._pages_in_use = []

    def _read(self, name: str) -> Array:
        array = self._checkpoint.read(name)
        if array.dtype.name not in FLOAT_DTYPES:
            raise CheckpointError(
                f"tensor '{name}' holds no plain floats",
                where=self._checkpoint.path,
                got=array.dtype.name,
                expected=", ".join(FLOAT_DTYPES),
            )
        return array

    def _converted(self, array: Array, binding: WeightBinding) -> Array:
        dtype = FLOAT_DTYPES[binding.dtype]
        if array.dtype == dtype:
            return array
        with np.errstate(over="ignore"):
            converted = array.astype(dtype)
        can_overflow = binding.dtype == "float16" or dtype.itemsize < array.dtype.itemsize
        if can_overflow and np.isinf(converted).any() and not np.isinf(array).any():
            raise CheckpointError(
                f"a number is too large for {binding.dtype}",
                where=f"{self._checkpoint.path}: {binding.label}",
                got=f"{float(np.abs(array.astype(np.float64)).max()):g}",
                hint="build the engine with a dtype of wider range: bfloat16 or float32",
            )
        return converted


class _Problems:
    """Differences between a checkpoint and its bindings, grouped so that 28 layers are one line."""

    def __init__(self, tensors: Mapping[str, TensorInfo]) -> None:
        self._tensors = tensors
        self._groups: dict[tuple[str, str], list[str]] = {}
        self._seen: set[str] = set()

    def check_tensor(self, name: str, expected: Shape | None, binding: WeightBinding) -> None:
        """Notes a tensor that is missing or not what the binding expects."""
        info = self._tensors.get(name)
        if expected is None:
            self._add(name, f"is read by {binding.name} without an expected shape")
        elif name in self._seen:
            return
        elif info is None:
            self._add(name, f"is missing, expected shape {list(expected)}")
        elif info.shape != expected:
            self._add(name, f"has shape {list(info.shape)}, expected {list(expected)}")
        self._seen.add(name)

    def check_result(self, binding: WeightBinding, expected: Mapping[str, Shape]) -> None:
        """Notes an expression that does not give its weight's shape."""
        try:
            shape = shape_of(binding.expression, lambda name: expected.get(name, ()), binding.layer)
        except CheckpointError as error:
            if not set(tensor_names(binding.expression, binding.layer)) - expected.keys():
                self._add(binding.label, f"cannot be computed: {error.message}, got {error.got}")
            return
        if shape != tuple(binding.shape):
            self._add(
                binding.label, f"would get shape {list(shape)}, expected {list(binding.shape)}"
            )

    def add_leftover(self, info: TensorInfo) -> None:
        """Notes a tensor nothing needs."""
        self._add(info.name, f"{list(info.shape)} is not used by the engine")

    def raise_if_any(self, checkpoint: Checkpoint) -> None:
        """Raises one error that lists every kind of problem."""
        if not self._groups:
            return
        lines = []
        for (_, what), names in list(self._groups.items())[:_MAX_LISTED]:
            more = f" (and {len(names) - 1} more like it)" if len(names) > 1 else ""
            file = f", in {self._tensors[names[0]].file.name}" if names[0] in self._tensors else ""
            lines.append(f"{names[0]} {what}{file}{more}{self._nearest(names[0], what)}")
        if len(self._groups) > _MAX_LISTED:
            lines.append(f"... and {len(self._groups) - _MAX_LISTED} kinds more")
        count = sum(map(len, self._groups.values()))
        raise CheckpointError(
            f"the checkpoint does not fit the engine: {count} tensor(s) differ\n    "
            + "\n    ".join(lines),
            where=checkpoint.path,
            hint="an engine fits its own model alone; to build one for this checkpoint: "
            f"qwen3-codegen build --spec {checkpoint.path}",
        )

    def _add(self, name: str, what: str) -> None:
        self._groups.setdefault((re.sub(r"\d+", "*", name), what), []).append(name)

    def _nearest(self, name: str, what: str) -> str:
        if "is missing" not in what:
            return ""
        close = _closest(name, self._tensors)
        return f"; nearest is {close} {list(self._tensors[close].shape)}" if close else ""


def _closest(name: str, candidates: Iterable[str]) -> str | None:
    matches = difflib.get_close_matches(name, candidates, n=1, cutoff=0.6)
    return matches[0] if matches else None
