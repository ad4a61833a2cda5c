"""Rows that an engine rounds as it multiplies them: the op stage does the same, and knows when."""

from __future__ import annotations

import platform
from dataclasses import replace

import pytest

from qwen3_codegen.compile import CompileOptions
from qwen3_codegen.dtypes import DType
from qwen3_codegen.spec.catalog import load_model
from qwen3_codegen.spec.device import load_device
from qwen3_codegen.verification import engine_limits
from qwen3_codegen.verification.op_stage import check_ops
from qwen3_codegen.verification.script import play
from qwen3_codegen.verification.subject import Subject, compiled_subject
from qwen3_runtime.checkpoint import Checkpoint, open_checkpoint
from tests.verification.subjects import request_for

OPTIONS = CompileOptions(dtype=DType.BF16, lowering="native")


@pytest.fixture
def opened(reference):
    checkpoints = []

    def subject(id: str, options: CompileOptions) -> tuple[Subject, Checkpoint]:
        path = reference(id).path
        checkpoints.append(open_checkpoint(path))
        spec, device = load_model(str(path)), load_device("cpu")
        return compiled_subject(spec, device, options, checkpoints[-1]), checkpoints[-1]

    yield subject
    for checkpoint in checkpoints:
        checkpoint.close()


@pytest.mark.skipif(
    platform.machine() != "x86_64",
    reason="other architectures have none of the instruction sets named here",
)
@pytest.mark.parametrize(
    ("id", "isa", "row_dtype"),
    [
        ("qwen3-gqa-1", "avx512-bf16", DType.BF16),
        ("qwen3-gqa-1", "avx512", None),
        ("qwen3-gqa-1", "portable", None),
        ("qwen3-moe", "avx512-bf16", None),
    ],
)
def test_rows_are_rounded_where_plan_and_instruction_set_do(id, isa, row_dtype, opened):
    subject, _ = opened(id, replace(OPTIONS, isa=isa))
    assert subject.row_dtype is row_dtype


@pytest.mark.compile
def test_an_engine_that_rounds_other_rows_than_it_should_is_seen(opened):
    """Every linear, and no other op, misses its limit where the other of both is expected."""
    subject, checkpoint = opened("qwen3-gqa-1", OPTIONS)
    other = replace(subject, row_dtype=None if subject.row_dtype else DType.BF16)
    request = request_for(subject.graph)
    limits = engine_limits(request)
    engine = subject.traced(limits)
    played = play(engine, request.script, engine.trace)

    def failures(judged: Subject) -> set[tuple[str, str | None]]:
        checks = check_ops(judged, checkpoint.read, limits.max_model_len, played)
        return {(check.name, check.op) for check in checks if check.failed}

    linears = [
        node.output.name
        for region in subject.graph.regions()
        for node in region.nodes
        if node.op == "linear"
    ]
    assert failures(subject) == set()
    failed = failures(other)
    assert {op for _, op in failed} == {"linear"}
    assert {name.rpartition(".")[2] for name, _ in failed} == set(linears)
