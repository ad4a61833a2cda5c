"""The interpreter as an engine: steps, slots, bounds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from qwen3_codegen.dtypes import DType
from qwen3_codegen.ir.graph import Graph
from qwen3_codegen.ir.interpreter import Interpreter
from qwen3_runtime.engine.batch import Batch, CachePlaces, Engine
from qwen3_runtime.errors import EngineError
from tests.ir.tiny import ATTENTION, MLP, batch, hard_weights, rope_table, tiny_graph

WINDOWS = ({"window": None}, {"window": 3}, {"window": None})


@pytest.fixture(scope="module")
def graph() -> Graph:
    return tiny_graph(attributes=WINDOWS)


def engine_of(graph: Graph, **options: Any) -> Interpreter:
    settings = {"max_model_len": 32, "max_num_seqs": 3, **options}
    return Interpreter(graph, hard_weights(graph).__getitem__, **settings)


def tokens(count: int, seed: int = 0) -> list[int]:
    return np.random.default_rng(seed).integers(0, 37, count).tolist()


def alone(graph: Graph, sequence: Sequence[int]) -> np.ndarray:
    return engine_of(graph).forward(batch((0, sequence, 0)))


def test_it_is_an_engine(graph: Graph) -> None:
    engine: Engine = engine_of(graph)
    assert (engine.vocab_size, engine.max_model_len, engine.max_num_seqs) == (37, 32, 3)
    assert engine.max_num_batched_tokens >= 32 * 3
    (group,) = engine.cache_groups
    assert (group.kind, group.layers) == ("contiguous", (0, 1, 2))
    assert (group.num_key_value_heads, group.head_dim) == (2, 6)
    logits = engine.forward(batch((0, tokens(4), 0), logit_rows=[3]))
    assert logits.shape == (1, 37)
    assert logits.dtype == np.float32


def test_sequences_of_a_batch_do_not_see_each_other(graph: Graph) -> None:
    sequences = [tokens(9, 1), tokens(1, 2), tokens(4, 3)]
    together = engine_of(graph).forward(
        batch(*((slot, s, 0) for slot, s in zip((2, 0, 1), sequences, strict=True)))
    )
    apart = [alone(graph, sequence) for sequence in sequences]
    np.testing.assert_allclose(together, np.concatenate(apart), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("chunk", [1, 2, 7])
def test_chunks_give_the_same_as_one_prefill(graph: Graph, chunk: int) -> None:
    sequence = tokens(11)
    engine = engine_of(graph)
    rows = [
        engine.forward(batch((1, sequence[at : at + chunk], at)))
        for at in range(0, len(sequence), chunk)
    ]
    np.testing.assert_allclose(np.concatenate(rows), alone(graph, sequence), rtol=1e-6, atol=1e-6)


def test_a_slot_forgets_its_last_sequence(graph: Graph) -> None:
    engine = engine_of(graph)
    engine.forward(batch((0, tokens(20, 8), 0)))
    np.testing.assert_array_equal(engine.forward(batch((0, tokens(5), 0))), alone(graph, tokens(5)))


def test_a_step_may_be_done_again(graph: Graph) -> None:
    engine = engine_of(graph)
    engine.forward(batch((0, tokens(5), 0)))
    engine.forward(batch((0, tokens(7, 2), 5)))
    again = engine.forward(batch((0, tokens(3, 1), 5)))
    expected = alone(graph, [*tokens(5), *tokens(3, 1)])[5:]
    np.testing.assert_allclose(again, expected, rtol=1e-6, atol=1e-6)


def test_logit_rows_choose(graph: Graph) -> None:
    step = batch((0, tokens(5), 0), (1, tokens(3, 1), 0))
    every = engine_of(graph).forward(step)
    chosen = engine_of(graph).forward(replace(step, logit_rows=np.array([4, 7], np.int32)))
    np.testing.assert_allclose(chosen, every[[4, 7]], rtol=1e-6)


def test_float32_is_near_float64(graph: Graph) -> None:
    step = batch((0, tokens(9), 0))
    exact = engine_of(graph).forward(step)
    rounded = engine_of(graph, dtype=np.float32)
    values = rounded.trace(step)
    assert {array.dtype for name, array in values.items() if "input_ids" not in name} == {
        np.dtype(np.float32)
    }
    difference = np.abs(engine_of(graph, dtype=np.float32).forward(step) - exact).max()
    assert 0 < difference < 1e-4


def test_trace_names_every_value(graph: Graph) -> None:
    step = batch((0, tokens(4), 0))
    values = engine_of(graph).trace(step)
    places = ["prologue", "layers.0", "layers.1", "layers.2", "epilogue"]
    regions = [graph.prologue, *(graph.layer_kinds[kind] for kind in graph.schedule)]
    regions.append(graph.epilogue)
    expected = []
    for place, region in zip(places, regions, strict=True):
        weights = {weight.name for weight in region.weights}
        expected += [f"{place}.{v.name}" for v in region.values() if v.name not in weights]
    assert sorted(values) == sorted(expected)
    logits = engine_of(graph).forward(step)
    np.testing.assert_array_equal(values["epilogue.logits"].astype(np.float32), logits)
    np.testing.assert_array_equal(values["layers.0.h_add_2"], values["layers.1.h"])


STEPS = ((0, 6, 0), (0, 1, 6), (0, 3, 7))
"""A prefill, a decode, a chunk: slot, new tokens, position."""


def traces_of(engine: Interpreter) -> tuple[list[Batch], list[dict[str, np.ndarray]]]:
    batches = [batch((slot, tokens(count, start), start)) for slot, count, start in STEPS]
    return batches, [engine.trace(step) for step in batches]


def test_a_replay_gives_what_was_traced(graph: Graph) -> None:
    """Every node of every step, in order, though token ids are not there."""
    batches, traces = traces_of(engine_of(graph))
    for trace in traces:
        del trace["prologue.input_ids"]
    replayed = list(engine_of(graph, keep_weights=False).replay(batches, traces))
    regions = [graph.prologue, *(graph.layer_kinds[kind] for kind in graph.schedule)]
    num_nodes = sum(len(region.nodes) for region in (*regions, graph.epilogue))
    assert len(replayed) == num_nodes * len(STEPS)
    assert [each.step for each in replayed] == list(range(len(STEPS))) * num_nodes
    for each in replayed:
        for value, array in zip(each.node.outputs, each.results, strict=True):
            expected = traces[each.step][f"{each.place}.{value.name}"]
            np.testing.assert_allclose(array, expected, rtol=1e-12, atol=1e-12)


def test_a_replay_takes_what_it_is_given(graph: Graph) -> None:
    """A value that is wrong spoils the nodes that read it, and none after them."""
    batches, traces = traces_of(engine_of(graph))
    wrong = "layers.1.q_rope"
    traces[1][wrong] = traces[1][wrong] * 1.5
    spoilt = [
        (f"{each.place}.{each.node.outputs[0].name}", each.step)
        for each in engine_of(graph).replay(batches, traces)
        if not np.allclose(
            each.results[0], traces[each.step][f"{each.place}.{each.node.outputs[0].name}"]
        )
    ]
    assert spoilt == [(wrong, 1), ("layers.1.a", 1)]


def test_a_replay_rounds_rows_beside_weights_of_that_dtype_alone() -> None:
    graph = tiny_graph(dtype=DType.BF16)
    batches, traces = traces_of(engine_of(graph))
    exact, rounded = (
        list(engine_of(graph).replay(batches, traces, row_dtype))
        for row_dtype in (None, DType.BF16)
    )
    others = engine_of(graph).replay(batches, traces, DType.F16)
    for one, other, none in zip(exact, rounded, others, strict=True):
        changed = not np.array_equal(one.results[0], other.results[0])
        assert changed == (one.node.op == "linear")
        np.testing.assert_array_equal(one.results[0], none.results[0])
    first = next(each for each in rounded if each.node.op == "linear")
    node, trace = first.node, traces[0]
    x = trace[f"{first.place}.{node.inputs['x']}"].astype(ml_dtypes.bfloat16).astype(np.float64)
    spoilt = {**trace, f"{first.place}.{node.inputs['x']}": x}
    same = engine_of(graph).replay(batches, [spoilt, *traces[1:]])
    expected = next(each for each in same if each.node is node and each.place == first.place)
    np.testing.assert_array_equal(first.results[0], expected.results[0])


def test_a_replay_remembers_the_keys_it_was_given(graph: Graph) -> None:
    batches, traces = traces_of(engine_of(graph))
    traces[0]["layers.1.k_rope"] = traces[0]["layers.1.k_rope"] * 1.5
    steps = {
        each.step
        for each in engine_of(graph).replay(batches, traces)
        if (each.place, each.node.op) == ("layers.1", "attention")
        and not np.allclose(each.results[0], traces[each.step]["layers.1.a"])
    }
    assert steps == {0, 1, 2}


def test_a_trace_that_lacks_a_value_is_refused(graph: Graph) -> None:
    batches, traces = traces_of(engine_of(graph))
    del traces[2]["layers.1.q_rope"]
    with pytest.raises(EngineError, match=r"layers\.1\.q_rope: a trace lacks a value"):
        list(engine_of(graph).replay(batches, traces))


def test_weights_as_stored_are_rounded_once() -> None:
    graph = tiny_graph(dtype=DType.BF16)
    exact, stored = (engine_of(graph, as_stored=flag) for flag in (False, True))
    step = batch((0, tokens(5), 0))
    rows, rounded = exact.trace(step)["prologue.h"], stored.trace(step)["prologue.h"]
    assert rounded.dtype == np.float64
    np.testing.assert_array_equal(rounded, rows.astype(ml_dtypes.bfloat16).astype(np.float64))
    assert not np.array_equal(rounded, rows)


def test_weights_are_read_again_where_they_are_not_kept(graph: Graph) -> None:
    weights, read = hard_weights(graph), []

    def reading(name: str) -> np.ndarray:
        read.append(name)
        return weights[name]

    options = {"max_model_len": 8, "max_num_seqs": 1, "keep_weights": False}
    engine = Interpreter(graph, reading, **options)
    engine.forward(batch((0, [1, 2], 0)))
    engine.forward(batch((0, [3], 2)))
    assert sorted(read) == sorted([*weights, *weights])


def test_a_trace_of_chosen_values(graph: Graph) -> None:
    step = batch((0, tokens(4), 0))
    values = engine_of(graph).trace(step, {"layers.2.h", "epilogue.logits"})
    assert list(values) == ["layers.2.h", "epilogue.logits"]
    with pytest.raises(EngineError, match="no such value") as caught:
        engine_of(graph).trace(step, ["layers.3.h"])
    assert caught.value.got == "layers.3.h"


def test_weights_are_read_once_and_shared(graph: Graph) -> None:
    tied = tiny_graph(epilogue=("logits = linear(h, weight=embed, out=vocab_size)",))
    weights, read = hard_weights(tied), []

    def reading(name: str) -> np.ndarray:
        read.append(name)
        return weights[name]

    engine = Interpreter(tied, reading, max_model_len=8, max_num_seqs=1)
    engine.forward(batch((0, [1, 2], 0)))
    engine.forward(batch((0, [3], 2)))
    assert sorted(read) == sorted(set(read)) == sorted(weights)


def test_a_weight_of_the_wrong_shape_is_named(graph: Graph) -> None:
    weights = hard_weights(graph)
    weights["layers.1.attn.q_proj.weight"] = weights["layers.1.attn.q_proj.weight"][:-1]
    engine = Interpreter(graph, weights.__getitem__, max_model_len=8, max_num_seqs=1)
    with pytest.raises(EngineError, match="q_proj: a weight has the wrong shape"):
        engine.forward(batch((0, [1], 0)))


def test_longrope_chooses_by_max_model_len() -> None:
    table = rope_table(long_inv_freq=(0.9, 0.3, 0.01), long_threshold=16)
    graph = tiny_graph(rope=(table,))
    short = tiny_graph()
    long = tiny_graph(rope=(replace(rope_table(), inv_freq=(0.9, 0.3, 0.01)),))
    step = batch((0, tokens(9), 0))

    def logits(of: Graph, max_model_len: int) -> np.ndarray:
        return engine_of(of, max_model_len=max_model_len).forward(step)

    np.testing.assert_array_equal(logits(graph, 16), logits(short, 16))
    np.testing.assert_array_equal(logits(graph, 17), logits(long, 17))
    assert np.abs(logits(graph, 16) - logits(graph, 17)).max() > 1e-3


def test_rope_angles_are_those_of_float32() -> None:
    frequencies = (123456.7890625, 1.0, 0.1)  # so far apart that rounding the angle turns the pair
    graph = tiny_graph(rope=(replace(rope_table(), inv_freq=frequencies),))
    values = engine_of(graph).trace(batch((0, tokens(9), 0)))
    angle = np.float32(7) * np.float32(frequencies[0])
    assert abs(float(angle) - 7 * frequencies[0]) > 1e-3
    x, y = values["layers.0.k"][7, 0, [0, 3]]
    expected = x * np.cos(float(angle)) - y * np.sin(float(angle))
    np.testing.assert_allclose(values["layers.0.k_rope"][7, 0, 0], expected, rtol=1e-6)


def test_attention_factor_scales_both_tables() -> None:
    graph = tiny_graph(rope=(rope_table(attention_factor=1.5),))
    values = engine_of(graph).trace(batch((0, tokens(4), 0)))
    plain = engine_of(tiny_graph()).trace(batch((0, tokens(4), 0)))
    expected = 1.5 * plain["layers.0.q_rope"]
    np.testing.assert_allclose(values["layers.0.q_rope"], expected, rtol=1e-6, atol=1e-6)


def test_a_model_without_cache_runs() -> None:
    graph = tiny_graph(MLP)
    engine = engine_of(graph)
    (group,) = engine.cache_groups
    assert group.num_key_value_heads == 0
    assert engine.forward(batch((0, tokens(4), 0))).shape == (4, 37)


def test_more_positions_than_the_model_has_are_refused(graph: Graph) -> None:
    with pytest.raises(EngineError, match="max_model_len exceeds") as caught:
        engine_of(graph, max_model_len=65)
    assert caught.value.expected == "at most 64"


def changed(**fields: Any) -> Callable[[], Batch]:
    return lambda: replace(batch((0, [1, 2, 3], 0), (1, [4], 0)), **fields)


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int32)


FAULTS = {
    "slots outside the cache": lambda: batch((3, [1], 0)),
    "two sequences in one slot": lambda: batch((1, [1], 0), (1, [2], 0)),
    "more sequences than slots": lambda: batch(*((slot, [1], 0) for slot in (0, 1, 2, 2))),
    "a sequence without new tokens": lambda: batch((0, [1], 0), (1, [], 2)),
    "a sequence longer than max_model_len": lambda: batch((0, [1] * 33, 0)),
    "lengths that do not add up to the tokens": changed(token_ids=ints(1, 2, 3)),
    "positions other than the lengths say": changed(positions=ints(0, 1, 3, 0)),
    "token ids outside the vocabulary": lambda: batch((0, [37], 0)),
    "logit rows outside the tokens": changed(logit_rows=ints(0, 4)),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_bad_batch_is_refused(graph: Graph, fault: str) -> None:
    with pytest.raises(EngineError, match=f"a batch has {fault}"):
        engine_of(graph).forward(FAULTS[fault]())


def test_negative_token_ids_are_refused(graph: Graph) -> None:
    with pytest.raises(EngineError, match="token ids outside the vocabulary"):
        engine_of(graph).forward(batch((0, [-1], 0)))


def test_a_batch_of_blocks_is_refused(graph: Graph) -> None:
    step = replace(batch((0, [1], 0)), places=(CachePlaces(block_table=ints(0)[None]),))
    with pytest.raises(EngineError, match="the batch gives no slots"):
        engine_of(graph).forward(step)


def test_a_gap_is_refused(graph: Graph) -> None:
    engine = engine_of(graph)
    engine.forward(batch((0, [1, 2], 0)))
    with pytest.raises(EngineError, match="skips positions"):
        engine.forward(batch((0, [1], 3)))


def test_layers_keep_caches_of_their_own() -> None:
    one = tiny_graph(ATTENTION, attributes=({"window": None},))
    two = tiny_graph(ATTENTION, attributes=({"window": None}, {"window": None}))
    sequence = tokens(6)
    whole = [alone(graph, sequence)[-1] for graph in (one, two)]
    for graph, expected in zip((one, two), whole, strict=True):
        engine = engine_of(graph)
        engine.forward(batch((0, sequence[:5], 0)))
        last = engine.forward(batch((0, sequence[5:], 5)))[0]
        np.testing.assert_allclose(last, expected, rtol=1e-6, atol=1e-6)
    assert np.abs(whole[0] - whole[1]).max() > 1e-2
