"""Options of the commands that run a model, and opening it with them."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qwen3_codegen.cli.options import (
    add_override_options,
    add_target_options,
    parse_overrides,
    refuse_unavailable,
)
from qwen3_codegen.errors import CodegenError
from qwen3_codegen.progress import format_bytes, say

if TYPE_CHECKING:
    from qwen3_codegen.llm import LLM
    from qwen3_runtime.engine.batch import Engine


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """Adds what chooses a checkpoint and how to run it."""
    parser.add_argument(
        "--model",
        required=True,
        metavar="CHECKPOINT",
        help="Hugging Face folder, GGUF file, or a model on the hub (Qwen/Qwen3-0.6B, or with "
        "@revision)",
    )
    add_target_options(parser)
    add_override_options(parser)
    parser.add_argument(
        "--engine",
        choices=("compiled", "interpreter"),
        default="compiled",
        help="interpreter runs the graph in NumPy, in float32: slow, but needs no compiler",
    )
    group = parser.add_argument_group(
        "memory", "what is left out is chosen to fit the free memory, and said"
    )
    group.add_argument(
        "--max-model-len", type=int, metavar="N", help="most tokens of prompt and answer together"
    )
    group.add_argument(
        "--max-num-seqs",
        type=int,
        metavar="N",
        help="most sequences in flight; default: as many as there are prompts, 16 in a server",
    )
    group.add_argument(
        "--max-num-batched-tokens", type=int, metavar="N", help="most tokens of a step"
    )
    group.add_argument(
        "--kv-cache-memory",
        metavar="SIZE",
        help="for keys and values: 2GiB, 512MB, or bytes; default: a quarter of the free memory, "
        "at most 2 GiB",
    )


def add_sampling_options(parser: argparse.ArgumentParser, *, max_tokens: int | None = None) -> None:
    """Adds sampling parameters; those left out come from the checkpoint.

    Args:
        parser: Where to.
        max_tokens: Default of ``--max-tokens``; None goes on to the end of the context.
    """
    group = parser.add_argument_group(
        "sampling", "defaults come from the model's generation_config.json; else as follows"
    )
    until = "until the context is full" if max_tokens is None else max_tokens
    group.add_argument(
        "--max-tokens",
        type=int,
        default=max_tokens,
        metavar="N",
        help=f"most tokens to generate; default: {until}",
    )
    group.add_argument(
        "--temperature", type=float, metavar="T", help="0 is greedy; at most 2; default: 1"
    )
    group.add_argument(
        "--top-p", type=float, metavar="P", help="the likeliest tokens of this mass; default: 1"
    )
    group.add_argument("--top-k", type=int, metavar="K", help="0 is off; default: 0")
    group.add_argument("--seed", type=int, metavar="S", help="makes sampling repeatable")
    group.add_argument(
        "--stop", action="append", metavar="TEXT", help="end before this text; may be repeated"
    )
    group.add_argument("--ignore-eos", action="store_true", help="go on past end tokens")


def open_model(args: argparse.Namespace, max_num_seqs: int) -> LLM:
    """Opens the model of a command and says what was opened.

    Raises:
        CodegenError: An option does not fit.
    """
    refuse_unavailable(args)
    from qwen3_codegen.llm import LLM

    started = time.monotonic()
    llm = LLM(args.model, **model_arguments(args, max_num_seqs))
    for note in llm.notes:
        say(f"note: {note}")
    say(f"{llm.spec.name}: ready in {time.monotonic() - started:.1f} s, {_limits(llm.engine)}")
    return llm


def model_arguments(args: argparse.Namespace, max_num_seqs: int) -> dict[str, Any]:
    """Returns the keyword arguments of ``LLM`` that the options stand for."""
    return {
        "dev": args.dev,
        "dtype": args.dtype or "auto",
        "activation_dtype": args.activation_dtype,
        "kv_cache_dtype": args.kv_cache_dtype,
        "max_num_seqs": max_num_seqs if args.max_num_seqs is None else args.max_num_seqs,
        "max_model_len": args.max_model_len,
        "max_num_batched_tokens": args.max_num_batched_tokens,
        "kv_cache_memory": args.kv_cache_memory,
        "engine": args.engine,
        "arch": args.arch,
        "overrides": parse_overrides(args.overrides),
        "ignore_config_keys": args.ignore_config_keys,
        "infinicore": args.infinicore,
        "infinicore_api": args.infinicore_api,
        "isa": args.isa,
        "lowering": args.lowering,
        "ops": args.ops,
    }


def _limits(engine: Engine) -> str:
    """What the engine has room for."""
    from qwen3_runtime.engine.compiled import CompiledEngine

    limits = f"context {engine.max_model_len} tokens, {engine.max_num_seqs} in flight at most"
    if not isinstance(engine, CompiledEngine):
        return limits
    return f"{limits}, {format_bytes(engine.capacity.kv_cache_bytes)} for keys and values"


def require_tokenizer(model: str, hint: str, *, chat: bool = False) -> None:
    """Refuses a folder without a tokenizer before an engine is built and weights are read.

    Args:
        model: As ``--model`` names it.
        hint: What to do without one.
        chat: Whether the tokenizer needs a chat template, too.

    Raises:
        CodegenError: There is none.
        RuntimeFault: The checkpoint's files do not fit.
    """
    from qwen3_runtime.checkpoint import open_checkpoint
    from qwen3_runtime.text import load_tokenizer

    folder = Path(model)
    if not (folder / "config.json").is_file():
        return
    if (folder / "tokenizer.json").is_file() and not chat:
        return
    checkpoint = open_checkpoint(folder)
    try:
        tokenizer = load_tokenizer(checkpoint)
    finally:
        checkpoint.close()
    if tokenizer is None:
        raise CodegenError("this checkpoint has no tokenizer", where=model, hint=hint)
    if chat and tokenizer.chat_template is None:
        raise CodegenError("this checkpoint has no chat template", where=model, hint=hint)


def given_sampling(args: argparse.Namespace) -> dict[str, Any]:
    """Returns the sampling parameters that the command line says, each of them in range.

    Raises:
        RequestError: One is not, which is said before a model is built and read.
    """
    from qwen3_runtime.sampling import SamplingParams

    given = {
        "max_tokens": args.max_tokens,
        "temperature": args.temperature,
        "top_p": args.top_p,
        "top_k": args.top_k,
        "seed": args.seed,
        "stop": tuple(args.stop) if args.stop else None,
        "ignore_eos": True if args.ignore_eos else None,
    }
    chosen = {name: value for name, value in given.items() if value is not None}
    SamplingParams(**chosen)  # checks
    return chosen


def require(condition: bool, message: str, hint: str) -> None:
    """Raises CodegenError unless a condition on the options holds."""
    if not condition:
        raise CodegenError(message, hint=hint)
