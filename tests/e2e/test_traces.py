"""Traced engines show every value of a step, which is the interpreter's of that name."""

from __future__ import annotations

import re
from collections.abc import Iterator
from collections.abc import Sequence as SequenceOf
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from qwen3_codegen.compile import (
    CompiledPlan,
    CompileOptions,
    build_model,
    make_graph,
    plan_model,
)
from qwen3_codegen.dtypes import DType
from qwen3_codegen.ir.interpreter import Interpreter
from qwen3_codegen.spec.catalog import load_model
from qwen3_codegen.spec.device import load_device
from qwen3_codegen.spec.resolve import with_dtype
from qwen3_runtime.checkpoint import open_checkpoint
from qwen3_runtime.engine.batch import Batch, Engine
from qwen3_runtime.engine.capacity import Limits
from qwen3_runtime.engine.compiled import CompiledEngine, engine_class
from qwen3_runtime.engine.scheduler import Scheduler, Sequence
from qwen3_runtime.errors import EngineError
from tests.e2e.instrumented import VARIABLE, instrument
from tests.reference.models import ReferenceModel, logits_bound

pytestmark = pytest.mark.compile

LIMITS = Limits(max_model_len=400, max_num_seqs=4, max_num_batched_tokens=512)


def traced_plan(model: ReferenceModel, dev: str, **choices: object) -> CompiledPlan:
    options = CompileOptions(**{"dtype": DType.F32, "trace": True, **choices})
    return plan_model(load_model(str(model.path)), load_device(dev), options)


def load(compiled: CompiledPlan, model: ReferenceModel, out: Path) -> CompiledEngine:
    directory = build_model(compiled, out, CompileOptions(), lambda text: None).directory
    engine = engine_class(directory)
    return engine.from_checkpoint(model.path, limits=LIMITS, show_progress=False)


def interpreter_of(model: ReferenceModel, lowering: str) -> Interpreter:
    """In float64, of the graph after the passes of a lowering."""
    spec = with_dtype(load_model(str(model.path)), DType.F32)
    read = open_checkpoint(model.path).read
    return Interpreter(make_graph(spec, lowering=lowering), read, max_model_len=400, max_num_seqs=4)


def steps(engine: Engine, prompts: SequenceOf[SequenceOf[int]]) -> Iterator[Batch]:
    """All prompts as one step, then one more token of each but the first, in one step."""
    scheduler = Scheduler(engine)
    sequences = [Sequence(list(prompt), wants_all_logits=True) for prompt in prompts]
    for sequence in sequences:
        scheduler.add(sequence)
    step = scheduler.schedule()
    yield step.batch
    scheduler.advance(step)
    for sequence in sequences[1:]:
        sequence.token_ids.append(sequence.token_ids[0])
    yield scheduler.schedule().batch


def prefill(engine: Engine, *prompts: SequenceOf[int]) -> Batch:
    """All prompts as one step."""
    return next(steps(engine, prompts))


def first_wrong(actual: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> str | None:
    """Name of the first value that is another one; all names must be there.

    Sharp attention magnifies the rounding before it beyond the bound of logits (1.3 of it seen on
    AVX2), which a wrong value misses by far more than 4 times.
    """
    assert list(actual) == [name for name in expected if name != "prologue.input_ids"]
    for name, array in actual.items():
        assert array.dtype == np.float32
        assert array.shape == expected[name].shape, name
        difference = np.abs(array - expected[name]).max()
        if not difference <= 4 * logits_bound(expected[name]):
            return name
    return None


@pytest.mark.parametrize(
    ("id", "dev", "choices"),
    [
        ("qwen3-window-8", "cpu", {"lowering": "native"}),
        ("gemma3-softcap", "cpu", {"lowering": "native"}),
        ("qwen2", "cpu", {"lowering": "native"}),
        ("jiuge-fm9g-tied", "cpu", {"lowering": "native"}),
        ("gemma3", "cpu", {"lowering": "portable"}),
        ("olmo2", "cpu", {"lowering": "portable"}),
        ("qwen3-window-8", "mlu", {}),
        ("jiuge-fm9g-tied", "ascend", {}),
        ("phi3-partial-rotary", "cpu", {"lowering": "portable", "release": "2025-08"}),
    ],
)
def test_every_value_of_every_step_is_the_interpreter_s(id, dev, choices, reference, tmp_path):
    model = reference(id)
    compiled = traced_plan(model, dev, **choices)
    engine = load(compiled, model, tmp_path)
    interpreter = interpreter_of(model, compiled.plan.target.lowering)
    prompts = model.prompts()
    for batch, same in zip(steps(engine, prompts), steps(interpreter, prompts), strict=True):
        values, expected = engine.trace(batch), interpreter.trace(same)
        assert first_wrong(values, expected) is None
        last = list(values)[-1]
        np.testing.assert_array_equal(values[last], engine.forward(batch))


@pytest.fixture
def traced(reference, tmp_path) -> CompiledEngine:
    model = reference("qwen3-window-8")
    return load(traced_plan(model, "cpu"), model, tmp_path)


def test_an_epilogue_of_several_goes_is_one_value(reference, traced):
    model = reference("qwen3-window-8")
    prompts = [model.prompt(length=300, index=3), model.prompt(length=150, index=4)]
    interpreter = interpreter_of(model, "native")
    values = traced.trace(prefill(traced, *prompts))
    most = int(re.search(r"kMaxLogitRows = (\d+)", _text(traced, "engine.hpp")).group(1))
    assert most < len(values["epilogue.logits"]) == 450
    assert len(values["epilogue.h"]) == len(values["epilogue.h_rms_norm"]) == 450
    assert first_wrong(values, interpreter.trace(prefill(interpreter, *prompts))) is None


def _text(engine: CompiledEngine, name: str) -> str:
    return (engine.directory / name).read_text(encoding="utf-8")


def test_some_logit_rows_and_none(reference, traced):
    batch = prefill(traced, reference("qwen3-window-8").prompt(length=9))
    every = traced.trace(batch)
    rows = np.array([2, 5], np.int32)
    some = traced.trace(replace(batch, logit_rows=rows))
    np.testing.assert_array_equal(some["epilogue.logits"], every["epilogue.logits"][rows])
    assert len(some["epilogue.h"]) == 9
    none = traced.trace(replace(batch, logit_rows=rows[:0]))
    assert list(none) == [name for name in every if not name.startswith("epilogue.")]


def test_chosen_names(reference, traced):
    batch = prefill(traced, reference("qwen3-window-8").prompt(length=9))
    wanted = ["epilogue.h_rms_norm", "layers.1.h"]
    values = traced.trace(batch, wanted)
    assert list(values) == wanted[::-1]
    np.testing.assert_array_equal(values["layers.1.h"], traced.trace(batch)["layers.1.h"])
    assert traced.trace(batch, []) == {}
    with pytest.raises(EngineError, match="no such value") as caught:
        traced.trace(batch, ["layers.9.h"])
    assert caught.value.got == "layers.9.h"


def test_a_batch_that_does_not_fit_leaves_the_engine_usable(reference, traced):
    batch = prefill(traced, reference("qwen3-window-8").prompt(length=9))
    logits = traced.forward(batch)
    with pytest.raises(EngineError):
        traced.trace(replace(batch, token_ids=batch.token_ids + 1000))
    np.testing.assert_array_equal(traced.forward(batch), logits)


@pytest.mark.parametrize("dtype", [DType.BF16, DType.F16])
@pytest.mark.parametrize("lowering", ["native", "portable"])
def test_halves_are_widened_exactly(dtype, lowering, reference, tmp_path):
    model = reference("qwen2")
    options = {"activation_dtype": dtype} if lowering == "native" else {}
    plan = traced_plan(model, "cpu", dtype=dtype, lowering=lowering, **options)
    engine = load(plan, model, tmp_path)
    batch = prefill(engine, *model.prompts())
    values = engine.trace(batch)
    for name, array in values.items():
        if dtype is DType.F16:
            np.testing.assert_array_equal(array, array.astype(np.float16), err_msg=name)
        else:
            assert not (array.view(np.uint32) & 0xFFFF).any(), name
    np.testing.assert_array_equal(values["epilogue.logits"], engine.forward(batch))


def test_an_ordinary_engine_says_how_to_get_a_traced_one(reference, open_llm):
    engine = open_llm(reference("qwen2").path).engine
    with pytest.raises(EngineError, match="not built for tracing") as caught:
        engine.trace(prefill(engine, [1, 2, 3]))
    assert "build --trace" in caught.value.hint


def test_a_traced_engine_is_another_one(reference):
    model = reference("qwen2")
    traced, plain = (traced_plan(model, "cpu", trace=trace) for trace in (True, False))
    assert traced.files["manifest.json"] != plain.files["manifest.json"]
    assert "trace" not in plain.files["engine.cpp"] + plain.files["manifest.json"]


_FORWARD = re.compile(r"^(?:dropped|gate and up|another number|keys and values)")


@pytest.mark.parametrize("lowering", ["native", "portable"])
def test_an_op_that_goes_wrong_is_named(lowering, reference, tmp_path, monkeypatch):
    """Every call of engine.cpp that is left out or given another number, one after the other."""
    model = reference("qwen3-window-8")
    compiled = traced_plan(model, "cpu", lowering=lowering)
    switches = instrument(compiled.files["engine.cpp"])
    files = {**compiled.files, "engine.cpp": switches.text}
    changed = CompiledPlan(compiled.plan, compiled.api, files, compiled.installed)
    engine = load(changed, model, tmp_path)
    batch, interpreter = prefill(engine, *model.prompts()), interpreter_of(model, lowering)
    expected = interpreter.trace(prefill(interpreter, *model.prompts()))
    assert first_wrong(engine.trace(batch), expected) is None
    others = prefill(engine, *(prompt[::-1] for prompt in model.prompts()))
    tried = 0
    for number, what in switches.wrongs.items():
        if not _FORWARD.match(what) or "_tables(" in what:  # those are made once, before
            continue
        engine.forward(others)  # what is left out must not be there from the step before
        monkeypatch.setenv(VARIABLE, str(number))
        found = first_wrong(engine.trace(batch), expected)
        assert found is not None, what
        assert found.rpartition(".")[2] == _computed_by(what), what
        monkeypatch.delenv(VARIABLE)
        tried += 1
    assert tried > 25


def _computed_by(what: str) -> str:
    """The value that a statement of engine.cpp writes."""
    target = re.search(r"\(\s*(\w+)", what.partition(": ")[2]).group(1)
    if target.endswith("_rotated"):
        return "q_rope"
    return "k_rope" if target == "cache_" else target
