"""The engine under test: built twice, once as users run it and once with every value in sight."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Protocol, TypeAlias

from qwen3_codegen.build.builder import BuildResult
from qwen3_codegen.build.cache import cache_in_use
from qwen3_codegen.build.toolchain import instruction_set
from qwen3_codegen.compile import (
    CompiledPlan,
    CompileOptions,
    build_in_cache,
    make_graph,
    plan_model,
)
from qwen3_codegen.dtypes import DType
from qwen3_codegen.errors import CodegenError
from qwen3_codegen.frontend import build_graph
from qwen3_codegen.ir.graph import Graph
from qwen3_codegen.plan.activations import with_activations
from qwen3_codegen.progress import status
from qwen3_codegen.spec.device import DeviceSpec
from qwen3_codegen.spec.model import ModelSpec
from qwen3_codegen.spec.resolve import with_dtype
from qwen3_codegen.verification.limits import UNIT
from qwen3_codegen.verification.measure import Array
from qwen3_runtime.checkpoint import Checkpoint
from qwen3_runtime.engine.batch import Batch, Engine
from qwen3_runtime.engine.capacity import Limits
from qwen3_runtime.engine.compiled import CompiledEngine, check_fit, engine_class

__all__ = ["Subject", "TracedEngine", "compiled_subject"]

Build: TypeAlias = Callable[[CompiledPlan, CompileOptions, Callable[[str], None]], BuildResult]


class TracedEngine(Engine, Protocol):
    """An engine whose values can be looked at."""

    def trace(self, batch: Batch) -> Mapping[str, Array]:
        """Runs one step and returns its values by name, in order."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """What is verified."""

    graph: Graph
    """What it carries out, after all passes; values have the dtype they are kept in."""
    frontend_graph: Graph
    """The same before all passes."""
    lowering: str
    cache_dtype: DType
    """What it keeps keys and values in."""
    row_dtype: DType | None
    """What it rounds rows of linears to beside matrices of that dtype; None: it does not."""
    facts: Mapping[str, object]
    """Model, device, dtype and the like, for the report."""
    check_fit: Callable[[Limits], None]
    """Raises RuntimeFault when checkpoint or memory do not fit; compiles nothing."""
    ordinary: Callable[[Limits], Engine]
    """Gives the engine as users run it, loaded."""
    traced: Callable[[Limits], TracedEngine]
    """Gives the engine that shows its values, loaded."""


def compiled_subject(
    spec: ModelSpec,
    device: DeviceSpec,
    options: CompileOptions,
    checkpoint: Checkpoint,
    build: Build = build_in_cache,
) -> Subject:
    """Plans the engine of a model on a device; it is compiled when it is asked for.

    Args:
        spec: The model.
        device: The device.
        options: As given to ``plan_model``; with and without ``trace`` both are built.
        checkpoint: The weights.
        build: Compiles what was planned.

    Raises:
        CodegenError: The model or a choice does not fit the device, or the limits.
    """
    plain, traced = (replace(options, trace=trace) for trace in (False, True))
    compiled = plan_model(spec, device, plain)
    compiled_traced = plan_model(spec, device, traced)
    plan = compiled.plan
    if UNIT[plan.cache_dtype] > UNIT[plan.dtype]:
        raise CodegenError(
            "the limits are those of the model's dtype, and the cache is coarser",
            got=f"kv_cache_dtype {plan.cache_dtype.value}",
            expected=", ".join(dict.fromkeys(("auto", "float32", plan.dtype.value))),
        )
    lowering = plan.target.lowering
    stored = with_dtype(spec, plan.dtype)
    rounded = plan.row_dtype if instruction_set(options.isa).multiplies_bfloat16 else None

    def load(what: CompiledPlan, how: CompileOptions, limits: Limits) -> CompiledEngine:
        with cache_in_use():  # from before it is built until it is loaded
            with status() as notify:
                directory = build(what, how, notify).directory
            return engine_class(directory).from_checkpoint(checkpoint, limits=limits)

    def fit(limits: Limits) -> None:
        check_fit(json.loads(compiled.files["manifest.json"]), checkpoint, limits)

    return Subject(
        graph=with_activations(make_graph(stored, lowering=lowering), plan.value_dtype),
        frontend_graph=build_graph(stored),
        lowering=lowering,
        cache_dtype=plan.cache_dtype,
        row_dtype=rounded,
        facts={
            "model": plan.model_name,
            "architecture": spec.architecture.location.path,
            "num_layers": plan.num_layers,
            "device": device.label,
            "emulated": plan.target.emulated,
            "infinicore": f"{plan.target.release} {plan.target.infinicore}",
            "lowering": lowering,
            "dtype": plan.dtype.value,
            "activation_dtype": plan.value_dtype.value,
            "kv_cache_dtype": plan.cache_dtype.value,
            "row_dtype": None if rounded is None else rounded.value,
            "isa": options.isa,
            "overrides": dict(spec.overrides),
        },
        check_fit=fit,
        ordinary=lambda limits: load(compiled, plain, limits),
        traced=lambda limits: load(compiled_traced, traced, limits),
    )
