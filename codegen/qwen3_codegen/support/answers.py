"""Asks the planner, device by device, how it would carry a use of an op out."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from qwen3_codegen.dtypes import DType
from qwen3_codegen.errors import CodegenError, LoweringError
from qwen3_codegen.infinicore.api import InfiniCoreApi, load_api
from qwen3_codegen.ir.graph import NUM_TOKENS, Graph, ValueType
from qwen3_codegen.ir.ops import OPS, OpDef, ops_of
from qwen3_codegen.plan.planner import PlanRequest, plan_engine
from qwen3_codegen.plan.records import EnginePlan, TargetPlan
from qwen3_codegen.spec.device import DeviceSpec
from qwen3_codegen.support.probe import AROUND, probe_graph
from qwen3_codegen.support.uses import OpUse, uses_in

__all__ = ["Answer", "DeviceAnswers", "ask_device", "ask_model"]


@dataclass(frozen=True, slots=True)
class Answer:
    """How a device carries a use of an op out."""

    operators: tuple[str, ...] = ()
    """Of InfiniCore, or kernels of our own; none means that views and copies are enough."""
    reason: str = ""
    """Why these: the device has it, or a decomposition."""
    refusal: str | None = None
    """Why it does not; the device is called "the device", so that equal answers are equal."""


@dataclass(frozen=True, slots=True)
class DeviceAnswers:
    """All that was asked of one device."""

    device: DeviceSpec
    dtype: DType
    release: str
    """API release of InfiniCore."""
    refusal: str | None
    """Why no engine can be made at all, None when one can."""
    answers: Mapping[str, Answer]
    """By label of the use."""


def ask_device(
    device: DeviceSpec,
    uses: Iterable[OpUse],
    release: str | None,
    own_ops: Mapping[str, OpDef] | None = None,
) -> DeviceAnswers:
    """Asks a device for uses cut out of no model, in its first dtype, and for all ops of the table.

    Args:
        device: Whom to ask.
        uses: In the dtype to ask for.
        release: API release of InfiniCore; None takes the device's.
        own_ops: Rows of the user's own, asked for beside those of the table.

    Raises:
        InfiniCoreError: There is no such release.
    """
    chosen, dtype = release or device.release, device.dtypes[0]
    api = load_api(chosen)
    try:
        request = _request(device, api)
    except CodegenError as error:
        return DeviceAnswers(device, dtype, chosen, error.message, {})
    answers = {use.label: _answer(use, dtype, request, {}) for use in uses}
    rest = _with_the_rest(answers, dtype, request, {**OPS, **(own_ops or {})})
    return DeviceAnswers(device, dtype, chosen, None, rest)


def _with_the_rest(
    answers: Mapping[str, Answer], dtype: DType, request: PlanRequest, ops: Mapping[str, OpDef]
) -> dict[str, Answer]:
    """Adds the ops of which there is no sample, as the op table says it; in the table's order."""
    try:
        in_every_model = _of_plan(plan_engine(probe_graph(_neutral(dtype), dtype), request), ops)
    except LoweringError:
        in_every_model = {}
    complete: dict[str, Answer] = {}
    for op, definition in ops.items():
        sampled = {label: a for label, a in answers.items() if label.partition(",")[0] == op}
        if sampled:
            complete |= sampled
            continue
        lowering = definition.lowerings[request.target.lowering]
        reason = "by the op table" if lowering.operators else "views and copies only"
        if definition.kernel is not None:
            reason = f"your kernel in {definition.kernel.header}"
        by_table = Answer(lowering.operators, reason, lowering.refusal)
        complete[op] = in_every_model.get(op, by_table)
    return complete


def ask_model(device: DeviceSpec, graph: Graph, release: str | None) -> DeviceAnswers:
    """Asks a device for the ops of a model, after the passes of the device's lowering.

    Answers come from the plan of the whole model where there is one. Else each use is asked for
    by itself, so that all ops in the way are named, not the first alone.

    Raises:
        InfiniCoreError: There is no such release.
    """
    chosen = release or device.release
    api = load_api(chosen)
    try:
        request = _request(device, api)
    except CodegenError as error:
        return DeviceAnswers(device, graph.dtype, chosen, error.message, {})
    try:
        plan = plan_engine(graph, request)
    except LoweringError as error:
        answers = _each_alone(graph, request, error)
        where = f"{error.where}: " if error.where else ""
        return DeviceAnswers(device, graph.dtype, chosen, f"{where}{error.message}", answers)
    return DeviceAnswers(device, graph.dtype, chosen, None, _of_plan(plan, ops_of(graph)))


def _neutral(dtype: DType) -> OpUse:
    """A use that adds nothing to what every model has."""
    rows = {"x": ValueType((NUM_TOKENS, 16), dtype)}
    return OpUse(label="reshape", op="reshape", values=rows, attributes={"shape": (2, 8)})


def _of_plan(plan: EnginePlan, ops: Mapping[str, OpDef]) -> dict[str, Answer]:
    order = list(ops)
    choices = sorted(plan.choices, key=lambda choice: order.index(choice.op))
    return {choice.op: Answer(choice.operators, choice.reason) for choice in choices}


def _each_alone(graph: Graph, request: PlanRequest, error: LoweringError) -> dict[str, Answer]:
    """Returns one answer per op: a refusal if any of its uses is refused.

    An op may be refused for its place in the model alone; then ``error`` says so.
    """
    answers: dict[str, Answer] = {}
    for use in uses_in(graph):
        answer = _answer(use, graph.dtype, request, graph.own_ops)
        known = answers.get(use.op, answer)
        operators = tuple(sorted({*known.operators, *answer.operators}))
        refusal = known.refusal or answer.refusal
        answers[use.op] = Answer(operators, answer.reason, refusal)
    culprit = error.message.partition(" ")[0]
    if culprit in answers and answers[culprit].refusal is None:
        answers[culprit] = Answer(refusal=_anonymous(error, request))
    return answers


def _answer(use: OpUse, dtype: DType, request: PlanRequest, own_ops: Mapping[str, OpDef]) -> Answer:
    ops = {**OPS, **own_ops}
    refusal = ops[use.op].lowerings[request.target.lowering].refusal
    if refusal is not None:
        return Answer(refusal=refusal)
    try:
        plan = plan_engine(probe_graph(use, dtype, own_ops), request)
    except LoweringError as error:
        if error.where == str(AROUND) and use.op != "linear":
            return Answer(refusal="not tried, because not even a linear can be carried out")
        return Answer(refusal=_anonymous(error, request))
    return _of_plan(plan, ops)[use.op]


def _anonymous(error: LoweringError, request: PlanRequest) -> str:
    return re.sub(rf"\b{re.escape(request.target.device)}\b", "the device", error.message)


def _request(device: DeviceSpec, api: InfiniCoreApi) -> PlanRequest:
    """What a plan of the device is made for; nothing is emitted from it.

    Raises:
        InfiniCoreError: The release does not know the device.
    """
    target = TargetPlan(
        name=device.name,
        device=device.infinicore,
        enumerator=api.device_constant(device.infinicore),
        lowering=device.lowering,
        release=api.release,
        emulated=not device.is_host,
        infinicore="embedded",
    )
    return PlanRequest(
        module_name="support",
        architecture="support",
        target=target,
        api=api,
        transpose_linear_weights=device.transpose_linear_weights,
        ignored_tensors=(),
        spec_facts={},
        digests={},
    )
