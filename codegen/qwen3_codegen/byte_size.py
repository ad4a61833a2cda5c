"""Numbers of bytes as people write them: ``2GiB``, ``512 MB``, ``1048576``."""

from __future__ import annotations

import re

from qwen3_codegen.errors import CodegenError

__all__ = ["parse_bytes"]

_UNITS = {
    "": 1,
    **{f"{letter}b": 1000**power for power, letter in enumerate(("", "k", "m", "g", "t"))},
    **{f"{letter}ib": 1024**power for power, letter in enumerate("kmgt", start=1)},
}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([a-z]*)", re.IGNORECASE | re.ASCII)


def parse_bytes(text: str, where: str | None = None) -> int:
    """Returns a number of bytes; ``GB`` counts in thousands, ``GiB`` in 1024s.

    Args:
        text: Such as ``2GiB``.
        where: The option it was given for.

    Raises:
        CodegenError: It is none, or less than one byte.
    """
    found = _SIZE.fullmatch(text.strip())
    unit = _UNITS.get(found.group(2).lower()) if found else None
    count = int(float(found.group(1)) * unit) if found and unit else 0
    if count < 1:
        raise CodegenError(
            "this is no number of bytes",
            where=where,
            got=repr(text),
            expected="such as 2GiB, 512MB or 1048576",
        )
    return count
