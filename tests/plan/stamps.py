"""Follows who wrote each element of an engine's buffers, without computing anything.

Every write leaves fresh stamps. A value's stamps are noted when its step is done; whoever reads it
later must find exactly those, or something else was put there while the value was alive. This knows
nothing of liveness or of how the plan chose places.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from qwen3_codegen.plan.records import (
    Action,
    ActivationCall,
    AttentionCall,
    EnginePlan,
    OperatorCall,
    Origin,
    RegionPlan,
    RowCopy,
    TensorRef,
)
from tests.plan.views import Array, Memory, View, packed

NUM_ROWS = 2


class Stamps:
    """Checks a plan; ``problems`` says what is wrong with it."""

    def __init__(self, plan: EnginePlan) -> None:
        self._plan = plan
        self._next = 1
        self._buffers = {
            buffer.name: View(
                Memory(buffer.name, np.zeros(NUM_ROWS * buffer.columns, np.int64)),
                (NUM_ROWS, buffer.columns),
                packed((NUM_ROWS, buffer.columns)),
            )
            for buffer in plan.buffers
        }
        scratch = np.zeros(NUM_ROWS * plan.scratch_columns, np.int64)
        self._buffers["scratch"] = View.of("scratch", scratch)
        self._values: dict[str, View] = {}
        self._known: dict[str, Array] = {}

    def problems(self) -> list[str]:
        plan = self._plan
        hidden = self._hidden()
        found = [*self._region(plan.prologue), *self._left_in(plan.prologue, hidden)]
        for kind in plan.layer_kinds:
            self._forget_all_but(hidden)
            found += [*self._region(kind), *self._left_in(kind, hidden)]
        for _ in range(2):  # the epilogue runs once per part of the logit rows
            self._forget_all_but(hidden)
            found += self._region(plan.epilogue)
        return found

    def _hidden(self) -> View:
        (parameter,) = self._plan.layer_kinds[0].parameters
        return self._resolve(parameter.reference)

    def _forget_all_but(self, hidden: View) -> None:
        kept = hidden.read()
        for buffer in self._buffers.values():
            self._write(buffer)
        hidden.write(kept)

    def _left_in(self, region: RegionPlan, hidden: View) -> Iterator[str]:
        result = self._values[region.result]
        if not (result.is_same(hidden) or self._was_copied(region, hidden)):
            yield f"{region.name}: its result {region.result} is not where the next region looks"

    def _was_copied(self, region: RegionPlan, hidden: View) -> bool:
        *_, last = region.steps[-1].actions or [None]
        return isinstance(last, OperatorCall) and self._resolve(last.tensors[0]).is_same(hidden)

    def _region(self, region: RegionPlan) -> Iterator[str]:
        self._values, self._known = {}, {}
        for parameter in region.parameters:
            self._values[parameter.name] = self._resolve(parameter.reference)
            self._note(parameter.name)
        for step in region.steps:
            new = {definition.name for definition in step.definitions}
            for definition in step.definitions:
                yield from self._check(region, definition.reference, new)
                self._values[definition.name] = self._resolve(definition.reference)
            for action in step.actions:
                outputs, inputs = _operands(action)
                for reference in inputs:
                    yield from self._check(region, reference, new)
                for reference in outputs:
                    self._write(self._resolve(reference))
            for name in new:
                self._note(name)
        yield from self._check(region, TensorRef(Origin.VALUE, region.result), set())

    def _check(self, region: RegionPlan, reference: TensorRef, new: set[str]) -> Iterator[str]:
        name = reference.name
        if reference.origin is not Origin.VALUE or name in new:
            return
        if not np.array_equal(self._values[name].read(), self._known[name]):
            yield f"{region.name}: {name} is read after something else was put onto it"

    def _note(self, name: str) -> None:
        self._known[name] = self._values[name].read()

    def _write(self, view: View) -> None:
        count = view.indices().size
        view.write(np.arange(self._next, self._next + count).reshape(view.shape))
        self._next += count

    def _resolve(self, reference: TensorRef) -> View:
        view = (
            self._values[reference.name]
            if reference.origin is Origin.VALUE
            else self._buffers[reference.name]
        )
        for step in reference.views:
            view = getattr(view, step.method)(
                *(
                    tuple(map(_extent, argument))
                    if isinstance(argument, tuple)
                    else _extent(argument)
                    for argument in step.arguments
                )
            )
        return view


def _extent(extent: int | str) -> int:
    return NUM_ROWS if isinstance(extent, str) else extent


def _operands(action: Action) -> tuple[list[TensorRef], list[TensorRef]]:
    """What an action writes, and what it reads."""
    match action:
        case OperatorCall(operator="gemm", tensors=(c, a, b), scalars=(_, beta)):
            return [c], [a, b, *([c] if beta else [])]
        case OperatorCall():
            return [action.tensors[0]], list(action.tensors[1:])
        case RowCopy():
            return [action.destination], [action.table]
        case AttentionCall():
            return [action.output], [action.query, action.key, action.value]
        case ActivationCall():
            return [action.scratch, action.output], [action.input]
    raise ValueError(action)
