"""The embedded library and the one built from the registry compute the same things.

Where the real library is wrong the test says so: float32 products read c at beta 0, and binary16
results are truncated.
"""

from __future__ import annotations

import numpy as np
import pytest

from tests.infinicore import parity
from tests.infinicore.abi import SUCCESS, Library
from tests.infinicore.conftest import embedded
from tests.infinicore.parity import FLOATS, SIZES, normal

pytestmark = pytest.mark.compile


@pytest.fixture(
    scope="module",
    params=["embedded", pytest.param("registry", marks=pytest.mark.network)],
)
def either(request: pytest.FixtureRequest) -> Library:
    """The embedded library of release 0.1.0, and the real one."""
    if request.param == "registry":
        return request.getfixturevalue("registry")
    return embedded(request.getfixturevalue("builder"), "0.1.0")


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("layout", list(parity.gemm_layouts(1, 1, 1, "f32")))
@pytest.mark.parametrize(("m", "k", "n"), [(1, 111, 19), (19, 64, 111), (111, 19, 1), (7, 1, 3)])
def test_gemm(either, dtype, layout, m, k, n):
    operands = parity.gemm_layouts(m, k, n, dtype)[layout]
    parity.check_gemm(either, operands, dtype=dtype)
    parity.check_gemm(either, operands, alpha=0.5, beta=-2.0, dtype=dtype)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize(("batch_a", "batch_b"), [(3, 3), (1, 3), (3, 1), (None, 3), (3, None)])
def test_gemm_batches(either, dtype, batch_a, batch_b):
    a = normal(1, (7, 19) if batch_a is None else (batch_a, 7, 19), dtype)
    b = normal(2, (19, 5) if batch_b is None else (batch_b, 19, 5), dtype)
    parity.check_gemm(either, (a, b, normal(3, (3, 7, 5), dtype)), beta=1.0, dtype=dtype)


@pytest.mark.parametrize(
    ("dtype", "weight"),
    [(d, d) for d in (*FLOATS, "f64")] + [("f16", "f32"), ("bf16", "f32"), ("bf16", "f16")],
)
@pytest.mark.parametrize("rows", SIZES)
@pytest.mark.parametrize("size", SIZES)
def test_rms_norm(either, dtype, weight, rows, size):
    w = normal(5, (size,), weight)
    parity.check_rms_norm(either, normal(4, (rows, size), dtype), w, dtype)
    packed = normal(6, (rows, 5, size), dtype)[:, 1:4]  # heads inside a packed row
    parity.check_rms_norm(either, packed, w, dtype)


@pytest.mark.parametrize("dtype", [*FLOATS, "f64"])
@pytest.mark.parametrize("algo", [0, 1])
@pytest.mark.parametrize("index", ["i32", "i64", "u32", "u8"])
@pytest.mark.parametrize("pairs", [1, 19, 64])
def test_rope(either, dtype, algo, index, pairs):
    positions = np.array([3, 199, 0, 17], parity.DTYPES[index])
    x = normal(7, (4, 3, 2 * pairs), dtype)
    parity.check_rope(either, x, positions, dtype, algo, np.empty_like(x))
    packed = normal(8, (4, 9, 2 * pairs), dtype)[:, 2:5]
    parity.check_rope(either, packed.copy(), positions, dtype, algo, packed)
    parity.check_rope(either, x.copy(), positions, dtype, algo, x)
    parity.check_rope(either, x, positions, dtype, algo, x)  # in place


@pytest.mark.parametrize("dtype", [*FLOATS, "f64"])
@pytest.mark.parametrize("shape", [(1,), (19, 111), (3, 5, 19), (2, 3, 4, 5)])
def test_swiglu(either, dtype, shape):
    up, gate = normal(9, shape, dtype, 3.0), normal(10, shape, dtype, 6.0)
    parity.check_swiglu(either, up, gate, np.empty_like(up))
    parity.check_swiglu(either, up.copy(), gate, up)
    parity.check_swiglu(either, up, gate.copy(), gate)
    both = normal(11, (*shape[:-1], 2 * shape[-1]), dtype, 3.0)
    halves = both[..., : shape[-1]], both[..., shape[-1] :]
    parity.check_swiglu(either, *halves, np.empty_like(up))


@pytest.mark.parametrize("dtype", [*FLOATS, "f64"])
@pytest.mark.parametrize("name", ["add", "sub", "mul"])
@pytest.mark.parametrize("shape", [(1,), (111,), (19, 111), (3, 5, 19)])
def test_arithmetic(either, dtype, name, shape):
    function = {"add": np.add, "sub": np.subtract, "mul": np.multiply}[name]
    a, b = normal(12, shape, dtype), normal(13, shape, dtype)
    bias = np.broadcast_to(normal(14, shape[-1:], dtype), shape)
    for left, right in [(a, b), (a, bias), (a.T, b.T), (a[::-1], b)]:
        expected = function(parity.wide(left), parity.wide(right))
        out = np.empty(left.shape, left.dtype)
        either.call(name, c=out, a=left, b=right)
        inner = "f64" if dtype == "f64" else "f32"
        limit = parity.rounding(expected, dtype, 1 + parity.extra_of(either, dtype))
        parity.assert_within(out, expected, limit + parity.rounding(expected, inner))
    expected = function(parity.wide(a), parity.wide(b))
    either.call(name, c=a, a=a, b=b)  # in place
    limit = parity.rounding(expected, dtype, 1 + parity.extra_of(either, dtype))
    parity.assert_within(a, expected, limit + parity.rounding(expected, inner))


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize(("seq", "total"), [(1, 1), (1, 19), (19, 19), (5, 111), (111, 130)])
def test_causal_softmax(either, dtype, seq, total):
    flat = normal(15, (seq, total), dtype, 4.0)
    parity.check_causal_softmax(either, flat, np.empty_like(flat), dtype)
    batch = normal(16, (3, seq, total), dtype, 4.0)
    parity.check_causal_softmax(either, batch, np.empty_like(batch), dtype)
    wide_rows = normal(17, (seq, 3, total + 4), dtype, 4.0).transpose(1, 0, 2)[..., :total]
    parity.check_causal_softmax(either, wide_rows, np.empty_like(batch), dtype)
    columns = normal(18, (total, seq), dtype, 4.0).T
    parity.check_causal_softmax(either, columns, np.empty_like(flat), dtype)
    parity.check_causal_softmax(either, flat, flat, dtype)  # in place


@pytest.mark.parametrize("dtype", ["f32", "bf16", "f64", "i64", "u8", "c128", "bool"])
def test_rearrange(either, dtype):
    size = np.prod((3, 5, 7, 2))
    array = (np.arange(size) % 2 if dtype == "bool" else np.arange(size) % 127).astype(
        parity.DTYPES[dtype]
    )
    array = array.reshape(3, 5, 7, 2)
    for view in [array, array.transpose(2, 0, 3, 1), array[::-1, :, ::2], array[1:, 2:4]]:
        out = np.zeros(view.shape, view.dtype)
        either.call("rearrange", dst=out, src=view)
        np.testing.assert_array_equal(out, view)
        scattered = np.zeros((*view.shape[::-1], 2), view.dtype)[..., 1].T
        either.call("rearrange", dst=scattered, src=view)
        np.testing.assert_array_equal(scattered, view)
    repeated = np.broadcast_to(array[0, 0, 0], (4, 6, 2))
    out = np.zeros(repeated.shape, array.dtype)
    either.call("rearrange", dst=out, src=repeated)
    np.testing.assert_array_equal(out, repeated)


@pytest.mark.parametrize("dtype", [*FLOATS, "f64"])
@pytest.mark.parametrize("index", ["i32", "i64", "u16"])
def test_greedy_sample(either, dtype, index):
    logits = normal(19, (111,), dtype)
    logits[[17, 60]] = 9  # equal ones: the first wins
    for parameters in [(0, 1, 5, 1), (0.5, 0, 5, 1), (0.5, 1, 1, 1), (0.5, 1, 5, 0)]:
        names = ("random_val", "topp", "topk", "temperature")
        parity.check_sample(either, logits, index, **dict(zip(names, parameters, strict=True)))


@pytest.mark.parametrize("random_val", [0.02, 0.4, 0.8, 0.999])
@pytest.mark.parametrize("topp", [0.3, 0.9, 1.0])
@pytest.mark.parametrize("topk", [2, 19, 1000, -1])
def test_drawn_sample(either, random_val, topp, topk):
    for seed, temperature in [(1, 0.7), (2, 1.0), (3, 3.0)]:
        parity.check_sample(
            either,
            normal(seed, (111,), "f32", 2.0),
            "i32",
            random_val=random_val,
            topp=topp,
            topk=topk,
            temperature=temperature,
        )


@pytest.mark.network
def test_the_real_float_product_reads_c_at_beta_zero(registry, library):
    a, b = normal(1, (4, 8), "f32"), normal(2, (8, 4), "f32")
    for one, is_nan in [(registry, True), (library, False)]:
        c = np.full((4, 4), np.nan, np.float32)
        assert one.status("gemm", c=c, a=a, b=b, alpha=1.0, beta=0.0) == SUCCESS
        assert np.isnan(c).any() == is_nan


@pytest.mark.network
def test_the_real_binary16_is_truncated(registry, library):
    a = np.full((1,), 1.0, np.float16)
    b = np.full((1,), 0.00073, np.float16)  # three quarters of the last bit of 1
    for one, expected in [(registry, 1.0), (library, 1.0009765625)]:
        c = np.zeros((1,), np.float16)
        one.call("add", c=c, a=a, b=b)
        assert c[0] == np.float16(expected)
