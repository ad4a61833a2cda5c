"""Shapes that a checkpoint's tensors must have, gathered over all statements of a model."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from qwen3_codegen.errors import SpecError
from qwen3_codegen.ir.graph import Region, Weight
from qwen3_codegen.spec.source import SourceLocation

__all__ = ["TensorShapes"]


@dataclass(frozen=True, slots=True)
class TensorShapes:
    """What every read says about a tensor's shape.

    A path says all of it. ``rows(path, start, count)`` says how many rows there are at least; a
    tensor only read by rows has exactly as many as all reads together reach.
    """

    _whole: dict[str, tuple[int, ...]] = field(default_factory=dict)
    _rows: dict[str, int] = field(default_factory=dict)

    def add_whole(self, name: str, shape: tuple[int, ...], location: SourceLocation) -> None:
        """Notes a read of a whole tensor.

        Raises:
            SpecError: Another read wants another shape.
        """
        known = self._whole.setdefault(name, shape)
        if known != shape:
            raise _contradiction(name, list(shape), list(known), location)

    def add_rows(self, name: str, end: int) -> None:
        """Notes a read of rows before ``end``."""
        self._rows[name] = max(end, self._rows.get(name, 0))

    def settled(self, region: Region, location: SourceLocation) -> Region:
        """Returns a region whose weights say the full shape of tensors they read rows of.

        Raises:
            SpecError: Rows are read that a read of the whole tensor says do not exist.
        """
        for name, end in self._rows.items():
            whole = self._whole.get(name)
            if whole is not None and end > whole[0]:
                raise _contradiction(name, f"{end} rows", list(whole), location)
        return replace(region, weights=tuple(map(self._settled, region.weights)))

    def _settled(self, weight: Weight) -> Weight:
        sources = {
            name: self._whole.get(name, (self._rows.get(name, shape[0]), *shape[1:]))
            for name, shape in weight.sources.items()
        }
        return replace(weight, sources=sources)


def _contradiction(name: str, got: object, expected: object, location: SourceLocation) -> SpecError:
    return SpecError(
        f"tensor '{name}' is read in two shapes", where=location, got=got, expected=expected
    )
