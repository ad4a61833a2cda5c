"""``qwen3-codegen``: finds the command, prints its errors, sets the exit code.

Exit codes: 0 fine, 1 a check or comparison failed, 2 bad input. Modules of commands are imported
only when their command is asked for, so that ``--help`` is instant.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from qwen3_codegen.cli.parser import CommandParser
from qwen3_codegen.distribution import distribution_version

if TYPE_CHECKING:
    from qwen3_codegen.errors import CodegenError
    from qwen3_runtime.errors import RuntimeFault

_COMMANDS = {
    "build": ("build", "compile the engine of a model spec for a device"),
    "import": ("import_", "write a model spec from a checkpoint's config.json or GGUF header"),
    "specs": ("specs", "list what ships, or show exact sizes of one model"),
    "devices": ("devices", "what carries each op out on each device, or why nothing does"),
    "graph": ("graph", "print a model's graph, before or after any pass"),
    "random": ("random_", "write a hard random checkpoint of a spec"),
    "verify": ("verify", "check an engine op by op, layer by layer, and by its logits"),
    "generate": ("generate", "continue a prompt"),
    "chat": ("chat", "talk to a model in the terminal"),
    "serve": ("serve", "serve a model over HTTP, as OpenAI's API"),
    "perplexity": ("perplexity", "measure how well a model foresees a text"),
    "bench": ("bench", "measure how fast a server answers"),
    "infinicore": ("infinicore", "install the InfiniCore library from the package index"),
    "doctor": ("doctor", "check this machine: compiler, processor, memory, InfiniCore, caches"),
    "cache": ("cache", "show or clear the folder of built engines"),
}
"""Command to module and one-line help."""

_EPILOG = """\
first steps:
  qwen3-codegen doctor                                     is anything missing here?
  qwen3-codegen specs                                      what ships
  qwen3-codegen build --spec qwen3-1.7b --dev cpu          a readable engine in ./generated
  qwen3-codegen generate --model CHECKPOINT --prompt "Hello"
  qwen3-codegen chat --model CHECKPOINT
  qwen3-codegen serve --model CHECKPOINT                   OpenAI's API on http://127.0.0.1:8000
"""

EXIT_BAD_INPUT = 2
_LIMITS = ("max_model_len", "max_num_seqs", "max_num_batched_tokens", "kv_cache_memory")
_MEMORY_HINT = "a smaller model, or a smaller --max-model-len"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    chosen = next((word for word in arguments if not word.startswith("-")), None)
    parser = _parser(chosen)
    namespace = parser.parse_args(arguments)
    if not hasattr(namespace, "run"):
        parser.print_help()
        return 0
    return _run(namespace)


def _parser(chosen: str | None) -> argparse.ArgumentParser:
    parser = CommandParser(
        prog="qwen3-codegen",
        description="Compiles language-model specs into readable C++ engines for InfiniCore.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    version = distribution_version() or "unknown"
    parser.add_argument("--version", action="version", version=f"%(prog)s {version}")
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND")
    for command, (module, summary) in _COMMANDS.items():
        if command == chosen:
            _module(module).add_parser(subparsers)
        else:
            subparsers.add_parser(command, help=summary, add_help=False)
    return parser


def _module(name: str) -> ModuleType:
    return importlib.import_module(f"qwen3_codegen.cli.{name}")


def _run(namespace: argparse.Namespace) -> int:
    from qwen3_codegen.errors import CodegenError
    from qwen3_runtime.errors import RuntimeFault

    try:
        code: int = namespace.run(namespace)
        sys.stdout.flush()
    except (CodegenError, RuntimeFault) as error:
        print(f"error: {_with_flags(error, namespace)}", file=sys.stderr)
        return EXIT_BAD_INPUT
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader of our output has gone; keep the interpreter from complaining about it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        print(f"error: {error}{_other_folder(error, namespace)}", file=sys.stderr)
        return EXIT_BAD_INPUT
    except MemoryError:
        print(f"error: out of memory\n  hint:     {_MEMORY_HINT}", file=sys.stderr)
        return EXIT_BAD_INPUT
    return code


def _with_flags(error: CodegenError | RuntimeFault, namespace: argparse.Namespace) -> str:
    """An error's text with options in its hint as the command line spells them."""
    if error.hint is not None:
        for name in _LIMITS:
            if hasattr(namespace, name):
                error.hint = error.hint.replace(name, f"--{name.replace('_', '-')}")
    return str(error)


def _other_folder(error: OSError, namespace: argparse.Namespace) -> str:
    """A line that says what chooses another folder than the one that cannot be written."""
    from qwen3_codegen.paths import cache_dir

    choices = {"--out": getattr(namespace, "out", None), "QWEN3_CODEGEN_CACHE": cache_dir()}
    failed = Path(str(error.filename)).absolute()
    for choice, folder in choices.items():
        if folder is None or error.filename is None:
            continue
        if failed.is_relative_to(folder.absolute()) or folder.absolute().is_relative_to(failed):
            return f"\n  hint:     {choice} chooses another folder"
    return ""


if __name__ == "__main__":
    sys.exit(main())
