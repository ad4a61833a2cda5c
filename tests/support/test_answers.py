"""What is said of devices is what the planner does."""

from __future__ import annotations

from dataclasses import replace

import pytest

from qwen3_codegen.compile import CompileOptions, make_graph, plan_model
from qwen3_codegen.dtypes import DType
from qwen3_codegen.errors import CodegenError
from qwen3_codegen.infinicore.api import RELEASES, load_api
from qwen3_codegen.ir.ops import OPS
from qwen3_codegen.spec.catalog import load_model, model_names
from qwen3_codegen.spec.device import device_names, load_device
from qwen3_codegen.spec.resolve import with_dtype
from qwen3_codegen.support import ask_device, ask_model, sample_uses

PORTABLE = [name for name in device_names() if load_device(name).lowering == "portable"]


def asked_of(name: str, release: str | None = None):
    device = load_device(name)
    return ask_device(device, sample_uses(device.dtypes[0]), release)


@pytest.mark.parametrize("name", device_names())
def test_every_op_is_answered_in_the_order_of_the_table(name):
    labels = asked_of(name).answers
    assert list(dict.fromkeys(label.partition(",")[0] for label in labels)) == list(OPS)


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize("name", PORTABLE)
def test_operators_are_those_of_the_device(name, release):
    asked = asked_of(name, release)
    api = load_api(release)
    if asked.device.infinicore not in api.devices:
        assert asked.device.infinicore in asked.refusal
        assert asked.answers == {}
        return
    for label, answer in asked.answers.items():
        if answer.refusal is None:
            listed = OPS[label.partition(",")[0]].lowerings["portable"].operators
            assert set(answer.operators) <= set(listed), label
            assert all(api.supports(op, asked.device.infinicore) for op in answer.operators)


def test_what_is_known_of_some_devices():
    cambricon, nvidia = asked_of("cambricon").answers, asked_of("nvidia").answers
    assert nvidia["scale"].operators == ("mul",)
    assert cambricon["scale"].operators == ("gemm", "rearrange")
    assert cambricon["linear"].operators == ("gemm",)
    assert cambricon["linear, bias"].operators == ("gemm", "rearrange")
    assert "needs InfiniCore's mul, which the device does not have" in cambricon["mul"].refusal
    assert cambricon["attention, window"].operators == ("causal_softmax", "gemm", "rearrange")
    assert "tanh" in cambricon["attention, soft cap"].refusal
    assert cambricon["moe"].refusal == OPS["moe"].lowerings["portable"].refusal
    assert cambricon["split"].operators == ()


def test_a_device_that_lacks_even_the_product_of_matrices():
    """Kunlun's gemm of 2025-08 takes no bfloat16, so nothing around an op can be tried."""
    answers = asked_of("kunlun", "2025-08").answers
    assert "does not take these types" in answers["linear"].refusal
    assert "not tried" in answers["rope"].refusal


@pytest.mark.parametrize("release", [None, "2025-08"])
@pytest.mark.parametrize("model", ["qwen3-1.7b", "minicpm-1b-sft", "qwen3-30b-a3b"])
def test_what_is_said_of_a_model_is_what_building_it_does(model, release):
    spec = load_model(model)
    for name in PORTABLE:
        device = load_device(name)
        dtype = spec.dtype if spec.dtype in device.dtypes else device.dtypes[0]
        asked = ask_model(device, make_graph(with_dtype(spec, dtype)), release)
        try:
            compiled = plan_model(spec, device, CompileOptions(release=release))
        except CodegenError as refused:
            said = refused.message
            assert asked.refusal.endswith(said), name
            refusals = [answer.refusal for answer in asked.answers.values() if answer.refusal]
            assert bool(refusals) == bool(asked.answers), name
        else:
            assert asked.refusal is None, name
            operators = {op for answer in asked.answers.values() for op in answer.operators}
            assert operators <= set(compiled.plan.operators), name
            assert compiled.plan.dtype == asked.dtype


def test_all_ops_in_the_way_are_named():
    spec = load_model("qwen3-1.7b")
    asked = ask_model(load_device("moore"), make_graph(spec), "2025-08")
    refused = {op for op, answer in asked.answers.items() if answer.refusal}
    assert refused == {"rms_norm", "rope", "attention"}
    assert asked.refusal.startswith("modelspecs/architectures/qwen3.yaml:")


def test_every_shipped_model_is_answered():
    for name in model_names():
        spec = load_model(name)
        asked = ask_model(load_device("nvidia"), make_graph(spec), None)
        assert {"linear", "attention"} <= set(asked.answers), name


def test_kernels_are_those_of_the_op_table():
    device = replace(load_device("cpu"), lowering="native")
    answers = ask_device(device, sample_uses(DType.F32), None).answers
    assert answers["linear"].operators == ("Linear",)
    assert "PagedAttention" in answers["rotary_attention"].operators
    for label, answer in answers.items():
        lowering = OPS[label.partition(",")[0]].lowerings["native"]
        assert set(answer.operators) <= set(lowering.operators), label
        assert answer.refusal is not None or lowering.refusal is None, label


def test_there_is_a_sample_of_every_op_that_is_carried_out():
    """Except those of which every model has one; a new op needs a sample to be asked about."""
    sampled = {use.op for use in sample_uses(DType.F32)} | {"embedding", "gather_rows"}
    carried_out = {
        name
        for name, op in OPS.items()
        if any(low.refusal is None for low in op.lowerings.values())
    }
    assert carried_out <= sampled
