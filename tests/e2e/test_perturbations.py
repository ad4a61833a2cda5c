"""Every constant, weight and op of an emitted engine matters: one wrong, and parity is far off."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from qwen3_codegen.compile import CompiledPlan, CompileOptions, build_model, plan_model
from qwen3_codegen.dtypes import DType
from qwen3_codegen.spec.catalog import load_model
from qwen3_codegen.spec.device import load_device
from qwen3_runtime.engine.capacity import Limits
from qwen3_runtime.engine.compiled import CompiledEngine, engine_class
from tests.e2e.instrumented import VARIABLE, Instrumented, instrument
from tests.reference.models import ReferenceModel, logits_bound

pytestmark = pytest.mark.compile

FAR = 10.0
"""Bounds that a wrong engine is off by, at least."""

OPTIONS = {
    lowering: CompileOptions(dtype=DType.F32, lowering=lowering)
    for lowering in ("portable", "native")
}
LIMITS = Limits(max_model_len=128, max_num_seqs=2)

# What must be among the wrongs of an engine, as patterns.
NAMED = {
    "qwen3-window-8": [
        r"another number in: ops_\.rms_norm\(x, h, w\.input_layernorm, 0\.03f\)",
        r"another number in: attention_0_->run\(.*scale",
        r"another frequency 0 of kRopeInvFreq",
        r"window 7 instead of 8",
        r"window 9 instead of 8",
        r"gate and up swapped",
        r"sin and cos swapped",
        r"keys and values swapped",
        r"dropped: ops_\.rms_norm\(k_",
        r"dropped: ops_\.rms_norm\(q_",
        r"dropped: ops_\.rope",
        r"the next row of: w\.qkv_proj",
        r"the next row of: weights_\.lm_head",
        r"other columns in: .*v_proj",
    ],
    "jiuge-fm9g-tied": [
        r"another number in: ops_\.gemm\(.*o_proj.*0\.98\d+f",
        r"another number in: .*3\.3f",
        r"dropped: ops_\.gemm\(.*down_proj",
    ],
    "gemma3": [
        r"another frequency 0 of kGlobalRopeInvFreq",
        r"another frequency 0 of kLocalRopeInvFreq",
        r"window 4 instead of 5",
        r"window 6 instead of 5",
        r"dropped: qwen3::gelu_tanh",
        r"dropped: ops_\.rms_norm\(.*post_feedforward_layernorm",
    ],
}

NAMED_NATIVE = {
    "qwen3-window-8": [
        r"another number in: native::RmsNorm<Element, 1, \d+>::run\(x, h, w\.input_layernorm",
        r"another number in: native::PagedAttention.*scale",
        r"another number in: native::AppendKeyValue.*k_norm",
        r"another number in: native::TransformHeads.*q_norm",
        r"another frequency 0 of kRopeInvFreq",
        r"window 7 instead of 8",
        r"window 9 instead of 8",
        r"gate and up swapped",
        r"keys and values swapped",
        r"dropped: native::AppendKeyValue",
        r"dropped: native::TransformHeads",
        r"the next row of: w\.q_proj",
        r"the next row of: w\.k_norm",
    ],
    "qwen2": [
        r"dropped: native::RepeatRow.*v_proj",
        r"another number in: native::Linear.*lm_head",
        r"dropped: native::Linear.*o_proj",
        r"the next row of: w\.k_proj_bias",
    ],
    "qwen3-moe": [
        r"the other choice in: native::ChooseExperts",
        r"the next row of: w\.gate = ",
        r"the next row of: w\.gate_proj",
        r"the next row of: w\.up_proj",
        r"the next row of: w\.down_proj",
        r"dropped: native::MixExperts",
        r"another number in: native::Linear<Element, 52, 5>",
    ],
}


def plan(model: ReferenceModel, lowering: str = "portable") -> CompiledPlan:
    return plan_model(load_model(str(model.path)), load_device("cpu"), OPTIONS[lowering])


def build(compiled: CompiledPlan, files: Mapping[str, str], out: Path) -> type[CompiledEngine]:
    options = OPTIONS[compiled.plan.target.lowering]
    changed = CompiledPlan(compiled.plan, compiled.api, files, compiled.installed)
    result = build_model(changed, out, options, lambda text: None, c_library=False)
    return engine_class(result.directory)


def bounds_off(engine: type[CompiledEngine], model: ReferenceModel) -> float:
    """Largest difference from transformers in units of the bound; infinite if not finite."""
    loaded = engine.from_checkpoint(model.path, limits=LIMITS, show_progress=False)
    prompts = model.prompts()
    worst = 0.0
    for prompt, actual in zip(prompts, loaded.forward(prompts), strict=True):
        expected = model.logits(prompt)
        off = float(np.abs(actual - expected).max()) / logits_bound(expected)
        worst = max(worst, off if np.isfinite(off) else np.inf)
    return worst


def survivors(
    engine: type[CompiledEngine],
    model: ReferenceModel,
    switches: Instrumented,
    monkeypatch: pytest.MonkeyPatch,
) -> dict[str, float]:
    found = {}
    for number, description in switches.wrongs.items():
        monkeypatch.setenv(VARIABLE, str(number))
        off = bounds_off(engine, model)
        if off <= FAR:
            found[description] = off
    return found


@pytest.mark.parametrize(
    ("lowering", "id"),
    [*(("portable", id) for id in NAMED), *(("native", id) for id in NAMED_NATIVE)],
)
def test_every_constant_weight_and_op_of_the_engine_matters(
    lowering, id, reference, tmp_path, monkeypatch
):
    model = reference(id)
    compiled = plan(model, lowering)
    switches = instrument(compiled.files["engine.cpp"])
    engine = build(compiled, {**compiled.files, "engine.cpp": switches.text}, tmp_path)
    assert bounds_off(engine, model) <= 1.0, "the switches themselves change something"
    assert len(switches.wrongs) > 50
    for pattern in {"portable": NAMED, "native": NAMED_NATIVE}[lowering][id]:
        assert any(re.search(pattern, wrong) for wrong in switches.wrongs.values()), pattern
    assert not survivors(engine, model, switches, monkeypatch)


def test_layers_in_another_order(reference, tmp_path):
    model = reference("qwen3-window-8")
    compiled = plan(model)
    source = compiled.files["engine.cpp"]
    text, count = re.subn(r"(kLayerKinds\[kNumLayers\] = \{)0, 0, 1\}", r"\g<1>0, 1, 0}", source)
    assert count == 1
    engine = build(compiled, {**compiled.files, "engine.cpp": text}, tmp_path)
    assert bounds_off(engine, model) > FAR
