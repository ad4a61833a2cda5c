"""``qwen3-codegen perplexity``: how well a model foresees a text."""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from qwen3_codegen.cli.model_options import add_model_options, open_model, require_tokenizer
from qwen3_codegen.cli.options import existing_path
from qwen3_codegen.errors import CodegenError

if TYPE_CHECKING:
    from qwen3_runtime.perplexity import Perplexity

_CTX_LEN = 2048
_EXAMPLES = """\
examples:
  qwen3-codegen perplexity --model CHECKPOINT --text wiki.test.raw
  qwen3-codegen perplexity --model CHECKPOINT --text FILE --ctx-len 1024 --stride 512

The text is cut into windows of --ctx-len tokens, each --stride tokens after the one before. A
window scores the tokens that no earlier one has scored, except the very first of the text, and
reads the others as context. Over the N scored tokens

  perplexity = exp(-1/N * sum of log p(token | tokens before it in its window))
"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the command."""
    parser = subparsers.add_parser(
        "perplexity",
        help="measure how well a model foresees a text",
        description="Computes a model's perplexity on a text with sliding windows.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add_model_options(parser)
    parser.add_argument(
        "--text", required=True, type=existing_path, metavar="FILE", help="UTF-8 text"
    )
    parser.add_argument(
        "--token-ids", action="store_true", help="the file holds token ids, separated by blanks"
    )
    parser.add_argument(
        "--ctx-len",
        type=int,
        metavar="N",
        help=f"tokens of a window; default: {_CTX_LEN}, or what the model has",
    )
    parser.add_argument(
        "--stride",
        type=int,
        metavar="N",
        help="tokens from one window to the next; default: half a window",
    )
    parser.add_argument(
        "--max-windows", type=int, metavar="N", help="stop after so many windows; default: all"
    )
    parser.add_argument("--output", type=Path, metavar="FILE", help="write the result as JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Computes and prints."""
    for name in ("ctx_len", "stride", "max_windows"):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise CodegenError(f"--{name.replace('_', '-')} is out of range", got=value)
    if not args.token_ids:
        require_tokenizer(args.model, "give a file of token ids with --token-ids")
    given = _given(args)
    args.max_model_len = args.max_model_len or args.ctx_len
    from qwen3_codegen.progress import counted

    with open_model(args, max_num_seqs=1) as llm:
        ctx_len = args.ctx_len or min(_CTX_LEN, llm.engine.max_model_len)
        started = time.monotonic()
        with counted("Tokens", None) as advance:
            result = llm.perplexity(
                given,
                ctx_len=ctx_len,
                stride=args.stride,
                max_windows=args.max_windows,
                on_progress=advance,
            )
        seconds = time.monotonic() - started
        _print(llm.spec.name, result, seconds)
        if args.output is not None:
            content = {"model": llm.spec.name, **asdict(result), "seconds": round(seconds, 3)}
            args.output.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    return 0


def _given(args: argparse.Namespace) -> str | list[int]:
    try:
        text = str(args.text.read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        raise CodegenError("the text is not UTF-8", where=args.text, got=error) from None
    if not args.token_ids:
        return text
    try:
        return [int(word) for word in text.replace(",", " ").split()]
    except ValueError as error:
        raise CodegenError("the file holds no token ids", where=args.text, got=error) from None


def _print(name: str, result: Perplexity, seconds: float) -> None:
    rows = [
        ("model", name),
        ("perplexity", f"{result.perplexity:.4f}"),
        ("mean NLL", f"{result.mean_nll:.6f} nats per token"),
        ("tokens", f"{result.num_tokens}, {result.num_scored_tokens} scored"),
        ("windows", f"{result.num_windows} of {result.ctx_len}, stride {result.stride}"),
        ("time", f"{seconds:.1f} s"),
    ]
    for row, value in rows:
        print(f"{row:<12}{value}")
