"""Names in ``ops.hpp`` of functions on single elements."""

from __future__ import annotations

UNARY_FUNCTIONS = {
    "gelu": "Gelu",
    "gelu_tanh": "GeluTanh",
    "relu": "Relu",
    "relu2": "Relu2",
    "sigmoid": "Sigmoid",
    "silu": "Silu",
    "tanh": "Tanh",
}
"""By the op of the same function."""
