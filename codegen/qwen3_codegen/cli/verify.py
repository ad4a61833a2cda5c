"""``qwen3-codegen verify``: an engine judged op by op, or the first wrong op named."""

from __future__ import annotations

import argparse
import tempfile
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from qwen3_codegen.cli.options import (
    activation_dtype,
    add_override_options,
    add_target_options,
    kv_cache_dtype,
    parse_overrides,
    refuse_unavailable,
)
from qwen3_codegen.errors import CodegenError
from qwen3_codegen.progress import say

if TYPE_CHECKING:
    from rich.progress import Progress

_EXIT_MISSED = 1
_GREEDY_TOKENS = 16

_EPILOG = """\
what is checked, in this order:
  ops      every op's NumPy reference on the engine's own inputs, in float64. Errors do not add up
           from op to op, so the first op over its limit is the first wrong one. This judges the
           emitted C++, the kernels and the device.
  layers   values inside the model against a reference, in the order they are computed. This judges
           the spec: a norm left out, gate and up swapped, another eps, a window too wide.
  logits   of a prefill, chunks, mixed batches and decodes, and greedy tokens.

references:
  transformers    the architecture's own class, where torch and transformers are installed:
                  pip install 'qwen3-codegen[verify]'
  interpreter     the graph before all passes in NumPy, float64; it follows the spec, so it cannot
                  tell whether the spec is right
  FILE.py:Class   a PyTorch module of yours. This runs the code in FILE.py. Class(config) takes the
                  checkpoint's config as a dict; its modules are named as the checkpoint's tensors,
                  or it has a class method from_checkpoint(path). forward(token_ids) gives logits.
  --against DIR   values that --dump-tensors wrote, here or on another machine

examples:
  qwen3-codegen verify --spec qwen3-1.7b                         true shapes, 2 random layers
  qwen3-codegen verify --model CHECKPOINT --output report.json   real weights, a report to keep
  qwen3-codegen verify --spec qwen3-1.7b --dev mlu --infinicore DIR     on a device
  qwen3-codegen verify --spec my-model.yaml --dtype float32 --reference model.py:Model
  qwen3-codegen verify --spec qwen3-1.7b --dev mlu --dump-tensors there
  qwen3-codegen verify --spec qwen3-1.7b --lowering portable --against there

The last line on standard output is the verdict. Exit code 0: all within limits; 1: a limit missed,
the first wrong op and layer named; 2: bad input.
"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the command."""
    parser = subparsers.add_parser(
        "verify",
        help="check an engine op by op, layer by layer, and by its logits",
        description="Builds the engine of a model, runs it, and compares every value with what it "
        "should be. Names the first wrong op and layer.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "--model",
        metavar="CHECKPOINT",
        help="real weights: a Hugging Face folder, GGUF file, or a model on the hub; --set and "
        "--arch alter the engine alone, the reference follows the checkpoint",
    )
    source.add_argument(
        "--spec",
        metavar="NAME|FILE",
        help="random weights at a spec's true shapes; --set alters engine and reference",
    )
    add_target_options(parser)
    add_override_options(parser)
    parser.add_argument(
        "--layers",
        type=int,
        metavar="N",
        help="with --spec: keep only the first N layers; default: 2, or as many as it takes to "
        "have every kind of layer",
    )
    parser.add_argument(
        "--seed", type=int, default=0, metavar="N", help="of random weights and of tokens (0)"
    )
    parser.add_argument(
        "--prompt-len",
        type=int,
        metavar="N",
        help="tokens of the first prompt; default: 32, or enough for windows up to 256",
    )
    parser.add_argument(
        "--greedy-tokens",
        type=int,
        default=_GREEDY_TOKENS,
        metavar="N",
        help=f"tokens to continue each prompt with ({_GREEDY_TOKENS})",
    )
    parser.add_argument(
        "--reference",
        metavar="WHICH",
        help="transformers, interpreter, or FILE.py:Class, which runs that file; default: "
        "transformers where it knows the architecture",
    )
    parser.add_argument(
        "--against", type=Path, metavar="DIR", help="compare with values in this folder, too"
    )
    parser.add_argument(
        "--dump-tensors", type=Path, metavar="DIR", help="write every value of the engine there"
    )
    parser.add_argument("--output", type=Path, metavar="FILE", help="write the report as JSON, too")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Verifies; prints the report on standard output."""
    refuse_unavailable(args)
    _check_arguments(args)
    from qwen3_codegen.verification import write_report
    from qwen3_codegen.verification.command import Command, verify_model, verify_spec
    from qwen3_codegen.verification.table import print_report

    command = Command(
        dev=args.dev,
        dtype=args.dtype,
        activation_dtype=activation_dtype(args),
        kv_cache_dtype=kv_cache_dtype(args),
        infinicore=args.infinicore,
        infinicore_api=args.infinicore_api,
        isa=args.isa,
        lowering=args.lowering,
        arch=args.arch,
        overrides=parse_overrides(args.overrides),
        ignore_config_keys=tuple(args.ignore_config_keys),
        ops=tuple(args.ops),
        seed=args.seed,
        prompt_len=args.prompt_len,
        num_greedy_tokens=args.greedy_tokens,
        reference=args.reference,
        against=args.against,
        dump_tensors=args.dump_tensors,
    )
    with closing(_Progress()) as progress:
        if args.model is not None:
            report = verify_model(args.model, command, progress)
        else:
            with tempfile.TemporaryDirectory(prefix="qwen3-verify-") as folder:
                report = verify_spec(args.spec, args.layers, Path(folder), command, progress)
    print_report(report)
    if args.output is not None:
        write_report(report, args.output)
    return _EXIT_MISSED if report.failures else 0


def _check_arguments(args: argparse.Namespace) -> None:
    """Refuses what would be found out only after minutes of work."""
    numbers = {"--prompt-len": args.prompt_len, "--greedy-tokens": args.greedy_tokens}
    for option, number in numbers.items():
        if number is not None and number < 1:
            raise CodegenError(f"{option} is a whole number from 1", got=number)
    if args.seed < 0:
        raise CodegenError("--seed is a whole number from 0", got=args.seed)
    if args.layers is not None and args.spec is None:
        raise CodegenError(
            "--layers goes with --spec",
            got=f"--model {args.model}",
            hint="a checkpoint is verified whole",
        )
    if args.output is not None and args.output.is_dir():
        raise CodegenError("the report is a file", where=args.output, got="a folder")
    for option in ("against", "dump_tensors"):
        folder = getattr(args, option)
        if folder is not None and folder.exists() and not folder.is_dir():
            raise CodegenError("this is no folder", where=folder)


class _Progress:
    """A line per stage, and on a terminal a bar where it is known how much there is to do.

    Only then: builds and the loading of weights draw bars of their own.
    """

    def __init__(self) -> None:
        self._said: set[str] = set()
        self._bar: Progress | None = None

    def __call__(self, what: str, done: int, total: int) -> None:
        if what not in self._said:
            self._said.add(what)
            self.close()
            say(f"{what} ...")
            if total:
                self._open()
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], completed=done, total=total)
            if done == total:
                self.close()

    def _open(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TimeElapsedColumn

        console = Console(stderr=True)
        if console.is_terminal:
            columns = (BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
            self._bar = Progress(*columns, console=console, transient=True)
            self._bar.add_task("", total=None)
            self._bar.start()

    def close(self) -> None:
        """Takes the bar away."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
