"""Tiny models from statements, hard weights for any graph, and steps to run it through.

Hard weights make a wrong constant or a swapped input show: norm weights are spread, biases are
not zero, and queries and keys are large enough that attention looks at few tokens.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qwen3_codegen.dtypes import DType
from qwen3_codegen.frontend import build_graph
from qwen3_codegen.ir.graph import Graph
from qwen3_codegen.ir.interpreter import Interpreter
from qwen3_codegen.spec.expressions import parse_expression, parse_statement
from qwen3_codegen.spec.model import (
    ArchitectureSpec,
    ChatDefaults,
    CheckpointNames,
    LayerSpec,
    ModelSpec,
    RopeTable,
)
from qwen3_codegen.spec.rules import ConfigSchema, LocatedExpression
from qwen3_codegen.spec.source import SourceLocation
from qwen3_codegen.spec.syntax import Expression, Statement
from qwen3_runtime.engine.batch import Batch, CachePlaces

Array = NDArray[Any]

CONFIG = {
    "vocab_size": 37,
    "hidden_size": 12,
    "intermediate_size": 10,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 6,
    "max_position_embeddings": 64,
    "rms_norm_eps": 0.07,
}

PROLOGUE = ("h = embedding(input_ids, weight=embed, size=[vocab_size, hidden_size])",)
EPILOGUE = ("logits = linear(h, weight=lm_head, out=vocab_size)",)

ATTENTION = (
    "x = rms_norm(h, weight=input_layernorm)",
    "q = linear(x, weight=attn.q_proj, out=[num_attention_heads, head_dim])",
    "k = linear(x, weight=attn.k_proj, out=[num_key_value_heads, head_dim])",
    "v = linear(x, weight=attn.v_proj, out=[num_key_value_heads, head_dim])",
    "q, k = rope(q, k, table='rope')",
    "a = attention(q, k, v, scale=0.9, window=layer.window)",
    "h = h + linear(a, weight=attn.o_proj, out=hidden_size)",
)
MLP = (
    "x = rms_norm(h, weight=post_attention_layernorm)",
    "gate = linear(x, weight=mlp.gate_proj, out=intermediate_size)",
    "up = linear(x, weight=mlp.up_proj, out=intermediate_size)",
    "h = h + linear(silu(gate) * up, weight=mlp.down_proj, out=hidden_size)",
)


def rope_table(name: str = "rope", rotary_dim: int = 6, **fields: Any) -> RopeTable:
    """A table of base 61.3."""
    exponents = np.arange(0, rotary_dim, 2, dtype=np.float32) / rotary_dim
    inv_freq = tuple(map(float, np.float32(1) / np.float32(61.3) ** exponents))
    options = {"interleaved": False, "attention_factor": 1.0, **fields}
    return RopeTable(name=name, rotary_dim=rotary_dim, inv_freq=inv_freq, **options)


def statements(
    lines: Sequence[str], path: str, when: Mapping[str, str] | None = None
) -> tuple[Statement, ...]:
    """Statements at lines 1, 2, ... of ``path``; ``when`` maps a line to its condition."""

    def conditions(line: str) -> tuple[Expression, ...]:
        text = (when or {}).get(line)
        return () if text is None else (parse_expression(text, SourceLocation(path, 1)),)

    return tuple(
        parse_statement(line, SourceLocation(path, number), conditions(line))
        for number, line in enumerate(lines, start=1)
    )


def tiny_spec(
    layer: Sequence[str] = (*ATTENTION, *MLP),
    *,
    prologue: Sequence[str] = PROLOGUE,
    epilogue: Sequence[str] = EPILOGUE,
    attributes: Sequence[Mapping[str, Any]] = ({"window": None},),
    layer_types: Sequence[str] | None = None,
    rope: Sequence[RopeTable] = (),
    dtype: DType = DType.F32,
    when: Mapping[str, str] | None = None,
    **config: Any,
) -> ModelSpec:
    """A model with one layer per entry of ``attributes``."""
    location = SourceLocation("tiny.yaml", 1)
    types = layer_types or ["decoder"] * len(attributes)
    architecture = ArchitectureSpec(
        name="tiny",
        description="A model of a test",
        model_type="tiny",
        model_types=("tiny",),
        huggingface_class="TinyForCausalLM",
        config=ConfigSchema(fields={}, must_equal={}, inert=frozenset(), derived={}),
        rope={},
        layer_types={},
        layer_type=LocatedExpression(parse_expression("'decoder'", location), location),
        layer_attributes={},
        prologue=statements(prologue, "prologue"),
        blocks={"layer": statements(layer, "layer", when)},
        epilogue=statements(epilogue, "epilogue"),
        checkpoint=CheckpointNames(layer_prefix="layers.{layer}."),
        location=location,
    )
    return ModelSpec(
        name="tiny",
        architecture=architecture,
        config={**CONFIG, **config},
        dtype=dtype,
        layers=tuple(
            LayerSpec(layer_type=type_, blocks=("layer",), attributes=each)
            for type_, each in zip(types, attributes, strict=True)
        ),
        rope={table.name: table for table in rope or (rope_table(),)},
        chat=ChatDefaults(),
        huggingface_config={},
        notes=(),
        ignored_config_keys=(),
        location=location,
    )


def tiny_graph(layer: Sequence[str] = (*ATTENTION, *MLP), **fields: Any) -> Graph:
    """The graph of ``tiny_spec``."""
    return build_graph(tiny_spec(layer, **fields))


def hard_weights(graph: Graph, seed: int = 0) -> dict[str, Array]:
    """A random array for every tensor the graph reads, the same whatever else it reads."""
    arrays: dict[str, Array] = {}
    for region in graph.regions():
        layers = [
            layer
            for layer, kind in enumerate(graph.schedule)
            if graph.layer_kinds[kind].name == region.name
        ]
        for weight in region.weights:
            for template, shape in weight.sources.items():
                for layer in layers or [0]:
                    name = template.replace("{layer}", str(layer))
                    arrays.setdefault(name, _draw(name, shape, seed))
    return arrays


def _draw(name: str, shape: tuple[int, ...], seed: int) -> Array:
    rng = np.random.default_rng((seed, zlib.crc32(name.encode())))
    if "norm" in name:
        return rng.uniform(0.5, 1.5, shape)
    gain = 2.5 if "q_proj" in name or "k_proj" in name or "qkv" in name else 1.0
    return gain * rng.standard_normal(shape) / np.sqrt(shape[-1] if len(shape) > 1 else 4)


def batch(*parts: tuple[int, Sequence[int], int], logit_rows: Sequence[int] | None = None) -> Batch:
    """A batch of (slot, new token ids, number of tokens before); all rows by default."""
    token_ids = [token for _, tokens, _ in parts for token in tokens]
    positions = [start + i for _, tokens, start in parts for i in range(len(tokens))]
    rows = range(len(token_ids)) if logit_rows is None else logit_rows
    return Batch(
        token_ids=np.array(token_ids, np.int32),
        positions=np.array(positions, np.int32),
        query_lens=np.array([len(tokens) for _, tokens, _ in parts], np.int32),
        seq_lens=np.array([start + len(tokens) for _, tokens, start in parts], np.int32),
        logit_rows=np.array(rows, np.int32),
        places=(CachePlaces(slots=np.array([slot for slot, _, _ in parts], np.int32)),),
    )


def steps(vocab_size: int) -> list[Batch]:
    """Two sequences: prefills of different lengths, a chunk, decodes, one slot used again."""
    rng = np.random.default_rng(5)
    a, b, c = (rng.integers(0, vocab_size, size).tolist() for size in (13, 6, 4))
    return [
        batch((0, a[:9], 0), (2, b[:5], 0)),
        batch((2, b[5:6], 5), (0, a[9:12], 9)),
        batch((0, a[12:13], 12), (2, c, 0), logit_rows=[0, 4]),
    ]


def interpret(
    graph: Graph,
    read: Callable[[str], Array] | None = None,
    *,
    dtype: type = np.float64,
) -> Array:
    """Runs a graph through ``steps`` and returns all logits rows in the interpreter's dtype."""
    engine = Interpreter(
        graph,
        read or hard_weights(graph).__getitem__,
        dtype=dtype,
        max_model_len=graph.max_position_embeddings,
        max_num_seqs=3,
    )
    name = f"epilogue.{graph.epilogue.results[0]}"
    return np.concatenate([engine.trace(step)[name] for step in steps(graph.vocab_size)])
