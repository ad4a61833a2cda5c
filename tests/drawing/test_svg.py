"""The picture holds the whole graph."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from qwen3_codegen.drawing import to_svg
from qwen3_codegen.frontend import build_graph
from qwen3_codegen.ir.graph import Graph
from qwen3_codegen.passes import run_pipeline
from qwen3_codegen.spec.catalog import load_model, model_names

NAMESPACE = {"svg": "http://www.w3.org/2000/svg"}


def parsed(graph: Graph) -> ElementTree.Element:
    return ElementTree.fromstring(to_svg(graph))


def texts(picture: ElementTree.Element, kind: str) -> list[str]:
    return [text.text for text in picture.iterfind(f".//svg:text[@class='{kind}']", NAMESPACE)]


@pytest.mark.parametrize("name", model_names())
def test_every_op_weight_and_use_is_there(name):
    for graph in (build_graph(load_model(name)), run_pipeline(build_graph(load_model(name)))):
        picture = parsed(graph)
        regions = list(graph.regions())
        ops = [node.op for region in regions for node in region.nodes]
        parameters = [value.name for region in regions for value in region.parameters]
        assert sorted(texts(picture, "op")) == sorted(ops + parameters)
        weights = {f"@{weight.name}" for region in regions for weight in region.weights}
        assert set(texts(picture, "weight")) == weights
        assert len(texts(picture, "heading")) == len(regions)
        uses = 0
        for region in regions:
            owner = {v.name: v.name for v in region.parameters}
            for node in region.nodes:
                uses += len({owner[n] for n in node.inputs.values() if n in owner})
                owner |= {value.name: node.outputs[0].name for value in node.outputs}
        assert len(picture.findall(".//svg:path[@class='use']", NAMESPACE)) == uses


def test_results_are_marked_and_roles_are_said():
    picture = parsed(run_pipeline(build_graph(load_model("qwen3-1.7b"))))
    marked = [
        rect for rect in picture.iterfind(".//svg:rect", NAMESPACE)
        if "result" in rect.get("class", "").split()
    ]  # fmt: skip
    assert len(marked) == 3
    assert {"q", "k", "v", "gate, up", "residual"} <= set(texts(picture, "role"))


def test_equal_graphs_give_equal_pictures():
    first, second = (to_svg(build_graph(load_model("qwen3-0.6b"))) for _ in range(2))
    assert first == second


def test_text_stays_in_its_box():
    picture = parsed(run_pipeline(build_graph(load_model("minicpm-1b-sft"))))
    for group in picture.iterfind(".//svg:g/svg:g", NAMESPACE):
        boxes = [r for r in group.iterfind("svg:rect", NAMESPACE) if "box" in r.get("class")]
        for text in group.iterfind("svg:text", NAMESPACE):
            if text.get("class") == "role":
                continue
            x, y = float(text.get("x")), float(text.get("y"))
            end = x + 6.5 * len(text.text)
            assert any(
                float(b.get("x")) <= x
                and end <= float(b.get("x")) + float(b.get("width"))
                and float(b.get("y")) <= y <= float(b.get("y")) + float(b.get("height"))
                for b in boxes
            ), text.text
