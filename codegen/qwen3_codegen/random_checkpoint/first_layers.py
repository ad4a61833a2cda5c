"""The first layers of a model as a model of its own."""

from __future__ import annotations

import json

from qwen3_codegen.errors import CodegenError
from qwen3_codegen.spec.model import ModelSpec

__all__ = ["first_layers", "layers_of_every_kind"]


def first_layers(spec: ModelSpec, count: int) -> dict[str, str]:
    """Returns overrides that keep a model's first layers, lists with one entry each included.

    Raises:
        CodegenError: The model has not so many.
    """
    if not 1 <= count <= len(spec.layers):
        raise CodegenError(
            "--layers is out of range", got=count, expected=f"1 to {len(spec.layers)}"
        )
    overrides = {"num_hidden_layers": str(count)}
    for field in spec.architecture.config.fields.values():
        given = spec.huggingface_config.get(field.name)
        if field.per_layer and isinstance(given, tuple):
            overrides[field.name] = json.dumps(given[:count])
    return overrides


def layers_of_every_kind(spec: ModelSpec) -> int:
    """Returns how many first layers show every kind of layer; two at least, where there are two."""
    seen: list[object] = []
    needed = 1
    for index, layer in enumerate(spec.layers, start=1):
        kind = (layer.layer_type, layer.blocks, layer.attributes)
        if kind not in seen:
            seen.append(kind)
            needed = index
    return min(len(spec.layers), max(2, needed))
