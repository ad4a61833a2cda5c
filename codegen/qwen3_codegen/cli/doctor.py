"""``qwen3-codegen doctor``: what this machine has, what is missing, how to mend it."""

from __future__ import annotations

import argparse

from qwen3_codegen.doctor import Status, examine

_EXIT_MISSING = 1


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the command."""
    parser = subparsers.add_parser(
        "doctor",
        help="check this machine: compiler, processor, memory, InfiniCore, caches",
        description="Prints a line for each thing engines need: ok, missing, or a note. "
        "Exit code 1 when something is missing that engines for --dev need.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--dev", default="cpu", metavar="NAME|FILE", help="device, alias or device YAML (cpu)"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Prints the findings as they come."""
    num_missing = 0
    for finding in examine(args.dev):
        print(f"{finding.status.value:7}  {finding.subject:22}  {finding.found}", flush=True)
        if finding.mend is not None:
            print(f"{'':7}  {'':22}  mend: {finding.mend}", flush=True)
        num_missing += finding.status is Status.MISSING
    return _EXIT_MISSING if num_missing else 0
