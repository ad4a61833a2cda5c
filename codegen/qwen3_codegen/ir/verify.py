"""The rules every graph keeps, before and after every pass."""

from __future__ import annotations

from qwen3_codegen.dtypes import DType
from qwen3_codegen.errors import VerifyError, nearest
from qwen3_codegen.ir.graph import (
    NUM_LOGIT_ROWS,
    NUM_TOKENS,
    Graph,
    Node,
    Region,
    Value,
    ValueType,
    Weight,
)
from qwen3_codegen.ir.ops import AttributeKind, OpRuleError, ops_of
from qwen3_codegen.ir.ops.activation import ACTIVATIONS
from qwen3_codegen.ir.weights import LAYER, tensor_templates
from qwen3_runtime.checkpoint.transform import shape_of
from qwen3_runtime.errors import CheckpointError

__all__ = ["verify"]


def verify(graph: Graph) -> None:
    """Checks a whole graph.

    Raises:
        VerifyError: Names the region, the node, its place in the spec and the broken rule: an
            unknown op, a missing or unknown input or attribute, a type that does not follow from
            the inputs, a use before the definition (a cycle shows as one), a second definition,
            a result that does not exist, a layer whose ``h`` differs from its neighbours', a
            schedule out of bounds, or a weight whose expression does not give its shape.
    """
    for region in graph.regions():
        _check_definitions(region)
        for weight in region.weights:
            _check_weight(region, weight, in_layer=region in graph.layer_kinds)
        _check_nodes(graph, region)
    _check_schedule(graph)
    _check_interfaces(graph)


def _check_definitions(region: Region) -> None:
    seen: set[str] = set()
    for value in region.values():
        if value.name in seen:
            raise VerifyError(f"region '{region.name}': '{value.name}' is defined twice")
        seen.add(value.name)
    for result in region.results:
        if result not in seen:
            raise VerifyError(
                f"region '{region.name}': result '{result}' is not defined",
                hint=nearest(result, seen),
            )


def _check_weight(region: Region, weight: Weight, *, in_layer: bool) -> None:
    where = f"region '{region.name}', weight '{weight.name}'"
    templates = tensor_templates(weight.expression)
    if set(templates) != set(weight.sources):
        raise VerifyError(
            "the shapes given are not those of the tensors read",
            where=where,
            got=", ".join(sorted(weight.sources)) or "none",
            expected=", ".join(sorted(templates)),
        )
    for template in templates:
        if not in_layer and LAYER in template:
            raise VerifyError(
                "a tensor of a layer is read outside the layers", where=where, got=template
            )
    layer = 0 if in_layer else None
    shapes = {name.replace(LAYER, str(layer)): shape for name, shape in weight.sources.items()}
    try:
        shape = shape_of(weight.expression, shapes.__getitem__, layer)
    except CheckpointError as error:
        raise VerifyError(
            error.message, where=where, got=error.got, expected=error.expected
        ) from None
    if shape != weight.type.shape:
        raise VerifyError(
            "the expression gives another shape",
            where=where,
            got=list(shape),
            expected=weight.type,
        )


def _check_nodes(graph: Graph, region: Region) -> None:
    later = {value.name for value in region.values()}
    types = {value.name: value.type for value in region.parameters}
    types |= {weight.name: weight.type for weight in region.weights}
    for node in region.nodes:
        for role, name in node.inputs.items():
            if name not in types:
                raise _undefined(region, node, role, name, later, types)
        _check_node(graph, region, node, types)
        types |= {value.name: value.type for value in node.outputs}


def _undefined(
    region: Region,
    node: Node,
    role: str,
    name: str,
    later: set[str],
    types: dict[str, ValueType],
) -> VerifyError:
    if name in later:
        return _fault(region, node, f"input '{role}' uses '{name}' before its definition")
    return _fault(
        region,
        node,
        f"input '{role}' uses '{name}', which is not defined",
        hint=nearest(name, types),
    )


def _check_node(graph: Graph, region: Region, node: Node, types: dict[str, ValueType]) -> None:
    ops = ops_of(graph)
    op = ops.get(node.op)
    if op is None:
        raise _fault(region, node, f"unknown op '{node.op}'", hint=nearest(node.op, ops))
    inputs = {role: types[name] for role, name in node.inputs.items()}
    try:
        expected = op.infer(inputs, node.attributes)
    except OpRuleError as error:
        raise _fault(region, node, error.message, got=error.got, expected=error.expected) from None
    for attribute in op.attributes:
        if attribute.kind is AttributeKind.ROPE_TABLE:
            _check_rope(graph, region, node, inputs[op.roles[0].name])
        elif attribute.kind is AttributeKind.ACTIVATION:
            _check_activation(region, node, str(node.attributes[attribute.name]))
    found = tuple(value.type for value in node.outputs)
    if found != expected:
        raise _fault(
            region,
            node,
            "the results have the wrong type",
            got=", ".join(map(str, found)),
            expected=", ".join(map(str, expected)),
        )


def _check_rope(graph: Graph, region: Region, node: Node, x: ValueType) -> None:
    name = str(node.attributes["table"])
    table = graph.rope_tables.get(name)
    if table is None:
        raise _fault(
            region,
            node,
            f"there is no rope table '{name}'",
            expected=", ".join(graph.rope_tables) or "a table of the graph",
            hint=nearest(name, graph.rope_tables),
        )
    head_dim = x.shape[-1]
    if isinstance(head_dim, str) or table.rotary_dim > head_dim:
        raise _fault(
            region,
            node,
            f"rope table '{name}' rotates more than a head has",
            got=f"rotary_dim {table.rotary_dim}",
            expected=f"at most head_dim {head_dim}",
        )


def _check_activation(region: Region, node: Node, name: str) -> None:
    if name not in ACTIVATIONS:
        raise _fault(
            region,
            node,
            f"unknown activation '{name}'",
            expected=", ".join(ACTIVATIONS),
            hint=nearest(name, ACTIVATIONS),
        )


def _check_schedule(graph: Graph) -> None:
    kinds = len(graph.layer_kinds)
    for layer, kind in enumerate(graph.schedule):
        if not 0 <= kind < kinds:
            raise VerifyError(
                f"layer {layer} has no layer kind", got=kind, expected=f"0 to {kinds - 1}"
            )
    for index, region in enumerate(graph.layer_kinds):
        if index not in graph.schedule:
            raise VerifyError(f"no layer is of the kind '{region.name}'")
    names = [region.name for region in graph.regions()]
    if len(set(names)) != len(names):
        raise VerifyError("two regions have one name", got=", ".join(names))


def _check_interfaces(graph: Graph) -> None:
    ids = ValueType((NUM_TOKENS,), DType.I32)
    if graph.prologue.parameters != (Value("input_ids", ids),):
        raise VerifyError(
            "region 'prologue': wrong parameters",
            got=_listed(graph.prologue.parameters),
            expected=f"input_ids: {ids}",
        )
    hidden = _result_type(graph.prologue)
    for region in graph.layer_kinds:
        _check_parameter(region, hidden)
        result = _result_type(region)
        if result != hidden:
            raise VerifyError(
                f"region '{region.name}': the layer changes the type of h",
                got=result,
                expected=hidden,
            )
    _check_parameter(graph.epilogue, hidden)
    logits = _result_type(graph.epilogue)
    if logits != ValueType((NUM_LOGIT_ROWS, graph.vocab_size), graph.dtype):
        raise VerifyError(
            "region 'epilogue': logits have the wrong type",
            got=logits,
            expected=ValueType((NUM_LOGIT_ROWS, graph.vocab_size), graph.dtype),
        )


def _check_parameter(region: Region, hidden: ValueType) -> None:
    if tuple(value.type for value in region.parameters) != (hidden,):
        raise VerifyError(
            f"region '{region.name}': wrong parameters",
            got=_listed(region.parameters),
            expected=f"one of type {hidden}",
        )


def _result_type(region: Region) -> ValueType:
    if len(region.results) != 1:
        raise VerifyError(
            f"region '{region.name}' has the wrong number of results",
            got=len(region.results),
            expected=1,
        )
    types = {value.name: value.type for value in region.values()}
    return types[region.results[0]]


def _listed(values: tuple[Value, ...]) -> str:
    return ", ".join(f"{value.name}: {value.type}" for value in values) or "none"


def _fault(region: Region, node: Node, message: str, **facts: object) -> VerifyError:
    name = node.outputs[0].name if node.outputs else "without results"
    hint = facts.pop("hint", None)
    return VerifyError(
        f"region '{region.name}', node '{name}' ({node.op}): {message}",
        where=node.location,
        got=facts.get("got"),
        expected=facts.get("expected"),
        hint=None if hint is None else str(hint),
    )
