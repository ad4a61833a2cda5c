"""What InfiniCore's operators compute, in NumPy, with the rules a caller must keep.

Written from the C API's documentation: operands are strided views, outputs come first. Every call
is checked: ranks and strides against the API table of the device, and which operands may share
memory.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from qwen3_codegen.infinicore.api import ArgumentKind, InfiniCoreApi
from tests.plan.views import Array, View, obeys


def silu(x: Array) -> Array:
    return x / (1.0 + np.exp(-x))


def _gemm(c: View, a: View, b: View, alpha: float, beta: float) -> None:
    _require_apart(c, a, b)
    product = alpha * (a.read() @ b.read())
    c.write(product if beta == 0.0 else product + beta * c.read())


def _rms_norm(y: View, x: View, w: View, epsilon: float) -> None:
    _require_apart_or_same(y, x)
    values = x.read()
    mean_square = (values**2).mean(axis=-1, keepdims=True)
    y.write(values / np.sqrt(mean_square + epsilon) * w.read())


def _rope(y: View, x: View, positions: View, sin: View, cos: View, algorithm: str = "") -> None:
    """Without an algorithm argument the library pairs neighbours."""
    _require_apart_or_same(y, x)
    values, at = x.read(), positions.read()
    s, c = sin.read()[at][:, None, :], cos.read()[at][:, None, :]
    half = values.shape[-1] // 2
    assert s.shape[-1] == half, "the table has another rotary size"
    is_neox = algorithm == "INFINIOP_ROPE_ALGO_GPT_NEOX"
    first, second = (
        (slice(0, half), slice(half, None)) if is_neox else (slice(0, None, 2), slice(1, None, 2))
    )
    rotated = np.empty_like(values)
    rotated[..., first] = values[..., first] * c - values[..., second] * s
    rotated[..., second] = values[..., first] * s + values[..., second] * c
    y.write(rotated)


def _swiglu(c: View, up: View, gate: View) -> None:
    _require_apart_or_same(c, up, gate)
    c.write(up.read() * silu(gate.read()))


def _add(c: View, a: View, b: View) -> None:
    _require_apart_or_same(c, a, b)
    c.write(a.read() + b.read())


def _mul(c: View, a: View, b: View) -> None:
    _require_apart_or_same(c, a, b)
    c.write(a.read() * b.read())


def _relu(y: View, x: View) -> None:
    _require_apart(y, x)
    y.write(np.maximum(x.read(), 0.0))


def _rearrange(dst: View, src: View) -> None:
    _require_apart(dst, src)
    dst.write(src.read())


OPERATORS: dict[str, Callable[..., None]] = {
    "add": _add,
    "gemm": _gemm,
    "mul": _mul,
    "rearrange": _rearrange,
    "relu": _relu,
    "rms_norm": _rms_norm,
    "rope": _rope,
    "swiglu": _swiglu,
}


def check_call(
    operator: str,
    tensors: Sequence[View],
    scalars: Sequence[object],
    api: InfiniCoreApi,
    device: str,
) -> None:
    """Fails when a call breaks the device's rules of ranks, strides or number of arguments."""
    definition = api.operators[operator]
    names = [a.name for a in definition.create_args if a.kind is ArgumentKind.TENSOR_DESCRIPTOR]
    kinds = (ArgumentKind.FLOAT, ArgumentKind.INT, ArgumentKind.ENUM)
    numbers = [a for a in (*definition.create_args, *definition.run_args) if a.kind in kinds]
    assert len(tensors) == len(names), f"{operator} takes {names}"
    assert len(scalars) == len(numbers), f"{operator} takes {[a.name for a in numbers]}"
    ranks, strides = definition.ranks(device), definition.strides(device)
    for name, view in zip(names, tensors, strict=True):
        where = f"{operator} on {device}: {name} {view.shape} with strides {view.strides}"
        assert len(view.shape) in ranks[name], f"{where} has a rank other than {ranks[name]}"
        assert obeys(view, strides[name]), f"{where} is not {strides[name].value}"


def _require_apart(output: View, *inputs: View) -> None:
    for view in inputs:
        assert not output.overlaps(view), f"{output} is written while {view} is read"


def _require_apart_or_same(output: View, *inputs: View) -> None:
    for view in inputs:
        if not output.is_same(view):
            _require_apart(output, view)
