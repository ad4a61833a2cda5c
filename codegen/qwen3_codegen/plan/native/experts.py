"""``moe``: logits of the router, the choice of every row, and the experts' weighted sum."""

from __future__ import annotations

from qwen3_codegen.dtypes import DType
from qwen3_codegen.errors import LoweringError
from qwen3_codegen.ir.graph import Node, Value, ValueType
from qwen3_codegen.plan.context import Lowered, RegionContext, target_of
from qwen3_codegen.plan.native.elements import matrix_elements
from qwen3_codegen.plan.native.functions import UNARY_FUNCTIONS
from qwen3_codegen.plan.records import Definition, Flag, KernelCall, Origin, TensorRef


def lower_moe(node: Node, context: RegionContext) -> Lowered:
    """A linear for the router, ``ChooseExperts``, ``MixExperts``."""
    num_experts, intermediate, hidden = map(int, context.type_of(node.inputs["gate"]).shape)
    top_k = node.attributes["top_k"]
    assert isinstance(top_k, int)
    definitions = [context.allocate(node.output)]
    dtype = node.output.type.dtype

    def room(name: str, columns: int, dtype: DType) -> TensorRef:
        definition, tensor = _room(node, context, name, columns, dtype)
        definitions.append(definition)
        return tensor

    logits = room("logits", num_experts, dtype)
    choice = (room("experts", top_k, DType.I32), room("weights", top_k, DType.F32))
    scratch = (
        room("rows", hidden, dtype),
        room("gate", intermediate, dtype),
        room("up", intermediate, dtype),
        room("sums", hidden, DType.F32),
    )
    x, router, *matrices = (
        context.ref(node.inputs[role]) for role in ("x", "router", "gate", "up", "down")
    )
    elements = matrix_elements(node, "router", context)
    route = KernelCall("Linear", (hidden, num_experts, *elements), (logits, x, router, 1.0, 0.0))
    normalize = Flag("normalize", bool(node.attributes["normalize"]))
    choose = KernelCall("ChooseExperts", (num_experts, top_k), (choice, logits, normalize))
    (elements,) = {matrix_elements(node, role, context) for role in ("gate", "up", "down")}
    sizes = (hidden, intermediate, num_experts, top_k, _activation(node))
    operands = (target_of(node), x, choice, tuple(matrices), scratch)
    mix = KernelCall("MixExperts", (*sizes, *elements), operands)
    return tuple(definitions), (route, choose, mix)


def _room(
    node: Node, context: RegionContext, name: str, columns: int, dtype: DType
) -> tuple[Definition, TensorRef]:
    """Memory with a row per token while this node runs."""
    rows = node.output.type.shape[0]
    full_name = context.unused_name(f"{node.output.name}_{name}")
    definition = context.allocate(Value(full_name, ValueType((rows, columns), dtype)))
    return definition, TensorRef(Origin.VALUE, full_name)


def _activation(node: Node) -> str:
    activation = str(node.attributes["activation"])
    if activation not in UNARY_FUNCTIONS:
        raise LoweringError(
            f"experts with the activation {activation} are not carried out",
            where=node.location,
            expected=", ".join(UNARY_FUNCTIONS),
        )
    return UNARY_FUNCTIONS[activation]
