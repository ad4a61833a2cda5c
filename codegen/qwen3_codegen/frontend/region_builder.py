"""A region under construction: typed nodes, weights stored once, readable unique names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from qwen3_codegen.dtypes import DType
from qwen3_codegen.errors import SpecError
from qwen3_codegen.frontend.weights import WeightReference
from qwen3_codegen.ir.graph import AttributeValue, Node, Region, Value, ValueType, Weight
from qwen3_codegen.ir.ops import OPS, OpDef, OpRuleError
from qwen3_codegen.spec.source import SourceLocation

__all__ = ["RegionBuilder"]


class RegionBuilder:
    """Collects the nodes of one region in order of execution.

    Args:
        name: Name of the region.
        parameter: Its only parameter.
        own_ops: Rows of the user's beside those of the op table.
    """

    def __init__(
        self, name: str, parameter: Value, own_ops: Mapping[str, OpDef] | None = None
    ) -> None:
        self._name = name
        self._parameter = parameter
        self._ops = {**OPS, **(own_ops or {})}
        self._weights: dict[str, Weight] = {}
        self._nodes: list[Node] = []
        self._types = {parameter.name: parameter.type}

    def weight(self, reference: WeightReference, dtype: DType) -> Value:
        """Adds a weight, or returns the one that is made the same way."""
        type_ = ValueType(reference.shape, dtype)
        for known in self._weights.values():
            if (known.expression, known.type) == (reference.expression, type_):
                return Value(known.name, known.type)
        name = next(name for name in reference.names() if name not in self._types)
        self._weights[name] = Weight(name, type_, reference.expression, reference.sources)
        self._types[name] = type_
        return Value(name, type_)

    def emit(
        self,
        op: str,
        inputs: Mapping[str, Value],
        attributes: Mapping[str, AttributeValue],
        *,
        names: Sequence[str],
        location: SourceLocation,
    ) -> tuple[Value, ...]:
        """Adds a node.

        Args:
            op: Row of the op table.
            inputs: Value of each role.
            attributes: All attributes of the op.
            names: Wanted name of each result; a taken one gets the op's name, then a number.
            location: Statement the node comes from.

        Returns:
            The results.

        Raises:
            SpecError: The op's rules refuse the inputs, or it has another number of results.
        """
        types = {role: value.type for role, value in inputs.items()}
        try:
            results = self._ops[op].infer(types, attributes)
        except OpRuleError as error:
            raise SpecError(
                f"'{op}': {error.message}",
                where=location,
                got=error.got,
                expected=error.expected,
            ) from None
        if len(names) != len(results):
            raise SpecError(
                f"'{op}' has the wrong number of targets",
                where=location,
                got=len(names),
                expected=len(results),
            )
        outputs = tuple(
            self._define(name, op, type_) for name, type_ in zip(names, results, strict=True)
        )
        sources = {role: value.name for role, value in inputs.items()}
        self._nodes.append(Node(op, sources, outputs, dict(attributes), location))
        return outputs

    def build(self, result: Value, attributes: Mapping[str, AttributeValue]) -> Region:
        """Returns the region with ``result`` as its only result."""
        return Region(
            name=self._name,
            parameters=(self._parameter,),
            weights=tuple(self._weights.values()),
            nodes=tuple(self._nodes),
            results=(result.name,),
            attributes=attributes,
        )

    def _define(self, wanted: str, op: str, type_: ValueType) -> Value:
        name, count = wanted, 1
        while name in self._types:
            name = f"{wanted}_{op}" if count == 1 else f"{wanted}_{op}_{count}"
            count += 1
        self._types[name] = type_
        return Value(name, type_)
