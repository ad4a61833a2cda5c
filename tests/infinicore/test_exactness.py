"""A row has the same bits whatever shares the call; rounding is to nearest, ties to even."""

from __future__ import annotations

import numpy as np
import pytest

from tests.infinicore.abi import DTYPES
from tests.infinicore.parity import FLOATS, normal

pytestmark = pytest.mark.compile


def bits(array: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(array).view(np.uint8)


@pytest.fixture
def threads(library):
    """Sets the number of threads of a library for one test."""
    yield library.op.qwen3_infinicore_set_num_threads
    library.op.qwen3_infinicore_set_num_threads(0)


def product(library, a, b, dtype):
    c = np.full((*a.shape[:-1], b.shape[-1]), np.nan, DTYPES[dtype])
    library.call("gemm", c=c, a=a, b=b, alpha=1.0, beta=0.0)
    return c


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize(("k", "n"), [(1, 1), (19, 111), (512, 97), (1300, 64), (2049, 19)])
@pytest.mark.parametrize("weight", [True, False])
def test_gemm_rows_do_not_depend_on_their_number(library, dtype, k, n, weight):
    a = normal(1, (200, k), dtype)
    b = normal(2, (n, k), dtype).T if weight else normal(2, (k, n), dtype)
    alone = np.concatenate([product(library, a[i : i + 1], b, dtype) for i in range(len(a))])
    for rows in (2, 3, 4, 5, 8, 16, 17, 64, 145, 200):
        together = product(library, a[:rows], b, dtype)
        np.testing.assert_array_equal(bits(together), bits(alone[:rows]), err_msg=f"{rows} rows")


@pytest.mark.parametrize("dtype", FLOATS)
def test_gemm_does_not_depend_on_layout(library, dtype):
    a, b = normal(1, (33, 700), dtype), normal(2, (700, 130), dtype)
    expected = product(library, a, b, dtype)
    columns = np.ascontiguousarray(b.T).T
    np.testing.assert_array_equal(bits(product(library, a, columns, dtype)), bits(expected))
    tall = np.ascontiguousarray(a.T).T
    np.testing.assert_array_equal(bits(product(library, tall, b, dtype)), bits(expected))
    flipped = np.empty((130, 33), DTYPES[dtype]).T
    library.call("gemm", c=flipped, a=a, b=b, alpha=1.0, beta=0.0)
    np.testing.assert_array_equal(bits(flipped), bits(expected))


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("rows", [1, 7, 40, 150])
def test_gemm_does_not_depend_on_threads_or_batch(library, threads, dtype, rows):
    a, b = normal(1, (3, rows, 600), dtype), normal(2, (3, 600, 210), dtype)
    threads(1)
    expected = product(library, a, b, dtype)
    for count in (2, 3, 5):
        threads(count)
        np.testing.assert_array_equal(bits(product(library, a, b, dtype)), bits(expected))
    for i in range(3):
        np.testing.assert_array_equal(bits(product(library, a[i], b[i], dtype)), bits(expected[i]))


@pytest.mark.parametrize("dtype", FLOATS)
def test_padding_k_with_zeros_changes_nothing(library, dtype):
    a, b = normal(1, (5, 700), dtype), normal(2, (700, 64), dtype)
    expected = product(library, a, b, dtype)
    wider = np.zeros((5, 1100), DTYPES[dtype])
    wider[:, :700] = a
    taller = np.zeros((1100, 64), DTYPES[dtype])
    taller[:700] = b
    np.testing.assert_array_equal(bits(product(library, wider, taller, dtype)), bits(expected))


@pytest.mark.parametrize("dtype", FLOATS)
def test_norms_do_not_depend_on_rows_or_threads(library, threads, dtype):
    x, w = normal(1, (70, 333), dtype), normal(2, (333,), "f32" if dtype == "f32" else dtype)
    alone = np.empty_like(x)
    threads(1)
    for i in range(len(x)):
        library.call("rms_norm", y=alone[i : i + 1], x=x[i : i + 1], w=w, epsilon=1e-6)
    threads(3)
    together = np.empty_like(x)
    library.call("rms_norm", y=together, x=x, w=w, epsilon=1e-6)
    np.testing.assert_array_equal(bits(together), bits(alone))


@pytest.mark.parametrize("dtype", FLOATS)
def test_softmax_rows_do_not_depend_on_their_number_or_padding(library, dtype):
    x = normal(1, (40, 300), dtype, 3.0)
    whole = np.empty_like(x)
    library.call("causal_softmax", y=whole, x=x)
    for first, last in [(0, 1), (3, 40), (39, 40)]:  # the row sees the same columns
        visible = 300 - 40 + last
        part = np.empty((last - first, visible), x.dtype)
        library.call("causal_softmax", y=part, x=np.ascontiguousarray(x[first:last, :visible]))
        np.testing.assert_array_equal(bits(part), bits(whole[first:last, :visible]))


def test_masked_scores_leave_the_others_alone(library):
    x = normal(1, (1, 100), "f32", 3.0)
    plain = np.empty_like(x)
    library.call("causal_softmax", y=plain, x=x)
    padded = np.full((1, 164), -1e30, np.float32)  # large and finite, as an additive mask makes
    padded[:, :100] = x
    out = np.empty_like(padded)
    library.call("causal_softmax", y=out, x=padded)
    np.testing.assert_array_equal(bits(out[:, :100].copy()), bits(plain))
    assert not out[:, 100:].any()


@pytest.mark.parametrize("dtype", ["f16", "bf16"])
def test_every_half_value_survives(library, dtype):
    values = np.arange(65536, dtype=np.uint16).view(DTYPES[dtype])
    out = np.empty_like(values)
    library.call("mul_scalar", output=out, input=values, alpha=1.0)
    nan = np.isnan(values.astype(np.float32))
    np.testing.assert_array_equal(out.view(np.uint16)[~nan], values.view(np.uint16)[~nan])
    assert np.isnan(out.astype(np.float32)[nan]).all()


@pytest.mark.parametrize("dtype", ["f16", "bf16"])
@pytest.mark.parametrize("seed", range(4))
def test_sums_of_halves_are_rounded_to_nearest_even(library, dtype, seed):
    generator = np.random.default_rng(seed)
    patterns = generator.integers(0, 65536, (2, 40001), dtype=np.uint16)
    a, b = patterns.view(DTYPES[dtype])
    with np.errstate(invalid="ignore", over="ignore"):
        expected = (a.astype(np.float32) + b.astype(np.float32)).astype(DTYPES[dtype])
    out = np.empty_like(a)
    library.call("add", c=out, a=a, b=b)
    nan = np.isnan(expected.astype(np.float32))
    np.testing.assert_array_equal(out.view(np.uint16)[~nan], expected.view(np.uint16)[~nan])
    assert np.isnan(out.astype(np.float32)[nan]).all()


@pytest.mark.parametrize("dtype", FLOATS)
def test_products_keep_infinities_and_nans(library, dtype):
    a = np.array([[1, np.inf], [0, 1]], DTYPES[dtype])
    b = np.array([[1, np.nan], [2, 1]], DTYPES[dtype])
    with np.errstate(invalid="ignore"):
        expected = a.astype(np.float32) @ b.astype(np.float32)
    np.testing.assert_array_equal(product(library, a, b, dtype).astype(np.float32), expected)
