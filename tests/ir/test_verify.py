"""Every rule of the verifier, broken once in an otherwise good graph."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest

from qwen3_codegen.dtypes import DType
from qwen3_codegen.errors import VerifyError
from qwen3_codegen.ir.graph import Graph, Node, Region, ValueType
from qwen3_codegen.ir.verify import verify
from qwen3_runtime.checkpoint.transform import Concat, Rows, Tensor
from tests.ir.tiny import rope_table, tiny_graph


@pytest.fixture(scope="module")
def graph() -> Graph:
    return tiny_graph(attributes=({"window": None}, {"window": 3}))


def in_layer(graph: Graph, rewrite: Callable[[Region], Region]) -> Graph:
    first, *others = graph.layer_kinds
    return replace(graph, layer_kinds=(rewrite(first), *others))


def with_node(region: Region, output: str, rewrite: Callable[[Node], Node]) -> Region:
    names = [node.outputs[0].name for node in region.nodes]
    assert output in names, names
    nodes = [rewrite(n) if n.outputs[0].name == output else n for n in region.nodes]
    return replace(region, nodes=tuple(nodes))


def inputs(**changes: str) -> Callable[[Node], Node]:
    return lambda node: replace(node, inputs={**node.inputs, **changes})


def attributes(**changes: Any) -> Callable[[Node], Node]:
    return lambda node: replace(node, attributes={**node.attributes, **changes})


def without(mapping: Mapping[str, Any], key: str) -> dict[str, Any]:
    return {name: value for name, value in mapping.items() if name != key}


def retyped(type_: ValueType) -> Callable[[Node], Node]:
    return lambda node: replace(node, outputs=(replace(node.output, type=type_),))


def first_weight(region: Region, **changes: Any) -> Region:
    first, *others = region.weights
    return replace(region, weights=(replace(first, **changes), *others))


NODE_FAULTS: list[tuple[str, str, Callable[[Node], Node], str]] = [
    ("unknown op", "x", lambda n: replace(n, op="rms_nrom"), "unknown op 'rms_nrom'"),
    (
        "missing input",
        "x",
        lambda n: replace(n, inputs=without(n.inputs, "weight")),
        "input 'weight' is missing",
    ),
    ("unknown input", "x", inputs(wieght="input_layernorm"), "unknown input 'wieght'"),
    (
        "missing attribute",
        "a",
        lambda n: replace(n, attributes=without(n.attributes, "window")),
        "attribute 'window' is missing",
    ),
    ("unknown attribute", "a", attributes(widnow=3), "unknown attribute 'widnow'"),
    ("undefined value", "x", inputs(x="hh"), "uses 'hh', which is not defined"),
    ("later value", "q_rope", inputs(x="a"), "uses 'a' before its definition"),
    ("itself", "q_rope", inputs(x="q_rope"), "uses 'q_rope' before its definition"),
    ("wrong shape in", "q_rope", inputs(x="h"), "wrong number of dimensions"),
    (
        "wrong shape out",
        "x",
        retyped(ValueType(("num_tokens", 13), DType.F32)),
        "the results have the wrong type",
    ),
    (
        "wrong dtype out",
        "x",
        retyped(ValueType(("num_tokens", 12), DType.BF16)),
        "the results have the wrong type",
    ),
    ("unknown rope table", "q_rope", attributes(table="ropes"), "there is no rope table 'ropes'"),
    (
        "number of results",
        "x",
        lambda n: replace(n, outputs=()),
        r"node 'without results' \(rms_norm\): the results have the wrong type",
    ),
]


@pytest.mark.parametrize(
    ("output", "rewrite", "message"),
    [fault[1:] for fault in NODE_FAULTS],
    ids=[fault[0] for fault in NODE_FAULTS],
)
def test_a_broken_node_is_named(
    graph: Graph, output: str, rewrite: Callable[[Node], Node], message: str
) -> None:
    broken = in_layer(graph, lambda region: with_node(region, output, rewrite))
    with pytest.raises(VerifyError, match=message) as caught:
        verify(broken)
    text = str(caught.value)
    assert text.startswith("layer:"), "the place in the spec comes first"
    assert "region 'decoder', node '" in text


def test_a_near_name_is_suggested(graph: Graph) -> None:
    broken = in_layer(graph, lambda r: with_node(r, "x", lambda n: replace(n, op="rms_nrom")))
    with pytest.raises(VerifyError) as caught:
        verify(broken)
    assert caught.value.hint == "did you mean 'rms_norm'?"


def test_a_rope_table_wider_than_a_head_is_refused(graph: Graph) -> None:
    broken = replace(graph, rope_tables={"rope": rope_table(rotary_dim=8)})
    with pytest.raises(VerifyError, match="rotates more than a head has"):
        verify(broken)


def test_an_unknown_activation_is_refused() -> None:
    moe = (
        "h = moe(h, router=r, gate=g[expert], up=u[expert], down=d[expert], num_experts=2,"
        " top_k=1, intermediate=3)"
    )
    graph = tiny_graph((moe,))
    broken = in_layer(graph, lambda r: with_node(r, "h_moe", attributes(activation="sliu")))
    with pytest.raises(VerifyError, match="unknown activation 'sliu'") as caught:
        verify(broken)
    assert caught.value.hint == "did you mean 'silu'?"


def twice(region: Region) -> Region:
    return replace(region, nodes=(*region.nodes, region.nodes[0]))


GRAPH_FAULTS: list[tuple[str, Callable[[Graph], Graph], str]] = [
    ("two definitions", lambda g: in_layer(g, twice), "'x' is defined twice"),
    (
        "value named as a weight",
        lambda g: in_layer(
            g,
            lambda r: with_node(
                r, "x", lambda n: replace(n, outputs=(replace(n.output, name="q_proj"),))
            ),
        ),
        "'q_proj' is defined twice",
    ),
    (
        "undefined result",
        lambda g: in_layer(g, lambda r: replace(r, results=("hh",))),
        "result 'hh' is not defined",
    ),
    (
        "two results",
        lambda g: in_layer(g, lambda r: replace(r, results=("h", "h"))),
        "wrong number of results",
    ),
    (
        "layer that changes h",
        lambda g: in_layer(g, lambda r: replace(r, results=("a",))),
        "changes the type of h",
    ),
    (
        "layer that takes another h",
        lambda g: in_layer(
            g,
            lambda r: replace(
                r,
                parameters=(
                    replace(r.parameters[0], type=ValueType(("num_tokens", 12), DType.F16)),
                ),
                nodes=(),
                results=("h",),
            ),
        ),
        "region 'decoder': wrong parameters",
    ),
    (
        "prologue without ids",
        lambda g: replace(
            g, prologue=replace(g.prologue, parameters=(), nodes=(), results=("embed",))
        ),
        "region 'prologue': wrong parameters",
    ),
    (
        "logits of another size",
        lambda g: replace(g, vocab_size=38),
        "logits have the wrong type",
    ),
    (
        "epilogue of another hidden size",
        lambda g: replace(g, epilogue=tiny_graph(hidden_size=13).epilogue),
        "region 'epilogue': wrong parameters",
    ),
    (
        "schedule beyond the kinds",
        lambda g: replace(g, schedule=(0, 2)),
        "layer 1 has no layer kind",
    ),
    ("negative schedule", lambda g: replace(g, schedule=(0, -1)), "layer 1 has no layer kind"),
    ("unscheduled kind", lambda g: replace(g, schedule=(0, 0)), "no layer is of the kind"),
    (
        "kinds of one name",
        lambda g: replace(
            g, layer_kinds=tuple(replace(kind, name="same") for kind in g.layer_kinds)
        ),
        "two regions have one name",
    ),
    (
        "layer's tensor outside the layers",
        lambda g: replace(
            g,
            prologue=first_weight(
                g.prologue,
                expression=Tensor("layers.{layer}.embed"),
                sources={"layers.{layer}.embed": (37, 12)},
            ),
        ),
        "a tensor of a layer is read outside the layers",
    ),
    (
        "weight of another shape",
        lambda g: replace(g, prologue=first_weight(g.prologue, sources={"embed.weight": (38, 12)})),
        "the expression gives another shape",
    ),
    (
        "weight without sources",
        lambda g: replace(g, prologue=first_weight(g.prologue, sources={})),
        "the shapes given are not those of the tensors read",
    ),
    (
        "rows beyond the tensor",
        lambda g: replace(
            g,
            prologue=first_weight(g.prologue, expression=Rows(Tensor("embed.weight"), 1, 37)),
        ),
        "rows beyond the source",
    ),
    (
        "parts that do not join",
        lambda g: replace(
            g,
            prologue=first_weight(
                g.prologue,
                expression=Concat((Tensor("embed.weight"), Tensor("other")), axis=0),
                sources={"embed.weight": (30, 12), "other": (7, 11)},
            ),
        ),
        "shapes do not join",
    ),
]


@pytest.mark.parametrize(
    ("rewrite", "message"),
    [fault[1:] for fault in GRAPH_FAULTS],
    ids=[fault[0] for fault in GRAPH_FAULTS],
)
def test_a_broken_graph_is_refused(
    graph: Graph, rewrite: Callable[[Graph], Graph], message: str
) -> None:
    with pytest.raises(VerifyError, match=message):
        verify(rewrite(graph))


def test_a_good_graph_passes(graph: Graph) -> None:
    verify(graph)
