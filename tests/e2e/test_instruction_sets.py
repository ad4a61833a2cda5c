"""Whole native engines on every path their kernels have: other vectors, the same model."""

from __future__ import annotations

import platform
import re
import subprocess

import numpy as np
import pytest

from qwen3_codegen.build.cache import cache_in_use
from qwen3_codegen.compile import CompileOptions, build_in_cache, plan_model
from qwen3_codegen.dtypes import DType
from qwen3_codegen.spec.device import load_device
from tests.e2e.test_devices import assert_half_precision
from tests.e2e.test_parity import assert_parity
from tests.instruction_sets import NAMES, best, every_instruction_set, on
from tests.plan.planning import case_spec
from tests.reference.cases import CASES, case_named, stored_in
from tests.reference.models import assert_logits_match

pytestmark = pytest.mark.compile

# What `native` takes runs all cases in test_parity; asked for by its own name, these. The other
# paths run them, too, and all cases in the exhaustive tests.
FEW = ("qwen3-window-8", "gemma3-softcap", "qwen2-tied", "qwen3-moe-mixed")
RUNS = [(isa, case) for isa in NAMES for case in CASES if case.id in FEW or isa != best()]

# The widest registers in each path's code; plain x86-64 has those of SSE2.
WIDEST = {"portable": "xmm", "avx2": "ymm", "avx512": "zmm"}


@pytest.mark.parametrize(
    ("isa", "case"),
    [
        on(isa, case, marks=() if case.id in FEW else (pytest.mark.exhaustive,))
        for isa, case in RUNS
    ],
    ids=str,
)
def test_native_kernels(isa, case, reference, open_llm):
    model = reference(case)
    assert_parity(open_llm(model.path, lowering="native", isa=isa), model)


@pytest.mark.parametrize("values", ["auto", "bfloat16"])
@pytest.mark.parametrize("isa", [on(isa) for isa in (*NAMES, "avx512-bf16")])
def test_bfloat16(isa, values, reference, open_llm):
    """Widened to float32, but for the products of pairs that the last has."""
    model = reference("qwen3-gqa-7x2")
    llm = open_llm(
        model.path, dtype="bfloat16", activation_dtype=values, lowering="native", isa=isa
    )
    assert_half_precision(llm, model, "bfloat16", 0.9995)
    prompts = model.prompts()
    for prompt, rows in zip(prompts, llm.logits(prompts), strict=True):
        np.testing.assert_array_equal(llm.logits([prompt])[0], rows)


HALF = [(isa, dtype) for isa in NAMES for dtype in ("bfloat16", "float16")]


@pytest.mark.parametrize(
    ("isa", "dtype"), [on(isa, dtype) for isa, dtype in (*HALF, ("avx512-bf16", "bfloat16"))]
)
def test_mixtures_in_half_precision(isa, dtype, reference, open_llm):
    """Float32 rows times half-precision matrices, which each path widens in its own way."""
    model = reference(stored_in(case_named("qwen3-moe-mixed"), dtype))
    llm = open_llm(model.path, dtype=dtype, lowering="native", isa=isa)
    assert_half_precision(llm, model, dtype, 0.9995)
    prompts = model.prompts()
    for prompt, rows in zip(prompts, llm.logits(prompts), strict=True):
        np.testing.assert_array_equal(llm.logits([prompt])[0], rows)
        assert_logits_match(rows, model.logits(prompt))


def code_of(directory) -> str:
    (module,) = directory.glob("_engine*.so")
    command = ["objdump", "--disassemble", "--demangle", "--no-show-raw-insn", str(module)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def widest_registers(directory) -> str:
    return max(re.findall(r"%([xyz]mm)\d", code_of(directory)))


only_x86 = pytest.mark.skipif(platform.machine() != "x86_64", reason="knows x86-64's registers")


@only_x86
@every_instruction_set
def test_the_code_is_of_the_path_asked_for(isa, reference, open_llm):
    """Or the other tests say nothing."""
    llm = open_llm(reference("qwen3-window-8").path, lowering="native", isa=isa)
    assert widest_registers(llm.engine.directory) == WIDEST[isa]


@only_x86
def test_native_code_is_of_the_best_path(reference, open_llm):
    llm = open_llm(reference("qwen3-window-8").path, lowering="native")
    assert widest_registers(llm.engine.directory) == WIDEST[best()]


@only_x86
@pytest.mark.parametrize(
    ("id", "step"), [("qwen3-window-3", "Bf16PairStep"), ("qwen3-moe", "FloatStep")]
)
def test_pairs_are_multiplied_where_no_router_is_misled(id, step):
    """By the steps of the products that are called; the code need not run here."""
    options = CompileOptions(lowering="native", dtype=DType.BF16, isa="avx512-bf16")
    compiled = plan_model(case_spec(id), load_device("cpu"), options)
    with cache_in_use():
        code = code_of(build_in_cache(compiled, options, lambda message: None).directory)
    called = re.findall(
        r"(?:call|jmp) .*kernels::gemm<float, qwen3::kernels::Bf16, [\w:]*?(\w+)<", code
    )
    assert set(called) == {step}
    (tile,) = re.findall(r"multiply_packed<[\w:]*Bf16PairStep<float>.*>:\n((?:.+\n)+)", code)
    assert "vdpbf16ps" in tile
