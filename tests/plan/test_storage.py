"""Values alive at the same time never share memory; memory is reused when they are not."""

from __future__ import annotations

import dataclasses

import pytest

from qwen3_codegen.errors import LoweringError
from qwen3_codegen.ir.graph import Node, Value
from qwen3_codegen.ir.verify import verify
from qwen3_codegen.plan.planner import plan_engine
from qwen3_codegen.plan.records import EnginePlan, OperatorCall, RegionPlan
from qwen3_codegen.spec.catalog import load_model, model_names
from tests.ir.tiny import ATTENTION, tiny_graph
from tests.plan.planning import (
    LOWERED,
    assert_plan_computes_graph,
    case_graph,
    optimised,
    request,
    tiny_plan,
)
from tests.plan.stamps import Stamps


@pytest.mark.parametrize("case_id", LOWERED)
@pytest.mark.parametrize("release", ["2025-08", "0.1.0"])
def test_no_value_is_overwritten_while_it_is_alive(case_id, release):
    plan = plan_engine(case_graph(case_id), request(release=release))
    assert Stamps(plan).problems() == []


@pytest.mark.parametrize("name", model_names())
def test_shipped_models_keep_their_values_too(name):
    try:
        plan = plan_engine(optimised(load_model(name)), request("cambricon"))
    except LoweringError:
        pytest.skip("refused by the portable lowering")
    assert Stamps(plan).problems() == []


def first_layer(plan: EnginePlan) -> RegionPlan:
    return plan.layer_kinds[0]


def buffers_of(region: RegionPlan) -> dict[str, str]:
    """The buffer each value with a place of its own lies in."""
    return {
        definition.name: definition.reference.name
        for step in region.steps
        for definition in step.definitions
        if definition.reference.origin.value == "buffer"
    }


def moved(plan: EnginePlan, value: str, buffer: str) -> EnginePlan:
    """The plan with one value of its first layer put into another buffer."""
    region = first_layer(plan)
    steps = tuple(
        dataclasses.replace(
            step,
            definitions=tuple(
                dataclasses.replace(d, reference=dataclasses.replace(d.reference, name=buffer))
                if d.name == value
                else d
                for d in step.definitions
            ),
        )
        for step in region.steps
    )
    return dataclasses.replace(plan, layer_kinds=(dataclasses.replace(region, steps=steps),))


def test_the_checker_sees_a_value_put_onto_a_live_one():
    plan = tiny_plan()
    places = buffers_of(first_layer(plan))
    broken = moved(plan, "a", places["qkv"])
    assert Stamps(plan).problems() == []
    assert Stamps(broken).problems() == []  # qkv is dead by then
    broken = moved(plan, "x", first_layer(plan).parameters[0].reference.name)
    assert any("h is read after" in problem for problem in Stamps(broken).problems())


def test_buffers_are_reused_where_values_are_never_alive_together():
    found = {buffer.holds: (buffer.rows, buffer.columns) for buffer in tiny_plan().buffers}
    assert found == {
        ("h",): ("num_tokens", 12),
        ("x", "a", "x_rms_norm"): ("num_tokens", 4 * 6),
        ("qkv", "gate_up"): ("num_tokens", (4 + 2 + 2) * 6),
        ("h_gather_rows",): ("num_logit_rows", 12),
        ("logits",): ("num_logit_rows", 37),
    }


def test_two_layer_kinds_share_buffers():
    one = tiny_plan()
    two = tiny_plan(attributes=({"window": None}, {"window": 3}))
    assert len(two.layer_kinds) == 2
    assert [b.columns for b in one.buffers] == [b.columns for b in two.buffers]


def calls(plan: EnginePlan, operator: str) -> list[OperatorCall]:
    return [
        action
        for step in first_layer(plan).steps
        for action in step.actions
        if isinstance(action, OperatorCall) and action.operator == operator
    ]


def test_a_residual_is_added_in_place():
    (_, output, _, down) = calls(tiny_plan(), "gemm")
    assert output.scalars == (1.0, 1.0)
    assert down.scalars == (1.0, 1.0)
    assert not calls(tiny_plan(), "rearrange")


def test_a_residual_that_is_also_the_product_s_input_is_not_written_while_it_is_read():
    plan = tiny_plan(("h = h + linear(h, weight=mix, out=hidden_size)", *ATTENTION))
    gemm = calls(plan, "gemm")[0]
    assert gemm.scalars == (1.0, 1.0)
    assert calls(plan, "rearrange"), "the residual goes to memory of its own first"
    assert Stamps(plan).problems() == []


def test_a_residual_that_the_next_op_reads_again_is_kept():
    plan = tiny_plan(
        (
            *ATTENTION,
            "x = rms_norm(h, weight=norm)",
            "s = h + linear(x, weight=mix, out=hidden_size)",
            "h = h + linear(s, weight=other, out=hidden_size)",
        )
    )
    assert calls(plan, "rearrange"), "s cannot lie where h does"
    assert Stamps(plan).problems() == []


def test_the_epilogue_keeps_its_input_for_its_next_go():
    graph = tiny_graph()
    h = graph.epilogue.parameters[0]
    doubled = Value("doubled", h.type)
    gather, *rest = graph.epilogue.nodes
    nodes = (
        Node("scale", {"x": h.name}, (doubled,), {"factor": 2.0}, gather.location),
        dataclasses.replace(gather, inputs={"x": "doubled"}),
        *rest,
    )
    graph = dataclasses.replace(graph, epilogue=dataclasses.replace(graph.epilogue, nodes=nodes))
    verify(graph)
    assert Stamps(plan_engine(graph, request())).problems() == []
    assert_plan_computes_graph(graph)


def test_a_layer_s_result_is_brought_to_the_hidden_buffer_which_holds_nothing_else():
    plan = tiny_plan(("x = linear(h, weight=mix, out=hidden_size)", "h = rms_norm(x, weight=norm)"))
    last = first_layer(plan).steps[-1]
    assert last.text == "h_rms_norm goes to where the next layer reads it"
    assert last.actions[0].operator == "rearrange"
    assert plan.buffers[0].holds == ("h",)
    assert Stamps(plan).problems() == []
