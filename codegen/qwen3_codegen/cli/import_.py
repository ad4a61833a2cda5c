"""``qwen3-codegen import``: a readable model spec from a config.json or a GGUF header."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from qwen3_codegen.cli.options import add_override_options, own_functions, parse_overrides
from qwen3_codegen.emission.render import write_if_changed
from qwen3_codegen.errors import SpecError
from qwen3_codegen.progress import say
from qwen3_codegen.spec.catalog import load_model
from qwen3_codegen.spec.export import model_yaml


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the command."""
    parser = subparsers.add_parser(
        "import",
        help="write a model spec from a checkpoint's config.json or GGUF header",
        description="Reads the sizes of a checkpoint and writes them as a model spec, checked "
        "against its architecture. Weights are not read.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "checkpoint", metavar="CHECKPOINT", help="a folder, its config.json, or a GGUF file"
    )
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FILE.yaml")
    parser.add_argument("--name", help="the model's name; default: the checkpoint's or spec's")
    parser.add_argument("--force", action="store_true", help="replace an existing file")
    add_override_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Writes the spec; prints its path on standard output."""
    output: Path = args.output
    if output.suffix not in (".yaml", ".yml"):
        raise SpecError("a model spec is a YAML file", where=output, expected="a name in .yaml")
    if output.exists() and not args.force:
        raise SpecError("the file exists", where=output, hint="--force replaces it")
    spec = load_model(
        args.checkpoint,
        overrides=parse_overrides(args.overrides),
        ignore_config_keys=tuple(args.ignore_config_keys),
        architecture=args.arch,
        own_functions=own_functions(args),
        name=args.name,
    )
    for note in spec.notes:
        say(f"note: {note}")
    architecture = _reference(args.arch, output) if args.arch else spec.architecture.name
    write_if_changed(output, model_yaml(spec, architecture=architecture))
    print(output)
    return 0


def _reference(architecture: str, output: Path) -> str:
    """Returns ``--arch`` as the spec must write it: a file is looked for beside the spec."""
    if not architecture.endswith((".yaml", ".yml")) or Path(architecture).is_absolute():
        return architecture
    return os.path.relpath(Path(architecture).resolve(), output.parent.resolve())
