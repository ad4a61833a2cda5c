"""Ops whose cache is a state of fixed size per sequence."""

from __future__ import annotations

import numpy as np

from qwen3_codegen.ir.graph import NUM_TOKENS
from qwen3_codegen.ir.ops.activation import ACTIVATIONS, sigmoid, softplus
from qwen3_codegen.ir.ops.definition import (
    Array,
    Arrays,
    Attribute,
    AttributeKind,
    Attributes,
    Element,
    OpDef,
    OpRuleError,
    Role,
    Shape,
    Shapes,
    refused,
)
from qwen3_codegen.ir.ops.shapes import require_rank, require_shape, size_of
from qwen3_codegen.ir.ops.step import SequenceSpan, Step
from qwen3_runtime.errors import EngineError


def _resume(span: SequenceSpan, name: str, initial: Array) -> Array:
    """Returns the state a sequence left behind; ``initial`` when it is new.

    Raises:
        EngineError: The sequence goes on at another token than the state stands at.
    """
    if span.start == 0:
        return initial
    stands_at = int(span.state["num_tokens"]) if "num_tokens" in span.state else 0
    if stands_at != span.start:
        raise EngineError(
            "a recurrent state cannot be moved to another position",
            got=f"a step from position {span.start}, the state stands at {stands_at}",
            expected="the next token, or position 0",
        )
    return span.state[name]


def _remember(span: SequenceSpan, name: str, state: Array) -> None:
    span.state[name] = state
    span.state["num_tokens"] = np.array(span.seq_len)


def _conv_shape(shapes: Shapes, attributes: Attributes) -> tuple[Shape, ...]:
    tokens, channels = require_rank(shapes, "x", 2)
    require_shape(shapes, "weight", (channels, require_rank(shapes, "weight", 2)[1]))
    return ((tokens, channels),)


def _conv(inputs: Arrays, attributes: Attributes, step: Step) -> Array:
    x, weight = inputs["x"], inputs["weight"]
    kernel = weight.shape[1]
    out = np.empty_like(x)
    for span in step.sequences():
        before = _resume(span, "inputs", np.zeros((kernel - 1, x.shape[1]), x.dtype))
        padded = np.concatenate([before, x[span.rows]])
        windows = np.lib.stride_tricks.sliding_window_view(padded, kernel, axis=0)
        out[span.rows] = np.einsum("tck,ck->tc", windows, weight)
        _remember(span, "inputs", padded[len(padded) - (kernel - 1) :])
    return ACTIVATIONS[str(attributes["activation"])](out)


def _delta_shape(shapes: Shapes, attributes: Attributes) -> tuple[Shape, ...]:
    tokens, k_heads, k_dim = require_rank(shapes, "q", 3)
    require_shape(shapes, "k", (tokens, k_heads, k_dim))
    _, v_heads, v_dim = require_rank(shapes, "v", 3)
    require_shape(shapes, "v", (tokens, v_heads, v_dim))
    if size_of(v_heads, "v") % size_of(k_heads, "k"):
        raise OpRuleError(
            "key heads do not divide the value heads",
            got=f"{k_heads} key heads, {v_heads} value heads",
        )
    for role in ("a", "b"):
        require_shape(shapes, role, (tokens, v_heads))
    for role in ("a_log", "dt_bias"):
        require_shape(shapes, role, (v_heads,))
    return ((tokens, v_heads, v_dim),)


def _delta(inputs: Arrays, attributes: Attributes, step: Step) -> Array:
    repeats = inputs["v"].shape[1] // inputs["q"].shape[1]
    scalar = inputs["q"].dtype.type
    q = np.repeat(inputs["q"], repeats, axis=1) * scalar(attributes["scale"])
    k = np.repeat(inputs["k"], repeats, axis=1)
    v = inputs["v"]
    decay = np.exp(-np.exp(inputs["a_log"]) * softplus(inputs["a"] + inputs["dt_bias"]))
    beta = sigmoid(inputs["b"])
    out = np.empty_like(v)
    for span in step.sequences():
        state = _resume(span, "state", np.zeros((v.shape[1], k.shape[2], v.shape[2]), v.dtype))
        for t in range(span.rows.start, span.rows.stop):
            state = state * decay[t, :, None, None]
            delta = (v[t] - np.einsum("hkv,hk->hv", state, k[t])) * beta[t, :, None]
            state = state + k[t, :, :, None] * delta[:, None, :]
            out[t] = np.einsum("hkv,hk->hv", state, q[t])
        _remember(span, "state", state)
    return out


CAUSAL_CONV1D = OpDef(
    name="causal_conv1d",
    doc=(
        "y[t, c] = activation(Σ_j weight[c, j] · x[t - kernel + 1 + j, c]) over the tokens of one "
        "sequence, zeros before its first. transformers `modeling_qwen3_next.py`."
    ),
    roles=(
        Role(name="x", shape=f"[{NUM_TOKENS}, channels]"),
        Role(name="weight", shape="[channels, kernel]"),
    ),
    attributes=(
        Attribute(name="activation", kind=AttributeKind.ACTIVATION, doc="name of an activation op"),
    ),
    result="the shape of x",
    shape_rule=_conv_shape,
    reference=_conv,
    lowerings={
        "portable": refused("recurrent caches have no decomposition yet"),
        "native": refused("recurrent caches have no kernel yet"),
    },
    stateful=True,
)

GATED_DELTA_NET = OpDef(
    name="gated_delta_net",
    doc=(
        "Per value head, with the state S [k_dim, v_dim] of the sequence: "
        "S ← exp(-exp(a_log) · softplus(a + dt_bias)) · S; "
        "S ← S + k (sigmoid(b) · (v - Sᵀ k))ᵀ; y = scale · Sᵀ q. Value head i uses key head "
        "i // (v_heads / k_heads). Yang, Kautz and Hatamizadeh 2024; transformers "
        "`modeling_qwen3_next.py`."
    ),
    roles=(
        Role(name="q", shape=f"[{NUM_TOKENS}, k_heads, k_dim]"),
        Role(name="k", shape=f"[{NUM_TOKENS}, k_heads, k_dim]"),
        Role(name="v", shape=f"[{NUM_TOKENS}, v_heads, v_dim]"),
        Role(name="a", shape=f"[{NUM_TOKENS}, v_heads]"),
        Role(name="b", shape=f"[{NUM_TOKENS}, v_heads]"),
        Role(name="a_log", shape="[v_heads]", element=Element.FLOAT32),
        Role(name="dt_bias", shape="[v_heads]", element=Element.FLOAT32),
    ),
    attributes=(
        Attribute(name="scale", kind=AttributeKind.FLOAT, doc="factor of the query", positive=True),
    ),
    result=f"[{NUM_TOKENS}, v_heads, v_dim]",
    shape_rule=_delta_shape,
    reference=_delta,
    lowerings={
        "portable": refused("recurrent caches have no decomposition yet"),
        "native": refused("recurrent caches have no kernel yet"),
    },
    stateful=True,
)
