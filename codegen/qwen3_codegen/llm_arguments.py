"""Arguments of ``LLM`` as Python gives them: of any type, refused by name where they do not fit."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from qwen3_codegen.compile import CompileOptions
from qwen3_codegen.dtypes import DType
from qwen3_codegen.errors import CodegenError
from qwen3_codegen.spec.device import parse_dtype
from qwen3_codegen.spec.model import ModelSpec
from qwen3_codegen.spec.resolve import with_dtype

ENGINES = ("compiled", "interpreter")


def refuse_unavailable(quant: str | None, ndev: int, engine: str) -> None:
    """Raises CodegenError for what this version cannot do."""
    if quant is not None:
        raise CodegenError(
            "quantised engines are not available in this version", got=f"quant={quant!r}"
        )
    if ndev != 1:
        raise CodegenError(
            "engines over several devices are not available in this version", got=f"ndev={ndev}"
        )
    if engine not in ENGINES:
        raise CodegenError(f"unknown engine '{engine}'", expected=", ".join(ENGINES))


def dtype_or_auto(dtype: object, argument: str = "dtype") -> DType | None:
    """Returns the dtype of a name, None for ``auto``.

    Args:
        dtype: The name.
        argument: Of ``LLM``, for messages.

    Raises:
        CodegenError: It is no name of a dtype.
    """
    if not isinstance(dtype, str):
        raise CodegenError(
            f"{argument} is no name", got=repr(dtype), expected="auto, float32, bfloat16 or float16"
        )
    return None if dtype == "auto" else parse_dtype(dtype)


def field_names(names: object) -> tuple[str, ...]:
    """Returns a list of config fields.

    Raises:
        CodegenError: It is none; a single text would be taken for its letters.
    """
    if not isinstance(names, Sequence) or isinstance(names, str):
        raise CodegenError(
            "ignore_config_keys is a list of config fields", got=repr(names), expected="['key']"
        )
    return tuple(names)


def folders_of_ops(ops: object) -> tuple[str, ...]:
    """Returns a folder or a list of folders as a list.

    Raises:
        CodegenError: It is neither.
    """
    folders = [ops] if isinstance(ops, str | Path) else ops
    if not isinstance(folders, Sequence) or not all(isinstance(f, str | Path) for f in folders):
        raise CodegenError("ops is a folder or a list of folders", got=repr(ops), expected="'ops'")
    return tuple(map(str, folders))


def overrides_as_text(overrides: Mapping[str, object] | None) -> dict[str, str]:
    """Returns overrides as ``--set`` spells them: text as it is, all else as JSON.

    Raises:
        CodegenError: A value cannot be spelled as JSON.
    """
    if not isinstance(overrides, Mapping | None):
        raise CodegenError(
            "overrides map config fields to values",
            got=type(overrides).__name__,
            expected="overrides={'rope_theta': 1e6}",
        )
    return {str(key): _as_text(str(key), value) for key, value in (overrides or {}).items()}


def _as_text(key: str, value: object) -> str:
    if isinstance(value, str):
        return value
    try:
        return json.dumps(value, allow_nan=False, default=_plain)
    except (TypeError, ValueError, RecursionError):
        raise CodegenError(
            f"the override of '{key}' is no config value",
            got=repr(value)[:80],
            expected="a finite number, text, true or false, None, or lists and mappings of them",
        ) from None


def _plain(value: object) -> object:
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    raise TypeError


def refuse_compiled_options(dev: str, options: CompileOptions) -> None:
    """Raises CodegenError for what the interpreter would pass over in silence."""
    if options.dtype not in (None, DType.F32):
        raise CodegenError(
            "the interpreter computes in float32",
            got=f"dtype {options.dtype.value}",
            expected="auto or float32",
            hint="a compiled engine computes in other dtypes",
        )
    usual = CompileOptions()
    given = {
        "dev": (dev, "cpu"),
        "activation_dtype": (_name_or_auto(options.activation_dtype), "auto"),
        "kv_cache_dtype": (_name_or_auto(options.kv_cache_dtype), "auto"),
        "infinicore": (options.infinicore, usual.infinicore),
        "infinicore_api": (options.release, usual.release),
        "isa": (options.isa, usual.isa),
        "lowering": (options.lowering, usual.lowering),
    }
    idle = [f"{name} {value}" for name, (value, default) in given.items() if value != default]
    if idle:
        raise CodegenError(
            "the interpreter has no use for options of compiled engines",
            got=", ".join(idle),
            hint="leave them out, or leave the interpreter out",
        )


def _name_or_auto(dtype: DType | None) -> str:
    return dtype.value if dtype else "auto"


def in_float32(spec: ModelSpec) -> tuple[ModelSpec, tuple[str, ...]]:
    """Returns a model as the interpreter runs it, and what to tell the user."""
    if spec.dtype is DType.F32:
        return spec, ()
    note = f"the interpreter computes in float32, not in the checkpoint's {spec.dtype.value}"
    return with_dtype(spec, DType.F32), (note,)
