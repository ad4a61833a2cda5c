"""Weight positions of a statement: paths, rows, joins and conditions to weight expressions."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import count

from qwen3_codegen.errors import SpecError
from qwen3_codegen.frontend.tensor_shapes import TensorShapes
from qwen3_codegen.spec.config_fields import LARGEST_SIZE
from qwen3_codegen.spec.evaluation import to_text
from qwen3_codegen.spec.source import SourceLocation
from qwen3_codegen.spec.syntax import (
    Attribute,
    Call,
    Conditional,
    Expression,
    Name,
    Subscript,
)
from qwen3_runtime.checkpoint.transform import Concat, Reshape, Rows, Stack, Tensor
from qwen3_runtime.checkpoint.transform import Expression as WeightExpression

__all__ = ["WeightReference", "WeightScope"]

_EXPERT = "expert"
"""Index that stands for every expert in ``mlp.experts[expert].gate_proj``."""
_FORMS = "a dotted path, rows(path, start, count), concat(...), tensor(path), 'a if test else b'"


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightReference:
    """A resolved weight position."""

    expression: WeightExpression
    shape: tuple[int, ...]
    sources: Mapping[str, tuple[int, ...]]
    """Shape on disk of every tensor read."""
    short_name: str
    long_name: str

    def names(self) -> Iterator[str]:
        """Yields the names the weight may take, the most readable first."""
        yield self.short_name
        yield self.long_name
        for number in count(2):
            yield f"{self.long_name}_{number}"


@dataclass(frozen=True, slots=True)
class _Reading:
    """Tensors met while a weight position is resolved."""

    sources: dict[str, tuple[int, ...]] = field(default_factory=dict)
    by_rows: set[str] = field(default_factory=set)
    """Those whose shape in ``sources`` is only what the rows read need."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightScope:
    """Where weight paths stand: the prefix before them and how numbers are computed.

    ``shapes`` is shared by all statements of a model.
    """

    prefix: str
    evaluate: Callable[[Expression], object]
    location: SourceLocation
    shapes: TensorShapes

    def resolve(
        self,
        syntax: Expression,
        shape: tuple[int, ...],
        *,
        suffix: str = ".weight",
        stored: tuple[int, ...] | None = None,
    ) -> WeightReference:
        """Returns what a weight position means.

        Args:
            syntax: What stands after ``weight=``.
            shape: Shape the op needs.
            suffix: Appended to every path that is not inside ``tensor(...)``.
            stored: Shape on disk of a plain path where it differs from ``shape``.

        Raises:
            SpecError: Not a weight position, or one whose sizes do not fit ``shape``.
        """
        syntax = self._chosen(syntax)
        reading = _Reading()
        if stored is None:
            expression = self._expression(syntax, shape, suffix, reading)
        else:
            expression = Reshape(self._expression(syntax, stored, suffix, reading), shape)
        for name, needed in reading.sources.items():
            if name not in reading.by_rows:
                self.shapes.add_whole(name, needed, self.location)
        short, long = map(_identifier, self._names(syntax))
        ending = "_bias" if suffix == ".bias" else ""
        return WeightReference(
            expression=expression,
            shape=shape,
            sources=reading.sources,
            short_name=short + ending,
            long_name=long + ending,
        )

    def _chosen(self, syntax: Expression) -> Expression:
        while isinstance(syntax, Conditional):
            test = self.evaluate(syntax.test)
            if not isinstance(test, bool):
                raise self._fault("a condition is not a boolean", syntax.test)
            syntax = syntax.then if test else syntax.otherwise
        return syntax

    def _expression(
        self,
        syntax: Expression,
        shape: tuple[int, ...],
        suffix: str,
        reading: _Reading,
    ) -> WeightExpression:
        syntax = self._chosen(syntax)
        if not isinstance(syntax, Call):
            return self._path(syntax, shape, suffix, reading)
        if syntax.function == "rows":
            return self._rows(syntax, shape, suffix, reading)
        if syntax.function == "concat" and syntax.arguments:
            return self._concat(syntax, shape, suffix, reading)
        if syntax.function == "tensor" and len(syntax.arguments) == 1:
            if suffix == ".bias":
                raise self._fault("tensor(...) names one tensor and has no bias", syntax)
            return self._path(syntax.arguments[0], shape, "", reading)
        raise self._fault("not a weight", syntax)

    def _path(
        self,
        syntax: Expression,
        shape: tuple[int, ...],
        suffix: str,
        reading: _Reading,
    ) -> WeightExpression:
        parts = self._parts(syntax)
        experts = range(shape[0]) if _EXPERT in _indices(parts) else None
        if experts is None:
            name = self._tensor_name(parts, suffix, 0)
            reading.sources[name] = shape
            return Tensor(name)
        names = [self._tensor_name(parts, suffix, expert) for expert in experts]
        reading.sources.update(dict.fromkeys(names, shape[1:]))
        return Stack(tuple(Tensor(name) for name in names))

    def _rows(
        self,
        syntax: Call,
        shape: tuple[int, ...],
        suffix: str,
        reading: _Reading,
    ) -> WeightExpression:
        if len(syntax.arguments) != 3 or syntax.keywords:
            raise self._fault("rows takes a path, a start and a count", syntax)
        path, start_syntax, count_syntax = syntax.arguments
        start, rows = self._whole(start_syntax, 0), self._whole(count_syntax, 1)
        if rows != shape[0]:
            raise SpecError(
                f"'{to_text(syntax)}' has the wrong number of rows",
                where=self.location,
                got=rows,
                expected=shape[0],
            )
        inner = _Reading()
        source = self._expression(path, (start + rows, *shape[1:]), suffix, inner)
        for name in inner.sources:
            self.shapes.add_rows(name, start + rows)
        reading.sources.update(inner.sources)
        reading.by_rows.update(inner.sources)
        return Rows(source, start, rows)

    def _concat(
        self,
        syntax: Call,
        shape: tuple[int, ...],
        suffix: str,
        reading: _Reading,
    ) -> WeightExpression:
        parts = [self._chosen(part) for part in syntax.arguments]
        counts = [self._row_count(part) for part in parts]
        rest = shape[0] - sum(count for count in counts if count is not None)
        plain = counts.count(None)
        if rest < plain or (plain == 0 and rest) or (plain and rest % plain):
            raise SpecError(
                f"the parts of '{to_text(syntax)}' do not fill the weight",
                where=self.location,
                got=f"{rest} of {shape[0]} rows for {plain} plain paths",
                hint="plain paths have equal rows; write rows(path, 0, count) for others",
            )
        sizes = [rest // plain if count is None else count for count in counts]
        return Concat(
            tuple(
                self._expression(part, (size, *shape[1:]), suffix, reading)
                for part, size in zip(parts, sizes, strict=True)
            )
        )

    def _row_count(self, syntax: Expression) -> int | None:
        """Returns the rows a part says it has, None for a plain path."""
        if isinstance(syntax, Call) and syntax.function == "rows" and len(syntax.arguments) == 3:
            return self._whole(syntax.arguments[2], 1)
        return None

    def _whole(self, syntax: Expression, least: int) -> int:
        value = self.evaluate(syntax)
        if type(value) is not int or not least <= value <= LARGEST_SIZE:
            raise SpecError(
                f"'{to_text(syntax)}' must be a whole number",
                where=self.location,
                got=value,
                expected=f"{least} to {LARGEST_SIZE}",
            )
        return value

    def _parts(self, syntax: Expression) -> list[str | Expression]:
        """Returns the names and index expressions of a path in order."""
        match syntax:
            case Name(id=name):
                return [name]
            case Attribute(base=base, name=name):
                return [*self._parts(base), name]
            case Subscript(base=base, index=index):
                return [*self._parts(base), index]
        raise self._fault("not a weight", syntax)

    def _tensor_name(self, parts: list[str | Expression], suffix: str, expert: int) -> str:
        def text(part: str | Expression) -> str:
            if isinstance(part, str):
                return part
            return str(expert if part == Name(_EXPERT) else self._whole(part, 0))

        return self.prefix + ".".join(map(text, parts)) + suffix

    def _names(self, syntax: Expression) -> tuple[str, str]:
        """Returns a short and a long name: the last part of the path, and all of it."""
        syntax = self._chosen(syntax)
        if isinstance(syntax, Call):
            short, long = self._names(syntax.arguments[0])
            if syntax.function == "rows":
                start = self._whole(syntax.arguments[1], 0)
                return f"{short}_rows_{start}", f"{long}_rows_{start}"
            return short, long
        parts = [part for part in self._parts(syntax) if isinstance(part, str)]
        return parts[-1], "_".join(parts)

    def _fault(self, message: str, syntax: Expression) -> SpecError:
        return SpecError(message, where=self.location, got=to_text(syntax), expected=_FORMS)


def _indices(parts: list[str | Expression]) -> list[str]:
    return [part.id for part in parts if isinstance(part, Name)]


def _identifier(name: str) -> str:
    """Returns a name in which underscores stand alone and between letters, as C++ wants them."""
    name = re.sub("_+", "_", name).strip("_")
    return name if name[:1].isalpha() else f"weight_{name}".rstrip("_")
