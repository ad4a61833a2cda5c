"""Strided views of flat memory in NumPy, independent of the engine's ``Tensor``."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qwen3_codegen.infinicore.api import StrideRule

Array = NDArray[Any]
Shape = tuple[int, ...]


@dataclass(eq=False)
class Memory:
    """One allocation: a flat array whose elements views address by index."""

    name: str
    elements: Array


@dataclass(frozen=True)
class View:
    """Index ``(i, j, ...)`` lies at ``offset + i * strides[0] + j * strides[1] + ...``."""

    memory: Memory
    shape: Shape
    strides: Shape
    offset: int = 0

    @classmethod
    def of(cls, name: str, array: Array) -> View:
        """A contiguous view of a memory of its own that holds ``array``."""
        return cls(Memory(name, np.array(array).ravel()), array.shape, packed(array.shape))

    def indices(self) -> Array:
        """Index of every element into the memory, in the view's shape."""
        grids = np.ix_(*(np.arange(extent) for extent in self.shape))
        where = np.full(self.shape, self.offset, dtype=np.int64)
        for grid, stride in zip(grids, self.strides, strict=True):
            where = where + grid * stride
        return where

    def read(self) -> Array:
        return self.memory.elements[self.indices()]

    def write(self, values: Array) -> None:
        assert values.shape == self.shape, f"{values.shape} written to {self.shape}"
        where = self.indices()
        assert len(np.unique(where)) == where.size, "an output addresses an element twice"
        self.memory.elements[where] = values

    def overlaps(self, other: View) -> bool:
        return self.memory is other.memory and bool(
            np.intersect1d(self.indices(), other.indices()).size
        )

    def is_same(self, other: View) -> bool:
        """Says whether both address the same elements in the same order."""
        return (
            self.memory is other.memory
            and self.shape == other.shape
            and np.array_equal(self.indices(), other.indices())
        )

    # What plans may do to a tensor, by the name of the engine's method.

    def shaped(self, shape: Shape) -> View:
        assert self.strides == packed(self.shape), "only a contiguous tensor can be re-shaped"
        assert math.prod(shape) <= math.prod(self.shape), f"{shape} does not fit {self.shape}"
        return View(self.memory, shape, packed(shape), self.offset)

    def columns(self, start: int, count: int) -> View:
        assert 0 <= start <= self.shape[-1] - count
        return View(
            self.memory,
            (*self.shape[:-1], count),
            self.strides,
            self.offset + start * self.strides[-1],
        )

    def rows(self, start: int, count: int) -> View:
        assert 0 <= start <= self.shape[0] - count
        return View(
            self.memory,
            (count, *self.shape[1:]),
            self.strides,
            self.offset + start * self.strides[0],
        )

    def unflatten(self, axis: int, outer: int, inner: int) -> View:
        assert outer * inner == self.shape[axis]
        stride = self.strides[axis]
        return View(
            self.memory,
            (*self.shape[:axis], outer, inner, *self.shape[axis + 1 :]),
            (*self.strides[:axis], stride * inner, stride, *self.strides[axis + 1 :]),
            self.offset,
        )

    def flatten(self, axis: int) -> View:
        first, second = self.shape[axis : axis + 2]
        merged = View(
            self.memory,
            (*self.shape[:axis], first * second, *self.shape[axis + 2 :]),
            (*self.strides[:axis], self.strides[axis + 1], *self.strides[axis + 2 :]),
            self.offset,
        )
        assert np.array_equal(merged.indices().ravel(), self.indices().ravel()), "not mergeable"
        return merged

    def transposed(self) -> View:
        return View(
            self.memory,
            (*self.shape[:-2], self.shape[-1], self.shape[-2]),
            (*self.strides[:-2], self.strides[-1], self.strides[-2]),
            self.offset,
        )

    def repeated(self, axis: int, count: int) -> View:
        return View(
            self.memory,
            (*self.shape[:axis], count, *self.shape[axis:]),
            (*self.strides[:axis], 0, *self.strides[axis:]),
            self.offset,
        )

    def at(self, axis: int, index: int) -> View:
        assert 0 <= index < self.shape[axis]
        return View(
            self.memory,
            (*self.shape[:axis], *self.shape[axis + 1 :]),
            (*self.strides[:axis], *self.strides[axis + 1 :]),
            self.offset + index * self.strides[axis],
        )


def packed(shape: Shape) -> Shape:
    """Row-major strides."""
    return tuple(math.prod(shape[axis + 1 :]) for axis in range(len(shape)))


def obeys(view: View, rule: StrideRule) -> bool:
    """Says whether a view's strides keep an operator's rule."""
    long_axes = [(extent, stride) for extent, stride in zip(view.shape, view.strides, strict=True)]
    is_packed = all(
        extent == 1 or stride == expected
        for (extent, stride), expected in zip(long_axes, packed(view.shape), strict=True)
    )
    match rule:
        case StrideRule.ANY:
            return True
        case StrideRule.LAST_ONE:
            return view.strides[-1] == 1
        case StrideRule.CONTIGUOUS | StrideRule.DENSE:
            return is_packed
        case StrideRule.MATRIX:
            return 1 in view.strides[-2:]
        case StrideRule.UNIQUE:
            return all(extent == 1 or stride != 0 for extent, stride in long_axes)
        case StrideRule.HEAD_ROWS:
            return view.strides[-1] == 1 and view.strides[1] == view.shape[2]
    raise ValueError(rule)
