"""Fuzzes the readers of descriptions, checkpoints, vocabularies and templates.

`python -m tests.fuzz` gives each reader 100,000 inputs, under coverage where atheris is installed.
Each kind of failure leaves its first input in build/fuzz; mended, it goes to tests/fuzz/corpus.
`python -m tests.fuzz --reader gguf FILE ...` reads files again.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
from pathlib import Path

from tests.fuzz.campaign import Report, run_reader
from tests.fuzz.readers import READERS


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument("--inputs", type=int, default=100_000, help="per reader")
    parser.add_argument("--reader", action="append", choices=list(READERS), help="only this one")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("build/fuzz"), help="for reproducers")
    parser.add_argument("--no-coverage", action="store_true", help="even where atheris is there")
    parser.add_argument("files", type=Path, nargs="*", help="inputs to read again")
    arguments = parser.parse_args()
    has_atheris = importlib.util.find_spec("atheris") is not None
    coverage = has_atheris and not arguments.no_coverage and not arguments.files
    if not coverage and not arguments.files:
        print("without coverage: inputs with new outcomes are kept instead (see the extra 'fuzz')")
    reports = []
    for name in arguments.reader or READERS:
        report = run_reader(
            name,
            num_inputs=arguments.inputs,
            seed=arguments.seed,
            out=arguments.out,
            coverage=coverage,
            files=[file.absolute() for file in arguments.files],
            progress=show_progress,
        )
        print(f"\r{line_of(report)}", flush=True)
        for failure in report.failures:
            print(f"  {failure.kind}\n    {failure.file}\n{failure.trace}")
        reports.append(report)
    print(f"{sum(report.facts['inputs'] for report in reports)} inputs", end=", ")
    print(f"{sum(len(report.failures) for report in reports)} failures")
    return int(any(report.failures for report in reports))


def show_progress(name: str, inputs: int, failures: int) -> None:
    """Prints a line that the next one overwrites, to standard error: a log has no use for it."""
    print(f"\r{name}: {inputs} inputs, {failures} failures ", end="", file=sys.stderr, flush=True)


def line_of(report: Report) -> str:
    facts = report.facts
    covered = f", {facts['branches']} branches" if "branches" in facts else ""
    return (
        f"{report.reader}: {facts['inputs']} inputs in {facts['seconds']} s, "
        f"{facts['answers']} answered, {facts['outcomes']} outcomes{covered}; "
        f"slowest {facts['slowest_ms']} ms, memory grew by {facts['memory_mib']} MiB, "
        f"{len(report.failures)} failures"
    )


if __name__ == "__main__":
    sys.exit(main())
