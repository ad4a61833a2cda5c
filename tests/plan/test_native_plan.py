"""Plans of the native lowering: mixtures, norms and products per row, and the dtype of caches."""

from __future__ import annotations

import dataclasses
import json

import pytest

from qwen3_codegen.compile import CompileOptions, make_graph, plan_model
from qwen3_codegen.dtypes import DType
from qwen3_codegen.errors import LoweringError
from qwen3_codegen.frontend import build_graph
from qwen3_codegen.plan.activations import with_activations
from qwen3_codegen.plan.planner import plan_engine
from qwen3_codegen.plan.records import EnginePlan, KernelCall, WeightPlan
from qwen3_codegen.spec.catalog import load_model
from qwen3_codegen.spec.device import load_device
from qwen3_codegen.spec.model import ModelSpec
from qwen3_codegen.spec.resolve import with_dtype
from qwen3_runtime.checkpoint import open_checkpoint
from qwen3_runtime.checkpoint.transform import Reshape, Rows, Stack, Tensor
from qwen3_runtime.engine.manifest import memory_needs
from tests.ir.tiny import ATTENTION, MLP, tiny_spec
from tests.plan.planning import case_spec, request

CPU = load_device("cpu")
NATIVE = CompileOptions(lowering="native")


def native_plan(spec: ModelSpec) -> EnginePlan:
    usual = request()
    target = dataclasses.replace(usual.target, lowering="native")
    return plan_engine(build_graph(spec), dataclasses.replace(usual, target=target))


def kernels(plan: EnginePlan, text: str) -> list[tuple[str, tuple[int | str, ...]]]:
    """Calls of the steps of the first layer whose text holds ``text``."""
    return [
        (action.kernel, action.sizes)
        for step in plan.layer_kinds[0].steps
        if text in step.text
        for action in step.actions
        if isinstance(action, KernelCall)
    ]


# ---- norms and products ---------------------------------------------------------------------


def test_layer_norm_of_rows_and_of_heads():
    plan = native_plan(
        tiny_spec(
            (
                *ATTENTION[:2],
                "q = layer_norm(q, weight=attn.q_norm, eps=0.1, bias=false)",
                *ATTENTION[2:],
                "x = layer_norm(h, weight=post_attention_layernorm, eps=0.1)",
                *MLP[1:],
            )
        )
    )
    assert kernels(plan, "= layer_norm(") == [("LayerNorm", (4, 6)), ("LayerNorm", (1, 12))]


def test_one_factor_per_row():
    plan = native_plan(
        tiny_spec(
            (
                *ATTENTION,
                *MLP[:3],
                "s = linear(x, weight=mlp.share, out=1)",
                "m = gate * up * s",
                "h = h + linear(m, weight=mlp.down_proj, out=hidden_size)",
            )
        )
    )
    assert kernels(plan, "= mul(")[1] == ("ScaleGroups", (1, 10))


# ---- mixtures -------------------------------------------------------------------------------


def test_a_mixture_is_three_calls_with_room_for_every_row():
    plan = plan_model(case_spec("qwen3-moe"), CPU, NATIVE).plan
    assert kernels(plan, "= moe(") == [
        ("Linear", (52, 5)),
        ("ChooseExperts", (5, 2)),
        ("MixExperts", (52, 26, 5, 2, "Silu")),
    ]
    (step,) = [step for step in plan.layer_kinds[0].steps if "= moe(" in step.text]
    room = {definition.name: definition.type for definition in step.definitions}
    assert [(str(type_.shape[-1]), type_.dtype) for type_ in room.values()] == [
        ("52", DType.F32),
        ("5", DType.F32),
        ("2", DType.I32),
        ("2", DType.F32),
        ("52", DType.F32),
        ("26", DType.F32),
        ("26", DType.F32),
        ("52", DType.F32),
    ]
    buffers = [definition.reference.name for definition in step.definitions]
    assert len(set(buffers)) == len(buffers)


def test_an_activation_that_has_no_kernel_is_refused():
    graph = make_graph(case_spec("qwen3-moe"), lowering="native")
    (kind,) = graph.layer_kinds
    nodes = tuple(
        dataclasses.replace(node, attributes={**node.attributes, "activation": "softplus"})
        if node.op == "moe"
        else node
        for node in kind.nodes
    )
    changed = dataclasses.replace(graph, layer_kinds=(dataclasses.replace(kind, nodes=nodes),))
    usual = request()
    target = dataclasses.replace(usual.target, lowering="native")
    with pytest.raises(LoweringError, match=r"qwen3_moe\.yaml:\d+: experts with the activation"):
        plan_engine(changed, dataclasses.replace(usual, target=target))


def test_a_split_weight_is_asked_for_matrix_by_matrix():
    shape = (3, 4, 2)
    names = [f"layer.{{layer}}.{index}" for index in range(3)]
    stacked = WeightPlan(
        "gate",
        shape,
        DType.F32,
        Stack(tuple(map(Tensor, names))),
        dict.fromkeys(names, (4, 2)),
        is_split=True,
    )
    parts = stacked.parts()
    assert [part.name for part in parts] == ["gate.0", "gate.1", "gate.2"]
    assert [part.expression for part in parts] == list(map(Tensor, names))
    assert all(part.shape == (4, 2) for part in parts)
    assert [dict(part.sources) for part in parts] == [{name: (4, 2)} for name in names]
    whole = dataclasses.replace(stacked, expression=Tensor("all"), sources={"all": shape})
    assert [part.expression for part in whole.parts()] == [
        Reshape(Rows(Tensor("all"), index, 1), (4, 2)) for index in range(3)
    ]
    assert [dict(part.sources) for part in whole.parts()] == [{"all": shape}] * 3
    assert dataclasses.replace(stacked, is_split=False).parts() == (
        dataclasses.replace(stacked, is_split=False),
    )
    assert sum(part.num_bytes for part in parts) == stacked.num_bytes


@pytest.mark.reference
def test_experts_are_read_where_they_are_mapped(reference):
    path = reference("qwen3-moe").path
    compiled = plan_model(load_model(str(path)), CPU, NATIVE)
    manifest = json.loads(compiled.files["manifest.json"])
    experts = [weight for weight in manifest["weights"] if weight["name"].startswith("up_proj.")]
    assert [weight["name"] for weight in experts] == [f"up_proj.{index}" for index in range(5)]
    assert experts[3]["expression"]["op"] == "tensor"
    assert experts[3]["expression"]["name"].endswith("mlp.experts.3.up_proj.weight")
    with open_checkpoint(path) as checkpoint:
        assert memory_needs(manifest, checkpoint).weights == 0


def test_the_published_mixture_is_planned():
    plan = plan_model(load_model("qwen3-30b-a3b"), CPU, CompileOptions()).plan
    assert ("MixExperts", (2048, 768, 128, 8, "Silu", "Bf16")) in plan.kernels
    assert 30e9 * 2 < plan.memory.weight_bytes < 31e9 * 2


# ---- what is kept in float32 beside half-precision matrices ---------------------------------


@pytest.mark.parametrize(("dtype", "element"), [(DType.BF16, "Bf16"), (DType.F16, "F16")])
def test_mixtures_keep_values_and_caches_in_float32(dtype, element):
    spec = load_model("qwen3-30b-a3b", overrides={"attention_bias": "true"})
    compiled = plan_model(spec, CPU, CompileOptions(dtype=dtype))
    plan = compiled.plan
    assert (plan.dtype, plan.activation_dtype) == (dtype, DType.F32)
    assert {buffer.dtype for buffer in plan.buffers} == {DType.F32, DType.I32}
    assert {group.dtype for group in plan.cache_groups} == {"float32"}
    # 48 layers, keys and values, 4 heads of 128
    assert plan.memory.kv_bytes_per_token == 48 * 2 * 4 * 128 * 4
    weights = [*plan.prologue.weights, *plan.layer_kinds[0].weights]
    assert {len(weight.shape): weight.dtype for weight in weights} == {
        1: DType.F32,  # norms and biases
        2: dtype,
        3: dtype,
    }
    takes_matrix = {"GatherRows", "Linear", "MixExperts"}
    assert takes_matrix < {kernel for kernel, _ in plan.kernels}
    for kernel, sizes in plan.kernels:
        is_of_rows = (kernel, sizes) == ("GatherRows", (2048,))  # those whose logits are wanted
        assert (element in sizes) == (kernel in takes_matrix and not is_of_rows)
    manifest = json.loads(compiled.files["manifest.json"])
    assert (manifest["dtype"], manifest["activation_dtype"]) == (dtype.value, "float32")
    assert "using Element = float;" in compiled.files["engine.hpp"]
    assert "from op to op, keys and values in float32." in compiled.files["engine.hpp"]


def test_a_mixture_keeps_its_cache_in_less_where_asked():
    options = CompileOptions(dtype=DType.BF16, kv_cache_dtype=DType.BF16)
    plan = plan_model(load_model("qwen3-30b-a3b"), CPU, options).plan
    assert plan.activation_dtype is DType.F32
    assert {group.dtype for group in plan.cache_groups} == {"bfloat16"}


@pytest.mark.parametrize(
    ("id", "dtype", "wanted"),
    [
        ("qwen3-moe", DType.F32, None),
        ("qwen3-window-3", DType.F32, DType.F32),
        ("qwen3-window-3", DType.BF16, DType.BF16),
        ("qwen2", DType.F16, DType.F16),
    ],
)
def test_values_have_the_dtype_of_matrices_in_float32_and_where_asked(id, dtype, wanted):
    options = dataclasses.replace(NATIVE, dtype=dtype, activation_dtype=wanted)
    compiled = plan_model(case_spec(id), CPU, options)
    assert compiled.plan.activation_dtype is None
    assert {buffer.dtype for buffer in compiled.plan.buffers} - {DType.I32} == {dtype}
    assert {group.dtype for group in compiled.plan.cache_groups} == {dtype.value}
    assert "activation_dtype" not in json.loads(compiled.files["manifest.json"])
    assert "Values stay" not in compiled.files["engine.hpp"]


@pytest.mark.parametrize("wanted", [None, DType.F32])
@pytest.mark.parametrize(("kv_cache_dtype", "cache"), [(None, DType.BF16), (DType.F32, DType.F32)])
def test_others_keep_values_in_float32_and_their_cache_in_half(kv_cache_dtype, cache, wanted):
    usual = dataclasses.replace(NATIVE, dtype=DType.BF16)
    options = dataclasses.replace(usual, activation_dtype=wanted, kv_cache_dtype=kv_cache_dtype)
    rounded = dataclasses.replace(usual, activation_dtype=DType.BF16)
    spec = case_spec("qwen3-window-3")
    compiled, other = (plan_model(spec, CPU, each) for each in (options, rounded))
    plan = compiled.plan
    assert (plan.dtype, plan.activation_dtype) == (DType.BF16, DType.F32)
    assert {buffer.dtype for buffer in plan.buffers} - {DType.I32} == {DType.F32}
    assert {group.dtype for group in plan.cache_groups} == {cache.value}
    assert plan.memory.kv_bytes_per_token == 2 * cache.size * 4 * 2 * 14  # layers, heads, head_dim
    matrices = [
        weight.dtype
        for region in plan.regions()
        for weight in region.weights
        if len(weight.shape) == 2
    ]
    assert set(matrices) == {DType.BF16}
    manifest = json.loads(compiled.files["manifest.json"])
    assert manifest["activation_dtype"] == "float32"
    assert manifest["memory"]["kv_bytes_per_token"] == plan.memory.kv_bytes_per_token
    assert manifest["sha256"] != json.loads(other.files["manifest.json"])["sha256"]
    in_cache = ", keys and values in float32" if cache is DType.F32 else ""
    assert f"Values stay in float32 from op to op{in_cache}." in compiled.files["engine.hpp"]


@pytest.mark.parametrize("id", ["qwen3-window-3", "qwen2-tied"])
def test_rows_beside_bfloat16_matrices_may_be_rounded(id):
    compiled = plan_model(case_spec(id), CPU, dataclasses.replace(NATIVE, dtype=DType.BF16))
    assert compiled.plan.row_dtype is DType.BF16
    assert json.loads(compiled.files["manifest.json"])["row_dtype"] == "bfloat16"
    for kernel, sizes in compiled.plan.kernels:
        assert (sizes[-2:] == ("Bf16", "RoundableRows")) == (kernel == "Linear")
    assert "native::Bf16, native::RoundableRows>::run(" in compiled.files["engine.cpp"]


@pytest.mark.parametrize(
    ("id", "options"),
    [
        ("qwen3-moe", {"dtype": DType.BF16}),  # they choose experts
        ("qwen3-moe-mixed", {"dtype": DType.BF16}),  # in some layers
        ("qwen3-window-3", {"dtype": DType.BF16, "activation_dtype": DType.BF16}),
        ("qwen3-window-3", {"dtype": DType.BF16, "activation_dtype": DType.F32}),
        ("qwen3-window-3", {"dtype": DType.F16}),
        ("qwen3-window-3", {"dtype": DType.F32}),
        ("qwen3-window-3", {"dtype": DType.BF16, "lowering": "portable"}),
    ],
)
def test_other_rows_are_multiplied_as_they_are(id, options):
    compiled = plan_model(case_spec(id), CPU, dataclasses.replace(NATIVE, **options))
    assert compiled.plan.row_dtype is None
    assert "row_dtype" not in json.loads(compiled.files["manifest.json"])
    assert all("RoundableRows" not in sizes for _, sizes in compiled.plan.kernels)
    assert "RoundableRows" not in compiled.files["engine.cpp"]


def test_rows_beside_a_matrix_that_is_kept_as_values_are_stay():
    graph = make_graph(with_dtype(case_spec("qwen3-window-3"), DType.BF16), lowering="native")
    first, *others = graph.layer_kinds[0].nodes
    reads_it_too = dataclasses.replace(first, inputs={**first.inputs, "weight": "q_proj"})
    kind = dataclasses.replace(graph.layer_kinds[0], nodes=(reads_it_too, *others))
    changed = dataclasses.replace(graph, layer_kinds=(kind, *graph.layer_kinds[1:]))
    usual = request()
    target = dataclasses.replace(usual.target, lowering="native")
    plan = plan_engine(changed, dataclasses.replace(usual, target=target))
    assert kernels(plan, "= linear(x, q_proj)") == [("Linear", (52, 56))]
    assert kernels(plan, "= linear(x, k_proj)") == [("Linear", (52, 28, "Bf16", "RoundableRows"))]


@pytest.mark.parametrize(
    ("id", "dtype"),
    [
        ("qwen3-moe", DType.BF16),  # gives up what mixtures have by themselves
        ("qwen3-window-3", DType.F16),
        ("qwen3-window-3", DType.F32),
    ],
)
def test_values_may_be_asked_for_in_the_dtype_of_matrices(id, dtype):
    options = dataclasses.replace(NATIVE, dtype=dtype, activation_dtype=dtype)
    plan = plan_model(case_spec(id), CPU, options).plan
    assert plan.activation_dtype is None
    chosen_by_router = {DType.I32, DType.F32} if id == "qwen3-moe" else set()
    assert {buffer.dtype for buffer in plan.buffers} == {dtype, *chosen_by_router}
    assert {group.dtype for group in plan.cache_groups} == {dtype.value}


@pytest.mark.parametrize(
    ("id", "dtype"), [("qwen3-moe", DType.BF16), ("qwen3-window-3", DType.F16)]
)
def test_what_is_chosen_by_itself_may_be_asked_for(id, dtype):
    usual = dataclasses.replace(NATIVE, dtype=dtype)
    chosen = plan_model(case_spec(id), CPU, usual).plan
    asked = dataclasses.replace(usual, activation_dtype=chosen.value_dtype)
    assert plan_model(case_spec(id), CPU, asked).plan == chosen


@pytest.mark.parametrize(
    ("dtype", "wanted", "expected"),
    [
        (DType.BF16, DType.F16, "auto, bfloat16, float32"),
        (DType.F32, DType.BF16, "auto, float32"),
    ],
)
def test_values_in_a_third_dtype_or_in_less_than_matrices_are_refused(dtype, wanted, expected):
    options = dataclasses.replace(NATIVE, dtype=dtype, activation_dtype=wanted)
    with pytest.raises(LoweringError, match=f"activations beside {dtype.value} mat") as refused:
        plan_model(case_spec("qwen3-window-3"), CPU, options)
    assert refused.value.got == f"activation_dtype {wanted.value}"
    assert refused.value.expected == expected


@pytest.mark.parametrize("device", ["cpu", "mlu"])
def test_the_portable_lowering_refuses_to_be_asked_for_activations(device):
    options = CompileOptions(lowering="portable", dtype=DType.F16, activation_dtype=DType.F16)
    with pytest.raises(LoweringError, match="portable lowering keeps activations"):
        plan_model(case_spec("qwen3-window-3"), load_device(device), options)


def test_a_matrix_that_another_op_reads_is_kept_as_values_are():
    """Such as an op of the user's own, whose kernel takes one dtype."""
    graph = make_graph(with_dtype(case_spec("qwen3-moe"), DType.BF16), lowering="native")
    (kind,) = graph.layer_kinds
    first = kind.nodes[0]
    router = next(node.inputs["router"] for node in kind.nodes if node.op == "moe")
    reads_it_too = dataclasses.replace(first, inputs={**first.inputs, "weight": router})
    changed = dataclasses.replace(kind, nodes=(reads_it_too, *kind.nodes[1:]))
    wide = with_activations(dataclasses.replace(graph, layer_kinds=(changed,)), DType.F32)
    dtypes = {weight.name: weight.type.dtype for weight in wide.layer_kinds[0].weights}
    assert dtypes[router] is DType.F32
    assert dtypes["q_proj"] is DType.BF16


# ---- the dtype of caches --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dtype", "kv_cache_dtype", "element", "size"),
    [
        (DType.BF16, None, "Bf16", 2),
        (DType.BF16, DType.F32, "F32", 4),
        (DType.F32, DType.F16, "F16", 2),
    ],
)
def test_a_cache_has_a_dtype_of_its_own(dtype, kv_cache_dtype, element, size):
    options = dataclasses.replace(NATIVE, dtype=dtype, kv_cache_dtype=kv_cache_dtype)
    plan = plan_model(case_spec("qwen3-window-3"), CPU, options).plan
    assert {group.dtype for group in plan.cache_groups} == {(kv_cache_dtype or dtype).value}
    assert plan.memory.kv_bytes_per_token == 2 * size * 4 * 2 * 14  # layers, heads, head_dim
    on_cache = {name: sizes for name, sizes in plan.kernels if name in WITH_A_CACHE}
    assert {sizes[0] for sizes in on_cache.values()} == {element}
    assert set(on_cache) == WITH_A_CACHE


WITH_A_CACHE = {"AppendKeyValue", "PagedAttention"}


@pytest.mark.parametrize("device", ["cpu", "mlu"])
def test_the_portable_lowering_refuses_another_dtype(device):
    options = CompileOptions(
        lowering="portable", kv_cache_dtype=DType.F16, dtype=DType.F16
    )  # even where it would be the same: the option is no part of that lowering
    with pytest.raises(LoweringError, match="portable lowering keeps keys and values"):
        plan_model(case_spec("qwen3-window-3"), load_device(device), options)
