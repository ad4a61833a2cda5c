"""Status codes: what the ABI refuses, and that nothing crashes on NULL."""

from __future__ import annotations

import ctypes

import numpy as np
import pytest

from tests.infinicore.abi import (
    BAD_PARAM,
    BAD_TENSOR_DTYPE,
    BAD_TENSOR_SHAPE,
    BAD_TENSOR_STRIDES,
    DEVICE_TYPE_NOT_SUPPORTED,
    NULL_POINTER,
    SUCCESS,
    Operand,
)
from tests.infinicore.parity import normal, rope_tables

pytestmark = pytest.mark.compile


def zeros(*shape: int, dtype: type = np.float32) -> np.ndarray:
    return np.zeros(shape, dtype)


GEMM = {"alpha": 1.0, "beta": 0.0}


@pytest.mark.parametrize(
    ("shapes", "status"),
    [
        (((3, 4), (3, 5), (5, 4)), SUCCESS),
        (((3, 4), (3, 5), (6, 4)), BAD_TENSOR_SHAPE),
        (((3, 4), (2, 5), (5, 4)), BAD_TENSOR_SHAPE),
        (((3, 4), (3, 5), (5, 3)), BAD_TENSOR_SHAPE),
        (((4,), (3, 5), (5, 4)), BAD_TENSOR_SHAPE),
        (((1, 1, 3, 4), (3, 5), (5, 4)), BAD_TENSOR_SHAPE),
        (((2, 3, 4), (3, 3, 5), (5, 4)), BAD_TENSOR_SHAPE),
        (((2, 3, 4), (2, 3, 5), (1, 5, 4)), SUCCESS),
        (((0, 4), (0, 5), (5, 4)), SUCCESS),
        (((3, 0), (3, 5), (5, 0)), SUCCESS),
    ],
)
def test_gemm_shapes(any_release, shapes, status):
    c, a, b = (zeros(*shape) for shape in shapes)
    assert any_release.status("gemm", c=c, a=a, b=b, **GEMM) == status


def test_an_empty_sum_is_zero_or_what_beta_leaves(any_release):
    a, b = zeros(2, 0), zeros(0, 3)
    c = np.full((2, 3), 4, np.float32)
    any_release.call("gemm", c=c, a=a, b=b, alpha=1.0, beta=0.5)
    assert (c == 2).all()
    any_release.call("gemm", c=c, a=a, b=b, alpha=1.0, beta=0.0)
    assert not c.any()


def test_gemm_types_and_strides(any_release):
    c, a, b = zeros(3, 4), zeros(3, 5), zeros(5, 4)
    wrong = [
        {"c": c.astype(np.float64), "a": a, "b": b},
        {"c": c, "a": a.astype(np.float16), "b": b},
        {"c": c.astype(np.int32), "a": a.astype(np.int32), "b": b.astype(np.int32)},
    ]
    for tensors in wrong:
        assert any_release.status("gemm", **tensors, **GEMM) == BAD_TENSOR_DTYPE
    gaps = zeros(3, 10)[:, ::2]
    gaps = zeros(6, 10)[::2, ::2]
    assert any_release.status("gemm", c=c, a=gaps, b=b, **GEMM) == BAD_TENSOR_STRIDES


def test_null_arguments(any_release):
    a = zeros(3, 4)
    assert any_release.status("add", c=None, a=a, b=a) == NULL_POINTER
    assert any_release.status("add", c=a, a=a, b=None) == NULL_POINTER
    nowhere = Operand(None, (3, 4), None, "f32")
    assert any_release.status("add", c=nowhere, a=a, b=a) == NULL_POINTER
    assert any_release.status("add", c=a, a=a, b=nowhere) == NULL_POINTER
    op = any_release.op
    assert op.infiniopCreateHandle(None) == NULL_POINTER
    assert op.infiniopCreateTensorDescriptor(None, 0, None, None, 13) == NULL_POINTER
    assert op.infiniopAdd(*[None] * 7) == NULL_POINTER
    assert op.infiniopGetAddWorkspaceSize(None, None) == NULL_POINTER
    tensor = ctypes.byref(ctypes.c_void_p())
    assert op.infiniopCreateAddDescriptor(None, tensor, None, None, None) == NULL_POINTER
    assert op.infiniopDestroyAddDescriptor(None) == SUCCESS
    assert op.infiniopDestroyHandle(None) == SUCCESS


def test_nothing_is_touched_without_elements(any_release):
    nowhere = Operand(None, (0, 4), None, "f32")
    assert any_release.status("add", c=nowhere, a=nowhere, b=nowhere) == SUCCESS


def test_a_descriptor_of_another_operator_is_refused(any_release):
    a = zeros(3, 4)
    operators = any_release.api.operators
    arguments = {"c": a, "a": a, "b": a}
    with any_release.created(operators["add"], arguments) as descriptor:
        assert any_release.run(operators["mul"], descriptor, arguments) == BAD_PARAM
        assert any_release.op.infiniopDestroyMulDescriptor(descriptor) == BAD_PARAM
        assert any_release.run(operators["add"], descriptor, arguments) == SUCCESS


def test_a_descriptor_knows_its_device(any_release):
    a = zeros(3, 4)
    kind, index = ctypes.c_int(9), ctypes.c_int(9)
    operator = any_release.api.operators["add"]
    with any_release.created(operator, {"c": a, "a": a, "b": a}) as descriptor:
        op = any_release.op
        assert op.infiniopGetDescriptorDeviceType(descriptor, ctypes.byref(kind)) == SUCCESS
        assert op.infiniopGetDescriptorDeviceId(descriptor, ctypes.byref(index)) == SUCCESS
        assert any_release.workspace_size(operator, descriptor) == 0
    assert (kind.value, index.value) == (0, 0)


def test_rms_norm_refusals(any_release):
    x, w = zeros(3, 8), zeros(8)
    name, eps = "rms_norm", {"epsilon": 1e-6}
    status = any_release.status
    assert status(name, y=zeros(3, 7), x=x, w=w, **eps) == BAD_TENSOR_SHAPE
    assert status(name, y=x, x=x, w=zeros(7), **eps) == BAD_TENSOR_SHAPE
    assert status(name, y=x, x=x, w=zeros(1, 8), **eps) == BAD_TENSOR_SHAPE
    assert status(name, y=zeros(8), x=zeros(8), w=w, **eps) == BAD_TENSOR_SHAPE
    assert status(name, y=x.astype(np.float16), x=x, w=w, **eps) == BAD_TENSOR_DTYPE
    half = x.astype(np.float16)
    assert status(name, y=x, x=x, w=w.astype(np.float16), **eps) == BAD_TENSOR_DTYPE
    assert status(name, y=half, x=half, w=w, **eps) == SUCCESS
    assert status(name, y=x, x=zeros(3, 16)[:, ::2], w=w, **eps) == BAD_TENSOR_STRIDES
    assert status(name, y=x, x=x, w=zeros(16)[::2], **eps) == BAD_TENSOR_STRIDES
    heads = zeros(3, 2, 8)
    expected = BAD_TENSOR_SHAPE if any_release.api.release == "2025-08" else SUCCESS
    assert status(name, y=heads, x=heads, w=w, **eps) == expected


def test_rope_refusals(any_release):
    release = any_release.api.release
    sine, cosine = rope_tables(10, 4, "f32")
    right = {
        "y": zeros(5, 3, 8),
        "x": zeros(5, 3, 8),
        "pos_ids": np.zeros(5, np.int64),
        "sin_table": sine,
        "cos_table": cosine,
        "algo": 1,
    }

    def status(**changed: object) -> int:
        return any_release.status("rope", **{**right, **changed})

    assert status() == SUCCESS
    assert status(pos_ids=np.zeros(4, np.int64)) == BAD_TENSOR_SHAPE
    assert status(pos_ids=zeros(5)) == BAD_TENSOR_DTYPE
    assert status(sin_table=sine[:, :3]) == BAD_TENSOR_SHAPE
    assert status(x=zeros(5, 2, 8)) == BAD_TENSOR_SHAPE
    assert status(sin_table=sine.astype(np.float16)) == BAD_TENSOR_DTYPE
    wide_sine = np.zeros((10, 8), np.float32)[:, :4]
    assert status(sin_table=wide_sine) == BAD_TENSOR_STRIDES
    assert status(x=zeros(5, 3, 16)[..., ::2]) == BAD_TENSOR_STRIDES
    assert status(pos_ids=np.full(5, 10)) == BAD_PARAM  # beyond the tables
    assert status(pos_ids=np.full(5, -1)) == BAD_PARAM
    four = {"y": zeros(2, 5, 3, 8), "x": zeros(2, 5, 3, 8)}
    assert status(**four) == (SUCCESS if release == "2026-08" else BAD_TENSOR_SHAPE)
    if release != "2025-08":
        assert status(algo=2) == NULL_POINTER
        assert status(algo=-1) == NULL_POINTER


def test_elementwise_refusals(any_release):
    a = zeros(3, 4)
    status = any_release.status
    assert status("swiglu", c=a, a=a, b=zeros(4, 3)) == BAD_TENSOR_SHAPE
    assert status("swiglu", c=a, a=a, b=a.astype(np.float64)) == BAD_TENSOR_DTYPE
    assert status("mul", c=a.astype(np.int32), a=a, b=a) == BAD_TENSOR_DTYPE
    assert status("add", c=np.zeros((), np.float32), a=a, b=a) == BAD_TENSOR_SHAPE
    repeated = np.broadcast_to(zeros(4), (3, 4))
    assert status("add", c=repeated, a=a, b=a) == BAD_TENSOR_STRIDES
    assert status("add", c=a, a=repeated, b=a) == SUCCESS
    integers = np.zeros((3, 4), np.int64)
    expected = SUCCESS if any_release.api.release == "2026-08" else BAD_TENSOR_DTYPE
    assert status("add", c=integers, a=integers, b=integers) == expected


def test_softmax_rearrange_and_sample_refusals(any_release):
    status = any_release.status
    assert status("causal_softmax", y=zeros(5, 4), x=zeros(5, 4)) == BAD_TENSOR_SHAPE
    assert status("causal_softmax", y=zeros(4), x=zeros(4)) == BAD_TENSOR_SHAPE
    wide_type = np.zeros((2, 4))
    assert status("causal_softmax", y=wide_type, x=wide_type) == BAD_TENSOR_DTYPE
    assert status("rearrange", dst=zeros(2, 3), src=zeros(3, 2)) == BAD_TENSOR_SHAPE
    assert status("rearrange", dst=zeros(2, 3), src=np.zeros((2, 3))) == BAD_TENSOR_DTYPE
    repeated = np.broadcast_to(zeros(3), (2, 3))
    assert status("rearrange", dst=repeated, src=zeros(2, 3)) == BAD_TENSOR_STRIDES
    draw = {"random_val": 0.5, "topp": 0.9, "topk": 5, "temperature": 1.0}
    result, logits = np.zeros((), np.int64), normal(1, (9,), "f32")
    sample = "random_sample"
    assert status(sample, result=np.zeros(1, np.int64), probs=logits, **draw) == BAD_TENSOR_SHAPE
    assert status(sample, result=np.zeros(()), probs=logits, **draw) == BAD_TENSOR_DTYPE
    assert status(sample, result=result, probs=logits.reshape(3, 3), **draw) == BAD_TENSOR_SHAPE
    assert status(sample, result=result, probs=logits[::2], **draw) == BAD_TENSOR_STRIDES
    assert status(sample, result=result, probs=logits, **{**draw, "topk": 0}) == BAD_PARAM
    assert status(sample, result=result, probs=logits, **{**draw, "temperature": -1}) == BAD_PARAM
    nan = np.full(9, np.nan, np.float32)
    assert status(sample, result=result, probs=nan, **draw) == SUCCESS


def test_a_device_that_is_not_there(any_release):
    assert any_release.set_device("nvidia") == DEVICE_TYPE_NOT_SUPPORTED
    handle = ctypes.c_void_p()
    status = any_release.op.infiniopCreateHandle(ctypes.byref(handle))
    assert status == DEVICE_TYPE_NOT_SUPPORTED


def test_communicators_are_absent(any_release):
    ccl = any_release.ccl
    comm = ctypes.c_void_p()
    ids = (ctypes.c_int * 1)(0)
    status = ccl.infinicclCommInitAll(0, ctypes.byref(comm), 1, ids)
    assert status == DEVICE_TYPE_NOT_SUPPORTED
    assert ccl.infinicclCommDestroy(None) == SUCCESS
    assert ccl.infinicclAllReduce(None, None, 0, 13, 0, None, None) == NULL_POINTER
