"""``qwen3-codegen graph``: a model's graph as text or a picture, or the difference of two."""

from __future__ import annotations

import argparse
import difflib
import shlex
from collections.abc import Iterable
from dataclasses import replace

from qwen3_codegen.cli.options import add_spec_options, own_functions, parse_overrides
from qwen3_codegen.drawing import to_svg
from qwen3_codegen.errors import CodegenError, nearest
from qwen3_codegen.frontend import build_graph
from qwen3_codegen.ir.graph import Graph
from qwen3_codegen.ir.printer import format_graph, to_dot
from qwen3_codegen.passes import PIPELINES, Pass, run_pipeline
from qwen3_codegen.progress import say
from qwen3_codegen.spec.catalog import load_model

_FRONTEND = "frontend"
_EXIT_DIFFERENT = 1


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the command."""
    passes = "\n".join(
        f"\nof the {lowering} lowering, in order:\n{_listed(steps)}"
        for lowering, steps in PIPELINES.items()
    )
    parser = subparsers.add_parser(
        "graph",
        help="print a model's graph, before or after any pass",
        description="Prints the graph of a model; by default after all passes.",
        epilog=f"passes:\n  {_FRONTEND:24}The graph as the architecture file says it.\n{passes}\n",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add_spec_options(parser)
    parser.add_argument("--after", metavar="PASS", help="stop after this pass")
    parser.add_argument(
        "--lowering",
        choices=tuple(PIPELINES),
        default="portable",
        help="whose passes to run (portable); engines for the CPU are native",
    )
    parser.add_argument(
        "--format",
        choices=("text", "dot", "svg"),
        default="text",
        help="text (default), dot for Graphviz, or svg, a picture; all on standard output",
    )
    parser.add_argument(
        "--diff",
        metavar="NAME|FILE",
        help="print what --spec has (+) that the graph of this spec has not, and the other way "
        "round (-); --set and the like alter --spec only; exit code 1 when something differs, as "
        "diff does",
    )
    parser.set_defaults(run=run)


def _listed(passes: Iterable[Pass]) -> str:
    return "\n".join(f"  {step.name:24}{step.summary}" for step in passes)


def run(args: argparse.Namespace) -> int:
    """Prints the graph, or the difference of two, on standard output."""
    if args.diff is not None and args.format != "text":
        raise CodegenError(
            "differences are printed as text", got=f"--format {args.format}", expected="no --format"
        )
    functions = own_functions(args)
    spec = load_model(
        args.spec,
        overrides=parse_overrides(args.overrides),
        ignore_config_keys=tuple(args.ignore_config_keys),
        architecture=args.arch,
        own_functions=functions,
    )
    graph = _after(build_graph(spec), args.after, args.lowering)
    if args.diff is not None:
        other_spec = load_model(args.diff, own_functions=functions)
        other = _after(build_graph(other_spec), args.after, args.lowering)
        return _print_difference(other, graph, args.diff, _as_written(args))
    printers = {"text": format_graph, "dot": to_dot, "svg": to_svg}
    print(printers[args.format](graph), end="")
    return 0


def _as_written(args: argparse.Namespace) -> str:
    """The spec with what alters it, for it may be compared with itself."""
    arch = [] if args.arch is None else ["--arch", args.arch]
    altered = [word for pair in args.overrides for word in ("--set", pair)]
    return shlex.join([args.spec, *arch, *altered])


def _print_difference(old: Graph, new: Graph, old_name: str, new_name: str) -> int:
    """Prints a unified diff; models' names and places in files do not count."""
    first, second = (
        format_graph(replace(each, name="model"), with_places=False).splitlines()
        for each in (old, new)
    )
    lines = list(difflib.unified_diff(first, second, old_name, new_name, n=2, lineterm=""))
    for line in lines:
        print(line)
    if not lines:
        say("no difference")
    return _EXIT_DIFFERENT if lines else 0


def _after(graph: Graph, name: str | None, lowering: str) -> Graph:
    passes = PIPELINES[lowering]
    known = [_FRONTEND, *(step.name for step in passes)]
    if name is not None and name not in known:
        raise CodegenError(
            f"unknown pass '{name}'", expected=", ".join(known), hint=nearest(name, known)
        )
    stages: dict[str, Graph] = {}
    last = run_pipeline(graph, stages.__setitem__, passes=passes)
    return stages[name] if name else last
