"""``ModelSpec`` to ``Graph``: a region per distinct layer kind, nothing optimised."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count

from qwen3_codegen.dtypes import DType
from qwen3_codegen.errors import SpecError
from qwen3_codegen.frontend.region_builder import RegionBuilder
from qwen3_codegen.frontend.statements import StatementReader
from qwen3_codegen.frontend.tensor_shapes import TensorShapes
from qwen3_codegen.ir.graph import NUM_TOKENS, Graph, Region, Value, ValueType
from qwen3_codegen.ir.ops import OpDef
from qwen3_codegen.ir.ops.own import own_definitions
from qwen3_codegen.ir.verify import verify
from qwen3_codegen.spec.model import LayerSpec, ModelSpec
from qwen3_codegen.spec.syntax import Statement

__all__ = ["build_graph"]


def build_graph(spec: ModelSpec) -> Graph:
    """Turns the statements of a model's architecture into a typed graph.

    Returns:
        A verified graph in which each layer kind (distinct blocks and attributes) is a region.

    Raises:
        SpecError: A statement is wrong for this model: an unknown op, value, keyword or rope
            table, shapes that do not fit, a value never used; with the statement's place.
    """
    vocab_size = _size(spec, "vocab_size")
    builder = _GraphBuilder(spec, own_definitions(spec.architecture.own_functions))
    prologue, hidden = builder.prologue()
    kinds, schedule = builder.layers(hidden)
    epilogue = builder.epilogue(hidden, vocab_size)
    graph = Graph(
        name=spec.name,
        dtype=spec.dtype,
        max_position_embeddings=_size(spec, "max_position_embeddings"),
        vocab_size=vocab_size,
        prologue=builder.settled(prologue),
        layer_kinds=tuple(map(builder.settled, kinds)),
        schedule=schedule,
        epilogue=builder.settled(epilogue),
        rope_tables=spec.rope,
        own_ops=builder.own_ops,
    )
    verify(graph)
    return graph


def _size(spec: ModelSpec, name: str) -> int:
    if name not in spec.config:
        raise SpecError(
            f"an architecture needs the config field '{name}'",
            where=spec.architecture.location,
            hint="list it under config: consumed",
        )
    return spec.size(name)


@dataclass(frozen=True, slots=True)
class _GraphBuilder:
    spec: ModelSpec
    own_ops: Mapping[str, OpDef]
    shapes: TensorShapes = field(default_factory=TensorShapes)

    def prologue(self) -> tuple[Region, ValueType]:
        ids = Value("input_ids", ValueType((NUM_TOKENS,), DType.I32))
        region = RegionBuilder("prologue", ids, self.own_ops)
        reader = self._reader(region, {"input_ids": ids}, self.spec.config, "")
        for statement in self.spec.architecture.prologue:
            reader.run(statement)
        h = reader.finish("h")
        shape = h.type.shape
        if len(shape) != 2 or shape[0] != NUM_TOKENS or h.type.dtype is not self.spec.dtype:
            raise SpecError(
                "the prologue gives an 'h' of the wrong type",
                where=self.spec.architecture.location,
                got=h.type,
                expected=f"{self.spec.dtype.value}[{NUM_TOKENS}, hidden_size]",
            )
        return region.build(h, {}), h.type

    def layers(self, hidden: ValueType) -> tuple[tuple[Region, ...], tuple[int, ...]]:
        keys = [(layer.blocks, tuple(layer.attributes.items())) for layer in self.spec.layers]
        distinct = list(dict.fromkeys(keys))
        examples = [self.spec.layers[keys.index(key)] for key in distinct]
        names = _kind_names([layer.layer_type for layer in examples])
        kinds = tuple(
            self._layer(layer, name, hidden) for layer, name in zip(examples, names, strict=True)
        )
        return kinds, tuple(distinct.index(key) for key in keys)

    def _layer(self, layer: LayerSpec, name: str, hidden: ValueType) -> Region:
        architecture = self.spec.architecture
        h = Value("h", hidden)
        region = RegionBuilder(name, h, self.own_ops)
        names = {**self.spec.config, "layer": layer.attributes}
        prefix = architecture.checkpoint.layer_prefix
        reader = self._reader(region, {"h": h}, names, prefix)
        for block in layer.blocks:
            for statement in architecture.blocks[block]:
                reader.run(statement)
        result = reader.finish("h")
        if result.type != hidden:
            raise SpecError(
                f"a layer of type '{layer.layer_type}' changes the shape of 'h'",
                where=architecture.blocks[layer.blocks[-1]][-1].location,
                got=result.type,
                expected=hidden,
            )
        return region.build(result, layer.attributes)

    def epilogue(self, hidden: ValueType, vocab_size: int) -> Region:
        statements = self.spec.architecture.epilogue
        h = Value("h", hidden)
        region = RegionBuilder("epilogue", h, self.own_ops)
        location = statements[0].location if statements else self.spec.architecture.location
        (rows,) = region.emit("gather_rows", {"x": h}, {}, names=("h",), location=location)
        reader = self._reader(region, {"h": rows}, self.spec.config, "")
        for statement in statements:
            reader.run(statement)
        logits = reader.finish("logits")
        if logits.type.shape[1:] != (vocab_size,):
            raise SpecError(
                "'logits' have the wrong shape",
                where=_last_location(statements, self.spec),
                got=logits.type,
                expected=f"vocab_size {vocab_size} columns",
            )
        return region.build(logits, {})

    def settled(self, region: Region) -> Region:
        return self.shapes.settled(region, self.spec.architecture.location)

    def _reader(
        self,
        region: RegionBuilder,
        values: Mapping[str, Value],
        names: Mapping[str, object],
        prefix: str,
    ) -> StatementReader:
        return StatementReader(self.spec, region, values, names, prefix, self.shapes)


def _last_location(statements: Sequence[Statement], spec: ModelSpec) -> object:
    return statements[-1].location if statements else spec.architecture.location


def _kind_names(layer_types: list[str]) -> list[str]:
    """Returns a name per kind: its layer type, with a number from the second of a type on."""
    taken = {"prologue", "epilogue"}
    free = {name: name for name in layer_types if name not in taken}
    taken |= set(free)
    names = []
    for layer_type in layer_types:
        numbered = (f"{layer_type}_{number}" for number in count(2))
        name = free.pop(layer_type, None) or next(each for each in numbered if each not in taken)
        taken.add(name)
        names.append(name)
    return names
