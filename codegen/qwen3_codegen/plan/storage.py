"""Places for values: buffers by liveness, and when an op may write onto its input.

A *storage* is a run of rows of one buffer; a value covers some columns of a storage. Views
(split, reshape) cover columns of their input's storage. A storage returns to the pool after the
last node that reads any value in it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from qwen3_codegen.dtypes import DType
from qwen3_codegen.ir.graph import Region, Value, ValueType
from qwen3_codegen.plan.records import BufferPlan


@dataclass(slots=True)
class _Buffer:
    rows: str
    dtype: DType
    columns: int = 0
    holds: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Place:
    """Columns ``[start, start + count)`` of buffer ``buffer``, whose rows are ``stride`` apart."""

    buffer: int
    start: int
    count: int
    stride: int

    @property
    def is_contiguous(self) -> bool:
        """Says whether rows follow each other without gaps."""
        return self.count == self.stride

    def columns(self, start: int, count: int) -> Place:
        """Returns part of the columns."""
        return Place(self.buffer, self.start + start, count, self.stride)

    def overlaps(self, other: Place) -> bool:
        """Says whether two places share an element."""
        return (
            self.buffer == other.buffer
            and self.start < other.start + other.count
            and other.start < self.start + self.count
        )


class BufferPool:
    """Buffers of a whole engine; regions run one after the other and share them."""

    def __init__(self) -> None:
        self._buffers: list[_Buffer] = []

    def take(self, value: Value, columns: int, busy: set[int]) -> int:
        """Returns a buffer for ``value`` that is not in ``busy``, growing or adding one."""
        rows = str(value.type.shape[0])
        free = [
            index
            for index, buffer in enumerate(self._buffers)
            if index not in busy and buffer.rows == rows and buffer.dtype == value.type.dtype
        ]
        fitting = [index for index in free if self._buffers[index].columns >= columns]
        if fitting:
            index = min(fitting, key=lambda i: (self._buffers[i].columns, i))
        elif free:
            index = max(free, key=lambda i: (self._buffers[i].columns, -i))
        else:
            index = len(self._buffers)
            self._buffers.append(_Buffer(rows, value.type.dtype))
        buffer = self._buffers[index]
        buffer.columns = max(buffer.columns, columns)
        if value.name not in buffer.holds:
            buffer.holds.append(value.name)
        return index

    def name(self, index: int) -> str:
        """Name of a buffer as the engine spells it."""
        return f"buffer_{index}"

    def plans(self) -> tuple[BufferPlan, ...]:
        """The buffers as they came to be."""
        return tuple(
            BufferPlan(self.name(i), b.rows, b.columns, b.dtype, tuple(b.holds))
            for i, b in enumerate(self._buffers)
        )


def row_elements(type_: ValueType) -> int:
    """Elements of a value of this type per row (per token)."""
    count = 1
    for extent in type_.shape[1:]:
        if not isinstance(extent, int):
            raise TypeError(f"{type_}: only the first dimension may be a symbol")
        count *= extent
    return count


class RegionStorage:
    """Places of one region's values while its nodes are walked in order.

    Args:
        region: The region.
        pool: Buffers of the engine.
        fixed: Places of the region's parameters; nothing else is put into their buffers.
        runs_again: Whether the region may run several times on the same parameters, which then
            must stay as they are.
    """

    def __init__(
        self,
        region: Region,
        pool: BufferPool,
        fixed: Mapping[str, Place],
        *,
        runs_again: bool = False,
    ) -> None:
        self._pool = pool
        self._places: dict[str, Place] = dict(fixed)
        self._held = {place.buffer for place in fixed.values()}
        self._last_use = self._last_uses(region)
        if runs_again:
            self._last_use.update(dict.fromkeys(fixed, len(region.nodes)))
        self._now = 0

    @staticmethod
    def _last_uses(region: Region) -> dict[str, int]:
        last: dict[str, int] = dict.fromkeys((value.name for value in region.parameters), -1)
        for index, node in enumerate(region.nodes):
            for output in node.outputs:
                last[output.name] = index
            for name in node.inputs.values():
                last[name] = index
        for name in region.results:
            last[name] = len(region.nodes)
        return last

    def advance(self, index: int) -> None:
        """Says that node ``index`` is being planned."""
        self._now = index

    def place(self, name: str) -> Place:
        """Where a value lies."""
        return self._places[name]

    def has(self, name: str) -> bool:
        """Says whether a name is a value with a place (and not a weight)."""
        return name in self._places

    def allocate(self, value: Value) -> Place:
        """Gives ``value`` a buffer nothing alive lies in."""
        columns = row_elements(value.type)
        place = Place(self._pool.take(value, columns, self._busy()), 0, columns, columns)
        self.cover(value, place)
        return place

    def cover(self, value: Value, place: Place) -> None:
        """Puts ``value`` onto a place that already exists (a view, or an op in place).

        A value that is no node's result lives as long as the node at hand needs it.
        """
        self._places[value.name] = place
        self._last_use.setdefault(value.name, self._now)

    def may_overwrite(self, name: str, *, beside: Iterable[str] = ()) -> bool:
        """Says whether an op may write its result onto its input ``name``.

        Nothing alive after this node may read what ``name`` covers, and none of the op's inputs
        ``beside`` it may share an element with it, since an op writes while it still reads.
        Weights among those have no place and never do.
        """
        place = self._places[name]
        read_now = (self._places[other] for other in beside if other in self._places)
        read_later = (
            other for value, other in self._places.items() if self._last_use[value] > self._now
        )
        return not any(other.overlaps(place) for other in (*read_now, *read_later))

    def _busy(self) -> set[int]:
        alive = {
            place.buffer
            for value, place in self._places.items()
            if self._last_use[value] >= self._now
        }
        return alive | self._held
