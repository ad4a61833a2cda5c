"""All passes together, on every shipped architecture's shape of layer."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from qwen3_codegen.errors import VerifyError
from qwen3_codegen.ir.graph import Graph
from qwen3_codegen.passes import PIPELINE, pipeline, run_pipeline
from tests.ir.tiny import ATTENTION, MLP, hard_weights, interpret, tiny_graph
from tests.passes.rewriting import ops_of

SCALED = tuple(
    line.replace("h = h + linear", "h = h + 0.4 * linear") for line in (*ATTENTION, *MLP)
)
POST_NORM = (
    *ATTENTION[1:-1],
    "h = h + rms_norm(linear(a, weight=o, out=hidden_size), weight=post_norm, offset=1)",
    *MLP[1:],
)
PARALLEL = (
    *ATTENTION[:-1],
    "gate = linear(x, weight=mlp.gate_proj, out=intermediate_size)",
    "up = linear(x, weight=mlp.up_proj, out=intermediate_size)",
    "m = linear(silu(gate) * up, weight=mlp.down_proj, out=hidden_size)",
    "h = h + linear(a, weight=attn.o_proj, out=hidden_size) + m",
)
WINDOWS = ({"window": None}, {"window": 3}, {"window": 64}, {"window": 3})
LAYERS = {
    "llama": (*ATTENTION, *MLP),
    "scaled": SCALED,
    "post norm": tuple(line.replace("(x,", "(h,") for line in POST_NORM),
    "parallel": PARALLEL,
}


@pytest.mark.parametrize("layer", LAYERS.values(), ids=LAYERS)
def test_all_passes_together_compute_the_same(layer: tuple[str, ...]) -> None:
    graph = tiny_graph(
        layer,
        attributes=WINDOWS,
        prologue=("h = 2.1 * embedding(input_ids, weight=embed, size=[vocab_size, hidden_size])",),
        epilogue=("logits = linear(h / 1.7, weight=lm_head, out=vocab_size)",),
    )
    weights = hard_weights(graph)
    expected = interpret(graph, weights.__getitem__)
    after = run_pipeline(graph)
    actual = interpret(after, weights.__getitem__)
    np.testing.assert_allclose(actual, expected, rtol=1e-11, atol=1e-11)
    assert run_pipeline(after) == after
    assert len(after.layer_kinds) == 2


def test_a_llama_layer_ends_as_eleven_nodes() -> None:
    graph = run_pipeline(tiny_graph((*ATTENTION, *MLP)))
    attention = ["linear", "split", *["reshape"] * 3, "rope", "rope", "attention", "reshape"]
    assert ops_of(graph)[1] == [
        *["rms_norm", *attention, "linear"],
        *["rms_norm", "linear", "split", "swiglu", "linear"],
    ]
    scaled = run_pipeline(tiny_graph(SCALED))
    assert ops_of(scaled) == ops_of(graph)
    alphas = [n.attributes["alpha"] for n in scaled.layer_kinds[0].nodes if n.op == "linear"]
    assert alphas == [1.0, 0.4, 1.0, 0.4]


def test_parallel_branches_are_joined_each_for_itself() -> None:
    graph = run_pipeline(tiny_graph(PARALLEL))
    names = {weight.name for weight in graph.layer_kinds[0].weights}
    assert {"qkv_proj", "gate_up_proj"} <= names


def test_every_step_is_shown() -> None:
    shown: list[tuple[str, Graph]] = []
    graph = tiny_graph()
    last = run_pipeline(graph, lambda name, step: shown.append((name, step)))
    assert [name for name, _ in shown] == ["frontend", *(step.name for step in PIPELINE)]
    assert shown[0][1] == graph
    assert shown[-1][1] == last


def test_passes_have_a_file_a_summary_and_an_example() -> None:
    folder = Path(pipeline.__file__).parent
    for step in PIPELINE:
        text = (folder / f"{step.name}.py").read_text(encoding="utf-8")
        assert "Before" in text
        assert "After" in text
        assert step.summary.endswith(".")


def test_a_pass_that_breaks_the_graph_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = pipeline.Pass("broken", lambda graph: replace(graph, schedule=(7,)))
    with pytest.raises(VerifyError, match="has no layer kind"):
        run_pipeline(tiny_graph(), passes=(broken,))
