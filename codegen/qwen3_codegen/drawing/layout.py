"""Boxes in rows, arrows from each row to later ones, none of which crosses a box.

The usual steps for layered drawings (Sugiyama, Tagawa and Toda 1981): a row for each box by its
longest way from the top, a place kept free in every row an arrow passes, an order within the rows
by the mean of the neighbours, and positions near the mean of the neighbours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

__all__ = ["Box", "Layout", "Route", "Size", "Span", "lay_out"]

_GAP_X = 24.0
_GAP_Y = 34.0
_PASSAGE = 6.0
"""Width of the place an arrow passes a row at."""
_SWEEPS = 12


@dataclass(frozen=True, slots=True)
class Size:
    """What a box needs."""

    width: float
    height: float


@dataclass(frozen=True, slots=True)
class Box:
    """A box in its place; x is its middle, y its top."""

    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True, slots=True)
class Span:
    """A piece of an arrow that goes straight down through a row."""

    x: float
    top: float
    bottom: float


Route = tuple[Span, ...]
"""An arrow from row to row: below its box, through the rows between, to the top of its target."""


@dataclass(frozen=True, slots=True)
class Layout:
    """A finished drawing; its top left corner is (0, 0)."""

    width: float
    height: float
    boxes: tuple[Box, ...]
    routes: tuple[Route, ...]


def lay_out(sizes: Sequence[Size], edges: Sequence[tuple[int, int]]) -> Layout:
    """Places boxes.

    Args:
        sizes: One for each box; boxes that come earlier tend to stand to the left.
        edges: Pairs of box numbers, from and to, each once and without cycles: a box has a lower
            number than those it points to.

    Returns:
        Boxes and routes in the order given.
    """
    drawing = _Drawing(sizes, edges)
    drawing.order()
    drawing.place()
    return drawing.finished()


class _Drawing:
    """Rows of slots; slots from ``len(sizes)`` on are passages of arrows."""

    def __init__(self, sizes: Sequence[Size], edges: Sequence[tuple[int, int]]) -> None:
        self._sizes = list(sizes)
        self._num_boxes = len(sizes)
        self._row_of = _rows_by_longest_way(len(sizes), edges)
        self._chains = [self._chain(source, target) for source, target in edges]
        self._rows: list[list[int]] = [[] for _ in range(max(self._row_of, default=-1) + 1)]
        for slot, row in enumerate(self._row_of):
            self._rows[row].append(slot)
        self._above: list[list[int]] = [[] for _ in self._sizes]
        self._below: list[list[int]] = [[] for _ in self._sizes]
        for chain in self._chains:
            for upper, lower in pairwise(chain):
                self._below[upper].append(lower)
                self._above[lower].append(upper)
        self._x = [0.0] * len(self._sizes)

    def _chain(self, source: int, target: int) -> list[int]:
        """Returns the slots of an arrow, making passages in the rows between."""
        passages = []
        for row in range(self._row_of[source] + 1, self._row_of[target]):
            passages.append(len(self._sizes))
            self._sizes.append(Size(_PASSAGE, 0.0))
            self._row_of.append(row)
        return [source, *passages, target]

    def order(self) -> None:
        """Sorts each row by where its neighbours stand, and keeps the best order seen."""
        best, fewest = [list(row) for row in self._rows], self._num_crossings()
        for sweep in range(_SWEEPS):
            neighbours = self._above if sweep % 2 == 0 else self._below
            rows = self._rows if sweep % 2 == 0 else self._rows[::-1]
            position = {slot: i for row in self._rows for i, slot in enumerate(row)}
            for row in rows:
                keys = {slot: _mean([position[n] for n in neighbours[slot]], position[slot])
                        for slot in row}  # fmt: skip
                row.sort(key=keys.__getitem__)
                position |= {slot: i for i, slot in enumerate(row)}
            crossings = self._num_crossings()
            if crossings < fewest:
                best, fewest = [list(row) for row in self._rows], crossings
        self._rows = best

    def _num_crossings(self) -> int:
        position = {slot: i for row in self._rows for i, slot in enumerate(row)}
        count = 0
        for row in self._rows:
            pairs = [(position[a], position[b]) for a in row for b in self._below[a]]
            count += sum((a - c) * (b - d) < 0 for a, b in pairs for c, d in pairs)
        return count // 2

    def place(self) -> None:
        """Moves slots towards the mean of their neighbours; the order stays."""
        for row in self._rows:
            self._x_near(row, [0.0] * len(row))
        for sweep in range(_SWEEPS):
            downwards = sweep % 2 == 0
            for row in self._rows if downwards else self._rows[::-1]:
                neighbours = self._above if downwards else self._below
                wanted = [
                    _mean([self._x[n] for n in neighbours[slot]], self._x[slot]) for slot in row
                ]
                self._x_near(row, wanted)

    def _x_near(self, row: Sequence[int], wanted: Sequence[float]) -> None:
        """Places a row as near as may be: halfway between pushing right and pushing left."""
        apart = [0.0] + [
            (self._sizes[a].width + self._sizes[b].width) / 2 + _GAP_X for a, b in pairwise(row)
        ]
        right, left = list(wanted), list(wanted)
        for i in range(1, len(row)):
            right[i] = max(right[i], right[i - 1] + apart[i])
        for i in range(len(row) - 1, 0, -1):
            left[i - 1] = min(left[i - 1], left[i] - apart[i])
        for slot, a, b in zip(row, left, right, strict=True):
            self._x[slot] = (a + b) / 2

    def finished(self) -> Layout:
        """Returns boxes and arrows with the left edge at 0."""
        halves = [size.width / 2 for size in self._sizes]
        start = min((x - half for x, half in zip(self._x, halves, strict=True)), default=0.0)
        self._x = [x - start for x in self._x]
        end = max((x + half for x, half in zip(self._x, halves, strict=True)), default=0.0)
        tops, bottoms, y = [], [], 0.0
        for row in self._rows:
            tops.append(y)
            bottoms.append(y + max(self._sizes[slot].height for slot in row))
            y = bottoms[-1] + _GAP_Y
        boxes = tuple(
            Box(self._x[slot], tops[self._row_of[slot]], size.width, size.height)
            for slot, size in enumerate(self._sizes[: self._num_boxes])
        )
        routes = tuple(self._route(chain, tops, bottoms) for chain in self._chains)
        return Layout(end, bottoms[-1] if bottoms else 0.0, boxes, routes)

    def _route(self, chain: list[int], tops: list[float], bottoms: list[float]) -> Route:
        source, *passages, target = chain
        row = self._row_of[source]
        start = self._port(source, chain[1], self._below)
        end = self._port(target, chain[-2], self._above)
        below = tops[row] + self._sizes[source].height
        through = [
            Span(self._x[slot], tops[self._row_of[slot]], bottoms[self._row_of[slot]])
            for slot in passages
        ]
        goal = tops[self._row_of[target]]
        return (Span(start, below, bottoms[row]), *through, Span(end, goal, goal))

    def _port(self, slot: int, other: int, neighbours: list[list[int]]) -> float:
        """Where an arrow touches a box: arrows share its edge evenly, from left to right."""
        order = sorted(neighbours[slot], key=lambda n: (self._x[n], n))
        width = self._sizes[slot].width
        share = (order.index(other) + 1) / (len(order) + 1)
        return self._x[slot] - width / 2 + width * share


def _rows_by_longest_way(num_boxes: int, edges: Sequence[tuple[int, int]]) -> list[int]:
    rows = [0] * num_boxes
    for source, target in sorted(edges, key=lambda edge: edge[1]):
        rows[target] = max(rows[target], rows[source] + 1)
    return rows


def _mean(values: Sequence[float], otherwise: float) -> float:
    return sum(values) / len(values) if values else otherwise
