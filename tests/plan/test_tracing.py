"""Traced plans carried out in NumPy: every value is the interpreter's, under its name."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from qwen3_codegen.emission.manifest import manifest_text
from qwen3_codegen.ir.graph import Graph
from qwen3_codegen.ir.interpreter import Interpreter
from qwen3_codegen.plan.planner import plan_engine
from qwen3_codegen.plan.records import EnginePlan, TraceCall
from qwen3_runtime.engine.tracing import in_half_split_order
from tests.ir.tiny import hard_weights, steps
from tests.plan.machine import PlanMachine
from tests.plan.planning import case_graph, in_all_groups, request

CASES = ["qwen3-window-3", "jiuge-fm9g-tied", "olmo2", "gemma3", "phi3-partial-rotary"]


def traced_plan(graph: Graph, release: str, device: str = "cpu") -> EnginePlan:
    plan = plan_engine(graph, request(device, release, trace=True))
    return dataclasses.replace(plan, max_logit_rows=4)  # several goes of the epilogue


@pytest.mark.parametrize("case_id", CASES)
@pytest.mark.parametrize("release", ["2025-08", "0.1.0", "2026-08"])
def test_every_value_is_the_interpreter_s(case_id, release):
    graph = case_graph(case_id)
    plan = traced_plan(graph, release)
    read = hard_weights(graph).__getitem__
    machine = PlanMachine(plan, request("cpu", release).api, read)
    interpreter = Interpreter(graph, read, max_model_len=64, max_num_seqs=3)
    for step in steps(graph.vocab_size):
        machine.run(in_all_groups(step, plan))
        actual = in_half_split_order(machine.traced, json.loads(manifest_text(plan)))
        expected = interpreter.trace(step)
        del expected["prologue.input_ids"]  # on the host only
        assert list(actual) == list(expected)
        for name, value in expected.items():
            assert actual[name].shape == value.shape, name
            scale = max(1.0, float(np.abs(value).max()))
            assert np.abs(actual[name] - value).max() < 1e-9 * scale, name


def test_heads_that_are_permuted_for_a_release_are_named(monkeypatch):
    """Without what the manifest says of them the test above would fail."""
    traced = json.loads(manifest_text(traced_plan(case_graph("qwen3-window-3"), "2025-08")))
    names = {entry["value"] for entry in traced["tracing"]["interleaved"]}
    assert {"qkv", "q_rope", "k_rope"} <= names
    plain = json.loads(manifest_text(traced_plan(case_graph("qwen3-window-3"), "0.1.0")))
    assert plain["tracing"] == {"interleaved": []}


def test_an_ordinary_plan_is_the_traced_one_without_its_copies():
    graph = case_graph("gemma3")
    traced, plain = (
        plan_engine(graph, request("cpu", "0.1.0", trace=trace)) for trace in (True, False)
    )
    assert traced.is_traced
    assert not plain.is_traced
    for region, ordinary in zip(traced.regions(), plain.regions(), strict=True):
        steps = [
            dataclasses.replace(step, actions=tuple(_computing(step.actions)))
            for step in region.steps
            if step.definitions or list(_computing(step.actions))
        ]
        assert tuple(steps) == ordinary.steps


def _computing(actions):
    return (action for action in actions if not isinstance(action, TraceCall))
