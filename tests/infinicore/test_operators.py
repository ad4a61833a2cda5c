"""Operators and forms that only release 2026-08 has, on CPU."""

from __future__ import annotations

import numpy as np
import pytest

from tests.infinicore import parity, reference
from tests.infinicore.abi import BAD_PARAM, DTYPES, SUCCESS
from tests.infinicore.parity import FLOATS, SIZES, normal, wide
from tests.infinicore.reference import assert_within, rounding

pytestmark = pytest.mark.compile


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("index", ["i32", "i64"])
@pytest.mark.parametrize("shape", [(), (1,), (19,), (3, 5)])
def test_embedding(library, dtype, index, shape):
    weight = normal(1, (111, 19), dtype)
    ids = np.random.default_rng(2).integers(0, 111, shape).astype(DTYPES[index])
    out = np.zeros((*shape, 19), DTYPES[dtype])
    library.call("embedding", output=out, input=ids, weight=weight)
    np.testing.assert_array_equal(out, weight[ids])


def test_embedding_reports_an_id_outside_the_table(library, capfd):
    weight = normal(1, (7, 3), "f32")
    for bad in (7, -1):
        ids = np.array([2, bad, 3])
        out = np.full((3, 3), 5, np.float32)
        assert library.status("embedding", output=out, input=ids, weight=weight) == BAD_PARAM
        np.testing.assert_array_equal(out[[0, 2]], weight[[2, 3]])
        assert (out[1] == 5).all()
        assert f"embedding: id {bad} of 7" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("dtype", "weight"), [(d, d) for d in (*FLOATS, "f64")] + [("bf16", "f32"), ("f16", "bf16")]
)
@pytest.mark.parametrize("size", SIZES)
def test_add_rms_norm(library, dtype, weight, size):
    a, b = normal(1, (5, 3, size), dtype), normal(2, (5, 3, size), dtype)
    w = normal(3, (size,), weight)
    y, total = np.empty_like(a), np.empty_like(a)
    arguments = {"a": a, "b": b, "weight": w, "epsilon": 1e-2}
    library.call("add_rms_norm", y=y, residual_out=total, **arguments)
    exact = wide(a) + wide(b)
    inner = "f64" if dtype == "f64" else "f32"
    assert_within(total, exact, rounding(exact, dtype) + rounding(exact, inner))
    mean = np.mean(exact**2, axis=-1, keepdims=True)
    expected = wide(total) * wide(w) / np.sqrt(mean + np.float64(np.float32(1e-2)))
    limit = rounding(expected, inner, 8 + np.sqrt(size)) + rounding(expected, dtype)
    assert_within(y, expected, limit)
    library.call("add_rms_norm", y=y, residual_out=a, **arguments)  # onto an addend
    np.testing.assert_array_equal(a, total)
    assert_within(y, expected, limit)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("algo", [0, 1])
def test_rope_with_a_batch(library, dtype, algo):
    x = normal(1, (3, 4, 2, 38), dtype)
    shared = np.array([5, 0, 199, 7])
    own = np.random.default_rng(2).integers(0, 200, (3, 4))
    for positions in (shared, own):
        parity.check_rope(library, x, positions, dtype, algo, np.empty_like(x))
    packed = normal(3, (3, 4, 6, 38), dtype)[:, :, 1:3]
    parity.check_rope(library, packed.copy(), own, dtype, algo, packed)
    one = own[:1]
    parity.check_rope(library, x[:1], one, dtype, algo, np.empty_like(x[:1]))


@pytest.mark.parametrize("dtype", [*FLOATS, "f64"])
@pytest.mark.parametrize("name", ["relu", "silu", "sigmoid"])
def test_activations(library, dtype, name):
    x = normal(1, (19, 111), dtype, 20.0)
    x[0, :4] = [0, -120, 120, -np.inf] if name != "silu" else [0, -120, 120, 90]
    y = np.empty_like(x)
    arguments = {"silu": {"output": y, "input": x}}.get(name, {"y": y, "x": x})
    library.call(name, **arguments)
    with np.errstate(over="ignore"):
        expected = {
            "relu": lambda: np.maximum(wide(x), 0),
            "silu": lambda: reference.silu(x),
            "sigmoid": lambda: 1 / (1 + np.exp(-wide(x))),
        }[name]()
    inner = rounding(expected, "f64" if dtype == "f64" else "f32", 6)
    assert_within(y, expected, inner + rounding(expected, dtype))


@pytest.mark.parametrize("dtype", [*FLOATS, "f64"])
def test_mul_scalar(library, dtype):
    x = normal(1, (7, 19), dtype)
    y = np.empty_like(x)
    library.call("mul_scalar", output=y, input=x, alpha=-0.3)
    factor = -0.3 if dtype == "f64" else np.float64(np.float32(-0.3))
    expected = wide(x) * factor
    assert_within(y, expected, rounding(expected, dtype, 2))


@pytest.mark.parametrize("dtype", ["i32", "i64"])
def test_integers_can_be_added(library, dtype):
    a = np.arange(-50, 61, dtype=DTYPES[dtype]) * 7
    c = np.empty_like(a)
    library.call("add", c=c, a=a, b=a[::-1])
    np.testing.assert_array_equal(c, a + a[::-1])


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("topk", [1, 8, 19])
@pytest.mark.parametrize("norm", [0, 1])
def test_topksoftmax(library, dtype, topk, norm):
    x = normal(1, (5, 19), dtype)
    values, indices = np.zeros((5, topk), np.float32), np.zeros((5, topk), np.int32)
    arguments = {"values": values, "indices": indices, "x": x}
    library.call("topksoftmax", topk=topk, norm=norm, **arguments)
    weights = np.exp(wide(x) - wide(x).max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    order = np.argsort(-weights, axis=-1, kind="stable")[:, :topk]
    chosen = np.take_along_axis(weights, order, -1)
    np.testing.assert_array_equal(indices, order)
    expected = chosen / chosen.sum(-1, keepdims=True) if norm else chosen
    assert_within(values, expected, rounding(expected, "f32", 40))
    assert library.status("topksoftmax", topk=20, norm=norm, **arguments) == BAD_PARAM


def test_select_last_token_hidden(library):
    hidden = normal(1, (1, 9, 5), "bf16")
    out = np.zeros((1, 3, 5), hidden.dtype)
    offsets = np.array([0, 4, 5, 9], np.int32)
    arguments = {"output": out, "hidden_states": hidden, "input_offsets": offsets}
    assert library.status("select_last_token_hidden", **arguments) == SUCCESS
    np.testing.assert_array_equal(out[0], hidden[0, [3, 4, 8]])
    offsets[3] = 10
    assert library.status("select_last_token_hidden", **arguments) == BAD_PARAM
