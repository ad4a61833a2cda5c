"""PyTorch models as references: transformers' own, or a module of the user's."""

from __future__ import annotations

import importlib.util
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from qwen3_codegen.dtypes import DType
from qwen3_codegen.errors import CodegenError, nearest
from qwen3_codegen.ir.graph import Graph
from qwen3_codegen.ir.interpreter import places
from qwen3_codegen.progress import say
from qwen3_codegen.verification.inner_parts import inner_parts
from qwen3_codegen.verification.module_calls import (
    cached_heads,
    forward_logits,
    module_tensors,
    record_calls,
)
from qwen3_codegen.verification.module_map import ModuleMap
from qwen3_codegen.verification.observed import Observations, Observed
from qwen3_runtime.checkpoint import Checkpoint
from qwen3_runtime.engine.batch import FloatRows

__all__ = [
    "INSTALL_HINT",
    "INTERPRETER",
    "TRANSFORMERS",
    "TorchReference",
    "UserClass",
    "has_torch",
    "knows_architecture",
    "transformers_reference",
    "user_class",
    "user_reference",
]

TRANSFORMERS = "transformers"
INTERPRETER = "interpreter"
"""What is no file of the user's, in the words of ``--reference``."""
INSTALL_HINT = "pip install 'qwen3-codegen[verify]'"
_CACHED = {"k_rope": "keys", "v_cache": "values"}
"""What transformers' cache holds of the inner values of a fused attention."""
_USER_MODULE = re.compile(r"(?P<file>.+\.py):(?P<name>[A-Za-z_]\w*)\Z")
_USER_FILE = re.compile(r"(?P<file>.+\.py)(:.*)?\Z")


class TorchReference:
    """A PyTorch model in float32, and where it has one, in the engine's half precision.

    Args:
        title: What it is, for the report.
        load: Gives the model in a dtype, ready to run; None where it is not to be had in it.
        graph: The engine's.
        layer_prefix: Of checkpoint tensors of a layer, with ``{layer}``.
        new_cache: Gives an empty cache to call the model with; None where it takes none.
    """

    def __init__(
        self,
        title: str,
        load: Callable[[DType], Any],
        graph: Graph,
        layer_prefix: str,
        new_cache: Callable[[], Any] | None = None,
    ) -> None:
        self._title = title
        self._load = load
        self._graph = graph
        self._layer_prefix = layer_prefix
        self._new_cache = new_cache
        self._model = load(DType.F32)

    @property
    def title(self) -> str:
        """What it is, with its version and dtype."""
        return self._title

    def observe(self, sequences: Sequence[Sequence[int]]) -> Observations:
        """Runs every sequence from its start."""
        observations = self._observe(self._model, sequences)
        if self._graph.dtype is not DType.F32:
            half = self._load(self._graph.dtype)
            if half is not None:
                own = self._observe(half, sequences)
                observations = _with_own(observations, own)
        return observations

    def logits(self, sequences: Sequence[Sequence[int]]) -> list[FloatRows]:
        """Returns float32 logits of sequences."""
        vocab_size = self._graph.vocab_size
        return [forward_logits(self._model, sequence, vocab_size) for sequence in sequences]

    def _observe(self, model: Any, sequences: Sequence[Sequence[int]]) -> Observations:
        lengths = [len(sequence) for sequence in sequences]
        mapped = ModuleMap(self._graph, module_tensors(model), self._layer_prefix, lengths)
        caches = [self._new_cache() for _ in sequences] if self._new_cache else None
        vocab_size = self._graph.vocab_size
        calls, logits = record_calls(model, mapped.wanted, sequences, vocab_size, caches)
        values, unmatched = mapped.match(calls)
        values += self._in_cache(caches or [])
        return Observations(values=values, unmatched=unmatched, logits=logits)

    def _in_cache(self, caches: Sequence[Any]) -> Iterator[Observed]:
        """What attention remembers, beside what fused attentions are given of it."""
        for place, layer, region in places(self._graph):
            for node in region.nodes:
                if layer is None or not caches or not _CACHED.keys() <= {*inner_parts(node)}:
                    continue
                rows = cached_heads(caches, layer) or {}
                for part, what in _CACHED.items() if rows else ():
                    name = f"{place}.{node.output.name}.{part}"
                    source = f"{what} in the cache of layer {layer}"
                    yield Observed(name=name, source=source, rows=rows[what])


def _with_own(observations: Observations, own: Observations) -> Observations:
    rows = {value.name: value.rows for value in own.values}
    return Observations(
        values=[
            Observed(
                name=value.name,
                source=value.source,
                rows=value.rows,
                own=rows.get(value.name),
            )
            for value in observations.values
        ],
        unmatched=observations.unmatched,
        logits=observations.logits,
        own_logits=own.logits,
    )


def has_torch() -> bool:
    """Returns whether torch and transformers can be imported."""
    return all(importlib.util.find_spec(name) is not None for name in ("torch", "transformers"))


def knows_architecture(huggingface_class: str) -> bool:
    """Returns whether transformers has a class of that name."""
    import transformers

    return hasattr(transformers, huggingface_class)


def transformers_reference(
    path: Path, huggingface_class: str, graph: Graph, layer_prefix: str
) -> TorchReference:
    """Returns transformers' model of a checkpoint folder, with eager attention.

    Raises:
        CodegenError: transformers cannot read the checkpoint.
    """
    import transformers
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()
    model_class = getattr(transformers, huggingface_class)

    def load(dtype: DType) -> Any:
        try:
            model = model_class.from_pretrained(
                path,
                dtype=_torch_dtype(dtype),
                attn_implementation="eager",
                local_files_only=True,
                trust_remote_code=False,
                use_safetensors=True,
            )
        except (OSError, ValueError, RuntimeError, KeyError, TypeError, AttributeError) as error:
            raise CodegenError(
                "transformers cannot read this checkpoint",
                where=path,
                got=str(error).strip().splitlines()[0],
                hint="--reference interpreter needs no transformers",
            ) from None
        model.config.use_cache = False
        return model.eval()

    title = f"transformers {transformers.__version__} {huggingface_class}, float32, eager attention"
    is_fused = any(inner_parts(node) for region in graph.layer_kinds for node in region.nodes)
    # Without a config it keeps all tokens of every layer, those outside a window included.
    new_cache = transformers.DynamicCache if is_fused else None
    return TorchReference(title, load, graph, layer_prefix, new_cache)


@dataclass(frozen=True, slots=True)
class UserClass:
    """A class of the user's, and how it was asked for (``FILE.py:Class``)."""

    written: str
    model_class: type[Any]


def user_reference(
    mine: UserClass, checkpoint: Checkpoint, graph: Graph, layer_prefix: str
) -> TorchReference:
    """Returns a module of the user's as a reference.

    The class is called with the checkpoint's config as a mapping, or has a class method
    ``from_checkpoint(path)`` that loads everything itself. ``forward`` takes token ids
    [1, num_tokens] and returns logits [1, num_tokens, vocab_size], or something with ``logits``.

    Raises:
        CodegenError: The class does not take the checkpoint.
    """

    def load(dtype: DType) -> Any:
        if dtype is not DType.F32:
            return None
        try:
            return _user_model(mine.model_class, checkpoint).float().eval()
        except CodegenError:
            raise
        except (Exception, SystemExit) as error:
            raise CodegenError(
                "the reference does not take this checkpoint",
                where=mine.written,
                got=f"{type(error).__name__}: {error}",
            ) from error

    return TorchReference(f"{mine.written}, float32", load, graph, layer_prefix)


def user_class(reference: str) -> UserClass:
    """Returns the class that ``FILE.py:Class`` names; this runs the code in that file, and says so.

    Raises:
        CodegenError: There is no such file or class, or running the file fails.
    """
    match = _USER_MODULE.match(reference)
    if match is None:
        raise CodegenError(
            "unknown reference",
            got=reference,
            expected=f"{TRANSFORMERS}, {INTERPRETER} or FILE.py:Class",
            hint=_hint(reference),
        )
    file, name = Path(match["file"]), match["name"]
    if not file.is_file():
        raise CodegenError(
            "the reference's file does not exist",
            where=file,
            hint=nearest(file.name, [other.name for other in file.parent.glob("*.py")]),
        )
    if not has_torch():
        raise CodegenError("a PyTorch module needs torch", got=reference, hint=INSTALL_HINT)
    found = vars(_run(file))
    if not isinstance(found.get(name), type):
        classes = [other for other, value in found.items() if isinstance(value, type)]
        raise CodegenError(f"there is no class '{name}'", where=file, hint=nearest(name, classes))
    return UserClass(reference, found[name])


def _hint(reference: str) -> str | None:
    file = _USER_FILE.match(reference)
    if file is None:
        return nearest(reference, (TRANSFORMERS, INTERPRETER))
    return f"name a class in the file, too: {file['file']}:Model"


def _run(file: Path) -> ModuleType:
    """Imports a file of the user's."""
    spec = importlib.util.spec_from_file_location(f"_qwen3_reference_{file.stem}", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses and pickling inside it look their module up
    say(f"note: {file} runs as a program of yours")
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise CodegenError(
            "the reference's file cannot be imported",
            where=file,
            got=f"{type(error).__name__}: {error}",
        ) from error
    return module


def _user_model(model_class: Any, checkpoint: Checkpoint) -> Any:
    import torch

    if hasattr(model_class, "from_checkpoint"):
        return model_class.from_checkpoint(checkpoint.path)
    model = model_class(dict(checkpoint.config))
    state = {
        name: torch.from_numpy(np.array(checkpoint.read(name), np.float32))
        for name in checkpoint.tensors
    }
    outcome = model.load_state_dict(state, strict=False)
    tied = {name for names in _tied(model).values() for name in names if len(names) > 1}
    missing = [name for name in outcome.missing_keys if name not in tied]
    if missing:
        raise CodegenError(
            "the module has parameters that the checkpoint does not name",
            where=checkpoint.path,
            got=", ".join(missing[:5]),
            hint="name modules as the checkpoint does, or give the class a from_checkpoint(path)",
        )
    return model


def _tied(model: Any) -> Mapping[int, list[str]]:
    names: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    return names


def _torch_dtype(dtype: DType) -> Any:
    import torch

    return getattr(torch, dtype.value)
