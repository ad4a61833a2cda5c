"""Engines to be verified: interpreters in float32, and compiled ones whose text may be changed."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np

from qwen3_codegen.build.builder import BuildResult
from qwen3_codegen.compile import CompiledPlan, CompileOptions, build_model, make_graph
from qwen3_codegen.dtypes import DType
from qwen3_codegen.frontend import build_graph
from qwen3_codegen.ir.graph import Graph
from qwen3_codegen.ir.interpreter import Interpreter
from qwen3_codegen.spec.model import ModelSpec
from qwen3_codegen.spec.resolve import with_dtype
from qwen3_codegen.verification import Report, Request, verify_engine
from qwen3_codegen.verification.observed import Reference
from qwen3_codegen.verification.script import make_script
from qwen3_codegen.verification.subject import Subject
from qwen3_codegen.verification.torch_reference import TorchReference
from qwen3_codegen.verification.verifying import default_prompt_len
from qwen3_runtime.checkpoint import Checkpoint
from qwen3_runtime.engine.capacity import Limits
from tests.reference.models import ReferenceModel

GREEDY = 4


def interpreted(
    spec: ModelSpec, checkpoint: Checkpoint, lowering: str, run: Graph | None = None
) -> Subject:
    """An interpreter of a model in float32; ``run`` is what it computes instead."""
    stored = with_dtype(spec, DType.F32)
    graph = make_graph(stored, lowering=lowering)

    def engine(limits: Limits) -> Interpreter:
        return Interpreter(
            run or graph,
            checkpoint.read,
            dtype=np.float32,
            max_model_len=limits.max_model_len,
            max_num_seqs=limits.max_num_seqs,
        )

    return Subject(
        graph=graph,
        frontend_graph=build_graph(stored),
        lowering=lowering,
        cache_dtype=DType.F32,
        row_dtype=None,
        facts={"model": spec.name},
        check_fit=lambda limits: None,
        ordinary=engine,
        traced=engine,
    )


def torch_reference(model: ReferenceModel, graph: Graph) -> TorchReference:
    """The model of a case as it lies in memory, whatever class transformers gives it."""
    prefix = "model.layers.{layer}."
    return TorchReference("transformers", lambda dtype: model.model, graph, prefix)


def request_for(graph: Graph, seed: int = 0) -> Request:
    prompt_len = default_prompt_len(graph, GREEDY)
    script = make_script(graph.vocab_size, prompt_len, seed)
    return Request(script=script, num_greedy_tokens=GREEDY)


def verified(
    subject: Subject, checkpoint: Checkpoint, references: Iterable[Reference] = ()
) -> Report:
    return verify_engine(
        subject, request_for(subject.graph), checkpoint.read, lambda played: references
    )


def with_text(change: Callable[[str], str], out: Path) -> Callable[..., BuildResult]:
    """Builds engines whose ``engine.cpp`` is another one."""

    def build(
        compiled: CompiledPlan, options: CompileOptions, notify: Callable[[str], None]
    ) -> BuildResult:
        files = {**compiled.files, "engine.cpp": change(compiled.files["engine.cpp"])}
        return build_model(replace(compiled, files=files), out, options, notify)

    return build


def with_window(graph: Graph, window: int) -> Graph:
    """The graph with every window of another size."""
    kinds = tuple(
        replace(
            kind,
            nodes=tuple(
                replace(node, attributes={**node.attributes, "window": window})
                if node.attributes.get("window")
                else node
                for node in kind.nodes
            ),
        )
        for kind in graph.layer_kinds
    )
    return replace(graph, layer_kinds=kinds)
