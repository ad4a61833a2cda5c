"""``qwen3-codegen random``: a hard random checkpoint of a spec."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path

from qwen3_codegen.cli.options import add_spec_options, own_functions, parse_overrides
from qwen3_codegen.errors import CodegenError
from qwen3_codegen.progress import format_bytes, say
from qwen3_codegen.random_checkpoint import first_layers, write_random_checkpoint
from qwen3_codegen.spec.catalog import load_model
from qwen3_codegen.spec.device import parse_dtype
from qwen3_codegen.spec.model import ModelSpec
from qwen3_codegen.spec.resolve import with_dtype
from qwen3_runtime.checkpoint import progress_bar


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the command."""
    parser = subparsers.add_parser(
        "random",
        help="write a hard random checkpoint of a spec",
        description="Writes config.json and model.safetensors with random weights that make a "
        "wrong engine visible. There is no tokenizer; prompts are token ids.",
        allow_abbrev=False,
    )
    add_spec_options(parser)
    parser.add_argument("--layers", type=int, metavar="N", help="keep only the first N layers")
    parser.add_argument("--dtype", metavar="T", help="float32, bfloat16 or float16")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of every draw (0)")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="DIR")
    parser.add_argument("--force", action="store_true", help="replace a checkpoint of this kind")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Writes the checkpoint; prints its folder on standard output."""
    if args.seed < 0:
        raise CodegenError("--seed is a whole number from 0", got=args.seed)
    overrides = parse_overrides(args.overrides)
    spec = _load(args, overrides)
    if args.layers is not None:
        spec = _load(args, {**overrides, **first_layers(spec, args.layers)})
    if args.dtype:
        spec = with_dtype(spec, parse_dtype(args.dtype))
    for note in spec.notes:
        say(f"note: {note}")
    with progress_bar("Writing weights") as progress:
        num_bytes = write_random_checkpoint(
            spec, args.output, seed=args.seed, progress=progress, replace=args.force
        )
    say(f"{format_bytes(num_bytes)} of {spec.dtype.value} weights")
    print(args.output)
    return 0


def _load(args: argparse.Namespace, overrides: Mapping[str, str]) -> ModelSpec:
    return load_model(
        args.spec,
        overrides=overrides,
        ignore_config_keys=tuple(args.ignore_config_keys),
        architecture=args.arch,
        own_functions=own_functions(args),
    )
