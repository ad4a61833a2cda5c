"""Native engines give a sequence the same bits, alone, in any batch, and cut into any chunks."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys

import numpy as np
import pytest

from qwen3_codegen import SamplingParams
from qwen3_codegen.errors import LoweringError
from qwen3_runtime.engine.batch import Batch, CachePlaces
from qwen3_runtime.engine.capacity import Limits
from qwen3_runtime.errors import EngineError
from tests.e2e.stepping import Arrival, ride

pytestmark = pytest.mark.compile

CASES = ["qwen3-window-8", "qwen3-gqa-7x2", "gemma3-softcap", "qwen3-moe"]
DTYPES = ["float32", "bfloat16"]
LENGTH = 140

every_engine = [
    pytest.mark.parametrize("id", CASES),
    pytest.mark.parametrize("dtype", DTYPES),
]


def for_every_engine(test):
    for mark in every_engine:
        test = mark(test)
    return test


@pytest.fixture
def open_engine(reference, open_llm):
    """Opens a native engine of a case with other limits; all of a case share one build."""

    def open_case(id, dtype, *, activation_dtype="auto", kv_cache_dtype="auto", **limits):
        model = reference(id)
        chosen = {
            "dtype": dtype,
            "activation_dtype": activation_dtype,
            "kv_cache_dtype": kv_cache_dtype,
            "lowering": "native",
        }
        llm = open_llm(model.path, max_model_len=LENGTH, **chosen)
        kind = type(llm.engine)
        wanted = Limits(**{"max_model_len": LENGTH, "max_num_seqs": 5, **limits})
        return kind.from_checkpoint(model.path, limits=wanted, show_progress=False)

    return open_case


def sequence(reference, id, length=LENGTH, index=30) -> list[int]:
    return reference(id).prompt(length=length, index=index)


def alone(engine, token_ids):
    """Logits of every token in one step."""
    (rows,) = ride(engine, [Arrival(token_ids, len(token_ids))]).logits
    return rows


@for_every_engine
def test_mixed_with_others(id, dtype, reference, open_engine):
    engine = open_engine(id, dtype)
    token_ids = sequence(reference, id)
    expected = alone(engine, token_ids)
    others = [(90, 88, 0), (20, 3, 0), (139, 130, 1), (65, 1, 2), (33, 32, 3)]
    arrivals = [Arrival(token_ids, 100)] + [
        Arrival(sequence(reference, id, total, 40 + i), prompt, step)
        for i, (total, prompt, step) in enumerate(others)
    ]
    together = ride(engine, arrivals)
    assert max(len(batch.query_lens) for batch in together.batches) == 5
    np.testing.assert_array_equal(together.logits[0], expected)


@for_every_engine
def test_prefilled_in_chunks(id, dtype, reference, open_engine):
    token_ids = sequence(reference, id)
    expected = alone(open_engine(id, dtype), token_ids)
    for chunk in (1, 7, 64):
        engine = open_engine(id, dtype, max_num_batched_tokens=chunk)
        chunks = ride(engine, [Arrival(token_ids, LENGTH)])
        assert len(chunks.batches) == -(-LENGTH // chunk)
        np.testing.assert_array_equal(chunks.logits[0], expected)


def step(tokens, start, tables, groups) -> Batch:
    """One step of sequences with equal numbers of new tokens, from position ``start`` on."""
    count = len(tokens[0])
    positions = np.tile(np.arange(start, start + count, dtype=np.int32), len(tokens))
    table = np.array(tables, dtype=np.int32)
    return Batch(
        token_ids=np.array(tokens, dtype=np.int32).ravel(),
        positions=positions,
        query_lens=np.full(len(tokens), count, dtype=np.int32),
        seq_lens=np.full(len(tokens), start + count, dtype=np.int32),
        logit_rows=np.arange(positions.size, dtype=np.int32),
        places=(CachePlaces(block_table=table),) * groups,
    )


@for_every_engine
def test_whichever_blocks_it_lies_in_and_whoever_shares_them(id, dtype, reference, open_engine):
    engine = open_engine(id, dtype)
    token_ids = sequence(reference, id)
    expected = alone(engine, token_ids)
    groups = len(engine.cache_groups)
    forth, back = [0, 1, 2, 3, 4], [13, 3, 8, 0, 11]
    for blocks in (forth, back):
        rows = engine.forward(step([token_ids], 0, [blocks], groups))
        np.testing.assert_array_equal(rows, expected)
    # Two sequences go on from the same 64 tokens, in blocks that both tables name.
    engine.forward(step([token_ids[:64]], 0, [[7, 2, -1, -1, -1]], groups))
    tables = [[7, 2, 5, 6, 9], [7, 2, 10, 12, 1]]
    rows = engine.forward(step([token_ids[64:]] * 2, 64, tables, groups))
    half = len(token_ids) - 64
    np.testing.assert_array_equal(rows[:half], expected[64:])
    np.testing.assert_array_equal(rows[half:], expected[64:])


@for_every_engine
def test_in_copied_blocks_while_the_originals_are_overwritten(id, dtype, reference, open_engine):
    engine = open_engine(id, dtype)
    token_ids, other = sequence(reference, id), sequence(reference, id, index=31)
    expected = alone(engine, token_ids)
    groups = len(engine.cache_groups)
    engine.forward(step([token_ids[:80]], 0, [[7, 2, 5, -1, -1]], groups))
    for group in range(groups):
        engine.copy_blocks(group, [7, 2, 5], [0, 9, 12])
    engine.forward(step([other], 0, [[5, 7, 2, 6, 1]], groups))
    rows = engine.forward(step([token_ids[80:]], 80, [[0, 9, 12, 3, 4]], groups))
    np.testing.assert_array_equal(rows, expected[80:])


def test_a_copy_is_of_one_group(reference, open_engine):
    id = "qwen3-window-8"
    engine = open_engine(id, "float32")
    token_ids, other = sequence(reference, id), sequence(reference, id, index=31)
    expected = alone(engine, token_ids)
    engine.forward(step([token_ids[:80]], 0, [[7, 2, 5, -1, -1]], 2))
    engine.forward(step([other[:80]], 0, [[0, 9, 12, -1, -1]], 2))
    engine.copy_blocks(1, [7, 2, 5], [0, 9, 12])
    places = tuple(
        CachePlaces(block_table=np.array([blocks], dtype=np.int32))
        for blocks in ([7, 2, 5, 3, 4], [0, 9, 12, 3, 4])
    )
    batch = step([token_ids[80:]], 80, [[]], 2)
    rows = engine.forward(dataclasses.replace(batch, places=places))
    np.testing.assert_array_equal(rows, expected[80:])
    places = places[::-1]  # nothing was copied in group 0
    rows = engine.forward(dataclasses.replace(batch, places=places))
    assert (rows != expected[80:]).any()


@pytest.mark.parametrize(
    ("group", "sources", "destinations", "message"),
    [
        (2, [0], [1], "no such cache group"),
        (-1, [0], [1], "no such cache group"),
        (0, [0, 1], [2], "needs one destination"),
        (0, [0], [99], "block 99 is out of range"),
        (0, [-1], [0], "block -1 is out of range"),
        (0, np.array([2**32]), [1], "whole numbers of 32 bits"),
        (0, [0.9], [1], "whole numbers of 32 bits"),
        (0, [0, 1], [2, 2], "block 2 is a destination .* twice"),
        (0, [0, 1], [1, 2], "block 1 is a destination and also a source"),
    ],
)
def test_bad_copies_are_refused(group, sources, destinations, message, reference, open_engine):
    engine = open_engine("qwen3-window-8", "float32")
    with pytest.raises(EngineError, match=message):
        engine.copy_blocks(group, sources, destinations)


@pytest.mark.parametrize("options", [{"lowering": "portable"}, {"engine": "interpreter"}], ids=str)
def test_contiguous_caches_have_no_blocks_to_copy(options, reference, open_llm):
    engine = open_llm(reference("qwen3-window-8").path, **options).engine
    with pytest.raises(EngineError, match="is not paged: it has no blocks to copy"):
        engine.copy_blocks(0, [0], [1])


def test_a_cache_of_more_bits_is_nearer_and_of_fewer_stays_near(reference, open_engine):
    """Root mean square difference from transformers' float32 logits, over eight sequences."""
    id = "qwen3-gqa-7x2"
    model = reference(id)
    engines = [
        open_engine(id, dtype, activation_dtype="float32", kv_cache_dtype=kv_cache_dtype)
        for dtype, kv_cache_dtype in [
            ("bfloat16", "auto"),
            ("bfloat16", "float32"),
            ("float32", "bfloat16"),
        ]
    ]
    assert [item.cache_groups[0].dtype for item in engines] == ["bfloat16", "float32", "bfloat16"]
    per_token = [item.manifest["memory"]["kv_bytes_per_token"] for item in engines]
    assert per_token == [item.cache_groups[0].bytes_per_token for item in engines]
    assert per_token[1] == 2 * per_token[0] == 2 * per_token[2]
    assert [item.capacity.kv_cache_bytes // item.num_blocks for item in engines] == [
        32 * size for size in per_token
    ]

    def distance(engine) -> float:
        sequences = [sequence(reference, id, index=index) for index in range(30, 38)]
        squares = [((alone(engine, ids) - model.logits(ids)) ** 2).mean() for ids in sequences]
        return float(np.sqrt(np.mean(squares)))

    half, wide, narrow = map(distance, engines)
    assert wide < 0.97 * half
    # With matrices in float32, what is left is the cache's share.
    assert 0 < narrow < 0.8 * half


@pytest.mark.parametrize(
    ("dtype", "kv_cache_dtype"),
    [("bfloat16", "float32"), ("float32", "bfloat16"), ("float16", "bfloat16")],
)
def test_with_a_cache_of_another_dtype(dtype, kv_cache_dtype, reference, open_engine):
    id = "qwen3-window-8"
    chosen = {"id": id, "dtype": dtype, "kv_cache_dtype": kv_cache_dtype}
    engine = open_engine(**chosen)
    token_ids = sequence(reference, id)
    expected = alone(engine, token_ids)
    others = [Arrival(sequence(reference, id, 90, 40), 88), Arrival(token_ids[:20], 3)]
    together = ride(engine, [Arrival(token_ids, 100), *others])
    np.testing.assert_array_equal(together.logits[0], expected)
    chunks = ride(open_engine(**chosen, max_num_batched_tokens=7), [Arrival(token_ids, LENGTH)])
    np.testing.assert_array_equal(chunks.logits[0], expected)
    for group in range(2):
        engine.copy_blocks(group, [], [])
    engine.forward(step([token_ids[:80]], 0, [[7, 2, 5, -1, -1]], 2))
    for group in range(2):
        engine.copy_blocks(group, [7, 2, 5], [0, 9, 12])
    rows = engine.forward(step([token_ids[80:]], 80, [[0, 9, 12, 3, 4]], 2))
    np.testing.assert_array_equal(rows, expected[80:])


@pytest.mark.parametrize("kv_cache_dtype", ["auto", "float32"])
def test_with_bfloat16_values(kv_cache_dtype, reference, open_engine):
    id = "gemma3-softcap"
    chosen = {"activation_dtype": "bfloat16", "kv_cache_dtype": kv_cache_dtype}
    engine = open_engine(id, "bfloat16", **chosen)
    assert "activation_dtype" not in engine.manifest
    token_ids = sequence(reference, id)
    expected = alone(engine, token_ids)
    others = [Arrival(sequence(reference, id, 90, 40), 88), Arrival(token_ids[:20], 3)]
    together = ride(engine, [Arrival(token_ids, 100), *others])
    np.testing.assert_array_equal(together.logits[0], expected)
    chunks = open_engine(id, "bfloat16", **chosen, max_num_batched_tokens=7)
    (rows,) = ride(chunks, [Arrival(token_ids, LENGTH)]).logits
    np.testing.assert_array_equal(rows, expected)


def test_the_portable_lowering_has_no_cache_of_another_dtype(reference, open_llm):
    with pytest.raises(LoweringError, match="the portable lowering keeps keys") as refused:
        open_llm(reference("qwen3-window-8").path, kv_cache_dtype="bfloat16")
    assert "kv_cache_dtype bfloat16" in str(refused.value)


def test_sequences_that_gave_way_get_the_same_tokens(reference, open_llm):
    """Four sequences of up to three blocks each, and room for five."""
    model = reference("qwen3-window-8")
    llm = open_llm(model.path, lowering="native", max_model_len=96)
    (full, window) = llm.engine.cache_groups
    room = 5 * 32 * (full.bytes_per_token + window.bytes_per_token)
    small = open_llm(model.path, lowering="native", max_model_len=96, kv_cache_memory=room)
    assert small.engine.num_blocks == 5
    greedy = SamplingParams(temperature=0.0, max_tokens=60, ignore_eos=True)
    prompts = [*model.prompts(), model.prompt(length=30, index=9)]
    outputs = small.generate(prompts, greedy)
    assert [output.token_ids for output in outputs] == [
        output.token_ids for output in llm.generate(prompts, greedy)
    ]
    for prompt, output in zip(model.prompts(), outputs, strict=False):
        assert list(output.token_ids) == model.greedy(prompt)[: len(output.token_ids)]


ON_SOME_PROCESSORS = """
import os, sys
os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: int(sys.argv[1])])
import numpy
from pathlib import Path
from qwen3_runtime.engine.capacity import Limits
from qwen3_runtime.engine.compiled import engine_class
engine = engine_class(Path(sys.argv[2])).from_checkpoint(
    sys.argv[3], limits=Limits(max_model_len=140, max_num_seqs=2), show_progress=False)
tokens = [int(token) for token in sys.argv[5].split(",")]
numpy.save(sys.argv[4], engine.forward([tokens, tokens[:50]])[0])
"""


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="there is one processor")
@for_every_engine
def test_whatever_number_of_threads(id, dtype, reference, open_engine, tmp_path):
    engine = open_engine(id, dtype)
    tokens = ",".join(map(str, sequence(reference, id)))
    for count in ("1", "2"):
        places = [count, engine.directory, reference(id).path, tmp_path / f"{count}.npy", tokens]
        subprocess.run([sys.executable, "-c", ON_SOME_PROCESSORS, *map(str, places)], check=True)
    np.testing.assert_array_equal(np.load(tmp_path / "1.npy"), np.load(tmp_path / "2.npy"))


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        ([[0, 1, 2, 3, 99]], "out of range"),
        ([[0, 1, 2, 3, -1]], "out of range"),
        ([[0, 1, 2]], "too short"),
        ([[0, 1, 2, 3, 4], [5, 6, 7, 8, 4]], "used twice"),
    ],
)
def test_bad_block_tables_are_refused(tables, message, reference, open_engine):
    engine = open_engine("qwen3-window-8", "float32")
    token_ids = sequence(reference, "qwen3-window-8")
    batch = step([token_ids] * len(tables), 0, tables, len(engine.cache_groups))
    with pytest.raises(Exception, match=message) as caught:
        engine.forward(batch)
    assert type(caught.value).__name__ == "EngineError"
