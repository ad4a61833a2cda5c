"""How an engine's weight is made from a checkpoint's tensors: a small language that is data.

The compiler writes these expressions into an engine's manifest; the runtime evaluates them while
it loads. A tensor name may hold ``{layer}``, so that one expression serves every layer of a kind.
Nothing here knows a model: fusing, splitting, permuting, folding a constant are all it can say.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any, TypeAlias

import numpy as np

from qwen3_runtime.checkpoint.tensor import Array
from qwen3_runtime.errors import CheckpointError

__all__ = [
    "Add",
    "Concat",
    "Expression",
    "PermuteHalves",
    "Reshape",
    "Rows",
    "Scale",
    "Shape",
    "Stack",
    "Tensor",
    "Transpose",
    "evaluate",
    "from_json",
    "resolve_name",
    "shape_of",
    "tensor_names",
    "to_json",
]

Shape: TypeAlias = tuple[int, ...]

_LAYER = "{layer}"
_MAX_DEPTH = 32
"""Far above what a plan writes; keeps a forged manifest from exhausting the stack."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor of the checkpoint."""

    name: str


@dataclass(frozen=True, slots=True)
class Rows:
    """``source[start : start + count]`` along axis 0."""

    source: Expression
    start: int
    count: int


@dataclass(frozen=True, slots=True)
class Concat:
    """The sources joined along an existing axis."""

    sources: tuple[Expression, ...]
    axis: int = 0


@dataclass(frozen=True, slots=True)
class Stack:
    """Equal shapes stacked along a new axis 0, such as the experts of one layer."""

    sources: tuple[Expression, ...]


@dataclass(frozen=True, slots=True)
class Add:
    """``source + value``, such as the one of a ``1 + w`` norm."""

    source: Expression
    value: float


@dataclass(frozen=True, slots=True)
class Scale:
    """``source * factor``."""

    source: Expression
    factor: float


@dataclass(frozen=True, slots=True)
class Transpose:
    """A matrix's transpose."""

    source: Expression


@dataclass(frozen=True, slots=True)
class PermuteHalves:
    """Rows of each head moved from half-split to interleaved rotary order.

    Hugging Face rotates row ``i`` of a head with row ``i + rotary_dim / 2``; an interleaved rope
    rotates row ``2i`` with row ``2i + 1``. Rows from ``rotary_dim`` to ``head_dim`` stay.

    Shapes: ``[num_heads * head_dim, ...]`` in and out (a projection, its bias, or the norm weight
    of one head).
    """

    source: Expression
    head_dim: int
    rotary_dim: int


@dataclass(frozen=True, slots=True)
class Reshape:
    """The source's elements in another shape, order kept."""

    source: Expression
    shape: Shape


Expression: TypeAlias = (
    Tensor | Rows | Concat | Stack | Add | Scale | Transpose | PermuteHalves | Reshape
)

_OPS: dict[str, type[Expression]] = {
    "tensor": Tensor,
    "rows": Rows,
    "concat": Concat,
    "stack": Stack,
    "add": Add,
    "scale": Scale,
    "transpose": Transpose,
    "permute_halves": PermuteHalves,
    "reshape": Reshape,
}
_OP_NAMES = {record: op for op, record in _OPS.items()}


def _fault(message: str, *, got: object = None, expected: object = None) -> CheckpointError:
    return CheckpointError(message, where="weight expression", got=got, expected=expected)


# ---- JSON -----------------------------------------------------------------------------------


def to_json(expression: Expression) -> dict[str, object]:
    """Returns a tree of plain JSON values that ``from_json`` reads back."""
    record: dict[str, object] = {"op": _OP_NAMES[type(expression)]}
    for field in fields(expression):
        value = getattr(expression, field.name)
        if field.name == "source":
            value = to_json(value)
        elif field.name == "sources":
            value = [to_json(source) for source in value]
        elif field.name == "shape":
            value = list(value)
        record[field.name] = value
    return record


def from_json(obj: object) -> Expression:
    """Reads an expression, accepting nothing that ``to_json`` would not write.

    Raises:
        CheckpointError: Unknown op, missing or unknown key, or a value of the wrong type.
    """
    return _read_expression(obj, depth=0)


def _read_expression(obj: object, depth: int) -> Expression:
    if depth > _MAX_DEPTH:
        raise _fault("nested too deeply", expected=f"at most {_MAX_DEPTH} levels")
    if not isinstance(obj, dict):
        raise _fault("not an object", got=repr(obj)[:80])
    op = obj.get("op")
    if not isinstance(op, str) or op not in _OPS:
        raise _fault("unknown op", got=repr(op)[:80], expected=", ".join(_OPS))
    record = _OPS[op]
    names = [field.name for field in fields(record)]
    if set(obj) != {"op", *names}:
        raise _fault(f"wrong keys of '{op}'", got=sorted(map(str, obj)), expected=["op", *names])
    return record(**{name: _read_field(op, name, obj[name], depth) for name in names})


def _read_field(op: str, name: str, value: Any, depth: int) -> Any:
    if name == "source":
        return _read_expression(value, depth + 1)
    if name == "sources" and isinstance(value, list) and value:
        return tuple(_read_expression(source, depth + 1) for source in value)
    if name == "shape" and isinstance(value, list) and all(map(_is_index, value)):
        return tuple(value)
    if name == "name" and isinstance(value, str) and value:
        return value
    if name in ("start", "axis") and _is_index(value):
        return value
    if name in ("count", "head_dim", "rotary_dim") and _is_index(value) and value != 0:
        return value
    if name in ("value", "factor") and _is_number(value):
        return float(value)
    raise _fault(f"wrong value of '{name}' in '{op}'", got=repr(value)[:80])


def _is_index(value: object) -> bool:
    return type(value) is int and value >= 0


def _is_number(value: object) -> bool:
    return isinstance(value, float | int) and type(value) is not bool and math.isfinite(value)


# ---- names ----------------------------------------------------------------------------------


def tensor_names(expression: Expression, layer: int | None) -> list[str]:
    """Returns the names an expression reads, in order, each once, with the layer filled in."""
    return list(dict.fromkeys(_tensor_names(expression, layer)))


def _tensor_names(expression: Expression, layer: int | None) -> Iterator[str]:
    if isinstance(expression, Tensor):
        yield resolve_name(expression.name, layer)
    elif isinstance(expression, Concat | Stack):
        for source in expression.sources:
            yield from _tensor_names(source, layer)
    else:
        yield from _tensor_names(expression.source, layer)


def resolve_name(name: str, layer: int | None) -> str:
    """Returns the name with ``{layer}`` replaced.

    Raises:
        CheckpointError: The name asks for a layer and there is none.
    """
    if layer is None and _LAYER in name:
        raise _fault("a weight outside the layers reads a tensor of a layer", got=name)
    return name.replace(_LAYER, str(layer))


# ---- shapes ---------------------------------------------------------------------------------


def shape_of(
    expression: Expression, shape_lookup: Callable[[str], Shape], layer: int | None
) -> Shape:
    """Returns the shape ``evaluate`` would give, reading no tensor.

    Args:
        expression: What to evaluate.
        shape_lookup: Shape of a checkpoint's tensor by its resolved name.
        layer: Value of ``{layer}``, None outside the layers.

    Raises:
        CheckpointError: An operation does not fit its source's shape.
    """
    if isinstance(expression, Tensor):
        return tuple(shape_lookup(resolve_name(expression.name, layer)))
    if isinstance(expression, Concat | Stack):
        shapes = [shape_of(source, shape_lookup, layer) for source in expression.sources]
        return _joined_shape(expression, shapes)
    return _derived_shape(expression, shape_of(expression.source, shape_lookup, layer))


def _joined_shape(expression: Concat | Stack, shapes: Sequence[Shape]) -> Shape:
    if not shapes:
        raise _fault(f"{_OP_NAMES[type(expression)]} of nothing")
    first = shapes[0]
    if isinstance(expression, Stack):
        if any(shape != first for shape in shapes):
            raise _fault("stack of unequal shapes", got=list(shapes))
        return (len(shapes), *first)
    axis = expression.axis
    if axis >= len(first) or any(
        shape[:axis] + shape[axis + 1 :] != first[:axis] + first[axis + 1 :]
        or len(shape) != len(first)
        for shape in shapes
    ):
        raise _fault(f"shapes do not join along axis {axis}", got=list(shapes))
    return (*first[:axis], sum(shape[axis] for shape in shapes), *first[axis + 1 :])


def _derived_shape(
    expression: Rows | Add | Scale | Transpose | PermuteHalves | Reshape, shape: Shape
) -> Shape:
    match expression:
        case Rows(start=start, count=count):
            if not shape or start + count > shape[0]:
                raise _fault("rows beyond the source", got=f"[{start}, {start + count}) of {shape}")
            return (count, *shape[1:])
        case Transpose():
            if len(shape) != 2:
                raise _fault("transpose of what is no matrix", got=shape)
            return (shape[1], shape[0])
        case PermuteHalves(head_dim=head_dim, rotary_dim=rotary_dim):
            if not shape or shape[0] % head_dim or rotary_dim % 2 or rotary_dim > head_dim:
                raise _fault(
                    "rows cannot be permuted per head",
                    got=f"shape {shape}, head_dim {head_dim}, rotary_dim {rotary_dim}",
                    expected="head_dim dividing the rows; an even rotary_dim <= head_dim",
                )
            return shape
        case Reshape(shape=wanted):
            if math.prod(wanted) != math.prod(shape):
                raise _fault("reshape to another number of elements", got=shape, expected=wanted)
            return wanted
    return shape


# ---- values ---------------------------------------------------------------------------------


def evaluate(expression: Expression, read: Callable[[str], Array], layer: int | None) -> Array:
    """Computes a weight.

    Moving elements keeps their dtype; arithmetic gives float32, or float64 from float64, so that a
    half-precision weight is rounded once, by whoever stores the result. Joining different dtypes
    gives float32 likewise.

    Args:
        expression: What to compute.
        read: Gives a checkpoint's tensor by its resolved name; never written to.
        layer: Value of ``{layer}``, None outside the layers.

    Returns:
        An array that may share memory with what ``read`` gave.

    Raises:
        CheckpointError: An operation does not fit its source's shape.
    """
    if isinstance(expression, Tensor):
        return read(resolve_name(expression.name, layer))
    if isinstance(expression, Concat | Stack):
        sources = _one_dtype([evaluate(source, read, layer) for source in expression.sources])
        _joined_shape(expression, [source.shape for source in sources])
        if isinstance(expression, Stack):
            return np.stack(sources)
        return np.concatenate(sources, axis=expression.axis) if len(sources) > 1 else sources[0]
    return _derived(expression, evaluate(expression.source, read, layer))


def _derived(
    expression: Rows | Add | Scale | Transpose | PermuteHalves | Reshape, source: Array
) -> Array:
    shape = _derived_shape(expression, source.shape)
    result: Array
    match expression:
        case Rows(start=start, count=count):
            result = source[start : start + count]
        case Add(value=value):
            wide = _widened(source)
            result = wide + wide.dtype.type(value)
        case Scale(factor=factor):
            wide = _widened(source)
            result = wide * wide.dtype.type(factor)
        case Transpose():
            result = source.T
        case PermuteHalves(head_dim=head_dim, rotary_dim=rotary_dim):
            result = _permute_halves(source, head_dim, rotary_dim)
        case Reshape():
            result = source.reshape(shape)
    return result


def _widened(array: Array) -> Array:
    return array if array.dtype == np.float64 else array.astype(np.float32, copy=False)


def _one_dtype(arrays: list[Array]) -> list[Array]:
    dtypes = {array.dtype for array in arrays}
    if len(dtypes) <= 1:
        return arrays
    wide = np.dtype(np.float64 if np.dtype(np.float64) in dtypes else np.float32)
    return [array.astype(wide, copy=False) for array in arrays]


def _permute_halves(array: Array, head_dim: int, rotary_dim: int) -> Array:
    num_heads, rest = array.shape[0] // head_dim, array.shape[1:]
    heads = array.reshape(num_heads, head_dim, *rest)
    permuted = heads.copy()
    halves = heads[:, :rotary_dim].reshape(num_heads, 2, rotary_dim // 2, *rest)
    permuted[:, :rotary_dim] = halves.swapaxes(1, 2).reshape(num_heads, rotary_dim, *rest)
    result: Array = permuted.reshape(array.shape)
    return result
