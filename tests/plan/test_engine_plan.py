"""Weights, cache groups, memory and choices of whole plans, against numbers counted by hand."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from qwen3_codegen.dtypes import DType
from qwen3_codegen.frontend import build_graph
from qwen3_codegen.plan.digest import content_digest
from qwen3_codegen.plan.planner import plan_engine
from qwen3_codegen.plan.records import Origin
from qwen3_codegen.spec.catalog import load_model
from qwen3_codegen.spec.source import SourceLocation
from qwen3_runtime.checkpoint.transform import evaluate
from tests.ir.tiny import ATTENTION, EPILOGUE, MLP, rope_table, tiny_graph, tiny_spec
from tests.plan.planning import assert_plan_computes_graph, optimised, request, tiny_plan

TIED = ("logits = linear(h, weight=embed, out=vocab_size)",)


# ---- weights --------------------------------------------------------------------------------


def test_weights_outside_the_layers_come_in_order():
    shapes = {weight.name: weight.shape for weight in tiny_plan().prologue.weights}
    assert shapes == {"embed": (37, 12), "lm_head": (37, 12)}


def test_a_tied_head_is_stored_once():
    plan = tiny_plan(epilogue=TIED)
    assert [weight.name for weight in plan.prologue.weights] == ["embed"]
    gemm = plan.epilogue.steps[-1].actions[-1]
    assert (gemm.tensors[2].origin, gemm.tensors[2].name) == (Origin.MODEL_WEIGHT, "embed")
    assert_plan_computes_graph(optimised(tiny_spec(epilogue=TIED)))


def test_a_tied_head_is_stored_twice_where_the_device_wants_it_transposed():
    plan = tiny_plan(epilogue=TIED, device="ascend")
    shapes = {weight.name: weight.shape for weight in plan.prologue.weights}
    assert shapes == {"embed": (37, 12), "embed_2": (12, 37)}


def test_transposed_matrices():
    plan = tiny_plan(device="ascend")
    kind = plan.layer_kinds[0]
    shapes = {weight.name: weight.shape for weight in kind.weights}
    assert shapes["qkv_proj"] == (12, 48)
    assert shapes["down_proj"] == (10, 12)
    assert shapes["input_layernorm"] == (12,)
    views = [
        view.method
        for region in plan.regions()
        for step in region.steps
        for action in step.actions
        for tensor in getattr(action, "tensors", ())
        for view in tensor.views
    ]
    assert "transposed" not in views
    (down,) = [weight for weight in kind.weights if weight.name == "down_proj"]
    stored = evaluate(down.expression, lambda _: np.arange(120.0).reshape(12, 10), 0)
    np.testing.assert_array_equal(stored, np.arange(120.0).reshape(12, 10).T)


def test_layers_of_every_kind_are_counted():
    plan = tiny_plan(attributes=({"window": 3}, {"window": None}, {"window": 3}))
    assert [kind.layers for kind in plan.layer_kinds] == [(0, 2), (1,)]
    assert plan.schedule == (0, 1, 0)
    assert plan.num_layers == 3


def test_two_regions_may_use_one_name_for_different_tensors():
    plan = tiny_plan(
        prologue=(
            "h = embedding(input_ids, weight=embed, size=[vocab_size, hidden_size])",
            "h = rms_norm(h, weight=norm)",
        ),
        epilogue=("h = rms_norm(h, weight=last.norm)", *EPILOGUE),
    )
    assert [weight.name for weight in plan.prologue.weights] == [
        "embed",
        "norm",
        "norm_2",
        "lm_head",
    ]


# ---- cache groups ---------------------------------------------------------------------------


def test_layers_share_a_group_by_heads_size_and_window():
    plan = tiny_plan(
        attributes=({"window": None}, {"window": 5}, {"window": None}, {"window": 5}),
        num_key_value_heads=2,
    )
    groups = {group.name: (group.layers, group.window) for group in plan.cache_groups}
    assert groups == {"full": ((0, 2), None), "window_5": ((1, 3), 5)}
    for group in plan.cache_groups:
        assert (group.kind, group.dtype) == ("contiguous", "float32")
        assert (group.num_key_value_heads, group.head_dim) == (2, 6)
        assert group.bytes_per_token == 2 * 2 * 2 * 6 * 4


def test_groups_of_one_window_but_other_heads_have_names_of_their_own():
    wide = "if layer.heads == 2 else attn.wide_"
    lines = [
        line.replace("num_key_value_heads", "layer.heads")
        .replace("k_proj,", f"k_proj {wide}k_proj,")
        .replace("v_proj,", f"v_proj {wide}v_proj,")
        for line in ATTENTION
    ]
    plan = tiny_plan(
        tuple(lines), attributes=({"window": None, "heads": 2}, {"window": None, "heads": 4})
    )
    assert [group.name for group in plan.cache_groups] == ["full_2x6", "full_4x6"]


def test_layers_without_attention_have_no_cache():
    plan = tiny_plan(MLP)
    assert plan.cache_groups == ()
    assert plan.memory.kv_bytes_per_token == 0


# ---- memory ---------------------------------------------------------------------------------


def test_memory_of_a_tiny_engine():
    plan = tiny_plan(attributes=({"window": None}, {"window": 5}, {"window": 5}))
    attention = 12 + 48 * 12 + 12 * 24
    mlp = 12 + 20 * 12 + 12 * 10
    memory = plan.memory
    assert memory.weight_bytes == 4 * (2 * 37 * 12 + 3 * (attention + mlp))
    assert memory.kv_bytes_per_token == 4 * 2 * 3 * 2 * 6
    assert memory.activation_bytes_per_token == 4 * (12 + 24 + 48)
    assert memory.logit_bytes_per_row == 4 * (12 + 37)
    assert memory.rope_bytes_per_position == 4 * 2 * 3
    assert memory.mask_bytes_per_token_and_position == 4 * 2
    assert memory.attention_scratch_bytes == 64 * 1024 * 1024


def test_scratch_of_activations_counts():
    lines = (
        *ATTENTION,
        *MLP[:3],
        "m = gelu_tanh(gate) * up",
        MLP[3].replace("silu(gate) * up", "m"),
    )
    plain, scratch = tiny_plan((*ATTENTION, *MLP)).memory, tiny_plan(lines).memory
    held = sum(b.columns for b in tiny_plan(lines).buffers if b.rows == "num_tokens")
    assert scratch.activation_bytes_per_token == 4 * (held + 3 * 10)
    assert plain.weight_bytes == scratch.weight_bytes


def test_memory_of_the_flagship():
    plan = plan_engine(optimised(load_model("qwen3-1.7b")), request())
    parameters = 1_720_574_976
    norms = 28 * (2 * 2048 + 2 * 128) + 2048
    assert plan.dtype is DType.BF16
    assert plan.memory.weight_bytes == 2 * (parameters - norms) + 4 * norms
    assert plan.memory.kv_bytes_per_token == 28 * 2 * 8 * 128 * 2
    assert plan.max_logit_rows == (64 << 20) // (151936 * 2)


@pytest.mark.parametrize(
    ("vocab_size", "rows"), [(37, 256), (151936, (64 << 20) // (151936 * 4)), (64 << 20, 1)]
)
def test_logit_rows_at_once_stay_within_64_mib(vocab_size, rows):
    assert tiny_plan(vocab_size=vocab_size).max_logit_rows == rows


def test_unused_rope_tables_are_left_out():
    graph = build_graph(tiny_spec(rope=[rope_table(), rope_table("other")]))
    assert list(graph.rope_tables) == ["rope", "other"]
    assert list(plan_engine(graph, request()).rope_tables) == ["rope"]


def test_operators_are_listed_sorted():
    assert tiny_plan().operators == (
        "causal_softmax",
        "gemm",
        "rearrange",
        "rms_norm",
        "rope",
        "swiglu",
    )


# ---- digests --------------------------------------------------------------------------------


def test_digests_agree_for_equal_content_wherever_it_stood():
    graph = tiny_graph()
    node = graph.layer_kinds[0].nodes[0]
    elsewhere = dataclasses.replace(node, location=SourceLocation("other.yaml", 99))
    assert content_digest(elsewhere) == content_digest(node)
    assert content_digest(dataclasses.replace(node, op="layer_norm")) != content_digest(node)


def test_digests_see_values_types_and_order():
    distinct = [
        {"a": 1},
        {"a": "1"},
        {"a": 1.5},
        {"a": None},
        {"b": 1},
        {"a": (1, 2)},
        {"a": (2, 1)},
        {"a": True},
        {"a": DType.F32},
        {"a": DType.F16},
    ]
    assert len({content_digest(record) for record in distinct}) == len(distinct)
    assert content_digest({"a": 1, "b": 2}) == content_digest({"b": 2, "a": 1})
    assert content_digest({"a": {3, 1}}) == content_digest({"a": frozenset((1, 3))})
    with pytest.raises(TypeError, match="object has no digest"):
        content_digest({"a": object()})


def test_a_plan_s_digest_follows_its_numbers():
    first = content_digest(tiny_plan())
    assert first == content_digest(tiny_plan())
    assert first != content_digest(tiny_plan(rms_norm_eps=0.0701))
