"""``EnginePlan`` to ``EngineView``: names, literals and comments for the engine's own sources."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import PurePath

from qwen3_codegen.dtypes import DType
from qwen3_codegen.emission.cpp import (
    CppIdentifier,
    call_arguments,
    comment_lines,
    cpp_braced,
    cpp_comment,
    cpp_float,
    cpp_string,
    declaration,
    initializer,
    local_name,
    member_name,
    pascal_case,
    qualified,
    snake_case,
    wrapped,
)
from qwen3_codegen.emission.views import (
    AttentionView,
    BufferView,
    CacheGroupView,
    ConstantView,
    EngineView,
    FunctionView,
    LayerKindView,
    RopeView,
    WeightView,
)
from qwen3_codegen.ir.weights import format_expression
from qwen3_codegen.plan.records import (
    AttentionShape,
    BufferPlan,
    EnginePlan,
    RegionPlan,
    TargetPlan,
    WeightPlan,
)
from qwen3_codegen.spec.model import RopeTable
from qwen3_runtime.checkpoint.transform import Tensor as CheckpointTensor
from qwen3_runtime.engine.batch import CacheGroup

_TENSOR_OF_A_LAYER = re.compile(r"[\w.-]*\{layer\}\.")
"""What the names of all tensors of a layer begin with."""
OWN_FOLDER = "own_ops"
"""Folder of the engine with the headers of the user's own ops."""
OWN_OPS_FILE = "own_ops.hpp"
"""What includes them."""
_DTYPES = {
    DType.F32: "INFINI_DTYPE_F32",
    DType.BF16: "INFINI_DTYPE_BF16",
    DType.F16: "INFINI_DTYPE_F16",
    DType.I32: "INFINI_DTYPE_I32",
}


_ELEMENTS = {
    DType.F32: "float",
    DType.BF16: "qwen3::kernels::Bf16",
    DType.F16: "qwen3::kernels::F16",
}
"""C++ types of what kernels compute with."""


def engine_title(plan: EnginePlan) -> str:
    """One line that says what an engine is."""
    return cpp_comment(
        f"Engine of {plan.model_name} ({plan.architecture}) for {plan.target.title} in "
        f"{plan.dtype.value}, on InfiniCore {plan.target.release}."
    )


def engine_view(
    plan: EnginePlan, regenerate: str, body_of: Callable[[RegionPlan], str]
) -> EngineView:
    """Returns the view of ``engine.hpp`` and ``engine.cpp``.

    Args:
        plan: The plan.
        regenerate: Command line that makes the engine again.
        body_of: Prints the steps of a region.
    """
    kinds = _layer_kinds(plan, body_of)
    return EngineView(
        header=engine_header(plan, regenerate),
        sizes=_sizes(plan),
        cpp_namespace=CppIdentifier(plan.module_name),
        num_layers=plan.num_layers,
        vocab_size=plan.vocab_size,
        max_position_embeddings=plan.max_position_embeddings,
        max_logit_rows=plan.max_logit_rows,
        dtype=_DTYPES[plan.value_dtype],
        element=_ELEMENTS[plan.value_dtype],
        kernels=tuple(_kernel(kernel, sizes) for kernel, sizes in plan.kernels),
        own_headers=tuple(f"{OWN_FOLDER}/{header}" for header in sorted(plan.own_headers)),
        has_own_ops=bool(plan.own_headers),
        target=_target(plan.target),
        layer_kinds=kinds,
        has_several_kinds=len(kinds) > 1,
        schedule=initializer("constexpr int kLayerKinds[kNumLayers] = ", map(str, plan.schedule)),
        schedule_comment=comment_lines(
            "Kind of every layer: "
            + ", ".join(f"{i} {kind.name}" for i, kind in enumerate(plan.layer_kinds)),
            0,
        ),
        weights=_weights(plan.prologue, plan, "weights_", ("source",)),
        buffers=tuple(_buffer(buffer, plan) for buffer in plan.buffers),
        scratch_columns=plan.scratch_columns,
        has_scratch=plan.scratch_columns > 0,
        constants=tuple(
            ConstantView(member=member_name(name), literal=cpp_float(value))
            for name, value in plan.constants.items()
        ),
        has_constants=bool(plan.constants),
        rope_tables=tuple(
            _rope(table, plan.target.lowering) for table in plan.rope_tables.values()
        ),
        has_rope=bool(plan.rope_tables),
        attentions=tuple(
            _attention(index, shape) for index, shape in enumerate(plan.attention_shapes)
        ),
        has_attention=bool(plan.attention_shapes),
        windows=cpp_braced(window or 0 for window in plan.windows),
        cache_groups=tuple(_cache_group(group, plan) for group in plan.cache_groups),
        prologue=FunctionView(
            name="prologue", body=body_of(plan.prologue), result=local_name(plan.prologue.result)
        ),
        epilogue=FunctionView(
            name="epilogue", body=body_of(plan.epilogue), result=local_name(plan.epilogue.result)
        ),
    )


def _load(weight: WeightPlan, plan: EnginePlan) -> str:
    """The method that brings a weight to where the engine reads it."""
    if plan.target.lowering == "portable":
        return "upload"
    return "bind_each" if weight.is_split else "bind"


def engine_header(plan: EnginePlan, regenerate: str) -> tuple[str, ...]:
    """Returns the comment lines at the head of every source."""
    steps = (step for region in plan.regions() for step in region.steps)
    places = sorted({_shown_path(step.location.path) for step in steps})
    return (
        *comment_lines(engine_title(plan), 0),
        *comment_lines(_activations(plan), 0),
        "Generated by qwen3-codegen; do not edit. To make it again:",
        f"  {cpp_comment(regenerate)}",
        *comment_lines(f"Each step names the line it carries out, of {', '.join(places)}.", 0),
    )


def _activations(plan: EnginePlan) -> str:
    if plan.activation_dtype is None:
        return ""
    kept = f"Values stay in {plan.activation_dtype.value} from op to op"
    if plan.cache_dtype is not plan.dtype:
        kept += f", keys and values in {plan.cache_dtype.value}"
    return f"Its matrices are, that is. {kept}."


def _shown_path(path: str) -> str:
    """Where a shipped file lies in the tree; of a user's own only the name, the same anywhere."""
    return path if path.startswith("modelspecs/") else PurePath(path).name


def _sizes(plan: EnginePlan) -> tuple[str, ...]:
    """Returns the model's numbers under their config names."""
    facts = [
        f"{name} {str(value).lower() if isinstance(value, bool) else value}"
        for name, value in plan.spec_facts.items()
        if isinstance(value, int | float | str)
    ]
    return comment_lines(f"{', '.join(facts)}.", 0) if facts else ()


def _target(target: TargetPlan) -> str:
    is_emulated = "true" if target.emulated else "false"
    name = cpp_string(target.title)
    return f"{{{CppIdentifier(target.enumerator)}, {name}, /*emulated=*/{is_emulated}}}"


def _weights(
    region: RegionPlan, plan: EnginePlan, owner: str, first_arguments: Sequence[str]
) -> tuple[WeightView, ...]:
    return tuple(_weight(weight, plan, owner, first_arguments) for weight in region.weights)


def _weight(
    weight: WeightPlan, plan: EnginePlan, owner: str, first_arguments: Sequence[str]
) -> WeightView:
    arguments = (
        *first_arguments,
        cpp_string(weight.name),
        _dtype(weight.dtype, plan),
        cpp_braced(weight.shape),
    )
    member, load = member_name(weight.name), _load(weight, plan)
    type_ = "std::vector<Tensor>" if weight.is_split else "Tensor"
    comment = f"[{', '.join(map(str, weight.shape))}] {weight.dtype.value}{_made_of(weight)}"
    return WeightView(
        member=member,
        declaration=declaration(f"{type_} {member};", comment, 2),
        load=load,
        load_arguments=call_arguments(f"{owner}.{member} = {load}", arguments, 2),
    )


def _dtype(dtype: DType, plan: EnginePlan) -> str:
    return "kDtype" if dtype is plan.value_dtype else _DTYPES[dtype]


def _made_of(weight: WeightPlan) -> str:
    """How a weight that is not simply a tensor of the checkpoint is made of some."""
    if isinstance(weight.expression, CheckpointTensor):
        return ""
    return f" = {_TENSOR_OF_A_LAYER.sub('', format_expression(weight.expression))}"


def _layer_kinds(
    plan: EnginePlan, body_of: Callable[[RegionPlan], str]
) -> tuple[LayerKindView, ...]:
    names = _distinct(_kind_name(kind.name) for kind in plan.layer_kinds)
    return tuple(
        LayerKindView(
            index=index,
            struct=CppIdentifier(f"{pascal_case(name)}Weights"),
            member=f"{name}s_",
            comment=comment_lines(_kind_comment(kind, plan), 0),
            weights=_weights(kind, plan, "w", ("source", "layer")),
            region=FunctionView(
                name=CppIdentifier(name), body=body_of(kind), result=local_name(kind.result)
            ),
        )
        for index, (name, kind) in enumerate(zip(names, plan.layer_kinds, strict=True))
    )


def _kind_name(name: str) -> str:
    snake = snake_case(name)
    return snake if snake.endswith("layer") else f"{snake}_layer"


def _distinct(names: Iterable[str]) -> list[str]:
    """Numbers names that would become the same C++ type."""
    seen: Counter[str] = Counter()
    result = []
    for name in names:
        key = pascal_case(name).lower()
        seen[key] += 1
        result.append(name if seen[key] == 1 else f"{name}_{seen[key]}")
    return result


def _kind_comment(kind: RegionPlan, plan: EnginePlan) -> str:
    count = len(kind.layers)
    layers = f"layer {_ranges(kind.layers)}" if count == 1 else f"layers {_ranges(kind.layers)}"
    if count == plan.num_layers:
        layers = f"all {count} layers"
    traits = ", ".join(
        f"{name} {'none' if value is None else value}" for name, value in kind.attributes.items()
    )
    return f"{kind.name}: {layers}" + (f"; {traits}" if traits else "")


def _ranges(numbers: Sequence[int]) -> str:
    """``0-2, 4`` for 0, 1, 2, 4."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in runs)


def _buffer(buffer: BufferPlan, plan: EnginePlan) -> BufferView:
    is_logits = buffer.rows == "num_logit_rows"
    rows = "kMaxLogitRows" if is_logits else "max_num_batched_tokens"
    member = f"{member_name(buffer.name)}_"
    comment = f"[{rows}, {buffer.columns}]: {', '.join(buffer.holds)}"
    return BufferView(
        member=member,
        declaration=declaration(f"Tensor {member};", comment, 2),
        dtype=_dtype(buffer.dtype, plan),
        bound=rows if is_logits else f"options.{rows}",
        columns=buffer.columns,
    )


def _kernel(kernel: str, sizes: Sequence[int | str]) -> str:
    """An instance as ``kernels.cpp`` names it."""
    arguments = [str(size) if isinstance(size, int) else CppIdentifier(size) for size in sizes]
    return f"{qualified(kernel)}<{', '.join(('Element', *arguments))}>"


def _attention(index: int, shape: AttentionShape) -> AttentionView:
    return AttentionView(
        member=f"attention_{index}_",
        constant=f"kAttention{index}",
        shape=cpp_braced((shape.num_heads, shape.num_key_value_heads, shape.head_dim)),
        comment=f"{shape.num_heads} query and {shape.num_key_value_heads} key/value heads of "
        f"{shape.head_dim}",
    )


def _cache_group(group: CacheGroup, plan: EnginePlan) -> CacheGroupView:
    sizes = {
        "num_key_value_heads": group.num_key_value_heads,
        "head_dim": group.head_dim,
        "window": group.window or 0,
        "block_size": group.block_size or 0,
    }
    return CacheGroupView(
        name_literal=cpp_string(group.name),
        kind=f"k{pascal_case(group.kind)}",
        dtype=_dtype(DType(group.dtype), plan),
        layers=f"{{{wrapped(map(str, group.layers), 8, tail=2)}}}",
        shape=", ".join(f"/*{name}=*/{size}" for name, size in sizes.items()),
    )


def _rope(table: RopeTable, lowering: str) -> RopeView:
    constant = f"k{pascal_case(table.name)}"
    half_dim = len(table.inv_freq)
    frequencies = f"{constant}InvFreq"
    if table.long_inv_freq is not None:
        threshold = f"options.max_model_len > {constant}LongThreshold"
        frequencies = f"{threshold} ? {constant}LongInvFreq : {frequencies}"
    arguments = [frequencies, str(half_dim), cpp_float(table.attention_factor)]
    make = "rope_tables" if lowering == "portable" else "angle_tables"
    member = member_name(table.name)
    return RopeView(
        member=member,
        constant=constant,
        half_dim=half_dim,
        inv_freq=_floats(f"constexpr float {constant}InvFreq[{half_dim}] = ", table.inv_freq),
        long_inv_freq=_floats(
            f"constexpr float {constant}LongInvFreq[{half_dim}] = ", table.long_inv_freq or ()
        ),
        table_arguments=call_arguments(f"rope_.{member} = {make}", arguments, 2),
        has_long=table.long_inv_freq is not None,
        long_threshold=table.long_threshold or 0,
        comment=cpp_comment(f"Rotary frequencies of table {table.name}, after scaling."),
    )


def _floats(head: str, values: tuple[float, ...]) -> str:
    return initializer(head, (cpp_float(value) for value in values))
