"""Each op's lowering: what it computes, which operators it calls, and what it refuses."""

from __future__ import annotations

import dataclasses

import pytest

from qwen3_codegen.dtypes import DType
from qwen3_codegen.errors import LoweringError
from qwen3_codegen.frontend import build_graph
from qwen3_codegen.infinicore.api import load_api
from qwen3_codegen.ir.graph import Graph, Node, Value, ValueType
from qwen3_codegen.ir.ops import OPS
from qwen3_codegen.plan.planner import plan_engine
from qwen3_codegen.plan.portable.lowerings import LOWERINGS
from qwen3_codegen.plan.records import ActivationCall, AttentionCall, EnginePlan, OperatorCall
from tests.ir.tiny import ATTENTION, MLP, rope_table, tiny_graph, tiny_spec
from tests.plan.planning import (
    assert_plan_computes_graph,
    case_graph,
    optimised,
    request,
    tiny_plan,
)


def assert_computes(*layer: str, **fields: object) -> EnginePlan:
    """Plans a tiny layer, with and without passes, and runs it against the interpreter."""
    spec = tiny_spec(layer, **fields)
    assert_plan_computes_graph(build_graph(spec))
    return assert_plan_computes_graph(optimised(spec))


def calls(plan: EnginePlan, text: str) -> list[str]:
    """Operators of the steps of the first layer whose text holds ``text``."""
    return [
        action.operator if isinstance(action, OperatorCall) else type(action).__name__
        for step in plan.layer_kinds[0].steps
        if text in step.text
        for action in step.actions
    ]


def mlp(*lines: str) -> tuple[str, ...]:
    """A layer of attention and an MLP from ``gate`` and ``up`` to ``m``."""
    return (
        *ATTENTION,
        *MLP[:3],
        *lines,
        "h = h + linear(m, weight=mlp.down_proj, out=hidden_size)",
    )


def test_every_op_is_either_lowered_or_refused_with_a_reason():
    refused = {name for name, op in OPS.items() if op.lowerings["portable"].refusal}
    assert set(LOWERINGS) == set(OPS) - refused


def test_swiglu():
    plan = assert_computes(*ATTENTION, *MLP)
    (call,) = [
        action
        for step in plan.layer_kinds[0].steps
        for action in step.actions
        if isinstance(action, OperatorCall) and action.operator == "swiglu"
    ]
    _, up, gate = (tensor.name for tensor in call.tensors)
    assert (up, gate) == ("up", "gate"), "InfiniCore takes up first"


def test_silu_is_swiglu_with_ones():
    plan = assert_computes(*mlp("m = silu(gate)", "m = m + up"))
    assert calls(plan, "= silu(") == ["swiglu"]
    assert plan.constants["one"] == 1.0


def test_relu_and_its_square():
    assert calls(assert_computes(*mlp("m = relu(gate) * up")), "= relu(") == ["relu"]
    assert calls(assert_computes(*mlp("m = relu2(gate) * up")), "= relu2(") == ["relu", "mul"]


def test_gelu_tanh_takes_scratch_for_three_values_per_element():
    plan = assert_computes(*mlp("m = gelu_tanh(gate) * up"))
    assert plan.scratch_columns == 3 * 10
    (call,) = [a for s in plan.layer_kinds[0].steps for a in s.actions if type(a) is ActivationCall]
    assert [constant.name for constant in call.constants] == ["gelu_cubic", "gelu_linear", "zero"]


def test_scale_is_a_product_with_a_constant_that_is_kept_once():
    plan = assert_computes(*mlp("m = up * 0.37 + gate * 0.37 + gate * 1.9"))
    assert plan.constants == {"scale": 0.37, "scale_1": 1.9}


@pytest.mark.parametrize("case_id", ["jiuge-minicpm", "jiuge-fm9g-tied"])
def test_scale_on_a_device_without_mul_is_the_beta_of_a_gemm(case_id):
    plan = assert_plan_computes_graph(case_graph(case_id), "cambricon")
    assert "mul" not in plan.operators
    regions = (plan.prologue, *plan.layer_kinds, plan.epilogue)
    scales = [step for region in regions for step in region.steps if "= scale(" in step.text]
    assert scales
    for step in scales:
        assert [call.operator for call in step.actions] == ["rearrange", "rearrange", "gemm"]


def test_products_of_whole_values_and_with_one_column():
    assert_computes(*mlp("m = gate * up"))
    assert_computes(
        *mlp("s = linear(x, weight=mlp.shared_gate, out=1)", "m = gate * up * s"),
    )


def test_a_product_with_one_of_its_own_columns_does_not_eat_itself():
    assert_computes(
        *mlp("first, rest = split(gate, [1, intermediate_size - 1])", "m = gate * first + up")
    )


def test_a_square():
    plan = assert_computes(*mlp("m = gate * gate + up * up"))
    assert calls(plan, "mul(") == ["mul", "mul"]
    (square,) = [s for s in plan.layer_kinds[0].steps if "mul(gate, gate)" in s.text]
    assert square.definitions[0].reference.name == "gate", "in place"


def test_sums_of_one_value_with_itself():
    assert_computes(*mlp("m = gate + gate + up"))


def test_concat_puts_columns_side_by_side():
    plan = assert_computes(
        *ATTENTION,
        *MLP[:3],
        "m = concat(up, gate, up)",
        "h = h + linear(m, weight=mlp.wide_proj, out=hidden_size)",
    )
    assert calls(plan, "= concat(") == ["rearrange"] * 3


BIASED = "linear(x, weight=mlp.fc, bias=true, out=hidden_size)"


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ("h = h + linear(x, weight=mlp.fc, out=hidden_size)", ["gemm"]),
        (f"h = h + {BIASED}", ["add", "gemm"]),
        (f"h = rms_norm({BIASED}, weight=last_norm)", ["rearrange", "gemm"]),
    ],
)
def test_a_product_starts_from_bias_and_residual(statement, expected):
    plan = assert_computes(*ATTENTION, MLP[0], statement)
    assert calls(plan, "linear(x_rms_norm, fc") == expected


def test_a_residual_needed_again_is_copied_before_bias_and_product():
    plan = assert_computes(
        *ATTENTION, MLP[0], f"s = h + {BIASED}", "h = h + linear(s, weight=z, out=hidden_size)"
    )
    assert calls(plan, "bias=") == ["rearrange", "add", "gemm"]


def test_an_alpha_is_the_product_s():
    plan = assert_computes(
        *ATTENTION, MLP[0], "h = h + linear(x, weight=mlp.fc, out=hidden_size) * 0.7"
    )
    (step,) = [s for s in plan.layer_kinds[0].steps if "alpha" in s.text]
    assert step.actions[0].scalars == (0.7, 1.0)


def test_views_call_nothing():
    plan = assert_computes(*ATTENTION, *MLP)
    assert calls(plan, "= split(") == []
    assert calls(plan, "= reshape(") == []


def test_rope_on_part_of_a_head():
    plan = assert_computes(*ATTENTION, rope=[rope_table(rotary_dim=4)])
    (q_rope, _) = [s for s in plan.layer_kinds[0].steps if "= rope(" in s.text]
    assert q_rope.actions[0].tensors[0].views[-1].arguments == (0, 4)


@pytest.mark.parametrize("is_interleaved", [False, True])
def test_rope_pairs_halves_or_neighbours(is_interleaved):
    table = rope_table(interleaved=is_interleaved, attention_factor=1.3)
    plan = assert_computes(*ATTENTION, rope=[table])
    (q_rope, _) = [s for s in plan.layer_kinds[0].steps if "= rope(" in s.text]
    suffix = "GPT_J" if is_interleaved else "GPT_NEOX"
    assert q_rope.actions[-1].scalars == (f"INFINIOP_ROPE_ALGO_{suffix}",)


def test_a_value_rotated_and_read_again_is_copied():
    layer = [line.replace("a = attention(q, k, v", "a = attention(q, r, k") for line in ATTENTION]
    layer[4] = "q, r = rope(q, k, table='rope')"
    plan = assert_computes(*layer, when={ATTENTION[3]: "false"})
    assert calls(plan, "r = rope(") == ["rearrange", "rope"]


def test_attention_windows_and_shapes_are_listed_once():
    plan = assert_computes(
        *ATTENTION, *MLP, attributes=({"window": None}, {"window": 3}, {"window": None})
    )
    assert plan.windows == (None, 3)
    assert len(plan.attention_shapes) == 1
    runs = [a for k in plan.layer_kinds for s in k.steps for a in s.actions]
    assert [a.window for a in runs if isinstance(a, AttentionCall)] == [None, 3]


def test_norms_of_heads_are_flattened_where_only_matrices_are_taken():
    lines = (*ATTENTION[:4], "q = rms_norm(q, weight=q_norm)", *ATTENTION[4:])
    flat = plan_engine(optimised(tiny_spec(lines)), request(release="2025-08"))
    whole = plan_engine(optimised(tiny_spec(lines)), request(release="0.1.0"))
    assert calls(flat, "q_norm") == ["rearrange", "rms_norm"]
    assert calls(whole, "q_norm") == ["rms_norm"]
    for release in ("2025-08", "0.1.0"):
        assert_plan_computes_graph(optimised(tiny_spec(lines)), release=release)


def test_norm_weights_stay_float32_beside_half_activations():
    plan = tiny_plan(dtype=DType.BF16)
    dtypes = {weight.name: weight.dtype for weight in plan.layer_kinds[0].weights}
    assert dtypes["input_layernorm"] is DType.F32
    assert dtypes["qkv_proj"] is DType.BF16


# ---- refusals -------------------------------------------------------------------------------


def refusal(graph: Graph, device: str = "cpu", release: str = "0.1.0") -> str:
    with pytest.raises(LoweringError) as caught:
        plan_engine(graph, request(device, release))
    return str(caught.value)


def test_an_op_without_a_decomposition():
    text = refusal(tiny_graph(mlp("m = gelu(gate) * up")))
    assert text.startswith("layer:11: the portable lowering cannot carry out gelu\n")
    assert "InfiniCore as recorded here has no error function" in text
    assert "expected: add, attention, concat" in text
    assert text.endswith(
        "hint:     the native lowering (--dev cpu) carries them out; `qwen3-codegen generate "
        "--engine interpreter` runs every op and compiles nothing"
    )


def test_an_op_that_no_lowering_carries_out():
    """``--dev cpu`` is no advice then."""
    text = refusal(tiny_graph(mlp("m = l2_norm(gate, eps=1e-6) * up")))
    assert "cannot carry out l2_norm" in text
    assert "hint:     `qwen3-codegen generate --engine interpreter` runs" in text


def test_an_offset_that_no_pass_has_folded():
    text = refusal(tiny_graph((*ATTENTION, "h = rms_norm(h, weight=norm, offset=1)")))
    assert text == (
        "layer:8: rms_norm with an offset reached the plan; fold_constants moves it into the weight"
    )


def test_soft_capped_attention():
    layer = [line.replace("scale=0.9", "scale=0.9, softcap=5") for line in ATTENTION]
    assert refusal(tiny_graph(layer)) == (
        "layer:6: attention with a soft cap needs tanh, which InfiniCore does not have\n"
        "  hint:     the native lowering (--dev cpu) carries it out"
    )


def test_values_of_another_head_size():
    layer = [
        line.replace("v_proj, out=[num_key_value_heads, head_dim]", "v_proj, out=[2, 4]")
        for line in ATTENTION
    ]
    assert refusal(tiny_graph(layer)) == (
        "layer:6: keys and values of different head sizes are not carried out\n  got:      6 and 4"
    )


def test_a_split_within_heads():
    layer = (*ATTENTION[:2], "p, q = split(q, [2, 4])", *ATTENTION[2:])
    layer = tuple(line.replace("head_dim]", "6]" if "q_proj" in line else "4]") for line in layer)
    text = refusal(
        tiny_graph(
            (
                *layer[:-1],
                "a = reshape(a, 16)",
                layer[-1],
                "h = h + linear(reshape(p, 8), weight=gate, out=hidden_size)",
            ),
            rope=[rope_table(rotary_dim=4)],
        )
    )
    assert text.startswith("layer:3: values can be split over the last of two dimensions only\n")
    assert "got:      float32[num_tokens, 4, 6]" in text
    assert "hint:     split before reshape" in text


def test_gelu_per_head():
    text = refusal(tiny_graph((*ATTENTION[:2], "q = gelu_tanh(q)", *ATTENTION[2:])))
    assert text == (
        "layer:3: gelu_tanh is carried out for two dimensions only\n"
        "  got:      float32[num_tokens, 4, 6]\n"
        "  hint:     apply it before reshape"
    )


def test_two_attentions_in_a_layer():
    text = refusal(optimised(tiny_spec((*ATTENTION, *ATTENTION))))
    assert text == "layer:13: a layer with several attentions is not carried out"


def test_an_operator_the_device_lacks():
    graph = optimised(tiny_spec(mlp("m = relu(gate) * up")))
    text = refusal(graph, "nvidia", "2026-08")
    assert text.startswith(
        "layer:11: relu needs InfiniCore's relu, which nvidia does not have in release 2026-08\n"
    )
    assert "--infinicore-api" in text


def test_types_the_device_does_not_take():
    graph = optimised(tiny_spec(dtype=DType.BF16))
    text = refusal(graph, "ascend", "0.1.0")
    assert "InfiniCore's gemm on ascend does not take these types" in text
    assert "got:      c: bf16, a: bf16, b: bf16" in text
    assert "another --dtype may be supported" in text


def test_names_of_operators_are_the_api_s():
    api = load_api("0.1.0")
    for name in ("gemm", "rms_norm", "rope", "swiglu", "causal_softmax", "rearrange"):
        assert name in api.operators


def test_why_an_op_is_carried_out_as_it_is():
    plan = plan_engine(
        optimised(tiny_spec(mlp("m = gelu_tanh(gate) * up"))), request(release="2025-08")
    )
    reasons = {choice.op: (choice.operators, choice.reason) for choice in plan.choices}
    assert reasons["split"] == ((), "views and copies only")
    assert reasons["linear"] == (("gemm",), "the device has it")
    assert reasons["gelu_tanh"][1] == "decomposed"
    assert reasons["attention"][0] == ("causal_softmax", "gemm", "rearrange")
    biased = tiny_plan((*ATTENTION, MLP[0], f"h = h + {BIASED}"))
    assert {c.op: c.reason for c in biased.choices}[
        "linear"
    ] == "the device has gemm; add around it"


def test_a_numeric_attribute_of_another_type_is_our_fault():
    graph = tiny_graph()
    region = graph.layer_kinds[0]
    broken = tuple(
        dataclasses.replace(node, attributes={**node.attributes, "eps": "small"})
        if node.op == "rms_norm"
        else node
        for node in region.nodes
    )
    region = dataclasses.replace(region, nodes=broken)
    with pytest.raises(TypeError, match="attribute eps is 'small'"):
        plan_engine(dataclasses.replace(graph, layer_kinds=(region,)), request())


def test_only_rows_may_be_symbols():
    value = Value("x", ValueType(("num_tokens", "num_tokens"), DType.F32))
    node = Node("relu", {"x": "h"}, (value,), {}, tiny_graph().prologue.nodes[0].location)
    graph = tiny_graph()
    region = dataclasses.replace(graph.layer_kinds[0], nodes=(node, *graph.layer_kinds[0].nodes))
    with pytest.raises(TypeError, match="only the first dimension"):
        plan_engine(dataclasses.replace(graph, layer_kinds=(region,)), request())
