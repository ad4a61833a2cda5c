"""The compiled sampler against its NumPy twin, and both against what sampling means."""

from __future__ import annotations

import ctypes
import math
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qwen3_runtime.errors import EngineError
from qwen3_runtime.sampling import Draw, SamplingParams, reference, sampler_for

Array = np.ndarray[Any, Any]
SampleRows = Callable[..., Array]


@pytest.fixture(scope="module")
def compiled(library: ctypes.CDLL) -> SampleRows:
    def sample_rows(logits: Array, *parameters: Array) -> Array:
        tokens = np.empty(len(logits), np.int32)
        error = ctypes.create_string_buffer(256)
        arrays = [np.ascontiguousarray(logits, np.float32), *parameters]
        pointers = [array.ctypes.data_as(ctypes.c_void_p) for array in arrays]
        status = library.sample_rows(
            pointers[0],
            ctypes.c_size_t(logits.shape[0]),
            ctypes.c_size_t(logits.shape[1]),
            *pointers[1:],
            tokens.ctypes.data_as(ctypes.c_void_p),
            error,
            ctypes.c_size_t(len(error)),
        )
        if status:
            raise EngineError(error.value.decode())
        return tokens

    return sample_rows


@pytest.fixture(params=["compiled", "reference"])
def sample_rows(request: pytest.FixtureRequest) -> SampleRows:
    if request.param == "reference":
        return reference.sample_rows
    found: SampleRows = request.getfixturevalue("compiled")
    return found


def draw(
    sample_rows: SampleRows,
    logits: Array,
    *,
    temperature: float = 1.0,
    top_p: float = 1.0,
    top_k: int = 0,
    seed: int = 0,
    position: int = 0,
    min_p: float = 0.0,
) -> int:
    return int(
        draw_many(sample_rows, logits, 1, temperature, top_p, top_k, seed, position, min_p)[0]
    )


def draw_many(
    sample_rows: SampleRows,
    logits: Array,
    count: int,
    temperature: float = 1.0,
    top_p: float = 1.0,
    top_k: int = 0,
    seed: int = 0,
    first_position: int = 0,
    min_p: float = 0.0,
) -> Array:
    return sample_rows(
        np.tile(np.asarray(logits, np.float32), (count, 1)),
        np.full(count, temperature),
        np.full(count, top_p),
        np.full(count, min_p),
        np.full(count, top_k, np.int64),
        np.full(count, seed, np.uint64),
        np.arange(first_position, first_position + count, dtype=np.uint64),
    )


# ---- random numbers -------------------------------------------------------------------------

KNOWN_ANSWERS = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    (
        (0xFFFFFFFF,) * 4,
        (0xFFFFFFFF,) * 2,
        (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD),
    ),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]
"""Published with Random123, the authors' own implementation."""


@pytest.mark.compile
@pytest.mark.parametrize(("counter", "key", "words"), KNOWN_ANSWERS)
def test_philox_gives_the_published_words(
    library: ctypes.CDLL, counter: tuple[int, ...], key: tuple[int, ...], words: tuple[int, ...]
) -> None:
    assert reference.philox4x32(counter, key) == words  # type: ignore[arg-type]
    found = (ctypes.c_uint32 * 4)()
    library.philox((ctypes.c_uint32 * 4)(*counter), (ctypes.c_uint32 * 2)(*key), found)
    assert tuple(found) == words


@pytest.mark.compile
def test_uniform_numbers_are_equal_in_range_and_differ_by_seed_and_position(
    library: ctypes.CDLL,
) -> None:
    pairs = [(seed, position) for seed in (0, 1, 2**32, 2**64 - 1) for position in (0, 1, 2**32)]
    numbers = [reference.uniform(seed, position) for seed, position in pairs]
    assert numbers == [library.uniform_number(seed, position) for seed, position in pairs]
    assert len(set(numbers)) == len(pairs)
    assert all(0.0 <= number < 1.0 for number in numbers)


# ---- the twins ------------------------------------------------------------------------------


@pytest.mark.compile
@pytest.mark.parametrize("vocab_size", [1, 2, 7, 64, 65, 257, 5003])
def test_compiled_and_reference_choose_the_same_tokens(
    compiled: SampleRows, vocab_size: int
) -> None:
    rng = np.random.default_rng(vocab_size)
    count = 400
    logits = rng.standard_normal((count, vocab_size)).astype(np.float32) * 4
    logits[::3] = np.round(logits[::3])  # ties
    logits[1::5, : vocab_size // 2] = -np.inf
    parameters = (
        rng.choice([0.0, 0.1, 0.7, 1.0, 1.5, 100.0], count),
        rng.choice([1e-6, 0.1, 0.5, 0.8, 0.95, 1.0], count),
        rng.choice([0.0, 0.0, 0.05, 0.5, 1.0], count),
        rng.choice([-1, 0, 1, 2, 20, 100, 10**9], count),
        rng.integers(0, 2**64, count, np.uint64),
        rng.integers(0, 2**40, count, np.uint64),
    )
    np.testing.assert_array_equal(
        compiled(logits, *parameters), reference.sample_rows(logits, *parameters)
    )


# ---- what sampling means --------------------------------------------------------------------


def chi_square_fits(tokens: Array, probabilities: Array) -> bool:
    """Whether counts are as likely as all but one in ten thousand (Wilson-Hilferty)."""
    possible = probabilities > 0
    assert set(np.unique(tokens)) <= set(np.flatnonzero(possible))
    expected = probabilities[possible] * len(tokens)
    counts = np.bincount(tokens, minlength=len(probabilities))[possible]
    statistic = float(((counts - expected) ** 2 / expected).sum())
    freedom = len(expected) - 1
    if freedom == 0:
        return True
    spread = 2 / (9 * freedom)
    return bool(statistic < freedom * (1 - spread + 3.72 * math.sqrt(spread)) ** 3)


@pytest.mark.compile
@pytest.mark.parametrize(
    ("temperature", "top_p", "top_k"),
    [(1.0, 1.0, 0), (0.5, 1.0, 0), (2.0, 1.0, 5), (1.0, 0.7, 0), (1.3, 0.8, 4), (1.0, 1.0, 1)],
)
def test_tokens_are_as_frequent_as_transformers_warpers_make_them(
    compiled: SampleRows, temperature: float, top_p: float, top_k: int
) -> None:
    logits = np.array([0.3, 2.0, -1.0, 1.1, -np.inf, 0.9, 1.9, -3.0, 0.1, 1.0], np.float32)
    probabilities = warped_probabilities(logits, temperature, top_p, top_k)
    tokens = draw_many(compiled, logits, 50_000, temperature, top_p, top_k, seed=5)
    assert chi_square_fits(tokens, probabilities)
    assert set(np.flatnonzero(probabilities > 1e-3)) <= set(np.unique(tokens))


def warped_probabilities(logits: Array, temperature: float, top_p: float, top_k: int) -> Array:
    """Temperature, top-k, top-p in the words of transformers' logits processors."""
    scores = logits.astype(np.float64) / temperature
    if top_k:
        scores[scores < np.sort(scores)[-top_k]] = -np.inf
    probabilities: Array = np.exp(scores - scores.max())
    probabilities /= probabilities.sum()
    order = np.argsort(scores)
    removed = np.cumsum(probabilities[order]) <= 1 - top_p
    removed[-1] = False
    probabilities[order[removed]] = 0
    probabilities /= probabilities.sum()
    return probabilities


@pytest.mark.reference
def test_warped_probabilities_are_those_of_transformers() -> None:
    torch = pytest.importorskip("torch")
    warpers = pytest.importorskip("transformers.generation.logits_process")
    logits = np.random.default_rng(0).standard_normal((40, 50)).astype(np.float32) * 3
    for row in logits:
        scores = torch.from_numpy(row[None])
        for warper in (
            warpers.TemperatureLogitsWarper(0.8),
            warpers.TopKLogitsWarper(12),
            warpers.TopPLogitsWarper(0.85),
        ):
            scores = warper(None, scores)
        expected = torch.softmax(scores, -1)[0].numpy()
        np.testing.assert_allclose(warped_probabilities(row, 0.8, 0.85, 12), expected, atol=1e-6)


@pytest.mark.compile
def test_greedy_takes_the_lowest_of_equal_logits(sample_rows: SampleRows) -> None:
    assert draw(sample_rows, np.array([1, 3, 2, 3, 3]), temperature=0.0) == 1
    assert draw(sample_rows, np.array([-np.inf, -5, -np.inf]), temperature=0.0) == 1
    assert draw(sample_rows, np.zeros(9), temperature=0.0, seed=7) == 0
    assert draw(sample_rows, np.array([-0.0, 0.0]), temperature=0.0) == 0


@pytest.mark.compile
def test_top_k_keeps_ties_with_the_last_and_top_p_the_lowest_of_equals(
    sample_rows: SampleRows,
) -> None:
    logits = np.array([5, 1, 3, 3, 3])
    assert set(draw_many(sample_rows, logits, 1000, 10.0, 1.0, 2)) == {0, 2, 3, 4}
    equal = np.zeros(4)
    assert set(draw_many(sample_rows, equal, 500, top_p=0.5)) == {0, 1}
    assert set(draw_many(sample_rows, equal, 500, top_p=0.500001)) == {0, 1, 2}
    assert set(draw_many(sample_rows, equal, 200, top_p=1e-9)) == {0}


@pytest.mark.compile
def test_extreme_logits_and_temperatures_stay_exact(sample_rows: SampleRows) -> None:
    huge = np.array([3e38, -3e38, 2.9e38, -np.inf], np.float32)
    for temperature in (1e-300, 1e-6, 1.0):
        assert set(draw_many(sample_rows, huge, 50, temperature)) == {0}
    tokens = draw_many(sample_rows, np.array([0.0, -1.0, -np.inf]), 3000, 1e12)
    assert chi_square_fits(tokens, np.array([0.5, 0.5, 0.0]))
    tiny = np.array([1e-40, 0.0, -1e-40], np.float32)
    assert chi_square_fits(draw_many(sample_rows, tiny, 3000), np.full(3, 1 / 3))


@pytest.mark.compile
def test_a_draw_depends_on_its_own_row_only(sample_rows: SampleRows) -> None:
    rng = np.random.default_rng(1)
    logits = rng.standard_normal((6, 300)).astype(np.float32)
    parameters = (
        np.array([0.0, 0.7, 1.0, 1.0, 2.0, 0.9]),
        np.array([1.0, 0.8, 1.0, 0.5, 1.0, 0.9]),
        np.array([0.0, 0.1, 0.0, 0.0, 0.3, 0.0]),
        np.array([0, 20, 0, 0, 50, 3]),
        np.arange(6, dtype=np.uint64) + 2**63,
        np.arange(6, dtype=np.uint64) * 1000,
    )
    together = sample_rows(logits, *parameters)
    for order in ([5, 3, 1], [0], [2, 2, 4, 2]):
        chosen = [values[order] for values in parameters]
        np.testing.assert_array_equal(sample_rows(logits[order], *chosen), together[order])


@pytest.mark.compile
def test_seed_and_position_both_change_the_draw(sample_rows: SampleRows) -> None:
    logits = np.zeros(1000)
    same = [draw(sample_rows, logits, seed=3, position=9) for _ in range(3)]
    assert len(set(same)) == 1
    assert len({draw(sample_rows, logits, seed=seed, position=9) for seed in range(20)}) > 15
    assert len({draw(sample_rows, logits, seed=3, position=at) for at in range(20)}) > 15


@pytest.mark.compile
@pytest.mark.parametrize(
    ("bad", "temperature", "message"),
    [
        ([0.0, np.nan], 0.0, "row 1"),
        ([0.0, np.nan], 1.0, "row 1"),
        ([np.inf, 0.0], 0.0, "row 1"),
        ([np.inf, 0.0], 1.0, "row 1"),
        ([-np.inf, -np.inf], 0.0, "no token is possible"),
        ([-np.inf, -np.inf], 1.0, "no token is possible"),
    ],
)
def test_logits_no_token_can_come_from_are_refused(
    sample_rows: SampleRows, bad: list[float], temperature: float, message: str
) -> None:
    logits = np.array([[0.0, 1.0], bad], np.float32)
    ones = np.ones(2)
    zeros = np.zeros(2, np.int64)
    with pytest.raises(EngineError) as caught:
        sample_rows(
            logits, ones * temperature, ones, ones * 0, zeros, *[ones.astype(np.uint64)] * 2
        )
    assert message in str(caught.value)


@pytest.mark.compile
@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("temperature", value) for value in (-1.0, np.nan, np.inf)),
        *(("top_p", value) for value in (0.0, 1.5, np.nan)),
        *(("min_p", value) for value in (-0.1, 1.5, np.nan)),
    ],
)
def test_compiled_sampler_refuses_parameters_that_mean_nothing(
    compiled: SampleRows, name: str, value: float
) -> None:
    with pytest.raises(EngineError, match=rf"row 0: {name} is"):
        draw(compiled, np.zeros(3), **{name: value})


@pytest.mark.compile
def test_sampler_is_clean_under_sanitizers(build: Callable[..., Path], tmp_path: Path) -> None:
    program = build(
        tmp_path / "stress",
        "sampler_stress.cpp",
        "-O1",
        "-g",
        "-fsanitize=address,undefined",
        "-fno-sanitize-recover=all",
        "-D_GLIBCXX_ASSERTIONS",
    )
    run = subprocess.run([str(program)], capture_output=True, text=True, check=False)
    assert (run.returncode, run.stderr) == (0, "")
    assert int(run.stdout) == 5 * 4 * 5 * 4 * 5


# ---- the face the runtime uses --------------------------------------------------------------


def test_sampler_hands_each_rows_parameters_on() -> None:
    logits = np.array([[0, 9, 1], [9, 0, 1], [0, 0, 0]], np.float32)
    draws = [
        Draw(SamplingParams(temperature=0), 1, [0] * 5, 5),
        Draw(SamplingParams(top_k=-1, top_p=0.5), -1, [0] * 6, 6),
        Draw(SamplingParams(temperature=0.5, top_k=2), 2**64 + 3, [0] * 7, 7),
    ]
    sampler = sampler_for(object())
    tokens = sampler.sample(logits, draws)
    assert tokens[:2] == [1, 0]
    cool = SamplingParams(temperature=0.5, top_k=2)
    again = sampler.sample(logits[2:], [Draw(cool, 3, [1] * 7, 2)])
    assert again == tokens[2:]
    with pytest.raises(EngineError, match="do not match"):
        sampler.sample(logits, draws[:2])


def test_sampler_prefers_the_engines_own() -> None:
    class Kernels:
        @staticmethod
        def sample_rows(logits: Array, *parameters: Array) -> Array:
            floats, integers = parameters[:3], parameters[3:]
            assert {array.dtype for array in floats} == {np.dtype(np.float64)}
            assert [array.dtype for array in integers] == [np.int64, np.uint64, np.uint64]
            return np.full(len(logits), 42, np.int32)

    class CompiledEngine:
        sampling_kernels = Kernels()

    draws = [Draw(SamplingParams(seed=-1), 2**64 - 1, [1, 2, 3], 3)]
    assert sampler_for(CompiledEngine()).sample(np.zeros((1, 9), np.float32), draws) == [42]
