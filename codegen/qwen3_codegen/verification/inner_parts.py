"""Inside a fused attention: norm and rotation of heads, told apart by what a trace shows of both.

The kernel normalises and rotates at once, so only the result of the two is ever stored. A rotation
changes no head's length, and at position 0 it changes nothing: what is wrong there is the norm's.
Turned back by its angles, a rotated head is the normalised one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from qwen3_codegen.ir.graph import Graph, Node
from qwen3_codegen.ir.interpreter import places, rope_angles
from qwen3_codegen.ir.ops import OPS
from qwen3_codegen.ir.ops.step import RopeAngles
from qwen3_codegen.verification.measure import Array, Measurement, measure, worst
from qwen3_codegen.verification.script import Played

__all__ = ["Heads", "inner_parts", "is_scaled", "last_part", "norm_of", "with_norms"]

_NORMS: Mapping[str, str] = {"q_rope": "q_norm", "k_rope": "k_norm"}


def last_part(node: Node) -> str | None:
    """Returns the part of a fused node that makes its result; None of a node that is not fused."""
    fusion = OPS[node.op].fusion if node.op in OPS else None
    return None if fusion is None else fusion.last


def inner_parts(node: Node) -> list[str]:
    """Returns the parts of a fused node before its last one, in order.

    Each has the name of what it makes: values of a trace, and heads after their norm, which
    ``with_norms`` adds to it.
    """
    fusion = OPS[node.op].fusion if node.op in OPS else None
    if fusion is None:
        return []
    norms = [norm for norm in map(_NORMS.get, fusion.names) if norm in node.inputs]
    return [*filter(None, norms), *fusion.names]


def norm_of(node: Node, heads: str) -> str | None:
    """Returns the norm that an inner value went through, if any."""
    norm = _NORMS.get(heads)
    return norm if norm in node.inputs else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Heads:
    """An inner value of one step beside what it should be.

    Arrays are [num_tokens, heads, head_dim], ``positions`` [num_tokens].
    """

    step: int
    actual: Array
    expected: Array
    positions: Array
    rotary_dim: int

    def whole(self) -> Measurement:
        """Measures all of it."""
        return measure(self.actual, self.expected)

    def norm(self) -> Measurement:
        """Measures what the norm alone decides: lengths, and all of position 0."""
        start = self.positions == 0
        return worst(
            (
                measure(_lengths(self.actual), _lengths(self.expected)),
                measure(self.actual[start], self.expected[start]),
            )
        )


def is_scaled(steps: Iterable[Heads], limit: float) -> bool:
    """Says whether one factor of all that is rotated explains what is off: the rope table's.

    Args:
        steps: An inner value in every step.
        limit: What an element may be off by, in units of the largest one of its head.
    """
    ratios = []
    for heads in steps:
        turned, still = slice(0, heads.rotary_dim), slice(heads.rotary_dim, None)
        if measure(heads.actual[..., still], heads.expected[..., still]).max_rel > limit:
            return False
        with np.errstate(all="ignore"):  # another engine's values may be anything
            ratios.append(
                _lengths(heads.actual[..., turned]) / _lengths(heads.expected[..., turned])
            )
    factors = np.concatenate(ratios)
    return bool(np.ptp(factors) <= limit * np.abs(factors).max())


def _lengths(heads: Array) -> Array:
    """[num_tokens, heads, 1]."""
    with np.errstate(all="ignore"):  # another engine's values may be anything
        lengths: Array = np.linalg.norm(heads.astype(np.float64), axis=-1, keepdims=True)
    return lengths


def with_norms(
    graph: Graph, played: Played[Mapping[str, Array]], max_model_len: int
) -> Played[Mapping[str, Array]]:
    """Adds heads after their norm to traces, under names such as ``layers.3.a.k_norm``.

    Args:
        graph: The engine's; its rope tables turn rotated heads back.
        played: Traces of the engine.
        max_model_len: The engine's, which chooses between rope tables.
    """
    results = []
    for batch, trace in zip(played.batches, played.results, strict=True):
        added = dict(trace)
        for place, _, region in places(graph):
            for node in region.nodes:
                for part in inner_parts(node):
                    name = f"{place}.{node.outputs[0].name}"
                    norm, heads = norm_of(node, part), trace.get(f"{name}.{part}")
                    if norm is None or heads is None:
                        continue
                    table = graph.rope_tables[str(node.attributes["table"])]
                    angles = rope_angles(table, batch.positions, max_model_len, np.dtype(float))
                    added[f"{name}.{norm}"] = _turned_back(heads, angles)
        results.append(added)
    return replace(played, results=tuple(results))


def _turned_back(heads: Array, angles: RopeAngles) -> Array:
    """What heads were before they were rotated, and multiplied by the table's factor."""
    cos, sin = angles.cos[:, None, :], angles.sin[:, None, :]
    square = cos * cos + sin * sin
    half = angles.rotary_dim // 2
    first, second = slice(0, half), slice(half, angles.rotary_dim)
    if angles.interleaved:
        first, second = slice(0, angles.rotary_dim, 2), slice(1, angles.rotary_dim, 2)
    back = heads.astype(np.float64)
    a, b = back[..., first].copy(), back[..., second].copy()
    with np.errstate(invalid="ignore"):  # another engine's values may be anything
        back[..., first] = (a * cos + b * sin) / square
        back[..., second] = (b * cos - a * sin) / square
    return back
