"""Statement functions to nodes: one emitter for each function of the spec language."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TypeAlias

from qwen3_codegen.dtypes import DType
from qwen3_codegen.errors import nearest
from qwen3_codegen.frontend.call import CallSite
from qwen3_codegen.ir.graph import AttributeValue, Value
from qwen3_codegen.ir.ops.activation import ACTIVATIONS

__all__ = ["EMITTERS", "Emitter"]

Emitter: TypeAlias = Callable[[CallSite], tuple[Value, ...]]


def _embedding(call: CallSite) -> tuple[Value, ...]:
    (ids,) = call.inputs
    shape = call.sizes("size")
    if len(shape) != 2:
        raise call.fail("wrong size", got=list(shape), expected="[vocab_size, hidden_size]")
    weight = call.weight("weight", shape)
    return call.emit("embedding", {"ids": ids, "weight": weight}, name=weight.name)


def _linear(call: CallSite) -> tuple[Value, ...]:
    out = call.sizes("out")
    x = call.matrix(call.inputs[0])
    features = math.prod(out)
    inputs = {"x": x, "weight": call.weight("weight", (features, call.last_size(x)))}
    if call.flag("bias"):
        inputs["bias"] = call.weight("weight", (features,), suffix=".bias")
    name, attributes = inputs["weight"].name, {"alpha": 1.0}
    if len(out) == 1:
        return call.emit("linear", inputs, attributes, name=name)
    flat = call.emit_inner("linear", inputs, attributes, name)
    return call.emit("reshape", {"x": flat}, {"shape": out}, name=name)


def _rms_norm(call: CallSite) -> tuple[Value, ...]:
    (x,) = call.inputs
    weight = call.weight("weight", (call.last_size(x),), dtype=DType.F32)
    attributes = {"eps": call.number("eps"), "offset": call.number("offset")}
    return call.emit("rms_norm", {"x": x, "weight": weight}, attributes, name=weight.name)


def _layer_norm(call: CallSite) -> tuple[Value, ...]:
    (x,) = call.inputs
    shape = (call.last_size(x),)
    inputs = {"x": x, "weight": call.weight("weight", shape, dtype=DType.F32)}
    if call.flag("bias"):
        inputs["bias"] = call.weight("weight", shape, suffix=".bias", dtype=DType.F32)
    name = inputs["weight"].name
    return call.emit("layer_norm", inputs, {"eps": call.number("eps")}, name=name)


def _l2_norm(call: CallSite) -> tuple[Value, ...]:
    return call.emit("l2_norm", {"x": call.inputs[0]}, {"eps": call.number("eps")})


def _rope(call: CallSite) -> tuple[Value, ...]:
    if call.scope.evaluate(call.arguments["table"]) is None:
        return call.inputs
    name = call.text("table")
    table = call.spec.rope.get(name)
    if table is None:
        raise call.fail(
            f"there is no rope table '{name}'",
            expected=", ".join(call.spec.rope) or "a table under 'rope:'",
            hint=nearest(name, call.spec.rope),
        )
    for value in call.inputs:
        if len(value.type.shape) == 3 and table.rotary_dim > call.last_size(value):
            raise call.fail(
                f"table '{name}' rotates more than '{value.name}' has per head",
                got=f"rotary_dim {table.rotary_dim}",
                expected=f"at most {call.last_size(value)}",
            )
    targets = call.targets or ("rope",) * len(call.inputs)
    if len(targets) != len(call.inputs):
        raise call.fail(
            "has the wrong number of targets", got=len(targets), expected=len(call.inputs)
        )
    return tuple(
        call.emit_inner("rope", {"x": value}, {"table": name}, target)
        for value, target in zip(call.inputs, targets, strict=True)
    )


def _attention(call: CallSite) -> tuple[Value, ...]:
    inputs = dict(zip(("q", "k", "v"), call.inputs, strict=True))
    attributes = {
        "scale": call.number("scale"),
        "window": call.optional_size("window"),
        "softcap": call.optional_number("softcap"),
    }
    return call.emit("attention", inputs, attributes)


def _reshape(call: CallSite) -> tuple[Value, ...]:
    return call.emit("reshape", {"x": call.inputs[0]}, {"shape": call.sizes("shape")})


def _split(call: CallSite) -> tuple[Value, ...]:
    sizes = call.sizes("sizes")
    if len(call.targets) != len(sizes):
        raise call.fail(
            "gives one result per part",
            got=f"{len(call.targets)} targets",
            expected=f"{len(sizes)}, as in 'a, b = split(x, [n, m])'",
        )
    return call.emit("split", {"x": call.inputs[0]}, {"sizes": sizes})


def _concat(call: CallSite) -> tuple[Value, ...]:
    return call.emit("concat", {f"x{index}": value for index, value in enumerate(call.inputs)})


def _activation(name: str) -> Emitter:
    return lambda call: call.emit(name, {"x": call.inputs[0]})


def _activation_name(call: CallSite) -> str:
    name = call.text("activation")
    if name not in ACTIVATIONS:
        raise call.fail(
            f"unknown activation '{name}'",
            expected=", ".join(ACTIVATIONS),
            hint=nearest(name, ACTIVATIONS),
        )
    return name


def _moe(call: CallSite) -> tuple[Value, ...]:
    x = call.matrix(call.inputs[0])
    experts, intermediate = call.size("num_experts"), call.size("intermediate")
    hidden = call.last_size(x)
    inputs = {
        "x": x,
        "router": call.weight("router", (experts, hidden)),
        "gate": call.weight("gate", (experts, intermediate, hidden)),
        "up": call.weight("up", (experts, intermediate, hidden)),
        "down": call.weight("down", (experts, hidden, intermediate)),
    }
    attributes: dict[str, AttributeValue] = {
        "top_k": call.size("top_k"),
        "normalize": call.flag("normalize"),
        "activation": _activation_name(call),
    }
    return call.emit("moe", inputs, attributes)


def _causal_conv1d(call: CallSite) -> tuple[Value, ...]:
    (x,) = call.inputs
    channels, kernel = call.last_size(x), call.size("kernel")
    weight = call.weight("weight", (channels, kernel), stored=(channels, 1, kernel))
    attributes = {"activation": _activation_name(call)}
    return call.emit("causal_conv1d", {"x": x, "weight": weight}, attributes)


def _gated_delta_net(call: CallSite) -> tuple[Value, ...]:
    inputs = dict(zip(("q", "k", "v", "a", "b"), call.inputs, strict=True))
    heads = (call.last_size(inputs["a"]),)
    for role in ("a_log", "dt_bias"):
        inputs[role] = call.weight(role, heads, dtype=DType.F32)
    scale = call.last_size(inputs["q"]) ** -0.5
    return call.emit("gated_delta_net", inputs, {"scale": scale})


EMITTERS: Mapping[str, Emitter] = {
    "embedding": _embedding,
    "linear": _linear,
    "rms_norm": _rms_norm,
    "layer_norm": _layer_norm,
    "l2_norm": _l2_norm,
    "rope": _rope,
    "attention": _attention,
    "reshape": _reshape,
    "split": _split,
    "concat": _concat,
    **{name: _activation(name) for name in ACTIVATIONS},
    "moe": _moe,
    "causal_conv1d": _causal_conv1d,
    "gated_delta_net": _gated_delta_net,
}
"""By the names of ``qwen3_codegen.spec.functions.FUNCTIONS``."""
