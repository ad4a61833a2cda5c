"""Native engines give a sequence the same bits, alone, in any batch, and cut into any chunks."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

from qwen3_codegen import SamplingParams
from qwen3_runtime.engine.batch import Batch, CachePlaces
from qwen3_runtime.engine.capacity import Limits
from tests.e2e.stepping import Arrival, ride

pytestmark = pytest.mark.compile

CASES = ["qwen3-window-8", "qwen3-gqa-7x2", "gemma3-softcap"]
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

    def open_case(id, dtype, **limits):
        model = reference(id)
        llm = open_llm(model.path, dtype=dtype, lowering="native", max_model_len=LENGTH)
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
