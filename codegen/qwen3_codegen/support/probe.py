"""A whole small model around one use of an op, so that the planner can be asked about it."""

from __future__ import annotations

import math
from collections.abc import Mapping

from qwen3_codegen.dtypes import DType
from qwen3_codegen.ir.graph import (
    NUM_LOGIT_ROWS,
    NUM_TOKENS,
    AttributeValue,
    Dim,
    Graph,
    Node,
    Region,
    Value,
    ValueType,
    Weight,
)
from qwen3_codegen.ir.ops import OPS, OpDef
from qwen3_codegen.ir.verify import verify
from qwen3_codegen.spec.source import SourceLocation
from qwen3_codegen.support.uses import OpUse
from qwen3_runtime.checkpoint.transform import Tensor

__all__ = ["AROUND", "probe_graph"]

_HIDDEN = 16
_VOCAB = 32
AROUND = SourceLocation("around the op", 1)
"""Where the nodes are that only surround the op."""
_OP = SourceLocation("the op", 1)


def probe_graph(use: OpUse, dtype: DType, own_ops: Mapping[str, OpDef] | None = None) -> Graph:
    """Returns a model of one layer: its inputs from linears, the op, a linear back to ``h``.

    Around the op there is nothing that needs more than a plain product, which every device has.
    ``own_ops`` are the user's rows beside those of the op table.

    Raises:
        VerifyError: The use breaks the op's own rules.
    """
    tables = {} if use.rope_table is None else {use.rope_table.name: use.rope_table}
    graph = Graph(
        name="probe",
        dtype=dtype,
        max_position_embeddings=64,
        vocab_size=_VOCAB,
        prologue=_prologue(dtype),
        layer_kinds=(_layer(use, dtype, own_ops or {}),),
        schedule=(0,),
        epilogue=_epilogue(dtype),
        rope_tables=tables,
        own_ops=own_ops or {},
    )
    verify(graph)
    return graph


class _RegionMaker:
    """Nodes and weights of a region, named as they come."""

    def __init__(self, parameter: Value, own_ops: Mapping[str, OpDef] | None = None) -> None:
        self._ops = {**OPS, **(own_ops or {})}
        self.parameter = parameter
        self._weights: list[Weight] = []
        self._nodes: list[Node] = []

    def weight(self, type_: ValueType) -> Value:
        name = f"w{len(self._weights)}"
        tensor = f"{self.parameter.name}.{name}"
        shape = tuple(int(extent) for extent in type_.shape)
        self._weights.append(Weight(name, type_, Tensor(tensor), {tensor: shape}))
        return Value(name, type_)

    def emit(
        self,
        op: str,
        inputs: Mapping[str, Value],
        attributes: Mapping[str, AttributeValue],
        location: SourceLocation = AROUND,
    ) -> Value:
        """Adds a node and returns its first result."""
        given = {role: value.type for role, value in inputs.items()}
        types = self._ops[op].infer(given, attributes)
        first = len(self._nodes)
        outputs = tuple(Value(f"v{first}_{i}", type_) for i, type_ in enumerate(types))
        names = {role: value.name for role, value in inputs.items()}
        self._nodes.append(Node(op, names, outputs, attributes, location))
        return outputs[0]

    def linear(self, x: Value, columns: int, residual: Value | None = None) -> Value:
        shape: tuple[Dim, ...] = (columns, int(x.type.shape[1]))
        inputs = {"x": x, "weight": self.weight(ValueType(shape, x.type.dtype))}
        if residual is not None:
            inputs["residual"] = residual
        return self.emit("linear", inputs, {"alpha": 1.0})

    def made(self, type_: ValueType) -> Value:
        """Returns a fresh value of a type, computed from the parameter."""
        sizes = tuple(int(extent) for extent in type_.shape[1:])
        value = self.linear(self.parameter, math.prod(sizes))
        return value if len(sizes) == 1 else self.emit("reshape", {"x": value}, {"shape": sizes})

    def flat(self, value: Value) -> Value:
        """Returns a value as a matrix."""
        if len(value.type.shape) == 2:
            return value
        columns = math.prod(int(extent) for extent in value.type.shape[1:])
        return self.emit("reshape", {"x": value}, {"shape": (columns,)})

    def region(self, name: str, result: Value) -> Region:
        return Region(
            name, (self.parameter,), tuple(self._weights), tuple(self._nodes), (result.name,)
        )


def _prologue(dtype: DType) -> Region:
    maker = _RegionMaker(Value("input_ids", ValueType((NUM_TOKENS,), DType.I32)))
    table = maker.weight(ValueType((_VOCAB, _HIDDEN), dtype))
    return maker.region(
        "prologue", maker.emit("embedding", {"ids": maker.parameter, "weight": table}, {})
    )


def _layer(use: OpUse, dtype: DType, own_ops: Mapping[str, OpDef]) -> Region:
    maker = _RegionMaker(Value("h", ValueType((NUM_TOKENS, _HIDDEN), dtype)), own_ops)
    inputs = {role: maker.made(type_) for role, type_ in use.values.items()}
    inputs |= {role: maker.weight(type_) for role, type_ in use.weights.items()}
    result = maker.flat(maker.emit(use.op, inputs, use.attributes, _OP))
    return maker.region("layer", maker.linear(result, _HIDDEN, residual=maker.parameter))


def _epilogue(dtype: DType) -> Region:
    maker = _RegionMaker(Value("h", ValueType((NUM_TOKENS, _HIDDEN), dtype)))
    rows = maker.emit("gather_rows", {"x": maker.parameter}, {})
    assert rows.type.shape[0] == NUM_LOGIT_ROWS
    return maker.region("epilogue", maker.linear(rows, _VOCAB))
