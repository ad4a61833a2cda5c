"""The engines an ``LLM`` runs on: compiled for its checkpoint and cached, or interpreted."""

from __future__ import annotations

import json

from qwen3_codegen.build.cache import cache_in_use
from qwen3_codegen.compile import (
    CompileOptions,
    build_in_cache,
    dtype_notes,
    make_graph,
    plan_model,
)
from qwen3_codegen.ir.interpreter import Interpreter
from qwen3_codegen.ir.weights import weight_bindings
from qwen3_codegen.progress import status
from qwen3_codegen.spec.device import load_device
from qwen3_codegen.spec.model import ModelSpec
from qwen3_runtime.checkpoint import Checkpoint
from qwen3_runtime.engine.capacity import Limits, plan_capacity
from qwen3_runtime.engine.compiled import CompiledEngine, check_fit, check_weights, engine_class


def compiled_engine(
    spec: ModelSpec,
    checkpoint: Checkpoint,
    dev: str,
    options: CompileOptions,
    limits: Limits,
    show_progress: bool,
) -> tuple[CompiledEngine, tuple[str, ...]]:
    """Returns a model's engine with its weights, and what to tell the user about it.

    It is compiled if it is not in the cache.

    Raises:
        CodegenError: The model does not fit the device, or something did not compile.
        RuntimeFault: The checkpoint or the limits do not fit.
    """
    device = load_device(dev)
    compiled = plan_model(spec, device, options)
    check_fit(json.loads(compiled.files["manifest.json"]), checkpoint, limits)
    what = " (the one that shows its values)" if options.trace else ""
    with cache_in_use():  # from before it is built until it is loaded
        with status() as notify:
            result = build_in_cache(compiled, options, lambda text: notify(text + what))
        engine = engine_class(result.directory).from_checkpoint(
            checkpoint, show_progress=show_progress, limits=limits
        )
    return engine, dtype_notes(spec, device, compiled, options)


def interpreter_engine(spec: ModelSpec, checkpoint: Checkpoint, limits: Limits) -> Interpreter:
    """Returns a model's graph to be interpreted in float32.

    Raises:
        RuntimeFault: The checkpoint or the limits do not fit.
    """
    graph = make_graph(spec)
    check_weights(checkpoint, weight_bindings(graph), spec.architecture.checkpoint.ignore)
    capacity = plan_capacity((), graph.max_position_embeddings, limits)
    return Interpreter(
        graph,
        checkpoint.read,
        dtype="float32",
        max_model_len=capacity.max_model_len,
        max_num_seqs=capacity.max_num_seqs,
    )
