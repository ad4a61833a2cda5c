"""Folders of Python files to functions that statements may call.

The files are run: ops of one's own are code that the user names, on the command line or as an
argument, and nothing else ever leads here.
"""

from __future__ import annotations

import hashlib
import sys
import types
import uuid
from collections.abc import Iterable
from pathlib import Path

from qwen3_codegen.errors import OpError
from qwen3_codegen.ir.ops.definition import Lowering, OpDef, OwnKernel, calls, refused
from qwen3_codegen.ir.ops.own import OwnFunction
from qwen3_codegen.own_ops.guards import GuardedOp, place_in
from qwen3_codegen.own_ops.header import class_name, header_texts, signature
from qwen3_codegen.own_ops.row import Op, check_row
from qwen3_codegen.spec.functions import REQUIRED, Kind, Parameter

__all__ = ["load_ops"]

_PORTABLE = "an op of your own, which InfiniCore has no operator for"


def load_ops(folders: Iterable[str | Path]) -> dict[str, OwnFunction]:
    """Reads every op of some folders: runs each ``NAME.py`` and reads ``NAME.hpp`` beside it.

    Files whose name starts with ``_`` are left out. A file is run anew each time.

    Args:
        folders: In any order; two of them may not define one op.

    Returns:
        The ops by name, for ``own_functions`` of ``load_model``.

    Raises:
        OpError: A folder has no ops, a file cannot be run, a row is wrong, or a header is not that
            of its op.
    """
    functions: dict[str, OwnFunction] = {}
    places: dict[str, Path] = {}
    for folder in map(Path, folders):
        for file in _files(folder):
            function = _load(file)
            if function.name in functions:
                raise OpError(
                    f"there are two ops '{function.name}'", where=file, got=places[function.name]
                )
            _check_apart(function, functions.values(), file)
            functions[function.name], places[function.name] = function, file
    return functions


def _files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise OpError(
            "no folder with ops",
            where=folder,
            got="a file" if folder.exists() else "nothing there",
            expected="a folder with NAME.py and NAME.hpp for each op",
        )
    files = sorted(file for file in folder.glob("*.py") if not file.name.startswith("_"))
    if not files:
        raise OpError(
            "a folder without ops", where=folder, expected="NAME.py and NAME.hpp for each op"
        )
    return files


def _check_apart(function: OwnFunction, others: Iterable[OwnFunction], file: Path) -> None:
    """Two ops may share neither a class nor a header that differs, for they may share an engine."""
    kernel = function.definition.kernel
    for other in others:
        theirs = other.definition.kernel
        if kernel is None or theirs is None:
            continue
        if kernel.class_name == theirs.class_name:
            raise OpError(
                "two ops would have one class in C++",
                where=file,
                got=f"{function.name} and {other.name}, both {kernel.class_name}",
            )
        for name in set(kernel.texts) & set(theirs.texts):
            if kernel.texts[name] != theirs.texts[name]:
                raise OpError(
                    f"two folders have different headers '{name}'",
                    where=file,
                    got=f"that of {function.name} and that of {other.name}",
                )


def _load(file: Path) -> OwnFunction:
    source = _source(file)
    op = check_row(_run(file, source), file.stem, str(file))
    header = file.with_suffix(".hpp")
    texts = header_texts(op, header) if header.is_file() else None
    guarded = GuardedOp(op, str(file))
    weights = tuple(role.name for role in op.roles if role.name in op.weights)
    values = tuple(role.name for role in op.roles if role.name not in op.weights)
    return OwnFunction(
        name=op.name,
        values=(len(values), len(values)),
        names=values,
        positional=(),
        keywords=(
            *(Parameter(name, Kind.WEIGHT, REQUIRED, "a weight") for name in weights),
            *(Parameter(each.name, Kind.SCALAR, REQUIRED, each.doc) for each in op.attributes),
        ),
        results=op.num_results,
        doc=op.doc,
        definition=_definition(op, guarded, header, texts),
        weights={name: guarded.weight_shape(name) for name in weights},
        source_sha256=hashlib.sha256(repr((source, texts)).encode()).hexdigest(),
    )


def _definition(op: Op, guarded: GuardedOp, header: Path, texts: dict[str, str] | None) -> OpDef:
    kernel = None
    native: Lowering = refused(f"it has no kernel: there is no {header}, with {signature(op)}")
    if texts is not None:
        native = calls(f"own::{class_name(op)}")
        kernel = OwnKernel(
            class_name=class_name(op),
            header=header.name,
            texts=texts,
            sizes=guarded.kernel_sizes,
        )
    return OpDef(
        name=op.name,
        doc=op.doc,
        roles=tuple(op.roles),
        attributes=tuple(op.attributes),
        result=op.result,
        shape_rule=guarded.shape_rule,
        reference=guarded.reference,
        lowerings={"portable": refused(_PORTABLE), "native": native},
        kernel=kernel,
    )


def _source(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise OpError("an op's file cannot be read", where=file, got=error) from None


def _run(file: Path, source: str) -> object:
    """Runs a file as a module of its own and returns its ``OP``."""
    module = types.ModuleType(f"own_op_{file.stem}_{uuid.uuid4().hex}")
    module.__file__ = str(file)
    sys.modules[module.__name__] = module  # dataclasses look their module up while it runs
    try:
        exec(compile(source, str(file), "exec", dont_inherit=True), module.__dict__)
    except (Exception, SystemExit) as error:
        raise OpError(
            "an op's file does not run",
            where=place_in(str(file), error),
            got=f"{type(error).__name__}: {error}",
        ) from error
    finally:
        del sys.modules[module.__name__]
    if "OP" not in module.__dict__:
        raise OpError(
            "an op's file defines no OP", where=file, expected="OP = Op(...), see docs/own-ops.md"
        )
    return module.__dict__["OP"]
