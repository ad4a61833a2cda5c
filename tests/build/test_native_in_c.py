"""A native engine through its C library: copied weights, a block table, and Python's logits."""

from __future__ import annotations

import ctypes

import numpy as np
import pytest

from qwen3_codegen.build.builder import build_engine
from qwen3_codegen.compile import CompileOptions, plan_model
from qwen3_codegen.spec.device import load_device
from qwen3_runtime.checkpoint import WeightStore, open_checkpoint
from qwen3_runtime.engine.capacity import Limits
from qwen3_runtime.engine.compiled import engine_class
from qwen3_runtime.engine.manifest import read_manifest, weight_bindings
from tests.build.conftest import CASE
from tests.build.test_c_api import READ_WEIGHT, Options
from tests.plan.planning import case_spec

pytestmark = pytest.mark.compile

TOKENS = [(7 * index + 3) % 331 for index in range(40)]
INT32S = ctypes.POINTER(ctypes.c_int32)


class Places(ctypes.Structure):
    _fields_ = (("slots", INT32S), ("block_table", INT32S), ("max_blocks", ctypes.c_size_t))


class Batch(ctypes.Structure):
    _fields_ = (
        ("token_ids", INT32S),
        ("positions", INT32S),
        ("num_tokens", ctypes.c_size_t),
        ("query_lens", INT32S),
        ("seq_lens", INT32S),
        ("num_seqs", ctypes.c_size_t),
        ("logit_rows", INT32S),
        ("num_logit_rows", ctypes.c_size_t),
        ("places", ctypes.POINTER(Places)),
        ("num_cache_groups", ctypes.c_size_t),
    )


def int32s(values) -> ctypes.Array:
    return (ctypes.c_int32 * len(values))(*values)


def prompt_from(start: int, blocks: list[int], num_groups: int) -> Batch:
    """The prompt's tokens from ``start`` on, with the logits of each."""
    tokens = TOKENS[start:]
    count, rows = len(tokens), int32s(range(len(tokens)))
    positions = int32s(range(start, len(TOKENS)))
    places = (Places * num_groups)(*[Places(None, int32s(blocks), len(blocks))] * num_groups)
    lengths = int32s([count]), int32s([len(TOKENS)])
    return Batch(int32s(tokens), positions, count, *lengths, 1, rows, count, places, num_groups)


@pytest.fixture
def engine_folder(build_request, tmp_path):
    compiled = plan_model(case_spec(CASE), load_device("cpu"), CompileOptions(lowering="native"))
    folder = tmp_path / compiled.plan.module_name
    return build_engine(folder, compiled.files, build_request, print)


def test_c_gets_python_s_logits(engine_folder, checkpoint):
    kind = engine_class(engine_folder.directory)
    limits = Limits(max_model_len=64, max_num_seqs=1)
    engine = kind.from_checkpoint(checkpoint, limits=limits, show_progress=False)
    (expected,) = engine.forward([TOKENS])

    manifest = read_manifest(engine_folder.directory)
    shown: list[np.ndarray] = []
    with open_checkpoint(checkpoint) as opened:
        store = WeightStore(opened, weight_bindings(manifest))

        def read(_context, name, layer, num_bytes):
            array = store.load(name.decode(), None if layer < 0 else layer).copy()
            assert array.nbytes == num_bytes
            if shown:  # what was shown before may be anything by now
                shown[-1].fill(np.nan)
            shown.append(array)
            return array.ctypes.data

        library = ctypes.CDLL(str(engine_folder.c_library))
        library.qwen3_engine_last_error.restype = ctypes.c_char_p
        handle = ctypes.c_void_p()
        options = Options(64, 1, 64, 0, 4, READ_WEIGHT(read), None)
        created = library.qwen3_engine_create(ctypes.byref(options), ctypes.byref(handle))
        assert created == 0, library.qwen3_engine_last_error()
    shown[-1].fill(np.nan)

    logits = np.empty((len(TOKENS), engine.vocab_size), np.float32)
    room = logits.ctypes.data_as(ctypes.POINTER(ctypes.c_float))

    def forward(blocks: list[int], start: int = 0) -> int:
        batch = prompt_from(start, blocks, len(engine.cache_groups))
        return library.qwen3_engine_forward(
            handle, ctypes.byref(batch), room, ctypes.c_size_t(logits.size)
        )

    assert forward([3, 1]) == 0, library.qwen3_engine_last_error()
    np.testing.assert_array_equal(logits, expected)
    assert forward([3, 4]) == 2
    assert b"a block of its table is out of range" in library.qwen3_engine_last_error()
    assert forward([3]) == 2
    assert b"its row of the block table is too short" in library.qwen3_engine_last_error()

    def copy(group: int, sources: list[int], destinations: list[int] | None) -> int:
        to = None if destinations is None else int32s(destinations)
        return library.qwen3_engine_copy_blocks(
            handle, ctypes.c_size_t(group), int32s(sources), to, ctypes.c_size_t(len(sources))
        )

    for group in range(len(engine.cache_groups)):
        assert copy(group, [3, 1], [0, 2]) == 0, library.qwen3_engine_last_error()
    logits[:] = np.nan
    assert forward([0, 2], start=35) == 0, library.qwen3_engine_last_error()
    np.testing.assert_array_equal(logits[:5], expected[35:])
    assert copy(0, [3], [4]) == 2
    assert b"block 4 is out of range" in library.qwen3_engine_last_error()
    assert copy(9, [3], [1]) == 2
    assert b"there is no cache group 9" in library.qwen3_engine_last_error()
    assert copy(0, [3], None) == 1
    assert b"destinations is null" in library.qwen3_engine_last_error()
    library.qwen3_engine_destroy(handle)
