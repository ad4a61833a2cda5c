"""Which tensors an engine holds and how each is made of the checkpoint's."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from qwen3_codegen.ir.graph import Region, Weight
from qwen3_codegen.plan.records import Origin, TensorRef, WeightPlan
from qwen3_runtime.checkpoint.transform import Transpose


class ModelWeights:
    """Weights outside the layers; equal ones (a tied head) are stored once."""

    def __init__(self) -> None:
        self._plans: list[WeightPlan] = []

    def add_region(self, region: Region, transposed: frozenset[str]) -> Mapping[str, TensorRef]:
        """Adds a region's weights and returns how each is referred to."""
        references = {}
        for weight in region.weights:
            plan = plan_weight(weight, transposed)
            stored = next((known for known in self._plans if _same(known, plan)), None)
            if stored is None:
                stored = replace(plan, name=self._free_name(plan.name))
                self._plans.append(stored)
            references[weight.name] = TensorRef(Origin.MODEL_WEIGHT, stored.name)
        return references

    def plans(self) -> tuple[WeightPlan, ...]:
        """The weights in the order they were added."""
        return tuple(self._plans)

    def _free_name(self, name: str) -> str:
        taken = {plan.name for plan in self._plans}
        candidate, number = name, 2
        while candidate in taken:
            candidate, number = f"{name}_{number}", number + 1
        return candidate


def _same(first: WeightPlan, second: WeightPlan) -> bool:
    return (first.expression, first.dtype, first.shape) == (
        second.expression,
        second.dtype,
        second.shape,
    )


def layer_weights(
    region: Region, transposed: frozenset[str], split: frozenset[str]
) -> tuple[WeightPlan, ...]:
    """Returns the weights of a layer kind; ``split`` names those kept as one matrix per expert."""
    plans = (plan_weight(weight, transposed) for weight in region.weights)
    return tuple(replace(plan, is_split=plan.name in split) for plan in plans)


def plan_weight(weight: Weight, transposed: frozenset[str]) -> WeightPlan:
    """Returns how one weight is stored; ``transposed`` names those kept as [in, out]."""
    shape = tuple(int(extent) for extent in weight.type.shape)
    expression = weight.expression
    if weight.name in transposed:
        shape, expression = shape[::-1], Transpose(expression)
    return WeightPlan(weight.name, shape, weight.type.dtype, expression, dict(weight.sources))


def linear_weights(region: Region) -> frozenset[str]:
    """Names of the weights that linears multiply with."""
    return frozenset(node.inputs["weight"] for node in region.nodes if node.op == "linear")


def expert_weights(region: Region) -> frozenset[str]:
    """Names of the weights that hold a matrix per expert."""
    mixtures = [node for node in region.nodes if node.op == "moe"]
    return frozenset(node.inputs[role] for node in mixtures for role in ("gate", "up", "down"))


def total_bytes(plans: Iterable[WeightPlan]) -> int:
    """Bytes of some weights on the device."""
    return sum(plan.num_bytes for plan in plans)
