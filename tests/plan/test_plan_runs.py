"""Whole plans carried out in NumPy give the graph's logits, on every device and release."""

from __future__ import annotations

import pytest

from qwen3_codegen.errors import LoweringError
from qwen3_codegen.infinicore.api import RELEASES, load_api
from qwen3_codegen.spec.device import device_names, load_device
from tests.plan.planning import LOWERED, assert_plan_computes_graph, case_graph


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


def test_most_devices_carry_qwen3_out():
    """Guards the test above against passing by refusals alone."""
    carried = 0
    for device, release in DEVICES:
        try:
            assert_plan_computes_graph(case_graph("qwen3-window-3"), device, release)
        except LoweringError:
            continue
        carried += 1
    assert carried >= 20, f"only {carried} of {len(DEVICES)}"
