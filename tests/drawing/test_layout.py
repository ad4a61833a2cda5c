"""Whatever the graph: boxes stand apart, arrows go down and cross no box."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest

from qwen3_codegen.drawing.layout import Box, Layout, Route, Size, lay_out

STEPS = 12


def random_graph(seed: int) -> tuple[list[Size], list[tuple[int, int]]]:
    chance = random.Random(seed)
    count = chance.randint(1, 18)
    sizes = [Size(chance.uniform(20, 300), chance.uniform(20, 90)) for _ in range(count)]
    pairs = [(a, b) for b in range(count) for a in range(b)]
    edges = [pair for pair in pairs if chance.random() < chance.choice((0.1, 0.3))]
    return sizes, edges


def points(route: Route) -> list[tuple[float, float]]:
    """Points along an arrow as it is drawn: straight through rows, curved between them."""
    found = []
    for here, there in pairwise(route):
        found += [(here.x, here.top), (here.x, here.bottom)]
        for step in range(STEPS + 1):
            t = step / STEPS
            ease = 3 * t * t * (1 - t) + t**3
            middle = (here.bottom + there.top) / 2
            y = (1 - t) ** 3 * here.bottom + (3 * t * (1 - t)) * middle + t**3 * there.top
            found.append((here.x + (there.x - here.x) * ease, y))
    return found


def is_inside(box: Box, x: float, y: float) -> bool:
    edge = 0.01
    return abs(x - box.x) < box.width / 2 - edge and box.y + edge < y < box.y + box.height - edge


def check(layout: Layout, sizes: list[Size], edges: list[tuple[int, int]]) -> None:
    assert [(box.width, box.height) for box in layout.boxes] == [
        (size.width, size.height) for size in sizes
    ]
    for box in layout.boxes:
        assert box.x - box.width / 2 >= -0.01
        assert box.x + box.width / 2 <= layout.width + 0.01
        assert box.y >= 0
        assert box.y + box.height <= layout.height + 0.01
    for i, a in enumerate(layout.boxes):
        for b in layout.boxes[i + 1 :]:
            beside = abs(a.x - b.x) >= (a.width + b.width) / 2 + 20
            above = a.y + a.height <= b.y - 20 or b.y + b.height <= a.y - 20
            assert beside or above
    for (source, target), route in zip(edges, layout.routes, strict=True):
        start, end = layout.boxes[source], layout.boxes[target]
        assert route[0].top == start.y + start.height
        assert route[-1].top == end.y
        assert abs(route[0].x - start.x) < start.width / 2
        assert abs(route[-1].x - end.x) < end.width / 2
        assert all(a[1] <= b[1] + 0.01 for a, b in pairwise(points(route)))
        for x, y in points(route):
            assert not any(is_inside(box, x, y) for box in layout.boxes)


@pytest.mark.parametrize("seed", range(40))
def test_random_graphs(seed):
    sizes, edges = random_graph(seed)
    layout = lay_out(sizes, edges)
    check(layout, sizes, edges)
    assert lay_out(sizes, edges) == layout


def test_nothing():
    assert lay_out([], []) == Layout(0.0, 0.0, (), ())


def test_a_chain_is_straight():
    sizes = [Size(100, 30), Size(60, 30), Size(140, 30)]
    layout = lay_out(sizes, [(0, 1), (1, 2)])
    assert len({round(box.x, 6) for box in layout.boxes}) == 1


def test_a_crossing_that_need_not_be_is_undone():
    sizes = [Size(50, 20)] * 4
    layout = lay_out(sizes, [(0, 3), (1, 2)])
    (a, b), (c, d) = [(route[0].x, route[-1].x) for route in layout.routes]
    assert (a - c) * (b - d) > 0


def test_an_arrow_past_a_row_goes_beside_its_box():
    sizes = [Size(100, 30)] * 3
    layout = lay_out(sizes, [(0, 1), (1, 2), (0, 2)])
    check(layout, sizes, [(0, 1), (1, 2), (0, 2)])
    assert len(layout.routes[2]) == 3
