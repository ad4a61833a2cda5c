"""A graph as text and as a Graphviz drawing; both depend on the graph alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from qwen3_codegen.ir.graph import AttributeValue, Graph, Node, Region, Value
from qwen3_codegen.ir.weights import format_expression

__all__ = [
    "format_attributes",
    "format_graph",
    "format_node",
    "format_region",
    "heading_of",
    "to_dot",
]


def format_graph(graph: Graph, *, with_places: bool = True) -> str:
    """Returns the whole graph as text, one line per weight and node.

    Weights stand as ``@name``, other values as ``%name``.

    Args:
        graph: What to print.
        with_places: End each node's line with its place in the spec, as a comment.
    """
    lines = [
        f"graph {graph.name}: {graph.dtype.value}, vocab_size {graph.vocab_size}, "
        f"max_position_embeddings {graph.max_position_embeddings}"
    ]
    lines += _rope_lines(graph)
    for region in graph.regions():
        lines += ["", _heading(graph, region), *_body(region, with_places=with_places)]
    return "\n".join(lines) + "\n"


def format_region(region: Region) -> str:
    """Returns one region as text."""
    return "\n".join([_signature(region), *_body(region)]) + "\n"


def format_node(region: Region, node: Node) -> str:
    """Returns ``%y: float32[...] = op(role=%x) {attribute=value}`` without its place."""
    weights = {weight.name for weight in region.weights}
    results = ", ".join(f"%{value.name}: {value.type}" for value in node.outputs)
    inputs = ", ".join(
        f"{role}={'@' if name in weights else '%'}{name}" for role, name in node.inputs.items()
    )
    attributes = f" {format_attributes(node.attributes)}" if node.attributes else ""
    return f"{results} = {node.op}({inputs}){attributes}"


def _rope_lines(graph: Graph) -> Iterator[str]:
    for name, table in graph.rope_tables.items():
        layout = "interleaved" if table.interleaved else "half-split"
        long = "" if table.long_threshold is None else f", long beyond {table.long_threshold}"
        yield (
            f"rope table {name}: rotary_dim {table.rotary_dim}, {layout}, "
            f"attention_factor {table.attention_factor!r}, "
            f"inv_freq {table.inv_freq[0]!r} .. {table.inv_freq[-1]!r}{long}"
        )


def heading_of(graph: Graph, region: Region) -> str:
    """Returns ``layers 0-27: full_attention {window=none}``: what a region is, without types."""
    return _heading(graph, region, with_parameters=False)


def _heading(graph: Graph, region: Region, *, with_parameters: bool = True) -> str:
    signature = _signature(region, with_parameters=with_parameters)
    if region not in graph.layer_kinds:
        return signature
    kind = graph.layer_kinds.index(region)
    layers = [layer for layer, scheduled in enumerate(graph.schedule) if scheduled == kind]
    return f"layers {_ranges(layers)}: {signature}"


def _signature(region: Region, *, with_parameters: bool = True) -> str:
    parameters = ", ".join(f"%{value.name}: {value.type}" for value in region.parameters)
    attributes = f" {format_attributes(region.attributes)}" if region.attributes else ""
    listed = f"({parameters})" if with_parameters else ""
    return f"{region.name}{listed}{attributes}"


def _body(region: Region, *, with_places: bool = True) -> Iterator[str]:
    for weight in region.weights:
        yield f"  @{weight.name}: {weight.type} = {format_expression(weight.expression)}"
    for node in region.nodes:
        place = f"   # {node.location}" if with_places else ""
        yield f"  {format_node(region, node)}{place}"
    yield f"  return {', '.join(f'%{name}' for name in region.results)}"


def format_attributes(attributes: Mapping[str, AttributeValue]) -> str:
    """Returns ``{eps=1e-06, offset=0.0}``."""
    return "{" + ", ".join(f"{name}={_literal(value)}" for name, value in attributes.items()) + "}"


def _literal(value: AttributeValue) -> str:
    if value is None or isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return f"[{', '.join(map(str, value))}]"
    return value if isinstance(value, str) else repr(value)


def _ranges(numbers: list[int]) -> str:
    """Returns ``0-4, 6, 8-9`` for ascending numbers."""
    parts: list[list[int]] = []
    for number in numbers:
        if parts and number == parts[-1][-1] + 1:
            parts[-1].append(number)
        else:
            parts.append([number])
    return ", ".join(f"{part[0]}-{part[-1]}" if len(part) > 1 else str(part[0]) for part in parts)


def to_dot(graph: Graph) -> str:
    """Returns the graph in Graphviz's language: a cluster per region, an edge per use."""
    lines = [f"digraph {_quoted(graph.name)} {{", '  node [shape=box, fontname="monospace"];']
    for index, region in enumerate(graph.regions()):
        lines += [
            f"  subgraph cluster_{index} {{",
            f"    label={_quoted(_heading(graph, region))};",
            *(f"    {line}" for line in _dot_nodes(region)),
            "  }",
        ]
    return "\n".join([*lines, "}"]) + "\n"


def _dot_nodes(region: Region) -> Iterator[str]:
    def identifier(value: str) -> str:
        return _quoted(f"{region.name}.{value}")

    for parameter in region.parameters:
        yield f"{identifier(parameter.name)} [shape=ellipse, label={_dot_label(parameter)}];"
    for weight in region.weights:
        label = _dot_label(Value(weight.name, weight.type))
        yield f"{identifier(weight.name)} [shape=note, label={label}];"
    owner = {value.name: node.outputs[0].name for node in region.nodes for value in node.outputs}
    for node in region.nodes:
        target = identifier(node.outputs[0].name)
        results = r"\n".join(f"{value.name}: {value.type}" for value in node.outputs)
        yield f'{target} [label="{node.op}\\n{results}"];'
        for role, name in node.inputs.items():
            yield f"{identifier(owner.get(name, name))} -> {target} [label={_quoted(role)}];"
    for result in region.results:
        yield f"{identifier(owner.get(result, result))} [peripheries=2];"


def _dot_label(value: Value) -> str:
    return f'"{value.name}\\n{value.type}"'


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
