"""Rules of the op table: every row types its own inputs and refuses others with a reason."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qwen3_codegen.dtypes import DType
from qwen3_codegen.frontend.emitters import EMITTERS
from qwen3_codegen.ir.graph import NUM_LOGIT_ROWS, NUM_TOKENS, ValueType
from qwen3_codegen.ir.ops import OPS, OpRuleError
from qwen3_codegen.ir.ops.activation import ACTIVATIONS
from qwen3_codegen.ir.ops.page import render_page
from qwen3_codegen.ir.ops.step import RopeAngles, Step
from qwen3_codegen.paths import cpp_dir
from qwen3_codegen.plan.native.lowerings import LOWERINGS as NATIVE_LOWERINGS
from qwen3_codegen.plan.portable.lowerings import LOWERINGS
from qwen3_codegen.spec import functions as spec_functions

T = NUM_TOKENS
ROOT = Path(__file__).parents[2]

NORM = {"eps": 1e-6, "offset": 0.0}
GOOD: dict[str, tuple[dict[str, tuple[Any, ...]], dict[str, Any], tuple[tuple[Any, ...], ...]]] = {
    "embedding": ({"ids": (T,), "weight": (9, 4)}, {}, ((T, 4),)),
    "linear": (
        {"x": (T, 4), "weight": (3, 4), "bias": (3,), "residual": (T, 3)},
        {"alpha": 1.0},
        ((T, 3),),
    ),
    "rms_norm": ({"x": (T, 2, 4), "weight": (4,)}, NORM, ((T, 2, 4),)),
    "layer_norm": ({"x": (T, 4), "weight": (4,), "bias": (4,)}, {"eps": 1e-6}, ((T, 4),)),
    "l2_norm": ({"x": (T, 2, 4)}, {"eps": 1e-6}, ((T, 2, 4),)),
    "rope": ({"x": (T, 2, 4)}, {"table": "rope"}, ((T, 2, 4),)),
    "attention": (
        {"q": (T, 4, 6), "k": (T, 2, 6), "v": (T, 2, 5)},
        {"scale": 1.0, "window": None, "softcap": None},
        ((T, 4, 5),),
    ),
    "rotary_attention": (
        {"q": (T, 4, 6), "k": (T, 2, 6), "v": (T, 2, 5), "q_norm": (6,), "k_norm": (6,)},
        {"scale": 1.0, "window": None, "softcap": None, "table": "rope", "eps": 1e-6},
        ((T, 4, 5),),
    ),
    "add": ({"a": (T, 4), "b": (T, 4)}, {}, ((T, 4),)),
    "mul": ({"a": (T, 4), "b": (T, 1)}, {}, ((T, 4),)),
    "scale": ({"x": (T, 4)}, {"factor": 2.0}, ((T, 4),)),
    **{name: ({"x": (T, 4)}, {}, ((T, 4),)) for name in ACTIVATIONS},
    "swiglu": ({"gate": (T, 4), "up": (T, 4)}, {}, ((T, 4),)),
    "reshape": ({"x": (T, 2, 6)}, {"shape": (3, 4)}, ((T, 3, 4),)),
    "split": ({"x": (T, 6)}, {"sizes": (2, 4)}, ((T, 2), (T, 4))),
    "concat": ({"x0": (T, 2), "x1": (T, 5)}, {}, ((T, 7),)),
    "gather_rows": ({"x": (T, 4)}, {}, ((NUM_LOGIT_ROWS, 4),)),
    "moe": (
        {"x": (T, 4), "router": (3, 4), "gate": (3, 5, 4), "up": (3, 5, 4), "down": (3, 4, 5)},
        {"top_k": 2, "normalize": True, "activation": "silu"},
        ((T, 4),),
    ),
    "causal_conv1d": ({"x": (T, 6), "weight": (6, 4)}, {"activation": "silu"}, ((T, 6),)),
    "gated_delta_net": (
        {
            "q": (T, 2, 4),
            "k": (T, 2, 4),
            "v": (T, 6, 3),
            "a": (T, 6),
            "b": (T, 6),
            "a_log": (6,),
            "dt_bias": (6,),
        },
        {"scale": 1.0},
        ((T, 6, 3),),
    ),
}


def types(op: str, shapes: dict[str, tuple[Any, ...]], dtype: DType) -> dict[str, ValueType]:
    elements = {"activation": dtype, "float32": DType.F32, "int32": DType.I32}
    found = {}
    for name, shape in shapes.items():
        role = OPS[op].role_of(name)
        element = dtype if role is None else elements[role.element.value]
        found[name] = ValueType(shape, element)
    return found


def test_every_op_has_an_example() -> None:
    assert set(GOOD) == set(OPS)


@pytest.mark.parametrize("dtype", [DType.F32, DType.BF16])
@pytest.mark.parametrize("op", GOOD)
def test_good_inputs_are_typed(op: str, dtype: DType) -> None:
    shapes, attributes, results = GOOD[op]
    found = OPS[op].infer(types(op, shapes, dtype), attributes)
    assert found == tuple(ValueType(shape, dtype) for shape in results)


@pytest.mark.parametrize("op", GOOD)
def test_references_give_the_shapes_of_the_rule(op: str) -> None:
    shapes, attributes, results = GOOD[op]
    rows = {T: 5, NUM_LOGIT_ROWS: 2}
    rng = np.random.default_rng(0)
    inputs = {}
    for name, shape in shapes.items():
        sizes = tuple(rows.get(dim, dim) for dim in shape)
        integers = types(op, shapes, DType.F32)[name].dtype is DType.I32
        inputs[name] = rng.integers(0, 3, sizes) if integers else rng.standard_normal(sizes)
        inputs[name] = inputs[name].astype(np.int32 if integers else np.float32)
    angles = RopeAngles(
        cos=np.ones((5, 2), np.float32),
        sin=np.zeros((5, 2), np.float32),
        rotary_dim=4,
        interleaved=False,
    )
    step = Step(
        query_lens=(5,),
        seq_lens=(5,),
        logit_rows=np.array([0, 4]),
        rope={"rope": angles},
        state_of=lambda _: {},
    )
    found = OPS[op].reference(inputs, attributes, step)
    arrays = found if isinstance(found, tuple) else (found,)
    for array, shape in zip(arrays, results, strict=True):
        assert array.shape == tuple(rows.get(dim, dim) for dim in shape)
        assert array.dtype == np.float32, "a reference computes in the dtype of its inputs"


@pytest.mark.parametrize("op", GOOD)
def test_a_missing_or_unknown_input_is_refused(op: str) -> None:
    shapes, attributes, _ = GOOD[op]
    good = types(op, shapes, DType.F32)
    with pytest.raises(OpRuleError, match="unknown input 'nonsense'"):
        OPS[op].infer({**good, "nonsense": ValueType((T,), DType.F32)}, attributes)
    for role in OPS[op].roles:
        if role.required:
            rest = {name: type_ for name, type_ in good.items() if OPS[op].role_of(name) != role}
            with pytest.raises(OpRuleError, match=f"input '{role.name}' is missing"):
                OPS[op].infer(rest, attributes)


@pytest.mark.parametrize("op", GOOD)
def test_a_missing_unknown_or_ill_typed_attribute_is_refused(op: str) -> None:
    shapes, attributes, _ = GOOD[op]
    good = types(op, shapes, DType.F32)
    with pytest.raises(OpRuleError, match="unknown attribute 'nonsense'"):
        OPS[op].infer(good, {**attributes, "nonsense": 1})
    for name in attributes:
        rest = {key: value for key, value in attributes.items() if key != name}
        with pytest.raises(OpRuleError, match=f"attribute '{name}' is missing"):
            OPS[op].infer(good, rest)
        for wrong in (b"", [1], float("nan"), ("a",)):
            with pytest.raises(OpRuleError, match=f"attribute '{name}' has the wrong type"):
                OPS[op].infer(good, {**attributes, name: wrong})  # type: ignore[dict-item]


@pytest.mark.parametrize("op", GOOD)
def test_other_dtypes_are_refused(op: str) -> None:
    shapes, attributes, _ = GOOD[op]
    for name, type_ in types(op, shapes, DType.BF16).items():
        wrong = DType.I32 if type_.dtype is not DType.I32 else DType.F32
        changed = {**types(op, shapes, DType.BF16), name: ValueType(type_.shape, wrong)}
        with pytest.raises(OpRuleError, match="dtype"):
            OPS[op].infer(changed, attributes)


def test_one_node_has_one_activation_dtype() -> None:
    shapes, attributes, _ = GOOD["linear"]
    mixed = types("linear", shapes, DType.BF16) | {"weight": ValueType((3, 4), DType.F16)}
    with pytest.raises(OpRuleError, match="inputs differ in dtype") as caught:
        OPS["linear"].infer(mixed, attributes)
    assert "x bfloat16, weight float16" in str(caught.value.got)


WRONG_SHAPES = [
    ("embedding", {"weight": (9,)}, {}, "wrong number of dimensions"),
    ("linear", {"x": (T, 5)}, {}, "input 'weight' has the wrong shape"),
    ("linear", {"x": (T, 2, 2)}, {}, "input 'x' has the wrong number of dimensions"),
    ("linear", {"bias": (4,)}, {}, "input 'bias' has the wrong shape"),
    ("linear", {"residual": (T, 4)}, {}, "input 'residual' has the wrong shape"),
    ("linear", {"residual": (NUM_LOGIT_ROWS, 3)}, {}, "input 'residual' has the wrong shape"),
    ("rms_norm", {"weight": (2,)}, {}, "input 'weight' has the wrong shape"),
    ("rms_norm", {}, {"eps": 0.0}, "attribute 'eps' is out of range"),
    ("layer_norm", {"bias": (2,)}, {}, "input 'bias' has the wrong shape"),
    ("rope", {"x": (T, 8)}, {}, "wrong number of dimensions"),
    ("attention", {"k": (T, 2, 4)}, {}, "q and k do not fit each other"),
    ("attention", {"v": (T, 4, 6)}, {}, "k and v do not fit each other"),
    ("attention", {"q": (T, 3, 6)}, {}, "do not divide the query heads"),
    ("attention", {}, {"window": 0}, "attribute 'window' is out of range"),
    ("attention", {}, {"window": True}, "attribute 'window' has the wrong type"),
    ("attention", {}, {"scale": 1}, "attribute 'scale' has the wrong type"),
    ("add", {"b": (T, 1)}, {}, "input 'b' has the wrong shape"),
    ("mul", {"b": (T, 2)}, {}, "factors do not fit each other"),
    ("swiglu", {"up": (T, 1)}, {}, "input 'up' has the wrong shape"),
    ("reshape", {}, {"shape": (3, 5)}, "another number of elements"),
    ("reshape", {}, {"shape": (-3, -4)}, "attribute 'shape' is out of range"),
    ("split", {}, {"sizes": (2, 3)}, "do not add up"),
    ("concat", {"x1": (NUM_LOGIT_ROWS, 5)}, {}, "does not fit the others"),
    ("gather_rows", {"x": (NUM_LOGIT_ROWS, 4)}, {}, "only rows of tokens"),
    ("moe", {"router": (4, 4)}, {}, "input 'router' has the wrong shape"),
    ("moe", {"down": (3, 5, 4)}, {}, "input 'down' has the wrong shape"),
    ("moe", {}, {"top_k": 4}, "more experts per token"),
    ("causal_conv1d", {"weight": (4, 6)}, {}, "input 'weight' has the wrong shape"),
    ("gated_delta_net", {"k": (T, 2, 3)}, {}, "input 'k' has the wrong shape"),
    ("gated_delta_net", {"v": (T, 5, 3)}, {}, "do not divide the value heads"),
    ("gated_delta_net", {"a": (T, 2)}, {}, "input 'a' has the wrong shape"),
    ("gated_delta_net", {"dt_bias": (2,)}, {}, "input 'dt_bias' has the wrong shape"),
]


@pytest.mark.parametrize(("op", "shapes", "attributes", "message"), WRONG_SHAPES)
def test_wrong_shapes_are_refused(
    op: str, shapes: dict[str, Any], attributes: dict[str, Any], message: str
) -> None:
    good_shapes, good_attributes, _ = GOOD[op]
    with pytest.raises(OpRuleError, match=message):
        OPS[op].infer(
            types(op, {**good_shapes, **shapes}, DType.F32), {**good_attributes, **attributes}
        )


def test_inputs_of_concat_are_numbered() -> None:
    wrong = types("concat", {"x0": (T, 2), "x2": (T, 2)}, DType.F32)
    with pytest.raises(OpRuleError, match="not numbered from 0"):
        OPS["concat"].infer(wrong, {})


def test_statement_functions_and_ops_agree() -> None:
    assert set(EMITTERS) == set(spec_functions.FUNCTIONS)
    assert set(spec_functions.ACTIVATIONS) == set(ACTIVATIONS)
    inserted = {"add", "mul", "scale", "swiglu", "gather_rows", "rotary_attention"}
    assert set(OPS) - set(EMITTERS) == inserted


def test_the_portable_lowering_does_what_the_table_says() -> None:
    promised = {name for name, op in OPS.items() if op.lowerings["portable"].refusal is None}
    assert promised == set(LOWERINGS)


def test_the_native_lowering_does_what_the_table_says() -> None:
    promised = {name for name, op in OPS.items() if op.lowerings["native"].refusal is None}
    assert promised == set(NATIVE_LOWERINGS)


def test_native_kernels_are_classes_of_the_header() -> None:
    header = (cpp_dir() / "engine" / "native" / "ops.hpp").read_text(encoding="utf-8")
    classes = set(re.findall(r"^template <class T[^;{]*>\nstruct (\w+) \{", header, re.MULTILINE))
    assert classes == {name for op in OPS.values() for name in op.lowerings["native"].operators}


def test_the_op_page_is_up_to_date() -> None:
    page = (ROOT / "docs" / "ops.md").read_text(encoding="utf-8")
    assert page == render_page(), "python -m qwen3_codegen.ir.ops.page > docs/ops.md"
