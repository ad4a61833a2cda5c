"""``qwen3-codegen specs``: what ships, and the exact sizes of one model."""

from __future__ import annotations

import argparse
from collections import Counter

from qwen3_codegen.cli.options import add_override_options, own_functions, parse_overrides
from qwen3_codegen.dtypes import DType
from qwen3_codegen.model_size import ModelSize, model_size
from qwen3_codegen.progress import say
from qwen3_codegen.spec.catalog import load_model, model_names, shipped_models
from qwen3_codegen.spec.model import ModelSpec

_DTYPES = (DType.F32, DType.BF16, DType.F16)


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the command."""
    parser = subparsers.add_parser(
        "specs",
        help="list what ships, or show exact sizes of one model",
        description="Lists the shipped model specs; `specs show NAME` counts one exactly.",
        allow_abbrev=False,
    )
    parser.set_defaults(run=run_list)
    commands = parser.add_subparsers(metavar="show NAME")
    show = commands.add_parser(
        "show", help="exact parameters, weight bytes per dtype, cache bytes per token"
    )
    show.add_argument("name", metavar="NAME|FILE", help="a shipped spec, YAML file or checkpoint")
    add_override_options(show)
    show.set_defaults(run=run)


def run_list(args: argparse.Namespace) -> int:
    """Prints one line per shipped model spec."""
    models = {model.name: model for model in shipped_models()}
    sizes = {name: model_size(load_model(name)) for name in model_names()}
    width = max(map(len, models))
    for name, size in sorted(sizes.items(), key=lambda item: item[1].num_parameters):
        millions = size.num_parameters / 1e6
        print(f"{name:{width}}  {millions:>9,.1f} M  {models[name].description}")
    return 0


def run(args: argparse.Namespace) -> int:
    """Prints one model's sizes."""
    spec = load_model(
        args.name,
        overrides=parse_overrides(args.overrides),
        ignore_config_keys=tuple(args.ignore_config_keys),
        architecture=args.arch,
        own_functions=own_functions(args),
    )
    for note in spec.notes:
        say(f"note: {note}")
    rows = [*_structure(spec), *_sizes(model_size(spec))]
    width = max(len(label) for label, _ in rows)
    for label, value in rows:
        print(f"{label:{width}}  {value}")
    return 0


def _structure(spec: ModelSpec) -> list[tuple[str, str]]:
    kinds = Counter(
        (layer.layer_type, layer.attributes.get("window"), layer.attributes.get("sparse"))
        for layer in spec.layers
    )
    layers = []
    for (layer_type, window, _), count in kinds.items():
        window_text = f" (window {window})" if window is not None else ""
        layers.append(f"{count} {layer_type}{window_text}")
    tables = [
        f"{table.name}: {table.rotary_dim} of a head's elements" for table in spec.rope.values()
    ]
    return [
        ("model", spec.name),
        ("architecture", f"{spec.architecture.name} ({spec.architecture.description})"),
        ("layers", f"{len(spec.layers)}: {', '.join(layers)}"),
        ("rope", "; ".join(tables) or "none"),
        ("context", f"{spec.size('max_position_embeddings'):,} tokens"),
        ("dtype", spec.dtype.value),
    ]


def _sizes(size: ModelSize) -> list[tuple[str, str]]:
    rows = [("parameters", f"{size.num_parameters:,}")]
    rows += [(f"weights {dtype.value}", f"{size.weight_bytes(dtype):,} bytes") for dtype in _DTYPES]
    rows += [
        (f"cache {dtype.value}", f"{size.kv_bytes_per_token(dtype):,} bytes per token")
        for dtype in _DTYPES
    ]
    if size.num_windowed_layers:
        rows.append(("windows", f"{size.num_windowed_layers} layers keep no more than a window"))
    if size.num_recurrent_layers:
        rows.append(("states", f"{size.num_recurrent_layers} layers keep a state of fixed size"))
    return rows
