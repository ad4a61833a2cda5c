"""``scripts/launch_server.py`` of InfiniCore-Infer: forwards to ``qwen3-codegen serve``.

``--model-path`` is called ``--model`` there; all else has the same name, and what ``serve`` takes
besides may be given, too.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from qwen3_runtime.errors import EngineError
from qwen3_runtime.infer.compiler import compiler_module

__all__ = ["main", "serve_arguments"]

_OLD, _NEW = "--model-path", "--model"


def serve_arguments(argv: Sequence[str]) -> list[str]:
    """Returns the arguments of ``qwen3-codegen`` that do what old ones ask for."""
    renamed = [
        _NEW + word.removeprefix(_OLD) if word.partition("=")[0] == _OLD else word for word in argv
    ]
    return ["serve", *renamed]


def main(argv: Sequence[str] | None = None) -> int:
    """Serves until it is told to end, and returns the exit code."""
    try:
        command = compiler_module("cli.main")
    except EngineError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    code: int = command.main(serve_arguments(sys.argv[1:] if argv is None else argv))
    return code


if __name__ == "__main__":
    sys.exit(main())
