from __future__ import annotations

from dataclasses import replace

from qwen3_codegen.passes.eliminate_dead_values import eliminate_dead_values
from tests.ir.tiny import ATTENTION, MLP, rope_table, tiny_graph
from tests.passes.rewriting import ops_of, rewritten, text_of


def test_what_no_result_depends_on_goes() -> None:
    graph = tiny_graph((*ATTENTION, *MLP))
    (region,) = graph.layer_kinds
    assert region.results == ("h_add_2",)
    cut = replace(graph, layer_kinds=(replace(region, results=("h_add",)),))
    (after,) = rewritten(eliminate_dead_values, cut).layer_kinds
    assert [weight.name for weight in after.weights] == [
        "input_layernorm",
        "q_proj",
        "k_proj",
        "v_proj",
        "o_proj",
    ]
    assert after.nodes == region.nodes[:13]


def test_chains_of_dead_values_go_at_once() -> None:
    graph = tiny_graph(("x = tanh(silu(h))", "h = h * x"))
    (region,) = graph.layer_kinds
    cut = replace(graph, layer_kinds=(replace(region, results=("h",)),))
    assert text_of(rewritten(eliminate_dead_values, cut).layer_kinds[0]) == ["return %h"]


def test_a_node_with_one_used_result_stays() -> None:
    graph = tiny_graph(("a, b = split(h, [6, 6])", "h = concat(a, b)"))
    (region,) = graph.layer_kinds
    concat = replace(region.nodes[1], inputs={"x0": "a", "x1": "a"})
    cut = replace(graph, layer_kinds=(replace(region, nodes=(region.nodes[0], concat)),))
    assert rewritten(eliminate_dead_values, cut) == replace(cut, rope_tables={})


def test_rope_tables_nobody_names_go() -> None:
    tables = (rope_table("rope"), rope_table("other", rotary_dim=4))
    graph = tiny_graph(ATTENTION, rope=tables)
    assert list(graph.rope_tables) == ["rope", "other"]
    assert list(rewritten(eliminate_dead_values, graph).rope_tables) == ["rope"]


def test_prologue_and_epilogue_are_swept_too() -> None:
    graph = tiny_graph()
    weight = replace(graph.prologue.weights[0], name="unused")
    prologue = replace(graph.prologue, weights=(*graph.prologue.weights, weight))
    epilogue = replace(graph.epilogue, weights=(*graph.epilogue.weights, weight))
    after = rewritten(eliminate_dead_values, replace(graph, prologue=prologue, epilogue=epilogue))
    assert after.prologue == graph.prologue
    assert after.epilogue == graph.epilogue
    assert ops_of(after) == ops_of(graph)
