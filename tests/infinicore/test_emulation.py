"""Emulated devices have their own operators, types, layouts and memory, and nothing else."""

from __future__ import annotations

import ctypes
import subprocess
import sys
import textwrap
import threading

import numpy as np
import pytest

from qwen3_codegen.infinicore.api import RELEASES, load_api
from tests.infinicore import parity, reference
from tests.infinicore.abi import (
    BAD_PARAM,
    BAD_TENSOR_DTYPE,
    BAD_TENSOR_SHAPE,
    BAD_TENSOR_STRIDES,
    D2D,
    D2H,
    DEVICE_NOT_FOUND,
    DEVICE_TYPE_NOT_SUPPORTED,
    DTYPES,
    H2D,
    H2H,
    INSUFFICIENT_WORKSPACE,
    NOT_IMPLEMENTED,
    SUCCESS,
    AbiError,
    DeviceArray,
    Library,
    Operand,
)
from tests.infinicore.conftest import embedded
from tests.infinicore.parity import normal

pytestmark = pytest.mark.compile


class Device:
    """One emulated device of a library, current while a test runs."""

    def __init__(self, library: Library, name: str, count: int = 1) -> None:
        self.library = library
        self.name = name
        library.emulate(name, count)
        assert library.set_device(name) == SUCCESS

    def array(self, values: np.ndarray) -> DeviceArray:
        return DeviceArray(self.library, values)


@pytest.fixture
def device(library):
    """Makes emulated devices; they are gone after the test."""
    made = []

    def make(name: str, count: int = 1) -> Device:
        made.append(name)
        return Device(library, name, count)

    yield make
    library.set_device("cpu")
    for name in made:
        library.emulate(name, 0)


def all_devices() -> list[tuple[str, str]]:
    pairs = [(release, device) for release in RELEASES for device in load_api(release).devices]
    return [(release, device) for release, device in pairs if device not in ("cpu", "sugon")]


def minimal(library: Library, name: str, dtypes: dict[str, str], device: str) -> dict[str, object]:
    """Returns the smallest arguments an operator takes, with these types for its dtype groups."""
    support = library.api.operators[name].devices[device]
    shapes = {
        "rope": {"y": (1, 1, 2), "x": (1, 1, 2), "sin_table": (1, 1), "cos_table": (1, 1)},
        "silu_and_mul": {"output": (1, 1), "input": (1, 2)},
        "embedding": {"output": (1, 1), "input": (1,)},
        "paged_attention": {
            "out": (1, 1, 64),
            "q": (1, 1, 64),
            "k_cache": (1, 1, 1, 64),
            "v_cache": (1, 1, 1, 64),
        },
        "select_last_token_hidden": {"input_offsets": (2,)},
    }
    shapes["paged_attention_prefill"] = {**shapes["paged_attention"], "cum_seq_lens_q": (2,)}
    arguments: dict[str, object] = {}
    for rule in support.tensors:
        rank = 2 if 2 in rule.ranks else rule.ranks[0]
        shape = shapes.get(name, {}).get(rule.name, (1,) * rank)
        zeros = np.zeros(shape, DTYPES[dtypes[rule.group]])
        arguments[rule.name] = DeviceArray(library, zeros)
    scalars = {"epsilon": 1e-6, "algo": 1, "axis": 0, "scale": 1.0}
    return {**arguments, **scalars}


@pytest.mark.parametrize(("release", "name"), all_devices())
def test_a_device_has_its_operators_and_types(builder, release, name):
    library = embedded(builder, release)
    library.emulate(name)
    assert library.set_device(name) == SUCCESS
    try:
        for operator in library.api.operators.values():
            if name not in operator.devices:
                on = next(iter(operator.devices))
                types = {
                    group: next(name for name in names if name in DTYPES)
                    for group, names in operator.dtypes(on)[0].items()
                }
                status = creation_status(library, operator, types, on)
                assert status == DEVICE_TYPE_NOT_SUPPORTED, operator.name
                continue
            groups = {rule.group for rule in operator.devices[name].tensors}
            for types in type_choices(groups):
                tensors = {r.name: types[r.group] for r in operator.devices[name].tensors}
                right = operator.accepts(name, tensors)
                status = creation_status(library, operator, types, name)
                assert status == (SUCCESS if right else BAD_TENSOR_DTYPE), (operator.name, types)
    finally:
        library.set_device("cpu")
        library.emulate(name, 0)


def type_choices(groups: set[str]) -> list[dict[str, str]]:
    floats = [{"T": t} for t in ("f32", "f16", "bf16", "f64", "i32")]
    weights = [{"W": w} for w in ("f32", "bf16", "f16")]
    indices = [{"I": i} for i in ("i32", "i64", "u32", "u8")]
    choices = [{**t, **w, **i, "A": "f32"} for t in floats for w in weights for i in (indices[:2])]
    choices += [{"T": "bf16", "W": "bf16", "A": "f32", **i} for i in indices]
    return [{group: one[group] for group in groups} for one in choices]


def creation_status(library, operator, types, device) -> int:
    arguments = minimal(library, operator.name, types, device)
    try:
        with library.created(operator, arguments):
            return SUCCESS
    except AbiError as error:
        return error.status
    finally:
        for value in arguments.values():
            if isinstance(value, DeviceArray):
                value.free()


def test_products_on_an_emulated_device(device):
    mlu = device("cambricon")
    emulated_bytes = mlu.library.rt.qwen3_infinicore_emulated_bytes
    before = emulated_bytes()  # of other tests in this process
    a, b = normal(1, (5, 19), "bf16"), normal(2, (19, 7), "bf16")
    on_device = {"a": mlu.array(a), "b": mlu.array(b), "c": mlu.array(np.zeros((5, 7), a.dtype))}
    mlu.library.call("gemm", **on_device, alpha=1.0, beta=0.0)
    expected, limit = reference.gemm(a, b, a[:, :7], 1.0, 0.0, "bf16")
    reference.assert_within(on_device["c"].numpy(), expected, limit)
    assert emulated_bytes() > before
    for array in on_device.values():
        array.free()
    assert emulated_bytes() == before


def test_host_memory_is_refused_where_device_memory_is_needed(device, capfd):
    mlu = device("cambricon")
    host = normal(1, (4, 8), "f32")
    own = mlu.array(host)
    status = mlu.library.status
    assert status("add", c=own, a=own, b=own) == SUCCESS
    assert status("add", c=own, a=host, b=own) == BAD_PARAM
    assert status("add", c=host, a=own, b=own) == BAD_PARAM
    assert "where memory of cambricon is needed" in capfd.readouterr().err
    own.free()
    assert status("add", c=own, a=own, b=own) == BAD_PARAM  # used after it was freed


def test_an_operator_must_not_reach_beyond_its_memory(device, capfd):
    mlu = device("ascend")
    own = mlu.array(normal(1, (4, 8), "f32"))
    longer = Operand(own.pointer, (5, 8), None, "f32")
    assert mlu.library.status("rearrange", dst=own, src=own) == SUCCESS
    assert mlu.library.status("rearrange", dst=longer, src=longer) == BAD_PARAM
    before = Operand(own.pointer, (4,), (-8,), "f32")
    target = mlu.array(np.zeros(4, np.float32))
    assert mlu.library.status("rearrange", dst=target, src=before) == BAD_PARAM
    last_row = Operand(own.pointer + 3 * 8 * 4, (4,), (-8,), "f32")
    assert mlu.library.status("rearrange", dst=target, src=last_row) == SUCCESS
    assert "beyond live device memory" in capfd.readouterr().err


def test_the_host_cannot_read_device_memory(library):
    program = f"""
        import ctypes
        library = ctypes.CDLL({library.rt._name!r})
        assert library.qwen3_infinicore_emulate(2, 1) == 0
        assert library.infinirtSetDevice(2, 0) == 0
        pointer = ctypes.c_void_p()
        assert library.infinirtMalloc(ctypes.byref(pointer), ctypes.c_size_t(64)) == 0
        print("reading", flush=True)
        ctypes.string_at(pointer.value, 4)
        """
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.stdout == "reading\n", result.stderr
    assert result.returncode < 0  # killed by a signal


def test_copies_check_their_direction(device):
    mlu = device("cambricon")
    host = np.arange(8, dtype=np.float32)
    own, other = mlu.array(host), mlu.array(host * 2)
    size, address = host.nbytes, host.ctypes.data
    copy = mlu.library.memcpy
    right = {
        H2D: (own.pointer, address),
        D2H: (address, own.pointer),
        D2D: (own.pointer, other.pointer),
        H2H: (address, address),
    }
    for kind in right:
        for actual, (target, source) in right.items():
            expected = SUCCESS if kind == actual else BAD_PARAM
            assert copy(target, source, size, kind) == expected, (kind, actual)
    assert copy(own.pointer, address, size + 1, H2D) == BAD_PARAM
    assert copy(own.pointer + 4, address, size - 4, H2D) == SUCCESS


def test_freeing_checks_the_memory(device):
    mlu = device("cambricon")
    rt, host = mlu.library.rt, np.zeros(4)
    own = mlu.array(host)
    assert rt.infinirtFree(ctypes.c_void_p(host.ctypes.data)) == BAD_PARAM
    assert rt.infinirtFreeHost(ctypes.c_void_p(own.pointer)) == BAD_PARAM
    own.free()
    assert rt.infinirtFree(ctypes.c_void_p(own.pointer)) == BAD_PARAM  # a second time
    assert rt.infinirtFree(None) == SUCCESS
    pinned = ctypes.c_void_p()
    assert rt.infinirtMallocHost(ctypes.byref(pinned), ctypes.c_size_t(64)) == SUCCESS
    ctypes.memset(pinned.value, 1, 64)  # the host may
    assert rt.infinirtFreeHost(pinned) == SUCCESS


def test_operators_want_device_workspace(device):
    mlu = device("cambricon")
    library, own = mlu.library, mlu.array(normal(1, (4, 8), "f32"))
    operator = library.api.operators["add"]
    arguments = {"c": own, "a": own, "b": own}
    host = np.zeros(4096, np.uint8)
    with library.created(operator, arguments) as descriptor:
        size = library.workspace_size(operator, descriptor)
        assert size > 0
        pointer = library.malloc(size)

        def run(workspace: tuple[int | None, int]) -> int:
            return library.run(operator, descriptor, arguments, workspace)

        assert run((pointer, size)) == SUCCESS
        assert run((pointer, size - 1)) == INSUFFICIENT_WORKSPACE
        assert run((None, 0)) == INSUFFICIENT_WORKSPACE
        assert run((host.ctypes.data, size)) == BAD_PARAM
        assert run((pointer, size + 64)) == BAD_PARAM


def test_streams_and_threads_belong_to_a_device(device):
    cuda = device("nvidia", count=2)
    library, own = cuda.library, cuda.array(normal(1, (4, 8), "f32"))
    stream = ctypes.c_void_p()
    assert library.rt.infinirtStreamCreate(ctypes.byref(stream)) == SUCCESS
    assert stream.value
    operator = library.api.operators["rearrange"]
    arguments = {"dst": own, "src": own}
    with library.created(operator, arguments) as descriptor:

        def run(handle: int | None) -> int:
            return library.run(operator, descriptor, arguments, stream=handle)

        assert run(None) == SUCCESS
        assert run(stream.value) == SUCCESS
        assert run(1234) == BAD_PARAM
        assert library.set_device("nvidia", 1) == SUCCESS
        assert run(stream.value) == BAD_PARAM  # the thread is on another device
        assert library.set_device("nvidia", 0) == SUCCESS
        elsewhere = []
        thread = threading.Thread(target=lambda: elsewhere.append(run(None)))
        thread.start()
        thread.join()
        assert elsewhere == [BAD_PARAM]  # a new thread starts on CPU
    assert library.rt.infinirtStreamSynchronize(stream) == SUCCESS
    assert library.rt.infinirtStreamDestroy(stream) == SUCCESS
    assert library.rt.infinirtStreamDestroy(stream) == BAD_PARAM


def test_two_devices_do_not_share_memory(device):
    cuda = device("nvidia", count=2)
    first = cuda.array(np.zeros((2, 4), np.float32))
    assert cuda.library.set_device("nvidia", 2) == DEVICE_NOT_FOUND
    assert cuda.library.set_device("nvidia", 1) == SUCCESS
    second = cuda.array(np.zeros((2, 4), np.float32))
    assert cuda.library.status("rearrange", dst=second, src=second) == SUCCESS
    assert cuda.library.status("rearrange", dst=second, src=first) == BAD_PARAM
    assert cuda.library.memcpy(second.pointer, first.pointer, 32, D2D) == BAD_PARAM


def test_infinirt_is_the_devices_own(device):
    kunlun = device("kunlun")
    rt = kunlun.library.rt
    own = kunlun.array(np.zeros(4, np.float32))
    address, size = ctypes.c_void_p(own.pointer), ctypes.c_size_t(16)
    assert rt.infinirtMemset(address, 1, size) == NOT_IMPLEMENTED
    event, elapsed = ctypes.c_void_p(), ctypes.c_float()
    assert rt.infinirtEventCreate(ctypes.byref(event)) == SUCCESS
    assert rt.infinirtEventElapsedTime(ctypes.byref(elapsed), event, event) == NOT_IMPLEMENTED
    assert rt.infinirtEventDestroy(event) == SUCCESS
    cuda = device("nvidia")
    own = cuda.array(np.zeros(4, np.float32))
    address = ctypes.c_void_p(own.pointer)
    assert rt.infinirtMemset(address, 0x3F, size) == SUCCESS
    assert (own.numpy().view(np.uint8) == 0x3F).all()


def test_what_can_be_emulated(library):
    devices, emulate = library.api.devices, library.rt.qwen3_infinicore_emulate
    assert emulate(devices["cpu"], 1) == BAD_PARAM
    assert emulate(devices["nvidia"], -1) == BAD_PARAM
    assert emulate(99, 1) == DEVICE_TYPE_NOT_SUPPORTED


def test_ranks_and_strides_are_the_devices(device):
    cuda = device("nvidia")
    status = cuda.library.status
    flat = cuda.array(np.zeros(8, np.float32))
    assert status("swiglu", c=flat, a=flat, b=flat) == BAD_TENSOR_SHAPE
    columns = Operand(flat.pointer, (2, 2), (1, 2), "f32")
    assert status("causal_softmax", y=columns, x=columns) == BAD_TENSOR_STRIDES
    mlu = device("cambricon")
    own = mlu.array(np.zeros(8, np.float32))
    columns = Operand(own.pointer, (2, 2), (1, 2), "f32")
    assert status("causal_softmax", y=columns, x=columns) == SUCCESS


# --- operators that no CPU has --------------------------------------------------------------------


@pytest.mark.parametrize("dtype", parity.FLOATS)
def test_silu_and_mul(device, dtype):
    cuda = device("nvidia")
    x = normal(1, (5, 3, 38), dtype, 3.0)
    own, out = cuda.array(x), cuda.array(np.zeros((5, 3, 19), x.dtype))
    cuda.library.call("silu_and_mul", output=out, input=own)
    expected = reference.silu(x[..., :19]) * parity.wide(x[..., 19:])
    limit = parity.rounding(expected, "f32", 8) + parity.rounding(expected, dtype)
    reference.assert_within(out.numpy(), expected, limit)
    wrong = cuda.array(np.zeros((5, 3, 20), x.dtype))
    assert cuda.library.status("silu_and_mul", output=wrong, input=own) == BAD_TENSOR_SHAPE


@pytest.mark.parametrize("axis", [0, 1, 2, -1, -3])
def test_softmax(device, axis):
    cuda = device("nvidia")
    x = normal(1, (3, 5, 7), "f32", 3.0)
    own, out = cuda.array(x), cuda.array(np.zeros_like(x))
    cuda.library.call("softmax", y=out, x=own, axis=axis)
    weights = np.exp(parity.wide(x) - x.max(axis=axis, keepdims=True))
    expected = weights / weights.sum(axis=axis, keepdims=True)
    reference.assert_within(out.numpy(), expected, parity.rounding(expected, "f32", 30))
    assert cuda.library.status("softmax", y=out, x=own, axis=3) == BAD_PARAM


@pytest.mark.parametrize("index", ["i32", "i64"])
def test_kv_caching(device, index):
    cuda = device("nvidia")
    caches = [np.zeros((2, 3, 9, 4), np.float32) for _ in "kv"]
    rows = [normal(seed, (2, 3, 2, 4), "f32") for seed in (1, 2)]
    past = np.array([0, 7], DTYPES[index])
    own = [cuda.array(x) for x in (*caches, *rows, past)]
    names = ("k_cache", "v_cache", "k", "v", "past_kv_lengths")
    cuda.library.call("kv_caching", **dict(zip(names, own, strict=True)))
    for cache, new, made in zip(caches, rows, own, strict=False):
        cache[0, :, 0:2] = new[0]
        cache[1, :, 7:9] = new[1]
        np.testing.assert_array_equal(made.numpy(), cache)
    own[4] = cuda.array(np.array([0, 8], DTYPES[index]))
    assert cuda.library.status("kv_caching", **dict(zip(names, own, strict=True))) == BAD_PARAM


def paged_cache(device, k: np.ndarray, v: np.ndarray, slots: np.ndarray, blocks: int):
    """Writes k and v [tokens, kv_heads, size] into fresh caches of 4-token blocks."""
    heads, size = k.shape[1:]
    empty = np.full((blocks, heads, 4, size), 7, k.dtype)
    k_cache, v_cache = device.array(empty), device.array(empty)
    rows = {"k": device.array(k), "v": device.array(v), "slot_mapping": device.array(slots)}
    device.library.call("paged_caching", k_cache=k_cache, v_cache=v_cache, **rows)
    return k_cache, v_cache


def attention(q: np.ndarray, k: np.ndarray, v: np.ndarray, scale: float, past: int) -> np.ndarray:
    """Reference for one sequence: q [new, heads, size], k and v [total, kv_heads, size]."""
    groups = q.shape[1] // k.shape[1]
    wide_k = np.repeat(parity.wide(k), groups, axis=1)
    wide_v = np.repeat(parity.wide(v), groups, axis=1)
    scores = np.einsum("qhd,khd->hqk", parity.wide(q), wide_k) * scale
    hidden = np.arange(len(k))[None, :] > past + np.arange(len(q))[:, None]
    weights = np.exp(np.where(hidden, -np.inf, scores))
    weights /= weights.sum(-1, keepdims=True)
    return np.einsum("hqk,khd->qhd", weights, wide_v)


@pytest.mark.parametrize("dtype", ["f16", "bf16"])
@pytest.mark.parametrize("index", ["i32", "i64", "u32"])
def test_paged_attention(device, dtype, index):
    cuda = device("nvidia")
    lengths, tables = [5, 1, 8], [[3, 0], [4, 4], [1, 2]]
    sequences = [normal(i, (2, n, 2, 64), dtype) for i, n in enumerate(lengths)]
    k, v = (np.concatenate([s[i] for s in sequences]) for i in (0, 1))
    slots = np.array(
        [t[p // 4] * 4 + p % 4 for t, n in zip(tables, lengths, strict=True) for p in range(n)]
    )
    k_cache, v_cache = paged_cache(cuda, k, v, slots, blocks=5)
    q = normal(9, (3, 6, 64), dtype)
    out = cuda.array(np.zeros_like(q))
    arguments = {
        "out": out,
        "q": cuda.array(q),
        "k_cache": k_cache,
        "v_cache": v_cache,
        "block_tables": cuda.array(np.array(tables, DTYPES[index])),
        "seq_lens": cuda.array(np.array(lengths, DTYPES[index])),
        "alibi_slopes": None,
        "scale": 0.2,
    }
    cuda.library.call("paged_attention", **arguments)
    for s, (keys, values) in enumerate(sequences):
        expected = attention(q[s : s + 1], keys, values, 0.2, lengths[s] - 1)
        limit = parity.rounding(expected, dtype) + 1e-5
        reference.assert_within(out.numpy()[s : s + 1], expected, limit)
    arguments["block_tables"] = cuda.array(np.array([[3, 0], [9, 9], [1, 2]], DTYPES[index]))
    assert cuda.library.status("paged_attention", **arguments) == BAD_PARAM


def test_paged_attention_prefill_of_a_mixed_batch(device):
    cuda = device("nvidia")
    totals, news, tables = [7, 3, 4], [2, 3, 1], [[3, 0], [4, 4], [1, 1]]
    sequences = [normal(i, (2, n, 2, 128), "bf16") for i, n in enumerate(totals)]
    k, v = (np.concatenate([s[i] for s in sequences]) for i in (0, 1))
    slots = np.array(
        [t[p // 4] * 4 + p % 4 for t, n in zip(tables, totals, strict=True) for p in range(n)]
    )
    k_cache, v_cache = paged_cache(cuda, k, v, slots, blocks=5)
    q = normal(9, (6, 4, 128), "bf16")
    out = cuda.array(np.zeros_like(q))
    borders = np.array([0, 2, 5, 6], np.int32)
    arguments = {
        "out": out,
        "q": cuda.array(q),
        "k_cache": k_cache,
        "v_cache": v_cache,
        "block_tables": cuda.array(np.array(tables, np.int32)),
        "seq_lens": cuda.array(np.array(totals, np.int32)),
        "cum_seq_lens_q": cuda.array(borders),
        "alibi_slopes": None,
        "scale": 0.1,
    }
    cuda.library.call("paged_attention_prefill", **arguments)
    for s, (keys, values) in enumerate(sequences):
        rows = slice(borders[s], borders[s + 1])
        expected = attention(q[rows], keys, values, 0.1, totals[s] - news[s])
        limit = parity.rounding(expected, "bf16") + 1e-5
        reference.assert_within(out.numpy()[rows], expected, limit)
    arguments["cum_seq_lens_q"] = cuda.array(borders[:3])
    assert cuda.library.status("paged_attention_prefill", **arguments) == BAD_PARAM


def test_negative_slots_are_skipped(device):
    cuda = device("nvidia")
    k = normal(1, (3, 2, 64), "f32")
    k_cache, _ = paged_cache(cuda, k, k, np.array([5, -1, 0]), blocks=2)
    expected = np.full((2, 2, 4, 64), 7, np.float32)
    expected[1, :, 1], expected[0, :, 0] = k[0], k[2]
    np.testing.assert_array_equal(k_cache.numpy(), expected)
