"""Activation functions, shared by the elementwise ops and the ops that take one by name."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np

from qwen3_codegen.ir.ops.definition import Array


def sigmoid(x: Array) -> Array:
    """1 / (1 + exp(-x))."""
    with np.errstate(over="ignore"):
        y: Array = 1 / (1 + np.exp(-x))
    return y


def silu(x: Array) -> Array:
    """X · sigmoid(x). Elfwing et al. 2017."""
    return x * sigmoid(x)


def gelu(x: Array) -> Array:
    """X · Φ(x) with the exact normal distribution function. Hendrycks and Gimpel 2016."""
    erf = np.asarray(np.frompyfunc(math.erf, 1, 1)(x / math.sqrt(2))).astype(x.dtype)
    y: Array = x * (erf + 1) / 2
    return y


def gelu_tanh(x: Array) -> Array:
    """Tanh approximation of gelu, PyTorch's ``approximate="tanh"``."""
    scalar = x.dtype.type
    inner = scalar(math.sqrt(2 / math.pi)) * (x + scalar(0.044715) * x * x * x)
    y: Array = x * (np.tanh(inner) + 1) / 2
    return y


def relu(x: Array) -> Array:
    """max(x, 0)."""
    y: Array = np.maximum(x, x.dtype.type(0))
    return y


def relu2(x: Array) -> Array:
    """max(x, 0)². So et al. 2021."""
    return np.square(relu(x))


def softplus(x: Array) -> Array:
    """log(1 + exp(x))."""
    y: Array = np.logaddexp(x.dtype.type(0), x)
    return y


def tanh(x: Array) -> Array:
    """Hyperbolic tangent."""
    y: Array = np.tanh(x)
    return y


ACTIVATIONS: Mapping[str, Callable[[Array], Array]] = {
    function.__name__: function
    for function in (silu, gelu, gelu_tanh, relu, relu2, sigmoid, softplus, tanh)
}
