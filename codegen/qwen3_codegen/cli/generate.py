"""``qwen3-codegen generate``: continues prompts; text on stdout, all else on stderr."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from qwen3_codegen.cli.model_options import (
    add_model_options,
    add_sampling_options,
    given_sampling,
    open_model,
    require,
    require_tokenizer,
)
from qwen3_codegen.cli.options import existing_path, parse_overrides
from qwen3_codegen.errors import CodegenError
from qwen3_codegen.progress import say

_MAX_TOKENS = 256
"""By default; base models and random ones would go on to the end of the context."""

_EXAMPLES = """\
examples:
  qwen3-codegen generate --model CHECKPOINT --prompt "Once upon a time" --max-tokens 64
  qwen3-codegen generate --model CHECKPOINT --prompt A --prompt B     one mixed batch
  echo "Once upon a time" | qwen3-codegen generate --model CHECKPOINT
  qwen3-codegen generate --model CHECKPOINT --token-ids 1,2,3         without a tokenizer
"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the command."""
    parser = subparsers.add_parser(
        "generate",
        help="continue a prompt",
        description="Continues prompts. The engine is built on first use and kept in the cache.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add_model_options(parser)
    parser.add_argument(
        "--prompt", action="append", metavar="TEXT", help="may be repeated; default: stdin"
    )
    parser.add_argument("--prompt-file", type=existing_path, metavar="FILE")
    parser.add_argument(
        "--token-ids",
        action="append",
        metavar="IDS",
        help="a prompt as ids: 1,2,3; may stand beside --prompt",
    )
    add_sampling_options(parser, max_tokens=_MAX_TOKENS)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Generates; a single prompt streams."""
    sampling = given_sampling(args)
    prompts = _prompts(args)
    if any(isinstance(prompt, str) for prompt in prompts):
        require_tokenizer(args.model, "give token ids instead: --token-ids 1,2,3")
    if args.stop:
        require_tokenizer(args.model, "leave out --stop, which is a text")
    _check_ids(args, prompts)
    llm = open_model(args, max_num_seqs=len(prompts))
    with llm:
        params = replace(llm.default_sampling_params, **sampling)
        streams = len(prompts) == 1 and llm.tokenizer is not None
        started = time.monotonic()
        outputs = llm.generate(prompts, params, on_text=_write if streams else None)
        seconds = time.monotonic() - started
    if streams:
        print()
    for index, output in enumerate(outputs if not streams else []):
        if len(outputs) > 1:
            say(f"--- prompt {index}, {output.finish_reason} ---")
        print(output.text if llm.tokenizer else ",".join(map(str, output.token_ids)))
    generated = sum(len(output.token_ids) for output in outputs)
    read = sum(output.num_prompt_tokens for output in outputs)
    say(f"{read} prompt tokens, {generated} new tokens in {seconds:.2f} s")
    return 0


def _prompts(args: argparse.Namespace) -> list[str | Sequence[int]]:
    given: list[str | Sequence[int]] = list(args.prompt or [])
    if args.prompt_file:
        given.append(_text(args.prompt_file))
    given += [_ids(text) for text in args.token_ids or []]
    if given:
        return given
    require(
        not sys.stdin.isatty(), "there is no prompt", "--prompt TEXT, or text on standard input"
    )
    return [_decoded(sys.stdin.read, "standard input").rstrip("\n")]


def _text(file: Path) -> str:
    return _decoded(lambda: file.read_text(encoding="utf-8"), file)


def _decoded(read: Callable[[], str], where: object) -> str:
    try:
        return read()
    except UnicodeDecodeError as error:
        raise CodegenError("the prompt is not UTF-8 text", where=where, got=error) from None


def _ids(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise CodegenError("--token-ids takes numbers separated by commas", got=text) from None


def _check_ids(args: argparse.Namespace, prompts: Sequence[str | Sequence[int]]) -> None:
    """Refuses ids outside a folder's vocabulary before an engine is built and weights are read.

    Where the folder does not plainly say how large that is, the engine refuses them later.
    """
    from qwen3_runtime.checkpoint import open_checkpoint
    from qwen3_runtime.engine.prefill import check_ids

    folder = Path(args.model)
    given = {f"prompt {i}": ids for i, ids in enumerate(prompts) if not isinstance(ids, str)}
    is_changed = args.arch is not None or "vocab_size" in parse_overrides(args.overrides)
    if not given or is_changed or not (folder / "config.json").is_file():
        return
    with closing(open_checkpoint(folder)) as checkpoint:
        size = checkpoint.config.get("vocab_size")
    for name, ids in given.items():
        if type(size) is int and size > 0:
            check_ids(ids, size, name)


def _write(_index: int, text: str) -> None:
    print(text, end="", flush=True)
