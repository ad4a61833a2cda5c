"""Cached causal attention."""

from __future__ import annotations

import numpy as np

from qwen3_codegen.ir.graph import NUM_TOKENS
from qwen3_codegen.ir.ops.definition import (
    Array,
    Arrays,
    Attribute,
    AttributeKind,
    Attributes,
    OpDef,
    OpRuleError,
    Role,
    Shape,
    Shapes,
    calls,
)
from qwen3_codegen.ir.ops.shapes import format_shape, require_rank, size_of
from qwen3_codegen.ir.ops.step import SequenceSpan, Step
from qwen3_runtime.errors import EngineError


def _attention_shape(shapes: Shapes, attributes: Attributes) -> tuple[Shape, ...]:
    tokens, heads, head_dim = require_rank(shapes, "q", 3)
    k_tokens, kv_heads, k_dim = require_rank(shapes, "k", 3)
    v_tokens, v_heads, v_dim = require_rank(shapes, "v", 3)
    if (k_tokens, k_dim) != (tokens, head_dim):
        raise OpRuleError(
            "q and k do not fit each other",
            got=f"{format_shape(shapes['q'])} and {format_shape(shapes['k'])}",
            expected="the same tokens and head_dim",
        )
    if (v_tokens, v_heads) != (tokens, kv_heads):
        raise OpRuleError(
            "k and v do not fit each other",
            got=f"{format_shape(shapes['k'])} and {format_shape(shapes['v'])}",
            expected="the same tokens and heads",
        )
    if size_of(heads, "q") % size_of(kv_heads, "k"):
        raise OpRuleError(
            "key/value heads do not divide the query heads",
            got=f"{heads} query heads, {kv_heads} key/value heads",
        )
    return ((tokens, heads, v_dim),)


def _attention(inputs: Arrays, attributes: Attributes, step: Step) -> Array:
    q, k, v = inputs["q"], inputs["k"], inputs["v"]
    out = np.empty((*q.shape[:2], v.shape[2]), q.dtype)
    for span in step.sequences():
        keys = _extend(span, "k", k[span.rows])
        values = _extend(span, "v", v[span.rows])
        out[span.rows] = _attend(q[span.rows], keys, values, span.start, attributes)
    return out


def _extend(span: SequenceSpan, name: str, new: Array) -> Array:
    """Returns all keys or values of a sequence, and remembers them.

    Raises:
        EngineError: Tokens before the new ones were never given.
    """
    cached = span.state.get(name, new[:0])
    if len(cached) < span.start:
        raise EngineError(
            "a sequence skips positions",
            got=f"a step from position {span.start}, the cache holds {len(cached)} tokens",
        )
    span.state[name] = np.concatenate([cached[: span.start], new])
    return span.state[name]


def _attend(q: Array, keys: Array, values: Array, start: int, attributes: Attributes) -> Array:
    """One sequence: q [m, heads, d], keys and values [n, kv_heads, ...] -> [m, heads, dv]."""
    query_len, heads, _ = q.shape
    kv_heads = keys.shape[1]
    grouped = q.reshape(query_len, kv_heads, heads // kv_heads, q.shape[2])
    scores = np.einsum("mhgd,nhd->hgmn", grouped, keys) * q.dtype.type(attributes["scale"])
    if attributes["softcap"] is not None:
        cap = q.dtype.type(attributes["softcap"])
        scores = np.tanh(scores / cap) * cap
    query_at = start + np.arange(query_len)[:, None]
    key_at = np.arange(len(keys))[None, :]
    seen = key_at <= query_at
    window = attributes["window"]
    if isinstance(window, int):
        seen &= key_at > query_at - window
    scores = np.where(seen, scores, -np.inf)
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    weights /= weights.sum(axis=-1, keepdims=True)
    mixed: Array = np.einsum("hgmn,nhd->mhgd", weights, values)
    return mixed.reshape(query_len, heads, values.shape[2])


ATTENTION = OpDef(
    name="attention",
    doc=(
        "Appends k and v to the sequence's cache, then softmax(scale · q · keysᵀ) · values per "
        "head; query head i uses key/value head i // (heads / kv_heads). The query at position p "
        "sees keys p - window + 1 to p. With a softcap c, scores become c · tanh(scores / c) "
        "before the mask (transformers `modeling_gemma2.py`). Vaswani et al. 2017; grouped "
        "heads Ainslie et al. 2023."
    ),
    roles=(
        Role(name="q", shape=f"[{NUM_TOKENS}, heads, head_dim]"),
        Role(name="k", shape=f"[{NUM_TOKENS}, kv_heads, head_dim]"),
        Role(name="v", shape=f"[{NUM_TOKENS}, kv_heads, v_head_dim]"),
    ),
    attributes=(
        Attribute(name="scale", kind=AttributeKind.FLOAT, doc="factor of q · k", positive=True),
        Attribute(
            name="window",
            kind=AttributeKind.OPTIONAL_INT,
            doc="number of keys a query sees, itself included; none means all before it",
            positive=True,
        ),
        Attribute(
            name="softcap",
            kind=AttributeKind.OPTIONAL_FLOAT,
            doc="bound of the scores; none means unbounded",
            positive=True,
        ),
    ),
    result=f"[{NUM_TOKENS}, heads, v_head_dim]",
    shape_rule=_attention_shape,
    reference=_attention,
    lowerings={
        "portable": calls("gemm", "causal_softmax", "rearrange"),
        "native": calls("AppendKeyValue", "PagedAttention"),
    },
    stateful=True,
)
