"""The limits are a table that knows every op and dtype, and measurements are what they say."""

from __future__ import annotations

import numpy as np
import pytest

from qwen3_codegen.dtypes import DType
from qwen3_codegen.ir.ops import OPS
from qwen3_codegen.verification.limits import OP_LIMITS, UNIT, cosine_limit, op_limit, value_limit
from qwen3_codegen.verification.measure import measure

FLOATS = (DType.F32, DType.BF16, DType.F16)
ELEMENTWISE = {
    "add",
    "gelu",
    "gelu_tanh",
    "mul",
    "relu",
    "relu2",
    "scale",
    "sigmoid",
    "silu",
    "softplus",
    "tanh",
}


def test_every_op_has_a_limit_on_purpose():
    """A new op gets a row, or is added to the elementwise ones here, which share one."""
    assert set(OPS) - set(OP_LIMITS) == ELEMENTWISE
    assert set(OP_LIMITS) <= set(OPS)
    assert all(row.reason for row in OP_LIMITS.values())


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("lowering", ["portable", "native"])
def test_limits_are_round_off_and_no_more(dtype, lowering):
    for op in OPS:
        limit = op_limit(op, dtype, lowering, num_terms=2048)
        unit = UNIT[dtype]
        exact = op in ("embedding", "reshape", "split", "concat", "gather_rows")
        assert limit == 0 if exact else unit <= limit
        # No op of a float32 engine may be off by a thousandth of what half precision rounds.
        assert limit <= (2e-4 if dtype is DType.F32 else 64 * unit)


def test_units_are_those_of_the_formats():
    assert UNIT[DType.F32] == np.finfo(np.float32).eps / 2
    assert UNIT[DType.F16] == np.finfo(np.float16).eps / 2
    assert UNIT[DType.BF16] == 2.0**-8


def test_values_of_half_precision_are_held_to_the_references_own_error():
    assert value_limit(DType.BF16, 1.0, own_error=0.1) == ("mean_abs", pytest.approx(0.15))
    name, least = value_limit(DType.BF16, 1.0, own_error=0.0)
    assert (name, least) == ("mean_abs", 2 * 2.0**-8)
    assert value_limit(DType.F32, 3.0, own_error=None) == ("max_abs", pytest.approx(6e-5))


def test_a_cosine_may_be_less_only_where_the_references_own_is():
    assert cosine_limit("native", None) == cosine_limit("native", 0.99999) == 0.9995
    assert cosine_limit("native", 0.999) == pytest.approx(1 - 2.25e-3)
    assert cosine_limit("portable", None) == 0.999


def test_a_measurement_is_relative_to_the_row():
    expected = np.array([[100.0, 1.0], [0.1, 0.05]])
    actual = expected + np.array([[0.1, 0.0], [0.0, 0.01]])
    measured = measure(actual, expected)
    assert measured.max_abs == pytest.approx(0.1)
    assert measured.max_rel == pytest.approx(0.1)  # 0.01 of 0.1, not 0.1 of 100
    assert measured.scale == 100
    assert 0.999 < measured.cosine < 1


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_infinitely_far_off(wrong):
    measured = measure(np.array([[1.0, wrong]]), np.array([[1.0, 2.0]]))
    assert measured.max_abs == measured.max_rel == measured.mean_abs == np.inf


def test_a_row_of_zeros_must_be_zeros():
    zeros = np.zeros((2, 3))
    assert measure(zeros, zeros).max_rel == 0
    assert measure(zeros + 1e-30, zeros).max_rel > 1e200
    assert measure(zeros, zeros).cosine == 1
