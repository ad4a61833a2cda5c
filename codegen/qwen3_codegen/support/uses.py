"""Uses of ops: the op with its attributes and the types of its inputs, cut out of any graph."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from qwen3_codegen.dtypes import DType
from qwen3_codegen.ir.graph import NUM_TOKENS, AttributeValue, Graph, ValueType
from qwen3_codegen.ir.ops import ops_of
from qwen3_codegen.ir.ops.activation import ACTIVATIONS
from qwen3_codegen.spec.model import RopeTable

__all__ = ["ROPE", "OpUse", "sample_uses", "uses_in"]

ROPE = RopeTable(
    name="rope",
    rotary_dim=8,
    interleaved=False,
    inv_freq=(1.0, 0.5, 0.25, 0.125),
    attention_factor=1.0,
)
"""The table of the samples."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OpUse:
    """One op as a model uses it."""

    label: str
    """The op's name, with what makes this use special: ``linear, bias``."""
    op: str
    values: Mapping[str, ValueType]
    """By role: inputs that other ops made."""
    weights: Mapping[str, ValueType] = field(default_factory=dict)
    """By role: inputs that the checkpoint holds."""
    attributes: Mapping[str, AttributeValue] = field(default_factory=dict)
    rope_table: RopeTable | None = None


def sample_uses(dtype: DType) -> list[OpUse]:
    """Returns each op of the table in small, with the variants that devices may treat differently.

    ``embedding`` and ``gather_rows`` are not among them: every model has both.
    """
    rows, heads = ValueType((NUM_TOKENS, 16), dtype), ValueType((NUM_TOKENS, 2, 8), dtype)
    single = ValueType((NUM_TOKENS, 2, 1), dtype)
    matrix, vector = ValueType((16, 16), dtype), ValueType((16,), dtype)
    experts = ValueType((4, 16, 16), dtype)
    norm, head_norm = ValueType((16,), DType.F32), ValueType((8,), DType.F32)
    x, x_heads, pair = {"x": rows}, {"x": heads}, {"a": rows, "b": rows}
    qkv = {"q": heads, "k": heads, "v": heads}
    w, epsilon = {"weight": matrix}, {"eps": 1e-6, "offset": 0.0}
    return [
        _use("linear", x, w, alpha=1.0),
        _use("linear, bias", x, {**w, "bias": vector}, alpha=1.0),
        _use("linear, residual", {**x, "residual": rows}, w, alpha=1.0),
        _use("rms_norm", x, {"weight": norm}, **epsilon),
        _use("rms_norm, per head", x_heads, {"weight": head_norm}, **epsilon),
        _use("layer_norm", x, {"weight": norm, "bias": norm}, eps=1e-6),
        _use("rope", x_heads, table=ROPE.name),
        _use("attention", qkv, scale=0.5, window=None, softcap=None),
        _use("attention, window", qkv, scale=0.5, window=4, softcap=None),
        _use("attention, soft cap", qkv, scale=0.5, window=None, softcap=30.0),
        _use(
            "rotary_attention",
            qkv,
            {"q_norm": head_norm, "k_norm": head_norm},
            scale=0.5,
            window=None,
            softcap=None,
            table=ROPE.name,
            eps=1e-6,
        ),
        _use("add", pair),
        _use("mul", pair),
        _use("mul, factor per row", {"a": heads, "b": single}),
        _use("scale", x, factor=0.3),
        *(_use(name, x) for name in ACTIVATIONS),
        _use("swiglu", {"gate": rows, "up": rows}),
        _use(
            "moe",
            x,
            {"router": ValueType((4, 16), dtype), "gate": experts, "up": experts, "down": experts},
            top_k=2,
            normalize=True,
            activation="silu",
        ),
        _use("reshape", x, shape=(2, 8)),
        _use("split", x, sizes=(8, 8)),
        _use("concat", {"x0": rows, "x1": rows}),
    ]


def _use(
    label: str,
    values: Mapping[str, ValueType],
    weights: Mapping[str, ValueType] | None = None,
    **attributes: AttributeValue,
) -> OpUse:
    return OpUse(
        label=label,
        op=label.partition(",")[0],
        values=values,
        weights=weights or {},
        attributes=attributes,
        rope_table=ROPE if "table" in attributes else None,
    )


def uses_in(graph: Graph) -> list[OpUse]:
    """Returns the uses in a model's layers and epilogue, each kind of use once, by op's order.

    The sizes are the model's own; rows for which logits are asked count as tokens.
    """
    found: dict[tuple[object, ...], OpUse] = {}
    for region in graph.regions():
        types = {value.name: _over_tokens(value.type) for value in region.values()}
        weights = {weight.name for weight in region.weights}
        for node in region.nodes:
            if node.op in ("embedding", "gather_rows"):
                continue
            given = {role: types[name] for role, name in node.inputs.items()}
            own = {role for role, name in node.inputs.items() if name in weights}
            use = OpUse(
                label=node.op,
                op=node.op,
                values={role: type_ for role, type_ in given.items() if role not in own},
                weights={role: type_ for role, type_ in given.items() if role in own},
                attributes=node.attributes,
                rope_table=graph.rope_tables.get(str(node.attributes.get("table"))),
            )
            found.setdefault(_identity(use), use)
    order = list(ops_of(graph))
    return sorted(found.values(), key=lambda use: order.index(use.op))


def _over_tokens(type_: ValueType) -> ValueType:
    if type_.shape and isinstance(type_.shape[0], str):
        return ValueType((NUM_TOKENS, *type_.shape[1:]), type_.dtype)
    return type_


def _identity(use: OpUse) -> tuple[object, ...]:
    parts = (use.values, use.weights, use.attributes)
    return (use.op, *(tuple(sorted(part.items(), key=str)) for part in parts))
