"""A C program runs an engine and gets the logits Python gets, to the bit."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest

from qwen3_runtime.checkpoint import WeightStore, open_checkpoint
from qwen3_runtime.engine.batch import Batch, CachePlaces
from qwen3_runtime.engine.capacity import Limits
from qwen3_runtime.engine.compiled import engine_class
from qwen3_runtime.engine.manifest import read_manifest, weight_bindings

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


@pytest.mark.parametrize("compiler", [["gcc", *STRICT], ["g++", "-std=c++17", *STRICT[1:]]])
def test_the_header_stands_alone_in_c_and_c_plus_plus(build, tmp_path, compiler):
    folder = build()[0].directory
    source = tmp_path / ("header.c" if compiler[0] == "gcc" else "header.cpp")
    source.write_text('#include "qwen3_engine.h"\nqwen3_batch batch;\n')
    command = [*compiler, f"-I{folder}", "-c", str(source), "-o", str(tmp_path / "header.o")]
    subprocess.run(command, check=True)
