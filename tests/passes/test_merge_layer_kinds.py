from __future__ import annotations

from dataclasses import replace

import pytest

from qwen3_codegen.ir.graph import Graph
from qwen3_codegen.passes.canonicalize import canonicalize
from qwen3_codegen.passes.merge_layer_kinds import merge_layer_kinds
from tests.ir.tiny import ATTENTION, MLP, rope_table, tiny_graph
from tests.passes.rewriting import rewritten

WINDOWS = tuple({"window": window, "rope": "rope"} for window in (None, 100, 3, 64, 3, 4))


def test_layers_that_compute_the_same_share_a_region() -> None:
    types = ["full", "near", "near", "near", "near", "near"]
    graph = canonicalize(tiny_graph((*ATTENTION, *MLP), attributes=WINDOWS, layer_types=types))
    assert [kind.name for kind in graph.layer_kinds] == [
        "full",
        "near",
        "near_2",
        "near_3",
        "near_4",
    ]
    merged = rewritten(merge_layer_kinds, graph)
    assert [kind.name for kind in merged.layer_kinds] == ["full", "near_2", "near_4"]
    assert merged.schedule == (0, 0, 1, 0, 1, 2)
    assert [kind.attributes for kind in merged.layer_kinds] == [
        {"rope": "rope"},
        {"window": 3, "rope": "rope"},
        {"window": 4, "rope": "rope"},
    ]
    assert merged.layer_kinds[0].nodes == graph.layer_kinds[0].nodes


def test_names_of_values_do_not_matter() -> None:
    lines = ("{x} = silu(h)", "h = h + linear({x}, weight=w, out=12)")
    graphs = [tiny_graph(tuple(line.format(x=x) for line in lines)) for x in ("x", "y")]
    assert len(_side_by_side(*graphs).layer_kinds) == 1


_BOTH_HALVES = ("a, b = split(linear(h, weight=w, out=24), [12, 12])", "h = a * b")
DIFFERENT: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "attribute": (("h = h * 2",), ("h = h * 3",)),
    "op": (("h = silu(h)",), ("h = tanh(h)",)),
    "tensor": (("h = linear(h, weight=v, out=12)",), ("h = linear(h, weight=w, out=12)",)),
    "rows of a tensor": (
        ("h = linear(h, weight=rows(w, 0, 12), out=12)", *_BOTH_HALVES),
        ("h = linear(h, weight=rows(w, 12, 12), out=12)", *_BOTH_HALVES),
    ),
    "order of inputs": (
        ("h = h + linear(silu(h), weight=w, out=12)",),
        ("h = linear(silu(h), weight=w, out=12) + h",),
    ),
    "shape": (
        ("h = reshape(reshape(h, [3, 4]), 12)",),
        ("h = reshape(reshape(h, [4, 3]), 12)",),
    ),
    "bias": (
        ("h = linear(h, weight=w, out=12)",),
        ("h = linear(h, weight=w, out=12, bias=true)",),
    ),
}


@pytest.mark.parametrize("layers", DIFFERENT.values(), ids=DIFFERENT)
def test_layers_that_differ_stay_apart(layers: tuple[tuple[str, ...], tuple[str, ...]]) -> None:
    assert len(_side_by_side(*map(tiny_graph, layers)).layer_kinds) == 2


def test_another_result_keeps_layers_apart() -> None:
    graph = tiny_graph(("x = silu(h)", "h = tanh(x)"))
    (region,) = graph.layer_kinds
    assert len(_side_by_side(graph, graph, results=("x",)).layer_kinds) == 2
    assert len(_side_by_side(graph, graph, results=region.results).layer_kinds) == 1


def _side_by_side(first: Graph, second: Graph, results: tuple[str, ...] | None = None) -> Graph:
    """Merges a graph whose two layers are those of two graphs."""
    (kind,), (other,) = first.layer_kinds, second.layer_kinds
    other = replace(other, name="other", results=results or other.results)
    tables = {"rope": rope_table()}
    both = replace(first, layer_kinds=(kind, other), schedule=(0, 1), rope_tables=tables)
    return rewritten(merge_layer_kinds, both)
