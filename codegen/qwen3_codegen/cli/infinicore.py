"""``qwen3-codegen infinicore install``: the real library, built from the package index."""

from __future__ import annotations

import argparse
from pathlib import Path

from qwen3_codegen.cli.options import existing_path
from qwen3_codegen.infinicore.install import default_root, install, probe
from qwen3_codegen.progress import say, status


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the command."""
    parser = subparsers.add_parser(
        "infinicore",
        help="install the InfiniCore library from the package index",
        description="Gets InfiniCore's sources from the package index and builds its CPU part.",
        allow_abbrev=False,
    )
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    action = actions.add_parser(
        "install",
        help="download, build and install; about half a minute",
        description="Afterwards `--infinicore 0.1.0` links engines against it.",
    )
    action.add_argument("--dev", choices=("cpu",), default="cpu", help="part to build (cpu)")
    action.add_argument("--source", type=existing_path, metavar="DIR", help="sources at hand")
    action.add_argument("--root", type=Path, metavar="DIR", help="where to; default: the cache")
    action.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Installs; prints the INFINI_ROOT on standard output."""
    root = args.root or default_root("0.1.0")
    with status() as notify:
        install(root, source=args.source, device=args.dev, progress=notify)
    found = probe(root)
    say(f"InfiniCore with the C API of release {found.release} is in {found.lib_dir}")
    print(found.root)
    return 0
