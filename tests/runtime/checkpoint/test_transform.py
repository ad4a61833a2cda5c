"""Weight expressions: every op against a plain NumPy or loop formulation, and strict JSON."""

from __future__ import annotations

import json
from collections.abc import Callable

import ml_dtypes
import numpy as np
import pytest

from qwen3_runtime.checkpoint.tensor import Array
from qwen3_runtime.checkpoint.transform import (
    Add,
    Concat,
    Expression,
    PermuteHalves,
    Reshape,
    Rows,
    Scale,
    Stack,
    Tensor,
    Transpose,
    evaluate,
    from_json,
    shape_of,
    tensor_names,
    to_json,
)
from qwen3_runtime.errors import CheckpointError

BF16 = np.dtype(ml_dtypes.bfloat16)

TENSORS: dict[str, Array] = {
    "layers.3.q": np.arange(24 * 5, dtype=np.float32).reshape(24, 5),
    "layers.3.k": np.arange(12 * 5, dtype=np.float32).reshape(12, 5) + 1000,
    "layers.3.half": (np.arange(6, dtype=np.float32) / 8).astype(BF16),
    "embed": np.arange(12, dtype=np.float64).reshape(3, 4),
}


def value_of(expression: Expression, layer: int | None = 3) -> Array:
    return evaluate(expression, TENSORS.__getitem__, layer)


Q, K, HALF = Tensor("layers.{layer}.q"), Tensor("layers.{layer}.k"), Tensor("layers.{layer}.half")

EVERY_OP: list[tuple[Expression, Callable[[], Array]]] = [
    (Q, lambda: TENSORS["layers.3.q"]),
    (Rows(Q, 4, 7), lambda: TENSORS["layers.3.q"][4:11]),
    (Concat((Q, K)), lambda: np.vstack([TENSORS["layers.3.q"], TENSORS["layers.3.k"]])),
    (
        Concat((Rows(Q, 0, 12), K), axis=1),
        lambda: np.hstack([TENSORS["layers.3.q"][:12], TENSORS["layers.3.k"]]),
    ),
    (Stack((K, K)), lambda: np.array([TENSORS["layers.3.k"]] * 2)),
    (Add(K, 1.0), lambda: np.add(TENSORS["layers.3.k"], 1)),
    (Scale(K, 0.3), lambda: np.multiply(TENSORS["layers.3.k"], np.float32(0.3))),
    (Transpose(Q), lambda: np.transpose(TENSORS["layers.3.q"])),
    (Reshape(Q, (2, 60)), lambda: TENSORS["layers.3.q"].reshape(2, 60)),
    (PermuteHalves(Q, 8, 8), lambda: interleaved_by_loop(TENSORS["layers.3.q"], 8, 8)),
    (PermuteHalves(Q, 8, 6), lambda: interleaved_by_loop(TENSORS["layers.3.q"], 8, 6)),
    (PermuteHalves(HALF, 6, 4), lambda: interleaved_by_loop(TENSORS["layers.3.half"], 6, 4)),
    (
        Concat((PermuteHalves(Scale(Q, 2.0), 12, 4), Rows(K, 3, 1))),
        lambda: np.vstack(
            [interleaved_by_loop(TENSORS["layers.3.q"] * 2, 12, 4), TENSORS["layers.3.k"][3:4]]
        ),
    ),
]


def interleaved_by_loop(array: Array, head_dim: int, rotary_dim: int) -> Array:
    """Row 2i of a head comes from row i, row 2i + 1 from row i + rotary_dim / 2."""
    result: Array = array.copy()
    for head in range(0, len(array), head_dim):
        for pair in range(rotary_dim // 2):
            result[head + 2 * pair] = array[head + pair]
            result[head + 2 * pair + 1] = array[head + pair + rotary_dim // 2]
    return result


@pytest.mark.parametrize(("expression", "expected"), EVERY_OP)
def test_evaluate_gives_numpys_result(
    expression: Expression, expected: Callable[[], Array]
) -> None:
    np.testing.assert_array_equal(value_of(expression), expected())


@pytest.mark.parametrize("expression", [row[0] for row in EVERY_OP])
def test_shape_of_predicts_evaluate(expression: Expression) -> None:
    assert shape_of(expression, lambda name: TENSORS[name].shape, 3) == value_of(expression).shape


@pytest.mark.parametrize("expression", [row[0] for row in EVERY_OP])
def test_json_survives_a_round_trip_through_text(expression: Expression) -> None:
    assert from_json(json.loads(json.dumps(to_json(expression)))) == expression


def test_every_op_of_the_language_is_tested() -> None:
    tested = {to_json(expression)["op"] for expression, _ in EVERY_OP}
    assert tested == {
        "tensor", "rows", "concat", "stack", "add", "scale", "transpose", "permute_halves",
        "reshape",
    }  # fmt: skip


def test_permuted_rows_rotate_interleaved_as_the_originals_rotate_by_halves() -> None:
    head = np.random.default_rng(0).standard_normal(8)
    angles = np.array([0.3, 1.1, 2.0])
    cos, sin = np.cos(angles), np.sin(angles)
    first, second = head[:3], head[3:6]
    by_halves = np.concatenate([first * cos - second * sin, second * cos + first * sin, head[6:]])
    permuted = evaluate(PermuteHalves(Tensor("head"), 8, 6), lambda _: head, None)
    even, odd = permuted[0:6:2], permuted[1:6:2]
    interleaved = permuted.copy()
    interleaved[0:6:2], interleaved[1:6:2] = even * cos - odd * sin, odd * cos + even * sin
    restored = np.concatenate([interleaved[0:6:2], interleaved[1:6:2], interleaved[6:]])
    np.testing.assert_allclose(restored, by_halves, rtol=1e-15)


def test_moving_elements_keeps_their_dtype() -> None:
    for expression in (Rows(HALF, 1, 2), Concat((HALF, HALF)), PermuteHalves(HALF, 6, 6)):
        assert value_of(expression).dtype == BF16


def test_arithmetic_on_halves_gives_float32_and_on_doubles_float64() -> None:
    third = 1 / 3
    scaled = value_of(Scale(HALF, third))
    assert scaled.dtype == np.float32
    np.testing.assert_array_equal(
        scaled, TENSORS["layers.3.half"].astype(np.float32) * np.float32(third)
    )
    assert value_of(Add(HALF, 1.0)).dtype == np.float32
    assert value_of(Add(Tensor("embed"), 1.0)).dtype == np.float64


def test_joining_different_dtypes_widens_exactly() -> None:
    both = value_of(Concat((HALF, Reshape(Rows(K, 0, 1), (5,)))))
    assert both.dtype == np.float32
    np.testing.assert_array_equal(both[:6], TENSORS["layers.3.half"].astype(np.float32))


def test_evaluate_never_writes_to_a_tensor() -> None:
    source = np.arange(8, dtype=np.float32)
    source.flags.writeable = False
    for expression in (Add(Tensor("w"), 1.0), Scale(Tensor("w"), 2.0)):
        evaluate(PermuteHalves(expression, 4, 4), lambda _: source, None)
    np.testing.assert_array_equal(source, np.arange(8))


def test_tensor_names_fill_in_the_layer_and_occur_once() -> None:
    assert tensor_names(Concat((Q, Add(K, 1.0), Q)), 3) == ["layers.3.q", "layers.3.k"]
    assert tensor_names(Tensor("a{b}.{layer}%s"), 12) == ["a{b}.12%s"]


def test_a_layers_tensor_outside_the_layers_is_an_error() -> None:
    with pytest.raises(CheckpointError, match="outside the layers"):
        tensor_names(Q, None)
    with pytest.raises(CheckpointError, match="outside the layers"):
        value_of(Q, None)


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        (Rows(Q, 20, 5), "rows beyond the source"),
        (Concat((Q, Transpose(K))), "do not join"),
        (Concat((Q, Reshape(K, (60,)))), "do not join"),
        (Concat((Q, K), axis=2), "do not join"),
        (Concat(()), "concat of nothing"),
        (Stack((Q, K)), "unequal shapes"),
        (Transpose(HALF), "no matrix"),
        (Reshape(Q, (7, 7)), "another number of elements"),
        (PermuteHalves(Q, 7, 4), "permuted per head"),
        (PermuteHalves(Q, 8, 10), "permuted per head"),
        (PermuteHalves(Q, 8, 5), "permuted per head"),
    ],
)
def test_an_op_that_does_not_fit_is_named_before_and_while_reading(
    expression: Expression, message: str
) -> None:
    with pytest.raises(CheckpointError, match=message):
        shape_of(expression, lambda name: TENSORS[name].shape, 3)
    with pytest.raises(CheckpointError, match=message):
        value_of(expression)


@pytest.mark.parametrize(
    ("obj", "message"),
    [
        (None, "not an object"),
        ([], "not an object"),
        ({"op": "eval", "source": {}}, "unknown op"),
        ({"op": ["tensor"], "name": "w"}, "unknown op"),
        ({"op": "tensor"}, "wrong keys"),
        ({"op": "tensor", "name": "w", "axis": 0}, "wrong keys"),
        ({"op": "tensor", "name": 3}, "wrong value of 'name'"),
        ({"op": "tensor", "name": ""}, "wrong value of 'name'"),
        ({"op": "concat", "sources": [], "axis": 0}, "wrong value of 'sources'"),
        ({"op": "concat", "sources": {"op": "tensor"}, "axis": 0}, "wrong value of 'sources'"),
        ({"op": "stack", "sources": [1]}, "not an object"),
        ({"op": "rows", "source": {"op": "tensor", "name": "w"}, "start": -1, "count": 1}, "start"),
        ({"op": "rows", "source": {"op": "tensor", "name": "w"}, "start": 0, "count": 0}, "count"),
        (
            {"op": "rows", "source": {"op": "tensor", "name": "w"}, "start": True, "count": 1},
            "start",
        ),
        ({"op": "scale", "source": {"op": "tensor", "name": "w"}, "factor": "2"}, "factor"),
        ({"op": "scale", "source": {"op": "tensor", "name": "w"}, "factor": True}, "factor"),
        (
            {"op": "add", "source": {"op": "tensor", "name": "w"}, "value": float("inf")},
            "wrong value of 'value'",
        ),
        ({"op": "reshape", "source": {"op": "tensor", "name": "w"}, "shape": [2, -1]}, "shape"),
        ({"op": "reshape", "source": {"op": "tensor", "name": "w"}, "shape": 4}, "shape"),
    ],
)
def test_from_json_refuses_what_to_json_never_writes(obj: object, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        from_json(obj)


def test_from_json_refuses_a_bottomless_nest() -> None:
    obj: dict[str, object] = {"op": "tensor", "name": "w"}
    for _ in range(10_000):
        obj = {"op": "transpose", "source": obj}
    with pytest.raises(CheckpointError, match="nested too deeply"):
        from_json(obj)
