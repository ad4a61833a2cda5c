"""``qwen3-codegen graph``: a model's graph as text or a Graphviz drawing."""

from __future__ import annotations

import argparse

from qwen3_codegen.cli.options import add_spec_options, parse_overrides
from qwen3_codegen.errors import CodegenError, nearest
from qwen3_codegen.frontend import build_graph
from qwen3_codegen.ir.graph import Graph
from qwen3_codegen.ir.printer import format_graph, to_dot
from qwen3_codegen.passes import PIPELINE, run_pipeline
from qwen3_codegen.spec.catalog import load_model

_FRONTEND = "frontend"


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the command."""
    passes = "\n".join(f"  {step.name:24}{step.summary}" for step in PIPELINE)
    parser = subparsers.add_parser(
        "graph",
        help="print a model's graph, before or after any pass",
        description="Prints the graph of a model; by default after all passes.",
        epilog=f"passes, in order:\n  {_FRONTEND:24}The graph as the architecture file says it.\n"
        f"{passes}\n",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add_spec_options(parser)
    parser.add_argument("--after", metavar="PASS", help="stop after this pass")
    parser.add_argument("--format", choices=("text", "dot"), default="text")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Prints the graph on standard output."""
    spec = load_model(
        args.spec,
        overrides=parse_overrides(args.overrides),
        ignore_config_keys=tuple(args.ignore_config_keys),
        architecture=args.arch,
    )
    graph = _after(build_graph(spec), args.after)
    print(format_graph(graph) if args.format == "text" else to_dot(graph), end="")
    return 0


def _after(graph: Graph, name: str | None) -> Graph:
    known = [_FRONTEND, *(step.name for step in PIPELINE)]
    if name is not None and name not in known:
        raise CodegenError(
            f"unknown pass '{name}'", expected=", ".join(known), hint=nearest(name, known)
        )
    stages: dict[str, Graph] = {}
    last = run_pipeline(graph, stages.__setitem__)
    return stages[name] if name else last
