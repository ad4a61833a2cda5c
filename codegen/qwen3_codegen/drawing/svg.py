"""A graph as an SVG picture: a column per region, a box per op, an arrow per use of a value."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from xml.sax.saxutils import escape, quoteattr

from qwen3_codegen.drawing.layout import Box, Layout, Route, Size, lay_out
from qwen3_codegen.ir.graph import Graph, Node, Region
from qwen3_codegen.ir.printer import format_attributes, heading_of

__all__ = ["to_svg"]

_CHARACTER = 6.6
"""Width of a letter of a monospaced font of 11 pixels: six tenths, as such fonts have it."""
_LINE = 15.0
_PADDING = 8.0
_MARGIN = 24.0
_COLUMN_GAP = 32.0
_STYLE = """\
text { font: 11px monospace; fill: #1f2937; }
.heading, .op { font-weight: bold; }
.heading { font-size: 13px; }
.weight { fill: #92400e; }
.role { font-size: 9px; fill: #6b7280; }
.region { fill: #f8fafc; stroke: #cbd5e1; }
.box { fill: #ffffff; stroke: #475569; }
.parameter { fill: #dbeafe; }
.result { stroke-width: 2.5; }
.use { fill: none; stroke: #64748b; marker-end: url(#arrow); }"""

_ARROW = (
    '<defs><marker id="arrow" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="7" '
    'markerHeight="7" orient="auto"><path d="M0 0 L8 4 L0 8 z" fill="#64748b"/></marker></defs>'
)


@dataclass(frozen=True, slots=True)
class _Item:
    """A box before it has a place."""

    kind: str
    """Class of the style: ``parameter``, or nothing for an op."""
    lines: tuple[tuple[str, str], ...]
    """Class and text of each."""
    is_result: bool

    @property
    def size(self) -> Size:
        longest = max(len(text) for _, text in self.lines)
        return Size(longest * _CHARACTER + 2 * _PADDING, len(self.lines) * _LINE + 2 * _PADDING)


@dataclass(frozen=True, slots=True)
class _Column:
    """A region with its layout."""

    heading: str
    items: tuple[_Item, ...]
    uses: tuple[tuple[tuple[int, int], str], ...]
    """From, to, and the roles of the value there, which may be nothing worth saying."""
    layout: Layout

    @property
    def width(self) -> float:
        return max(self.layout.width, len(self.heading) * _CHARACTER * 13 / 11) + 2 * _MARGIN

    @property
    def height(self) -> float:
        return self.layout.height + 2 * _MARGIN + 2 * _LINE


def to_svg(graph: Graph) -> str:
    """Returns the whole graph as an SVG document; equal graphs give equal text."""
    columns = [_column(graph, region) for region in graph.regions()]
    width = sum(column.width + _COLUMN_GAP for column in columns) + _COLUMN_GAP
    height = max(column.height for column in columns) + 2 * _COLUMN_GAP
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height:.0f}" '
        f'viewBox="0 0 {width:.1f} {height:.1f}">',
        f"<title>{escape(graph.name)}</title>",
        f"<style>\n{_STYLE}\n</style>",
        _ARROW,
        f'<rect width="{width:.1f}" height="{height:.1f}" fill="#ffffff"/>',
    ]
    x = _COLUMN_GAP
    for column in columns:
        lines += [f'<g transform="translate({x:.1f} {_COLUMN_GAP:.1f})">', *_drawn(column), "</g>"]
        x += column.width + _COLUMN_GAP
    return "\n".join([*lines, "</svg>"]) + "\n"


def _column(graph: Graph, region: Region) -> _Column:
    weights = {weight.name for weight in region.weights}
    items = [_parameter(region, index) for index in range(len(region.parameters))]
    owner = {value.name: index for index, value in enumerate(region.parameters)}
    roles: dict[tuple[int, int], list[str]] = {}
    for node in region.nodes:
        index = len(items)
        items.append(_op(region, node, weights))
        values = {role: name for role, name in node.inputs.items() if name not in weights}
        for role, name in values.items():
            said = roles.setdefault((owner[name], index), [])
            said += [role] if len(values) > 1 else []
        owner |= {value.name: index for value in node.outputs}
    layout = lay_out([item.size for item in items], list(roles))
    uses = tuple((edge, ", ".join(said)) for edge, said in roles.items())
    return _Column(heading_of(graph, region), tuple(items), uses, layout)


def _parameter(region: Region, index: int) -> _Item:
    value = region.parameters[index]
    lines = (("op", value.name), ("", str(value.type)))
    return _Item("parameter", lines, value.name in region.results)


def _op(region: Region, node: Node, weights: set[str]) -> _Item:
    lines = [("op", node.op)]
    lines += [("weight", f"@{name}") for name in node.inputs.values() if name in weights]
    if node.attributes:
        lines.append(("", format_attributes(node.attributes)))
    lines += [("", f"{value.name}: {value.type}") for value in node.outputs]
    return _Item("", tuple(lines), any(value.name in region.results for value in node.outputs))


def _drawn(column: _Column) -> Iterator[str]:
    yield (f'<rect class="region" width="{column.width:.1f}" height="{column.height:.1f}" rx="8"/>')
    yield f'<text class="heading" x="{_MARGIN}" y="{_MARGIN}">{escape(column.heading)}</text>'
    left = (column.width - column.layout.width) / 2
    yield f'<g transform="translate({left:.1f} {_MARGIN + 2 * _LINE:.1f})">'
    for route, (edge, roles) in zip(column.layout.routes, column.uses, strict=True):
        yield from _arrow(route, edge, roles)
    for item, box in zip(column.items, column.layout.boxes, strict=True):
        yield from _box(item, box)
    yield "</g>"


def _arrow(route: Route, edge: tuple[int, int], roles: str) -> Iterator[str]:
    path = f"M{route[0].x:.1f} {route[0].top:.1f}"
    for here, there in pairwise(route):
        middle = (here.bottom + there.top) / 2
        path += (
            f" L{here.x:.1f} {here.bottom:.1f}"
            f" C{here.x:.1f} {middle:.1f} {there.x:.1f} {middle:.1f} {there.x:.1f} {there.top:.1f}"
        )
    yield f'<path class="use" d="{path}" data-from="{edge[0]}" data-to="{edge[1]}"/>'
    if roles:
        end = route[-1]
        yield f'<text class="role" x="{end.x + 4:.1f}" y="{end.top - 5:.1f}">{escape(roles)}</text>'


def _box(item: _Item, box: Box) -> Iterator[str]:
    classes = " ".join(filter(None, ("box", item.kind, "result" if item.is_result else "")))
    left = box.x - box.width / 2
    yield (
        f'<rect class={quoteattr(classes)} x="{left:.1f}" y="{box.y:.1f}" '
        f'width="{box.width:.1f}" height="{box.height:.1f}" rx="4"/>'
    )
    for number, (kind, text) in enumerate(item.lines):
        y = box.y + _PADDING + (number + 0.75) * _LINE
        attribute = f' class="{kind}"' if kind else ""
        yield f'<text{attribute} x="{left + _PADDING:.1f}" y="{y:.1f}">{escape(text)}</text>'
