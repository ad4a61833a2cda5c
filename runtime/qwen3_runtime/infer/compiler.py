"""The compiler, asked for when a model is opened: the runtime itself stands without it."""

from __future__ import annotations

import importlib
from types import ModuleType

from qwen3_runtime.errors import EngineError

__all__ = ["compiler_module"]

_PACKAGE = "qwen3_codegen"


def compiler_module(name: str) -> ModuleType:
    """Imports a module of the compiler, such as ``llm``.

    Raises:
        EngineError: The compiler is not installed.
    """
    try:
        return importlib.import_module(f"{_PACKAGE}.{name}")
    except ModuleNotFoundError as error:
        if error.name != _PACKAGE:
            raise
    raise EngineError(
        "a model's engine is compiled when it is first used, and the compiler is not installed",
        expected=f"the Python package {_PACKAGE}",
        hint="pip install qwen3-codegen; engines built elsewhere load with Engine.from_checkpoint",
    )
