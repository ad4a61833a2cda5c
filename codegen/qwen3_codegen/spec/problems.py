"""Collecting every fault of a file before raising once."""

from __future__ import annotations

from qwen3_codegen.errors import SpecError

__all__ = ["Problems", "SpecErrors"]

_SHOWN = 20
"""Faults printed before the rest is only counted; a wrong file can hold thousands."""


class SpecErrors(SpecError):
    """Several faults of one description; ``errors`` holds each of them."""

    def __init__(self, errors: tuple[SpecError, ...]) -> None:
        self.errors = errors
        first = errors[0]
        super().__init__(
            first.message,
            where=first.where,
            got=first.got,
            expected=first.expected,
            hint=first.hint,
        )

    def __str__(self) -> str:
        lines = [str(error) for error in self.errors[:_SHOWN]]
        if len(self.errors) > _SHOWN:
            lines.append(f"... and {len(self.errors) - _SHOWN} more")
        return "\n".join(lines)


class Problems:
    """Faults found so far, each text once.

    Used as a context manager around a step that may raise one fault of its own::

        with problems.collect():
            read_something()
        problems.raise_any()
    """

    def __init__(self) -> None:
        self._errors: dict[str, SpecError] = {}

    def __bool__(self) -> bool:
        return bool(self._errors)

    def add(self, error: SpecError) -> None:
        """Keeps a fault; several faults raised together stay separate."""
        for one in error.errors if isinstance(error, SpecErrors) else (error,):
            self._errors.setdefault(str(one), one)

    def collect(self) -> _Collector:
        """Returns a context that keeps a SpecError instead of letting it through."""
        return _Collector(self)

    def raise_any(self) -> None:
        """Raises what was kept, a single fault as itself.

        Raises:
            SpecError: There was at least one fault.
        """
        errors = tuple(self._errors.values())
        if len(errors) == 1:
            raise errors[0]
        if errors:
            raise SpecErrors(errors)


class _Collector:
    def __init__(self, problems: Problems) -> None:
        self._problems = problems

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        if isinstance(error, SpecError):
            self._problems.add(error)
            return True
        return False
