"""A C program runs an engine and gets the logits Python gets, to the bit."""

from __future__ import annotations

import ctypes
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest

from qwen3_codegen.build.builder import build_engine
from qwen3_codegen.compile import CompileOptions, plan_model
from qwen3_codegen.spec.device import load_device
from qwen3_runtime.checkpoint import WeightStore, open_checkpoint
from qwen3_runtime.engine.batch import Batch, CachePlaces
from qwen3_runtime.engine.capacity import Limits
from qwen3_runtime.engine.compiled import engine_class
from qwen3_runtime.engine.manifest import read_manifest, weight_bindings
from tests.plan.planning import case_spec

pytestmark = pytest.mark.compile

SOURCE = Path(__file__).parent / "engine_in_c.c"
STRICT = ["-std=c11", "-Wall", "-Wextra", "-Wpedantic", "-Werror"]


@pytest.fixture
def program(build, tmp_path) -> Path:
    """The program, linked with the engine's library."""
    result, _ = build()
    folder, name = result.directory, result.directory.name
    binary = tmp_path / "engine_in_c"
    command = ["gcc", *STRICT, f"-I{folder}", str(SOURCE), "-o", str(binary)]
    subprocess.run([*command, f"-L{folder}", f"-l{name}", f"-Wl,-rpath,{folder}"], check=True)
    return binary


@pytest.fixture
def weight_files(build, checkpoint, tmp_path) -> Path:
    """Every weight as the engine wants it, in a file of its own."""
    result, _ = build()
    folder = tmp_path / "weights"
    folder.mkdir()
    bindings = weight_bindings(read_manifest(result.directory))
    with open_checkpoint(checkpoint) as opened:
        store = WeightStore(opened, bindings)
        for binding in bindings:
            suffix = "" if binding.layer is None else f".{binding.layer}"
            array = store.load(binding.name, binding.layer)
            (folder / f"{binding.name}{suffix}").write_bytes(np.ascontiguousarray(array).tobytes())
    return folder


def int32(*values: int) -> np.ndarray:
    return np.array(values, np.int32)


def python_logits(directory: Path, checkpoint: Path) -> np.ndarray:
    """The program's two steps, from Python."""
    limits = Limits(max_model_len=64, max_num_seqs=3, max_num_batched_tokens=16)
    engine = engine_class(directory).from_checkpoint(checkpoint, limits=limits, show_progress=False)
    places = (CachePlaces(slots=int32(2, 0)),) * 2
    prefill = Batch(
        token_ids=int32(5, 300, 17, 17, 8),
        positions=int32(0, 1, 2, 0, 1),
        query_lens=int32(3, 2),
        seq_lens=int32(3, 2),
        logit_rows=int32(0, 1, 2, 3, 4),
        places=places,
    )
    mixed = Batch(
        token_ids=int32(42, 1, 2, 3),
        positions=int32(3, 2, 3, 4),
        query_lens=int32(1, 3),
        seq_lens=int32(4, 5),
        logit_rows=int32(0, 3),
        places=places,
    )
    return np.concatenate([engine.forward(prefill), engine.forward(mixed)])


def test_a_c_program_gets_python_s_logits(program, weight_files, build, checkpoint):
    run = subprocess.run([str(program), str(weight_files)], capture_output=True, check=False)
    assert run.returncode == 0, run.stderr.decode()
    logits = np.frombuffer(run.stdout, np.float32).reshape(-1, 331)
    assert logits.shape == (7, 331)
    assert np.isfinite(logits).all()
    np.testing.assert_array_equal(logits, python_logits(build()[0].directory, checkpoint))


def test_a_missing_weight_is_named(program, weight_files):
    (weight_files / "q_norm.1").unlink()
    run = subprocess.run([str(program), str(weight_files)], capture_output=True, check=False)
    assert run.returncode == 1
    assert b"last error: weight q_norm of layer 1 (56 bytes) was not given" in run.stderr


def test_a_weight_of_another_size_is_none(program, weight_files):
    path = weight_files / "norm"
    path.write_bytes(path.read_bytes() + b"x")
    run = subprocess.run([str(program), str(weight_files)], capture_output=True, check=False)
    assert run.returncode == 1
    assert b"weight norm (208 bytes) was not given" in run.stderr


READ_WEIGHT = ctypes.CFUNCTYPE(
    ctypes.c_void_p, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int, ctypes.c_size_t
)


class Options(ctypes.Structure):
    _fields_ = (
        ("max_model_len", ctypes.c_size_t),
        ("max_num_seqs", ctypes.c_size_t),
        ("max_num_batched_tokens", ctypes.c_size_t),
        ("device_id", ctypes.c_int),
        ("num_blocks", ctypes.c_size_t),
        ("read_weight", READ_WEIGHT),
        ("context", ctypes.c_void_p),
    )


def test_two_libraries_live_in_one_process(build, build_request, tmp_path):
    """Both export the same names; each answers for its own engine."""
    other = plan_model(
        case_spec("qwen3-gqa-7x2"), load_device("cpu"), CompileOptions(lowering="portable")
    )
    folder = tmp_path / other.plan.module_name
    libraries = [
        ctypes.CDLL(str(path), mode=os.RTLD_LOCAL | os.RTLD_NOW)
        for path in (
            build()[0].c_library,
            build_engine(folder, other.files, build_request, print).c_library,
        )
    ]
    kept = []

    def zeros(_context, _name, _layer, num_bytes):
        kept.append(ctypes.create_string_buffer(num_bytes))
        return ctypes.addressof(kept[-1])

    engines = []
    for library in libraries:
        library.qwen3_engine_vocab_size.restype = ctypes.c_size_t
        library.qwen3_engine_last_error.restype = ctypes.c_char_p
        engines.append(ctypes.c_void_p())
        options = Options(64, 1, 8, 0, 0, READ_WEIGHT(zeros), None)
        created = library.qwen3_engine_create(ctypes.byref(options), ctypes.byref(engines[-1]))
        assert created == 0, library.qwen3_engine_last_error()
    sizes = [
        library.qwen3_engine_vocab_size(engine)
        for library, engine in zip(libraries, engines, strict=True)
    ]
    assert sizes == [331, 257]
    assert libraries[0].qwen3_engine_forward(None, None, None, ctypes.c_size_t(0)) == 1
    assert libraries[0].qwen3_engine_last_error() == b"engine or batch is null"
    assert libraries[1].qwen3_engine_last_error() == b""
    for library, engine in zip(libraries, engines, strict=True):
        library.qwen3_engine_destroy(engine)


@pytest.mark.parametrize("compiler", [["gcc", *STRICT], ["g++", "-std=c++17", *STRICT[1:]]])
def test_the_header_stands_alone_in_c_and_c_plus_plus(build, tmp_path, compiler):
    folder = build()[0].directory
    source = tmp_path / ("header.c" if compiler[0] == "gcc" else "header.cpp")
    source.write_text('#include "qwen3_engine.h"\nqwen3_batch batch;\n')
    command = [*compiler, f"-I{folder}", "-c", str(source), "-o", str(tmp_path / "header.o")]
    subprocess.run(command, check=True)
