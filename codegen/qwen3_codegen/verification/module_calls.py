"""What the modules of a PyTorch model take and give, by name, in the order they run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from inspect import signature
from typing import Any

import numpy as np

from qwen3_codegen.errors import CodegenError
from qwen3_codegen.verification.measure import Array
from qwen3_runtime.engine.batch import FloatRows

__all__ = ["ModuleCalls", "cached_heads", "forward_logits", "module_tensors", "record_calls"]


@dataclass(slots=True)
class ModuleCalls:
    """One module over all sequences, called once in each."""

    kind: str
    """Name of its class."""
    inputs: list[Array] = field(default_factory=list)
    """[num_tokens, ...], or with the first two dimensions swapped; token ids stay whole numbers."""
    outputs: list[Array] = field(default_factory=list)


def module_tensors(model: Any) -> dict[str, dict[str, tuple[str, ...]]]:
    """Returns, by module, all names of each parameter that is its own: tied ones have several."""
    names: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    return {
        module_name: {
            own: tuple(names[id(parameter)])
            for own, parameter in module.named_parameters(recurse=False)
        }
        for module_name, module in model.named_modules()
        if next(module.named_parameters(recurse=False), None) is not None
    }


def record_calls(
    model: Any,
    wanted: Iterable[str],
    sequences: Sequence[Sequence[int]],
    vocab_size: int,
    caches: Sequence[Any] | None = None,
) -> tuple[dict[str, ModuleCalls], list[FloatRows]]:
    """Runs sequences one by one, from their starts.

    Args:
        model: The model.
        wanted: Names of modules.
        sequences: Token ids.
        vocab_size: Columns of the logits.
        caches: An empty cache of transformers' for each, which is filled; None uses none.

    Returns:
        The wanted modules that were called exactly once per sequence, in order of their first
        call; and float32 logits of every sequence.

    Raises:
        CodegenError: The model fails or gives something else than logits.
    """
    modules = dict(model.named_modules())
    calls: dict[str, ModuleCalls] = {}
    counts: dict[str, int] = {}

    def hook(name: str) -> Any:
        def record(module: Any, args: Any, kwargs: Mapping[str, Any], output: Any) -> None:
            given = next(_tensors((*args, *kwargs.values())), None)
            result = next(_tensors((output,)), None)
            if given is None or result is None:
                return
            found = calls.setdefault(name, ModuleCalls(type(module).__name__))
            counts[name] = counts.get(name, 0) + 1
            found.inputs.append(_rows(given))
            found.outputs.append(_rows(result))

        return record

    with ExitStack() as hooks:
        for name in wanted:
            if name in modules:
                handle = modules[name].register_forward_hook(hook(name), with_kwargs=True)
                hooks.callback(handle.remove)
        logits = [
            forward_logits(model, sequence, vocab_size, cache)
            for sequence, cache in zip(sequences, caches or [None] * len(sequences), strict=True)
        ]
    once = {name for name, count in counts.items() if count == len(sequences)}
    return {name: found for name, found in calls.items() if name in once}, logits


def cached_heads(caches: Sequence[Any], layer: int) -> dict[str, list[Array]] | None:
    """Returns ``keys`` and ``values`` [num_tokens, heads, head_dim] of every sequence in a layer.

    None where transformers' caches hold none of that layer.
    """
    rows: dict[str, list[Array]] = {"keys": [], "values": []}
    for cache in caches:
        layers = getattr(cache, "layers", ())
        for name, found in rows.items():
            tensor = getattr(layers[layer], name, None) if layer < len(layers) else None
            if tensor is None or tensor.dim() != 4:
                return None
            found.append(_rows(tensor).swapaxes(0, 1))
    return rows


def forward_logits(
    model: Any, token_ids: Sequence[int], vocab_size: int, cache: Any = None
) -> FloatRows:
    """Returns float32 logits [num_tokens, vocab_size] of one sequence from its start.

    Args:
        model: The model.
        token_ids: The sequence.
        vocab_size: Columns of the logits.
        cache: Filled with what attention remembers; only transformers' models take one.

    Raises:
        CodegenError: The model fails or gives something else than logits.
    """
    import torch

    try:
        with torch.inference_mode():
            keeping = {} if cache is None else {_cache_argument(model): cache, "use_cache": True}
            output = model(torch.tensor([list(token_ids)]), **keeping)
    except (Exception, SystemExit) as error:
        raise CodegenError(
            "the reference fails",
            where=type(model).__name__,
            got=f"{type(error).__name__}: {error}",
        ) from error
    found = getattr(output, "logits", output)
    expected = [1, len(token_ids), vocab_size]
    if not isinstance(found, torch.Tensor) or list(found.shape) != expected:
        shape = list(found.shape) if isinstance(found, torch.Tensor) else type(found).__name__
        raise CodegenError(
            "the reference gives no logits",
            where=type(model).__name__,
            got=shape,
            expected=f"a tensor {expected}: one sequence, its tokens, the vocabulary",
        )
    logits: FloatRows = found[0].float().numpy()
    return logits


def _cache_argument(model: Any) -> str:
    """Releases of transformers call it differently."""
    return "cache" if "cache" in signature(model.forward).parameters else "past_key_values"


def _tensors(values: Iterable[Any]) -> Iterator[Any]:
    """Yields tensors among arguments or results, those inside tuples included."""
    import torch

    for value in values:
        if isinstance(value, torch.Tensor):
            yield value
        elif isinstance(value, tuple | list):
            yield from _tensors(value)


def _rows(tensor: Any) -> Array:
    """One sequence's rows: the batch dimension of one is left out, numbers become float32."""
    tensor = tensor.detach()
    wide = tensor.float() if tensor.is_floating_point() else tensor
    array: Array = np.array(wide.numpy())
    return array[0] if array.ndim > 1 and array.shape[0] == 1 else array
