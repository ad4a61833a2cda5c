"""The functions a statement may call, as data: checks and the reference page read this table."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

__all__ = [
    "ACTIVATIONS",
    "FUNCTIONS",
    "REQUIRED",
    "WEIGHT_FORMS",
    "Function",
    "FunctionTable",
    "Kind",
    "Parameter",
]


class Kind(enum.Enum):
    """What may stand in an argument's place; the value is the word users read."""

    VALUE = "value"
    """A value of the graph."""
    WEIGHT = "weight path"
    """A checkpoint tensor, see ``WEIGHT_FORMS``."""
    SCALAR = "expression"
    """A number, text, boolean or list over config fields and ``layer`` attributes."""


class _Required(enum.Enum):
    REQUIRED = "required"


REQUIRED = _Required.REQUIRED


@dataclass(frozen=True, slots=True)
class Parameter:
    """A keyword, or a positional argument after the values."""

    name: str
    kind: Kind
    default: str | _Required
    """Expression used when the keyword is absent."""
    doc: str


@dataclass(frozen=True, slots=True)
class Function:
    """One function: how many values it takes, its other arguments, how many results it gives."""

    name: str
    values: tuple[int, int | None]
    """Fewest and most positional values; None for no limit."""
    names: tuple[str, ...]
    """What the page calls the values; the last stands for any further ones."""
    positional: tuple[Parameter, ...]
    keywords: tuple[Parameter, ...]
    results: int | str
    """A number, ``values`` (one per value) or ``sizes`` (one per element of the list)."""
    doc: str
    in_layers: bool = False
    """Whether it works inside layers only: it has a cache there, or turns by every position."""


FunctionTable: TypeAlias = Mapping[str, Function]
"""Functions by name."""

ACTIVATIONS = {
    "silu": "`x * sigmoid(x)`",
    "gelu": "`x * Φ(x)`, by the error function",
    "gelu_tanh": "GELU's tanh approximation",
    "relu": "`max(x, 0)`",
    "relu2": "`max(x, 0)²`",
    "sigmoid": "`1 / (1 + exp(-x))`",
    "softplus": "`log(1 + exp(x))`",
    "tanh": "Hyperbolic tangent",
}

WEIGHT_FORMS = {
    "a.b.c": "a dotted path; the layer prefix goes before it inside layers, `.weight` after it",
    "a.b[expert].c": "a path with the index of an expert",
    "P if CONDITION else Q": "one of two paths, by config fields",
    "rows(a.b, start, count)": "rows of one tensor that holds several; a path or `tensor(a.b)`",
    "concat(P, Q, ...)": "tensors joined along their rows",
    "tensor(P)": "a tensor whose name has no `.weight` at its end",
}


def _weight(doc: str, name: str = "weight") -> Parameter:
    return Parameter(name, Kind.WEIGHT, REQUIRED, doc)


def _scalar(name: str, default: str | _Required, doc: str) -> Parameter:
    return Parameter(name, Kind.SCALAR, default, doc)


def _function(
    name: str,
    doc: str,
    *keywords: Parameter,
    values: tuple[int, int | None] = (1, 1),
    names: tuple[str, ...] = ("x",),
    positional: tuple[Parameter, ...] = (),
    results: int | str = 1,
    in_layers: bool = False,
) -> Function:
    return Function(name, values, names, positional, keywords, results, doc, in_layers)


_EPS = _scalar("eps", "rms_norm_eps", "added to the mean of squares")

FUNCTIONS: dict[str, Function] = {
    function.name: function
    for function in (
        _function(
            "embedding",
            "Rows of a table, by token id.",
            _weight("the table, `[vocab_size, hidden_size]`"),
            _scalar("size", REQUIRED, "`[rows, columns]` of the table"),
            names=("input_ids",),
        ),
        _function(
            "linear",
            "`x · Wᵀ + bias`; a value with heads is flattened first.",
            _weight("the matrix, `[out, in]`"),
            _scalar("out", REQUIRED, "columns of the result, or `[heads, dim]` of each row"),
            _scalar("bias", "false", "whether the checkpoint has a `.bias` beside the weight"),
        ),
        _function(
            "rms_norm",
            "`x / sqrt(mean(x²) + eps) * (offset + w)` over the last dimension.",
            _weight("the scale, one per element of the last dimension"),
            _EPS,
            _scalar("offset", "0", "1 where the checkpoint stores the scale less one"),
        ),
        _function(
            "layer_norm",
            "`(x - mean(x)) / sqrt(var(x) + eps) * w + bias` over the last dimension.",
            _weight("the scale"),
            _scalar("eps", REQUIRED, "added to the variance"),
            _scalar("bias", "true", "whether the checkpoint has a `.bias` beside the weight"),
        ),
        _function(
            "l2_norm",
            "`x / sqrt(sum(x²) + eps)` over the last dimension.",
            _scalar("eps", "1e-6", "added to the sum of squares"),
        ),
        _function(
            "rope",
            "Rotary position embedding of each value, `[tokens, heads, head_dim]`.",
            _scalar("table", REQUIRED, "a name from the `rope` section; none leaves the values"),
            values=(1, None),
            results="values",
            in_layers=True,
        ),
        _function(
            "attention",
            "Causal attention of q over the cached k and v; query heads share k/v heads.",
            _scalar("scale", REQUIRED, "factor of q · k before the softmax"),
            _scalar("window", "none", "how many latest positions are seen, the own one included"),
            _scalar("softcap", "none", "scores become `softcap * tanh(score / softcap)`"),
            values=(3, 3),
            names=("q", "k", "v"),
            in_layers=True,
        ),
        _function(
            "reshape",
            "The same elements per token in another shape.",
            positional=(_scalar("shape", REQUIRED, "`[a, b]`, without the token dimension"),),
        ),
        _function(
            "split",
            "Consecutive parts of the last dimension.",
            positional=(_scalar("sizes", REQUIRED, "`[n1, n2, ...]`"),),
            results="sizes",
        ),
        _function(
            "concat",
            "Values joined along the last dimension.",
            values=(2, None),
            names=("x", "y"),
        ),
        *(_function(name, f"{formula}.") for name, formula in ACTIVATIONS.items()),
        _function(
            "moe",
            "Mixture of experts: softmax router, top-k experts of gate, up and down matrices.",
            _weight("the router, `[num_experts, hidden_size]`", "router"),
            _weight("gate of an expert; the path holds `[expert]`", "gate"),
            _weight("up of an expert", "up"),
            _weight("down of an expert", "down"),
            _scalar("num_experts", REQUIRED, "experts of a layer"),
            _scalar("top_k", REQUIRED, "experts that see a token"),
            _scalar("intermediate", REQUIRED, "rows of an expert's gate"),
            _scalar("normalize", "true", "whether the chosen probabilities are made to sum to 1"),
            _scalar("activation", "'silu'", "of the gate"),
        ),
        _function(
            "causal_conv1d",
            "Convolution over the latest tokens, each channel by itself; its window is cached.",
            _weight("the filter, `[channels, 1, kernel]`"),
            _scalar("kernel", REQUIRED, "tokens a filter sees"),
            _scalar("activation", "'silu'", "applied to the result"),
            in_layers=True,
        ),
        _function(
            "gated_delta_net",
            "Gated delta rule over q, k, v, with decays from a and write strengths sigmoid(b); its "
            "state is cached.",
            _weight("logarithm of the decay rate, one per value head", "a_log"),
            _weight("added to a before the softplus, one per value head", "dt_bias"),
            values=(5, 5),
            names=("q", "k", "v", "a", "b"),
            in_layers=True,
        ),
    )
}
"""Every function of the language by name; ``ArchitectureSpec`` has the user's own beside them."""
