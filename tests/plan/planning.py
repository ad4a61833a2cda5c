"""Plans of tiny models and of the reference cases, for any device and release."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from qwen3_codegen.frontend import build_graph
from qwen3_codegen.infinicore.api import InfiniCoreApi, load_api
from qwen3_codegen.ir.graph import Graph
from qwen3_codegen.ir.interpreter import Interpreter
from qwen3_codegen.passes import run_pipeline
from qwen3_codegen.plan.planner import PlanRequest, plan_engine
from qwen3_codegen.plan.records import EnginePlan, TargetPlan
from qwen3_codegen.spec.catalog import load_model
from qwen3_codegen.spec.device import load_device
from qwen3_codegen.spec.model import ModelSpec
from qwen3_runtime.engine.batch import Batch
from tests.ir.tiny import Array, hard_weights, steps, tiny_spec
from tests.plan.machine import PlanMachine
from tests.reference.cases import CASES, case_named

REFUSED = {"gemma3-softcap", "qwen3-moe", "qwen3-moe-mixed"}
"""Cases that the portable lowering refuses."""
LOWERED = [case.id for case in CASES if case.id not in REFUSED]


def request(device: str = "cpu", release: str = "0.1.0", **fields: Any) -> PlanRequest:
    """What a plan is made for, of a device by its name."""
    api, spec = load_api(release), load_device(device)
    target = TargetPlan(
        name=spec.name,
        device=spec.infinicore,
        enumerator=api.device_constant(spec.infinicore),
        lowering="portable",
        release=release,
        emulated=not spec.is_host,
        infinicore="embedded",
    )
    defaults = {
        "module_name": f"tiny_{device}",
        "architecture": "tiny",
        "target": target,
        "api": api,
        "transpose_linear_weights": spec.transpose_linear_weights,
        "ignored_tensors": (),
        "spec_facts": {},
        "digests": {},
    }
    return PlanRequest(**(defaults | fields))


def optimised(spec: ModelSpec) -> Graph:
    return run_pipeline(build_graph(spec))


def tiny_plan(
    layer: tuple[str, ...] | None = None, device: str = "cpu", release: str = "0.1.0", **fields: Any
) -> EnginePlan:
    """Plan of ``tests.ir.tiny.tiny_spec``."""
    spec = tiny_spec(**fields) if layer is None else tiny_spec(layer, **fields)
    return plan_engine(optimised(spec), request(device, release))


@cache
def case_spec(case_id: str) -> ModelSpec:
    """The spec of a reference case, from its config.json."""
    case = case_named(case_id)
    dtype_field = "dtype" if "rope_parameters" in case.config else "torch_dtype"
    config = {"model_type": case.architecture, dtype_field: "float32", **case.config}
    with TemporaryDirectory() as folder:
        path = Path(folder) / case_id
        path.mkdir()
        (path / "config.json").write_text(json.dumps(config), encoding="utf-8")
        return load_model(str(path), architecture=case.architecture)


@cache
def case_graph(case_id: str) -> Graph:
    """The optimised graph of a reference case."""
    return optimised(case_spec(case_id))


def run_plan(
    plan: EnginePlan, api: InfiniCoreApi, read: Callable[[str], Array], max_model_len: int = 64
) -> Array:
    """All logits rows of ``steps``, by the plan in NumPy."""
    machine = PlanMachine(plan, api, read, max_model_len=max_model_len)
    return np.concatenate(
        [machine.run(in_all_groups(step, plan)) for step in steps(plan.vocab_size)]
    )


def run_graph(graph: Graph, read: Callable[[str], Array], max_model_len: int = 64) -> Array:
    """All logits rows of ``steps``, by the interpreter."""
    engine = Interpreter(graph, read, max_model_len=max_model_len, max_num_seqs=3)
    name = f"epilogue.{graph.epilogue.results[0]}"
    return np.concatenate([engine.trace(step)[name] for step in steps(graph.vocab_size)])


def in_all_groups(batch: Batch, plan: EnginePlan) -> Batch:
    return dataclasses.replace(batch, places=batch.places * len(plan.cache_groups))


def assert_plan_computes_graph(
    graph: Graph, device: str = "cpu", release: str = "0.1.0", max_model_len: int = 64
) -> EnginePlan:
    """Fails when the plan gives other logits than the graph it was made of."""
    asked = request(device, release)
    plan = plan_engine(graph, asked)
    plan = dataclasses.replace(plan, max_logit_rows=4)  # several goes of the epilogue
    read = hard_weights(graph).__getitem__
    expected = run_graph(graph, read, max_model_len)
    actual = run_plan(plan, asked.api, read, max_model_len)
    scale = max(1.0, float(np.abs(expected).max()))
    assert np.abs(actual - expected).max() < 1e-9 * scale
    return plan
