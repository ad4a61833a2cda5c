"""Releases that rotate neighbours only: weights are permuted so that scores stay what they were."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from qwen3_codegen.errors import LoweringError
from qwen3_codegen.frontend import build_graph
from qwen3_codegen.ir.graph import Graph
from qwen3_codegen.plan.planner import plan_engine
from qwen3_codegen.plan.rope_layout import interleave_rotary_weights
from qwen3_runtime.checkpoint.transform import PermuteHalves, Tensor, evaluate
from tests.ir.tiny import ATTENTION, MLP, rope_table, tiny_spec
from tests.plan.planning import assert_plan_computes_graph, case_graph, optimised, request

OLD = "2025-08"


def rotate(x: np.ndarray, pairs: list[tuple[int, int]], angles: np.ndarray) -> np.ndarray:
    """Rotates element pairs of the last axis by one angle each."""
    rotated = x.copy()
    for (first, second), angle in zip(pairs, angles, strict=True):
        rotated[..., first] = x[..., first] * np.cos(angle) - x[..., second] * np.sin(angle)
        rotated[..., second] = x[..., first] * np.sin(angle) + x[..., second] * np.cos(angle)
    return rotated


@pytest.mark.parametrize(("head_dim", "rotary_dim"), [(6, 6), (8, 4), (10, 2)])
def test_neighbours_of_permuted_rows_score_like_halves(head_dim, rotary_dim):
    rng = np.random.default_rng(3)
    x, angles = rng.standard_normal((5, 7)), rng.uniform(0, 3, rotary_dim // 2)
    q, k = rng.standard_normal((2, 2 * head_dim, 7))
    permuted = [
        evaluate(PermuteHalves(Tensor("w"), head_dim, rotary_dim), lambda _, w=w: w, None)
        for w in (q, k)
    ]
    half = rotary_dim // 2
    halves = [(i, i + half) for i in range(half)]
    neighbours = [(2 * i, 2 * i + 1) for i in range(half)]

    def scores(weights, pairs):
        rows = [rotate((x @ w.T).reshape(5, 2, head_dim), pairs, angles) for w in weights]
        return np.einsum("mhd,nhd->hmn", *rows)

    np.testing.assert_allclose(
        scores(permuted, neighbours), scores((q, k), halves), rtol=1e-12, atol=1e-12
    )


@pytest.mark.parametrize(
    "case_id",
    [
        "llama",
        "qwen2",  # biases
        "qwen3-window-3",  # a norm per head
        "olmo2",  # a norm over all heads
        "phi3-partial-rotary",  # one tensor of q, k and v in the checkpoint
        "gemma3",  # two tables
    ],
)
def test_whole_models_compute_the_same(case_id):
    plan = assert_plan_computes_graph(case_graph(case_id), release=OLD)
    rope = [a for k in plan.layer_kinds for s in k.steps for a in s.actions if "rope" in str(a)]
    assert not any("INFINIOP_ROPE_ALGO" in str(action) for action in rope)


def test_values_are_not_permuted():
    plan = plan_engine(optimised(tiny_spec()), request(release=OLD))
    (qkv,) = [w for w in plan.layer_kinds[0].weights if w.name == "qkv_proj"]
    rows = np.arange(48.0)[:, None]
    read = {
        "layers.0.attn.q_proj.weight": rows[:24],
        "layers.0.attn.k_proj.weight": rows[24:36],
        "layers.0.attn.v_proj.weight": rows[36:],
    }
    stored = evaluate(qkv.expression, read.__getitem__, 0)[:, 0]
    np.testing.assert_array_equal(stored[:6], [0, 3, 1, 4, 2, 5])
    np.testing.assert_array_equal(stored[24:30], [24, 27, 25, 28, 26, 29])
    np.testing.assert_array_equal(stored[36:], np.arange(36, 48))


def test_interleaved_models_are_left_alone():
    graph = optimised(tiny_spec(rope=[rope_table(interleaved=True)]))
    assert interleave_rotary_weights(graph) == graph
    assert_plan_computes_graph(graph, release=OLD)


def test_newer_releases_permute_nothing():
    plan = plan_engine(optimised(tiny_spec()), request(release="0.1.0"))
    assert "PermuteHalves" not in str(plan)


def test_a_split_of_a_split():
    lines = (
        ATTENTION[0],
        "both = linear(x, weight=attn.qkv_proj, out=48)",
        "qk, v = split(both, [36, 12])",
        "q, k = split(qk, [24, 12])",
        "q = reshape(q, [4, 6])",
        "k = reshape(k, [2, 6])",
        "v = reshape(v, [2, 6])",
        *ATTENTION[4:],
    )
    assert_plan_computes_graph(build_graph(tiny_spec(lines)), release=OLD)


def test_a_norm_of_several_projections_at_once():
    lines = (
        ATTENTION[0],
        "qk = linear(x, weight=attn.qk_proj, out=36)",
        "qk = rms_norm(qk, weight=qk_norm)",
        "q, k = split(qk, [24, 12])",
        "q = reshape(q, [4, 6])",
        "k = reshape(k, [2, 6])",
        *ATTENTION[3:],
    )
    assert_plan_computes_graph(build_graph(tiny_spec(lines)), release=OLD)


# ---- refusals -------------------------------------------------------------------------------

HINT = "\n  hint:     --infinicore-api 0.1.0 or later rotates halves"


def refusal(graph: Graph) -> str:
    with pytest.raises(LoweringError) as caught:
        plan_engine(graph, request(release=OLD))
    return str(caught.value)


def test_a_value_that_no_projection_made():
    lines = (*ATTENTION[:2], "q = silu(q)", *ATTENTION[2:])
    assert refusal(build_graph(tiny_spec(lines))) == (
        "layer:6: a rotated value must come from a projection for this release's interleaved rope"
        + HINT
    )


def test_a_projection_with_a_residual():
    lines = (
        ATTENTION[0],
        "p = linear(x, weight=attn.p_proj, out=24)",
        "q = reshape(p + linear(x, weight=attn.q_proj, out=24), [4, 6])",
        *ATTENTION[2:],
    )
    assert "must come from a projection" in refusal(optimised(tiny_spec(lines)))


def test_a_value_that_is_read_unrotated_too():
    lines = (
        *ATTENTION[:4],
        "p = reshape(q, 24)",
        *ATTENTION[4:6],
        "h = h + linear(reshape(a, 24) + p, weight=attn.o_proj, out=hidden_size)",
    )
    text = refusal(build_graph(tiny_spec(lines)))
    assert text == (
        "layer:6: 'q' is rotated and read elsewhere, so its heads cannot be permuted" + HINT
    )


def test_a_weight_that_also_makes_values():
    lines = [line.replace("attn.v_proj", "attn.k_proj") for line in ATTENTION]
    text = refusal(build_graph(tiny_spec(lines)))
    assert text == (
        "layer:5: weight 'k_proj' makes values that are not rotated alike, so its heads cannot be"
        " permuted" + HINT
    )


def test_a_weight_rotated_in_two_ways():
    tables = [rope_table("rope"), rope_table("short", rotary_dim=4)]
    lines = (
        ATTENTION[0],
        "q = linear(x, weight=attn.k_proj, out=[num_key_value_heads, head_dim])",
        *ATTENTION[2:4],
        "q = rope(q, table='short')",
        "k = rope(k, table='rope')",
        ATTENTION[5],
        "h = h + linear(a, weight=attn.o_proj, out=hidden_size)",
    )
    text = refusal(build_graph(tiny_spec(lines, rope=tables)))
    assert "weight 'k_proj' makes values that are not rotated alike" in text


def test_shared_weights_that_are_rotated_alike_are_fine():
    lines = (
        ATTENTION[0],
        "q = linear(x, weight=attn.k_proj, out=[num_key_value_heads, head_dim])",
        *ATTENTION[2:],
    )
    graph = build_graph(tiny_spec(lines))
    assert_plan_computes_graph(graph, release=OLD)


def test_other_regions_are_left_alone():
    graph = optimised(tiny_spec((*ATTENTION, *MLP)))
    changed = interleave_rotary_weights(graph)
    assert dataclasses.replace(changed, layer_kinds=graph.layer_kinds) == graph
    assert changed.layer_kinds != graph.layer_kinds
