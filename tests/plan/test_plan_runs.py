"""Whole plans carried out in NumPy give the graph's logits, on every device and release."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

from qwen3_codegen.errors import LoweringError
from qwen3_codegen.infinicore.api import RELEASES, load_api
from qwen3_codegen.ir.ops import OPS
from qwen3_codegen.plan.planner import plan_engine
from qwen3_codegen.plan.records import EnginePlan
from qwen3_codegen.spec.device import device_names, load_device
from tests.plan.planning import LOWERED, assert_plan_computes_graph, case_graph, request


@pytest.mark.parametrize("case_id", LOWERED)
def test_every_architecture_on_the_host(case_id):
    assert_plan_computes_graph(case_graph(case_id))


FEATURES = {
    "qwen3-window-3": "q/k norm, two windows",
    "llama-both-biases": "biases with residuals",
    "jiuge-fm9g-tied": "scales, tied head",
    "olmo2": "norms after, q/k norm over the whole projection",
    "gemma3": "four norms, two rope tables, gelu",
    "phi3-partial-rotary": "fused checkpoint tensors, partial rotary",
}
DEVICES = [
    (device, release)
    for device in device_names()
    for release in RELEASES
    if load_device(device).infinicore in load_api(release).devices
]


@pytest.mark.parametrize("case_id", FEATURES)
@pytest.mark.parametrize(("device", "release"), DEVICES)
def test_every_device_computes_it_or_names_what_it_lacks(device, release, case_id):
    try:
        assert_plan_computes_graph(case_graph(case_id), device, release)
    except LoweringError as error:
        api, name = load_api(release), load_device(device).infinicore
        operator = error.message.split("InfiniCore's ")[1].split(",")[0]
        assert not api.supports(operator, name)


def plans(case_id: str) -> Iterator[EnginePlan]:
    """Plans of a case for every device that carries it out."""
    for device, release in DEVICES:
        with contextlib.suppress(LoweringError):
            yield plan_engine(case_graph(case_id), request(device, release))


def test_most_devices_carry_qwen3_out():
    """Guards the test above against passing by refusals alone."""
    assert len(list(plans("qwen3-window-3"))) >= 20, f"of {len(DEVICES)}"


def test_the_op_table_lists_the_operators_that_are_called():
    called: dict[str, set[str]] = {}
    for case_id in (*FEATURES, "jiuge-minicpm", "granite"):
        for plan in plans(case_id):
            for choice in plan.choices:
                called.setdefault(choice.op, set()).update(choice.operators)
    listed = {op: set(OPS[op].lowerings["portable"].operators) for op in called}
    assert all(called[op] <= listed[op] for op in called), (called, listed)
    # What the table lists beyond that is for a value that is read again and must be kept.
    assert {op: listed[op] - called[op] for op in called if listed[op] != called[op]} == {
        "rope": {"rearrange"}
    }
